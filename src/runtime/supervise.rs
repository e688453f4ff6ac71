//! The loop itself.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::SignalKind;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tracing::{debug, error, info, warn};

use super::access::Access;
use super::alerts::{self, Logs};
use super::courier::Errand;
use super::journal_gaps::{self, Gaps};
use super::picture::{Picture, status_line};
use super::probes::Probes;
use super::signals::Signals;
use super::{Input, clock, measuring, reload};
use crate::config::{self, Loaded, Problem, Settings};
use crate::control::{Request, signal_target};
use crate::core::action::{Action, Entry, EntryKind, Level, Outcome};
use crate::core::alert::AlertKind;
use crate::core::event::{Event, InvocationId, OrderId, UnitSeen, Verb};
use crate::core::plan::{Id, Limits, ServicePlan};
use crate::core::sample::Sample;
use crate::core::snapshot::{Snapshot, State};
use crate::core::{Engine, Now};
use crate::place::Places;
use crate::probe::{self, Helper, ProbeClient};
use crate::push::Pusher;
use crate::store::{Phase, Store, Trouble};
use crate::systemd::{Manager, Notice, name::service_unit, notify, signal_name};

/// Events dealt with before a new picture is published and signals are looked at again.
const BURST: usize = 256;

/// From a sign of life that could not be sent to the next.
const ALIVE_AGAIN: Duration = Duration::from_secs(1);

/// Why the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// Services go on; the next daemon adopts them.
    ServicesRunning,
    /// Everything was stopped.
    ServicesStopped,
}

/// Everything the loop holds.
pub struct Loop {
    pub places: Places,
    pub engine: Engine,
    pub manager: Manager,
    pub store: Store,
    pub courier: mpsc::UnboundedSender<Errand>,
    pub notices: mpsc::UnboundedReceiver<Notice>,
    pub requests: mpsc::Receiver<Request>,
    pub inputs: mpsc::UnboundedReceiver<Input>,
    pub to_inputs: mpsc::UnboundedSender<Input>,
    pub picture: Picture,
    pub metrics_interval: watch::Sender<Duration>,
    pub pusher: Option<Pusher>,
    pub access: Access,
    /// What is in force.
    pub settings: Settings,
    state: Inner,
}

/// What the loop keeps for itself.
#[derive(Default)]
struct Inner {
    orders: HashMap<OrderId, oneshot::Sender<Outcome>>,
    last_order: u64,
    reloads: reload::Queue,
    gaps: Gaps,
    logs: Logs,
    client: ProbeClient,
    probes: Probes,
    /// Told to systemd once the first picture is complete. Orders wait for it: until then nobody knows what runs.
    ready: bool,
    /// Limits are to be given again to what runs, after systemd came back.
    limits_due: bool,
    leave: Option<Leaving>,
}

/// The ends of the channels that [`Loop::new`] takes.
pub struct Ends {
    pub notices: mpsc::UnboundedReceiver<Notice>,
    pub requests: mpsc::Receiver<Request>,
    pub inputs: mpsc::UnboundedReceiver<Input>,
    pub to_inputs: mpsc::UnboundedSender<Input>,
    pub snapshot: watch::Sender<Arc<Snapshot>>,
    pub metrics_interval: watch::Sender<Duration>,
    pub pusher: Option<Pusher>,
    pub access: Access,
}

impl Loop {
    /// Puts the parts together.
    pub fn new(
        places: Places,
        engine: Engine,
        manager: Manager,
        store: Store,
        courier: mpsc::UnboundedSender<Errand>,
        ends: Ends,
        settings: Settings,
    ) -> Self {
        let Ends { notices, requests, inputs, to_inputs, snapshot, metrics_interval, pusher, access } = ends;
        let state = Inner::default();
        Self {
            places,
            engine,
            manager,
            store,
            courier,
            notices,
            requests,
            inputs,
            to_inputs,
            picture: Picture::new(snapshot),
            metrics_interval,
            pusher,
            access,
            settings,
            state,
        }
    }

