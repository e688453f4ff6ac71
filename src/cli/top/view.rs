//! How it looks: trouble and counts on top, the table, the pane of the chosen service, one line for keys and answers.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Clear, Paragraph, Row, Table, Wrap};
use unicode_width::UnicodeWidthStr;

use super::state::{Mode, Pane, Top};
use crate::cli::status::{details, health_tone, state_tone, why};
use crate::cli::table::{Tone, clean};
use crate::core::time::Human;
use crate::http::dto::Service;

/// Terminals narrower than this do without uptimes and restarts, in columns.
const MEDIUM: u16 = 100;
/// And than this, without figures.
const NARROW: u16 = 70;
/// Share of a memory limit from which the figure is coloured.
const CLOSE_TO_LIMIT: f64 = 0.8;

const KEYS: &str =
    "↑↓ choose  / filter  o sort  enter details  l log  s start  x stop  r restart  ? help  q quit";

const HELP: [(&str, &str); 10] = [
    ("↑ ↓ PgUp PgDn Home End", "choose a service (also k j g G)"),
    ("/", "show only what has this in its name, state, health or group; Esc shows all"),
    ("o", "sort by trouble, name, CPU, memory, restarts"),
    ("Enter, d", "details of the chosen service"),
    ("l", "its log, live"),
    ("s", "start it"),
    ("x", "stop it, after a question"),
    ("r", "restart it, after a question"),
    ("?", "this help"),
    ("q, Ctrl-C", "quit; services are left as they are"),
];

pub(super) fn draw(frame: &mut Frame<'_>, top: &mut Top, now: Timestamp) {
    let below = match top.pane {
        Pane::None => Constraint::Length(0),
        Pane::Details | Pane::Log => Constraint::Percentage(45),
    };
    let rows = [Constraint::Length(2), Constraint::Min(3), below, Constraint::Length(1)];
    let [head, table, pane, foot] = Layout::vertical(rows).areas(frame.area());
    frame.render_widget(Paragraph::new(summary(top)), head);
    draw_table(frame, top, table, now);
    match top.pane {
        Pane::None => {}
        Pane::Details => draw_details(frame, top, pane),
        Pane::Log => draw_log(frame, top, pane),
    }
    frame.render_widget(Paragraph::new(footer(top)), foot);
    if top.mode == Mode::Help {
        draw_help(frame);
    }
}

fn paint(top: &Top, tone: Tone) -> Style {
    let colour = |colour| if top.colours { Style::new().fg(colour) } else { Style::new() };
    match tone {
        Tone::Good => colour(Color::Green),
        Tone::Changing => colour(Color::Yellow),
        Tone::Bad => colour(Color::Red).add_modifier(Modifier::BOLD),
        Tone::Off => Style::new().add_modifier(Modifier::DIM),
        Tone::Head => Style::new().add_modifier(Modifier::BOLD),
        Tone::Plain => Style::new(),
    }
}

fn summary(top: &Top) -> Vec<Line<'static>> {
    let status = &top.picture.status;
    let mut states: BTreeMap<&str, (usize, Tone)> = BTreeMap::new();
    for service in status.services.values() {
        states.entry(&service.state).or_insert((0, state_tone(service))).0 += 1;
    }
    let mut counts = vec![Span::raw(format!("{} services:", status.services.len()))];
    for (state, (count, tone)) in states {
        let comma = if counts.len() > 1 { "," } else { "" };
        counts.push(Span::raw(format!("{comma} ")));
        counts.push(Span::styled(format!("{count} {}", clean(state)), paint(top, tone)));
    }
    let alerts = top.picture.alerts.len();
    if alerts > 0 {
        let plural = if alerts == 1 { "" } else { "s" };
        counts.push(Span::styled(format!(" - {alerts} open alert{plural}"), paint(top, Tone::Bad)));
    }
    let supervisor = &status.supervisor;
    let about = match &top.picture.lost {
        Some(why) => Line::styled(format!("This may be out of date: {}", clean(why)), paint(top, Tone::Bad)),
        None => Line::styled(
            format!(
                "process-supervisor {}, up {}, sorted by {}",
                clean(&supervisor.version),
                Human(Duration::from_secs(supervisor.uptime_seconds)),
                top.sort.word()
            ),
            paint(top, Tone::Head),
        ),
    };
    vec![about, Line::from(counts)]
}

/// The columns that a terminal of this width has room for. The last takes what is left.
fn columns(width: u16) -> Vec<&'static str> {
    let mut columns = vec!["NAME", "STATE", "HEALTH"];
    if width >= NARROW {
        columns.extend(["CPU %", "MEMORY MIB"]);
    }
    if width >= MEDIUM {
        columns.extend(["UPTIME", "RESTARTS"]);
    }
    columns.push("WHY");
    columns
}

