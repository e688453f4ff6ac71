//! Against listeners that behave, hang, trickle, lie and close.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::sync::mpsc;

use super::super::Finding;
use super::super::tests::ask_once;
use super::*;
use crate::core::plan::{Probe, Secret};

/// What a listener does with each connection after it read the request.
#[derive(Clone)]
enum Does {
    Says(Vec<u8>),
    /// Says this again and again, with a pause.
    Repeats(Vec<u8>, Vec<u8>, Duration),
    Hangs,
}

fn says(text: &str) -> Does {
    Does::Says(text.into())
}

fn ok(body: &str) -> Does {
    says(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

/// Serves one connection, and hands on what was asked.
async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    does: Does,
    asked: mpsc::UnboundedSender<String>,
) {
    let mut stream = BufReader::new(stream);
    let mut request = String::new();
    while !request.ends_with("\r\n\r\n") && stream.read_line(&mut request).await.is_ok_and(|n| n > 0) {}
    let _gone = asked.send(request);
    match does {
        Does::Says(text) => drop(stream.write_all(&text).await),
        Does::Repeats(first, again, pause) => {
            let mut sent = stream.write_all(&first).await;
            while sent.is_ok() {
                sent = stream.write_all(&again).await;
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
            }
        }
        // Until the probe closes its end.
        Does::Hangs => while stream.read_line(&mut String::new()).await.is_ok_and(|n| n > 0) {},
    }
}

/// A listener, its port, and the requests that it gets.
async fn listener(does: impl Fn(u16) -> Does) -> (u16, mpsc::UnboundedReceiver<String>) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let (tell, asked) = mpsc::unbounded_channel();
    let does = does(port);
    tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            tokio::spawn(serve(stream, does.clone(), tell.clone()));
        }
    });
    (port, asked)
}

fn probe(endpoint: String) -> HttpProbe {
    HttpProbe {
        endpoint,
        method: "GET".into(),
        headers: BTreeMap::new(),
        expected_status: vec![(200, 200)],
        expected_content: None,
        tls_verify: true,
    }
}

async fn asked(probe: HttpProbe, timeout: Duration) -> Finding {
    ask_once(Probe::Http(probe), &ProbeClient::default(), timeout).await
}

const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn the_status_decides() {
    for (status, expected, passes) in [
        (200, vec![(200, 200)], true),
        (503, vec![(200, 200)], false),
        (204, vec![(200, 299)], true),
        (404, vec![(200, 200), (404, 404)], true),
        (302, vec![(300, 399)], true),
    ] {
        let answer =
            format!("HTTP/1.1 {status} X\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n");
        let (port, _asked) = listener(|_| says(&answer)).await;
        let url = format!("http://localhost:{port}/health");
        let found = asked(HttpProbe { expected_status: expected, ..probe(url.clone()) }, LONG).await;
        let message = format!("HTTP {status} from {url}");
        assert_eq!(found, if passes { Ok(message) } else { Err(message) });
    }
}

#[tokio::test]
async fn the_content_decides_within_64_kib() {
    let far = |n: usize| format!("{}needle", "x".repeat(n));
    for (body, passes) in [
        ("status: needle!".to_owned(), true),
        ("status: needl".to_owned(), false),
        (String::new(), false),
        (far(BODY - 6), true),
        (far(BODY - 5), false),
        (far(10 * BODY), false),
    ] {
        let (port, _asked) = listener(|_| ok(&body)).await;
        let url = format!("http://127.0.0.1:{port}/");
        let expected_content = Some("needle".into());
        let found = asked(HttpProbe { expected_content, ..probe(url) }, LONG).await;
        assert_eq!(found.is_ok(), passes, "{found:?}");
    }
}

#[tokio::test]
async fn a_match_across_two_chunks_is_found() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nnee\r\n3\r\ndle\r\n";
    // The body never ends: the match is enough.
    let pause = Duration::from_millis(10);
    let (port, _asked) = listener(|_| Does::Repeats(answer.into(), "1\r\nx\r\n".into(), pause)).await;
    let expected_content = Some("needle".into());
    let found =
        asked(HttpProbe { expected_content, ..probe(format!("http://localhost:{port}/")) }, LONG).await;
    assert!(found.is_ok(), "{found:?}");
}

