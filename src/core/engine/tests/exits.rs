//! Ends of runs, and the restart policy.

use super::*;
use State::{Backoff, Failed, Fatal, Running, Starting, Stopped};

/// Fails the service, lets the delay pass, brings it up again; gives the delay.
fn crash_once(rig: &mut Rig, name: &str) -> Option<f64> {
    rig.exits(name, exited(1));
    if rig.state(name) != Backoff {
        return None;
    }
    let delay = rig.due_in().unwrap();
    assert_eq!(rig.pass(delay - 0.01), NOTHING);
    assert_eq!(rig.pass(0.01), [format!("start {name}")]);
    rig.started(name);
    Some(delay)
}

#[test]
fn the_reference_delays_then_fatal() {
    let mut rig = Rig::running(svc("web"));
    let delays: Vec<_> = (0..6).map(|_| crash_once(&mut rig, "web")).collect();
    assert_eq!(delays, [Some(10.0), Some(20.0), Some(40.0), Some(80.0), Some(160.0), None]);
    assert_eq!((rig.state("web"), rig.attempt("web"), rig.view("web").restart_count), (Fatal, 5, 5));
    assert_eq!(rig.pass(86400.0), NOTHING, "fatal is the end");
}

#[test]
fn the_next_try_is_shown_in_backoff_alone() {
    let mut rig = Rig::running(svc("web"));
    assert_eq!(rig.view("web").next_retry_at, None);
    rig.exits("web", exited(1));
    let due = Wall(rig.now().wall.0 + 10_000);
    assert_eq!(rig.view("web").next_retry_at, Some(due));
    rig.stop("web");
    assert_eq!((rig.state("web"), rig.view("web").next_retry_at), (Stopped, None));
}

#[test]
fn jitter_is_added_to_the_delay() {
    let mut rig = Rig::running(svc("web").with(|s| s.restart.jitter = 0.5));
    rig.entropy = u64::MAX;
    rig.exits("web", exited(1));
    assert!((14.9..=15.0).contains(&rig.due_in().unwrap()));
}

#[test]
fn a_delay_of_zero_restarts_at_once() {
    let mut rig = Rig::running(svc("web").with(|s| s.restart.retry_delay = secs(0.0)));
    assert_eq!(rig.exits("web", exited(1)), ["start web"]);
}

#[test]
fn attempts_count_from_zero_after_long_enough_in_running() {
    for (alive, attempt) in [(61.1, 1), (60.0, 2)] {
        let mut rig = Rig::running(svc("web"));
        crash_once(&mut rig, "web");
        rig.pass(alive); // one second of it in `starting`
        rig.exits("web", exited(1));
        assert_eq!(rig.attempt("web"), attempt, "after {alive} s");
    }
}

#[test]
fn keep_trying_goes_on_at_the_longest_delay_and_tells_once() {
    let keep = svc("web").retries(2).with(|s| {
        (s.restart.after_max_retries, s.restart.max_backoff) = (AfterMaxRetries::KeepTrying, secs(30.0));
    });
    let mut rig = Rig::running(keep);
    let delays: Vec<_> = (0..5).map(|_| crash_once(&mut rig, "web").unwrap()).collect();
    assert_eq!(delays, [10.0, 20.0, 30.0, 30.0, 30.0]);
    let told: Vec<_> = rig.entries.iter().filter(|e| e.kind == EntryKind::GaveUp).collect();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].message, "web: 2 restarts did not help; going on every 30 s");
    let lines = rig.lines();
    let next: Vec<_> =
        lines.iter().filter_map(|line| line.split_once("-> backoff")?.1.split_once("; ")).collect();
    let words =
        ["attempt 1 of 2, restart in 10 s", "attempt 2 of 2, restart in 20 s", "attempt 3, restart in 30 s"];
    assert!(next.iter().map(|(_, next)| *next).take(3).eq(words), "{next:?}");
}

