//! What a service uses against what it may use: warnings before the limit, and out-of-memory kills.

use std::collections::BTreeMap;

use super::alert::AlertKind;
use super::event::InvocationId;
use super::plan::ServicePlan;
use super::sample::Sample;
use super::time::Mono;
use super::words;

/// So much below `warn_percent` a warning is over, in percent of the limit.
const MARGIN: f64 = 10.0;
/// Held back for a larger share of a sample than this: throttled.
const THROTTLED: f64 = 0.5;
/// Samples in a row without it that end it.
const CLEAN: u8 = 2;

/// How near to its limits one service is.
#[derive(Debug, Clone, Default)]
pub(super) struct Strain {
    /// What is too high, in words as of the moment when it became so; empty where the last daemon saw it.
    pub high: BTreeMap<AlertKind, String>,
    /// When the kernel last killed something of it for want of memory.
    pub oom: Option<Mono>,
    oom_seen: Option<(InvocationId, u64)>,
    clean: u8,
}

/// What a sample changed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Crossing {
    pub kind: AlertKind,
    /// It became too high; else it no longer is.
    pub high: bool,
    /// In a sentence.
    pub words: String,
}

impl Strain {
    /// Takes a sample in.
    pub fn take(
        &mut self,
        plan: &ServicePlan,
        run: InvocationId,
        sample: &Sample,
        now: Mono,
    ) -> Vec<Crossing> {
        let mut news = Vec::new();
        let limits = &plan.limits;
        #[expect(clippy::cast_precision_loss, reason = "a percentage of bytes needs no more")]
        let percent = |used: Option<u64>, limit: Option<u64>| Some(used? as f64 / limit? as f64 * 100.0);
        let cpu = sample.cpu_percent.zip(limits.cpu_percent).map(|(used, limit)| used / limit * 100.0);
        for (kind, share) in [
            (AlertKind::Memory, percent(sample.memory, limits.memory_bytes)),
            (AlertKind::Tasks, percent(sample.tasks, limits.tasks)),
            (AlertKind::Cpu, cpu),
        ] {
            let warn = f64::from(plan.warn_percent);
            let high = match share {
                None => false,
                Some(share) if self.high.contains_key(&kind) => share >= warn - MARGIN,
                Some(share) => share >= warn,
            };
            self.set(kind, high, plan, sample, &mut news);
        }
        self.throttling(plan, sample, &mut news);
        self.oom_kills(plan, run, sample, now, &mut news);
        news
    }

    fn throttling(&mut self, plan: &ServicePlan, sample: &Sample, news: &mut Vec<Crossing>) {
        let Some(share) = sample.throttled else { return };
        self.clean = if share > THROTTLED { 0 } else { self.clean.saturating_add(1) };
        let held = self.high.contains_key(&AlertKind::CpuThrottled);
        let high = self.clean == 0 || (held && self.clean < CLEAN);
        self.set(AlertKind::CpuThrottled, high, plan, sample, news);
    }

    /// The kernel killed a part of it, and the service goes on.
    fn oom_kills(
        &mut self,
        plan: &ServicePlan,
        run: InvocationId,
        sample: &Sample,
        now: Mono,
        news: &mut Vec<Crossing>,
    ) {
        let Some(kills) = sample.oom_kills else { return };
        let before = self.oom_seen.filter(|(seen, _)| *seen == run).map(|(_, kills)| kills);
        self.oom_seen = Some((run, kills));
        // What was there at the first look of a run that was adopted is old news.
        if before.is_some_and(|before| kills > before) {
            self.oom = Some(now);
            let limit = plan.limits.memory_bytes.map_or_else(
                || "it has no limit of its own".into(),
                |limit| format!("its limit is {}", words::bytes(limit)),
            );
            let words = format!("the kernel killed a part of it for want of memory ({limit}); it goes on");
            news.push(Crossing { kind: AlertKind::OomKill, high: true, words });
        }
    }

    fn set(
        &mut self,
        kind: AlertKind,
        high: bool,
        plan: &ServicePlan,
        sample: &Sample,
        news: &mut Vec<Crossing>,
    ) {
        match (self.high.get(&kind), high) {
            (None, true) => {
                let words = words_of(kind, plan, sample);
                self.high.insert(kind, words.clone());
                news.push(Crossing { kind, high, words });
            }
            (Some(words), true) if words.is_empty() => {
                self.high.insert(kind, words_of(kind, plan, sample));
            }
            (Some(_), false) => {
                self.high.remove(&kind);
                let words = format!("{} no longer near its limit", subject(kind));
                news.push(Crossing { kind, high, words });
            }
            _ => {}
        }
    }
}

fn subject(kind: AlertKind) -> &'static str {
    match kind {
        AlertKind::Memory => "memory is",
        AlertKind::Tasks => "the number of tasks is",
        AlertKind::Cpu => "CPU time is",
        _ => "CPU throttling is",
    }
}