#[tokio::test]
async fn bad_listeners_are_failures_in_time() {
    let short = Duration::from_millis(400);
    let slow = Duration::from_millis(20);
    let endless = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    for (does, message) in [
        (Does::Hangs, "no answer within 400 ms from URL"),
        (
            Does::Repeats(b"HTTP/1.1 200 OK\r\n".to_vec(), b"a: b\r\n".to_vec(), slow),
            "no answer within 400 ms from URL",
        ),
        (Does::Repeats(endless.clone(), b"x".to_vec(), slow), "no answer within 400 ms from URL"),
        (
            Does::Repeats(endless, vec![b'x'; 1000], Duration::ZERO),
            "HTTP 200 from URL, but the expected content is not in the first 64 KiB of the body",
        ),
        (says(""), "no proper HTTP answer from URL: "),
        (says("SSH-2.0-OpenSSH_9.2\r\n"), "no proper HTTP answer from URL: "),
        (says("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"), "no proper HTTP answer from URL: "),
        (
            Does::Repeats(b"HTTP/1.1 200 OK\r\n".to_vec(), vec![b'h'; 1000], Duration::ZERO),
            "no proper HTTP answer",
        ),
    ] {
        let (port, _asked) = listener(|_| does.clone()).await;
        let url = format!("http://localhost:{port}/");
        let started = std::time::Instant::now();
        let expected_content = Some("needle".into());
        let found = asked(HttpProbe { expected_content, ..probe(url.clone()) }, short).await.unwrap_err();
        assert!(found.starts_with(&message.replace("URL", &url)), "{found:?} for {message:?}");
        assert!(started.elapsed() < LONG);
    }
}

#[tokio::test]
async fn a_header_that_never_ends_does_not_fill_the_memory() {
    let endless = Does::Repeats(b"HTTP/1.1 200 OK\r\n".to_vec(), vec![b'h'; 10_000], Duration::ZERO);
    let (port, _asked) = listener(|_| endless.clone()).await;
    let found = asked(probe(format!("http://localhost:{port}/")), LONG).await.unwrap_err();
    assert!(found.contains("no proper HTTP answer"), "{found}");
}

#[tokio::test]
async fn a_refused_connection_is_named() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    for host in ["localhost", "127.0.0.1"] {
        let found = asked(probe(format!("http://{host}:{port}/health")), LONG).await;
        assert_eq!(found, Err(format!("connection refused by http://{host}:{port}/health")));
    }
}

#[tokio::test]
async fn each_probe_is_a_new_connection_with_the_headers_of_the_plan() {
    let (port, mut requests) = listener(|_| ok("")).await;
    let client = ProbeClient::default();
    let headers = BTreeMap::from([("X-Token".to_owned(), Secret("s3cret".into()))]);
    let probe =
        HttpProbe { method: "HEAD".into(), headers, ..probe(format!("http://localhost:{port}/a?b=c")) };
    for _ in 0..2 {
        let found = ask_once(Probe::Http(probe.clone()), &client, LONG).await;
        assert!(found.is_ok(), "{found:?}");
        let request = requests.recv().await.unwrap().to_lowercase();
        assert!(request.starts_with("head /a?b=c http/1.1\r\n"), "{request}");
        for line in ["connection: close", "x-token: s3cret", &format!("host: localhost:{port}")] {
            assert!(request.lines().any(|l| l == line), "{line} in {request}");
        }
    }
}

#[tokio::test]
async fn secrets_do_not_reach_messages() {
    let (port, _requests) = listener(|_| says("HTTP/1.1 500 X\r\n\r\n")).await;
    let endpoint = format!("http://user:s3cret@localhost:{port}/h?token=s3cret#s3cret");
    let bad = BTreeMap::from([("X-Token".to_owned(), Secret("s3cret\n".into()))]);
    let down = endpoint.replace(&port.to_string(), "1");
    for probe in [
        probe(endpoint.clone()),
        HttpProbe { headers: bad, ..probe(endpoint.clone()) },
        probe(down),
        probe(endpoint.replace("http:", "https:")),
        probe("http://s3cret@[".into()),
        HttpProbe { method: "\n".into(), ..probe(endpoint) },
    ] {
        let found = asked(probe, LONG).await.unwrap_err();
        assert!(!found.contains("s3cret") && !found.contains("user"), "{found}");
    }
}