    /// The first thing in the history of this daemon.
    pub fn tell_start(&self, message: String) {
        self.record_own(EntryKind::SupervisorStarted, Level::Info, message);
    }

    /// Runs until somebody wants it to end.
    pub async fn run(mut self) -> std::io::Result<(Leaving, Store)> {
        let mut signals = Signals::new()?;
        let mut alive = alive_timer();
        self.set_group_limits(&BTreeMap::new());
        self.manager.resync(Arc::new(self.engine.plan().clone()));
        while self.state.leave.is_none() {
            let deadline = self.engine.next_deadline().map(clock::instant);
            tokio::select! {
                Some(notice) = self.notices.recv() => self.noticed(notice),
                Some(request) = self.requests.recv(), if self.state.ready => self.requested(request),
                Some(input) = self.inputs.recv() => self.took_in(input),
                () = sleep_until(deadline) => self.decide(Event::DeadlineReached),
                () = sleep_until(self.picture.due()) => {}
                received = signals.next() => self.signalled(received),
                () = tick(alive.as_mut()) => tell_alive(alive.as_mut()),
            }
            self.drain();
            self.show();
        }
        // The courier owes answers still; it ends after them.
        let Self { store, courier, state, .. } = self;
        drop(courier);
        Ok((state.leave.unwrap_or(Leaving::ServicesRunning), store))
    }

    /// Deals with what is there already, so that a burst is published once.
    fn drain(&mut self) {
        for _ in 0..BURST {
            if let Ok(notice) = self.notices.try_recv() {
                self.noticed(notice);
            } else if let Ok(input) = self.inputs.try_recv() {
                self.took_in(input);
            } else {
                return;
            }
        }
    }

    fn show(&mut self) {
        self.picture.show(&mut self.engine, &self.store, self.pusher.as_ref());
    }

    /// One decision, and what follows from it.
    fn decide(&mut self, event: Event) {
        let now = clock::now();
        let _whole = self.store.together();
        let mut checks_alone =
            matches!(event, Event::Probed { .. } | Event::Unprobed { .. } | Event::DeadlineReached);
        for action in self.engine.handle(now, event) {
            checks_alone &= matches!(action, Action::Probe { .. });
            self.execute(action, now);
        }
        if !checks_alone {
            self.picture.decided();
        }
    }

    fn execute(&mut self, action: Action, now: Now) {
        match action {
            Action::StartUnit { op, plan } => self.send(Errand::Start { op, plan }),
            Action::StopUnit { op, service, kill } => {
                self.state.probes.end(&service);
                self.send(Errand::Stop { op, service, kill });
            }
            Action::ReleaseUnit { service } => self.send(Errand::Release { service }),
            Action::Answer { order, outcome } => {
                if let Some(to) = self.state.orders.remove(&order) {
                    self.send(Errand::Answer { to, outcome });
                }
            }
            Action::RaiseAlert(alert) => {
                let plan = alert.key.service.as_ref().and_then(|id| self.engine.plan().services.get(id));
                let (plan, key) = (plan.cloned(), alert.key.clone());
                self.store.alert(*alert);
                if let Some(plan) = plan {
                    self.state.logs.add(self.places.scope, plan, key, self.store.clone());
                }
            }
            Action::UpdateAlert(alert) => self.store.alert(*alert),
            Action::ResolveAlert { key, message } => self.store.alert_resolved(key, &message, now.wall),
            Action::Persist { service, record } => self.store.save(&service, *record),
            Action::Forget { service } => self.store.forget(&service),
            Action::Record(entry) => self.record(&entry, now),
            Action::Probe { plan, invocation, pid } => self.probe(plan, invocation, pid),
            Action::ApplyLimits { plan } => {
                let (manager, store) = (self.manager.clone(), self.store.clone());
                tokio::spawn(async move {
                    let entry =
                        limits_entry(&plan.id, manager.apply_limits(&plan).await.map_err(|e| e.to_string()));
                    log(&entry);
                    store.event(&entry, clock::now().wall);
                });
            }
            Action::Leave => self.state.leave = Some(Leaving::ServicesStopped),
        }
    }

