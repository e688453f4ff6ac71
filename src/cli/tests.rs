//! Whole command lines against the real API with a made-up loop behind it.

use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use clap::Parser;
use serde_json::Value;

use super::args::Args;
use super::out::Out;
use super::table::Style;
use crate::core::snapshot::{Health, State};
use crate::http::tests::{World, world};

/// A supervisor on a socket, in a thread of its own.
struct Daemon {
    folder: tempfile::TempDir,
    world: Arc<World>,
    end: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

fn daemon() -> Daemon {
    let folder = tempfile::tempdir().unwrap();
    let (socket, (end, ended)) = (folder.path().join("s"), tokio::sync::oneshot::channel());
    let (send, receive) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::UnixListener::bind(socket).unwrap();
            let world = Arc::new(world());
            let asked = world.asked.clone();
            send.send(world.clone()).unwrap();
            let over = async {
                let left = async {
                    while !asked.lock().unwrap().iter().any(|a| a.starts_with("shutdown")) {
                        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                    }
                };
                tokio::select! {
                    _ = ended => {}
                    () = left => {}
                }
            };
            crate::http::serve_unix(listener, tokio::sync::mpsc::channel(1).1, world.router.clone(), over)
                .await;
        });
        runtime.shutdown_background();
    });
    Daemon { folder, world: receive.recv().unwrap(), end: Some(end), thread: Some(thread) }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.end.take().map(|end| end.send(()));
        drop(self.thread.take().map(std::thread::JoinHandle::join));
    }
}

/// What a command printed, and its exit code.
#[derive(Debug)]
struct Ran {
    code: u8,
    out: String,
    err: String,
}

#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn run_at(socket: PathBuf, line: &str) -> Ran {
    crate::tls::install_provider();
    let socket = socket.display().to_string();
    let words = ["supervisorctl", "--system", "--socket", &socket].into_iter().chain(line.split(' '));
    let args = Args::try_parse_from(words).unwrap();
    let (stdout, stderr) = (Paper::default(), Paper::default());
    let mut out = Out::new(args.json, Style::default(), Box::new(stdout.clone()), Box::new(stderr.clone()));
    let code = match super::execute(args, &mut out) {
        Ok(()) => 0,
        Err(failure) => {
            out.failure(&failure);
            failure.code()
        }
    };
    let text = |paper: Paper| String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
    Ran { code, out: text(stdout), err: text(stderr) }
}

impl Daemon {
    fn run(&self, line: &str) -> Ran {
        run_at(self.folder.path().join("s"), line)
    }

    fn orders(&self) -> Vec<String> {
        let mut asked = self.world.asked.lock().unwrap();
        std::mem::take(&mut *asked).iter().map(|a| a.split(" by").next().unwrap().into()).collect()
    }
}

#[test]
fn status_shows_all_or_some_and_says_when_not_all_is_well() {
    let daemon = daemon();
    let all = daemon.run("status");
    assert_eq!((all.code, all.out.lines().count()), (3, 7), "{all:?}");
    let well = daemon.run("status web db");
    assert_eq!((well.code, well.err.as_str()), (0, ""), "{well:?}");
    assert_eq!(well.out.lines().count(), 3);
    let json = daemon.run("status --json back:*");
    let status: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(status["services"].as_object().unwrap().len(), 6);
    let wrong = daemon.run("status wbe");
    assert_eq!(wrong.code, 5);
    assert_eq!(wrong.err, "supervisorctl: there is no service \"wbe\": did you mean \"web\"?\n");
}

#[test]
fn start_shows_each_change_until_the_outcome() {
    let daemon = daemon();
    let ran = daemon.run("start edge");
    assert_eq!(ran.code, 0, "{ran:?}");
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(lines[0], "edge: stopped -> starting (because)");
    assert!(lines[1].starts_with("edge: running (pid 42, ready after ") && lines.len() == 2, "{ran:?}");
}

