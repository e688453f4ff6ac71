//! What may come in, checked: a wrong path, query or body is a problem document that says what was expected.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use serde::de::{DeserializeOwned, Deserializer, Error as _};
use serde::{Deserialize, de};

use super::error::ApiError;
use crate::control::Control;
use crate::core::plan::Id;
use crate::core::snapshot::ServiceView;

/// How long a client may take over a body.
const BODY_TIME: Duration = Duration::from_secs(10);

/// A service that exists.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) id: Id,
    pub(super) view: Arc<ServiceView>,
}

impl FromRequestParts<Control> for Known {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, control: &Control) -> Result<Self, ApiError> {
        let asked = path_id(parts).await?;
        let snapshot = control.snapshot();
        match snapshot.services.get_key_value(asked.as_str()) {
            Some((id, view)) => Ok(Self { id: id.clone(), view: view.clone() }),
            None => Err(ApiError::unknown_service(&asked, snapshot.services.keys())),
        }
    }
}

/// A group that exists, and its services in start order.
#[derive(Debug)]
pub(super) struct KnownGroup {
    pub(super) id: Id,
    pub(super) members: Vec<Arc<ServiceView>>,
}

impl FromRequestParts<Control> for KnownGroup {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, control: &Control) -> Result<Self, ApiError> {
        let asked = path_id(parts).await?;
        let snapshot = control.snapshot();
        match snapshot.groups.get_key_value(asked.as_str()) {
            Some((id, members)) => Ok(Self {
                id: id.clone(),
                members: members.iter().filter_map(|m| snapshot.services.get(m)).cloned().collect(),
            }),
            None => Err(ApiError::unknown_group(&asked, snapshot.groups.keys())),
        }
    }
}

async fn path_id(parts: &mut Parts) -> Result<String, ApiError> {
    let Path(asked) = Path::<String>::from_request_parts(parts, &())
        .await
        .map_err(|rejection| misread("the path", &rejection.body_text()))?;
    Ok(asked)
}

/// The query, of which every key is known.
#[derive(Debug)]
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(misread("the query", &rejection.body_text())),
        }
    }
}

/// A JSON body.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;
    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let read = tokio::time::timeout(BODY_TIME, Json::<T>::from_request(request, state)).await;
        match read {
            Ok(Ok(Json(value))) => Ok(Self(value)),
            Ok(Err(JsonRejection::MissingJsonContentType(_))) => Err(ApiError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "not_json",
                "The body is not JSON",
                format!("send the body as JSON, with the header {}: application/json", header::CONTENT_TYPE),
            )),
            Ok(Err(rejection)) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => Err(ApiError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_large",
                "The body is too large",
                format!("the body may have at most {} bytes", super::BODY_LIMIT),
            )),
            Ok(Err(rejection)) => Err(misread("the body", &rejection.body_text())),
            Err(_) => Err(ApiError::new(
                StatusCode::REQUEST_TIMEOUT,
                "too_slow",
                "The body did not arrive",
                format!("the body did not arrive within {} s; send it again", BODY_TIME.as_secs()),
            )),
        }
    }
}

/// A part of the request that is not what it has to be. axum begins with what it tried, which helps nobody.
fn misread(part: &str, said: &str) -> ApiError {
    let tried = [
        "Failed to deserialize query string: ",
        "Failed to deserialize the JSON body into the target type: ",
    ];
    let why = tried.iter().find_map(|tried| said.strip_prefix(tried)).unwrap_or(said);
    ApiError::bad_request(format!("{part}: {why}"))
}

/// A number of the query from 1 to `most`, or `usual` where there is none.
pub(super) fn count(name: &str, asked: Option<u32>, usual: u32, most: u32) -> Result<u32, ApiError> {
    let count = asked.unwrap_or(usual);
    if (1..=most).contains(&count) {
        return Ok(count);
    }
    Err(ApiError::bad_request(format!("the query: {name} is {count}; it can be 1 to {most}")))
}

/// A switch in a query: `?x`, `?x=true`, `?x=1`, `?x=false`, `?x=0`.
pub(super) fn switch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "" | "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        other => Err(D::Error::invalid_value(de::Unexpected::Str(other), &"true or false")),
    }
}

/// A whole number in a query.
pub(super) fn number<'de, D: Deserializer<'de>, N: FromStr>(deserializer: D) -> Result<Option<N>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let number =
        text.parse().map_err(|_| D::Error::invalid_value(de::Unexpected::Str(&text), &"a whole number"));
    number.map(Some)
}

/// Seconds in a query, up to a day.
pub(super) fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse::<f64>()
        .ok()
        .filter(|seconds| (0.0..=86_400.0).contains(seconds))
        .map(|seconds| Some(Duration::from_secs_f64(seconds)))
        .ok_or_else(|| D::Error::invalid_value(de::Unexpected::Str(&text), &"seconds from 0 to 86400"))
}
