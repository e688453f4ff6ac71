//! The API as its clients see it, with a made-up loop at the other end.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tower::ServiceExt;

use crate::config::Problem;
use crate::control::{
    About, AlertQuery, AlertRow, Changed, Changes, Control, EventQuery, EventRow, History, HistoryError,
    LogEntry, LogError, LogQuery, LogTail, Logs, MetricPoint, MetricQuery, MetricRow, ReloadReport,
    Request as Asked, Spread, StoreState,
};
use crate::core::action::{EntryKind, Outcome};
use crate::core::event::{Exit, ExitResult, Verb};
use crate::core::plan::*;
use crate::core::sample::Host;
use crate::core::snapshot::{Health, ProbeView, ServiceView, Snapshot, State};
use crate::core::time::{Mono, Wall};
use crate::ring::Ring;
use crate::token::Role;

fn id(text: &str) -> Id {
    Id::new(text).unwrap()
}

fn view(name: &str, state: State, health: Health, dependencies: &[&str]) -> ServiceView {
    let mut plan = ServicePlan {
        name: name.to_uppercase(),
        description: format!("the {name}"),
        port: Some(80),
        groups: vec![id("back")],
        exec_hash: "0".into(),
        ..ServicePlan::new(id(name), "/usr/bin/x")
    };
    plan.health.probe = Probe::Tcp { host: "localhost".into(), port: Some(80) };
    plan.health.interval = Duration::from_secs(5);
    plan.health.timeout = Duration::from_secs(2);
    plan.dependencies = dependencies
        .iter()
        .map(|d| Dependency { service: id(d), condition: Condition::Healthy, on_failure: OnFailure::Hold })
        .collect();
    ServiceView {
        state,
        since: Wall(1000),
        reason: "because".into(),
        health,
        pid: (state == State::Running).then_some(42),
        started_at: Some(Wall(500)),
        started_mono: Some(Mono(Duration::ZERO)),
        restart_count: 2,
        last_restart: Some(Wall(400)),
        attempt: 1,
        wanted: state != State::Stopped,
        ..ServiceView::new(Arc::new(plan))
    }
}

pub(crate) struct World {
    pub(crate) router: Router,
    /// `verb service origin`, in the order in which the loop saw them.
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
    past: Past,
    snapshot: watch::Sender<Arc<Snapshot>>,
}

/// Questions about events, questions about metrics, and rows that were added.
#[derive(Clone, Default)]
struct Past(Arc<Mutex<Vec<EventQuery>>>, Arc<Mutex<Vec<MetricQuery>>>, Arc<Mutex<Vec<MetricRow>>>);

impl History for Past {
    fn events(&self, query: EventQuery) -> BoxFuture<'_, Result<Vec<EventRow>, HistoryError>> {
        let broken = query.service == Some(id("broken"));
        let rows = (0..i64::from(query.limit.min(3)))
            .map(|n| EventRow {
                id: 9 - n,
                service: Some("web".into()),
                kind: "service_started".into(),
                at: Wall(n),
                message: "m".into(),
                details: json!({}),
            })
            .collect();
        self.0.lock().unwrap().push(query);
        Box::pin(async move { if broken { Err(HistoryError("disk I/O error".into())) } else { Ok(rows) } })
    }

    fn metrics(&self, query: MetricQuery) -> BoxFuture<'_, Result<Vec<MetricPoint>, HistoryError>> {
        let of = |avg: f64| Some(Spread { min: avg / 2.0, avg, max: avg * 2.0 });
        let point = MetricPoint {
            at: query.since,
            samples: 3,
            cpu_percent: of(10.0),
            memory_mb: of(64.0),
            response_time_ms: None,
            tasks: Some(4),
            throttled: None,
            health: Some(Health::Healthy),
        };
        self.1.lock().unwrap().push(query);
        Box::pin(async move { Ok(vec![point]) })
    }

    fn add_metrics(&self, rows: Vec<MetricRow>) {
        self.2.lock().unwrap().extend(rows);
    }

    fn changes(&self) -> watch::Receiver<Changes> {
        watch::Sender::new(Changes::default()).subscribe()
    }

    fn flushed(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    fn alerts(&self, query: AlertQuery) -> BoxFuture<'_, Result<Vec<AlertRow>, HistoryError>> {
        let mut rows = vec![alert_row(7)];
        if query.all {
            rows.push(AlertRow { resolved_at: Some(Wall(2)), ..alert_row(6) });
        }
        rows.truncate(query.limit as usize);
        Box::pin(async move { Ok(rows) })
    }

    fn state(&self) -> StoreState {
        StoreState { troubled: false, events: 12, bytes: Some(4096) }
    }

    fn count(&self, _: EntryKind, _: Wall) -> BoxFuture<'_, Result<u64, HistoryError>> {
        Box::pin(async { Ok(5) })
    }
}

/// A journal of 500 lines of everybody; `denied` is not to be read.
struct Journal;

fn log_entry(n: u64) -> LogEntry {
    LogEntry {
        at: Wall(i64::try_from(n).unwrap()),
        priority: Some(u8::try_from(n % 8).unwrap()),
        message: format!("line {n}"),
        pid: Some(7),
        unit: Some("supervisor-web.service".into()),
        cursor: format!("s=a;i={n:x};t=1"),
    }
}