#[tokio::test]
async fn redirects_stay_on_the_host_and_are_bounded() {
    let to =
        |target: &str| says(&format!("HTTP/1.1 302 X\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n"));
    let (there, mut there_asked) = listener(|_| ok("")).await;
    let token = BTreeMap::from([("X-Token".to_owned(), Secret("s3cret".into()))]);
    for (target, expected) in [
        (format!("http://localhost:{there}/x"), Ok("HTTP 200 from URL")),
        (format!("http://127.0.0.1:{there}/x"), Err("HTTP 302 from URL")),
        ("/again".into(), Err("more than 5 redirects from URL")),
        ("http://[".into(), Err("HTTP 302 from URL")),
    ] {
        let (port, _asked) = listener(|_| to(&target)).await;
        let url = format!("http://localhost:{port}/");
        let found = asked(HttpProbe { headers: token.clone(), ..probe(url.clone()) }, LONG).await;
        let expected = expected.map(|m| m.replace("URL", &url)).map_err(|m| m.replace("URL", &url));
        assert_eq!(found, expected, "{target}");
    }
    let followed = there_asked.recv().await.unwrap();
    assert!(!followed.contains("s3cret"), "another port does not get the token: {followed}");
    assert!(there_asked.try_recv().is_err(), "127.0.0.1 is not asked in the name of localhost");
}

#[tokio::test]
async fn unix_sockets() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("S x.sock");
    let socket = UnixListener::bind(&path).unwrap();
    let (tell, mut requests) = mpsc::unbounded_channel();
    let serving = tokio::spawn(async move {
        let (stream, _) = socket.accept().await.unwrap();
        serve(stream, ok("fine"), tell).await;
    });
    let host = path.to_str().unwrap().replace('/', "%2F").replace(' ', "%20");
    let url = format!("http+unix://{host}/health?a=b");
    let found = asked(HttpProbe { expected_content: Some("fine".into()), ..probe(url.clone()) }, LONG).await;
    assert_eq!(found, Ok(format!("HTTP 200 from http+unix://{host}/health?...")));
    let request = requests.recv().await.unwrap();
    assert!(
        request.starts_with("GET /health?a=b HTTP/1.1\r\n") && request.contains("localhost"),
        "{request}"
    );
    serving.await.unwrap();
    let found = asked(probe(url), LONG).await;
    assert_eq!(found, Err(format!("connection refused by http+unix://{host}/health?...")));
    for bad in ["http+unix://run/x", "http+unix:///run/x", "http+unix://%2/x"] {
        assert!(asked(probe(bad.into()), LONG).await.unwrap_err().contains("names no socket"), "{bad}");
    }
}

#[tokio::test]
async fn tls_is_verified_unless_told_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let made = std::process::Command::new("openssl")
        .current_dir(folder.path())
        .args(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
                .split(' '),
        )
        .args("-addext subjectAltName=DNS:localhost -keyout key -out cert".split(' '))
        .output();
    if !made.is_ok_and(|made| made.status.success()) {
        return eprintln!("skipped: needs the openssl program");
    }
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let _server = tokio::process::Command::new("openssl")
        .current_dir(folder.path())
        .args(["s_server", "-www", "-quiet", "-cert", "cert", "-key", "key", "-accept", &port.to_string()])
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let listens = || async { tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() };
    let deadline = std::time::Instant::now() + LONG;
    while !listens().await {
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let url = format!("https://localhost:{port}/");
    let found = asked(HttpProbe { tls_verify: false, ..probe(url.clone()) }, LONG).await;
    assert_eq!(found, Ok(format!("HTTP 200 from {url}")));
    let found = asked(probe(url), LONG).await.unwrap_err();
    assert!(found.contains("certificate"), "{found}");
}

