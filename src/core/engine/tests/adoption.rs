//! The daemon comes back: every kept state against everything that systemd may show.

use super::*;
use crate::core::action::{AfterStop, Record};
use Activity::{Activating, Active, Deactivating, Failed as UnitFailed, Gone, Inactive};
use State::{Backoff, Failed, Fatal, Running, Starting, Stopped, Stopping};

const RUN: u128 = 7;
const OTHER: u128 = 8;

/// What the last daemon kept of a service that was in `state` with run 7.
pub fn kept(state: State, want: Want) -> Record {
    let at = |seconds: u64| (Mono(Duration::from_secs(seconds)), Wall(seconds as i64 * 1000));
    let ended = !matches!(state, Starting | Running | Stopping);
    Record {
        boot_id: BOOT.into(),
        systemd_began: 1,
        state,
        want,
        enabled: true,
        was_ready: true,
        restarting: false,
        after_stop: AfterStop::Rest,
        attempt: 2,
        restart_count: 9,
        last_restart: Some(Wall(5)),
        invocation: Some(InvocationId(RUN)),
        ended: Some(InvocationId(if ended { RUN } else { RUN - 1 })),
        started: Some(at(if state == Starting { 970 } else { 900 })),
        entered: at(970),
        retry_at: (state == Backoff).then(|| at(1020)),
        last_exit: None,
        reason: "as it was; and so on".into(),
        turns: Vec::new(),
        flapping: None,
    }
}

/// A daemon that comes back at 1000 s.
fn back(plan_of: ServicePlan, record: Record, seen: UnitSeen) -> (Rig, Vec<String>) {
    let records = [(plan_of.id.clone(), record)].into();
    let name = plan_of.id.as_str().to_owned();
    let mut rig = Rig::before_resync(BOOT, plan([plan_of]), records);
    let effects = rig.resync([(name.as_str(), seen)]);
    (rig, effects)
}

#[test]
fn every_kept_state_against_everything_seen() {
    use Want::{Completed, StoppedByHand, StoppedOutside, Up};
    #[rustfmt::skip]
    let table: &[(State, Want, Activity, u128, State, &[&str])] = &[
        // Running: adopted, or its end is dealt with.
        (Running, Up, Active, RUN, Running, &[]),
        (Running, Up, Active, OTHER, Starting, &[]),        // restarted outside
        (Running, Up, Deactivating, RUN, Running, &[]),     // its end will be told
        (Running, Up, Inactive, RUN, Stopped, &[]),         // a clean exit
        (Running, Up, UnitFailed, RUN, Backoff, &[]),
        (Running, Up, UnitFailed, OTHER, Backoff, &[]),
        (Running, Up, Gone, 0, Backoff, &[]),
        (Running, StoppedByHand, Active, RUN, Stopping, &["stop web"]),
        (Running, StoppedByHand, Gone, 0, Stopped, &[]),
        // Starting: the same.
        (Starting, Up, Active, RUN, Running, &[]),          // alive for long enough
        (Starting, Up, Activating, RUN, Starting, &[]),
        (Starting, Up, Active, OTHER, Starting, &[]),
        (Starting, Up, Deactivating, RUN, Starting, &[]),
        (Starting, Up, UnitFailed, RUN, Backoff, &[]),
        (Starting, Up, Gone, 0, Backoff, &[]),
        (Starting, StoppedByHand, Active, RUN, Stopping, &["stop web"]),
        // Stopping: the stop is brought to its end.
        (Stopping, StoppedByHand, Active, RUN, Stopping, &["stop web"]),
        (Stopping, StoppedByHand, Deactivating, RUN, Stopping, &["stop web"]),
        (Stopping, StoppedByHand, UnitFailed, RUN, Stopped, &[]),
        (Stopping, StoppedByHand, Gone, 0, Stopped, &[]),
        // At rest.
        (Stopped, Up, Gone, 0, Starting, &["start web"]),
        (Stopped, Up, UnitFailed, RUN, Starting, &["start web"]),
        (Stopped, Up, Deactivating, OTHER, Stopping, &["stop web"]),
        (Stopped, StoppedByHand, Gone, 0, Stopped, &[]),
        (Stopped, StoppedByHand, Active, OTHER, Starting, &[]), // started outside
        (Stopped, StoppedOutside, UnitFailed, RUN, Stopped, &[]),
        (Stopped, Completed, Gone, 0, Stopped, &[]),
        (Stopped, Completed, Inactive, RUN, Stopped, &[]),
        (Backoff, Up, Gone, 0, Backoff, &[]),
        (Backoff, Up, UnitFailed, RUN, Backoff, &[]),
        (Backoff, Up, Deactivating, OTHER, Backoff, &[]),
        (Backoff, Up, Active, RUN, Backoff, &[]),           // not gone yet
        (Backoff, Up, Active, OTHER, Starting, &[]),        // started outside
        (Failed, Up, Gone, 0, Failed, &[]),
        (Failed, Up, Active, OTHER, Starting, &[]),
        (Fatal, Up, UnitFailed, RUN, Fatal, &[]),
        (Fatal, Up, Gone, 0, Fatal, &[]),
        (Fatal, Up, Active, OTHER, Starting, &[]),
    ];
    for (state, want, activity, run, then, effects) in table {
        let web = svc("web");
        let seen = unit(*activity, *run, &web);
        let (rig, done) = back(web, kept(*state, *want), seen);
        let case = format!("{state}, {want:?}, unit {activity:?} run {run}");
        assert_eq!(done, *effects, "{case}");
        assert_eq!(rig.state("web"), *then, "{case}");
        assert_eq!(rig.engine.services["web"].restart_count, 9, "{case}");
        if *then == Backoff {
            assert!(rig.due_in().is_some(), "{case}: the restart is due");
        }
    }
}

