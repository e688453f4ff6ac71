//! Checks of services that hang, and exec checks: as whom and where they run, and what is left of them.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Daemon, SOON, lines, path, sh, sleeper, wait_for, with};

fn exec_check(script: &str, more: Value) -> Value {
    with(json!({"type": "exec", "command": "sh", "args": ["-c", script]}), more)
}

/// A check that passes until `folder/hang` is there; then it hangs with a child in a session of its own, and neither
/// minds SIGTERM. Both write their pids into `folder/pids`.
fn hanging(folder: &Path, more: Value) -> Value {
    let script = format!(
        "cd {}; [ -e hang ] || exit 0; trap '' TERM HUP INT; echo $$ >> pids; \
         setsid sh -c 'trap \"\" TERM HUP INT; echo $$ >> pids; while :; do sleep 1; done' & \
         while :; do sleep 1; done",
        folder.display()
    );
    exec_check(&script, more)
}

/// Makes the check hang, and waits until it does.
fn hang(folder: &Path) -> Vec<String> {
    std::fs::write(folder.join("hang"), "").unwrap();
    let found = || Some(lines(&folder.join("pids"))).filter(|pids| pids.len() >= 2);
    wait_for("the check hangs", SOON, found)
}

fn gone(pids: &[String]) {
    let there = |pid: &String| Path::new("/proc").join(pid).exists();
    wait_for("the check is gone", SOON, || (!pids.iter().any(there)).then_some(()));
}

#[test]
fn an_exec_check_runs_as_the_service_and_under_its_limits() {
    let mut daemon = Daemon::prepared(json!({}));
    let seen = path(&daemon, "seen");
    std::fs::write(&seen, "").unwrap();
    sh(&format!("chmod 666 {}", seen.display()));
    let script = format!(
        "[ -s {0} ] || {{ id -un; pwd; echo $WORD; cat /proc/self/cgroup; }} > {0}; echo marker-of-the-check",
        seen.display()
    );
    daemon.configure(json!({
        "examined": with(sleeper(), json!({
            "user": "nobody", "working_directory": "/usr", "environment": {"WORD": "a $b"},
            "resource_limits": {"max_memory_mb": 64, "max_cpu_percent": 80, "max_tasks": 20},
            "health_check": exec_check(&script, json!({"interval": 0.2, "timeout": 0.2, "failure_threshold": 100}))
        })),
    }));
    daemon.launch();
    let running = daemon.wait_state("examined", "running");
    let text = std::fs::read_to_string(&seen).unwrap();
    let (about, groups) = text.split_at(text.find("a $b\n").unwrap() + 5);
    assert_eq!(about, "nobody\n/usr\na $b\n");
    let of_main = std::fs::read_to_string(format!("/proc/{}/cgroup", running["pid"])).unwrap();
    assert_eq!(groups, of_main, "the same limits hold");
    assert!(groups.contains("/supervisor-examined.service"));
    let messages = daemon.messages("examined");
    assert!(messages.iter().any(|m| m.contains("sh passes: marker-of-the-check")), "{messages:#?}");
    let journal = sh("journalctl --no-pager -o cat -u supervisor-examined.service");
    assert!(!journal.contains("marker-of-the-check"), "{journal}");
    // The unit's own processes, and nothing that a check left.
    wait_for("one task between two checks", SOON, || {
        (sh("systemctl show -P TasksCurrent supervisor-examined.service") == "1").then_some(())
    });
    assert_eq!(daemon.service("examined")["pid"], running["pid"]);
}