/// A listener on one address of this machine, whose port nobody gets on the other one meanwhile.
async fn alone_on(address: IpAddr) -> Option<(TcpListener, TcpSocket)> {
    let other =
        if address.is_ipv4() { Ipv6Addr::LOCALHOST.into() } else { IpAddr::from(Ipv4Addr::LOCALHOST) };
    for _ in 0..100 {
        let listener = TcpListener::bind((address, 0)).await.ok()?;
        let unused = if other.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.ok()?;
        if unused.bind((other, listener.local_addr().unwrap().port()).into()).is_ok() {
            return Some((listener, unused));
        }
    }
    None
}

#[tokio::test]
async fn either_address_family_and_a_server_that_closes_at_once() {
    for address in [Ipv4Addr::LOCALHOST.into(), IpAddr::from(Ipv6Addr::LOCALHOST)] {
        let Some((socket, _unused)) = alone_on(address).await else {
            eprintln!("skipped: no {address} here");
            continue;
        };
        let at = socket.local_addr().unwrap();
        // By what is asked, not by their number: other tests may look for their servers on a port that is ours now.
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = socket.accept().await {
                let mut head = [0; 10];
                if stream.read_exact(&mut head).await.is_ok() && head != *b"GET /close" {
                    serve(stream, ok(""), mpsc::unbounded_channel().0).await;
                }
            }
        });
        for url in [format!("http://{at}/"), format!("http://localhost:{}/", at.port())] {
            assert_eq!(asked(probe(url.clone()), LONG).await, Ok(format!("HTTP 200 from {url}")));
        }
        let found = asked(probe(format!("http://{at}/close")), LONG).await.unwrap_err();
        assert!(found.starts_with("no proper HTTP answer") || found.contains("reset"), "{found}");
    }
}

/// Descriptors of this process; each test has one of its own.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Asks so often, some at once, and waits until there are no more descriptors than before.
async fn leaks_nothing(name: &str, probe: Probe, timeout: Duration, times: usize) {
    let client = ProbeClient::default();
    let passes = ask_once(probe.clone(), &client, LONG.min(timeout * 4)).await.is_ok();
    let before = descriptors();
    for _ in 0..times / 50 {
        let round = (0..50).map(|_| ask_once(probe.clone(), &client, timeout));
        let found = futures_util::future::join_all(round).await;
        // A machine under load may be too slow for what passes, never the other way round.
        assert!(passes || found.iter().all(Result::is_err), "{name}: {found:?}");
    }
    let deadline = std::time::Instant::now() + LONG;
    // One connection of the first question may have been closing still.
    while descriptors() > before {
        assert!(std::time::Instant::now() < deadline, "{name}: {before} before, {} now", descriptors());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_thousand_probes_of_each_kind_leak_no_descriptor() {
    let (short, slow) = (Duration::from_millis(50), Duration::from_millis(20));
    let head = b"HTTP/1.1 200 OK\r\n".to_vec();
    let again = says("HTTP/1.1 302 X\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n");
    for (name, does, timeout) in [
        ("answers", ok("needle"), LONG),
        ("hangs", Does::Hangs, short),
        ("trickles", Does::Repeats(head.clone(), b"a".to_vec(), slow), short),
        ("never ends", Does::Repeats([&head[..], b"\r\n"].concat(), vec![b'x'; 1000], slow), short),
        ("says nothing", says(""), LONG),
        ("speaks garbage", says("\0\u{1}garbage\r\n\r\n"), LONG),
        ("sends in a circle", again, LONG),
    ] {
        let (port, mut asked) = listener(|_| does.clone()).await;
        tokio::spawn(async move { while asked.recv().await.is_some() {} });
        let expected_content = Some("needle".into());
        let probe = HttpProbe { expected_content, ..probe(format!("http://127.0.0.1:{port}/")) };
        leaks_nothing(name, Probe::Http(probe), timeout, 1000).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let socket = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            tokio::spawn(serve(stream, ok(""), mpsc::unbounded_channel().0));
        }
    });
    let url = format!("http+unix://{}/", path.to_str().unwrap().replace('/', "%2F"));
    leaks_nothing("a Unix socket", Probe::Http(probe(url)), LONG, 1000).await;
}