#[test]
fn what_is_found_up_is_told_as_what_it_is() {
    use Want::{StoppedByHand, Up};
    let (found, outside, stop) = ("found running (pid", "started outside the supervisor", "sent SIGTERM");
    let table = [
        (Running, Up, Some(RUN), RUN, found),
        (Running, Up, Some(RUN), OTHER, outside),
        (Running, StoppedByHand, Some(RUN), RUN, stop),
        (Starting, Up, Some(RUN), OTHER, outside),
        (Starting, Up, None, OTHER, found), // nobody heard the answer to its start
        (Starting, StoppedByHand, Some(RUN), RUN, stop),
        (Starting, StoppedByHand, None, OTHER, stop),
        (Stopped, Up, Some(RUN), OTHER, found),
        (Stopped, StoppedByHand, Some(RUN), OTHER, outside),
        (Fatal, Up, Some(RUN), OTHER, outside),
    ];
    for (state, want, known, run, told) in table {
        let record = Record { invocation: known.map(InvocationId), ..kept(state, want) };
        let (mut rig, _) = back(svc("web"), record, unit(Active, run, &svc("web")));
        let (lines, case) = (rig.lines(), format!("{state}, {want:?}, run {known:?}, unit {run}"));
        assert!(lines[0].contains(told), "{case}: {lines:?}");
        assert!(
            told == found || !lines.iter().any(|line| line.contains("left as it is")),
            "{case}: {lines:?}"
        );
    }
}

#[test]
fn a_unit_found_on_its_way_down_is_started_again_where_it_is_wanted() {
    for (state, want, then) in [
        (Stopped, Want::Up, Starting),
        (Stopped, Want::StoppedByHand, Stopped),
        (Starting, Want::StoppedByHand, Stopped),
    ] {
        let record = Record { invocation: None, started: None, ..kept(state, want) };
        let (mut rig, done) = back(svc("web"), record, unit(Deactivating, 0, &svc("web")));
        assert_eq!(done, ["stop web"], "{state}, {want:?}");
        let told = rig.lines()[0].ends_with(", then a start");
        assert_eq!(told, want == Want::Up, "{state}, {want:?}");
        rig.stop_answer("web", Ok(()));
        assert_eq!(rig.state("web"), then, "{state}, {want:?}");
    }
}