#[test]
fn what_follows_an_end() {
    let term = killed(15, ExitResult::Success);
    let oom = killed(9, ExitResult::OomKill);
    for (exit, auto_restart, on_exit, state, want) in [
        (exited(0), true, false, Stopped, Want::Completed),
        (exited(0), true, true, Backoff, Want::Up),
        (exited(0), false, true, Stopped, Want::Completed),
        (exited(0), false, false, Stopped, Want::Completed),
        (exited(1), true, false, Backoff, Want::Up),
        (exited(1), false, true, Failed, Want::Up),
        (term, true, false, Backoff, Want::Up),
        (oom.clone(), true, false, Backoff, Want::Up),
        (oom, false, false, Failed, Want::Up),
        (killed(11, ExitResult::CoreDump), true, false, Backoff, Want::Up),
    ] {
        let service = svc("web").with(|s| (s.auto_restart, s.restart_on_exit) = (auto_restart, on_exit));
        let mut rig = Rig::running(service);
        rig.exits("web", exit.clone());
        let case = format!("{exit:?}, auto_restart {auto_restart}, restart_on_exit {on_exit}");
        assert_eq!((rig.state("web"), rig.want("web")), (state, want), "{case}");
        assert_eq!(rig.view("web").last_exit.as_ref().map(|(exit, _)| exit), Some(&exit), "{case}");
        assert_eq!(rig.view("web").pid, None, "{case}");
    }
}

#[test]
fn the_words_of_an_end() {
    let limited = || svc("web").with(|s| s.limits.memory_bytes = Some(512 << 20));
    let oom = killed(9, ExitResult::OomKill);
    let cases: [(ServicePlan, Exit, &[&str]); 6] = [
        (
            limited(),
            oom,
            &[
                "web: the kernel killed it for want of memory: killed by signal 9 (out of memory, limit 512 MiB)",
                "web: killed by signal 9 (out of memory, limit 512 MiB), 31 s after its start",
                "web: running -> backoff: killed by signal 9 (out of memory, limit 512 MiB); attempt 1 of 5, \
                 restart in 10 s",
            ],
        ),
        (
            svc("web"),
            exited(0),
            &["web: running -> stopped: exited with status 0; not restarted: restart_on_exit is off"],
        ),
        (
            svc("web").with(|s| s.restart_on_exit = true),
            exited(0),
            &["web: running -> backoff: exited with status 0; attempt 1 of 5, restart in 10 s"],
        ),
        (
            svc("web").with(|s| s.auto_restart = false),
            exited(2),
            &[
                "web: exited with status 2, 31 s after its start",
                "web: running -> failed: exited with status 2; not restarted: auto_restart is off",
            ],
        ),
        (
            svc("web").retries(0),
            exited(2),
            &[
                "web: exited with status 2, 31 s after its start",
                "web: running -> fatal: exited with status 2; not restarted: max_retries is 0; start it when \
                 the cause is mended",
            ],
        ),
        (
            svc("web").with(|s| s.restart.max_retries = None),
            killed(15, ExitResult::Success),
            &[
                "web: killed by signal 15 (SIGTERM), 31 s after its start",
                "web: running -> backoff: killed by signal 15 (SIGTERM); attempt 1, restart in 10 s",
            ],
        ),
    ];
    for (service, exit, lines) in cases {
        let mut rig = Rig::running(service);
        rig.pass(30.0);
        rig.lines();
        rig.exits("web", exit);
        assert_eq!(rig.lines(), lines);
    }
}

#[test]
fn the_words_of_a_restart_and_of_giving_up() {
    let mut rig = Rig::running(svc("web").retries(1));
    rig.exits("web", exited(1));
    rig.lines();
    rig.pass(10.0);
    rig.started("web");
    rig.exits("web", exited(1));
    assert_eq!(
        rig.lines(),
        [
            "web: backoff -> starting: restart, attempt 1 of 1; ready after 1 s",
            "web: exited with status 1, 0 ms after its start",
            "web: starting -> fatal: exited with status 1; 1 restart did not help, no further one; start it when \
             the cause is mended",
        ]
    );
}

#[test]
fn an_end_counts_once_and_one_of_an_older_run_not_at_all() {
    let mut rig = Rig::running(svc("web"));
    let first = rig.run("web");
    rig.exits("web", exited(1));
    rig.tell(Event::UnitExited { service: id("web"), invocation: first, exit: exited(9), external: false });
    assert_eq!(rig.attempt("web"), 1);
    assert_eq!(rig.view("web").last_exit.as_ref().unwrap().0, exited(1));
    rig.pass(10.0);
    rig.up("web");
    rig.tell(Event::UnitExited { service: id("web"), invocation: first, exit: exited(1), external: false });
    assert_eq!((rig.state("web"), rig.attempt("web")), (Running, 1));
}

