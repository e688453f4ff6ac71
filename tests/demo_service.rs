//! The example program does what its page promises: whoever tries the supervisor with it has to be able to trust it.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PATIENCE: Duration = Duration::from_secs(20);

struct Demo {
    child: Child,
    port: u16,
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> std::path::PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().unwrap().parent().unwrap().join("examples/demo-service");
    assert!(program.exists(), "{} is not there; `cargo build --examples` makes it", program.display());
    program
}

fn demo(more: &[&str]) -> Demo {
    let mut child = Command::new(program())
        .args(["--name", "<Demo>", "--port", "0"])
        .args(more)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let port = line.trim_end().trim_end_matches('/').rsplit(':').next().unwrap().parse().unwrap();
    Demo { child, port }
}

impl Demo {
    fn send(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        // What came before a reset is the answer.
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn ask(&self, method: &str, path: &str) -> String {
        self.send(format!("{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes())
    }

    fn code(&self, method: &str, path: &str) -> String {
        self.ask(method, path).split(' ').nth(1).unwrap_or("none").into()
    }

    fn end(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "it does not end");
            std::thread::yield_now();
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }
}

#[test]
fn the_page_and_the_health() {
    let demo = demo(&["--upstream", "http://127.0.0.1:1"]);
    let page = demo.ask("GET", "/");
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("<h1>&lt;Demo&gt;</h1>"), "{page}");
    assert!(page.contains("refused"), "the upstream's trouble is shown: {page}");
    assert!(page.contains("action=\"/crash?how=segv\""));
    assert!(demo.ask("GET", "/health").ends_with("\r\n\r\nhealthy\n"));
    for (method, path, code) in [
        ("GET", "/nowhere", "404"),
        ("POST", "/nowhere", "404"),
        ("GET", "/crash", "405"),
        ("PUT", "/", "405"),
        ("POST", "/crash?how=badly", "400"),
        ("POST", "/leak?mb_per_s=-1", "400"),
        ("POST", "/fail-health?seconds=NaN", "400"),
        ("GET", "/health?x=y", "200"),
    ] {
        assert_eq!(demo.code(method, path), code, "{method} {path}");
    }
}

#[test]
fn health_fails_on_request_and_for_as_long_as_asked() {
    let demo = demo(&[]);
    assert_eq!(demo.code("POST", "/fail-health?seconds=600"), "200");
    assert_eq!(demo.code("GET", "/health"), "503");
    assert_eq!(demo.code("POST", "/recover"), "200");
    assert_eq!(demo.code("GET", "/health"), "200");
    assert_eq!(demo.code("POST", "/fail-health?seconds=0.1"), "200");
    let until = Instant::now() + PATIENCE;
    while demo.code("GET", "/health") != "200" {
        assert!(Instant::now() < until, "it stays unhealthy");
    }
}

#[test]
fn it_ends_in_every_way_there_is() {
    for (path, code, signal) in [
        ("/exit", Some(0), None),
        ("/crash", Some(1), None),
        ("/crash?how=abort", None, Some(6)),
        ("/crash?how=segv", None, Some(11)),
    ] {
        let mut demo = demo(&[]);
        // With a body that nobody reads, as a form may have one: the answer arrives all the same.
        let answer = demo.send(format!("POST {path} HTTP/1.1\r\ncontent-length: 2\r\n\r\nxx").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        let end = demo.end();
        assert_eq!((end.code(), end.signal()), (code, signal), "{path}");
    }
}

#[test]
fn sigterm_ends_it_unless_it_was_told_to_ignore_it() {
    let mut polite = demo(&[]);
    polite.signal(Signal::SIGTERM);
    assert_eq!(polite.end().code(), Some(0));
    let mut stubborn = demo(&["--ignore-term"]);
    stubborn.signal(Signal::SIGTERM);
    assert_eq!(stubborn.code("GET", "/health"), "200");
    stubborn.signal(Signal::SIGKILL);
    assert_eq!(stubborn.end().signal(), Some(9));
}

#[test]
fn a_hanging_one_accepts_and_says_nothing() {
    let mut demo = demo(&[]);
    assert_eq!(demo.code("POST", "/hang"), "200");
    let mut stream = TcpStream::connect(("127.0.0.1", demo.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\n\r\n").unwrap();
    assert!(stream.read(&mut [0; 1]).is_err(), "nothing comes");
    demo.signal(Signal::SIGTERM);
    assert_eq!(demo.end().code(), Some(0), "it can be stopped even so");
}

#[test]
fn a_leak_grows_in_real_memory() {
    let demo = demo(&[]);
    assert_eq!(demo.code("POST", "/leak?mb_per_s=500"), "200");
    let until = Instant::now() + PATIENCE;
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", demo.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    while resident() < 64 * 1024 {
        assert!(Instant::now() < until, "{} KiB", resident());
    }
    assert_eq!(demo.code("GET", "/health"), "200", "it answers while it grows");
}

#[test]
fn garbage_does_not_hurt_it() {
    let demo = demo(&[]);
    for garbage in [
        &b"\0\xff\xfe\r\n\r\n"[..],
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / SPDY\r\n\r\n",
        b"GET nowhere HTTP/1.1\r\n\r\n",
        &[b'x'; 16 * 1024],
    ] {
        let answer = demo.send(garbage);
        assert!(answer.starts_with("HTTP/1.1 400"), "{garbage:.20?}: {answer}");
    }
    drop(TcpStream::connect(("127.0.0.1", demo.port)).unwrap());
    assert_eq!(demo.code("GET", "/health"), "200");
}

#[test]
fn the_supervisor_is_handed_on_to_programs_of_this_machine() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // All of the head: who is hung up on while writing does not read the answer.
            let head = BufReader::new(&stream).lines().map(Result::unwrap);
            let head: Vec<String> = head.take_while(|line| !line.is_empty()).collect();
            let body = &head[0];
            write!(stream, "HTTP/1.1 418 Teapot\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        }
    });
    let demo = demo(&["--supervisor", socket.to_str().unwrap()]);
    let ask = |more: &str| {
        demo.send(
            format!("POST /api/supervisor/services/a/start?wait=false HTTP/1.1\r\n{more}\r\n").as_bytes(),
        )
    };
    let answer = ask(&format!("Host: localhost:{}\r\n", demo.port));
    assert!(answer.starts_with("HTTP/1.1 418"), "{answer}");
    assert!(answer.ends_with("POST /api/supervisor/services/a/start?wait=false HTTP/1.1"), "{answer}");
    for foreign in
        ["Host: rebound.example:80\r\n", "Host: localhost:80\r\nOrigin: https://example.com\r\n", ""]
    {
        assert!(ask(foreign).starts_with("HTTP/1.1 403"), "{foreign}");
    }
    std::fs::remove_file(&socket).unwrap();
    assert!(ask("Host: 127.0.0.1:1\r\n").starts_with("HTTP/1.1 503"));
    assert!(demo.ask("GET", "/").starts_with("HTTP/1.1 200"));
}
