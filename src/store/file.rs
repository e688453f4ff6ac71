//! One open database file: opening, reading the records, writing a batch, and setting a corrupt file aside.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::error::{Class, StoreError, class};
use super::pending::Batch;
use super::{alerts, metrics, retention, rows, schema};
use crate::core::Wall;
use crate::core::action::Record;
use crate::core::alert::AlertKey;
use crate::core::plan::Id;

/// How long one statement waits for another program's lock.
pub(super) const BUSY: Duration = Duration::from_secs(1);
/// In KiB; the working set is a few hundred rows.
const CACHE: i64 = 512;
/// A write-ahead log larger than this is copied into the file between two batches; after that it is cut to this.
const WAL_BYTES: u64 = 4 << 20;

/// A file that is open for writing.
#[derive(Debug)]
pub(super) struct Database {
    db: Connection,
    path: PathBuf,
    /// Device and inode, to notice that the file was deleted or replaced.
    identity: (u64, u64),
    /// A write-ahead log is in use; not every file system can have one.
    has_log: bool,
}

/// What a file held when it was opened.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub records: BTreeMap<Id, Record>,
    /// Alerts of ours that are open.
    pub open_alerts: Vec<AlertKey>,
    /// Rows that could not be read, each with the reason.
    pub unreadable: Vec<String>,
}

impl Database {
    /// Opens or creates the file and brings its tables up to date.
    pub fn open(path: &Path, now: Wall) -> Result<Self, StoreError> {
        create(path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut db = Connection::open_with_flags(path, flags)?;
        db.busy_timeout(BUSY)?;
        // The file may be another one by the time we close: then its log is not ours to merge and delete.
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        let journal: String = db.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
        db.pragma_update(None, "synchronous", "NORMAL")?;
        db.pragma_update(None, "cache_size", -CACHE)?;
        // Checkpoints are done between batches, so that nobody waits for them.
        db.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))?;
        db.pragma_update_and_check(None, "journal_size_limit", WAL_BYTES.cast_signed(), |_| Ok(()))?;
        schema::migrate(&mut db, &rows::stamp(now))?;
        let identity = identity(path).ok_or_else(|| StoreError::File {
            what: format!("{} vanished while it was opened", path.display()),
            source: io::ErrorKind::NotFound.into(),
        })?;
        Ok(Self { db, path: path.into(), identity, has_log: journal == "wal" })
    }

    pub fn load(&self) -> Result<Loaded, StoreError> {
        load(&self.db)
    }

    /// Whether the path still leads to the file that is open.
    pub fn is_there(&self) -> bool {
        identity(&self.path) == Some(self.identity) && (!self.has_log || wal(&self.path).exists())
    }

    /// Writes all of it or nothing, rows aside that the tables refuse: those come back, each with the reason.
    pub fn write(&mut self, batch: &Batch, now: Wall) -> Result<Vec<String>, StoreError> {
        let change = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut refused = Vec::new();
        let mut row = |what: &dyn Fn() -> String, done: rusqlite::Result<()>| match done {
            Err(error) if class(&error) == Class::Row => {
                refused.push(format!("{}: {error}", what()));
                Ok(())
            }
            other => other,
        };
        for id in &batch.forgotten {
            row(&|| format!("service {id}"), rows::delete(&change, id))?;
        }
        for (id, kept) in &batch.services {
            if let Some(record) = &kept.record {
                row(&|| format!("record of {id}"), rows::put_record(&change, id, record, now))?;
            }
            if let Some(view) = &kept.view {
                row(&|| format!("service {id}"), rows::put_view(&change, view))?;
            }
        }
        if let Some(gap) = &batch.gap {
            row(&|| "the note about dropped events".into(), rows::put_event(&change, &rows::gap(gap, now)))?;
        }
        for line in &batch.events {
            row(&|| format!("event {}", line.kind), rows::put_event(&change, line))?;
        }
        for (key, patch) in &batch.alerts {
            row(&|| format!("alert {key}"), alerts::put(&change, key, patch))?;
        }
        for (id, at) in &batch.acknowledged {
            row(&|| format!("alert {id}"), alerts::acknowledge(&change, *id, *at))?;
        }
        for metric in &batch.metrics {
            row(&|| format!("a sample of {}", metric.service), metrics::put(&change, metric))?;
        }
        change.commit()?;
        Ok(refused)
    }

    /// Deletes a few rows that are too old or too many; `true` if there may be more. One short transaction.
    pub fn clean(&mut self, older_than: Wall, now: Wall) -> Result<bool, StoreError> {
        let change = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let more = retention::clean(&change, older_than, now)?;
        change.commit()?;
        Ok(more)
    }

    /// Copies the write-ahead log into the file, as far as no reader needs it. An error only means: later.
    pub fn checkpoint(&self) {
        let _later = self.db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
    }

    /// Whether a checkpoint is due without waiting for a quiet moment.
    pub fn log_is_large(&self) -> bool {
        fs::metadata(wal(&self.path)).is_ok_and(|log| log.len() > WAL_BYTES)
    }

    /// Bytes of the file and its write-ahead log on disk.
    pub fn size(&self) -> u64 {
        [&self.path, &wal(&self.path)]
            .into_iter()
            .filter_map(|path| fs::metadata(path).ok())
            .map(|file| file.len())
            .sum()
    }

    /// Closes the file in good order: the log is merged into it if nobody else has it open.
    pub fn close(self) {
        if self.is_there() {
            // Without it the log stays, and is merged at the next open.
            let _stays = self.db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false);
        }
    }
}

