//! What can happen: everything the engine is ever told.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::alert::AlertKind;
use super::plan::{Id, Plan};
use super::sample::Sample;
use super::time::{Mono, Wall};

/// systemd's id of one run of a unit; every new start gets a new one. 32 hex digits when shown.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InvocationId(pub u128);

/// Pairs an action with its answer; unique within one run of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// Pairs an order with its outcome; unique within one run of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderId(pub u64);

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Somebody wants something of a service. Answered by [`super::action::Action::Answer`].
    Ordered {
        /// To be repeated in the answer.
        order: OrderId,
        /// Who asked, for the record: `uid 1000 (alice) over the socket`.
        origin: String,
        /// Of which service.
        service: Id,
        /// What.
        verb: Verb,
    },
    /// The configuration was read again and is good.
    PlanChanged {
        /// The whole new plan.
        plan: Plan,
        /// Who asked.
        origin: String,
    },
    /// Stop everything in reverse order, then say [`super::action::Action::Leave`].
    ShutdownOrdered {
        /// Who asked.
        origin: String,
    },
    /// Answer to [`super::action::Action::StartUnit`].
    StartFinished {
        /// Which service.
        service: Id,
        /// Which action.
        op: OpId,
        /// For `notify` services success means that they said `READY=1`.
        result: Result<Started, StartFailure>,
    },
    /// Answer to [`super::action::Action::StopUnit`]; the exit itself comes as [`Event::UnitExited`], before this.
    StopFinished {
        /// Which service.
        service: Id,
        /// Which action.
        op: OpId,
        /// Why it could not be stopped.
        result: Result<(), String>,
    },
    /// A unit is no longer active, by itself or by anybody's doing.
    UnitExited {
        /// Which service.
        service: Id,
        /// Which run of it ended.
        invocation: InvocationId,
        /// How.
        exit: Exit,
        /// A stop or restart that we did not ask for was in progress (`systemctl stop`).
        external: bool,
    },
    /// A unit became active without our asking (`systemctl start|restart`), or its main process changed.
    UnitAppeared {
        /// Which service.
        service: Id,
        /// The run it is in now.
        invocation: InvocationId,
        /// Its main process, where it has one.
        pid: Option<u32>,
    },
    /// Which systemd is there, told before [`Event::Resynced`].
    SystemdIdentified {
        /// As in [`super::time::Boot`].
        began: u64,
    },
    /// The connection to systemd was made anew, or systemd reloaded: the truth about every unit of ours.
    /// A service that is not in it has no unit.
    Resynced {
        /// What there is.
        units: BTreeMap<Id, UnitSeen>,
    },
    /// Answer to [`super::action::Action::Probe`].
    Probed {
        /// Which service.
        service: Id,
        /// Which run of it was asked.
        invocation: InvocationId,
        /// What came of it.
        report: ProbeReport,
    },
    /// Another answer to [`super::action::Action::Probe`]: the supervisor itself lacks what asking takes.
    Unprobed {
        /// Which service.
        service: Id,
        /// Which run of it was to be asked.
        invocation: InvocationId,
        /// What is lacking, in words.
        lack: String,
    },
    /// A round of measuring is done. Services that could not be measured are not in it.
    Sampled {
        /// What each run used.
        samples: BTreeMap<Id, (InvocationId, Sample)>,
    },
    /// Something about the supervisor itself went wrong, or is well again.
    OwnTrouble {
        /// What.
        kind: AlertKind,
        /// A whole sentence; `None`: it is well.
        trouble: Option<String>,
    },
    /// The moment of `next_deadline` is there. Harmless if it is not.
    DeadlineReached,
}

/// What a person can want of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// Up, with attempts counted from 0.
    Start,
    /// Down, and staying down.
    Stop,
    /// Down and up again.
    Restart,
    /// Attempts counted from 0.
    Reset,
}

/// A start that succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    /// The new run.
    pub invocation: InvocationId,
    /// Its main process; `None` if it is gone already.
    pub pid: Option<u32>,
}

/// A start that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartFailure {
    /// The run that failed, where there was one.
    pub invocation: Option<InvocationId>,
    /// How its process ended, where there was one.
    pub exit: Option<Exit>,
    /// What went wrong, for a person: `cannot execute /usr/bin/x: permission denied`.
    pub message: String,
    /// systemd could not be asked (bus down): nothing is known about the service, and the try does not count.
    pub unreachable: bool,
    /// Nothing failed: the unit is up (`invocation`), but was made from another configuration.
    pub outdated: bool,
}

/// How a run of a unit ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit status of the main process, if it exited.
    pub code: Option<i32>,
    /// Signal that ended the main process.
    pub signal: Option<i32>,
    /// systemd's verdict, and ours where we know better (`oom-kill`).
    pub result: ExitResult,
}

