//! Plans in a few words, and a [`Rig`]: an engine with a clock that is moved by hand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::core::Engine;
use crate::core::action::{Action, Entry, EntryKind, Outcome, Record, Want};
use crate::core::alert::{Alert, AlertKey};
use crate::core::event::*;
use crate::core::plan::*;
use crate::core::snapshot::{Health, ServiceView, State};
use crate::core::time::{Boot, Mono, Now, Wall};

pub const BOOT: &str = "boot-1";
pub const WHO: &str = "alice";

pub fn boot(id: &str) -> Boot {
    Boot { id: id.into(), systemd_began: 1 }
}

pub fn id(text: &str) -> Id {
    Id::new(text).unwrap()
}

pub fn secs(n: f64) -> Duration {
    Duration::from_secs_f64(n)
}

/// A service with the defaults of the contract, but for what `change` says.
pub fn svc_with(name: &str, change: impl FnOnce(&mut ServicePlan)) -> ServicePlan {
    let mut plan = ServicePlan::new(id(name), &format!("/usr/bin/{name}"));
    change(&mut plan);
    if plan.exec_hash.is_empty() {
        plan.exec_hash = format!("hash of {:?}", plan.exec.args);
    }
    plan
}

pub fn svc(name: &str) -> ServicePlan {
    svc_with(name, |_| {})
}

/// The short words that tests put a service together with.
pub trait Words: Sized {
    fn with(self, change: impl FnOnce(&mut ServicePlan)) -> Self;

    fn needs_as(self, dependency: &str, condition: Condition, on_failure: OnFailure) -> Self {
        self.with(|s| s.dependencies.push(Dependency { service: id(dependency), condition, on_failure }))
    }
    /// As `"dependencies": ["db"]` does.
    fn needs(self, dependency: &str) -> Self {
        self.needs_as(dependency, Condition::Healthy, OnFailure::Hold)
    }
    /// Probed, so that a passing probe says that it is ready.
    fn tcp(self) -> Self {
        self.with(|s| s.health.probe = Probe::Tcp { host: "localhost".into(), port: Some(80) })
    }
    fn notify(self) -> Self {
        self.with(|s| s.exec.service_type = ServiceType::Notify)
    }
    fn retries(self, max: u32) -> Self {
        self.with(|s| s.restart.max_retries = Some(max))
    }
    fn args(self, args: &str) -> Self {
        self.with(|s| {
            s.exec.args = vec![args.into()];
            s.exec_hash = format!("hash of {:?}", s.exec.args);
        })
    }
    fn disabled(self) -> Self {
        self.with(|s| s.enabled = false)
    }
}

impl Words for ServicePlan {
    fn with(mut self, change: impl FnOnce(&mut ServicePlan)) -> Self {
        change(&mut self);
        self
    }
}

pub fn plan(services: impl IntoIterator<Item = ServicePlan>) -> Plan {
    Plan { services: services.into_iter().map(|s| (s.id.clone(), Arc::new(s))).collect(), ..Plan::default() }
}

pub fn exited(code: i32) -> Exit {
    let result = if code == 0 { ExitResult::Success } else { ExitResult::ExitCode };
    Exit { code: Some(code), signal: None, result }
}

pub fn killed(signal: i32, result: ExitResult) -> Exit {
    Exit { code: None, signal: Some(signal), result }
}

pub fn failure(message: &str) -> StartFailure {
    StartFailure {
        invocation: None,
        exit: None,
        message: message.into(),
        unreachable: false,
        outdated: false,
    }
}

pub fn unreachable() -> StartFailure {
    StartFailure { unreachable: true, ..failure("the connection to systemd is down") }
}

/// A unit as systemd shows it.
pub fn unit(activity: Activity, run: u128, made_from: &ServicePlan) -> UnitSeen {
    UnitSeen {
        activity,
        invocation: (run != 0).then_some(InvocationId(run)),
        pid: activity.is_up().then_some(run as u32),
        exec_hash: Some(made_from.exec_hash.clone()),
        environment_matches: true,
        exit: match activity {
            Activity::Inactive => Some(exited(0)),
            Activity::Failed => Some(exited(1)),
            _ => None,
        },
        ..UnitSeen::GONE
    }
}

