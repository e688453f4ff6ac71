//! What the API costs: reading the state of 100 services beside supervisord's XML-RPC, and a thousand readers of the
//! stream. Part of `make bench`; needs a private systemd and supervisord from PyPI.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark reports, and ends on trouble"
)]

mod harness;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use serde_json::json;

use harness::{Daemon, PATIENCE, median, row, settle};

const SERVICES: usize = 100;
/// Clients that ask one question after the other.
const CLIENTS: usize = 4;
const LOAD: Duration = Duration::from_secs(3);

const STATUS: &str = "GET /api/supervisor/status HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn main() {
    harness::begin();
    reading_the_state();
    a_thousand_readers();
    restart_in_a_flood();
}

/// Both answer the same question about as many programs, over a Unix socket, in turns.
fn reading_the_state() {
    let ours = Daemon::new(SERVICES, &json!({}));
    ours.wait_for(SERVICES);
    let theirs = Supervisord::new();
    settle();
    let call =
        "<?xml version='1.0'?><methodCall><methodName>supervisor.getAllProcessInfo</methodName></methodCall>";
    let call = format!(
        "POST /RPC2 HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n\r\n{call}",
        call.len()
    );
    let (mut we, mut they) = (Load::default(), Load::default());
    for _ in 0..2 {
        we.add(Load::of(&ours.socket(), STATUS));
        they.add(Load::of(&theirs.socket, &call));
    }
    assert!(we.bytes > SERVICES * 100 && they.bytes > SERVICES * 100, "whole answers");
    let figure = format!("state of {SERVICES} services, answers");
    let ratio = we.rate() / they.rate();
    row(&figure, "/s", we.rate(), Some(they.rate()), "at least 100 times supervisord's", ratio >= 100.0);
    let (ours_p99, theirs_p99) = (we.percentile(99), they.percentile(99));
    row(
        "the same, 99th percentile",
        "ms",
        ours_p99,
        Some(theirs_p99),
        "below supervisord's",
        ours_p99 < theirs_p99,
    );
    let conditional = STATUS.replace("\r\n\r\n", "\r\nIf-None-Match: ETAG\r\n\r\n");
    let unchanged = Load::of(&ours.socket(), &conditional);
    let rate = unchanged.rate();
    row("the same, If-None-Match", "/s", rate, Some(we.rate()), "above whole answers", rate > we.rate());
}

/// Connected, and reading nothing: what the kernel buffers is its own.
fn a_thousand_readers() {
    const READERS: usize = 1000;
    let daemon = Daemon::new(1, &json!({}));
    daemon.wait_for(1);
    settle();
    let (before, _) = daemon.memory();
    let request = "GET /api/supervisor/stream HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let readers: Vec<UnixStream> = (0..READERS)
        .map(|_| {
            let mut reader = UnixStream::connect(daemon.socket()).unwrap();
            reader.set_read_timeout(Some(PATIENCE)).unwrap();
            reader.write_all(request.as_bytes()).unwrap();
            assert!(reader.read(&mut [0; 64]).unwrap() > 0, "the stream begins");
            reader
        })
        .collect();
    settle();
    let (after, _) = daemon.memory();
    let each = (after - before) * 1024.0 / READERS as f64;
    row("memory per reader of the stream, of 1,000", "KiB", each, None, "at most 32 KiB", each <= 32.0);
    drop(readers);
}

/// A service dies while the API is flooded: connections that say nothing, readers that read nothing, wrong tokens and
/// whole answers as fast as they come.
fn restart_in_a_flood() {
    const ROUNDS: usize = 15;
    let policy = json!({"restart_policy": {"retry_delay": 0, "max_retries": -1}});
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let daemon = Daemon::listening(&address.to_string(), &policy);
    daemon.wait_for(1);
    settle();
    let calm = median((0..ROUNDS).map(|_| daemon.kill_and_wait()).collect());
    let request = b"GET /api/supervisor/stream HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let silent: Vec<_> = (0..1000).filter_map(|_| TcpStream::connect(address).ok()).collect();
    let readers: Vec<_> = (0..1000)
        .map(|_| {
            let mut reader = UnixStream::connect(daemon.socket()).unwrap();
            reader.write_all(request).unwrap();
            reader
        })
        .collect();
    let over = AtomicBool::new(false);
    let flooded = std::thread::scope(|scope| {
        scope.spawn(|| {
            let wrong = format!("{}\r\nAuthorization: Bearer wrong\r\n\r\n", STATUS.trim_end());
            while !over.load(Relaxed) {
                let Ok(mut stream) = TcpStream::connect(address) else { continue };
                drop(stream.set_read_timeout(Some(Duration::from_secs(1))));
                drop(stream.write_all(wrong.as_bytes()).and_then(|()| stream.read(&mut [0; 512])));
            }
        });
        scope.spawn(|| {
            while !over.load(Relaxed) {
                drop(Load::of_one(&daemon.socket(), STATUS, Duration::from_millis(200)));
            }
        });
        harness::pause(Duration::from_secs(1));
        let times = (0..ROUNDS).map(|_| daemon.kill_and_wait()).collect();
        over.store(true, Relaxed);
        median(times)
    });
    drop((silent, readers));
    row("crash to restart in a flood of the API", "ms", flooded, Some(calm), "under 50 ms", flooded < 50.0);
}

