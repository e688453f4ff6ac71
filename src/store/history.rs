//! Reading events, alerts and metrics, on connections that cannot write. A writer never holds a reader up (WAL), nor the reverse.

use std::path::Path;
use std::time::Duration;

use futures_util::future::BoxFuture;
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use tokio::sync::watch;

use super::error::{Class, StoreError, class};
use super::writer::{Shared, now};
use super::{Store, alerts, file, metrics, rows};
use crate::control::{
    AlertQuery, AlertRow, Changes, EventQuery, EventRow, History, HistoryError, MetricPoint, MetricQuery,
    MetricRow, StoreState,
};
use crate::core::Wall;
use crate::core::action::EntryKind;

/// Rows of one answer at most, whatever is asked for.
const PAGE: u32 = 1_000;
/// A database in trouble holds nobody up for longer.
const FLUSH: Duration = Duration::from_millis(250);

impl History for Store {
    fn events(&self, query: EventQuery) -> BoxFuture<'_, Result<Vec<EventRow>, HistoryError>> {
        self.read(move |db| {
            let (sql, values) = select(&query);
            db.prepare(&sql)?.query_map(params_from_iter(values), rows::get_event)?.collect()
        })
    }

    fn alerts(&self, query: AlertQuery) -> BoxFuture<'_, Result<Vec<AlertRow>, HistoryError>> {
        self.read(move |db| {
            let (sql, values) = alerts::select(&query);
            db.prepare(&sql)?.query_map(params_from_iter(values), alerts::get)?.collect()
        })
    }

    fn count(&self, kind: EntryKind, since: Wall) -> BoxFuture<'_, Result<u64, HistoryError>> {
        self.read(move |db| {
            // What a wrong clock wrote into the future has not been yet.
            let sql = "SELECT count(*) FROM supervisor_events
                       WHERE event_type = ?1 AND timestamp BETWEEN ?2 AND ?3";
            let values = (rows::word(kind), rows::stamp(since), rows::stamp(now()));
            let n: i64 = db.query_row(sql, values, |row| row.get(0))?;
            Ok(n.unsigned_abs())
        })
    }

    fn metrics(&self, query: MetricQuery) -> BoxFuture<'_, Result<Vec<MetricPoint>, HistoryError>> {
        self.read(move |db| metrics::series(db, &query))
    }

    fn add_metrics(&self, rows: Vec<MetricRow>) {
        self.measured(rows);
    }

    fn changes(&self) -> watch::Receiver<Changes> {
        self.shared.changes.subscribe()
    }

    fn flushed(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            // Where it is not, it is told as trouble.
            let _in_time = Store::flushed(self, FLUSH).await;
        })
    }

    fn state(&self) -> StoreState {
        let (progress, events) = (*self.shared.progress.borrow(), self.shared.lock().pending.recorded());
        StoreState { troubled: progress.troubled, events, bytes: progress.size }
    }
}

impl Store {
    /// On a connection and a thread of its own.
    fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, HistoryError>> {
        let (path, shared) = (self.path.clone(), self.shared.clone());
        Box::pin(async move {
            match tokio::task::spawn_blocking(move || read(&path, &shared, question)).await {
                Ok(answer) => answer,
                Err(error) => Err(HistoryError(error.to_string())),
            }
        })
    }
}

