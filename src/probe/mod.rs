//! Asking services how they are: one question, one answer, within a time. When to ask, how many at once, and what
//! an answer means is decided elsewhere.

mod exec;
mod http;
mod process;
mod tcp;

use std::path::Path;
use std::time::Instant;

use crate::core::event::ProbeReport;
use crate::core::plan::{Probe, ServicePlan};
use crate::core::time::Human;

pub use exec::{COMMAND as HELPER_COMMAND, Role as HelperRole, run_helper};
pub use http::ProbeClient;

/// What a probe found, in words; an `Err` is a failure.
type Finding = Result<String, String>;

/// The supervisor could not ask: it lacks descriptors, processes or memory. That says nothing about the service.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unable(String);

impl Unable {
    /// What fails now, for want of a descriptor, fails with every check.
    fn now() -> Result<(), Self> {
        std::fs::File::open("/dev/null").map(drop).map_err(|error| Self(error.to_string()))
    }
}

/// What there is beside the plan.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The main process.
    pub pid: Option<u32>,
    /// The unit whose cgroup exec checks run in; `None` leaves them in the supervisor's.
    pub unit: Option<&'a str>,
    /// Who runs exec checks.
    pub helper: Helper<'a>,
}

/// Who runs exec checks: a program that understands [`HELPER_COMMAND`].
#[derive(Debug, Clone, Copy)]
pub enum Helper<'a> {
    /// Started by us for each check.
    Program(&'a Path),
    /// Started for each check by what listens at this socket. It may do what we may not.
    Socket(&'a Path),
}

/// The running binary, also after another version has taken its name.
pub const OWN_BINARY: &str = "/proc/self/exe";

/// Asks the service once, and its fallback if that fails. The message never holds a header's value, nor the user
/// part or the query of a URL, nor the value of a variable.
///
/// Fails only for want of something on our side. Takes no longer than `plan.health.timeout` for the main check and as
/// long again for the fallback, and two seconds more for what an exec check leaves behind. Dropped half-way, it leaves
/// nothing behind either. How many run at once is the caller's.
pub async fn run(
    plan: &ServicePlan,
    subject: Subject<'_>,
    client: &ProbeClient,
) -> Result<ProbeReport, Unable> {
    let started = Instant::now();
    let main = ask(&plan.health.probe, plan, subject, client).await?;
    let took = started.elapsed();
    let failure = match main {
        Ok(message) => return Ok(ProbeReport { passed: true, fallback_passed: false, message, took }),
        Err(failure) => failure,
    };
    Unable::now()?;
    let Some(fallback) = &plan.health.fallback else {
        return Ok(ProbeReport { passed: false, fallback_passed: false, message: failure, took });
    };
    let (fallback_passed, message) = match ask(fallback, plan, subject, client).await? {
        Ok(second) => (true, format!("{failure}; the fallback check passes: {second}")),
        Err(second) => (false, format!("{failure}; the fallback check fails too: {second}")),
    };
    if !fallback_passed {
        Unable::now()?;
    }
    Ok(ProbeReport { passed: false, fallback_passed, message, took })
}

async fn ask(
    probe: &Probe,
    plan: &ServicePlan,
    subject: Subject<'_>,
    client: &ProbeClient,
) -> Result<Finding, Unable> {
    let timeout = plan.health.timeout;
    let (target, answer) = match probe {
        Probe::Http(probe) => {
            let target = http::shown(&probe.endpoint);
            (target.clone(), tokio::time::timeout(timeout, http::ask(probe, &target, client)).await)
        }
        Probe::Tcp { host, port } => {
            let target = tcp::shown(host, *port);
            (target.clone(), tokio::time::timeout(timeout, tcp::ask(host, *port, &target)).await)
        }
        Probe::Process => return Ok(process::ask(subject.pid, timeout).await),
        Probe::Exec { program, args } => {
            let Subject { pid, unit, helper } = subject;
            return exec::ask((program, args), plan, pid, (helper, unit), timeout).await;
        }
    };
    Ok(answer.unwrap_or_else(|_| Err(format!("no answer within {} from {target}", Human(timeout)))))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::time::Duration;

    use crate::core::plan::Id;
    use tokio::net::TcpListener;

    /// A service with this check.
    pub fn plan_with(probe: Probe, timeout: Duration) -> ServicePlan {
        let mut plan = ServicePlan::new(Id::new("web").unwrap(), "/bin/web");
        (plan.health.probe, plan.health.timeout) = (probe, timeout);
        plan
    }

    /// Asks this process, which has no unit.
    pub async fn ask_once(probe: Probe, client: &ProbeClient, timeout: Duration) -> Finding {
        crate::tls::install_provider();
        ask(&probe, &plan_with(probe.clone(), timeout), myself(), client).await.unwrap()
    }

    fn myself() -> Subject<'static> {
        Subject { pid: Some(std::process::id()), unit: None, helper: Helper::Program(Path::new(OWN_BINARY)) }
    }

    fn tcp(port: u16) -> Probe {
        Probe::Tcp { host: "localhost".into(), port: Some(port) }
    }

    async fn free_port() -> u16 {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
    }

    async fn checked(probe: Probe, fallback: Option<Probe>) -> ProbeReport {
        let mut plan = plan_with(probe, Duration::from_secs(5));
        plan.health.fallback = fallback.map(Box::new);
        run(&plan, myself(), &ProbeClient::default()).await.unwrap()
    }

    #[tokio::test]
    async fn what_the_supervisor_lacks_is_no_failure_of_the_service() {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let up = tcp(listener.local_addr().unwrap().port());
        let exec = Probe::Exec { program: "/bin/true".into(), args: vec![] };
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        // Nothing further may be opened.
        setrlimit(Resource::RLIMIT_NOFILE, 3, hard).unwrap();
        for probe in [up.clone(), exec] {
            let plan = plan_with(probe, Duration::from_secs(5));
            let found = run(&plan, myself(), &ProbeClient::default()).await;
            assert!(
                found.as_ref().is_err_and(|e| e.to_string().contains("Too many open files")),
                "{found:?}"
            );
        }
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        assert!(checked(up, None).await.passed);
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
        let found = ask_once(probe, &ProbeClient::default(), short).await;
        assert_eq!(found, Err(format!("no answer within 300 ms from {address}")));
    }
}