    fn send(&self, errand: Errand) {
        if self.courier.send(errand).is_err() {
            error!("the courier ended; starts, stops and answers are lost: restart the supervisor");
        }
    }

    fn probe(&mut self, plan: Arc<ServicePlan>, invocation: InvocationId, pid: Option<u32>) {
        let (client, inputs) = (self.state.client.clone(), self.to_inputs.clone());
        let (service, critical) = (plan.id.clone(), plan.critical);
        let checks = self.places.exec_checks.clone();
        self.state.probes.begin(service.clone(), critical, move || async move {
            let unit = service_unit(&service);
            let own = Helper::Program(Path::new(probe::OWN_BINARY));
            let helper = checks.as_deref().map_or(own, Helper::Socket);
            let subject = probe::Subject { pid, unit: Some(&unit), helper };
            let input = match probe::run(&plan, subject, &client).await {
                Ok(report) => Input::Probed { service, invocation, report },
                Err(lack) => Input::Unprobed { service, invocation, lack },
            };
            drop(inputs.send(input));
        });
    }

    fn record(&self, entry: &Entry, now: Now) {
        log(entry);
        self.store.event(entry, now.wall);
    }

    fn record_own(&self, kind: EntryKind, level: Level, message: String) {
        let entry = Entry { service: None, kind, level, message, details: BTreeMap::new() };
        self.record(&entry, clock::now());
    }

    fn noticed(&mut self, notice: Notice) {
        match notice {
            Notice::StartFinished { service, op, result } => {
                self.decide(Event::StartFinished { service, op, result })
            }
            Notice::StopFinished { service, op, result } => {
                self.decide(Event::StopFinished { service, op, result })
            }
            Notice::Exited { service, invocation, exit, external } => {
                self.decide(Event::UnitExited { service, invocation, exit, external });
            }
            Notice::Appeared { service, invocation, pid } => {
                self.decide(Event::UnitAppeared { service, invocation, pid });
            }
            Notice::Resynced { units } => self.resynced(units),
            Notice::Lost { reason } => {
                self.picture.begin();
                let message =
                    format!("the connection to systemd is lost ({reason}); services go on, connecting again");
                self.record_own(EntryKind::SystemdConnection, Level::Warning, message.clone());
                self.decide(Event::OwnTrouble { kind: AlertKind::Systemd, trouble: Some(message) });
            }
            Notice::Back => {
                self.decide(Event::OwnTrouble { kind: AlertKind::Systemd, trouble: None });
                if self.state.ready {
                    let message =
                        "connected to systemd, or systemd was reloaded; comparing every unit".into();
                    self.record_own(EntryKind::SystemdConnection, Level::Info, message);
                }
                self.state.limits_due = self.state.ready;
                self.manager.resync(Arc::new(self.engine.plan().clone()));
            }
        }
    }

    /// The truth about every unit; what the journal knows of vanished runs is looked up first.
    fn resynced(&mut self, mut units: BTreeMap<Id, UnitSeen>) {
        self.decide(Event::SystemdIdentified { began: self.manager.began() });
        let snapshot = self.engine.snapshot();
        let unknown = self.state.gaps.unknown(&snapshot, &units);
        if !unknown.is_empty() {
            return journal_gaps::look_up(self.places.scope, unknown, self.to_inputs.clone());
        }
        self.state.gaps.fill(&snapshot, &mut units);
        self.decide(Event::Resynced { units });
        if std::mem::take(&mut self.state.limits_due) {
            self.apply_limits_again();
        }
        self.picture.begin();
        if !std::mem::replace(&mut self.state.ready, true) {
            self.show();
            self.picture.tell();
            notify::ready(&status_line(&self.picture.shown()));
        }
    }