/// A connection that cannot write. Cheap enough to be made for each question, and never stale.
pub(super) fn read_only(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(BUSY)?;
    db.pragma_update(None, "cache_size", -CACHE)?;
    Ok(db)
}

/// Looks for damage in all of it. With eyes of its own: a connection in use does not see pages that it has in memory.
pub(super) fn check(path: &Path) -> Result<(), StoreError> {
    let verdict: String = read_only(path)?.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict == "ok" { Ok(()) } else { Err(StoreError::Damaged(verdict)) }
}

/// The records of a file that cannot be written (read-only disk, newer schema).
pub(super) fn load_read_only(path: &Path) -> Result<Loaded, StoreError> {
    match read_only(path).map_err(StoreError::from).and_then(|db| load(&db)) {
        // A log cannot be made on a read-only disk. Where none was left, the file alone is the whole truth.
        Err(_) if !wal(path).exists() => {
            let mut uri = OsString::from("file:");
            uri.push(escaped(path));
            uri.push("?immutable=1");
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
            load(&Connection::open_with_flags(uri, flags)?)
        }
        other => other,
    }
}

/// Renames the file and what belongs to it; gives the new name.
pub(super) fn set_aside(path: &Path, now: Wall) -> Result<PathBuf, StoreError> {
    let stamp: String = rows::stamp(now).chars().filter(|c| c.is_ascii_digit()).collect();
    let aside = with_suffix(path, &format!(".corrupt-{stamp}"));
    for suffix in ["-wal", "-shm", ""] {
        match fs::rename(with_suffix(path, suffix), with_suffix(&aside, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::File {
                    what: format!("it is corrupt and cannot be renamed to {}", aside.display()),
                    source: error,
                });
            }
            _ => {}
        }
    }
    Ok(aside)
}

fn load(db: &Connection) -> Result<Loaded, StoreError> {
    let mut loaded = Loaded::default();
    if schema::version(db)? == 0 {
        return Ok(loaded);
    }
    let mut query = db.prepare("SELECT service_id, record FROM supervisor_records")?;
    let mut found = query.query([])?;
    while let Some(row) = found.next()? {
        match rows::get_record(row) {
            Ok((id, record)) => drop(loaded.records.insert(id, record)),
            Err(reason) => loaded.unreadable.push(reason),
        }
    }
    if schema::has_alert_keys(db)? {
        loaded.open_alerts = alerts::open(db)?;
    }
    Ok(loaded)
}

/// The folder (0750) and the file (0640), where they are not there yet. SQLite gives its log the file's mode.
fn create(path: &Path) -> Result<(), StoreError> {
    let failed = |what: String| move |source| StoreError::File { what, source };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(folder)
            .map_err(failed(format!("the folder {} cannot be made", folder.display())))?;
    }
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o640).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            // An existing file on a read-only disk: SQLite says what it thinks of it.
            if path.exists() { Ok(()) } else { Err(failed("the file cannot be made".into())(error)) }
        }
        _ => Ok(()),
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

fn wal(path: &Path) -> PathBuf {
    with_suffix(path, "-wal")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// For a `file:` URI.
fn escaped(path: &Path) -> String {
    let special = |c: char| matches!(c, '%' | '?' | '#');
    let text = path.to_string_lossy();
    text.chars().map(|c| if special(c) { format!("%{:02x}", c as u32) } else { c.into() }).collect()
}
