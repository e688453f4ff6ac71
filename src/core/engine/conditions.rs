//! What is wrong with a service, one condition at a time, and the words for it.
//!
//! Small delays keep a single quick restart from waking anybody; a critical service has none.

use super::alerting::Alarm;
use super::*;
use crate::core::alert::AlertKind;
use crate::core::plan::AfterMaxRetries;
use crate::core::snapshot::Health;
use crate::core::time::Human;
use crate::core::words;
use std::time::Duration;

/// A first restart is worth an alert when it is not done so long after its delay; a probe that failed too often and
/// brings a restart, when that takes so long.
const RESTARTING: Duration = Duration::from_secs(10);
/// A service that lives on its fallback check is worth one after this.
const DEGRADED: Duration = Duration::from_secs(30);
/// Up again for so long, or for `reset_after` where that is shorter: no longer down.
const UP_AGAIN: Duration = Duration::from_secs(10);

/// Whether a condition holds.
pub(super) enum Verdict {
    /// Yes; to be told once it held for so long.
    Holds(Duration),
    /// No, and why not any more.
    Clear(String),
    /// As before, and to be looked at again then at the latest.
    Keep(Option<Mono>),
}

impl Engine {
    pub(super) fn verdict(&self, service: &Service, kind: AlertKind, before: &Option<Alarm>) -> Verdict {
        let wait = |wait| Verdict::Holds(if service.plan.critical { Duration::ZERO } else { wait });
        if self.leaving {
            return Verdict::Clear("the supervisor stops everything".into());
        }
        if service.want != Want::Up {
            return Verdict::Clear(format!("it is not to run: {}", service.reason));
        }
        if let (true, Some(root)) = (kind.may_come_from_elsewhere(), &service.blame.1) {
            return Verdict::Clear(format!("it comes from {root}, whose alert names it"));
        }
        let clear = |why: &str| Verdict::Clear(why.into());
        let running = service.state == State::Running;
        match kind {
            AlertKind::Down => self.is_down(service, before),
            AlertKind::Unhealthy => match (service.state, service.watch.health()) {
                (State::Running, Health::Unhealthy) => wait(Duration::ZERO),
                (State::Stopping, Health::Unhealthy) => wait(RESTARTING),
                (State::Running, Health::Unknown) => Verdict::Keep(None),
                (State::Running, health) => Verdict::Clear(format!("it is {health}")),
                (state, _) => Verdict::Clear(format!("it is {state}")),
            },
            AlertKind::Degraded => match (running, service.watch.health()) {
                (true, Health::Degraded) => wait(DEGRADED),
                (true, Health::Unknown) => Verdict::Keep(None),
                (true, health) => Verdict::Clear(format!("it is {health}")),
                (false, _) => Verdict::Clear(format!("it is {}", service.state)),
            },
            AlertKind::Flapping if service.flaps.is_flapping() => Verdict::Holds(Duration::ZERO),
            AlertKind::Flapping => clear("it was steady for long enough"),
            AlertKind::KeepTrying => {
                let policy = &service.plan.restart;
                let beyond = policy.after_max_retries == AfterMaxRetries::KeepTrying
                    && policy.max_retries.is_some_and(|max| service.attempt > max);
                if beyond { Verdict::Holds(Duration::ZERO) } else { clear("attempts count from 0 again") }
            }
            AlertKind::OomKill => match service.strain.oom {
                Some(at) if running => {
                    let until = service.since.0.max(at) + service.plan.restart.reset_after;
                    if self.now.mono < until && before.is_some() {
                        Verdict::Keep(Some(until))
                    } else if self.now.mono < until {
                        Verdict::Holds(Duration::ZERO)
                    } else {
                        let steady = Human(service.plan.restart.reset_after);
                        Verdict::Clear(format!("it ran for {steady} without another one"))
                    }
                }
                Some(_) => Verdict::Holds(Duration::ZERO),
                None => clear("it runs"),
            },
            kind => match service.strain.high.get(&kind) {
                // The last daemon told it, and there was no sample since.
                Some(words) if words.is_empty() => Verdict::Keep(None),
                Some(_) => Verdict::Holds(Duration::ZERO),
                None => clear("it is well below its limit again"),
            },
        }
    }

    fn is_down(&self, service: &Service, before: &Option<Alarm>) -> Verdict {
        let soon = service.plan.critical || service.attempt > 1;
        match service.state {
            State::Failed | State::Fatal => Verdict::Holds(Duration::ZERO),
            State::Backoff if soon => Verdict::Holds(Duration::ZERO),
            State::Backoff => {
                let delay = service.retry_at.map_or(Duration::ZERO, |(at, _)| at - self.now.mono);
                Verdict::Holds(delay + RESTARTING)
            }
            State::Starting | State::Stopping | State::Stopped => Verdict::Keep(None),
            State::Running => {
                let until = service.since.0 + UP_AGAIN.min(service.plan.restart.reset_after);
                match before {
                    Some(Alarm::Open(_)) if self.now.mono < until => Verdict::Keep(Some(until)),
                    _ => Verdict::Clear("it runs again".into()),
                }
            }
        }
    }

    /// What is wrong, why, and what happens next.
    pub(super) fn words_of(&self, service: &Service, kind: AlertKind) -> String {
        let (id, plan, reason) = (&service.plan.id, &service.plan, &service.reason);
        match kind {
            AlertKind::Down => format!("{id} is down ({}): {reason}", service.state),
            AlertKind::Unhealthy if service.state == State::Stopping => {
                format!("{id} is unhealthy and is being restarted: {reason}")
            }
            AlertKind::Unhealthy => {
                let answer = service.watch.last.as_ref().map_or("no answer yet", |last| &last.message);
                format!("{id} is unhealthy: {answer}; left running, auto_restart is off")
            }
            AlertKind::Degraded => {
                format!("{id} is degraded: its check fails, its fallback check passes, so it goes on")
            }
            AlertKind::Flapping => {
                let why = service.flaps.reason().unwrap_or("it goes up and down");
                format!("{id} is flapping: {why}; restarts go on, but they do not cure it")
            }
            AlertKind::KeepTrying => format!(
                "{id} was restarted {} times without success; going on every {}",
                service.attempt.saturating_sub(1),
                Human(plan.restart.max_backoff)
            ),
            AlertKind::OomKill => {
                let limit = match plan.limits.memory_bytes {
                    Some(limit) => format!("its limit is {}", words::bytes(limit)),
                    None => "it has no limit of its own, so the host was short of memory".into(),
                };
                format!("{id}: the kernel killed it or a part of it for want of memory; {limit}")
            }
            kind => format!("{id}: {}", service.strain.high.get(&kind).map_or("", String::as_str)),
        }
    }
}
