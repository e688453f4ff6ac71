//! What a service wrote: pages of the journal, and lines as they come.
//!
//! ```text
//!   follow: lines after the reader's cursor, in pages --> lines that come, from the follower that all share
//! ```
//!
//! A line has its cursor as id: who comes back with it gets what came since.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::stream;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;

use super::error::ApiError;
use super::extract::{Known, Params, number, switch};
use super::serve::Slot;
use super::stream::{KEEP_ALIVE, Streams, answer, frame, keep_alive, last_event_id};
use super::{convert, dto};
use crate::control::{Control, LogEntry, LogError, LogQuery, LogTail, holds};
use crate::core::plan::ServicePlan;
use crate::core::time::Wall;
use crate::ring::Next;

const DEFAULT_LINES: u32 = 100;
const MAX_LINES: u32 = 1000;
/// Lines of one look into the journal for a reader that comes back.
const PAGE: u32 = 200;
/// Longest text that is looked for, and longest cursor, in bytes.
const TEXT: usize = 256;
/// syslog's words, by number.
const PRIORITIES: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];

const TOO_SLOW: &str =
    "you read too slowly; connect again with the id of the last line you saw to get what is missing";

/// The query as it comes.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Wanted {
    /// How many lines at most; 100, if it is left out. While following, 0 begins with the next one.
    #[schemars(range(min = 0, max = MAX_LINES))]
    #[serde(deserialize_with = "number")]
    lines: Option<u32>,
    /// Not older than this time.
    #[schemars(extend("format" = "date-time"))]
    since: Option<String>,
    /// Older than this time.
    #[schemars(extend("format" = "date-time"))]
    until: Option<String>,
    /// A text that the line has in it; in small letters it finds capitals too.
    #[schemars(length(max = TEXT))]
    grep: Option<String>,
    /// The least urgent that is wanted: a word of syslog or its number.
    #[schemars(regex(pattern = "^(emerg|alert|crit|err|warning|notice|info|debug|[0-7])$"))]
    priority: Option<String>,
    /// Lines before this cursor.
    #[schemars(regex(pattern = r"^[\x21-\x7e]{1,256}$"))]
    before: Option<String>,
    /// Lines after this cursor.
    #[schemars(regex(pattern = r"^[\x21-\x7e]{1,256}$"))]
    after: Option<String>,
    /// What is there, then each line as it is written, as server-sent events.
    #[serde(deserialize_with = "switch")]
    follow: bool,
    /// While following: the cursor after which it goes on, as the header `Last-Event-ID`, which goes before it.
    last_event_id: Option<String>,
}

pub(super) async fn logs(
    State(control): State<Control>,
    Extension(streams): Extension<Streams>,
    connection: Option<Extension<Slot>>,
    known: Known,
    Params(wanted): Params<Wanted>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let last = last_event_id(&headers).or(wanted.last_event_id.clone());
    let follow = wanted.follow;
    let query = check(known.view.plan.clone(), wanted, last)?;
    if follow {
        let slot = streams.take_slot(connection)?;
        return Ok(answer(Reader::begin(control, query, slot).await?.into_body()));
    }
    let (limit, back) = (query.lines as usize, query.after.is_none());
    let entries = control.logs().lines(query).await?;
    let cursor = |entry: Option<&LogEntry>| entry.map(|entry| entry.cursor.clone());
    // A short page is the last one, on the side that was asked for.
    let next_before = cursor(entries.first()).filter(|_| !back || entries.len() >= limit);
    let next_after = cursor(entries.last());
    let entries = entries.into_iter().map(convert::log_line).collect();
    Ok(Json(dto::Logs { entries, next_before, next_after }).into_response())
}

fn check(plan: Arc<ServicePlan>, wanted: Wanted, last: Option<String>) -> Result<LogQuery, ApiError> {
    let bad = |detail: String| ApiError::bad_request(format!("the query: {detail}"));
    let lines = wanted.lines.unwrap_or(DEFAULT_LINES);
    let least = u32::from(!wanted.follow);
    if !(least..=MAX_LINES).contains(&lines) {
        return Err(bad(format!("lines is {lines}; it can be {least} to {MAX_LINES}")));
    }
    let time = |name: &str, text: Option<String>| {
        let parsed = text.map(|text| text.parse::<Timestamp>()).transpose();
        let at = parsed.map_err(|_| bad(format!("{name} has to be a time such as 2026-01-31T08:15:00Z")))?;
        Ok::<_, ApiError>(at.map(|at| Wall(at.as_millisecond())))
    };
    let text = wanted.grep.filter(|text| !text.is_empty());
    if text.as_ref().is_some_and(|text| text.len() > TEXT || text.contains('\0')) {
        return Err(bad(format!("grep has to be a text of at most {TEXT} bytes")));
    }
    let cursor = |name: &str, cursor: Option<String>| match cursor {
        Some(c) if c.len() > TEXT || c.is_empty() || !c.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Err(bad(format!("{name} has to be the cursor of a line")))
        }
        cursor => Ok(cursor),
    };
    let priority = wanted.priority.map(|word| {
        let number = PRIORITIES.iter().position(|known| *known == word).or_else(|| word.parse().ok());
        number
            .and_then(|n| u8::try_from(n).ok())
            .filter(|n| *n <= 7)
            .ok_or_else(|| bad(format!("priority has to be 0 to 7, or one of {}", PRIORITIES.join(", "))))
    });
    let (before, after) = (cursor("before", wanted.before)?, cursor("after", wanted.after)?);
    if before.is_some() && (after.is_some() || wanted.follow) {
        return Err(bad("before goes with neither after nor follow".into()));
    }
    let after = if wanted.follow { cursor("Last-Event-ID", last)?.or(after) } else { after };
    Ok(LogQuery {
        plan,
        lines,
        since: time("since", wanted.since)?,
        until: time("until", wanted.until)?,
        text,
        priority: priority.transpose()?,
        before,
        after,
    })
}