/// One action in one word or two, where it touches the outside.
pub fn effect(action: &Action) -> Option<String> {
    Some(match action {
        Action::StartUnit { plan, .. } => format!("start {}", plan.id),
        Action::StopUnit { service, kill: false, .. } => format!("stop {service}"),
        Action::StopUnit { service, kill: true, .. } => format!("kill {service}"),
        Action::ReleaseUnit { service } => format!("release {service}"),
        Action::ApplyLimits { plan } => format!("limits {}", plan.id),
        Action::Probe { plan, .. } => format!("probe {}", plan.id),
        Action::Forget { service } => format!("forget {service}"),
        Action::Leave => "leave".into(),
        Action::Record(_)
        | Action::Persist { .. }
        | Action::Answer { .. }
        | Action::RaiseAlert(_)
        | Action::UpdateAlert(_)
        | Action::ResolveAlert { .. } => return None,
    })
}

/// An engine, its clock, and everything it ever said.
pub struct Rig {
    pub engine: Engine,
    pub clock: Duration,
    pub entropy: u64,
    /// Of the machine, so far.
    pub asleep: Duration,
    /// By how many milliseconds somebody set the wall clock.
    pub wall_is_off: i64,
    /// Of every action so far.
    pub entries: Vec<Entry>,
    pub records: BTreeMap<Id, Record>,
    pub answers: BTreeMap<OrderId, Outcome>,
    /// Open ones.
    pub alerts: BTreeMap<AlertKey, Alert>,
    alert_lines: Vec<String>,
    /// Actions whose answer is awaited.
    pub starts: BTreeMap<Id, OpId>,
    pub stops: BTreeMap<Id, OpId>,
    runs: u128,
    orders: u64,
    told: usize,
}

impl Rig {
    /// Before systemd told what it has. The clock stands at 1000 s.
    pub fn before_resync(id: &str, plan: Plan, records: BTreeMap<Id, Record>) -> Self {
        let clock = secs(1000.0);
        let now = Now { mono: Mono(clock), wall: Wall(1_000_000), asleep: Duration::ZERO, entropy: 0 };
        Self {
            engine: Engine::new(now, boot(id), plan, records.clone()),
            clock,
            entropy: 0,
            asleep: Duration::ZERO,
            wall_is_off: 0,
            entries: Vec::new(),
            records,
            alerts: BTreeMap::new(),
            alert_lines: Vec::new(),
            answers: BTreeMap::new(),
            starts: BTreeMap::new(),
            stops: BTreeMap::new(),
            runs: 100,
            orders: 0,
            told: 0,
        }
    }

    /// systemd has nothing yet, so what may start is being started.
    pub fn new(plan: Plan) -> Self {
        let mut rig = Self::before_resync(BOOT, plan, BTreeMap::new());
        rig.resync([]);
        rig
    }

    /// One service that runs, by the name `web`.
    pub fn running(service: ServicePlan) -> Self {
        let name = service.id.clone();
        let mut rig = Self::new(plan([service]));
        rig.up(name.as_str());
        rig
    }

    pub fn now(&self) -> Now {
        let wall = Wall(i64::try_from(self.clock.as_millis()).unwrap() + self.wall_is_off);
        Now { mono: Mono(self.clock), wall, asleep: self.asleep, entropy: self.entropy }
    }

