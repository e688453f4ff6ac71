//! Core values to rows and back. Timestamps are UTC text, `YYYY-MM-DD HH:MM:SS.SSS`.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, params};

use super::pending::{EventLine, Gap};
use crate::control::EventRow;
use crate::core::action::{Entry, EntryKind, Record};
use crate::core::plan::Id;
use crate::core::snapshot::ServiceView;
use crate::core::{Mono, Wall};

/// Longest event message, in bytes; the rest is cut.
const MESSAGE: usize = 8 << 10;
/// Longest details of an event, in bytes; longer ones are left out.
const DETAILS: usize = 64 << 10;

/// As the tables have it. Sorts as time does.
pub(super) fn stamp(at: Wall) -> String {
    timestamp(at).strftime("%Y-%m-%d %H:%M:%S.%3f").to_string()
}

/// RFC 3339, as inside of details.
pub(super) fn instant(at: Wall) -> String {
    format!("{:.3}", timestamp(at))
}

fn timestamp(at: Wall) -> Timestamp {
    let clamped = at.0.clamp(0, Timestamp::MAX.as_second() * 1000); // in the year 9999: always four digits
    Timestamp::from_millisecond(clamped).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The moment in a column; other programs write `T`, `Z`, an offset, or no fraction.
pub(super) fn moment(text: &str) -> Option<Wall> {
    let absolute = text.parse::<Timestamp>();
    let utc = |civil: DateTime| civil.to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp());
    let time = absolute.or_else(|_| text.parse::<DateTime>().and_then(utc));
    time.ok().map(|time| Wall(time.as_millisecond()))
}

/// The word of the contract.
pub(super) fn word(kind: EntryKind) -> String {
    match serde_json::to_value(kind) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

pub(super) fn line(entry: &Entry, at: Wall) -> EventLine {
    let mut message = entry.message.clone();
    if message.len() > MESSAGE {
        message.truncate(message.floor_char_boundary(MESSAGE));
        message.push('…');
    }
    let details = serde_json::to_string(&entry.details).unwrap_or_default();
    let details =
        if details.len() > DETAILS { format!(r#"{{"omitted_bytes":{}}}"#, details.len()) } else { details };
    EventLine { service: entry.service.clone(), kind: word(entry.kind), at, message, details }
}

/// The event that stands for those that were dropped.
pub(super) fn gap(gap: &Gap, now: Wall) -> EventLine {
    let (first, last) = (stamp(gap.first), stamp(gap.last));
    EventLine {
        service: None,
        kind: word(EntryKind::DatabaseTrouble),
        at: now,
        message: format!(
            "{} events from {first} to {last} are missing here: the database could not be written for so long \
             that they had to be dropped; the supervisor's log has them",
            gap.count
        ),
        details: serde_json::json!({"dropped": gap.count, "first": first, "last": last}).to_string(),
    }
}

pub(super) fn put_event(db: &Connection, line: &EventLine) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO supervisor_events (service_id, event_type, timestamp, message, details)
         VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![
        line.service.as_ref().map(Id::as_str),
        line.kind,
        stamp(line.at),
        line.message,
        line.details
    ])
    .map(drop)
}

pub(super) fn put_record(db: &Connection, id: &Id, record: &Record, now: Wall) -> rusqlite::Result<()> {
    let text = serde_json::to_string(record)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    db.prepare_cached(
        "INSERT INTO supervisor_records (service_id, record, written_at) VALUES (?1, ?2, ?3)
         ON CONFLICT (service_id) DO UPDATE SET record = excluded.record, written_at = excluded.written_at",
    )?
    .execute(params![id.as_str(), text, stamp(now)])
    .map(drop)
}

/// A record and its service, or why the row cannot be read.
pub(super) fn get_record(row: &Row<'_>) -> Result<(Id, Record), String> {
    let text = |column| row.get_ref(column).ok().and_then(|value| value.as_str().ok());
    let name = text(0).unwrap_or("?");
    let reason = |error: &dyn std::fmt::Display| format!("record of {name:?}: {error}");
    let id = Id::new(name).map_err(|error| reason(&error))?;
    let record = text(1).ok_or_else(|| reason(&"not text"))?;
    let record = serde_json::from_str(record).map_err(|error| reason(&error))?;
    Ok((id, record))
}

/// Update, else insert: a table that another program made may lack the key that an upsert needs.
pub(super) fn put_view(db: &Connection, view: &ServiceView) -> rusqlite::Result<()> {
    let plan = &view.plan;
    let row = params![
        plan.id.as_str(),
        plan.name,
        plan.description,
        view.state.as_str(),
        view.pid,
        plan.port,
        view.started_at.map(stamp),
        uptime(view).as_secs().cast_signed(),
        view.restart_count.cast_signed(),
        view.last_restart.map(stamp),
        plan.priority,
        plan.critical,
        plan.auto_restart,
    ];
    let changed = db
        .prepare_cached(
            "UPDATE supervisor_services SET name = ?2, description = ?3, state = ?4, pid = ?5, port = ?6,
             start_time = ?7, uptime_seconds = ?8, restart_count = ?9, last_restart = ?10, priority = ?11,
             critical = ?12, auto_restart = ?13 WHERE id = ?1",
        )?
        .execute(row)?;
    if changed == 0 {
        db.prepare_cached(
            "INSERT INTO supervisor_services (id, name, description, state, pid, port, start_time,
             uptime_seconds, restart_count, last_restart, priority, critical, auto_restart)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        )?
        .execute(row)?;
    }
    Ok(())
}

