//! Health.

use super::*;
use Health::{Degraded, Healthy, Unhealthy, Unknown};
use State::{Running, Starting, Stopping};

/// One round: the probe falls due and is answered. '+' passes, '-' fails, '~' fails with a good fallback, '?' could not
/// be asked.
fn round(rig: &mut Rig, answer: char) -> Vec<String> {
    let asked = rig.pass(rig.due_in().unwrap());
    assert_eq!(asked, ["probe web"]);
    if answer == '?' {
        return unprobed(rig);
    }
    rig.probed_with("web", rig.run("web"), answer == '+', answer == '~', "HTTP 503")
}

fn unprobed(rig: &mut Rig) -> Vec<String> {
    let (service, invocation) = (id("web"), rig.run("web"));
    rig.tell(Event::Unprobed { service, invocation, lack: "too many open files".into() })
}

fn quick() -> ServicePlan {
    svc("web").tcp().with(|s| s.restart.reset_after = secs(1e6))
}

#[test]
fn so_many_failures_in_a_row_and_it_is_restarted_through_the_policy() {
    let mut rig = Rig::running(quick());
    rig.lines();
    assert_eq!(rig.health("web"), Healthy);
    for answer in "--+--".chars() {
        assert_eq!(round(&mut rig, answer), NOTHING);
        assert_eq!((rig.state("web"), rig.health("web")), (Running, Healthy), "the threshold is 3 in a row");
    }
    assert_eq!(round(&mut rig, '-'), ["stop web"]);
    assert_eq!((rig.state("web"), rig.health("web")), (Stopping, Unhealthy));
    rig.stopped("web");
    assert_eq!(
        rig.lines(),
        [
            "web: healthy -> unhealthy: HTTP 503; 3 failures in a row, to be restarted",
            "web: running -> stopping: 3 failed probes in a row: HTTP 503; sent SIGTERM, SIGKILL after 30 s, then \
             the restart policy decides",
            "web: 3 failed probes in a row: HTTP 503, 3 min after its start",
            "web: stopping -> backoff: 3 failed probes in a row: HTTP 503; attempt 1 of 5, restart in 10 s",
        ]
    );
    assert_eq!(rig.health("web"), Unknown);
}

#[test]
fn the_next_run_begins_with_a_clean_slate() {
    let mut rig = Rig::running(quick());
    round(&mut rig, '-');
    round(&mut rig, '-');
    let old = rig.run("web");
    rig.restart("web");
    rig.stopped("web");
    rig.started("web");
    assert_eq!(rig.probed_with("web", old, true, false, "late"), NOTHING);
    assert_eq!(rig.state("web"), Starting, "an answer of the run before says nothing about this one");
    rig.probed("web", true);
    assert_eq!(rig.probed_with("web", old, false, false, "late"), NOTHING);
    round(&mut rig, '-');
    assert_eq!(rig.health("web"), Healthy, "the two failures of the run before are not counted");
}

#[test]
fn what_the_supervisor_could_not_ask_counts_for_nothing() {
    let mut rig = Rig::running(quick());
    rig.lines();
    for (answer, known) in "--??????".chars().zip([Healthy; 4].into_iter().chain([Unknown; 4])) {
        assert_eq!(round(&mut rig, answer), NOTHING);
        assert_eq!((rig.state("web"), rig.health("web")), (Running, known));
    }
    assert_eq!(
        rig.lines(),
        ["web: healthy -> unknown: cannot be checked: too many open files; it goes on, and is asked again"]
    );
    assert_eq!(rig.view("web").reason, "unknown: cannot be checked: too many open files");
    assert_eq!(round(&mut rig, '-'), ["stop web"], "nor does it end the row");

    let mut rig = Rig::running(quick().with(|s| s.auto_restart = false));
    for answer in "---????".chars() {
        round(&mut rig, answer);
    }
    assert_eq!(rig.health("web"), Unhealthy, "what is ill is so until an answer says otherwise");
}

#[test]
fn one_that_starts_is_asked_again_soon() {
    let mut rig = Rig::new(plan([quick()]));
    rig.started("web");
    unprobed(&mut rig);
    assert_eq!(rig.due_in(), Some(2.0));
    round(&mut rig, '+');
    assert_eq!(rig.state("web"), Running);
}

