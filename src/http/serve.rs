//! Listening on the Unix socket, with every bound that keeps one client from hurting the rest.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
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
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

/// Connections at a time; further ones wait in the socket's queue.
pub(super) const CONNECTIONS: usize = 256;
/// Bytes of all headers of a request together.
const HEADER_BYTES: usize = 32 * 1024;
/// Headers of a request.
const HEADERS: usize = 64;
/// For the headers of a request, and for how long a connection may be idle. An answer may take as long as it needs.
const HEADER_TIME: Duration = Duration::from_secs(30);
/// For answers on the way when the server ends.
const GRACE: Duration = Duration::from_secs(2);

/// For a stream, which has said what it had to say.
const STREAM_GRACE: Duration = Duration::from_millis(300);

/// Who is at the other end of the Unix socket. The connect info of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// As the kernel tells it; `None` where it does not.
    pub uid: Option<u32>,
}

/// Serves until `shutdown` is ready, then gives open requests two seconds. Never fails: an error on a
/// connection is that connection's.
pub async fn serve_unix(listener: UnixListener, router: Router, shutdown: impl Future<Output = ()>) {
    serve(listener, router, shutdown, HEADER_TIME).await;
}

/// The same, with the patience as an argument.
pub(super) async fn serve(
    listener: UnixListener,
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
            accepted = accept(&listener, &slots) => accepted,
        };
        match accepted {
            Ok((stream, slot)) => {
                let (router, ending) = (router.clone(), ending.clone());
                tasks.spawn(connection(stream, router, ending, header_time, Slot::new(slot)));
            }
            Err(error) => {
                // Out of descriptors or memory: it can only get better.
                tracing::warn!(%error, "the control socket could not accept a connection; trying again in 200 ms");
                tokio::select! {
                    () = &mut shutdown => break,
                    () = tokio::time::sleep(Duration::from_millis(200)) => {}
                }
            }
        }
    }
    drop(listener);
    ending.soon.cancel();
    tasks.close();
    if tokio::time::timeout(GRACE, tasks.wait()).await.is_err() {
        ending.now.cancel();
        tasks.wait().await;
    }
}

#[derive(Clone, Default)]
struct Ending {
    /// Finish the request at hand.
    soon: CancellationToken,
    /// Leave it.
    now: CancellationToken,
}

async fn accept(
    listener: &UnixListener,
    slots: &Arc<Semaphore>,
) -> std::io::Result<(UnixStream, OwnedSemaphorePermit)> {
    let slot = slots.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, slot))
}

/// A connection's share of [`CONNECTIONS`]. A stream, which has a bound of its own, gives it back.
#[derive(Debug, Clone)]
pub(super) struct Slot(Arc<Mutex<Option<OwnedSemaphorePermit>>>);

impl Slot {
    fn new(permit: OwnedSemaphorePermit) -> Self {
        Self(Arc::new(Mutex::new(Some(permit))))
    }

    /// Whether this connection is a stream.
    fn is_released(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Lets another connection in, though this one goes on.
    pub(super) fn release(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

async fn connection(stream: UnixStream, router: Router, ending: Ending, header_time: Duration, slot: Slot) {
    let peer = Peer { uid: stream.peer_cred().ok().map(|cred| cred.uid()) };
    let shared = slot.clone();
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(shared.clone());
        let router = router.clone();
        async move { answer(router, request.map(axum::body::Body::new)).await }
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
        tracing::debug!(%error, uid = peer.uid, "a connection to the control socket ended early");
    }
}

async fn answer(router: Router, request: Request) -> Result<Response, Infallible> {
    router.oneshot(request).await
}

/// Who asks, for the record: `alice (uid 1000) over the socket`.
#[derive(Debug)]
pub(super) struct Origin(pub(super) String);

impl<S: Sync> FromRequestParts<S> for Origin {
    type Rejection = Infallible;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let uid = parts.extensions.get::<ConnectInfo<Peer>>().and_then(|info| info.0.uid);
        let Some(uid) = uid else { return Ok(Self("somebody over the socket".into())) };
        // The name may come from a network directory that does not answer.
        let lookup = tokio::task::spawn_blocking(move || User::from_uid(Uid::from_raw(uid)).ok().flatten());
        let user = tokio::time::timeout(Duration::from_secs(1), lookup).await;
        Ok(Self(match user {
            Ok(Ok(Some(user))) => format!("{} (uid {uid}) over the socket", user.name),
            _ => format!("uid {uid} over the socket"),
        }))
    }
}
