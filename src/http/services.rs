//! What is: one service or all. Answered from the snapshot, never from the loop.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use super::access::Caller;
use super::error::ApiError;
use super::extract::Known;
use super::{convert, dto, etag, metrics};
use crate::control::{Control, EventQuery};

/// Events in the detail of a service.
const RECENT_EVENTS: u32 = 10;

pub(super) async fn status(State(control): State<Control>, headers: HeaderMap) -> Response {
    let (snapshot, about, now) = (control.snapshot(), control.about(), convert::now_mono());
    let tag = etag::tag(&control, snapshot.version, "");
    if let Some(unchanged) = etag::unchanged(&headers, &tag) {
        return unchanged;
    }
    let up = convert::now_wall().0.saturating_sub(about.started_at.0);
    let status = dto::Status {
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
    };
    etag::tagged(tag, &status)
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
