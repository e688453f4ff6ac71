//! What systemd shows after we were away: adoption at the start of the daemon, and again whenever the connection
//! to systemd was made anew. The same code, so that the rare case is as well trodden as the common one.

use super::orders::Goal;
use super::*;
use crate::core::action::AfterStop;
use crate::core::event::{Activity, Exit, ExitResult, InvocationId, UnitSeen};
use crate::core::plan::ServiceType;
use crate::core::time::Human;
use std::time::Duration;

/// For the stop of a unit that no plan names, whose timeout nobody knows any more.
const ORPHAN: Duration = Duration::from_secs(100);
/// How often such a stop is tried, and the time from one that failed to the next.
const ORPHAN_TRIES: u32 = 3;
const ORPHAN_AGAIN: Duration = Duration::from_secs(5);

impl Engine {
    pub(super) fn systemd_identified(&mut self, began: u64) {
        self.replaced |= began != self.boot.systemd_began;
        self.boot.systemd_began = began;
    }

    /// Units end with the systemd that runs them, as a user's does while a supervisor in a session lives on. That is
    /// no failure, and nobody's wish about one of them. What is still there is of this one.
    fn under_another_systemd(&mut self, id: &Id, seen: &UnitSeen) {
        let Some(service) = self.touch(id) else { return };
        // It stops its units before it is gone.
        let stopped_by_it = service.want == Want::StoppedOutside;
        if stopped_by_it {
            service.want = if service.plan.enabled { Want::Up } else { Want::Disabled };
        }
        let up = service.want == Want::Up;
        let ended = match service.state {
            State::Starting | State::Running => true,
            State::Stopped => stopped_by_it && up,
            _ => false,
        };
        if !ended || seen.activity.is_up() {
            return self.persist(id);
        }
        service.ended = service.invocation.or(service.ended);
        service.start_due = up;
        let next = if up { "to be started again" } else { "" };
        let reason = "it ended with the systemd that ran it";
        let told = Told { kind: EntryKind::ServiceStopped, level: Level::Warning, reason, next };
        self.enter(id, State::Stopped, &told);
    }

    pub(super) fn resynced(&mut self, mut units: BTreeMap<Id, UnitSeen>) {
        self.connected = true;
        self.ask_again = None;
        let first = !mem::replace(&mut self.met, true);
        let replaced = mem::take(&mut self.replaced);
        for id in self.graph.order.clone() {
            let seen = units.remove(&id).unwrap_or(UnitSeen::GONE);
            if replaced {
                self.under_another_systemd(&id, &seen);
            }
            self.reconcile(&id, &seen, first);
        }
        for id in mem::take(&mut self.left_over) {
            if !units.contains_key(&id) && !self.services.contains_key(&id) {
                self.out.push(Action::Forget { service: id });
            }
        }
        for (id, seen) in units {
            let next = if seen.activity.is_up() { "its unit is stopped" } else { "its unit is forgotten" };
            let message = format!("{id}: left the configuration while the supervisor was away; {next}");
            self.stop_orphan(id, message);
        }
        if first {
            self.settle_old_alerts();
        }
        self.unsettled = true;
    }

    /// A unit of ours that no plan names.
    fn stop_orphan(&mut self, id: Id, message: String) {
        if self.orphans.contains_key(&id) {
            return;
        }
        self.record(&id, EntryKind::ServiceRemoved, Level::Warning, message, []);
        self.ask_orphan_to_stop(id, 1);
    }

    fn ask_orphan_to_stop(&mut self, id: Id, tries: u32) {
        let op = self.next_op();
        self.orphans.insert(id.clone(), Orphan { op, tries });
        self.timers.set(&id, Timer::Orphan, self.now.mono + ORPHAN);
        self.out.push(Action::StopUnit { op, service: id, kill: tries > 1 });
    }

