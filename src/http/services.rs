//! What is: one service or all. Answered from the snapshot, never from the loop.

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_TYPE, ETAG};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};

use super::access::Caller;
use super::error::ApiError;
use super::extract::Known;
use super::{convert, dto, etag, metrics};
use crate::control::{Control, EventQuery};
use crate::core::Mono;
use crate::core::snapshot::Snapshot;

/// Events in the detail of a service.
const RECENT_EVENTS: u32 = 10;

/// The last answer to `GET status`, for those who ask for the same picture in the same second: many pages poll it, and
/// writing it out is nearly all that it costs.
#[derive(Debug, Clone, Default)]
pub(super) struct LastStatus(Arc<Mutex<Option<(String, u64, Bytes)>>>);

pub(super) async fn status(
    State(control): State<Control>,
    Extension(last): Extension<LastStatus>,
    headers: HeaderMap,
) -> Response {
    let (snapshot, now) = (control.snapshot(), convert::now_mono());
    let tag = etag::tag(&control, snapshot.version, "");
    if let Some(unchanged) = etag::unchanged(&headers, &tag) {
        return unchanged;
    }
    let second = now.0.as_secs();
    let mut last = last.0.lock().unwrap_or_else(PoisonError::into_inner);
    let body = match &*last {
        Some((of, at, body)) if *of == tag && *at == second => body.clone(),
        _ => {
            let body =
                Bytes::from(serde_json::to_vec(&picture(&control, &snapshot, now)).unwrap_or_default());
            *last = Some((tag.clone(), second, body.clone()));
            body
        }
    };
    ([(ETAG, tag.as_str()), (CONTENT_TYPE, "application/json")], body).into_response()
}

fn picture(control: &Control, snapshot: &Snapshot, now: Mono) -> dto::Status {
    let about = control.about();
    let up = convert::now_wall().0.saturating_sub(about.started_at.0);
    dto::Status {
        supervisor: dto::Supervisor {
            version: about.version.into(),
            pid: std::process::id(),
            scope: about.scope.into(),
            systemd_version: about.systemd_version.clone(),
            started_at: convert::time(about.started_at),
            uptime_seconds: u64::try_from(up / 1000).unwrap_or(0),
            config_path: about.config_path.clone(),
        },
        services: snapshot
            .services
            .iter()
            .map(|(id, view)| (id.to_string(), convert::service(view, now)))
            .collect(),
    }
}

pub(super) async fn one(
    State(control): State<Control>,
    known: Known,
    caller: Caller,
) -> Result<Json<dto::ServiceDetail>, ApiError> {
    let query = EventQuery { service: Some(known.id.clone()), limit: RECENT_EVENTS, ..EventQuery::default() };
    // The history may be unreadable (disk full, database locked); the present is shown all the same.
    let events = control.history().events(query).await.unwrap_or_default();
    let points = control.history().metrics(metrics::recent(known.id.clone())).await.unwrap_or_default();
    Ok(Json(dto::ServiceDetail {
        service: convert::service(&known.view, convert::now_mono()),
        config: caller.may_see_inside().then(|| control.config_of(&known.view.plan)),
        recent_events: events.into_iter().map(convert::event).collect(),
        recent_metrics: points.into_iter().map(convert::metric).collect(),
    }))
}

pub(super) async fn health(known: Known) -> Json<dto::ServiceHealth> {
    let view = &known.view;
    Json(dto::ServiceHealth {
        id: known.id.to_string(),
        health: view.health.as_str().into(),
        checks: vec![convert::check(view)],
        state: view.state.as_str().into(),
        reason: view.reason.clone(),
    })
}
