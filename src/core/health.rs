//! What the answers of probes mean.

use super::event::ProbeReport;
use super::plan::HealthCheck;
use super::snapshot::{Health, ProbeView};
use super::time::{Mono, Now};
use std::time::Duration;

/// Health of one run of a service. A new run starts with a new one.
#[derive(Debug, Clone, Default)]
pub(super) struct Watch {
    pub health: Option<Health>,
    pub last: Option<ProbeView>,
    /// When the probe was sent that is not answered yet.
    pub sent: Option<Sent>,
    /// Probes answered so far.
    pub rounds: u32,
    /// The last failure was eased by the fallback check.
    pub fallback_passed: bool,
    /// What the supervisor lacked when it last was to ask.
    pub lack: Option<String>,
    /// How often in a row it could not ask.
    unasked: u32,
    failures: u32,
    successes: u32,
}

/// A probe on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub at: Mono,
    /// [`Now::asleep`] of that moment.
    pub asleep: Duration,
}

/// Whether failures count at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counting {
    /// Yes.
    Failures,
    /// No: it is starting, or inside `start_period`.
    Nothing,
}

impl Watch {
    /// What is to be shown.
    pub fn health(&self) -> Health {
        self.health.unwrap_or(Health::Unknown)
    }

    /// The supervisor lacked what asking takes. As often in a row as would make failures count, and what was found
    /// last is not known to be true any more; a service that was ill stays so until an answer says otherwise.
    pub fn not_asked(&mut self, check: &HealthCheck, lack: String) -> Health {
        self.lack = Some(lack);
        self.unasked = self.unasked.saturating_add(1);
        if self.unasked >= check.failure_threshold && self.health != Some(Health::Unhealthy) {
            self.health = None;
        }
        self.health()
    }

    /// Takes an answer in and gives the health that follows from it.
    pub fn judge(
        &mut self,
        now: Now,
        check: &HealthCheck,
        report: &ProbeReport,
        counting: Counting,
    ) -> Health {
        self.sent = None;
        (self.lack, self.unasked) = (None, 0);
        self.rounds = self.rounds.saturating_add(1);
        self.fallback_passed = !report.passed && report.fallback_passed;
        let before = self.health();
        let after = if report.passed {
            self.failures = 0;
            self.successes = self.successes.saturating_add(1);
            // The first answer of a run needs no majority.
            let enough = before == Health::Unknown || self.successes >= check.success_threshold;
            if enough { Health::Healthy } else { before }
        } else {
            self.successes = 0;
            if report.fallback_passed {
                Health::Degraded
            } else if counting == Counting::Failures {
                self.failures = self.failures.saturating_add(1);
                if self.failures >= check.failure_threshold { Health::Unhealthy } else { before }
            } else {
                before
            }
        };
        self.last = Some(ProbeView {
            passed: report.passed,
            message: report.message.clone(),
            took: report.took,
            at: now.wall,
            consecutive_failures: self.failures,
        });
        self.health = Some(after);
        after
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Wall;
    use crate::core::plan::Probe;

    #[test]
    fn thresholds_count_in_a_row_both_ways() {
        use Health::{Degraded as D, Healthy as H, Unhealthy as U, Unknown};
        let check = HealthCheck {
            probe: Probe::Process,
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(10),
            failure_threshold: 2,
            success_threshold: 2,
            start_period: Duration::ZERO,
            fallback: None,
        };
        let now = Now { mono: Mono::default(), wall: Wall(0), asleep: Duration::ZERO, entropy: 0 };
        // '+' passes, '-' fails, '~' fails with a good fallback, '.' fails and does not count.
        for (answers, expected) in [
            ("+", vec![H]),
            ("--", vec![Unknown, U]),
            ("+-+-", vec![H, H, H, H]),
            ("+--++", vec![H, H, U, U, H]),
            ("+~~~+", vec![H, D, D, D, D]),
            ("+-~-", vec![H, H, D, U]),
            ("....-", vec![Unknown; 5]),
        ] {
            let mut watch = Watch::default();
            let seen: Vec<Health> = answers
                .chars()
                .map(|c| {
                    let report = ProbeReport {
                        passed: c == '+',
                        fallback_passed: c == '~',
                        message: String::new(),
                        took: Duration::ZERO,
                    };
                    let counting = if c == '.' { Counting::Nothing } else { Counting::Failures };
                    watch.judge(now, &check, &report, counting)
                })
                .collect();
            assert_eq!(seen, expected, "{answers}");
        }
    }
}
