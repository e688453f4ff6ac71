//! Ends of runs, and what the restart policy makes of them.

use super::*;
use crate::core::backoff::{self, Retry};
use crate::core::event::{Exit, ExitResult, InvocationId};
use crate::core::time::Human;
use crate::core::words;
use std::time::Duration;

/// A program that ends with success before this, and was meant to stay, has most likely gone into the background.
const AT_ONCE: Duration = Duration::from_secs(1);
const FORKS: &str = "; if it puts itself into the background, tell it to stay in the foreground, since what it left \
                     there was ended with it";

impl Engine {
    pub(super) fn unit_exited(&mut self, id: &Id, run: InvocationId, exit: Exit, external: bool) {
        let Some(service) = self.services.get_mut(id) else { return };
        service.appeared = service.appeared.filter(|(appeared, _)| *appeared != run);
        match service.invocation {
            Some(current) if current == run => self.run_ended(id, run, exit, external),
            // Its start is not answered yet: this end belongs to that answer, or to a stop that came before it.
            None if service.state == State::Starting => service.early_exit = Some((run, exit, external)),
            None if service.state == State::Stopping => self.run_ended(id, run, exit, external),
            _ => {}
        }
    }

    /// The current run is over.
    pub(super) fn run_ended(&mut self, id: &Id, run: InvocationId, exit: Exit, external: bool) {
        let (wall, leaving) = (self.now.wall, self.leaving);
        let Some(service) = self.touch(id) else { return };
        if service.ended == Some(run) {
            return;
        }
        service.invocation = Some(run);
        service.ended = Some(run);
        service.pid = None;
        service.note_exit(exit.clone(), wall);
        let words = words::exit(&exit, &service.plan.limits);
        let (state, up) = (service.state, service.want == Want::Up);
        let stays_down = match (service.plan.auto_restart, service.plan.restart_on_exit) {
            (true, true) => None,
            (true, false) => Some("not restarted: restart_on_exit is off"),
            (false, _) => Some("not restarted: auto_restart is off"),
        };
        match state {
            State::Starting | State::Running if !up || leaving => {
                self.rest(id, EntryKind::ServiceStopped, &words, "")
            }
            State::Starting | State::Running if external => {
                service.want = Want::StoppedOutside;
                let reason = "stopped outside the supervisor (systemctl stop or the like)";
                self.rest(id, EntryKind::ExternalChange, reason, "stays down until it is started");
            }
            State::Starting | State::Running if exit.is_clean() => match stays_down {
                Some(next) => {
                    service.want = Want::Completed;
                    let at_once = service.started.is_some_and(|(since, _)| self.now.mono - since < AT_ONCE);
                    let next = format!("{next}{}", if at_once { FORKS } else { "" });
                    self.rest(id, EntryKind::ServiceExited, &words, &next);
                }
                None => self.apply_policy(id, &words),
            },
            State::Starting | State::Running => self.note_failure(id, &exit, &words),
            State::Stopping => {
                self.persist(id);
                let waits_for_answer = self.services.get(id).is_some_and(|s| s.op.is_some());
                if !waits_for_answer {
                    self.stopped(id);
                }
            }
            _ => self.persist(id),
        }
    }

    pub(super) fn rest(&mut self, id: &Id, kind: EntryKind, reason: &str, next: &str) {
        let level = if kind == EntryKind::ExternalChange { Level::Warning } else { Level::Info };
        self.touch(id).into_iter().for_each(|s| s.start_due = false);
        self.enter(id, State::Stopped, &Told { kind, level, reason, next });
    }

    fn note_failure(&mut self, id: &Id, exit: &Exit, words: &str) {
        if exit.result == ExitResult::OomKill {
            let now = self.now.mono;
            self.touch(id).into_iter().for_each(|s| s.strain.oom = Some(now));
            let message = format!("{id}: the kernel killed it for want of memory: {words}");
            self.record(
                id,
                EntryKind::ResourceLimit,
                Level::Warning,
                message,
                [("resource", "memory".into())],
            );
        }
        self.fail(id, words);
    }

    /// A run, a start or a probe threshold failed: says so, and applies the restart policy.
    pub(super) fn fail(&mut self, id: &Id, cause: &str) {
        let now = self.now.mono;
        let Some(service) = self.touch(id) else { return };
        // Later ones of a row are what the policy counts and tells.
        if service.attempt == 0 {
            service.flaps.turned_bad(now);
        }
        let ran = service
            .started
            .map_or(String::new(), |(since, _)| format!(", {} after its start", Human(now - since)));
        let mut details = vec![("cause", cause.into())];
        if let Some((exit, _)) = &service.last_exit {
            details.extend([
                ("code", exit.code.into()),
                ("signal", exit.signal.into()),
                ("result", exit.result.to_string().into()),
            ]);
        }
        let message = format!("{id}: {cause}{ran}");
        self.record(id, EntryKind::ServiceFailed, Level::Warning, message, details);
        self.apply_policy(id, cause);
    }

    fn apply_policy(&mut self, id: &Id, cause: &str) {
        let now = self.now;
        let Some(service) = self.services.get_mut(id) else { return };
        service.start_due = false;
        if !service.plan.auto_restart {
            return self.enter(
                id,
                State::Failed,
                &Told {
                    kind: EntryKind::GaveUp,
                    level: Level::Error,
                    reason: cause,
                    next: "not restarted: auto_restart is off",
                },
            );
        }
        let max = service.plan.restart.max_retries;
        match backoff::after_failure(&service.plan.restart, service.attempt, now.entropy) {
            Retry::Again { attempt, delay, beyond_max } => {
                let first_beyond = beyond_max && max.is_some_and(|max| service.attempt == max);
                service.attempt = attempt;
                let due = now.mono + delay;
                service.retry_at = Some((due, now.wall + delay));
                let next =
                    format!("{}, restart in {}", super::starting::attempt_words(service), Human(delay));
                if first_beyond {
                    let message = format!(
                        "{id}: {} restarts did not help; going on every {}",
                        attempt - 1,
                        Human(delay)
                    );
                    self.record(id, EntryKind::GaveUp, Level::Error, message, []);
                }
                let told = Told {
                    kind: EntryKind::RestartScheduled,
                    level: Level::Warning,
                    reason: cause,
                    next: &next,
                };
                self.enter(id, State::Backoff, &told);
                self.timers.set(id, Timer::Retry, due);
            }
            Retry::GiveUp => {
                let next = match service.attempt {
                    0 => "not restarted: max_retries is 0; start it when the cause is mended".into(),
                    n => format!(
                        "{n} restart{} did not help, no further one; start it when the cause is mended",
                        if n == 1 { "" } else { "s" }
                    ),
                };
                self.enter(
                    id,
                    State::Fatal,
                    &Told { kind: EntryKind::GaveUp, level: Level::Error, reason: cause, next: &next },
                );
            }
        }
    }

    /// The delay is over.
    pub(super) fn retry(&mut self, id: &Id) {
        if let Some(service) = self.touch(id).filter(|s| s.state == State::Backoff) {
            service.restarting = true;
            if service.attempt == 0 {
                "the restart that was due".clone_into(&mut service.reason);
            }
            self.set_start_due(id, true);
        }
    }
}
