//! A dashboard that takes, fails, hangs and comes back.

use std::sync::atomic::{AtomicU16, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use serde_json::Value;
use tokio::net::TcpListener;

use super::*;
use crate::core::Wall;
use crate::core::plan::Id;

const LONG: Duration = Duration::from_secs(30);

/// Every request: path, authorization, and the rows.
type Seen = Arc<Mutex<Vec<(String, String, Vec<Value>)>>>;

/// Answers with the status of the moment; 0 is never.
#[derive(Clone, Default)]
struct Dashboard {
    seen: Seen,
    status: Arc<AtomicU16>,
}

async fn take(State(dashboard): State<Dashboard>, uri: Uri, headers: HeaderMap, body: String) -> StatusCode {
    let token = headers.get(AUTHORIZATION).map_or("", |value| value.to_str().unwrap()).to_owned();
    let rows = serde_json::from_str(&body).unwrap();
    dashboard.seen.lock().unwrap().push((uri.path().into(), token, rows));
    match dashboard.status.load(Ordering::SeqCst) {
        0 => std::future::pending().await,
        status => StatusCode::from_u16(status).unwrap(),
    }
}

impl Dashboard {
    async fn start(status: u16) -> (Self, String) {
        let dashboard = Self::default();
        dashboard.status.store(status, Ordering::SeqCst);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(take).with_state(dashboard.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (dashboard, url)
    }

    async fn until(&self, what: &str, holds: impl Fn(&[(String, String, Vec<Value>)]) -> bool) {
        let wait = async {
            while !holds(&self.seen.lock().unwrap()) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        assert!(tokio::time::timeout(LONG, wait).await.is_ok(), "never came: {what}");
    }
}

fn rows(range: std::ops::Range<i64>) -> impl Iterator<Item = MetricRow> {
    range.map(|n| MetricRow {
        service: Id::new("web").unwrap(),
        at: Wall(n),
        cpu_percent: Some(1.5),
        memory_mb: Some(2.0),
        health: Some(Health::Healthy),
        response_time_ms: None,
        tasks: Some(9),
        throttled: None,
    })
}

/// With pauses that a test can wait for.
fn start(to: Destination) -> Pusher {
    telling(to).0
}

/// The same, with what it tells.
fn telling(to: Destination) -> (Pusher, Arc<Mutex<Vec<News>>>) {
    crate::tls::install_provider();
    let (shared, told) = (Arc::new(Shared::default()), Arc::new(Mutex::new(Vec::new())));
    let news = told.clone();
    let tell = move |one| news.lock().unwrap().push(one);
    let task = tokio::spawn(deliver(to.clone(), shared.clone(), Duration::from_millis(5), tell));
    (Pusher { to, shared, _task: AbortOnDropHandle::new(task) }, told)
}

fn total(seen: &[(String, String, Vec<Value>)]) -> usize {
    seen.iter().map(|(_, _, rows)| rows.len()).sum()
}

#[tokio::test]
async fn rows_arrive_as_the_contract_has_them_in_batches_and_with_the_token() {
    let (dashboard, url) = Dashboard::start(202).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "s3cret\n").unwrap();
    let pusher = start(Destination { url, token_file: Some(file) });
    pusher.push(rows(0..450));
    dashboard.until("all rows", |seen| total(seen) == 450).await;
    let seen = dashboard.seen.lock().unwrap().clone();
    assert!(
        seen.iter()
            .all(|(path, token, rows)| path == ROUTE && token == "Bearer s3cret" && rows.len() <= BATCH)
    );
    assert_eq!(
        seen[0].2[1],
        serde_json::json!({"service_id": "web", "timestamp": "1970-01-01T00:00:00.001Z", "cpu_percent": 1.5,
            "memory_mb": 2.0, "health_status": "healthy"})
    );
    assert!(!format!("{pusher:?}").contains("s3cret"));
}

#[tokio::test]
async fn a_dashboard_that_fails_gets_everything_once_it_is_back() {
    let (dashboard, url) = Dashboard::start(503).await;
    let pusher = start(Destination { url: format!("{url}/x/api/supervisor/metrics"), token_file: None });
    pusher.push(rows(0..3));
    dashboard.until("several tries", |seen| seen.len() >= 3).await;
    pusher.push(rows(3..5));
    dashboard.status.store(202, Ordering::SeqCst);
    dashboard.until("the newest", |seen| seen.last().is_some_and(|(_, _, rows)| rows.len() == 5)).await;
    assert_eq!(dashboard.seen.lock().unwrap()[0].0, "/x/api/supervisor/metrics", "as it was given");
    // What it never will take does not stand in the way of what comes after.
    dashboard.status.store(422, Ordering::SeqCst);
    pusher.push(rows(5..6));
    dashboard
        .until("the refused one", |seen| {
            seen.last().unwrap().2[0]["timestamp"].as_str().unwrap().ends_with("5Z")
        })
        .await;
    dashboard.status.store(202, Ordering::SeqCst);
    pusher.push(rows(6..7));
    dashboard
        .until("the next one", |seen| {
            seen.last().unwrap().2[0]["timestamp"].as_str().unwrap().ends_with("6Z")
        })
        .await;
}

#[tokio::test]
async fn trouble_of_each_kind_is_told_once_and_that_it_is_over_too() {
    let (dashboard, url) = Dashboard::start(422).await;
    let (pusher, told) = telling(Destination { url, token_file: None });
    let mut at = 0;
    for status in [422, 503, 422, 202] {
        dashboard.status.store(status, Ordering::SeqCst);
        for _ in 0..2 {
            let tried = dashboard.seen.lock().unwrap().len();
            pusher.push(rows(at..at + 1));
            at += 1;
            dashboard
                .until("two tries", |seen| seen.len() >= tried + 2 || status != 503 && seen.len() > tried)
                .await;
        }
    }
    dashboard.until("the last", |seen| seen.last().unwrap().2.len() == 1).await;
    let told: Vec<(bool, String)> =
        told.lock().unwrap().iter().map(|news| (news.good, news.message.clone())).collect();
    let words = ["refused 1 samples: HTTP 422", "cannot be sent", "refused", "again"];
    assert_eq!(told.len(), words.len(), "{told:#?}");
    for ((good, message), words) in told.iter().zip(words) {
        assert!(message.contains(words) && *good == (words == "again"), "{told:#?}");
    }
}

#[tokio::test]
async fn one_that_hangs_holds_nobody_up_and_the_queue_is_bounded() {
    let (dashboard, url) = Dashboard::start(0).await;
    let pusher = start(Destination { url, token_file: None });
    pusher.push(rows(0..1));
    dashboard.until("the request", |seen| seen.len() == 1).await;
    let begun = std::time::Instant::now();
    for n in 0..100 {
        pusher.push(rows(n * 500..(n + 1) * 500));
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let queue = pusher.shared.lock();
    assert_eq!((queue.len(), queue.back().unwrap().at), (MOST, Wall(49_999)), "the oldest are dropped");
}

#[tokio::test]
async fn a_token_that_cannot_be_read_sends_nothing_until_it_can() {
    let (dashboard, url) = Dashboard::start(202).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let why = token(&file).await.unwrap_err();
    assert!(why.contains("token") && why.contains("No such file"), "{why}");
    let pusher = start(Destination { url, token_file: Some(file.clone()) });
    pusher.push(rows(0..1));
    std::fs::write(&file, "later").unwrap();
    dashboard.until("the row", |seen| total(seen) == 1).await;
    assert_eq!(dashboard.seen.lock().unwrap()[0].1, "Bearer later");
}
