//! Serving connections, with every bound that keeps one client from hurting the rest; and the Unix socket.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::unistd::{Uid, User};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::access::Caller;

/// Connections to the Unix socket at a time; further ones wait in its queue.
pub(super) const CONNECTIONS: usize = 256;
/// Bytes of all headers of a request together.
const HEADER_BYTES: usize = 32 * 1024;
/// Headers of a request.
const HEADERS: usize = 64;
/// For the headers of a request, and for how long a connection may be idle. An answer may take as long as it needs.
pub(super) const HEADER_TIME: Duration = Duration::from_secs(30);
/// For answers on the way when the server ends.
const GRACE: Duration = Duration::from_secs(2);
/// Until the next try, when there are no descriptors or no memory for a connection: it can only get better.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// For a stream, which has said what it had to say.
const STREAM_GRACE: Duration = Duration::from_millis(300);

/// Who is at the other end. The connect info of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Of the Unix socket.
    Socket {
        /// As the kernel tells it; `None` where it does not.
        uid: Option<u32>,
    },
    /// Of a TCP connection.
    Tcp {
        /// Its end.
        address: SocketAddr,
    },
}

/// Serves until `shutdown` is ready, then gives open requests two seconds. Each of `next` takes the place of `first`;
/// connections that are open stay. Never fails: an error on a connection is that connection's.
pub async fn serve_unix(
    first: UnixListener,
    next: mpsc::Receiver<UnixListener>,
    router: Router,
    shutdown: impl Future<Output = ()>,
) {
    serve(first, next, router, shutdown, HEADER_TIME).await;
}

/// The same, with the patience as an argument.
pub(super) async fn serve(
    mut listener: UnixListener,
    mut next: mpsc::Receiver<UnixListener>,
    router: Router,
    shutdown: impl Future<Output = ()>,
    header_time: Duration,
) {
    let (ending, tasks) = (Ending::default(), TaskTracker::new());
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(next) = next.recv() => {
                listener = next;
                continue;
            }
            accepted = accept(&listener, &slots) => accepted,
        };
        match accepted {
            Ok((stream, slot)) => {
                let (router, ending) = (router.clone(), ending.clone());
                tasks.spawn(socket_connection(stream, router, ending, header_time, Slot::new(slot)));
            }
            Err(error) => {
                tracing::warn!(%error, "the control socket could not accept a connection; trying again in 200 ms");
                tokio::select! {
                    () = &mut shutdown => break,
                    () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
    drop((listener, next));
    ending.end(&tasks).await;
}

/// How a connection, or all of them, are told to end.
#[derive(Debug, Clone, Default)]
pub(super) struct Ending {
    /// Finish the request at hand.
    soon: CancellationToken,
    /// Leave it.
    now: CancellationToken,
}

impl Ending {
    /// One that ends with this one, and by itself.
    pub(super) fn of_one(&self) -> Self {
        Self { soon: self.soon.child_token(), now: self.now.child_token() }
    }

    /// The request at hand is finished.
    pub(super) fn soon(&self) {
        self.soon.cancel();
    }

    pub(super) fn at_once(&self) {
        self.soon.cancel();
        self.now.cancel();
    }

    #[cfg(test)]
    pub(super) fn is_at_once(&self) -> bool {
        self.now.is_cancelled()
    }

    /// Lets go of what waits for the end only.
    pub(super) async fn begun(&self) {
        self.soon.cancelled().await;
    }

    /// Ends all of `tasks`, after the grace at the latest.
    pub(super) async fn end(&self, tasks: &TaskTracker) {
        self.soon();
        tasks.close();
        if tokio::time::timeout(GRACE, tasks.wait()).await.is_err() {
            self.at_once();
            tasks.wait().await;
        }
    }
}

async fn accept(
    listener: &UnixListener,
    slots: &Arc<Semaphore>,
) -> std::io::Result<(UnixStream, OwnedSemaphorePermit)> {
    let slot = slots.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, slot))
}

/// A connection's share of [`CONNECTIONS`]. A stream, which has a bound of its own, gives it back. Over TCP there is
/// none to give back: there the budget of connections counts streams too.
#[derive(Debug, Clone, Default)]
pub(super) struct Slot(Arc<Share>);

#[derive(Debug, Default)]
struct Share {
    permit: Mutex<Option<OwnedSemaphorePermit>>,
    stream: AtomicBool,
}

impl Slot {
    fn new(permit: OwnedSemaphorePermit) -> Self {
        Self(Arc::new(Share { permit: Mutex::new(Some(permit)), stream: AtomicBool::new(false) }))
    }

    /// Whether this connection is a stream.
    fn is_released(&self) -> bool {
        self.0.stream.load(Ordering::Relaxed)
    }

    /// This connection is a stream: another one is let in, though this one goes on.
    pub(super) fn release(&self) {
        self.0.stream.store(true, Ordering::Relaxed);
        drop(self.0.permit.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

async fn socket_connection(
    stream: UnixStream,
    router: Router,
    ending: Ending,
    header_time: Duration,
    slot: Slot,
) {
    let peer = Peer::Socket { uid: stream.peer_cred().ok().map(|cred| cred.uid()) };
    connection(stream, peer, ending, header_time, slot, |request| answer(router.clone(), request)).await;
}

/// Serves one connection to its end.
pub(super) async fn connection<F: Future<Output = Response>>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: Peer,
    ending: Ending,
    header_time: Duration,
    slot: Slot,
    answer: impl Fn(Request) -> F,
) {
    let service = service_fn(|mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(slot.clone());
        let answered = answer(request.map(axum::body::Body::new));
        async move { Ok::<_, Infallible>(answered.await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(header_time);
    http.max_buf_size(HEADER_BYTES).max_headers(HEADERS);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = ending.soon.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection.as_mut() => ended,
                () = ending.now.cancelled() => return,
                () = tokio::time::sleep(STREAM_GRACE), if slot.is_released() => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, ?peer, "a connection to the API ended early");
    }
}

pub(super) async fn answer(router: Router, request: Request) -> Response {
    match router.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// Who asks, for the record: `alice (uid 1000) over the socket`, `token operator from 127.0.0.1:54321`.
#[derive(Debug)]
pub(super) struct Origin(pub(super) String);

impl<S: Sync> FromRequestParts<S> for Origin {
    type Rejection = Infallible;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(match parts.extensions.get::<ConnectInfo<Peer>>().map(|info| info.0) {
            Some(Peer::Tcp { address }) => over_tcp(address, parts.extensions.get().copied()),
            Some(Peer::Socket { uid: Some(uid) }) => over_the_socket(uid).await,
            Some(Peer::Socket { uid: None }) | None => "somebody over the socket".into(),
        }))
    }
}

fn over_tcp(address: SocketAddr, caller: Option<Caller>) -> String {
    match caller {
        Some(Caller::Token(role)) => format!("token {} from {address}", role.as_str()),
        _ => format!("somebody from {address}"),
    }
}

async fn over_the_socket(uid: u32) -> String {
    // The name may come from a network directory that does not answer.
    let lookup = tokio::task::spawn_blocking(move || User::from_uid(Uid::from_raw(uid)).ok().flatten());
    match tokio::time::timeout(Duration::from_secs(1), lookup).await {
        Ok(Ok(Some(user))) => format!("{} (uid {uid}) over the socket", user.name),
        _ => format!("uid {uid} over the socket"),
    }
}