    pub(super) fn orphan_stopped(&mut self, id: &Id, result: Result<(), String>) {
        let Some(orphan) = self.orphans.get(id) else { return };
        self.timers.clear(id, Timer::Orphan);
        match result {
            Err(_) if orphan.tries < ORPHAN_TRIES => {
                self.timers.set(id, Timer::Orphan, self.now.mono + ORPHAN_AGAIN);
                return;
            }
            Err(why) => {
                let message = format!(
                    "{id}: its left-over unit could not be stopped: {why}; tried again when the supervisor starts"
                );
                self.record(id, EntryKind::ServiceStopping, Level::Error, message, []);
            }
            Ok(()) if !self.services.contains_key(id) => {
                self.out.push(Action::ReleaseUnit { service: id.clone() });
                self.out.push(Action::Forget { service: id.clone() });
                self.forgotten.insert(id.clone());
            }
            Ok(()) => {}
        }
        self.orphans.remove(id);
        self.unsettled = true;
    }

    /// No answer, or a bad one a while ago: once more, but not for ever, so that nothing waits for it for ever.
    pub(super) fn orphan_overdue(&mut self, id: &Id) {
        match self.orphans.get(id).map(|orphan| orphan.tries) {
            Some(tries) if tries < ORPHAN_TRIES => self.ask_orphan_to_stop(id.clone(), tries + 1),
            Some(_) => self.orphan_stopped(id, Err("systemd did not answer".into())),
            None => {}
        }
    }

    /// Brings one service in line with what systemd has of it.
    fn reconcile(&mut self, id: &Id, seen: &UnitSeen, first: bool) {
        let Some(service) = self.services.get_mut(id) else { return };
        correct_appeared(service, seen);
        if service.op.is_some() {
            let run =
                seen.invocation.filter(|run| service.state == State::Starting && Some(*run) != service.ended);
            match (seen.activity, run) {
                // The answer may have been lost with the connection, and is not needed.
                (Activity::Active, Some(_)) => {
                    service.op = None;
                    self.timers.clear(id, Timer::Answer);
                }
                // The order got there; its answer will tell, unless it is lost.
                (Activity::Activating, Some(run)) => {
                    service.appeared = Some((run, seen.pid));
                    return;
                }
                _ => return, // its answer will tell
            }
        }
        let Some(service) = self.services.get(id) else { return };
        match (seen.activity, seen.invocation) {
            (Activity::Active | Activity::Activating, Some(run)) if service.ended != Some(run) => {
                self.seen_up(id, run, seen, first);
            }
            (Activity::Active | Activity::Activating | Activity::Deactivating, _) => {
                self.seen_going_down(id, seen);
            }
            (Activity::Inactive | Activity::Failed | Activity::Gone, _) => self.seen_down(id, seen),
        }
    }

    fn seen_up(&mut self, id: &Id, run: InvocationId, seen: &UnitSeen, first: bool) {
        let Some(service) = self.touch(id) else { return };
        let known = service.invocation == Some(run);
        // The start of it was ordered, and nobody told how it went.
        let unanswered = service.state == State::Starting && service.invocation.is_none();
        let up = service.want == Want::Up;
        match service.state {
            State::Stopping => self.finish_stop_of(id),
            State::Starting | State::Running if (known || unanswered) && !up => {
                service.invocation = Some(run);
                service.pid = seen.pid;
                self.mark(id); // it is stopped in its turn
            }
            State::Starting | State::Running if known || unanswered => self.adopt(id, run, seen, first),
            State::Stopped if up => self.adopt(id, run, seen, first),
            _ => {
                self.unit_appeared(id, run, seen.pid);
                self.renew_if_changed(id, seen, true);
            }
        }
    }