/// One who follows.
struct Reader {
    control: Control,
    query: LogQuery,
    tail: LogTail,
    /// It is not told what is there any more, but what comes.
    there: bool,
    /// Of the last line that it saw.
    cursor: Option<String>,
    outbox: VecDeque<Bytes>,
    over: bool,
    _slot: OwnedSemaphorePermit,
}

impl Reader {
    /// Follows first, then looks at what is there: nothing falls between.
    async fn begin(control: Control, query: LogQuery, slot: OwnedSemaphorePermit) -> Result<Self, ApiError> {
        let tail = control.logs().follow(query.plan.clone())?;
        let cursor = query.after.clone();
        let (outbox, over) = (VecDeque::new(), false);
        let mut reader = Self { control, query, tail, there: true, cursor, outbox, over, _slot: slot };
        reader.look().await?;
        Ok(reader)
    }

    fn into_body(self) -> Body {
        Body::from_stream(stream::unfold(self, |mut reader| async move {
            let bytes = reader.next().await?;
            Some((Ok::<_, Infallible>(bytes), reader))
        }))
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.outbox.pop_front() {
                return Some(bytes);
            }
            if self.over {
                return None;
            }
            if self.there {
                if let Err(error) = self.look().await {
                    self.fail(&error);
                }
                continue;
            }
            match tokio::time::timeout(KEEP_ALIVE, self.tail.tail.next()).await {
                Ok(Next::Item(item)) => match item.as_ref() {
                    Ok(line) => self.line(line),
                    Err(error) => self.fail(error),
                },
                Ok(Next::Missed(missed)) => {
                    let data = dto::Resync { reason: TOO_SLOW.into(), missed: Some(missed) };
                    return Some(frame("resync", None, &data));
                }
                Ok(Next::Closed) => self.over = true,
                Err(_) => return Some(keep_alive(None)),
            }
        }
    }

    /// What is there: the newest lines, or page after page from its cursor on.
    async fn look(&mut self) -> Result<(), LogError> {
        let back = self.query.after.is_some();
        // One at least, to know where what comes begins.
        let lines = if back { PAGE } else { self.query.lines.max(1) };
        let query = LogQuery { lines, after: self.cursor.clone(), until: None, ..self.query.clone() };
        let lines = self.control.logs().lines(query).await?;
        self.there = back && lines.len() >= PAGE as usize;
        let shown = if back { lines.len() } else { self.query.lines as usize };
        let hidden = lines.len().saturating_sub(shown);
        self.cursor = lines.last().map(|line| line.cursor.clone()).or(self.cursor.take());
        self.outbox.extend(lines.into_iter().skip(hidden).map(encoded));
        Ok(())
    }

    fn line(&mut self, line: &LogEntry) {
        if self.cursor.as_ref().is_some_and(|seen| !is_newer(&line.cursor, seen)) {
            return;
        }
        self.cursor = Some(line.cursor.clone());
        let urgent = self.query.priority.is_none_or(|least| line.priority.is_some_and(|p| p <= least));
        if urgent && self.query.text.as_ref().is_none_or(|text| holds(&line.message, text)) {
            self.outbox.push_back(encoded(line.clone()));
        }
    }

    fn fail(&mut self, error: &LogError) {
        let data = dto::Resync { reason: error.to_string(), missed: None };
        self.outbox.push_back(frame("resync", None, &data));
        self.over = true;
    }
}

fn encoded(entry: LogEntry) -> Bytes {
    let line = convert::log_line(entry);
    frame("line", Some(&line.cursor), &line)
}

/// Whether the line of cursor `a` came into the journal after that of `b`. Numbers count within one journal, which its
/// `s` names; between journals only the time tells.
fn is_newer(a: &str, b: &str) -> bool {
    fn field<'a>(cursor: &'a str, name: &str) -> Option<&'a str> {
        cursor.split(';').find_map(|part| part.strip_prefix(name))
    }
    let number = |cursor, name| field(cursor, name).and_then(|text| u64::from_str_radix(text, 16).ok());
    let same_journal = field(a, "s=").is_some() && field(a, "s=") == field(b, "s=");
    let by = if same_journal { "i=" } else { "t=" };
    match (number(a, by), number(b, by)) {
        (Some(a), Some(b)) => a > b,
        _ => a != b,
    }
}

impl From<LogError> for ApiError {
    fn from(error: LogError) -> Self {
        let detail = error.to_string();
        match error {
            LogError::Denied(_) => Self::new(
                StatusCode::FORBIDDEN,
                "log_denied",
                "The supervisor may not read the journal",
                detail,
            ),
            LogError::Asked(_) => Self::bad_request(detail),
            LogError::Unavailable(_) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "log_unavailable",
                "The log cannot be read",
                detail,
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_tell_what_came_later() {
        let cursor = |s: &str, i: &str, t: &str| format!("s={s};i={i};b=b;m=1;t={t};x=1");
        for (a, b, newer) in [
            (cursor("a", "10", "5"), cursor("a", "f", "9"), true),
            (cursor("a", "f", "9"), cursor("a", "10", "5"), false),
            (cursor("a", "f", "9"), cursor("a", "f", "9"), false),
            (cursor("b", "1", "a0"), cursor("a", "10", "5f"), true),
            (cursor("b", "ff", "5f"), cursor("a", "10", "a0"), false),
            ("odd".into(), "other".into(), true),
            ("odd".into(), "odd".into(), false),
        ] {
            assert_eq!(is_newer(&a, &b), newer, "{a} {b}");
        }
    }
}
