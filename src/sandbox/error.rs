//! What can go wrong, in words for the person at the terminal.

use std::io;

/// Why the sandbox did not run the command, or lost it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine lacks something. The text is one sentence with the remedy.
    #[error("{0}")]
    Requirement(String),
    /// One step of building the sandbox failed.
    #[error("cannot {what}: {source}")]
    Setup {
        /// The step, as an infinitive without "to".
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The private systemd did not come up, or went away. The text says what was seen.
    #[error("{0}")]
    Machine(String),
    /// A signal ended the sandbox before the command had started.
    #[error("ended by {0} before the command had started")]
    Interrupted(nix::sys::signal::Signal),
}

impl Error {
    /// The exit code of `supervisor-sandbox`: 2 where something is missing, 128 + signal where a signal ended it,
    /// else 125, which says that the fault is the sandbox's and not the command's.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Requirement(_) => 2,
            Self::Setup { .. } | Self::Machine(_) => 125,
            Self::Interrupted(signal) => 128_u8.saturating_add(*signal as u8),
        }
    }
}

/// Names the step in which a system call failed.
pub(super) trait Step<T> {
    /// Wraps the error with `what`, an infinitive without "to".
    fn step(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|error| Error::Setup { what: what(), source: error.into() })
    }
}
