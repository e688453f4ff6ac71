//! Another plan: only what differs is touched.

use super::orders::Goal;
use super::*;
use crate::core::action::AfterStop;

impl Engine {
    pub(super) fn plan_changed(&mut self, plan: Plan, origin: &str) {
        let old = mem::replace(&mut self.plan, plan);
        let gone: Vec<Id> =
            self.services.keys().filter(|id| !self.plan.services.contains_key(*id)).cloned().collect();
        let (mut added, mut changed) = (Vec::new(), Vec::new());
        for (id, plan) in self.plan.services.clone() {
            match self.services.get_mut(&id) {
                None => {
                    self.forgotten.remove(&id);
                    self.services.insert(id.clone(), Service::new(plan, self.now));
                    added.push(id);
                }
                Some(service) if service.plan != plan || service.want == Want::Removed => {
                    service.view = None;
                    self.alerting.mark(&id);
                    let before = mem::replace(&mut service.plan, plan);
                    changed.push((id, before));
                }
                Some(_) => {}
            }
        }
        self.sort();
        let groups_changed =
            old.groups != self.plan.groups || old.max_concurrent_starts != self.plan.max_concurrent_starts;
        let mut what = if gone.is_empty() && added.is_empty() && changed.is_empty() {
            "no service changed".into()
        } else {
            format!("{} added, {} removed, {} changed", added.len(), gone.len(), changed.len())
        };
        if groups_changed {
            what += "; groups or max_concurrent_starts changed";
        }
        self.out.push(Action::Record(Entry {
            service: None,
            kind: EntryKind::ConfigReloaded,
            level: Level::Info,
            message: format!("configuration read again, asked for by {origin}; {what}"),
            details: BTreeMap::new(),
        }));
        for id in gone {
            self.service_removed(&id);
        }
        for id in added {
            self.record(
                &id,
                EntryKind::ServiceAdded,
                Level::Info,
                format!("{id}: new in the configuration"),
                [],
            );
            self.persist(&id);
        }
        for (id, before) in changed {
            self.service_changed(&id, &before);
        }
        self.unsettled = true;
    }

    fn service_removed(&mut self, id: &Id) {
        let Some(service) = self.touch(id).filter(|s| s.want != Want::Removed) else { return };
        service.want = Want::Removed;
        service.start_due = false;
        service.after_stop = AfterStop::Rest;
        let next = if service.is_active() { "to be stopped and forgotten" } else { "forgotten" };
        self.record(
            id,
            EntryKind::ServiceRemoved,
            Level::Info,
            format!("{id}: left the configuration; {next}"),
            [],
        );
        self.persist(id);
        self.mark(id);
    }

    fn service_changed(&mut self, id: &Id, before: &crate::core::plan::ServicePlan) {
        let now = self.now.mono;
        let Some(service) = self.services.get_mut(id) else { return };
        let plan = Arc::clone(&service.plan);
        let was_enabled_up = service.want == Want::Up;
        let other_program = !before.exec.means_same(&plan.exec)
            || before.exec_hash != plan.exec_hash
            || service.outdated && plan.lacks.is_none();
        match (plan.enabled, service.want) {
            (false, Want::Up | Want::Removed) if before.enabled || service.want == Want::Removed => {
                service.want = Want::Disabled;
                service.start_due = false;
            }
            (true, Want::Disabled | Want::Removed) => {
                service.want = Want::Up;
                service.start_due = !service.is_active();
                if service.start_due {
                    "enabled in the configuration".clone_into(&mut service.reason);
                }
            }
            _ => {}
        }
        let up = service.want == Want::Up;
        match service.state {
            State::Starting | State::Running if other_program && up => {
                self.begin_stop(id, "its configuration changed", AfterStop::Start);
            }
            State::Starting | State::Running => {
                if before.limits != plan.limits || before.critical != plan.critical {
                    self.out.push(Action::ApplyLimits { plan: Arc::clone(&plan) });
                }
                if before.health != plan.health && service.invocation.is_some() && service.op.is_none() {
                    service.watch = Default::default();
                    self.timers.clear(id, Timer::ProbeAnswer);
                    if service.state == State::Starting {
                        // What makes it ready may be another thing now.
                        self.timers.keep_only(id, &[]);
                        self.await_readiness(id, |_| false);
                    } else {
                        self.timers.set(id, Timer::Probe, now);
                    }
                }
            }
            // What was changed may be what made it fail.
            State::Backoff | State::Fatal | State::Failed if other_program && up => {
                service.attempt = 0;
                service.start_due = true;
                service.restarting = true;
                "its configuration changed".clone_into(&mut service.reason);
            }
            // Else `systemctl start` would bring up what was configured before.
            State::Stopped if other_program && !service.start_due => {
                self.out.push(Action::ReleaseUnit { service: id.clone() });
            }
            _ => {}
        }
        if let Some(service) =
            self.services.get_mut(id).filter(|s| s.want == Want::Disabled && !s.is_active())
            && (was_enabled_up || service.state != State::Stopped)
        {
            service.waiting_for.clear();
            self.enter(
                id,
                State::Stopped,
                &Told {
                    kind: EntryKind::ServiceStopped,
                    level: Level::Info,
                    reason: "disabled in the configuration",
                    next: "",
                },
            );
        }
        if up && !was_enabled_up {
            self.supersede(id, Goal::Down, "it came back into the configuration");
        }
        self.persist(id);
        self.mark(id);
    }

    /// Services that left the plan and are down are forgotten.
    pub(super) fn drop_removed(&mut self) {
        let down = |s: &Service| s.want == Want::Removed && !s.is_active();
        let gone: Vec<Id> = self.services.iter().filter(|(_, s)| down(s)).map(|(id, _)| id.clone()).collect();
        if gone.is_empty() {
            return;
        }
        for id in &gone {
            self.supersede(id, Goal::Ready, "it left the configuration");
            self.supersede(id, Goal::Down, "it left the configuration");
            if let Some(service) = self.services.remove(id) {
                self.resolve_all_of(&service);
            }
            self.timers.keep_only(id, &[]);
            self.timers.clear(id, Timer::Alert);
            self.out.push(Action::ReleaseUnit { service: id.clone() });
            self.out.push(Action::Forget { service: id.clone() });
        }
        self.forgotten.extend(gone);
        self.sort();
    }
}
