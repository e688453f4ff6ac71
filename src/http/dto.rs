//! What goes over the wire, field by field in the order of the contract. Times are RFC 3339 in UTC with
//! milliseconds, durations what their name says. The client reads with the same types.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::Problem;
use crate::core::plan::Id;
use crate::core::snapshot::{Health, State};

/// Answer of `GET status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The daemon itself.
    pub supervisor: Supervisor,
    /// By id.
    pub services: BTreeMap<String, Service>,
}

/// The daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Supervisor {
    /// Of the program.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// `system` or `user`.
    pub scope: String,
    /// As systemd tells it.
    pub systemd_version: String,
    /// When it started.
    pub started_at: String,
    /// Whole seconds since then.
    pub uptime_seconds: u64,
    /// The file it read.
    pub config_path: String,
}

/// One service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Service {
    /// Its id.
    pub id: String,
    /// For showing.
    pub name: String,
    /// What it is.
    pub description: String,
    /// One of the seven states.
    #[schemars(with = "State")]
    pub state: String,
    /// One of the four words.
    #[schemars(with = "Health")]
    pub health: String,
    /// Main process.
    pub pid: Option<u32>,
    /// Port it serves.
    pub port: Option<u16>,
    /// Start of the current run.
    pub start_time: Option<String>,
    /// Whole seconds of the current run.
    pub uptime_seconds: Option<u64>,
    /// Restarts ever.
    pub restart_count: u64,
    /// When the last of them was.
    pub last_restart: Option<String>,
    /// Lower starts first.
    pub priority: i32,
    /// As configured.
    pub critical: bool,
    /// As configured.
    pub enabled: bool,
    /// As configured.
    pub auto_restart: bool,
    /// Ids.
    pub groups: Vec<String>,
    /// Ids.
    pub dependencies: Vec<String>,
    /// Ids of the dependencies it waits for.
    pub waiting_for: Vec<String>,
    /// Name of its systemd unit.
    pub unit: String,
    /// 100 is one core; `null` where not measured.
    pub cpu_percent: Option<f64>,
    /// MiB; `null` where not measured.
    pub memory_mb: Option<f64>,
    /// Processes and threads; `null` where not measured.
    pub tasks: Option<u64>,
    /// Its limit in MiB; `null` where there is none.
    #[serde(default)]
    pub memory_limit_mb: Option<f64>,
    /// Its limit, 100 is one core; `null` where there is none.
    #[serde(default)]
    pub cpu_limit_percent: Option<f64>,
    /// More about what it uses; `null` where not measured.
    #[serde(default)]
    pub usage: Option<Usage>,
    /// Restarts in a row.
    pub attempt: u32,
    /// In `backoff`: when the restart is due.
    pub next_retry_at: Option<String>,
    /// How the last run ended.
    pub last_exit: Option<LastExit>,
    /// Why it is in its state; once its health changed, why that is what it is.
    pub reason: String,
    /// Since when it is in its state.
    pub since: String,
    /// It goes up and down again and again.
    #[serde(default)]
    pub flapping: bool,
    /// Why that is thought.
    #[serde(default)]
    pub flapping_reason: Option<String>,
}

/// What the current run uses, beside CPU, memory and tasks. `null`: this host cannot tell.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// The most memory it ever used in this run, in MiB, page cache included.
    pub memory_peak_mb: Option<f64>,
    /// Share of CPU periods in which it was held back by its limit: 0 to 1.
    pub throttled: Option<f64>,
    /// Share of the last 10 s in which some task waited for CPU: 0 to 100.
    pub pressure_cpu: Option<f64>,
    /// The same for memory.
    pub pressure_memory: Option<f64>,
    /// The same for I/O.
    pub pressure_io: Option<f64>,
    /// Bytes per second.
    pub io_read: Option<f64>,
    /// Bytes per second.
    pub io_write: Option<f64>,
    /// Processes of this run that were killed for want of memory.
    pub oom_kills: Option<u64>,
}

/// Answer of `GET services/<id>/metrics`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Series {
    /// Which service.
    pub id: String,
    /// Not older than this.
    pub since: String,
    /// Older than this.
    pub until: String,
    /// Oldest first; parts of the time without samples have no point.
    pub points: Vec<Metric>,
}