#[test]
fn an_answer_that_is_still_awaited_is_waited_for_unless_the_unit_is_up() {
    // A unit that is up needs no answer; what is of the run before does.
    for (activity, run, then) in
        [(Active, OTHER, false), (Active, RUN, true), (Activating, OTHER, true), (Gone, 0, true)]
    {
        let mut rig = Rig::running(svc("web"));
        rig.exits("web", exited(1));
        let ended = rig.run("web").0;
        rig.pass(10.0);
        assert_eq!(rig.state("web"), Starting);
        let run = if run == RUN { ended } else { run };
        rig.resync([("web", unit(activity, run, &svc("web")))]);
        assert_eq!(rig.engine.services["web"].op.is_some(), then, "unit {activity:?} run {run}");
    }
    // Nor is a unit up that is to be stopped: the stop is what is awaited.
    let mut rig = Rig::running(svc("web"));
    rig.stop("web");
    let run = rig.run("web").0;
    rig.resync([("web", unit(Active, run, &svc("web")))]);
    assert!(rig.engine.services["web"].op.is_some());
}

#[test]
fn a_start_whose_answer_nobody_heard() {
    #[rustfmt::skip]
    let table: &[(Want, Activity, u128, State, &[&str])] = &[
        (Want::Up, Active, OTHER, Starting, &[]),               // it worked
        (Want::Up, Activating, OTHER, Starting, &[]),
        (Want::Up, UnitFailed, OTHER, Backoff, &[]),            // it failed
        (Want::Up, Deactivating, OTHER, Starting, &[]),         // its end will be told
        (Want::Up, Deactivating, 0, Stopping, &["stop web"]),
        (Want::Up, Gone, 0, Starting, &["start web"]),          // it never reached systemd
        (Want::Up, UnitFailed, RUN, Starting, &["start web"]),  // nor here: that is the run before
        (Want::StoppedByHand, Active, OTHER, Stopping, &["stop web"]),
        (Want::StoppedByHand, Gone, 0, Stopped, &[]),
    ];
    for (want, activity, run, then, effects) in table {
        let web = svc("web");
        let seen = unit(*activity, *run, &web);
        let record = Record {
            invocation: None,
            started: None,
            ended: Some(InvocationId(RUN)),
            ..kept(Starting, *want)
        };
        let (mut rig, done) = back(web, record, seen);
        let case = format!("{want:?}, unit {activity:?} run {run}");
        assert_eq!((rig.state("web"), done), (*then, owned(effects)), "{case}");
        assert_eq!(rig.engine.services["web"].restart_count, 9, "{case}: it was counted when it was ordered");
        if (*activity, *run) == (Deactivating, OTHER) {
            rig.exits("web", exited(1));
            assert_eq!(rig.state("web"), Backoff, "{case}");
        }
    }
}

#[test]
fn an_adopted_service_goes_on_with_its_counts_timers_and_probes() {
    let web = svc("web").tcp();
    let seen = unit(Active, RUN, &web);
    let (mut rig, _) = back(web, kept(Running, Want::Up), seen);
    assert_eq!(rig.lines(), ["web: running: found running (pid 7, for 1 min 40 s); left as it is"]);
    let view = rig.view("web");
    assert_eq!((view.attempt, view.restart_count, view.pid), (2, 9, Some(7)));
    assert_eq!(view.since, Wall(970_000));
    rig.pass(29.9);
    assert_eq!(rig.attempt("web"), 2);
    rig.pass(0.1);
    assert_eq!(rig.attempt("web"), 0, "60 s in running, 30 of them before the daemon ended");
    let (rig, effects) = back(svc("web").tcp(), kept(Running, Want::Up), unit(Active, RUN, &svc("web")));
    assert_eq!(effects, ["probe web"], "its health is asked for at once");
    assert_eq!(rig.health("web"), Health::Unknown);
    let (rig, _) = back(svc("web"), kept(Running, Want::Up), unit(Active, RUN, &svc("web")));
    assert_eq!(rig.health("web"), Health::Healthy, "that it is up is all that is asked of it");
}

#[test]
fn one_that_is_adopted_on_its_way_up_becomes_ready() {
    let web = svc("web").tcp();
    let seen = unit(Active, RUN, &web);
    let (mut rig, effects) = back(web, kept(Starting, Want::Up), seen);
    assert_eq!(effects, ["probe web"]);
    assert_eq!(rig.lines(), ["web: starting: found running (pid 7, for 30 s); left as it is"]);
    rig.probed("web", true);
    assert_eq!(rig.state("web"), Running);

    let web = svc("web").notify();
    let seen = unit(Activating, RUN, &web);
    let (mut rig, _) = back(web.clone(), kept(Starting, Want::Up), seen);
    assert_eq!(rig.state("web"), Starting);
    rig.appeared("web", RUN);
    assert_eq!(rig.state("web"), Running, "READY=1 came later");
    let (rig, _) = back(web.clone(), kept(Starting, Want::Up), unit(Active, RUN, &web));
    assert_eq!(rig.state("web"), Running, "READY=1 came while nobody was there");
}

