//! Nothing is left behind, whoever is killed and when.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{
    adopt_orphans, assert_host_is, bury_orphans, groups_of, look_at_host, reaper_and_first, sandbox, wait_for,
};

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

/// A sandbox whose command has started and does not end.
fn running() -> Child {
    let script = "setsid sleep 1000 & echo ready; exec sleep 1000";
    let mut child = sandbox().args(["--", "sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    child
}

#[test]
fn the_front_killed_at_any_moment() {
    adopt_orphans();
    let before = look_at_host();
    let mut met = 0;
    for round in 0..40_u64 {
        let front = sandbox().args(["--", "sleep", "1000"]).spawn().unwrap();
        // The moment is the subject here: from the first instructions to well after the boot.
        std::thread::sleep(
            Duration::from_millis(round * 37 % 600) + Duration::from_micros(round * 131 % 1000),
        );
        kill(pid(&front), Signal::SIGKILL).unwrap();
        let orphans = bury_orphans();
        met += usize::from(orphans.len() > 1);
        for orphan in orphans {
            assert_eq!(groups_of(orphan), Vec::<std::path::PathBuf>::new(), "round {round}");
        }
    }
    assert!(met > 20, "too few sandboxes were under way when killed: {met}");
    assert_host_is(&before);
}

#[test]
fn the_reaper_killed() {
    adopt_orphans();
    let before = look_at_host();
    let mut front = running();
    let (reaper, _) = reaper_and_first(pid(&front)).unwrap();
    assert!(!groups_of(reaper).is_empty());
    kill(reaper, Signal::SIGKILL).unwrap();
    assert_eq!(front.wait().unwrap().code(), Some(137));
    assert!(groups_of(reaper).is_empty(), "the front removes them");
    bury_orphans();
    assert_host_is(&before);
}

#[test]
fn front_and_reaper_killed_together() {
    adopt_orphans();
    let before = look_at_host();
    let front = running();
    let (reaper, _) = reaper_and_first(pid(&front)).unwrap();
    // Stopped first, so that neither sees the other's end.
    for victim in [pid(&front), reaper] {
        kill(victim, Signal::SIGSTOP).unwrap();
    }
    for victim in [reaper, pid(&front)] {
        kill(victim, Signal::SIGKILL).unwrap();
    }
    bury_orphans();
    assert!(!groups_of(reaper).is_empty(), "nobody was left to remove them");
    assert!(sandbox().args(["--", "true"]).status().unwrap().success());
    assert!(groups_of(reaper).is_empty(), "the next sandbox removes them");
    assert_host_is(&before);
}

#[test]
fn the_private_systemd_killed() {
    adopt_orphans();
    let before = look_at_host();
    let mut front = running();
    let (reaper, first) = reaper_and_first(pid(&front)).unwrap();
    kill(first, Signal::SIGKILL).unwrap();
    assert_eq!(front.wait().unwrap().code(), Some(137));
    assert!(groups_of(reaper).is_empty());
    bury_orphans();
    assert_host_is(&before);
}

#[test]
fn a_boot_that_hangs_ends_with_its_deadline() {
    adopt_orphans();
    let before = look_at_host();
    let child = sandbox().args(["--boot-timeout", "2", "--", "true"]).stderr(Stdio::piped()).spawn().unwrap();
    let (reaper, first) = wait_for("the first process", || reaper_and_first(pid(&child)));
    wait_for("its turn into systemd", || {
        let name = std::fs::read_to_string(format!("/proc/{first}/comm")).unwrap();
        (name.trim() == "systemd").then_some(())
    });
    kill(first, Signal::SIGSTOP).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{text}");
    assert!(text.contains("not up after 2 s"), "{text}");
    assert!(groups_of(reaper).is_empty());
    bury_orphans();
    assert_host_is(&before);
}

#[test]
fn a_signal_while_booting() {
    adopt_orphans();
    let before = look_at_host();
    let mut front = sandbox().args(["--", "true"]).stderr(Stdio::null()).spawn().unwrap();
    let (reaper, first) = wait_for("the first process", || reaper_and_first(pid(&front)));
    kill(first, Signal::SIGSTOP).unwrap();
    kill(pid(&front), Signal::SIGTERM).unwrap();
    assert_eq!(front.wait().unwrap().code(), Some(143));
    assert!(groups_of(reaper).is_empty());
    bury_orphans();
    assert_host_is(&before);
}
