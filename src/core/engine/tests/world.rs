//! A simulated world: the engine, a systemd that answers late, fails and loses its connection, services that crash
//! and fall ill, people beside us, and a daemon that dies at any point. Every rule that must always hold is
//! checked at every step.

use super::*;
use crate::core::Mono;
use crate::core::action::Record;
use crate::core::alert::{AlertKey, AlertKind};
use crate::core::service::Service;

/// More steps than any scenario needs; a loop that makes no progress exceeds it.
const STEPS: usize = 30_000;

/// What the world does by itself.
#[derive(Debug, Clone, Copy)]
pub struct Nature {
    pub seed: u64,
    /// Answers come late, get lost, or say no.
    pub faults: bool,
    /// Runs end by themselves.
    pub crashes: bool,
}

/// One thing that somebody does to the world.
#[derive(Debug, Clone)]
pub enum Step {
    Wait(Duration),
    Order(usize, Verb),
    Kill(usize),
    StopOutside(usize),
    StartOutside(usize),
    RestartOutside(usize),
    /// The connection to systemd is down for so long.
    Disconnect(Duration),
    /// The same, and then it is another one, with no units.
    Replace(Duration),
    /// The daemon dies after so many actions of its next list, and is back after so long.
    Crash {
        actions: usize,
        down: Duration,
        reboot: bool,
    },
    Reload(usize, Change),
    Shutdown,
}

#[derive(Debug, Clone, Copy)]
pub enum Change {
    Enabled,
    Program,
    Gone,
}

#[derive(Debug)]
struct Unit {
    activity: Activity,
    run: u128,
    exit: Option<Exit>,
    hash: String,
    since: Duration,
    outside: bool,
    /// Started by somebody else, who may not know of a new configuration.
    foreign: bool,
    /// While it is being stopped: when it will be down.
    down_at: Duration,
    /// The engine of this life knows that this run is up.
    heard: bool,
    /// Who waits for the start, by life.
    asked: Option<(u32, OpId)>,
}

#[derive(Debug)]
enum Item {
    Tell(Event),
    StartDone(Id, u128),
    StopDone(Id, u32, OpId),
    Exit(Id, u128, Exit),
    Connect,
    Boot,
}

pub struct World {
    pub engine: Option<Engine>,
    plan: Plan,
    nature: Nature,
    pub now: Duration,
    boot: u64,
    life: u32,
    pub disk: BTreeMap<Id, Record>,
    /// Open ones, as the database has them.
    pub alerts: BTreeSet<AlertKey>,
    units: BTreeMap<Id, Unit>,
    queue: BTreeMap<(Duration, u64), Item>,
    sequence: u64,
    /// What concerns one service is told in order.
    told_until: BTreeMap<Id, Duration>,
    connected: bool,
    in_flight: BTreeMap<Id, (OpId, bool)>,
    pending: BTreeMap<OrderId, Id>,
    orders: u64,
    runs: u128,
    starts: BTreeMap<Id, u64>,
    crash: Option<(usize, Duration, bool)>,
    pub left: bool,
    /// Runs that somebody else began right before we left, too late for us to hear of.
    unheard_of: BTreeSet<u128>,
    /// Every start that was asked of systemd.
    pub log: Vec<(Duration, Id)>,
    steps: usize,
    /// Services that were on their way down before the last event.
    stopping: BTreeSet<Id>,
}

/// splitmix64
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn is_doomed(plan: &ServicePlan) -> bool {
    plan.labels.contains_key("doomed")
}

impl World {
    pub fn new(plan: Plan, nature: Nature) -> Self {
        let mut world = Self {
            engine: None,
            plan,
            nature,
            now: secs(1000.0),
            boot: 1,
            life: 0,
            disk: BTreeMap::new(),
            alerts: BTreeSet::new(),
            units: BTreeMap::new(),
            queue: BTreeMap::new(),
            sequence: 0,
            told_until: BTreeMap::new(),
            connected: true,
            in_flight: BTreeMap::new(),
            pending: BTreeMap::new(),
            orders: 0,
            runs: 0,
            starts: BTreeMap::new(),
            crash: None,
            left: false,
            unheard_of: BTreeSet::new(),
            log: Vec::new(),
            steps: 0,
            stopping: BTreeSet::new(),
        };
        world.boot();
        world
    }

