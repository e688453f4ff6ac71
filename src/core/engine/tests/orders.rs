//! What people ask for in each of the seven states, and the answers they get.

use super::*;
use State::{Backoff, Failed, Fatal, Running, Starting, Stopped, Stopping};
use Verb::{Reset, Restart, Start, Stop};

/// A service `web` in that state.
fn in_state(state: State) -> Rig {
    let web = svc("web").retries(if state == Fatal { 1 } else { 5 });
    let mut rig = Rig::new(plan([web.with(|s| s.auto_restart = state != Failed)]));
    match state {
        Starting => {}
        Running => drop(rig.up("web")),
        Stopped | Stopping => {
            rig.up("web");
            rig.stop("web");
            if state == Stopped {
                rig.stopped("web");
            }
        }
        Backoff | Failed => {
            rig.up("web");
            rig.exits("web", exited(1));
        }
        Fatal => {
            rig.up("web");
            rig.exits("web", exited(1));
            rig.pass(10.0);
            rig.up("web");
            rig.exits("web", exited(1));
        }
    }
    assert_eq!(rig.state("web"), state);
    rig.lines();
    rig
}

#[test]
fn every_order_in_every_state() {
    let down = "web is stopped; it stays down until it is started";
    let no_restart = "web is stopped; no restart will come";
    #[rustfmt::skip]
    let table: &[(State, Verb, &[&str], State, Option<(bool, &str)>)] = &[
        (Stopped,  Start,   &["start web"], Starting, None),
        (Stopped,  Stop,    &[],            Stopped,  Some((true, down))),
        (Stopped,  Restart, &["start web"], Starting, None),
        (Stopped,  Reset,   &[],            Stopped,  Some((true, "web: attempts set from 0 to 0 by alice"))),
        (Starting, Start,   &[],            Starting, None),
        (Starting, Stop,    &["stop web"],  Stopping, None),
        (Starting, Restart, &["stop web"],  Stopping, None),
        (Starting, Reset,   &[],            Starting, Some((true, "web: attempts set from 0 to 0 by alice"))),
        (Running,  Start,   &[],            Running,  Some((true, "web is already running (pid 101)"))),
        (Running,  Stop,    &["stop web"],  Stopping, None),
        (Running,  Restart, &["stop web"],  Stopping, None),
        (Running,  Reset,   &[],            Running,  Some((true, "web: attempts set from 0 to 0 by alice"))),
        (Stopping, Start,   &[],            Stopping, None),
        (Stopping, Stop,    &[],            Stopping, None),
        (Stopping, Restart, &[],            Stopping, None),
        (Stopping, Reset,   &[],            Stopping, Some((true, "web: attempts set from 0 to 0 by alice"))),
        (Backoff,  Start,   &["start web"], Starting, None),
        (Backoff,  Stop,    &[],            Stopped,  Some((true, no_restart))),
        (Backoff,  Restart, &["start web"], Starting, None),
        (Backoff,  Reset,   &[],            Backoff,
            Some((true, "web: attempts set from 1 to 0 by alice; the restart that is due stays due"))),
        (Failed,   Start,   &["start web"], Starting, None),
        (Failed,   Stop,    &[],            Stopped,  Some((true, no_restart))),
        (Failed,   Restart, &["start web"], Starting, None),
        (Failed,   Reset,   &[],            Failed,
            Some((true, "web: attempts set from 0 to 0 by alice; it stays down until it is started"))),
        (Fatal,    Start,   &["start web"], Starting, None),
        (Fatal,    Stop,    &[],            Stopped,  Some((true, no_restart))),
        (Fatal,    Restart, &["start web"], Starting, None),
        (Fatal,    Reset,   &[],            Fatal,
            Some((true, "web: attempts set from 1 to 0 by alice; it stays down until it is started"))),
    ];
    for (before, verb, effects, after, answer) in table {
        let mut rig = in_state(*before);
        let (order, done) = rig.order(*verb, "web");
        let case = format!("{verb:?} in {before}");
        assert_eq!((done, rig.state("web")), (owned(effects), *after), "{case}");
        assert_eq!(rig.answer(order), *answer, "{case}");
        if *verb == Reset || matches!(verb, Start | Restart) && *before != Running {
            assert_eq!(rig.attempt("web"), 0, "{case}");
        }
        if *verb != Reset {
            let want = if *verb == Stop { Want::StoppedByHand } else { Want::Up };
            assert_eq!(rig.want("web"), want, "{case}");
            assert_eq!(rig.records["web"].want, want, "{case}: it is kept");
        }
        // Then it comes to what was asked.
        if rig.state("web") == Stopping {
            rig.stopped("web");
        }
        if rig.state("web") == Starting {
            rig.up("web");
        }
        let end = match verb {
            Start | Restart => Running,
            Stop => Stopped,
            Reset if matches!(before, Starting | Stopping) => rig.state("web"),
            Reset => *before,
        };
        assert_eq!(rig.state("web"), end, "{case}");
        assert_eq!(rig.answer(order).map(|(done, _)| done), Some(true), "{case}");
    }
}