/// Answers in a while.
#[derive(Default)]
struct Load {
    /// Milliseconds each.
    times: Vec<f64>,
    seconds: f64,
    /// Of one answer's body.
    bytes: usize,
    etag: Option<String>,
}

impl Load {
    fn of(socket: &Path, request: &str) -> Self {
        let begun = Instant::now();
        let mut load = Self::default();
        let clients: Vec<Self> = std::thread::scope(|scope| {
            let clients: Vec<_> =
                (0..CLIENTS).map(|_| scope.spawn(|| Self::of_one(socket, request, LOAD))).collect();
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        });
        clients.into_iter().for_each(|client| load.add(client));
        load.seconds = begun.elapsed().as_secs_f64();
        load
    }

    fn of_one(socket: &Path, request: &str, time: Duration) -> Self {
        let mut load = Self::default();
        let mut connection = None;
        let begun = Instant::now();
        while begun.elapsed() < time {
            let asked = Instant::now();
            let mut stream = connection.take().unwrap_or_else(|| {
                let stream = UnixStream::connect(socket).expect("the socket");
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                BufReader::with_capacity(256 * 1024, stream)
            });
            // A client that has an answer asks whether there is a newer one.
            let request = request.replace("ETAG", load.etag.as_deref().unwrap_or("\"none\""));
            stream.get_mut().write_all(request.as_bytes()).unwrap();
            let answer = Answer::read(&mut stream);
            load.times.push(asked.elapsed().as_secs_f64() * 1000.0);
            load.bytes = load.bytes.max(answer.bytes);
            load.etag = answer.etag.or(load.etag);
            connection = answer.stays.then_some(stream);
        }
        load
    }

    fn add(&mut self, other: Self) {
        self.times.extend(other.times);
        self.seconds += other.seconds;
        self.bytes = self.bytes.max(other.bytes);
        self.etag = other.etag.or(self.etag.take());
    }

    fn rate(&self) -> f64 {
        self.times.len() as f64 / self.seconds
    }

    fn percentile(&self, n: usize) -> f64 {
        let mut times = self.times.clone();
        times.sort_by(f64::total_cmp);
        times[(times.len() - 1) * n / 100]
    }
}

struct Answer {
    bytes: usize,
    etag: Option<String>,
    /// The connection may be used again.
    stays: bool,
}

impl Answer {
    fn read(stream: &mut BufReader<UnixStream>) -> Self {
        let mut answer = Self { bytes: 0, etag: None, stays: true };
        let mut line = String::new();
        stream.read_line(&mut line).expect("an answer");
        let status = line.split(' ').nth(1).unwrap_or_default().to_owned();
        assert!(status == "200" || status == "304", "{line}");
        loop {
            line.clear();
            stream.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => answer.bytes = value.parse().unwrap(),
                "etag" => answer.etag = Some(value.into()),
                "connection" => answer.stays = !value.eq_ignore_ascii_case("close"),
                _ => {}
            }
        }
        let mut body = vec![0; answer.bytes];
        stream.read_exact(&mut body).unwrap();
        answer
    }
}

/// supervisord with as many programs.
struct Supervisord {
    child: Child,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

impl Supervisord {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let programs: String = (0..SERVICES)
            .map(|n| format!("[program:bench-{n}]\ncommand=/bin/sleep 100000\nautorestart=true\n"))
            .collect();
        let config = folder.path().join("supervisord.conf");
        let text = format!(
            "[unix_http_server]\nfile={}\n[supervisord]\nnodaemon=true\nuser=root\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={}\n\
             [rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n{programs}",
            socket.display(),
            folder.path().join("pid").display(),
        );
        std::fs::write(&config, text).unwrap();
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/supervisord/bin/supervisord");
        let child = Command::new(program)
            .arg("-c")
            .arg(&config)
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("supervisord, which `make bench` installs");
        let begun = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            assert!(begun.elapsed() < PATIENCE, "supervisord did not come up");
            harness::pause(Duration::from_millis(20));
        }
        Self { child, socket, _folder: folder }
    }
}

impl Drop for Supervisord {
    fn drop(&mut self) {
        drop(Command::new("kill").arg(self.child.id().to_string()).status());
        drop(self.child.wait());
    }
}