    fn now(&self) -> Now {
        let entropy = mix(self.nature.seed ^ self.now.as_nanos() as u64);
        Now { mono: Mono(self.now), wall: Wall(self.now.as_millis() as i64), asleep: Duration::ZERO, entropy }
    }

    /// Chance that depends on what is asked about, not on when, so that two worlds with one seed are alike.
    fn roll(&self, id: &Id, salt: u64, sides: u64) -> u64 {
        let n = self.starts.get(id).copied().unwrap_or(0);
        let name = id.as_str().bytes().fold(0, |sum, b| mix(sum ^ u64::from(b)));
        mix(self.nature.seed ^ name ^ mix(n) ^ mix(salt)) % sides
    }

    fn fault(&mut self, one_in: u64) -> bool {
        self.sequence += 1;
        self.nature.faults && mix(self.nature.seed ^ mix(self.sequence)).is_multiple_of(one_in)
    }

    fn lag(&mut self) -> Duration {
        if !self.nature.faults {
            return Duration::ZERO;
        }
        self.sequence += 1;
        let x = mix(self.nature.seed ^ self.sequence);
        Duration::from_millis(if x.is_multiple_of(8) { x / 8 % 20_000 } else { x / 8 % 50 })
    }

    fn at(&mut self, when: Duration, item: Item) {
        self.sequence += 1;
        self.queue.insert((when, self.sequence), item);
    }

    /// Tells what concerns a service, after all that was told of it before.
    fn tell_of(&mut self, id: &Id, event: Event) {
        if self.engine.is_none() || !self.connected {
            return;
        }
        let when = (self.now + self.lag()).max(self.told_until.get(id).copied().unwrap_or_default());
        self.told_until.insert(id.clone(), when);
        self.at(when, Item::Tell(event));
    }

    fn boot(&mut self) {
        self.life += 1;
        self.connected = true;
        let boot = Boot { systemd_began: self.boot, ..boot(BOOT) };
        let engine = Engine::new(self.now(), boot, self.plan.clone(), self.disk.clone());
        self.engine = Some(engine.with_open_alerts(self.alerts.iter().cloned()));
        self.resync();
    }

    fn resync(&mut self) {
        let mut units = BTreeMap::new();
        for (id, u) in &mut self.units {
            let up = u.activity.is_up();
            // While a start is under way, its answer is what counts, but for a unit that is wholly up.
            let waits = self.engine.as_ref().and_then(|e| e.services.get(id)).is_some_and(|s| s.op.is_some());
            u.heard = up && (u.activity == Activity::Active || !waits);
            let seen = UnitSeen {
                activity: u.activity,
                invocation: Some(InvocationId(u.run)),
                pid: up.then_some(u.run as u32),
                exit: u.exit.clone(),
                exec_hash: Some(u.hash.clone()),
                environment_matches: true,
                active_since: (u.activity == Activity::Active).then_some((Mono(u.since), Wall(0))),
                stopped_outside: u.outside,
            };
            units.insert(id.clone(), seen);
        }
        self.tell(Event::Resynced { units });
    }

    fn service(&self, id: &Id) -> Option<&Service> {
        self.engine.as_ref().and_then(|engine| engine.services.get(id))
    }

    /// Whether `id` may start, by a reading of the rule of its own.
    fn gates_open(&self, id: &Id) -> bool {
        let Some(service) = self.service(id) else { return false };
        service.plan.dependencies.iter().all(|d| {
            let ignored = d.on_failure == OnFailure::Ignore && service.was_ready;
            ignored
                || self.service(&d.service).is_some_and(|dep| match (d.condition, dep.state) {
                    (_, State::Running) => {
                        d.condition == Condition::Started || dep.watch.health() != Health::Unhealthy
                    }
                    (Condition::Started, State::Starting) => dep.invocation.is_some(),
                    (Condition::Started, _) => dep.want == Want::Completed,
                    _ => false,
                })
        })
    }

    fn gates(&self) -> BTreeMap<Id, bool> {
        self.plan.services.keys().map(|id| (id.clone(), self.gates_open(id))).collect()
    }