    /// A re-executed systemd may have dropped limits that were given to a running unit.
    fn apply_limits_again(&mut self) {
        let limited = |plan: &&Arc<crate::core::plan::ServicePlan>| plan.limits != Limits::default();
        let plans: Vec<_> = self.engine.plan().services.values().filter(limited).cloned().collect();
        let running = self.engine.snapshot();
        for plan in plans {
            if running.services.get(&plan.id).is_some_and(|view| view.state == State::Running) {
                let manager = self.manager.clone();
                tokio::spawn(async move {
                    if let Err(error) = manager.apply_limits(&plan).await {
                        warn!(supervisor_service = %plan.id, "{}: limits could not be given again: {error}", plan.id);
                    }
                });
            }
        }
    }

    fn requested(&mut self, request: Request) {
        match request {
            Request::Order { service, verb, origin, answer } => self.ordered(service, verb, origin, answer),
            Request::Signal { service, signal, origin, answer } => {
                self.send_signal(service, signal, origin, answer)
            }
            Request::Reload { dry_run, origin, answer } => {
                self.reload(reload::Asked { dry_run, origin, answer: Some(answer) });
            }
            Request::Acknowledge { alert, origin, answer } => {
                alerts::acknowledge(self.store.clone(), alert, origin, answer);
            }
            Request::RotateToken { role, origin, answer } => {
                self.access.rotate(self.store.clone(), role, origin, answer);
            }
            Request::Shutdown { origin } => self.decide(Event::ShutdownOrdered { origin }),
        }
    }

    fn ordered(&mut self, service: Id, verb: Verb, origin: String, answer: oneshot::Sender<Outcome>) {
        self.state.last_order += 1;
        let order = OrderId(self.state.last_order);
        self.state.orders.insert(order, answer);
        self.decide(Event::Ordered { order, origin, service, verb });
    }

    fn send_signal(
        &self,
        service: Id,
        number: i32,
        origin: String,
        answer: oneshot::Sender<Result<(), String>>,
    ) {
        let (manager, store) = (self.manager.clone(), self.store.clone());
        // systemd finds it well to send SIGKILL to nobody.
        let rest = self.picture.shown().services.get(&service).filter(|view| view.pid.is_none()).cloned();
        if let Some(view) = rest {
            let why =
                format!("{service} has no process to send it to: it is {} ({})", view.state, view.reason);
            return drop(answer.send(Err(why)));
        }
        tokio::spawn(async move {
            let sent = manager.signal(&service, number).await.map_err(|error| error.to_string());
            if sent.is_ok() {
                let entry = Entry {
                    service: Some(service.clone()),
                    kind: EntryKind::SignalSent,
                    level: Level::Info,
                    message: format!(
                        "{service}: {} sent to {}, asked for by {origin}",
                        signal_name(number),
                        signal_target(number)
                    ),
                    details: BTreeMap::from([("signal", number.into())]),
                };
                log(&entry);
                store.event(&entry, clock::now().wall);
                store.flushed(Duration::from_millis(250)).await;
            }
            drop(answer.send(sent));
        });
    }

