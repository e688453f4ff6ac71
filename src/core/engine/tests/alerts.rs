//! What somebody is told, when, and when it is over.

use super::*;
use crate::core::alert::{AlertKey, AlertKind};
use crate::core::sample::Sample;

fn crash(rig: &mut Rig, name: &str) {
    rig.exits(name, exited(1));
}

/// `web/down db/oom_kill`
fn open(rig: &Rig) -> String {
    let names = rig.alerts.keys().map(|key| {
        let service = key.service.as_ref().map_or("-", Id::as_str);
        format!("{service}/{}", key.kind)
    });
    names.collect::<Vec<_>>().join(" ")
}

fn measured(rig: &mut Rig, name: &str, sample: Sample) {
    let samples = BTreeMap::from([(id(name), (rig.run(name), sample))]);
    rig.tell(Event::Sampled { samples });
}

#[test]
fn figures_of_a_run_that_is_over_are_dropped() {
    let sample = || Sample { memory: Some(1 << 20), ..Sample::default() };
    let mut rig = Rig::running(svc("web"));
    rig.tell(Event::Sampled { samples: BTreeMap::from([(id("web"), (InvocationId(7), sample()))]) });
    assert_eq!(rig.view("web").usage, None);
    measured(&mut rig, "web", sample());
    assert!(rig.view("web").usage.is_some());
    let run = rig.run("web");
    crash(&mut rig, "web");
    rig.tell(Event::Sampled { samples: BTreeMap::from([(id("web"), (run, sample()))]) });
    assert_eq!(rig.view("web").usage, None);
}

#[test]
fn one_quick_restart_is_no_alert() {
    let mut rig = Rig::running(svc("web"));
    crash(&mut rig, "web");
    rig.pass(10.0);
    rig.up("web");
    rig.pass(600.0);
    assert_eq!(rig.alert_lines(), NOTHING);
}

#[test]
fn a_restart_that_does_not_help_is_told_and_the_end_of_it_too() {
    let mut rig = Rig::running(svc("web"));
    crash(&mut rig, "web");
    rig.pass(10.0);
    rig.started("web");
    crash(&mut rig, "web");
    assert_eq!(
        rig.alert_lines(),
        ["raised warning: web is down (backoff): exited with status 1; attempt 2 of 5, restart in 20 s"]
    );
    rig.pass(20.0);
    rig.up("web");
    rig.pass(9.0);
    assert_eq!(rig.alert_lines(), NOTHING, "it may fail at once");
    rig.pass(2.0);
    assert_eq!(rig.alert_lines(), ["resolved: web: down is over after 31 s: it runs again"]);
}

#[test]
fn a_start_that_hangs_after_a_crash_is_told() {
    let mut rig = Rig::running(svc("web").tcp());
    crash(&mut rig, "web");
    rig.pass(10.0);
    rig.started("web");
    rig.pass(9.0);
    assert_eq!(rig.alert_lines(), NOTHING);
    rig.pass(2.0);
    assert_eq!(open(&rig), "web/down");
}

#[test]
fn a_look_before_its_time_tells_nothing() {
    let mut rig = Rig::running(svc("web"));
    crash(&mut rig, "web");
    rig.pass(5.0);
    rig.reload(plan([svc("web").with(|s| s.description = "looked at again".into())]));
    assert_eq!(rig.alert_lines(), NOTHING);
    rig.pass(5.0);
    rig.pass(11.0);
    assert_eq!(open(&rig), "web/down");
}

#[test]
fn giving_up_makes_it_an_error_once() {
    let mut rig = Rig::running(svc("web").retries(2));
    crash(&mut rig, "web");
    for delay in [10.0, 20.0] {
        rig.pass(delay);
        rig.started("web");
        crash(&mut rig, "web");
    }
    rig.pass(5000.0);
    assert_eq!(
        rig.alert_lines(),
        [
            "raised warning: web is down (backoff): exited with status 1; attempt 2 of 2, restart in 20 s",
            "updated error: web is down (fatal): exited with status 1; 2 restarts did not help, no further one; \
             start it when the cause is mended",
        ]
    );
    let alert = rig.alerts.values().next().unwrap();
    assert_eq!(alert.details["last_exit"]["code"], 1);
    assert_eq!(alert.details["state"], "fatal");
    rig.stop("web");
    assert_eq!(open(&rig), "", "somebody wants it down");
}

