//! The daemon itself: its flags, its end, its place.

use serde_json::json;

use super::{Daemon, SOON, script, sh, sleeper, wait_for, with};

#[test]
fn shutdown_stops_everything_in_reverse_order() {
    let mut daemon = Daemon::prepared(json!({}));
    let ends = daemon.folder.join("ends");
    let noting = |name: &str| {
        script(&format!(
            "trap 'echo {name} >> {}; exit 0' TERM; while :; do sleep 0.05; done",
            ends.display()
        ))
    };
    daemon.configure(json!({
        "rev-db": with(noting("db"), json!({"environment": {"TOKEN": "s3cret"}})),
        "rev-app": with(noting("app"), json!({"dependencies": ["rev-db"]})),
        "rev-web": with(noting("web"), json!({"dependencies": ["rev-app"]})),
    }));
    daemon.launch();
    daemon.wait_state("rev-web", "running");
    daemon.ok(&["shutdown"]);
    assert!(daemon.wait_for_end().success());
    assert_eq!(super::lines(&ends), ["web", "app", "db"]);
    assert_eq!(sh("systemctl is-active supervisor-rev-db.service || true"), "inactive");
    let kept: Vec<_> = std::fs::read_dir(daemon.folder.join("runtime/env")).unwrap().collect();
    assert!(kept.is_empty(), "no secret stays behind: {kept:?}");
    // Next time everything is started again: nobody stopped these services by hand.
    daemon.launch();
    daemon.wait_state("rev-web", "running");
}

#[test]
fn a_signal_needs_a_process() {
    let daemon = Daemon::start(json!({"target": sleeper()}));
    daemon.wait_state("target", "running");
    daemon.ok(&["stop", "target"]);
    let refused = daemon.ctl(&["signal", "KILL", "target"]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success());
    assert!(said.contains("target has no process to send it to: it is stopped (stopped by "), "{said}");
}

#[test]
fn ctrl_c_stops_services_and_a_second_one_leaves_them() {
    let mut daemon = Daemon::start(json!({
        "slow-end": with(script("trap '' TERM; while :; do sleep 0.05; done"), json!({"graceful_shutdown": {"timeout": 40}})),
    }));
    let before = daemon.wait_state("slow-end", "running");
    daemon.signal("INT");
    daemon.wait_state("slow-end", "stopping");
    daemon.signal("INT");
    assert!(daemon.wait_for_end().success());
    assert!(std::path::Path::new(&format!("/proc/{}", before["pid"])).exists());
}

#[test]
fn stop_services_on_exit_means_sigterm_too() {
    let mut daemon = Daemon::prepared(json!({}));
    daemon.configure_whole(
        json!({"supervisor": {"stop_services_on_exit": true}, "services": {"on-exit": sleeper()}}),
    );
    daemon.launch();
    daemon.wait_state("on-exit", "running");
    daemon.signal("TERM");
    assert!(daemon.wait_for_end().success());
    assert_eq!(sh("systemctl is-active supervisor-on-exit.service || true"), "inactive");
}

#[test]
fn a_second_daemon_is_refused_and_a_bad_config_starts_nothing() {
    let mut daemon = Daemon::start(json!({"only": sleeper()}));
    daemon.wait_state("only", "running");
    let second = daemon
        .program(env!("CARGO_BIN_EXE_process-supervisor"))
        .arg("--config")
        .arg(daemon.config())
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains(&format!("another supervisor (pid {})", daemon.pid())), "{said}");
    daemon.kill();
    std::fs::write(daemon.config(), r#"{"services": {"only": {"command": "/bin/sleep", "intervall": 5}}}"#)
        .unwrap();
    let refused = daemon
        .program(env!("CARGO_BIN_EXE_process-supervisor"))
        .arg("--config")
        .arg(daemon.config())
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("unknown key \"intervall\""));
    assert_eq!(sh("systemctl is-active supervisor-only.service"), "active", "what runs is left alone");
}

#[test]
fn daemon_status_stop_and_check() {
    let daemon = Daemon::prepared_alone(json!({"bg": sleeper()}));
    let run = |flag: &str| {
        let mut command = daemon.program(env!("CARGO_BIN_EXE_process-supervisor"));
        let output = command.arg(flag).arg("--config").arg(daemon.config()).output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap(),
        )
    };
    // As the installed unit has it: what is told to end stays down all the same.
    sh("mkdir /run/systemd/system/process-supervisor.service.d; systemctl daemon-reload");
    sh("printf '[Service]\nRestart=always\n' >/run/systemd/system/process-supervisor.service.d/always.conf");
    assert_eq!(run("--check").0, Some(0));
    assert_eq!(run("--status").0, Some(4), "no daemon yet");
    let (code, said) = run("--daemon");
    assert_eq!(code, Some(0), "{said}");
    let status = || sh("systemctl show -P ActiveState,StatusText process-supervisor.service");
    assert!(status().contains("active"), "{}", status());
    wait_for("the service runs", SOON, || {
        let (code, said) = run("--status");
        (code == Some(0) && said.contains("running")).then_some(())
    });
    assert!(sh("systemctl show -P StatusText process-supervisor.service").contains("1 running"));
    let (code, said) = run("--daemon");
    assert_ne!(code, Some(0), "it runs already: {said}");
    // systemctl restart keeps the service.
    let pid = daemon.pid_of("bg");
    sh("systemctl restart process-supervisor.service");
    wait_for("back", SOON, || (daemon.pid_of("bg") == pid).then_some(()));
    // The watchdog is fed: it would have been killed otherwise (WatchdogSec is told to the unit).
    assert_ne!(sh("systemctl show -P WatchdogUSec process-supervisor.service"), "0");
    // Its log is in the journal, selectable by service.
    wait_for("the log in the journal", SOON, || {
        sh("journalctl -o cat SUPERVISOR_SERVICE=bg SYSLOG_IDENTIFIER=process-supervisor")
            .contains("bg: ")
            .then_some(())
    });
    assert_eq!(sh("systemctl show -P Restart process-supervisor.service"), "always");
    assert_eq!(run("--stop").0, Some(0));
    wait_for("all is down", SOON, || {
        (sh("systemctl is-active process-supervisor.service supervisor-bg.service || true")
            .lines()
            .all(|l| l == "inactive"))
        .then_some(())
    });
    sh("rm -r /run/systemd/system/process-supervisor.service.d; systemctl daemon-reload");
}
