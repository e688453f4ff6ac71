//! The real journal: systemd's field names, and what its own messages say about the ends of units.

use std::process::Command;
use std::time::{Duration, Instant};

use process_supervisor::core::Wall;
use process_supervisor::core::event::{ExitResult, InvocationId};
use process_supervisor::core::plan::Id;
use process_supervisor::journal::{
    Ended, JournalError, LogLine, LogRequest, follow, last_exit, last_exits, query,
};
use process_supervisor::place::Scope;

use crate::harness::{Pipe, shared};

const LONG: Duration = Duration::from_secs(20);

fn request(service: &str) -> LogRequest {
    LogRequest {
        service: Id::new(service).unwrap(),
        unit: format!("supervisor-{service}.service"),
        lines: 100,
        since: None,
        until: None,
        text: None,
        priority: None,
        before: None,
        after: None,
    }
}

/// Runs `script` as a unit of the service manager and waits for its end, if `wait`; gives its invocation.
fn unit(service: &str, wait: bool, script: &str) -> InvocationId {
    let name = format!("supervisor-{service}.service");
    // Its exit status is that of the unit, which may fail.
    Command::new("systemd-run")
        .args(["--quiet", "--service-type=exec", &format!("--unit={name}"), "--description=a test"])
        .args(wait.then_some("--wait"))
        .arg(format!("--property=LogExtraFields=SUPERVISOR_SERVICE={service}"))
        // Tells the invocation, and that it has begun.
        .args(["/bin/sh", "-c", &format!("echo run $INVOCATION_ID; {script}")])
        .status()
        .unwrap();
    let deadline = Instant::now() + LONG;
    loop {
        assert!(Instant::now() < deadline);
        assert!(Command::new("journalctl").arg("--sync").status().unwrap().success());
        let said = Command::new("journalctl").args(["--output=cat", "-u", &name]).output().unwrap();
        let said = String::from_utf8_lossy(&said.stdout);
        if let Some(id) = said.lines().filter_map(|line| line.strip_prefix("run ")).next_back() {
            return InvocationId::try_from(id.to_owned()).unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn systemctl(args: &[&str]) {
    assert!(Command::new("systemctl").args(args).status().unwrap().success());
    assert!(Command::new("journalctl").arg("--sync").status().unwrap().success());
}

fn messages(lines: &[LogLine]) -> Vec<&str> {
    lines.iter().map(|line| line.message.as_str()).filter(|text| !text.starts_with("run ")).collect()
}

#[tokio::test]
async fn the_real_journal_is_queried() {
    let _turn = shared();
    let script = r#"for n in 1 2 3 4 5; do echo line $n; done; printf 'a\377b\n'; echo 'Needle' >&2; head -c 9000 /dev/zero | tr '\0' z; echo"#;
    unit("query", true, script);
    unit("other", true, "echo not ours");
    let all = query(Scope::System, &request("query")).await.unwrap();
    let texts = messages(&all);
    // On another way into the journal than the lines of the service, so before or among them.
    assert!(texts.iter().any(|text| text.starts_with("Started")), "systemd's own: {texts:?}");
    for text in ["line 1", "line 5", "a\u{fffd}b", "Needle", &"z".repeat(9000)] {
        assert_eq!(texts.iter().filter(|t| **t == text).count(), 1, "{text}");
    }
    assert!(texts.iter().any(|text| text.contains("Deactivated successfully")));
    assert!(!texts.contains(&"not ours"));
    assert!(all.is_sorted_by_key(|line| line.at));
    assert!(all.iter().all(|line| line.pid.is_some() && line.priority.is_some()));

    let newest = query(Scope::System, &LogRequest { lines: 2, ..request("query") }).await.unwrap();
    assert_eq!(newest, all[all.len() - 2..]);
    for (text, expected) in [
        ("needle", &["Needle"][..]),
        ("Needle", &["Needle"]),
        ("NEEDLE", &[]),
        ("line [24]", &[]),
        ("line ", &["line 4", "line 5"]),
    ] {
        let asked = LogRequest { text: Some(text.into()), lines: 2, ..request("query") };
        assert_eq!(messages(&query(Scope::System, &asked).await.unwrap()), expected, "{text}");
    }
    let wrong = LogRequest { before: Some("nonsense".into()), ..request("query") };
    assert!(
        matches!(query(Scope::System, &wrong).await, Err(JournalError::Failed(said)) if said.contains("cursor"))
    );

    let place = all.iter().position(|line| line.message == "line 3").unwrap();
    let after = LogRequest { after: Some(all[place].cursor.clone()), ..request("query") };
    assert_eq!(query(Scope::System, &after).await.unwrap(), all[place + 1..]);
    let some = LogRequest { lines: 2, ..after };
    assert_eq!(query(Scope::System, &some).await.unwrap(), all[place + 1..place + 3]);
    let before = LogRequest { before: Some(all[place].cursor.clone()), ..request("query") };
    assert_eq!(query(Scope::System, &before).await.unwrap(), all[..place]);
    let some = LogRequest { lines: 2, ..before };
    assert_eq!(query(Scope::System, &some).await.unwrap(), all[place - 2..place]);
    for (lines, expected) in [(100, &["line 4", "line 5"][..]), (1, &["line 4"])] {
        let text = Some("line".into());
        let asked = LogRequest { text, lines, after: Some(all[place].cursor.clone()), ..request("query") };
        assert_eq!(messages(&query(Scope::System, &asked).await.unwrap()), expected);
    }
    let since = LogRequest { since: Some(all[place].at), ..request("query") };
    let found = query(Scope::System, &since).await.unwrap();
    assert!(found.iter().all(|line| line.at >= all[place].at) && found.contains(&all[place]));
    let newest = LogRequest { since: Some(all[0].at), lines: 1, ..request("query") };
    assert_eq!(query(Scope::System, &newest).await.unwrap(), all[all.len() - 1..]);
    let future = LogRequest { since: Some(Wall(all[0].at.0 + 3_600_000)), ..request("query") };
    assert_eq!(query(Scope::System, &future).await.unwrap(), []);
    assert_eq!(query(Scope::System, &request("never-ran")).await.unwrap(), []);
}

#[tokio::test]
async fn the_real_journal_is_followed() {
    let _turn = shared();
    let folder = tempfile::tempdir().unwrap();
    let mut pipe = Pipe::new(folder.path());
    unit("follow", false, &pipe.script());
    let soon = Wall(jiff::Timestamp::now().as_millisecond());
    let mut follow = follow(Scope::System, &LogRequest { since: Some(soon), ..request("follow") }).unwrap();
    let deadline = Instant::now() + LONG;
    // Said until it is heard: the follower may begin later than the first.
    loop {
        assert!(Instant::now() < deadline);
        pipe.say("one");
        if let Ok(line) = tokio::time::timeout(Duration::from_millis(200), follow.next()).await {
            assert_eq!(line.unwrap().unwrap().message, "got one");
            break;
        }
    }
    pipe.say("two");
    loop {
        let line = tokio::time::timeout(LONG, follow.next()).await.unwrap().unwrap().unwrap();
        match line.message.as_str() {
            "got one" => {}
            other => break assert_eq!(other, "got two"),
        }
    }
    systemctl(&["stop", "supervisor-follow.service"]);
}

#[tokio::test]
async fn real_ends_are_told() {
    let _turn = shared();
    let zero = unit("zero", true, "exit 0");
    let three = unit("three", true, "exit 3");
    let killed = unit("killed", true, "kill -9 $$$$");
    let stopped = unit("stopped", false, "exec sleep 600");
    let restarted = unit("restarted", false, "exec sleep 600");
    let running = unit("running", false, "exec sleep 600");
    let stubborn = unit("stubborn", false, "trap '' TERM; while :; do sleep 0.1; done");
    systemctl(&["stop", "supervisor-stopped.service"]);
    systemctl(&["restart", "supervisor-restarted.service"]);
    systemctl(&["kill", "--signal=SEGV", "supervisor-stubborn.service"]);
    let runs = [zero, three, killed, stopped, restarted, running, stubborn, InvocationId(1)];
    let deadline = Instant::now() + LONG;
    let ended = loop {
        let ended = last_exits(Scope::System, &runs).await;
        if ended.contains_key(&stubborn) {
            break ended;
        }
        assert!(Instant::now() < deadline, "{ended:?}");
    };
    let told = |run| {
        ended.get(&run).map(|e: &Ended| (e.exit.code, e.exit.signal, e.exit.result.clone(), e.stopped_by_job))
    };
    assert_eq!(told(zero), Some((None, None, ExitResult::Success, false)));
    assert_eq!(told(three), Some((Some(3), None, ExitResult::ExitCode, false)));
    assert_eq!(told(killed), Some((None, Some(9), ExitResult::Signal, false)));
    assert_eq!(told(stopped), Some((None, None, ExitResult::Success, true)));
    assert_eq!(told(restarted), Some((None, None, ExitResult::Success, true)));
    assert_eq!(told(running), None);
    assert_eq!(told(InvocationId(1)), None);
    let (code, signal, result, job) = told(stubborn).unwrap();
    assert!(code.is_none() && signal == Some(11) && !job, "{result}");
    assert!(matches!(result, ExitResult::Signal | ExitResult::CoreDump), "{result}");
    assert_eq!(last_exit(Scope::System, three).await.unwrap().exit.code, Some(3));
    systemctl(&["stop", "supervisor-running.service", "supervisor-restarted.service"]);
}
