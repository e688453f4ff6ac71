//! The decisions. One struct holds all services; [`Engine::handle`] takes an event and gives actions.
//!
//! - `orders`: what people ask for, and the answers they get
//! - `starting`, `stopping`: the way up and the way down
//! - `exits`: ends of runs, and what the restart policy makes of them
//! - `probing`: health
//! - `alerting`, `conditions`: what somebody has to be told
//! - `sampling`: what services use, against their limits
//! - `reload`: another plan
//! - `recover`: what systemd shows after we were away

mod alerting;
mod conditions;
mod exits;
mod orders;
mod probing;
mod recover;
mod reload;
mod sampling;
mod starting;
mod stopping;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;

use serde_json::Value;

use super::action::{Action, Entry, EntryKind, Level, Record, Want};
use super::event::{Event, OpId};
use super::graph::Graph;
use super::plan::{Id, Plan};
use super::service::Service;
use super::snapshot::{Snapshot, State};
use super::time::{Boot, Mono, Now};
use super::timer::{Timer, Timers};
pub(super) use alerting::Alarm;
use alerting::Alerting;
use orders::Waiter;

/// Every service, and what is wanted of it.
#[derive(Debug)]
pub struct Engine {
    boot: Boot,
    /// It is another one than when units were last compared.
    replaced: bool,
    plan: Plan,
    graph: Arc<Graph>,
    rank: BTreeMap<Id, usize>,
    /// Members of each group, in start order.
    groups: Arc<BTreeMap<Id, Vec<Id>>>,
    services: BTreeMap<Id, Service>,
    /// Units of services that left the plan while we were away, by the stop that ends them.
    orphans: BTreeMap<Id, Orphan>,
    /// Records of services that left the plan while we were away.
    left_over: BTreeSet<Id>,
    /// Services that left the plan since we began: who does not know may still start their units.
    forgotten: BTreeSet<Id>,
    timers: Timers,
    waiters: Vec<Waiter>,
    /// Services that want to start, in start order.
    due_start: BTreeSet<(usize, Id)>,
    /// Active services that are to be down, in start order.
    due_stop: BTreeSet<(usize, Id)>,
    /// Something changed that may let others start or stop.
    unsettled: bool,
    /// systemd can be asked.
    connected: bool,
    /// When it is asked again, should nobody tell that it can be.
    ask_again: Option<Mono>,
    /// systemd told at least once what it has.
    met: bool,
    /// Everything is to be stopped ...
    leaving: bool,
    /// ... and everything was.
    left: bool,
    alerting: Alerting,
    last_op: u64,
    /// When we began; the slots of probes are counted from here.
    origin: Mono,
    now: Now,
    out: Vec<Action>,
}

/// A unit that no plan names, on its way down.
#[derive(Debug)]
struct Orphan {
    /// Its stop; a late answer to an earlier one does not count.
    op: OpId,
    tries: u32,
}

/// What a change of state is told with.
struct Told<'a> {
    kind: EntryKind,
    level: Level,
    reason: &'a str,
    /// What comes next; may be empty.
    next: &'a str,
}

impl Engine {
    /// Takes up `plan`, with what an earlier daemon kept. Nothing happens until the first
    /// [`Event::Resynced`], which says what systemd has.
    pub fn new(now: Now, boot: Boot, plan: Plan, mut records: BTreeMap<Id, Record>) -> Self {
        let mut engine = Self {
            boot,
            replaced: false,
            plan,
            graph: Arc::default(),
            rank: BTreeMap::new(),
            groups: Arc::default(),
            services: BTreeMap::new(),
            orphans: BTreeMap::new(),
            left_over: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            timers: Timers::default(),
            waiters: Vec::new(),
            due_start: BTreeSet::new(),
            due_stop: BTreeSet::new(),
            unsettled: false,
            connected: false,
            ask_again: None,
            met: false,
            left: false,
            leaving: false,
            alerting: Alerting::default(),
            last_op: 0,
            origin: now.mono,
            now,
            out: Vec::new(),
        };
        for (id, plan) in &engine.plan.services {
            let mut service = Service::new(Arc::clone(plan), now);
            if let Some(record) = records.remove(id) {
                let known = record.systemd_began == engine.boot.systemd_began;
                if service.restore(record, &engine.boot) || !known {
                    let (service, record) = (id.clone(), Box::new(service.record(&engine.boot)));
                    engine.out.push(Action::Persist { service, record });
                }
            }
            engine.services.insert(id.clone(), service);
        }
        engine.left_over = records.into_keys().collect();
        engine.sort();
        engine
    }

