//! Whether the main process is alive and not stuck, as the kernel tells it.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::Finding;
use crate::core::time::Human;

/// Between two looks at a process that waits for a disk.
const PAUSE: Duration = Duration::from_millis(50);

/// What `/proc/PID/stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    /// One letter.
    state: char,
    threads: u64,
}

/// What a state means.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Alive,
    /// It passes by itself as a rule: look again.
    Stuck(&'static str),
    Dead(&'static str),
}

/// Uninterruptible sleep counts as a failure only when it lasts for the whole `timeout`.
pub(super) async fn ask(pid: Option<u32>, timeout: Duration) -> Finding {
    let Some(pid) = pid else { return Err("there is no main process".into()) };
    watch(pid, timeout, || std::fs::read_to_string(format!("/proc/{pid}/stat"))).await
}

async fn watch(pid: u32, timeout: Duration, read: impl Fn() -> io::Result<String>) -> Finding {
    let started = Instant::now();
    loop {
        let stat = match read() {
            Ok(line) => parse(&line).ok_or_else(|| format!("/proc/{pid}/stat is not as expected"))?,
            Err(error) => return unseen(pid, &error),
        };
        match verdict(stat) {
            Verdict::Alive => return Ok(format!("process {pid} is alive")),
            Verdict::Dead(what) => return Err(format!("process {pid} is {what}")),
            Verdict::Stuck(what) if started.elapsed() >= timeout => {
                return Err(format!("process {pid} has been {what} for {}", Human(timeout)));
            }
            Verdict::Stuck(_) => tokio::time::sleep(PAUSE.min(timeout)).await,
        }
    }
}

/// Of processes of others, `hidepid` (proc(5)) shows nothing and a security module may show nothing, as if they were gone.
fn unseen(pid: u32, error: &io::Error) -> Finding {
    let hidden = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied);
    if hidden && kill(Pid::from_raw(pid.cast_signed()), None) != Err(Errno::ESRCH) {
        return Ok(format!(
            "process {pid} is there; what it does is hidden (is /proc mounted with hidepid?)"
        ));
    }
    // It may end between the opening and the reading.
    let gone = hidden || error.raw_os_error() == Some(Errno::ESRCH as i32);
    Err(if gone {
        format!("process {pid} is gone")
    } else {
        format!("process {pid} cannot be looked at: {error}")
    })
}

fn verdict(stat: Stat) -> Verdict {
    match stat.state {
        // The first thread has ended; the others go on.
        'Z' if stat.threads > 1 => Verdict::Alive,
        'Z' => Verdict::Dead("a zombie"),
        'X' | 'x' => Verdict::Dead("dead"),
        'T' => Verdict::Dead("stopped by a signal (SIGCONT lets it go on)"),
        't' => Verdict::Stuck("stopped by a debugger"),
        'D' => Verdict::Stuck("in uninterruptible sleep (it waits for a disk or the network)"),
        _ => Verdict::Alive,
    }
}

/// The program's name stands in parentheses and may hold anything, parentheses too.
fn parse(stat: &str) -> Option<Stat> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    // Field 20 of proc(5); the state is field 3.
    let threads = fields.nth(16)?.parse().ok()?;
    Some(Stat { state, threads })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn line(name: &str, state: char, threads: u64) -> String {
        format!("7 ({name}) {state} 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 {threads} 0 99 1000 10")
    }

    #[test]
    fn the_line_is_read_whatever_the_program_is_called() {
        for name in ["sleep", "a b", ") Z 1", "((", "\u{1F600}"] {
            assert_eq!(parse(&line(name, 'S', 3)), Some(Stat { state: 'S', threads: 3 }), "{name}");
        }
        for bad in ["", "7 (a", "7 (a) ", "7 (a) S 1 2", "7 (a) S 1 7 7 0 -1 4 1 2 3 4 5 6 7 8 20 0 many"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn states_are_judged() {
        for (state, threads, expected) in [
            ('S', 1, Ok("process 7 is alive")),
            ('R', 1, Ok("process 7 is alive")),
            ('I', 1, Ok("process 7 is alive")),
            ('Z', 1, Err("process 7 is a zombie")),
            ('Z', 2, Ok("process 7 is alive")),
            ('X', 1, Err("process 7 is dead")),
            ('T', 1, Err("process 7 is stopped by a signal (SIGCONT lets it go on)")),
        ] {
            let found = watch(7, Duration::from_secs(1), || Ok(line("a", state, threads))).await;
            assert_eq!(found, expected.map(String::from).map_err(String::from), "{state}");
        }
    }

    #[tokio::test]
    async fn waiting_for_a_disk_is_a_failure_only_when_it_lasts() {
        let looks = Cell::new(0);
        let passing = || {
            looks.set(looks.get() + 1);
            Ok(line("a", if looks.get() < 3 { 'D' } else { 'S' }, 1))
        };
        assert!(watch(7, Duration::from_secs(30), passing).await.is_ok());
        assert_eq!(looks.get(), 3);
        let started = Instant::now();
        let lasting = watch(7, Duration::from_millis(120), || Ok(line("a", 'D', 1))).await;
        assert!(lasting.unwrap_err().contains("uninterruptible sleep"));
        assert!(started.elapsed() >= Duration::from_millis(120));
    }

    #[tokio::test]
    async fn what_is_hidden_is_not_gone() {
        let hidden = |kind: ErrorKind| async move {
            watch(std::process::id(), Duration::from_secs(1), || Err(kind.into())).await
        };
        for kind in [ErrorKind::NotFound, ErrorKind::PermissionDenied] {
            assert!(hidden(kind).await.is_ok_and(|text| text.contains("hidepid")), "{kind}");
        }
        assert!(hidden(ErrorKind::OutOfMemory).await.is_err_and(|text| text.contains("cannot be looked at")));
    }

    #[tokio::test]
    async fn real_processes() {
        assert!(ask(Some(std::process::id()), Duration::from_secs(1)).await.is_ok());
        assert_eq!(ask(None, Duration::from_secs(1)).await, Err("there is no main process".into()));
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id();
        let state = |expected: char| async move {
            let deadline = Instant::now() + Duration::from_secs(10);
            let now = || parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap()).unwrap().state;
            while now() != expected {
                assert!(Instant::now() < deadline);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let signal = |signal| {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), signal).unwrap();
        };
        signal(nix::sys::signal::Signal::SIGSTOP);
        state('T').await;
        assert!(ask(Some(pid), Duration::from_secs(9)).await.unwrap_err().contains("stopped"));
        signal(nix::sys::signal::Signal::SIGKILL);
        state('Z').await;
        assert!(ask(Some(pid), Duration::from_secs(9)).await.unwrap_err().contains("zombie"));
        child.wait().unwrap();
        assert!(ask(Some(pid), Duration::from_secs(9)).await.unwrap_err().contains("gone"));
    }
}