#[test]
fn a_critical_service_is_told_at_once() {
    let mut rig = Rig::running(svc("web").with(|s| s.critical = true));
    crash(&mut rig, "web");
    assert_eq!(
        rig.alert_lines(),
        ["raised critical: web is down (backoff): exited with status 1; attempt 1 of 5, restart in 10 s"]
    );
}

#[test]
fn the_root_is_told_and_names_those_that_it_takes_with_it() {
    let mut rig = Rig::new(plan([
        svc("db").with(|s| s.critical = true),
        svc("web").needs("db").with(|s| s.critical = true),
        svc("edge").needs("web"),
    ]));
    for name in ["db", "web", "edge"] {
        rig.up(name);
    }
    crash(&mut rig, "db");
    crash(&mut rig, "web");
    crash(&mut rig, "edge");
    rig.pass(9.9);
    assert_eq!(open(&rig), "db/down");
    let affected = |rig: &Rig| rig.alerts.values().next().unwrap().details["affected"].clone();
    assert_eq!(affected(&rig), serde_json::json!(["edge", "web"]));
    // What it took with it comes back after it, and nothing more is said.
    rig.pass(0.2);
    for name in ["db", "web", "edge"] {
        rig.up(name);
    }
    rig.pass(600.0);
    assert_eq!(open(&rig), "");
    assert!(rig.alert_lines().iter().all(|line| line.contains("db")));
}

#[test]
fn one_that_waits_hands_on_whom_it_waits_for_and_one_that_runs_does_not() {
    let chain = [svc("db").with(|s| s.critical = true), svc("web").needs("db"), svc("edge").needs("web")];
    let mut rig = Rig::new(plan(chain.clone()));
    rig.started("db");
    crash(&mut rig, "db");
    assert_eq!(open(&rig), "db/down");
    let affected = rig.alerts.values().next().unwrap().details["affected"].clone();
    assert_eq!(affected, serde_json::json!(["edge", "web"]));

    let mut rig = Rig::new(plan(chain));
    for name in ["db", "web", "edge"] {
        rig.up(name);
    }
    crash(&mut rig, "db");
    crash(&mut rig, "edge");
    rig.pass(10.0);
    rig.started("edge");
    crash(&mut rig, "edge");
    assert_eq!(open(&rig), "db/down edge/down", "web runs, so it is no fault of the database");
    let db = rig.alerts.iter().find(|(key, _)| key.service == Some(id("db"))).unwrap().1;
    assert_eq!(db.details.get("affected"), None);
}

#[test]
fn a_dependency_that_is_started_again_is_to_blame_if_it_failed_and_not_if_somebody_wanted_it() {
    let both = || plan([svc("db"), svc("web").needs("db")]);
    for (failed, expected) in [(true, "db/down"), (false, "web/down")] {
        let mut rig = Rig::new(both());
        rig.up("db");
        rig.up("web");
        if failed {
            crash(&mut rig, "db");
            rig.pass(10.0);
        } else {
            rig.restart("db");
            rig.stopped("db");
        }
        assert_eq!(rig.state("db"), State::Starting);
        crash(&mut rig, "web");
        rig.pass(25.0);
        assert_eq!(open(&rig), expected);
    }
}

#[test]
fn an_alert_whose_cause_shows_later_goes_into_that_of_the_root() {
    let critical = |s: &mut ServicePlan| s.critical = true;
    let mut rig = Rig::new(plan([svc("db").with(critical), svc("web").needs("db").with(critical)]));
    rig.up("db");
    rig.up("web");
    crash(&mut rig, "web");
    assert_eq!(open(&rig), "web/down");
    crash(&mut rig, "db");
    assert_eq!(open(&rig), "db/down");
    assert!(rig.alert_lines().contains(
        &"resolved: web: down is over after 0 ms: it comes from db, whose alert names it".to_owned()
    ));
}

