//! The stream of changes, over a real database and real sockets: nothing twice, nothing missing, nobody held up.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use process_supervisor::control::{About, Control, LogEntry, LogError, LogQuery, LogTail, Logs};
use process_supervisor::core::Wall;
use process_supervisor::core::action::{Entry, EntryKind, Level};
use process_supervisor::core::alert::{Alert, AlertKey, AlertKind, Severity};
use process_supervisor::core::plan::{Id, ServicePlan};
use process_supervisor::core::sample::Sample;
use process_supervisor::core::snapshot::{Health, ServiceView, Snapshot, State};
use process_supervisor::http;
use process_supervisor::store::Store;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tower::ServiceExt;

const SOON: Duration = Duration::from_secs(30);

fn id(text: &str) -> Id {
    Id::new(text).unwrap()
}

fn view(name: &str, state: State) -> ServiceView {
    let plan = ServicePlan::new(id(name), "/bin/true");
    ServiceView { state, reason: "because".into(), ..ServiceView::new(Arc::new(plan)) }
}

fn now() -> Wall {
    Wall(jiff::Timestamp::now().as_millisecond())
}

struct NoLogs;

impl Logs for NoLogs {
    fn lines(&self, _: LogQuery) -> BoxFuture<'_, Result<Vec<LogEntry>, LogError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn follow(&self, _: Arc<ServicePlan>) -> Result<LogTail, LogError> {
        Err(LogError::Unavailable("none".into()))
    }
}

/// A daemon without its loop.
struct World {
    store: Store,
    router: Router,
    snapshot: watch::Sender<Arc<Snapshot>>,
}

impl World {
    fn new(database: &Path) -> Self {
        let (store, _) = Store::open(database, database.with_extension("aside"), |_| {});
        let services = ["db", "web"].map(|name| (id(name), Arc::new(view(name, State::Running))));
        let snapshot = Snapshot { services: services.into(), ..Snapshot::default() };
        let (snapshot, snapshots) = watch::channel(Arc::new(snapshot));
        let about = About {
            version: "1.2.3",
            scope: "system",
            systemd_version: "252".into(),
            started_at: Wall(0),
            config_path: "/c.json".into(),
            state: "/var/lib/x".into(),
        };
        let (requests, _) = mpsc::channel(1);
        let control = Control::new(
            requests,
            snapshots,
            |_| Value::Null,
            Arc::new(about),
            Arc::new(store.clone()),
            Arc::new(NoLogs),
        );
        Self { store, router: http::router(control), snapshot }
    }

    fn event(&self, service: &str, kind: EntryKind, message: &str) {
        let entry = Entry {
            service: Some(id(service)),
            kind,
            level: Level::Info,
            message: message.into(),
            details: BTreeMap::new(),
        };
        self.store.event(&entry, now());
    }

    async fn written(&self) {
        assert!(self.store.flushed(SOON).await);
    }

    fn change(&self, service: &str, change: impl FnOnce(&mut ServiceView)) {
        self.snapshot.send_modify(|snapshot| {
            let snapshot = Arc::make_mut(snapshot);
            change(Arc::make_mut(snapshot.services.get_mut(service).unwrap()));
        });
    }

    async fn ask(&self, query: &str, last: Option<&str>) -> Response<Body> {
        let mut request = Request::builder().uri(format!("/api/supervisor/stream{query}"));
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    async fn open(&self, query: &str, last: Option<&str>) -> Reader {
        let response = self.ask(query, last).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let body = response.into_body().into_data_stream();
        Reader { body: body.map(|part| part.unwrap()).boxed(), rest: String::new(), last: None }
    }

    /// Ends as a daemon does.
    async fn end(self) {
        let Self { store, router, snapshot } = self;
        drop((snapshot, router));
        assert!(store.close(SOON).await);
    }
}

/// A client as browsers have it.
struct Reader {
    body: futures_util::stream::BoxStream<'static, axum::body::Bytes>,
    rest: String,
    last: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
struct Message {
    kind: String,
    data: Value,
}

impl Reader {
    /// `None` at the end of the stream.
    async fn try_next(&mut self) -> Option<Message> {
        loop {
            while let Some((block, rest)) = self.rest.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.rest = rest;
                let field = |name: &str| {
                    block.lines().find_map(|line| line.strip_prefix(name)).map(ToOwned::to_owned)
                };
                self.last = field("id: ").or(self.last.take());
                if let (Some(kind), Some(data)) = (field("event: "), field("data: ")) {
                    return Some(Message { kind, data: serde_json::from_str(&data).unwrap() });
                }
            }
            let part = tokio::time::timeout(SOON, self.body.next()).await.expect("a message in time")?;
            self.rest.push_str(std::str::from_utf8(&part).unwrap());
        }
    }

