//! The door to the loop: what HTTP may ask of the running supervisor. Reads take the published picture and
//! never wait for the loop; changes are sent to it and answered.

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::Problem;
use crate::core::action::{EntryKind, Outcome};
use crate::core::event::Verb;
use crate::core::plan::{Id, ServicePlan};
use crate::core::sample::Host;
use crate::core::snapshot::{Health, Snapshot};
use crate::core::time::Wall;
use crate::ring::Tail;
use crate::token::Role;

/// A change that somebody asks for, with the place for its answer.
#[derive(Debug)]
pub enum Request {
    /// Start, stop, restart or reset one service.
    Order {
        /// Which.
        service: Id,
        /// What.
        verb: Verb,
        /// Who.
        origin: String,
        /// What became of it; dropped when the daemon ends.
        answer: oneshot::Sender<Outcome>,
    },
    /// Send a signal to the main process of a service; SIGKILL goes to all of its processes.
    Signal {
        /// Which.
        service: Id,
        /// Number.
        signal: i32,
        /// Who.
        origin: String,
        /// Why it could not be sent.
        answer: oneshot::Sender<Result<(), String>>,
    },
    /// Read the configuration again.
    Reload {
        /// Only say what would change.
        dry_run: bool,
        /// Who.
        origin: String,
        /// What changes.
        answer: oneshot::Sender<Result<ReloadReport, Vec<Problem>>>,
    },
    /// Somebody has seen an alert.
    Acknowledge {
        /// Number of its row.
        alert: i64,
        /// Who.
        origin: String,
        /// The row as it is then.
        answer: oneshot::Sender<Acknowledged>,
    },
    /// Make a new token for the API over TCP.
    RotateToken {
        /// Whose.
        role: Role,
        /// Who.
        origin: String,
        /// The file that holds it, or why the old one stays.
        answer: oneshot::Sender<Result<String, String>>,
    },
    /// Stop all services in reverse order, then the daemon.
    Shutdown {
        /// Who.
        origin: String,
    },
}

/// Whom [`Request::Signal`] reaches, in words.
pub fn signal_target(signal: i32) -> &'static str {
    if signal == nix::libc::SIGKILL { "all processes" } else { "the main process" }
}

/// What a new configuration changes. Each service is in exactly one list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ReloadReport {
    /// New ones.
    pub added: Vec<Id>,
    /// Those that are stopped and forgotten.
    pub removed: Vec<Id>,
    /// Those that have to be restarted for it.
    pub restarted: Vec<Changed>,
    /// Those that change while they run.
    pub updated_live: Vec<Changed>,
    /// All others.
    pub unchanged: Vec<Id>,
    /// Fields of the `supervisor` block that differ. All are in force at once but `database`, which is opened anew with
    /// the next start.
    pub supervisor: Vec<String>,
    /// What the check warned about.
    pub warnings: Vec<Problem>,
}

/// A service and what differs in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// Which service.
    pub id: Id,
    /// Names of its fields in the configuration: `args`, `resource_limits`.
    pub fields: Vec<String>,
}

/// What is true of the daemon as long as it runs.
#[derive(Debug, Clone)]
pub struct About {
    /// Of this program.
    pub version: &'static str,
    /// `system` or `user`.
    pub scope: &'static str,
    /// As systemd tells it: `252.38-1~deb12u1`.
    pub systemd_version: String,
    /// When the daemon started.
    pub started_at: Wall,
    /// The file it read.
    pub config_path: String,
    /// Where it keeps what is to last.
    pub state: PathBuf,
}

/// Which events a reader wants: newest first, or with `after` oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventQuery {
    /// Of this service only.
    pub service: Option<Id>,
    /// Of this type only.
    pub kind: Option<EntryKind>,
    /// Not older than this.
    pub since: Option<Wall>,
    /// With an id lower than this (the `next_before` of the page before).
    pub before: Option<i64>,
    /// With an id higher than this, oldest first: for following.
    pub after: Option<i64>,
    /// At most so many.
    pub limit: u32,
}