#[test]
fn one_that_is_just_up_again_is_still_to_blame() {
    let critical = |s: &mut ServicePlan| s.critical = true;
    let mut rig = Rig::new(plan([svc("db").with(critical), svc("web").needs("db").with(critical)]));
    rig.up("db");
    rig.up("web");
    crash(&mut rig, "db");
    crash(&mut rig, "web");
    rig.pass(10.0);
    rig.up("db");
    rig.started("web");
    crash(&mut rig, "web");
    assert_eq!(open(&rig), "db/down");
    rig.pass(11.0);
    assert_eq!(open(&rig), "web/down", "db runs for long enough now");
}

#[test]
fn restarting_without_end_is_told_beyond_the_last_attempt() {
    let keep = svc("web").retries(2).with(|s| {
        (s.restart.after_max_retries, s.restart.max_backoff) = (AfterMaxRetries::KeepTrying, secs(30.0));
    });
    let mut rig = Rig::running(keep);
    for (delay, expected) in [(10.0, ""), (20.0, "web/down"), (30.0, "web/down web/keep_trying")] {
        crash(&mut rig, "web");
        assert_eq!(open(&rig), expected);
        rig.pass(delay);
        rig.started("web");
    }
    assert!(rig.alert_lines().contains(
        &"raised error: web was restarted 2 times without success; going on every 30 s".to_owned()
    ));
    let mut rig = Rig::running(svc("web").retries(2));
    for delay in [10.0, 20.0, 30.0] {
        crash(&mut rig, "web");
        rig.pass(delay);
        if rig.state("web") == State::Starting {
            rig.started("web");
        }
    }
    assert_eq!(open(&rig), "web/down", "fatal is told as such");
}

#[test]
fn one_that_takes_long_to_stop_for_its_health_is_told() {
    let mut rig = Rig::running(svc("web").tcp());
    for _ in 0..3 {
        rig.pass(30.0);
        rig.probed("web", false);
    }
    assert_eq!((rig.state("web"), rig.alert_lines()), (State::Stopping, vec![]));
    rig.pass(10.0);
    let why = "3 failed probes in a row: connection refused";
    assert!(
        rig.alert_lines()[0]
            .starts_with(&format!("raised error: web is unhealthy and is being restarted: {why}"))
    );
}

#[test]
fn a_dependency_that_is_ill_is_to_blame() {
    let db = svc("db").tcp().with(|s| s.auto_restart = false);
    let mut rig = Rig::new(plan([db, svc("web").needs("db")]));
    rig.up("db");
    rig.up("web");
    for _ in 0..3 {
        rig.pass(30.0);
        rig.probed("db", false);
    }
    crash(&mut rig, "web");
    rig.pass(25.0);
    assert_eq!(open(&rig), "db/unhealthy");
}

#[test]
fn illness_is_told_where_no_restart_cures_it() {
    let mut rig = Rig::running(svc("web").tcp().with(|s| s.auto_restart = false));
    for _ in 0..3 {
        rig.pass(30.0);
        rig.probed("web", false);
    }
    assert_eq!(
        rig.alert_lines(),
        ["raised error: web is unhealthy: connection refused; left running, auto_restart is off"]
    );
    let probes = rig.alerts.values().next().unwrap().details["last_probes"].clone();
    assert_eq!(probes.as_array().unwrap().len(), 4);
    assert_eq!(probes[3]["message"], "connection refused");
    rig.pass(30.0);
    rig.probed("web", true);
    assert_eq!(rig.alert_lines(), ["resolved: web: unhealthy is over after 30 s: it is healthy"]);
}

#[test]
fn degraded_is_told_when_it_lasts() {
    let mut rig = Rig::running(svc("web").tcp());
    for expected in ["", "web/degraded"] {
        rig.pass(30.0);
        rig.probed_with("web", rig.run("web"), false, true, "HTTP 503");
        assert_eq!(open(&rig), expected);
    }
    rig.pass(30.0);
    rig.probed("web", true);
    assert_eq!(open(&rig), "");
}