#[test]
fn a_backoff_goes_on_where_it_was() {
    let (mut rig, _) = back(svc("web"), kept(Backoff, Want::Up), UnitSeen::GONE);
    assert_eq!(rig.due_in(), Some(20.0));
    assert_eq!(rig.pass(20.0), ["start web"]);
    let view = rig.view("web");
    assert_eq!((view.attempt, view.restart_count), (2, 10));

    let record = Record { retry_at: Some((Mono(secs(990.0)), Wall(0))), ..kept(Backoff, Want::Up) };
    let (_, effects) = back(svc("web"), record, UnitSeen::GONE);
    assert_eq!(effects, ["start web"], "it fell due while nobody was there");
}

#[test]
fn what_ended_while_nobody_was_there_is_dealt_with_now() {
    let web = svc("web");
    let (mut rig, _) = back(web.clone(), kept(Running, Want::Up), UnitSeen::GONE);
    assert_eq!(
        rig.lines(),
        [
            "web: vanished while no supervisor was watching; how it ended was noted nowhere",
            "web: ended (while no supervisor was there, nobody noted how), 1 min 40 s after its start",
            "web: running -> backoff: ended (while no supervisor was there, nobody noted how); attempt 3 of 5, \
             restart in 40 s",
        ]
    );
    let kinds: Vec<_> = rig.entries.iter().map(|e| e.kind).collect();
    assert_eq!(kinds[0], EntryKind::ExitedUnsupervised);

    let outside = UnitSeen { stopped_outside: true, ..unit(Inactive, RUN, &web) };
    let (rig, _) = back(web.clone(), kept(Running, Want::Up), outside);
    assert_eq!((rig.state("web"), rig.want("web")), (Stopped, Want::StoppedOutside));

    let (rig, _) = back(web.clone(), kept(Running, Want::Up), unit(Inactive, RUN, &web));
    assert_eq!((rig.state("web"), rig.want("web")), (Stopped, Want::Completed));
}

#[test]
fn how_a_stop_ended_that_nobody_saw_is_noted_once() {
    let stopping = || kept(Stopping, Want::StoppedByHand);
    let (mut rig, _) = back(svc("web"), stopping(), unit(UnitFailed, RUN, &svc("web")));
    assert_eq!(rig.view("web").last_exit.as_ref().map(|(exit, _)| exit), Some(&exited(1)));
    let noted = Record { ended: Some(InvocationId(RUN)), ..stopping() };
    let (mut rig, _) = back(svc("web"), noted, unit(UnitFailed, RUN, &svc("web")));
    assert_eq!(rig.view("web").last_exit, None, "the last daemon noted what it was");
}

#[test]
fn a_stop_in_progress_comes_to_what_it_was_for() {
    for (after, effects, then) in [
        (AfterStop::Rest, &[][..], Stopped),
        (AfterStop::Start, &["start web"][..], Starting),
        (AfterStop::Fail("3 failed probes in a row".into()), &[][..], Backoff),
    ] {
        let web = svc("web");
        let want = if after == AfterStop::Rest { Want::StoppedByHand } else { Want::Up };
        let record = Record { after_stop: after.clone(), ..kept(Stopping, want) };
        let (rig, done) = back(web.clone(), record.clone(), UnitSeen::GONE);
        assert_eq!((done, rig.state("web")), (owned(effects), then), "{after:?}, already down");
        let (mut rig, done) = back(web.clone(), record, unit(Deactivating, RUN, &web));
        assert_eq!(done, ["stop web"]);
        let line = rig.lines().pop().unwrap();
        assert!(line.starts_with("web: stopping: as it was; sent SIGTERM, SIGKILL after 30 s"), "{line}");
        assert_eq!((rig.stopped("web"), rig.state("web")), (owned(effects), then), "{after:?}");
    }
}