    /// Has the engine do one thing, and checks that what it starts by that may start.
    fn turn(&mut self, work: impl FnOnce(&mut Engine) -> bool) -> bool {
        let before = self.gates();
        let Some(engine) = &mut self.engine else { return false };
        let told = engine.out.len();
        let more = work(engine);
        let after = self.gates();
        for action in self.engine.iter().flat_map(|engine| &engine.out[told..]) {
            if let Action::StartUnit { plan, .. } = action {
                let open = |gates: &BTreeMap<Id, bool>| gates.get(&plan.id) == Some(&true);
                assert!(open(&before) || open(&after), "{}: gates are shut", plan.id);
            }
        }
        more
    }

    fn tell(&mut self, event: Event) {
        let now = self.now();
        let stopping = |s: &&Service| s.state == State::Stopping;
        let Some(engine) = &mut self.engine else { return };
        self.stopping = engine.services.values().filter(stopping).map(|s| s.plan.id.clone()).collect();
        let mut more = self.turn(|engine| {
            engine.take(now, event);
            true
        });
        while more {
            more = self.turn(Engine::next_timer);
        }
        let Some(engine) = &mut self.engine else { return };
        let actions = engine.finish();
        if let Some(next) = engine.next_deadline() {
            assert!(next > now.mono, "a deadline is left that is due: the loop would spin");
        }
        self.check_delays();
        let dies = self.crash.filter(|_| !actions.is_empty());
        for (n, action) in actions.into_iter().enumerate() {
            if dies.is_some_and(|(at, ..)| n >= at) {
                break;
            }
            self.act(action);
        }
        if let Some((_, down, reboot)) = dies {
            self.crash = None;
            self.die(down, reboot);
        } else {
            self.check_alerts();
        }
    }

    /// What is told is what is true, no more and no less.
    fn check_alerts(&self) {
        let Some(engine) = self.engine.as_ref().filter(|engine| engine.met) else { return };
        assert_eq!(self.alerts, engine.open_alerts(), "the database has others than the engine");
        for (id, s) in &engine.services {
            assert_eq!(s.blame.0, s.is_trouble(), "{id}: others point at it, or do not");
            let open = |kind| self.alerts.iter().any(|a| a.service.as_ref() == Some(id) && a.kind == kind);
            let wanted = s.want == Want::Up && !engine.leaving;
            let lost = matches!(s.state, State::Failed | State::Fatal);
            if wanted && lost && s.blame.1.is_none() {
                assert!(open(AlertKind::Down), "{id} is {} and nobody is told", s.state);
            }
            if !wanted || s.blame.1.is_some() {
                assert!(!open(AlertKind::Down), "{id}: told though it is not wanted, or another is to blame");
            }
            if let Some(root) = &s.blame.1 {
                let root = &engine.services[root];
                assert!(root.blame.0 && root.blame.1.is_none(), "{id}: {} is no root", root.plan.id);
            }
        }
    }

    fn check_delays(&self) {
        let Some(engine) = &self.engine else { return };
        for (id, s) in &engine.services {
            let policy = &s.plan.restart;
            if s.state != State::Backoff || s.since.0 != Mono(self.now) || s.attempt == 0 {
                continue;
            }
            let beyond = policy.max_retries.is_some_and(|max| s.attempt > max);
            if beyond {
                assert_eq!(policy.after_max_retries, AfterMaxRetries::KeepTrying, "{id}: too many attempts");
            }
            let power = policy.backoff_multiplier.powi(s.attempt as i32 - 1);
            let most = policy.max_backoff.as_secs_f64();
            let low = if beyond { most } else { (policy.retry_delay.as_secs_f64() * power).min(most) };
            let delay = (s.retry_at.unwrap().0 - s.since.0).as_secs_f64();
            let high = low * (1.0 + policy.jitter);
            assert!(delay > low - 1e-6 && delay < high + 1e-6, "{id}: {delay} s, not {low} to {high} s");
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::StartUnit { op, plan } => self.start(op, &plan),
            Action::StopUnit { op, service, kill } => self.stop(op, &service, kill),
            Action::ReleaseUnit { service } => {
                if let Some(unit) = self.units.get(&service) {
                    let up = unit.activity.is_up() && unit.heard;
                    assert!(!up, "{service} is forgotten while it is up");
                    if !unit.activity.is_up() {
                        self.units.remove(&service);
                    }
                }
            }
            Action::Probe { plan, invocation, .. } => {
                let report = self.probe(&plan, invocation);
                if !self.fault(16) {
                    let when = self.now + self.lag() + Duration::from_millis(1);
                    self.at(when, Item::Tell(Event::Probed { service: plan.id.clone(), invocation, report }));
                }
            }
            Action::Persist { service, record } => {
                self.disk.insert(service, *record);
            }
            Action::Forget { service } => {
                self.disk.remove(&service);
            }
            Action::Answer { order, .. } => {
                assert!(self.pending.remove(&order).is_some(), "{order:?} was answered twice");
            }
            Action::Leave => {
                assert!(!self.left, "left twice");
                self.left = true;
                let up = |unit: &&Unit| unit.activity.is_up() && unit.foreign && !unit.heard;
                self.unheard_of = self.units.values().filter(up).map(|unit| unit.run).collect();
            }
            Action::RaiseAlert(alert) => {
                let same = |key: &&AlertKey| key.service == alert.key.service && key.kind == alert.key.kind;
                assert_eq!(self.alerts.iter().find(same), None, "raised twice");
                self.alerts.insert(alert.key);
            }
            Action::UpdateAlert(alert) => {
                assert!(self.alerts.contains(&alert.key), "{} is not open", alert.key)
            }
            Action::ResolveAlert { key, .. } => assert!(self.alerts.remove(&key), "{key} is not open"),
            Action::ApplyLimits { .. } | Action::Record(_) => {}
        }
    }

