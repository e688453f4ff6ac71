//! Start order, gates, restarts, stops: what the restart policy promises, seen on real units.

use std::time::Duration;

use serde_json::json;

use super::{Daemon, SOON, lines, path, script, sh, sleeper, wait_for, with};

#[test]
fn dependencies_start_first_and_gate_on_readiness() {
    let mut daemon = Daemon::prepared(json!({}));
    let order = path(&daemon, "order");
    let gate = path(&daemon, "gate");
    let say = |name: &str| format!("echo {name} >> {}; exec sleep 1000000", order.display());
    // The database listens only once the gate file is there.
    let database = format!(
        "echo db >> {}; while [ ! -e {} ]; do sleep 0.05; done; exec python3 -m http.server --bind 127.0.0.1 18601",
        order.display(),
        gate.display()
    );
    daemon.configure(json!({
        "gating-web": with(script(&say("web")), json!({"dependencies": ["gating-db"], "priority": 1})),
        "gating-db": with(script(&database), json!({
            "health_check": {"type": "tcp", "host": "127.0.0.1", "port": 18601, "interval": 5, "timeout": 1, "failure_threshold": 20}})),
        "gating-early": with(script(&say("early")), json!({"priority": 2})),
    }));
    daemon.launch();
    daemon.wait_state("gating-early", "running");
    let web = daemon.service("gating-web");
    assert_eq!((&web["state"], &web["waiting_for"]), (&json!("stopped"), &json!(["gating-db"])));
    assert_eq!(daemon.state("gating-db"), "starting");
    std::fs::write(&gate, "").unwrap();
    daemon.wait_state("gating-web", "running");
    assert_eq!(daemon.state("gating-db"), "running");
    assert_eq!(lines(&order).last().unwrap(), "web", "the dependent starts last: {:?}", lines(&order));
    assert_eq!(daemon.service("gating-web")["waiting_for"], json!([]));
}

#[test]
fn delays_of_1_2_4_then_fatal_and_start_on_fatal() {
    let daemon = Daemon::start(json!({
        "delays": with(script("exit 3"), json!({"restart_policy": {"retry_delay": 1, "backoff_multiplier": 2, "max_retries": 3}})),
    }));
    let fatal = daemon.wait_state("delays", "fatal");
    assert_eq!(fatal["restart_count"], 3);
    assert_eq!(
        (&fatal["last_exit"]["code"], &fatal["last_exit"]["result"]),
        (&json!(3), &json!("exit-code"))
    );
    let (starts, backoffs) = (daemon.times("delays", "starting"), daemon.times("delays", "backoff"));
    let delays: Vec<i64> = backoffs.iter().zip(&starts[1..]).map(|(from, to)| to - from).collect();
    assert_eq!(delays.len(), 3, "{:#?}", daemon.messages("delays"));
    for (delay, promised) in delays.iter().zip([1000, 2000, 4000]) {
        assert!((promised..promised + 500).contains(delay), "promised {promised} ms, was {delay} ms");
    }
    let messages = daemon.messages("delays");
    let told = "-> backoff: exited with status 3; attempt 2 of 3, restart in 2 s";
    assert!(messages.iter().any(|m| m.ends_with(told)), "{messages:#?}");
    let starts = starts.len();
    let output = daemon.ctl(&["start", "delays"]);
    assert_eq!(output.status.code(), Some(1), "it fails again: {output:?}");
    let after = daemon.service("delays");
    assert_eq!(after["attempt"], 1, "attempts count from 0 again: {after}");
    assert_eq!(daemon.times("delays", "starting").len(), starts + 1);
}

#[test]
fn a_clean_exit_is_not_a_failure() {
    let daemon = Daemon::start(json!({
        "done": script("exit 0"),
        "again": with(script("sleep 1.2; exit 0"), json!({"restart_on_exit": true, "restart_policy": {"retry_delay": 0}})),
        "crash-no-restart": with(script("exit 1"), json!({"auto_restart": false})),
    }));
    let done = daemon.wait_state("done", "stopped");
    wait_for("the exit is noted", SOON, || daemon.service("done")["last_exit"]["code"].as_i64());
    assert_eq!(done["restart_count"], 0);
    wait_for("a clean exit restarted where asked", SOON, || {
        (daemon.service("again")["restart_count"].as_u64()? >= 2).then_some(())
    });
    daemon.wait_state("crash-no-restart", "failed");
    assert_eq!(daemon.state("done"), "stopped");
}

#[test]
fn a_stop_goes_from_term_to_kill_and_takes_grandchildren_along() {
    let mut daemon = Daemon::prepared(json!({}));
    let pids = path(&daemon, "pids");
    // The grandchild is forked twice and in a session of its own; nobody but the cgroup knows it.
    let stubborn = format!(
        "trap '' TERM; (setsid sh -c 'trap \"\" TERM; echo $$ >> {0}; while :; do sleep 1; done' &) ; echo $$ >> {0}; while :; do sleep 1; done",
        pids.display()
    );
    daemon.configure(json!({
        "stubborn": with(script(&stubborn), json!({"graceful_shutdown": {"timeout": 2}})),
        "polite": with(sleeper(), json!({"graceful_shutdown": {"timeout": 60}})),
        "at-once": with(script("trap '' TERM; while :; do sleep 1; done"), json!({"graceful_shutdown": {"enabled": false, "timeout": 60}})),
    }));
    daemon.launch();
    for id in ["stubborn", "polite", "at-once"] {
        daemon.wait_state(id, "running");
    }
    let pids = wait_for("both processes", SOON, || Some(lines(&pids)).filter(|l| l.len() == 2));
    let start = std::time::Instant::now();
    daemon.ok(&["stop", "stubborn"]);
    assert!(start.elapsed() >= Duration::from_secs(2), "TERM came first, and got its time");
    for pid in pids {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "{pid} survived the stop");
    }
    let start = std::time::Instant::now();
    daemon.ok(&["stop", "polite", "at-once"]);
    assert!(start.elapsed() < Duration::from_secs(20), "nobody waits for a timeout that is not needed");
    assert_eq!(daemon.service("at-once")["last_exit"]["signal"], 9);
}

