//! Rows of metrics, and series of them put together by the database.

use rusqlite::{Connection, Row, params};

use super::rows;
use crate::control::{MetricPoint, MetricQuery, MetricRow, Spread};
use crate::core::Wall;
use crate::core::snapshot::Health;

/// Points of one answer at most, whatever is asked for.
const MOST_POINTS: u32 = 5_000;

/// Served by the index alone.
const SERIES: &str = "SELECT min(timestamp), count(*),
         min(cpu_percent), avg(cpu_percent), max(cpu_percent),
         min(memory_mb), avg(memory_mb), max(memory_mb),
         min(response_time_ms), avg(response_time_ms), max(response_time_ms),
         max(tasks), avg(throttled),
         max(CASE health_status WHEN 'unhealthy' THEN 4 WHEN 'degraded' THEN 3 WHEN 'healthy' THEN 2
             WHEN 'unknown' THEN 1 END)
     FROM supervisor_metrics
     WHERE service_id = ?1 AND timestamp >= ?2 AND timestamp < ?3
     GROUP BY (CAST(unixepoch(timestamp, 'subsec') * 1000 AS INTEGER) - ?4) / ?5
     ORDER BY 1";

pub(super) fn put(db: &Connection, row: &MetricRow) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO supervisor_metrics (service_id, timestamp, cpu_percent, memory_mb, health_status,
         response_time_ms, tasks, throttled) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        row.service.as_str(),
        rows::stamp(row.at),
        row.cpu_percent,
        row.memory_mb,
        row.health.map(Health::as_str),
        row.response_time_ms,
        row.tasks.map(u64::cast_signed),
        row.throttled,
    ])
    .map(drop)
}

/// A series: the time is cut into `points` parts, and the rows of each are put together.
pub(super) fn series(db: &Connection, query: &MetricQuery) -> rusqlite::Result<Vec<MetricPoint>> {
    let points = i64::from(query.points.clamp(1, MOST_POINTS));
    // Rounded up: not more points than were asked for.
    let step = (query.until.0.saturating_sub(query.since.0)).max(1).saturating_add(points - 1) / points;
    let mut rows = db.prepare(SERIES)?;
    let wanted = params![
        query.service.as_str(),
        rows::stamp(query.since),
        rows::stamp(query.until),
        query.since.0,
        step
    ];
    rows.query_map(wanted, point)?.collect()
}

fn point(row: &Row<'_>) -> rusqlite::Result<MetricPoint> {
    // A table of another program may hold anything: what is no number is not known.
    let number = |column: usize| row.get::<_, Option<f64>>(column).ok().flatten();
    let spread = |column: usize| {
        Some(Spread { min: number(column)?, avg: number(column + 1)?, max: number(column + 2)? })
    };
    let whole = |column: usize| row.get::<_, Option<i64>>(column).ok().flatten();
    Ok(MetricPoint {
        at: row.get::<_, String>(0).ok().and_then(|text| rows::moment(&text)).unwrap_or(Wall(0)),
        samples: whole(1).and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
        cpu_percent: spread(2),
        memory_mb: spread(5),
        response_time_ms: spread(8),
        tasks: whole(11).and_then(|n| u64::try_from(n).ok()),
        throttled: number(12),
        health: match whole(13) {
            Some(4) => Some(Health::Unhealthy),
            Some(3) => Some(Health::Degraded),
            Some(2) => Some(Health::Healthy),
            Some(1) => Some(Health::Unknown),
            _ => None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{id, metric};
    use super::super::{file::Database, writer::now};
    use super::*;

    #[test]
    fn rows_of_a_part_are_put_together() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        drop(Database::open(&path, now()).unwrap());
        let db = Connection::open(&path).unwrap();
        let start = 1_700_000_000_000;
        for n in 0..100 {
            let health = if n == 57 { Health::Unhealthy } else { Health::Healthy };
            let row = MetricRow {
                cpu_percent: Some(n as f64),
                health: Some(health),
                ..metric("a", start + n * 1000)
            };
            put(&db, &row).unwrap();
            put(&db, &metric("b", start + n * 1000)).unwrap();
        }
        let query =
            MetricQuery { service: id("a"), since: Wall(start), until: Wall(start + 100_000), points: 10 };
        let points = series(&db, &query).unwrap();
        assert_eq!(points.len(), 10);
        assert!(points.iter().all(|point| point.samples == 10));
        assert_eq!(points[3].cpu_percent, Some(Spread { min: 30.0, avg: 34.5, max: 39.0 }));
        assert_eq!(points[3].at, Wall(start + 30_000));
        let worst: Vec<_> = points.iter().map(|point| point.health == Some(Health::Unhealthy)).collect();
        assert_eq!(worst, [false, false, false, false, false, true, false, false, false, false]);
        for asked in [0, 1, 7, 33, u32::MAX] {
            let points = series(&db, &MetricQuery { points: asked, ..query.clone() }).unwrap();
            assert!(points.len() <= asked.clamp(1, 100) as usize, "{asked}: {}", points.len());
            assert_eq!(points.iter().map(|point| point.samples).sum::<u64>(), 100, "{asked}");
        }
        let explain = format!("EXPLAIN QUERY PLAN {SERIES}");
        let plan: String = db.query_row(&explain, params!["a", "1", "2", 0, 1], |row| row.get(3)).unwrap();
        let served =
            "USING COVERING INDEX supervisor_metrics_series (service_id=? AND timestamp>? AND timestamp<?)";
        assert!(plan.contains(served), "{plan}");
    }

    #[test]
    fn rows_of_other_programs_do_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        drop(Database::open(&path, now()).unwrap());
        let db = Connection::open(&path).unwrap();
        db.execute_batch(
            "INSERT INTO supervisor_metrics (service_id, timestamp, cpu_percent, memory_mb, health_status)
             VALUES ('a', '2023-11-14 22:13:20', 'lots', x'00', 'fine'), ('a', '2023-11-15', 1, NULL, 'healthy'),
             ('a', '2023-11-16T08:00:00Z', NULL, NULL, NULL), ('a', 'now?', 1, 1, 1), ('a', NULL, 1, 1, 1)",
        )
        .unwrap();
        let all = MetricQuery { service: id("a"), since: Wall(0), until: Wall(i64::MAX), points: 300 };
        assert!(!series(&db, &all).unwrap().is_empty());
    }
}
