//! The description of this API (OpenAPI 3.1). Its text is made from the routes' own types and the answers of a real
//! router by `generate`, which is part of the tests alone: the daemon only holds the text.

use axum::http::HeaderMap;
use axum::http::header::{CONTENT_TYPE, ETAG};
use axum::response::{IntoResponse, Response};

use super::etag;

#[cfg(test)]
mod generate;
#[cfg(test)]
mod operations;

const DOCUMENT: &str = include_str!("openapi/openapi.json");

const HASH: u64 = etag::of_text(DOCUMENT);

pub(super) async fn document(headers: HeaderMap) -> Response {
    let tag = format!("\"{HASH:x}\"");
    if let Some(unchanged) = etag::unchanged(&headers, &tag) {
        return unchanged;
    }
    ([(CONTENT_TYPE, "application/json"), (ETAG, tag.as_str())], DOCUMENT).into_response()
}
