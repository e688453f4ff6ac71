//! Health: when to ask, and what follows from the answers.

use super::*;
use crate::core::action::AfterStop;
use crate::core::event::{InvocationId, ProbeReport};
use crate::core::health::{Counting, Sent};
use crate::core::plan::HealthCheck;
use crate::core::snapshot::Health;
use crate::core::time::Human;
use std::time::Duration;

/// While a service starts, it is asked more often than `interval`: first after this, then at doubled distances.
const EAGER_FIRST: Duration = Duration::from_millis(50);
/// The longest of those distances.
const EAGER_LAST: Duration = Duration::from_secs(2);
/// Beyond the probe's own timeout, for its answer. A failure that comes later than that says that this host was
/// stalled or suspended, not that the service is ill.
const MARGIN: Duration = Duration::from_secs(5);
/// Differences up to this between the clocks that count a suspend and those that do not are no suspend: they are read
/// one after the other.
const NAP: Duration = Duration::from_millis(500);

/// A look at a process takes microseconds: those of one beat are taken together, so that a hundred services do not wake
/// the host three times a second. An interval has one beat a second, but no fewer than this. What goes over the network
/// is not bundled: one would wait for the other, and that would count as response time.
const FEWEST_BEATS: u32 = 8;

/// Services that are found running are asked within this.
const ADOPTED: Duration = Duration::from_secs(2);
/// Of 2^64.
const GOLDEN_SECTION: u64 = 0x9E37_79B9_7F4A_7C15;

/// The last beat that is not after `at`; of a check over the network, `at` itself.
fn beat_before(origin: Mono, check: &HealthCheck, at: Mono) -> Mono {
    if check.probe.decides_readiness() {
        return at;
    }
    let beats = u32::try_from(check.interval.as_secs()).unwrap_or(u32::MAX).max(FEWEST_BEATS);
    let beat = (check.interval / beats).max(Duration::from_nanos(1));
    let into_it = (at - origin).as_nanos() % beat.as_nanos();
    Mono(at.0.saturating_sub(Duration::from_nanos(u64::try_from(into_it).unwrap_or_default())))
}

impl Engine {
    pub(super) fn send_probe(&mut self, id: &Id) {
        let now = self.now.mono;
        let Some(service) = self.services.get_mut(id) else { return };
        let Some(invocation) = service.invocation.filter(|_| service.watch.sent.is_none()) else { return };
        service.watch.sent = Some(Sent { at: now, asleep: self.now.asleep });
        let (plan, pid) = (Arc::clone(&service.plan), service.pid);
        self.timers.set(id, Timer::ProbeAnswer, now + plan.health.longest_answer() + MARGIN);
        self.out.push(Action::Probe { plan, invocation, pid });
    }

    /// When a service that is up is asked first: each has its slot in the interval, so that many that became ready at
    /// once, or were found running, are not asked at once for ever after. Steps of the golden section spread any number
    /// of slots evenly.
    pub(super) fn first_probe(&self, id: &Id) -> Mono {
        let Some(service) = self.services.get(id) else { return self.now.mono };
        let interval = service.plan.health.interval;
        let slot =
            beat_before(self.origin, &service.plan.health, self.origin + interval.mul_f64(self.share(id)));
        if slot > self.now.mono {
            return slot;
        }
        let intervals = (self.now.mono - slot).as_nanos() / interval.as_nanos().max(1) + 1;
        slot + interval.saturating_mul(u32::try_from(intervals).unwrap_or(u32::MAX))
    }

    /// When one that was found running is asked first. Nothing is known of its health until then, so it is soon, and
    /// spread all the same.
    pub(super) fn probe_after_adoption(&self, id: &Id) -> Mono {
        let probed = self.services.get(id).is_some_and(|s| s.plan.health.probe.decides_readiness());
        let soon = self.now.mono + ADOPTED.mul_f64(self.share(id));
        if probed { soon.min(self.first_probe(id)) } else { self.first_probe(id) }
    }

    /// Of an interval, from 0 to 1.
    fn share(&self, id: &Id) -> f64 {
        let rank = self.rank.get(id).copied().unwrap_or_default() as u64;
        (rank.wrapping_mul(GOLDEN_SECTION) >> 32) as f64 / 2_f64.powi(32)
    }

    /// The answer never came; nothing is known, so nothing is counted.
    pub(super) fn probe_lost(&mut self, id: &Id) {
        if let Some(service) = self.services.get_mut(id) {
            service.watch.sent = None;
            self.timers.set(id, Timer::Probe, self.now.mono + service.plan.health.interval);
        }
    }

    /// Nobody was asked, for want of something on our side; nothing is known, so no failure is counted.
    pub(super) fn unprobed(&mut self, id: &Id, invocation: InvocationId, lack: String) {
        let asked = |s: &&mut Service| s.invocation == Some(invocation) && s.watch.sent.is_some();
        let Some(service) = self.services.get_mut(id).filter(asked) else { return };
        let soon = service.state == State::Starting;
        let before = service.watch.health();
        let after = service.watch.not_asked(&Arc::clone(&service.plan).health, lack.clone());
        service.view = None;
        if after != before {
            self.alerting.mark(id);
            self.health_changed(id, before, after, &format!("cannot be checked: {lack}"));
        }
        self.timers.clear(id, Timer::ProbeAnswer);
        self.probe_lost(id);
        if soon {
            // Its time to become ready runs.
            self.timers.set(id, Timer::Probe, self.now.mono + EAGER_LAST);
        }
    }

