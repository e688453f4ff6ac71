//! Where it cannot work it says so in one sentence with the remedy, and leaves nothing half done.

use std::path::Path;
use std::process::Output;

use crate::harness::{assert_host_is, binary, look_at_host, sandbox};

fn assert_refused(output: &Output, remedy: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert_eq!(text.trim().lines().count(), 1, "{text}");
    assert!(text.contains(remedy), "{text}");
}

/// Runs the sandbox below another program that takes something from it.
fn below(program: &[&str]) -> Output {
    let (first, arguments) = program.split_first().unwrap();
    std::process::Command::new(first).args(arguments).args([binary(), "--", "true"]).output().unwrap()
}

#[test]
fn without_root() {
    assert_refused(&below(&["unshare", "--user"]), "with sudo");
}

#[test]
fn without_the_right_to_make_namespaces() {
    let before = look_at_host();
    let refused = below(&["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-all"]);
    assert_refused(&refused, "--privileged");
    assert_host_is(&before);
}

#[test]
fn without_a_command_or_a_terminal() {
    assert_refused(&sandbox().output().unwrap(), "name a command");
}

#[test]
fn binding_what_the_private_systemd_changes() {
    for place in ["/", "/etc", "/run", "/proc/self"] {
        assert_refused(&sandbox().args(["--bind", place, "--", "true"]).output().unwrap(), "below");
    }
}

#[test]
fn without_the_packages() {
    // A sandbox within a sandbox, from which they are taken away first.
    let cases = [
        ("rm -f /usr/bin/dbus-daemon /usr/bin/dbus-broker", "the D-Bus message bus is not installed"),
        ("rm -f /usr/lib/systemd/systemd", "systemd is not installed"),
    ];
    for (removal, problem) in cases {
        let script = format!("{removal}; exec \"$0\" -- true");
        let output = sandbox()
            .arg("--bind")
            .arg(Path::new(binary()).parent().unwrap())
            .args(["--", "sh", "-c", &script, binary()])
            .output()
            .unwrap();
        assert_refused(&output, problem);
    }
}