#[test]
fn another_configuration_is_put_in_force() {
    let (old, new) = (svc("web"), svc("web").args("--new"));
    for (state, run) in [(Running, RUN), (Starting, RUN), (Running, OTHER)] {
        let (mut rig, effects) = back(new.clone(), kept(state, Want::Up), unit(Active, run, &old));
        assert_eq!(effects, ["stop web"], "{state} run {run}");
        assert_eq!(
            rig.lines().pop().unwrap().split_once("stopping: ").unwrap().1,
            "its configuration changed while the supervisor was away; sent SIGTERM, SIGKILL after 30 s, then a \
             start"
        );
        assert_eq!(rig.stopped("web"), ["start web"]);
    }
    let secret_changed = UnitSeen { environment_matches: false, ..unit(Active, RUN, &old) };
    let (_, effects) = back(old.clone(), kept(Running, Want::Up), secret_changed);
    assert_eq!(effects, ["stop web"]);
    let not_ours = UnitSeen { exec_hash: None, environment_matches: false, ..unit(Active, RUN, &old) };
    let (_, effects) = back(old, kept(Running, Want::Up), not_ours);
    assert_eq!(effects, NOTHING, "what nobody knows is left alone");
}

#[test]
fn what_runs_is_not_ended_for_a_configuration_that_cannot_be_used() {
    let (old, new) = (svc("web"), svc("web").args("--new"));
    let lacks = ServicePlan { lacks: Some("there is no user \"shop\"".into()), ..new.clone() };
    let (mut rig, effects) = back(lacks.clone(), kept(Running, Want::Up), unit(Active, RUN, &old));
    assert_eq!((rig.state("web"), effects), (Running, owned(&[])));
    assert_eq!(
        rig.lines()[0],
        "web: its configuration changed while the supervisor was away, and cannot be used: there is no user \"shop\"; \
         it goes on with the one it was started with, until a reload finds the new one good"
    );
    assert_eq!(rig.resync([("web", unit(Active, RUN, &old))]), NOTHING);
    assert!(!rig.lines().iter().any(|line| line.contains("cannot be used")), "told once");
    assert_eq!(rig.reload(plan([lacks.clone()])), NOTHING);
    assert_eq!(rig.reload(plan([new.clone()])), ["stop web"], "it is mended");

    let (mut rig, effects) = back(lacks, kept(Running, Want::Up), unit(Active, RUN, &new));
    assert_eq!((rig.state("web"), effects), (Running, owned(&[])));
    assert_eq!(rig.reload(plan([new])), NOTHING, "it runs as it should");
}

#[test]
fn a_start_after_everything_was_stopped_does_not_carry_the_reason_of_the_stop() {
    let (mut rig, _) = back(svc("web"), kept(Stopped, Want::Up), UnitSeen::GONE);
    assert_eq!(rig.lines(), ["web: stopped -> starting: the supervisor was started again; ready after 1 s"]);
}

#[test]
fn enabled_may_have_been_turned_while_nobody_was_there() {
    let (on, off) = (svc("web"), svc("web").disabled());
    let up = unit(Active, RUN, &on);
    let (mut rig, effects) = back(off.clone(), kept(Running, Want::Up), up.clone());
    assert_eq!(effects, ["stop web"]);
    assert!(rig.lines().pop().unwrap().contains("running -> stopping: it was disabled in the configuration"));
    let by_hand = Record { enabled: false, ..kept(Running, Want::Up) };
    let (_, effects) = back(off.clone(), by_hand, up);
    assert_eq!(effects, NOTHING, "started by hand though disabled");
    for state in [Backoff, Fatal, Failed, Stopped] {
        let (mut rig, effects) = back(off.clone(), kept(state, Want::Up), UnitSeen::GONE);
        assert_eq!((effects.as_slice(), rig.state("web"), rig.due_in()), (&[][..], Stopped, None), "{state}");
        assert_eq!(rig.view("web").reason, "disabled in the configuration");
    }
    let (_, effects) = back(on, kept(Stopped, Want::Disabled), UnitSeen::GONE);
    assert_eq!(effects, ["start web"]);
}