#[test]
fn the_words_of_an_outcome() {
    let mut rig = in_state(Stopped);
    let order = rig.start("web");
    rig.up("web");
    assert_eq!(rig.answer(order), Some((true, "web is running (pid 102): alive for 1 s")));

    let mut rig = in_state(Stopped);
    let order = rig.start("web");
    rig.start_answer("web", Err(failure("cannot execute /usr/bin/web: no such file")));
    let words =
        "web is in backoff: cannot execute /usr/bin/web: no such file; attempt 1 of 5, restart in 10 s";
    assert_eq!(rig.answer(order), Some((false, words)));

    let order = rig.restart("nobody");
    assert_eq!(rig.answer(order), Some((false, "there is no service nobody")));
}

#[test]
fn the_words_of_a_start_out_of_trouble() {
    for state in [Backoff, Failed, Fatal] {
        let mut rig = in_state(state);
        rig.start("web");
        let expected = format!("web: {state} -> starting: start asked for by alice; ready after 1 s");
        assert_eq!(rig.lines(), [expected]);
    }
    let mut rig = in_state(Backoff);
    rig.order(Reset, "web");
    rig.lines();
    rig.pass(10.0);
    assert_eq!(rig.lines(), ["web: backoff -> starting: the restart that was due; ready after 1 s"]);
}

#[test]
fn the_last_of_contradictory_orders_wins_and_the_others_hear_of_it() {
    let mut rig = in_state(Running);
    let stop = rig.stop("web");
    let start = rig.start("web");
    assert_eq!(rig.answer(stop), Some((false, "web: a start asked for by alice came in between")));
    let restart = rig.restart("web");
    assert_eq!(rig.answer(start), None, "a restart brings what the start asked for");
    let last = rig.stop("web");
    assert_eq!(rig.answer(start), Some((false, "web: stopped by alice")));
    assert_eq!(rig.answer(restart), Some((false, "web: stopped by alice")));
    assert_eq!(rig.stopped("web"), NOTHING);
    assert_eq!(rig.answer(last).map(|(done, _)| done), Some(true));
    assert_eq!(rig.pass(3600.0), NOTHING);
}

#[test]
fn an_order_during_a_stop_says_what_follows_it() {
    for (verb, asked) in [(Start, "start asked for by alice"), (Restart, "restart asked for by alice")] {
        let mut rig = in_state(Stopping);
        rig.order(verb, "web");
        assert_eq!(rig.view("web").reason, asked);
        rig.lines();
        rig.stopped("web");
        let stopped = format!("web: stopping -> stopped: {asked}; to be started again");
        assert_eq!(rig.lines(), [stopped, format!("web: stopped -> starting: {asked}; ready after 1 s")]);
    }
}

#[test]
fn an_order_during_a_stop_for_its_health_makes_it_no_failure() {
    for verb in [Start, Restart] {
        let mut rig = Rig::running(svc("web").tcp());
        while rig.state("web") == Running {
            rig.pass(rig.due_in().unwrap());
            rig.probed("web", false);
        }
        rig.order(verb, "web");
        assert_eq!(rig.stopped("web"), ["start web"], "at once");
        assert_eq!((rig.state("web"), rig.attempt("web")), (Starting, 0));
    }
}