/// A row of the event table.
#[derive(Debug, Clone, PartialEq)]
pub struct EventRow {
    /// Grows by one or more from event to event.
    pub id: i64,
    /// `None` for the supervisor's own.
    pub service: Option<String>,
    /// In snake case.
    pub kind: String,
    /// When.
    pub at: Wall,
    /// A whole sentence.
    pub message: String,
    /// Machine-readable parts.
    pub details: serde_json::Value,
}

/// Which alerts a reader wants: open ones first, then newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AlertQuery {
    /// Those that are resolved too.
    pub all: bool,
    /// Those too that were resolved at that time or later.
    pub since: Option<Wall>,
    /// This one only, resolved or not.
    pub id: Option<i64>,
    /// At most so many.
    pub limit: u32,
}

/// A row of the alert table.
#[derive(Debug, Clone, PartialEq)]
pub struct AlertRow {
    /// Its number.
    pub id: i64,
    /// `None` for the supervisor's own.
    pub service: Option<String>,
    /// `down`, `unhealthy`, ...
    pub kind: String,
    /// `warning`, `error`, `critical`.
    pub severity: String,
    /// A whole sentence.
    pub message: String,
    /// What a person needs.
    pub details: serde_json::Value,
    /// When it was raised.
    pub created_at: Wall,
    /// When somebody said that it was seen.
    pub acknowledged_at: Option<Wall>,
    /// When it was over.
    pub resolved_at: Option<Wall>,
}

/// What became of an acknowledgement: the row, or `None` where there is no such alert.
pub type Acknowledged = Result<Option<AlertRow>, HistoryError>;

/// A row of the metrics table. `None`: not known.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricRow {
    /// Of this host, or of another monitor's.
    pub service: Id,
    /// When it was measured.
    pub at: Wall,
    /// 100 is one core.
    pub cpu_percent: Option<f64>,
    /// MiB.
    pub memory_mb: Option<f64>,
    /// What the probes said.
    pub health: Option<Health>,
    /// How long the last probe took.
    pub response_time_ms: Option<f64>,
    /// Processes and threads.
    pub tasks: Option<u64>,
    /// Share of CPU periods in which it was held back: 0 to 1.
    pub throttled: Option<f64>,
}

/// Which part of a series a reader wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricQuery {
    /// Of this service.
    pub service: Id,
    /// Not older than this.
    pub since: Wall,
    /// Older than this.
    pub until: Wall,
    /// At most so many points; rows that share one are put together.
    pub points: u32,
}

/// Several rows of one service, put together.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricPoint {
    /// Of the oldest of them.
    pub at: Wall,
    /// How many.
    pub samples: u64,
    /// 100 is one core.
    pub cpu_percent: Option<Spread>,
    /// MiB.
    pub memory_mb: Option<Spread>,
    /// Of the probe.
    pub response_time_ms: Option<Spread>,
    /// The most.
    pub tasks: Option<u64>,
    /// The mean.
    pub throttled: Option<f64>,
    /// The worst.
    pub health: Option<Health>,
}

/// Least, mean and most of some values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The least.
    pub min: f64,
    /// The mean.
    pub avg: f64,
    /// The most.
    pub max: f64,
}

/// How the database itself is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreState {
    /// It cannot be written; what is to be kept waits in memory.
    pub troubled: bool,
    /// Events since the daemon started, written or not.
    pub events: u64,
    /// Of its files on disk, when something was last written; `None` before.
    pub bytes: Option<u64>,
}

/// Why the past could not be read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("what is kept in the database cannot be read: {0}")]
pub struct HistoryError(pub String);

/// The past, wherever it is kept.
pub trait History: Send + Sync {
    /// Events, newest first, at most `query.limit`.
    fn events(&self, query: EventQuery) -> BoxFuture<'_, Result<Vec<EventRow>, HistoryError>>;

    /// Alerts, open ones first, at most `query.limit`.
    fn alerts(&self, query: AlertQuery) -> BoxFuture<'_, Result<Vec<AlertRow>, HistoryError>>;

