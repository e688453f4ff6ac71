//! Everything at a glance.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use super::access::Caller;
use super::supervisor::{Trouble, trouble};
use super::{convert, dto, etag};
use crate::control::{AlertQuery, Control, EventQuery};
use crate::core::action::EntryKind;
use crate::core::time::Wall;

/// Events and alerts that are shown.
const SHOWN: u32 = 10;
const DAY_MS: i64 = 86_400_000;

/// The past may be unreadable (disk full, database locked); the present is shown all the same.
pub(super) async fn summary(State(control): State<Control>, caller: Caller, headers: HeaderMap) -> Response {
    let (changes, snapshot) = (*control.history().changes().borrow(), control.snapshot());
    // Rows of other programs, and what is more than 24 h ago, are seen within a minute.
    let minute = convert::now_wall().0 / 60_000;
    let more = format!("-{}-{}-{minute}", changes.events, changes.alerts);
    let tag = etag::tag(&control, snapshot.version, &more);
    if let Some(unchanged) = etag::unchanged(&headers, &tag) {
        return unchanged;
    }
    let views = || snapshot.services.values();
    let mut states = BTreeMap::new();
    let mut health = BTreeMap::new();
    for view in views() {
        *states.entry(view.state.as_str().to_owned()).or_default() += 1;
        *health.entry(view.health.as_str().to_owned()).or_default() += 1;
    }
    let day_ago = Wall(convert::now_wall().0 - DAY_MS);
    let history = control.history();
    let events = EventQuery { limit: SHOWN, ..EventQuery::default() };
    let alerts = AlertQuery { limit: SHOWN, ..AlertQuery::default() };
    let (restarts, events, alerts) = tokio::join!(
        history.count(EntryKind::RestartScheduled, day_ago),
        history.events(events),
        history.alerts(alerts),
    );
    let names = |wanted: &dyn Fn(&crate::core::snapshot::ServiceView) -> bool| {
        views().filter(|view| wanted(view)).map(|view| view.plan.id.to_string()).collect()
    };
    let cpu = views().filter_map(|view| view.usage?.cpu_percent).reduce(|a, b| a + b);
    let memory = views().filter_map(|view| view.usage?.memory).reduce(u64::saturating_add);
    let summary = dto::Summary {
        services: snapshot.services.len(),
        states,
        health,
        critical_in_trouble: names(&|view| trouble(view) == Trouble::Critical),
        flapping: names(&|view| view.flapping.is_some()),
        cpu_percent: cpu.map(|cpu| (cpu * 10.0).round() / 10.0),
        #[expect(clippy::cast_precision_loss, reason = "shown in MiB with one decimal")]
        memory_mb: memory.map(|bytes| (bytes as f64 / f64::from(1 << 20) * 10.0).round() / 10.0),
        host: control.host().map(convert::host),
        restarts_24h: restarts.ok(),
        recent_events: events.unwrap_or_default().into_iter().map(convert::event).collect(),
        open_alerts: alerts.unwrap_or_default().into_iter().map(|row| convert::alert(row, caller)).collect(),
    };
    etag::tagged(tag, &summary)
}