    fn start(&mut self, op: OpId, plan: &ServicePlan) {
        let id = &plan.id;
        let service = self.service(id).unwrap();
        assert_eq!(service.want, Want::Up, "{id} is started though it is to be down");
        assert!(!self.engine.as_ref().unwrap().leaving, "{id} is started while leaving");
        assert_eq!(self.in_flight.get(id), None, "{id}: a second action in flight");
        *self.starts.entry(id.clone()).or_default() += 1;
        self.log.push((self.now, id.clone()));
        if !self.connected {
            if self.fault(3) {
                self.activate(id, plan, None); // it got there, but no answer came back
            }
            return self.answer_start(id, op, Err(unreachable()));
        }
        if let Some(unit) = self.units.get_mut(id).filter(|unit| unit.activity.is_up()) {
            assert!(!unit.heard, "{id} is started while it is up");
            // Somebody was faster. The adapter finds the unit there and takes it as it is.
            unit.heard = unit.activity == Activity::Active;
            let started = Started { invocation: InvocationId(unit.run), pid: Some(unit.run as u32) };
            let outdated =
                !unit.foreign && unit.hash != plan.exec_hash && unit.activity != Activity::Deactivating;
            let result = match unit.heard {
                _ if outdated => Err(StartFailure {
                    invocation: Some(started.invocation),
                    outdated: true,
                    ..failure("it was made from another configuration")
                }),
                true => Ok(started),
                false => Err(failure("the unit exists")),
            };
            if result.is_err() && !outdated {
                // It waits a while for the unit to be gone, so that no policy can spin on it.
                self.told_until.insert(id.clone(), self.now + secs(1.0));
            }
            return self.answer_start(id, op, result);
        }
        self.in_flight.insert(id.clone(), (op, true));
        let lost = self.fault(24);
        self.activate(id, plan, (!lost).then_some((self.life, op)));
        if lost {
            self.in_flight.remove(id);
        }
    }

    fn activate(&mut self, id: &Id, plan: &ServicePlan, asked: Option<(u32, OpId)>) {
        self.runs += 1;
        let unit = Unit {
            activity: Activity::Activating,
            run: self.runs,
            exit: None,
            hash: plan.exec_hash.clone(),
            since: self.now,
            outside: false,
            foreign: false,
            down_at: self.now,
            heard: false,
            asked,
        };
        self.units.insert(id.clone(), unit);
        let when = self.now + self.lag();
        self.at(when, Item::StartDone(id.clone(), self.runs));
    }

    fn answer_start(&mut self, id: &Id, op: OpId, result: Result<Started, StartFailure>) {
        self.answered(id, op);
        let event = Event::StartFinished { service: id.clone(), op, result };
        let when = (self.now + self.lag()).max(self.told_until.get(id).copied().unwrap_or_default());
        self.told_until.insert(id.clone(), when);
        self.at(when, Item::Tell(event));
    }