    /// The unit is the one we left, or the one we were about to start: it goes on as it is.
    fn adopt(&mut self, id: &Id, run: InvocationId, seen: &UnitSeen, first: bool) {
        let now = self.now;
        let Some(service) = self.touch(id) else { return };
        let (state, known) = (service.state, service.invocation == Some(run));
        service.invocation = Some(run);
        service.pid = seen.pid;
        let kept = service.started.filter(|_| {
            // A program that is not executed yet is not alive yet.
            seen.activity == Activity::Active || service.plan.exec.service_type == ServiceType::Notify
        });
        let kept = kept.filter(|_| known);
        service.started = kept.or(seen.active_since).or(Some((now.mono, now.wall)));
        service.start_due = false;
        service.restarting = false;
        if self.renew_if_changed(id, seen, first || !known) {
            return;
        }
        let Some(service) = self.services.get(id) else { return };
        let said_ready =
            seen.activity == Activity::Active && service.plan.exec.service_type == ServiceType::Notify;
        if !first && known {
            // Only the connection was away; timers and probes never stopped.
            if said_ready {
                self.ready(id, "it said READY=1");
            }
            return self.mark(id);
        }
        let age = service.started.map_or_else(Default::default, |(since, _)| now.mono - since);
        let pid = seen.pid.map_or_else(|| "no main process".into(), |pid| format!("pid {pid}"));
        let found = format!("found running ({pid}, for {})", Human(age));
        if state == State::Running && known {
            let (entered, plan) = (service.since.0, Arc::clone(&service.plan));
            self.timers.set(id, Timer::Reset, (entered + plan.restart.reset_after).max(now.mono));
            self.timers.set(id, Timer::Probe, self.probe_after_adoption(id));
            self.healthy_unless_probed(id);
            self.mark(id);
            let message = format!("{id}: running: {found}; left as it is");
            self.record(id, EntryKind::ServiceAdopted, Level::Info, message, []);
            self.persist(id);
        } else {
            let told = Told {
                kind: EntryKind::ServiceAdopted,
                level: Level::Info,
                reason: &found,
                next: "left as it is",
            };
            self.enter(id, State::Starting, &told);
            self.await_readiness(id, |_| said_ready);
        }
    }

    /// Restarts a unit that was made from another configuration than the one in force. Says whether it did.
    fn renew_if_changed(&mut self, id: &Id, seen: &UnitSeen, look_at_environment: bool) -> bool {
        let Some(service) = self.services.get(id) else { return false };
        let made_from = |hash: &String| *hash == service.plan.exec_hash;
        let same = seen.exec_hash.as_ref().is_none_or(made_from)
            && (seen.environment_matches || !look_at_environment || seen.exec_hash.is_none());
        if same || !matches!(service.state, State::Stopped | State::Starting | State::Running) {
            return false;
        }
        if let Some(lacks) = service.plan.lacks.clone() {
            self.keep_outdated(id, &lacks);
            return false;
        }
        self.begin_stop(id, "its configuration changed while the supervisor was away", AfterStop::Start);
        true
    }

    /// What runs is worth more than a unit that cannot be made.
    fn keep_outdated(&mut self, id: &Id, lacks: &str) {
        let Some(service) = self.touch(id).filter(|s| !s.outdated) else { return };
        service.outdated = true;
        let message = format!(
            "{id}: its configuration changed while the supervisor was away, and cannot be used: {lacks}; it goes on \
             with the one it was started with, until a reload finds the new one good"
        );
        self.record(id, EntryKind::ConfigRejected, Level::Error, message, []);
    }

    /// It was on its way down: the stop is asked for again, which does no harm.
    fn finish_stop_of(&mut self, id: &Id) {
        let Some(service) = self.services.get(id) else { return };
        let after = service.after_stop.clone();
        let reason = service.reason.split("; ").next().unwrap_or_default().to_owned();
        self.begin_stop(id, &reason, after);
    }

    /// Its unit is on its way down, by whoever's doing.
    fn seen_going_down(&mut self, id: &Id, seen: &UnitSeen) {
        let Some(service) = self.touch(id) else { return };
        let after = if service.want == Want::Up { AfterStop::Start } else { AfterStop::Rest };
        match service.state {
            State::Stopping => self.finish_stop_of(id),
            State::Starting | State::Running if service.invocation.or(seen.invocation).is_some() => {
                // Its end will be told.
                service.invocation = seen.invocation.or(service.invocation);
                self.mark(id);
            }
            State::Starting | State::Running | State::Stopped => {
                self.begin_stop(id, "its unit was found on its way down", after);
            }
            State::Backoff => self.resume_backoff(id),
            State::Failed | State::Fatal => self.mark(id),
        }
    }

    fn resume_backoff(&mut self, id: &Id) {
        let due = self.services.get(id).and_then(|s| s.retry_at).map_or(self.now.mono, |(at, _)| at);
        self.timers.set(id, Timer::Retry, due);
    }