#[test]
fn orders_to_several_end_with_the_worst() {
    let daemon = daemon();
    let ran = daemon.run("restart web bad");
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("web: running (pid 42, ready after "), "{ran:?}");
    assert!(ran.err.contains("bad: it needs db, which is fatal"), "{ran:?}");
    let json = daemon.run("start web bad --json");
    let answers: Value = serde_json::from_str(&json.out).unwrap();
    let codes: Vec<&Value> = answers.as_array().unwrap().iter().map(|a| &a["status"]).collect();
    assert!(codes.contains(&&Value::from(409)) && codes.contains(&&Value::Null), "{answers}");
    let slow = daemon.run("start slow --timeout 0.05");
    assert_eq!((slow.code, slow.out.contains("the order stands")), (1, true), "{slow:?}");
    assert_eq!(daemon.run("start slow --no-wait").code, 0);
    let lost = daemon.run("start lost");
    assert!(lost.code == 1 && lost.err.contains("is ending"), "{lost:?}");
}

#[test]
fn stop_takes_dependents_first_and_start_dependencies() {
    let daemon = daemon();
    daemon.world.change("edge", |edge| edge.state = State::Running);
    assert_eq!(daemon.run("stop db edge web").code, 0);
    assert_eq!(daemon.orders(), ["Stop edge", "Stop web", "Stop db"]);
    assert_eq!(daemon.run("start web db").code, 0);
    assert_eq!(daemon.orders(), ["Start db", "Start web"]);
}

#[test]
fn a_service_that_is_disabled_starts_by_its_name_only() {
    let daemon = daemon();
    for off in ["slow", "bad", "lost", "edge"] {
        daemon.world.change(off, |v| Arc::make_mut(&mut v.plan).enabled = false);
    }
    assert_eq!(daemon.run("start all").code, 0);
    assert_eq!(daemon.orders(), ["Start db", "Start web"]);
    assert_eq!(daemon.run("start edge").code, 0);
    assert_eq!(daemon.orders(), ["Start edge"]);
}

#[test]
fn small_orders() {
    let daemon = daemon();
    let ran = daemon.run("signal HUP web");
    assert_eq!((ran.code, ran.out.as_str()), (0, "web: SIGHUP was sent to the main process of web\n"));
    let ran = daemon.run("signal HUP edge");
    assert_eq!((ran.code, ran.err.as_str()), (1, "edge is stopped\n"));
    assert_eq!(daemon.run("signal NOPE web").code, 2);
    assert_eq!(daemon.run("reset web").out, "web: as asked\n");
    assert_eq!(daemon.run("pid web").out, "42\n");
    assert_eq!(daemon.run("pid edge").code, 1);
    assert_eq!(daemon.run("pid").out, format!("{}\n", std::process::id()));
    assert!(daemon.run("avail").out.contains("the web"));
    assert!(daemon.run("version").out.contains("process-supervisor 1.2.3 (pid"));
}

#[test]
fn health_and_events() {
    let daemon = daemon();
    let all = daemon.run("health");
    assert!(all.code == 3 && all.out.contains("All together: degraded"), "{all:?}");
    assert_eq!(daemon.run("health web").code, 0);
    assert_eq!(daemon.run("health nope").code, 5);
    daemon.world.change("web", |web| {
        web.health = Health::Unhealthy;
        Arc::make_mut(&mut web.plan).critical = true;
    });
    let critical = daemon.run("health");
    assert!(
        critical.code == 3 && critical.out.contains("All together: unhealthy"),
        "a 503 is an answer: {critical:?}"
    );
    let events = daemon.run("events -n 2");
    assert_eq!((events.code, events.out.lines().count()), (0, 2));
    assert_eq!(daemon.run("events --json").out.lines().count(), 1);
}

#[test]
fn reload_and_its_errors() {
    let daemon = daemon();
    let good = daemon.run("reload");
    assert_eq!((good.code, good.out.lines().next()), (0, Some("new: added")));
    for line in ["reload --dry-run", "reread"] {
        let bad = daemon.run(line);
        assert_eq!(bad.code, 1);
        assert!(bad.err.contains("c.json:3:7") && bad.err.contains("did you mean \"command\"?"), "{bad:?}");
    }
    let json = daemon.run("reread --json");
    assert_eq!(serde_json::from_str::<Value>(&json.out).unwrap()["errors"][0]["line"], 3);
}