    /// Tells an event and gives what is to be done outside for it.
    pub fn tell(&mut self, event: Event) -> Vec<String> {
        let actions = self.engine.handle(self.now(), event);
        if let Some(next) = self.engine.next_deadline() {
            assert!(next > Mono(self.clock), "a deadline is left that is due: the loop would spin");
        }
        for action in &actions {
            match action {
                Action::StartUnit { op, plan } => {
                    self.starts.insert(plan.id.clone(), *op);
                }
                Action::StopUnit { op, service, .. } => {
                    self.stops.insert(service.clone(), *op);
                }
                // Each has an action of its own.
                Action::Record(Entry { kind: EntryKind::AlertRaised | EntryKind::AlertResolved, .. }) => {}
                Action::RaiseAlert(alert) => {
                    let twice = self.alerts.insert(alert.key.clone(), *alert.clone());
                    assert_eq!(twice, None, "raised twice");
                    self.alert_lines.push(format!("raised {}: {}", alert.severity.as_str(), alert.message));
                }
                Action::UpdateAlert(alert) => {
                    let before = self.alerts.insert(alert.key.clone(), *alert.clone());
                    assert!(before.is_some(), "{} is not open", alert.key);
                    self.alert_lines.push(format!("updated {}: {}", alert.severity.as_str(), alert.message));
                }
                Action::ResolveAlert { key, message } => {
                    assert!(self.alerts.remove(key).is_some(), "{key} is not open");
                    self.alert_lines.push(format!("resolved: {message}"));
                }
                Action::Record(entry) => self.entries.push(entry.clone()),
                Action::Persist { service, record } => {
                    self.records.insert(service.clone(), record.as_ref().clone());
                }
                Action::Forget { service } => {
                    self.records.remove(service);
                }
                Action::Answer { order, outcome } => {
                    let twice = self.answers.insert(*order, outcome.clone());
                    assert_eq!(twice, None, "{order:?} was answered twice");
                }
                _ => {}
            }
        }
        actions.iter().filter_map(effect).collect()
    }

    /// Lets time pass, with a call at each deadline on the way, and gives what was done.
    pub fn pass(&mut self, seconds: f64) -> Vec<String> {
        let end = self.clock + secs(seconds);
        let mut done = Vec::new();
        while let Some(next) = self.engine.next_deadline().filter(|next| next.0 <= end) {
            self.clock = next.0;
            done.extend(self.tell(Event::DeadlineReached));
        }
        self.clock = end;
        done
    }

    /// Time from now to the next deadline, in seconds.
    pub fn due_in(&self) -> Option<f64> {
        self.engine.next_deadline().map(|at| (at - Mono(self.clock)).as_secs_f64())
    }

