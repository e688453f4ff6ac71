//! What Prometheus makes of the daemon: its own tools accept the text and the rules, and a real server fires one.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Daemon, SOON, path, script, sleeper, wait_for, with};

/// A file of this repository.
fn ours(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn promtool(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// The answer of `GET /metrics`, with its headers.
fn scrape(daemon: &Daemon, accept: &str) -> String {
    let socket = daemon.folder.join("runtime/supervisor.sock");
    let output = Command::new("curl")
        .args(["-sSi", "-H", &format!("accept: {accept}"), "--unix-socket"])
        .arg(socket)
        .arg("http://localhost/metrics")
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// The body of the classic format.
fn classic(daemon: &Daemon) -> String {
    let answer = scrape(daemon, "*/*");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/plain; version=0.0.4"), "{head}");
    body.into()
}

/// The value of one sample: `supervisor_service_up{service="web"}`.
fn value(text: &str, sample: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(sample)?.trim().parse().ok())
}

#[test]
fn a_real_scrape_is_accepted_and_says_what_happened() {
    let mut daemon = Daemon::prepared(json!({}));
    let probed =
        json!({"health_check": {"type": "exec", "command": "/bin/true", "interval": 0.5, "timeout": 0.4}});
    let limits = json!({"resource_limits": {"max_memory_mb": 64, "max_cpu_percent": 50, "max_tasks": 8}});
    daemon.configure_whole(json!({
        "supervisor": {"metrics_interval": 1},
        "services": {
            "told-fatal": with(script("exit 3"), json!({"critical": true, "restart_policy": {"retry_delay": 0, "max_retries": 2}})),
            "told-probed": with(with(sleeper(), probed), limits),
            "told-off": with(sleeper(), json!({"enabled": false})),
        },
    }));
    daemon.launch();
    daemon.wait_state("told-fatal", "fatal");
    let text = wait_for("measured and probed", SOON, || {
        let text = classic(&daemon);
        let measured = value(&text, "supervisor_service_memory_bytes{service=\"told-probed\"}").is_some();
        let bucket = "supervisor_service_probe_duration_seconds_bucket{le=\"+Inf\",service=\"told-probed\"}";
        (measured && value(&text, bucket)? >= 3.0).then_some(text)
    });
    for (sample, expected) in [
        ("supervisor_service_state{service=\"told-fatal\",state=\"fatal\"}", 1.0),
        ("supervisor_service_state{service=\"told-fatal\",state=\"running\"}", 0.0),
        ("supervisor_service_exits_total{service=\"told-fatal\",reason=\"exit-code\"}", 3.0),
        ("supervisor_service_exits_total{service=\"told-fatal\",reason=\"oom-kill\"}", 0.0),
        ("supervisor_service_restarts_total{service=\"told-fatal\"}", 2.0),
        ("supervisor_service_attempts{service=\"told-fatal\"}", 2.0),
        ("supervisor_service_wanted{service=\"told-fatal\"}", 1.0),
        ("supervisor_service_wanted{service=\"told-off\"}", 0.0),
        ("supervisor_alert_open{service=\"told-fatal\",type=\"down\",severity=\"critical\"}", 1.0),
        ("supervisor_alerts{severity=\"critical\"}", 1.0),
        ("supervisor_service_up{service=\"told-probed\"}", 1.0),
        ("supervisor_service_health{service=\"told-probed\",health=\"healthy\"}", 1.0),
        ("supervisor_service_memory_limit_bytes{service=\"told-probed\"}", 67_108_864.0),
        ("supervisor_service_cpu_limit_cores{service=\"told-probed\"}", 0.5),
        ("supervisor_service_tasks_limit{service=\"told-probed\"}", 8.0),
        ("supervisor_database_troubled", 0.0),
    ] {
        assert_eq!(value(&text, sample), Some(expected), "{sample}");
    }
    for (sample, least) in [
        ("supervisor_service_tasks{service=\"told-probed\"}", 1.0),
        ("supervisor_service_cpu_seconds_total{service=\"told-probed\"}", 0.000_001),
        ("supervisor_service_start_time_seconds{service=\"told-probed\"}", 1.7e9),
        ("supervisor_service_last_exit_time_seconds{service=\"told-fatal\"}", 1.7e9),
        ("supervisor_events_total", 5.0),
        ("supervisor_database_bytes", 4096.0),
        ("process_resident_memory_bytes", 1e6),
        ("process_start_time_seconds", 1.7e9),
    ] {
        assert!(value(&text, sample) >= Some(least), "{sample}: {:?}", value(&text, sample));
    }
    let checked = promtool(&["check", "metrics"], &text);
    let said = [checked.stdout, checked.stderr].concat();
    assert!(checked.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
    let bad = promtool(&["check", "metrics"], &text.replace("# HELP supervisor_events_total", "# "));
    assert!(!bad.status.success(), "promtool would see a mistake");
    let openmetrics = scrape(&daemon, "application/openmetrics-text;version=1.0.0");
    assert!(openmetrics.contains("application/openmetrics-text; version=1.0.0"), "{openmetrics}");
    assert!(openmetrics.ends_with("# EOF\n"), "{openmetrics}");
}

#[test]
fn the_rules_are_accepted_and_each_of_them_fires() {
    let (rules, test) =
        (ours("config/prometheus_rules.yml"), ours("tests/fixtures/prometheus/rules_test.yml"));
    for arguments in [["check", "rules", rules.to_str().unwrap()], ["test", "rules", test.to_str().unwrap()]]
    {
        let output = promtool(&arguments, "");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "promtool {arguments:?}: {said}");
    }
    let tested = std::fs::read_to_string(test).unwrap();
    for rule in std::fs::read_to_string(rules).unwrap().lines() {
        if let Some(name) = rule.trim().strip_prefix("- alert: ") {
            assert!(
                tested.contains(&format!("alertname: {name}\n        exp_alerts:\n")),
                "{name} is not tested"
            );
        }
    }
}

/// A port of this host that leads to the daemon's socket, as long as the test runs.
fn forward(socket: PathBuf) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = UnixStream::connect(&socket) else { continue };
            let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || {
                drop(std::io::copy(&mut from, &mut to));
                to.shutdown(Shutdown::Write)
            });
            std::thread::spawn(move || std::io::copy(&mut { server }, &mut { client }));
        }
    });
    port
}

