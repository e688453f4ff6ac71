//! Another boot, of the machine or of its systemd alone.

use super::adoption::kept;
use super::*;
use crate::core::action::Record;
use Activity::Active;
use State::{Backoff, Fatal, Running, Stopped, Stopping};

#[test]
fn another_boot_forgets_what_holds_for_one_boot_only() {
    for (state, want) in [
        (Running, Want::Up),
        (Stopped, Want::StoppedByHand),
        (Stopped, Want::StoppedOutside),
        (Stopped, Want::Completed),
        (Fatal, Want::Up),
        (Backoff, Want::Up),
        (Stopping, Want::StoppedByHand),
    ] {
        // The machine's, or that of a user's or a container's systemd on the same machine.
        for (now, systemd_began) in [("boot-2", 1), (BOOT, 2)] {
            let record = Record { systemd_began, ..kept(state, want) };
            let mut rig = Rig::before_resync(now, plan([svc("web")]), [(id("web"), record)].into());
            assert_eq!(rig.resync([]), ["start web"], "{state} {want:?}");
            assert_eq!(
                rig.lines(),
                ["web: stopped -> starting: the machine, or its systemd, was started again; ready after 1 s"]
            );
            let view = rig.view("web");
            assert_eq!((view.attempt, view.restart_count, view.last_restart), (0, 9, Some(Wall(5))));
        }
    }
}

#[test]
fn what_ended_with_its_systemd_comes_back_with_the_next() {
    let services = ["web", "db", "by-hand", "still-there"];
    let idle = [svc("off").disabled(), svc("gate").disabled(), svc("waits").needs("gate")];
    let mut rig = Rig::new(plan(services.map(svc).into_iter().chain(idle)));
    rig.start("off");
    for name in services.into_iter().chain(["off"]) {
        rig.up(name);
    }
    rig.stop("by-hand");
    rig.stopped("by-hand");
    // Of this one it was still heard.
    rig.stopped_outside("db");
    assert_eq!(rig.state("db"), Stopped);
    rig.lines();
    let systemd = |began| Event::SystemdIdentified { began };
    rig.tell(systemd(2));
    assert_eq!(rig.lines(), NOTHING);
    let there = unit(Active, rig.run("still-there").0, &svc("still-there"));
    assert_eq!(rig.resync([("still-there", there)]), ["start db", "start off", "start web"]);
    let ended = |id: &str, from: &str| {
        format!("{id}: {from}stopped: it ended with the systemd that ran it; to be started again")
    };
    let lines = rig.lines();
    assert_eq!(lines.len(), 6, "{lines:#?}");
    for line in [ended("web", "running -> "), ended("db", ""), ended("off", "running -> ")] {
        assert!(lines.contains(&line), "{lines:#?}");
    }
    assert_eq!(rig.state("still-there"), Running);
    for (name, record) in &rig.records {
        assert_eq!(record.systemd_began, 2, "{name}");
    }
    assert_eq!((rig.view("web").restart_count, rig.attempt("web")), (0, 0));
    // Told twice before units are compared; the comparison after that is one like any other.
    rig.up("web");
    rig.tell(systemd(3));
    rig.tell(systemd(3));
    rig.resync([]);
    assert_eq!(rig.view("web").last_exit, None);
    rig.up("web");
    rig.resync([]);
    assert_eq!(rig.state("web"), Backoff);
}

#[test]
fn a_systemd_that_was_not_asked_for_is_taken_for_this_one() {
    let record = Record { systemd_began: 0, ..kept(Stopped, Want::StoppedByHand) };
    let records = [(id("web"), record)].into();
    let mut rig = Rig::before_resync(BOOT, plan([svc("web")]), records);
    assert_eq!(rig.resync([]), NOTHING);
    assert_eq!(rig.records[&id("web")].systemd_began, 1, "known from now on");
}
