//! Listening on TCP. What is wanted may change at any time: new addresses are opened, those that are no longer wanted
//! are closed, and one that cannot be opened is tried again and again while everything else goes on.
//!
//! ```text
//!   Wanted (changes) -> serve_tcp -> a task for each address: bind, accept -> budget -> TLS -> gate -> router
//!                           |
//!                           '--> News: what cannot be opened, and that it is over
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use nix::sys::socket::{setsockopt, sockopt};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use super::access::{Caller, Client, Gate, Grants, Rules};
use super::budget::{Budget, Place};
use super::headers;
use super::serve::{ACCEPT_PAUSE, Ending, HEADER_TIME, Peer, Slot, answer, connection};
use crate::core::time::Human;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 128;
/// Between two tries to open an address: it doubles from the first to the second.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// For the handshake of TLS.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// For an answer on the way when its token is no longer valid.
const REVOKED: Duration = Duration::from_secs(1);
/// A client that takes none of its answer for so long, in milliseconds, is let go.
const STALLED_MS: u32 = 30_000;

/// Where to listen.
#[derive(Clone, Default)]
pub struct Wanted {
    /// The addresses.
    pub listen: BTreeSet<SocketAddr>,
    /// With this certificate. `None`: plain HTTP.
    pub tls: Option<Arc<ServerConfig>>,
}

impl std::fmt::Debug for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wanted").field("listen", &self.listen).field("tls", &self.tls.is_some()).finish()
    }
}

/// Something to write down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// What happened, and what comes next.
    pub message: String,
    /// Everything that is wrong now. `None`: all is well.
    pub trouble: Option<String>,
}

/// What all listeners share.
struct Shared {
    router: Router,
    gate: Gate,
    budget: Budget,
    wanted: watch::Receiver<Wanted>,
    /// What cannot be opened, and why.
    failing: Mutex<BTreeMap<SocketAddr, String>>,
    tell: Box<dyn Fn(News) + Send + Sync>,
    header_time: Duration,
}

/// Serves what is wanted until `shutdown` is ready, then gives open requests two seconds. Never fails.
pub async fn serve_tcp(
    router: Router,
    rules: watch::Receiver<Rules>,
    wanted: watch::Receiver<Wanted>,
    tell: impl Fn(News) + Send + Sync + 'static,
    shutdown: impl Future<Output = ()>,
) {
    serve(router, rules, wanted, tell, shutdown, HEADER_TIME / 3).await;
}

/// The same, with the patience as an argument.
pub(super) async fn serve(
    router: Router,
    rules: watch::Receiver<Rules>,
    mut wanted: watch::Receiver<Wanted>,
    tell: impl Fn(News) + Send + Sync + 'static,
    shutdown: impl Future<Output = ()>,
    header_time: Duration,
) {
    let shared = Arc::new(Shared {
        router,
        gate: Gate::new(rules),
        budget: Budget::default(),
        wanted: wanted.clone(),
        failing: Mutex::default(),
        tell: Box::new(tell),
        header_time,
    });
    let (ending, tasks) = (Ending::default(), TaskTracker::new());
    // An address is another one with TLS: its connections do not outlive the change.
    let mut open: BTreeMap<(SocketAddr, bool), (Ending, tokio::task::JoinHandle<()>)> = BTreeMap::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let next = {
            let wanted = wanted.borrow_and_update();
            let tls = wanted.tls.is_some();
            wanted.listen.iter().map(|address| (*address, tls)).collect::<BTreeSet<_>>()
        };
        let gone: Vec<_> = open.keys().filter(|key| !next.contains(key)).copied().collect();
        for key in gone {
            if let Some((ending, accepting)) = open.remove(&key) {
                ending.soon();
                // The address is free when it has ended, perhaps for the next one of the same address.
                drop(accepting.await);
            }
        }
        for key in next {
            open.entry(key).or_insert_with(|| {
                let ending = ending.of_one();
                (ending.clone(), tokio::spawn(listen(shared.clone(), key, ending, tasks.clone())))
            });
        }
        tokio::select! {
            () = &mut shutdown => break,
            changed = wanted.changed() => if changed.is_err() {
                shutdown.await;
                break;
            },
        }
    }
    ending.soon();
    for (_, accepting) in open.into_values() {
        drop(accepting.await);
    }
    ending.end(&tasks).await;
}

