//! The user scope, as an ordinary user.

use serde_json::{Value, json};

use super::{Daemon, SOON, sh, sleeper, wait_for, with};

#[test]
fn an_ordinary_user_supervises_services_of_their_own() {
    make_user("scopetester");
    let check = json!({"type": "exec", "command": "sh", "args": ["-c", "echo $(id -un) $A $HOME; pwd"], "interval": 1});
    let mine =
        json!({"environment": {"A": "b"}, "restart_policy": {"retry_delay": 0.1}, "health_check": check});
    let mut daemon = Daemon::prepared_as("scopetester", json!({"mine": with(sleeper(), mine)}));
    daemon.launch();
    let before = wait_for("it runs", SOON, || {
        let status = daemon.ctl(&["--json", "status"]);
        let status: Value = serde_json::from_slice(&status.stdout).ok()?;
        assert_eq!(status["supervisor"]["scope"], "user");
        Some(status["services"]["mine"].clone()).filter(|mine| mine["state"] == "running")
    });
    assert_eq!(sh(&format!("stat -c %U /proc/{}", before["pid"])), "scopetester");
    let messages = daemon.messages("mine");
    // This supervisor is no unit of their systemd, so the check may have to run outside its limits.
    assert!(messages.iter().any(|m| m.contains("sh passes: /home/scopetester")), "{messages:#?}");
    sh(&format!("kill -9 {}", before["pid"]));
    wait_for("it is restarted", SOON, || {
        let now = daemon.service("mine");
        (now["state"] == "running" && now["pid"] != before["pid"]).then_some(())
    });
    daemon.ok(&["shutdown"]);
    assert!(daemon.wait_for_end().success());
}

/// What ends with the last session comes back with the next: nobody stopped it, and the machine was not started again.
#[test]
fn services_of_a_user_are_there_again_in_the_next_session() {
    make_user("relogin");
    let mut daemon = Daemon::prepared_as("relogin", json!({"session": sleeper(), "by-hand": sleeper()}));
    daemon.launch();
    let first = daemon.wait_state("session", "running");
    daemon.wait_state("by-hand", "running");
    daemon.ok(&["stop", "by-hand"]);
    // `runuser` stands before it.
    let status: Value = serde_json::from_slice(&daemon.ctl(&["--json", "status"]).stdout).unwrap();
    sh(&format!("kill -TERM {}", status["supervisor"]["pid"]));
    assert!(daemon.wait_for_end().success());
    sh("systemctl restart user@$(id -u relogin)");
    daemon.launch();
    let second = daemon.wait_state("session", "running");
    assert_ne!(second["pid"], first["pid"]);
    daemon.wait_state("by-hand", "running");
    let again =
        "session: stopped -> starting: the machine, or its systemd, was started again; ready after 1 s";
    assert!(daemon.messages("session").iter().any(|message| message == again));
    // The same under a supervisor that lives on, in a session of its own.
    daemon.ok(&["stop", "by-hand"]);
    sh("systemctl restart user@$(id -u relogin)");
    let third = daemon.wait_service("session", "a third run", |service| {
        service["state"] == "running" && service["pid"] != second["pid"]
    });
    assert_eq!((&third["restart_count"], &third["attempt"]), (&json!(0), &json!(0)));
    assert_eq!(daemon.state("by-hand"), "stopped");
    daemon.ok(&["shutdown"]);
    assert!(daemon.wait_for_end().success());
}

fn make_user(name: &str) {
    sh(&format!("id {name} >/dev/null 2>&1 || useradd -m {name}; loginctl enable-linger {name}"));
    wait_for("their systemd", SOON, || {
        std::process::Command::new("systemctl")
            .args(["--user", "-M", &format!("{name}@"), "is-system-running"])
            .output()
            .ok()
            .filter(|output| output.stdout.starts_with(b"running") || output.stdout.starts_with(b"degraded"))
            .map(|_| ())
    });
}