#[tokio::test]
async fn a_thousand_tcp_probes_leak_no_descriptor_and_leave_nothing_in_time_wait() {
    let (port, _asked) = listener(|_| Does::Hangs).await;
    let tcp = |port| Probe::Tcp { host: "127.0.0.1".into(), port: Some(port) };
    leaks_nothing("tcp", tcp(port), LONG, 1000).await;
    leaks_nothing("refused", tcp(1), LONG, 1000).await;
    assert_eq!(in_time_wait(port), 0);
}

/// Connections to `port` that wait for stray packets, on whichever side.
fn in_time_wait(port: u16) -> usize {
    let end = format!(":{port:04X}");
    let waits = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(3) == Some(&"06") && (fields[1].ends_with(&end) || fields[2].ends_with(&end))
    };
    let count = |table| std::fs::read_to_string(table).unwrap_or_default().lines().filter(waits).count();
    count("/proc/net/tcp") + count("/proc/net/tcp6")
}

#[tokio::test]
async fn http_probes_leave_nothing_in_time_wait_and_let_the_server_close_first() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let (tell, mut seen) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for n in 0.. {
            let (stream, _) = socket.accept().await.unwrap();
            let tell = tell.clone();
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let mut request = String::new();
                while !request.ends_with("\r\n\r\n") {
                    stream.read_line(&mut request).await.unwrap();
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
                // Some take their time to close; nothing may come in the meantime.
                let early = match n % 10 {
                    0 => tokio::time::timeout(Duration::from_millis(100), stream.read_line(&mut request))
                        .await
                        .ok(),
                    _ => None,
                };
                tell.send((
                    early.map(|end| end.map_err(|error| error.kind())),
                    stream.shutdown().await.is_ok(),
                ))
                .unwrap();
            });
        }
    });
    let client = ProbeClient::default();
    for _ in 0..10 {
        let wanted = Probe::Http(HttpProbe {
            expected_content: Some("ok".into()),
            ..probe(format!("http://127.0.0.1:{port}/"))
        });
        let round = (0..20).map(|_| ask_once(wanted.clone(), &client, LONG));
        let found = futures_util::future::join_all(round).await;
        assert!(found.iter().all(Result::is_ok), "{found:?}");
    }
    for _ in 0..200 {
        assert_eq!(
            seen.recv().await.unwrap(),
            (None, true),
            "the server does not see our end before its own"
        );
    }
    let deadline = std::time::Instant::now() + LONG;
    while in_time_wait(port) > 0 {
        assert!(std::time::Instant::now() < deadline, "{} wait", in_time_wait(port));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn servers_that_never_close_use_up_no_descriptors() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", socket.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            tokio::spawn(async move {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
                // Until it is reset.
                while stream.read_u8().await.is_ok() {}
            });
        }
    });
    let (client, before) = (ProbeClient::default(), descriptors());
    for _ in 0..300 {
        let found = ask_once(Probe::Http(probe(url.clone())), &client, LONG).await;
        assert!(found.is_ok(), "{found:?}");
    }
    // Both ends are ours here.
    let held = descriptors() - before;
    assert!(held <= 2 * trust::CLOSING_AT_ONCE + 10, "{held}");
    let deadline = std::time::Instant::now() + LONG;
    while descriptors() > before + 1 {
        assert!(std::time::Instant::now() < deadline, "{}", descriptors() - before);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn the_user_part_of_a_url_is_a_login() {
    let (port, mut requests) = listener(|_| ok("")).await;
    assert!(asked(probe(format!("http://us%65r:p%40ss@localhost:{port}/")), LONG).await.is_ok());
    let request = requests.recv().await.unwrap();
    assert!(request.contains("authorization: Basic dXNlcjpwQHNz\r\n"), "{request}");
    assert!(request.contains(&format!("host: localhost:{port}\r\n")), "{request}");
}