    /// A service that starts is out of time, but its last check could not be asked, which says nothing about it: it
    /// gets as long as the next one takes.
    pub(super) fn wait_for_check(&mut self, id: &Id, lack: &str) {
        let Some(service) = self.touch(id) else { return };
        let until = EAGER_LAST + service.plan.health.longest_answer() + MARGIN;
        let reason = format!("cannot be checked: {lack}; ready when a check passes");
        let news = service.reason != reason;
        service.reason.clone_from(&reason);
        self.timers.set(id, Timer::Startup, self.now.mono + until);
        if news {
            let message = format!("{id}: {reason}, asked again every {}", Human(EAGER_LAST));
            self.record(id, EntryKind::ServiceWaiting, Level::Warning, message, []);
        }
    }

    pub(super) fn probed(&mut self, id: &Id, invocation: InvocationId, report: &ProbeReport) {
        let (now, origin) = (self.now, self.origin);
        let slot = self.first_probe(id);
        let Some(service) = self.services.get_mut(id) else { return };
        let Some(sent) = service.watch.sent.filter(|_| service.invocation == Some(invocation)) else {
            return;
        };
        let starting = match service.state {
            State::Starting => true,
            State::Running => false,
            _ => return,
        };
        service.view = None;
        self.alerting.mark(id);
        self.timers.clear(id, Timer::ProbeAnswer);
        let check = &service.plan.health;
        let next = if starting {
            let doubled = EAGER_FIRST.saturating_mul(1 << service.watch.rounds.min(6));
            now.mono + doubled.min(EAGER_LAST).min(check.interval)
        } else if service.watch.rounds == 0 {
            // It may have been asked ahead of its slot.
            if slot - now.mono < check.interval / 2 { slot + check.interval } else { slot }
        } else {
            beat_before(origin, check, sent.at + check.interval).max(now.mono + check.interval / 2)
        };
        let in_start_period = service.started.is_some_and(|(at, _)| now.mono - at < check.start_period);
        let late = now.mono - sent.at > check.longest_answer() + MARGIN / 2;
        let suspended = now.asleep.saturating_sub(sent.asleep) > NAP;
        let stalled = !report.passed && (late || suspended);
        let before = service.watch.health();
        let counting =
            if starting || in_start_period || stalled { Counting::Nothing } else { Counting::Failures };
        let plan = Arc::clone(&service.plan);
        let after = service.watch.judge(now, &plan.health, report, counting);
        service.remember_answer();
        if !stalled {
            service.tally.probed(report);
        }
        if !starting {
            service.flaps.answered(report.passed);
        }
        self.timers.set(id, Timer::Probe, next);
        if starting {
            if report.passed {
                self.ready(id, &format!("healthy: {}", report.message));
            }
        } else {
            if after != before {
                self.health_changed(id, before, after, &report.message);
            }
            if after == Health::Unhealthy && self.restarts_when_ill(id) {
                let cause = format!("{} failed probes in a row: {}", self.failures(id), report.message);
                self.begin_stop(id, &cause, AfterStop::Fail(cause.clone()));
            }
        }
    }

    fn restarts_when_ill(&self, id: &Id) -> bool {
        !self.leaving && self.services.get(id).is_some_and(|s| s.plan.auto_restart && s.want == Want::Up)
    }

    fn failures(&self, id: &Id) -> u32 {
        let last = self.services.get(id).and_then(|s| s.watch.last.as_ref());
        last.map_or(0, |probe| probe.consecutive_failures)
    }

    fn health_changed(&mut self, id: &Id, before: Health, after: Health, answer: &str) {
        let (restart, failures) = (self.restarts_when_ill(id), self.failures(id));
        if matches!(after, Health::Degraded | Health::Unhealthy) && !restart {
            let now = self.now.mono;
            self.touch(id).into_iter().for_each(|s| s.flaps.turned_bad(now));
        }
        let auto_restart = self.services.get(id).is_some_and(|s| s.plan.auto_restart);
        let (level, next) = match after {
            Health::Unhealthy if restart => {
                (Level::Error, format!("; {failures} failures in a row, to be restarted"))
            }
            Health::Unhealthy if auto_restart => {
                (Level::Error, format!("; {failures} failures in a row, but it is to be stopped anyway"))
            }
            Health::Unhealthy => {
                (Level::Error, format!("; {failures} failures in a row, left running: auto_restart is off"))
            }
            Health::Degraded => (Level::Warning, "; the fallback check passes, so it goes on".into()),
            Health::Unknown => (Level::Warning, "; it goes on, and is asked again".into()),
            Health::Healthy => (Level::Info, String::new()),
        };
        if let Some(running) = self.touch(id).filter(|s| s.state == State::Running && s.want == Want::Up) {
            running.reason = format!("{after}: {answer}");
        }
        let message = format!("{id}: {before} -> {after}: {answer}{next}");
        let details =
            [("from", before.as_str().into()), ("to", after.as_str().into()), ("answer", answer.into())];
        self.record(id, EntryKind::HealthChanged, level, message, details);
        self.unsettled = true;
    }
}
