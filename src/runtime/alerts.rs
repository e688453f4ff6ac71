//! What the outside adds to alerts: the last lines of a service's log, and who has seen them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tracing::debug;

use super::{clock, logs};
use crate::control::{Acknowledged, AlertQuery, History};
use crate::core::action::{Entry, EntryKind, Level};
use crate::core::alert::AlertKey;
use crate::core::plan::{Id, ServicePlan};
use crate::journal::{self, LogRequest};
use crate::mask::Mask;
use crate::place::Scope;
use crate::store::Store;

/// Lines of the log in an alert.
const LINES: u32 = 20;
/// Characters of each.
const LINE: usize = 400;
/// Readers of the journal at once; more alerts wait for their turn,
const READERS: usize = 2;
/// but no more than so many: in a landslide the log of each is not what helps.
const WAITING: usize = 64;
/// What a service wrote in its last moment needs a moment to get into the journal.
const SETTLE: Duration = Duration::from_millis(300);
/// Adds logs to alerts, a few at a time.
#[derive(Debug)]
pub struct Logs {
    readers: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Default for Logs {
    fn default() -> Self {
        Self { readers: Arc::new(Semaphore::new(READERS)), waiting: Arc::new(Semaphore::new(WAITING)) }
    }
}

impl Logs {
    /// Reads the end of the log of a service and adds it to its alert, whenever it can be had. Returns at once.
    pub fn add(&self, scope: Scope, plan: Arc<ServicePlan>, key: AlertKey, store: Store) {
        let Ok(place) = Arc::clone(&self.waiting).try_acquire_owned() else {
            let omitted = "too many alerts at once; `supervisorctl logs` has it";
            return store.alert_detail(key, "log_omitted", omitted.into());
        };
        let readers = Arc::clone(&self.readers);
        tokio::spawn(async move {
            let _place = place;
            let _turn = readers.acquire_owned().await;
            tokio::time::sleep(SETTLE).await;
            let (name, value) = match lines(scope, &plan).await {
                Ok(lines) => ("log", lines.into()),
                Err(why) => {
                    debug!("{key}: the log could not be added: {why}");
                    ("log_omitted", why.into())
                }
            };
            store.alert_detail(key, name, value);
        });
    }
}

/// The end of the log of a service, without secrets.
async fn lines(scope: Scope, plan: &ServicePlan) -> Result<Vec<String>, String> {
    let request = LogRequest { lines: LINES, ..logs::request(plan) };
    let found = journal::query(scope, &request).await.map_err(|error| error.to_string())?;
    let mask = logs::mask(plan).await?;
    Ok(found.into_iter().map(|line| shown(line.message, &mask)).collect())
}

/// A line without what is to be hidden, bounded.
fn shown(line: String, mask: &Mask) -> String {
    let line = mask.hide(line);
    match line.char_indices().nth(LINE) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Notes that somebody has seen an alert. Doing so again changes nothing.
pub fn acknowledge(store: Store, alert: i64, origin: String, answer: oneshot::Sender<Acknowledged>) {
    tokio::spawn(async move {
        let query = AlertQuery { id: Some(alert), limit: 1, ..AlertQuery::default() };
        let mut row = match store.alerts(query).await {
            Ok(rows) => rows.into_iter().next(),
            Err(error) => return drop(answer.send(Err(error))),
        };
        if let Some(row) = row.as_mut().filter(|row| row.acknowledged_at.is_none()) {
            let now = clock::now().wall;
            row.acknowledged_at = Some(now);
            store.acknowledge(alert, now);
            let entry = entry(alert, row.service.as_deref(), &row.kind, &origin);
            super::supervise::log(&entry);
            store.event(&entry, now);
            store.flushed(Duration::from_millis(250)).await;
        }
        drop(answer.send(Ok(row)));
    });
}

fn entry(alert: i64, service: Option<&str>, kind: &str, origin: &str) -> Entry {
    let whose = service.unwrap_or("the supervisor");
    Entry {
        service: service.and_then(|id| Id::new(id).ok()),
        kind: EntryKind::AlertAcknowledged,
        level: Level::Info,
        message: format!("{whose}: alert {alert} ({kind}) was acknowledged by {origin}"),
        details: BTreeMap::from([("alert_id", alert.into()), ("origin", origin.into())]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::plan::Secret;

    #[tokio::test]
    async fn lines_of_the_log_show_no_secret_and_are_bounded() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "KEY='from-the-file'\nPATH=/usr/bin\n").unwrap();
        let mut plan = ServicePlan::new(Id::new("web").unwrap(), "/bin/x");
        plan.exec.environment =
            [("PASSWORD".into(), Secret("hunter22".into())), ("X".into(), Secret("a".into()))].into();
        plan.exec.environment_file = Some(file.path().display().to_string());
        let of_file = logs::mask(&plan).await.unwrap();
        for (line, expected) in [
            ("connecting with hunter22 as a user", "connecting with *** as a user".to_owned()),
            ("/usr/bin/x takes from-the-file", "/usr/bin/x takes ***".into()),
            (&"ä".repeat(LINE), "ä".repeat(LINE)),
            (&"ä".repeat(LINE + 1), format!("{}…", "ä".repeat(LINE))),
        ] {
            assert_eq!(shown(line.to_owned(), &of_file), expected);
        }
        drop(file);
        let why = logs::mask(&plan).await.unwrap_err();
        assert!(why.contains("could not be hidden"), "without the file nothing is shown: {why}");
    }
}