impl Logs for Journal {
    fn lines(&self, query: LogQuery) -> BoxFuture<'_, Result<Vec<LogEntry>, LogError>> {
        let denied = query.plan.id == id("bad");
        let number = |cursor: &Option<String>| {
            let hex = cursor.as_ref()?.strip_prefix("s=a;i=")?.split(';').next()?.to_owned();
            u64::from_str_radix(&hex, 16).ok()
        };
        let all =
            (number(&query.after).map_or(1, |n| n + 1)..number(&query.before).unwrap_or(501)).map(log_entry);
        let lines = query.lines as usize;
        let found: Vec<LogEntry> = match query.after {
            Some(_) => all.take(lines).collect(),
            None => {
                all.skip((number(&query.before).unwrap_or(501) as usize - 1).saturating_sub(lines)).collect()
            }
        };
        Box::pin(
            async move { if denied { Err(LogError::Denied("join the group".into())) } else { Ok(found) } },
        )
    }

    /// Begins a little before the end of what is there.
    fn follow(&self, _: Arc<ServicePlan>) -> Result<LogTail, LogError> {
        let ring = Ring::new(100, 10_000);
        let tail = ring.tail();
        for n in [498, 499, 500, 501, 508] {
            ring.push(Ok(log_entry(n)), 10);
        }
        ring.close();
        Ok(LogTail { tail, hold: ring })
    }
}

fn alert_row(number: i64) -> AlertRow {
    AlertRow {
        id: number,
        service: Some("web".into()),
        kind: "down".into(),
        severity: "error".into(),
        message: "web is down".into(),
        details: json!({"attempt": 1, "log": ["a line of the log"]}),
        created_at: Wall(1),
        acknowledged_at: None,
        resolved_at: None,
    }
}

/// `db` <- `web` <- `edge` in the group `back`; `slow` never answers, `bad` refuses, `lost` meets the daemon's end.
/// `edge` takes 700 ms to start.
pub(crate) fn world() -> World {
    let mut services: Vec<ServiceView> = vec![
        view("db", State::Running, Health::Healthy, &[]),
        view("web", State::Running, Health::Healthy, &["db"]),
        view("edge", State::Stopped, Health::Unknown, &["web"]),
    ];
    for other in ["slow", "bad", "lost"] {
        services.push(view(other, State::Starting, Health::Unknown, &[]));
    }
    let snapshot = Snapshot {
        services: services.into_iter().map(|v| (v.plan.id.clone(), Arc::new(v))).collect(),
        groups: Arc::new(
            [(id("back"), vec![id("db"), id("web"), id("edge")]), (id("mixed"), vec![id("db"), id("bad")])]
                .into(),
        ),
        ..Snapshot::default()
    };
    let (requests, inbox) = mpsc::channel(8);
    let (snapshot, snapshots) = watch::channel(Arc::new(snapshot));
    let show = |_: &ServicePlan| json!({"command": "/usr/bin/x", "environment": {"TOKEN": "***"}});
    let about = About {
        version: "1.2.3",
        scope: "system",
        systemd_version: "252".into(),
        started_at: Wall(0),
        config_path: "/etc/c.json".into(),
        state: "/var/lib/x".into(),
    };
    let (asked, past) = (Arc::default(), Past::default());
    tokio::spawn(looping(inbox, Arc::clone(&asked), snapshot.clone()));
    let host =
        Host { cores: 2, cpu_percent: 51.25, memory: 4 << 30, memory_used: 1 << 30, load: [0.5, 0.25, 0.0] };
    let (history, journal) = (Arc::new(past.clone()), Arc::new(Journal));
    let control = Control::new(requests, snapshots, show, Arc::new(about), history, journal)
        .with_host(watch::channel(Some(host)).1);
    World { router: super::router(control), asked, past, snapshot }
}

fn enter(snapshot: &watch::Sender<Arc<Snapshot>>, service: &Id, state: State) {
    snapshot.send_modify(|snapshot| {
        let snapshot = Arc::make_mut(snapshot);
        snapshot.version += 1;
        let Some(view) = snapshot.services.get_mut(service) else { return };
        let view = Arc::make_mut(view);
        view.state = state;
        view.pid = (state == State::Running).then_some(42);
        view.health = if state == State::Running { Health::Healthy } else { Health::Unknown };
    });
}

async fn looping(
    mut inbox: mpsc::Receiver<Asked>,
    asked: Arc<Mutex<Vec<String>>>,
    snapshot: watch::Sender<Arc<Snapshot>>,
) {
    let mut unanswered = Vec::new();
    while let Some(request) = inbox.recv().await {
        let note = |text: String| asked.lock().unwrap().push(text);
        match request {
            Asked::Order { service, verb, origin, answer } => {
                note(format!("{verb:?} {service} by {origin}"));
                let state = if verb == Verb::Stop { State::Stopped } else { State::Running };
                let outcome = |done, message: &str| Outcome { done, state, message: message.into() };
                match service.as_str() {
                    "slow" => unanswered.push(answer),
                    "lost" => drop(answer),
                    "bad" => drop(answer.send(outcome(false, "it needs db, which is fatal"))),
                    "edge" if verb == Verb::Start => {
                        let snapshot = snapshot.clone();
                        tokio::spawn(async move {
                            enter(&snapshot, &service, State::Starting);
                            tokio::time::sleep(Duration::from_millis(700)).await;
                            enter(&snapshot, &service, State::Running);
                            let _ = answer.send(Outcome { done: true, state, message: "as asked".into() });
                        });
                    }
                    _ => {
                        enter(&snapshot, &service, state);
                        drop(answer.send(outcome(true, "as asked")));
                    }
                }
            }
            Asked::Signal { service, signal, origin, answer } => {
                note(format!("signal {signal} {service} by {origin}"));
                let result = if service == id("edge") { Err("edge is stopped".to_owned()) } else { Ok(()) };
                let _ = answer.send(result);
            }
            Asked::Reload { dry_run, origin, answer } => {
                note(format!("reload {dry_run} by {origin}"));
                let report = ReloadReport {
                    added: vec![id("new")],
                    restarted: vec![Changed { id: id("web"), fields: vec!["args".into()] }],
                    ..ReloadReport::default()
                };
                let problem = Problem {
                    file: "c.json".into(),
                    line: 3,
                    column: 7,
                    path: "services.web.comand".into(),
                    message: "unknown key".into(),
                    help: "did you mean \"command\"?".into(),
                };
                let _ = answer.send(if dry_run { Err(vec![problem]) } else { Ok(report) });
            }
            Asked::Acknowledge { alert, origin, answer } => {
                note(format!("ack {alert} {origin}"));
                let row = (alert == 7).then(|| AlertRow { acknowledged_at: Some(Wall(3)), ..alert_row(7) });
                drop(answer.send(Ok(row)));
            }
            Asked::RotateToken { role, origin, answer } => {
                note(format!("rotate {} by {origin}", role.as_str()));
                let full = Err("No space left on device".to_owned());
                let _ = answer.send(if role == Role::Viewer { full } else { Ok("/state/token".into()) });
            }
            Asked::Shutdown { origin } => {
                note(format!("shutdown by {origin}"));
                return;
            }
        }
    }
}