    fn seen_down(&mut self, id: &Id, seen: &UnitSeen) {
        let wall = self.now.wall;
        let Some(service) = self.touch(id) else { return };
        let handled = seen.invocation.is_none_or(|run| Some(run) == service.ended);
        match service.state {
            State::Starting if service.invocation.is_none() && handled => {
                service.start_due = service.want == Want::Up;
                let told = Told {
                    kind: EntryKind::ServiceStopped,
                    level: Level::Info,
                    reason: "the order to start it never reached systemd",
                    next: if service.start_due { "to be started again" } else { "" },
                };
                self.enter(id, State::Stopped, &told);
            }
            State::Starting | State::Running => {
                let run = seen.invocation.or(service.invocation).unwrap_or(InvocationId(0));
                let unknown = Exit { code: None, signal: None, result: ExitResult::ExitedUnsupervised };
                let message = match &seen.exit {
                    Some(_) => format!("{id}: ended while no supervisor was watching"),
                    None => format!(
                        "{id}: vanished while no supervisor was watching; how it ended was noted nowhere"
                    ),
                };
                self.record(id, EntryKind::ExitedUnsupervised, Level::Warning, message, []);
                self.run_ended(id, run, seen.exit.clone().unwrap_or(unknown), seen.stopped_outside);
            }
            State::Stopping => {
                if let Some(exit) = seen.exit.clone().filter(|_| !handled) {
                    service.note_exit(exit, wall);
                }
                self.stopped(id);
            }
            State::Backoff => self.resume_backoff(id),
            State::Stopped | State::Failed | State::Fatal => self.mark(id),
        }
    }

    /// Somebody started the unit beside us, or its main process is another one now.
    pub(super) fn unit_appeared(&mut self, id: &Id, run: InvocationId, pid: Option<u32>) {
        let (now, leaving) = (self.now, self.leaving);
        if self.forgotten.contains(id) {
            let message = format!(
                "{id}: started outside the supervisor (systemctl start) after it left the configuration; its unit is stopped"
            );
            return self.stop_orphan(id.clone(), message);
        }
        // No service of ours: a unit of another supervisor, or of a person's own.
        let Some(service) = self.touch(id) else { return };
        if service.ended == Some(run) {
            return; // old news
        }
        if service.invocation == Some(run) {
            service.pid = pid;
            if service.state == State::Starting {
                // A unit that was adopted on its way up is up now.
                self.await_readiness(id, |s| s.plan.exec.service_type == ServiceType::Notify);
            }
            return;
        }
        if service.state == State::Stopping {
            // Of a run that we know another one is being stopped: this one is looked at after that.
            service.appeared = service.invocation.map(|_| (run, pid));
            return;
        }
        if service.op.is_some() {
            // Our own start, whose answer will come; unless it is lost.
            service.appeared = Some((run, pid));
            return;
        }
        service.invocation = Some(run);
        service.pid = pid;
        service.started = Some((now.mono, now.wall));
        service.start_due = false;
        service.restarting = false;
        service.watch = Default::default();
        let down = service.want == Want::Removed || leaving;
        if !down {
            service.want = Want::Up;
            service.attempt = 0;
            let why = "somebody started it outside the supervisor (systemctl start or restart, or Restart= of a drop-in)";
            self.supersede(id, Goal::Down, why);
        }
        let told = Told {
            kind: EntryKind::ExternalChange,
            level: Level::Warning,
            reason: "started outside the supervisor (systemctl start or restart, or Restart= of a drop-in)",
            next: if down { "to be stopped in its turn" } else { "supervised from here on" },
        };
        self.enter(id, State::Starting, &told);
        if !down {
            self.await_readiness(id, |s| s.plan.exec.service_type == ServiceType::Notify);
        }
    }
}

/// A run that appeared is up only while systemd still shows it: its end may have come while we were away.
fn correct_appeared(service: &mut Service, seen: &UnitSeen) {
    let untrue = |run: InvocationId| !seen.activity.is_up() || seen.invocation != Some(run);
    let Some((run, _)) = service.appeared.take_if(|(run, _)| untrue(*run)) else { return };
    let exit = seen.exit.clone().filter(|_| service.state == State::Starting && seen.invocation == Some(run));
    if let Some(exit) = exit {
        service.early_exit = Some((run, exit, seen.stopped_outside));
    }
}
