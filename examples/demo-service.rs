//! A small web service that goes wrong on request, so that a supervisor can be seen at work.
//!
//! `/` is a page with the switches, `/health` answers 200 or 503. The rest is done by POST: `/crash?how=exit|abort|segv`,
//! `/exit`, `/hang`, `/leak?mb_per_s=N`, `/fail-health?seconds=N`, `/recover`, `/spin?seconds=N`.
//! With `--supervisor`, `/api/supervisor/*` is the supervisor's API, as in a dashboard that mounts it.
//! SIGTERM ends it properly, unless it was told to ignore it.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use nix::sys::signal::{SigSet, Signal, raise};

/// Requests at a time; further connections are closed at once.
const CONNECTIONS: usize = 64;
/// Bytes of a request line with all headers.
const REQUEST_BYTES: u64 = 16 * 1024;
/// For a client to say what it wants.
const REQUEST_TIME: Duration = Duration::from_secs(5);
const API: &str = "/api/supervisor/";
const MIB: usize = 1024 * 1024;

/// A small web service that goes wrong on request
#[derive(Debug, Clone, Parser)]
struct Args {
    /// Shown on the page
    #[arg(long, default_value = "demo")]
    name: String,
    /// Port on localhost; 0 takes a free one and prints it
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// http://HOST:PORT of a service that this one needs: shown on the page, and asked for its health
    #[arg(long)]
    upstream: Option<String>,
    /// Seconds before the port is opened
    #[arg(long, default_value_t = 0.0, value_parser = seconds)]
    start_delay: f64,
    /// Socket of the supervisor that /api/supervisor/* is handed on to
    #[arg(long)]
    supervisor: Option<PathBuf>,
    /// Do not end on SIGTERM
    #[arg(long)]
    ignore_term: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    let good = text.parse::<f64>().ok().filter(|seconds| (0.0..=86_400.0).contains(seconds));
    good.ok_or_else(|| "seconds from 0 to 86400 are expected".into())
}

