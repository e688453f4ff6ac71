//! One service as the engine knows it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::action::{AfterStop, Record, Want};
use super::alert::AlertKind;
use super::engine::Alarm;
use super::event::{Exit, InvocationId, OpId};
use super::flaps::Flaps;
use super::health::Watch;
use super::plan::{Id, ServicePlan, ServiceType};
use super::sample::Sample;
use super::snapshot::{ProbeView, ServiceView, State};
use super::strain::Strain;
use super::tally::Tally;
use super::time::{Boot, Mono, Now, Wall};

/// Wanted and actual state, and what is needed to get from one to the other.
#[derive(Debug, Clone)]
pub(super) struct Service {
    pub plan: Arc<ServicePlan>,
    pub want: Want,
    pub state: State,
    /// When `state` was entered.
    pub since: (Mono, Wall),
    pub reason: String,
    /// The action whose answer is awaited; one at a time.
    pub op: Option<OpId>,
    pub after_stop: AfterStop,
    /// Stops that failed in a row.
    pub stop_tries: u32,
    /// It is to start as soon as its dependencies let it. Only where `want` is up.
    pub start_due: bool,
    /// The next start counts as a restart.
    pub restarting: bool,
    /// It was ready since it was last wanted up.
    pub was_ready: bool,
    /// The current or last run; `None` from the order to start until the answer.
    pub invocation: Option<InvocationId>,
    /// It runs as an earlier configuration says, because the one in force cannot be used.
    pub outdated: bool,
    /// The run whose end was last dealt with.
    pub ended: Option<InvocationId>,
    /// An end that was told before the start was.
    pub early_exit: Option<(InvocationId, Exit, bool)>,
    /// A run that came up while an answer was awaited, and its main process: in `stopping` one that somebody
    /// started beside us, in `starting` most likely our own.
    pub appeared: Option<(InvocationId, Option<u32>)>,
    pub pid: Option<u32>,
    pub started: Option<(Mono, Wall)>,
    pub attempt: u32,
    pub restart_count: u64,
    pub last_restart: Option<Wall>,
    pub retry_at: Option<(Mono, Wall)>,
    pub last_exit: Option<(Exit, Wall)>,
    pub waiting_for: Vec<Id>,
    pub watch: Watch,
    /// What the current run uses.
    pub usage: Option<Sample>,
    /// What it used against its limits.
    pub strain: Strain,
    /// Its ups and downs.
    pub flaps: Flaps,
    pub tally: Tally,
    /// Last answers of the probe, over runs, oldest first.
    pub answers: VecDeque<ProbeView>,
    /// What is wrong with it.
    pub alarms: BTreeMap<AlertKind, Alarm>,
    /// It is in trouble; and the dependency that this comes from.
    pub blame: (bool, Option<Id>),
    /// The published picture; `None` once it is out of date.
    pub view: Option<Arc<ServiceView>>,
}

impl Service {
    /// A service that never ran.
    pub fn new(plan: Arc<ServicePlan>, now: Now) -> Self {
        let want = if plan.enabled { Want::Up } else { Want::Disabled };
        let reason = Self::first_reason(&plan);
        Self {
            plan,
            want,
            state: State::Stopped,
            since: (now.mono, now.wall),
            reason: reason.into(),
            op: None,
            after_stop: AfterStop::Rest,
            stop_tries: 0,
            start_due: want == Want::Up,
            restarting: false,
            was_ready: false,
            outdated: false,
            invocation: None,
            ended: None,
            early_exit: None,
            appeared: None,
            pid: None,
            started: None,
            attempt: 0,
            restart_count: 0,
            last_restart: None,
            retry_at: None,
            last_exit: None,
            waiting_for: Vec::new(),
            watch: Watch::default(),
            usage: None,
            strain: Strain::default(),
            flaps: Flaps::default(),
            tally: Tally::default(),
            answers: VecDeque::new(),
            alarms: BTreeMap::new(),
            blame: (false, None),
            view: None,
        }
    }

