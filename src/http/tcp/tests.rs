//! The TCP side as clients and attackers meet it, over real sockets.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::http::tests::{World, world};
use crate::tls;
use crate::token::Digest;

const OPERATOR: &str = "operator-operator-operator-operator";
const VIEWER: &str = "viewer-viewer-viewer-viewer-viewer-";
/// Longer than anything here may take on a busy machine.
const LONG: Duration = Duration::from_secs(20);

fn rules() -> Rules {
    Rules {
        operator: Some(Digest::of(OPERATOR.as_bytes())),
        viewer: Some(Digest::of(VIEWER.as_bytes())),
        ..Rules::default()
    }
}

/// A free port. Somebody else may take it before we do; nobody here does.
fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

struct Served {
    world: World,
    at: SocketAddr,
    rules: watch::Sender<Rules>,
    wanted: watch::Sender<Wanted>,
    news: Arc<Mutex<Vec<News>>>,
    stop: CancellationToken,
    server: tokio::task::JoinHandle<()>,
}

async fn served(header_time: Duration) -> Served {
    let served = served_at(free(), None, header_time);
    served.is_up(served.at).await;
    served
}

fn served_at(at: SocketAddr, tls: Option<Arc<ServerConfig>>, header_time: Duration) -> Served {
    let (world, stop, news) = (world(), CancellationToken::new(), Arc::<Mutex<Vec<News>>>::default());
    let (rules, rules_seen) = watch::channel(rules());
    let (wanted, wanted_seen) = watch::channel(Wanted { listen: [at].into(), tls });
    let (router, told, stopped) = (world.router.clone(), news.clone(), stop.clone());
    let tell = move |news| told.lock().unwrap().push(news);
    let server = tokio::spawn(async move {
        serve(router, rules_seen, wanted_seen, tell, stopped.cancelled(), header_time).await;
    });
    Served { world, at, rules, wanted, news, stop, server }
}

impl Served {
    async fn is_up(&self, at: SocketAddr) {
        until("it listens", async || TcpStream::connect(at).await.is_ok()).await;
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.at).await.unwrap()
    }

    /// Sends what is given, as it is, and reads to the end.
    async fn talk(&self, text: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(text.as_bytes()).await.unwrap();
        read(stream).await
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        Answer(self.talk(&request(method, path, headers)).await)
    }

    /// The status of a read with this token.
    async fn with(&self, token: &str) -> u16 {
        self.ask("GET", "health", &[("authorization", &format!("Bearer {token}"))]).await.status()
    }
}

/// With a `Host` of ours where `headers` have none.
fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let mut text = format!("{method} /api/supervisor/{path} HTTP/1.1\r\nconnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "host") {
        text += "host: localhost:9001\r\n";
    }
    headers.iter().for_each(|(name, value)| text += &format!("{name}: {value}\r\n"));
    text + "\r\n"
}

struct Answer(String);

impl Answer {
    fn status(&self) -> u16 {
        self.0.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{:?}", self.0))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let head = self.0.split("\r\n\r\n").next().unwrap();
        head.lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(n, _)| *n == name)
            .map(|(_, value)| value)
    }

    fn body(&self) -> Value {
        serde_json::from_str(self.0.split_once("\r\n\r\n").unwrap().1).unwrap_or(Value::Null)
    }
}

