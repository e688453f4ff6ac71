//! What the user wants: the checked form of `supervisor_config.json`. Every value in it is valid.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The id of a service or group: `[A-Za-z0-9][A-Za-z0-9_.-]{0,63}`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(Arc<str>);

/// Why a text is not an [`Id`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id is 1 to 64 letters, digits, '_', '.' or '-', and starts with a letter or digit")]
pub struct BadId;

impl Id {
    /// What an id looks like, as a regular expression.
    pub const PATTERN: &str = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$";

    /// Checks and takes an id.
    pub fn new(text: &str) -> Result<Self, BadId> {
        let bytes = text.as_bytes();
        let ok = (1..=64).contains(&bytes.len())
            && bytes[0].is_ascii_alphanumeric()
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(b));
        if ok { Ok(Self(text.into())) } else { Err(BadId) }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Id {
    type Error = BadId;
    fn try_from(text: String) -> Result<Self, BadId> {
        Self::new(&text)
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.0.as_ref().into()
    }
}

impl Borrow<str> for Id {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A value that must not be shown: `Debug` gives `***`, and it is not serialisable.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Everything that is to run. Dependencies name services of the plan and form no cycle.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// By id. The `Arc` lets a reload keep what did not change.
    pub services: BTreeMap<Id, Arc<ServicePlan>>,
    /// By id; only what the group itself sets. Membership stands in [`ServicePlan::groups`].
    pub groups: BTreeMap<Id, GroupPlan>,
    /// How many services may be in `starting` at once; `None` means no bound.
    pub max_concurrent_starts: Option<std::num::NonZeroUsize>,
}

/// A group: its slice carries the limits.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GroupPlan {
    /// Limits of all its services together.
    pub limits: Limits,
}

/// One service as the user wants it.
#[derive(Debug, Clone, PartialEq)]
pub struct ServicePlan {
    /// Its id.
    pub id: Id,
    /// Display name; the id where none is given.
    pub name: String,
    /// What it is, in the user's words.
    pub description: String,
    /// Whether it is to run at all.
    pub enabled: bool,
    /// Start order among services that do not depend on each other; lower first.
    pub priority: i32,
    /// Told to the kernel and to alerts.
    pub critical: bool,
    /// What systemd executes. A change means a restart.
    pub exec: Exec,
    /// How it is seen to be well.
    pub health: HealthCheck,
    /// Delays and number of restarts.
    pub restart: RestartPolicy,
    /// Restart after a failure (crash, signal, probe threshold, OOM).
    pub auto_restart: bool,
    /// Restart after a clean exit too.
    pub restart_on_exit: bool,
    /// Enforced by cgroups; a change is applied live.
    pub limits: Limits,
    /// Share of `limits`, in percent, at which a warning is due.
    pub warn_percent: u8,
    /// What it needs, each id once.
    pub dependencies: Vec<Dependency>,
    /// Port it serves, for showing.
    pub port: Option<u16>,
    /// Groups it is in; the first one's slice holds the unit.
    pub groups: Vec<Id>,
    /// Free words of the user.
    pub labels: BTreeMap<String, String>,
    /// Fingerprint of `exec` without environment values, and of the slice: two plans with one fingerprint need
    /// no restart between them unless an environment value differs. Hex; safe to show.
    pub exec_hash: String,
    /// Why its unit cannot be made as things are (a program, a user or a property that this machine does not have).
    /// The daemon starts all the same; what runs is not ended for a unit that cannot follow it.
    pub lacks: Option<String>,
}

impl ServicePlan {
    /// A service with the defaults of the contract. Its `exec_hash` is empty.
    pub fn new(id: Id, program: &str) -> Self {
        let exec = Exec {
            command: program.into(),
            program: program.into(),
            args: Vec::new(),
            working_directory: None,
            environment: BTreeMap::new(),
            environment_file: None,
            user: None,
            group: None,
            service_type: ServiceType::Exec,
            shutdown: Shutdown { graceful: true, timeout: Duration::from_secs(30), signal: 15 },
            unit_properties: BTreeMap::new(),
        };
        let health = HealthCheck {
            probe: Probe::Process,
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(10),
            failure_threshold: 3,
            success_threshold: 1,
            start_period: Duration::ZERO,
            fallback: None,
        };
        let restart = RestartPolicy {
            max_retries: Some(5),
            retry_delay: Duration::from_secs(10),
            backoff_multiplier: 2.0,
            max_backoff: Duration::from_secs(300),
            jitter: 0.0,
            reset_after: Duration::from_secs(60),
            after_max_retries: AfterMaxRetries::Fatal,
        };
        Self {
            name: id.to_string(),
            id,
            description: String::new(),
            enabled: true,
            priority: 100,
            critical: false,
            exec,
            health,
            restart,
            auto_restart: true,
            restart_on_exit: false,
            limits: Limits::default(),
            warn_percent: 90,
            dependencies: Vec::new(),
            port: None,
            groups: Vec::new(),
            labels: BTreeMap::new(),
            exec_hash: String::new(),
            lacks: None,
        }
    }
}

