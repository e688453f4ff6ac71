//! Somebody removes the runtime folder, or what is in it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{Daemon, SOON, lines, path, sh, sleeper, wait_for, with};

fn with_environment() -> Value {
    with(sleeper(), json!({"environment": {"TURN": "1"}}))
}

fn wait_until_it_answers(daemon: &Daemon) {
    wait_for("it answers", SOON, || daemon.ctl(&["status"]).status.success().then_some(()));
}

#[test]
fn a_removed_socket_is_made_again_and_who_is_connected_stays() {
    let daemon = Daemon::start(json!({"socket-gone": sleeper()}));
    let (socket, heard) = (path(&daemon, "runtime/supervisor.sock"), path(&daemon, "heard"));
    let mut reader = Command::new("curl")
        .args(["-sSN", "http://localhost/api/supervisor/stream", "--unix-socket"])
        .arg(&socket)
        .stdout(fs::File::create(&heard).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("it is connected", SOON, || (!lines(&heard).is_empty()).then_some(()));
    let mode = |path| fs::metadata(path).unwrap().permissions().mode();
    let before = mode(&socket);
    fs::remove_file(&socket).unwrap();
    wait_until_it_answers(&daemon);
    assert_eq!(mode(&socket), before);
    let told = || daemon.log().contains("somebody removed the control socket").then_some(());
    wait_for("it is told", SOON, told);
    daemon.ok(&["stop", "socket-gone"]);
    wait_for("the reader hears of it", SOON, || {
        lines(&heard).iter().any(|line| line.contains("socket-gone: stopping -> stopped")).then_some(())
    });
    reader.kill().unwrap();
    reader.wait().unwrap();
}

#[test]
fn a_removed_runtime_folder_is_made_again() {
    let daemon = Daemon::start(json!({"folder-gone": with_environment()}));
    let runtime = path(&daemon, "runtime");
    let before = daemon.wait_state("folder-gone", "running");
    fs::set_permissions(&runtime, fs::Permissions::from_mode(0o751)).unwrap();
    sh(&format!("rm -r {}", runtime.display()));
    wait_until_it_answers(&daemon);
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(runtime.clone()), 0o751, "as it was");
    assert_eq!(daemon.service("folder-gone")["pid"], before["pid"]);
    let second = daemon
        .program(env!("CARGO_BIN_EXE_process-supervisor"))
        .arg("--config")
        .arg(daemon.config())
        .output();
    let said = String::from_utf8(second.unwrap().stderr).unwrap();
    assert!(said.contains(&format!("another supervisor (pid {}) runs", daemon.pid())), "{said}");
    // By systemd alone, too, which reads the environment's file.
    wait_for("the file is there", SOON, || runtime.join("env/folder-gone.env").exists().then_some(()));
    daemon.ok(&["restart", "folder-gone"]);
    let pid = daemon.wait_state("folder-gone", "running")["pid"].clone();
    assert_ne!(pid, before["pid"]);
    let environment = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    assert!(environment.split('\0').any(|variable| variable == "TURN=1"), "{environment}");
    assert_eq!((mode(runtime.join("env")), mode(runtime.join("env/folder-gone.env"))), (0o700, 0o600));
}

#[test]
fn a_folder_that_cannot_be_made_again_is_told_and_tried_until_it_can() {
    let daemon = Daemon::start(json!({}));
    let runtime = path(&daemon, "runtime");
    sh(&format!("rm -r {0} && touch {0}", runtime.display()));
    let told = || daemon.log().contains("it cannot be made again").then_some(());
    wait_for("it is told", SOON, told);
    fs::remove_file(&runtime).unwrap();
    wait_until_it_answers(&daemon);
    wait_for("the end of it is told", SOON, || daemon.log().contains("it is there again").then_some(()));
}

#[test]
fn a_folder_that_is_gone_with_the_daemon_ends_nothing_that_runs() {
    let mut daemon = Daemon::start(json!({"all-gone": with_environment()}));
    let before = daemon.wait_state("all-gone", "running");
    daemon.kill();
    fs::remove_dir_all(path(&daemon, "runtime")).unwrap();
    daemon.launch();
    assert!(path(&daemon, "runtime/env/all-gone.env").exists());
    assert_eq!(
        daemon.wait_state("all-gone", "running")["pid"],
        before["pid"],
        "{:#?}",
        daemon.messages("all-gone")
    );
}
