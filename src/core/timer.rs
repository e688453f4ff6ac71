//! Every moment at which something is due.

use std::collections::{BTreeMap, BTreeSet};

use super::plan::Id;
use super::snapshot::State;
use super::time::Mono;

/// What is due. One of each kind per service at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Timer {
    /// An action should have been answered by now.
    Answer,
    /// The service should be ready by now.
    Startup,
    /// It was alive for a second, which makes a service without a probe ready.
    Alive,
    /// The next probe.
    Probe,
    /// A probe should have been answered by now.
    ProbeAnswer,
    /// It ran long enough for the attempts to count from 0.
    Reset,
    /// The restart.
    Retry,
    /// The stop is asked for again.
    StopAgain,
    /// The stop of a unit that no plan names should have been answered by now. Belongs to no state: it comes
    /// after all those that a state may drop.
    Orphan,
    /// An alert is to be raised or looked at again. Belongs to no state either.
    Alert,
}

impl Timer {
    /// The timers a state can have; entering it drops all others.
    pub fn of(state: State) -> &'static [Self] {
        match state {
            State::Starting => &[Self::Answer, Self::Startup, Self::Alive, Self::Probe, Self::ProbeAnswer],
            State::Running => &[Self::Probe, Self::ProbeAnswer, Self::Reset],
            State::Stopping => &[Self::Answer, Self::StopAgain],
            State::Backoff => &[Self::Retry],
            State::Stopped | State::Failed | State::Fatal => &[],
        }
    }
}

/// All timers of all services.
#[derive(Debug, Clone, Default)]
pub(super) struct Timers {
    due: BTreeSet<(Mono, Id, Timer)>,
    at: BTreeMap<(Id, Timer), Mono>,
}

impl Timers {
    /// Sets or moves one.
    pub fn set(&mut self, id: &Id, timer: Timer, at: Mono) {
        self.clear(id, timer);
        self.due.insert((at, id.clone(), timer));
        self.at.insert((id.clone(), timer), at);
    }

    /// Drops one.
    pub fn clear(&mut self, id: &Id, timer: Timer) {
        if let Some(at) = self.at.remove(&(id.clone(), timer)) {
            self.due.remove(&(at, id.clone(), timer));
        }
    }

    /// Drops those of a service that are not in `keep`.
    pub fn keep_only(&mut self, id: &Id, keep: &[Timer]) {
        let all = (id.clone(), Timer::Answer)..=(id.clone(), Timer::StopAgain);
        let drop: Vec<Timer> =
            self.at.range(all).map(|((_, t), _)| *t).filter(|t| !keep.contains(t)).collect();
        for timer in drop {
            self.clear(id, timer);
        }
    }

    /// The next moment at which anything is due.
    pub fn next(&self) -> Option<Mono> {
        self.due.first().map(|(at, ..)| *at)
    }

    /// Takes the earliest one that is due at `now`.
    pub fn pop_due(&mut self, now: Mono) -> Option<(Id, Timer)> {
        if self.next()? > now {
            return None;
        }
        let (_, id, timer) = self.due.pop_first()?;
        self.at.remove(&(id.clone(), timer));
        Some((id, timer))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn timers_come_in_order_and_leave_with_the_state() {
        let (a, b) = (Id::new("a").unwrap(), Id::new("b").unwrap());
        let at = |s| Mono(Duration::from_secs(s));
        let mut timers = Timers::default();
        timers.set(&a, Timer::Probe, at(5));
        timers.set(&b, Timer::Retry, at(3));
        timers.set(&a, Timer::Probe, at(2));
        timers.set(&a, Timer::Reset, at(1));
        timers.keep_only(&a, &[Timer::Probe]);
        assert_eq!(timers.next(), Some(at(2)));
        assert_eq!(timers.pop_due(at(1)), None);
        assert_eq!(timers.pop_due(at(9)), Some((a, Timer::Probe)));
        assert_eq!(timers.pop_due(at(9)), Some((b, Timer::Retry)));
        assert_eq!(timers.next(), None);
    }
}
