//! What probes cost: 1,000 services with one tcp or http probe a second each, beside a bare loop that asks the same
//! server. `make bench`. Needs a private systemd.
//!
//! Each service has an address of its own in 127.0.0.0/8, so that the server knows who is asked for, and when.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark reports, and ends on trouble"
)]

mod harness;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use harness::{Daemon, cpu_of, median, pause, row};

const COUNT: usize = 1000;
const EVERY: Duration = Duration::from_secs(1);
const WATCHED: Duration = Duration::from_secs(20);
const ROUNDS: usize = 3;
const TCP: u16 = 18_800;
const HTTP: u16 = 18_801;
const PEER: &str = "--ask";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|a| a == PEER) {
        return ask_for_ever(arguments[at + 1] == "http");
    }
    harness::begin();
    let server = Server::start();
    for kind in ["tcp", "http"] {
        probes(kind, &server);
    }
}

fn address(n: usize) -> Ipv4Addr {
    Ipv4Addr::from(0x7F01_0000 + u32::try_from(n).unwrap())
}

/// Answers, and notes when each address was connected to.
struct Server {
    seen: Arc<Mutex<HashMap<IpAddr, Vec<Instant>>>>,
}

impl Server {
    fn start() -> Self {
        let seen: Arc<Mutex<HashMap<IpAddr, Vec<Instant>>>> = Arc::default();
        let noted = seen.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { tokio::join!(listen(TCP, noted.clone()), listen(HTTP, noted)) });
        });
        Self { seen }
    }

    fn forget(&self) {
        self.seen.lock().unwrap().clear();
    }

    /// How many there were, and by how much each came later than a second after the one before it, in ms.
    fn lateness(&self) -> (usize, Vec<f64>) {
        let seen = self.seen.lock().unwrap();
        let gaps = seen.values().flat_map(|times| times.windows(2).map(|pair| pair[1] - pair[0]));
        let mut late: Vec<f64> = gaps.map(|gap| gap.saturating_sub(EVERY).as_secs_f64() * 1e3).collect();
        late.sort_by(f64::total_cmp);
        (seen.values().map(Vec::len).sum(), late)
    }
}

async fn listen(port: u16, seen: Arc<Mutex<HashMap<IpAddr, Vec<Instant>>>>) {
    let listener = TcpListener::bind(("0.0.0.0", port)).await.unwrap();
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { continue };
        let at = Instant::now();
        let Ok(asked) = stream.local_addr() else { continue };
        seen.lock().unwrap().entry(asked.ip()).or_default().push(at);
        if port == HTTP {
            tokio::spawn(async move {
                drop(stream.read(&mut [0; 4096]).await);
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
                drop(stream.write_all(answer).await);
            });
        }
    }
}

/// The peer: the same questions, and nothing else.
fn ask_for_ever(http: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for n in 0..COUNT {
            let to = SocketAddr::from((address(n), if http { HTTP } else { TCP }));
            tokio::spawn(async move {
                tokio::time::sleep(EVERY.mul_f64(n as f64 / COUNT as f64)).await;
                let mut turns = tokio::time::interval(EVERY);
                loop {
                    turns.tick().await;
                    drop(tokio::time::timeout(EVERY, ask(to, http)).await);
                }
            });
        }
        std::future::pending::<()>().await;
    });
}

async fn ask(to: SocketAddr, http: bool) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(to).await?;
    stream.set_zero_linger()?;
    if http {
        let question = format!("GET / HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n");
        stream.write_all(question.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        assert!(answer.starts_with(b"HTTP/1.1 200"));
    }
    Ok(())
}

fn check(kind: &str, n: usize) -> Value {
    let (host, timeout) = (address(n), 0.9);
    let check = match kind {
        "tcp" => {
            json!({"type": "tcp", "host": host.to_string(), "port": TCP, "interval": 1, "timeout": timeout})
        }
        _ => {
            json!({"type": "http", "endpoint": format!("http://{host}:{HTTP}/"), "interval": 1, "timeout": timeout})
        }
    };
    // The port of its own keeps the configuration from taking them for rivals.
    json!({"health_check": check, "port": n + 1})
}

struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Microseconds of CPU for each probe, over a while.
fn per_probe(server: &Server, pid: u32) -> f64 {
    server.forget();
    let before = cpu_of(pid);
    pause(WATCHED);
    (cpu_of(pid) - before) * 1e6 / server.lateness().0 as f64
}

fn probes(kind: &str, server: &Server) {
    let daemon = Daemon::with(COUNT, |n| check(kind, n));
    daemon.wait_for(COUNT);
    // Past the eager first probes, and until every start is written down.
    pause(Duration::from_secs(15));
    let ours = median((0..ROUNDS).map(|_| per_probe(server, daemon.pid())).collect());
    let (asked, late) = server.lateness();
    let (rss, anonymous) = daemon.memory();
    drop(daemon);
    let peer = Peer(Command::new(harness::me()).args([PEER, kind]).spawn().unwrap());
    pause(Duration::from_secs(3));
    let bare = median((0..ROUNDS).map(|_| per_probe(server, peer.0.id())).collect());
    let (_, bare_late) = server.lateness();
    drop(peer);
    let at = |late: &[f64], share: f64| late[((late.len() - 1) as f64 * share) as usize];
    let figure =
        format!("CPU for a {kind} probe, {:.0} of them a second", asked as f64 / WATCHED.as_secs_f64());
    row(&figure, "us", ours, Some(bare), "at most 3 times a bare loop", ours <= bare * 3.0);
    let (p99, bare_p99) = (at(&late, 0.99), at(&bare_late, 0.99));
    let figure = format!("lateness of a {kind} probe, 99 of 100");
    row(&figure, "ms", p99, Some(bare_p99), "under 50 ms", p99 < 50.0);
    let goal = format!("under 40 MiB ({anonymous:.1} of it anonymous)");
    row(&format!("resident memory with 1000 {kind} probes"), "MiB", rss, None, &goal, rss < 40.0);
}
