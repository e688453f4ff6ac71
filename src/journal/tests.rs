//! With programs in journalctl's place, and with the real one.

use std::time::Instant;

use super::process::Journalctl;
use super::*;

const LONG: Duration = Duration::from_secs(20);

fn script(text: &str) -> Journalctl {
    Journalctl::spawn_as("/bin/sh", &["-c".into(), text.into()]).unwrap()
}

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

/// A script that prints an entry.
fn entry(message: &str) -> String {
    format!(r#"echo '{{"__CURSOR":"c","__REALTIME_TIMESTAMP":"1000","MESSAGE":"{message}"}}'"#)
}

#[tokio::test]
async fn lines_come_as_they_are_written_and_garbage_is_passed_over() {
    let mut child =
        script(&format!("{}; echo '-- No entries --'; echo; {}; printf unfinished", entry("a"), entry("b")));
    let mut messages = Vec::new();
    while let Some(line) = child.next_line().await.unwrap() {
        messages.push(line.message);
    }
    assert_eq!(messages, ["a", "b"]);
    assert_eq!(child.finish().await.unwrap(), None);
}

#[tokio::test]
async fn a_line_without_end_is_bounded_and_noted() {
    let huge = "head -c 5000000 /dev/zero | tr '\\0' x; echo";
    let mut child = script(&format!("{}; {huge}; {}", entry("a"), entry("b")));
    let mut messages = Vec::new();
    while let Some(line) = child.next_line().await.unwrap() {
        messages.push(line.message);
    }
    assert_eq!(messages, ["a", "[a line of more than 1 MiB is left out here]", "b"]);
}

#[tokio::test]
async fn a_reader_that_is_dropped_while_it_waits_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let go = folder.path().join("go");
    let start = entry("a").replace("echo '", "printf '").replace("\"}'", "'");
    let wait = format!("until [ -e {} ]; do sleep 0.01; done", go.display());
    let mut follow = Follow::new(script(&format!("{start}; {wait}; {}", r#"echo '"}'"#)));
    // Long enough for the first half of the line to be read before the wait is given up.
    let half = tokio::time::timeout(Duration::from_millis(200), follow.next()).await;
    assert!(half.is_err(), "{half:?}");
    std::fs::write(&go, "").unwrap();
    let line = tokio::time::timeout(LONG, follow.next()).await.unwrap();
    assert_eq!(line.unwrap().unwrap().message, "a");
    assert!(follow.next().await.is_none());
    assert!(follow.next().await.is_none(), "the end stays the end");
}

#[tokio::test]
async fn failures_are_told_in_journalctls_words() {
    for (text, expected) in [
        ("echo 'Failed to open: no' >&2; exit 1", "journalctl says: Failed to open: no"),
        ("exit 3", "journalctl says: exit status: 3"),
        // More than a pipe holds.
        ("head -c 300000 /dev/zero | tr '\\0' e >&2; exit 1", "journalctl says: eeee"),
    ] {
        let mut child = script(text);
        assert!(child.next_line().await.unwrap().is_none());
        let error = child.finish().await.unwrap_err().to_string();
        assert!(error.starts_with(expected) && error.len() < 5000, "{error}");
    }
    let missing = Journalctl::spawn_as("/no/such/journalctl", &[]).unwrap_err().to_string();
    assert!(missing.contains("PATH"), "{missing}");
    // `--grep` without a match.
    assert!(script("exit 1").finish().await.unwrap().is_none());
}

#[tokio::test]
async fn a_journalctl_that_hangs_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let pid_file = folder.path().join("pid");
    let mut child = script(&format!("echo $$ > {}; exec sleep 600", pid_file.display()));
    let deadline = Instant::now() + LONG;
    let pid: u32 = loop {
        assert!(Instant::now() < deadline);
        match std::fs::read_to_string(&pid_file).unwrap_or_default().trim().parse() {
            Ok(pid) => break pid,
            Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    };
    let short = Duration::from_millis(100);
    let hang = process::in_time(short, async move { child.next_line().await });
    assert!(matches!(hang.await, Err(JournalError::Slow(_))));
    let gone = || match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Err(_) => true,
        Ok(stat) => stat.contains(") Z"),
    };
    while !gone() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[test]
fn words_of_the_user_stay_arguments() {
    let odd = LogRequest {
        lines: u32::MAX,
        since: Some(Wall(1_700_000_000_045)),
        text: Some("--user; $(x) y".into()),
        after: Some("s=1 + _UID=0".into()),
        ..request("a-b")
    };
    let args = process::query_args(Scope::System, &odd, Order::Forward, true);
    for expected in [
        r"--grep=\-\-user\; \$\(x\) y",
        "--after-cursor=s=1 + _UID=0",
        "_SYSTEMD_UNIT=supervisor-a-b.service",
        "UNIT=supervisor-a-b.service",
        "SUPERVISOR_SERVICE=a-b",
    ] {
        assert_eq!(args.iter().filter(|arg| *arg == expected).count(), 1, "{expected} in {args:?}");
    }
}