    pub fn resync<'a>(&mut self, units: impl IntoIterator<Item = (&'a str, UnitSeen)>) -> Vec<String> {
        let units = units.into_iter().map(|(name, seen)| (id(name), seen)).collect();
        self.tell(Event::Resynced { units })
    }

    /// The start that is awaited succeeded.
    pub fn started(&mut self, name: &str) -> Vec<String> {
        self.runs += 1;
        let started = Started { invocation: InvocationId(self.runs), pid: Some(self.runs as u32) };
        self.start_answer(name, Ok(started))
    }

    pub fn start_answer(&mut self, name: &str, result: Result<Started, StartFailure>) -> Vec<String> {
        let op = self.starts.remove(&id(name)).unwrap_or_else(|| panic!("no start of {name} is awaited"));
        self.tell(Event::StartFinished { service: id(name), op, result })
    }

    pub fn stop_answer(&mut self, name: &str, result: Result<(), &str>) -> Vec<String> {
        let op = self.stops.remove(&id(name)).unwrap_or_else(|| panic!("no stop of {name} is awaited"));
        self.tell(Event::StopFinished { service: id(name), op, result: result.map_err(str::to_owned) })
    }

    /// The stop that is awaited succeeded.
    pub fn stopped(&mut self, name: &str) -> Vec<String> {
        if self.engine.services[name].invocation.is_some() {
            self.exits(name, killed(15, ExitResult::Success));
        }
        self.stop_answer(name, Ok(()))
    }

    /// Start, answer and readiness of one that is being started.
    pub fn up(&mut self, name: &str) -> Vec<String> {
        let mut done = self.started(name);
        let plan = Arc::clone(&self.engine.services[name].plan);
        if plan.exec.service_type == ServiceType::Exec && plan.health.probe.decides_readiness() {
            done.extend(self.probed(name, true));
        } else if plan.exec.service_type == ServiceType::Exec {
            done.extend(self.pass(1.0));
        }
        assert_eq!(self.state(name), State::Running, "{:#?}", self.lines());
        done
    }

    /// The current run of it ends.
    pub fn exits(&mut self, name: &str, exit: Exit) -> Vec<String> {
        let invocation = self.run(name);
        self.tell(Event::UnitExited { service: id(name), invocation, exit, external: false })
    }

    pub fn stopped_outside(&mut self, name: &str) -> Vec<String> {
        let (invocation, exit) = (self.run(name), killed(15, ExitResult::Success));
        self.tell(Event::UnitExited { service: id(name), invocation, exit, external: true })
    }

    pub fn appeared(&mut self, name: &str, run: u128) -> Vec<String> {
        self.tell(Event::UnitAppeared {
            service: id(name),
            invocation: InvocationId(run),
            pid: Some(run as u32),
        })
    }

    pub fn probed(&mut self, name: &str, passed: bool) -> Vec<String> {
        let message = if passed { "connected" } else { "connection refused" };
        self.probed_with(name, self.run(name), passed, false, message)
    }

    pub fn probed_with(
        &mut self,
        name: &str,
        run: InvocationId,
        passed: bool,
        fallback_passed: bool,
        message: &str,
    ) -> Vec<String> {
        let report =
            ProbeReport { passed, fallback_passed, message: message.into(), took: Duration::from_millis(5) };
        self.tell(Event::Probed { service: id(name), invocation: run, report })
    }

    /// Gives an order; its outcome is in [`Rig::answer`] once there is one.
    pub fn order(&mut self, verb: Verb, name: &str) -> (OrderId, Vec<String>) {
        self.orders += 1;
        let order = OrderId(self.orders);
        let event = Event::Ordered { order, origin: WHO.into(), service: id(name), verb };
        (order, self.tell(event))
    }

    pub fn start(&mut self, name: &str) -> OrderId {
        self.order(Verb::Start, name).0
    }

    pub fn stop(&mut self, name: &str) -> OrderId {
        self.order(Verb::Stop, name).0
    }

    pub fn restart(&mut self, name: &str) -> OrderId {
        self.order(Verb::Restart, name).0
    }

    /// Whether it was done, and the sentence; `None` while it is pending.
    pub fn answer(&self, order: OrderId) -> Option<(bool, &str)> {
        self.answers.get(&order).map(|outcome| (outcome.done, outcome.message.as_str()))
    }

    pub fn reload(&mut self, plan: Plan) -> Vec<String> {
        self.tell(Event::PlanChanged { plan, origin: WHO.into() })
    }

    pub fn shutdown(&mut self) -> Vec<String> {
        self.tell(Event::ShutdownOrdered { origin: WHO.into() })
    }

    /// The daemon ends without a word and comes back, with what is on disk and what systemd shows.
    pub fn crash<'a>(
        &mut self,
        plan: Plan,
        units: impl IntoIterator<Item = (&'a str, UnitSeen)>,
    ) -> Vec<String> {
        self.come_back(BOOT, plan, units)
    }

    pub fn come_back<'a>(
        &mut self,
        id: &str,
        plan: Plan,
        units: impl IntoIterator<Item = (&'a str, UnitSeen)>,
    ) -> Vec<String> {
        self.engine = Engine::new(self.now(), boot(id), plan, self.records.clone())
            .with_open_alerts(self.alerts.keys().cloned());
        self.starts.clear();
        self.stops.clear();
        self.resync(units)
    }

    pub fn view(&mut self, name: &str) -> Arc<ServiceView> {
        Arc::clone(&self.engine.snapshot().services[name])
    }

    pub fn state(&self, name: &str) -> State {
        self.engine.services[name].state
    }

    pub fn want(&self, name: &str) -> Want {
        self.engine.services[name].want
    }

    pub fn health(&self, name: &str) -> Health {
        self.engine.services[name].watch.health()
    }

    pub fn attempt(&self, name: &str) -> u32 {
        self.engine.services[name].attempt
    }

    pub fn run(&self, name: &str) -> InvocationId {
        self.engine.services[name].invocation.unwrap_or_else(|| panic!("{name} has no run"))
    }

    /// What became of alerts since the last call of this.
    pub fn alert_lines(&mut self) -> Vec<String> {
        std::mem::take(&mut self.alert_lines)
    }

    /// All messages since the last call of this.
    pub fn lines(&mut self) -> Vec<String> {
        let new = self.entries[self.told..].iter().map(|entry| entry.message.clone()).collect();
        self.told = self.entries.len();
        new
    }
}

pub fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// The longest way to say that nothing was done.
pub const NOTHING: [&str; 0] = [];
