//! The way up: gates, the start itself, readiness.

use super::*;
use crate::core::action::AfterStop;
use crate::core::event::{StartFailure, Started};
use crate::core::plan::{Condition, Dependency, OnFailure, ServiceType};
use crate::core::snapshot::Health;
use crate::core::time::Human;
use crate::core::words;
use std::time::Duration;

/// From a start that did not reach systemd to the next try, should nobody tell that systemd is back.
const RECONNECT: Duration = Duration::from_secs(5);
/// A service without a probe of its own is ready when it lived this long.
const ALIVE: Duration = Duration::from_secs(1);

impl Engine {
    /// Starts a service that is due, if nothing holds it back; else says what does.
    pub(super) fn try_start(&mut self, id: &Id) {
        let Some(service) = self.services.get(id).filter(|s| s.start_due && !s.is_active()) else { return };
        if self.orphans.contains_key(id) {
            return; // its old unit goes first; the answer to that stop brings us back here
        }
        let blockers = self.blockers(service);
        if !blockers.is_empty() {
            return self.hold(id, blockers);
        }
        let starting = || self.services.values().filter(|s| s.state == State::Starting).count();
        if self.plan.max_concurrent_starts.is_none_or(|max| starting() < max.get()) {
            self.begin_start(id);
        }
    }

    /// Dependencies that are not what the service needs them to be.
    fn blockers(&self, service: &Service) -> Vec<Id> {
        let unmet = |dependency: &&Dependency| {
            let past_caring = dependency.on_failure == OnFailure::Ignore && service.was_ready;
            !past_caring
                && !self.services.get(&dependency.service).is_some_and(|s| is_met(s, dependency.condition))
        };
        service.plan.dependencies.iter().filter(unmet).map(|d| d.service.clone()).collect()
    }

    fn hold(&mut self, id: &Id, blockers: Vec<Id>) {
        let Some(service) = self.touch(id) else { return };
        let news = service.waiting_for.is_empty() || service.state != State::Stopped;
        service.waiting_for.clone_from(&blockers);
        if news {
            let reason = format!("waiting for {}", words::list(&blockers));
            let next = match blockers.as_slice() {
                [one] => format!("starts by itself when {one} is ready"),
                _ => "starts by itself when they are ready".into(),
            };
            self.enter(
                id,
                State::Stopped,
                &Told { kind: EntryKind::ServiceWaiting, level: Level::Info, reason: &reason, next: &next },
            );
        }
        self.answer_held(id, &blockers);
    }

    fn begin_start(&mut self, id: &Id) {
        let op = self.next_op();
        let wall = self.now.wall;
        let Some(service) = self.touch(id) else { return };
        let reason = match service.state {
            State::Backoff if service.attempt > 0 => format!("restart, {}", attempt_words(service)),
            _ if !service.waiting_for.is_empty() => "what it waited for is ready".into(),
            _ => service.reason.split("; ").next().unwrap_or_default().into(),
        };
        if mem::take(&mut service.restarting) {
            service.restart_count += 1;
            service.last_restart = Some(wall);
        }
        service.start_due = false;
        service.op = Some(op);
        service.invocation = None;
        service.outdated = false;
        service.early_exit = None;
        service.appeared = None;
        service.started = None;
        service.pid = None;
        service.watch = Default::default();
        service.stop_tries = 0;
        let (plan, budget) = (Arc::clone(&service.plan), service.answer_budget());
        let next = match plan.exec.service_type {
            ServiceType::Notify => {
                format!("ready when it says READY=1, for which it has {}", Human(service.startup_budget()))
            }
            ServiceType::Exec if plan.health.probe.decides_readiness() => {
                format!("ready at the first passing probe, which has {}", Human(service.startup_budget()))
            }
            ServiceType::Exec => format!("ready after {}", Human(ALIVE)),
        };
        let told =
            Told { kind: EntryKind::ServiceStarting, level: Level::Info, reason: &reason, next: &next };
        self.enter(id, State::Starting, &told);
        self.timers.set(id, Timer::Answer, self.now.mono + budget);
        self.out.push(Action::StartUnit { op, plan });
    }

