//! The one picture of all units of ours, fed by systemd's signals and by our own orders. From it come the notices, in
//! order. No IO, but for the kernel's log where a run has ended badly.
//!
//! systemd tells every change of a unit in two signals: first what belongs to the service (process, result), then
//! what every unit has (state, run). Each carries all its values. So the first is only noted, the second decides,
//! and nothing has to be asked for.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::Notice;
use super::exit::{Ending, SET_UP_CODES, exit_of, failure_message};
use super::name::service_unit;
use super::oom::OomLog;
use super::unit::Maker;
use crate::core::event::{Activity, Exit, ExitResult, InvocationId, OpId, StartFailure, Started, UnitSeen};
use crate::core::plan::{Id, ServicePlan, ServiceType};
use crate::core::time::{Mono, Wall};

mod unit;

pub use unit::{Begun, Made, ServiceChange, State, UnitChange};
use unit::{Order, OrderKind, Turn, Unit, Up};

/// Jobs that ended before the order that made them knew their number.
const FINISHED_KEPT: usize = 1024;

/// Every unit of ours.
#[derive(Debug)]
pub struct Units {
    units: HashMap<Id, Unit>,
    finished: VecDeque<(u32, String)>,
    /// Whether the picture is whole; before, nothing is told but answers.
    synced: bool,
    /// systemd forgets all its units for a moment and reads them again.
    reloading: bool,
    notices: mpsc::UnboundedSender<Notice>,
    oom: OomLog,
}

impl Units {
    pub fn new(notices: mpsc::UnboundedSender<Notice>, oom: OomLog) -> Self {
        Self {
            units: HashMap::new(),
            finished: VecDeque::new(),
            synced: false,
            reloading: false,
            notices,
            oom,
        }
    }

    pub fn get(&mut self, service: &Id) -> &mut Unit {
        if !self.units.contains_key(service) {
            self.units.insert(service.clone(), Unit::default());
        }
        self.units.entry(service.clone()).or_default()
    }

    fn tell(&self, notice: Notice) {
        // The runtime is gone: nobody is left to tell.
        let _ = self.notices.send(notice);
    }

    // Orders.

    /// Takes a place in the unit's queue without an order.
    pub fn queue(&mut self, service: &Id) -> Turn {
        let (mine, after) = oneshot::channel();
        let before = self.get(service).turn.replace(after);
        Turn { before, _mine: mine }
    }

    pub fn begin_start(&mut self, op: OpId, plan: Arc<ServicePlan>) -> Begun {
        let service = plan.id.clone();
        let before = self.get(&service).state.invocation;
        self.begin(op, &service, OrderKind::Start { plan, before })
    }

    pub fn begin_stop(&mut self, op: OpId, service: &Id) -> Begun {
        self.begin(op, service, OrderKind::Stop)
    }

    fn begin(&mut self, op: OpId, service: &Id, kind: OrderKind) -> Begun {
        let (end, done) = oneshot::channel();
        let turn = self.queue(service);
        self.get(service).orders.push(Order { op, kind, job: None, _done: end });
        Begun { done, turn }
    }

    /// The calls of a start are about to be made: what ran until now is the run before.
    pub fn start_called(&mut self, service: &Id, op: OpId) {
        self.oom.forget(&service_unit(service));
        let unit = self.get(service);
        let now = unit.state.invocation;
        for order in &mut unit.orders {
            if let OrderKind::Start { before, .. } = &mut order.kind
                && order.op == op
            {
                *before = now;
            }
        }
    }

    /// systemd made this job for the order. It may have ended already: then with `Some`, the unit is to be read before
    /// [`Self::job_ended`].
    #[must_use]
    pub fn job_known(&mut self, service: &Id, op: OpId, job: u32) -> Option<String> {
        if let Some(order) = self.get(service).orders.iter_mut().find(|order| order.op == op) {
            order.job = Some(job);
        }
        let at = self.finished.iter().position(|(id, _)| *id == job)?;
        let (_, result) = self.finished.remove(at)?;
        self.over(service, job, &result).then_some(result)
    }