async fn read(mut stream: impl AsyncRead + Unpin) -> String {
    let mut answer = Vec::new();
    // An answer and then a reset is an answer.
    let _ = tokio::time::timeout(LONG, stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8(answer).unwrap()
}

async fn until(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let start = std::time::Instant::now();
    while !check().await {
        assert!(start.elapsed() < LONG, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

const OPERATES: (&str, &str) = ("authorization", "Bearer operator-operator-operator-operator");
const VIEWS: (&str, &str) = ("authorization", "Bearer viewer-viewer-viewer-viewer-viewer-");

#[tokio::test]
async fn roles_have_their_answers() {
    let served = served(LONG).await;
    assert_eq!(served.ask("GET", "status", &[OPERATES]).await.status(), 200);
    assert_eq!(served.ask("GET", "status", &[VIEWS]).await.status(), 200);
    assert_eq!(served.ask("GET", "services/web", &[VIEWS]).await.body()["config"]["command"], "/usr/bin/x");
    let missing = served.ask("GET", "status", &[]).await;
    assert_eq!(
        (missing.status(), missing.header("www-authenticate").unwrap()),
        (401, "Bearer realm=\"process-supervisor\"")
    );
    assert_eq!(missing.header("content-type"), Some("application/problem+json"));
    assert!(missing.body()["detail"].as_str().unwrap().contains("Authorization: Bearer TOKEN"));
    let wrong = served.ask("GET", "status", &[("authorization", "Bearer hunter2hunter2")]).await;
    assert!(wrong.status() == 401 && wrong.header("www-authenticate").unwrap().contains("invalid_token"));
    assert!(!wrong.0.contains("hunter2"));
    let change = served.ask("POST", "services/web/stop", &[VIEWS]).await;
    assert_eq!(
        (change.status(), &change.body()["type"]),
        (403, &"urn:process-supervisor:problem:read_only".into()),
        "{}",
        change.0
    );
    assert_eq!(served.ask("POST", "services/web/stop", &[]).await.status(), 401);
    assert!(served.world.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_change_says_whose_token_and_from_where() {
    let served = served(LONG).await;
    let mut stream = served.connect().await;
    let from = stream.local_addr().unwrap();
    stream.write_all(request("POST", "services/web/stop", &[OPERATES]).as_bytes()).await.unwrap();
    assert!(read(stream).await.starts_with("HTTP/1.1 200"));
    assert_eq!(*served.world.asked.lock().unwrap(), [format!("Stop web by token operator from {from}")]);
}

#[tokio::test]
async fn a_token_rotates_no_token() {
    let served = served(LONG).await;
    let refused = served.ask("POST", "token/rotate?role=viewer", &[OPERATES]).await;
    assert_eq!(refused.status(), 403);
    assert!(refused.body()["detail"].as_str().unwrap().contains("supervisorctl token rotate"));
    assert!(served.world.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn anonymous_readers_see_neither_logs_nor_configuration() {
    let served = served(LONG).await;
    served.rules.send_modify(|rules| rules.anonymous = true);
    let web = served.ask("GET", "services/web", &[]).await;
    assert_eq!((web.status(), &web.body()["config"], &web.body()["id"]), (200, &Value::Null, &"web".into()));
    assert_eq!(served.ask("GET", "services/web/logs", &[]).await.status(), 401);
    assert_eq!(served.ask("POST", "services/web/stop", &[]).await.status(), 401);
    assert_eq!(served.ask("GET", "status", &[("authorization", "Bearer wrong")]).await.status(), 401);
    for path in ["alerts", "summary"] {
        let (open, closed) = (served.ask("GET", path, &[VIEWS]).await, served.ask("GET", path, &[]).await);
        assert!(open.0.contains("a line of the log"), "{}", open.0);
        assert!(closed.status() == 200 && !closed.0.contains("a line of the log"), "{}", closed.0);
        assert!(closed.0.contains("\"attempt\":1"), "the rest stays");
    }
}

#[tokio::test]
async fn rebinding_and_cross_site_requests_are_refused() {
    let served = served(LONG).await;
    let rebound = served.ask("GET", "status", &[OPERATES, ("host", "evil.example:9001")]).await;
    assert_eq!(rebound.status(), 403);
    assert!(rebound.body()["detail"].as_str().unwrap().contains("allowed_hosts"));
    let form = ("content-type", "text/plain");
    for page in [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")] {
        assert_eq!(served.ask("POST", "services/web/stop", &[OPERATES, page, form]).await.status(), 403);
        assert_eq!(served.ask("POST", "services/web/stop", &[page, form]).await.status(), 403);
    }
    assert_eq!(served.ask("GET", "status", &[OPERATES, ("host", "a"), ("host", "b")]).await.status(), 400);
    let none = format!(
        "GET /api/supervisor/status HTTP/1.1\r\nconnection: close\r\n{}: {}\r\n\r\n",
        OPERATES.0, OPERATES.1
    );
    assert!(served.talk(&none).await.starts_with("HTTP/1.1 400"));
    assert!(served.world.asked.lock().unwrap().is_empty());
    served.rules.send_modify(|rules| rules.hosts.push("shop.example".into()));
    assert_eq!(served.ask("GET", "status", &[OPERATES, ("host", "shop.example")]).await.status(), 200);
}

#[tokio::test]
async fn every_answer_tells_browsers_what_it_is() {
    let served = served(LONG).await;
    for (method, path, headers) in [
        ("GET", "status", &[OPERATES][..]),
        ("GET", "nothing", &[OPERATES]),
        ("PUT", "status", &[OPERATES]),
        ("GET", "status", &[]),
        ("GET", "status", &[("host", "evil.example")]),
    ] {
        let answer = served.ask(method, path, headers).await;
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{method} {path}: {}", answer.0);
        }
    }
    let (got, head) =
        (served.ask("GET", "alerts", &[VIEWS]).await, served.ask("HEAD", "alerts", &[VIEWS]).await);
    assert_eq!((head.status(), head.header("content-length")), (200, got.header("content-length")));
    assert!(head.0.ends_with("\r\n\r\n"), "no body: {}", head.0);
}

#[tokio::test]
async fn wrong_tokens_are_slowed_down_and_right_ones_are_not() {
    let served = served(LONG).await;
    for n in 0..10 {
        assert_eq!(served.with(&format!("guess-{n}")).await, 401);
    }
    // On a slow machine some are forgiven meanwhile.
    let mut refused = served.ask("GET", "status", &[("authorization", "Bearer wrong")]).await;
    until("it is enough", async || {
        refused = served.ask("GET", "status", &[("authorization", "Bearer wrong")]).await;
        refused.status() == 429
    })
    .await;
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=7).contains(&wait), "{wait}");
    assert_eq!(served.with(OPERATOR).await, 200, "the owner is not locked out by others of the same address");
    assert_eq!(served.ask("GET", "status", &[]).await.status(), 401);
    let elsewhere = tokio::net::TcpSocket::new_v4().unwrap();
    elsewhere.bind((IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)), 0).into()).unwrap();
    let mut stream = elsewhere.connect(served.at).await.unwrap();
    stream
        .write_all(request("GET", "status", &[("authorization", "Bearer wrong")]).as_bytes())
        .await
        .unwrap();
    assert!(read(stream).await.starts_with("HTTP/1.1 401"), "another address has its own count");
}

#[tokio::test]
async fn a_rotated_token_is_refused_at_once_on_open_connections_too() {
    let served = served(LONG).await;
    let ask = request("GET", "health", &[OPERATES]).replace("connection: close\r\n", "");
    let (mut idle, mut busy) = (served.connect().await, served.connect().await);
    idle.write_all(ask.as_bytes()).await.unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    // An answer that never comes: what a stream is to us.
    busy.write_all(request("POST", "services/slow/start", &[OPERATES]).as_bytes()).await.unwrap();
    until("the order is there", async || !served.world.asked.lock().unwrap().is_empty()).await;
    let viewer = served.connect().await;
    served.rules.send_modify(|rules| rules.operator = Some(Digest::of(b"new")));
    assert_eq!(served.with(OPERATOR).await, 401);
    assert_eq!(served.with("new").await, 200);
    let _ = idle.write_all(ask.as_bytes()).await;
    assert!(!read(idle).await.contains("HTTP/1.1 200"), "the open connection is closed or refuses");
    assert_eq!(read(busy).await, "", "what was on the way is cut");
    let mut viewer = viewer;
    viewer.write_all(request("GET", "health", &[VIEWS]).as_bytes()).await.unwrap();
    assert!(read(viewer).await.starts_with("HTTP/1.1 200"), "the other role is left alone");
}

#[tokio::test]
async fn readers_without_a_token_are_let_go_when_one_is_needed() {
    let served = served(LONG).await;
    served.rules.send_modify(|rules| rules.anonymous = true);
    let mut idle = served.connect().await;
    idle.write_all(request("GET", "health", &[]).replace("connection: close\r\n", "").as_bytes())
        .await
        .unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    served.rules.send_modify(|rules| rules.anonymous = false);
    read(idle).await;
    assert_eq!(served.ask("GET", "health", &[]).await.status(), 401);
}

#[tokio::test]
async fn a_thousand_silent_connections_keep_nobody_out() {
    let served = served(LONG).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let unix = UnixListener::bind(&path).unwrap();
    tokio::spawn(crate::http::serve_unix(
        unix,
        tokio::sync::mpsc::channel(1).1,
        served.world.router.clone(),
        std::future::pending(),
    ));
    let mut held = served.connect().await;
    let ask = request("GET", "health", &[OPERATES]).replace("connection: close\r\n", "");
    let mut silent = Vec::new();
    for n in 0..1000 {
        silent.push(served.connect().await);
        if n % 100 == 0 {
            held.write_all(ask.as_bytes()).await.unwrap();
            assert_eq!(next_answer(&mut held).await.status(), 200, "who showed a token keeps the connection");
            assert_eq!(served.with(VIEWER).await, 200, "and new ones get in");
        }
    }
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    stream.write_all(request("GET", "health", &[]).as_bytes()).await.unwrap();
    assert!(read(stream).await.starts_with("HTTP/1.1 200"));
    until("most silent ones are gone", async || {
        let open = silent.iter().filter(|s| !is_closed(s)).count();
        open <= crate::http::budget::PER_CLIENT
    })
    .await;
}

/// One answer on a connection that stays open.
async fn next_answer(stream: &mut TcpStream) -> Answer {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(tokio::time::timeout(LONG, stream.read_u8()).await.unwrap().unwrap());
    }
    let mut answer = Answer(String::from_utf8(text).unwrap());
    let mut body = vec![0; answer.header("content-length").unwrap().parse().unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    answer.0 += &String::from_utf8(body).unwrap();
    answer
}

fn is_closed(stream: &TcpStream) -> bool {
    !matches!(stream.try_read(&mut [0; 1]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

#[tokio::test]
async fn slow_and_broken_clients_are_let_go() {
    let served = served(Duration::from_millis(300)).await;
    assert_eq!(served.talk("").await, "");
    assert_eq!(served.talk("GET /api/superv").await, "");
    let mut slow = served.connect().await;
    let trickle = async {
        for byte in request("GET", "status", &[OPERATES]).bytes().cycle() {
            if slow.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, trickle).await.expect("a trickle of headers is cut");
    let garbage = served.talk("\0\u{1}garbage\r\n\r\n").await;
    assert!(garbage.starts_with("HTTP/1.1 400"), "{garbage}");
    for bad in [
        "GET / HTTP/9.9\r\n\r\n",
        "POST /api/supervisor/metrics HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        "POST /api/supervisor/metrics HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
        "GET /\u{7f} HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "GET / HTTP/1.1\r\nhost : localhost\r\n\r\n",
    ] {
        let answer = served.talk(bad).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{bad:?}: {answer}");
    }
    assert_eq!(served.with(OPERATOR).await, 200);
}

#[tokio::test]
async fn a_slow_body_is_not_waited_for() {
    let served = served(LONG).await;
    let json = ("content-type", "application/json");
    // Without a token nothing of it is read.
    assert_eq!(served.ask("POST", "metrics", &[json, ("content-length", "1000")]).await.status(), 401);
    let slow = served.ask("POST", "metrics", &[OPERATES, json, ("content-length", "1000")]).await;
    assert_eq!(slow.status(), 408);
}

#[tokio::test]
async fn an_address_that_is_taken_is_told_once_and_opened_when_it_can_be() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    let served = served_at(at, None, LONG);
    until("it is told", async || !served.news.lock().unwrap().is_empty()).await;
    let news = served.news.lock().unwrap()[0].clone();
    let trouble = news.trouble.unwrap();
    assert!(
        trouble.contains(&at.to_string())
            && trouble.contains("ss -ltnp")
            && trouble.contains("supervisor.listen")
    );
    assert!(news.message.contains("tried again"));
    drop(taken);
    until("it is over", async || served.news.lock().unwrap().len() == 2).await;
    assert_eq!(served.news.lock().unwrap()[1].trouble, None);
    assert_eq!(served.with(OPERATOR).await, 200);
}

#[tokio::test]
async fn further_tries_are_not_told() {
    let news = Arc::<Mutex<Vec<News>>>::default();
    let told = news.clone();
    let shared = Shared {
        router: world().router,
        gate: Gate::new(watch::channel(rules()).1),
        budget: Budget::default(),
        wanted: watch::channel(Wanted::default()).1,
        failing: Mutex::default(),
        tell: Box::new(move |news| told.lock().unwrap().push(news)),
        header_time: LONG,
    };
    let [one, two] = ["127.0.0.1:1", "127.0.0.1:2"].map(|at| at.parse().unwrap());
    for _ in 0..3 {
        shared.fails(one, &ErrorKind::AddrInUse.into());
        shared.fails(two, &ErrorKind::PermissionDenied.into());
    }
    for at in [one, one, two, two] {
        shared.works(at, "is open now");
    }
    let news = news.lock().unwrap();
    let troubles: Vec<_> = news.iter().map(|news| news.trouble.as_deref().unwrap_or("none")).collect();
    assert_eq!(troubles.len(), 4, "{troubles:?}");
    assert!(troubles[1].contains("127.0.0.1:1: ") && troubles[1].contains("127.0.0.1:2: "), "{troubles:?}");
    assert!(!troubles[2].contains("127.0.0.1:1: ") && troubles[2].contains("below 1024"), "{troubles:?}");
    assert_eq!(troubles[3], "none");
}

#[tokio::test]
async fn addresses_come_and_go_while_it_runs() {
    let mut served = served(LONG).await;
    let (first, second, six) = (served.at, free(), SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 0)));
    let has_six = std::net::TcpListener::bind("[::1]:0").is_ok();
    let mut idle = served.connect().await;
    served.wanted.send_modify(|wanted| wanted.listen = [second].into());
    served.is_up(second).await;
    until("the first is closed", async || TcpStream::connect(first).await.is_err()).await;
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0, "with its connections");
    served.at = second;
    assert_eq!(served.with(OPERATOR).await, 200);
    if has_six {
        served.wanted.send_modify(|wanted| wanted.listen.extend([six]));
        assert_eq!(served.with(OPERATOR).await, 200);
    }
    served.wanted.send_modify(|wanted| wanted.listen.clear());
    until("none is left", async || TcpStream::connect(second).await.is_err()).await;
    served.wanted.send_modify(|wanted| wanted.listen = [first].into());
    served.is_up(first).await;
    served.stop.cancel();
    tokio::time::timeout(LONG, served.server).await.unwrap().unwrap();
    assert!(TcpStream::connect(first).await.is_err());
    assert!(served.news.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_is_no_longer_wanted_is_no_trouble() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let served = served_at(taken.local_addr().unwrap(), None, LONG);
    until("it is told", async || !served.news.lock().unwrap().is_empty()).await;
    served.wanted.send_modify(|wanted| wanted.listen.clear());
    until("it is over", async || served.news.lock().unwrap().last().unwrap().trouble.is_none()).await;
}

/// The name of the certificate that a server shows, and its answer.
async fn over_tls(at: SocketAddr, trusted: &tls::TlsFiles) -> std::io::Result<String> {
    use rustls::pki_types::pem::PemObject as _;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_file(&trusted.certificate).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let stream = TcpStream::connect(at).await?;
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    stream.write_all(request("GET", "health", &[OPERATES]).as_bytes()).await?;
    Ok(read(stream).await)
}

#[tokio::test]
async fn tls_with_a_certificate_that_is_renewed() {
    let folder = tempfile::tempdir().unwrap();
    let made = ["one", "two"].map(|name| tls::tests::certificate(folder.path(), name));
    let [Some(one), Some(two)] = made else { return };
    let served = served_at(free(), Some(tls::load(&one).unwrap()), LONG);
    served.is_up(served.at).await;
    assert!(over_tls(served.at, &one).await.unwrap().starts_with("HTTP/1.1 200"));
    assert!(over_tls(served.at, &two).await.is_err());
    let plain = served.talk(&request("GET", "health", &[OPERATES])).await;
    assert!(!plain.contains("HTTP/1.1 200"), "nothing is served without TLS: {plain}");
    let silent = served.connect().await;
    served.wanted.send_modify(|wanted| wanted.tls = Some(tls::load(&two).unwrap()));
    assert!(over_tls(served.at, &two).await.unwrap().starts_with("HTTP/1.1 200"));
    assert!(over_tls(served.at, &one).await.is_err());
    served.wanted.send_modify(|wanted| wanted.tls = None);
    assert_eq!(read(silent).await, "", "who was about to shake hands is let go");
    until("it is plain", async || {
        let Ok(mut stream) = TcpStream::connect(served.at).await else { return false };
        let _ = stream.write_all(request("GET", "health", &[OPERATES]).as_bytes()).await;
        read(stream).await.starts_with("HTTP/1.1 200")
    })
    .await;
}
