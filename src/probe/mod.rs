//! Asking services how they are: one question, one answer, within a time. When to ask, how many at once, and what
//! an answer means is decided elsewhere.

mod http;
mod process;
mod tcp;

use std::time::{Duration, Instant};

use crate::core::event::ProbeReport;
use crate::core::plan::{HealthCheck, Probe, ServicePlan};
use crate::core::time::Human;

pub use http::ProbeClient;

/// What a probe found, in words; an `Err` is a failure.
type Finding = Result<String, String>;

/// Asks the service once, and its fallback if that fails. The message never holds a header's value, nor the user
/// part or the query of a URL.
///
/// Never fails. Takes no longer than `plan.health.timeout` for the main check and as long again for the fallback.
/// How many run at once is the caller's.
pub async fn run(plan: &ServicePlan, pid: Option<u32>, client: &ProbeClient) -> ProbeReport {
    check(&plan.health, pid, client).await
}

async fn check(health: &HealthCheck, pid: Option<u32>, client: &ProbeClient) -> ProbeReport {
    let started = Instant::now();
    let main = ask(&health.probe, pid, client, health.timeout).await;
    let took = started.elapsed();
    let (failure, fallback) = match (main, &health.fallback) {
        (Ok(message), _) => return ProbeReport { passed: true, fallback_passed: false, message, took },
        (Err(message), None) => return ProbeReport { passed: false, fallback_passed: false, message, took },
        (Err(message), Some(fallback)) => (message, fallback),
    };
    let (fallback_passed, message) = match ask(fallback, pid, client, health.timeout).await {
        Ok(second) => (true, format!("{failure}; the fallback check passes: {second}")),
        Err(second) => (false, format!("{failure}; the fallback check fails too: {second}")),
    };
    ProbeReport { passed: false, fallback_passed, message, took }
}

async fn ask(probe: &Probe, pid: Option<u32>, client: &ProbeClient, timeout: Duration) -> Finding {
    let (target, answer) = match probe {
        Probe::Http(probe) => {
            let target = http::shown(&probe.endpoint);
            (target.clone(), tokio::time::timeout(timeout, http::ask(probe, &target, client)).await)
        }
        Probe::Tcp { host, port } => {
            let target = tcp::shown(host, *port);
            (target.clone(), tokio::time::timeout(timeout, tcp::ask(host, *port, &target)).await)
        }
        // The exec check is not carried out yet; its service is held to what every service is.
        Probe::Process | Probe::Exec { .. } => return process::ask(pid, timeout).await,
    };
    answer.unwrap_or_else(|_| Err(format!("no answer within {} from {target}", Human(timeout))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn tcp(port: u16) -> Probe {
        Probe::Tcp { host: "localhost".into(), port: Some(port) }
    }

    async fn free_port() -> u16 {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
    }

    async fn checked(probe: Probe, fallback: Option<Probe>) -> ProbeReport {
        let timeout = Duration::from_secs(5);
        let health = HealthCheck {
            probe,
            interval: timeout,
            timeout,
            failure_threshold: 1,
            success_threshold: 1,
            start_period: Duration::ZERO,
            fallback: fallback.map(Box::new),
        };
        check(&health, Some(std::process::id()), &ProbeClient::default()).await
    }

    #[tokio::test]
    async fn the_fallback_is_asked_only_when_the_main_check_fails() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (up, down) = (listener.local_addr().unwrap().port(), free_port().await);
        let alive = format!("process {} is alive", std::process::id());
        for (main, fallback, passed, fallback_passed, message) in [
            (tcp(up), Some(tcp(down)), true, false, format!("connected to localhost:{up}")),
            (tcp(down), None, false, false, format!("connection refused by localhost:{down}")),
            (
                tcp(down),
                Some(Probe::Process),
                false,
                true,
                format!("connection refused by localhost:{down}; the fallback check passes: {alive}"),
            ),
            (
                tcp(down),
                Some(tcp(down)),
                false,
                false,
                format!(
                    "connection refused by localhost:{down}; the fallback check fails too: connection refused by \
                     localhost:{down}"
                ),
            ),
        ] {
            let report = checked(main, fallback).await;
            assert_eq!(
                (report.passed, report.fallback_passed, report.message),
                (passed, fallback_passed, message)
            );
        }
    }

    #[tokio::test]
    async fn a_queue_that_is_full_is_not_waited_for_longer_than_the_timeout() {
        // Nobody accepts; once the queue is full, connections hang.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let short = Duration::from_millis(300);
        let mut held = Vec::new();
        while let Ok(connected) = tokio::time::timeout(short, tokio::net::TcpStream::connect(address)).await {
            held.push(connected.unwrap());
        }
        let probe = Probe::Tcp { host: "127.0.0.1".into(), port: Some(address.port()) };
        let found = ask(&probe, None, &ProbeClient::default(), short).await;
        assert_eq!(found, Err(format!("no answer within 300 ms from {address}")));
    }
}