#[test]
fn units_and_records_that_no_plan_names_are_cleared_away() {
    let records = [(id("old"), kept(Running, Want::Up)), (id("gone"), kept(Fatal, Want::Up))].into();
    let mut rig = Rig::before_resync(BOOT, plan([svc("web")]), records);
    let effects = rig.resync([("old", unit(Active, RUN, &svc("old")))]);
    assert_eq!(effects, ["forget gone", "stop old", "start web"]);
    assert_eq!(
        rig.lines()[0],
        "old: left the configuration while the supervisor was away; its unit is stopped"
    );
    // It comes back into the plan: not started before its old unit is gone.
    assert_eq!(rig.reload(plan([svc("web"), svc("old")])), NOTHING);
    assert_eq!(rig.stop_answer("old", Ok(())), ["start old"]);
}

#[test]
fn a_left_over_unit_that_does_not_end_holds_the_shutdown_for_a_while_only() {
    let mut rig = Rig::before_resync(BOOT, plan([]), BTreeMap::new());
    rig.resync([("old", unit(Active, RUN, &svc("old")))]);
    assert_eq!(rig.shutdown(), NOTHING);
    assert_eq!(rig.pass(300.0), ["kill old", "kill old", "leave"]);
}

#[test]
fn a_left_over_unit_is_forgotten_when_it_ended_and_asked_again_when_it_did_not() {
    let mut rig = Rig::before_resync(BOOT, plan([]), BTreeMap::new());
    rig.resync([("old", unit(Active, RUN, &svc("old")))]);
    rig.lines();
    assert_eq!(rig.stop_answer("old", Err("busy")), NOTHING);
    assert_eq!(rig.pass(5.0), ["kill old"]);
    assert_eq!(rig.stop_answer("old", Err("busy")), NOTHING);
    assert_eq!(rig.pass(5.0), ["kill old"]);
    assert_eq!(rig.lines(), NOTHING, "it is told when that is the end of it");
    assert_eq!(rig.stop_answer("old", Err("busy")), NOTHING);
    assert_eq!(
        rig.lines(),
        ["old: its left-over unit could not be stopped: busy; tried again when the supervisor starts"]
    );
    assert_eq!(rig.pass(300.0), NOTHING);

    let mut rig = Rig::before_resync(BOOT, plan([]), BTreeMap::new());
    rig.resync([("old", unit(Active, RUN, &svc("old")))]);
    assert_eq!(rig.stop_answer("old", Ok(())), ["release old", "forget old"]);
    assert_eq!(rig.pass(300.0), NOTHING);
}

#[test]
fn after_an_outage_only_what_changed_is_touched() {
    let mut rig = Rig::new(plan([svc("a").tcp(), svc("b"), svc("c"), svc("d").tcp()]));
    rig.up("a");
    rig.up("b");
    rig.up("c");
    rig.started("d");
    rig.lines();
    let seen = |name: &str, rig: &Rig| unit(Active, rig.run(name).0, &svc(name));
    let units = [
        ("a", seen("a", &rig)),
        ("b", UnitSeen { environment_matches: false, ..seen("b", &rig) }),
        ("d", seen("d", &rig)),
    ];
    assert_eq!(rig.resync(units), NOTHING);
    assert_eq!((rig.state("a"), rig.state("b"), rig.state("c")), (Running, Running, Backoff));
    assert!(rig.lines().iter().all(|line| line.starts_with("c: ")));
    assert!(rig.pass(29.0).contains(&"probe a".to_owned()), "its probes go on");
}

#[test]
fn started_and_restarted_outside() {
    let mut rig = Rig::running(svc("web"));
    rig.exits("web", exited(1));
    rig.pass(10.0);
    rig.up("web");
    rig.lines();
    rig.stopped_outside("web");
    rig.appeared("web", OTHER);
    assert_eq!((rig.state("web"), rig.want("web"), rig.attempt("web")), (Starting, Want::Up, 0));
    assert_eq!(
        rig.lines().pop().unwrap(),
        "web: stopped -> starting: started outside the supervisor (systemctl start or restart, or Restart= of a \
         drop-in); supervised from here on"
    );
    rig.pass(1.0);
    assert_eq!(rig.state("web"), Running);
    rig.lines();
    assert_eq!(rig.appeared("web", OTHER), NOTHING, "only another main process");
    assert_eq!(rig.pass(5.0), NOTHING);
    assert_eq!(rig.state("web"), Running);
    assert_eq!(rig.lines(), NOTHING);
}

