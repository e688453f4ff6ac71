//! What is shown, and what a key means.

use std::cmp::Ordering;
use std::collections::VecDeque;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::widgets::TableState;

use crate::cli::live::Picture;
use crate::cli::orders::Verb;
use crate::cli::status::trouble;
use crate::cli::table::{Tone, clean};
use crate::http::dto::{LogLine, Service};

/// Lines of a log that are kept.
const LOG_KEPT: usize = 500;
/// Longest filter, in characters.
const FILTER: usize = 64;
/// Lines for a page up or down.
const PAGE: isize = 10;

/// What a key asks the world for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Quit,
    Order(Verb, String),
    /// The log of this service is shown from now on; of none.
    Log(Option<String>),
}

/// What the services are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Trouble,
    Name,
    Cpu,
    Memory,
    Restarts,
}

impl Sort {
    const ALL: [Self; 5] = [Self::Trouble, Self::Name, Self::Cpu, Self::Memory, Self::Restarts];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Trouble => "trouble",
            Self::Name => "name",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Restarts => "restarts",
        }
    }

    fn next(self) -> Self {
        let at = Self::ALL.iter().position(|sort| *sort == self).unwrap_or_default();
        Self::ALL[(at + 1) % Self::ALL.len()]
    }

    /// The worst, or the most, first; what is alike by name.
    fn compare(self, a: &Service, b: &Service) -> Ordering {
        let most = |a: Option<f64>, b: Option<f64>| b.unwrap_or(-1.0).total_cmp(&a.unwrap_or(-1.0));
        match self {
            Self::Trouble => trouble(b).cmp(&trouble(a)),
            Self::Name => Ordering::Equal,
            Self::Cpu => most(a.cpu_percent, b.cpu_percent),
            Self::Memory => most(a.memory_mb, b.memory_mb),
            Self::Restarts => b.restart_count.cmp(&a.restart_count),
        }
        .then_with(|| a.id.cmp(&b.id))
    }
}

/// What keys go to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Table,
    /// They are typed into the filter.
    Filter,
    /// `y` gives the order.
    Confirm(Verb, String),
    Help,
}

/// What is below the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pane {
    None,
    Details,
    Log,
}

/// What became of an order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) text: String,
    pub(super) tone: Tone,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Top {
    pub(super) picture: Picture,
    pub(super) colours: bool,
    pub(super) mode: Mode,
    pub(super) pane: Pane,
    pub(super) sort: Sort,
    pub(super) filter: String,
    pub(super) note: Option<Note>,
    /// Of the service that the log below the table is of.
    pub(super) lines: VecDeque<String>,
    /// The chosen service, wherever it is sorted to.
    pub(super) chosen: Option<String>,
    /// How far the table is scrolled.
    pub(super) table: TableState,
}

impl Top {
    pub(super) fn new(picture: Picture, colours: bool) -> Self {
        let mut top = Self {
            picture,
            colours,
            mode: Mode::Table,
            pane: Pane::None,
            sort: Sort::Trouble,
            filter: String::new(),
            note: None,
            lines: VecDeque::new(),
            chosen: None,
            table: TableState::default(),
        };
        top.choose(0);
        top
    }

    /// The services that the filter leaves, in their order. It looks at names, states, health and groups.
    pub(super) fn shown(&self) -> Vec<&Service> {
        let filter = self.filter.to_lowercase();
        let has = |text: &String| text.to_lowercase().contains(&filter);
        let matches =
            |s: &&Service| [&s.id, &s.name, &s.state, &s.health].into_iter().chain(&s.groups).any(has);
        let mut shown: Vec<&Service> = self.picture.status.services.values().filter(matches).collect();
        shown.sort_by(|a, b| self.sort.compare(a, b));
        shown
    }

    /// The chosen service, if it is still there.
    pub(super) fn service(&self) -> Option<&Service> {
        self.picture.status.services.get(self.chosen.as_ref()?)
    }