fn read<T>(
    path: &Path,
    shared: &Shared,
    question: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> Result<T, HistoryError> {
    file::read_only(path).and_then(|db| question(&db)).map_err(|error| {
        if class(&error) == Class::Corrupt {
            shared.change(|queue| queue.suspect = true);
        }
        HistoryError(format!("{}: {}", path.display(), StoreError::from(error)))
    })
}

/// Only the conditions that are asked for, so that an index can serve them.
fn select(query: &EventQuery) -> (String, Vec<Value>) {
    let mut sql = String::from(
        "SELECT id, service_id, event_type, timestamp, message, details FROM supervisor_events WHERE 1",
    );
    let mut values = Vec::new();
    let mut only = |condition: &str, value: Option<Value>| {
        if let Some(value) = value {
            values.push(value);
            sql.push_str(&format!(" AND {condition} ?{}", values.len()));
        }
    };
    only("service_id =", query.service.as_ref().map(|id| id.as_str().to_owned().into()));
    only("event_type =", query.kind.map(|kind| rows::word(kind).into()));
    only("timestamp >=", query.since.map(|since| rows::stamp(since).into()));
    only("id <", query.before.map(Value::from));
    only("id >", query.after.map(Value::from));
    let order = if query.after.is_some() { "ASC" } else { "DESC" };
    sql.push_str(&format!(" ORDER BY id {order} LIMIT {}", query.limit.min(PAGE)));
    (sql, values)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{entry, id};
    use super::*;

    #[test]
    fn filters_are_served_by_indices_without_sorting_everything() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        drop(file::Database::open(&path, now()).unwrap());
        let db = rusqlite::Connection::open(&path).unwrap();
        let all = EventQuery { limit: 10, ..EventQuery::default() };
        for (query, index) in [
            (EventQuery { service: Some(id("a")), ..all.clone() }, "supervisor_events_by_service"),
            (
                EventQuery { service: Some(id("a")), before: Some(9), ..all.clone() },
                "supervisor_events_by_service",
            ),
            (EventQuery { kind: Some(EntryKind::GaveUp), ..all.clone() }, "supervisor_events_by_type"),
            (EventQuery { after: Some(5), before: Some(9), ..all.clone() }, "PRIMARY KEY"),
            (
                EventQuery { service: Some(id("a")), after: Some(5), ..all.clone() },
                "supervisor_events_by_service",
            ),
            (all.clone(), "SCAN supervisor_events"),
        ] {
            let (sql, values) = select(&query);
            let mut plan = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let steps: Vec<String> = plan
                .query_map(rusqlite::params_from_iter(values), |row| row.get(3))
                .unwrap()
                .collect::<Result<_, _>>()
                .unwrap();
            assert!(steps.len() == 1 && steps[0].contains(index), "{query:?}: {steps:?}");
        }
    }

    #[tokio::test]
    async fn its_own_state_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(&folder.path().join("a.db"), folder.path().join("aside"), |_| {});
        store.event(&entry(Some("web"), EntryKind::GaveUp, "one"), Wall(1));
        assert!(store.flushed(std::time::Duration::from_secs(30)).await);
        let state = store.state();
        assert_eq!((state.troubled, state.events), (false, 1));
        assert!(state.bytes >= Some(4096), "{state:?}");
        assert!(store.close(std::time::Duration::from_secs(30)).await);
        let (store, _) =
            Store::open(&folder.path().join("a.db/below-a-file.db"), folder.path().join("aside"), |_| {});
        let state = store.state();
        assert_eq!((state.troubled, state.bytes), (true, None));
    }

    #[tokio::test]
    async fn what_is_too_long_ago_or_not_yet_is_not_counted() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(&folder.path().join("a.db"), folder.path().join("aside"), |_| {});
        let (now, hour) = (now().0, 3_600_000);
        for at in [now - 2 * hour, now - 1, now + hour] {
            store.event(&entry(Some("web"), EntryKind::RestartScheduled, "again"), Wall(at));
        }
        store.event(&entry(Some("web"), EntryKind::GaveUp, "no more"), Wall(now - 1));
        assert!(store.flushed(std::time::Duration::from_secs(30)).await);
        assert_eq!(store.count(EntryKind::RestartScheduled, Wall(now - hour)).await.unwrap(), 1);
    }

    #[test]
    fn an_answer_is_bounded() {
        let (sql, _) = select(&EventQuery { limit: u32::MAX, since: Some(Wall(0)), ..EventQuery::default() });
        assert!(sql.ends_with("LIMIT 1000"), "{sql}");
    }
}