#[test]
fn a_start_in_time_saves_one_whose_stop_waits_for_its_dependents() {
    let mut rig = Rig::new(plan([svc("db"), svc("web").needs("db")]));
    rig.up("db");
    rig.up("web");
    rig.stop("web");
    let stop = rig.stop("db");
    let start = rig.start("db");
    assert_eq!(rig.answer(stop).map(|(done, _)| done), Some(false));
    assert_eq!(rig.answer(start), Some((true, "db is already running (pid 101)")));
    assert_eq!(rig.stopped("web"), NOTHING);
    assert_eq!(rig.state("db"), Running);
}

#[test]
fn a_start_that_has_to_wait_is_answered_only_when_waiting_is_pointless() {
    let services = || plan([svc("db").tcp(), svc("api").needs("db"), svc("web").needs("api")]);
    let mut rig = Rig::new(services());
    let order = rig.start("web");
    assert_eq!(rig.answer(order), None, "all that it waits for is on its way");
    rig.up("db");
    rig.up("api");
    rig.up("web");
    assert_eq!(rig.answer(order).map(|(done, _)| done), Some(true));

    let mut rig = Rig::new(services());
    let order = rig.start("web");
    rig.stop("db");
    let words = "web waits for api and starts by itself when it can; db is stopping: stopped by alice; sent SIGTERM, \
                 SIGKILL after 30 s";
    assert_eq!(rig.answer(order), Some((false, words)));
    rig.stop_answer("db", Ok(()));
    // It was no empty promise.
    rig.start("db");
    rig.up("db");
    rig.up("api");
    assert_eq!(rig.state("web"), Starting);
}

#[test]
fn a_restart_by_hand_is_counted_and_a_failure_of_it_told() {
    let mut rig = in_state(Running);
    let order = rig.restart("web");
    rig.stopped("web");
    assert_eq!(rig.view("web").restart_count, 1);
    rig.start_answer("web", Err(failure("no such file")));
    assert_eq!(rig.answer(order).map(|(done, _)| done), Some(false));
    assert_eq!(rig.state("web"), Backoff);
}

#[test]
fn a_manual_stop_lasts_over_a_daemon_and_not_over_a_boot() {
    let mut rig = in_state(Stopped);
    assert_eq!(rig.crash(plan([svc("web")]), []), NOTHING);
    assert_eq!(rig.come_back("boot-2", plan([svc("web")]), []), ["start web"]);
}

#[test]
fn critical_changes_nothing_but_what_others_are_told() {
    let mut rig = Rig::running(svc("web").with(|s| s.critical = true));
    rig.exits("web", exited(1));
    assert_eq!(rig.state("web"), Backoff);
    assert!(rig.view("web").plan.critical);
}

#[test]
fn a_service_that_does_its_work_and_ends_was_started() {
    let mut rig = Rig::running(svc("job"));
    rig.exits("job", exited(0));
    let order = rig.start("job");
    rig.started("job");
    rig.exits("job", exited(0));
    assert_eq!(rig.answer(order).map(|(done, _)| done), Some(true));
}

#[test]
fn a_start_that_waits_for_one_that_nobody_cures_is_answered() {
    let db = svc("db").tcp().with(|s| s.auto_restart = false);
    let mut rig = Rig::new(plan([db, svc("web").needs("db").disabled()]));
    let (early, effects) = rig.order(Verb::Start, "web");
    assert_eq!((effects, rig.answer(early)), (vec![], None), "the database is on its way");
    rig.stop("web");
    rig.up("db");
    for _ in 0..3 {
        rig.pass(30.0);
        rig.probed("db", false);
    }
    let (order, effects) = rig.order(Verb::Start, "web");
    let words =
        "web waits for db and starts by itself when it can; db is running: unhealthy: connection refused";
    assert_eq!((effects, rig.answer(order)), (vec![], Some((false, words))));
}