    /// The order could not be brought to systemd.
    pub fn start_failed(&mut self, service: &Id, op: OpId, failure: StartFailure) {
        if self.take_order(service, op).is_some() {
            self.tell(Notice::StartFinished { service: service.clone(), op, result: Err(failure) });
            self.decide(service);
        }
    }

    /// The order is answered without a job.
    pub fn stop_answered(&mut self, service: &Id, op: OpId, result: Result<(), String>) {
        if self.take_order(service, op).is_some() {
            self.tell(Notice::StopFinished { service: service.clone(), op, result });
            self.decide(service);
        }
    }

    fn take_order(&mut self, service: &Id, op: OpId) -> Option<Order> {
        let orders = &mut self.get(service).orders;
        let at = orders.iter().position(|order| order.op == op)?;
        Some(orders.remove(at))
    }

    /// The order's job is gone, and nobody heard how it ended: the unit's state tells.
    pub fn job_lost(&mut self, service: &Id, job: u32) {
        self.finish(service, job, "lost");
    }

    // Signals.

    pub fn job_new(&mut self, service: &Id, job: u32) {
        self.get(service).jobs.insert(job);
    }

    /// Whether the unit is to be read before [`Self::job_ended`].
    #[must_use]
    pub fn job_removed(&mut self, service: &Id, job: u32, result: &str) -> bool {
        let unit = self.get(service);
        unit.jobs.remove(&job);
        let known = unit.orders.iter().any(|order| order.job == Some(job));
        if known {
            return self.over(service, job, result);
        }
        if self.finished.len() == FINISHED_KEPT {
            self.finished.pop_front();
        }
        self.finished.push_back((job, result.to_owned()));
        false
    }

    /// Ends the order of a job that is over, or says that the unit is to be read first.
    fn over(&mut self, service: &Id, job: u32, result: &str) -> bool {
        let untold = self.is_untold(service, job, result);
        if !untold {
            self.finish(service, job, result);
        }
        untold
    }

    /// The unit was read after its start was over.
    pub fn job_ended(&mut self, service: &Id, job: u32, result: &str) {
        self.finish(service, job, result);
    }

    /// A start is over of whose run nothing was told. Where systemd is busy, it says of a unit that it made meanwhile
    /// that it is new, and not what became of it (`bus_unit_send_pending_change_signal`).
    fn is_untold(&self, service: &Id, job: u32, result: &str) -> bool {
        let Some(unit) = self.units.get(service).filter(|_| matches!(result, "done" | "failed")) else {
            return false;
        };
        unit.orders.iter().any(|order| match &order.kind {
            OrderKind::Start { before, .. } => order.job == Some(job) && unit.state.invocation == *before,
            OrderKind::Stop => false,
        })
    }

    pub fn service_changed(&mut self, service: &Id, change: ServiceChange) {
        let unit = self.get(service);
        unit.touched += 1;
        let state = &mut unit.state;
        state.main_pid = change.main_pid.unwrap_or(state.main_pid);
        state.ending.code = change.code.unwrap_or(state.ending.code);
        state.ending.status = change.status.unwrap_or(state.ending.status);
        if let Some(result) = change.result {
            state.ending.result = result;
        }
    }

    /// Whether it is to be read who made the unit, for [`Self::maker_known`].
    #[must_use]
    pub fn unit_changed(&mut self, service: &Id, change: UnitChange) -> bool {
        let unit = self.get(service);
        unit.touched += 1;
        let state = &mut unit.state;
        state.activity = change.activity.or(state.activity);
        state.invocation = change.invocation.unwrap_or(state.invocation);
        let (wall, mono) = state.active_enter;
        state.active_enter =
            (change.active_enter.unwrap_or(wall), change.active_enter_monotonic.unwrap_or(mono));
        state.settle();
        self.decide(service);
        self.synced && self.units.get(service).is_some_and(Unit::is_unknown)
    }

