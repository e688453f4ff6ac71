//! `GET stream`: every change as a server-sent event, for as many readers as want it.
//!
//! ```text
//!   feed (one) --> ring (bounded, each message encoded once) --> reader --> its connection
//!                                                            '-> reader --> ...
//! ```
//!
//! What is promised:
//! - An `event` has an id and is on disk before it is sent. Who comes back with the id of the last one it saw
//!   (`Last-Event-ID`, or `?last_event_id=`) gets each one after it once, in order, also from another daemon. Where that
//!   cannot be (retention, another database), `resync` says so.
//! - `state`, `health`, `service`, `removed` and `alert` carry the whole object as it is at that moment, and come when
//!   it changed, mostly before the event about it. Several changes within one moment may come as one. After `hello` and
//!   `resync` all of them are told anew, up to `ready`; alerts are those that are open, and those that were resolved
//!   since the reader was here.
//! - `metrics` is a round of measuring. It is not kept.
//! - A reader that falls behind by the whole ring is told (`resync`), and goes on from now. It holds nobody up.

mod feed;
mod hub;
mod message;
mod reader;

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;
use super::extract::Params;
use super::serve::Slot;
use crate::control::{Control, Ended};
use crate::core::plan::Id;

use hub::Hub;
use message::Filter;
pub(super) use message::{frame, keep_alive};
pub(super) use reader::KEEP_ALIVE;
use reader::Reader;

/// Streams at a time, beside the connections that other requests have.
const STREAMS: usize = 1024;
/// Readers that look into the database at once.
const READS: usize = 4;

/// What the handlers of streams share.
#[derive(Debug, Clone)]
pub(super) struct Streams {
    hub: Arc<Hub>,
    slots: Arc<Semaphore>,
}

impl Streams {
    pub(super) fn new(control: Control) -> Self {
        Self { hub: Hub::new(control), slots: Arc::new(Semaphore::new(STREAMS)) }
    }

    /// A stream's share of all streams; its connection leaves room for another one.
    pub(super) fn take_slot(
        &self,
        connection: Option<Extension<Slot>>,
    ) -> Result<OwnedSemaphorePermit, ApiError> {
        let slot = self.slots.clone().try_acquire_owned();
        let slot = slot.map_err(|_| ApiError::too_many_streams(STREAMS))?;
        if let Some(Extension(connection)) = connection {
            connection.release();
        }
        Ok(slot)
    }
}

/// The query as it comes.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Wanted {
    /// What concerns this service alone.
    #[schemars(regex(pattern = Id::PATTERN))]
    service: Option<String>,
    /// Kinds of messages and types of events, with commas between them.
    #[serde(rename = "type")]
    types: Option<String>,
    /// The id after which events follow, as the header `Last-Event-ID`, which goes before it.
    last_event_id: Option<String>,
}

pub(super) async fn open(
    Extension(streams): Extension<Streams>,
    connection: Option<Extension<Slot>>,
    Params(wanted): Params<Wanted>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let bad = |detail: String| ApiError::bad_request(format!("the query: {detail}"));
    let service = wanted.service.as_deref().map(Id::new).transpose();
    let service = service.map_err(|error| bad(format!("service: {error}")))?;
    let filter = Filter::new(service, wanted.types.as_deref()).map_err(bad)?;
    let hub = streams.hub.clone();
    if hub.ring.is_closed() {
        return Err(Ended.into());
    }
    let place = hub.enter(streams.take_slot(connection)?).await;
    let asked = last_event_id(&headers).or(wanted.last_event_id);
    let reader = Reader::begin(hub, place, filter, asked.as_deref()).await?;
    Ok(answer(reader.into_body()))
}

/// A browser that connects again sends the header, beside the query of the first time.
pub(super) fn last_event_id(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("last-event-id")?;
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned()).filter(|id| !id.is_empty())
}

/// Nothing else comes over the connection of a stream.
pub(super) fn answer(body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONNECTION, "close"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (StatusCode::OK, headers, body).into_response()
}
