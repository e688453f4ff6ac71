//! The way down.

use super::*;
use State::{Backoff, Starting, Stopped, Stopping};

#[test]
fn a_stop_ends_with_the_unit_and_stays() {
    let mut rig = Rig::running(svc("web"));
    rig.lines();
    let order = rig.stop("web");
    assert_eq!(rig.state("web"), Stopping);
    rig.exits("web", killed(15, ExitResult::Success));
    assert_eq!((rig.state("web"), rig.answer(order)), (Stopping, None), "the answer tells when it is down");
    assert_eq!(rig.stop_answer("web", Ok(())), NOTHING);
    assert_eq!(
        rig.lines(),
        [
            "web: running -> stopping: stopped by alice; sent SIGTERM, SIGKILL after 30 s",
            "web: stopping -> stopped: stopped by alice; stays down until it is started",
        ]
    );
    let words = "web is stopped: stopped by alice; stays down until it is started";
    assert_eq!(rig.answer(order), Some((true, words)));
    assert_eq!(rig.pass(3600.0), NOTHING);
    assert_eq!(rig.attempt("web"), 0, "a stop is no failure");
}

#[test]
fn the_answer_to_another_order_ends_no_stop() {
    let mut rig = Rig::running(svc("web"));
    rig.stop("web");
    let other = OpId(rig.stops[&id("web")].0 - 1);
    rig.tell(Event::StopFinished { service: id("web"), op: other, result: Ok(()) });
    assert_eq!(rig.state("web"), Stopping);
    rig.stopped("web");
    assert_eq!(rig.state("web"), Stopped);
}

#[test]
fn a_stop_by_hand_outdoes_what_a_stop_was_for() {
    let restart = |rig: &mut Rig| {
        rig.restart("web");
    };
    let fall_ill = |rig: &mut Rig| {
        rig.pass(30.0);
        rig.probed("web", false);
    };
    for begin in [&restart as &dyn Fn(&mut Rig), &fall_ill] {
        let mut rig = Rig::running(svc("web").tcp().with(|s| s.health.failure_threshold = 1));
        begin(&mut rig);
        assert_eq!(rig.state("web"), Stopping);
        rig.stop("web");
        assert_eq!(rig.stopped("web"), NOTHING);
        assert_eq!(rig.state("web"), Stopped);
        assert!(rig.lines().pop().unwrap().ends_with("; stays down until it is started"));
        assert_eq!(rig.pass(3600.0), NOTHING);

        let mut rig = Rig::running(svc("web").tcp().with(|s| s.health.failure_threshold = 1));
        begin(&mut rig);
        rig.shutdown();
        assert_eq!(rig.stopped("web"), ["leave"], "so does the end of everything");
        assert_eq!((rig.state("web"), rig.attempt("web")), (Stopped, 0));
    }
    let mut rig = Rig::running(svc("web"));
    restart(&mut rig);
    assert_eq!(rig.stopped("web"), ["start web"]);
    let lines = rig.lines();
    let stopped = lines.iter().find(|line| line.contains("stopping -> stopped")).unwrap();
    assert!(stopped.ends_with("; to be started again"), "{stopped}");
}

#[test]
fn the_words_of_the_signals() {
    for (graceful, signal, words) in [
        (true, 2, "sent SIGINT, SIGKILL after 30 s"),
        (true, 37, "sent signal 37, SIGKILL after 30 s"),
        (false, 15, "sent SIGKILL"),
    ] {
        let mut rig = Rig::running(svc("web").with(|s| {
            (s.exec.shutdown.graceful, s.exec.shutdown.signal) = (graceful, signal);
        }));
        rig.lines();
        rig.stop("web");
        assert_eq!(rig.lines(), [format!("web: running -> stopping: stopped by alice; {words}")]);
    }
}

#[test]
fn shutdown_stops_dependents_first_then_leaves_once() {
    let mut rig = Rig::new(plan([
        svc("db"),
        svc("web").needs("db"),
        svc("cron").with(|s| s.priority = 200),
        svc("idle").disabled(),
    ]));
    for name in ["db", "cron", "web"] {
        rig.up(name);
    }
    rig.lines();
    assert_eq!(rig.shutdown(), ["stop cron", "stop web"]);
    for (line, name) in rig.lines()[1..].iter().zip(["cron", "web"]) {
        let why = "the supervisor stops everything; sent SIGTERM, SIGKILL after 30 s";
        assert_eq!(*line, format!("{name}: running -> stopping: {why}"));
    }
    let late = rig.start("db");
    assert_eq!(rig.answer(late), Some((false, "db: not done: the supervisor is stopping everything")));
    assert_eq!(rig.stopped("cron"), NOTHING);
    assert_eq!(rig.stopped("web"), ["stop db"]);
    assert_eq!(rig.shutdown(), NOTHING, "asked for twice");
    assert_eq!(rig.stopped("db"), ["leave"]);
    assert_eq!(rig.tell(Event::DeadlineReached), NOTHING);
    // The next daemon starts them again.
    let again = rig.engine.plan().clone();
    assert_eq!(rig.crash(again, []), ["start db", "start cron"]);
}

