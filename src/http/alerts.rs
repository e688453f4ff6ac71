//! Alerts: what is open, what was, and that somebody has seen it.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;

use super::access::Caller;
use super::error::ApiError;
use super::extract::{Params, count, number, switch};
use super::serve::Origin;
use super::{convert, dto};
use crate::control::{AlertQuery, Control};

const DEFAULT_LIMIT: u32 = 100;
const MAX_LIMIT: u32 = 1000;

/// The query as it comes.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Wanted {
    /// Those that are over, too.
    #[serde(deserialize_with = "switch")]
    all: bool,
    /// How many at most; 100, if it is left out.
    #[schemars(range(min = 1, max = MAX_LIMIT))]
    #[serde(deserialize_with = "number")]
    limit: Option<u32>,
}

pub(super) async fn list(
    State(control): State<Control>,
    Params(wanted): Params<Wanted>,
    caller: Caller,
) -> Result<Json<dto::Alerts>, ApiError> {
    let limit = count("limit", wanted.limit, DEFAULT_LIMIT, MAX_LIMIT)?;
    let query = AlertQuery { all: wanted.all, limit, ..AlertQuery::default() };
    let rows = control.history().alerts(query).await?;
    Ok(Json(dto::Alerts { alerts: rows.into_iter().map(|row| convert::alert(row, caller)).collect() }))
}

/// Doing it again changes nothing.
pub(super) async fn acknowledge(
    State(control): State<Control>,
    Path(number): Path<String>,
    caller: Caller,
    origin: Origin,
) -> Result<Json<dto::Alert>, ApiError> {
    let row = match number.parse::<i64>() {
        Ok(number) => control.acknowledge(number, origin.0).await??,
        Err(_) => None,
    };
    match row {
        Some(row) => Ok(Json(convert::alert(row, caller))),
        None => Err(unknown(&number)),
    }
}

fn unknown(number: &str) -> ApiError {
    let number: String = number.chars().take(30).collect();
    ApiError::new(
        StatusCode::NOT_FOUND,
        "unknown_alert",
        "No such alert",
        format!(
            "there is no alert \"{}\": `supervisorctl alerts --all` lists what there is",
            number.escape_debug()
        ),
    )
}
