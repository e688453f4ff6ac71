//! Another configuration.

use super::*;
use State::{Fatal, Running, Starting, Stopped, Stopping};

#[test]
fn only_what_changed_is_touched() {
    let others = || [svc("a"), svc("b").tcp(), svc("idle").disabled()];
    #[rustfmt::skip]
    let table: Vec<(&str, ServicePlan, &[&str])> = vec![
        ("nothing", svc("web"), &[]),
        ("program", svc("web").args("-v"), &["stop web"]),
        ("a secret", svc("web").with(|s| {
            s.exec.environment.insert("KEY".into(), Secret("x".into()));
        }), &["stop web"]),
        ("limits", svc("web").with(|s| s.limits.memory_bytes = Some(1)), &["limits web"]),
        ("critical", svc("web").with(|s| s.critical = true), &["limits web"]),
        ("health", svc("web").with(|s| s.health.interval = secs(5.0)), &["probe web"]),
        ("policy", svc("web").retries(1), &[]),
        ("dependencies", svc("web").needs("idle"), &[]),
        ("priority", svc("web").with(|s| s.priority = 1), &[]),
        ("enabled", svc("web").disabled(), &["stop web"]),
        ("words", svc("web").with(|s| s.description = "the web".into()), &[]),
    ];
    for (what, web, effects) in table {
        let mut rig = Rig::new(plan(others().into_iter().chain([svc("web")])));
        for name in ["a", "b", "web"] {
            rig.up(name);
        }
        rig.lines();
        assert_eq!(rig.reload(plan(others().into_iter().chain([web]))), effects, "{what}");
        let first = rig.lines().remove(0);
        let expected = match what {
            "nothing" => "configuration read again, asked for by alice; no service changed",
            _ => "configuration read again, asked for by alice; 0 added, 0 removed, 1 changed",
        };
        assert_eq!(first, expected, "{what}");
        if rig.state("web") == Stopping {
            let after = rig.stopped("web");
            assert_eq!(after, if what == "enabled" { vec![] } else { vec!["start web"] }, "{what}");
        }
    }
}

#[test]
fn what_is_of_no_service_is_told_too() {
    let now = || plan([svc("web")]);
    let more = Plan { max_concurrent_starts: std::num::NonZeroUsize::new(3), ..now() };
    let grouped = Plan { groups: [(id("shop"), GroupPlan { limits: Limits::default() })].into(), ..now() };
    let did = "; groups or max_concurrent_starts changed";
    for (new, told) in [(now(), ""), (more, did), (grouped, did)] {
        let mut rig = Rig::running(svc("web"));
        rig.lines();
        assert_eq!(rig.reload(new), NOTHING);
        let line = format!("configuration read again, asked for by alice; no service changed{told}");
        assert_eq!(rig.lines(), [line]);
    }
}

#[test]
fn a_name_that_leads_elsewhere_is_no_other_program() {
    let at = |program: &str, command: &str| {
        svc("web").with(|s| (s.exec.program, s.exec.command) = (program.into(), command.into()))
    };
    let now = || at("/usr/bin/web-1", "web");
    for (new, effects) in
        [(at("/usr/bin/web-2", "web"), &[][..]), (at("/usr/bin/web-1", "web-1"), &["stop web"])]
    {
        let mut rig = Rig::running(now());
        assert_eq!(rig.reload(plan([new])), effects);
    }
}

#[test]
fn groups_have_their_services_in_the_order_of_starts() {
    let in_shop = |s: ServicePlan| s.with(|s| s.groups = vec![id("shop")]);
    let group = |name| (id(name), GroupPlan { limits: Limits::default() });
    let grouped = Plan {
        groups: [group("shop"), group("empty")].into(),
        ..plan([in_shop(svc("a").needs("z")), in_shop(svc("z")), svc("alone")])
    };
    let mut rig = Rig::new(grouped);
    let of = |rig: &mut Rig, group: &str| rig.engine.snapshot().groups.get(&id(group)).cloned();
    assert_eq!(of(&mut rig, "shop"), Some(vec![id("z"), id("a")]));
    assert_eq!(of(&mut rig, "empty"), Some(vec![]));
    rig.reload(plan([svc("alone")]));
    assert_eq!(of(&mut rig, "empty"), None);
}

