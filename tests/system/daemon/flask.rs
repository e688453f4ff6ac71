//! The API inside a Flask app: the two lines that dashboards have, in front of a real daemon. The dashboard is a
//! service of that same daemon, as people run it.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{Daemon, SOON, sh, sleeper, wait_for, with};

const PORT: u16 = 18621;
const DASHBOARD: &str = r#"
from flask import Flask, abort, request
from supervisor.api_routes import register_supervisor_routes

app = Flask(__name__)
register_supervisor_routes(app)

@app.before_request
def login():
    if request.cookies.get("session") != "alice":
        abort(401)
"#;

/// Flask, and the package as pip installs it.
fn flask() -> PathBuf {
    let flask = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/python/venv/bin/flask");
    assert!(flask.exists(), "{} is missing: `make target/python/ready` puts it there", flask.display());
    flask
}

/// Asks the dashboard as a user who is logged in; `arguments` are curl's.
fn ask(path: &str, arguments: &[&str]) -> (u16, Value) {
    ask_as("alice", path, arguments)
}

fn ask_as(user: &str, path: &str, arguments: &[&str]) -> (u16, Value) {
    let output = Command::new("curl")
        .args([
            "-sS",
            "--path-as-is",
            "--max-time",
            "30",
            "-w",
            "\n%{http_code}",
            "-b",
            &format!("session={user}"),
        ])
        .args(arguments)
        .arg(format!("http://127.0.0.1:{PORT}/api/supervisor/{path}"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, code) = text.rsplit_once('\n').unwrap();
    (code.parse().unwrap(), serde_json::from_str(body).unwrap_or(Value::Null))
}

fn kind(answer: &Value) -> &str {
    answer["type"].as_str().and_then(|kind| kind.rsplit(':').next()).unwrap_or("none")
}

#[test]
fn the_two_lines_of_a_flask_dashboard() {
    let mut daemon = Daemon::prepared(json!({}));
    std::fs::write(daemon.folder.join("dashboard.py"), DASHBOARD).unwrap();
    let socket = daemon.folder.join("runtime/supervisor.sock");
    daemon.configure(json!({
        "flask-web": with(sleeper(), json!({"groups": ["flask-group"]})),
        "flask-dashboard": {
            "command": flask(), "args": ["--app", "dashboard", "run", "--port", PORT.to_string()],
            "working_directory": daemon.folder, "environment": {"PROCESS_SUPERVISOR_SOCKET": socket},
            "health_check": {"type": "tcp", "host": "127.0.0.1", "port": PORT, "interval": 1},
        },
    }));
    daemon.launch();
    let dashboard = daemon.wait_state("flask-dashboard", "running");
    let web = daemon.wait_state("flask-web", "running");

    reading(&daemon, &web);
    streams(&daemon);
    orders(&daemon);
    refusals(&daemon);

    // The dashboard outlives its supervisor, and says what is wrong.
    daemon.kill();
    let (code, problem) = ask("status", &[]);
    assert_eq!((code, kind(&problem)), (503, "unreachable"), "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("Connection refused") && detail.contains("systemctl start"), "{detail}");
    daemon.launch();
    wait_for("the dashboard shows the next daemon", SOON, || (ask("status", &[]).0 == 200).then_some(()));
    assert_eq!(daemon.pid_of("flask-dashboard"), dashboard["pid"], "it is the one from before");
}

fn reading(daemon: &Daemon, web: &Value) {
    let (code, status) = ask("status", &[]);
    assert_eq!((code, &status["services"]["flask-web"]["pid"]), (200, &web["pid"]), "{status}");
    assert_eq!(status["supervisor"]["pid"], daemon.pid());
    assert_eq!(ask("services/flask-web/health", &[]).1["health"], "healthy");
    let (code, page) = ask("events?service=flask-web&limit=1", &[]);
    assert_eq!((code, page["events"].as_array().map(Vec::len)), (200, Some(1)), "{page}");
    assert_eq!(page["events"][0], *daemon.events("flask-web").last().unwrap());
    // Errors are the daemon's own, word for word.
    let unknown = ask("services/flask-wbe", &[]);
    assert_eq!((unknown.0, unknown.1["nearest"].as_str()), (404, Some("flask-web")));
    assert_eq!(unknown, daemon.api("GET", "services/flask-wbe"));
    assert_eq!(kind(&ask("events?limit=x", &[]).1), "bad_request");
}

/// A browser that was here before gets what it missed, then changes as they come.
fn streams(daemon: &Daemon) {
    let first = daemon.events("flask-web")[0]["id"].to_string();
    let mut curl = Command::new("curl")
        .args(["-sSN", "--max-time", "60", "-b", "session=alice", "-H", &format!("Last-Event-ID: {first}")])
        .arg(format!("http://127.0.0.1:{PORT}/api/supervisor/stream?type=event&service=flask-web"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(curl.stdout.take().unwrap()).lines();
    let mut until = |word: &str| {
        let found = lines.by_ref().map(Result::unwrap).find(|line| line.contains(word));
        found.unwrap_or_else(|| panic!("the stream ended before {word:?}"))
    };
    until("starting -> running");
    let (code, _) = ask("services/flask-web/restart?wait=false", &["-X", "POST"]);
    assert_eq!(code, 202);
    until("running -> stopping");
    until("starting -> running");
    // The daemon's ends of connections that are open: the stream's, and none when its reader is gone.
    let open = || {
        sh(&format!(
            "ss -xH state established src {}/runtime/supervisor.sock | wc -l",
            daemon.folder.display()
        ))
    };
    assert_eq!(open(), "1");
    curl.kill().unwrap();
    curl.wait().unwrap();
    // That is noticed when the second message cannot be written, or the second comment 30 s later.
    assert_eq!(ask("services/flask-web/restart", &["-X", "POST"]).0, 200);
    wait_for("the dashboard leaves the stream", SOON, || (open() == "0").then_some(()));
}

fn orders(daemon: &Daemon) {
    let (code, answer) = ask("services/flask-web/stop", &["-X", "POST"]);
    assert_eq!((code, &answer["state"]), (200, &json!("stopped")), "{answer}");
    assert_eq!(daemon.state("flask-web"), "stopped");
    let (code, answer) = ask("groups/flask-group/start", &["-X", "POST"]);
    assert_eq!((code, &answer["done"]), (200, &json!(true)), "{answer}");
    assert_eq!(daemon.state("flask-web"), "running");
    let json = ["-H", "Content-Type: application/json", "-d", r#"{"signal": "nope"}"#];
    let (code, answer) = ask("services/flask-web/signal", &json);
    assert_eq!((code, kind(&answer)), (400, "bad_request"), "{answer}");
    // Both ends have the same bound: at it the daemon reads the body, beyond it nobody does.
    let file = daemon.folder.join("body");
    for (size, wanted) in [(64 * 1024, 202), (64 * 1024 + 1, 413)] {
        std::fs::write(&file, format!("[{}]", " ".repeat(size - 2))).unwrap();
        let data = format!("@{}", file.display());
        let post = ["-H", "Content-Type: application/json", "--data-binary", &data];
        let (code, answer) = ask("metrics", &post);
        assert_eq!(code, wanted, "{answer}");
    }
}

fn refusals(daemon: &Daemon) {
    let before = daemon.events("flask-web").len();
    assert_eq!(ask_as("mallory", "services/flask-web/stop", &["-X", "POST"]).0, 401);
    for header in ["Sec-Fetch-Site: cross-site", "Origin: http://evil.example"] {
        let (code, answer) = ask("services/flask-web/stop", &["-X", "POST", "-H", header]);
        assert_eq!((code, kind(&answer)), (403, "cross_site"), "{answer}");
    }
    for path in ["services/flask-web%2fstop", "services/x/../flask-web/stop", "%2e%2e/supervisor/shutdown"] {
        let (code, answer) = ask(path, &["-X", "POST"]);
        assert_eq!((code, kind(&answer)), (400, "bad_request"), "{path}: {answer}");
    }
    assert_eq!(daemon.events("flask-web").len(), before, "nothing of that reached the daemon");
}
