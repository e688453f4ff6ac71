//! What services use, measured on real units, and how it is kept and shown.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Daemon, SOON, lines, path, script, sleeper, wait_for, with};

/// A daemon that measures every second.
fn measuring(services: serde_json::Value) -> Daemon {
    let mut daemon = Daemon::prepared(json!({}));
    daemon.configure_whole(json!({"supervisor": {"metrics_interval": 1}, "services": services}));
    daemon.launch();
    daemon
}

#[test]
fn a_hog_and_a_holder_are_seen_as_such() {
    let daemon = measuring(json!({
        "hog": with(script("while :; do :; done"), json!({"resource_limits": {"max_cpu_percent": 30}})),
        "holder": {"command": "/usr/bin/python3", "args": ["-c", "import time; held = b'x' * (64 << 20); time.sleep(1e6)"]},
        "idle": sleeper(),
    }));
    let hog = wait_for("the hog is held back at its limit", SOON, || {
        let hog = daemon.service("hog");
        let (cpu, held) = (hog["cpu_percent"].as_f64()?, hog["usage"]["throttled"].as_f64()?);
        (cpu > 10.0 && cpu < 45.0 && held > 0.3).then_some(hog)
    });
    assert!(hog["tasks"].as_u64().is_some_and(|tasks| tasks >= 1), "{hog}");
    let holder = wait_for("the memory is seen", SOON, || {
        let holder = daemon.service("holder");
        holder["memory_mb"].as_f64().filter(|mib| (64.0..200.0).contains(mib)).map(|_| holder)
    });
    assert!(holder["usage"]["memory_peak_mb"].as_f64() >= Some(64.0), "{holder}");
    let idle = wait_for("the idle one is measured", SOON, || {
        let idle = daemon.service("idle");
        idle["cpu_percent"].as_f64().filter(|cpu| *cpu < 5.0).map(|_| idle)
    });
    assert!(idle["memory_mb"].as_f64().is_some_and(|mib| mib < 20.0), "{idle}");

    let host = daemon.api("GET", "summary").1["host"].clone();
    assert!(host["cores"].as_u64() >= Some(1) && host["cpu_percent"].as_f64() > Some(5.0), "{host}");
    assert!(host["memory_used_mb"].as_f64() > Some(64.0) && host["load"][0].is_number(), "{host}");
    assert!(daemon.ok(&["summary"]).contains("\nHost:      CPU "), "{}", daemon.ok(&["summary"]));

    let row = "SELECT count(*) FROM supervisor_metrics WHERE service_id = 'hog' AND cpu_percent > 10 AND throttled > 0.3
               AND health_status = 'healthy' AND datetime(timestamp) IS NOT NULL";
    wait_for("rows are in the table", SOON, || {
        let db = rusqlite::Connection::open(daemon.database()).unwrap();
        db.query_row(row, [], |row| row.get::<_, i64>(0)).ok().filter(|rows| *rows >= 2)
    });
    let (status, series) = daemon.api("GET", "services/holder/metrics?points=5");
    assert_eq!(status, 200, "{series}");
    let last = series["points"].as_array().unwrap().last().unwrap().clone();
    assert!(last["memory_mb_max"].as_f64() >= Some(64.0), "{series}");
    let (_, detail) = daemon.api("GET", "services/holder");
    assert!(!detail["recent_metrics"].as_array().unwrap().is_empty(), "{detail}");
    let plot = daemon.ok(&["metrics", "holder", "--since", "5m"]);
    assert!(plot.contains("Memory") && plot.contains('█'), "{plot}");
    let details = daemon.ok(&["status", "hog"]);
    assert!(details.contains("held back by its CPU limit"), "{details}");
}

#[test]
fn the_interval_changes_with_a_reload_and_a_run_that_ended_has_no_figures() {
    let mut daemon = Daemon::prepared(json!({}));
    let services = json!({"paced": sleeper()});
    daemon.configure_whole(json!({"supervisor": {"metrics_interval": 3600}, "services": services}));
    daemon.launch();
    daemon.wait_state("paced", "running");
    daemon.configure_whole(json!({"supervisor": {"metrics_interval": 1}, "services": services}));
    daemon.ok(&["reload"]);
    wait_for("the new interval is in force", SOON, || {
        let db = rusqlite::Connection::open(daemon.database()).unwrap();
        let rows =
            db.query_row("SELECT count(*) FROM supervisor_metrics", [], |row| row.get::<_, i64>(0)).ok();
        rows.filter(|rows| *rows >= 3)
    });
    daemon.ok(&["stop", "paced"]);
    let stopped = daemon.service("paced");
    assert_eq!((&stopped["cpu_percent"], &stopped["usage"]), (&json!(null), &json!(null)), "{stopped}");
}

