//! Logs of services for the API: pages, a few at a time, and one follower of a service for all who follow it.
//!
//! ```text
//!   follow --> Follower (of a service) --> journalctl --follow --> ring --> every reader
//!                 '-- ends with its last reader, and journalctl with it
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use super::clock;
use crate::control::{LogEntry, LogError, LogQuery, LogTail, Logs};
use crate::core::Wall;
use crate::core::plan::{Id, Probe, ServicePlan};
use crate::environment_file;
use crate::journal::{self, JournalError, LogLine, LogRequest};
use crate::mask::Mask;
use crate::place::Scope;
use crate::ring::Ring;
use crate::systemd::name;

/// Readers of pages at once: each is a journalctl. More wait for their turn,
const QUERIES: usize = 4;
/// but no more than so many.
const WAITING: usize = 64;
/// Services that are followed at once: each is a journalctl too.
const FOLLOWED: usize = 64;
/// Lines, and bytes of them, that a reader may be behind.
const LINES: usize = 1024;
const BYTES: usize = 1 << 20;
/// A follower begins so long ago, so that no line falls between it and what its first reader finds there.
const OVERLAP_MS: i64 = 2000;
/// Between two journalctl, where one ended by itself.
const AGAIN: Duration = Duration::from_secs(1);
/// So many ends without a line between are a failure.
const TRIES: u32 = 5;

/// See the module.
#[derive(Debug)]
pub struct ServiceLogs {
    scope: Scope,
    queries: Semaphore,
    waiting: Semaphore,
    followed: Mutex<BTreeMap<Id, Weak<Follower>>>,
}

type Line = Result<LogEntry, LogError>;

#[derive(Debug)]
struct Follower {
    ring: Arc<Ring<Line>>,
    task: AbortHandle,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ServiceLogs {
    /// Reads nothing yet.
    pub fn new(scope: Scope) -> Self {
        let (queries, waiting) = (Semaphore::new(QUERIES), Semaphore::new(WAITING));
        Self { scope, queries, waiting, followed: Mutex::default() }
    }
}

impl Logs for ServiceLogs {
    fn lines(&self, query: LogQuery) -> BoxFuture<'_, Result<Vec<LogEntry>, LogError>> {
        Box::pin(async move {
            let busy = || LogError::Unavailable("too many read logs at once; ask again in a moment".into());
            let _place = self.waiting.try_acquire().map_err(|_| busy())?;
            let _turn = self.queries.acquire().await.map_err(|_| busy())?;
            let request = LogRequest {
                lines: query.lines,
                since: query.since,
                until: query.until,
                text: query.text,
                priority: query.priority,
                before: query.before,
                after: query.after,
                ..request(&query.plan)
            };
            let mask = mask(&query.plan).await.map_err(LogError::Unavailable)?;
            match journal::query(self.scope, &request).await {
                Ok(lines) => Ok(lines.into_iter().map(|line| entry(line, &mask)).collect()),
                // Its own lines a user sees without further rights: there are none.
                Err(JournalError::Failed(said)) if said.starts_with("Hint:") && !denied(&said) => {
                    Ok(Vec::new())
                }
                Err(error) => Err(told(&error)),
            }
        })
    }

    fn follow(&self, plan: Arc<ServicePlan>) -> Result<LogTail, LogError> {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        let there = followed.get(&plan.id).and_then(Weak::upgrade).filter(|f| !f.ring.is_closed());
        if let Some(follower) = there {
            return Ok(LogTail { tail: follower.ring.tail(), hold: follower });
        }
        followed.retain(|_, follower| follower.strong_count() > 0);
        if followed.len() >= FOLLOWED {
            let why = format!("the logs of {FOLLOWED} services are followed already, which is the most");
            return Err(LogError::Unavailable(why));
        }
        let ring = Ring::new(LINES, BYTES);
        let tail = ring.tail();
        let id = plan.id.clone();
        let task = tokio::spawn(run(self.scope, plan, ring.clone())).abort_handle();
        let follower = Arc::new(Follower { ring, task });
        followed.insert(id, Arc::downgrade(&follower));
        Ok(LogTail { tail, hold: follower })
    }
}

