//! What is kept in SQLite.
//!
//! One thread writes, in batches; nobody waits for it unless they ask to ([`Store::flushed`]). While the database
//! cannot be written, everything is kept in memory up to a bound and written when it can be; the states of services are
//! in a file in the runtime folder meanwhile, for the daemon that comes next.
//!
//! ```text
//!  save, show, forget, event, measured --> pending --> writer (thread) --> file <-- history (read-only)
//!                                                        |-- retention, when it is quiet
//!                                                        '-- unwritten, in trouble
//! ```

mod alerts;
mod error;
mod file;
mod history;
mod metrics;
mod pending;
mod retention;
mod rows;
mod schema;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod unwritten;
mod writer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::control::MetricRow;
use crate::core::Wall;
use crate::core::action::{Entry, Record};
use crate::core::alert::{Alert, AlertKey};
use crate::core::plan::Id;
use crate::core::snapshot::ServiceView;

use alerts::Patch;
use error::Class;
use file::{Database, Loaded};
use pending::Pending;
use unwritten::{Aside, Unwritten};
use writer::{Progress, Shared, Writer};

/// How long [`Store::open`] waits for a lock of another program before it goes on without the records.
const OPEN_PATIENCE: Duration = Duration::from_secs(5);

/// Between two tries to open a locked file, beyond SQLite's own wait.
const OPEN_RETRY: Duration = Duration::from_millis(20);
/// How long the writer goes on trying after the last handle was dropped without [`Store::close`].
const LAST_WRITE: Duration = Duration::from_secs(2);
/// [`Store::close`] waits no longer than this, whatever it is given.
const LONGEST_CLOSE: Duration = Duration::from_secs(3600);

/// What befell the database. Told once when it begins and once when it ends, from the writer's thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Whether it lasts.
    pub phase: Phase,
    /// What, why, and what happens next: a whole sentence.
    pub message: String,
}

/// Whether trouble lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The database cannot be written from now on; what is handed in is kept in memory.
    Began,
    /// It can be written again, and what was kept has been.
    Ended,
    /// It happened, and is over: a corrupt file was set aside, a row could not be read.
    Noted,
}

/// The way to the database. Cheap to clone; all clones are one. When the last is dropped, what is left is written.
#[derive(Debug, Clone)]
pub struct Store {
    shared: Arc<Shared>,
    path: PathBuf,
    open_alerts: Arc<[AlertKey]>,
    _last: Arc<Last>,
}

/// Ends the writer with the last handle.
#[derive(Debug)]
struct Last(Arc<Shared>);

impl Drop for Last {
    fn drop(&mut self) {
        self.0.change(|queue| queue.closing = queue.closing.or(Some(Instant::now() + LAST_WRITE)));
    }
}

/// See [`Store::together`].
#[derive(Debug)]
#[must_use = "it ends when it is dropped"]
pub struct Together(Arc<Shared>);

impl Drop for Together {
    fn drop(&mut self) {
        self.0.change(|queue| queue.held -= 1);
    }
}