#[test]
fn a_service_that_fails_whenever_its_attempts_are_forgotten_is_flapping() {
    let mut rig = Rig::running(svc("web"));
    for n in 1..=5 {
        rig.pass(61.0);
        crash(&mut rig, "web");
        assert_eq!(rig.attempt("web"), 1, "failure {n}");
        assert_eq!(open(&rig), if n < 5 { "" } else { "web/flapping" });
        rig.pass(10.0);
        rig.up("web");
    }
    assert_eq!(
        rig.alert_lines(),
        [
            "raised warning: web is flapping: it failed 5 times in 4 min 48 s after it had seemed well; restarts go \
          on, but they do not cure it"
        ]
    );
    assert!(rig.view("web").flapping.is_some());
    let made_from = svc("web");
    let run = rig.run("web").0;
    rig.crash(plan([svc("web")]), [("web", unit(Activity::Active, run, &made_from))]);
    assert!(rig.view("web").flapping.is_some(), "the next daemon knows it");
    rig.pass(1300.0);
    assert_eq!(open(&rig), "");
    assert!(rig.view("web").flapping.is_none());
    let told = rig.lines();
    assert_eq!(told.iter().filter(|line| line.contains("flapping")).count(), 2, "{told:#?}");
    assert!(rig.alert_lines().iter().any(|line| line.ends_with("it was steady for long enough")));
}

#[test]
fn going_on_without_end_is_told_once() {
    let mut rig = Rig::running(svc("web").retries(1).with(|s| {
        s.restart.after_max_retries = AfterMaxRetries::KeepTrying;
    }));
    for delay in [10.0, 300.0, 300.0, 300.0] {
        crash(&mut rig, "web");
        rig.pass(delay);
        rig.started("web");
    }
    let told = rig.alert_lines();
    let raised =
        |kind: &str| told.iter().filter(|line| line.starts_with("raised") && line.contains(kind)).count();
    assert_eq!((raised("without success"), raised("is down")), (1, 1), "{told:#?}");
}

#[test]
fn limits_are_told_before_they_are_reached() {
    let limits = Limits { memory_bytes: Some(100 << 20), ..Limits::default() };
    let mut rig = Rig::running(svc("web").with(|s| s.limits = limits));
    let memory = |mib: u64| Sample { memory: Some(mib << 20), ..Sample::default() };
    rig.lines();
    for mib in [50, 95, 96, 82, 70] {
        rig.pass(30.0);
        measured(&mut rig, "web", memory(mib));
    }
    assert_eq!(
        rig.alert_lines(),
        [
            "raised warning: web: memory is 95 MiB of 100 MiB, warned from 90 %; at the limit the kernel kills it",
            "resolved: web: memory is over after 1 min 30 s: it is well below its limit again",
        ]
    );
    assert_eq!(
        rig.lines(),
        [
            "web: memory is 95 MiB of 100 MiB, warned from 90 %; at the limit the kernel kills it",
            "web: memory is no longer near its limit",
        ]
    );
}

#[test]
fn an_oom_kill_is_told_until_it_ran_long_enough() {
    let mut rig = Rig::running(svc("web"));
    rig.exits("web", killed(9, ExitResult::OomKill));
    assert_eq!(open(&rig), "web/oom_kill");
    rig.pass(10.0);
    rig.up("web");
    rig.pass(59.0);
    assert_eq!(open(&rig), "web/oom_kill");
    rig.pass(2.0);
    assert_eq!(open(&rig), "");
    assert_eq!(
        rig.alert_lines(),
        [
            "raised error: web: the kernel killed it or a part of it for want of memory; it has no limit of its own, \
             so the host was short of memory",
            "resolved: web: oom_kill is over after 1 min 11 s: it ran for 1 min without another one",
        ]
    );
    // A part of it is killed, and it goes on.
    for kills in [0, 1] {
        measured(&mut rig, "web", Sample { oom_kills: Some(kills), ..Sample::default() });
    }
    assert_eq!(open(&rig), "web/oom_kill");
    rig.pass(61.0);
    assert_eq!(open(&rig), "");
}

#[test]
fn an_oom_kill_stays_told_for_as_long_as_it_is_down() {
    let slow = || svc("web").with(|s| s.restart.retry_delay = secs(600.0));
    let mut rig = Rig::running(slow());
    rig.exits("web", killed(9, ExitResult::OomKill));
    rig.pass(200.0);
    rig.reload(plan([slow().with(|s| s.description = "looked at again".into())]));
    assert_eq!((open(&rig).as_str(), rig.alert_lines().len()), ("web/oom_kill", 1));
}

