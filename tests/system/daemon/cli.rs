//! supervisorctl against a real daemon.

use serde_json::{Value, json};

use super::{Daemon, SOON, script, sleeper, wait_for, with};

#[test]
fn exit_codes_and_names() {
    let mut daemon = Daemon::prepared(json!({
        "cli-web": sleeper(),
        "cli-api": with(sleeper(), json!({"groups": ["cli-group"]})),
        "cli-bad": with(script("exit 1"), json!({"restart_policy": {"max_retries": 0}})),
    }));
    assert_eq!(daemon.ctl(&["status"]).status.code(), Some(4), "no daemon");
    daemon.launch();
    daemon.wait_state("cli-bad", "fatal");
    daemon.wait_state("cli-web", "running");
    daemon.wait_state("cli-api", "running");
    let status = daemon.ctl(&["status"]);
    assert_eq!(status.status.code(), Some(3), "one is down");
    let table = String::from_utf8(status.stdout).unwrap();
    assert!(
        table.contains("cli-bad") && table.contains("fatal") && table.contains("exited with status 1"),
        "{table}"
    );
    assert_eq!(daemon.ctl(&["status", "cli-web"]).status.code(), Some(0));
    assert_eq!(daemon.ctl(&["status", "cli-group:*"]).status.code(), Some(0));
    let unknown = daemon.ctl(&["start", "cli-wbe"]);
    assert_eq!(unknown.status.code(), Some(5));
    assert!(String::from_utf8(unknown.stderr).unwrap().contains("cli-web"), "the nearest name");
    assert_eq!(daemon.ctl(&["frobnicate"]).status.code(), Some(2));
    assert_eq!(daemon.ctl(&["start", "cli-bad"]).status.code(), Some(1));
    daemon.ok(&["stop", "all"]);
    assert_eq!(daemon.state("cli-web"), "stopped");
    let progress = daemon.ok(&["start", "cli-group:*", "cli-web"]);
    assert!(progress.contains("cli-api") && progress.contains("running"), "{progress}");
    assert_eq!(daemon.ctl(&["wait", "cli-web", "--timeout", "5"]).status.code(), Some(0));
    let json: Value = serde_json::from_str(&daemon.ok(&["--json", "status", "cli-web"])).unwrap();
    assert_eq!(json["services"]["cli-web"]["state"], "running");
    assert!(daemon.ok(&["version"]).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn logs_signal_events_and_reset() {
    let daemon = Daemon::start(json!({
        "talker": with(script("trap 'echo got-hup' HUP; echo hello-from-talker; while :; do sleep 0.05; done"), json!({})),
        "looper": with(script("exit 1"), json!({"restart_policy": {"retry_delay": 1000}})),
    }));
    daemon.wait_state("talker", "running");
    wait_for("its words in the log", SOON, || {
        daemon.ok(&["logs", "talker"]).contains("hello-from-talker").then_some(())
    });
    daemon.ok(&["signal", "HUP", "talker"]);
    wait_for("the signal arrived", SOON, || {
        daemon.ok(&["logs", "talker", "-n", "20"]).contains("got-hup").then_some(())
    });
    let turned = daemon.ctl(&["signal", "talker", "HUP"]);
    assert_eq!(turned.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&turned.stderr).contains("supervisorctl signal HUP talker"));
    assert!(daemon.ok(&["events", "talker"]).contains("running"));
    daemon.wait_state("looper", "backoff");
    daemon.ok(&["reset", "looper"]);
    assert_eq!(daemon.service("looper")["attempt"], 0);
}

/// As on a host without the package ca-certificates.
#[test]
fn a_machine_that_trusts_nobody_has_its_supervisor_all_the_same() {
    let daemon = Daemon::start(json!({"cli-alone": sleeper()}));
    let run = |arguments: &[&str]| {
        let mut command = daemon.program(env!("CARGO_BIN_EXE_supervisorctl"));
        command
            .env("SSL_CERT_FILE", "/nowhere")
            .env("SSL_CERT_DIR", "/nowhere")
            .args(arguments)
            .output()
            .unwrap()
    };
    let socket = daemon.folder.join("runtime/supervisor.sock");
    let status = run(&["--socket", socket.to_str().unwrap(), "status"]);
    assert_eq!(String::from_utf8_lossy(&status.stderr), "");
    assert!(String::from_utf8_lossy(&status.stdout).contains("cli-alone"));
    let secure = run(&["--url", "https://127.0.0.1:1", "status"]);
    let error = String::from_utf8_lossy(&secure.stderr).into_owned();
    assert!(
        error.contains("no list of trusted certificates: install the package ca-certificates"),
        "{error}"
    );
    assert_eq!(secure.status.code(), Some(1));
}
