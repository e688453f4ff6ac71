//! `GET /metrics`: everything at this moment, for Prometheus.
//!
//! ```text
//!   Snapshot, StoreState, process --> Picture --> one family at a time (families) --> body, piece by piece
//!                                                   '-- classic: other words above the same lines
//! ```
//!
//! Nothing is counted here, and nothing is kept between two scrapes. A piece is written when the one before has left,
//! so that a scrape of a thousand services neither holds up the loop nor costs more memory than its longest family.

mod families;
mod process;

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::registry::Registry;

use crate::control::{About, Control, StoreState};
use crate::core::snapshot::Snapshot;
use families::{FAMILIES, Family};
use process::Process;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything that is told, as of one moment.
#[derive(Debug)]
struct Picture {
    snapshot: Arc<Snapshot>,
    about: About,
    store: StoreState,
    process: Process,
    /// Requests that the loop has not taken yet.
    waiting: usize,
}

pub(super) async fn scrape(State(control): State<Control>, headers: HeaderMap) -> Response {
    let openmetrics = wants_openmetrics(&headers);
    let picture = Arc::new(Picture {
        snapshot: control.snapshot(),
        about: control.about().clone(),
        store: control.history().state(),
        process: Process::now(),
        waiting: control.waiting(),
    });
    let pieces = stream::unfold(FAMILIES.iter(), move |mut rest| {
        let picture = Arc::clone(&picture);
        async move {
            let piece = piece(&picture, rest.next()?, openmetrics);
            // The loop runs on the same thread.
            tokio::task::yield_now().await;
            Some((Ok::<_, Infallible>(piece), rest))
        }
    });
    let end = stream::iter(openmetrics.then(|| Ok("# EOF\n".to_owned())));
    let kind = if openmetrics { OPENMETRICS } else { CLASSIC };
    let body = Body::from_stream(stream::StreamExt::chain(pieces, end));
    ([(header::CONTENT_TYPE, kind), (header::VARY, "accept")], body).into_response()
}

/// One family with its samples.
fn piece(picture: &Arc<Picture>, family: &'static Family, openmetrics: bool) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(One { picture: Arc::clone(picture), family }));
    let mut text = String::new();
    // A `String` takes everything.
    let _: fmt::Result = text::encode_registry(&mut text, &registry);
    if !openmetrics {
        text.replace_range(..end_of_comments(&text), &family.classic_head());
    }
    text
}

/// Where the first line begins that is no comment.
fn end_of_comments(text: &str) -> usize {
    text.split_inclusive('\n').take_while(|line| line.starts_with('#')).map(str::len).sum()
}

/// A family as the library wants it.
#[derive(Debug)]
struct One {
    picture: Arc<Picture>,
    family: &'static Family,
}

impl Collector for One {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.family.encode(&self.picture, encoder)
    }
}

/// OpenMetrics is for those that name it and do not like plain text better; all others get the classic format, which
/// everything reads.
fn wants_openmetrics(headers: &HeaderMap) -> bool {
    let (mut openmetrics, mut plain) = (0.0_f32, 0.0_f32);
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    for range in accepted.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(|part| part.trim().to_ascii_lowercase());
        let kind = parts.next().unwrap_or_default();
        let (mut quality, mut ours) = (1.0, true);
        for part in parts {
            match part.split_once('=') {
                Some(("q", q)) => quality = q.parse().unwrap_or(0.0),
                Some(("version", version)) => ours = version.trim_matches('"') == "1.0.0",
                _ => {}
            }
        }
        match kind.as_str() {
            "application/openmetrics-text" if ours => openmetrics = openmetrics.max(quality),
            "text/plain" => plain = plain.max(quality),
            _ => {}
        }
    }
    openmetrics > 0.0 && openmetrics >= plain
}

#[cfg(test)]
mod tests;
