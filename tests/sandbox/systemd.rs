//! It is a real systemd: what tests of the product lean on.

use std::path::Path;

use crate::harness::{binary, inside, printed_inside, sandbox};

#[test]
fn it_has_booted_when_the_command_starts() {
    let text = printed_inside(
        "systemctl is-system-running; systemctl --failed --no-legend; loginctl list-seats --no-legend; \
         systemctl is-active dbus systemd-journald systemd-logind; [ -d /run/systemd/system ] && [ ! -e /run/nologin ]",
    );
    assert!(text.starts_with("running\n"), "{text}");
    assert!(text.ends_with("active\nactive\nactive"), "{text}");
}

#[test]
fn it_survives_what_tests_do_to_it() {
    let text = printed_inside(
        "set -e
        systemd-run --quiet --unit=kept sleep 1000
        before=$(systemctl show -P MainPID kept)
        systemctl daemon-reexec
        systemctl restart dbus
        systemctl restart systemd-journald
        systemctl restart systemd-logind
        systemctl daemon-reload
        [ \"$before\" = \"$(systemctl show -P MainPID kept)\" ]
        systemd-run --quiet --wait --unit=after true
        systemctl is-system-running",
    );
    assert_eq!(text, "running");
}

#[test]
fn its_console_never_holds_it_up() {
    let text = printed_inside(
        "set -e
        for n in 1 2 3; do echo a line >/dev/console; sleep 0.1; done
        timeout 10 dd if=/dev/zero of=/dev/console bs=1024 count=100 status=none
        for n in $(seq 100); do systemd-run --quiet --unit=many-$n sleep 1000; done
        timeout 10 systemctl daemon-reexec
        systemctl is-system-running",
    );
    assert_eq!(text, "running");
}

#[test]
fn the_journal_keeps_what_services_print() {
    let text = printed_inside(
        "systemd-run --quiet --wait --unit=speaker echo spoken
        journalctl --sync
        journalctl --quiet --output=cat --unit=speaker --grep='^spoken$'",
    );
    assert_eq!(text, "spoken");
}

#[test]
fn a_memory_limit_holds_where_the_controller_is_there() {
    let output = inside(
        "grep -qw memory /sys/fs/cgroup/cgroup.controllers 2>/dev/null || [ -d /sys/fs/cgroup/memory ] || exit 77
        systemd-run --quiet --wait --unit=hog -p MemoryMax=64M -p MemorySwapMax=0 \
            sh -c 'head -c 300000000 /dev/zero | tail' >/dev/null
        systemctl show -P Result hog",
    );
    if output.status.code() == Some(77) {
        println!("skipped: this machine has no memory controller to pass on");
        return;
    }
    let result = String::from_utf8(output.stdout).unwrap();
    // Version 1 counters do not tell an OOM kill from another one.
    assert!(["signal", "oom-kill", "exit-code"].contains(&result.trim()), "{result}");
}

#[test]
fn an_ordinary_user_has_a_manager_and_a_journal() {
    let text = printed_inside(
        "set -e
        useradd --create-home tester
        loginctl enable-linger tester
        uid=$(id -u tester)
        systemctl start user@$uid.service
        as() { runuser -u tester -- env XDG_RUNTIME_DIR=/run/user/$uid \"$@\"; }
        as systemctl --user is-system-running --wait
        as systemd-run --user --quiet --wait --unit=speaker echo spoken
        journalctl --sync
        as journalctl --user --quiet --output=cat --grep='^spoken$'
        systemd-run --user -M tester@ --quiet --pipe --wait id --user --name",
    );
    assert_eq!(text, "running\nspoken\ntester");
}

#[test]
fn version_2_alone_can_be_asked_for() {
    let output = sandbox()
        .args(["--cgroup", "unified", "--", "sh", "-c"])
        .arg("systemctl is-system-running; stat -f -c %T /sys/fs/cgroup; grep -c ^0::/system.slice/command.scope$ /proc/self/cgroup")
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "running\ncgroup2fs\n1\n");
}

#[test]
fn it_works_where_systemd_is_pid_1_already() {
    let output = sandbox()
        .arg("--bind")
        .arg(Path::new(binary()).parent().unwrap())
        .args(["--", binary(), "--", "systemctl", "is-system-running"])
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"running\n", "{output:?}");
}