fn draw_table(frame: &mut Frame<'_>, top: &mut Top, area: Rect, now: Timestamp) {
    let shown = top.shown();
    if shown.is_empty() {
        let text = match top.filter.is_empty() {
            true => "No services. Add some to the configuration, then `supervisorctl reload`.".to_owned(),
            false => format!("No service has \"{}\" in it; Esc shows all.", top.filter),
        };
        return frame.render_widget(Paragraph::new(text), area);
    }
    let columns = columns(area.width);
    let cells: Vec<Vec<(String, Tone)>> = shown
        .iter()
        .map(|service| columns.iter().map(|column| cell(service, column, now)).collect())
        .collect();
    let widths = columns.iter().enumerate().map(|(at, column)| {
        if at + 1 == columns.len() {
            return Constraint::Min(10);
        }
        let longest = cells.iter().map(|row| row[at].0.width()).chain([column.width()]).max();
        Constraint::Length(u16::try_from(longest.unwrap_or_default()).unwrap_or(u16::MAX).min(area.width / 3))
    });
    let widths: Vec<Constraint> = widths.collect();
    let rows = cells.into_iter().map(|row| {
        Row::new(row.into_iter().map(|(text, tone)| Cell::from(Span::styled(text, paint(top, tone)))))
    });
    let table = Table::new(rows, widths)
        .header(Row::new(columns).style(paint(top, Tone::Head)))
        .column_spacing(2)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let chosen = top.row(&shown);
    top.table.select(chosen);
    frame.render_stateful_widget(table, area, &mut top.table);
}

fn cell(service: &Service, column: &str, now: Timestamp) -> (String, Tone) {
    let dash = || String::from("-");
    let (text, tone) = match column {
        "NAME" => (service.id.clone(), if service.critical { Tone::Head } else { Tone::Plain }),
        "STATE" => (service.state.clone(), state_tone(service)),
        "HEALTH" => (service.health.clone(), health_tone(&service.health)),
        "CPU %" => (service.cpu_percent.map_or_else(dash, |cpu| format!("{cpu:>5.1}")), Tone::Plain),
        "MEMORY MIB" => memory(service),
        "UPTIME" => {
            let uptime = service.uptime_seconds.map(Duration::from_secs);
            (uptime.map_or_else(dash, |uptime| Human(uptime).to_string()), Tone::Plain)
        }
        "RESTARTS" => (format!("{:>8}", service.restart_count), Tone::Plain),
        _ => (why(service, now), Tone::Plain),
    };
    (clean(&text), tone)
}

fn memory(service: &Service) -> (String, Tone) {
    let Some(used) = service.memory_mb else { return ("-".into(), Tone::Plain) };
    match service.memory_limit_mb.filter(|limit| *limit > 0.0) {
        Some(limit) => {
            let close = used / limit >= CLOSE_TO_LIMIT;
            (format!("{used:>6.1} / {limit:.0}"), if close { Tone::Changing } else { Tone::Plain })
        }
        None => (format!("{used:>6.1}"), Tone::Plain),
    }
}

fn block(top: &Top, title: String) -> Block<'static> {
    Block::new().borders(Borders::TOP).title(Span::styled(title, paint(top, Tone::Head)))
}

fn draw_details(frame: &mut Frame<'_>, top: &Top, area: Rect) {
    let Some(service) = top.service() else { return };
    let mut text: Vec<String> = Vec::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            text.push(format!("  {name:<27} {}", clean(value)));
        }
    };
    line("about", &service.description);
    line("why", &service.reason);
    line("since", &service.since);
    line("unit", &service.unit);
    line("pid", &service.pid.map_or_else(String::new, |pid| pid.to_string()));
    line("groups", &service.groups.join(", "));
    line("needs", &service.dependencies.join(", "));
    line("waits for", &service.waiting_for.join(", "));
    text.extend(details(service).lines().filter(|line| !line.is_empty()).map(str::to_owned));
    let block = block(top, format!(" {} ", service.id));
    let text: Vec<Line<'_>> = text.into_iter().map(Line::from).collect();
    frame.render_widget(Paragraph::new(text).block(block).wrap(Wrap { trim: false }), area);
}

fn draw_log(frame: &mut Frame<'_>, top: &Top, area: Rect) {
    let Some(service) = top.service() else { return };
    let block = block(top, format!(" log of {} (times in UTC) ", service.id));
    let room = usize::from(block.inner(area).height);
    let first = top.lines.len().saturating_sub(room);
    let lines: Vec<Line<'_>> = match top.lines.is_empty() {
        true => vec![Line::from("Nothing yet.")],
        false => top.lines.range(first..).map(|line| Line::from(line.as_str())).collect(),
    };
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn footer(top: &Top) -> Line<'static> {
    match &top.mode {
        Mode::Filter => Line::from(format!("filter: {}_  (Enter keeps it, Esc shows all)", top.filter)),
        Mode::Confirm(verb, id) => {
            let critical = top.picture.status.services.get(id).is_some_and(|service| service.critical);
            let what = if critical { "the critical service " } else { "" };
            Line::styled(
                format!("{} {what}{id}? y does it, any other key does not", verb.word()),
                paint(top, Tone::Bad),
            )
        }
        Mode::Table | Mode::Help => match &top.note {
            Some(note) => Line::styled(clean(&note.text), paint(top, note.tone)),
            None => Line::styled(KEYS, paint(top, Tone::Off)),
        },
    }
}