/// systemd's `Result=` of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExitResult {
    /// Exit status 0, or ended by a stop as it should.
    Success,
    /// Another exit status.
    ExitCode,
    /// Ended by a signal.
    Signal,
    /// Ended by a signal, with a core dump.
    CoreDump,
    /// Ended by the kernel for want of memory.
    OomKill,
    /// A start or stop took longer than its timeout.
    Timeout,
    /// The service stopped its watchdog messages.
    Watchdog,
    /// systemd lacked something it needed for the start.
    Resources,
    /// A `notify` service ended without `READY=1`.
    Protocol,
    /// It ended while no supervisor was there, and nobody noted how.
    ExitedUnsupervised,
    /// Any other word of systemd's.
    Other(String),
}

/// A unit of ours as systemd shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct UnitSeen {
    /// What it does.
    pub activity: Activity,
    /// The current or last run.
    pub invocation: Option<InvocationId>,
    /// Main process.
    pub pid: Option<u32>,
    /// How the last run ended, where it did.
    pub exit: Option<Exit>,
    /// The [`super::plan::ServicePlan::exec_hash`] it was made from; `None` if we did not make it.
    pub exec_hash: Option<String>,
    /// Its environment file holds what the plan wants.
    pub environment_matches: bool,
    /// When the current run became active.
    pub active_since: Option<(Mono, Wall)>,
    /// It is down because of a stop that we did not ask for, as far as the journal knew.
    pub stopped_outside: bool,
}

impl UnitSeen {
    /// There is no such unit, and nobody knows of one.
    pub const GONE: Self = Self {
        activity: Activity::Gone,
        invocation: None,
        pid: None,
        exit: None,
        exec_hash: None,
        environment_matches: false,
        active_since: None,
        stopped_outside: false,
    };
}

/// systemd's `ActiveState`, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// `active`, `reloading`, `refreshing`.
    Active,
    /// On the way up.
    Activating,
    /// On the way down.
    Deactivating,
    /// Down after a success.
    Inactive,
    /// Down after a failure.
    Failed,
    /// Not loaded at all; `exit` is what the journal still knew.
    Gone,
}

impl Activity {
    /// It has processes, or is about to have some.
    pub fn is_up(self) -> bool {
        matches!(self, Self::Active | Self::Activating | Self::Deactivating)
    }
}

/// What one round of probing found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeReport {
    /// The main check passed.
    pub passed: bool,
    /// The fallback was asked and passed.
    pub fallback_passed: bool,
    /// `HTTP 503 from http://localhost:8080/health`, `connection refused`.
    pub message: String,
    /// How long the main check took.
    pub took: std::time::Duration,
}

impl fmt::Display for InvocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for InvocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for InvocationId {
    type Error = std::num::ParseIntError;
    fn try_from(hex: String) -> Result<Self, Self::Error> {
        u128::from_str_radix(&hex, 16).map(Self)
    }
}

impl From<InvocationId> for String {
    fn from(id: InvocationId) -> Self {
        id.to_string()
    }
}

impl Exit {
    /// Whether it ended as a program that is done ends. systemd also calls an end by SIGTERM, SIGINT, SIGHUP or
    /// SIGPIPE a success; where nobody asked for a stop, it is a failure like any other signal.
    pub fn is_clean(&self) -> bool {
        self.result == ExitResult::Success && self.signal.is_none()
    }
}

impl ExitResult {
    /// systemd's word.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Success => "success",
            Self::ExitCode => "exit-code",
            Self::Signal => "signal",
            Self::CoreDump => "core-dump",
            Self::OomKill => "oom-kill",
            Self::Timeout => "timeout",
            Self::Watchdog => "watchdog",
            Self::Resources => "resources",
            Self::Protocol => "protocol",
            Self::ExitedUnsupervised => "exited_unsupervised",
            Self::Other(word) => word,
        }
    }
}

impl fmt::Display for ExitResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<&str> for ExitResult {
    fn from(word: &str) -> Self {
        match word {
            "success" => Self::Success,
            "exit-code" => Self::ExitCode,
            "signal" => Self::Signal,
            "core-dump" => Self::CoreDump,
            "oom-kill" => Self::OomKill,
            "timeout" => Self::Timeout,
            "watchdog" => Self::Watchdog,
            "resources" => Self::Resources,
            "protocol" => Self::Protocol,
            "exited_unsupervised" => Self::ExitedUnsupervised,
            other => Self::Other(other.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_results_are_written_as_systemd_writes_them() {
        let (id, hex) = (InvocationId(0xab), "000000000000000000000000000000ab");
        assert_eq!(
            (id.to_string().as_str(), format!("{id:?}").as_str(), String::from(id).as_str()),
            (hex, hex, hex)
        );
        assert_eq!(InvocationId::try_from(hex.to_owned()), Ok(id));
        assert!(InvocationId::try_from("of no run".to_owned()).is_err());
        let words =
            ["success", "exit-code", "signal", "core-dump", "oom-kill", "timeout", "watchdog", "resources"];
        for word in words.into_iter().chain(["protocol", "exited_unsupervised", "a-new-one"]) {
            let result = ExitResult::from(word);
            assert_eq!((result.as_str(), result.to_string().as_str()), (word, word));
            assert_eq!(matches!(result, ExitResult::Other(_)), word == "a-new-one");
        }
    }
}
