//! Samples sent to another dashboard, as its `POST /api/supervisor/metrics` takes them. Nobody waits for it: rows
//! queue up to a bound, one task sends them, and [`News`] tells of trouble once when it begins and once when it ends.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Client, StatusCode, Url};
use serde::Serialize;
use tokio::io::AsyncReadExt as _;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use crate::control::MetricRow;
use crate::core::snapshot::Health;
use crate::core::time::Human;

/// The route of the contract; a URL that ends with it is taken as it is.
const ROUTE: &str = "/api/supervisor/metrics";
/// Rows that wait at most; the oldest go first. An hour of a hundred services at 30 s.
const MOST: usize = 12_000;
/// Rows of one request: fewer than 64 KiB, with the longest names.
const BATCH: usize = 200;
/// For one request, from the connection to the status.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two tries after a failure: it doubles from the first to the second.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Bytes of a token at most.
const TOKEN: u64 = 4096;

/// Where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// `http` or `https`, without a password in it.
    pub url: String,
    /// File with the bearer token, read for each request, so that it can be changed.
    pub token_file: Option<PathBuf>,
}

/// Samples do not arrive, or do so again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// They arrive.
    pub good: bool,
    /// What, why, and what happens next: a whole sentence.
    pub message: String,
}

/// The way to one destination. When it is dropped, what was not sent is not sent any more.
#[derive(Debug)]
pub struct Pusher {
    to: Destination,
    shared: Arc<Shared>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<VecDeque<MetricRow>>,
    wake: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, VecDeque<MetricRow>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pusher {
    /// Begins. Needs a tokio runtime.
    pub fn start(to: Destination, tell: impl Fn(News) + Send + Sync + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        let task = tokio::spawn(deliver(to.clone(), shared.clone(), RETRY.0, tell));
        Self { to, shared, _task: AbortOnDropHandle::new(task) }
    }

    /// Where to.
    pub fn destination(&self) -> &Destination {
        &self.to
    }

    /// Queues rows. Returns at once.
    pub fn push(&self, rows: impl IntoIterator<Item = MetricRow>) {
        let mut queue = self.shared.lock();
        queue.extend(rows);
        let excess = queue.len().saturating_sub(MOST);
        queue.drain(..excess);
        drop(queue);
        self.shared.wake.notify_one();
    }
}

/// Why a batch did not arrive.
#[derive(Debug)]
enum Refusal {
    /// It may arrive later.
    ForNow(String),
    /// These rows never will.
    ForGood(String),
}

/// What was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    Waiting,
    Refused,
}

/// Sends for as long as it lives. `first` is the shortest pause after a failure.
async fn deliver(to: Destination, shared: Arc<Shared>, first: Duration, tell: impl Fn(News) + Sync) {
    let bad = |message: String| tell(News { good: false, message });
    let (client, url) = match prepared(&to).await {
        Ok(prepared) => prepared,
        Err(why) => {
            return bad(format!("metrics are not sent to dashboard_url: {why}; reload when it is corrected"));
        }
    };
    let shown = shown(&url);
    let (mut pause, mut told) = (None::<Duration>, Told::Nothing);
    loop {
        let batch: Vec<MetricRow> = shared.lock().iter().take(BATCH).cloned().collect();
        if batch.is_empty() {
            shared.wake.notified().await;
            continue;
        }
        match send(&client, &url, &to, &batch).await {
            Ok(()) => {
                if std::mem::replace(&mut told, Told::Nothing) != Told::Nothing {
                    tell(News { good: true, message: format!("metrics are sent to {shown} again") });
                }
                pause = None;
                sent(&shared, &batch);
            }
            Err(Refusal::ForGood(why)) => {
                if std::mem::replace(&mut told, Told::Refused) != Told::Refused {
                    bad(format!(
                        "{shown} refused {} samples: {why}; they are left out, as is all that it refuses from now on",
                        batch.len()
                    ));
                }
                pause = None;
                sent(&shared, &batch);
            }
            Err(Refusal::ForNow(why)) => {
                if std::mem::replace(&mut told, Told::Waiting) != Told::Waiting {
                    bad(format!(
                        "metrics cannot be sent to {shown}: {why}. Up to {MOST} samples are kept and sent when it can \
                         be, tried again at least every {}; supervision goes on",
                        Human(RETRY.1)
                    ));
                }
                let wait = pause.map_or(first, |pause| (pause * 2).min(RETRY.1));
                pause = Some(wait);
                tokio::time::sleep(wait).await;
            }
        }
    }
}