impl World {
    async fn ask(&self, method: &str, path: &str) -> (StatusCode, String, Value) {
        self.send(Request::builder().method(method).uri(path).body(Body::empty()).unwrap()).await
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let (status, _, body) = self.ask("GET", path).await;
        (status, body)
    }

    async fn post(&self, path: &str) -> (StatusCode, Value) {
        let (status, _, body) = self.ask("POST", path).await;
        (status, body)
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, String, Value) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, kind, serde_json::from_slice(&body).unwrap())
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    pub(crate) fn change(&self, service: &str, change: impl Fn(&mut ServiceView)) {
        self.snapshot.send_modify(|snapshot| {
            let snapshot = Arc::make_mut(snapshot);
            snapshot.version += 1;
            change(Arc::make_mut(snapshot.services.get_mut(service).unwrap()));
        });
    }
}

#[tokio::test]
async fn status_has_the_fields_of_the_contract_in_order() {
    let world = world();
    world.change("web", |web| {
        let exit = Exit { code: None, signal: Some(9), result: ExitResult::OomKill };
        web.last_exit = Some((exit, Wall(399)));
        web.next_retry_at = Some(Wall(1500));
        web.waiting_for = vec![id("db")];
    });
    let request = Request::builder().uri("/api/supervisor/status").body(Body::empty()).unwrap();
    let response = world.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let text = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let status: Value = serde_json::from_slice(&text).unwrap();
    let mut web = status["services"]["web"].clone();
    assert!(web["uptime_seconds"].as_u64().is_some());
    web["uptime_seconds"] = json!(0);
    assert_eq!(
        web,
        json!({
            "id": "web", "name": "WEB", "description": "the web", "state": "running", "health": "healthy",
            "pid": 42, "port": 80, "start_time": "1970-01-01T00:00:00.500Z", "uptime_seconds": 0,
            "restart_count": 2, "last_restart": "1970-01-01T00:00:00.400Z", "priority": 100, "critical": false,
            "enabled": true, "auto_restart": true, "groups": ["back"], "dependencies": ["db"],
            "waiting_for": ["db"], "unit": "supervisor-web.service", "cpu_percent": null, "memory_mb": null,
            "tasks": null, "memory_limit_mb": null, "cpu_limit_percent": null, "usage": null, "attempt": 1, "next_retry_at": "1970-01-01T00:00:01.500Z",
            "last_exit": {"code": null, "signal": 9, "result": "oom-kill", "at": "1970-01-01T00:00:00.399Z"},
            "reason": "because", "since": "1970-01-01T00:00:01.000Z", "flapping": false, "flapping_reason": null
        })
    );
    let text = String::from_utf8(text.to_vec()).unwrap();
    let order: Vec<usize> =
        ["\"id\":\"web\"", "\"unit\":\"supervisor-web", "\"last_exit\":{\"code\":null,\"signal\":9"]
            .iter()
            .map(|part| text.find(part).unwrap())
            .collect();
    assert!(order.is_sorted());
    let edge = &status["services"]["edge"];
    assert_eq!(
        (&edge["start_time"], &edge["uptime_seconds"], &edge["pid"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    assert_eq!(status["supervisor"]["config_path"], "/etc/c.json");
    assert_eq!(status["supervisor"]["started_at"], "1970-01-01T00:00:00.000Z");
    assert!(world.asked().is_empty(), "a read does not bother the loop");
}

#[tokio::test]
async fn a_service_comes_with_its_config_and_events() {
    let (status, web) = world().get("/api/supervisor/services/web").await;
    assert_eq!(status, 200);
    assert_eq!(web["config"]["environment"]["TOKEN"], "***");
    assert_eq!(web["recent_events"].as_array().unwrap().len(), 3);
    assert_eq!(web["recent_events"][0]["timestamp"], "1970-01-01T00:00:00.000Z");
    assert_eq!(web["recent_metrics"].as_array().unwrap().len(), 1);
    assert_eq!(web["state"], "running");
}

#[tokio::test]
async fn orders_wait_for_their_outcome() {
    let world = world();
    for (path, status, state, done) in [
        ("web/start", 200, "running", true),
        ("web/stop", 200, "stopped", true),
        ("web/restart?timeout=5", 200, "running", true),
        ("web/reset", 200, "running", true),
        ("slow/start?wait=false", 202, "starting", false),
        ("slow/start?timeout=0.01", 202, "starting", false),
    ] {
        let (code, body) = world.post(&format!("/api/supervisor/services/{path}")).await;
        assert_eq!(
            (code.as_u16(), &body["state"], &body["done"]),
            (status, &json!(state), &json!(done)),
            "{path}"
        );
        assert_eq!(path.split(['/', '?']).nth(1).unwrap(), body["action"]);
    }
    let asked = world.asked();
    assert_eq!(asked[1], "Stop web by somebody over the socket");
    assert_eq!(asked.len(), 6);
}

#[tokio::test]
async fn an_order_that_takes_too_long_is_told_as_it_is() {
    let world = world();
    world.change("slow", |slow| slow.reason = "the port is not open yet".into());
    let (_, body) = world.post("/api/supervisor/services/slow/start?timeout=0.02").await;
    assert_eq!(
        body["message"],
        "slow is still starting after 20 ms (the port is not open yet); the order stands and goes on"
    );
}

#[tokio::test]
async fn a_healthy_slow_start_is_not_cut_off() {
    let world = world();
    world.change("slow", |slow| {
        let plan = Arc::make_mut(&mut slow.plan);
        plan.health.start_period = Duration::from_secs(600);
        plan.dependencies = vec![Dependency {
            service: id("web"),
            condition: Condition::Healthy,
            on_failure: OnFailure::Hold,
        }];
    });
    let snapshot = world.snapshot.borrow().clone();
    let plan = &snapshot.services["slow"].plan;
    // Its own start period, three probes each of slow, web and db, a stop that may come first, and the margin.
    let start = super::orders::budget(&snapshot, plan, Verb::Start).as_secs();
    assert_eq!(start, 600 + 3 * 17 + 30 + 30);
    assert_eq!(super::orders::budget(&snapshot, plan, Verb::Restart).as_secs(), start + 30);
    assert_eq!(super::orders::budget(&snapshot, plan, Verb::Stop).as_secs(), 60);
}

#[tokio::test]
async fn what_cannot_be_is_a_conflict_with_its_reason() {
    let world = world();
    let (status, kind, body) = world.ask("POST", "/api/supervisor/services/bad/start").await;
    assert_eq!((status.as_u16(), kind.as_str()), (409, "application/problem+json"));
    assert_eq!(body["detail"], "it needs db, which is fatal");
    assert_eq!((&body["id"], &body["state"]), (&json!("bad"), &json!("starting")));
    let (status, body) = world.post("/api/supervisor/services/lost/start").await;
    assert_eq!((status.as_u16(), body["title"].as_str()), (503, Some("The supervisor is ending")));
}

#[tokio::test]
async fn every_error_is_a_problem_document_that_helps() {
    let world = world();
    let long = "x".repeat(5000);
    for (method, path, code, part) in [
        ("GET", "services/wbe", 404, "there is no service \"wbe\": did you mean \"web\"?"),
        ("POST", "services/nothing-like-it/start", 404, "`supervisorctl status` lists"),
        ("POST", "groups/bakc/start", 404, "did you mean \"back\"?"),
        ("GET", "services/%ff", 400, "the path"),
        ("GET", "services/a%0ab", 404, "\"a\\nb\""),
        ("GET", &format!("services/{long}"), 404, "there is no service"),
        ("GET", "nowhere", 404, "nothing at /api/supervisor/nowhere"),
        ("GET", "services/web/start", 405, "does not take GET"),
        ("DELETE", "status", 405, "does not take DELETE"),
        ("POST", "services/web/start?wiat=true", 400, "unknown field `wiat`"),
        ("POST", "services/web/start?wait=maybe", 400, "expected true or false"),
        ("POST", "services/web/start?timeout=-1", 400, "seconds from 0 to 86400"),
        ("POST", "services/web/start?timeout=NaN", 400, "seconds from 0 to 86400"),
        ("POST", "reload?dry_run=2", 400, "expected true or false"),
        ("GET", "events?limit=0", 400, "1 to 1000"),
        (
            "GET",
            "events?limit=-2",
            400,
            "the query: limit: invalid value: string \"-2\", expected a whole number",
        ),
        ("GET", "events?type=nope", 400, "expected one of"),
        ("GET", "events?since=yesterday", 400, "2026-01-31T08:15:00Z"),
        ("GET", "events?service=a%20b", 400, "an id is"),
        ("GET", "events?colour=red", 400, "unknown field `colour`"),
        ("GET", "events?service=broken", 503, "disk I/O error"),
    ] {
        let (status, kind, body) = world.ask(method, &format!("/api/supervisor/{path}")).await;
        let detail = body["detail"].as_str().unwrap();
        assert_eq!((status.as_u16(), kind.as_str()), (code, "application/problem+json"), "{path}: {body}");
        assert_eq!(body["status"], code, "{path}");
        assert!(detail.contains(part), "{path}: {detail}");
        assert!(body.to_string().len() < 2000, "{path}");
    }
    assert!(world.asked().is_empty());
    let request = Request::get("/api/supervisor/services/web/start").body(Body::empty()).unwrap();
    let response = world.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.headers()["allow"], "POST");
}

#[tokio::test]
async fn signals_by_name() {
    let world = world();
    let send = async |service: &str, kind: &str, body: &str| {
        let request = Request::post(format!("/api/supervisor/services/{service}/signal"))
            .header("content-type", kind)
            .body(Body::from(body.to_owned()))
            .unwrap();
        let (status, _, body) = world.send(request).await;
        (status.as_u16(), body.get("detail").or(body.get("message")).unwrap().as_str().unwrap().to_owned())
    };
    let json = "application/json";
    assert_eq!(
        send("web", json, r#"{"signal": "HUP"}"#).await,
        (200, "SIGHUP was sent to the main process of web".into())
    );
    assert_eq!(send("edge", json, r#"{"signal": "10"}"#).await, (409, "edge is stopped".into()));
    for (kind, body, code, part) in [
        (json, r#"{"signal": "SIGNOPE"}"#, 400, "is not a signal"),
        (json, r#"{"sig": "HUP"}"#, 400, "unknown field"),
        (json, "{", 400, "the body"),
        (json, "", 400, "the body"),
        ("text/plain", r#"{"signal": "HUP"}"#, 415, "application/json"),
        (json, &format!(r#"{{"signal": "{}"}}"#, "x".repeat(300_000)), 413, "262144 bytes"),
    ] {
        let (status, detail) = send("web", kind, body).await;
        assert!(status == code && detail.contains(part), "{body:.20}: {status} {detail}");
    }
    assert_eq!(world.asked().len(), 2);
}

#[tokio::test]
async fn a_group_stops_dependents_first() {
    let world = world();
    let (status, body) = world.post("/api/supervisor/groups/back/stop").await;
    assert_eq!((status.as_u16(), &body["done"], &body["group"]), (200, &json!(true), &json!("back")));
    let order: Vec<String> =
        world.asked().iter().map(|a| a.split(" by").next().unwrap().to_owned()).collect();
    assert_eq!(order, ["Stop edge", "Stop web", "Stop db"]);
    let ids: Vec<&str> =
        body["outcomes"].as_array().unwrap().iter().map(|o| o["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["db", "web", "edge"]);
}

#[tokio::test]
async fn a_group_starts_what_is_enabled() {
    let world = world();
    world.change("edge", |edge| Arc::make_mut(&mut edge.plan).enabled = false);
    let (status, body) = world.post("/api/supervisor/groups/back/start").await;
    assert_eq!(status, 200);
    let asked = world.asked();
    assert!(
        asked.len() == 2 && asked[0].starts_with("Start db") && asked[1].starts_with("Start web"),
        "{asked:?}"
    );
    assert_eq!(body["outcomes"][2]["message"], "edge is disabled in the configuration and was left as it is");
    let (status, body) = world.post("/api/supervisor/groups/mixed/restart").await;
    assert_eq!(status, 409);
    assert_eq!(body["detail"], "restart of group mixed: 1 of 2 failed (bad: it needs db, which is fatal)");
    assert_eq!(body["outcomes"][0]["done"], true);
}

#[tokio::test]
async fn overall_health_is_503_for_a_critical_service_only() {
    let world = world();
    for other in ["edge", "slow", "bad", "lost"] {
        world.change(other, |v| Arc::make_mut(&mut v.plan).enabled = false);
    }
    let look = async || {
        let (status, body) = world.get("/api/supervisor/health").await;
        (status.as_u16(), body["status"].as_str().unwrap().to_owned())
    };
    assert_eq!(look().await, (200, "healthy".into()));
    world.change("web", |web| web.health = Health::Unhealthy);
    assert_eq!(look().await, (200, "degraded".into()));
    world.change("web", |web| Arc::make_mut(&mut web.plan).critical = true);
    assert_eq!(look().await, (503, "unhealthy".into()));
    world.change("web", |web| web.health = Health::Degraded);
    assert_eq!(look().await, (200, "degraded".into()));
    world.change("web", |web| (web.state, web.health) = (State::Backoff, Health::Unknown));
    assert_eq!(look().await, (503, "unhealthy".into()));
}

#[tokio::test]
async fn the_health_of_one_names_its_check() {
    let world = world();
    let (_, body) = world.get("/api/supervisor/services/web/health").await;
    assert_eq!(body["checks"][0]["status"], "unknown");
    world.change("web", |web| {
        web.last_probe = Some(ProbeView {
            passed: false,
            message: "connection refused".into(),
            took: Duration::from_micros(1500),
            at: Wall(7),
            consecutive_failures: 2,
        });
    });
    let (_, body) = world.get("/api/supervisor/services/web/health").await;
    assert_eq!(
        body["checks"][0],
        json!({"type": "tcp", "target": "localhost:80", "status": "failing", "response_time_ms": 1.5,
               "message": "connection refused", "checked_at": "1970-01-01T00:00:00.007Z", "consecutive_failures": 2})
    );
}

#[tokio::test]
async fn events_are_paged_and_filtered() {
    let world = world();
    let (_, page) = world.get("/api/supervisor/events?limit=2").await;
    assert_eq!((page["events"].as_array().unwrap().len(), &page["next_before"]), (2, &json!(8)));
    let (_, page) = world.get("/api/supervisor/events?limit=5").await;
    assert_eq!(page["next_before"], Value::Null, "a short page is the last");
    let path = "/api/supervisor/events?service=web&type=service_failed&since=1970-01-01T00:00:01Z&before=7";
    assert_eq!(world.get(path).await.0, 200);
    let last = world.past.0.lock().unwrap().pop().unwrap();
    assert_eq!(
        last,
        EventQuery {
            service: Some(id("web")),
            kind: Some(crate::core::action::EntryKind::ServiceFailed),
            since: Some(Wall(1000)),
            before: Some(7),
            after: None,
            limit: 50
        }
    );
}

#[tokio::test]
async fn logs_are_paged_both_ways_and_checked() {
    let world = world();
    let path = "/api/supervisor/services/web/logs";
    let (status, page) =
        world.get(&format!("{path}?lines=2&grep=x&priority=err&since=1970-01-01T00:00:01Z")).await;
    assert_eq!(status, 200);
    assert_eq!(
        page["entries"][1],
        json!({"timestamp": "1970-01-01T00:00:00.500Z", "priority": 4, "message": "line 500", "pid": 7,
               "unit": "supervisor-web.service", "cursor": "s=a;i=1f4;t=1"})
    );
    let mut before = page["next_before"].as_str().unwrap().to_owned();
    for expected in ["line 497", "line 495"] {
        let (_, page) = world.get(&format!("{path}?lines=2&before={before}")).await;
        assert_eq!(page["entries"][0]["message"], expected);
        before = page["next_before"].as_str().unwrap().to_owned();
    }
    let (_, page) = world.get(&format!("{path}?lines=3&after=s=a;i=1f2;t=1")).await;
    assert_eq!(
        (page["entries"].as_array().unwrap().len(), &page["next_after"]),
        (2, &json!("s=a;i=1f4;t=1"))
    );
    let (_, page) = world.get(&format!("{path}?before=s=a;i=3;t=1")).await;
    assert_eq!(page["next_before"], Value::Null, "a short page is the first");
    for bad in [
        "lines=0",
        "lines=1001",
        "since=x",
        "priority=8",
        "priority=loud",
        "before=",
        "after=a%20b",
        "x=1",
        "before=a&after=b",
        "before=a&follow=true",
    ] {
        assert_eq!(world.get(&format!("{path}?{bad}")).await.0, 400, "{bad}");
    }
    assert_eq!(world.get(&format!("{path}?grep={}", "x".repeat(300))).await.0, 400);
    for follow in ["", "?follow=true"] {
        let (status, kind, body) =
            world.ask("GET", &format!("/api/supervisor/services/bad/logs{follow}")).await;
        assert_eq!((status.as_u16(), kind.as_str()), (403, "application/problem+json"));
        assert_eq!(body["detail"], "join the group");
    }
}

#[tokio::test]
async fn followed_logs_go_on_from_a_cursor_without_a_line_twice() {
    let world = world();
    let seen = async |query: &str, last: Option<&str>| {
        let uri = format!("/api/supervisor/services/web/logs?follow=true{query}");
        let mut request = Request::builder().uri(uri);
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let response = world.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let text = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let text = String::from_utf8(text.to_vec()).unwrap();
        assert!(!text.contains("event: line\nid: \n"));
        let number = |line: &str| line.split("line ").nth(1)?.split('"').next()?.parse::<u64>().ok();
        text.lines().filter(|line| line.starts_with("data: ")).filter_map(number).collect::<Vec<_>>()
    };
    assert_eq!(seen("&lines=2", None).await, [499, 500, 501, 508]);
    assert_eq!(seen("&lines=0", None).await, [501, 508]);
    assert_eq!(seen("", Some("s=a;i=1f3;t=1")).await, [500, 501, 508]);
    let whole: Vec<u64> = (2..=501).chain([508]).collect();
    assert_eq!(seen("&after=s=a;i=99;t=1", Some("s=a;i=1;t=1")).await, whole, "in pages");
    assert_eq!(seen("&lines=1&priority=4", None).await, [500, 508], "501 is less urgent");
    assert_eq!(seen("&lines=1&grep=LINE", None).await, [500], "capitals are meant");
    assert_eq!(seen("&lines=1&grep=e%20508", None).await, [500, 508]);
}

#[tokio::test]
async fn who_has_the_newest_picture_gets_no_other() {
    let world = world();
    let ask = async |path: &str, tag: Option<&str>| {
        let mut request = Request::builder().uri(path);
        if let Some(tag) = tag {
            request = request.header("If-None-Match", tag);
        }
        let response = world.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let tag = response.headers()["etag"].to_str().unwrap().to_owned();
        let (status, body) = (response.status().as_u16(), response.into_body());
        (status, tag, axum::body::to_bytes(body, 1 << 20).await.unwrap().len())
    };
    for path in ["/api/supervisor/status", "/api/supervisor/summary"] {
        let (status, tag, size) = ask(path, None).await;
        assert!(status == 200 && size > 100 && tag.starts_with("W/\""), "{status} {tag} {size}");
        let strong = tag.trim_start_matches("W/").to_owned();
        for known in [&tag, &strong, &format!("\"other\", {tag}"), "*"] {
            assert_eq!(ask(path, Some(known)).await, (304, tag.clone(), 0), "{known}");
        }
        assert_eq!(ask(path, Some("\"other\"")).await.0, 200);
        world.snapshot.send_modify(|snapshot| Arc::make_mut(snapshot).version += 1);
        let (status, newer, _) = ask(path, Some(&tag)).await;
        assert!(status == 200 && newer != tag, "{path}");
    }
}

#[tokio::test]
async fn reload_reports_changes_or_every_error() {
    let world = world();
    let (status, body) = world.post("/api/supervisor/reload").await;
    assert_eq!((status.as_u16(), &body["added"]), (200, &json!(["new"])));
    assert_eq!(body["restarted"], json!([{"id": "web", "fields": ["args"]}]));
    let (status, kind, body) = world.ask("POST", "/api/supervisor/reload?dry_run=true").await;
    assert_eq!((status.as_u16(), kind.as_str()), (422, "application/problem+json"));
    assert_eq!(body["errors"][0]["path"], "services.web.comand");
    assert!(body["detail"].as_str().unwrap().contains("old configuration goes on"));
}

#[tokio::test]
async fn shutdown_is_accepted_at_once() {
    let world = world();
    assert_eq!(world.post("/api/supervisor/shutdown").await.0, 202);
    // The answer says that the loop has it, or will: the channel holds it.
    tokio::time::timeout(Duration::from_secs(5), async {
        while world.asked.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(world.asked(), ["shutdown by somebody over the socket"]);
}

struct Served {
    world: World,
    folder: tempfile::TempDir,
    stop: tokio::sync::oneshot::Sender<()>,
    server: tokio::task::JoinHandle<()>,
}

fn serve(header_time: Duration) -> Served {
    let world = world();
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("s")).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let shutdown = async {
        let _ = stopped.await;
    };
    let server = tokio::spawn(super::serve::serve(
        listener,
        mpsc::channel(1).1,
        world.router.clone(),
        shutdown,
        header_time,
    ));
    Served { world, folder, stop, server }
}

impl Served {
    async fn talk(&self, text: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(text.as_bytes()).await.unwrap();
        read(stream).await
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.folder.path().join("s")).await.unwrap()
    }
}

async fn read(mut stream: UnixStream) -> String {
    let mut answer = Vec::new();
    // An answer and then a reset is an answer.
    let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn changes_name_the_user_at_the_other_end() {
    let served = serve(Duration::from_secs(30));
    let answer = served
        .talk("POST /api/supervisor/services/web/stop HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let uid = nix::unistd::getuid();
    let name = nix::unistd::User::from_uid(uid).unwrap().unwrap().name;
    assert_eq!(served.world.asked(), [format!("Stop web by {name} (uid {uid}) over the socket")]);
}

#[tokio::test]
async fn silent_and_oversized_clients_are_let_go() {
    let served = serve(Duration::from_millis(100));
    assert_eq!(served.talk("").await, "");
    assert_eq!(served.talk("GET /api/superv").await, "");
    // As much as is read: what is left unread would turn the answer into a reset.
    let long = format!("{:y<32768}", "GET / HTTP/1.1\r\nx: ");
    assert!(served.talk(&long).await.starts_with("HTTP/1.1 431"));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(200));
    assert!(served.talk(&many).await.starts_with("HTTP/1.1 431"));
    let garbage = served.talk("\0\u{1}garbage\r\n\r\n").await;
    assert!(garbage.starts_with("HTTP/1.1 400"), "{garbage}");
}

#[tokio::test]
async fn a_long_wait_is_not_cut_by_the_header_bound() {
    let served = serve(Duration::from_millis(100));
    let answer = served
        .talk("POST /api/supervisor/services/slow/start?timeout=0.5 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
}

#[tokio::test]
async fn the_end_does_not_hang_on_open_requests() {
    let served = serve(Duration::from_secs(30));
    let _idle = served.connect().await;
    let mut open = served.connect().await;
    open.write_all(b"POST /api/supervisor/services/slow/start HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), async {
        while served.world.asked.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    served.stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(10), served.server).await.unwrap().unwrap();
}

#[tokio::test]
async fn connections_are_bounded_and_the_next_one_waits_its_turn() {
    let served = serve(Duration::from_secs(30));
    let mut held = Vec::new();
    for _ in 0..super::serve::CONNECTIONS {
        held.push(served.connect().await);
    }
    let question = b"GET /api/supervisor/health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    // That the last one is answered shows that all before it were accepted.
    held.last_mut().unwrap().write_all(question).await.unwrap();
    assert!(read(held.pop().unwrap()).await.starts_with("HTTP/1.1 200"));
    held.push(served.connect().await);
    let mut late = served.connect().await;
    late.write_all(question).await.unwrap();
    let mut byte = [0; 1];
    let early = tokio::time::timeout(Duration::from_millis(200), late.read(&mut byte)).await;
    assert!(early.is_err(), "one more than the bound is served");
    drop(held);
    assert!(read(late).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn what_a_service_uses_is_shown() {
    use crate::core::sample::{Pressure, Sample};
    let world = world();
    world.snapshot.send_modify(|snapshot| {
        let view = Arc::make_mut(Arc::make_mut(snapshot).services.get_mut("web").unwrap());
        view.usage = Some(Sample {
            cpu_percent: Some(12.3456),
            memory: Some(3 << 19),
            memory_peak: Some(2 << 20),
            tasks: Some(5),
            throttled: Some(0.25),
            pressure: Pressure { cpu: Some(1.5), ..Pressure::default() },
            ..Sample::default()
        });
    });
    let (_, body) = world.get("/api/supervisor/services/web").await;
    assert_eq!(
        (&body["cpu_percent"], &body["memory_mb"], &body["tasks"]),
        (&json!(12.346), &json!(1.5), &json!(5))
    );
    let usage = &body["usage"];
    assert_eq!((&usage["memory_peak_mb"], &usage["throttled"]), (&json!(2.0), &json!(0.25)));
    assert_eq!((&usage["pressure_cpu"], &usage["pressure_io"]), (&json!(1.5), &Value::Null));
    assert_eq!(
        (&body["recent_metrics"][0]["cpu_percent"], &body["recent_metrics"][0]["cpu_percent_max"]),
        (&json!(10.0), &json!(20.0))
    );
    let (_, body) = world.get("/api/supervisor/services/db").await;
    assert_eq!((&body["cpu_percent"], &body["usage"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn series_are_asked_for_as_wanted() {
    let world = world();
    let path = "/api/supervisor/services/web/metrics";
    let (status, body) =
        world.get(&format!("{path}?since=2026-01-01T00:00:00Z&until=2026-01-02T00:00:00Z&points=10")).await;
    assert_eq!(
        (status, &body["id"], &body["points"][0]["samples"]),
        (StatusCode::OK, &json!("web"), &json!(3))
    );
    let asked = world.past.1.lock().unwrap().pop().unwrap();
    assert_eq!((asked.until.0 - asked.since.0, asked.points), (86_400_000, 10));
    assert_eq!(world.get(path).await.0, StatusCode::OK);
    let asked = world.past.1.lock().unwrap().pop().unwrap();
    assert_eq!((asked.until.0 - asked.since.0, asked.points), (86_400_000, 300), "a day of 300 points");
    for query in [
        "points=0",
        "points=5001",
        "since=yesterday",
        "until=1",
        "form=1",
        "since=2026-01-02T00:00:00Z&until=2026-01-02T00:00:00Z",
    ] {
        let (status, body) = world.get(&format!("{path}?{query}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}: {body}");
    }
    assert_eq!(world.get("/api/supervisor/services/wbe/metrics").await.0, StatusCode::NOT_FOUND);
}

async fn post_samples(world: &World, body: &Value) -> (StatusCode, Value) {
    let request = Request::post("/api/supervisor/metrics").header("content-type", "application/json");
    let (status, _, body) = world.send(request.body(Body::from(body.to_string())).unwrap()).await;
    (status, body)
}

#[tokio::test]
async fn samples_of_another_monitor_are_taken_all_or_none() {
    let world = world();
    let good = json!({"service_id": "other", "timestamp": "2026-01-31 08:15:00.250", "cpu_percent": 1.5,
        "memory_mb": 2, "health_status": "degraded", "response_time_ms": null});
    let (status, body) = post_samples(&world, &good).await;
    assert_eq!((status, &body["accepted"]), (StatusCode::ACCEPTED, &json!(1)), "{body}");
    let row = world.past.2.lock().unwrap().pop().unwrap();
    assert_eq!(
        (row.service, row.at, row.health),
        (id("other"), Wall(1_769_847_300_250), Some(Health::Degraded))
    );
    let bad = [
        (json!({"service_id": "../x"}), "service_id"),
        (json!({}), "service_id"),
        (json!(7), "invalid type"),
        (json!({"service_id": "a", "cpu": 1}), "unknown field"),
        (json!({"service_id": "a", "cpu_percent": -1}), "cpu_percent"),
        (json!({"service_id": "a", "timestamp": "soon"}), "timestamp"),
        (json!({"service_id": "a", "timestamp": "2999-01-01T00:00:00Z"}), "a day ahead"),
        (json!({"service_id": "a", "health_status": "fine"}), "health_status"),
    ];
    for (sample, named) in bad {
        let (status, body) = post_samples(&world, &json!([good, sample])).await;
        let detail = body["detail"].as_str().unwrap();
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{sample}");
        assert!(
            detail.contains("1 of 2") && detail.contains("sample 1: ") && detail.contains(named),
            "{detail}"
        );
    }
    assert!(world.past.2.lock().unwrap().is_empty(), "none of them is stored");
    assert_eq!(post_samples(&world, &json!([])).await.1["accepted"], 0);
    let full = json!({
        "service_id": "s".repeat(64), "timestamp": "1970-01-01T08:15:00.000Z", "cpu_percent": 1234.567,
        "memory_mb": 12_345.678, "health_status": "unhealthy", "response_time_ms": 12_345.678,
    });
    let (status, body) = post_samples(&world, &json!(vec![full; 1000])).await;
    assert_eq!((status, &body["accepted"]), (StatusCode::ACCEPTED, &json!(1000)), "{body}");
    let many = json!(vec![json!({"service_id": "a"}); 1001]);
    assert_eq!(post_samples(&world, &many).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn alerts_are_listed_open_ones_first() {
    let world = world();
    let (status, body) = world.get("/api/supervisor/alerts").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        body,
        json!({"alerts": [{"id": 7, "service_id": "web", "alert_type": "down", "severity": "error",
            "message": "web is down", "details": {"attempt": 1, "log": ["a line of the log"]}, "created_at": "1970-01-01T00:00:00.001Z",
            "acknowledged_at": null, "resolved_at": null}]})
    );
    let (_, body) = world.get("/api/supervisor/alerts?all=true&limit=2").await;
    assert_eq!(body["alerts"][1]["resolved_at"], "1970-01-01T00:00:00.002Z");
    for bad in ["limit=0", "limit=1001", "all=perhaps", "none=1"] {
        let (status, _) = world.get(&format!("/api/supervisor/alerts?{bad}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{bad}");
    }
}

#[tokio::test]
async fn an_alert_is_acknowledged_by_its_number() {
    let world = world();
    let (status, _, body) = world.ask("POST", "/api/supervisor/alerts/7/ack").await;
    assert_eq!((status, &body["acknowledged_at"]), (StatusCode::OK, &json!("1970-01-01T00:00:00.003Z")));
    for unknown in ["8", "x", "99999999999999999999"] {
        let (status, kind, body) = world.ask("POST", &format!("/api/supervisor/alerts/{unknown}/ack")).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{unknown}");
        assert_eq!(kind, "application/problem+json");
        assert!(body["detail"].as_str().unwrap().contains("supervisorctl alerts"), "{body}");
    }
}

#[tokio::test]
async fn the_summary_counts() {
    let world = world();
    let (status, body) = world.get("/api/supervisor/summary").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(body["states"], json!({"running": 2, "starting": 3, "stopped": 1}));
    assert_eq!(body["health"], json!({"healthy": 2, "unknown": 4}));
    assert_eq!((&body["services"], &body["restarts_24h"]), (&json!(6), &json!(5)));
    assert_eq!(body["open_alerts"].as_array().unwrap().len(), 1);
    assert_eq!(body["cpu_percent"], Value::Null);
    let host = json!({"cores": 2, "cpu_percent": 51.25, "memory_total_mb": 4096.0, "memory_used_mb": 1024.0,
        "load": [0.5, 0.25, 0.0]});
    assert_eq!(body["host"], host);
}