    fn answer_stop(&mut self, id: &Id, op: OpId, result: Result<(), String>) {
        self.answered(id, op);
        let event = Event::StopFinished { service: id.clone(), op, result };
        let when = (self.now + self.lag()).max(self.told_until.get(id).copied().unwrap_or_default());
        self.told_until.insert(id.clone(), when);
        self.at(when, Item::Tell(event));
    }

    fn answered(&mut self, id: &Id, op: OpId) {
        if self.in_flight.get(id).is_some_and(|(of, _)| *of == op) {
            self.in_flight.remove(id);
        }
    }

    fn start_done(&mut self, id: &Id, run: u128) {
        let Some(unit) = self.units.get(id).filter(|u| u.run == run) else { return };
        if unit.activity != Activity::Activating {
            return; // it was stopped meanwhile, and its start cancelled
        }
        let doomed = self.plan.services.get(id).is_some_and(|plan| is_doomed(plan));
        let fails = (self.nature.crashes || doomed) && self.roll(id, 1, 6) == 0;
        let waited_for = unit.asked.filter(|(life, _)| *life == self.life);
        let unit = self.units.get_mut(id).unwrap();
        unit.asked = None;
        let exit = Exit { code: Some(203), signal: None, result: ExitResult::ExitCode };
        if fails {
            (unit.activity, unit.heard, unit.exit) = (Activity::Failed, false, Some(exit.clone()));
            let invocation = InvocationId(run);
            match waited_for {
                Some((_, op)) => {
                    let why = StartFailure {
                        invocation: Some(invocation),
                        exit: Some(exit),
                        ..failure("cannot execute it")
                    };
                    self.answer_start(id, op, Err(why));
                }
                None => {
                    let service = id.clone();
                    self.tell_of(id, Event::UnitExited { service, invocation, exit, external: false });
                }
            }
            return;
        }
        (unit.activity, unit.since) = (Activity::Active, self.now);
        let started = Started { invocation: InvocationId(run), pid: Some(run as u32) };
        self.plan_end(id, run, doomed);
        match waited_for {
            Some((_, op)) => self.answer_start(id, op, Ok(started)),
            None => self.appear(id, run),
        }
    }

    fn plan_end(&mut self, id: &Id, run: u128, doomed: bool) {
        let ends = doomed || self.nature.crashes && self.roll(id, 2, 2) == 0;
        if ends {
            let longest = if doomed { 2_000 } else { 200_000 };
            let after = Duration::from_millis(self.roll(id, 3, longest));
            let exit = match self.roll(id, 4, 6) {
                _ if doomed => exited(1),
                0 | 1 => exited(0),
                2 => killed(9, ExitResult::OomKill),
                3 => killed(15, ExitResult::Success),
                _ => exited(3),
            };
            let when = self.now + after;
            self.at(when, Item::Exit(id.clone(), run, exit));
        }
    }

    fn appear(&mut self, id: &Id, run: u128) {
        let event =
            Event::UnitAppeared { service: id.clone(), invocation: InvocationId(run), pid: Some(run as u32) };
        self.tell_of(id, event);
    }

    fn stop(&mut self, op: OpId, id: &Id, kill: bool) {
        let engine = self.engine.as_ref().unwrap();
        if engine.leaving && engine.services.get(id).is_some_and(|s| s.after_stop == AfterStop::Rest) {
            for dependent in engine.graph.dependents(id) {
                let up = engine.services.get(dependent).is_some_and(Service::is_active);
                let begins = !self.stopping.contains(id);
                assert!(!up || !begins, "{id} is stopped before {dependent}, which needs it");
            }
        }
        if let Some((_, start)) = self.in_flight.get(id) {
            assert!(start, "{id}: a second stop in flight");
        }
        self.in_flight.insert(id.clone(), (op, false));
        if !self.connected {
            return self.answer_stop(id, op, Err("the connection to systemd is down".into()));
        }
        if self.fault(24) {
            return self.answer_stop(id, op, Err("job canceled".into()));
        }
        let up = self.units.get_mut(id).filter(|unit| unit.activity.is_up());
        let Some(unit) = up else { return self.answer_stop(id, op, Ok(())) };
        let already = (unit.activity == Activity::Deactivating && !kill).then_some(unit.down_at);
        unit.activity = Activity::Deactivating;
        unit.asked = None;
        let slow = self.nature.faults && self.roll(id, 5, 4) == 0 && !kill;
        let when = already.unwrap_or(self.now + if slow { secs(25.0) } else { self.lag().min(secs(10.0)) });
        if let Some(unit) = self.units.get_mut(id) {
            unit.down_at = when;
        }
        if self.fault(24) {
            self.in_flight.remove(id); // the answer is lost, not the stop
            self.at(when, Item::StopDone(id.clone(), 0, op));
        } else {
            self.at(when, Item::StopDone(id.clone(), self.life, op));
        }
    }