    fn first_reason(plan: &ServicePlan) -> &'static str {
        if plan.enabled { "enabled in the configuration" } else { "disabled in the configuration" }
    }

    /// Takes an answer of the probe into what is remembered of them.
    pub fn remember_answer(&mut self) {
        const ANSWERS: usize = 5;
        if self.answers.len() == ANSWERS {
            self.answers.pop_front();
        }
        self.answers.extend(self.watch.last.clone());
    }

    /// A run ended, whoever wanted that.
    pub fn note_exit(&mut self, exit: Exit, at: Wall) {
        self.tally.exited(&exit.result);
        self.last_exit = Some((exit, at));
    }

    /// Whether systemd may have a process of it.
    pub fn is_active(&self) -> bool {
        matches!(self.state, State::Starting | State::Running | State::Stopping)
    }

    /// How long it may take to become ready, from its start.
    pub fn startup_budget(&self) -> Duration {
        let health = &self.plan.health;
        health.start_period.saturating_add(health.interval.saturating_mul(health.failure_threshold))
    }

    /// How long the answer to a start may take.
    pub fn answer_budget(&self) -> Duration {
        const EXEC: Duration = Duration::from_secs(90);
        const MARGIN: Duration = Duration::from_secs(15);
        let start = match self.plan.exec.service_type {
            ServiceType::Exec => EXEC,
            ServiceType::Notify => self.startup_budget(),
        };
        start.saturating_add(MARGIN)
    }

    /// What must outlive the daemon.
    pub fn record(&self, boot: &Boot) -> Record {
        Record {
            boot_id: boot.id.clone(),
            systemd_began: boot.systemd_began,
            state: self.state,
            want: self.want,
            enabled: self.plan.enabled,
            was_ready: self.was_ready,
            restarting: self.restarting,
            after_stop: self.after_stop.clone(),
            attempt: self.attempt,
            restart_count: self.restart_count,
            last_restart: self.last_restart,
            invocation: self.invocation,
            ended: self.ended,
            started: self.started,
            entered: self.since,
            retry_at: self.retry_at,
            last_exit: self.last_exit.clone(),
            reason: self.reason.clone(),
            turns: self.flaps.turns(),
            flapping: self.flaps.reason().map(Into::into),
        }
    }

    /// Takes over what outlived the last daemon. What holds within one boot only is left out after another.
    /// Says whether it is to be something else now than it was then.
    pub fn restore(&mut self, record: Record, boot: &Boot) -> bool {
        self.restart_count = record.restart_count;
        self.last_restart = record.last_restart;
        self.last_exit = record.last_exit;
        let same_systemd = record.systemd_began == boot.systemd_began || record.systemd_began == 0;
        if record.boot_id != boot.id || !same_systemd {
            if self.start_due {
                "the machine, or its systemd, was started again".clone_into(&mut self.reason);
            }
            return true;
        }
        self.flaps = Flaps::restored(&record.turns, record.flapping);
        self.state = record.state;
        self.after_stop = record.after_stop;
        self.attempt = record.attempt;
        self.invocation = record.invocation;
        self.ended = record.ended;
        self.started = record.started;
        self.since = record.entered;
        self.retry_at = record.retry_at;
        self.reason = record.reason;
        self.was_ready = record.was_ready;
        self.restarting = record.restarting;
        self.want = match (record.want, self.plan.enabled) {
            (Want::Disabled | Want::Removed, true) => Want::Up,
            (Want::Removed, false) => Want::Disabled,
            // Disabled meanwhile. One that was so before is up because somebody asked for just that.
            (Want::Up, false) if record.enabled => Want::Disabled,
            (want, _) => want,
        };
        let turned = self.want != record.want;
        if turned && !self.is_active() {
            self.state = State::Stopped;
            self.attempt = 0;
            self.reason = Self::first_reason(&self.plan).into();
        }
        self.start_due = self.want == Want::Up && self.state == State::Stopped;
        if self.start_due && !turned {
            // What it was stopped for is no reason to start.
            "the supervisor was started again".clone_into(&mut self.reason);
        }
        turned
    }

    /// The picture for readers.
    pub fn view(&mut self) -> Arc<ServiceView> {
        if let Some(view) = &self.view {
            return Arc::clone(view);
        }
        let view = Arc::new(ServiceView {
            plan: Arc::clone(&self.plan),
            state: self.state,
            since: self.since.1,
            reason: self.reason.clone(),
            health: self.watch.health(),
            pid: self.pid,
            invocation: self.invocation,
            started_at: self.started.filter(|_| self.is_active()).map(|(_, wall)| wall),
            started_mono: self.started.filter(|_| self.is_active()).map(|(mono, _)| mono),
            restart_count: self.restart_count,
            last_restart: self.last_restart,
            attempt: self.attempt,
            next_retry_at: self.retry_at.filter(|_| self.state == State::Backoff).map(|(_, wall)| wall),
            waiting_for: self.waiting_for.clone(),
            last_exit: self.last_exit.clone(),
            last_probe: self.watch.last.clone(),
            usage: self.usage,
            flapping: self.flaps.reason().map(Into::into),
            wanted: self.want == Want::Up,
            alerts: self.open_alerts(),
            tally: self.tally.clone(),
        });
        self.view = Some(Arc::clone(&view));
        view
    }
}
