//! One request over one connection, which is ours from the first packet to the last.
//!
//! ```text
//!   open --> send --> drive (the body) --> close: the server's end is waited for, then a reset
//! ```
//!
//! Who closes first keeps the connection in TIME_WAIT for a minute; with a probe a second that is sixty for each
//! service. So the server is asked to close (`Connection: close`), and what is left is closed with a reset: after the
//! server's end nobody sees it, and nothing stays behind on either side. No task but the last, short one works on the
//! connection: a probe that is dropped half-way leaves nothing.

use std::error::Error;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use reqwest::Url;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

use super::{socket, tcp};

/// Of the status line and the headers together, in bytes.
const HEAD: usize = 64 << 10;
/// For the server to close its end after its answer. Who does not is reset.
const CLOSING: Duration = Duration::from_secs(1);
/// Read meanwhile of a body that nobody looks at, in bytes: less than this ends as the server expects it.
const REST: usize = 256 << 10;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

type Io = TokioIo<Box<dyn Stream>>;

/// An open connection.
pub(super) struct Exchange {
    sender: SendRequest<String>,
    connection: http1::Connection<Io, String>,
    over: bool,
}

impl Exchange {
    /// Connects, with TLS where there is a configuration for it.
    pub async fn open(url: &Url, tls: Option<Arc<ClientConfig>>, target: &str) -> Result<Self, String> {
        let refused = |error: io::Error| tcp::refusal(&error, target);
        let stream: Box<dyn Stream> = if url.scheme() == "http+unix" {
            Box::new(tcp::local(Path::new(&socket(url)?)).await.map_err(refused)?)
        } else {
            let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
                return Err(format!("there is nothing to connect to in {target}"));
            };
            let stream = tcp::remote(host, port).await.map_err(refused)?;
            match tls {
                Some(config) => {
                    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                    let name = ServerName::try_from(host)
                        .map_err(|_| format!("the host of {target} cannot be the name in a certificate"))?;
                    let connected = TlsConnector::from(config).connect(name, stream).await;
                    Box::new(connected.map_err(refused)?)
                }
                None => Box::new(stream),
            }
        };
        let made = http1::Builder::new().max_buf_size(HEAD).handshake(TokioIo::new(stream)).await;
        let (sender, connection) = made.map_err(|error| broken(&error, target))?;
        Ok(Self { sender, connection, over: false })
    }

    /// Asks, and gives the answer up to its body.
    pub async fn send(
        &mut self,
        request: Request<String>,
        target: &str,
    ) -> Result<Response<Incoming>, String> {
        let answer = self.sender.send_request(request);
        self.drive(answer).await.map_err(|error| broken(&error, target))
    }

    /// Works on the connection until `work` has what it needs of it.
    pub async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        let Self { connection, over, .. } = self;
        let mut work = pin!(work);
        std::future::poll_fn(|cx| {
            // How it ended, `work` hears too.
            *over = *over || connection.poll_without_shutdown(cx).is_ready();
            work.as_mut().poll(cx)
        })
        .await
    }

    /// Lets the server close first, behind the caller's back, where `closing` has a place for that.
    pub fn close(self, closing: &Arc<Semaphore>) {
        let Ok(place) = Arc::clone(closing).try_acquire_owned() else { return };
        let mut stream = self.connection.into_parts().io.into_inner();
        tokio::spawn(async move {
            let mut rest = (&mut stream).take(REST as u64);
            let mut nowhere = tokio::io::sink();
            let ending = tokio::io::copy(&mut rest, &mut nowhere);
            // In time or not: it is over now.
            let _ended = tokio::time::timeout(CLOSING, ending).await;
            drop((stream, place));
        });
    }
}

/// What a broken answer means, in words: the innermost cause says most.
pub(super) fn broken(error: &hyper::Error, target: &str) -> String {
    let mut cause: &dyn Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    format!("no proper HTTP answer from {target}: {cause}")
}
