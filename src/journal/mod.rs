//! Reading the journal, through `journalctl -o json`: it knows every file format, compression and access right of the
//! systemd at hand. Nothing is written, and unit names are taken as they are given.

pub(crate) mod end;
pub(crate) mod line;
mod process;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::control::holds;
use crate::core::Wall;
use crate::core::event::InvocationId;
use crate::core::plan::Id;
use crate::place::Scope;

pub use end::Ended;
use process::Order;
pub use process::{Follow, matches};

/// Lines of one answer at most, whatever is asked for.
pub const MAX_LINES: u32 = 10_000;
/// Bytes of the messages of one answer at most.
const MAX_BYTES: usize = 16 << 20;
/// For a query; a large journal on a slow disk takes seconds.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// For the end of runs: adoption waits for it.
const END_TIMEOUT: Duration = Duration::from_secs(2);
/// Runs asked for at once.
const ENDS_AT_ONCE: usize = 500;

/// Which lines of the journal are wanted: those of a service, systemd's own about its unit, and the supervisor's
/// about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRequest {
    /// Which service.
    pub service: Id,
    /// Name of its unit: `supervisor-web.service`.
    pub unit: String,
    /// At most so many, the newest (with `after`: the first after it); never more than [`MAX_LINES`].
    pub lines: u32,
    /// Not older than this.
    pub since: Option<Wall>,
    /// Older than this.
    pub until: Option<Wall>,
    /// Only lines that hold this text; in small letters it stands for capitals too.
    pub text: Option<String>,
    /// Only lines at least as urgent as this, 0 to 7.
    pub priority: Option<u8>,
    /// Only lines before the one with this [`LogLine::cursor`]. Not together with `after`.
    pub before: Option<String>,
    /// Only lines after the one with this [`LogLine::cursor`].
    pub after: Option<String>,
}

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When the journal received it.
    pub at: Wall,
    /// The text, at most 64 KiB of it. Bytes that are not UTF-8 are shown as U+FFFD; control characters are in it
    /// as they were written.
    pub message: String,
    /// syslog's, 0 (emergency) to 7 (debug).
    pub priority: Option<u8>,
    /// Of the process that wrote it.
    pub pid: Option<u32>,
    /// Its unit.
    pub unit: Option<String>,
    /// Its place in the journal, for [`LogRequest::after`].
    pub cursor: String,
}

/// Why the journal could not be read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// journalctl could not be run.
    #[error("journalctl cannot be run ({0}): see that systemd is installed and journalctl is in PATH")]
    Run(#[source] std::io::Error),
    /// journalctl ended with an error, or said why it shows nothing.
    #[error("journalctl says: {0}")]
    Failed(String),
    /// journalctl took too long.
    #[error("journalctl gave no answer within {} s and was ended: ask for fewer lines or a shorter time", .0.as_secs())]
    Slow(Duration),
}

/// The lines that are there, oldest first.
pub async fn query(scope: Scope, request: &LogRequest) -> Result<Vec<LogLine>, JournalError> {
    match lines(scope, request, true).await {
        // Not every journalctl can search; then we do, more slowly.
        Err(JournalError::Failed(said)) if said.contains("without pattern matching") => {
            lines(scope, request, false).await
        }
        other => other,
    }
}

/// `searches`: journalctl looks for the text.
async fn lines(scope: Scope, request: &LogRequest, searches: bool) -> Result<Vec<LogLine>, JournalError> {
    let wanted = request.lines.min(MAX_LINES) as usize;
    if wanted == 0 {
        return Ok(Vec::new());
    }
    let order = if request.after.is_some() { Order::Forward } else { Order::Backward };
    let mut child = process::Journalctl::spawn(&process::query_args(scope, request, order, searches))?;
    let read = async {
        let (mut lines, mut bytes) = (Vec::new(), 0);
        while let Some(line) = child.next_line().await? {
            let (early, late) = (request.is_early(&line), request.is_late(&line));
            if early && order == Order::Backward || late && order == Order::Forward {
                return Ok((lines, None));
            }
            let text = request.text.as_ref().filter(|_| !searches);
            if early || late || text.is_some_and(|text| !holds(&line.message, text)) {
                continue;
            }
            bytes += line.message.len();
            if bytes > MAX_BYTES {
                return Ok((lines, None));
            }
            lines.push(line);
            if lines.len() == wanted {
                return Ok((lines, None));
            }
        }
        Ok((lines, child.finish().await?))
    };
    let (mut lines, said) = process::in_time(QUERY_TIMEOUT, read).await?;
    if order == Order::Backward {
        lines.reverse();
    }
    match said {
        // "You are currently not seeing messages from other users", "No journal files were found".
        Some(said) if lines.is_empty() => Err(JournalError::Failed(said)),
        _ => Ok(lines),
    }
}

/// Lines after the cursor, or since that time, and those that come. `lines`, `text` and the like are not looked at.
pub fn follow(scope: Scope, request: &LogRequest) -> Result<Follow, JournalError> {
    let all = LogRequest { text: None, priority: None, before: None, ..request.clone() };
    Ok(Follow::new(process::Journalctl::spawn(&process::query_args(scope, &all, Order::Follow, false))?))
}

impl LogRequest {
    fn is_early(&self, line: &LogLine) -> bool {
        self.since.is_some_and(|since| line.at < since)
    }

    fn is_late(&self, line: &LogLine) -> bool {
        self.until.is_some_and(|until| line.at >= until)
    }
}

/// How that run ended, if the journal knows. Takes 2 s at most.
pub async fn last_exit(scope: Scope, invocation: InvocationId) -> Option<Ended> {
    last_exits(scope, &[invocation]).await.remove(&invocation)
}

/// How those runs ended, as far as the journal knows; one journalctl asks for all. Takes 2 s at most for each 500.
pub async fn last_exits(scope: Scope, invocations: &[InvocationId]) -> BTreeMap<InvocationId, Ended> {
    let mut ended = BTreeMap::new();
    for some in invocations.chunks(ENDS_AT_ONCE) {
        match process::in_time(END_TIMEOUT, ends(scope, some)).await {
            Ok(found) => ended.extend(found),
            Err(error) => {
                tracing::warn!("how services ended while no supervisor was there is not known: {error}")
            }
        }
    }
    ended
}

async fn ends(
    scope: Scope,
    invocations: &[InvocationId],
) -> Result<BTreeMap<InvocationId, Ended>, JournalError> {
    let mut child = process::Journalctl::spawn(&end::args(scope, invocations))?;
    let mut notes = end::Notes::default();
    while let Some(text) = child.next_text().await? {
        notes.take(&text);
    }
    child.finish().await?;
    Ok(notes.ended())
}

#[cfg(test)]
mod tests;