    /// What a key means.
    pub(super) fn key(&mut self, key: KeyEvent) -> Vec<Effect> {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { vec![Effect::Quit] } else { Vec::new() };
        }
        let before = self.logged();
        let effect = match std::mem::replace(&mut self.mode, Mode::Table) {
            Mode::Table => self.table_key(key.code),
            Mode::Filter => self.filter_key(key.code),
            Mode::Confirm(verb, id) if matches!(key.code, KeyCode::Char('y' | 'Y')) => self.give(verb, id),
            Mode::Confirm(..) => {
                self.note = Some(Note { text: "nothing was done".into(), tone: Tone::Off });
                None
            }
            Mode::Help => None,
        };
        let after = self.logged();
        let log = (before != after).then(|| {
            self.lines.clear();
            Effect::Log(after)
        });
        effect.into_iter().chain(log).collect()
    }

    /// The service whose log is shown.
    fn logged(&self) -> Option<String> {
        self.chosen.clone().filter(|_| self.pane == Pane::Log)
    }

    fn table_key(&mut self, key: KeyCode) -> Option<Effect> {
        match key {
            KeyCode::Char('q') => return Some(Effect::Quit),
            KeyCode::Esc if !self.filter.is_empty() => self.set_filter(String::new()),
            KeyCode::Esc => self.pane = Pane::None,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.mode = Mode::Help,
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Char('o') => self.sort = self.sort.next(),
            KeyCode::Enter | KeyCode::Char('d') => self.toggle(Pane::Details),
            KeyCode::Char('l') => self.toggle(Pane::Log),
            KeyCode::Down | KeyCode::Char('j') => self.go(1),
            KeyCode::Up | KeyCode::Char('k') => self.go(-1),
            KeyCode::PageDown => self.go(PAGE),
            KeyCode::PageUp => self.go(-PAGE),
            KeyCode::Home | KeyCode::Char('g') => self.choose(0),
            KeyCode::End | KeyCode::Char('G') => self.choose(usize::MAX),
            KeyCode::Char('s') => return self.order(Verb::Start),
            KeyCode::Char('x') => return self.order(Verb::Stop),
            KeyCode::Char('r') => return self.order(Verb::Restart),
            _ => {}
        }
        None
    }

    fn filter_key(&mut self, key: KeyCode) -> Option<Effect> {
        let mut filter = self.filter.clone();
        match key {
            KeyCode::Enter | KeyCode::Down | KeyCode::Up => return None,
            KeyCode::Esc => {
                self.set_filter(String::new());
                return None;
            }
            KeyCode::Backspace => drop(filter.pop()),
            KeyCode::Char(c) if filter.chars().count() < FILTER => filter.push(c),
            _ => {}
        }
        self.mode = Mode::Filter;
        self.set_filter(filter);
        None
    }

    fn set_filter(&mut self, filter: String) {
        self.filter = filter;
        if self.row(&self.shown()).is_none() {
            self.choose(0);
        }
    }

    fn toggle(&mut self, pane: Pane) {
        self.pane = if self.pane == pane { Pane::None } else { pane };
    }

    /// A start does no harm; the others are asked about.
    fn order(&mut self, verb: Verb) -> Option<Effect> {
        let id = self.service()?.id.clone();
        if verb == Verb::Start {
            return self.give(verb, id);
        }
        self.mode = Mode::Confirm(verb, id);
        None
    }

    fn give(&mut self, verb: Verb, id: String) -> Option<Effect> {
        let text = format!("{} {id} ...", verb.word());
        self.note = Some(Note { text, tone: Tone::Changing });
        Some(Effect::Order(verb, id))
    }

    fn go(&mut self, by: isize) {
        let at = self.row(&self.shown()).unwrap_or_default();
        self.choose(at.saturating_add_signed(by));
    }

    /// The chosen service's row.
    pub(super) fn row(&self, shown: &[&Service]) -> Option<usize> {
        shown.iter().position(|service| Some(&service.id) == self.chosen.as_ref())
    }

    fn choose(&mut self, row: usize) {
        let shown = self.shown();
        let row = row.min(shown.len().saturating_sub(1));
        self.chosen = shown.get(row).map(|service| service.id.clone());
    }

    /// A line of the log of `id`, or why there are none.
    pub(super) fn log(&mut self, id: &str, line: Result<LogLine, String>) {
        if self.logged().as_deref() != Some(id) {
            return;
        }
        match line {
            Ok(line) => {
                let time = line.timestamp.get(11..19).unwrap_or_default();
                self.lines.extend(
                    line.message.lines().map(|text| format!("{time} {}", clean(&without_colours(text)))),
                );
            }
            Err(why) => self.lines.push_back(format!("-- {}", clean(&why))),
        }
        let over = self.lines.len().saturating_sub(LOG_KEPT);
        self.lines.drain(..over);
    }
}

