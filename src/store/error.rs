//! What can go wrong with the file, and what a person can do about it.

use rusqlite::ErrorCode;

/// Why the database could not be opened or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// SQLite says no.
    #[error("{}", advice(.0))]
    Sqlite(#[from] rusqlite::Error),
    /// SQLite's own check found damage.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// A newer program made it.
    #[error(
        "it has schema version {found}, made by a newer version of this program, which knows {known}: \
         install the newer version, or name another file as `supervisor.database`",
        known = super::schema::VERSION
    )]
    Newer {
        /// Its version.
        found: i64,
    },
    /// The file system says no.
    #[error("{what}: {source}")]
    File {
        /// What was tried.
        what: String,
        /// Why not.
        source: std::io::Error,
    },
}

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Somebody else holds the lock: try again soon, with the same connection.
    Busy,
    /// The file is no good any more.
    Corrupt,
    /// This row can never be written; the others can.
    Row,
    /// Anything else: open it anew later.
    Other,
}

impl StoreError {
    pub fn class(&self) -> Class {
        match self {
            Self::Sqlite(error) => class(error),
            Self::Damaged(_) => Class::Corrupt,
            Self::Newer { .. } | Self::File { .. } => Class::Other,
        }
    }
}

pub(super) fn class(error: &rusqlite::Error) -> Class {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Class::Busy,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Class::Corrupt,
        Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig) => Class::Row,
        _ => Class::Other,
    }
}

/// The unit of the package takes rights away that root has elsewhere.
const WRITABLE: &str =
    "writable for the supervisor (as installed: `systemctl cat process-supervisor` says what it may not)";

/// SQLite's words, and the remedy where there is one.
fn advice(error: &rusqlite::Error) -> String {
    let remedy = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another program holds it locked; end that".into()
        }
        Some(ErrorCode::DiskFull) => "free some space on its disk".into(),
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            format!("make the file and its folder {WRITABLE}")
        }
        Some(ErrorCode::CannotOpen) => format!("see that its folder exists and is {WRITABLE}"),
        Some(ErrorCode::SystemIoFailure) => "see the kernel's log for disk errors".into(),
        _ => return error.to_string(),
    };
    format!("{error}: {remedy}")
}
