//! Whether a connection is accepted. (By the kernel: a program that hangs may still have room in its queue.)

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::sync::Semaphore;

use super::Finding;

/// Of one name; more are not tried.
const MAX_ADDRESSES: usize = 16;

/// Names that are looked up at once. A resolver that hangs keeps a thread for each of them for half a minute, long after
/// the probe gave up; history, measuring and reload want threads of the same pool.
const LOOKUPS: usize = 64;
static LOOKUPS_LEFT: Semaphore = Semaphore::const_new(LOOKUPS);

/// For messages.
pub(super) fn shown(host: &str, port: Option<u16>) -> String {
    match port {
        Some(port) if host.contains(':') && !host.starts_with('[') => format!("[{host}]:{port}"),
        Some(port) => format!("{host}:{port}"),
        None => host.into(),
    }
}

/// The caller bounds the time.
pub(super) async fn ask(host: &str, port: Option<u16>, target: &str) -> Finding {
    let connected = match (host.strip_prefix("unix:"), port) {
        (Some(path), _) => local(Path::new(path)).await.map(drop),
        (None, Some(port)) => remote(host, port).await.map(drop),
        (None, None) => return Err(format!("there is no port to connect to on {target}")),
    };
    match connected {
        Ok(()) => Ok(format!("connected to {target}")),
        Err(error) => Err(refusal(&error, target)),
    }
}

/// What a failed connection means, in words.
pub(super) fn refusal(error: &io::Error, target: &str) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => format!("connection refused by {target}"),
        io::ErrorKind::ConnectionReset => format!("connection reset by {target}"),
        io::ErrorKind::NotFound => format!("{target} does not exist"),
        io::ErrorKind::PermissionDenied => format!("{target} may not be connected to: permission denied"),
        io::ErrorKind::WouldBlock => format!("{target} does not take connections: its queue is full"),
        _ => format!("cannot connect to {target}: {error}"),
    }
}

/// The addresses that every machine gives these names, without asking anybody.
fn loopback(host: &str) -> Option<[IpAddr; 2]> {
    host.eq_ignore_ascii_case("localhost").then_some([Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])
}

/// A connection to a Unix socket.
pub(super) async fn local(path: &Path) -> io::Result<UnixStream> {
    // Else a plain file gives the same error as a socket that nobody listens on.
    if std::fs::metadata(path).is_ok_and(|file| !file.file_type().is_socket()) {
        return Err(io::Error::other("it is not a socket"));
    }
    UnixStream::connect(path).await
}

/// A connection to all addresses at once; the first that accepts is enough. Whenever it is dropped it is closed with a
/// reset: probes leave no socket behind in TIME_WAIT.
pub(super) async fn remote(host: &str, port: u16) -> io::Result<TcpStream> {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let addresses = match (loopback(host), host.parse::<IpAddr>()) {
        (Some(both), _) => both.map(|address| (address, port).into()).to_vec(),
        (None, Ok(address)) => vec![(address, port).into()],
        (None, Err(_)) => resolve(&LOOKUPS_LEFT, host.into(), port).await?,
    };
    let mut tries: FuturesUnordered<_> = addresses.into_iter().map(TcpStream::connect).collect();
    let mut failure = io::Error::other("the name has no address");
    let mut failed = false;
    while let Some(connected) = tries.next().await {
        match connected {
            Ok(stream) => {
                stream.set_zero_linger()?;
                return Ok(stream);
            }
            // "Refused" says more than "unreachable", which a machine without IPv6 gives for every `::1`.
            Err(error) if !failed || error.kind() == io::ErrorKind::ConnectionRefused => {
                (failure, failed) = (error, true);
            }
            Err(_) => {}
        }
    }
    Err(failure)
}

/// The addresses of a name. The lookup goes on where this is dropped, and counts until it ends.
async fn resolve(left: &'static Semaphore, host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    let hangs = |_| {
        io::Error::other(format!("the resolver of this host has not answered {LOOKUPS} earlier lookups yet"))
    };
    let lookup = left.try_acquire().map_err(hangs)?;
    let task = tokio::spawn(async move {
        let _counts = lookup;
        lookup_host((host, port)).await.map(|found| found.take(MAX_ADDRESSES).collect())
    });
    task.await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, UnixListener};

    async fn free_port() -> u16 {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
    }

    #[tokio::test]
    async fn a_listener_is_found_on_either_address_family() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address).await else {
                eprintln!("skipped: no {address} here");
                continue;
            };
            let port = listener.local_addr().unwrap().port();
            let found = ask("localhost", Some(port), "localhost:1").await;
            assert_eq!(found, Ok("connected to localhost:1".into()), "{address}");
            let (mut peer, _) = listener.accept().await.unwrap();
            // Closed at once, by a reset.
            let end = peer.read(&mut [0; 1]).await;
            assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        }
    }

    #[tokio::test]
    async fn what_does_not_listen_is_named() {
        let port = free_port().await;
        for host in ["localhost", "127.0.0.1", "LOCALHOST"] {
            let found = ask(host, Some(port), "it").await;
            assert_eq!(found, Err("connection refused by it".into()), "{host}");
        }
        let found = ask("no-such-name.invalid", Some(1), "no-such-name.invalid:1").await;
        assert!(found.unwrap_err().starts_with("cannot connect to no-such-name.invalid:1: "));
        assert!(ask("localhost", None, "localhost").await.is_err());
    }

    #[tokio::test]
    async fn unix_sockets() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let host = format!("unix:{}", path.display());
        assert_eq!(ask(&host, None, "it").await, Err("it does not exist".into()));
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(ask(&host, None, "it").await, Ok("connected to it".into()));
        drop(listener);
        assert_eq!(ask(&host, None, "it").await, Err("connection refused by it".into()));
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "").unwrap();
        assert_eq!(ask(&host, None, "it").await, Err("cannot connect to it: it is not a socket".into()));
    }

    #[test]
    fn targets_are_shown_as_they_are_written() {
        assert_eq!(shown("localhost", Some(80)), "localhost:80");
        assert_eq!(shown("::1", Some(80)), "[::1]:80");
        assert_eq!(shown("unix:/run/a", None), "unix:/run/a");
    }

    #[tokio::test]
    async fn lookups_are_bounded_and_count_until_they_end() {
        static ONE: Semaphore = Semaphore::const_new(1);
        let held = ONE.try_acquire().unwrap();
        let error = resolve(&ONE, "localhost".into(), 1).await.unwrap_err();
        assert!(error.to_string().contains("has not answered 64 earlier lookups"), "{error}");
        drop(held);
        let given_up = resolve(&ONE, "localhost".into(), 1).now_or_never();
        assert!(given_up.is_none());
        assert_eq!(ONE.available_permits(), 0, "its thread is still at it");
        drop(ONE.acquire().await.unwrap());
        let found = resolve(&ONE, "localhost".into(), 1).await.unwrap();
        assert!(found.iter().all(|address| address.ip().is_loopback()) && !found.is_empty());
    }
}
