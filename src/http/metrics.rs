//! Series of what services used, and samples from other monitors.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::error::ApiError;
use super::extract::{Body, Known, Params, count, number};
use super::{convert, dto};
use crate::control::{Control, MetricQuery, MetricRow};
use crate::core::plan::Id;
use crate::core::snapshot::Health;
use crate::core::time::Wall;

const DEFAULT_POINTS: u32 = 300;
const MAX_POINTS: u32 = 5000;
/// A series without `since` begins so long before its end.
const DAY: i64 = 86_400_000;
/// Samples in one request at most.
const MAX_SAMPLES: usize = 1000;
/// Wrong rows that are named in one answer.
const NAMED: usize = 20;

/// The query as it comes.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Wanted {
    /// A time; a day before `until`, if it is left out.
    #[schemars(extend("format" = "date-time"))]
    since: Option<String>,
    /// A time; now, if it is left out.
    #[schemars(extend("format" = "date-time"))]
    until: Option<String>,
    /// How many points at most; 300, if it is left out.
    #[schemars(range(min = 1, max = MAX_POINTS))]
    #[serde(deserialize_with = "number")]
    points: Option<u32>,
}

pub(super) async fn series(
    State(control): State<Control>,
    known: Known,
    Params(wanted): Params<Wanted>,
) -> Result<Json<dto::Series>, ApiError> {
    let query = check(known.id, &wanted, convert::now_wall())?;
    let (id, since, until) =
        (query.service.to_string(), convert::time(query.since), convert::time(query.until));
    let points = control.history().metrics(query).await?;
    Ok(Json(dto::Series { id, since, until, points: points.into_iter().map(convert::metric).collect() }))
}

fn check(service: Id, wanted: &Wanted, now: Wall) -> Result<MetricQuery, ApiError> {
    let bad = |detail: String| ApiError::bad_request(format!("the query: {detail}"));
    let time = |name: &str, text: &Option<String>| {
        let parsed = text.as_ref().map(|text| text.parse::<Timestamp>()).transpose();
        let at = parsed.map_err(|_| bad(format!("{name} has to be a time such as 2026-01-31T08:15:00Z")))?;
        Ok::<_, ApiError>(at.map(|at| Wall(at.as_millisecond())))
    };
    let until = time("until", &wanted.until)?.unwrap_or(now);
    let since = time("since", &wanted.since)?.unwrap_or(Wall(until.0.saturating_sub(DAY)));
    if since >= until {
        return Err(bad("since has to be earlier than until".into()));
    }
    let points = count("points", wanted.points, DEFAULT_POINTS, MAX_POINTS)?;
    Ok(MetricQuery { service, since, until, points })
}

/// All of them or none.
pub(super) async fn add(
    State(control): State<Control>,
    Body(body): Body<Value>,
) -> Result<(StatusCode, Json<dto::Accepted>), ApiError> {
    let samples = match body {
        Value::Array(samples) => samples,
        one => vec![one],
    };
    if samples.len() > MAX_SAMPLES {
        let detail = format!("{} samples at once; send at most {MAX_SAMPLES}", samples.len());
        return Err(ApiError::bad_request(detail));
    }
    let (now, total) = (convert::now_wall(), samples.len());
    let (mut rows, mut wrong) = (Vec::with_capacity(total), Vec::new());
    for (n, sample) in samples.into_iter().enumerate() {
        match row(sample, now) {
            Ok(row) => rows.push(row),
            Err(why) => wrong.push(format!("sample {n}: {why}")),
        }
    }
    if !wrong.is_empty() {
        let (count, more) = (wrong.len(), wrong.len().saturating_sub(NAMED));
        wrong.truncate(NAMED);
        let rest = if more > 0 { format!("; and {more} more") } else { String::new() };
        return Err(ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "bad_samples",
            "Some samples are wrong",
            format!("{count} of {total} samples are wrong, none was stored: {}{rest}", wrong.join("; ")),
        ));
    }
    let services = rows.iter().map(|row| &row.service).collect::<BTreeSet<_>>().len();
    control.history().add_metrics(rows);
    Ok((StatusCode::ACCEPTED, Json(dto::Accepted { accepted: total, services })))
}

fn row(sample: Value, now: Wall) -> Result<MetricRow, String> {
    let sample: dto::Sample = serde_json::from_value(sample).map_err(|error| error.to_string())?;
    let service = Id::new(&sample.service_id).map_err(|error| format!("service_id: {error}"))?;
    let at = match &sample.timestamp {
        None => now,
        Some(text) => moment(text).ok_or_else(|| {
            "timestamp has to be a time such as 2026-01-31T08:15:00Z or 2026-01-31 08:15:00.000".to_owned()
        })?,
    };
    // Rows are kept in the order of time, and deleted in it.
    if at.0 > now.0.saturating_add(DAY) || at.0 < 0 {
        return Err("timestamp is more than a day ahead of this host, or before 1970".into());
    }
    let number = |name: &str, value: Option<f64>| match value {
        Some(value) if !(0.0..=1e12).contains(&value) => Err(format!("{name} is {value}; it cannot be that")),
        value => Ok(value),
    };
    Ok(MetricRow {
        service,
        at,
        cpu_percent: number("cpu_percent", sample.cpu_percent)?,
        memory_mb: number("memory_mb", sample.memory_mb)?,
        health: sample.health_status.as_deref().map(health).transpose()?,
        response_time_ms: number("response_time_ms", sample.response_time_ms)?,
        tasks: None,
        throttled: None,
    })
}

/// RFC 3339, or UTC as the tables have it.
fn moment(text: &str) -> Option<Wall> {
    let utc = |text: &str| format!("{}Z", text.trim()).parse::<Timestamp>();
    text.parse::<Timestamp>().or_else(|_| utc(text)).ok().map(|at| Wall(at.as_millisecond()))
}

fn health(word: &str) -> Result<Health, String> {
    serde_json::from_value(word.into())
        .map_err(|_| "health_status has to be unknown, healthy, degraded or unhealthy".into())
}

/// Of the last hour, for the detail of a service.
pub(super) fn recent(service: Id) -> MetricQuery {
    let until = convert::now_wall();
    MetricQuery { service, since: Wall(until.0.saturating_sub(3_600_000)), until, points: 60 }
}
