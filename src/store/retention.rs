//! What is too old or too much goes, a few rows at a time: other programs use the file too.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use rusqlite::{Connection, params};

use super::rows;
use crate::core::Wall;

/// Rows of one table that are looked at in one transaction: some milliseconds.
pub(super) const STEP: i64 = 500;

/// Rows at the start of a table that may be of the future and are passed over, as those of a time when the clock was
/// wrong: some milliseconds.
const AHEAD: i64 = 100_000;

/// Each table with the most rows that it may have, whatever their age: some 3 GB of metrics, 1 GB of events.
const TABLES: [(&str, i64); 2] = [("supervisor_metrics", 15_000_000), ("supervisor_events", 2_000_000)];

/// Deletes from the oldest rows of each table what is older than `older_than`; `true` if there may be more to delete.
/// Rows come in the order of time: only the first ones are looked at, so that this costs the same however large the
/// table is.
pub(super) fn clean(db: &Connection, older_than: Wall, now: Wall) -> rusqlite::Result<bool> {
    let mut more = false;
    for (table, most) in TABLES {
        more |= clean_table(db, table, most, older_than, now)? > 0;
    }
    Ok(more)
}

/// How many were deleted. A row whose time is no time counts as old.
fn clean_table(
    db: &Connection,
    table: &str,
    most: i64,
    older_than: Wall,
    now: Wall,
) -> rusqlite::Result<usize> {
    let values = params![rows::stamp(older_than), most, rows::stamp(now)];
    db.prepare_cached(&delete(table))?.execute(values)
}

/// ?1: what is older goes. ?2: so many may stay. ?3: now.
fn delete(table: &str) -> String {
    format!(
        "WITH first AS (SELECT id, timestamp, id <= (SELECT max(id) FROM {table}) - ?2 AS too_many
                        FROM (SELECT id, timestamp FROM {table} ORDER BY id LIMIT {AHEAD}))
         DELETE FROM {table} WHERE id IN (
             SELECT id FROM (SELECT * FROM first
                             WHERE timestamp <= ?3 OR timestamp IS NULL OR too_many LIMIT {STEP})
             WHERE timestamp < ?1 OR timestamp IS NULL OR too_many)"
    )
}

/// Sees the clock leap ahead: by a wrong one everything is old, and what is deleted stays so when it is set right.
pub(super) struct Leaps {
    running: Duration,
    wall: Wall,
}

impl Leaps {
    /// What the clock may gain on the time that passes, and how long a leap is waited out.
    pub const DAY: Duration = Duration::from_secs(86_400);

    /// From here on. `running`: since the machine was started, with the time that it slept.
    pub fn new(running: Duration, wall: Wall) -> Self {
        Self { running, wall }
    }

    /// How far ahead of the time that passed since it was asked last the clock is, where that is more than a day.
    pub fn ahead(&mut self, running: Duration, wall: Wall) -> Option<Duration> {
        let before = std::mem::replace(self, Self { running, wall });
        let expected = before.wall + running.saturating_sub(before.running);
        let ahead = u64::try_from(wall.0.saturating_sub(expected.0)).map(Duration::from_millis);
        ahead.ok().filter(|ahead| *ahead > Self::DAY)
    }
}

/// For [`Leaps`].
pub(super) fn running() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::testing::metric;
    use super::super::{file::Database, metrics, writer::now};
    use super::*;

    fn database() -> (tempfile::TempDir, Connection) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        drop(Database::open(&path, now()).unwrap());
        let db = Connection::open(path).unwrap();
        (folder, db)
    }

    fn left(db: &Connection) -> Vec<i64> {
        let mut query = db.prepare("SELECT id FROM supervisor_metrics ORDER BY id").unwrap();
        query.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn the_old_go_in_steps_and_the_young_stay() {
        let (_folder, db) = database();
        for n in 0..STEP * 2 + 10 {
            metrics::put(&db, &metric("a", n)).unwrap();
        }
        let clean = || clean(&db, Wall(STEP + 20), Wall(STEP * 3)).unwrap();
        assert!(clean());
        assert_eq!(left(&db).len() as i64, STEP + 10, "a step");
        assert!(clean());
        assert!(!clean());
        assert_eq!(left(&db)[0], STEP + 21, "ids count from 1");
    }

    #[test]
    fn those_of_the_future_keep_none_behind_them() {
        let (_folder, db) = database();
        for n in (0..STEP + 7).map(|n| 1_000_000 + n).chain(0..20) {
            metrics::put(&db, &metric("a", n)).unwrap();
        }
        assert!(clean(&db, Wall(15), Wall(1000)).unwrap());
        assert!(!clean(&db, Wall(15), Wall(1000)).unwrap());
        assert_eq!(left(&db).len() as i64, STEP + 7 + 5);
        assert!(clean_table(&db, "supervisor_metrics", 10, Wall(15), Wall(1000)).unwrap() > 0, "too many");
    }

    #[test]
    fn a_leap_of_the_clock_is_seen_once() {
        let (second, day) = (Duration::from_secs(1), Leaps::DAY);
        let at = |days: u32, seconds: u32| Wall(1_000_000) + day * days + second * seconds;
        let mut leaps = Leaps::new(day, at(0, 0));
        assert_eq!(leaps.ahead(day * 4, at(3, 5)), None, "three days of the machine, asleep or not");
        assert_eq!(leaps.ahead(day * 4 + second, at(400, 6)), Some(day * 397));
        assert_eq!(leaps.ahead(day * 5, at(401, 0)), None);
        assert_eq!(leaps.ahead(day * 5, at(2, 0)), None, "set right");
        assert_eq!(leaps.ahead(day * 5, at(3, 0)), None);
        assert_eq!(leaps.ahead(day * 5, at(4, 1)), Some(day + second));
    }

    #[test]
    fn the_number_of_rows_is_bounded() {
        let (_folder, db) = database();
        for n in 0..30 {
            metrics::put(&db, &metric("a", n)).unwrap();
        }
        assert_eq!(clean_table(&db, "supervisor_metrics", 10, Wall(0), Wall(100)).unwrap(), 20);
        assert_eq!(left(&db), (21..=30).collect::<Vec<_>>());
        assert_eq!(clean_table(&db, "supervisor_metrics", 10, Wall(0), Wall(100)).unwrap(), 0);
    }

    #[test]
    fn a_step_reads_in_the_order_of_ids_without_sorting() {
        let (_folder, db) = database();
        let mut plan = db.prepare(&format!("EXPLAIN QUERY PLAN {}", delete("supervisor_metrics"))).unwrap();
        let steps: Vec<String> =
            plan.query_map(params!["", 1, ""], |row| row.get(3)).unwrap().collect::<Result<_, _>>().unwrap();
        assert!(steps.iter().any(|step| step == "SCAN supervisor_metrics"), "{steps:?}");
        assert!(!steps.iter().any(|step| step.contains("TEMP B-TREE")), "{steps:?}");
    }
}