    /// Takes an event in and gives what is to be done, in order.
    pub fn handle(&mut self, now: Now, event: Event) -> Vec<Action> {
        self.take(now, event);
        while self.next_timer() {}
        self.finish()
    }

    fn finish(&mut self) -> Vec<Action> {
        self.raise_and_resolve();
        mem::take(&mut self.out)
    }

    fn take(&mut self, now: Now, event: Event) {
        self.now = now;
        match event {
            Event::Ordered { order, origin, service, verb } => self.ordered(order, &origin, &service, verb),
            Event::PlanChanged { plan, origin } => self.plan_changed(plan, &origin),
            Event::ShutdownOrdered { origin } => self.shutdown_ordered(&origin),
            Event::StartFinished { service, op, result } => self.start_finished(&service, op, result),
            Event::StopFinished { service, op, result } => self.stop_finished(&service, op, result),
            Event::UnitExited { service, invocation, exit, external } => {
                self.unit_exited(&service, invocation, exit, external);
            }
            Event::UnitAppeared { service, invocation, pid } => self.unit_appeared(&service, invocation, pid),
            Event::SystemdIdentified { began } => self.systemd_identified(began),
            Event::Resynced { units } => self.resynced(units),
            Event::Probed { service, invocation, report } => self.probed(&service, invocation, &report),
            Event::Unprobed { service, invocation, lack } => self.unprobed(&service, invocation, lack),
            Event::Sampled { samples } => self.sampled(samples),
            Event::OwnTrouble { kind, trouble } => self.own_trouble(kind, trouble),
            Event::DeadlineReached => {}
        }
        if self.ask_again.is_some_and(|at| at <= now.mono) {
            self.ask_again = None;
            self.connected = true;
            self.unsettled = true;
        }
        self.settle();
    }

    /// Does what the next timer is for, if one is due.
    fn next_timer(&mut self) -> bool {
        let Some((id, timer)) = self.timers.pop_due(self.now.mono) else { return false };
        self.timer_fired(&id, timer);
        self.settle();
        true
    }

    /// When `handle` wants to be called again, if nothing happens before.
    pub fn next_deadline(&self) -> Option<Mono> {
        self.timers.next().into_iter().chain(self.ask_again).chain(self.own_alert_due()).min()
    }

    /// The plan in force.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// A picture of everything. What did not change since the last one is shared with it.
    pub fn snapshot(&mut self) -> Snapshot {
        Snapshot {
            services: self.services.iter_mut().map(|(id, service)| (id.clone(), service.view())).collect(),
            groups: Arc::clone(&self.groups),
            leaving: self.leaving,
            version: 0,
            own_alerts: self.own_alerts(),
        }
    }

    fn timer_fired(&mut self, id: &Id, timer: Timer) {
        match timer {
            Timer::Answer => self.answer_overdue(id),
            Timer::Startup => self.startup_overdue(id),
            Timer::Alive => self.ready(id, "alive for 1 s"),
            Timer::Probe => self.send_probe(id),
            Timer::ProbeAnswer => self.probe_lost(id),
            Timer::Reset => {
                if let Some(service) = self.touch(id) {
                    service.attempt = 0;
                    self.persist(id);
                }
            }
            Timer::Retry => self.retry(id),
            Timer::StopAgain => self.stop_again(id),
            Timer::Orphan => self.orphan_overdue(id),
            Timer::Alert => self.stale(id),
        }
    }

    /// Lets start and stop what may, until nothing more follows from it.
    fn settle(&mut self) {
        while mem::take(&mut self.unsettled) {
            for (_, id) in self.due_stop.clone().into_iter().rev() {
                self.try_stop(&id);
            }
            if self.connected && !self.leaving {
                for (_, id) in self.due_start.clone() {
                    self.try_start(&id);
                }
            }
            self.drop_removed();
        }
        if self.leaving
            && !self.left
            && !self.services.values().any(Service::is_active)
            && self.orphans.is_empty()
        {
            self.left = true;
            self.out.push(Action::Leave);
        }
    }

