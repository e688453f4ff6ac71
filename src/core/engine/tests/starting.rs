//! Order and gates of starts, and readiness.

use super::*;
use State::{Running, Starting, Stopped};

#[test]
fn dependencies_first_then_priority_then_id() {
    let services = [
        svc("a").needs("z"),
        svc("b").with(|s| s.priority = 200),
        svc("c"),
        svc("d").with(|s| s.priority = 5),
        svc("z").with(|s| s.priority = 300),
    ];
    let mut rig = Rig::before_resync(BOOT, plan(services), BTreeMap::new());
    assert_eq!(rig.pass(100.0), NOTHING, "nothing before systemd told what it has");
    assert_eq!(rig.resync([]), ["start d", "start c", "start b", "start z"]);
    assert_eq!(rig.engine.graph.order, ["d", "c", "b", "z", "a"].map(id));
}

#[test]
fn a_dependent_starts_when_its_dependency_is_ready_whenever_that_is() {
    let mut rig = Rig::new(plan([svc("db").tcp(), svc("web").needs("db")]));
    assert_eq!((rig.state("db"), rig.state("web")), (Starting, Stopped));
    assert_eq!(rig.view("web").waiting_for, [id("db")]);
    assert_eq!(rig.started("db"), ["probe db"]);
    rig.pass(2.0);
    rig.probed("db", false);
    assert_eq!(rig.pass(0.05), ["probe db"]);
    assert_eq!(rig.probed("db", true), ["start web"]);
    assert_eq!(rig.view("web").waiting_for, []);
}

#[test]
fn started_is_enough_where_the_condition_says_so() {
    let web = svc("web").needs_as("db", Condition::Started, OnFailure::Hold);
    let mut rig = Rig::new(plan([svc("db").tcp(), web]));
    assert_eq!(rig.state("web"), Stopped, "an order to start is not a start");
    assert_eq!(rig.started("db"), ["start web", "probe db"]);
}

#[test]
fn a_completed_dependency_is_started_but_not_healthy() {
    for (condition, effects) in [(Condition::Started, vec!["start web"]), (Condition::Healthy, vec![])] {
        let web = svc("web").needs_as("job", condition, OnFailure::Hold).needs("gate");
        let mut rig = Rig::new(plan([svc("job"), svc("gate").tcp(), web]));
        rig.started("gate");
        rig.started("job");
        rig.exits("job", exited(0));
        assert_eq!(rig.want("job"), Want::Completed);
        assert_eq!(rig.probed("gate", true), effects, "{condition:?}");
    }
}

#[test]
fn an_unhealthy_dependency_holds_and_a_degraded_one_does_not() {
    let db = || svc("db").tcp().with(|s| (s.auto_restart, s.health.failure_threshold) = (false, 1));
    for (fallback, held) in [(false, true), (true, false)] {
        let mut rig = Rig::new(plan([db(), svc("web").needs("db")]));
        rig.up("db");
        rig.up("web");
        rig.pass(30.0);
        rig.probed_with("db", rig.run("db"), false, fallback, "no");
        rig.restart("web");
        assert_eq!(rig.stopped("web").is_empty(), held, "fallback {fallback}");
    }
}

#[test]
fn ready_by_age_by_probe_or_by_word() {
    let mut by_age = Rig::new(plan([svc("web")]));
    by_age.started("web");
    by_age.pass(0.9);
    assert_eq!(by_age.state("web"), Starting);
    by_age.pass(0.1);
    assert_eq!(by_age.state("web"), Running);

    let mut by_probe = Rig::new(plan([svc("web").tcp()]));
    assert_eq!(by_probe.started("web"), ["probe web"]);
    by_probe.probed("web", false);
    assert_eq!(by_probe.state("web"), Starting);
    by_probe.pass(0.1);
    by_probe.probed("web", true);
    assert_eq!(by_probe.state("web"), Running);

    let mut by_word = Rig::new(plan([svc("web").notify().tcp()]));
    by_word.pass(30.0);
    assert_eq!(by_word.started("web"), ["probe web"]);
    assert_eq!(by_word.state("web"), Running);
}

#[test]
fn while_it_starts_it_is_asked_at_doubled_distances_of_two_seconds_at_most() {
    let mut rig = Rig::new(plan([svc("web").tcp()]));
    rig.started("web");
    let mut distances = Vec::new();
    for _ in 0..9 {
        rig.probed("web", false);
        distances.push(rig.due_in().unwrap());
        rig.pass(rig.due_in().unwrap());
    }
    assert_eq!(distances, [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0]);
}

#[test]
fn no_more_at_once_than_the_bound() {
    let services = ["a", "b", "c", "d"].map(|name| svc(name).tcp());
    let two = std::num::NonZeroUsize::new(2);
    let mut rig = Rig::new(Plan { max_concurrent_starts: two, ..plan(services) });
    assert_eq!(rig.starts.len(), 2);
    rig.started("a");
    assert_eq!(rig.probed("a", true), ["start c"]);
    assert_eq!(rig.start_answer("b", Err(failure("no such file"))), ["start d"]);
    // The one in backoff takes its turn like the others.
    assert_eq!(rig.pass(11.0), NOTHING);
    rig.started("c");
    assert_eq!(rig.probed("c", true), ["start b"]);
}