impl Store {
    /// Opens or creates the database and gives the records that it holds. Never fails: what goes wrong is told
    /// through `trouble` (on this thread until it returns, then on the writer's), and tried again. Blocks, for some
    /// seconds at worst, while another program holds the file locked.
    ///
    /// A corrupt file is renamed, never deleted, and a fresh one is made. `aside` is a file in the runtime folder: while
    /// the database cannot be written, the records that it could not take are there for the next daemon.
    pub fn open(
        path: &Path,
        aside: PathBuf,
        trouble: impl Fn(Trouble) + Send + 'static,
    ) -> (Self, BTreeMap<Id, Record>) {
        // A link's target is what is created, watched and set aside.
        let path = path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.into());
        let tell = |phase, message| trouble(Trouble { phase, message });
        let (db, mut loaded) = open_file(&path, &tell);
        for row in &loaded.unreadable {
            let path = path.display();
            let message =
                format!("{row}: the row in {path} is left out, and the service starts as a new one");
            tell(Phase::Noted, message);
        }
        let (aside, unwritten) = find_aside(aside, &tell);
        unwritten.put_over(&mut loaded.records);
        let shared = Arc::new(Shared::new(Pending::new(&loaded.records, unwritten), db.is_none()));
        let troubled = db.is_none();
        let writer = Writer::new(shared.clone(), path.clone(), db, aside, troubled, Box::new(trouble));
        if let Err(error) = std::thread::Builder::new().name("store".into()).spawn(move || writer.run()) {
            tracing::error!("the database is not written: no thread could be made for it: {error}");
            shared.progress.send_modify(|progress| progress.troubled = true);
        }
        let open_alerts = loaded.open_alerts.into();
        (Self { _last: Arc::new(Last(shared.clone())), shared, path, open_alerts }, loaded.records)
    }

    /// What is handed in until this is dropped is written in one transaction: the state of a service and the event that
    /// tells of it, also where the daemon is killed in between. Not to be held over anything that takes time.
    pub fn together(&self) -> Together {
        self.shared.change(|queue| queue.held += 1);
        Together(Arc::clone(&self.shared))
    }

    /// Keeps `record` for the next daemon. Returns at once.
    pub fn save(&self, service: &Id, record: Record) {
        self.shared.change(|queue| queue.pending.save(service, record));
    }

    /// Writes the row of `supervisor_services` that other programs read. Returns at once.
    pub fn show(&self, view: &Arc<ServiceView>) {
        self.shared.change(|queue| queue.pending.show(view));
    }

    /// Drops what was kept and shown of a service. Its events stay. Returns at once.
    pub fn forget(&self, service: &Id) {
        self.shared.change(|queue| queue.pending.forget(service));
    }

    /// Adds a row to `supervisor_events`. Returns at once.
    pub fn event(&self, entry: &Entry, at: Wall) {
        let line = rows::line(entry, at);
        self.shared.change(|queue| queue.pending.event(line));
    }

    /// Alerts of ours that were open when the database was opened, newest first.
    pub fn open_alerts(&self) -> &[AlertKey] {
        &self.open_alerts
    }

    /// Writes a row of `health_alerts`, or what changed in it. Returns at once.
    pub fn alert(&self, alert: Alert) {
        let key = alert.key.clone();
        self.patch_alert(key, Patch { alert: Some(alert), ..Patch::default() });
    }

    /// Adds to the details of an alert. Returns at once.
    pub fn alert_detail(&self, key: AlertKey, name: &str, value: serde_json::Value) {
        let more = [(name.to_owned(), value)].into_iter().collect();
        self.patch_alert(key, Patch { more, ..Patch::default() });
    }

    /// Notes that an alert is over, and why. Returns at once.
    pub fn alert_resolved(&self, key: AlertKey, why: &str, at: Wall) {
        let more = [("resolution".to_owned(), why.into())].into_iter().collect();
        self.patch_alert(key, Patch { more, resolved: Some(at), ..Patch::default() });
    }

    fn patch_alert(&self, key: AlertKey, patch: Patch) {
        self.shared.change(|queue| queue.pending.alert(key, patch));
    }

    /// Notes that somebody has seen the alert of that row. Returns at once.
    pub fn acknowledge(&self, row: i64, at: Wall) {
        self.shared.change(|queue| queue.pending.acknowledge(row, at));
    }

    /// Adds rows to `supervisor_metrics`. Returns at once, and nobody can wait for them: while the database cannot
    /// be written, the oldest of them go first.
    pub fn measured(&self, rows: Vec<MetricRow>) {
        self.shared.change(|queue| queue.pending.metrics(rows));
    }

    /// Metrics and events older than this are deleted from now on. Until it is called, nothing is.
    pub fn retain(&self, days: u32) {
        self.shared.change(|queue| queue.retain = Some(Duration::from_secs(u64::from(days) * 86_400)));
    }

    /// Waits until everything handed in before is committed (`true`), but no longer than `at_most`, and not at all
    /// while the database is known to be in trouble (`false`): then it is kept in memory.
    pub async fn flushed(&self, at_most: Duration) -> bool {
        let upto = self.shared.lock().pending.handed();
        let over = |progress: &Progress| progress.committed >= upto || progress.troubled || progress.ended;
        self.progressed(at_most, over).await.committed >= upto
    }

    /// Writes what is left and closes the file, waiting no longer than `at_most`; `false` if something is not on disk.
    pub async fn close(self, at_most: Duration) -> bool {
        let at_most = at_most.min(LONGEST_CLOSE);
        let upto = self.shared.change(|queue| {
            queue.closing = Some(Instant::now() + at_most);
            queue.pending.handed()
        });
        self.progressed(at_most, |progress| progress.ended).await.committed >= upto
    }

    /// How far the writer is when `until` holds, or after `at_most`.
    async fn progressed(&self, at_most: Duration, until: impl FnMut(&Progress) -> bool) -> Progress {
        let mut progress = self.shared.progress.subscribe();
        // Whether it came or not is seen in what is returned.
        let _in_time = tokio::time::timeout(at_most, progress.wait_for(until)).await.is_ok();
        *progress.borrow()
    }
}

/// What an earlier daemon could not write.
fn find_aside(path: PathBuf, tell: &impl Fn(Phase, String)) -> (Aside, Unwritten) {
    let shown = path.display().to_string();
    let (aside, found) = Aside::find(path);
    let unwritten = match found {
        None => Unwritten::default(),
        Some(Ok(unwritten)) => {
            let count = unwritten.records.len() + unwritten.forgotten.len();
            tell(
                Phase::Noted,
                format!(
                    "the supervisor before this one could not write its database; what it knew of {count} services \
                     comes from {shown}"
                ),
            );
            unwritten
        }
        Some(Err(error)) => {
            tell(
                Phase::Noted,
                format!(
                    "{shown}, what an earlier supervisor could not write to its database, cannot be read: {error}; \
                     the states of services are those of the database"
                ),
            );
            Unwritten::default()
        }
    };
    (aside, unwritten)
}

/// The database, if it can be opened, and what it holds.
fn open_file(path: &Path, tell: &impl Fn(Phase, String)) -> (Option<Database>, Loaded) {
    let started = Instant::now();
    let mut replaced = false;
    loop {
        let opened = Database::open(path, writer::now()).and_then(|db| Ok((db.load()?, db)));
        let error = match opened {
            Ok((loaded, db)) => return (Some(db), loaded),
            Err(error) => error,
        };
        match error.class() {
            Class::Busy if started.elapsed() < OPEN_PATIENCE => {
                std::thread::sleep(OPEN_RETRY);
                continue;
            }
            // Once: a fresh file that is corrupt again is a matter of the disk.
            Class::Corrupt if !replaced => match file::set_aside(path, writer::now()) {
                Ok(aside) => {
                    replaced = true;
                    tell(Phase::Noted, writer::was_set_aside(path, &aside));
                    continue;
                }
                Err(error) => tell(Phase::Began, writer::cannot_be_written(path, &error)),
            },
            _ => tell(Phase::Began, writer::cannot_be_written(path, &error)),
        }
        return (None, file::load_read_only(path).unwrap_or_default());
    }
}
