//! What can go wrong between us and systemd, in words that a person can act on.

use std::io;
use std::path::PathBuf;

/// Why something could not be done with systemd.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// There is no bus, or nobody answers for systemd on it.
    #[error("cannot reach {manager} over D-Bus: {reason}. {remedy}")]
    Unreachable {
        /// `systemd` or `systemd --user`.
        manager: &'static str,
        /// What was tried and what came back.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// systemd does not let us.
    #[error(
        "systemd refuses {what} for {unit}: {reason}. Run as root, or allow the polkit action \
         org.freedesktop.systemd1.manage-units for this user"
    )]
    Denied {
        /// `StartTransientUnit`.
        what: &'static str,
        /// Which unit.
        unit: String,
        /// systemd's words.
        reason: String,
    },
    /// systemd knows no such unit.
    #[error("systemd has no unit {unit}: {reason}")]
    NoSuchUnit {
        /// Which unit.
        unit: String,
        /// systemd's words.
        reason: String,
    },
    /// systemd answered with another error.
    #[error("systemd refuses {what} for {unit}: {reason}")]
    Refused {
        /// `StartTransientUnit`.
        what: &'static str,
        /// Which unit.
        unit: String,
        /// systemd's words.
        reason: String,
    },
    /// A start found the unit up, of ours and made from another configuration.
    #[error("{unit} is up already, and was made from an earlier configuration")]
    Outdated {
        /// Which unit.
        unit: String,
    },
    /// A job ended otherwise than `done`.
    #[error("{what} of {unit} ended as {result}: {reason}")]
    Job {
        /// `start`, `stop`.
        what: &'static str,
        /// Which unit.
        unit: String,
        /// systemd's word.
        result: String,
        /// What that means.
        reason: String,
    },
    /// The file for the service's environment could not be written or read.
    #[error("cannot {what} the environment file {}: {error}", path.display())]
    EnvironmentFile {
        /// `write`, `read`.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A property of `unit_properties` cannot be turned into what systemd wants.
    #[error("{unit}: unit_properties.{property}: {reason}")]
    Property {
        /// Which unit.
        unit: String,
        /// Its name in the unit file.
        property: String,
        /// What was expected.
        reason: String,
    },
}

impl SystemdError {
    /// Whether nothing is known about the unit, because systemd could not be asked.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}