#[test]
fn a_disabled_service_does_not_start() {
    let mut rig = Rig::new(plan([svc("web").disabled()]));
    assert_eq!((rig.state("web"), rig.want("web")), (Stopped, Want::Disabled));
    assert_eq!(rig.pass(3600.0), NOTHING);
    let order = rig.start("web");
    rig.up("web");
    assert_eq!(rig.answer(order).map(|(done, _)| done), Some(true), "but a person may start it");
}

#[test]
fn the_words_of_a_start() {
    let mut rig = Rig::new(plan([
        svc("db").tcp(),
        svc("mail").notify().with(|s| s.health.start_period = secs(30.0)),
        svc("web").needs("db"),
    ]));
    assert_eq!(
        rig.lines(),
        [
            "db: stopped -> starting: enabled in the configuration; ready at the first passing probe, \
             which has 1 min 30 s",
            "mail: stopped -> starting: enabled in the configuration; ready when it says READY=1, for which it \
             has 2 min",
            "web: stopped: waiting for db; starts by itself when db is ready",
        ]
    );
    rig.pass(0.5);
    rig.started("db");
    rig.pass(1.5);
    rig.probed("db", true);
    assert_eq!(
        rig.lines(),
        [
            "db: starting -> running: healthy: connected, 2 s after its start",
            "web: stopped -> starting: what it waited for is ready; ready after 1 s",
        ]
    );
    rig.up("web");
    rig.started("mail");
    assert_eq!(
        rig.lines(),
        [
            "web: starting -> running: alive for 1 s",
            "mail: starting -> running: it said READY=1, 3 s after its start",
        ]
    );
}

#[test]
fn a_start_that_fails_says_why_and_what_comes() {
    let mut rig = Rig::new(plan([svc("web")]));
    rig.lines();
    rig.start_answer("web", Err(failure("cannot execute /usr/bin/web: permission denied")));
    assert_eq!(
        rig.lines(),
        [
            "web: cannot execute /usr/bin/web: permission denied",
            "web: starting -> backoff: cannot execute /usr/bin/web: permission denied; attempt 1 of 5, restart \
             in 10 s",
        ]
    );
}

#[test]
fn too_slow_to_become_ready_is_a_failure() {
    for (service, cause) in [
        (svc("web").tcp(), "did not become healthy in 1 min 30 s: connection refused"),
        (svc("web").notify(), "no READY=1 in 1 min 30 s"),
    ] {
        let notify = service.exec.service_type == ServiceType::Notify;
        let mut rig = Rig::new(plan([service]));
        if notify {
            // The unit was adopted on its way up; its own start would have been answered.
            let plan = rig.engine.plan().clone();
            let seen = unit(Activity::Activating, 7, &plan.services["web"]);
            rig.crash(plan, [("web", seen)]);
        } else {
            rig.started("web");
        }
        for _ in 0..60 {
            rig.pass(2.0);
            if rig.state("web") != Starting {
                break;
            }
            if !notify {
                rig.probed("web", false);
            }
        }
        assert_eq!(rig.state("web"), State::Stopping);
        rig.stopped("web");
        let line = rig.lines().pop().unwrap();
        let expected = format!("web: stopping -> backoff: {cause}; attempt 1 of 5, restart in 10 s");
        assert_eq!(line, expected);
    }
}

#[test]
fn a_slow_start_that_passes_its_fallback_is_up_and_one_without_auto_restart_is_left() {
    let mut rig = Rig::new(plan([svc("web").tcp()]));
    rig.started("web");
    while rig.state("web") == Starting {
        rig.probed_with("web", rig.run("web"), false, true, "HTTP 503");
        rig.pass(2.0);
    }
    assert_eq!((rig.state("web"), rig.health("web")), (Running, Health::Degraded));

    let mut rig = Rig::new(plan([svc("web").tcp().with(|s| s.auto_restart = false)]));
    rig.started("web");
    while rig.state("web") == Starting {
        rig.probed("web", false);
        rig.pass(2.0);
    }
    assert_eq!((rig.state("web"), rig.health("web")), (Running, Health::Unhealthy));
}

#[test]
fn an_answer_that_never_comes_is_not_waited_for_for_ever() {
    let mut rig = Rig::new(plan([svc("web")]));
    assert_eq!(rig.pass(104.0), NOTHING);
    assert_eq!(rig.pass(1.0), ["stop web"]);
    rig.stop_answer("web", Ok(()));
    assert_eq!(rig.state("web"), State::Backoff);
}