fn draw_help(frame: &mut Frame<'_>) {
    let area = frame.area();
    let (width, height) = (area.width.min(100), area.height.min(HELP.len() as u16 + 2));
    let at =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    let lines: Vec<Line<'_>> =
        HELP.iter().map(|(key, meaning)| Line::from(format!(" {key:<24} {meaning}"))).collect();
    let block = Block::bordered().title(" keys; any of them closes this ");
    frame.render_widget(Clear, at);
    frame.render_widget(Paragraph::new(lines).block(block), at);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::state::tests::{example, press};
    use super::*;

    fn picture(top: &mut Top, width: u16, height: u16) -> String {
        let now = "2026-01-31T08:00:00.500Z".parse().unwrap();
        top.picture.tick(now);
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, top, now)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let line = |y| -> String { (0..width).map(|x| buffer[(x, y)].symbol()).collect() };
        (0..height).map(|y| format!("{}\n", line(y).trim_end())).collect()
    }

    #[test]
    fn trouble_is_seen_first() {
        insta::assert_snapshot!(picture(&mut example(), 120, 8), @r"
        process-supervisor 1.2.3, up 0 ms, sorted by trouble
        3 services: 1 backoff, 2 running
        NAME   STATE    HEALTH   CPU %  MEMORY MIB    UPTIME  RESTARTS  WHY
        db     backoff  unknown  -      -             -              3  exited with status 1; attempt 2 of 5; next try in 12 s
        cache  running  healthy  -      -             -              0
        web    running  healthy   97.2   480.0 / 512  2 h            0

        ↑↓ choose  / filter  o sort  enter details  l log  s start  x stop  r restart  ? help  q quit
        ");
    }

    #[test]
    fn a_narrow_terminal_keeps_what_matters() {
        insta::assert_snapshot!(picture(&mut example(), 60, 7), @r"
        process-supervisor 1.2.3, up 0 ms, sorted by trouble
        3 services: 1 backoff, 2 running
        NAME   STATE    HEALTH   WHY
        db     backoff  unknown  exited with status 1; attempt 2 of
        cache  running  healthy
        web    running  healthy
        ↑↓ choose  / filter  o sort  enter details  l log  s start
        ");
    }

    #[test]
    fn details_questions_and_help() {
        let mut top = example();
        press(&mut top, "down down d x");
        insta::assert_snapshot!(picture(&mut top, 100, 20), @r"
        process-supervisor 1.2.3, up 0 ms, sorted by trouble
        3 services: 1 backoff, 2 running
        NAME   STATE    HEALTH   CPU %  MEMORY MIB    UPTIME  RESTARTS  WHY
        db     backoff  unknown  -      -             -              3  exited with status 1; attempt 2 of 5
        cache  running  healthy  -      -             -              0
        web    running  healthy   97.2   480.0 / 512  2 h            0




         web ───────────────────────────────────────────────────────────────────────────────────────────────
          about                       Serves what people read
          why                         the first probe passed
          since                       2026-01-31T06:00:00.000Z
          unit                        supervisor-web.service
          pid                         4242
          groups                      front
          cpu                         97.2 %
          memory                      480.0 MiB
        stop web? y does it, any other key does not
        ");
        press(&mut top, "n ?");
        assert!(picture(&mut top, 100, 20).contains("restart it, after a question"));
    }

    #[test]
    fn no_size_is_too_small() {
        for (width, height) in [(1, 1), (3, 2), (10, 3), (300, 4)] {
            for keys in ["o", "d", "l", "?", "/ a", "x"] {
                let mut top = example();
                press(&mut top, keys);
                picture(&mut top, width, height);
            }
        }
    }

    #[test]
    fn nothing_to_show_says_what_to_do() {
        let mut top = example();
        press(&mut top, "/ z z enter");
        assert!(picture(&mut top, 80, 8).contains("No service has \"zz\" in it"));
        top.picture.status.services.clear();
        press(&mut top, "esc");
        assert!(picture(&mut top, 90, 8).contains("supervisorctl reload"));
        top.picture.lost = Some("it is gone".into());
        assert!(picture(&mut top, 90, 8).contains("out of date: it is gone"));
    }
}