#[test]
fn shutdown_waits_for_no_restart_and_starts_nothing() {
    let mut rig =
        Rig::new(plan([svc("a"), svc("b").with(|s| s.health.failure_threshold = 1), svc("c").needs("a")]));
    rig.up("b");
    rig.start_answer("a", Err(failure("no such file")));
    let stop = rig.stop("b");
    assert_eq!((rig.state("a"), rig.state("b")), (Backoff, Stopping));
    let restart = rig.restart("b");
    rig.shutdown();
    assert_eq!(rig.answer(stop).map(|(done, _)| done), Some(false), "the restart came in between");
    assert_eq!(rig.answer(restart), Some((false, "b: the supervisor is stopping everything")));
    assert_eq!(rig.stopped("b"), ["leave"]);
    assert_eq!(rig.pass(3600.0), NOTHING);
}

#[test]
fn with_nothing_up_shutdown_leaves_at_once() {
    let mut rig = Rig::new(plan([svc("web").disabled()]));
    assert_eq!(rig.shutdown(), ["leave"]);
}

#[test]
fn a_stop_beats_a_start_that_is_not_answered_yet() {
    let mut rig = Rig::new(plan([svc("web")]));
    let start = rig.start("web");
    assert_eq!(rig.order(Verb::Stop, "web").1, ["stop web"]);
    assert_eq!(rig.answer(start), Some((false, "web: stopped by alice")));
    rig.started("web");
    assert_eq!(rig.state("web"), Stopping, "its answer comes too late to matter");
    rig.stop_answer("web", Ok(()));
    assert_eq!(rig.state("web"), Stopped);
    assert_eq!(rig.pass(3600.0), NOTHING);
}

#[test]
fn a_stop_that_fails_is_asked_for_again_and_no_sooner_with_force() {
    let mut rig = Rig::running(svc("web"));
    rig.lines();
    let order = rig.stop("web");
    rig.stop_answer("web", Err("the connection to systemd is down"));
    assert_eq!(
        rig.lines().pop().unwrap(),
        "web: could not be stopped: the connection to systemd is down; trying again every 5 s"
    );
    assert_eq!(rig.pass(5.0), ["stop web"], "its 30 s are not over");
    assert_eq!(rig.answer(order), None);
    rig.stop_answer("web", Err("the connection to systemd is down"));
    let words = "web: it could not be stopped: the connection to systemd is down; trying again every 5 s";
    assert_eq!(rig.answer(order), Some((false, words)));
    for _ in 0..4 {
        assert_eq!(rig.pass(5.0), ["stop web"]);
        rig.stop_answer("web", Err("no"));
    }
    assert_eq!(rig.pass(5.0), ["kill web"]);
    rig.stopped("web");
    assert_eq!(rig.state("web"), Stopped);
    assert_eq!(rig.lines().len(), 1, "the tries in between are not told");
}

#[test]
fn a_stop_that_is_never_answered_is_followed_by_force() {
    let mut rig = Rig::running(svc("web"));
    rig.stop("web");
    assert_eq!(rig.pass(45.0), NOTHING);
    assert_eq!(rig.state("web"), Stopping);
    assert_eq!(rig.pass(5.0), ["kill web"]);
    assert_eq!(rig.pass(20.0), ["kill web"]);
    rig.stopped("web");
    assert_eq!(rig.state("web"), Stopped);
}

#[test]
fn an_end_between_two_tries_ends_the_stop() {
    let mut rig = Rig::running(svc("web"));
    let order = rig.restart("web");
    rig.stop_answer("web", Err("no"));
    assert_eq!(rig.exits("web", killed(9, ExitResult::Signal)), ["start web"]);
    rig.up("web");
    assert_eq!(rig.answer(order).map(|(done, _)| done), Some(true));
}

#[test]
fn what_is_to_be_down_goes_in_reverse_order_and_what_is_to_stay_up_holds_nothing() {
    let mut rig = Rig::new(plan([svc("db"), svc("web").needs("db"), svc("job").needs("db")]));
    for name in ["db", "web", "job"] {
        rig.up(name);
    }
    assert_eq!(rig.order(Verb::Stop, "web").1, ["stop web"]);
    assert_eq!(rig.order(Verb::Stop, "db").1, NOTHING, "web goes first");
    assert_eq!(rig.stopped("web"), ["stop db"], "job is to stay up, so nobody waits for it");
    rig.stopped("db");
    assert_eq!(rig.state("job"), State::Running);
}