/// Until it is aborted, or the journal cannot be read. Journalctl itself goes along with rotated and vacuumed files;
/// where it ends, another goes on after the last line.
async fn run(scope: Scope, plan: Arc<ServicePlan>, ring: Arc<Ring<Line>>) {
    let since = Wall(clock::now().wall.0 - OVERLAP_MS);
    let mut request = LogRequest { since: Some(since), ..request(&plan) };
    let mask = match mask(&plan).await {
        Ok(mask) => mask,
        Err(why) => return give_up(&ring, LogError::Unavailable(why)),
    };
    let mut tries = 0;
    let why = loop {
        let ended = match journal::follow(scope, &request) {
            Ok(mut lines) => loop {
                match lines.next().await {
                    Some(Ok(line)) => {
                        tries = 0;
                        request.after = Some(line.cursor.clone());
                        let bytes = line.message.len() + line.cursor.len();
                        ring.push(Ok(entry(line, &mask)), bytes);
                    }
                    Some(Err(error)) => break error,
                    None => break JournalError::Failed("it ended".into()),
                }
            },
            Err(error) => error,
        };
        tries += 1;
        if tries == TRIES {
            break ended;
        }
        tokio::time::sleep(AGAIN).await;
    };
    give_up(&ring, told(&why));
}

fn give_up(ring: &Ring<Line>, error: LogError) {
    let bytes = error.to_string().len();
    ring.push(Err(error), bytes);
    ring.close();
}

/// Of a service; of no line in particular.
pub(super) fn request(plan: &ServicePlan) -> LogRequest {
    LogRequest {
        service: plan.id.clone(),
        unit: name::service_unit(&plan.id),
        lines: 0,
        since: None,
        until: None,
        text: None,
        priority: None,
        before: None,
        after: None,
    }
}

fn entry(line: LogLine, mask: &Mask) -> LogEntry {
    LogEntry {
        at: line.at,
        priority: line.priority,
        message: mask.hide(line.message),
        pid: line.pid,
        unit: line.unit,
        cursor: line.cursor,
    }
}

/// Hides what the configuration and the `environment_file` hold.
///
/// # Errors
/// That file cannot be read: then nobody knows what must not be shown.
pub(super) async fn mask(plan: &ServicePlan) -> Result<Mask, String> {
    let of_file = match plan.exec.environment_file.clone() {
        Some(path) => {
            let read = tokio::task::spawn_blocking(move || {
                environment_file::read(&path).map_err(|error| {
                    format!(
                        "environment_file {path} cannot be read, so its values could not be hidden: {error}"
                    )
                })
            });
            read.await.map_err(|error| error.to_string())??
        }
        None => BTreeMap::new(),
    };
    let of_file = of_file.iter().filter(|(name, _)| *name != "PATH").map(|(_, value)| value.as_str());
    let probes = std::iter::once(&plan.health.probe).chain(plan.health.fallback.as_deref());
    let headers = probes.filter_map(|probe| match probe {
        Probe::Http(http) => Some(&http.headers),
        _ => None,
    });
    let configured = plan.exec.environment.values().chain(headers.flat_map(BTreeMap::values));
    Ok(Mask::new(of_file.chain(configured.map(|secret| secret.0.as_str()))))
}

fn denied(said: &str) -> bool {
    said.contains("insufficient permissions")
}

fn told(error: &JournalError) -> LogError {
    match error {
        JournalError::Failed(said) if denied(said) => LogError::Denied(format!(
            "the supervisor runs as a user who may not read the journal ({said}): add the user to the group \
             systemd-journal (`sudo usermod -aG systemd-journal USER`), log in again and restart the supervisor"
        )),
        JournalError::Failed(said) if said.contains("cursor") => {
            LogError::Asked(format!("the journal does not know that cursor ({said})"))
        }
        error => LogError::Unavailable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_the_journal_are_told_by_their_kind() {
        let failed = |said: &str| told(&JournalError::Failed(said.into()));
        let denied = failed("No journal files were opened due to insufficient permissions.");
        assert!(matches!(&denied, LogError::Denied(why) if why.contains("systemd-journal")), "{denied}");
        assert!(matches!(failed("Failed to seek to cursor: Invalid argument"), LogError::Asked(_)));
        assert!(matches!(failed("I/O error"), LogError::Unavailable(_)));
    }
}
