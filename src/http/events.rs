//! What was.

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;

use super::error::ApiError;
use super::extract::{Params, count, number};
use super::{convert, dto};
use crate::control::{Control, EventQuery};
use crate::core::action::EntryKind;
use crate::core::plan::Id;
use crate::core::time::Wall;

const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 1000;

/// The query as it comes.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Wanted {
    /// How many at most; 50, if it is left out.
    #[schemars(range(min = 1, max = MAX_LIMIT))]
    #[serde(deserialize_with = "number")]
    limit: Option<u32>,
    /// Of this service alone, which need not be configured any more.
    #[schemars(regex(pattern = Id::PATTERN))]
    service: Option<String>,
    /// Of this type alone.
    #[serde(rename = "type")]
    #[schemars(with = "Option<EntryKind>")]
    kind: Option<String>,
    /// Not older than this time.
    #[schemars(extend("format" = "date-time"))]
    since: Option<String>,
    /// Older than this one: `next_before` of the page before.
    #[serde(deserialize_with = "number")]
    before: Option<i64>,
}

pub(super) async fn list(
    State(control): State<Control>,
    Params(wanted): Params<Wanted>,
) -> Result<Json<dto::Events>, ApiError> {
    let query = check(wanted)?;
    let limit = query.limit;
    let rows = control.history().events(query).await?;
    // A short page is the last one.
    let full = rows.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
    let next_before = rows.last().map(|row| row.id).filter(|_| full);
    Ok(Json(dto::Events { events: rows.into_iter().map(convert::event).collect(), next_before }))
}

fn check(wanted: Wanted) -> Result<EventQuery, ApiError> {
    let bad = |detail: String| ApiError::bad_request(format!("the query: {detail}"));
    let limit = count("limit", wanted.limit, DEFAULT_LIMIT, MAX_LIMIT)?;
    // A service that is no longer configured still has a past.
    let service = wanted
        .service
        .map(|id| Id::new(&id))
        .transpose()
        .map_err(|error| bad(format!("service: {error}")))?;
    let kind = wanted
        .kind
        .map(|kind| serde_json::from_value::<EntryKind>(kind.into()))
        .transpose()
        .map_err(|error| bad(format!("type: {error}")))?;
    let since = wanted
        .since
        .map(|text| text.parse::<Timestamp>())
        .transpose()
        .map_err(|_| bad("since has to be a time such as 2026-01-31T08:15:00Z".into()))?
        .map(|at| Wall(at.as_millisecond()));
    Ok(EventQuery { service, kind, since, before: wanted.before, after: None, limit })
}