#[test]
fn added_and_removed() {
    let mut rig = Rig::new(plan([svc("db"), svc("web").needs("db"), svc("down").disabled()]));
    rig.up("db");
    rig.up("web");
    rig.lines();
    assert_eq!(rig.reload(plan([svc("new")])), ["stop web", "start new", "release down", "forget down"]);
    assert_eq!(rig.stopped("web"), ["stop db", "release web", "forget web"]);
    assert_eq!(rig.stopped("db"), ["release db", "forget db"]);
    assert_eq!(rig.engine.graph.order, [id("new")]);
    let lines = rig.lines();
    assert_eq!(lines[0], "configuration read again, asked for by alice; 1 added, 3 removed, 0 changed");
    for line in [
        "web: left the configuration; to be stopped and forgotten",
        "down: left the configuration; forgotten",
        "new: new in the configuration",
        "web: running -> stopping: it left the configuration; sent SIGTERM, SIGKILL after 30 s",
    ] {
        assert!(lines.iter().any(|l| l == line), "{line}\nnot in {lines:#?}");
    }
}

#[test]
fn one_that_comes_back_before_it_is_gone_is_started_again() {
    let mut rig = Rig::running(svc("web"));
    rig.reload(plan([]));
    let order = rig.start("web");
    assert_eq!(rig.answer(order), Some((false, "web: not done: it left the configuration")));
    assert_eq!(rig.reload(plan([svc("web")])), NOTHING);
    assert_eq!(rig.stopped("web"), ["start web"]);
}

#[test]
fn enabled_on_and_off() {
    let (on, off) = (|| plan([svc("web")]), || plan([svc("web").disabled()]));
    let mut rig = Rig::new(off());
    assert_eq!(rig.reload(on()), ["start web"]);
    rig.up("web");
    assert_eq!(rig.reload(off()), ["stop web"]);
    assert_eq!(rig.reload(on()), NOTHING, "while it is being stopped");
    assert_eq!(rig.stopped("web"), ["start web"]);
    rig.up("web");
    // A stop by hand holds over that.
    rig.stop("web");
    rig.stopped("web");
    rig.reload(off());
    assert_eq!(rig.reload(on()), NOTHING);
    // One that is off and changes otherwise is not turned off again.
    let mut rig = Rig::new(off());
    rig.lines();
    assert_eq!(rig.reload(plan([svc("web").disabled().with(|s| s.priority = 3)])), NOTHING);
    assert_eq!(rig.lines(), ["configuration read again, asked for by alice; 0 added, 0 removed, 1 changed"]);
    // One that a person started although it is disabled goes on.
    let mut rig = Rig::new(off());
    rig.start("web");
    rig.up("web");
    assert_eq!(rig.reload(plan([svc("web").disabled().with(|s| s.priority = 3)])), NOTHING);
    assert_eq!(rig.state("web"), Running);
}

#[test]
fn turned_off_while_it_waits_or_is_in_trouble() {
    let services = |web: ServicePlan| plan([svc("db").tcp(), web.needs("db")]);
    let mut rig = Rig::new(services(svc("web")));
    let order = rig.start("web");
    rig.reload(services(svc("web").disabled()));
    let words = "web is stopped: disabled in the configuration";
    assert_eq!(rig.answer(order), Some((false, words)));
    assert_eq!(rig.view("web").waiting_for, []);
    rig.up("db");
    assert_eq!(rig.state("web"), Stopped);

    for retries in [0, 5] {
        let mut rig = Rig::running(svc("web").retries(retries));
        rig.exits("web", exited(1));
        rig.reload(plan([svc("web").retries(retries).disabled()]));
        assert_eq!((rig.state("web"), rig.pass(3600.0)), (Stopped, vec![]));
    }
}