/// Starts, and is out of time without ever having been asked.
fn never_asked() -> Rig {
    let mut rig = Rig::new(plan([quick()]));
    rig.started("web");
    rig.lines();
    let begun = rig.now().mono;
    unprobed(&mut rig);
    while rig.now().mono - begun < secs(600.0) {
        if rig.pass(rig.due_in().unwrap()) == ["probe web"] {
            assert_eq!(unprobed(&mut rig), NOTHING);
        }
    }
    assert_eq!(rig.state("web"), Starting);
    assert_eq!(
        rig.lines(),
        ["web: cannot be checked: too many open files; ready when a check passes, asked again every 2 s"],
        "said once"
    );
    assert_eq!(rig.view("web").reason, "cannot be checked: too many open files; ready when a check passes");
    rig
}

#[test]
fn one_that_starts_and_could_not_be_asked_is_neither_ready_nor_failed() {
    let mut rig = never_asked();
    round(&mut rig, '+');
    assert_eq!(rig.state("web"), Running);

    let mut rig = never_asked();
    round(&mut rig, '-');
    let mut told = Vec::new();
    while told.is_empty() {
        told = rig.pass(rig.due_in().unwrap());
        if told == ["probe web"] {
            told = rig.probed("web", false);
        }
    }
    assert_eq!(told, ["stop web"], "once it was asked, its time is over");
}

#[test]
fn an_answer_that_nobody_asked_for_changes_nothing() {
    let mut rig = Rig::running(quick());
    for _ in 0..5 {
        assert_eq!(rig.probed("web", false), NOTHING);
    }
    assert_eq!(rig.health("web"), Healthy);
}

#[test]
fn a_fallback_that_passes_makes_it_degraded_and_no_more() {
    let mut rig = Rig::running(quick());
    rig.lines();
    for answer in "~~~~~".chars() {
        assert_eq!(round(&mut rig, answer), NOTHING);
    }
    assert_eq!((rig.state("web"), rig.health("web")), (Running, Degraded));
    round(&mut rig, '+');
    assert_eq!(
        rig.lines(),
        [
            "web: healthy -> degraded: HTTP 503; the fallback check passes, so it goes on",
            "web: degraded -> healthy: HTTP 503",
        ]
    );
}

#[test]
fn what_could_not_be_asked_of_another_run_says_nothing() {
    let mut rig = Rig::running(quick());
    for effects in [&[][..], &[], &["stop web"]] {
        rig.pass(rig.due_in().unwrap());
        let (service, invocation) = (id("web"), InvocationId(7));
        rig.tell(Event::Unprobed { service, invocation, lack: "too many open files".into() });
        assert_eq!(rig.probed("web", false), effects, "its own answer is awaited all the same");
    }
}

#[test]
fn answers_that_change_again_and_again_are_flapping() {
    let mut rig = Rig::running(quick());
    for answer in "+-+-+-+-".chars() {
        assert_eq!(rig.view("web").flapping, None);
        round(&mut rig, answer);
    }
    round(&mut rig, '+');
    assert!(rig.view("web").flapping.is_some());
}

#[test]
fn falling_ill_again_and_again_is_flapping() {
    let mut rig = Rig::running(quick().with(|s| s.auto_restart = false));
    for times in 1..=5 {
        for answer in "---+++++".chars() {
            round(&mut rig, answer);
        }
        assert_eq!(rig.view("web").flapping.is_some(), times == 5, "{times}");
    }
}

#[test]
fn without_auto_restart_it_is_left_ill_until_that_is_turned_on() {
    let service = quick().with(|s| s.auto_restart = false);
    let mut rig = Rig::running(service.clone());
    rig.lines();
    for answer in "----".chars() {
        assert_eq!(round(&mut rig, answer), NOTHING);
    }
    assert_eq!((rig.state("web"), rig.health("web")), (Running, Unhealthy));
    assert_eq!(
        rig.lines(),
        ["web: healthy -> unhealthy: HTTP 503; 3 failures in a row, left running: auto_restart is off"]
    );
    assert_eq!(rig.view("web").reason, "unhealthy: HTTP 503");
    round(&mut rig, '+');
    assert_eq!(rig.view("web").reason, "healthy: HTTP 503", "as the stand-in answers");
    for _ in 0..3 {
        round(&mut rig, '-');
    }
    rig.reload(plan([quick()]));
    assert_eq!(round(&mut rig, '-'), ["stop web"]);
}