#[test]
fn one_that_was_started_with_what_it_needs_is_not_started_again_for_it() {
    let web = svc("web").needs_as("db", Condition::Started, OnFailure::Restart);
    let mut rig = Rig::new(plan([svc("db").tcp(), web]));
    assert_eq!(rig.started("db"), ["start web", "probe db"]);
    rig.started("web");
    rig.probed("db", true);
    assert_eq!(rig.state("db"), State::Running);
    assert_ne!(rig.state("web"), State::Stopping);
}

#[test]
fn on_failure_says_what_becomes_of_a_dependent() {
    for (on_failure, restarted, waits) in
        [(OnFailure::Hold, false, true), (OnFailure::Restart, true, true), (OnFailure::Ignore, false, false)]
    {
        let services = || [svc("db"), svc("web").needs_as("db", Condition::Healthy, on_failure)];
        let mut rig = Rig::new(plan(services()));
        rig.up("db");
        rig.up("web");
        rig.pass(5.0);
        rig.exits("db", exited(1));
        assert_eq!(rig.state("web"), State::Running, "{on_failure:?}: it goes on");
        rig.pass(10.0);
        let effects = rig.up("db");
        assert_eq!(effects.iter().any(|e| e == "stop web"), restarted, "{on_failure:?}: {effects:?}");
        if restarted {
            let line = "web: running -> stopping: db, which it depends on, was started again; sent SIGTERM, SIGKILL \
                        after 30 s, then a start";
            assert_eq!(rig.lines().pop().unwrap(), line);
            assert_eq!(rig.stopped("web"), ["start web"]);
            rig.up("web");
        }
        // Both fail: does the dependent wait for the dependency when it comes up again?
        rig.exits("db", exited(1));
        rig.exits("web", exited(1));
        rig.pass(11.0);
        assert_eq!(rig.state("web"), if waits { Stopped } else { Starting }, "{on_failure:?}");
    }
}

#[test]
fn a_stop_that_a_resync_repeats_is_not_repeated_once_more() {
    let mut rig = Rig::running(svc("web"));
    rig.stop("web");
    rig.stop_answer("web", Err("the connection to systemd was lost"));
    let seen = unit(Activity::Deactivating, rig.run("web").0, &svc("web"));
    assert_eq!(rig.resync([("web", seen)]), ["stop web"]);
    assert_eq!(rig.pass(10.0), NOTHING);
    assert_eq!(rig.stopped("web"), NOTHING);
    let line = "web: stopping -> stopped: stopped by alice; stays down until it is started";
    assert_eq!(rig.lines().pop().unwrap(), line);
}

#[test]
fn a_daemon_that_dies_while_it_stops_everything_comes_back_to_all_of_it() {
    let services = || plan([svc("web")]);
    let mut rig = Rig::running(svc("web"));
    rig.shutdown();
    let seen = unit(Activity::Deactivating, rig.run("web").0, &svc("web"));
    assert_eq!(rig.crash(services(), [("web", seen)]), ["stop web"]);
    assert_eq!(rig.stopped("web"), ["start web"]);
}

#[test]
fn a_stop_that_reaches_systemd_late_has_its_whole_timeout() {
    let mut rig = Rig::running(svc("web"));
    rig.stop("web");
    rig.pass(20.0);
    rig.stop_answer("web", Err("the connection to systemd is down"));
    assert_eq!(rig.pass(5.0), ["stop web"]);
    assert_eq!(rig.pass(44.0), NOTHING);
    assert_eq!(rig.pass(6.0), ["kill web"]);
}

#[test]
fn a_daemon_that_dies_when_a_dependency_is_back_does_not_forget_whom_to_restart() {
    let services = || plan([svc("db"), svc("web").needs_as("db", Condition::Healthy, OnFailure::Restart)]);
    let mut rig = Rig::new(services());
    rig.up("db");
    rig.up("web");
    rig.exits("db", exited(1));
    rig.pass(10.0);
    rig.started("db");
    rig.clock += secs(1.0);
    let now = rig.now();
    let actions = rig.engine.handle(now, Event::DeadlineReached);
    let place = |wanted: fn(&Action) -> bool| actions.iter().position(wanted).unwrap();
    let kept = |action: &Action, name: &str, state: State| {
        matches!(action, Action::Persist { service, record }
        if service.as_str() == name && record.state == state)
    };
    let db = actions.iter().position(|a| kept(a, "db", State::Running)).unwrap();
    let web = actions.iter().position(|a| kept(a, "web", Stopping)).unwrap();
    assert!(web < db, "{actions:#?}");
    let told = place(|a| matches!(a, Action::Record(e) if e.message.starts_with("db: starting -> running")));
    assert!(told < web, "{actions:#?}");
}