    /// It was read who made the unit that came up without an order of ours.
    pub fn maker_known(&mut self, service: &Id, run: InvocationId, maker: Maker) {
        let unit = self.get(service);
        // Another one has come since, and is read, too.
        if unit.state.invocation == Some(run) && unit.is_unknown() {
            unit.state.maker = Some(maker);
            self.decide(service);
        }
    }

    pub fn unit_removed(&mut self, service: &Id) {
        if self.reloading {
            return;
        }
        let Some(unit) = self.units.get_mut(service) else { return };
        unit.state = State::default();
        unit.touched += 1;
        unit.made = None;
        for waiter in unit.removal.drain(..) {
            let _ = waiter.send(());
        }
        self.decide(service);
    }

    /// Tells what the unit's state means beside what was told of it.
    fn decide(&mut self, service: &Id) {
        if !self.synced {
            return;
        }
        let Some(unit) = self.units.get(service) else { return };
        let state = unit.state.clone();
        let down = state.is_down();
        if let Some(up) = unit.up {
            let same = state.invocation == Some(up.run);
            if down || (state.invocation.is_some() && !same) {
                let exit = if same { self.exit(service, &state.ending) } else { unheard() };
                let external = self.is_external(service);
                self.get(service).up = None;
                let service = service.clone();
                self.tell(Notice::Exited { service, invocation: up.run, exit, external });
            }
        }
        self.tell_if_active(service, &state);
    }

    fn tell_if_active(&mut self, service: &Id, state: &State) {
        let unit = self.get(service);
        // The answer to the start tells it.
        let silent = unit.is_starting() || !unit.is_ours();
        let (Some(Activity::Active), Some(run), false) = (state.activity, state.invocation, silent) else {
            return;
        };
        let pid = Some(state.main_pid).filter(|pid| *pid != 0);
        // A process that is gone is told with its exit.
        let told = unit.up.and_then(|up| up.told).is_some_and(|told| pid.is_none() || told == pid);
        if !told {
            unit.up = Some(Up { run, told: Some(pid) });
            self.tell(Notice::Appeared { service: service.clone(), invocation: run, pid });
        }
    }

    fn exit(&mut self, service: &Id, ending: &Ending) -> Exit {
        let exit = exit_of(ending, false);
        if exit.is_clean() { exit } else { exit_of(ending, self.oom.take(&service_unit(service))) }
    }

    /// A job of somebody else's is in progress on the unit.
    fn is_external(&self, service: &Id) -> bool {
        let Some(unit) = self.units.get(service) else { return false };
        let ours = |job: &u32| {
            // A job is announced before its number comes back to us.
            unit.orders.iter().any(|order| order.job.is_none_or(|known| known == *job))
        };
        !unit.is_stopping() && unit.jobs.iter().any(|job| !ours(job))
    }

    fn finish(&mut self, service: &Id, job: u32, result: &str) {
        let orders = &mut self.get(service).orders;
        let Some(at) = orders.iter().position(|order| order.job == Some(job)) else { return };
        let order = orders.remove(at);
        match &order.kind {
            OrderKind::Start { plan, before } => self.finish_start(order.op, plan, *before, result),
            OrderKind::Stop => {
                let down = self.get(service).state.is_down();
                let result = match result {
                    _ if down => Ok(()),
                    "done" => Ok(()),
                    "canceled" => Err("the stop was cancelled by somebody else's job on the unit \
                                       (systemctl start?)"
                        .to_owned()),
                    other => Err(format!("systemd reports the stop job as {other:?}")),
                };
                self.tell(Notice::StopFinished { service: service.clone(), op: order.op, result });
            }
        }
        self.decide(service);
    }