#[test]
fn when_systemd_cannot_be_reached_the_try_does_not_count() {
    let mut rig = Rig::running(svc("web"));
    rig.exits("web", exited(1));
    rig.pass(10.0);
    let order = rig.start("web");
    rig.lines();
    assert_eq!(rig.start_answer("web", Err(unreachable())), NOTHING);
    assert_eq!((rig.state("web"), rig.attempt("web"), rig.view("web").restart_count), (Stopped, 1, 1));
    assert_eq!(
        rig.lines(),
        ["web: starting -> stopped: the connection to systemd is down; starts when systemd can be reached \
             again"]
    );
    assert_eq!(rig.answer(order), None);
    assert_eq!(rig.resync([]), ["start web"]);
    rig.up("web");
    assert_eq!((rig.attempt("web"), rig.view("web").restart_count), (1, 1));
    assert_eq!(rig.answer(order).map(|(done, _)| done), Some(true));
}

#[test]
fn an_outage_that_is_told_after_its_end_does_not_hold_everything_for_ever() {
    let mut rig = Rig::new(plan([svc("web"), svc("other")]));
    rig.resync([]);
    assert_eq!(rig.start_answer("web", Err(unreachable())), NOTHING);
    assert_eq!(rig.pass(5.0), ["start web"]);
}

#[test]
fn a_start_that_is_seen_to_have_worked_needs_no_answer() {
    let mut rig = Rig::new(plan([svc("web")]));
    rig.resync([("web", unit(Activity::Active, 7, &svc("web")))]);
    assert_eq!(rig.run("web"), InvocationId(7));
    assert_eq!(rig.start_answer("web", Err(unreachable())), NOTHING, "it comes too late to be true");
    rig.pass(1.0);
    assert_eq!(rig.state("web"), Running);
}

#[test]
fn a_start_that_is_seen_on_its_way_is_ours_though_its_answer_is_lost() {
    let services = || plan([svc("web")]);
    let mut rig = Rig::new(services());
    rig.resync([("web", unit(Activity::Activating, 7, &svc("web")))]);
    assert_eq!(rig.start_answer("web", Err(unreachable())), NOTHING);
    assert_eq!((rig.state("web"), rig.run("web")), (State::Starting, InvocationId(7)));
    rig.appeared("web", 7);
    rig.pass(1.0);
    assert_eq!(rig.state("web"), Running);
    assert!(!rig.lines().iter().any(|line| line.contains("outside the supervisor")));

    // Another configuration in between is put in force.
    let mut rig = Rig::new(services());
    rig.resync([("web", unit(Activity::Activating, 7, &svc("web")))]);
    rig.start_answer("web", Err(unreachable()));
    assert_eq!(rig.reload(plan([svc("web").args("-v")])), ["stop web"]);
    assert_eq!(rig.stopped("web"), ["start web"]);

    // The answer counts where there is one, and so does the end of that run.
    let mut rig = Rig::new(services());
    rig.resync([("web", unit(Activity::Activating, 7, &svc("web")))]);
    rig.start_answer("web", Err(failure("no such file")));
    assert_eq!(rig.state("web"), State::Backoff);
    let mut rig = Rig::new(services());
    rig.resync([("web", unit(Activity::Activating, 7, &svc("web")))]);
    rig.resync([]);
    rig.start_answer("web", Err(unreachable()));
    assert_eq!(rig.state("web"), Stopped);
}

#[test]
fn a_start_that_failed_did_so_whatever_was_seen_of_its_unit() {
    let mut rig = Rig::new(plan([svc("web")]));
    rig.appeared("web", 7);
    rig.start_answer("web", Err(failure("no such file")));
    assert_eq!((rig.state("web"), rig.attempt("web")), (State::Backoff, 1));
}

#[test]
fn what_systemd_tells_of_a_start_counts_when_its_answer_is_lost() {
    let mut rig = Rig::new(plan([svc("web")]));
    rig.appeared("web", 7);
    rig.start_answer("web", Err(unreachable()));
    rig.pass(1.0);
    assert_eq!((rig.state("web"), rig.run("web")), (Running, InvocationId(7)));

    let mut rig = Rig::new(plan([svc("web")]));
    rig.appeared("web", 7);
    let event = Event::UnitExited {
        service: id("web"),
        invocation: InvocationId(7),
        exit: exited(1),
        external: false,
    };
    rig.tell(event);
    rig.start_answer("web", Err(unreachable()));
    assert_eq!((rig.state("web"), rig.attempt("web")), (State::Backoff, 1));
}

#[test]
fn a_start_that_finds_what_was_configured_before_makes_it_anew() {
    let mut rig = Rig::new(plan([svc("web")]));
    rig.start_answer("web", Err(unreachable()));
    assert_eq!(rig.reload(plan([svc("web").args("-v")])), NOTHING, "systemd cannot be reached");
    assert_eq!(rig.pass(10.0), ["start web"]);
    let up = StartFailure {
        invocation: Some(InvocationId(7)),
        outdated: true,
        ..failure("unit is up already, and was made from an earlier configuration")
    };
    assert_eq!(rig.start_answer("web", Err(up)), ["stop web"]);
    assert_eq!(
        rig.view("web").reason,
        "unit is up already, and was made from an earlier configuration; sent SIGTERM, SIGKILL after 30 s, then a start"
    );
    assert_eq!(rig.stopped("web"), ["start web"]);
}
