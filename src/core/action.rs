//! What is to be done: everything the engine ever asks for.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::alert::{Alert, AlertKey};
use super::event::{Exit, InvocationId, OpId, OrderId};
use super::plan::{Id, ServicePlan};
use super::snapshot::State;
use super::time::{Mono, Wall};

/// An effect. The runtime carries them out in order of the list, as far as they concern one service.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Make the unit run. Everything persisted or recorded before must be on disk first.
    /// Answered by [`super::event::Event::StartFinished`].
    StartUnit {
        /// To be repeated in the answer.
        op: OpId,
        /// As what.
        plan: Arc<ServicePlan>,
    },
    /// End the unit. Answered by [`super::event::Event::StopFinished`]. May come while a start of the same service is
    /// not answered yet: then it ends that start, whose answer no longer matters. Never the other way round.
    StopUnit {
        /// To be repeated in the answer.
        op: OpId,
        /// Which service.
        service: Id,
        /// With SIGKILL to everything in it, at once.
        kill: bool,
    },
    /// The service left the plan, or its unit has to be made anew: let systemd forget the unit, which is down.
    ReleaseUnit {
        /// Which service.
        service: Id,
    },
    /// Make the running unit's limits those of the plan.
    ApplyLimits {
        /// Whose, and which.
        plan: Arc<ServicePlan>,
    },
    /// Ask the service how it is. Answered by [`super::event::Event::Probed`].
    Probe {
        /// What to ask.
        plan: Arc<ServicePlan>,
        /// To be repeated in the answer.
        invocation: InvocationId,
        /// The main process.
        pid: Option<u32>,
    },
    /// Write to the log and to the event table.
    Record(Entry),
    /// Something is wrong that was well: keep it, and tell whoever is to be told. The last lines of the service's log
    /// are to be added.
    RaiseAlert(Box<Alert>),
    /// What is known about an open alert changed.
    UpdateAlert(Box<Alert>),
    /// It is no longer wrong.
    ResolveAlert {
        /// What was raised.
        key: AlertKey,
        /// What is over, after how long, and why.
        message: String,
    },
    /// Keep this over the end of the daemon.
    Persist {
        /// Whose.
        service: Id,
        /// What.
        record: Box<Record>,
    },
    /// The service left the plan: drop what was kept.
    Forget {
        /// Whose.
        service: Id,
    },
    /// An order has its outcome.
    Answer {
        /// Which order.
        order: OrderId,
        /// What came of it.
        outcome: Outcome,
    },
    /// Everything is down after a [`super::event::Event::ShutdownOrdered`]: end the daemon.
    Leave,
}

/// Something worth remembering.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// `None` for the supervisor's own.
    pub service: Option<Id>,
    /// What kind of thing.
    pub kind: EntryKind,
    /// How loud.
    pub level: Level,
    /// A whole sentence: what, from, to, reason, what happens next and when.
    pub message: String,
    /// Machine-readable parts.
    pub details: BTreeMap<&'static str, serde_json::Value>,
}

/// Loudness of an [`Entry`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// As it should be.
    Info,
    /// Somebody may want to look.
    Warning,
    /// Something is down that should be up.
    Error,
}