/// Opens one address, as soon as it can be had, and accepts until it is no longer wanted.
async fn listen(shared: Arc<Shared>, (address, tls): (SocketAddr, bool), ending: Ending, tasks: TaskTracker) {
    let listener = tokio::select! {
        listener = opened(&shared, address) => listener,
        () = ending.begun() => return shared.works(address, "is no longer wanted"),
    };
    let scheme = if tls { "https" } else { "http" };
    let shown = listener.local_addr().unwrap_or(address);
    tracing::info!("the API is served at {scheme}://{shown}");
    loop {
        let accepted = tokio::select! {
            () = ending.begun() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let ending = ending.of_one();
                // Without a place it is closed at once.
                if let Some(place) = shared.budget.take(Client::of(peer.ip()), &ending) {
                    tasks.spawn(one(shared.clone(), stream, peer, ending, place, tls));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "{address} could not accept a connection; trying again in 200 ms");
                tokio::select! {
                    () = ending.begun() => break,
                    () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
    tracing::info!("the API is no longer served at {scheme}://{shown}");
}

async fn opened(shared: &Shared, address: SocketAddr) -> TcpListener {
    let mut pause = RETRY.0;
    loop {
        match bind(address) {
            Ok(listener) => {
                shared.works(address, "is open now");
                return listener;
            }
            Err(error) => shared.fails(address, &error),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY.1);
    }
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if address.is_ipv6() {
        // So that "[::]:9001" stands beside "0.0.0.0:9001".
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl Shared {
    /// Told once, however often it is tried.
    fn fails(&self, address: SocketAddr, error: &std::io::Error) {
        let remedy = match error.kind() {
            ErrorKind::AddrInUse => format!(
                "another program has that port (`ss -ltnp sport = :{}` names it): stop it, or give another address",
                address.port()
            ),
            ErrorKind::AddrNotAvailable => "no interface has that address: give another one".into(),
            ErrorKind::PermissionDenied => {
                "ports below 1024 take CAP_NET_BIND_SERVICE, which a drop-in gives (as installed: `systemctl edit \
                 process-supervisor`); or give another one"
                    .into()
            }
            _ => "give another address".into(),
        };
        let what = format!("the API cannot be served at {address}: {error}; {remedy} in supervisor.listen");
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        if failing.insert(address, what.clone()).is_none() {
            let message = format!(
                "{what}. It is tried again, at least every {}; supervision goes on, and so does the socket",
                Human(RETRY.1)
            );
            (self.tell)(News { message, trouble: trouble(&failing) });
        }
    }

    fn works(&self, address: SocketAddr, how: &str) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        if failing.remove(&address).is_some() {
            let message = format!("{address}, at which the API could not be served, {how}");
            (self.tell)(News { message, trouble: trouble(&failing) });
        }
    }
}

fn trouble(failing: &BTreeMap<SocketAddr, String>) -> Option<String> {
    let all: Vec<&str> = failing.values().map(String::as_str).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

async fn one(
    shared: Arc<Shared>,
    stream: TcpStream,
    from: SocketAddr,
    ending: Ending,
    place: Place,
    tls: bool,
) {
    let set = stream
        .set_nodelay(true)
        .and(setsockopt(&stream, sockopt::TcpUserTimeout, &STALLED_MS).map_err(Into::into));
    if let Err(error) = set {
        return tracing::debug!(%error, %from, "the connection is gone already");
    }
    if !tls {
        return talk(&shared, stream, from, &ending, &place).await;
    }
    // That of this moment: a certificate may have been renewed.
    let Some(config) = shared.wanted.borrow().tls.clone() else { return };
    let shaken = tokio::select! {
        shaken = tokio::time::timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream)) => shaken,
        () = ending.begun() => return,
    };
    match shaken {
        Ok(Ok(stream)) => talk(&shared, stream, from, &ending, &place).await,
        Ok(Err(error)) => tracing::debug!(%error, %from, "no TLS came about"),
        Err(_) => tracing::debug!(%from, "no TLS came about in time"),
    }
}

async fn talk(
    shared: &Shared,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    from: SocketAddr,
    ending: &Ending,
    place: &Place,
) {
    let grants = Grants::default();
    let peer = Peer::Tcp { address: from };
    let answer = |request| guarded(shared, from, &grants, place, request);
    let mut connection =
        pin!(connection(stream, peer, ending.clone(), shared.header_time, Slot::default(), answer));
    tokio::select! {
        () = connection.as_mut() => {}
        () = shared.gate.revoked(&grants) => {
            ending.soon();
            let _cut = tokio::time::timeout(REVOKED, connection).await;
        }
    }
}

/// Through the gate to the router.
async fn guarded(
    shared: &Shared,
    from: SocketAddr,
    grants: &Grants,
    place: &Place,
    request: Request,
) -> Response {
    let (mut parts, body) = request.into_parts();
    match shared.gate.admit(from, &parts, grants) {
        Ok(caller) => {
            if matches!(caller, Caller::Token(_)) {
                place.prove();
            }
            parts.extensions.insert(caller);
            answer(shared.router.clone(), Request::from_parts(parts, body)).await
        }
        Err(refusal) => headers::secure(*refusal).await,
    }
}

#[cfg(test)]
mod tests;
