//! What people ask for, and the answers they get.

use super::*;
use crate::core::action::{AfterStop, Outcome};
use crate::core::event::{OrderId, Verb};
use crate::core::snapshot::Health;
use crate::core::words;

/// Somebody who waits for the outcome of an order.
#[derive(Debug, Clone)]
pub(super) struct Waiter {
    order: OrderId,
    service: Id,
    goal: Goal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    Ready,
    Down,
}

impl Engine {
    pub(super) fn ordered(&mut self, order: OrderId, origin: &str, id: &Id, verb: Verb) {
        let Some(service) = self.services.get(id) else {
            return self.answer(order, false, State::Stopped, format!("there is no service {id}"));
        };
        let state = service.state;
        if self.leaving || service.want == Want::Removed {
            let why = if self.leaving {
                "the supervisor is stopping everything"
            } else {
                "it left the configuration"
            };
            return self.answer(order, false, state, format!("{id}: not done: {why}"));
        }
        match verb {
            Verb::Reset => self.reset_ordered(order, origin, id),
            Verb::Stop => self.stop_ordered(order, origin, id),
            Verb::Start => self.start_ordered(order, origin, id),
            Verb::Restart => self.restart_ordered(order, origin, id),
        }
    }

    pub(super) fn shutdown_ordered(&mut self, origin: &str) {
        if self.leaving {
            return;
        }
        self.leaving = true;
        self.all_stale();
        let active = self.services.values().filter(|s| s.is_active()).count();
        self.out.push(Action::Record(Entry {
            service: None,
            kind: EntryKind::SupervisorStopped,
            level: Level::Info,
            message: format!(
                "shutdown asked for by {origin}; stopping {active} services in reverse order, then leaving"
            ),
            details: BTreeMap::new(),
        }));
        for id in self.graph.order.clone() {
            self.mark(&id);
        }
        for waiter in mem::take(&mut self.waiters) {
            let state = self.services.get(&waiter.service).map_or(State::Stopped, |s| s.state);
            let message = format!("{}: the supervisor is stopping everything", waiter.service);
            self.answer(waiter.order, false, state, message);
        }
        self.unsettled = true;
    }

    fn start_ordered(&mut self, order: OrderId, origin: &str, id: &Id) {
        self.supersede(id, Goal::Down, &format!("a start asked for by {origin} came in between"));
        let Some(service) = self.touch(id) else { return };
        service.want = Want::Up;
        match service.state {
            State::Running => {
                let pid = service.pid.map_or(String::new(), |pid| format!(" (pid {pid})"));
                self.mark(id);
                self.persist(id);
                return self.answer(order, true, State::Running, format!("{id} is already running{pid}"));
            }
            State::Starting => self.persist(id),
            State::Stopping => {
                service.attempt = 0;
                service.after_stop = AfterStop::Start;
                service.reason = format!("start asked for by {origin}");
                self.persist(id);
            }
            _ => self.start_anew(id, &format!("start asked for by {origin}")),
        }
        self.mark(id);
        self.wait_for(order, id, Goal::Ready);
    }

    fn restart_ordered(&mut self, order: OrderId, origin: &str, id: &Id) {
        self.supersede(id, Goal::Down, &format!("a restart asked for by {origin} came in between"));
        let Some(service) = self.touch(id) else { return };
        service.want = Want::Up;
        service.attempt = 0;
        let reason = format!("restart asked for by {origin}");
        match service.state {
            State::Starting | State::Running => self.begin_stop(id, &reason, AfterStop::Start),
            State::Stopping => {
                service.after_stop = AfterStop::Start;
                service.reason.clone_from(&reason);
                self.persist(id);
            }
            _ => self.start_anew(id, &reason),
        }
        self.mark(id);
        self.wait_for(order, id, Goal::Ready);
    }

    /// From a state of rest: attempts count from 0, and the start does not wait for a delay.
    fn start_anew(&mut self, id: &Id, reason: &str) {
        let Some(service) = self.touch(id) else { return };
        service.attempt = 0;
        service.restarting = service.ended.is_some();
        service.was_ready = false;
        reason.clone_into(&mut service.reason);
        self.timers.clear(id, Timer::Retry);
        self.set_start_due(id, true);
        self.persist(id);
    }

    fn stop_ordered(&mut self, order: OrderId, origin: &str, id: &Id) {
        let reason = format!("stopped by {origin}");
        self.supersede(id, Goal::Ready, &reason);
        let Some(service) = self.touch(id) else { return };
        let state = service.state;
        service.want = Want::StoppedByHand;
        service.was_ready = false;
        self.set_start_due(id, false);
        match state {
            State::Stopped => {
                if let Some(service) = self.touch(id) {
                    service.waiting_for.clear();
                    service.reason.clone_from(&reason);
                }
                self.persist(id);
                return self.answer(
                    order,
                    true,
                    state,
                    format!("{id} is stopped; it stays down until it is started"),
                );
            }
            State::Failed | State::Backoff | State::Fatal => {
                self.enter(
                    id,
                    State::Stopped,
                    &Told {
                        kind: EntryKind::ServiceStopped,
                        level: Level::Info,
                        reason: &reason,
                        next: "stays down until it is started",
                    },
                );
                return self.answer(
                    order,
                    true,
                    State::Stopped,
                    format!("{id} is stopped; no restart will come"),
                );
            }
            State::Stopping => {
                if let Some(service) = self.touch(id) {
                    service.after_stop = AfterStop::Rest;
                    service.reason.clone_from(&reason);
                }
                self.persist(id);
            }
            State::Starting | State::Running => {
                self.touch(id).into_iter().for_each(|s| s.reason.clone_from(&reason));
                self.persist(id);
            }
        }
        self.mark(id);
        self.wait_for(order, id, Goal::Down);
    }