    pub(super) fn start_finished(&mut self, id: &Id, op: OpId, result: Result<Started, StartFailure>) {
        let now = self.now;
        let Some(service) =
            self.services.get_mut(id).filter(|s| s.op == Some(op) && s.state == State::Starting)
        else {
            return;
        };
        service.op = None;
        service.view = None;
        self.alerting.mark(id);
        self.timers.clear(id, Timer::Answer);
        let down = service.want != Want::Up || self.leaving;
        // Told by systemd itself, whatever became of the answer.
        let ended = service.early_exit.as_ref().map(|(run, ..)| (*run, None));
        let result = match (result, service.appeared.take().or(ended)) {
            (Err(failure), Some((invocation, pid))) if failure.unreachable => Ok(Started { invocation, pid }),
            (result, _) => result,
        };
        match result {
            Ok(Started { invocation, pid }) => {
                service.invocation = Some(invocation);
                service.pid = pid;
                service.started = Some((now.mono, now.wall));
                if let Some((_, exit, external)) =
                    service.early_exit.take().filter(|(run, ..)| *run == invocation)
                {
                    return self.run_ended(id, invocation, exit, external);
                }
                self.persist(id);
                self.await_readiness(id, service_is_notify);
            }
            Err(failure) if failure.unreachable && !down => {
                self.connected = false;
                service.start_due = true;
                self.enter(
                    id,
                    State::Stopped,
                    &Told {
                        kind: EntryKind::SystemdConnection,
                        level: Level::Warning,
                        reason: &failure.message,
                        next: "starts when systemd can be reached again",
                    },
                );
                self.ask_again = Some(now.mono + RECONNECT);
            }
            // An earlier start got through, though its answer did not, and the plan changed since.
            Err(StartFailure { invocation: Some(run), message, outdated: true, .. }) => {
                service.invocation = Some(run);
                self.begin_stop(id, &message, AfterStop::Start);
            }
            Err(StartFailure { invocation, exit, message, .. }) => {
                service.ended = invocation.or(service.ended);
                service.invocation = invocation;
                if let Some(exit) = exit {
                    service.note_exit(exit, now.wall);
                }
                if down {
                    self.rest(id, EntryKind::ServiceStopped, &message, "");
                } else {
                    self.fail(id, &message);
                }
            }
        }
    }

    /// The process runs; from here on it has to become ready.
    pub(super) fn await_readiness(&mut self, id: &Id, said_ready: impl Fn(&Service) -> bool) {
        let now = self.now.mono;
        let Some(service) = self.services.get(id) else { return };
        let started = service.started.map_or(now, |(mono, _)| mono);
        self.unsettled = true;
        if said_ready(service) {
            self.ready(id, "it said READY=1");
        } else if service.plan.exec.service_type == ServiceType::Notify {
            self.timers.set(id, Timer::Startup, started + service.startup_budget());
        } else if service.plan.health.probe.decides_readiness() {
            // One that was adopted late gets the time for one answer.
            let at_least = now + service.plan.health.timeout;
            self.timers.set(id, Timer::Startup, (started + service.startup_budget()).max(at_least));
            self.timers.set(id, Timer::Probe, now);
        } else {
            self.timers.set(id, Timer::Alive, (started + ALIVE).max(now));
        }
    }

