//! Nothing is lost, whatever happens to the daemon, to systemd or to the bus.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::disk::Disk;
use super::{Daemon, SOON, script, sh, sleeper, wait_for, with};

#[test]
fn sigterm_leaves_services_running_and_the_next_daemon_adopts_them() {
    let mut daemon = Daemon::start(json!({"left": sleeper(), "by-hand": sleeper()}));
    let before = daemon.wait_state("left", "running");
    daemon.wait_state("by-hand", "running");
    daemon.ok(&["stop", "by-hand"]);
    daemon.signal("TERM");
    assert!(daemon.wait_for_end().success());
    assert_eq!(sh("systemctl is-active supervisor-left.service"), "active");
    daemon.launch();
    let after = daemon.service("left");
    assert_eq!((&after["pid"], &after["state"]), (&before["pid"], &json!("running")));
    assert!(daemon.events("left").iter().any(|event| event["event_type"] == "service_adopted"));
    assert_eq!(daemon.state("by-hand"), "stopped", "a manual stop outlasts the daemon");
    assert_eq!(after["start_time"], before["start_time"]);
}

#[test]
fn what_a_full_disk_did_not_take_outlasts_the_daemon() {
    let mut daemon = Daemon::prepared(json!({}));
    let disk = Disk::new(daemon.folder.join("disk"));
    daemon.configure_whole(json!({
        "supervisor": {"database": disk.database()},
        "services": {"full-stopped": sleeper(), "full-left": sleeper()},
    }));
    daemon.launch();
    let before = daemon.wait_state("full-left", "running");
    daemon.wait_state("full-stopped", "running");
    let aside = daemon.folder.join("runtime/unwritten.json");
    disk.fill();
    // Stopped all the same; what the command says of the database is not the matter here.
    drop(daemon.ctl(&["stop", "full-stopped"]));
    daemon.wait_state("full-stopped", "stopped");
    let kept = || std::fs::read_to_string(&aside).is_ok_and(|text| text.contains(r#""state":"stopped""#));
    wait_for("it is put aside", SOON, || kept().then_some(()));
    daemon.kill();
    daemon.launch();
    assert_eq!(daemon.state("full-stopped"), "stopped", "a manual stop outlasts the daemon");
    assert_eq!(daemon.service("full-left")["pid"], before["pid"]);
    let told = "the supervisor before this one could not write its database";
    assert!(daemon.log().contains(told), "{}", daemon.log());
    disk.free();
    wait_for("the database has it", SOON, || (!aside.exists()).then_some(()));
    daemon.kill();
    daemon.launch();
    assert_eq!(daemon.state("full-stopped"), "stopped");
}

#[test]
fn a_change_that_cannot_be_used_ends_nothing_that_runs() {
    let mut daemon = Daemon::start(json!({"prop": sleeper(), "user": sleeper(), "good": sleeper()}));
    let before = ["prop", "user", "good"].map(|id| daemon.wait_state(id, "running")["pid"].clone());
    daemon.kill();
    let changed = |user: &str| {
        json!({
            "prop": with(sleeper(), json!({"unit_properties": {"ProtectSystem": "sometimes"}})),
            "user": with(sleeper(), json!({"user": user})),
            "good": with(sleeper(), json!({"environment": {"NEW": "1"}})),
        })
    };
    daemon.configure(changed("nobody-has-this-name"));
    daemon.launch();
    wait_for("the good change is in force", SOON, || {
        let good = daemon.service("good");
        (good["state"] == "running" && good["pid"] != before[2]).then_some(())
    });
    for (id, pid, why) in [("prop", &before[0], "ProtectSystem"), ("user", &before[1], "there is no user")] {
        let service = daemon.wait_state(id, "running");
        assert_eq!(&service["pid"], pid, "{id}: {service}");
        let told = daemon.messages(id);
        assert!(told.iter().any(|m| m.contains("cannot be used") && m.contains(why)), "{told:#?}");
    }
    // Mended: now it is put in force.
    let mut mended = changed("nobody");
    mended["prop"]["unit_properties"]["ProtectSystem"] = json!("strict");
    daemon.configure(mended);
    daemon.ok(&["reload"]);
    for (id, pid) in [("prop", &before[0]), ("user", &before[1])] {
        wait_for("the new configuration is in force", SOON, || {
            let service = daemon.service(id);
            (service["state"] == "running" && service["pid"] != *pid).then_some(())
        });
    }
}

#[test]
fn a_name_that_leads_elsewhere_ends_nothing_that_runs() {
    let mut daemon = Daemon::prepared(json!({}));
    let (first, second) = (daemon.folder.join("first"), daemon.folder.join("second"));
    for folder in [&first, &second] {
        std::fs::create_dir(folder).unwrap();
    }
    std::fs::copy("/bin/sleep", second.join("napper")).unwrap();
    let search = format!("{}:{}", first.display(), second.display());
    daemon.configure(
        json!({"named": {"command": "napper", "args": ["1000000"], "environment": {"PATH": search},
            "restart_policy": {"retry_delay": 0.1}}}),
    );
    daemon.launch();
    let before = daemon.wait_state("named", "running");
    std::fs::copy("/bin/sleep", first.join("napper")).unwrap();
    daemon.kill();
    daemon.launch();
    assert_eq!(daemon.service("named")["pid"], before["pid"], "another file of that name is there");
    let report: Value = serde_json::from_str(&daemon.ok(&["--json", "reload"])).unwrap();
    assert_eq!(report["restarted"], json!([]), "{report}");
    for folder in [&first, &second] {
        std::fs::remove_file(folder.join("napper")).unwrap();
    }
    daemon.kill();
    daemon.launch();
    assert_eq!(daemon.service("named")["pid"], before["pid"], "no file of that name is there");
    // The next start takes what is there then.
    std::fs::copy("/bin/sleep", first.join("napper")).unwrap();
    daemon.ok(&["reload"]);
    sh(&format!("kill -9 {}", before["pid"]));
    let pid = wait_for("the next run", SOON, || {
        let service = daemon.service("named");
        (service["state"] == "running" && service["pid"] != before["pid"]).then(|| service["pid"].clone())
    });
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    assert_eq!(program, first.join("napper"));
}

#[test]
fn what_ended_while_nobody_watched_is_dealt_with() {
    let mut daemon = Daemon::prepared(json!({}));
    let go = daemon.folder.join("go");
    let until =
        |code: u8| script(&format!("while [ ! -e {} ]; do sleep 0.05; done; exit {code}", go.display()));
    daemon.configure(json!({
        "away-fail": with(until(7), json!({"restart_policy": {"retry_delay": 1000}})),
        "away-clean": until(0),
        "away-stopped": sleeper(),
        "away-changed": sleeper(),
        "away-removed": sleeper(),
    }));
    daemon.launch();
    for id in ["away-fail", "away-clean", "away-stopped", "away-changed", "away-removed"] {
        daemon.wait_state(id, "running");
    }
    let changed = daemon.pid_of("away-changed");
    daemon.kill();
    std::fs::write(&go, "").unwrap();
    sh("systemctl stop supervisor-away-stopped.service");
    wait_for("both ended", SOON, || {
        (sh("systemctl is-active supervisor-away-fail.service supervisor-away-clean.service | grep -cE '^(active|deactivating)' || true") == "0").then_some(())
    });
    daemon.configure(json!({
        "away-fail": with(until(7), json!({"restart_policy": {"retry_delay": 1000}})),
        "away-clean": until(0),
        "away-stopped": sleeper(),
        "away-changed": with(sleeper(), json!({"args": ["3000000"]})),
    }));
    daemon.launch();
    let failed = daemon.wait_state("away-fail", "backoff");
    assert_eq!((&failed["last_exit"]["code"], &failed["attempt"]), (&json!(7), &json!(1)), "{failed}");
    for id in ["away-clean", "away-stopped"] {
        assert_eq!(daemon.wait_state(id, "stopped")["restart_count"], 0, "{:#?}", daemon.messages(id));
        let noted = |event: &Value| event["event_type"] == "exited_unsupervised";
        assert!(daemon.events(id).iter().any(noted), "{:#?}", daemon.messages(id));
    }
    wait_for("the changed one is restarted", SOON, || {
        (daemon.state("away-changed") == "running" && daemon.pid_of("away-changed") != changed).then_some(())
    });
    wait_for("the removed one is stopped", SOON, || {
        (sh("systemctl is-active supervisor-away-removed.service || true") == "inactive").then_some(())
    });
}

/// It waits until systemd was asked, and the journal about a run that left nothing behind.
#[test]
fn an_order_to_a_supervisor_that_has_just_begun_is_about_what_is_true() {
    let mut daemon = Daemon::start(json!({"early": sleeper()}));
    let before = daemon.wait_state("early", "running")["pid"].as_u64().unwrap();
    daemon.kill();
    sh("systemctl stop supervisor-early.service");
    let programs = daemon.folder.join("programs");
    std::fs::create_dir(&programs).unwrap();
    std::fs::write(programs.join("journalctl"), "#!/bin/sh\nsleep 1\nexec /usr/bin/journalctl \"$@\"\n")
        .unwrap();
    sh(&format!("chmod +x {}/journalctl", programs.display()));
    daemon.programs = Some(programs);
    daemon.launch_only();
    let socket = daemon.folder.join("runtime/supervisor.sock");
    // Asked before it answers anybody.
    let mut stream = wait_for("it listens", SOON, || UnixStream::connect(&socket).ok());
    stream
        .write_all(b"POST /api/supervisor/services/early/start HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let now = daemon.service("early");
    assert!(answer.starts_with("HTTP/1.1 200 ") && now["state"] == "running", "{answer} {now}");
    assert!(now["pid"].as_u64().is_some_and(|pid| pid != before), "{answer} {now}");
}

/// 50 services, some of which crash all the time, and a daemon that is killed a hundred times.
#[test]
fn a_hundred_sigkills_lose_nothing() {
    const KILLS: u32 = 100;
    let mut services = Map::new();
    for n in 0..44 {
        services.insert(format!("calm-{n}"), sleeper());
    }
    for n in 0..6 {
        let policy =
            json!({"restart_policy": {"retry_delay": 0.05, "backoff_multiplier": 1, "max_retries": -1}});
        services.insert(format!("loop-{n}"), with(script("echo $$ >> $RUNS; sleep 0.1; exit 1"), policy));
    }
    let mut daemon = Daemon::prepared_alone(json!({}));
    let runs = |daemon: &Daemon, n: u32| daemon.folder.join(format!("runs-{n}"));
    for n in 0..6 {
        services[&format!("loop-{n}")]["environment"] = json!({"RUNS": runs(&daemon, n)});
    }
    daemon.configure(Value::Object(services.clone()));
    daemon.launch();
    let calm = |daemon: &Daemon| -> BTreeMap<String, u64> {
        let status = daemon.api("GET", "status").1;
        let all = status["services"].as_object().unwrap();
        all.iter()
            .filter(|(id, _)| id.starts_with("calm"))
            .map(|(id, s)| (id.clone(), s["pid"].as_u64().unwrap_or(0)))
            .collect()
    };
    let before =
        wait_for("all run", SOON, || Some(calm(&daemon)).filter(|pids| pids.values().all(|pid| *pid > 0)));
    let mut counts = [0u64; 6];
    let mut dice: u64 = 88_172_645_463_325_252;
    for kill in 0..KILLS {
        daemon.kill();
        match kill {
            25 => drop(sh("systemctl daemon-reload")),
            50 => drop(sh("systemctl daemon-reexec")),
            75 => drop(sh("systemctl restart dbus")),
            _ => {}
        }
        daemon.launch_only();
        // xorshift: anywhere from the first instruction to well after adoption.
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        std::thread::sleep(Duration::from_millis(dice % 400));
        if kill % 10 == 9 {
            daemon.wait_until_up();
            for (n, count) in counts.iter_mut().enumerate() {
                let now = daemon.service(&format!("loop-{n}"))["restart_count"].as_u64().unwrap();
                assert!(now >= *count, "loop-{n}: the count went back from {count} to {now}");
                *count = now;
            }
        }
    }
    daemon.kill();
    daemon.launch();
    assert_eq!(calm(&daemon), before, "every healthy service keeps its process");
    for (n, before) in counts.iter().enumerate() {
        let id = format!("loop-{n}");
        wait_for("it goes on crashing and being restarted", SOON, || {
            (daemon.service(&id)["restart_count"].as_u64()? > before + 2).then_some(())
        });
    }
    // They come to rest where every start that was counted had its time to leave its line: in a long backoff.
    for n in 0..6 {
        services[&format!("loop-{n}")]["restart_policy"]["retry_delay"] = json!(1000);
        services[&format!("loop-{n}")]["restart_policy"]["max_backoff"] = json!(1000);
    }
    daemon.configure(Value::Object(services));
    daemon.ok(&["reload"]);
    for n in 0..6 {
        let id = format!("loop-{n}");
        let service = wait_for("it rests", SOON, || {
            let service = daemon.service(&id);
            let resting =
                service["state"] == "backoff" && service["reason"].as_str()?.contains("16 min 40 s");
            resting.then_some(service)
        });
        let starts = super::lines(&runs(&daemon, n)).len() as u64;
        let restarts = service["restart_count"].as_u64().unwrap();
        assert_eq!(restarts, starts - 1, "{id}: every restart was counted, and none ran twice");
    }
}

#[test]
fn the_bus_the_manager_and_the_journal_may_be_restarted() {
    let mut daemon = Daemon::prepared_alone(json!({
        "shaken": with(sleeper(), json!({"resource_limits": {"max_memory_mb": 64}, "restart_policy": {"retry_delay": 0.1}})),
    }));
    daemon.launch();
    let before = daemon.wait_state("shaken", "running");
    for shake in [
        "systemctl restart dbus",
        "systemctl daemon-reload",
        "systemctl daemon-reexec",
        "systemctl restart systemd-journald",
    ] {
        sh(shake);
        wait_for("systemd answers", SOON, || {
            std::process::Command::new("systemctl").arg("show").output().ok()?.status.success().then_some(())
        });
        let now = daemon.wait_state("shaken", "running");
        assert_eq!(now["pid"], before["pid"], "after {shake}");
        assert_eq!(
            sh("systemctl show -P MemoryMax supervisor-shaken.service"),
            (64u64 << 20).to_string(),
            "after {shake}"
        );
    }
    // It still hears of deaths, and can still start and stop.
    sh(&format!("kill -9 {}", before["pid"]));
    wait_for("the restart", SOON, || {
        let now = daemon.service("shaken");
        (now["state"] == "running" && now["pid"] != before["pid"]).then_some(())
    });
    daemon.ok(&["restart", "shaken"]);
    daemon.ok(&["stop", "shaken"]);
}

#[test]
fn a_supervisor_starts_while_systemd_executes_itself_anew() {
    let mut daemon = Daemon::prepared_alone(json!({"meanwhile": sleeper()}));
    daemon.launch();
    let before = daemon.wait_state("meanwhile", "running");
    // systemd is away for tens of milliseconds, somewhere in the first ones of the supervisor.
    for _ in 0..8 {
        daemon.kill();
        let mut systemctl = std::process::Command::new("systemctl").arg("daemon-reexec").spawn().unwrap();
        daemon.launch();
        assert!(systemctl.wait().unwrap().success());
        assert_eq!(daemon.wait_state("meanwhile", "running")["pid"], before["pid"]);
    }
}

/// As `systemctl isolate graphical.target` or `init 3` do, which end what the target does not want.
#[test]
fn another_target_ends_no_service() {
    let mut daemon = Daemon::prepared_alone(json!({
        "isolated": sleeper(),
        "wished": with(sleeper(), json!({"unit_properties": {"IgnoreOnIsolate": false}})),
    }));
    daemon.launch();
    let before = daemon.wait_state("isolated", "running");
    daemon.wait_state("wished", "running");
    // Everything else is wanted, for the tests that follow.
    let units = sh("systemctl list-units --plain --no-legend --state=active,activating | cut -d' ' -f1");
    let wanted: String = units
        .lines()
        .filter(|unit| !unit.starts_with("supervisor-"))
        .map(|unit| format!("Wants={unit}\n"))
        .collect();
    let target = format!("[Unit]\nAllowIsolate=yes\n{wanted}");
    std::fs::write("/run/systemd/system/another-test.target", target).unwrap();
    sh("systemctl daemon-reload; systemctl isolate another-test.target");
    daemon.wait_state("wished", "stopped");
    let after = daemon.service("isolated");
    assert_eq!((&after["state"], &after["pid"]), (&json!("running"), &before["pid"]));
    sh(
        "systemctl stop another-test.target; rm /run/systemd/system/another-test.target; systemctl daemon-reload",
    );
}

/// A death in the moment in which the bus is away must not be missed.
#[test]
fn a_death_during_a_bus_restart_is_seen() {
    let mut daemon = Daemon::prepared_alone(json!({
        "missed": with(sleeper(), json!({"restart_policy": {"retry_delay": 0.1}})),
    }));
    daemon.launch();
    for _ in 0..3 {
        let before = daemon.wait_state("missed", "running");
        sh(&format!(
            "systemctl stop dbus.service; kill -9 {}; systemctl start dbus.socket dbus.service",
            before["pid"]
        ));
        wait_for("the restart", SOON, || {
            let now = daemon.service("missed");
            (now["state"] == "running" && now["pid"] != before["pid"]).then_some(())
        });
    }
}

#[test]
fn a_supervisor_that_starts_leaves_alone_what_another_is_starting() {
    let at_once = json!({"retry_delay": 0.01, "max_backoff": 0.01, "max_retries": -1});
    // One that ends well is forgotten by systemd, and a new unit each time.
    let busy = with(script("sleep 0.05"), json!({"restart_on_exit": true, "restart_policy": at_once}));
    let services: Map<String, Value> = (0..10).map(|n| (format!("anothers-{n}"), busy.clone())).collect();
    let one = Daemon::start(Value::Object(services));
    // It asks the journal about what ended while it was away, and then looks at all units once more.
    let its_own = with(sleeper(), json!({"restart_on_exit": true, "restart_policy": at_once}));
    let mut other = Daemon::prepared(json!({"its-own": its_own}));
    for _ in 0..25 {
        other.launch();
        wait_for("its own runs", SOON, || other.service("its-own")["pid"].as_u64());
        other.kill();
        sh("systemctl kill supervisor-its-own.service");
        let state = || sh("systemctl show -P ActiveState supervisor-its-own.service");
        wait_for("its own has ended", SOON, || (state() == "inactive").then_some(()));
    }
    let log = other.log();
    assert!(!log.contains("anothers-"), "{log}");
    let log = one.log();
    assert!(!log.contains("outside the supervisor"), "{log}");
}

#[test]
fn a_unit_of_somebody_else_is_left_alone_whatever_its_name() {
    let make = |id: &str| sh(&format!("systemd-run --quiet --unit=supervisor-{id}.service sleep 1000"));
    let pid = |id: &str| sh(&format!("systemctl show -P MainPID supervisor-{id}.service"));
    let mut daemon =
        Daemon::prepared(json!({"whose": sleeper(), "whose-late": sleeper(), "whose-not": sleeper()}));
    // Named above for the end of the test.
    daemon.configure(json!({"whose": sleeper(), "whose-late": sleeper()}));
    make("whose");
    make("whose-not");
    let before = (pid("whose"), pid("whose-not"));
    daemon.launch();
    let refused = "somebody else's unit of that name is up (see `systemctl status supervisor-whose.service`); \
                   give the service another id, or end that one (systemctl stop supervisor-whose.service)";
    daemon.wait_service("whose", refused, |service| {
        service["reason"].as_str().is_some_and(|reason| reason.contains(refused))
    });
    daemon.ok(&["stop", "whose"]);
    // A run that begins while the supervisor looks on.
    daemon.ok(&["stop", "whose-late"]);
    make("whose-late");
    sh("systemctl restart supervisor-whose-not.service");
    let late = (pid("whose-late"), pid("whose-not"));
    assert!(!daemon.ctl(&["start", "whose-late"]).status.success());
    daemon.kill();
    daemon.launch();
    assert_eq!(pid("whose"), before.0);
    assert_ne!(late.1, before.1);
    assert_eq!((pid("whose-late"), pid("whose-not")), late);
    for id in ["whose", "whose-late"] {
        assert_ne!(daemon.state(id), "running");
        let messages = daemon.messages(id);
        let claimed =
            |message: &&String| ["adopt", "outside", "left the"].iter().any(|part| message.contains(part));
        assert_eq!(messages.iter().find(claimed), None);
    }
    assert_eq!(daemon.messages("whose-not"), [""; 0]);
    sh("systemctl stop supervisor-whose.service");
    daemon.ok(&["start", "whose"]);
    assert_eq!(daemon.service("whose")["pid"].to_string(), pid("whose"));
}

#[test]
fn a_folder_of_any_name_will_do() {
    // systemd is reloaded: it reads its units from their files, and what stands in them is not what was said.
    let mut daemon = Daemon::prepared_alone(json!({}));
    daemon.folder.push(r"a b[c]\d*'e");
    std::fs::create_dir(&daemon.folder).unwrap();
    let file = daemon.folder.join("f.env");
    std::fs::write(&file, "FROM=file\n").unwrap();
    let variables = json!({"environment": {"NAME": "any"}, "environment_file": file});
    daemon.configure(json!({"any-name": with(sleeper(), variables)}));
    daemon.launch();
    let before = daemon.wait_state("any-name", "running");
    let environment = std::fs::read_to_string(format!("/proc/{}/environ", before["pid"])).unwrap();
    for wanted in ["NAME=any", "FROM=file"] {
        assert!(environment.split('\0').any(|variable| variable == wanted), "{environment}");
    }
    sh("systemctl daemon-reload");
    daemon.kill();
    daemon.launch();
    let after = daemon.wait_state("any-name", "running");
    assert_eq!((&after["pid"], &after["restart_count"]), (&before["pid"], &json!(0)));
}

#[test]
fn a_program_of_any_name_is_kept_over_a_reload_of_systemd() {
    let mut daemon = Daemon::prepared_alone(json!({}));
    let program = daemon.folder.join(r#"q"u'o$HOME;t\e %n"#);
    std::fs::copy("/bin/sleep", &program).unwrap();
    let service = json!({"command": program, "args": ["1000"], "restart_policy": {"retry_delay": 0.1}});
    daemon.configure(json!({"any-program": service}));
    daemon.launch();
    let before = daemon.wait_state("any-program", "running");
    sh("systemctl daemon-reload");
    daemon.kill();
    daemon.launch();
    let after = daemon.wait_state("any-program", "running");
    assert_eq!((&after["pid"], &after["restart_count"]), (&before["pid"], &json!(0)));
    // It ends, and comes back from a unit that systemd cannot read any more.
    sh(&format!("kill -9 {}", before["pid"]));
    daemon.wait_service("any-program", "restarted", |service| {
        service["state"] == "running" && service["restart_count"] == 1
    });
    sh("systemctl daemon-reload");
    daemon.ok(&["restart", "any-program"]);
    daemon.wait_state("any-program", "running");
}
