//! A new configuration touches only what differs; a bad one touches nothing.

use serde_json::{Value, json};

use super::{Daemon, SOON, sh, sleeper, wait_for, with};

fn limit(id: &str) -> String {
    sh(&format!("systemctl show -P MemoryMax supervisor-{id}.service"))
}

fn ids(report: &Value, list: &str) -> Vec<String> {
    let id = |entry: &Value| entry.as_str().or(entry["id"].as_str()).unwrap().to_owned();
    report[list].as_array().unwrap().iter().map(id).collect()
}

#[test]
fn only_what_changed_is_touched() {
    let limited = |mb: u32| with(sleeper(), json!({"resource_limits": {"max_memory_mb": mb}}));
    let mut daemon = Daemon::start(json!({
        "re-same": sleeper(), "re-limit": limited(64), "re-args": sleeper(), "re-gone": sleeper(), "re-env": sleeper(),
    }));
    for id in ["re-same", "re-limit", "re-args", "re-gone", "re-env"] {
        daemon.wait_state(id, "running");
    }
    let before: Vec<u64> = ["re-same", "re-limit", "re-args", "re-env"].map(|id| daemon.pid_of(id)).into();
    assert_eq!(limit("re-limit"), (64u64 << 20).to_string());
    daemon.configure(json!({
        "re-same": sleeper(), "re-limit": limited(128), "re-args": with(sleeper(), json!({"args": ["2000000"]})), "re-new": sleeper(),
        "re-env": with(sleeper(), json!({"environment": {"A": "b"}})),
    }));
    let dry: Value = serde_json::from_str(&daemon.ok(&["--json", "reload", "--dry-run"])).unwrap();
    assert_eq!(daemon.pid_of("re-args"), before[2], "a dry run changes nothing");
    assert_eq!(daemon.state("re-gone"), "running");
    let report: Value = serde_json::from_str(&daemon.ok(&["--json", "reload"])).unwrap();
    assert_eq!(dry, report, "the dry run said what would be done");
    assert_eq!(ids(&report, "added"), ["re-new"]);
    assert_eq!(ids(&report, "removed"), ["re-gone"]);
    assert_eq!(ids(&report, "restarted"), ["re-args", "re-env"]);
    assert_eq!(ids(&report, "updated_live"), ["re-limit"]);
    assert_eq!(ids(&report, "unchanged"), ["re-same"]);
    daemon.wait_state("re-new", "running");
    wait_for("the limit", SOON, || (limit("re-limit") == (128u64 << 20).to_string()).then_some(()));
    for (index, id) in [(2, "re-args"), (3, "re-env")] {
        wait_for("the restart", SOON, || {
            (daemon.state(id) == "running" && daemon.pid_of(id) != before[index]).then_some(())
        });
    }
    assert_eq!(daemon.pid_of("re-same"), before[0]);
    assert_eq!(daemon.pid_of("re-limit"), before[1], "a limit is changed without a restart");
    wait_for("the removed one is gone", SOON, || {
        (daemon.service("re-gone").is_null()
            && sh("systemctl is-active supervisor-re-gone.service || true") == "inactive")
            .then_some(())
    });
}

#[test]
fn a_bad_configuration_changes_nothing() {
    let daemon = Daemon::start(json!({"re-steady": sleeper()}));
    let before = daemon.wait_state("re-steady", "running");
    let bad = r#"{"services": {"re-steady": {"comand": "/bin/sleep", "args": [1], "priority": "high"},
                              "other": {"command": "/bin/sleep", "dependencies": ["re-stedy"]}}}"#;
    std::fs::write(daemon.config(), bad).unwrap();
    let output = daemon.ctl(&["reload"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    for part in
        ["comand", "\"command\"", "priority", "re-stedy", "\"re-steady\"", "supervisor_config.json:1:"]
    {
        assert!(said.contains(part), "{part} is missing in:\n{said}");
    }
    let after = daemon.service("re-steady");
    assert_eq!((&after["pid"], &after["state"]), (&before["pid"], &json!("running")));
    let (code, problem) = daemon.api("POST", "reload");
    assert_eq!(code, 422);
    assert!(problem["errors"].as_array().unwrap().len() >= 4, "{problem}");
    daemon.signal("HUP");
    let refused = wait_for("SIGHUP was refused too", SOON, || {
        let events = &daemon.api("GET", "events?type=config_rejected").1["events"];
        events.as_array().filter(|e| e.len() >= 3).map(|e| e[0]["message"].to_string())
    });
    for part in
        ["asked for by SIGHUP: ", "supervisor_config.json:1: ", " (the first of ", "; the old one stays"]
    {
        assert!(refused.contains(part), "{refused}");
    }
    assert_eq!(daemon.pid_of("re-steady"), before["pid"].as_u64().unwrap());
}

#[test]
fn properties_that_systemd_refuses_are_refused_before_anything_starts() {
    let mut daemon = Daemon::start(json!({
        "props": with(sleeper(), json!({"unit_properties": {"ProtectSystem": "strict", "PrivateTmp": true, "Nice": 5}})),
    }));
    daemon.wait_state("props", "running");
    assert_eq!(
        sh("systemctl show -P ProtectSystem,PrivateTmp,Nice supervisor-props.service | tr '\\n' ' '")
            .split(' ')
            .count(),
        3
    );
    let pid = daemon.pid_of("props");
    daemon.configure(json!({
        "props": with(sleeper(), json!({"unit_properties": {"ProtectSystem": "sometimes", "ProtektHome": true}})),
    }));
    let output = daemon.ctl(&["reload"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("ProtectSystem") && said.contains("ProtektHome"), "{said}");
    assert_eq!(daemon.pid_of("props"), pid);
}

#[test]
fn a_change_of_the_supervisor_alone_is_a_change() {
    let mut daemon = Daemon::start(json!({"calm": sleeper()}));
    daemon.wait_state("calm", "running");
    let config = |days: u32, database: &str| {
        json!({"supervisor": {"listen": [], "retention_days": days, "database": database},
            "services": {"calm": sleeper()}})
    };
    let other = daemon.folder.join("other.db");
    daemon.configure_whole(config(7, other.to_str().unwrap()));
    let asked = |daemon: &Daemon, more: &[&str]| -> serde_json::Value {
        serde_json::from_str(&daemon.ok(&[&["--json", "reload"], more].concat())).unwrap()
    };
    let changed = json!(["database", "retention_days"]);
    assert_eq!(asked(&daemon, &["--dry-run"])["supervisor"], changed);
    assert_eq!(asked(&daemon, &[])["supervisor"], changed);
    let events = daemon.api("GET", "events?type=config_reloaded").1["events"].clone();
    let told =
        |text: &str| events.as_array().unwrap().iter().any(|e| e["message"].as_str().unwrap().contains(text));
    assert!(told("settings of the supervisor changed: database, retention_days"), "{events}");
    assert_eq!(asked(&daemon, &[])["supervisor"], json!(["database"]), "it waits for the next start");
    assert!(!other.exists());
    daemon.kill();
    daemon.launch();
    assert!(other.exists());
}