    fn took_in(&mut self, input: Input) {
        match input {
            Input::Probed { service, invocation, report } => {
                self.state.probes.told(&service);
                self.decide(Event::Probed { service, invocation, report });
            }
            Input::Unprobed { service, invocation, lack } => {
                self.state.probes.told(&service);
                if self.state.probes.lacks() {
                    warn!("services cannot be checked, which counts as nothing: {lack}");
                }
                self.decide(Event::Unprobed { service, invocation, lack: lack.to_string() });
            }
            Input::Loaded(loaded) => self.loaded(*loaded),
            Input::Ended(ended) => {
                self.state.gaps.learn(ended);
                // The picture is taken anew: it is older than the answers of the journal.
                self.manager.resync(Arc::new(self.engine.plan().clone()));
            }
            Input::Sampled(samples) => self.sampled(samples),
            Input::Trouble(trouble) => self.trouble(&trouble),
            Input::Pushing(news) => {
                let level = if news.good { Level::Info } else { Level::Error };
                self.record_own(EntryKind::PushTrouble, level, news.message);
            }
            // Environment files are seen to on the way.
            Input::FolderMade => self.manager.resync(Arc::new(self.engine.plan().clone())),
            Input::Access { level, message, trouble } => {
                self.record_own(EntryKind::ListenerTrouble, level, message);
                self.decide(Event::OwnTrouble { kind: AlertKind::Listener, trouble });
            }
        }
    }

    /// The engine first: what it took for the current runs is kept when its picture is taken.
    fn sampled(&mut self, samples: BTreeMap<Id, (InvocationId, Sample)>) {
        self.picture.measured(samples.iter().map(|(id, of)| (id.clone(), of.0)));
        self.decide(Event::Sampled { samples });
    }

    fn trouble(&mut self, trouble: &Trouble) {
        let level = match trouble.phase {
            Phase::Began => Level::Error,
            Phase::Noted => Level::Warning,
            Phase::Ended => Level::Info,
        };
        self.record_own(EntryKind::DatabaseTrouble, level, trouble.message.clone());
        let lasting = match trouble.phase {
            Phase::Began => Some(trouble.message.clone()),
            Phase::Ended => None,
            Phase::Noted => return,
        };
        self.decide(Event::OwnTrouble { kind: AlertKind::Database, trouble: lasting });
    }

    fn signalled(&mut self, received: SignalKind) {
        if received == SignalKind::hangup() {
            return self.reload(reload::Asked { dry_run: false, origin: "SIGHUP".into(), answer: None });
        }
        let interrupt = received == SignalKind::interrupt();
        let again = self.picture.shown().leaving;
        match (interrupt || self.settings.stop_services_on_exit, again) {
            (true, false) => {
                let origin = if interrupt { "SIGINT (Ctrl-C)" } else { "SIGTERM with stop_services_on_exit" };
                info!("stopping all services in reverse order; once more to leave them as they are");
                self.decide(Event::ShutdownOrdered { origin: origin.into() });
            }
            _ => {
                let message = "leaving; services go on running, the next supervisor takes them over".into();
                self.record_own(EntryKind::SupervisorStopped, Level::Info, message);
                self.state.leave = Some(Leaving::ServicesRunning);
            }
        }
    }

    fn reload(&mut self, asked: reload::Asked) {
        match self.state.reloads.push(asked) {
            Ok(true) => {
                notify::reloading();
                reload::begin(self.places.clone(), self.manager.clone(), self.to_inputs.clone());
            }
            Ok(false) => {}
            Err(asked) => warn!(origin = asked.origin, "too many reloads wait already; this one is dropped"),
        }
    }

    fn loaded(&mut self, loaded: Result<Loaded, Vec<Problem>>) {
        let (asked, more) = self.state.reloads.pop();
        if more {
            reload::begin(self.places.clone(), self.manager.clone(), self.to_inputs.clone());
        }
        let Some(asked) = asked else { return };
        let result = match loaded {
            Ok(loaded) => {
                let mut report = config::diff(self.engine.plan(), &loaded.plan);
                report.warnings = loaded.warnings.clone();
                let settings = config::diff_settings(&self.settings, &loaded.settings);
                report.supervisor = settings.iter().map(|name| (*name).to_owned()).collect();
                if !asked.dry_run {
                    if !settings.is_empty() {
                        let message = format!("settings of the supervisor changed: {}", settings.join(", "));
                        self.record_own(EntryKind::ConfigReloaded, Level::Info, message);
                    }
                    self.take_over(loaded, asked.origin);
                }
                Ok(report)
            }
            Err(problems) => {
                if !asked.dry_run {
                    self.record_own(EntryKind::ConfigRejected, Level::Error, asked.refusal(&problems));
                }
                Err(problems)
            }
        };
        notify::ready(&status_line(&self.picture.shown()));
        if let Some(answer) = asked.answer {
            self.send(Errand::Reply(Box::new(move || drop(answer.send(result)))));
        }
    }