#[test]
fn an_end_that_is_told_before_its_start_is_not_lost() {
    let mut rig = Rig::new(plan([svc("web")]));
    let run = InvocationId(101);
    rig.tell(Event::UnitExited { service: id("web"), invocation: run, exit: exited(3), external: false });
    assert_eq!(rig.state("web"), Starting);
    rig.started("web");
    assert_eq!(rig.state("web"), Backoff);
    assert_eq!(rig.view("web").last_exit.as_ref().unwrap().0, exited(3));
}

#[test]
fn an_end_before_the_answer_to_its_start_is_that_of_the_stop_that_came_between() {
    let mut rig = Rig::new(plan([svc("web")]));
    rig.stop("web");
    rig.tell(Event::UnitExited {
        service: id("web"),
        invocation: InvocationId(101),
        exit: exited(3),
        external: false,
    });
    assert_eq!(rig.view("web").last_exit.as_ref().unwrap().0, exited(3));
    rig.stopped("web");
    assert_eq!(rig.appeared("web", 101), NOTHING);
    assert_eq!(rig.state("web"), Stopped, "what is told of that run now is old");
}

#[test]
fn the_end_of_a_run_that_is_not_the_one_we_know_is_none_of_ours() {
    let resting = Rig::new(plan([svc("web").with(|s| s.enabled = false)]));
    for (mut rig, state) in [(resting, Stopped), (Rig::running(svc("web")), Running)] {
        rig.tell(Event::UnitExited {
            service: id("web"),
            invocation: InvocationId(7),
            exit: exited(3),
            external: true,
        });
        assert_eq!((rig.state("web"), &rig.view("web").last_exit), (state, &None));
    }
}

#[test]
fn one_that_ends_well_at_once_has_most_likely_gone_into_the_background() {
    for (after, told) in [(0.0, true), (0.9, true), (1.0, false)] {
        let mut rig = Rig::new(plan([svc("web")]));
        rig.started("web");
        rig.pass(after);
        rig.exits("web", exited(0));
        let line = rig.lines().pop().unwrap();
        assert_eq!(line.contains("stay in the foreground"), told, "after {after} s: {line}");
    }
}

#[test]
fn stopped_outside_is_not_a_failure_and_lasts() {
    let mut rig = Rig::running(svc("web"));
    rig.lines();
    assert_eq!(rig.stopped_outside("web"), NOTHING);
    assert_eq!((rig.state("web"), rig.want("web")), (Stopped, Want::StoppedOutside));
    assert_eq!(rig.entries.last().unwrap().level, Level::Warning);
    assert_eq!(
        rig.lines(),
        ["web: running -> stopped: stopped outside the supervisor (systemctl stop or the like); stays down \
             until it is started"]
    );
    assert_eq!(rig.pass(3600.0), NOTHING);
    let records = plan([svc("web")]);
    assert_eq!(rig.crash(records, []), NOTHING, "not after a restart of the daemon either");
}

#[test]
fn a_failed_start_of_one_that_is_to_be_down_is_no_failure() {
    // db starts anew while web, which has to go first, is on its way down.
    let web = svc("web").needs_as("db", Condition::Healthy, OnFailure::Hold);
    let mut rig = Rig::new(plan([svc("db"), web]));
    rig.up("db");
    rig.up("web");
    rig.exits("db", exited(1));
    rig.pass(10.0);
    assert_eq!(rig.state("db"), Starting);
    let (web_stop, effects) = rig.order(Verb::Stop, "web");
    assert_eq!(effects, ["stop web"]);
    let (db_stop, effects) = rig.order(Verb::Stop, "db");
    assert_eq!(effects, NOTHING, "web first");
    rig.start_answer("db", Err(failure("no such file")));
    assert_eq!((rig.state("db"), rig.attempt("db")), (Stopped, 1));
    assert_eq!(rig.answer(db_stop).map(|(done, _)| done), Some(true));
    rig.stopped("web");
    assert_eq!(rig.answer(web_stop).map(|(done, _)| done), Some(true));
    assert_eq!(rig.pass(3600.0), NOTHING);
}