#[test]
fn one_that_is_to_be_down_is_not_restarted_for_its_health() {
    let mut rig = Rig::new(plan([quick(), svc("user").needs("web")]));
    rig.up("web");
    rig.up("user");
    rig.stop("user");
    rig.stop("web");
    let reason = rig.view("web").reason.clone();
    for _ in 0..3 {
        rig.engine.timers.set(&id("web"), Timer::Probe, Mono(rig.clock));
        rig.tell(Event::DeadlineReached);
        assert_eq!(rig.probed("web", false), NOTHING);
    }
    assert_eq!((rig.state("web"), rig.health("web")), (Running, Unhealthy));
    let told =
        "web: healthy -> unhealthy: connection refused; 3 failures in a row, but it is to be stopped anyway";
    assert_eq!(rig.lines().last().map(String::as_str), Some(told));
    assert_eq!(rig.view("web").reason, reason, "why it goes down");
    assert_eq!(rig.stopped("user"), ["stop web"]);
}

#[test]
fn failures_inside_start_period_do_not_count() {
    let mut rig = Rig::running(quick().notify().with(|s| s.health.start_period = secs(100.0)));
    rig.probed("web", true);
    for answer in "------".chars() {
        round(&mut rig, answer); // at 30, 60, 90 s, and then at 120, 150, 180 s
    }
    assert_eq!(rig.state("web"), Stopping);
    assert_eq!(rig.now().mono - Mono(secs(1000.0)), secs(180.0));
}

#[test]
fn failures_of_a_stalled_host_do_not_count_and_lost_probes_are_asked_again() {
    let mut rig = Rig::running(quick());
    for _ in 0..6 {
        rig.pass(rig.due_in().unwrap());
        rig.clock += secs(14.0); // its timeout is 10 s
        rig.probed("web", false);
    }
    assert_eq!(rig.health("web"), Healthy);
    let due = rig.due_in().unwrap();
    assert_eq!(rig.pass(due + 15.0), ["probe web"]);
    assert_eq!(rig.pass(30.0), ["probe web"], "the first was never answered");
    assert_eq!(rig.health("web"), Healthy);
}

#[test]
fn probes_keep_their_distance_however_slow_they_are() {
    let mut rig = Rig::running(quick());
    rig.pass(29.0);
    rig.pass(1.0);
    rig.pass(8.0);
    rig.probed("web", true);
    assert_eq!(rig.due_in(), Some(22.0), "30 s from one question to the next");
}

#[test]
fn a_check_and_a_fallback_that_both_take_their_whole_time_count() {
    let fallback = Some(Box::new(Probe::Process));
    let mut rig = Rig::running(quick().with(|s| s.health.fallback = fallback));
    for n in 1..=3 {
        assert_eq!(rig.pass(rig.due_in().unwrap()), ["probe web"]);
        assert_eq!(rig.pass(20.0), NOTHING, "10 s each; the answer is not given up before");
        let then = rig.probed("web", false);
        assert_eq!(then, if n == 3 { vec!["stop web"] } else { vec![] });
    }
}

#[test]
fn a_failure_whose_time_spans_a_suspend_does_not_count() {
    let mut rig = Rig::running(quick());
    for _ in 0..6 {
        rig.pass(rig.due_in().unwrap());
        rig.asleep += secs(3600.0);
        rig.clock += secs(1.0);
        assert_eq!(rig.probed("web", false), NOTHING);
        assert_eq!(rig.health("web"), Healthy);
    }
    // The same between two probes is none of their business.
    for answer in "--".chars() {
        rig.asleep += secs(3600.0);
        assert_eq!(round(&mut rig, answer), NOTHING);
    }
    rig.asleep += secs(0.01); // two clocks that are read one after the other
    assert_eq!(round(&mut rig, '-'), ["stop web"]);
}