/// Samples put together: the mean, with the least and the most.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Metric {
    /// Of the oldest sample in it.
    pub timestamp: String,
    /// How many samples.
    pub samples: u64,
    /// 100 is one core.
    pub cpu_percent: Option<f64>,
    /// The least.
    pub cpu_percent_min: Option<f64>,
    /// The most.
    pub cpu_percent_max: Option<f64>,
    /// MiB.
    pub memory_mb: Option<f64>,
    /// The least.
    pub memory_mb_min: Option<f64>,
    /// The most.
    pub memory_mb_max: Option<f64>,
    /// The worst of the four words.
    #[schemars(with = "Option<Health>")]
    pub health_status: Option<String>,
    /// Of the probe.
    pub response_time_ms: Option<f64>,
    /// The most.
    pub response_time_ms_max: Option<f64>,
    /// The most processes and threads.
    pub tasks: Option<u64>,
    /// Share of CPU periods in which it was held back: 0 to 1.
    pub throttled: Option<f64>,
}

/// A sample as another monitor sends it with `POST metrics`, alone or in an array.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// Id of the service, which need not be one of ours.
    #[schemars(regex(pattern = Id::PATTERN))]
    pub service_id: String,
    /// When; now, if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<String>,
    /// 100 is one core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<f64>,
    /// MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<f64>,
    /// `unknown`, `healthy`, `degraded`, `unhealthy`.
    #[schemars(with = "Option<Health>")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_status: Option<String>,
    /// Of the probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_time_ms: Option<f64>,
}

/// Answer of `POST metrics`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Accepted {
    /// Samples that will be in the database.
    pub accepted: usize,
    /// Services that they are of.
    pub services: usize,
}

/// How a run ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LastExit {
    /// Exit status.
    pub code: Option<i32>,
    /// Number of the signal that ended it.
    pub signal: Option<i32>,
    /// systemd's word: `success`, `exit-code`, `oom-kill`.
    pub result: String,
    /// When.
    pub at: String,
}

/// Answer of `GET services/<id>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceDetail {
    /// All of a [`Service`].
    #[serde(flatten)]
    pub service: Service,
    /// Effective configuration, secrets as `***`; `null` for those who may not see it.
    #[schemars(with = "Option<Map<String, Value>>")]
    pub config: Option<Value>,
    /// Newest first, at most 10.
    pub recent_events: Vec<Event>,
    /// Of the last hour, oldest first, at most 60.
    pub recent_metrics: Vec<Metric>,
}

/// A row of the event table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// Grows from event to event.
    pub id: i64,
    /// `null` for the supervisor's own.
    pub service_id: Option<String>,
    /// In snake case: an `EventType`, or a word of another program that writes into the same table.
    pub event_type: String,
    /// When.
    pub timestamp: String,
    /// A sentence.
    pub message: String,
    /// Machine-readable parts.
    #[schemars(with = "Map<String, Value>")]
    pub details: Value,
}

/// Answer of `GET events`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Events {
    /// Newest first.
    pub events: Vec<Event>,
    /// `before` for the next page; `null` where there is none.
    pub next_before: Option<i64>,
}

/// A row of the alert table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Alert {
    /// Its number.
    pub id: i64,
    /// `null` for the supervisor's own.
    pub service_id: Option<String>,
    /// What is wrong, in snake case.
    pub alert_type: String,
    /// `warning`, `error`, `critical`.
    pub severity: String,
    /// A sentence.
    pub message: String,
    /// What a person needs: last answers of the probe, exit, attempt, who is affected, end of the log.
    #[schemars(with = "Map<String, Value>")]
    pub details: Value,
    /// When it was raised.
    pub created_at: String,
    /// When somebody said that it was seen.
    pub acknowledged_at: Option<String>,
    /// When it was over.
    pub resolved_at: Option<String>,
}

/// Answer of `GET alerts`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Alerts {
    /// Open ones first, then newest first.
    pub alerts: Vec<Alert>,
}