    fn ends(&mut self, id: &Id, exit: Exit, outside: bool) {
        let Some(unit) = self.units.get_mut(id) else { return };
        unit.activity =
            if exit.result == ExitResult::Success { Activity::Inactive } else { Activity::Failed };
        (unit.exit, unit.outside, unit.heard) = (Some(exit.clone()), outside, unit.heard);
        let invocation = InvocationId(unit.run);
        self.tell_of(id, Event::UnitExited { service: id.clone(), invocation, exit, external: outside });
    }

    fn probe(&self, plan: &ServicePlan, invocation: InvocationId) -> ProbeReport {
        let unit =
            self.units.get(&plan.id).filter(|u| u.run == invocation.0 && u.activity == Activity::Active);
        let age = unit.map(|unit| self.now - unit.since);
        let slow = Duration::from_millis(self.roll(&plan.id, 6, 20_000));
        let ill =
            self.nature.crashes && plan.health.probe.decides_readiness() && self.roll(&plan.id, 7, 3) == 0;
        let ill_from = Duration::from_millis(self.roll(&plan.id, 8, 300_000));
        let passed = age.is_some_and(|age| {
            (age >= slow || !plan.health.probe.decides_readiness()) && !(ill && age > ill_from)
                || !self.nature.crashes
        });
        let fallback_passed = !passed && self.roll(&plan.id, 9, 5) == 0;
        let message = if passed { "ok" } else { "refused" }.into();
        ProbeReport { passed, fallback_passed, message, took: Duration::ZERO }
    }

    fn die(&mut self, down: Duration, reboot: bool) {
        self.engine = None;
        self.life += 1;
        self.queue.retain(|_, item| !matches!(item, Item::Tell(_) | Item::Connect | Item::Boot));
        self.in_flight.clear();
        self.pending.clear();
        self.told_until.clear();
        self.left = false;
        if reboot {
            self.units.clear();
            self.boot += 1;
        }
        let when = self.now + down;
        self.at(when, Item::Boot);
    }

    fn disconnect(&mut self, down: Duration) {
        if self.engine.is_none() || !self.connected {
            return;
        }
        self.connected = false;
        // What is under way is not heard of, but for answers, which turn into complaints.
        let mut lost: Vec<_> =
            self.in_flight.iter().map(|(id, (op, start))| (id.clone(), *op, *start)).collect();
        for (when, item) in std::mem::take(&mut self.queue) {
            match item {
                Item::Tell(Event::UnitExited { .. } | Event::UnitAppeared { .. }) => {}
                Item::Tell(Event::StartFinished { service, op, .. }) => {
                    lost.push((service, op, true));
                }
                Item::Tell(Event::StopFinished { service, op, .. }) => {
                    lost.push((service, op, false));
                }
                Item::StopDone(id, _, op) => drop(self.queue.insert(when, Item::StopDone(id, 0, op))),
                item => drop(self.queue.insert(when, item)),
            }
        }
        self.units.values_mut().for_each(|unit| unit.asked = None);
        for (id, op, start) in lost {
            if start {
                self.answer_start(&id, op, Err(unreachable()));
            } else {
                self.answer_stop(&id, op, Err("the connection to systemd was lost".into()));
            }
        }
        let when = self.now + down;
        self.at(when, Item::Connect);
    }

