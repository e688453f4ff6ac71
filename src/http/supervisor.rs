//! The supervisor as a whole: its health, its configuration, its end.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;

use super::error::ApiError;
use super::extract::{Params, switch};
use super::serve::Origin;
use super::{convert, dto};
use crate::control::Control;
use crate::core::snapshot::{Health, ServiceView, State as ServiceState};

/// 503 when a critical service is not healthy, so that a load balancer or a monitor needs no JSON.
pub(super) async fn health(State(control): State<Control>) -> (StatusCode, Json<dto::OverallHealth>) {
    let snapshot = control.snapshot();
    let worst = snapshot.services.values().map(|view| trouble(view)).max().unwrap_or(Trouble::None);
    let services = snapshot.services.iter().map(|(id, view)| (id.to_string(), line(view))).collect();
    let (code, word) = match worst {
        Trouble::None => (StatusCode::OK, "healthy"),
        Trouble::Some => (StatusCode::OK, "degraded"),
        Trouble::Critical => (StatusCode::SERVICE_UNAVAILABLE, "unhealthy"),
    };
    (code, Json(dto::OverallHealth { status: word.into(), services }))
}

/// What a service means for the whole.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trouble {
    None,
    Some,
    Critical,
}

pub(super) fn trouble(view: &ServiceView) -> Trouble {
    let well = view.state == ServiceState::Running && view.health == Health::Healthy;
    let half = view.state == ServiceState::Running && view.health == Health::Degraded;
    match (view.plan.enabled, view.plan.critical) {
        (false, _) => Trouble::None,
        _ if well => Trouble::None,
        (_, true) if !half => Trouble::Critical,
        _ => Trouble::Some,
    }
}

fn line(view: &ServiceView) -> dto::HealthLine {
    let running = view.state == ServiceState::Running;
    let answer = view.last_probe.as_ref().filter(|_| running).map(|last| last.message.clone());
    dto::HealthLine {
        health: view.health.as_str().into(),
        state: view.state.as_str().into(),
        critical: view.plan.critical,
        enabled: view.plan.enabled,
        message: answer.unwrap_or_else(|| view.reason.clone()),
    }
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ReloadParams {
    /// Only say what would happen.
    #[serde(deserialize_with = "switch")]
    dry_run: bool,
}

pub(super) async fn reload(
    State(control): State<Control>,
    Params(params): Params<ReloadParams>,
    origin: Origin,
) -> Result<Json<dto::Reload>, ApiError> {
    match control.reload(params.dry_run, origin.0).await? {
        Ok(report) => Ok(Json(convert::reload(report))),
        Err(problems) => Err(ApiError::bad_config(problems)),
    }
}

pub(super) async fn shutdown(
    State(control): State<Control>,
    origin: Origin,
) -> Result<(StatusCode, Json<dto::Message>), ApiError> {
    control.shutdown(origin.0).await?;
    let message = "all services are being stopped in reverse order, then the supervisor ends".into();
    Ok((StatusCode::ACCEPTED, Json(dto::Message { message })))
}