    fn finish_start(
        &mut self,
        op: OpId,
        plan: &Arc<ServicePlan>,
        before: Option<InvocationId>,
        result: &str,
    ) {
        let service = plan.id.clone();
        let state = self.get(&service).state.clone();
        let fresh = state.invocation.filter(|run| Some(*run) != before);
        let active = state.activity == Some(Activity::Active);
        let started = match result {
            "done" if fresh.is_some() || active => state.invocation,
            "lost" if active => state.invocation,
            // Somebody stops what has just been started: told as a start, and as an exit from outside when it is
            // down. A failure would be tried again, against that person's will.
            "canceled" if fresh.is_some() && !self.get(&service).is_stopping() => fresh,
            // The program was executed and ended by itself before systemd had seen that it was: told as a start
            // and an exit, whichever was faster.
            "failed" if ended_by_itself(plan, &state) => fresh,
            _ => None,
        };
        let result = match started {
            Some(invocation) => {
                let pid = Some(state.main_pid).filter(|pid| *pid != 0);
                self.get(&service).up = Some(Up { run: invocation, told: Some(pid) });
                Ok(Started { invocation, pid })
            }
            None => {
                self.get(&service).up = None;
                Err(self.start_failure(&service, plan, &state, fresh, result))
            }
        };
        self.tell(Notice::StartFinished { service, op, result });
    }

    fn start_failure(
        &mut self,
        service: &Id,
        plan: &ServicePlan,
        state: &State,
        fresh: Option<InvocationId>,
        result: &str,
    ) -> StartFailure {
        let exit = fresh.filter(|_| state.is_down()).map(|_| self.exit(service, &state.ending));
        let message = match (result, fresh) {
            ("canceled", _) if self.get(service).is_stopping() => {
                "the start was cancelled by the stop that followed".into()
            }
            ("done" | "skipped", None) => {
                "a condition of the unit does not hold (Condition... in unit_properties or a drop-in)".into()
            }
            _ => failure_message(&plan.exec, result, exit.as_ref()),
        };
        StartFailure { invocation: fresh, exit, message, unreachable: false, outdated: false }
    }

    /// To wait until systemd has forgotten the unit.
    pub fn removal(&mut self, service: &Id) -> oneshot::Receiver<()> {
        let (removed, wait) = oneshot::channel();
        self.get(service).removal.push(removed);
        wait
    }

    pub fn reload_began(&mut self) {
        self.reloading = true;
    }

    // The whole picture.

    /// The connection is gone: orders in flight are answered, and what is known may be old.
    pub fn lost(&mut self, reason: &str) {
        self.synced = false;
        self.reloading = false;
        self.finished.clear();
        let services: Vec<Id> = self.units.keys().cloned().collect();
        for service in services {
            let unit = self.get(&service);
            unit.jobs.clear();
            unit.removal.clear();
            // Orders whose number is not known yet hear it from their own call.
            let (known, rest) = std::mem::take(&mut unit.orders).into_iter().partition(|o| o.job.is_some());
            unit.orders = rest;
            let known: Vec<Order> = known;
            for order in known {
                self.tell_unreachable(&service, &order, reason);
            }
        }
        self.tell(Notice::Lost { reason: reason.into() });
    }

    fn tell_unreachable(&self, service: &Id, order: &Order, reason: &str) {
        let (service, op) = (service.clone(), order.op);
        self.tell(match order.kind {
            OrderKind::Start { .. } => {
                Notice::StartFinished { service, op, result: Err(unreachable_start(reason)) }
            }
            OrderKind::Stop => Notice::StopFinished { service, op, result: Err(reason.into()) },
        });
    }

    /// systemd can be asked again. Units were read from their files, in which a command may have changed
    /// (`unit::command`): the next start makes them anew.
    pub fn back(&mut self) {
        self.reloading = false;
        for unit in self.units.values_mut() {
            unit.made = None;
        }
        self.tell(Notice::Back);
    }

    /// What was read of a unit, unless a signal was faster; `touched` is its count before the reading.
    pub fn read(&mut self, service: &Id, mut state: State, touched: u64) {
        let unit = self.get(service);
        let same_run = state.invocation.is_some() && state.invocation == unit.state.invocation;
        // A run does not change hands, whatever a reload has made of the unit's file.
        if same_run && unit.state.is_ours() {
            state.maker.clone_from(&unit.state.maker);
        }
        if unit.touched == touched {
            unit.state = state;
            unit.state.settle();
        } else if same_run {
            unit.state.maker = state.maker;
        }
    }