/// A real server that asks `target` and evaluates our rules, each second.
struct Prometheus {
    child: Child,
    port: u16,
}

impl Prometheus {
    fn start(folder: &Path, target: u16) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let rules = ours("config/prometheus_rules.yml");
        let config = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [rules],
            "scrape_configs": [{"job_name": "process-supervisor", "static_configs": [{"targets": [format!("127.0.0.1:{target}")]}]}],
        });
        std::fs::create_dir(folder).unwrap();
        std::fs::write(folder.join("prometheus.yml"), config.to_string()).unwrap();
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, port }
    }

    /// The `data` of an answer of its API; `None` while it does not answer.
    fn ask(&self, what: &str) -> Option<Value> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        write!(stream, "GET /api/v1/{what} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let answer: Value = serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()?;
        Some(answer["data"].clone())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn a_real_prometheus_takes_the_openmetrics_text_and_fires_for_a_service_that_was_given_up() {
    let daemon = Daemon::start(json!({
        "fired-fatal": with(script("exit 3"), json!({"restart_policy": {"max_retries": 0}})),
        "fired-well": sleeper(),
    }));
    daemon.wait_state("fired-fatal", "fatal");
    let target = forward(daemon.folder.join("runtime/supervisor.sock"));
    let prometheus = Prometheus::start(&path(&daemon, "prometheus"), target);
    let firing = wait_for("the alert fires", SOON, || {
        let alerts = prometheus.ask("alerts")?["alerts"].as_array()?.clone();
        alerts.into_iter().find(|alert| alert["state"] == "firing")
    });
    assert_eq!(
        (&firing["labels"]["alertname"], &firing["labels"]["service"]),
        (&json!("SupervisorServiceFatal"), &json!("fired-fatal")),
        "{firing}"
    );
    let targets = prometheus.ask("targets").unwrap();
    let scraped = &targets["activeTargets"][0];
    assert_eq!((&scraped["health"], &scraped["lastError"]), (&json!("up"), &json!("")), "{targets}");
    // Only its parser of OpenMetrics knows units and kinds such as `info`.
    let metadata = prometheus.ask("metadata").unwrap();
    let of = |name: &str| metadata[name][0].clone();
    assert_eq!(of("supervisor_service")["type"], "info", "{metadata}");
    assert_eq!(
        (&of("supervisor_service_cpu_seconds")["type"], &of("supervisor_service_cpu_seconds")["unit"]),
        (&json!("counter"), &json!("seconds"))
    );
}

#[test]
fn trouble_of_the_supervisor_itself_is_told_and_its_end_too() {
    // Nothing else that would make a new picture.
    let daemon = Daemon::start(json!({"told-rests": with(sleeper(), json!({"enabled": false}))}));
    let lock = rusqlite::Connection::open(daemon.database()).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(daemon.api("POST", "services/told-rests/reset").0, 200, "something is to be written");
    let alert = "supervisor_alert_open{type=\"database\",severity=\"error\"}";
    let told = |text: &str| (value(text, "supervisor_database_troubled"), value(text, alert));
    wait_for("the trouble is told", SOON, || {
        (told(&classic(&daemon)) == (Some(1.0), Some(1.0))).then_some(())
    });
    lock.execute_batch("ROLLBACK").unwrap();
    wait_for("its end is told", SOON, || (told(&classic(&daemon)) == (Some(0.0), None)).then_some(()));
}

/// A line of `/proc/PID/status`, in bytes.
fn memory(daemon: &Daemon, key: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn a_thousand_services_are_told_at_once_and_piece_by_piece() {
    let probed = json!({"enabled": false, "health_check": {"type": "tcp", "port": 1}});
    let services: serde_json::Map<String, Value> =
        (0..1000).map(|n| (format!("scraped-{n}"), with(sleeper(), probed.clone()))).collect();
    let daemon = Daemon::start(Value::Object(services));
    // The most from here on: "5" sets it back.
    std::fs::write(format!("/proc/{}/clear_refs", daemon.pid()), "5").unwrap();
    let before = memory(&daemon, "VmRSS:");
    let begun = Instant::now();
    let text = classic(&daemon);
    let took = begun.elapsed();
    assert_eq!(text.lines().filter(|line| line.starts_with("supervisor_service_up{")).count(), 1000);
    let most = memory(&daemon, "VmHWM:").saturating_sub(before);
    eprintln!("{} lines, {} bytes in {took:?}, {most} bytes of memory", text.lines().count(), text.len());
    // The program under test is not optimised, and the machine is shared.
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(most < text.len() as u64, "{most} bytes of memory for {}", text.len());
}
