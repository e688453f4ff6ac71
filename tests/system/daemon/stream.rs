//! The stream of changes and followed logs, over a daemon that is killed and a journal that goes on.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Daemon, SOON, path, script, sh, sleeper, wait_for, with};
use crate::harness::Pipe;

/// curl that reads a stream. It ends with this.
struct Stream {
    child: Child,
    lines: Receiver<String>,
    /// As a browser keeps it.
    last: String,
}

impl Stream {
    fn open(daemon: &Daemon, path: &str, last: &str) -> Self {
        let mut child = Command::new("curl")
            .args(["-sSN", "-H", &format!("Last-Event-ID: {last}"), "--unix-socket"])
            .arg(daemon.folder.join("runtime/supervisor.sock"))
            .arg(format!("http://localhost/api/supervisor/{path}"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (send, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        Self { child, lines, last: last.into() }
    }

    /// `None` at the end of the stream.
    fn try_next(&mut self) -> Option<(String, Value)> {
        let mut kind = String::new();
        loop {
            let line = match self.lines.recv_timeout(SOON) {
                Ok(line) => line,
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return None,
                Err(error) => panic!("no message: {error}"),
            };
            if let Some(word) = line.strip_prefix("event: ") {
                kind = word.into();
            } else if let Some(id) = line.strip_prefix("id: ") {
                self.last = id.into();
            } else if let Some(data) = line.strip_prefix("data: ") {
                return Some((kind, serde_json::from_str(data).unwrap()));
            }
        }
    }

    fn wait(&mut self, wanted: &str) -> Value {
        loop {
            match self.try_next() {
                Some((kind, data)) if kind == wanted => return data,
                Some(_) => {}
                None => panic!("the stream ended before {wanted}"),
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn each_event_comes_once_over_kills_of_the_daemon() {
    let mut daemon = Daemon::start(json!({
        "stream-loop": with(script("sleep 0.05; exit 1"), json!({
            "restart_policy": {"retry_delay": 0.05, "backoff_multiplier": 1, "max_retries": -1}})),
    }));
    let (mut last, mut ids) = ("0".to_owned(), Vec::new());
    for round in 0..5 {
        let mut stream = Stream::open(&daemon, "stream?type=event", &last);
        let hello = stream.wait("hello");
        assert_eq!((&hello["resumed"], &hello["pid"]), (&json!(true), &json!(daemon.pid())), "{hello}");
        for _ in 0..12 {
            ids.push(stream.wait("event")["id"].as_i64().unwrap());
        }
        if round % 2 == 0 {
            daemon.kill();
        } else {
            daemon.signal("TERM");
            let asked = Instant::now();
            assert!(daemon.wait_for_end().success());
            assert!(
                asked.elapsed() < Duration::from_secs(2),
                "a stream holds nobody up: {:?}",
                asked.elapsed()
            );
        }
        // What was on its way when it ended.
        while let Some((kind, data)) = stream.try_next() {
            if kind == "event" {
                ids.push(data["id"].as_i64().unwrap());
            }
        }
        last = stream.last.clone();
        daemon.launch();
    }
    daemon.ok(&["stop", "stream-loop"]);
    let newest = daemon.api("GET", "events?limit=1").1["events"][0]["id"].as_i64().unwrap();
    let mut stream = Stream::open(&daemon, "stream", &last);
    while *ids.last().unwrap() < newest {
        ids.push(stream.wait("event")["id"].as_i64().unwrap());
    }
    assert_eq!(ids, (1..=newest).collect::<Vec<_>>());
}

#[test]
fn events_are_followed_over_a_restart_of_the_daemon() {
    let mut daemon = Daemon::start(json!({"stream-cli": sleeper()}));
    daemon.wait_state("stream-cli", "running");
    let (out, err) = (path(&daemon, "out"), path(&daemon, "err"));
    let mut follower = daemon
        .program(env!("CARGO_BIN_EXE_supervisorctl"))
        .arg("--socket")
        .arg(daemon.folder.join("runtime/supervisor.sock"))
        .args(["--json", "events", "-f", "-n", "1000"])
        .stdout(std::fs::File::create(&out).unwrap())
        .stderr(std::fs::File::create(&err).unwrap())
        .spawn()
        .unwrap();
    let ids = || {
        let id = |line: String| serde_json::from_str::<Value>(&line).unwrap()["id"].as_i64().unwrap();
        super::lines(&out).into_iter().map(id).collect::<Vec<_>>()
    };
    wait_for("the first events", SOON, || (!ids().is_empty()).then_some(()));
    daemon.kill();
    wait_for("it says so", SOON, || {
        sh(&format!("cat {}", err.display())).contains("waiting for it").then_some(())
    });
    daemon.launch();
    daemon.ok(&["stop", "stream-cli"]);
    let newest = daemon.api("GET", "events?limit=1").1["events"][0]["id"].as_i64().unwrap();
    wait_for("all events", SOON, || ids().contains(&newest).then_some(()));
    assert_eq!(ids(), (1..=newest).collect::<Vec<_>>());
    assert!(sh(&format!("cat {}", err.display())).contains("is back"));
    follower.kill().unwrap();
    follower.wait().unwrap();
}

/// journalctl processes of the daemon.
fn readers(daemon: &Daemon) -> usize {
    sh(&format!("pgrep -c -P {} journalctl || true", daemon.pid())).parse().unwrap()
}

#[test]
fn logs_are_paged_searched_and_followed_by_many_at_the_cost_of_one() {
    // It restarts journald.
    let daemon = Daemon::prepared_alone(json!({}));
    let mut pipe = Pipe::new(&daemon.folder);
    let text = format!(
        r"for n in 1 2 3 4 5 6; do echo line $n; done; echo token $TOKEN; printf 'od\033[31md \377\n'; head -c 100000 /dev/zero | tr '\0' z; echo; {}",
        pipe.script()
    );
    let mut daemon = daemon;
    daemon.configure(
        json!({"stream-logs": with(script(&text), json!({"environment": {"TOKEN": "swordfish-42"}}))}),
    );
    daemon.launch();
    let get = |query: &str| {
        let (code, body) = daemon.api("GET", &format!("services/stream-logs/logs?{query}"));
        assert_eq!(code, 200, "{body}");
        body
    };
    let messages = |page: &Value| -> Vec<String> {
        let message = |entry: &Value| entry["message"].as_str().unwrap().to_owned();
        page["entries"].as_array().unwrap().iter().map(message).collect()
    };
    let all = wait_for("its lines, and systemd's about it, which come in any order", SOON, || {
        let page = get("lines=1000");
        let has = |part: &str| messages(&page).iter().any(|line| line.contains(part));
        (has("zzzz") && has("Started")).then_some(page)
    });
    let texts = messages(&all);
    for expected in ["line 1", "token ***", "od\u{1b}[31md \u{fffd}"] {
        assert!(texts.iter().any(|text| text == expected), "{expected}: {texts:.100?}");
    }
    assert!(all.to_string().find("swordfish").is_none());
    let ours = all["entries"].as_array().unwrap().iter().find(|e| e["message"] == "line 1").unwrap();
    assert_eq!(ours["unit"], "supervisor-stream-logs.service");
    // Back and forth, in pages: the same lines.
    let (mut back, mut before) = (Vec::new(), None::<String>);
    loop {
        let page = get(&before.map_or("lines=3".into(), |before| format!("lines=3&before={before}")));
        back.splice(0..0, messages(&page));
        match page["next_before"].as_str() {
            Some(next) => before = Some(next.into()),
            None => break,
        }
    }
    assert_eq!(back, texts);
    let first = all["entries"][0]["cursor"].as_str().unwrap().to_owned();
    assert_eq!(messages(&get(&format!("lines=1000&after={first}"))), texts[1..]);
    assert_eq!(messages(&get("grep=LINE%205")).len(), 0);
    assert_eq!(messages(&get("grep=line%205")), ["line 5"]);
    assert_eq!(messages(&get("grep=%5B31m")), ["od\u{1b}[31md \u{fffd}"]);
    assert_eq!(daemon.api("GET", "services/stream-logs/logs?before=nonsense").0, 400);

    let follow = |last: &str| Stream::open(&daemon, "services/stream-logs/logs?follow=true&lines=1", last);
    let mut streams: Vec<Stream> = (0..5).map(|_| follow("")).collect();
    let heard = |stream: &mut Stream, text: &str| while stream.wait("line")["message"] != text {};
    pipe.say("one");
    streams.iter_mut().for_each(|stream| heard(stream, "got one"));
    wait_for("one journalctl for all", SOON, || (readers(&daemon) == 1).then_some(()));
    let last = streams.pop().unwrap().last.clone();
    for text in ["two", "three"] {
        pipe.say(text);
        heard(&mut streams[0], &format!("got {text}"));
    }
    sh("journalctl --rotate");
    sh("systemctl restart systemd-journald");
    pipe.say("four");
    streams.iter_mut().for_each(|stream| heard(stream, "got four"));
    let mut again = follow(&last);
    for text in ["got two", "got three", "got four"] {
        assert_eq!(again.wait("line")["message"], text);
    }
    sh(&format!("pkill -P {} journalctl", daemon.pid()));
    pipe.say("five");
    streams.push(again);
    for stream in &mut streams {
        assert_eq!(stream.wait("line")["message"], "got five", "once, from another journalctl");
    }
    drop(streams);
    wait_for("none when the last has left", SOON, || (readers(&daemon) == 0).then_some(()));
}