    /// Does the next thing that is due until `end`. Says whether there was one.
    fn step(&mut self, end: Duration) -> bool {
        let deadline = self.engine.as_ref().and_then(Engine::next_deadline).map(|at| at.0);
        let item = self.queue.first_key_value().map(|((at, _), _)| *at);
        let Some(next) = deadline.into_iter().chain(item).min().filter(|at| *at <= end) else {
            self.now = end;
            return false;
        };
        self.steps += 1;
        assert!(self.steps < STEPS, "no end in sight");
        self.now = self.now.max(next);
        if item != Some(next) {
            self.tell(Event::DeadlineReached);
            return true;
        }
        let Some((_, item)) = self.queue.pop_first() else { return false };
        match item {
            Item::Tell(event) => {
                self.hear(&event);
                self.tell(event);
            }
            Item::StartDone(id, run) => self.start_done(&id, run),
            Item::StopDone(id, life, op) => {
                let unit = self.units.get(&id).filter(|u| u.activity == Activity::Deactivating);
                if unit.is_some() {
                    self.ends(&id, killed(15, ExitResult::Success), false);
                }
                if life == self.life {
                    self.answer_stop(&id, op, Ok(()));
                }
            }
            Item::Exit(id, run, exit) => {
                if self.units.get(&id).is_some_and(|u| u.run == run && u.activity == Activity::Active) {
                    self.ends(&id, exit, false);
                }
            }
            Item::Connect => {
                self.connected = true;
                self.tell(Event::SystemdIdentified { began: self.boot });
                self.resync();
            }
            Item::Boot => self.boot(),
        }
        true
    }

