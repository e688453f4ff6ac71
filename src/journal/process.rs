//! A running journalctl. It ends with its handle, its lines are bounded, and nobody waits for it without a limit.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::task::JoinHandle;

use super::{JournalError, LogLine, LogRequest, MAX_LINES, line};
use crate::core::Wall;
use crate::core::plan::Id;
use crate::place::Scope;

/// Longest JSON line, in bytes: a message of unprintable bytes takes up to five for each. Longer ones are passed over.
const LINE: usize = 1 << 20;
/// So much of what journalctl says on its standard error is kept, in bytes.
const REMARKS: u64 = 4 << 10;
/// coredump's "process dumped core".
const CORE_DUMP: &str = "MESSAGE_ID=fc2e22bc6ee647b6b90729ab34a250b1";

/// A followed journal. Dropping it ends the journalctl behind it.
#[derive(Debug)]
pub struct Follow(Option<Journalctl>);

impl Follow {
    pub(super) fn new(child: Journalctl) -> Self {
        Self(Some(child))
    }

    /// The next line, when there is one; `None` after journalctl ended. May be dropped while it waits, and called again.
    pub async fn next(&mut self) -> Option<Result<LogLine, JournalError>> {
        match self.0.as_mut()?.next_line().await {
            Ok(Some(line)) => return Some(Ok(line)),
            Ok(None) => {}
            Err(error) => {
                self.0 = None;
                return Some(Err(error));
            }
        }
        match self.0.take()?.finish().await {
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Journalctl {
    child: Child,
    output: ChildStdout,
    /// Reads along, so that journalctl never waits for us to.
    remarks: JoinHandle<String>,
    /// What was read and not yet handed on: less than two lines.
    buffer: Vec<u8>,
    /// In a line that is too long.
    skipping: bool,
    /// Of the line before, for the note that stands for one that was too long.
    last: Option<(Wall, String)>,
}

/// How journalctl goes through the journal. Versions differ in what `--lines` counts beside `--since`, `--grep` or a
/// cursor: these forms mean the same to all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// From the newest back.
    Backward,
    /// From the cursor on; lines are counted here.
    Forward,
    /// From the cursor, else from `since`, on and on.
    Follow,
}

/// Which entries: those of the unit's processes, of systemd about it, and of the supervisor about the service.
/// `searches`: journalctl looks for the text.
pub(super) fn query_args(scope: Scope, request: &LogRequest, order: Order, searches: bool) -> Vec<String> {
    // Nulls for large fields without `--all`; and remarks tell why nothing is shown.
    let mut args: Vec<String> = ["--output=json", "--no-pager", "--all"].map(String::from).into();
    args.push("--output-fields=MESSAGE,PRIORITY,_PID,_SYSTEMD_UNIT,_SYSTEMD_USER_UNIT".into());
    match order {
        Order::Backward => args.push("--reverse".into()),
        Order::Forward => {}
        Order::Follow => args.extend(["--follow".into(), "--no-tail".into()]),
    }
    // Lines are counted here too; where nothing else is asked for, journalctl need not look at more.
    if order == Order::Backward && request.before.is_none() && request.until.is_none() {
        args.push(format!("--lines={}", request.lines.min(MAX_LINES)));
    }
    match (request.before.as_ref().or(request.after.as_ref()), request.since) {
        // journalctl takes only one of them. "After" is in the order in which it goes.
        (Some(cursor), _) => args.push(format!("--after-cursor={cursor}")),
        (None, Some(Wall(millis))) => {
            let (seconds, rest) = (millis.max(0) / 1000, millis.max(0) % 1000);
            args.push(format!("--since=@{seconds}.{rest:03}"));
        }
        (None, None) => {}
    }
    let text = request.text.as_ref().filter(|_| searches);
    args.extend(text.map(|text| format!("--grep={}", literal(text))));
    args.extend(request.priority.map(|least| format!("--priority={least}")));
    args.extend(matches(scope, &request.unit, &request.service));
    args
}

/// For PCRE2: a text that stands for itself.
fn literal(text: &str) -> String {
    let escaped = |c: char| c.is_ascii_punctuation().then_some('\\').into_iter().chain([c]);
    text.chars().flat_map(escaped).collect()
}

/// The terms for journalctl that choose the lines of a service, of systemd about its unit, and of the supervisor about
/// the service.
pub fn matches(scope: Scope, unit: &str, service: &Id) -> Vec<String> {
    let uid = nix::unistd::geteuid();
    // Anybody may write lines with any field that has no underscore in front: hence the writer's uid or pid.
    let alternatives = match scope {
        Scope::System => [
            format!("_SYSTEMD_UNIT={unit}"),
            format!("_PID=1 UNIT={unit}"),
            format!("_UID=0 OBJECT_SYSTEMD_UNIT={unit}"),
            format!("_UID=0 COREDUMP_UNIT={unit} {CORE_DUMP}"),
            format!("_UID=0 SUPERVISOR_SERVICE={service}"),
        ],
        Scope::User => [
            format!("_UID={uid} _SYSTEMD_USER_UNIT={unit}"),
            format!("_UID={uid} USER_UNIT={unit}"),
            format!("_UID={uid} OBJECT_SYSTEMD_USER_UNIT={unit}"),
            format!("_UID={uid} COREDUMP_USER_UNIT={unit} {CORE_DUMP}"),
            format!("_UID={uid} SUPERVISOR_SERVICE={service}"),
        ],
    };
    alternatives.join(" + ").split(' ').map(String::from).collect()
}

/// `work`, or the word that it took too long; what it holds is dropped then, and with it journalctl ended.
pub(super) async fn in_time<T>(
    at_most: Duration,
    work: impl Future<Output = Result<T, JournalError>>,
) -> Result<T, JournalError> {
    tokio::time::timeout(at_most, work).await.unwrap_or(Err(JournalError::Slow(at_most)))
}

impl Journalctl {
    pub fn spawn(args: &[String]) -> Result<Self, JournalError> {
        Self::spawn_as("journalctl", args)
    }

    pub(super) fn spawn_as(program: &str, args: &[String]) -> Result<Self, JournalError> {
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(JournalError::Run)?;
        let missing = || JournalError::Run(std::io::ErrorKind::BrokenPipe.into());
        let output = child.stdout.take().ok_or_else(missing)?;
        let remarks = tokio::spawn(remarks(child.stderr.take().ok_or_else(missing)?));
        Ok(Self { child, output, remarks, buffer: Vec::new(), skipping: false, last: None })
    }

    /// The next entry; what is none is passed over.
    pub async fn next_line(&mut self) -> Result<Option<LogLine>, JournalError> {
        loop {
            match self.next().await? {
                Some(Text::Line(text)) => {
                    if let Some(line) = line::parse(&text) {
                        self.last = Some((line.at, line.cursor.clone()));
                        return Ok(Some(line));
                    }
                }
                Some(Text::TooLong) => {
                    if let Some((at, cursor)) = self.last.clone() {
                        let message = "[a line of more than 1 MiB is left out here]".into();
                        return Ok(Some(LogLine {
                            at,
                            message,
                            priority: None,
                            pid: None,
                            unit: None,
                            cursor,
                        }));
                    }
                }
                None => return Ok(None),
            }
        }
    }

    /// The next line as it stands; those that are too long are passed over.
    pub async fn next_text(&mut self) -> Result<Option<Vec<u8>>, JournalError> {
        loop {
            match self.next().await? {
                Some(Text::Line(text)) => return Ok(Some(text)),
                Some(Text::TooLong) => {}
                None => return Ok(None),
            }
        }
    }

    /// Loses nothing when it is dropped while it waits: what was read is in the buffer.
    async fn next(&mut self) -> Result<Option<Text>, JournalError> {
        let mut seen = 0;
        loop {
            if let Some(end) = self.buffer[seen..].iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(seen + end + 1);
                let line = std::mem::replace(&mut self.buffer, rest);
                return Ok(Some(if std::mem::take(&mut self.skipping) {
                    Text::TooLong
                } else {
                    Text::Line(line)
                }));
            }
            if self.buffer.len() > LINE {
                self.buffer.clear();
                self.skipping = true;
            }
            seen = self.buffer.len();
            self.buffer.reserve(8 << 10);
            if self.output.read_buf(&mut self.buffer).await.map_err(JournalError::Run)? == 0 {
                // A last line without its end is no entry.
                return Ok(None);
            }
        }
    }

    /// After the last line: waits for the end, and gives what was said on the standard error.
    pub async fn finish(mut self) -> Result<Option<String>, JournalError> {
        let said = self.remarks.await.unwrap_or_default();
        let status = self.child.wait().await.map_err(JournalError::Run)?;
        // 1 without a word: no entry matched (`--grep`).
        match (status.success() || (status.code() == Some(1) && said.is_empty()), said.is_empty()) {
            (true, true) => Ok(None),
            (true, false) => Ok(Some(said)),
            (false, true) => Err(JournalError::Failed(status.to_string())),
            (false, false) => Err(JournalError::Failed(said)),
        }
    }
}

/// The first part of what is said on the standard error, on one line; the rest is read and dropped.
async fn remarks(mut stream: ChildStderr) -> String {
    let mut first = Vec::new();
    // Where it cannot be read, the exit status has to say it all.
    let _silent = (&mut stream).take(REMARKS).read_to_end(&mut first).await;
    let _silent = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&first).trim().replace('\n', " ")
}

/// A line of output.
enum Text {
    Line(Vec<u8>),
    TooLong,
}