/// The first message of a stream: `hello`. Events after its id follow, then everything as it is, then `ready`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hello {
    /// The events after the id that was given follow. `false`: events from now on.
    pub resumed: bool,
    /// How many services there are.
    pub services: usize,
    /// Of the program.
    pub version: String,
    /// Its process; another one than before: the daemon was started anew.
    pub pid: u32,
    /// When it started.
    pub started_at: String,
}

/// Events are missing in the stream (`resync`): what is known otherwise follows anew, then `ready`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Resync {
    /// Why, and what helps.
    pub reason: String,
    /// So many messages, where that is known.
    pub missed: Option<u64>,
}

/// A service that is gone (`removed`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Removed {
    /// Which.
    pub id: String,
}

/// A round of measuring (`metrics`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Readings {
    /// When.
    pub timestamp: String,
    /// By id; those that run.
    pub services: BTreeMap<String, Reading>,
}

/// What one service uses. `null` where not measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reading {
    /// 100 is one core.
    pub cpu_percent: Option<f64>,
    /// MiB.
    pub memory_mb: Option<f64>,
    /// Processes and threads.
    pub tasks: Option<u64>,
}

/// Answer of `GET services/<id>/logs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Logs {
    /// Oldest first.
    pub entries: Vec<LogLine>,
    /// `before` for the page of older ones; `null` where there is none.
    pub next_before: Option<String>,
    /// `after` for the page of newer ones, or for following; `null` where this page is empty.
    pub next_after: Option<String>,
}

/// A line of the journal, and the data of a `line` message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogLine {
    /// When the journal received it.
    pub timestamp: String,
    /// syslog's, 0 (emergency) to 7 (debug).
    pub priority: Option<u8>,
    /// The text, at most 64 KiB of it, values of the service's environment as `***`.
    pub message: String,
    /// Of the process that wrote it.
    pub pid: Option<u32>,
    /// Its unit: the service's, systemd's own, the supervisor's.
    pub unit: Option<String>,
    /// Its place in the journal.
    pub cursor: String,
}

/// Answer of `GET summary`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// How many there are.
    pub services: usize,
    /// How many are in each state.
    pub states: BTreeMap<String, usize>,
    /// How many are of each health.
    pub health: BTreeMap<String, usize>,
    /// Ids of the critical services that are not healthy.
    pub critical_in_trouble: Vec<String>,
    /// Ids of those that go up and down.
    pub flapping: Vec<String>,
    /// Of all together; 100 is one core; `null` where not measured.
    pub cpu_percent: Option<f64>,
    /// Of all together, MiB; `null` where not measured.
    pub memory_mb: Option<f64>,
    /// The machine that they run on; `null` before the first round of measuring.
    pub host: Option<Host>,
    /// Restarts after failures; `null` where the database cannot be read.
    pub restarts_24h: Option<u64>,
    /// Newest first, at most 10.
    pub recent_events: Vec<Event>,
    /// Newest first, at most 10.
    pub open_alerts: Vec<Alert>,
}

/// What the whole machine has and uses, in `GET summary`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Host {
    /// Cores that are switched on.
    pub cores: usize,
    /// Of all cores together; 100 is one core.
    pub cpu_percent: f64,
    /// MiB.
    pub memory_total_mb: f64,
    /// What programs could not have, MiB.
    pub memory_used_mb: f64,
    /// Tasks that ran or wanted to, over the last 1, 5 and 15 minutes.
    pub load: [f64; 3],
}

/// Answer to an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrderAnswer {
    /// Which service.
    pub id: String,
    /// `start`, `stop`, `restart`, `reset`, `signal`.
    pub action: String,
    /// State at that moment.
    #[schemars(with = "State")]
    pub state: String,
    /// What happened, or what happens next.
    pub message: String,
    /// It came to what was asked. `false` with 202: it is still on the way, and the order stands.
    pub done: bool,
    /// It cannot be (in group answers; a single order answers 409).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refused: bool,
}