    /// Notes what the engine is told of the units.
    fn hear(&mut self, event: &Event) {
        let (id, run, up) = match event {
            Event::StartFinished { service, result: Ok(started), .. } => (service, started.invocation, true),
            Event::UnitAppeared { service, invocation, .. } => (service, *invocation, true),
            Event::UnitExited { service, invocation, .. } => (service, *invocation, false),
            _ => return,
        };
        if let Some(unit) = self.units.get_mut(id).filter(|unit| unit.run == run.0) {
            unit.heard = up;
        }
    }

    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
    }

    fn pick(&self, n: usize) -> Option<Id> {
        let ids: Vec<&Id> = self.plan.services.keys().collect();
        (!ids.is_empty()).then(|| ids[n % ids.len()].clone())
    }

    pub fn apply(&mut self, step: &Step) {
        match step {
            Step::Wait(time) => self.run_for(*time),
            Step::Order(n, verb) => {
                if let Some(id) = self.pick(*n).filter(|_| self.engine.is_some()) {
                    self.orders += 1;
                    let order = OrderId(self.orders);
                    self.pending.insert(order, id.clone());
                    self.tell(Event::Ordered { order, origin: WHO.into(), service: id, verb: *verb });
                }
            }
            Step::Kill(n) => self.outside(*n, |world, id, up| {
                if up {
                    world.ends(id, killed(9, ExitResult::Signal), false);
                }
            }),
            Step::StopOutside(n) => self.outside(*n, |world, id, up| {
                if up {
                    world.ends(id, killed(15, ExitResult::Success), true);
                }
            }),
            Step::StartOutside(n) => self.outside(*n, |world, id, up| {
                if !up {
                    world.start_outside(id);
                }
            }),
            Step::RestartOutside(n) => self.outside(*n, |world, id, up| {
                if up {
                    world.ends(id, killed(15, ExitResult::Success), true);
                }
                world.start_outside(id);
            }),
            Step::Disconnect(time) => self.disconnect(*time),
            Step::Replace(time) => {
                self.disconnect(*time);
                if !self.connected {
                    self.units.clear();
                    self.boot += 1;
                }
            }
            Step::Crash { actions: 0, down, reboot } => self.die(*down, *reboot),
            Step::Crash { actions, down, reboot } => {
                if self.engine.is_some() {
                    self.crash = Some((*actions, *down, *reboot));
                }
            }
            Step::Reload(n, change) => self.reload(*n, *change),
            Step::Shutdown => self.tell(Event::ShutdownOrdered { origin: WHO.into() }),
        }
    }

    /// For units that are wholly up or wholly down.
    fn outside(&mut self, n: usize, act: impl FnOnce(&mut Self, &Id, bool)) {
        let Some(id) = self.pick(n) else { return };
        match self.units.get(&id).map(|unit| unit.activity) {
            Some(Activity::Active) => act(self, &id, true),
            Some(Activity::Inactive | Activity::Failed) => act(self, &id, false),
            _ => {}
        }
    }

    fn start_outside(&mut self, id: &Id) {
        self.runs += 1;
        let (run, now) = (self.runs, self.now);
        let Some(unit) = self.units.get_mut(id) else { return };
        (unit.activity, unit.run, unit.exit) = (Activity::Active, run, None);
        (unit.since, unit.outside, unit.heard, unit.asked) = (now, false, false, None);
        unit.foreign = true;
        let doomed = self.plan.services.get(id).is_some_and(|plan| is_doomed(plan));
        self.plan_end(id, run, doomed);
        self.appear(id, run);
    }

    fn reload(&mut self, n: usize, change: Change) {
        let Some(id) = self.pick(n) else { return };
        let mut services: BTreeMap<Id, ServicePlan> =
            self.plan.services.iter().map(|(id, plan)| (id.clone(), plan.as_ref().clone())).collect();
        let Some(service) = services.get_mut(&id) else { return };
        match change {
            Change::Enabled => service.enabled = !service.enabled,
            Change::Program => service.exec_hash.push('+'),
            Change::Gone => {
                services.remove(&id);
                services.values_mut().for_each(|s| s.dependencies.retain(|d| d.service != id));
            }
        }
        self.plan.services = services.into_iter().map(|(id, plan)| (id, Arc::new(plan))).collect();
        self.tell(Event::PlanChanged { plan: self.plan.clone(), origin: WHO.into() });
    }

    /// No more faults. After a bounded time everything is where it is to be, and systemd agrees.
    pub fn settle(&mut self) {
        self.crash = None;
        (self.nature.faults, self.nature.crashes) = (false, false);
        self.run_for(secs(4.0 * 3600.0));
        let engine = self.engine.as_ref().unwrap();
        assert!(self.connected && engine.connected);
        if engine.leaving {
            assert!(self.left, "it never left");
            return self.all_down();
        }
        for (id, s) in &engine.services {
            let unit = self.units.get(id);
            let up = unit.is_some_and(|unit| unit.activity.is_up());
            let story = format!("{id}: {} ({}), {:?}, {unit:?}", s.state, s.reason, s.want);
            assert_eq!(up, s.state == State::Running, "state and truth differ: {story}");
            if up {
                assert_eq!(unit.map(|u| InvocationId(u.run)), s.invocation, "another run: {story}");
                assert_eq!(s.want, Want::Up, "up though it is to be down: {story}");
                let current = unit.is_some_and(|u| u.foreign || u.hash == s.plan.exec_hash);
                assert!(current, "an old configuration: {story}");
            }
            let settled = match s.state {
                State::Running | State::Fatal => true,
                State::Failed => !s.plan.auto_restart,
                State::Stopped if s.want != Want::Up => true,
                State::Stopped => !self.gates_open(id) && !s.waiting_for.is_empty(),
                _ => false,
            };
            assert!(settled, "it did not settle: {story}");
            assert_eq!(
                self.disk.get(id).map(|record| record.state),
                Some(s.state).filter(|_| self.disk.contains_key(id)),
                "{story}"
            );
        }
        assert!(
            self.units.keys().all(|id| engine.services.contains_key(id) || !self.units[id].activity.is_up()),
            "a unit that nobody knows is up"
        );
        assert_eq!(self.pending, BTreeMap::new(), "orders without an answer");
    }

    /// Everything is stopped in reverse order, then it leaves, once.
    pub fn shut_down(&mut self) {
        if !self.left {
            self.apply(&Step::Shutdown);
            self.run_for(secs(3600.0));
        }
        assert!(self.left, "it never left");
        self.all_down();
        assert_eq!(self.pending, BTreeMap::new(), "orders without an answer");
    }

    fn all_down(&self) {
        for (id, unit) in &self.units {
            let down = !unit.activity.is_up() || self.unheard_of.contains(&unit.run);
            assert!(down, "{id} is up after a shutdown: {unit:?}");
        }
    }

    /// Run and counts of every service.
    pub fn picture(&self) -> BTreeMap<Id, (State, Option<InvocationId>, u32, u64)> {
        let engine = self.engine.as_ref().unwrap();
        let of = |s: &Service| (s.state, s.invocation, s.attempt, s.restart_count);
        engine.services.iter().map(|(id, s)| (id.clone(), of(s))).collect()
    }
}
