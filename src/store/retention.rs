//! What is too old or too much goes, a few rows at a time: other programs use the file too.

use rusqlite::{Connection, params};

use super::rows;
use crate::core::Wall;

/// Rows of one table that are looked at in one transaction: some milliseconds.
pub(super) const STEP: i64 = 500;

/// Each table with the most rows that it may have, whatever their age: some 3 GB of metrics, 1 GB of events.
const TABLES: [(&str, i64); 2] = [("supervisor_metrics", 15_000_000), ("supervisor_events", 2_000_000)];

/// Deletes from the oldest rows of each table; `true` if there may be more to delete. Rows come in the order of
/// time: only the first ones are looked at, so that this costs the same however large the table is.
pub(super) fn clean(db: &Connection, older_than: Wall) -> rusqlite::Result<bool> {
    let mut more = false;
    for (table, most) in TABLES {
        more |= clean_table(db, table, most, older_than)? > 0;
    }
    Ok(more)
}

/// How many were deleted. A row whose time is no time counts as old.
fn clean_table(db: &Connection, table: &str, most: i64, older_than: Wall) -> rusqlite::Result<usize> {
    db.prepare_cached(&format!(
        "DELETE FROM {table} WHERE id IN (
             SELECT id FROM (SELECT id, timestamp FROM {table} ORDER BY id LIMIT {STEP})
             WHERE timestamp < ?1 OR timestamp IS NULL OR id <= (SELECT max(id) FROM {table}) - ?2)"
    ))?
    .execute(params![rows::stamp(older_than), most])
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
        assert!(clean(&db, Wall(STEP + 20)).unwrap());
        assert_eq!(left(&db).len() as i64, STEP + 10, "a step");
        assert!(clean(&db, Wall(STEP + 20)).unwrap());
        assert!(!clean(&db, Wall(STEP + 20)).unwrap());
        assert_eq!(left(&db)[0], STEP + 21, "ids count from 1");
    }

    #[test]
    fn the_number_of_rows_is_bounded() {
        let (_folder, db) = database();
        for n in 0..30 {
            metrics::put(&db, &metric("a", n)).unwrap();
        }
        assert_eq!(clean_table(&db, "supervisor_metrics", 10, Wall(0)).unwrap(), 20);
        assert_eq!(left(&db), (21..=30).collect::<Vec<_>>());
        assert_eq!(clean_table(&db, "supervisor_metrics", 10, Wall(0)).unwrap(), 0);
    }

    #[test]
    fn a_step_does_not_read_the_whole_table() {
        let (_folder, db) = database();
        let sql = "EXPLAIN QUERY PLAN SELECT id, timestamp FROM supervisor_metrics ORDER BY id LIMIT 500";
        let plan: String = db.query_row(sql, [], |row| row.get(3)).unwrap();
        assert_eq!(plan, "SCAN supervisor_metrics", "in the order of ids, without sorting");
    }
}