    pub(super) fn ready(&mut self, id: &Id, why: &str) {
        let now = self.now.mono;
        let Some(service) = self.services.get_mut(id).filter(|s| s.state == State::Starting) else { return };
        service.was_ready = true;
        let by_probe = service.plan.health.probe.decides_readiness();
        let said_ready = service.plan.exec.service_type == ServiceType::Notify;
        let after = match service.started {
            Some((since, _)) if by_probe || said_ready => {
                // One that was adopted on its way up started before it entered this state.
                format!(", {} after its start", Human(now - service.since.0.min(since)))
            }
            _ => String::new(),
        };
        let reset = service.plan.restart.reset_after;
        let reason = format!("{why}{after}");
        self.healthy_unless_probed(id);
        let told = Told { kind: EntryKind::ServiceStarted, level: Level::Info, reason: &reason, next: "" };
        // A daemon that dies here must not forget whom to restart: they are kept as stopping before this one is
        // kept as running. The log tells the cause first.
        let first = self.out.len();
        self.restart_dependents(id);
        let dependents = self.out.split_off(first);
        self.enter(id, State::Running, &told);
        let own = self.out.split_off((first + 1).min(self.out.len()));
        self.out.extend(dependents);
        self.out.extend(own);
        self.timers.set(id, Timer::Reset, now + reset);
        let first_probe = if by_probe && said_ready { now } else { self.first_probe(id) };
        self.timers.set(id, Timer::Probe, first_probe);
    }

    /// That it is up is all the health that there is of a service without a probe of its own.
    pub(super) fn healthy_unless_probed(&mut self, id: &Id) {
        if let Some(service) = self.touch(id).filter(|s| !s.plan.health.probe.decides_readiness()) {
            service.watch.health.get_or_insert(Health::Healthy);
        }
    }

    /// It took too long to become ready.
    pub(super) fn startup_overdue(&mut self, id: &Id) {
        let Some(service) = self.services.get_mut(id).filter(|s| s.state == State::Starting) else { return };
        let budget = Human(service.startup_budget());
        let last = service.watch.last.as_ref().map_or(String::new(), |probe| format!(": {}", probe.message));
        if service.watch.fallback_passed {
            return self.ready(id, &format!("only its fallback check passes{last}"));
        }
        if let Some(lack) = service.watch.lack.clone() {
            return self.wait_for_check(id, &lack);
        }
        if service.plan.exec.service_type == ServiceType::Notify {
            return self.begin_stop(
                id,
                &format!("no READY=1 in {budget}"),
                AfterStop::Fail(format!("no READY=1 in {budget}")),
            );
        }
        let cause = format!("did not become healthy in {budget}{last}");
        if service.plan.auto_restart {
            self.begin_stop(id, &cause, AfterStop::Fail(cause.clone()));
        } else {
            service.watch.health = Some(Health::Unhealthy);
            self.ready(id, &format!("{cause}; left running, auto_restart is off"));
        }
    }

    /// `id` is back: those that asked for a restart then, and run since before, get it.
    fn restart_dependents(&mut self, id: &Id) {
        let Some((back, _)) = self.services.get(id).and_then(|s| s.started) else { return };
        let graph = Arc::clone(&self.graph);
        for dependent in graph.dependents(id) {
            let asked = self.services.get(dependent).is_some_and(|s| {
                matches!(s.state, State::Starting | State::Running)
                    && s.started.is_some_and(|(started, _)| started < back)
                    && s.want == Want::Up
                    && s.plan
                        .dependencies
                        .iter()
                        .any(|d| d.service == *id && d.on_failure == OnFailure::Restart)
            });
            if asked && !self.leaving {
                self.begin_stop(
                    dependent,
                    &format!("{id}, which it depends on, was started again"),
                    AfterStop::Start,
                );
            }
        }
    }
}

/// `attempt 2 of 5`, `attempt 7`.
pub(super) fn attempt_words(service: &Service) -> String {
    match service.plan.restart.max_retries {
        Some(max) if service.attempt <= max => format!("attempt {} of {max}", service.attempt),
        _ => format!("attempt {}", service.attempt),
    }
}

/// The answer to the start of a `notify` service is its readiness.
fn service_is_notify(service: &Service) -> bool {
    service.plan.exec.service_type == ServiceType::Notify
}

fn is_met(dependency: &Service, condition: Condition) -> bool {
    let ready = dependency.state == State::Running && dependency.watch.health() != Health::Unhealthy;
    match condition {
        Condition::Healthy => ready,
        Condition::Started => {
            dependency.state == State::Running
                || dependency.state == State::Starting && dependency.invocation.is_some()
                || dependency.want == Want::Completed
        }
    }
}
