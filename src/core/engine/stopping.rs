//! The way down.

use super::orders::Goal;
use super::*;
use crate::core::action::AfterStop;
use crate::core::time::Human;
use crate::core::words;
use std::time::Duration;

/// After so many stops that failed, those who wait for the outcome are told.
const STOP_TRIES: u32 = 2;
/// From a stop that failed to the next try.
const STOP_AGAIN: Duration = Duration::from_secs(5);
/// Beyond the service's own timeout, for systemd's answer.
const MARGIN: Duration = Duration::from_secs(15);

impl Engine {
    /// Stops a service that is to be down, once those that depend on it and are to be down too are down.
    pub(super) fn try_stop(&mut self, id: &Id) {
        let Some(service) = self.services.get(id) else { return };
        let held = self.graph.dependents(id).iter().any(|dependent| {
            self.services
                .get(dependent)
                .is_some_and(|s| s.is_active() && (self.leaving || s.want != Want::Up))
        });
        if held || !matches!(service.state, State::Starting | State::Running) {
            return;
        }
        let reason = match service.want {
            _ if self.leaving => "the supervisor stops everything".into(),
            Want::Removed => "it left the configuration".into(),
            Want::Disabled => "it was disabled in the configuration".into(),
            _ => service.reason.clone(),
        };
        self.begin_stop(id, &reason, AfterStop::Rest);
    }

    pub(super) fn begin_stop(&mut self, id: &Id, reason: &str, after: AfterStop) {
        let op = self.next_op();
        let Some(service) = self.touch(id) else { return };
        service.op = Some(op);
        service.start_due = false;
        service.appeared = None;
        service.stop_tries = 0;
        let shutdown = &service.plan.exec.shutdown;
        let (timeout, then) = (
            shutdown.timeout,
            match &after {
                AfterStop::Rest => "",
                AfterStop::Start => ", then a start",
                AfterStop::Fail(_) => ", then the restart policy decides",
            },
        );
        let next = if shutdown.graceful {
            format!("sent {}, SIGKILL after {}{then}", words::signal(shutdown.signal), Human(timeout))
        } else {
            format!("sent SIGKILL{then}")
        };
        service.after_stop = after;
        let told = Told { kind: EntryKind::ServiceStopping, level: Level::Info, reason, next: &next };
        self.enter(id, State::Stopping, &told);
        self.timers.clear(id, Timer::StopAgain);
        self.timers.set(id, Timer::Answer, self.now.mono + timeout + MARGIN);
        self.out.push(Action::StopUnit { op, service: id.clone(), kill: false });
    }

    pub(super) fn stop_finished(&mut self, id: &Id, op: OpId, result: Result<(), String>) {
        if self.orphans.get(id).is_some_and(|orphan| orphan.op == op) {
            return self.orphan_stopped(id, result);
        }
        let Some(service) =
            self.services.get_mut(id).filter(|s| s.op == Some(op) && s.state == State::Stopping)
        else {
            return;
        };
        service.op = None;
        self.timers.clear(id, Timer::Answer);
        match result {
            Ok(()) => self.stopped(id),
            Err(why) => self.stop_failed(id, &why),
        }
    }

    /// The unit is down, as was asked.
    pub(super) fn stopped(&mut self, id: &Id) {
        let appeared = self.services.get_mut(id).and_then(|s| s.appeared.take());
        self.stop_done(id);
        if let Some((run, pid)) = appeared {
            self.unit_appeared(id, run, pid);
        }
    }

    fn stop_done(&mut self, id: &Id) {
        let leaving = self.leaving;
        let Some(service) = self.touch(id) else { return };
        service.ended = service.invocation.or(service.ended);
        service.op = None;
        let after = mem::replace(&mut service.after_stop, AfterStop::Rest);
        let up = service.want == Want::Up && !leaving;
        let why = service.reason.split("; ").next().unwrap_or_default().to_owned();
        match after {
            AfterStop::Fail(cause) if up => return self.fail(id, &cause),
            AfterStop::Start if up => {
                service.start_due = true;
                service.restarting = true;
            }
            // Up and yet stopped for good: the last daemon died while it stopped everything.
            _ => service.start_due = up,
        }
        let next = match (service.want, service.start_due) {
            (_, true) => "to be started again",
            (Want::StoppedByHand, _) => "stays down until it is started",
            _ => "",
        };
        let told = Told { kind: EntryKind::ServiceStopped, level: Level::Info, reason: &why, next };
        self.enter(id, State::Stopped, &told);
    }

    fn stop_failed(&mut self, id: &Id, why: &str) {
        let again = self.now.mono + STOP_AGAIN;
        let Some(service) = self.touch(id) else { return };
        service.stop_tries = service.stop_tries.saturating_add(1);
        let tries = service.stop_tries;
        let next = format!("trying again every {}", Human(STOP_AGAIN));
        let trouble = format!("could not be stopped: {why}; {next}");
        let stopped_for = service.reason.split("; ").next().unwrap_or_default();
        service.reason = format!("{stopped_for}; {trouble}");
        let message = format!("{id}: {trouble}");
        self.timers.set(id, Timer::StopAgain, again);
        if tries == 1 {
            self.record(id, EntryKind::ServiceStopping, Level::Error, message, []);
        } else if tries == STOP_TRIES {
            let why = format!("it {trouble}");
            self.supersede(id, Goal::Down, &why);
            self.supersede(id, Goal::Ready, &why);
        }
    }

    pub(super) fn stop_again(&mut self, id: &Id) {
        let op = self.next_op();
        let now = self.now.mono;
        let Some(service) = self.touch(id).filter(|s| s.state == State::Stopping) else { return };
        service.op = Some(op);
        // A stop may fail because systemd could not be reached: that takes no time to end from the service.
        let timeout = service.plan.exec.shutdown.timeout;
        let kill = now - service.since.0 >= timeout;
        self.timers.set(id, Timer::Answer, now + if kill { MARGIN } else { timeout + MARGIN });
        self.out.push(Action::StopUnit { op, service: id.clone(), kill });
    }

    /// systemd owes an answer for too long.
    pub(super) fn answer_overdue(&mut self, id: &Id) {
        let Some(service) = self.touch(id) else { return };
        service.op = None;
        match service.state {
            State::Starting => {
                let cause = format!("systemd did not finish the start in {}", Human(service.answer_budget()));
                self.begin_stop(id, &cause, AfterStop::Fail(cause.clone()));
            }
            State::Stopping => self.stop_failed(id, "systemd did not answer"),
            _ => {}
        }
    }
}
