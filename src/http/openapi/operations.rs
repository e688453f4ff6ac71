//! What every route takes and answers, in words and types.

use serde_json::{Value, json};

use super::generate::{Api, Asked};
use crate::http::{alerts, dto, events, logs, metrics, orders, stream, supervisor, token};

/// All of them, in the order of the router.
pub(super) fn describe(api: &mut Api) {
    services(api);
    control(api);
    groups(api);
    history(api);
    whole(api);
    own(api);
}

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";

fn services(api: &mut Api) {
    api.get("/status", "The supervisor, and every service as it is.")
        .answers::<dto::Status>(200, "As published last.")
        .conditional()
        .asked("/status");
    api.get("/services/{id}", "A service with its effective configuration, last events and metrics.")
        .answers::<dto::ServiceDetail>(200, "All about it. Secrets are `***`.")
        .errors(&[404])
        .asked("/services/web");
    api.get("/services/{id}/health", "What the checks of a service say.")
        .answers::<dto::ServiceHealth>(200, "Its checks.")
        .errors(&[404])
        .asked("/services/web/health");
    api.get("/services/{id}/logs", "Lines of the journal of a service, in pages or as they are written.")
        .query::<logs::Wanted>()
        .last_event_id("The cursor after which following goes on.")
        .answers::<dto::Logs>(
            200,
            "A page, or, with `follow`, messages `line` (a `LogLine`) and `resync` whose id is the cursor.",
        )
        .answers_with(200, EVENTS, json!({"type": "string"}))
        .errors(&[404])
        .asked("/services/web/logs?lines=2");
    api.get("/services/{id}/metrics", "What a service used, reduced to a number of points.")
        .query::<metrics::Wanted>()
        .answers::<dto::Series>(200, "The series.")
        .errors(&[404])
        .asked("/services/web/metrics?since=2026-01-31T08:00:00Z&until=2026-01-31T09:00:00Z&points=1");
}

fn control(api: &mut Api) {
    for (verb, summary) in [
        ("start", "Start a service, and wait until it is ready."),
        (
            "stop",
            "Stop a service, and wait until it is down. It stays down until it is started or the host reboots.",
        ),
        ("restart", "Restart a service, and wait until it is ready again."),
    ] {
        api.post(&format!("/services/{{id}}/{verb}"), summary)
            .query::<orders::Waiting>()
            .answers::<dto::OrderAnswer>(200, "It came to what was asked.")
            .answers::<dto::OrderAnswer>(202, "It is on the way, and the order stands.")
            .errors(&[404, 409])
            .asked(&format!("/services/web/{verb}"))
            .asked_for(409, Asked::post(&format!("/services/bad/{verb}")));
    }
    api.post("/services/{id}/reset", "Count its attempts from 0 again.")
        .answers::<dto::OrderAnswer>(200, "Done.")
        .answers::<dto::OrderAnswer>(202, "It is on the way, and the order stands.")
        .errors(&[404, 409])
        .asked("/services/web/reset");
    api.post("/services/{id}/signal", "Send a signal to a service.")
        .body::<dto::SignalBody>(json!({"signal": "SIGHUP"}))
        .answers::<dto::OrderAnswer>(200, "It was sent.")
        .errors(&[404, 409])
        .asked("/services/web/signal");
}

fn groups(api: &mut Api) {
    for verb in ["start", "stop", "restart"] {
        api.post(
            &format!("/groups/{{id}}/{verb}"),
            &format!("{verb} the services of a group, in their order."),
        )
        .query::<orders::Waiting>()
        .answers::<dto::GroupAnswer>(200, "All came to what was asked.")
        .answers::<dto::GroupAnswer>(202, "Some are on the way.")
        .errors(&[404, 409])
        .asked(&format!("/groups/back/{verb}"))
        .asked_for(409, Asked::post(&format!("/groups/mixed/{verb}")));
    }
}