#[test]
fn started_outside_during_a_stop_of_ours() {
    let mut rig = Rig::running(svc("web"));
    let order = rig.stop("web");
    rig.exits("web", killed(15, ExitResult::Success));
    rig.appeared("web", OTHER);
    assert_eq!(rig.state("web"), Stopping);
    rig.stop_answer("web", Ok(()));
    assert_eq!((rig.state("web"), rig.want("web")), (Starting, Want::Up), "the truth is that it runs");
    assert_eq!(rig.answer(order).map(|(done, _)| done), Some(true));

    // An outage in between: what systemd shows then is what counts.
    for (seen, then) in [(OTHER, Starting), (OTHER + 1, Stopped)] {
        let mut rig = Rig::running(svc("web"));
        rig.stop("web");
        rig.exits("web", killed(15, ExitResult::Success));
        rig.appeared("web", OTHER);
        rig.resync([("web", unit(Active, seen, &svc("web")))]);
        rig.stop_answer("web", Ok(()));
        assert_eq!(rig.state("web"), then);
    }

    let mut rig = Rig::running(svc("web"));
    rig.stop("web");
    rig.appeared("web", OTHER);
    let event = Event::UnitExited {
        service: id("web"),
        invocation: InvocationId(OTHER),
        exit: exited(0),
        external: false,
    };
    rig.tell(event);
    rig.stop_answer("web", Ok(()));
    assert_eq!(rig.state("web"), Stopped, "our stop ended that one too");
}

#[test]
fn what_appeared_and_ended_during_an_outage_is_not_taken_for_running() {
    for answer in [Ok(()), Err("the connection to systemd was lost")] {
        let mut rig = Rig::running(svc("web"));
        let at_first = unit(Inactive, OTHER, &svc("web"));
        rig.stop("web");
        rig.exits("web", killed(9, ExitResult::Signal));
        rig.appeared("web", OTHER);
        rig.resync([("web", at_first.clone())]);
        rig.stop_answer("web", answer);
        rig.resync([("web", at_first)]);
        assert_eq!(rig.state("web"), Stopped);
    }

    let mut rig = Rig::new(plan([svc("web")]));
    rig.appeared("web", RUN);
    rig.resync([("web", unit(UnitFailed, RUN, &svc("web")))]);
    rig.start_answer("web", Err(unreachable()));
    assert_eq!((rig.state("web"), rig.attempt("web")), (Backoff, 1), "how it ended counts");

    let mut rig = Rig::new(plan([svc("web")]));
    rig.appeared("web", RUN);
    rig.resync([("web", unit(UnitFailed, OTHER, &svc("web")))]);
    rig.start_answer("web", Err(unreachable()));
    assert_eq!(rig.attempt("web"), 0, "of another run, it says nothing");
}

#[test]
fn started_outside_while_everything_is_being_stopped() {
    let mut rig = Rig::new(plan([svc("a"), svc("b")]));
    rig.up("a");
    rig.started("b");
    rig.shutdown();
    rig.stopped("a");
    rig.lines();
    assert_eq!(rig.appeared("a", OTHER), ["stop a"]);
    assert!(rig.lines()[0].ends_with("to be stopped in its turn"));
    rig.stopped("b");
    assert_eq!(rig.stopped("a"), ["leave"]);
}

#[test]
fn what_would_have_counted_counts_after_a_crash_too() {
    // web failed, and its restart waits for db: the restart still counts as one.
    let services = || plan([svc("db"), svc("web").needs_as("db", Condition::Healthy, OnFailure::Ignore)]);
    let mut rig = Rig::new(services());
    rig.up("db");
    rig.up("web");
    rig.exits("web", exited(1));
    rig.exits("db", exited(1));
    assert_eq!(rig.crash(services(), []), NOTHING);
    assert_eq!(rig.pass(10.0), ["start db", "start web"], "it was ready before, so it does not wait for db");
}

#[test]
fn a_unit_that_comes_up_and_is_in_no_configuration_is_somebody_elses() {
    let mut rig = Rig::new(plan([svc("web")]));
    rig.lines();
    assert_eq!(rig.appeared("old", OTHER), NOTHING);
    assert_eq!(rig.lines(), Vec::<String>::new());
}