    fn reset_ordered(&mut self, order: OrderId, origin: &str, id: &Id) {
        let Some(service) = self.touch(id) else { return };
        let (before, state) = (mem::take(&mut service.attempt), service.state);
        let next = match state {
            State::Fatal | State::Failed => "; it stays down until it is started",
            State::Backoff => "; the restart that is due stays due",
            _ => "",
        };
        let message = format!("{id}: attempts set from {before} to 0 by {origin}{next}");
        self.record(id, EntryKind::AttemptsReset, Level::Info, message.clone(), []);
        self.persist(id);
        self.answer(order, true, state, message);
    }

    /// Answers those who wait for `goal`, which somebody else's order now prevents.
    pub(super) fn supersede(&mut self, id: &Id, goal: Goal, why: &str) {
        let state = self.services.get(id).map_or(State::Stopped, |s| s.state);
        let (lost, rest) =
            mem::take(&mut self.waiters).into_iter().partition(|w| w.service == *id && w.goal == goal);
        self.waiters = rest;
        let lost: Vec<Waiter> = lost;
        for waiter in lost {
            self.answer(waiter.order, false, state, format!("{id}: {why}"));
        }
    }

    fn wait_for(&mut self, order: OrderId, id: &Id, goal: Goal) {
        self.waiters.push(Waiter { order, service: id.clone(), goal });
    }

    /// After a state was entered: those whose goal is reached, or cannot be reached now, get their answer.
    pub(super) fn answer_waiters(&mut self, id: &Id) {
        if self.waiters.is_empty() {
            return;
        }
        let Some(service) = self.services.get(id) else { return };
        let (state, up) = (service.state, service.want == Want::Up);
        let completed = service.want == Want::Completed;
        let reached = |goal: Goal| match (goal, state) {
            (Goal::Ready, State::Running)
            | (Goal::Down, State::Stopped | State::Failed | State::Backoff | State::Fatal) => Some(true),
            (Goal::Ready, State::Failed | State::Backoff | State::Fatal) => Some(false),
            // One that ended with success did what it is there for.
            (Goal::Ready, State::Stopped) if !up => Some(completed),
            _ => None,
        };
        let message = match (state, service.pid) {
            (State::Running, Some(pid)) => format!("{id} is running (pid {pid}): {}", service.reason),
            (State::Backoff, _) => format!("{id} is in backoff: {}", service.reason),
            _ => format!("{id} is {state}: {}", service.reason),
        };
        let mut kept = Vec::new();
        for waiter in mem::take(&mut self.waiters) {
            match reached(waiter.goal).filter(|_| waiter.service == *id) {
                Some(done) => self.answer(waiter.order, done, state, message.clone()),
                None => kept.push(waiter),
            }
        }
        self.waiters = kept;
    }

    /// A service waits for dependencies. If none of them is on its way, waiting for an outcome is pointless.
    pub(super) fn answer_held(&mut self, id: &Id, blockers: &[Id]) {
        let Some(stuck) = self.stuck(blockers) else { return };
        let message = format!(
            "{id} waits for {} and starts by itself when it can; {} is {}: {}",
            words::list(blockers),
            stuck.plan.id,
            stuck.state,
            stuck.reason
        );
        let (held, rest) = mem::take(&mut self.waiters).into_iter().partition(|w| w.service == *id);
        self.waiters = rest;
        let held: Vec<Waiter> = held;
        for waiter in held {
            self.answer(waiter.order, false, State::Stopped, message.clone());
        }
    }

    /// The first of `blockers`, and of what they wait for, that nothing but a person will bring up.
    fn stuck(&self, blockers: &[Id]) -> Option<&Service> {
        let mut open: Vec<&Id> = blockers.iter().rev().collect();
        let mut seen = BTreeSet::new();
        while let Some(id) = open.pop() {
            let Some(service) = self.services.get(id).filter(|_| seen.insert(id)) else { continue };
            let ill = service.watch.health() == Health::Unhealthy && !service.plan.auto_restart;
            if service.want != Want::Up || ill || matches!(service.state, State::Failed | State::Fatal) {
                return Some(service);
            }
            open.extend(service.waiting_for.iter().rev());
        }
        None
    }

    fn answer(&mut self, order: OrderId, done: bool, state: State, message: String) {
        self.out.push(Action::Answer { order, outcome: Outcome { done, state, message } });
    }
}