struct Service {
    args: Args,
    started: Instant,
    requests: AtomicU64,
    open: AtomicUsize,
    hanging: AtomicBool,
    sick_until: Mutex<Option<Instant>>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    // Before any thread is there, so that all of them leave the signals to the one that waits for them.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    if let Err(error) = signals.thread_block() {
        return fail(&format!("cannot block signals: {error}"));
    }
    let ignore_term = args.ignore_term;
    thread::spawn(move || wait_for_end(&signals, ignore_term));
    thread::sleep(Duration::from_secs_f64(args.start_delay));
    let listener = match TcpListener::bind((Ipv4Addr::LOCALHOST, args.port)) {
        Ok(listener) => listener,
        Err(error) => return fail(&format!("cannot listen on port {}: {error}", args.port)),
    };
    let port = listener.local_addr().map_or(args.port, |address| address.port());
    say(&format!("{} listens on http://localhost:{port}/", args.name));
    let service = Arc::new(Service {
        args,
        started: Instant::now(),
        requests: AtomicU64::new(0),
        open: AtomicUsize::new(0),
        hanging: AtomicBool::new(false),
        sick_until: Mutex::new(None),
    });
    loop {
        match listener.accept() {
            Ok((stream, _)) => take(&service, stream),
            Err(error) => {
                say(&format!("cannot accept a connection: {error}"));
                thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

fn wait_for_end(signals: &SigSet, ignore_term: bool) {
    loop {
        match signals.wait() {
            Ok(Signal::SIGTERM) if ignore_term => say("SIGTERM is ignored, as was asked for"),
            Ok(signal) => {
                say(&format!("{signal}: ending"));
                std::process::exit(0);
            }
            Err(error) => say(&format!("cannot wait for signals: {error}")),
        }
    }
}

/// A thread for the connection, if there is room.
fn take(service: &Arc<Service>, stream: TcpStream) {
    if service.open.fetch_add(1, Ordering::AcqRel) >= CONNECTIONS {
        service.open.fetch_sub(1, Ordering::AcqRel);
        return;
    }
    let shared = service.clone();
    let spawned = thread::Builder::new().spawn(move || {
        // A client that goes away in the middle is its own affair.
        let _ = serve(&shared, stream);
        shared.open.fetch_sub(1, Ordering::AcqRel);
    });
    if spawned.is_err() {
        service.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What a client asked for.
struct Request {
    method: String,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

fn serve(service: &Service, mut stream: TcpStream) -> io::Result<()> {
    stream.set_write_timeout(Some(REQUEST_TIME))?;
    let request = match read_request(&stream) {
        Ok(request) => request,
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            return respond(&mut stream, 400, "text/plain", &format!("{error}\n"));
        }
        Err(error) => return Err(error),
    };
    service.requests.fetch_add(1, Ordering::Relaxed);
    while service.hanging.load(Ordering::Acquire) {
        thread::park_timeout(Duration::from_secs(3600));
    }
    answer(service, &request, &mut stream)
}

fn answer(service: &Service, request: &Request, stream: &mut TcpStream) -> io::Result<()> {
    let text = |stream: &mut TcpStream, code, text: &str| respond(stream, code, "text/plain", text);
    if let Some(socket) = service.args.supervisor.as_deref().filter(|_| request.path.starts_with(API)) {
        return match hand_on(socket, request, stream) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                text(stream, 403, &format!("{error}\n"))
            }
            Err(error) => {
                text(stream, 503, &format!("no supervisor answers at {}: {error}\n", socket.display()))
            }
            Ok(()) => Ok(()),
        };
    }
    match (request.method.as_str(), request.path.as_str()) {
        ("GET" | "HEAD", "/") => respond(stream, 200, "text/html; charset=utf-8", &page(service)),
        ("GET" | "HEAD", "/health") => match health(service) {
            Ok(()) => text(stream, 200, "healthy\n"),
            Err(why) => text(stream, 503, &format!("unhealthy: {why}\n")),
        },
        ("POST", path) => match switch(path, &request.query) {
            Some(Ok(what)) => {
                say(&format!("asked for {path}: {what}"));
                set(service, path, &request.query);
                text(stream, 200, &format!("{what}\n"))?;
                let _ = part(stream);
                act(path, &request.query);
                Ok(())
            }
            Some(Err(why)) => text(stream, 400, &format!("{why}\n")),
            None => text(stream, 404, "there is no such switch; the page at / has them all\n"),
        },
        ("GET" | "HEAD", path) if switch(path, "").is_some() => {
            text(stream, 405, "switches are thrown with POST\n")
        }
        ("GET" | "HEAD", _) => text(stream, 404, "nothing here; begin at /\n"),
        _ => text(stream, 405, "GET and POST are understood\n"),
    }
}

/// The supervisor's answer, as it comes; bodies of requests are left out. Whoever may use this page may use the
/// supervisor, so pages of other sites may not: browsers name them, and call us by a name that is not ours.
fn hand_on(socket: &Path, request: &Request, stream: &mut TcpStream) -> io::Result<()> {
    let host = request.header("host").unwrap_or_default().rsplit_once(':').map_or("", |(host, _)| host);
    if request.header("origin").is_some() || !["localhost", "127.0.0.1"].contains(&host) {
        return Err(io::Error::new(
            ErrorKind::PermissionDenied,
            "only programs of this machine may ask this",
        ));
    }
    let mut supervisor = UnixStream::connect(socket)?;
    let query = if request.query.is_empty() { String::new() } else { format!("?{}", request.query) };
    let (method, path) = (&request.method, &request.path);
    write!(supervisor, "{method} {path}{query} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n")?;
    write!(supervisor, "content-length: 0\r\n\r\n")?;
    // Who left in the middle of the answer does not need the rest.
    let _left = io::copy(&mut supervisor, stream);
    Ok(())
}

/// Lets the client have the answer before the process may be gone: what it sent and nobody read would make the
/// end of the connection a reset.
fn part(stream: &TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    io::copy(&mut stream.take(REQUEST_BYTES), &mut io::sink())?;
    Ok(())
}

/// What a switch will do, or what is wrong with its query.
fn switch(path: &str, query: &str) -> Option<Result<String, String>> {
    Some(match path {
        "/crash" => match value(query, "how").unwrap_or("exit") {
            how @ ("exit" | "abort" | "segv") => Ok(format!("crashing by {how}")),
            _ => Err("how is exit, abort or segv".into()),
        },
        "/exit" => Ok("exiting with success".into()),
        "/hang" => Ok("answering nobody from now on".into()),
        "/leak" => number(query, "mb_per_s", 10.0).map(|n| format!("leaking {n} MB per second")),
        "/fail-health" => number(query, "seconds", 60.0).map(|n| format!("unhealthy for {n} s")),
        "/recover" => Ok("healthy again".into()),
        "/spin" => number(query, "seconds", 30.0).map(|n| format!("using a whole core for {n} s")),
        _ => return None,
    })
}

/// What the client can rely on once it has its answer.
fn set(service: &Service, path: &str, query: &str) {
    match path {
        "/hang" => service.hanging.store(true, Ordering::Release),
        "/fail-health" => {
            let seconds = number(query, "seconds", 60.0).unwrap_or(60.0);
            set_sick(service, Some(Instant::now() + Duration::from_secs_f64(seconds)));
        }
        "/recover" => set_sick(service, None),
        _ => {}
    }
}

/// What could keep the client from its answer.
fn act(path: &str, query: &str) {
    match path {
        "/crash" => match value(query, "how") {
            Some("abort") => std::process::abort(),
            // The first one only takes Rust's own handler off.
            Some("segv") => [(); 2].map(|()| raise(Signal::SIGSEGV)).into_iter().for_each(drop),
            _ => std::process::exit(1),
        },
        "/exit" => std::process::exit(0),
        "/leak" => leak(number(query, "mb_per_s", 10.0).unwrap_or(10.0)),
        "/spin" => {
            let until =
                Instant::now() + Duration::from_secs_f64(number(query, "seconds", 30.0).unwrap_or(30.0));
            while Instant::now() < until {
                std::hint::spin_loop();
            }
        }
        _ => {}
    }
}

/// Touches every page, so that the memory is really used, until a limit ends it.
fn leak(mb_per_s: f64) -> ! {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    loop {
        kept.push(vec![1; MIB]);
        std::hint::black_box(&kept);
        thread::sleep(Duration::from_secs_f64(1.0 / mb_per_s));
    }
}

fn set_sick(service: &Service, until: Option<Instant>) {
    if let Ok(mut sick) = service.sick_until.lock() {
        *sick = until;
    }
}

fn health(service: &Service) -> Result<(), String> {
    let sick = service.sick_until.lock().ok().and_then(|until| *until);
    match sick.map(|until| until.saturating_duration_since(Instant::now())) {
        Some(left) if !left.is_zero() => Err(format!("for {} s more, as was asked for", left.as_secs() + 1)),
        _ => Ok(()),
    }
}

fn page(service: &Service) -> String {
    let name = escape(&service.args.name);
    let word = health(service).map_or_else(|why| format!("unhealthy: {why}"), |()| "healthy".into());
    let upstream = service.args.upstream.as_ref().map_or_else(String::new, |url| {
        let word = upstream_health(url).unwrap_or_else(|error| error.to_string());
        let url = escape(url);
        format!("<p>Needs <a href=\"{url}/\">{url}</a>: {}</p>", escape(&word))
    });
    let switches: String = [
        ("/crash?how=exit", "Crash (exit status 1)"),
        ("/crash?how=abort", "Crash (abort)"),
        ("/crash?how=segv", "Crash (segmentation fault)"),
        ("/exit", "End with success"),
        ("/hang", "Answer nobody any more"),
        ("/leak?mb_per_s=20", "Leak 20 MB per second"),
        ("/fail-health?seconds=60", "Fail the health check for 60 s"),
        ("/recover", "Be healthy again"),
        ("/spin?seconds=30", "Use a whole core for 30 s"),
    ]
    .iter()
    .map(|(path, words)| format!("<form method=post action=\"{path}\"><button>{words}</button></form>"))
    .collect();
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>{name}</title><style>body{{font:16px/1.5 sans-serif;max-width:40em;margin:2em auto;padding:0 1em}}\
         form{{display:inline-block;margin:.2em}}</style><h1>{name}</h1><p>Process {}, up {} s, {} requests. \
         <a href=/health>Health</a>: {}</p>{upstream}<h2>Make it go wrong</h2>{switches}</html>\n",
        std::process::id(),
        service.started.elapsed().as_secs(),
        service.requests.load(Ordering::Relaxed),
        escape(&word),
    )
}

/// One line: the status of the upstream's health.
fn upstream_health(url: &str) -> io::Result<String> {
    let bad = || io::Error::new(ErrorKind::InvalidInput, "not a URL such as http://localhost:8080");
    let host = url.strip_prefix("http://").and_then(|rest| rest.split('/').next()).ok_or_else(bad)?;
    let address: SocketAddr = host.to_socket_addrs()?.find(SocketAddr::is_ipv4).ok_or_else(bad)?;
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    write!(stream, "GET /health HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")?;
    let mut line = String::new();
    BufReader::new(stream.take(200)).read_line(&mut line)?;
    Ok(match line.split(' ').nth(1) {
        Some("200") => "healthy".into(),
        Some(code) => format!("unhealthy (HTTP {})", code.trim()),
        None => "no answer".into(),
    })
}

/// The request line; headers are read to their end, within the bounds, and a body is left alone.
fn read_request(stream: &TcpStream) -> io::Result<Request> {
    let until = Instant::now() + REQUEST_TIME;
    let mut reader = BufReader::new(stream.take(REQUEST_BYTES));
    let mut lines = Vec::new();
    loop {
        // Anew for each line: a client that trickles is let go as well.
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            return Err(invalid("the request does not end, or is too long"));
        }
        let line = String::from_utf8(line).map_err(|_| invalid("the request is not text"))?;
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let words: Vec<&str> = lines.first().map(|line| line.split(' ').collect()).unwrap_or_default();
    let [method, target, version] = words.as_slice() else { return Err(invalid("this is not HTTP")) };
    if !version.starts_with("HTTP/1.") || !target.starts_with('/') {
        return Err(invalid("this is not HTTP/1.1"));
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let header = |line: &String| {
        line.split_once(':').map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
    };
    let headers = lines.iter().skip(1).filter_map(header).collect();
    Ok(Request { method: (*method).into(), path: path.into(), query: query.into(), headers })
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

fn respond(stream: &mut TcpStream, code: u16, kind: &str, body: &str) -> io::Result<()> {
    let word = match code {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        _ => "Service Unavailable",
    };
    let head = format!(
        "HTTP/1.1 {code} {word}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\ncache-control: no-store\r\n\
         connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes())?;
    stream.flush()
}

fn value<'a>(query: &'a str, key: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.split_once('=').filter(|(k, _)| *k == key)).map(|(_, v)| v)
}

fn number(query: &str, key: &str, default: f64) -> Result<f64, String> {
    let Some(text) = value(query, key) else { return Ok(default) };
    let good = text.parse::<f64>().ok().filter(|n| (0.1..=100_000.0).contains(n));
    good.ok_or_else(|| format!("{key} is a number from 0.1 to 100000"))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn say(line: &str) {
    // A closed stdout is no reason to end.
    let _ = writeln!(io::stdout().lock(), "{line}");
}

fn fail(why: &str) -> ExitCode {
    let _ = writeln!(io::stderr().lock(), "demo-service: {why}");
    ExitCode::FAILURE
}
