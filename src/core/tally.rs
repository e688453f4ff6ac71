//! What the daemon counted of one service since it began to know it: ends of runs, and answers of the probe. Kept in
//! memory only, for readers that look at differences (Prometheus); of fixed size, since it is in every picture.

use std::time::Duration;

use super::event::{ExitResult, ProbeReport};

/// The reasons that ends are counted under, in systemd's words; the last is for all that have no word here.
pub const REASONS: [&str; 11] = [
    "success",
    "exit-code",
    "signal",
    "core-dump",
    "oom-kill",
    "timeout",
    "watchdog",
    "resources",
    "protocol",
    "exited_unsupervised",
    "other",
];

/// Upper bounds of the slots that the times of probes are counted in; one more slot is for what takes longer.
pub const PROBE_BOUNDS: [Duration; 9] = [
    Duration::from_millis(5),
    Duration::from_millis(25),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

/// Counters that only grow. Some 100 bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    exits: [u32; REASONS.len()],
    slots: [u32; PROBE_BOUNDS.len() + 1],
    took: Duration,
    failures: u32,
}

impl Tally {
    /// A run ended.
    pub fn exited(&mut self, result: &ExitResult) {
        let place = REASONS.iter().position(|reason| *reason == result.as_str());
        bump(&mut self.exits, place.unwrap_or(REASONS.len() - 1));
    }

    /// A probe was answered.
    pub fn probed(&mut self, report: &ProbeReport) {
        bump(&mut self.slots, PROBE_BOUNDS.partition_point(|bound| *bound < report.took));
        self.took = self.took.saturating_add(report.took);
        self.failures = self.failures.saturating_add(u32::from(!report.passed));
    }

    /// How many runs ended, for each of [`REASONS`].
    pub fn exits(&self) -> impl Iterator<Item = (&'static str, u32)> {
        REASONS.into_iter().zip(self.exits)
    }

    /// How many probes took no longer than each of [`PROBE_BOUNDS`] and longer than the one before; the last: longer
    /// than all.
    pub fn slots(&self) -> &[u32; PROBE_BOUNDS.len() + 1] {
        &self.slots
    }

    /// How long all probes took together.
    pub fn took(&self) -> Duration {
        self.took
    }

    /// How many probes failed, with those that asked a service that was starting.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

fn bump(counters: &mut [u32], place: usize) {
    if let Some(counter) = counters.get_mut(place) {
        *counter = counter.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_is_counted_under_its_word_and_unknown_words_together() {
        let mut tally = Tally::default();
        for reason in REASONS {
            tally.exited(&ExitResult::from(reason));
        }
        tally.exited(&ExitResult::Other("exec-condition".into()));
        let counts: Vec<u32> = tally.exits().map(|(_, count)| count).collect();
        assert_eq!(counts, [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2]);
    }

    #[test]
    fn times_fall_into_the_slot_whose_bound_they_do_not_exceed() {
        let mut tally = Tally::default();
        for (millis, passed) in [(0, true), (5, true), (6, false), (10_000, true), (60_000, false)] {
            let (message, took) = (String::new(), Duration::from_millis(millis));
            tally.probed(&ProbeReport { passed, fallback_passed: false, message, took });
        }
        assert_eq!(tally.slots(), &[2, 1, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!((tally.failures(), tally.took()), (2, Duration::from_millis(70_011)));
    }
}