pub(super) fn delete(db: &Connection, id: &Id) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM supervisor_records WHERE service_id = ?1")?.execute([id.as_str()])?;
    db.prepare_cached("DELETE FROM supervisor_services WHERE id = ?1")?.execute([id.as_str()])?;
    Ok(())
}

/// An event row of ours or of another program: whatever is in it, it can be shown.
pub(super) fn get_event(row: &Row<'_>) -> rusqlite::Result<EventRow> {
    let text = |column| Ok::<_, rusqlite::Error>(shown(row.get_ref(column)?));
    let details = text(5)?.unwrap_or_default();
    Ok(EventRow {
        id: row.get(0)?,
        service: text(1)?,
        kind: text(2)?.unwrap_or_default(),
        at: text(3)?.and_then(|text| moment(&text)).unwrap_or_default(),
        message: text(4)?.unwrap_or_default(),
        details: match serde_json::from_str(&details) {
            Ok(value) => value,
            Err(_) if details.is_empty() => serde_json::Value::Null,
            Err(_) => details.into(),
        },
    })
}

pub(super) fn shown(value: ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Real(number) => Some(number.to_string()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
    }
}

/// Of a service that has a process; else zero.
fn uptime(view: &ServiceView) -> Duration {
    match (view.pid, view.started_mono, nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)) {
        (Some(_), Some(started), Ok(now)) => Mono(now.into()) - started,
        _ => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_utc_text_with_milliseconds() {
        for (millis, text) in [
            (0, "1970-01-01 00:00:00.000"),
            (1_700_000_000_123, "2023-11-14 22:13:20.123"),
            (1_700_000_000_100, "2023-11-14 22:13:20.100"),
            (253_402_207_200_000, "9999-12-30 22:00:00.000"),
        ] {
            assert_eq!(stamp(Wall(millis)), text);
            assert_eq!(moment(text), Some(Wall(millis)));
        }
        assert_eq!(stamp(Wall(i64::MAX)), "9999-12-30 22:00:00.000");
        assert_eq!(stamp(Wall(i64::MIN)), "1970-01-01 00:00:00.000");
    }

    #[test]
    fn other_programs_stamps_are_read() {
        let at = Some(Wall(1_700_000_000_000));
        for text in [
            "2023-11-14 22:13:20",
            "2023-11-14T22:13:20",
            "2023-11-14T22:13:20Z",
            "2023-11-14T22:13:20.000000",
            "2023-11-14T23:13:20+01:00",
            "2023-11-14 23:13:20.000+01:00",
        ] {
            assert_eq!(moment(text), at, "{text}");
        }
        for text in ["", "yesterday", "1700000000"] {
            assert_eq!(moment(text), None, "{text}");
        }
    }

    #[test]
    fn huge_entries_are_cut() {
        let mut entry = super::super::testing::entry(None, EntryKind::ServiceFailed, &"ä".repeat(MESSAGE));
        entry.details.insert("dump", "x".repeat(DETAILS).into());
        let line = line(&entry, Wall(0));
        assert!(line.message.len() <= MESSAGE + 4 && line.message.ends_with("ä…"));
        assert!(line.details.starts_with(r#"{"omitted_bytes":"#), "{}", line.details);
    }
}