/// What systemd executes: every change in here needs a restart.
#[derive(Debug, Clone, PartialEq)]
pub struct Exec {
    /// The program as the user wrote it: an absolute path, or a name that was looked up.
    pub command: String,
    /// Absolute path of the program. For a name it is what the look-up gave this time; another answer counts from
    /// the next start on, and is no reason to end what runs.
    pub program: String,
    /// Arguments after the program, literal.
    pub args: Vec<String>,
    /// Absolute; systemd's default (`/` or the home) where `None`.
    pub working_directory: Option<String>,
    /// Values are secrets until shown otherwise.
    pub environment: BTreeMap<String, Secret>,
    /// Absolute path of a further file of `KEY=value` lines; read by systemd at each start.
    pub environment_file: Option<String>,
    /// User name or number; system scope only.
    pub user: Option<String>,
    /// Group name or number; system scope only.
    pub group: Option<String>,
    /// What systemd takes as "started".
    pub service_type: ServiceType,
    /// How it is stopped.
    pub shutdown: Shutdown,
    /// Further systemd properties by unit-file name, values as in a unit file (a list: each element assigned in turn).
    pub unit_properties: BTreeMap<String, Vec<String>>,
}

impl Exec {
    /// Whether a process that was made from `other` is as good as one made from this.
    pub fn means_same(&self, other: &Self) -> bool {
        self.command == other.command && *self == Self { program: self.program.clone(), ..other.clone() }
    }
}

/// systemd's `Type=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ServiceType {
    /// Started when the program was executed.
    Exec,
    /// Started when the service says `READY=1`.
    Notify,
}

/// How a service is stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shutdown {
    /// `false`: killed at once.
    pub graceful: bool,
    /// From the first signal to SIGKILL.
    pub timeout: Duration,
    /// First signal's number.
    pub signal: i32,
}

/// cgroup limits; `None` means no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Limits {
    /// In bytes.
    pub memory_bytes: Option<u64>,
    /// In percent of one core (200 = two cores).
    pub cpu_percent: Option<f64>,
    /// Processes and threads.
    pub tasks: Option<u64>,
}

/// A probe and the thresholds around it.
#[derive(Debug, Clone, PartialEq)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// From one probe to the next.
    pub interval: Duration,
    /// For one probe; not longer than `interval`.
    pub timeout: Duration,
    /// Failures in a row that make it unhealthy; 1 or more.
    pub failure_threshold: u32,
    /// Successes in a row that make it healthy again; 1 or more.
    pub success_threshold: u32,
    /// After a start; failures inside it do not count.
    pub start_period: Duration,
    /// Asked when `probe` fails.
    pub fallback: Option<Box<Probe>>,
}

impl HealthCheck {
    /// How long an answer may take, the fallback's included.
    pub fn longest_answer(&self) -> Duration {
        self.timeout.saturating_mul(if self.fallback.is_some() { 2 } else { 1 })
    }
}

/// A question to a service.
#[derive(Debug, Clone, PartialEq)]
pub enum Probe {
    /// An HTTP request.
    Http(HttpProbe),
    /// A connection that is accepted.
    Tcp {
        /// Name or address, or `unix:/path`.
        host: String,
        /// Port; absent for a Unix socket.
        port: Option<u16>,
    },
    /// The main process is alive and not stuck.
    Process,
    /// A program that exits with 0.
    Exec {
        /// Absolute path.
        program: String,
        /// Its arguments, literal.
        args: Vec<String>,
    },
}

impl Probe {
    /// Whether a passing probe, not age, says that the service is ready.
    pub fn decides_readiness(&self) -> bool {
        !matches!(self, Self::Process)
    }
}

/// An HTTP request and the answer that is expected.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpProbe {
    /// `http`, `https` or `http+unix` URL.
    pub endpoint: String,
    /// Method, upper case.
    pub method: String,
    /// Header values may be tokens.
    pub headers: BTreeMap<String, Secret>,
    /// Inclusive ranges of status codes that are good.
    pub expected_status: Vec<(u16, u16)>,
    /// Must be in the first 64 KiB of the body.
    pub expected_content: Option<String>,
    /// Whether the certificate is checked.
    pub tls_verify: bool,
}

/// When and how often a service is started again.
#[derive(Debug, Clone, PartialEq)]
pub struct RestartPolicy {
    /// Restarts in a row before giving up; `None` means no bound.
    pub max_retries: Option<u32>,
    /// Before the first restart.
    pub retry_delay: Duration,
    /// Factor from one delay to the next; 1 or more.
    pub backoff_multiplier: f64,
    /// Longest delay, jitter aside.
    pub max_backoff: Duration,
    /// Share of the delay, 0 to 1, up to which a random part is added.
    pub jitter: f64,
    /// Time in `running` after which the attempts count from 0 again.
    pub reset_after: Duration,
    /// What comes after `max_retries`.
    pub after_max_retries: AfterMaxRetries,
}

/// What comes after `max_retries`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AfterMaxRetries {
    /// Give up until a person says `start`.
    Fatal,
    /// Go on at `max_backoff`.
    KeepTrying,
}

/// One thing a service needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// Which service.
    pub service: Id,
    /// What is enough of it.
    pub condition: Condition,
    /// What happens when it is lost later.
    pub on_failure: OnFailure,
}

/// What is enough of a dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// It is `running` and not unhealthy.
    Healthy,
    /// Its process was started.
    Started,
}

/// What happens to a dependent when its dependency is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// It goes on; if it has to start again, it waits for the dependency.
    Hold,
    /// It is restarted once the dependency is back.
    Restart,
    /// It goes on, and starts again without waiting.
    Ignore,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_the_contract() {
        for good in ["a", "architect-prod", "0.x_y", &"a".repeat(64)] {
            let id = Id::new(good).unwrap();
            assert_eq!((id.as_str(), format!("{id:?}")), (good, format!("{good:?}")));
            assert_eq!(Id::try_from(String::from(id.clone())), Ok(id));
        }
        for bad in ["", "-a", ".a", "_a", "a b", "a/b", "ä", "a\n", &"a".repeat(65)] {
            assert_eq!(Id::new(bad), Err(BadId), "{bad:?}");
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Secret("hunter2".into())), "***");
    }
}