/// Takes what was dealt with off the queue, of which the oldest rows may be gone already.
fn sent(shared: &Shared, batch: &[MetricRow]) {
    let mut queue = shared.lock();
    for row in batch {
        if queue.front() == Some(row) {
            queue.pop_front();
        }
    }
}

async fn prepared(to: &Destination) -> Result<(Client, Url), String> {
    let mut url = Url::parse(&to.url).map_err(|error| error.to_string())?;
    if !url.path().trim_end_matches('/').ends_with(ROUTE) {
        url.set_path(&format!("{}{ROUTE}", url.path().trim_end_matches('/')));
    }
    let address = url.clone();
    let trusted = tokio::task::spawn_blocking(move || crate::tls::client(&address)).await;
    let builder = Client::builder().timeout(PATIENCE).redirect(reqwest::redirect::Policy::none());
    let client = builder
        .no_proxy()
        .user_agent(concat!("process-supervisor/", env!("CARGO_PKG_VERSION")))
        .tls_backend_preconfigured(trusted.map_err(|error| error.to_string())??)
        .build();
    Ok((client.map_err(|error| format!("cannot make an HTTP client: {error}"))?, url))
}

/// Without a query: that may be a secret.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

async fn send(client: &Client, url: &Url, to: &Destination, rows: &[MetricRow]) -> Result<(), Refusal> {
    let rows: Vec<Row<'_>> = rows.iter().map(Row::of).collect();
    let mut request = client.post(url.clone()).json(&rows);
    if let Some(file) = &to.token_file {
        request = request.header(AUTHORIZATION, token(file).await.map_err(Refusal::ForNow)?);
    }
    let answer = request.send().await.map_err(|error| Refusal::ForNow(reason(&error)))?;
    match answer.status() {
        status if status.is_success() => Ok(()),
        status @ (StatusCode::BAD_REQUEST
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNSUPPORTED_MEDIA_TYPE
        | StatusCode::UNPROCESSABLE_ENTITY) => Err(Refusal::ForGood(format!("HTTP {status}"))),
        status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => Err(Refusal::ForNow(format!(
            "HTTP {status}: it does not take the token; see dashboard_token_file"
        ))),
        status => Err(Refusal::ForNow(format!("HTTP {status}"))),
    }
}

async fn token(file: &std::path::Path) -> Result<HeaderValue, String> {
    let failed = |why: String| format!("the token in {}: {why}", file.display());
    let opened = tokio::fs::File::open(file).await.map_err(|error| failed(error.to_string()))?;
    let mut text = String::new();
    let read = opened.take(TOKEN).read_to_string(&mut text).await;
    read.map_err(|error| failed(error.to_string()))?;
    let text = text.trim();
    if text.is_empty() {
        return Err(failed("the file is empty".into()));
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {text}"))
        .map_err(|_| failed("it holds characters that cannot be sent".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The innermost cause: the outer ones hold the URL.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("no answer within {} s", PATIENCE.as_secs());
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    match cause.downcast_ref::<reqwest::Error>() {
        Some(_) => "the request could not be sent".into(),
        None => cause.to_string(),
    }
}

/// A row as the contract has it.
#[derive(Debug, Serialize)]
struct Row<'a> {
    service_id: &'a str,
    timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_percent: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_mb: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    health_status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_time_ms: Option<f64>,
}

impl<'a> Row<'a> {
    fn of(row: &'a MetricRow) -> Self {
        let at = Timestamp::from_millisecond(row.at.0).unwrap_or(Timestamp::UNIX_EPOCH);
        Self {
            service_id: row.service.as_str(),
            timestamp: format!("{at:.3}"),
            cpu_percent: row.cpu_percent,
            memory_mb: row.memory_mb,
            health_status: row.health.map(Health::as_str),
            response_time_ms: row.response_time_ms,
        }
    }
}
