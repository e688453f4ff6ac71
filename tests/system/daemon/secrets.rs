//! A secret is in no file that others can read, no log, no answer, no database.

use std::process::Command;

use serde_json::json;

use super::{Daemon, sh, sleeper, with};

const SECRET: &str = "hunter2-9f8e7d6c5b4a";

#[test]
fn a_secret_stays_where_it_belongs() {
    let mut daemon = Daemon::start(json!({
        "keeper": with(sleeper(), json!({
            "environment": {"PASSWORD": SECRET},
            "health_check": {"type": "http", "endpoint": "http://127.0.0.1:1/", "headers": {"Authorization": SECRET}, "interval": 1, "timeout": 0.5, "failure_threshold": 1},
            "restart_policy": {"retry_delay": 1}
        })),
    }));
    daemon.wait_state("keeper", "backoff");
    // A broken configuration around the secret must not give it away either.
    let broken = format!(
        r#"{{"services": {{"keeper": {{"command": "/bin/sleep", "environment": {{"PASSWORD": "{SECRET}", "N": 5}}, "x": }}}}}}"#
    );
    std::fs::write(daemon.config(), &broken).unwrap();
    let refused = daemon.ctl(&["reload"]);
    let mut said = String::from_utf8(refused.stdout).unwrap() + &String::from_utf8(refused.stderr).unwrap();
    for path in ["status", "services/keeper", "events?limit=1000", "services/keeper/health"] {
        said += &daemon.api("GET", path).1.to_string();
    }
    said += &daemon.log();
    said += &sh("journalctl --no-pager -o json --all -n 5000");
    said += &sh(
        "systemctl show supervisor-keeper.service; systemctl cat supervisor-keeper.service 2>/dev/null || true",
    );
    said += &sh("ps axww -o args");
    assert!(!said.contains(SECRET), "given away");
    assert!(daemon.api("GET", "services/keeper").1["config"].to_string().contains("***"));
    let readable = Command::new("find")
        .args(["/run", "/var/lib/systemd", "/tmp", "/etc/systemd"])
        .arg(&daemon.folder)
        .args([
            "-xdev",
            "-type",
            "f",
            "-perm",
            "/o+r",
            "-not",
            "-name",
            "supervisor_config.json",
            "-exec",
            "grep",
            "-l",
            SECRET,
            "{}",
            "+",
        ])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&readable.stdout), "", "world-readable");
    // ... and the service did get it.
    let file = daemon.folder.join("runtime/env/keeper.env");
    assert!(std::fs::read_to_string(&file).unwrap().contains(SECRET));
    assert_eq!(sh(&format!("stat -c %a {}", file.display())), "600");
    daemon.signal("TERM");
    daemon.wait_for_end();
    for name in ["architect.db", "architect.db-wal"] {
        let bytes = std::fs::read(daemon.folder.join("state").join(name)).unwrap_or_default();
        assert!(!bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()), "in {name}");
    }
}