/// Without the sequences that set colours (`ESC [ ... m`).
fn without_colours(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let parameters = part.find(|c: char| !c.is_ascii_digit() && c != ';');
        match parameters.filter(|end| part[*end..].starts_with('m')) {
            Some(end) => plain.push_str(&part[end + 1..]),
            None => plain.push_str(&format!("\x1b[{part}")),
        }
    }
    plain
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cli::select::tests::{service, status};

    pub(in crate::cli::top) fn example() -> Top {
        let busy = Service {
            cpu_percent: Some(97.25),
            memory_mb: Some(480.0),
            memory_limit_mb: Some(512.0),
            pid: Some(4242),
            start_time: Some("2026-01-31T06:00:00.000Z".into()),
            uptime_seconds: Some(1),
            description: "Serves what people read".into(),
            since: "2026-01-31T06:00:00.000Z".into(),
            unit: "supervisor-web.service".into(),
            reason: "the first probe passed".into(),
            ..service("web", &[], &["front"])
        };
        let lost = Service {
            state: "backoff".into(),
            health: "unknown".into(),
            critical: true,
            restart_count: 3,
            next_retry_at: Some("2026-01-31T08:00:12.000Z".into()),
            reason: "exited with status 1; attempt 2 of 5, restart in 20 s".into(),
            ..service("db", &[], &[])
        };
        Top::new(Picture::new(status(vec![service("cache", &[], &[]), busy, lost])), false)
    }

    pub(in crate::cli::top) fn press(top: &mut Top, keys: &str) -> Vec<Effect> {
        let code = |key: &str| match key {
            "enter" => KeyCode::Enter,
            "esc" => KeyCode::Esc,
            "down" => KeyCode::Down,
            "up" => KeyCode::Up,
            "end" => KeyCode::End,
            "back" => KeyCode::Backspace,
            one => KeyCode::Char(one.chars().next().unwrap()),
        };
        keys.split(' ').flat_map(|key| top.key(KeyEvent::from(code(key)))).collect()
    }

    fn order(top: &Top) -> Vec<&str> {
        top.shown().iter().map(|service| service.id.as_str()).collect()
    }

    #[test]
    fn trouble_is_on_top_and_other_orders_are_a_key_away() {
        let mut top = example();
        for (sort, expected) in [
            (Sort::Trouble, ["db", "cache", "web"]),
            (Sort::Name, ["cache", "db", "web"]),
            (Sort::Cpu, ["web", "cache", "db"]),
            (Sort::Memory, ["web", "cache", "db"]),
            (Sort::Restarts, ["db", "cache", "web"]),
        ] {
            assert_eq!((top.sort, order(&top)), (sort, expected.to_vec()));
            press(&mut top, "o");
        }
        assert_eq!(top.sort, Sort::Trouble);
    }

    #[test]
    fn the_choice_follows_the_service_and_not_the_row() {
        let mut top = example();
        assert_eq!(top.chosen.as_deref(), Some("db"));
        press(&mut top, "down down down");
        assert_eq!((top.chosen.as_deref(), top.row(&top.shown())), (Some("web"), Some(2)));
        press(&mut top, "o o");
        assert_eq!((top.chosen.as_deref(), top.row(&top.shown())), (Some("web"), Some(0)));
        press(&mut top, "G k");
        assert_eq!(top.chosen.as_deref(), Some("cache"));
    }

    #[test]
    fn the_filter_finds_names_states_and_groups() {
        let mut top = example();
        for (typed, expected) in
            [("B A C K O", vec!["db"]), ("f r o n", vec!["web"]), ("c a c", vec!["cache"]), ("z z", vec![])]
        {
            press(&mut top, &format!("/ {typed} enter"));
            assert_eq!((order(&top), top.mode == Mode::Table), (expected, true), "{typed}");
            press(&mut top, "esc");
            assert_eq!(order(&top).len(), 3);
        }
        press(&mut top, "/ w e back b");
        assert_eq!((top.filter.as_str(), top.chosen.as_deref()), ("wb", None));
        assert_eq!(press(&mut top, "enter s x r l d down"), [], "nothing is chosen, so nothing is done");
    }

    #[test]
    fn a_start_is_given_and_the_rest_is_asked_about() {
        let mut top = example();
        assert_eq!(press(&mut top, "s"), [Effect::Order(Verb::Start, "db".into())]);
        assert_eq!(press(&mut top, "x"), []);
        assert_eq!(top.mode, Mode::Confirm(Verb::Stop, "db".into()));
        assert_eq!(press(&mut top, "n"), []);
        assert_eq!(press(&mut top, "r y"), [Effect::Order(Verb::Restart, "db".into())]);
        assert_eq!(press(&mut top, "y"), []);
        // Whatever comes meanwhile, it is the service that was asked about.
        press(&mut top, "x");
        top.chosen = Some("web".into());
        assert_eq!(press(&mut top, "y"), [Effect::Order(Verb::Stop, "db".into())]);
    }

    #[test]
    fn the_log_is_that_of_the_chosen_service() {
        let line = |text: &str| {
            Ok(LogLine {
                timestamp: "2026-01-31T08:00:01.000Z".into(),
                priority: None,
                message: text.into(),
                pid: None,
                unit: None,
                cursor: String::new(),
            })
        };
        let mut top = example();
        assert_eq!(press(&mut top, "l"), [Effect::Log(Some("db".into()))]);
        top.log("db", line("a\x1b[1;31mb\x1b[0m\nc\x1b[2Jd"));
        top.log("web", line("of another"));
        assert_eq!(top.lines, ["08:00:01 ab", "08:00:01 c\u{fffd}[2Jd"]);
        assert_eq!(press(&mut top, "down"), [Effect::Log(Some("cache".into()))]);
        assert_eq!(top.lines.len(), 0);
        for n in 0..2 * LOG_KEPT {
            top.log("cache", line(&n.to_string()));
        }
        assert_eq!((top.lines.len(), top.lines.back().unwrap().as_str()), (LOG_KEPT, "08:00:01 999"));
        assert_eq!(press(&mut top, "d"), [Effect::Log(None)]);
        assert_eq!(press(&mut top, "q"), [Effect::Quit]);
    }

    #[test]
    fn control_c_ends_it_in_every_mode() {
        let control = |c| KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
        for keys in ["o", "/", "x", "?"] {
            let mut top = example();
            press(&mut top, keys);
            assert_eq!(top.key(control('c')), [Effect::Quit], "{keys}");
            assert_eq!(top.key(control('r')), []);
        }
    }
}