#[test]
fn a_limit_that_the_last_daemon_saw_reached_is_not_told_again() {
    let limited = || svc("web").with(|s| s.limits.memory_bytes = Some(100 << 20));
    let memory = |mib: u64| Sample { memory: Some(mib << 20), ..Sample::default() };
    let mut rig = Rig::running(limited());
    measured(&mut rig, "web", memory(95));
    let run = rig.run("web").0;
    let made_from = limited();
    rig.alert_lines();
    rig.crash(plan([limited()]), [("web", unit(Activity::Active, run, &made_from))]);
    rig.pass(60.0);
    assert_eq!(rig.alert_lines(), [""; 0], "its figures stay until there are others");
    measured(&mut rig, "web", memory(96));
    assert_eq!(open(&rig), "web/memory");
    let told = "updated warning: web: memory is 96 MiB of 100 MiB, warned from 90 %; at the limit the kernel kills it";
    assert_eq!(rig.alert_lines(), [told]);
    measured(&mut rig, "web", memory(50));
    assert_eq!(open(&rig), "");
}

#[test]
fn what_the_last_daemon_told_is_not_told_again_and_what_is_over_is_resolved() {
    let both = || plan([svc("web"), svc("db")]);
    let mut rig = Rig::new(both());
    rig.up("web");
    rig.up("db");
    for name in ["web", "db"] {
        rig.exits(name, killed(9, ExitResult::OomKill));
    }
    rig.pass(10.0);
    rig.started("web");
    crash(&mut rig, "web");
    rig.up("db");
    rig.tell(Event::OwnTrouble { kind: AlertKind::Database, trouble: Some("the disk is full".into()) });
    let before = "-/database db/oom_kill web/down web/oom_kill";
    assert_eq!(open(&rig), before);
    let keys: Vec<_> = rig.alerts.keys().filter(|key| key.service.is_some()).cloned().collect();
    let run = rig.run("db").0;
    let made_from = svc("db");
    rig.crash(both(), [("db", unit(Activity::Active, run, &made_from))]);
    assert_eq!(rig.alerts.keys().cloned().collect::<Vec<_>>(), keys, "the same ones, and no other");
    rig.crash(plan([svc("web")]), []);
    assert_eq!(open(&rig), "web/down web/oom_kill");
}

#[test]
fn of_two_that_were_left_the_first_stays_and_trouble_that_lasts_is_not_over() {
    let full = || Event::OwnTrouble { kind: AlertKind::Database, trouble: Some("the disk is full".into()) };
    let mut rig = Rig::running(svc("web"));
    rig.exits("web", killed(9, ExitResult::OomKill));
    rig.tell(full());
    let before: Vec<_> = rig.alerts.keys().cloned().collect();
    let (first, alert) = rig.alerts.iter().find(|(key, _)| key.service.is_some()).unwrap();
    let second = (AlertKey { raised: Wall(first.raised.0 + 1), ..first.clone() }, alert.clone());
    rig.alerts.extend([second]);
    rig.engine = Engine::new(rig.now(), boot(BOOT), plan([svc("web")]), rig.records.clone())
        .with_open_alerts(rig.alerts.keys().cloned());
    rig.tell(full());
    rig.resync([]);
    assert_eq!(rig.alerts.keys().cloned().collect::<Vec<_>>(), before);
}

#[test]
fn a_short_loss_of_systemd_is_no_alert() {
    let lost = |rig: &mut Rig, trouble: Option<&str>| {
        rig.tell(Event::OwnTrouble { kind: AlertKind::Systemd, trouble: trouble.map(Into::into) });
    };
    let mut rig = Rig::running(svc("web"));
    lost(&mut rig, Some("the connection to systemd is lost"));
    rig.pass(9.0);
    lost(&mut rig, None);
    rig.pass(60.0);
    assert_eq!(rig.alert_lines(), NOTHING);
    lost(&mut rig, Some("the connection to systemd is lost"));
    rig.pass(11.0);
    lost(&mut rig, None);
    assert_eq!(
        rig.alert_lines(),
        [
            "raised error: the connection to systemd is lost",
            "resolved: the supervisor: systemd is over after 1 s: it works again",
        ]
    );
}