    async fn next(&mut self) -> Message {
        self.try_next().await.expect("the stream goes on")
    }

    /// The next of that kind; others are passed over.
    async fn wait(&mut self, kind: &str) -> Value {
        loop {
            let message = self.next().await;
            if message.kind == kind {
                return message.data;
            }
        }
    }

    /// Kinds up to `ready`.
    async fn greeting(&mut self) -> Vec<String> {
        let mut kinds = Vec::new();
        while kinds.last().is_none_or(|kind| kind != "ready") {
            kinds.push(self.next().await.kind);
        }
        kinds
    }
}

fn database() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    (folder, path)
}

#[tokio::test]
async fn a_reader_gets_everything_as_it_is_then_every_change() {
    let (_folder, path) = database();
    let world = World::new(&path);
    world.event("web", EntryKind::ServiceStarted, "before");
    world.written().await;
    let mut reader = world.open("", None).await;
    let hello = reader.wait("hello").await;
    assert_eq!((&hello["resumed"], &hello["services"]), (&json!(false), &json!(2)));
    assert!(reader.last.as_ref().unwrap().starts_with("1."), "{:?}", reader.last);
    assert_eq!(reader.greeting().await, ["service", "service", "ready"]);

    world.change("web", |web| web.state = State::Backoff);
    let web = reader.next().await;
    assert_eq!(
        (web.kind.as_str(), &web.data["id"], &web.data["state"]),
        ("state", &json!("web"), &json!("backoff"))
    );
    assert_eq!(web.data["unit"], "supervisor-web.service", "all of it");
    world.change("db", |db| db.health = Health::Degraded);
    assert_eq!(reader.next().await.kind, "health");
    world.change("db", |db| db.reason = "another".into());
    assert_eq!(reader.next().await.kind, "service");
    world.change("db", |db| {
        db.usage = Some(Sample { cpu_percent: Some(12.5), tasks: Some(3), ..Sample::default() })
    });
    let metrics = reader.next().await;
    assert_eq!(metrics.data["services"], json!({"db": {"cpu_percent": 12.5, "memory_mb": null, "tasks": 3}}));
    world.snapshot.send_modify(|snapshot| drop(Arc::make_mut(snapshot).services.remove("db")));
    assert_eq!(reader.next().await, Message { kind: "removed".into(), data: json!({"id": "db"}) });

    world.event("web", EntryKind::ServiceFailed, "web: running -> backoff");
    let event = reader.next().await;
    assert_eq!(
        (event.kind.as_str(), &event.data["id"], &event.data["event_type"]),
        ("event", &json!(2), &json!("service_failed"))
    );
    let key = AlertKey { service: Some(id("web")), kind: AlertKind::Down, raised: now() };
    world.store.alert(Alert {
        key: key.clone(),
        severity: Severity::Error,
        message: "down".into(),
        details: BTreeMap::new(),
    });
    assert_eq!(reader.wait("alert").await["resolved_at"], Value::Null);
    world.store.alert_detail(key.clone(), "log", json!(["last words"]));
    let again = reader.wait("alert").await;
    assert_eq!((&again["id"], &again["details"]["log"]), (&json!(1), &Value::Null), "some may not read logs");
    world.store.acknowledge(1, now());
    assert!(reader.wait("alert").await["acknowledged_at"].is_string());
    world.store.alert_resolved(key, "it runs", now());
    assert!(reader.wait("alert").await["resolved_at"].is_string());
    assert!(tokio::time::timeout(Duration::from_millis(50), reader.body.next()).await.is_err(), "no more");

    let mut late = world.open("", Some("2")).await;
    assert_eq!(late.wait("hello").await["resumed"], true);
    assert_eq!(late.greeting().await, ["service", "alert", "ready"], "what was resolved meanwhile");
    world.event("web", EntryKind::ServiceStopped, "the last words");
    world.end().await;
    assert_eq!(reader.wait("event").await["message"], "the last words");
    assert!(reader.try_next().await.is_none(), "it ends with the daemon");
}

