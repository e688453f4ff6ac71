//! The command is the caller's: descriptors, directory, environment, arguments, exit code, signals.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{inside, printed_inside, sandbox};

#[test]
fn the_exit_code_is_the_commands() {
    let cases = [
        (vec!["true"], 0),
        (vec!["sh", "-c", "exit 7"], 7),
        (vec!["sh", "-c", "kill -TERM $$"], 143),
        (vec!["sh", "-c", "kill -KILL $$"], 137),
        (vec!["/nonexistent/program"], 127),
        (vec!["/etc/passwd"], 126),
    ];
    for (command, code) in cases {
        let output = sandbox().arg("--").args(&command).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{command:?}: {output:?}");
    }
}

#[test]
fn standard_descriptors_are_the_callers() {
    let mut child = sandbox()
        .args(["sh", "-c", "cat; echo error >&2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let sent: Vec<u8> = (0..=255_u8).cycle().take(300_000).collect();
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn({
        let sent = sent.clone();
        move || input.write_all(&sent).unwrap()
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.stdout == sent, "{} of {} bytes came back", output.stdout.len(), sent.len());
    assert_eq!(output.stderr, b"error\n");
}

#[test]
fn arguments_arrive_byte_for_byte() {
    let arguments = ["$HOME", "%n", "a b", "", "\"'\\", "new\nline", "ümläut"];
    let output = sandbox().args(["--", "printf", "[%s]"]).args(arguments).output().unwrap();
    let expected: String = arguments.iter().map(|argument| format!("[{argument}]")).collect();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

#[test]
fn the_environment_is_the_callers_but_for_its_service_manager() {
    let output = sandbox()
        .env("KEPT_VALUE", "a\nb $x")
        .env("NOTIFY_SOCKET", "/run/elsewhere")
        .env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nowhere")
        .env("XDG_RUNTIME_DIR", "/run/user/1")
        .args(["--", "sh", "-c", "printf %s \"$KEPT_VALUE\"; env | grep -cE '^(NOTIFY_|DBUS_|XDG_RUNTIME)'"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "a\nb $x0\n");
}

#[test]
fn the_working_directory_is_the_callers_wherever_it_is() {
    for base in ["/tmp", "/run", "/root"] {
        let directory = tempfile::tempdir_in(base).unwrap();
        std::fs::write(directory.path().join("seen"), "content").unwrap();
        let output = sandbox()
            .args(["--", "sh", "-c", "pwd; cat seen; echo > swallowed"])
            .current_dir(directory.path())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text, format!("{}\ncontent", directory.path().display()), "{:?}", output.stderr);
        assert!(!directory.path().join("swallowed").exists(), "{base}");
    }
}

#[test]
fn binds_are_written_through_and_nothing_else_is() {
    let [bound, other] = [(); 2].map(|()| tempfile::tempdir_in("/tmp").unwrap());
    let file = other.path().join("file");
    std::fs::write(&file, "old").unwrap();
    let inner = bound.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    let script = "echo through > file; echo new > \"$1\"; ls \"$2\" 2>/dev/null | wc -l";
    let output = sandbox()
        .arg("--bind")
        .arg(bound.path())
        .arg("--bind")
        .arg(&file)
        .args(["--", "sh", "-c", script, "sh"])
        .arg(&file)
        .arg(other.path())
        .current_dir(&inner)
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"1\n", "only the bound file of its directory shows: {output:?}");
    assert_eq!(std::fs::read_to_string(inner.join("file")).unwrap(), "through\n");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "new\n");
}

#[test]
fn signals_reach_the_command_and_its_answer_counts() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1] {
        let script = "trap 'echo caught; exit 9' TERM INT HUP USR1; echo ready; while :; do sleep 0.02; done";
        let mut child = sandbox().args(["--", "bash", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "caught", "{signal}");
        assert_eq!(child.wait().unwrap().code(), Some(9), "{signal}");
    }
}

#[test]
fn a_command_that_ignores_the_request_to_end_is_killed() {
    let script = "trap '' TERM; echo ready; while :; do sleep 0.02; done";
    let mut child = sandbox()
        .args(["--", "bash", "-c", script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(137));
    assert!(String::from_utf8_lossy(&output.stderr).contains("killed"), "{output:?}");
}

#[test]
fn the_command_is_a_unit_of_the_private_systemd() {
    let text = printed_inside(
        "systemctl show -P ActiveState command.scope; grep -c command.scope /proc/self/cgroup",
    );
    let (state, hierarchies) = text.split_once('\n').unwrap();
    assert_eq!(state, "active");
    assert!(hierarchies.parse::<u32>().unwrap() >= 1);
}

#[test]
fn the_sandbox_may_end_by_itself() {
    let output = inside("systemctl poweroff --force --force; sleep 60");
    assert_eq!(output.status.code(), Some(137), "{output:?}");
}
