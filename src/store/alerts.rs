//! Rows of `health_alerts`. Ours carry a key in a column of our own; rows of other programs are shown, and never
//! changed but by a person's word.

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, Row, params};
use serde_json::{Map, Value};

use super::rows::{instant, moment, shown, stamp};
use crate::control::{AlertQuery, AlertRow};
use crate::core::Wall;
use crate::core::alert::{Alert, AlertKey};

/// Rows of one answer at most, whatever is asked for.
const PAGE: u32 = 1_000;

/// What is to be written of one alert. Later ones go on top of earlier ones.
#[derive(Debug, Clone, Default)]
pub(super) struct Patch {
    /// As it is now; `None` where it was raised by an earlier daemon and only its end is new.
    pub alert: Option<Alert>,
    /// More for the details: the log, why it is over.
    pub more: Map<String, Value>,
    pub resolved: Option<Wall>,
}

impl Patch {
    /// Puts `newer` on top.
    pub fn merge(&mut self, newer: Self) {
        self.alert = newer.alert.or(self.alert.take());
        self.more.extend(newer.more);
        self.resolved = newer.resolved.or(self.resolved);
    }
}

/// The row is found by its key: writing it twice makes no second one.
pub(super) fn put(db: &Connection, key: &AlertKey, patch: &Patch) -> rusqlite::Result<()> {
    let mut details = Map::new();
    for (name, value) in patch.alert.iter().flat_map(|alert| &alert.details) {
        details.insert((*name).into(), value.clone());
    }
    details.extend(patch.more.clone());
    let details = dated(Value::Object(details)).to_string();
    let (name, resolved) = (key.to_string(), patch.resolved.map(stamp));
    let changed = db
        .prepare_cached(
            "UPDATE health_alerts SET severity = coalesce(?2, severity), message = coalesce(?3, message),
             details = json_patch(CASE WHEN json_valid(details) THEN details ELSE '{}' END, ?4),
             resolved_at = coalesce(?5, resolved_at) WHERE supervisor_key = ?1",
        )?
        .execute(params![
            name,
            patch.alert.as_ref().map(|alert| alert.severity.as_str()),
            patch.alert.as_ref().map(|alert| &alert.message),
            details,
            resolved
        ])?;
    let Some(alert) = patch.alert.as_ref().filter(|_| changed == 0) else { return Ok(()) };
    db.prepare_cached(
        "INSERT INTO health_alerts (service_id, alert_type, severity, message, details, created_at, resolved_at,
         supervisor_key) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        key.service.as_ref().map(crate::core::plan::Id::as_str),
        key.kind.as_str(),
        alert.severity.as_str(),
        alert.message,
        details,
        stamp(key.raised),
        resolved,
        name
    ])
    .map(drop)
}

/// The first acknowledgement counts.
pub(super) fn acknowledge(db: &Connection, id: i64, at: Wall) -> rusqlite::Result<()> {
    db.prepare_cached(
        "UPDATE health_alerts SET acknowledged_at = coalesce(acknowledged_at, ?2) WHERE id = ?1",
    )?
    .execute(params![id, stamp(at)])
    .map(drop)
}

/// Those of ours that nobody resolved yet.
pub(super) fn open(db: &Connection) -> rusqlite::Result<Vec<AlertKey>> {
    let mut query = db.prepare(
        "SELECT supervisor_key FROM health_alerts WHERE supervisor_key IS NOT NULL AND resolved_at IS NULL
         ORDER BY id DESC",
    )?;
    let keys = query.query_map([], |row| Ok(shown(row.get_ref(0)?)))?;
    let keys: Vec<Option<String>> = keys.collect::<Result<_, _>>()?;
    Ok(keys.into_iter().flatten().filter_map(|key| AlertKey::parse(&key)).collect())
}

pub(super) fn select(query: &AlertQuery) -> (String, Vec<Sql>) {
    let (filter, values) = match (query.id, query.all, query.since) {
        (Some(id), ..) => ("id = ?1", vec![id.into()]),
        (None, true, _) => ("1", Vec::new()),
        (None, false, None) => ("resolved_at IS NULL", Vec::new()),
        (None, false, Some(since)) => {
            ("(resolved_at IS NULL OR resolved_at >= ?1)", vec![stamp(since).into()])
        }
    };
    let sql = format!(
        "SELECT id, service_id, alert_type, severity, message, details, created_at, acknowledged_at, resolved_at
         FROM health_alerts WHERE {filter} ORDER BY resolved_at IS NOT NULL, id DESC LIMIT {}",
        query.limit.min(PAGE)
    );
    (sql, values)
}

/// A row of ours or of another program: whatever is in it, it can be shown.
pub(super) fn get(row: &Row<'_>) -> rusqlite::Result<AlertRow> {
    let text = |column| Ok::<_, rusqlite::Error>(shown(row.get_ref(column)?));
    let time = |column| Ok::<_, rusqlite::Error>(text(column)?.map(|text| moment(&text).unwrap_or_default()));
    let details = text(5)?.unwrap_or_default();
    Ok(AlertRow {
        id: row.get(0)?,
        service: text(1)?,
        kind: text(2)?.unwrap_or_default(),
        severity: text(3)?.unwrap_or_default(),
        message: text(4)?.unwrap_or_default(),
        details: match serde_json::from_str(&details) {
            Ok(value) => value,
            Err(_) if details.is_empty() => Value::Null,
            Err(_) => details.into(),
        },
        created_at: time(6)?.unwrap_or_default(),
        acknowledged_at: time(7)?,
        resolved_at: time(8)?,
    })
}

/// `{"since_ms": 0}` becomes `{"since": "1970-01-01T00:00:00.000Z"}`, at any depth: the core knows no calendar. Not as in
/// the columns, since the API shows details as they are.
fn dated(value: Value) -> Value {
    match value {
        Value::Array(values) => Value::Array(values.into_iter().map(dated).collect()),
        Value::Object(members) => Value::Object(
            members
                .into_iter()
                .map(|(name, value)| match (name.strip_suffix("_ms"), value.as_i64()) {
                    (Some(plain), Some(at)) => (plain.to_owned(), instant(Wall(at)).into()),
                    _ => (name, dated(value)),
                })
                .collect(),
        ),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn moments_become_dates_at_any_depth() {
        assert_eq!(
            dated(
                json!({"since_ms": 0, "probes": [{"at_ms": 1, "message": "m"}], "attempt": 2, "x_ms": "y"})
            ),
            json!({"since": "1970-01-01T00:00:00.000Z",
                "probes": [{"at": "1970-01-01T00:00:00.001Z", "message": "m"}], "attempt": 2, "x_ms": "y"})
        );
    }
}