#[tokio::test]
async fn filters_choose_and_wrong_queries_are_told() {
    let (_folder, path) = database();
    let world = World::new(&path);
    let mut web = world.open("?service=web&type=event", None).await;
    assert_eq!(web.greeting().await, ["hello", "ready"]);
    let mut failed = world.open("?type=service_failed,state", None).await;
    assert_eq!(failed.greeting().await, ["hello", "service", "service", "ready"]);
    world.event("db", EntryKind::ServiceFailed, "1");
    world.event("web", EntryKind::ServiceStarted, "2");
    world.event("web", EntryKind::ServiceFailed, "3");
    world.written().await;
    for (reader, expected) in [(&mut web, ["2", "3"]), (&mut failed, ["1", "3"])] {
        for message in expected {
            assert_eq!(reader.wait("event").await["message"], message);
        }
    }
    let mut past = world.open("?service=web&type=service_failed&last_event_id=0", None).await;
    assert_eq!(past.greeting().await, ["hello", "event", "ready"]);
    for bad in ["?service=a/b", "?type=stat", "?x=1"] {
        assert_eq!(world.ask(bad, None).await.status(), 400, "{bad}");
    }
}

/// Writers of ours and others, readers that leave at any moment and come back with their id, and a daemon that is
/// started anew in between: each reader sees every row once and in order.
#[tokio::test]
async fn nothing_is_missing_and_nothing_comes_twice() {
    const ROUNDS: u64 = 8;
    let (_folder, path) = database();
    let mut world = World::new(&path);
    let mut seen: Vec<(Option<String>, Vec<i64>)> = vec![(Some("0".into()), Vec::new()); 4];
    let mut dice = 0x9e37_79b9_u64;
    let mut roll = move |below: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % below
    };
    for round in 0..ROUNDS {
        let stranger = rusqlite::Connection::open(&path).unwrap();
        stranger.busy_timeout(SOON).unwrap();
        for _ in 0..6 {
            let visits = seen.drain(..).map(|(last, mut ids)| {
                let (reads, url_only) = (roll(60), roll(2) == 0);
                let world = &world;
                async move {
                    // A browser's header wins over the query of its first time.
                    let mut reader = match (&last, url_only) {
                        (Some(last), true) => world.open(&format!("?last_event_id={last}"), None).await,
                        (last, _) => world.open("?last_event_id=0", last.as_deref()).await,
                    };
                    let hello = reader.next().await;
                    assert_eq!(
                        (hello.kind.as_str(), &hello.data["resumed"]),
                        ("hello", &json!(true)),
                        "{last:?}"
                    );
                    reader.last = last;
                    for _ in 0..reads {
                        let next = tokio::time::timeout(Duration::from_millis(20), reader.next()).await;
                        let Ok(message) = next else { break };
                        assert_ne!(message.kind, "resync");
                        if message.kind == "event" {
                            ids.push(message.data["id"].as_i64().unwrap());
                        }
                    }
                    (reader.last, ids)
                }
            });
            let visits = futures_util::future::join_all(visits.collect::<Vec<_>>());
            let writes = async {
                for n in 0..30 {
                    world.event("web", EntryKind::ServiceStarted, &format!("{round} {n}"));
                    if n % 7 == 0 {
                        stranger
                            .execute(
                                "INSERT INTO supervisor_events (event_type, timestamp) VALUES ('theirs', ?1)",
                                [format!("2026-01-01 00:00:{:02}", n % 60)],
                            )
                            .unwrap();
                    }
                    if n % 5 == 0 {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                }
            };
            (seen, ()) = tokio::join!(visits, writes);
        }
        world.end().await;
        world = World::new(&path);
    }
    let total: i64 = rusqlite::Connection::open(&path)
        .unwrap()
        .query_row("SELECT count(*) FROM supervisor_events", [], |row| row.get(0))
        .unwrap();
    assert_eq!(total, ROUNDS as i64 * 6 * 35);
    for (last, mut ids) in seen {
        let mut reader = world.open("", last.as_deref()).await;
        while ids.len() < total as usize {
            let message = reader.next().await;
            if message.kind == "event" {
                ids.push(message.data["id"].as_i64().unwrap());
            }
        }
        assert_eq!(ids, (1..=total).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn an_id_that_is_not_in_the_history_is_told() {
    let (_folder, path) = database();
    let world = World::new(&path);
    for n in 0..5 {
        world.event("web", EntryKind::ServiceStarted, &n.to_string());
    }
    world.written().await;
    let mut reader = world.open("", Some("3")).await;
    assert_eq!(reader.next().await.data["resumed"], true);
    assert_eq!(reader.next().await.data["id"], 4);
    let third = reader.last.clone().unwrap();
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute("DELETE FROM supervisor_events WHERE id < 4", [])
        .unwrap();
    for unknown in ["3", "0", "99", "4.17", "-1", "x", "9999999999999999999999"] {
        let mut reader = world.open("", Some(unknown)).await;
        assert_eq!(reader.next().await.data["resumed"], false, "{unknown}");
        let resync = reader.next().await;
        assert_eq!(resync.kind, "resync", "{unknown}");
        assert!(resync.data["reason"].as_str().unwrap().contains("no longer kept"));
        assert!(reader.last.as_ref().unwrap().starts_with("5."), "it goes on from now");
        assert_eq!(reader.greeting().await, ["service", "service", "ready"]);
    }
    let mut reader = world.open("", Some(&third)).await;
    assert_eq!(reader.next().await.data["resumed"], true, "{third}");
    // Another file under the same name, with as many rows: the times tell.
    world.end().await;
    std::fs::remove_file(&path).unwrap();
    let world = World::new(&path);
    for n in 0..9 {
        world.event("web", EntryKind::ServiceStarted, &n.to_string());
    }
    world.written().await;
    let mut reader = world.open("", Some(&third)).await;
    assert_eq!(reader.next().await.data["resumed"], false);
}

#[tokio::test]
async fn a_history_that_is_replaced_under_readers_is_told_once() {
    let (_folder, path) = database();
    let world = World::new(&path);
    (0..5).for_each(|n| world.event("web", EntryKind::ServiceStarted, &n.to_string()));
    world.written().await;
    let mut reader = world.open("", None).await;
    reader.greeting().await;
    // As many rows as before, and more: only their times tell.
    let row = "INSERT INTO supervisor_events (timestamp) VALUES ('2026-01-01 00:00:00');";
    let replace = format!(
        "BEGIN; DELETE FROM supervisor_events; DELETE FROM sqlite_sequence; {} COMMIT;",
        row.repeat(7)
    );
    rusqlite::Connection::open(&path).unwrap().execute_batch(&replace).unwrap();
    world.event("web", EntryKind::ServiceFailed, "first of the new ones");
    let resync = reader.next().await;
    assert_eq!(resync.kind, "resync");
    assert!(resync.data["reason"].as_str().unwrap().contains("deleted or replaced"));
    assert_eq!(reader.greeting().await, ["service", "service", "ready"]);
    world.event("web", EntryKind::ServiceFailed, "second");
    assert_eq!(reader.wait("event").await["message"], "second");
}

#[tokio::test]
async fn who_saw_a_row_before_the_feed_did_does_not_get_it_again() {
    let (_folder, path) = database();
    let world = World::new(&path);
    let mut early = world.open("", None).await;
    early.greeting().await;
    let theirs =
        "INSERT INTO supervisor_events (event_type, timestamp) VALUES ('theirs', '2026-01-01 00:00:00')";
    rusqlite::Connection::open(&path).unwrap().execute(theirs, []).unwrap();
    let mut late = world.open("?last_event_id=1", None).await;
    assert_eq!(late.next().await.data["resumed"], true);
    world.event("web", EntryKind::ServiceStarted, "ours");
    for n in [1, 2] {
        assert_eq!(early.wait("event").await["id"], n);
    }
    assert_eq!(late.wait("event").await["id"], 2);
}

#[tokio::test]
async fn a_slow_reader_is_told_once_and_goes_on_from_now() {
    let (_folder, path) = database();
    let world = World::new(&path);
    let (mut slow, mut quick) = (world.open("", None).await, world.open("", None).await);
    slow.greeting().await;
    quick.greeting().await;
    for n in 0..3000 {
        world.event("web", EntryKind::ServiceStarted, &n.to_string());
        if n % 300 == 299 {
            let last = n.to_string();
            while quick.wait("event").await["message"] != last {}
        }
    }
    let before = slow.last.clone();
    let resync = slow.wait("resync").await;
    assert!(
        resync["missed"].as_u64().unwrap() > 1000 && resync["reason"].as_str().unwrap().contains("slowly")
    );
    assert!(slow.last.as_ref().unwrap().starts_with("3000."));
    assert_eq!(slow.greeting().await, ["service", "service", "ready"]);
    world.event("web", EntryKind::ServiceStarted, "now");
    assert_eq!(slow.next().await.data["message"], "now");
    // Who wants all of it comes back with the id from before.
    let mut again = world.open("", before.as_deref()).await;
    for n in 0..3000 {
        assert_eq!(again.wait("event").await["message"], n.to_string());
    }
}

#[tokio::test]
async fn streams_are_bounded_and_make_room() {
    let (_folder, path) = database();
    let world = World::new(&path);
    let mut readers = Vec::new();
    for _ in 0..1024 {
        readers.push(world.open("?type=event", None).await);
    }
    let refused = world.ask("", None).await;
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (503, &"5".parse().unwrap()));
    assert_eq!(refused.headers()["content-type"], "application/problem+json");
    readers.pop();
    assert_eq!(world.ask("", None).await.status(), 200);
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Over real connections: 1,000 readers of which 100 never read, none of which takes a place from other requests or
/// holds up those who read.
#[tokio::test]
async fn a_thousand_readers_cost_little_and_hold_nobody_up() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if hard < 4096 {
        eprintln!("skipped: at most {hard} open files are allowed here, 4096 are needed");
        return;
    }
    setrlimit(Resource::RLIMIT_NOFILE, 4096, hard).unwrap();
    let (folder, path) = database();
    let world = World::new(&path);
    let socket = folder.path().join("s");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let over = async { drop(ended.await) };
    let server =
        tokio::spawn(http::serve_unix(listener, tokio::sync::mpsc::channel(1).1, world.router.clone(), over));
    let connect = async |path: &str| {
        let mut stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
        let request = format!("GET /api/supervisor/{path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    };
    let before = resident();
    let mut readers = Vec::new();
    for _ in 0..1000 {
        readers.push(connect("stream").await);
    }
    let mut buffer = vec![0; 1 << 16];
    for reader in &mut readers[100..] {
        let mut text = String::new();
        while !text.contains("event: ready") {
            let n = tokio::time::timeout(SOON, reader.read(&mut buffer)).await.unwrap().unwrap();
            text.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
        }
    }
    let each = (resident() - before) as f64 / 1000.0;
    // Both ends of each connection are in this process, so it is a bound from above.
    println!("memory per reader: {each:.1} KiB");
    assert!(each < 30.0, "{each} KiB");

    // As much as fills every buffer of those who do not read, many times over.
    let text = "x".repeat(4000);
    let begun = Instant::now();
    for n in 0..500 {
        world.event("web", EntryKind::ServiceStarted, &format!("{n} {text}"));
        if n % 50 == 49 {
            world.written().await;
            let last = format!("\"{n} x");
            // One of those who read; the others' buffers take what comes.
            let reader = readers.last_mut().unwrap();
            let mut seen = String::new();
            while !seen.contains(&last) {
                let n = tokio::time::timeout(SOON, reader.read(&mut buffer)).await.unwrap().unwrap();
                seen.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
            }
        }
    }
    let grown = (resident() - before) / 1024;
    println!("after 500 events of 4 KB: {grown} MiB more, in {:?}", begun.elapsed());
    assert!(grown < 100, "{grown} MiB");
    // All connections of the other kind are free.
    let mut other = connect("status").await;
    let n = tokio::time::timeout(SOON, other.read(&mut buffer)).await.unwrap().unwrap();
    assert!(buffer[..n].starts_with(b"HTTP/1.1 200"));
    drop(other);

    let begun = Instant::now();
    world.end().await;
    end.send(()).unwrap();
    server.await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10));
}