#[test]
fn wait_ends_with_the_goal_the_impossible_or_the_time() {
    let daemon = daemon();
    assert_eq!(daemon.run("wait web --healthy").out, "web: healthy\n");
    let late = daemon.run("wait slow --timeout 0.1");
    assert!(late.code == 1 && late.err.contains("slow is not running after 100 ms"), "{late:?}");
    daemon.world.change("slow", |slow| slow.state = State::Fatal);
    let never = daemon.run("wait slow");
    assert!(never.code == 1 && never.err.contains("will not be running by itself"), "{never:?}");
    assert_eq!(daemon.run("wait nope").code, 5);
}

#[test]
fn shutdown_waits_for_the_end() {
    let daemon = daemon();
    let ran = daemon.run("shutdown");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.ends_with("the supervisor has ended\n"), "{ran:?}");
}

#[test]
fn nobody_there_is_told_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let none = run_at(folder.path().join("s"), "status");
    assert_eq!(none.code, 4);
    assert!(none.err.contains("systemctl start process-supervisor"), "{none:?}");
    // A socket that a dead supervisor left.
    drop(std::os::unix::net::UnixListener::bind(folder.path().join("old")).unwrap());
    let dead = run_at(folder.path().join("old"), "start web");
    assert!(dead.code == 4 && dead.err.contains("refused"), "{dead:?}");
    let url = run_at(folder.path().join("s"), "version");
    assert!(url.code == 0 && url.out.contains("no supervisor answers"), "{url:?}");
}

#[test]
fn a_reader_that_left_is_no_failure() {
    crate::tls::install_provider();
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let daemon = daemon();
    let socket = daemon.folder.path().join("s").display().to_string();
    let args = Args::parse_from(["supervisorctl", "--socket", &socket, "status"]);
    let mut out = Out::new(false, Style::default(), Box::new(Gone), Box::new(Gone));
    assert_eq!(super::execute(args, &mut out).unwrap_err().code(), 0);
}

#[test]
fn validate_works_without_a_supervisor() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.json");
    let example =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/supervisor_config.json"))
            .unwrap();
    // What `make run` does.
    let placed = example.replace(r#""command": "demo-service""#, r#""command": "/bin/sh""#);
    assert_ne!(placed, example);
    std::fs::write(&file, &placed).unwrap();
    let line = format!("validate {}", file.display());
    let good = run_at("none".into(), &line);
    assert_eq!((good.code, good.err.as_str()), (0, ""), "{good:?}");
    assert!(
        good.out.contains("architect-prod  yes      /bin/sh") && good.out.contains("is valid: 4 services")
    );
    let json: Value = serde_json::from_str(&run_at("none".into(), &format!("{line} --json")).out).unwrap();
    assert_eq!((&json["valid"], json["services"].as_array().unwrap().len()), (&Value::Bool(true), 4));

    std::fs::write(&file, placed.replace("interval", "intervall").replace("QA", "\u{1b}[31m")).unwrap();
    let bad = run_at("none".into(), &line);
    assert_eq!((bad.code, bad.out.as_str()), (1, ""), "{bad:?}");
    assert!(bad.err.contains("intervall") && bad.err.contains("did you mean"), "{bad:?}");
    assert!(!bad.err.contains('\u{1b}'), "{bad:?}");
    assert_eq!(run_at("none".into(), "validate /nowhere/c.json").code, 1);
    assert!(run_at("none".into(), "schema").out.contains("\"health_check\""));
}

#[test]
fn tokens_are_rotated_by_the_supervisor() {
    let daemon = daemon();
    let ran = daemon.run("token rotate");
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert_eq!(
        ran.out,
        "the operator token is a new one, in /state/token; the old one is refused from now on\n"
    );
    assert!(daemon.run("--json token rotate").out.contains(r#""file":"/state/token""#));
    assert_eq!(daemon.orders(), ["rotate operator", "rotate operator"]);
    let ran = daemon.run("token rotate --viewer");
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(ran.err.contains("No space left on device; the old viewer token stays in force"), "{}", ran.err);
    // The token of a supervisor elsewhere is not in the folder of ours.
    let ran = run_at("/nonexistent/s".into(), "token rotate");
    assert_eq!(ran.code, 4, "{}", ran.err);
}
