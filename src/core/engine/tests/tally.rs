//! What is counted, and what the picture says beside.

use super::*;
use crate::core::alert::{AlertKind, Severity};

/// Those that are not zero.
fn exits(rig: &mut Rig, name: &str) -> Vec<(&'static str, u32)> {
    rig.view(name).tally.exits().filter(|(_, count)| *count > 0).collect()
}

#[test]
fn every_end_is_counted_once_whoever_wanted_it() {
    let mut rig = Rig::running(svc("web"));
    let run = rig.run("web");
    rig.exits("web", killed(9, ExitResult::OomKill));
    rig.tell(Event::UnitExited { service: id("web"), invocation: run, exit: exited(1), external: false });
    assert_eq!(exits(&mut rig, "web"), [("oom-kill", 1)], "told twice, it is one end");
    rig.pass(10.0);
    let started_and_failed = StartFailure { exit: Some(exited(203)), ..failure("no such program") };
    rig.start_answer("web", Err(started_and_failed));
    rig.pass(20.0);
    rig.start_answer("web", Err(failure("systemd has no such user")));
    assert_eq!(
        exits(&mut rig, "web"),
        [("exit-code", 1), ("oom-kill", 1)],
        "where nothing ran, nothing ended"
    );
    rig.pass(40.0);
    rig.up("web");
    rig.stop("web");
    rig.stopped("web");
    assert_eq!(exits(&mut rig, "web"), [("success", 1), ("exit-code", 1), ("oom-kill", 1)]);
}

#[test]
fn answers_of_the_probe_are_counted_over_runs() {
    let mut rig = Rig::running(svc("web").tcp());
    let answered = |rig: &mut Rig| rig.view("web").tally.slots().iter().sum::<u32>();
    let before = answered(&mut rig);
    assert!(before > 0, "the one that made it ready");
    rig.pass(rig.due_in().unwrap());
    rig.probed("web", false);
    assert_eq!((answered(&mut rig), rig.view("web").tally.failures()), (before + 1, 1));
    rig.probed("web", false);
    assert_eq!(answered(&mut rig), before + 1, "nobody asked for that");
    rig.restart("web");
    rig.stopped("web");
    rig.started("web");
    assert_eq!(answered(&mut rig), before + 1);
}

#[test]
fn alerts_that_begin_and_end_by_mere_passing_of_time_are_in_the_picture() {
    let mut rig = Rig::running(svc("web").tcp());
    rig.exits("web", exited(1));
    rig.pass(10.0);
    rig.started("web");
    rig.pass(9.0);
    assert_eq!(rig.view("web").alerts, []);
    rig.pass(2.0);
    assert_eq!(rig.view("web").alerts, [(AlertKind::Down, Severity::Error)]);
    rig.probed("web", true);
    rig.pass(9.0);
    assert_eq!(rig.view("web").alerts, [(AlertKind::Down, Severity::Error)], "it may fail at once");
    rig.pass(2.0);
    assert_eq!(rig.view("web").alerts, []);
}

#[test]
fn the_picture_has_the_open_alerts_and_whether_it_is_wanted() {
    let mut rig = Rig::running(svc("web").with(|s| s.critical = true));
    assert_eq!((rig.view("web").alerts.clone(), rig.view("web").wanted), (vec![], true));
    rig.exits("web", exited(1));
    assert_eq!(rig.view("web").alerts, [(AlertKind::Down, Severity::Critical)]);
    rig.stop("web");
    assert_eq!((rig.view("web").alerts.clone(), rig.view("web").wanted), (vec![], false));
    rig.start("web");
    assert!(rig.view("web").wanted);
    rig.reload(plan([svc("web").disabled()]));
    assert!(!rig.view("web").wanted);
    let trouble =
        |what: Option<&str>| Event::OwnTrouble { kind: AlertKind::Database, trouble: what.map(Into::into) };
    rig.tell(trouble(Some("disk full")));
    assert_eq!(rig.engine.snapshot().own_alerts, [(AlertKind::Database, Severity::Error)]);
    rig.tell(trouble(None));
    assert_eq!(rig.engine.snapshot().own_alerts, []);
}
