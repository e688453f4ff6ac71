//! What readers see: a picture of everything at one moment, cheap to share, never waited for.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::alert::{AlertKind, Severity};
use super::event::{Exit, InvocationId};
use super::plan::{Id, ServicePlan};
use super::sample::Sample;
use super::tally::Tally;
use super::time::{Mono, Wall};

/// The state of a service. Exactly these seven.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Down, and nothing is due (it may wait for a dependency).
    Stopped,
    /// Asked to run, not ready yet.
    Starting,
    /// Ready.
    Running,
    /// Asked to end.
    Stopping,
    /// Ended badly; no restart is wanted (`auto_restart` is off), or the moment before `Backoff` or `Fatal`.
    Failed,
    /// Ended badly; a restart is due.
    Backoff,
    /// Ended badly too often; only a person's `start` helps.
    Fatal,
}

/// What the probes say.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Nothing yet, or it does not run.
    Unknown,
    /// The check passes.
    Healthy,
    /// Only the fallback check passes.
    Degraded,
    /// The failure threshold is crossed.
    Unhealthy,
}

/// Every service at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// By id. An `Arc` that is the same as before means: nothing changed in it.
    pub services: BTreeMap<Id, Arc<ServiceView>>,
    /// Ids of the groups, with their services in start order.
    pub groups: Arc<BTreeMap<Id, Vec<Id>>>,
    /// Everything is being stopped.
    pub leaving: bool,
    /// Which of the pictures of this daemon it is; set by who publishes it.
    pub version: u64,
    /// Alerts about the supervisor itself that are open.
    pub own_alerts: Vec<(AlertKind, Severity)>,
}

/// One service at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceView {
    /// What the user wants.
    pub plan: Arc<ServicePlan>,
    /// What it is.
    pub state: State,
    /// Since when.
    pub since: Wall,
    /// Why, for a person.
    pub reason: String,
    /// What the probes say.
    pub health: Health,
    /// Main process.
    pub pid: Option<u32>,
    /// Current or last run.
    pub invocation: Option<InvocationId>,
    /// Start of the current run.
    pub started_at: Option<Wall>,
    /// The same, to count uptime from.
    pub started_mono: Option<Mono>,
    /// Restarts ever.
    pub restart_count: u64,
    /// When the last of them was.
    pub last_restart: Option<Wall>,
    /// Restarts in a row.
    pub attempt: u32,
    /// In `backoff`: when the restart is due.
    pub next_retry_at: Option<Wall>,
    /// Dependencies it waits for, in the order of the plan.
    pub waiting_for: Vec<Id>,
    /// How the last run ended, and when.
    pub last_exit: Option<(Exit, Wall)>,
    /// Last answer of the probe.
    pub last_probe: Option<ProbeView>,
    /// What the current run uses, as of the last round of measuring.
    pub usage: Option<Sample>,
    /// It goes up and down again and again: why that is thought.
    pub flapping: Option<String>,
    /// It is to be up.
    pub wanted: bool,
    /// Alerts about it that are open.
    pub alerts: Vec<(AlertKind, Severity)>,
    /// What was counted since the daemon started.
    pub tally: Tally,
}

impl ServiceView {
    /// A service that was never started.
    pub fn new(plan: Arc<ServicePlan>) -> Self {
        Self {
            plan,
            state: State::Stopped,
            since: Wall(0),
            reason: String::new(),
            health: Health::Unknown,
            pid: None,
            invocation: None,
            started_at: None,
            started_mono: None,
            restart_count: 0,
            last_restart: None,
            attempt: 0,
            next_retry_at: None,
            waiting_for: Vec::new(),
            last_exit: None,
            last_probe: None,
            usage: None,
            flapping: None,
            wanted: true,
            alerts: Vec::new(),
            tally: Tally::default(),
        }
    }
}

/// The last answer of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeView {
    /// It passed.
    pub passed: bool,
    /// In words.
    pub message: String,
    /// How long it took.
    pub took: Duration,
    /// When.
    pub at: Wall,
    /// Failures in a row.
    pub consecutive_failures: u32,
}

impl State {
    /// All seven.
    pub const ALL: [Self; 7] = [
        Self::Stopped,
        Self::Starting,
        Self::Running,
        Self::Stopping,
        Self::Failed,
        Self::Backoff,
        Self::Fatal,
    ];

    /// The word of the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Failed => "failed",
            Self::Backoff => "backoff",
            Self::Fatal => "fatal",
        }
    }
}

impl Health {
    /// All four.
    pub const ALL: [Self; 4] = [Self::Unknown, Self::Healthy, Self::Degraded, Self::Unhealthy];

    /// The word of the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
