//! What a person is to be told of: conditions that last, each raised once and resolved when it clears.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::plan::Id;
use super::time::Wall;

/// What is wrong.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    /// It does not run though it is wanted: it failed, and waits for a restart or gets none.
    Down,
    /// Its probes crossed the failure threshold.
    Unhealthy,
    /// Only its fallback check passes.
    Degraded,
    /// It goes up and down again and again.
    Flapping,
    /// All restarts are used up, and it is restarted on and on (`after_max_retries: keep_trying`).
    KeepTrying,
    /// The kernel killed some or all of it for want of memory.
    OomKill,
    /// Memory is near its limit.
    Memory,
    /// Processes and threads are near their limit.
    Tasks,
    /// CPU time is near its limit.
    Cpu,
    /// Its CPU limit held it back most of the time.
    CpuThrottled,
    /// The database cannot be written. The supervisor's own.
    Database,
    /// systemd cannot be reached. The supervisor's own.
    Systemd,
    /// An address of the API cannot be served. The supervisor's own.
    Listener,
}

impl AlertKind {
    /// Those that a service can have.
    pub const OF_SERVICE: [Self; 10] = [
        Self::Down,
        Self::Unhealthy,
        Self::Degraded,
        Self::Flapping,
        Self::KeepTrying,
        Self::OomKill,
        Self::Memory,
        Self::Tasks,
        Self::Cpu,
        Self::CpuThrottled,
    ];

    /// The supervisor's own.
    pub const OF_SUPERVISOR: [Self; 3] = [Self::Database, Self::Systemd, Self::Listener];

    /// Whether a dependency that is down or ill explains it.
    pub fn may_come_from_elsewhere(self) -> bool {
        matches!(self, Self::Down | Self::Unhealthy | Self::Degraded | Self::Flapping | Self::KeepTrying)
    }

    /// The word of the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Unhealthy => "unhealthy",
            Self::Degraded => "degraded",
            Self::Flapping => "flapping",
            Self::KeepTrying => "keep_trying",
            Self::OomKill => "oom_kill",
            Self::Memory => "memory",
            Self::Tasks => "tasks",
            Self::Cpu => "cpu",
            Self::CpuThrottled => "cpu_throttled",
            Self::Database => "database",
            Self::Systemd => "systemd",
            Self::Listener => "listener",
        }
    }

    /// From [`AlertKind::as_str`].
    pub fn from_word(word: &str) -> Option<Self> {
        Self::OF_SUPERVISOR.into_iter().chain(Self::OF_SERVICE).find(|kind| kind.as_str() == word)
    }
}

impl fmt::Display for AlertKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How bad.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It works, but not for long or not well.
    Warning,
    /// Something does not work.
    Error,
    /// A critical service.
    Critical,
}

impl Severity {
    /// The word of the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

/// Names one alert for ever, over restarts of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AlertKey {
    /// `None` for the supervisor's own.
    pub service: Option<Id>,
    /// What is wrong.
    pub kind: AlertKind,
    /// When it was raised.
    pub raised: Wall,
}

impl fmt::Display for AlertKey {
    /// `web/down/1700000000123`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let service = self.service.as_ref().map_or("-", Id::as_str);
        write!(f, "{service}/{}/{}", self.kind, self.raised.0)
    }
}

impl AlertKey {
    /// From what `Display` wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '/');
        let service = match parts.next()? {
            "-" => None,
            id => Some(Id::new(id).ok()?),
        };
        let kind = AlertKind::from_word(parts.next()?)?;
        Some(Self { service, kind, raised: Wall(parts.next()?.parse().ok()?) })
    }
}

/// One alert as it is now.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    /// Which.
    pub key: AlertKey,
    /// How bad.
    pub severity: Severity,
    /// A whole sentence: what, why, and what happens next.
    pub message: String,
    /// What a person needs: since when, last answers of the probe, exit, attempt, who is affected.
    pub details: BTreeMap<&'static str, serde_json::Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written() {
        for service in [None, Some(Id::new("a.b-c_d").unwrap())] {
            for kind in AlertKind::OF_SUPERVISOR.into_iter().chain(AlertKind::OF_SERVICE) {
                let key = AlertKey { service: service.clone(), kind, raised: Wall(1_700_000_000_123) };
                assert_eq!(AlertKey::parse(&key.to_string()), Some(key));
                assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
            }
        }
        for bad in ["", "web", "web/down", "web/nothing/1", "web/down/x", "we b/down/1"] {
            assert_eq!(AlertKey::parse(bad), None, "{bad}");
        }
    }
}
