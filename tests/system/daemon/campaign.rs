//! Everything hostile at once, around services that must not notice, and a daemon that must not grow.
//!
//! ```text
//!  calm-*  answer for the whole time       -> same process, healthy
//!  evil-*  answer until the flag is there  -> unhealthy, each for its true reason, with an alert
//!  eaters  of tasks, memory, CPU           -> held at their limits, named as such
//!  disk    full, then free again           \  told once, nothing lost, nobody waits
//!  database  locked for ten seconds        /
//! ```
//!
//! A clock that is set is not tried here, where it would be everybody's: see
//! `a_wall_clock_that_is_set_changes_no_decision` in the core.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::alerts::alerts;
use super::disk::Disk;
use super::{Daemon, SOON, path, script, sh, sleeper, wait_for, with};

/// How a server goes wrong, what its check then says, and its port.
const EVIL: [(&str, &str, u16); 9] = [
    ("silent", "no answer within 400 ms", 18701),
    ("unaccepting", "no answer within 400 ms", 18702),
    ("trickle", "no answer within 400 ms", 18703),
    ("endless", "the expected content is not in the first 64 KiB", 18704),
    ("redirect", "more than 5 redirects", 18705),
    ("close", "no proper HTTP answer|connection reset", 18706),
    ("garbage", "no proper HTTP answer", 18707),
    ("exhausted", "no answer within 400 ms", 18708),
    ("certificate", "certificate", 18709),
];
const CALM: [(&str, u16); 2] = [("calm-http", 18710), ("calm-https", 18711)];

/// Of the daemon, with its probes in flight. The least of many looks: what only comes and goes is not growth.
#[derive(Debug, Clone, Copy)]
struct Figures {
    rss_kib: usize,
    descriptors: usize,
    sockets: usize,
    threads: usize,
    children: usize,
    time_wait: usize,
}