    /// Units that signals alone told of: they may be somebody else's.
    pub fn unread(&self) -> BTreeSet<Id> {
        let unread = |unit: &Unit| unit.state.activity.is_some() && unit.state.maker.is_none();
        self.units.iter().filter(|(_, unit)| unread(unit)).map(|(service, _)| service.clone()).collect()
    }

    /// The units that are known, each with its count of signals.
    pub fn known(&self) -> Vec<(Id, u64)> {
        self.units.iter().map(|(service, unit)| (service.clone(), unit.touched)).collect()
    }

    /// The whole picture, now. From here on every change in it is told.
    pub fn snapshot(&mut self, matches: impl Fn(&Id) -> bool) -> BTreeMap<Id, UnitSeen> {
        self.synced = true;
        let services: Vec<Id> = self.units.keys().cloned().collect();
        let mut seen = BTreeMap::new();
        for service in services {
            let unit = self.get(&service);
            let state = unit.state.clone();
            let Some(activity) = state.activity.filter(|_| state.is_ours()) else {
                unit.up = None;
                self.drop_if_idle(&service);
                continue;
            };
            let down = matches!(activity, Activity::Inactive | Activity::Failed);
            let told = (activity == Activity::Active).then_some(Some(state.main_pid).filter(|pid| *pid != 0));
            unit.up = state.invocation.filter(|_| !down).map(|run| Up { run, told });
            let exit = (down && state.invocation.is_some()).then(|| self.exit(&service, &state.ending));
            let environment_matches = matches(&service);
            seen.insert(service, unit_seen(state, activity, exit, environment_matches));
        }
        seen
    }

    /// Tells the picture in its place among the notices.
    pub fn tell_resynced(&self, units: BTreeMap<Id, UnitSeen>) {
        self.tell(Notice::Resynced { units });
    }

    fn drop_if_idle(&mut self, service: &Id) {
        let idle = self.units.get_mut(service).is_some_and(|unit| {
            let busy = !unit.orders.is_empty() || !unit.jobs.is_empty() || !unit.removal.is_empty();
            !busy && unit.state.activity.is_none() && !unit.is_queued_for()
        });
        if idle {
            self.units.remove(service);
        }
    }
}

fn unit_seen(state: State, activity: Activity, exit: Option<Exit>, environment_matches: bool) -> UnitSeen {
    let (wall, mono) = state.active_enter;
    let since = (activity == Activity::Active && wall != 0).then(|| {
        let mono = Mono(std::time::Duration::from_micros(mono));
        (mono, Wall(i64::try_from(wall / 1000).unwrap_or(i64::MAX)))
    });
    UnitSeen {
        activity,
        invocation: state.invocation,
        pid: Some(state.main_pid).filter(|pid| *pid != 0),
        exit,
        exec_hash: state.exec_hash().cloned(),
        environment_matches,
        active_since: since,
        stopped_outside: false,
    }
}

/// Whether the program ran, as against a start that failed on the way to it.
fn ended_by_itself(plan: &ServicePlan, state: &State) -> bool {
    let exit = exit_of(&state.ending, false);
    let ran = match exit.result {
        ExitResult::ExitCode => exit.code.is_some_and(|code| !SET_UP_CODES.contains(&code)),
        ExitResult::Signal | ExitResult::CoreDump | ExitResult::OomKill => exit.signal.is_some(),
        _ => false,
    };
    plan.exec.service_type == ServiceType::Exec && ran
}

/// A run was followed by another before anybody heard of its end.
fn unheard() -> Exit {
    Exit { code: None, signal: None, result: ExitResult::ExitedUnsupervised }
}

/// The answer to a start while systemd cannot be asked.
pub fn unreachable_start(reason: &str) -> StartFailure {
    StartFailure { invocation: None, exit: None, message: reason.into(), unreachable: true, outdated: false }
}

#[cfg(test)]
mod tests;
