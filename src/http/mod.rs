//! The API over HTTP (section 5 of the contract): reads answer from the published snapshot at once, changes go to
//! the loop and wait for their outcome.
//!
//! ```text
//!   serve_unix ----------.
//!   serve_tcp -> access -+-> router -> status, services, orders, events, metrics, alerts, summary, supervisor,
//!     budget, TLS            |           token, stream, logs, openmetrics '--> Control -> the loop
//!                            '-> extract (what may come in), error (what goes wrong), dto + convert (what goes out)
//! ```
//!
//! No decision is made here, and no core type is serialised: `convert` turns each into its `dto`.

mod access;
mod alerts;
mod budget;
mod convert;
mod dashboard;
pub mod dto;
mod error;
mod etag;
mod events;
mod extract;
mod headers;
mod logs;
mod metrics;
mod openapi;
mod openmetrics;
mod orders;
pub(crate) mod schedule;
mod serve;
mod services;
mod session;
mod stream;
mod summary;
mod supervisor;
mod tcp;
mod token;

#[cfg(test)]
pub(crate) mod tests;

use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use axum::{Extension, Router};

use crate::control::Control;

pub use access::Rules;
pub use serve::{Peer, serve_unix};
pub use tcp::{News, Wanted, serve_tcp};

/// Largest request body, in bytes: 1,000 samples with every field. No request of this API needs more.
const BODY_LIMIT: usize = 256 * 1024;

/// All routes. Every answer that is an error is a problem document (RFC 9457).
pub fn router(control: Control) -> Router {
    let service = Router::new()
        .route("/", get(services::one))
        .route("/start", post(orders::start))
        .route("/stop", post(orders::stop))
        .route("/restart", post(orders::restart))
        .route("/reset", post(orders::reset))
        .route("/signal", post(orders::signal))
        .route("/health", get(services::health))
        .route("/logs", get(logs::logs))
        .route("/metrics", get(metrics::series));
    let group = Router::new()
        .route("/start", post(orders::start_group))
        .route("/stop", post(orders::stop_group))
        .route("/restart", post(orders::restart_group));
    let api = Router::new()
        .route("/status", get(services::status))
        .nest("/services/{id}", service)
        .nest("/groups/{id}", group)
        .route("/health", get(supervisor::health))
        .route("/events", get(events::list))
        .route("/metrics", post(metrics::add))
        .route("/alerts", get(alerts::list))
        .route("/alerts/{number}/ack", post(alerts::acknowledge))
        .route("/summary", get(summary::summary))
        .route("/stream", get(stream::open))
        .route("/openapi.json", get(openapi::document))
        .route("/reload", post(supervisor::reload))
        .route("/session", get(session::session))
        .route("/shutdown", post(supervisor::shutdown))
        .route("/token/rotate", post(token::rotate));
    Router::new()
        .nest("/api/supervisor", api)
        .route("/metrics", get(openmetrics::scrape))
        .merge(dashboard::routes())
        .fallback(error::no_such_route)
        .method_not_allowed_fallback(error::wrong_method)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(axum::middleware::map_response(headers::secure))
        .layer(Extension(services::LastStatus::default()))
        .layer(Extension(stream::Streams::new(control.clone())))
        .with_state(control)
}