impl Figures {
    fn now(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let number = |key: &str| -> usize {
            let line = status.lines().find(|line| line.starts_with(key)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        let links: Vec<PathBuf> = fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
            .collect();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        Self {
            rss_kib: number("VmRSS:"),
            descriptors: links.len(),
            sockets: links.iter().filter(|link| link.starts_with("socket:") || is_socket(link)).count(),
            threads: number("Threads:"),
            children: children.split_whitespace().count(),
            time_wait: time_wait(),
        }
    }

    fn least(pid: u32) -> Self {
        let mut least = Self::now(pid);
        for _ in 0..100 {
            std::thread::sleep(Duration::from_millis(20));
            let now = Self::now(pid);
            least = Self {
                rss_kib: least.rss_kib.min(now.rss_kib),
                descriptors: least.descriptors.min(now.descriptors),
                sockets: least.sockets.min(now.sockets),
                threads: least.threads.min(now.threads),
                children: least.children.min(now.children),
                time_wait: least.time_wait.min(now.time_wait),
            };
        }
        least
    }

    /// 4 MiB for the caches of the allocator and of SQLite, two descriptors for a probe and a reader under way, and
    /// two threads of a pool that ends them after ten idle seconds.
    fn is_no_more_than(&self, before: &Self) -> bool {
        self.rss_kib <= before.rss_kib + 4096
            && self.descriptors <= before.descriptors + 2
            && self.sockets <= before.sockets + 2
            && self.threads <= before.threads + 2
            && self.children <= before.children
            && self.time_wait == 0
    }
}

fn is_socket(link: &Path) -> bool {
    link.to_string_lossy().starts_with("socket:[")
}

/// Connections with our servers in TIME_WAIT, on either side.
fn time_wait() -> usize {
    let ports: Vec<String> =
        EVIL.iter().map(|e| e.2).chain(CALM.map(|c| c.1)).map(|p| format!(":{p:04X}")).collect();
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let waits = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(3) == Some(&"06")
            && ports.iter().any(|port| fields[1].ends_with(port) || fields[2].ends_with(port))
    };
    table.lines().filter(waits).count()
}

fn certificate(folder: &Path) {
    sh(&format!(
        "cd {} && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
         -addext subjectAltName=DNS:localhost -keyout key -out cert 2>/dev/null",
        folder.display()
    ));
}

/// A server of `hostile.py`, probed every half second.
fn server(folder: &Path, mode: &str, port: u16, flag: &str, check: Value) -> Value {
    let file = |name: &str| folder.join(name).display().to_string();
    let mut args = vec![file("hostile.py"), mode.into(), port.to_string(), file(flag)];
    let secure = mode == "certificate";
    if secure {
        args.extend([file("cert"), file("key")]);
    }
    let scheme = if secure { "https" } else { "http" };
    let check = with(
        json!({"type": "http", "endpoint": format!("{scheme}://localhost:{port}/"), "interval": 0.5, "timeout": 0.4,
            "expected_content": "ok", "failure_threshold": 2}),
        check,
    );
    json!({"type": "notify", "command": "/usr/bin/python3", "args": args, "auto_restart": false,
        "health_check": check, "unit_properties": {"LimitNOFILE": "64", "TimeoutStartSec": "30"}})
}

fn services(folder: &Path) -> Value {
    let mut all = Map::new();
    // Patient: the machine is busy, and their answers are not late for want of trying.
    let calm = json!({"failure_threshold": 20});
    for (mode, _, port) in EVIL {
        all.insert(format!("evil-{mode}"), server(folder, mode, port, "flag", json!({})));
    }
    all.insert("calm-http".into(), server(folder, "calm", CALM[0].1, "no-flag", calm.clone()));
    let trusting = with(calm.clone(), json!({"tls_verify": false}));
    all.insert("calm-https".into(), server(folder, "certificate", CALM[1].1, "no-flag", trusting));
    let checked =
        |check: Value| with(sleeper(), json!({"health_check": with(check, json!({"interval": 0.5}))}));
    let tcp = json!({"type": "tcp", "host": "127.0.0.1", "port": CALM[0].1, "timeout": 0.4, "failure_threshold": 20});
    all.insert("calm-tcp".into(), with(checked(tcp), json!({"dependencies": ["calm-http"], "port": 1})));
    let exec = json!({"type": "exec", "command": "true", "timeout": 0.5, "failure_threshold": 20});
    all.insert("calm-exec".into(), checked(exec));
    let process = json!({"type": "process", "timeout": 0.5, "failure_threshold": 2});
    all.insert("frozen".into(), with(checked(process), json!({"restart_policy": {"retry_delay": 0.1}})));
    all.insert("victim".into(), with(sleeper(), json!({"restart_policy": {"retry_delay": 0}})));
    let python = |text: &str| json!({"command": "/usr/bin/python3", "args": ["-c", text]});
    let bomb = "import os, time
while True:
    try:
        if os.fork() == 0: time.sleep(1e6)
    except OSError: time.sleep(0.1)";
    all.insert(
        "bomb".into(),
        with(python(bomb), json!({"resource_limits": {"max_tasks": 20, "max_cpu_percent": 50}})),
    );
    let leak = "import time\nheld = []\nwhile True: held.append(bytearray(1 << 20)); time.sleep(0.02)";
    all.insert(
        "leak".into(),
        with(
            python(leak),
            json!({"resource_limits": {"max_memory_mb": 64}, "restart_policy": {"max_retries": 0}}),
        ),
    );
    let hog = json!({"resource_limits": {"max_cpu_percent": 20}});
    all.insert("hog".into(), with(script("while :; do :; done"), hog));
    Value::Object(all)
}

fn wait_health(daemon: &Daemon, id: &str, health: &str) {
    wait_for(&format!("{id} is {health}"), SOON, || (daemon.service(id)["health"] == health).then_some(()));
}

fn open_alert(daemon: &Daemon, id: &str, kind: &str) -> Value {
    wait_for(&format!("the alert {kind} of {id}"), SOON, || {
        alerts(daemon, false)
            .into_iter()
            .find(|alert| alert["service_id"] == id && alert["alert_type"] == kind)
    })
}

/// Each server that goes wrong is left running, and told for what it does.
fn evil_is_named(daemon: &Daemon) {
    for (mode, words, _) in EVIL {
        let id = format!("evil-{mode}");
        wait_health(daemon, &id, "unhealthy");
        assert_eq!(daemon.state(&id), "running", "{id}");
        let (_, health) = daemon.api("GET", &format!("services/{id}/health"));
        let message = health["checks"][0]["message"].as_str().unwrap().to_owned();
        assert!(words.split('|').any(|words| message.contains(words)), "{id}: {message}");
        let alert = open_alert(daemon, &id, "unhealthy");
        let told = alert["message"].as_str().unwrap();
        assert!(words.split('|').any(|words| told.contains(words)), "{alert}");
        assert!(!alert["details"]["last_probes"].as_array().unwrap().is_empty(), "{alert}");
    }
}

fn eaters_are_held(daemon: &Daemon) {
    let tasks = open_alert(daemon, "bomb", "tasks");
    assert!(tasks["message"].as_str().unwrap().contains("of 20"), "{tasks}");
    assert_eq!(daemon.state("bomb"), "running");
    open_alert(daemon, "hog", "cpu_throttled");
    assert_eq!(daemon.state("hog"), "running");
    let leak = daemon.wait_state("leak", "fatal");
    assert!(leak["reason"].as_str().unwrap().contains("out of memory, limit 64 MiB"), "{leak}");
    open_alert(daemon, "leak", "oom_kill");
    open_alert(daemon, "leak", "down");
}

fn a_frozen_one_is_restarted(daemon: &Daemon) {
    let before = daemon.pid_of("frozen");
    sh(&format!("kill -STOP {before}"));
    wait_for("the frozen one is restarted", SOON, || {
        let now = daemon.service("frozen");
        (now["state"] == "running" && now["pid"].as_u64() != Some(before)).then_some(())
    });
    let messages = daemon.messages("frozen");
    assert!(messages.iter().any(|m| m.contains("is stopped by a signal")), "{messages:#?}");
}

fn a_full_disk_is_told_and_over_once_there_is_room(daemon: &Daemon, disk: &Disk) {
    let told = |words: &str| daemon.log().contains(words).then_some(());
    wait_for("the full disk is told", SOON, || {
        disk.fill();
        told("cannot be written: database or disk is full")
    });
    crashes_are_dealt_with(daemon);
    disk.free();
    wait_for("it is told that there is room", SOON, || told("is written again after"));
    let own = wait_for("the database's alert is over", SOON, || {
        alerts(daemon, true)
            .into_iter()
            .find(|a| a["alert_type"] == "database" && !a["resolved_at"].is_null())
    });
    assert_eq!(own["service_id"], Value::Null, "{own}");
    let restarts = daemon.messages("victim").iter().filter(|m| m.contains("killed by signal 9")).count();
    assert!(restarts >= 1, "what happened meanwhile is in the history: {:#?}", daemon.messages("victim"));
}

fn a_locked_database_holds_nobody_up(daemon: &Daemon, database: &Path) {
    let lock = "import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20)
db.execute('BEGIN EXCLUSIVE')
print('locked', flush=True)
time.sleep(10)
db.execute('COMMIT')";
    let mut python = std::process::Command::new("/usr/bin/python3")
        .args(["-c", lock])
        .arg(database)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(python.stdout.as_mut().unwrap()), &mut line)
        .unwrap();
    assert_eq!(line, "locked\n");
    crashes_are_dealt_with(daemon);
    assert!(python.try_wait().unwrap().is_none(), "that was while it was locked");
    assert!(python.wait().unwrap().success());
}