    /// How many events of that kind there were since then.
    fn count(&self, kind: EntryKind, since: Wall) -> BoxFuture<'_, Result<u64, HistoryError>>;

    /// A series, oldest first.
    fn metrics(&self, query: MetricQuery) -> BoxFuture<'_, Result<Vec<MetricPoint>, HistoryError>>;

    /// Adds rows to it. Returns at once; they are written when the database can be.
    fn add_metrics(&self, rows: Vec<MetricRow>);

    /// How it is kept. Waits for nothing.
    fn state(&self) -> StoreState;

    /// To wait until this daemon has added to it.
    fn changes(&self) -> watch::Receiver<Changes>;

    /// Waits until everything handed in before is in it, 250 ms at most.
    fn flushed(&self) -> BoxFuture<'_, ()>;
}

/// Counts what this daemon committed. What other programs write is not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// Transactions with events.
    pub events: u64,
    /// Transactions with alerts.
    pub alerts: u64,
}

/// Which lines of a service's log a reader wants. The newest, unless `after` says from where on.
#[derive(Debug, Clone, PartialEq)]
pub struct LogQuery {
    /// Whose.
    pub plan: Arc<ServicePlan>,
    /// At most so many.
    pub lines: u32,
    /// Not older than this.
    pub since: Option<Wall>,
    /// Older than this.
    pub until: Option<Wall>,
    /// Only those that hold this text; in small letters it stands for capitals too.
    pub text: Option<String>,
    /// At least as urgent as this, 0 to 7.
    pub priority: Option<u8>,
    /// Older than the one with this cursor.
    pub before: Option<String>,
    /// Newer than the one with this cursor, the oldest of those.
    pub after: Option<String>,
}

/// Whether a line holds that text; one in small letters stands for capitals too.
pub fn holds(line: &str, text: &str) -> bool {
    if text.chars().any(char::is_uppercase) {
        line.contains(text)
    } else {
        line.to_lowercase().contains(text)
    }
}

/// A line of the journal, without secrets of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// When the journal received it.
    pub at: Wall,
    /// syslog's, 0 (emergency) to 7 (debug).
    pub priority: Option<u8>,
    /// The text, bounded.
    pub message: String,
    /// Of the process that wrote it.
    pub pid: Option<u32>,
    /// Its unit: the service's, systemd's own, the supervisor's.
    pub unit: Option<String>,
    /// Its place in the journal.
    pub cursor: String,
}

/// Why lines cannot be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    /// The daemon may not read them.
    #[error("{0}")]
    Denied(String),
    /// There is no such place in the journal, or what is asked for makes no sense to it.
    #[error("{0}")]
    Asked(String),
    /// Anything else.
    #[error("{0}")]
    Unavailable(String),
}

/// The logs of services, wherever they are kept.
pub trait Logs: Send + Sync {
    /// Lines that are there, oldest first, at most `query.lines`.
    fn lines(&self, query: LogQuery) -> BoxFuture<'_, Result<Vec<LogEntry>, LogError>>;

    /// Lines from a moment ago on, and those that come. All who follow one service share what it costs.
    fn follow(&self, plan: Arc<ServicePlan>) -> Result<LogTail, LogError>;
}

/// The lines of a service as they come; it costs nothing more when it is dropped.
pub struct LogTail {
    /// A line, or why there will be no more.
    pub tail: Tail<Result<LogEntry, LogError>>,
    /// Ends what is behind it with the last of those who follow.
    pub hold: Arc<dyn Send + Sync>,
}

impl std::fmt::Debug for LogTail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogTail").finish_non_exhaustive()
    }
}

/// The daemon ended before it could answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the supervisor is ending")]
pub struct Ended;

/// What HTTP holds. Cheap to clone.
#[derive(Clone)]
pub struct Control {
    requests: mpsc::Sender<Request>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    show: ShowPlan,
    about: Arc<About>,
    history: Arc<dyn History>,
    logs: Arc<dyn Logs>,
    host: watch::Receiver<Option<Host>>,
}