/// Answer to an order to a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GroupAnswer {
    /// Which group.
    pub group: String,
    /// `start`, `stop`, `restart`.
    pub action: String,
    /// All came to what was asked.
    pub done: bool,
    /// One per service, in start order.
    pub outcomes: Vec<OrderAnswer>,
}

/// Answer of `GET services/<id>/health`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceHealth {
    /// Which service.
    pub id: String,
    /// One of the four words.
    #[schemars(with = "Health")]
    pub health: String,
    /// Its checks.
    pub checks: Vec<Check>,
    /// Its state.
    #[schemars(with = "State")]
    pub state: String,
    /// Why it is in that state.
    pub reason: String,
}

/// One check of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// `http`, `tcp`, `process`, `exec`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What is asked, without secrets.
    pub target: String,
    /// `passing`, `failing`, or `unknown` before the first answer.
    pub status: String,
    /// How long the last answer took.
    pub response_time_ms: Option<f64>,
    /// The last answer in words.
    pub message: String,
    /// When that was.
    pub checked_at: Option<String>,
    /// Failures in a row.
    pub consecutive_failures: u32,
}

/// Answer of `GET health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OverallHealth {
    /// `healthy`, `degraded`, `unhealthy`.
    pub status: String,
    /// By id.
    pub services: BTreeMap<String, HealthLine>,
}

/// One service in [`OverallHealth`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HealthLine {
    /// One of the four words.
    #[schemars(with = "Health")]
    pub health: String,
    /// One of the seven states.
    #[schemars(with = "State")]
    pub state: String,
    /// As configured.
    pub critical: bool,
    /// As configured.
    pub enabled: bool,
    /// Last answer of its check, or why it is in its state.
    pub message: String,
}

/// Answer of `POST reload`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reload {
    /// New ones.
    pub added: Vec<String>,
    /// Those that are stopped and forgotten.
    pub removed: Vec<String>,
    /// Those that are restarted for it.
    pub restarted: Vec<Changed>,
    /// Those that change while they run.
    pub updated_live: Vec<Changed>,
    /// All others.
    pub unchanged: Vec<String>,
    /// Fields of the `supervisor` block that differ; `database` counts from the next start on.
    #[serde(default)]
    pub supervisor: Vec<String>,
    /// What the check warned about.
    pub warnings: Vec<Problem>,
}

/// A service and the fields that differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Changed {
    /// Which.
    pub id: String,
    /// Names of the fields as in the configuration.
    pub fields: Vec<String>,
}

/// Body of `POST services/<id>/signal`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignalBody {
    /// `SIGHUP`, `HUP` or a number as text.
    #[schemars(length(min = 1))]
    pub signal: String,
}

/// Answer of `POST shutdown`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Message {
    /// What happens next.
    pub message: String,
}

/// An error (RFC 9457), with members of ours.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProblemDocument {
    /// [`Self::KIND_PREFIX`] and a word: `unknown_service`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind, for a person.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What is wrong here, and what to do.
    pub detail: String,
    /// The service it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The name that was probably meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nearest: Option<String>,
    /// Errors of the configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Problem>,
    /// What came of each service of a group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outcomes: Vec<OrderAnswer>,
}

impl ProblemDocument {
    /// What every [`Self::kind`] begins with.
    pub const KIND_PREFIX: &str = "urn:process-supervisor:problem:";

    /// Whether it is of this kind: `unknown_service`.
    pub fn is(&self, kind: &str) -> bool {
        self.kind.strip_prefix(Self::KIND_PREFIX) == Some(kind)
    }
}

/// Answer of `GET session`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Session {
    /// `local` (through the socket), `operator`, `viewer`, or `anonymous`.
    pub caller: String,
    /// Of the supervisor: `system` or `user`.
    pub scope: String,
    /// Orders are taken.
    pub may_change: bool,
    /// Logs and configuration are shown.
    pub may_see_inside: bool,
    /// The file of the operator's token, for those who come through the socket.
    pub token_file: Option<String>,
}

/// Answer of `POST token/rotate`. The token itself is in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenRotated {
    /// `operator` or `viewer`.
    pub role: String,
    /// Absolute path of the file that holds it.
    pub file: String,
    /// For a person.
    pub message: String,
}