#[test]
fn a_wall_clock_that_is_set_changes_no_decision() {
    const DAY: i64 = 86_400_000;
    let lived = |steps: [i64; 3]| {
        let mut rig = Rig::running(quick());
        let mut seen = Vec::new();
        for step in steps {
            rig.wall_is_off += step;
            seen.push((rig.due_in(), round(&mut rig, '-'), rig.health("web")));
        }
        rig.stopped("web");
        rig.wall_is_off -= steps[0];
        seen.push((rig.due_in(), rig.pass(10.0), Unknown));
        (seen, rig.lines())
    };
    let expected = lived([0, 0, 0]);
    assert_eq!(expected.0.last().unwrap().1, ["start web"]);
    for steps in [[DAY, 0, 0], [-DAY, 0, 0], [0, DAY, -DAY], [-DAY, 2 * DAY, -DAY]] {
        assert_eq!(lived(steps), expected, "{steps:?}");
    }
}

/// When services are asked within the next 40 s, in seconds. Every probe passes at once.
fn asked_at(rig: &mut Rig) -> Vec<f64> {
    let (begin, mut asked) = (rig.clock, Vec::new());
    while rig.clock < begin + secs(40.0) {
        let due = rig.due_in().unwrap();
        for effect in rig.pass(due) {
            let Some(name) = effect.strip_prefix("probe ") else { continue };
            asked.push((rig.clock - begin).as_secs_f64());
            rig.probed(name, true);
        }
    }
    asked
}

#[test]
fn probes_of_many_services_are_spread_over_their_interval() {
    let names: Vec<String> = (0..1000).map(|n| format!("s{n}")).collect();
    let thousand = || plan(names.iter().map(|name| svc(name).tcp()));
    let evenly = |asked: &[f64]| {
        assert!(asked.len() >= 1000, "{}", asked.len());
        for &from in asked {
            let within = asked.iter().filter(|at| (from..from + 0.1).contains(*at)).count();
            assert!(within <= 6, "{within} within 100 ms of {from} s, where 3.3 would be even");
        }
    };
    let mut rig = Rig::new(thousand());
    for name in &names {
        rig.started(name);
        rig.probed(name, true);
        rig.clock += secs(0.0005);
    }
    evenly(&asked_at(&mut rig));
    let units: Vec<_> = names
        .iter()
        .map(|name| (name.as_str(), unit(Activity::Active, rig.run(name).0, &svc(name).tcp())))
        .collect();
    rig.crash(thousand(), units);
    // The first answers are due soon.
    asked_at(&mut rig);
    evenly(&asked_at(&mut rig));
}

#[test]
fn processes_are_looked_at_together_once_a_second() {
    let names: Vec<String> = (0..100).map(|n| format!("s{n}")).collect();
    let mut rig = Rig::new(plan(names.iter().map(|name| svc(name))));
    for name in &names {
        rig.started(name);
        rig.clock += secs(0.003);
    }
    for _ in 0..3 {
        let asked = asked_at(&mut rig);
        let moments: std::collections::BTreeSet<u64> = asked.iter().map(|at| (at * 1e6) as u64).collect();
        assert!((100..150).contains(&asked.len()), "each of them in 40 s: {}", asked.len());
        assert!(moments.len() <= 41, "{} wake-ups in 40 s", moments.len());
        for moment in &moments {
            let together = asked.iter().filter(|at| (**at * 1e6) as u64 == *moment).count();
            assert!(together <= 6, "{together} at once, where 3.3 would be even");
        }
    }
}

#[test]
fn those_found_running_are_asked_soon_and_then_in_their_slots() {
    let names: Vec<String> = (0..300).map(|n| format!("s{n}")).collect();
    let all = || plan(names.iter().map(|name| svc(name).tcp()));
    let mut rig = Rig::new(all());
    for name in &names {
        rig.started(name);
        rig.probed(name, true);
    }
    let units: Vec<_> = names
        .iter()
        .map(|name| (name.as_str(), unit(Activity::Active, rig.run(name).0, &svc(name).tcp())))
        .collect();
    rig.crash(all(), units);
    let asked = asked_at(&mut rig);
    // The one whose turn is at once was asked by the picture itself.
    assert_eq!(asked.iter().filter(|at| **at <= 2.0).count(), 299);
    for second in 2..40 {
        let from = f64::from(second);
        let within = asked.iter().filter(|at| (from..from + 1.0).contains(*at)).count();
        assert!(within <= 20, "{within} in the second from {from} on, where 10 would be even");
    }
}
