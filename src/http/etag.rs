//! Conditional reads: who has the newest picture gets 304 and no body.
//!
//! The tag names the published picture, so it costs nothing to compare, and it is weak: fields that change by mere
//! passing of time (`uptime_seconds`) do not make a new one; `start_time` tells as much.

use axum::Json;
use axum::http::header::{ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::control::Control;

/// The tag of a picture, and of `more` that is in the answer beside it.
pub(super) fn tag(control: &Control, version: u64, more: &str) -> String {
    // Another daemon counts anew.
    format!("W/\"{:x}-{}-{version}{more}\"", control.about().started_at.0, std::process::id())
}

/// The tag of a text that is part of the program: FNV-1a, reckoned when the program is made.
/// (<http://www.isthe.com/chongo/tech/comp/fnv/>)
pub(super) const fn of_text(text: &str) -> u64 {
    let bytes = text.as_bytes();
    let (mut hash, mut at) = (0xcbf2_9ce4_8422_2325_u64, 0);
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
}

/// 304, if the client has what `tag` names.
pub(super) fn unchanged(headers: &HeaderMap, tag: &str) -> Option<Response> {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let given = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut given = given.flat_map(|list| list.split(','));
    let known = given.any(|one| one.trim() == "*" || opaque(one) == opaque(tag));
    known.then(|| (StatusCode::NOT_MODIFIED, [(ETAG, tag.to_owned())]).into_response())
}

/// An answer with its tag.
pub(super) fn tagged(tag: String, body: &impl Serialize) -> Response {
    ([(ETAG, tag)], Json(body)).into_response()
}