#[test]
fn an_exec_check_that_hangs_is_killed_whole_and_the_service_restarted() {
    let mut daemon = Daemon::prepared(json!({}));
    let check = hanging(&daemon.folder, json!({"interval": 2, "timeout": 1, "failure_threshold": 2}));
    let more = json!({"health_check": check, "restart_policy": {"retry_delay": 1000}});
    daemon.configure(json!({"hung-check": with(sleeper(), more)}));
    daemon.launch();
    daemon.wait_state("hung-check", "running");
    let pids = hang(&daemon.folder);
    gone(&pids[..2]);
    let after = daemon.wait_state("hung-check", "backoff");
    let reason = after["reason"].as_str().unwrap();
    assert!(reason.contains("2 failed probes in a row: /"), "{reason}");
    assert!(reason.contains("sh did not end within 1 s and was killed"), "{reason}");
    gone(&lines(&path(&daemon, "pids")));
}

/// What ends the service, or the daemon.
type End<'a> = &'a dyn Fn(&Daemon, &Value);

#[test]
fn a_check_that_hangs_holds_up_neither_a_stop_nor_the_news_of_a_crash() {
    let mut daemon = Daemon::prepared(json!({}));
    let check = hanging(&daemon.folder, json!({"interval": 60, "timeout": 60, "start_period": 1}));
    let more = json!({"health_check": check, "restart_policy": {"retry_delay": 1000}});
    daemon.configure(json!({"held-up": with(sleeper(), more)}));
    daemon.launch();
    let ends: [(&str, End); 4] = [
        ("stopped", &|daemon, _| drop(daemon.ok(&["stop", "held-up"]))),
        ("stopped", &|_, _| drop(sh("systemctl stop supervisor-held-up.service"))),
        ("backoff", &|_, service| drop(sh(&format!("kill -9 {}", service["pid"])))),
        ("running", &|daemon, _| daemon.signal("KILL")),
    ];
    for (state, end) in ends {
        for name in ["hang", "pids"] {
            drop(std::fs::remove_file(path(&daemon, name)));
        }
        daemon.ok(&["start", "held-up"]);
        let service = daemon.wait_state("held-up", "running");
        std::fs::write(path(&daemon, "hang"), "").unwrap();
        // A reload with another check asks at once.
        let check = hanging(
            &daemon.folder,
            json!({"interval": 61 + daemon.times("held-up", "running").len(), "timeout": 60}),
        );
        let more = json!({"health_check": check, "restart_policy": {"retry_delay": 1000}});
        daemon.configure(json!({"held-up": with(sleeper(), more)}));
        daemon.ok(&["reload"]);
        let pids = hang(&daemon.folder);
        let begun = Instant::now();
        end(&daemon, &service);
        gone(&pids);
        if state != "running" {
            daemon.wait_state("held-up", state);
        }
        // systemd would wait 30 s for what does not mind its signal.
        assert!(begun.elapsed() < Duration::from_secs(15), "{state}: {:?}", begun.elapsed());
    }
    assert_eq!(sh("systemctl is-active supervisor-held-up.service"), "active", "the service does not notice");
}

#[test]
fn a_service_that_is_stopped_by_a_signal_is_found_and_restarted() {
    let daemon = Daemon::start(json!({
        "frozen": {
            "command": "python3", "args": ["-m", "http.server", "--bind", "127.0.0.1", "18603"],
            "health_check": {"type": "http", "endpoint": "http://127.0.0.1:18603/", "interval": 0.5, "timeout": 0.4,
                "failure_threshold": 2, "fallback_check": {"type": "process"}},
            "restart_policy": {"retry_delay": 0.1, "max_retries": 5}
        },
    }));
    let before = daemon.wait_state("frozen", "running");
    sh(&format!("kill -STOP {}", before["pid"]));
    let told = wait_for("the failure", SOON, || {
        daemon.messages("frozen").into_iter().find(|m| m.contains("2 failed probes in a row"))
    });
    for part in [
        "no answer within 400 ms from http://127.0.0.1:18603/",
        "is stopped by a signal (SIGCONT lets it go on)",
    ] {
        assert!(told.contains(part), "{told}");
    }
    wait_for("the next run", SOON, || {
        let now = daemon.service("frozen");
        (now["state"] == "running" && now["pid"] != before["pid"]).then_some(())
    });
}