#[test]
fn arguments_and_environment_arrive_to_the_byte() {
    let mut daemon = Daemon::prepared(json!({}));
    let (args, env) = (path(&daemon, "args"), path(&daemon, "env"));
    let nasty = [
        "$HOME",
        "${HOME}",
        "%n",
        "%%",
        "",
        " two words ",
        "new\nline",
        "quote\" and ' and \\ and `x`",
        "ärger ✓",
        "#no comment",
        "a=b;c",
        "\\x41",
    ];
    let dump = "import os,sys\nopen(sys.argv[1],'wb').write(b'\\0'.join(map(os.fsencode,sys.argv[3:])))\nopen(sys.argv[2],'wb').write(b'\\0'.join(os.environb[b'V%d'%i] for i in range(12)))\nimport time\ntime.sleep(1e6)";
    let mut all = vec!["-c".to_owned(), dump.into(), args.display().to_string(), env.display().to_string()];
    all.extend(nasty.iter().map(|s| (*s).to_owned()));
    let environment: serde_json::Map<_, _> =
        nasty.iter().enumerate().map(|(i, v)| (format!("V{i}"), json!(v))).collect();
    daemon.configure(
        json!({"bytes": {"command": "/usr/bin/python3", "args": all, "environment": environment}}),
    );
    daemon.launch();
    let expected = nasty.join("\0");
    for file in [args, env] {
        let seen = wait_for("the dump", SOON, || {
            std::fs::read(&file).ok().filter(|bytes| bytes.len() == expected.len())
        });
        assert_eq!(String::from_utf8(seen).unwrap(), expected);
    }
}

#[test]
fn a_memory_hog_is_killed_and_the_cause_is_named() {
    let daemon = Daemon::start(json!({
        "hog": {
            "command": "/usr/bin/python3", "args": ["-c", "x = []\nwhile True: x.append(bytearray(1 << 20))"],
            "resource_limits": {"max_memory_mb": 64}, "restart_policy": {"max_retries": 0}
        },
    }));
    let hog = daemon.wait_state("hog", "fatal");
    assert_eq!(hog["last_exit"]["result"], "oom-kill", "{hog}");
    let reason = hog["reason"].as_str().unwrap();
    assert!(reason.contains("out of memory, limit 64 MiB"), "{reason}");
    assert!(daemon.events("hog").iter().any(|event| event["event_type"] == "resource_limit"));
}

#[test]
fn a_failing_health_check_restarts_through_the_policy() {
    let mut daemon = Daemon::prepared(json!({}));
    let root = path(&daemon, "www");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("health"), "ok").unwrap();
    daemon.configure(json!({
        "sick": {
            "command": "python3", "args": ["-m", "http.server", "--bind", "127.0.0.1", "18602"],
            "working_directory": root,
            "health_check": {"type": "http", "endpoint": "http://127.0.0.1:18602/health", "interval": 0.5, "timeout": 0.4, "failure_threshold": 2},
            "restart_policy": {"retry_delay": 1, "max_retries": 5}
        },
    }));
    daemon.launch();
    let before = daemon.wait_state("sick", "running");
    assert_eq!(before["health"], "healthy");
    std::fs::remove_file(root.join("health")).unwrap();
    daemon.wait_state("sick", "backoff");
    std::fs::write(root.join("health"), "ok").unwrap();
    let after = daemon.wait_state("sick", "running");
    assert_ne!(after["pid"], before["pid"]);
    let messages = daemon.messages("sick");
    assert!(messages.iter().any(|m| m.contains("2 failed probes in a row: HTTP 404")), "{messages:#?}");
}

#[test]
fn what_systemctl_does_is_seen_and_told() {
    let daemon = Daemon::start(json!({"outside": sleeper()}));
    let before = daemon.wait_state("outside", "running");
    sh("systemctl restart supervisor-outside.service");
    wait_for("the new process", SOON, || {
        let now = daemon.service("outside");
        (now["state"] == "running" && now["pid"] != before["pid"]).then_some(())
    });
    sh("systemctl stop supervisor-outside.service");
    let stopped = daemon.wait_state("outside", "stopped");
    assert!(stopped["reason"].as_str().unwrap().contains("outside the supervisor"), "{stopped}");
    assert!(daemon.events("outside").iter().any(|event| event["event_type"] == "external_change"));
    daemon.ok(&["start", "outside"]);
    assert_eq!(daemon.state("outside"), "running");
    sh("kill -9 $(systemctl show -P MainPID supervisor-outside.service)");
    daemon.wait_state("outside", "backoff");
}