fn history(api: &mut Api) {
    api.get("/events", "What happened, newest first.")
        .query::<events::Wanted>()
        .answers::<dto::Events>(200, "A page.")
        .asked("/events?limit=1");
    api.get("/alerts", "What somebody should see to: open alerts, then those that are over.")
        .query::<alerts::Wanted>()
        .answers::<dto::Alerts>(200, "The alerts.")
        .asked("/alerts");
    api.post("/alerts/{number}/ack", "Say that an alert was seen. Again changes nothing.")
        .answers::<dto::Alert>(200, "The alert.")
        .errors(&[404])
        .asked("/alerts/7/ack");
    api.post("/metrics", "Store a sample, or an array of at most 1,000, of another monitor.")
        .raw_body(
            |api| {
                let sample = api.reads::<dto::Sample>();
                json!({"anyOf": [sample, {"type": "array", "items": sample, "maxItems": 1000}]})
            },
            json!([{"service_id": "web", "cpu_percent": 12.5, "memory_mb": 64.0, "health_status": "healthy"}]),
        )
        .answers::<dto::Accepted>(202, "All of them will be in the database.")
        .errors(&[422])
        .asked("/metrics");
}

fn whole(api: &mut Api) {
    api.get("/health", "The health of everything, for load balancers and monitors.")
        .answers::<dto::OverallHealth>(200, "No critical service is in trouble.")
        .answers::<dto::OverallHealth>(503, "A critical service is not healthy.")
        .asked("/health");
    api.get("/summary", "Counts, trouble, totals, recent events and open alerts.")
        .answers::<dto::Summary>(200, "As published last.")
        .conditional()
        .asked("/summary");
    api.get("/stream", "Every change, as server-sent events.")
        .query::<stream::Wanted>()
        .last_event_id("The id after which events follow, without a gap.")
        .answers_with(200, EVENTS, json!({"type": "string"}))
        .says(STREAM)
        .also::<dto::Hello>()
        .also::<dto::Resync>()
        .also::<dto::Removed>()
        .also::<dto::Readings>();
    api.post("/reload", "Read the configuration again. Only what differs is touched.")
        .query::<supervisor::ReloadParams>()
        .answers::<dto::Reload>(200, "What was done, or with `dry_run` would be.")
        .errors(&[422])
        .asked("/reload")
        .asked_for(422, Asked::post("/reload?dry_run=true"));
}

const STREAM: &str = "Messages, in this order: `hello` (`Hello`), `service` (`Service`) and `alert` (`Alert`) for \
    everything as it is, `ready`; then, as it changes, `state`, `health` and `service` (`Service`), `removed` \
    (`Removed`), `alert` (`Alert`), `metrics` (`Readings`) and `event` (`Event`), which alone has an id. `resync` \
    (`Resync`) says that messages are missing: everything as it is follows anew.";

fn own(api: &mut Api) {
    api.post("/token/rotate", "Replace a token. Over the Unix socket alone.")
        .query::<token::Whose>()
        .answers::<dto::TokenRotated>(200, "The file that holds the new one.")
        .errors(&[500])
        .asked("/token/rotate")
        .asked_for(500, Asked::post("/token/rotate?role=viewer"));
    api.get("/session", "Who asks, and what that permits.")
        .answers::<dto::Session>(200, "As the socket, the token or its absence says.")
        .asked("/session");
    api.get("/openapi.json", "This document.")
        .answers_with(200, JSON, json!({"type": "object"}))
        .conditional();
    api.post("/shutdown", "Stop every service in reverse order, then the supervisor.")
        .answers::<dto::Message>(202, "What happens next.")
        .asked("/shutdown");
    let text = || -> Value { json!({"type": "string"}) };
    api.route("get", "/metrics", "Figures for Prometheus.")
        .answers_with(200, "text/plain", text())
        .answers_with(200, "application/openmetrics-text", text());
}
