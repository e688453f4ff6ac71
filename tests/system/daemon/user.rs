//! The user scope, as an ordinary user.

use serde_json::json;

use super::{Daemon, SOON, sh, sleeper, wait_for, with};

#[test]
fn an_ordinary_user_supervises_services_of_their_own() {
    sh("id scopetester >/dev/null 2>&1 || useradd -m scopetester; loginctl enable-linger scopetester");
    wait_for("their systemd", SOON, || {
        std::process::Command::new("systemctl")
            .args(["--user", "-M", "scopetester@", "is-system-running"])
            .output()
            .ok()
            .filter(|output| output.stdout.starts_with(b"running") || output.stdout.starts_with(b"degraded"))
            .map(|_| ())
    });
    let check = json!({"type": "exec", "command": "sh", "args": ["-c", "echo $(id -un) $A $HOME; pwd"], "interval": 1});
    let mine =
        json!({"environment": {"A": "b"}, "restart_policy": {"retry_delay": 0.1}, "health_check": check});
    let mut daemon = Daemon::prepared_as("scopetester", json!({"mine": with(sleeper(), mine)}));
    daemon.launch();
    let before = wait_for("it runs", SOON, || {
        let status = daemon.ctl(&["--json", "status"]);
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).ok()?;
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