/// The event types of the contract, in snake case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// The daemon runs.
    SupervisorStarted,
    /// The daemon ends.
    SupervisorStopped,
    /// A start was asked of systemd.
    ServiceStarting,
    /// The service is ready.
    ServiceStarted,
    /// It is being stopped.
    ServiceStopping,
    /// It is down, as wanted.
    ServiceStopped,
    /// It ended by itself with success.
    ServiceExited,
    /// It crashed, was killed, could not be started or did not become healthy.
    ServiceFailed,
    /// It ended while no supervisor was there.
    ExitedUnsupervised,
    /// It was found running and left as it is.
    ServiceAdopted,
    /// A restart will come.
    RestartScheduled,
    /// No further restart will come.
    GaveUp,
    /// It waits for a dependency, or for a check that the supervisor cannot ask.
    ServiceWaiting,
    /// Health went from one word to another.
    HealthChanged,
    /// Somebody acted on the unit beside us.
    ExternalChange,
    /// Limits were changed on the running unit.
    LimitsApplied,
    /// A limit was hit.
    ResourceLimit,
    /// It goes up and down again and again, or no longer does.
    Flapping,
    /// Something is wrong that somebody should see to.
    AlertRaised,
    /// It is no longer wrong.
    AlertResolved,
    /// Somebody has seen it.
    AlertAcknowledged,
    /// The attempts were set to 0 by hand.
    AttemptsReset,
    /// A signal was sent by hand.
    SignalSent,
    /// A new configuration is in force.
    ConfigReloaded,
    /// A new configuration was refused.
    ConfigRejected,
    /// A service is new in the configuration.
    ServiceAdded,
    /// A service left the configuration.
    ServiceRemoved,
    /// The connection to systemd was lost or is back.
    SystemdConnection,
    /// The database cannot be written or can be again.
    DatabaseTrouble,
    /// Samples do not reach the other dashboard or do so again.
    PushTrouble,
    /// An address of the API cannot be served or can be again, or a token or certificate for it is missing.
    ListenerTrouble,
    /// A token of the API was replaced.
    TokenRotated,
}

/// What must outlive the daemon, for one service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The boot in which the `Mono` values count.
    pub boot_id: String,
    /// When the systemd began that runs it; 0 in what a supervisor wrote that did not ask. A manual stop lasts as long
    /// as this systemd.
    #[serde(default)]
    pub systemd_began: u64,
    /// State when it was written.
    pub state: State,
    /// Whether it is to be up.
    pub want: Want,
    /// Whether the configuration enabled it: one that is up though it did not was started by hand.
    pub enabled: bool,
    /// It was ready since it was last wanted up.
    pub was_ready: bool,
    /// Its next start counts as a restart.
    pub restarting: bool,
    /// In `stopping`: what comes then.
    pub after_stop: AfterStop,
    /// Restarts in a row so far.
    pub attempt: u32,
    /// Restarts ever.
    pub restart_count: u64,
    /// When the last of them was.
    pub last_restart: Option<Wall>,
    /// The run that `state` is about.
    pub invocation: Option<InvocationId>,
    /// The run whose end was last dealt with.
    pub ended: Option<InvocationId>,
    /// When that run was started.
    pub started: Option<(Mono, Wall)>,
    /// When `state` was entered.
    pub entered: (Mono, Wall),
    /// In `backoff`: when the restart is due.
    pub retry_at: Option<(Mono, Wall)>,
    /// How the last run ended, and when.
    pub last_exit: Option<(Exit, Wall)>,
    /// Why it is in that state, for a person.
    pub reason: String,
    /// When it failed from good standing, lately.
    #[serde(default)]
    pub turns: Vec<Mono>,
    /// Why it is taken to flap.
    #[serde(default)]
    pub flapping: Option<String>,
}

/// Whether a service is to be up, and if not, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Want {
    /// Up.
    Up,
    /// `enabled` is false.
    Disabled,
    /// A person or program said stop. Lasts over a restart of the daemon, not over a reboot.
    StoppedByHand,
    /// Somebody stopped the unit beside us. Lasts as long.
    StoppedOutside,
    /// It ended with success, and `restart_on_exit` is off. Lasts as long.
    Completed,
    /// It left the configuration.
    Removed,
}

/// What comes when a stop is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterStop {
    /// Nothing.
    Rest,
    /// A start.
    Start,
    /// The stop was for a failure: the restart policy decides.
    Fail(String),
}

/// What became of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// It came to what was asked.
    pub done: bool,
    /// The state at that moment.
    pub state: State,
    /// What happened, or why it cannot be: a whole sentence.
    pub message: String,
}
