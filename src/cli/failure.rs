//! What ends a command badly, and the exit code for it.

use crate::http::dto::ProblemDocument;

/// Why a command did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// What was asked did not happen.
    #[error("{0}")]
    Failed(String),
    /// What was asked makes no sense.
    #[error("{0}")]
    Usage(String),
    /// All was shown, and not all of it is well.
    #[error("not all is well")]
    Unwell,
    /// All was said, and it did not come to what was asked.
    #[error("not done")]
    NotDone,
    /// Nobody answers.
    #[error("{0}")]
    NoDaemon(String),
    /// No service or group of that name.
    #[error("{0}")]
    NoService(String),
    /// The API said no.
    #[error("{}", .0.detail)]
    Problem(Box<ProblemDocument>),
    /// The reader of our output left (`| head`).
    #[error("the output was closed")]
    Closed,
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(std::io::Error),
}

impl Failure {
    /// As the contract lists them.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::Failed(_) | Self::NotDone | Self::Output(_) => 1,
            Self::Usage(_) => 2,
            Self::Unwell => 3,
            Self::NoDaemon(_) => 4,
            Self::NoService(_) => 5,
            Self::Problem(problem) if problem.is("unknown_service") || problem.is("unknown_group") => 5,
            Self::Problem(problem) if problem.status == 400 => 2,
            Self::Problem(_) => 1,
        }
    }

    /// Why no supervisor answers, where it is worth trying again; else the failure itself.
    pub(super) fn absence(self) -> Result<String, Self> {
        match self {
            Self::NoDaemon(why) => Ok(why),
            Self::Problem(problem) if problem.status == 503 => Ok(problem.detail),
            failure => Err(failure),
        }
    }

    /// Whether everything about it was said before.
    pub(super) fn is_silent(&self) -> bool {
        matches!(self, Self::Unwell | Self::NotDone | Self::Closed)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe { Self::Closed } else { Self::Output(error) }
    }
}
