//! Sliding windows beside the count in a row: a service that goes up and down, or whose probe answers alternate,
//! is never bad for long enough to be given up, and never well.

use std::collections::VecDeque;
use std::time::Duration;

use super::plan::ServicePlan;
use super::time::{Human, Mono};

/// So many failures from good standing inside the window are flapping ...
const TURNS: usize = 5;
/// ... until no more than so many are inside it.
const CALM_TURNS: usize = 2;
/// Answers of the probe that are looked at,
const ANSWERS: u32 = 20;
/// so many changes among them are flapping ...
const CHANGES: u32 = 8;
/// ... until there are no more than so many.
const CALM_CHANGES: u32 = 3;
/// Bounds of the window.
const WINDOW: (Duration, Duration) = (Duration::from_secs(600), Duration::from_secs(86_400));

/// What is remembered of the ups and downs of one service.
#[derive(Debug, Clone, Default)]
pub(super) struct Flaps {
    /// Failures from good standing (attempts at 0), oldest first; [`TURNS`] at most.
    turns: VecDeque<Mono>,
    /// Last answers of the probe, the newest in the lowest bit.
    answers: u32,
    /// How many of them there are.
    answered: u32,
    by_turns: Option<String>,
    by_answers: Option<String>,
}

impl Flaps {
    /// With what outlived the daemon; `flapping` is told again only when it is over.
    pub fn restored(turns: &[Mono], flapping: Option<String>) -> Self {
        let keep = turns.len().saturating_sub(TURNS);
        let turns = turns.iter().skip(keep).copied().collect();
        Self { turns, by_turns: flapping, ..Self::default() }
    }

    /// What must outlive the daemon.
    pub fn turns(&self) -> Vec<Mono> {
        self.turns.iter().copied().collect()
    }

    pub fn is_flapping(&self) -> bool {
        self.reason().is_some()
    }

    /// Why it is taken to flap.
    pub fn reason(&self) -> Option<&str> {
        self.by_turns.as_deref().or(self.by_answers.as_deref())
    }

    /// It failed, or fell ill, from good standing.
    pub fn turned_bad(&mut self, now: Mono) {
        if self.turns.len() == TURNS {
            self.turns.pop_front();
        }
        self.turns.push_back(now);
    }

    /// The probe was answered while the service ran.
    pub fn answered(&mut self, passed: bool) {
        self.answers = (self.answers << 1) | u32::from(passed);
        self.answered = (self.answered + 1).min(ANSWERS);
    }

    /// Works out anew whether it flaps. Says whether that changed, and when it may change by mere passing of time.
    pub fn judge(&mut self, plan: &ServicePlan, now: Mono) -> (bool, Option<Mono>) {
        let before = self.is_flapping();
        let window = window(plan);
        while self.turns.front().is_some_and(|at| now - *at >= window) {
            self.turns.pop_front();
        }
        if self.turns.len() <= CALM_TURNS {
            self.by_turns = None;
        } else if self.turns.len() >= TURNS && self.by_turns.is_none() {
            let over = self.turns.front().map_or(Duration::ZERO, |first| now - *first);
            let n = self.turns.len();
            self.by_turns = Some(format!("it failed {n} times in {} after it had seemed well", Human(over)));
        }
        let changes = self.changes();
        if changes <= CALM_CHANGES {
            self.by_answers = None;
        } else if changes >= CHANGES && self.by_answers.is_none() {
            let n = self.answered;
            self.by_answers = Some(format!("its probe changed its answer {changes} times in the last {n}"));
        }
        let next = self.turns.front().filter(|_| self.by_turns.is_some()).map(|first| *first + window);
        (before != self.is_flapping(), next)
    }

    fn changes(&self) -> u32 {
        let pairs = self.answered.saturating_sub(1);
        ((self.answers ^ (self.answers >> 1)) & ((1 << pairs) - 1)).count_ones()
    }
}

/// Long enough for a service that fails whenever its attempts were set back to 0.
fn window(plan: &ServicePlan) -> Duration {
    let (policy, health) = (&plan.restart, &plan.health);
    let illness = health.interval.saturating_mul(health.failure_threshold);
    let cycle = policy.reset_after.saturating_add(policy.retry_delay).saturating_add(illness);
    cycle.saturating_mul(8).clamp(WINDOW.0, WINDOW.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::plan::Id;

    fn at(seconds: u64) -> Mono {
        Mono(Duration::from_secs(seconds))
    }

    #[test]
    fn failures_from_good_standing_are_counted_in_a_window() {
        let plan = ServicePlan::new(Id::new("web").unwrap(), "/bin/x");
        let window = 8 * (60 + 10 + 90);
        for (gap, expected) in [(70, true), (window / 4 - 1, true), (window / 4 + 1, false)] {
            let mut flaps = Flaps::default();
            for n in 0..5 {
                flaps.turned_bad(at(1000 + n * gap));
                let (changed, _) = flaps.judge(&plan, at(1000 + n * gap));
                assert_eq!(changed, expected && n == 4, "every {gap} s, failure {n}");
            }
            assert_eq!(flaps.is_flapping(), expected, "every {gap} s");
        }
    }

    #[test]
    fn it_is_over_only_when_few_are_left_in_the_window() {
        let plan = ServicePlan::new(Id::new("web").unwrap(), "/bin/x");
        let mut flaps = Flaps::default();
        for n in 0..5 {
            flaps.turned_bad(at(1000 + n * 100));
        }
        let mut now = at(1400);
        let mut looks = 0;
        assert_eq!(flaps.judge(&plan, now), (true, Some(at(1000 + 1280))));
        assert_eq!(flaps.reason(), Some("it failed 5 times in 6 min 40 s after it had seemed well"));
        while let (_, Some(next)) = flaps.judge(&plan, now) {
            (now, looks) = (next, looks + 1);
        }
        assert_eq!((now, looks, flaps.is_flapping()), (at(1200 + 1280), 3, false));
    }

    #[test]
    fn answers_that_alternate_are_flapping_though_none_fails_often_in_a_row() {
        let plan = ServicePlan::new(Id::new("web").unwrap(), "/bin/x");
        for (answers, expected) in [
            ("++++++++++++++++++++", false),
            ("+-+-+-+-", false),
            ("+-+-+-+-+", true),
            ("-+-+-+-+-", true),
            ("++--++--++--++--++", true),
            ("+-+-+-+-++++++++++++++++", true),
            ("+-+-+-+-+++++++++++++++++", false),
            ("--------------------", false),
        ] {
            let mut flaps = Flaps::default();
            for answer in answers.chars() {
                flaps.answered(answer == '+');
                flaps.judge(&plan, at(1000));
            }
            assert_eq!(flaps.is_flapping(), expected, "{answers}");
        }
    }
}