    fn take_over(&mut self, loaded: Loaded, origin: String) {
        for warning in &loaded.warnings {
            warn!(
                "{}:{}: {}: {}; {}",
                warning.file, warning.line, warning.path, warning.message, warning.help
            );
        }
        let groups = self.engine.plan().groups.clone();
        self.store.retain(loaded.settings.retention_days);
        self.access.apply(&loaded.settings);
        let to = measuring::destination(&loaded.settings);
        if self.pusher.as_ref().map(Pusher::destination) != to.as_ref() {
            self.pusher = measuring::pusher(&loaded.settings, &self.to_inputs);
        }
        self.metrics_interval.send_if_modified(|interval| {
            std::mem::replace(interval, loaded.settings.metrics_interval) != loaded.settings.metrics_interval
        });
        // Another database is opened with the next start.
        let database = self.settings.database.take();
        self.settings = Settings { database, ..loaded.settings };
        self.decide(Event::PlanChanged { plan: loaded.plan, origin });
        self.set_group_limits(&groups.into_iter().map(|(id, group)| (id, group.limits)).collect());
    }

    /// Gives slices the limits of their groups where these are not what they were in `before`.
    fn set_group_limits(&self, before: &BTreeMap<Id, Limits>) {
        let none = Limits::default();
        for (id, group) in &self.engine.plan().groups {
            if before.get(id).unwrap_or(&none) != &group.limits {
                let (manager, id, limits) = (self.manager.clone(), id.clone(), group.limits);
                tokio::spawn(async move {
                    if let Err(error) = manager.set_group_limits(&id, &limits).await {
                        warn!(
                            "group {id}: its limits could not be set: {error}; its services run without them"
                        );
                    }
                });
            }
        }
    }
}

fn limits_entry(id: &Id, applied: Result<(), String>) -> Entry {
    let (level, message) = match applied {
        Ok(()) => (Level::Info, format!("{id}: new limits are in force; it was not restarted")),
        Err(why) => (
            Level::Error,
            format!("{id}: new limits could not be applied: {why}; the old ones stay until a restart"),
        ),
    };
    Entry {
        service: Some(id.clone()),
        kind: EntryKind::LimitsApplied,
        level,
        message,
        details: BTreeMap::new(),
    }
}

/// One line per change in our own log; journald gets `SUPERVISOR_SERVICE` beside it.
pub(super) fn log(entry: &Entry) {
    let message = &entry.message;
    match (&entry.service, entry.level) {
        (Some(id), Level::Info) => info!(supervisor_service = %id, "{message}"),
        (Some(id), Level::Warning) => warn!(supervisor_service = %id, "{message}"),
        (Some(id), Level::Error) => error!(supervisor_service = %id, "{message}"),
        (None, Level::Info) => info!("{message}"),
        (None, Level::Warning) => warn!("{message}"),
        (None, Level::Error) => error!("{message}"),
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn tick(interval: Option<&mut Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}

/// systemd does not wait longer because we had no descriptor for the telling.
fn tell_alive(interval: Option<&mut Interval>) {
    if let (false, Some(interval)) = (notify::alive(), interval) {
        interval.reset_after(ALIVE_AGAIN);
    }
}

fn alive_timer() -> Option<Interval> {
    let mut interval = tokio::time::interval(notify::alive_interval()?);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    debug!(period = ?interval.period(), "telling systemd that the loop is alive");
    Some(interval)
}
