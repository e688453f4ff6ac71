//! What goes wrong, as a problem document: the status says whose turn it is, `detail` what to do.

use axum::Json;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use super::dto::{OrderAnswer, ProblemDocument};
use crate::config::Problem;
use crate::control::{Ended, HistoryError};
use crate::core::plan::Id;
use crate::core::snapshot::State;
use crate::spelling::nearest_name;

/// Seconds after which it is worth asking again where an answer is 503.
const RETRY_AFTER: &str = "5";

/// An answer that is an error. Boxed: it is the rare half of every handler's result.
#[derive(Debug)]
pub(super) struct ApiError(Box<ProblemDocument>);

impl ApiError {
    pub(super) fn new(status: StatusCode, kind: &str, title: &str, detail: impl Into<String>) -> Self {
        Self(Box::new(ProblemDocument {
            kind: format!("{}{kind}", ProblemDocument::KIND_PREFIX),
            title: title.into(),
            status: status.as_u16(),
            detail: detail.into(),
            ..ProblemDocument::default()
        }))
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", "The request cannot be understood", detail)
    }

    pub(super) fn unknown_service<'a>(asked: &str, known: impl Iterator<Item = &'a Id>) -> Self {
        Self::unknown("service", asked, known)
    }

    pub(super) fn unknown_group<'a>(asked: &str, known: impl Iterator<Item = &'a Id>) -> Self {
        Self::unknown("group", asked, known)
    }

    fn unknown<'a>(what: &str, asked: &str, known: impl Iterator<Item = &'a Id>) -> Self {
        let known: Vec<&str> = known.map(Id::as_str).collect();
        let near = nearest_name(asked, known.iter().copied());
        let hint = match near {
            Some(near) => format!("did you mean \"{near}\"?"),
            None if known.is_empty() => format!("the configuration has no {what}s"),
            None => format!("`supervisorctl status` lists what there is ({} {what}s)", known.len()),
        };
        let asked: String = asked.chars().take(100).collect();
        let mut error = Self::new(
            StatusCode::NOT_FOUND,
            &format!("unknown_{what}"),
            &format!("No such {what}"),
            format!("there is no {what} \"{}\": {hint}", asked.escape_debug()),
        );
        error.0.nearest = near.map(Into::into);
        error
    }

    /// It cannot be, and why.
    pub(super) fn refused(service: &Id, state: State, why: String) -> Self {
        let mut error = Self::new(StatusCode::CONFLICT, "refused", "The service cannot do that now", why);
        error.0.id = Some(service.to_string());
        error.0.state = Some(state.as_str().into());
        error
    }

    /// Some services of a group did not do what was asked.
    pub(super) fn group_refused(group: &Id, verb: &str, outcomes: Vec<OrderAnswer>) -> Self {
        let failed: Vec<String> =
            outcomes.iter().filter(|o| o.refused).map(|o| format!("{}: {}", o.id, o.message)).collect();
        let mut error = Self::new(
            StatusCode::CONFLICT,
            "refused",
            "Not all services of the group did that",
            format!(
                "{verb} of group {group}: {} of {} failed ({})",
                failed.len(),
                outcomes.len(),
                failed.join("; ")
            ),
        );
        error.0.outcomes = outcomes;
        error
    }

    /// All of `most` streams are taken.
    pub(super) fn too_many_streams(most: usize) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too_many_streams",
            "Too many streams",
            format!("{most} streams are open, which is the most; close some, or ask again later"),
        )
    }

    /// The configuration is wrong.
    pub(super) fn bad_config(errors: Vec<Problem>) -> Self {
        let mut error = Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "bad_configuration",
            "The configuration has errors",
            format!(
                "{} {} in the configuration; nothing was changed and the old configuration goes on. Correct the file \
                 and reload again",
                errors.len(),
                if errors.len() == 1 { "error" } else { "errors" }
            ),
        );
        error.0.errors = errors;
        error
    }
}

impl From<Ended> for ApiError {
    fn from(_: Ended) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ending",
            "The supervisor is ending",
            "the supervisor is ending, and the outcome is not known: ask again when it is back",
        )
    }
}

impl From<HistoryError> for ApiError {
    fn from(error: HistoryError) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "history_unavailable",
            "The event history cannot be read",
            format!("{error}; services are supervised all the same, see the journal of process-supervisor"),
        )
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.0)).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
        }
        response
    }
}

pub(super) async fn no_such_route(uri: Uri) -> ApiError {
    let path: String = uri.path().chars().take(200).collect();
    ApiError::new(
        StatusCode::NOT_FOUND,
        "unknown_route",
        "No such route",
        format!("there is nothing at {path}; the API begins at /api/supervisor/status"),
    )
}

pub(super) async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let path: String = uri.path().chars().take(200).collect();
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "wrong_method",
        "Wrong method",
        format!("{path} does not take {method}; the Allow header lists what it takes"),
    )
}