fn words_of(kind: AlertKind, plan: &ServicePlan, sample: &Sample) -> String {
    let (limits, warn) = (&plan.limits, plan.warn_percent);
    match kind {
        AlertKind::Memory => format!(
            "memory is {} of {}, warned from {warn} %; at the limit the kernel kills it",
            words::bytes(sample.memory.unwrap_or(0)),
            words::bytes(limits.memory_bytes.unwrap_or(0)),
        ),
        AlertKind::Tasks => format!(
            "{} tasks of {}, warned from {warn} %; at the limit it cannot make new threads or processes",
            sample.tasks.unwrap_or(0),
            limits.tasks.unwrap_or(0),
        ),
        AlertKind::Cpu => format!(
            "CPU is {:.0} % of {:.0} %, warned from {warn} %; at the limit it is held back",
            sample.cpu_percent.unwrap_or(0.0),
            limits.cpu_percent.unwrap_or(0.0),
        ),
        _ => format!(
            "held back by its CPU limit for {:.0} % of the time; it is slower than it could be",
            sample.throttled.unwrap_or(0.0) * 100.0
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::plan::{Id, Limits};

    fn plan() -> ServicePlan {
        let mut plan = ServicePlan::new(Id::new("web").unwrap(), "/bin/x");
        plan.limits = Limits { memory_bytes: Some(100 << 20), cpu_percent: Some(200.0), tasks: Some(10) };
        plan
    }

    /// What each sample changed: `memory+`, `memory-`.
    fn changes(samples: impl IntoIterator<Item = Sample>) -> Vec<String> {
        let mut strain = Strain::default();
        let each = |sample: Sample| {
            let news = strain.take(&plan(), InvocationId(1), &sample, Mono::default());
            let words: Vec<String> =
                news.iter().map(|c| format!("{}{}", c.kind, if c.high { "+" } else { "-" })).collect();
            words.join(" ")
        };
        samples.into_iter().map(each).collect()
    }

    #[test]
    fn warnings_begin_at_warn_percent_and_end_well_below_it() {
        let memory = |mib: u64| Sample { memory: Some(mib << 20), ..Sample::default() };
        assert_eq!(
            changes([89, 90, 95, 85, 80, 79, 85, 90].map(memory)),
            ["", "memory+", "", "", "", "memory-", "", "memory+"]
        );
        let tasks = |n| Sample { tasks: Some(n), ..Sample::default() };
        assert_eq!(changes([8, 9, 8, 7].map(tasks)), ["", "tasks+", "", "tasks-"]);
        let cpu = |percent| Sample { cpu_percent: Some(percent), ..Sample::default() };
        assert_eq!(changes([100.0, 180.0, 161.0, 159.0].map(cpu)), ["", "cpu+", "", "cpu-"]);
    }

    #[test]
    fn throttling_ends_after_two_clean_samples() {
        let throttled = |share| Sample { throttled: Some(share), ..Sample::default() };
        assert_eq!(
            changes([0.5, 0.51, 0.1, 0.9, 0.1, 0.2, 0.1].map(throttled)),
            ["", "cpu_throttled+", "", "", "", "cpu_throttled-", ""]
        );
    }

    #[test]
    fn kills_while_it_goes_on_are_seen_once_each_and_old_ones_not_at_all() {
        let kills = |n| Sample { oom_kills: Some(n), ..Sample::default() };
        assert_eq!(changes([3, 3, 4, 4, 6].map(kills)), ["", "", "oom_kill+", "", "oom_kill+"]);
    }

    #[test]
    fn words_say_how_much_of_how_much() {
        let mut strain = Strain::default();
        let sample = Sample {
            memory: Some(95 << 20),
            tasks: Some(10),
            cpu_percent: Some(199.0),
            throttled: Some(0.75),
            ..Sample::default()
        };
        let news = strain.take(&plan(), InvocationId(1), &sample, Mono::default());
        assert_eq!(
            news.iter().map(|c| c.words.as_str()).collect::<Vec<_>>(),
            [
                "memory is 95 MiB of 100 MiB, warned from 90 %; at the limit the kernel kills it",
                "10 tasks of 10, warned from 90 %; at the limit it cannot make new threads or processes",
                "CPU is 199 % of 200 %, warned from 90 %; at the limit it is held back",
                "held back by its CPU limit for 75 % of the time; it is slower than it could be",
            ]
        );
        let idle = Sample {
            memory: Some(1),
            tasks: Some(1),
            cpu_percent: Some(1.0),
            throttled: Some(0.0),
            ..Sample::default()
        };
        let mut over = strain.take(&plan(), InvocationId(1), &idle, Mono::default());
        over.extend(strain.take(&plan(), InvocationId(1), &idle, Mono::default()));
        assert_eq!(
            over.iter().map(|c| c.words.as_str()).collect::<Vec<_>>(),
            [
                "memory is no longer near its limit",
                "the number of tasks is no longer near its limit",
                "CPU time is no longer near its limit",
                "CPU throttling is no longer near its limit",
            ]
        );
    }

    #[test]
    fn what_the_last_daemon_saw_has_words_from_the_next_sample_on() {
        let kind = AlertKind::Memory;
        let mut strain = Strain { high: [(kind, String::new())].into(), ..Strain::default() };
        for mib in [95, 99] {
            let sample = Sample { memory: Some(mib << 20), ..Sample::default() };
            assert_eq!(strain.take(&plan(), InvocationId(1), &sample, Mono::default()), []);
            let told = "memory is 95 MiB of 100 MiB, warned from 90 %; at the limit the kernel kills it";
            assert_eq!(strain.high[&kind], told, "as of when it was first seen");
        }
    }
}
