//! The tables, and how a file comes to have them. Other programs share the file: only what is missing is made, and
//! nothing of theirs is touched.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use super::error::StoreError;

/// What this program writes. A file of a higher one is not written.
pub(super) const VERSION: i64 = 3;

/// The tables that other programs read, with their columns as the contract has them.
const SHARED: &[(&str, &[(&str, &str)])] = &[
    (
        "supervisor_services",
        &[
            ("id", "TEXT PRIMARY KEY"),
            ("name", "TEXT"),
            ("description", "TEXT"),
            ("state", "TEXT"),
            ("pid", "INTEGER"),
            ("port", "INTEGER"),
            ("start_time", "TIMESTAMP"),
            ("uptime_seconds", "INTEGER"),
            ("restart_count", "INTEGER"),
            ("last_restart", "TIMESTAMP"),
            ("priority", "INTEGER"),
            ("critical", "INTEGER"),
            ("auto_restart", "INTEGER"),
        ],
    ),
    (
        "supervisor_metrics",
        &[
            ("id", "INTEGER PRIMARY KEY AUTOINCREMENT"),
            ("service_id", "TEXT"),
            ("timestamp", "TIMESTAMP"),
            ("cpu_percent", "REAL"),
            ("memory_mb", "REAL"),
            ("health_status", "TEXT"),
            ("response_time_ms", "REAL"),
            ("tasks", "INTEGER"),
            ("throttled", "REAL"),
        ],
    ),
    (
        "supervisor_events",
        &[
            ("id", "INTEGER PRIMARY KEY AUTOINCREMENT"),
            ("service_id", "TEXT"),
            ("event_type", "TEXT"),
            ("timestamp", "TIMESTAMP"),
            ("message", "TEXT"),
            ("details", "TEXT"),
        ],
    ),
    (
        "health_alerts",
        &[
            ("id", "INTEGER PRIMARY KEY AUTOINCREMENT"),
            ("service_id", "TEXT"),
            ("alert_type", "TEXT"),
            ("severity", "TEXT"),
            ("message", "TEXT"),
            ("details", "TEXT"),
            ("created_at", "TIMESTAMP"),
            ("acknowledged_at", "TIMESTAMP"),
            ("resolved_at", "TIMESTAMP"),
            // Ours: which rows are ours, each once. NULL in those of other programs.
            ("supervisor_key", "TEXT"),
        ],
    ),
];

/// Our own. An index holds the row id after its columns, so `(service_id)` serves "of a service, newest first". That of
/// the metrics holds all that a series is made of: the rows of one service lie far apart in the table, and a day of it
/// would be some 2,880 pages, here 60.
const OWN: &str = "
    CREATE TABLE IF NOT EXISTS supervisor_schema (version INTEGER PRIMARY KEY, applied_at TIMESTAMP NOT NULL);
    CREATE TABLE IF NOT EXISTS supervisor_records (
        service_id TEXT PRIMARY KEY,
        record TEXT NOT NULL,
        written_at TIMESTAMP NOT NULL
    );
    DROP INDEX IF EXISTS supervisor_metrics_by_service;
    CREATE INDEX IF NOT EXISTS supervisor_metrics_series ON supervisor_metrics (service_id, timestamp, cpu_percent,
        memory_mb, response_time_ms, tasks, throttled, health_status);
    CREATE INDEX IF NOT EXISTS supervisor_events_by_service ON supervisor_events (service_id);
    CREATE INDEX IF NOT EXISTS supervisor_events_by_type ON supervisor_events (event_type);
    CREATE INDEX IF NOT EXISTS supervisor_events_by_time ON supervisor_events (timestamp);
    CREATE INDEX IF NOT EXISTS health_alerts_by_supervisor_key ON health_alerts (supervisor_key)
        WHERE supervisor_key IS NOT NULL;
";

/// The schema version of a file; 0 where ours was never there.
pub(super) fn version(db: &Connection) -> rusqlite::Result<i64> {
    let exists = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'supervisor_schema'";
    match db.query_row(exists, [], |_| Ok(())).optional()? {
        None => Ok(0),
        Some(()) => {
            db.query_row("SELECT coalesce(max(version), 0) FROM supervisor_schema", [], |row| row.get(0))
        }
    }
}

/// Makes what is missing; refuses a file of a newer program.
pub(super) fn migrate(db: &mut Connection, now: &str) -> Result<(), StoreError> {
    let found = version(db)?;
    if found > VERSION {
        return Err(StoreError::Newer { found });
    }
    if found == VERSION && complete(db)? {
        return Ok(());
    }
    let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Again, under the lock: another daemon may have been quicker.
    if version(&change)? > VERSION {
        return Err(StoreError::Newer { found: version(&change)? });
    }
    for (table, columns) in SHARED {
        let all: Vec<_> = columns.iter().map(|(name, kind)| format!("{name} {kind}")).collect();
        change.execute_batch(&format!("CREATE TABLE IF NOT EXISTS {table} ({});", all.join(", ")))?;
        let there = columns_of(&change, table)?;
        // A table of an older program may lack some; its key it must have.
        for (name, kind) in columns.iter().skip(1).filter(|(name, _)| !there.iter().any(|t| t == name)) {
            change.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {name} {kind};"))?;
        }
    }
    change.execute_batch(OWN)?;
    change.execute(
        "INSERT OR IGNORE INTO supervisor_schema (version, applied_at) VALUES (?1, ?2)",
        (VERSION, now),
    )?;
    change.commit()?;
    Ok(())
}

/// A file that cannot be written may be of a time before they were there.
pub(super) fn has_alert_keys(db: &Connection) -> rusqlite::Result<bool> {
    Ok(columns_of(db, "health_alerts")?.iter().any(|name| name == "supervisor_key"))
}

/// Whether every table is there: somebody may have dropped one of a file whose version is right.
fn complete(db: &Connection) -> rusqlite::Result<bool> {
    let own = [("supervisor_records", 3)];
    for (table, columns) in SHARED.iter().map(|(table, columns)| (*table, columns.len())).chain(own) {
        if columns_of(db, table)?.len() < columns {
            return Ok(false);
        }
    }
    Ok(true)
}

fn columns_of(db: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut query = db.prepare("SELECT name FROM pragma_table_info(?1)")?;
    query.query_map([table], |row| row.get(0))?.collect()
}