#[test]
fn a_python_program_that_locks_the_database_for_ten_seconds_delays_nobody_and_costs_no_sample() {
    let daemon = measuring(json!({"steady": sleeper()}));
    let count = |sql: &str| {
        let db = rusqlite::Connection::open(daemon.database()).unwrap();
        db.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap_or(0)
    };
    wait_for("the first sample", SOON, || {
        (count("SELECT count(*) FROM supervisor_metrics") >= 1).then_some(())
    });
    let lock = "import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20)
db.execute('BEGIN IMMEDIATE')
print('locked', flush=True)
time.sleep(10)
db.execute('COMMIT')";
    let mut python = std::process::Command::new("python3")
        .args(["-c", lock])
        .arg(daemon.database())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(python.stdout.as_mut().unwrap()), &mut line)
        .unwrap();
    assert_eq!(line, "locked\n");
    let mut slowest = Duration::ZERO;
    while python.try_wait().unwrap().is_none() {
        let begun = Instant::now();
        assert_eq!(daemon.api("GET", "services/steady").0, 200);
        slowest = slowest.max(begun.elapsed());
    }
    // A curl and an answer; the rest is for a loaded machine.
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
    let gap =
        "SELECT coalesce(max(gap), 999999) FROM (SELECT (julianday(timestamp) - julianday(lag(timestamp)
               OVER (ORDER BY id))) * 86400000 AS gap FROM supervisor_metrics)";
    wait_for("all that was measured is in the table", SOON, || {
        let rows = count("SELECT count(*) FROM supervisor_metrics");
        (rows >= 10).then_some(())
    });
    let db = rusqlite::Connection::open(daemon.database()).unwrap();
    let longest: f64 = db.query_row(gap, [], |row| row.get(0)).unwrap();
    assert!(longest < 6000.0, "no sample is missing: the longest gap is {longest} ms");
}

#[test]
fn samples_are_pushed_to_another_dashboard_with_its_token_which_is_never_shown() {
    let mut daemon = Daemon::prepared(json!({}));
    let (seen, token) = (path(&daemon, "seen"), path(&daemon, "dashboard-token"));
    std::fs::write(&token, "hidden-word\n").unwrap();
    let dashboard = format!(
        "import http.server
class Dashboard(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers['Content-Length'])).decode()
        open('{}', 'a').write(self.path + ' ' + self.headers['Authorization'] + ' ' + body + chr(10))
        self.send_response(202); self.end_headers()
http.server.HTTPServer(('127.0.0.1', 18655), Dashboard).serve_forever()",
        seen.display()
    );
    daemon.configure_whole(json!({
        "supervisor": {"metrics_interval": 1, "dashboard_url": "http://127.0.0.1:18655", "dashboard_token_file": token},
        "services": {"dashboard": {"command": "/usr/bin/python3", "args": ["-c", dashboard]}, "pushed": sleeper()},
    }));
    daemon.launch();
    let line =
        wait_for("samples arrive", SOON, || lines(&seen).into_iter().find(|line| line.contains("pushed")));
    let body =
        line.strip_prefix("/api/supervisor/metrics Bearer hidden-word ").unwrap_or_else(|| panic!("{line}"));
    let rows: serde_json::Value = serde_json::from_str(body).unwrap();
    let row = rows.as_array().unwrap().iter().find(|row| row["service_id"] == "pushed").unwrap();
    assert!(row["memory_mb"].as_f64().is_some() && row["timestamp"].as_str().is_some(), "{row}");
    let mut command = std::process::Command::new("curl");
    command.args([
        "-sS",
        "-H",
        "content-type: application/json",
        "-w",
        "%{http_code}",
        "-d",
        body,
        "--unix-socket",
    ]);
    command.arg(daemon.folder.join("runtime/supervisor.sock")).arg("http://localhost/api/supervisor/metrics");
    let answer = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert!(answer.ends_with("202"), "what we send we take: {answer}");
    assert!(!daemon.log().contains("hidden-word"), "{}", daemon.log());
}