    /// The one place where a state is entered: timers that the state does not know are dropped, the change is
    /// told, kept, and those who wait for it get their answer.
    fn enter(&mut self, id: &Id, state: State, told: &Told<'_>) {
        let now = self.now;
        self.stale(id);
        let Some(service) = self.services.get_mut(id) else { return };
        let from = service.state;
        service.state = state;
        service.since = (now.mono, now.wall);
        service.reason =
            if told.next.is_empty() { told.reason.into() } else { format!("{}; {}", told.reason, told.next) };
        service.view = None;
        if !service.is_active() {
            service.op = None;
            service.pid = None;
            service.watch = Default::default();
            service.usage = None;
        }
        if state != State::Backoff {
            service.retry_at = None;
        }
        if matches!(state, State::Starting | State::Running | State::Stopping) {
            service.waiting_for.clear();
        }
        let message = if from == state {
            format!("{id}: {state}: {}", service.reason)
        } else {
            format!("{id}: {from} -> {state}: {}", service.reason)
        };
        self.timers.keep_only(id, Timer::of(state));
        self.mark(id);
        self.unsettled = true;
        let details =
            [("from", from.as_str().into()), ("to", state.as_str().into()), ("reason", told.reason.into())];
        self.record(id, told.kind, told.level, message, details);
        self.persist(id);
        self.answer_waiters(id);
    }

    /// Keeps `due_start` and `due_stop` in step with the service.
    fn mark(&mut self, id: &Id) {
        let (Some(service), Some(rank)) = (self.services.get(id), self.rank.get(id)) else { return };
        let key = (*rank, id.clone());
        let down = service.want != Want::Up || self.leaving;
        if down && matches!(service.state, State::Starting | State::Running) {
            self.due_stop.insert(key.clone());
        } else {
            self.due_stop.remove(&key);
        }
        if service.start_due && !down && !service.is_active() {
            self.due_start.insert(key);
        } else {
            self.due_start.remove(&key);
        }
    }

    /// Sets whether a service is to start.
    fn set_start_due(&mut self, id: &Id, due: bool) {
        if let Some(service) = self.services.get_mut(id) {
            service.start_due = due;
        }
        self.mark(id);
        self.unsettled = true;
    }

    /// The service, with its published picture marked as out of date.
    fn touch(&mut self, id: &Id) -> Option<&mut Service> {
        self.stale(id);
        let service = self.services.get_mut(id)?;
        service.view = None;
        Some(service)
    }

    fn record(
        &mut self,
        id: &Id,
        kind: EntryKind,
        level: Level,
        message: String,
        details: impl IntoIterator<Item = (&'static str, Value)>,
    ) {
        let mut details: BTreeMap<_, _> = details.into_iter().collect();
        if let Some(service) = self.services.get(id) {
            details.insert("attempt", service.attempt.into());
            if let Some(invocation) = service.invocation {
                details.insert("invocation_id", invocation.to_string().into());
            }
        }
        self.out.push(Action::Record(Entry { service: Some(id.clone()), kind, level, message, details }));
    }

    fn persist(&mut self, id: &Id) {
        if let Some(service) = self.services.get(id) {
            let record = Box::new(service.record(&self.boot));
            self.out.push(Action::Persist { service: id.clone(), record });
        }
    }

    fn next_op(&mut self) -> OpId {
        self.last_op += 1;
        OpId(self.last_op)
    }

    fn group_members(&self, order: &[Id]) -> BTreeMap<Id, Vec<Id>> {
        let mut groups: BTreeMap<Id, Vec<Id>> =
            self.plan.groups.keys().map(|group| (group.clone(), vec![])).collect();
        for service in order.iter().filter_map(|id| self.services.get(id)) {
            for group in &service.plan.groups {
                groups.entry(group.clone()).or_default().push(service.plan.id.clone());
            }
        }
        groups
    }

    /// Works out order, ranks and groups anew, after the set of services changed.
    fn sort(&mut self) {
        let graph = Graph::new(self.services.values().map(|service| &service.plan));
        self.rank = graph.order.iter().enumerate().map(|(rank, id)| (id.clone(), rank)).collect();
        self.groups = Arc::new(self.group_members(&graph.order));
        self.graph = Arc::new(graph);
        self.due_start.clear();
        self.due_stop.clear();
        for id in self.services.keys().cloned().collect::<Vec<_>>() {
            self.mark(&id);
        }
        self.unsettled = true;
    }
}
