//! Alerts, from the trouble on a real unit to the row and the CLI.

use serde_json::{Value, json};

use super::{Daemon, SOON, path, script, sleeper, wait_for, with};

pub fn alerts(daemon: &Daemon, all: bool) -> Vec<Value> {
    let (code, body) = daemon.api("GET", &format!("alerts?all={all}"));
    assert_eq!(code, 200, "{body}");
    body["alerts"].as_array().unwrap().clone()
}

/// Waits for an open alert that `wanted` is true of.
fn wait_alert(daemon: &Daemon, kind: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    wait_for(&format!("an alert {kind}"), SOON, || {
        alerts(daemon, false).into_iter().find(|alert| alert["alert_type"] == kind && wanted(alert))
    })
}

#[test]
fn a_dependency_that_is_down_speaks_for_its_dependents() {
    let daemon = Daemon::prepared(json!({}));
    let broken = path(&daemon, "broken");
    let policy = json!({"retry_delay": 0.2, "backoff_multiplier": 1, "max_retries": 1});
    let dies_with = |file: &std::path::Path| {
        script(&format!("while [ ! -e {} ]; do sleep 0.05; done; exit 7", file.display()))
    };
    let mut daemon = daemon;
    daemon.configure(json!({
        "rooted-db": with(dies_with(&broken), json!({"critical": true, "restart_policy": policy})),
        "rooted-web": with(dies_with(&broken), json!({
            "critical": true, "dependencies": ["rooted-db"], "restart_policy": policy})),
        "rooted-edge": with(sleeper(), json!({"critical": true, "dependencies": ["rooted-web"]})),
    }));
    daemon.launch();
    daemon.wait_state("rooted-edge", "running");
    std::fs::write(&broken, "").unwrap();
    daemon.wait_state("rooted-db", "fatal");
    let root = wait_alert(&daemon, "down", |a| {
        a["message"].as_str().unwrap().contains("(fatal)") && !a["details"]["affected"].is_null()
    });
    assert_eq!((&root["service_id"], &root["severity"]), (&json!("rooted-db"), &json!("critical")));
    assert_eq!(root["details"]["affected"], json!(["rooted-web"]), "{root}");
    assert_eq!(root["details"]["last_exit"]["code"], 7);
    let open: Vec<Value> = alerts(&daemon, false).iter().map(|a| a["service_id"].clone()).collect();
    assert_eq!(open, ["rooted-db"], "those that it takes with it raise nothing of their own");
    assert_eq!(daemon.api("GET", "health").0, 503);
    std::fs::remove_file(&broken).unwrap();
    daemon.ok(&["start", "rooted-db"]);
    wait_for("all alerts are over", SOON, || alerts(&daemon, false).is_empty().then_some(()));
}

#[test]
fn an_oom_kill_is_told_with_the_log_and_is_over_after_recovery() {
    let daemon = Daemon::prepared(json!({}));
    let hungry = path(&daemon, "hungry");
    std::fs::write(&hungry, "").unwrap();
    let program = format!(
        "if [ -e {file} ]; then rm {file}; echo eating with $TOKEN; exec tail /dev/zero; fi; exec sleep 1000000",
        file = hungry.display()
    );
    let mut daemon = daemon;
    daemon.configure(json!({"alert-oom": with(script(&program), json!({
        "environment": {"TOKEN": "swordfish-42"},
        "resource_limits": {"max_memory_mb": 32},
        "restart_policy": {"retry_delay": 0.5, "reset_after": 3}}))}));
    daemon.launch();
    let alert = wait_for("an alert with the log", SOON, || {
        let found = alerts(&daemon, true).into_iter().find(|a| a["alert_type"] == "oom_kill")?;
        found["details"]["log"].is_array().then_some(found)
    });
    assert_eq!((&alert["service_id"], &alert["severity"]), (&json!("alert-oom"), &json!("error")));
    assert!(alert["message"].as_str().unwrap().contains("its limit is 32 MiB"), "{alert}");
    let log = alert["details"]["log"].to_string();
    assert!(log.contains("eating with ***") && !log.contains("swordfish"), "{log}");
    daemon.wait_state("alert-oom", "running");
    let over = wait_for("it is over", SOON, || {
        alerts(&daemon, true).into_iter().find(|a| a["id"] == alert["id"] && !a["resolved_at"].is_null())
    });
    assert!(over["details"]["resolution"].as_str().unwrap().contains("ran for 3 s"), "{over}");
    assert_eq!(alerts(&daemon, false), Vec::<Value>::new());
    let kinds: Vec<Value> = daemon.events("alert-oom").iter().map(|e| e["event_type"].clone()).collect();
    for kind in ["resource_limit", "alert_raised", "alert_resolved"] {
        assert_eq!(kinds.iter().filter(|k| *k == kind).count(), 1, "{kind}: {kinds:?}");
    }
}

#[test]
fn an_open_alert_outlives_the_daemon_once_and_is_acknowledged_once() {
    let mut daemon = Daemon::start(json!({
        "alert-kept": with(script("exit 3"), json!({"restart_policy": {"max_retries": 0}})),
    }));
    let alert = wait_alert(&daemon, "down", |_| true);
    daemon.kill();
    daemon.launch();
    daemon.wait_state("alert-kept", "fatal");
    let number = alert["id"].to_string();
    let said = daemon.ok(&["alerts", "ack", &number]);
    assert!(said.starts_with(&format!("alert {number} is acknowledged: alert-kept is down")), "{said}");
    let rows = alerts(&daemon, true);
    assert_eq!(rows.len(), 1, "{rows:#?}");
    let at = &rows[0]["acknowledged_at"];
    assert!(at.is_string() && rows[0]["resolved_at"].is_null(), "{rows:#?}");
    daemon.ok(&["alerts", "ack", &number]);
    assert_eq!(&alerts(&daemon, true)[0]["acknowledged_at"], at);
    let seen = |e: &&Value| e["event_type"] == "alert_acknowledged";
    let events = daemon.events("alert-kept");
    assert_eq!(events.iter().filter(seen).count(), 1, "{events:#?}");
    let who = events.iter().find(seen).unwrap()["message"].as_str().unwrap();
    assert!(who.contains("uid 0"), "{who}");
    assert_eq!(daemon.api("POST", "alerts/999999/ack").0, 404);
    assert_eq!(daemon.ctl(&["alerts", "ack", "999999"]).status.code(), Some(1));
    assert!(daemon.ok(&["alerts"]).contains("seen"), "{}", daemon.ok(&["alerts"]));
    assert!(daemon.ok(&["summary"]).contains("1 fatal"));
}