/// Within a time in which nothing was waited for.
fn crashes_are_dealt_with(daemon: &Daemon) {
    for _ in 0..2 {
        let (before, begun) = (daemon.pid_of("victim"), Instant::now());
        sh(&format!("kill -9 {before}"));
        wait_for("the victim runs again", SOON, || {
            let now = daemon.service("victim");
            (now["state"] == "running" && now["pid"].as_u64() != Some(before)).then_some(())
        });
        // A second to be `running`, a quarter for the flush; the rest is for a busy machine.
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
}

#[test]
fn hostile_services_a_full_disk_and_a_lock_touch_nobody_else_and_leave_nothing_behind() {
    const STEADY: [&str; 4] = ["calm-http", "calm-https", "calm-tcp", "calm-exec"];
    let mut daemon = Daemon::prepared_alone(json!({}));
    let folder = daemon.folder.clone();
    fs::write(path(&daemon, "hostile.py"), include_str!("hostile.py")).unwrap();
    certificate(&folder);
    let disk = Disk::new(path(&daemon, "disk"));
    daemon.configure_whole(json!({
        "supervisor": {"metrics_interval": 1, "database": disk.database()}, "services": services(&folder),
    }));
    daemon.launch();
    for id in STEADY {
        wait_health(&daemon, id, "healthy");
    }
    for (mode, ..) in EVIL.iter().filter(|(mode, ..)| *mode != "certificate") {
        wait_health(&daemon, &format!("evil-{mode}"), "healthy");
    }
    let pids = STEADY.map(|id| daemon.pid_of(id));

    fs::write(path(&daemon, "flag"), "").unwrap();
    evil_is_named(&daemon);
    eaters_are_held(&daemon);
    a_frozen_one_is_restarted(&daemon);
    let before = Figures::least(daemon.pid());

    a_full_disk_is_told_and_over_once_there_is_room(&daemon, &disk);
    a_locked_database_holds_nobody_up(&daemon, &disk.database());
    evil_is_named(&daemon);
    let mut after = Figures::least(daemon.pid());
    let begun = Instant::now();
    while !after.is_no_more_than(&before) && begun.elapsed() < SOON {
        after = Figures::least(daemon.pid());
    }
    eprintln!("before: {before:?}\nafter:  {after:?}");
    assert!(after.is_no_more_than(&before), "the daemon grew: {before:?} to {after:?}");

    fs::remove_file(path(&daemon, "flag")).unwrap();
    for (mode, ..) in EVIL.iter().filter(|(mode, ..)| *mode != "certificate") {
        wait_health(&daemon, &format!("evil-{mode}"), "healthy");
    }
    wait_for("only what is still wrong is open", SOON, || {
        let mut open: Vec<String> =
            alerts(&daemon, false).iter().map(|a| a["service_id"].as_str().unwrap_or("-").into()).collect();
        open.retain(|id| !["bomb", "hog", "leak", "evil-certificate"].contains(&id.as_str()));
        open.is_empty().then_some(())
    });
    assert_eq!(STEADY.map(|id| daemon.pid_of(id)), pids, "the same processes");
    for id in STEADY {
        let service = daemon.service(id);
        assert_eq!(
            (&service["health"], &service["restart_count"]),
            (&json!("healthy"), &json!(0)),
            "{service}"
        );
        let fell =
            |event: &Value| event["event_type"] == "health_changed" && event["details"]["from"] != "unknown";
        let ill = daemon.events(id).into_iter().find(fell);
        assert_eq!(ill, None, "it was healthy all the time");
    }
}