/// Gives the effective configuration of a service as JSON, secrets shown as `***`.
pub type ShowPlan = fn(&ServicePlan) -> serde_json::Value;

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("about", &self.about).finish_non_exhaustive()
    }
}

impl Control {
    /// Made by the runtime, which keeps the other ends.
    pub fn new(
        requests: mpsc::Sender<Request>,
        snapshot: watch::Receiver<Arc<Snapshot>>,
        show: ShowPlan,
        about: Arc<About>,
        history: Arc<dyn History>,
        logs: Arc<dyn Logs>,
    ) -> Self {
        Self { requests, snapshot, show, about, history, logs, host: watch::channel(None).1 }
    }

    /// With the host's figures, which nobody knows otherwise.
    pub fn with_host(self, host: watch::Receiver<Option<Host>>) -> Self {
        Self { host, ..self }
    }

    /// Every service as it is now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.borrow().clone()
    }

    /// To wait for changes.
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.clone()
    }

    /// The effective configuration of a service, secrets shown as `***`.
    pub fn config_of(&self, plan: &ServicePlan) -> serde_json::Value {
        (self.show)(plan)
    }

    /// Requests that the loop has not taken yet.
    pub fn waiting(&self) -> usize {
        self.requests.max_capacity() - self.requests.capacity()
    }

    /// The daemon itself.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// The whole host, as of the last round of measuring; `None` before the first.
    pub fn host(&self) -> Option<Host> {
        *self.host.borrow()
    }

    /// The past.
    pub fn history(&self) -> &dyn History {
        self.history.as_ref()
    }

    /// What services wrote.
    pub fn logs(&self) -> &dyn Logs {
        self.logs.as_ref()
    }

    /// Sends the order at once; the receiver gives its outcome. Dropping the receiver leaves the order in force.
    pub async fn order(
        &self,
        service: Id,
        verb: Verb,
        origin: String,
    ) -> Result<oneshot::Receiver<Outcome>, Ended> {
        let (answer, outcome) = oneshot::channel();
        self.send(Request::Order { service, verb, origin, answer }).await?;
        Ok(outcome)
    }

    /// Sends a signal to the main process of a service; SIGKILL goes to all of its processes.
    pub async fn signal(
        &self,
        service: Id,
        signal: i32,
        origin: String,
    ) -> Result<Result<(), String>, Ended> {
        let (answer, sent) = oneshot::channel();
        self.send(Request::Signal { service, signal, origin, answer }).await?;
        sent.await.map_err(|_| Ended)
    }

    /// Reads the configuration again.
    pub async fn reload(
        &self,
        dry_run: bool,
        origin: String,
    ) -> Result<Result<ReloadReport, Vec<Problem>>, Ended> {
        let (answer, report) = oneshot::channel();
        self.send(Request::Reload { dry_run, origin, answer }).await?;
        report.await.map_err(|_| Ended)
    }

    /// Notes that somebody has seen an alert.
    pub async fn acknowledge(&self, alert: i64, origin: String) -> Result<Acknowledged, Ended> {
        let (answer, row) = oneshot::channel();
        self.send(Request::Acknowledge { alert, origin, answer }).await?;
        row.await.map_err(|_| Ended)
    }

    /// Makes a new token for a role; gives the file that holds it, or why the old one stays.
    pub async fn rotate_token(&self, role: Role, origin: String) -> Result<Result<String, String>, Ended> {
        let (answer, rotated) = oneshot::channel();
        self.send(Request::RotateToken { role, origin, answer }).await?;
        rotated.await.map_err(|_| Ended)
    }

    /// Stops all services, then the daemon; returns when that has begun.
    pub async fn shutdown(&self, origin: String) -> Result<(), Ended> {
        self.send(Request::Shutdown { origin }).await
    }

    async fn send(&self, request: Request) -> Result<(), Ended> {
        self.requests.send(request).await.map_err(|_| Ended)
    }
}