#[test]
fn one_that_leaves_while_somebody_waits_for_it_says_so() {
    let mut rig = Rig::new(plan([svc("db").tcp(), svc("web").needs("db")]));
    let order = rig.start("web");
    rig.reload(plan([svc("db").tcp()]));
    assert_eq!(rig.answer(order), Some((false, "web: it left the configuration")));
}

#[test]
fn a_stop_that_a_comeback_overtakes_is_answered_as_such() {
    let mut rig = Rig::running(svc("web"));
    let order = rig.stop("web");
    rig.reload(plan([]));
    rig.reload(plan([svc("web")]));
    assert_eq!(rig.answer(order), Some((false, "web: it came back into the configuration")));
    assert_eq!(rig.stopped("web"), ["start web"]);
    // Another change is none.
    rig.up("web");
    let order = rig.stop("web");
    rig.reload(plan([svc("web").with(|s| s.priority = 3)]));
    assert_eq!(rig.answer(order), None);
    rig.stopped("web");
    assert_eq!(rig.answer(order).map(|(done, _)| done), Some(true));
}

#[test]
fn another_program_is_another_chance() {
    for retries in [0, 1] {
        let mut rig = Rig::running(svc("web").retries(retries));
        rig.exits("web", exited(1));
        rig.lines();
        let renamed = svc("web").retries(retries).with(|s| s.name = "Web".into());
        assert_eq!(rig.reload(plan([renamed])), NOTHING);
        assert_eq!(rig.attempt("web"), retries, "another name mends nothing");
        assert_eq!(rig.reload(plan([svc("web").retries(retries).args("-v")])), ["start web"]);
        let line = rig.lines().pop().unwrap();
        assert!(line.ends_with("-> starting: its configuration changed; ready after 1 s"), "{line}");
        assert_eq!(rig.attempt("web"), 0);
    }
}

#[test]
fn what_makes_it_ready_may_change_while_it_starts() {
    let mut rig = Rig::new(plan([svc("web").tcp()]));
    rig.started("web");
    rig.reload(plan([svc("web")]));
    rig.pass(1.0);
    assert_eq!(rig.state("web"), Running);

    let mut rig = Rig::new(plan([svc("web")]));
    rig.started("web");
    assert_eq!(rig.reload(plan([svc("web").tcp()])), ["probe web"]);
    rig.pass(1.0);
    assert_eq!(rig.state("web"), Starting, "age says nothing now");
    rig.probed("web", true);
    assert_eq!(rig.state("web"), Running);
}

#[test]
fn a_gate_that_goes_lets_those_behind_it_through() {
    let mut rig = Rig::new(plan([svc("db").tcp().retries(0), svc("web").needs("db")]));
    rig.start_answer("db", Err(failure("no such file")));
    assert_eq!(rig.state("db"), Fatal);
    assert_eq!(rig.reload(plan([svc("db").tcp().retries(0), svc("web")])), ["start web"]);
}

#[test]
fn the_old_unit_of_one_that_is_down_is_forgotten_when_its_program_changes() {
    let mut rig = Rig::running(svc("web"));
    rig.stop("web");
    rig.stopped("web");
    assert_eq!(rig.reload(plan([svc("web").retries(1)])), NOTHING);
    assert_eq!(rig.reload(plan([svc("web").retries(1).args("-v")])), ["release web"]);
}

#[test]
fn a_unit_that_somebody_starts_after_its_service_left_is_stopped() {
    let mut rig = Rig::new(plan([svc("web"), svc("db")]));
    rig.up("web");
    rig.reload(plan([svc("db")]));
    rig.stopped("web");
    rig.lines();
    assert_eq!(rig.appeared("web", 77), ["stop web"]);
    assert_eq!(
        rig.lines(),
        [
            "web: started outside the supervisor (systemctl start) after it left the configuration; its unit is stopped"
        ]
    );
    assert_eq!(rig.appeared("stranger", 78), [""; 0], "a unit of a person's own");
    rig.reload(plan([svc("db"), svc("web")]));
    assert_eq!(rig.appeared("web", 79), [""; 0], "a service again");
}
