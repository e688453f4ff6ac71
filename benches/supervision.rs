//! What is told and started how fast: `make bench`. Needs a private systemd. What other supervisors can do, too, is
//! measured by `peers`.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark reports, and ends on trouble"
)]

mod harness;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use serde_json::json;
use zbus::{OwnedObjectPath, Variant};

use harness::{Daemon, PATIENCE, Reports, me, median, row, settle};

fn main() {
    harness::begin();
    death_to_reader();
    five_hundred_starts();
}

/// From SIGKILL to the message at a reader of the stream: of the state, and of the event, which is on disk by then.
fn death_to_reader() {
    const ROUNDS: usize = 20;
    let daemon = Daemon::new(1, &json!({"restart_policy": {"retry_delay": 0, "max_retries": -1}}));
    daemon.wait_for(1);
    settle();
    let mut reader = UnixStream::connect(daemon.socket()).unwrap();
    let request = "GET /api/supervisor/stream?type=event,state HTTP/1.1\r\nHost: localhost\r\n\r\n";
    reader.write_all(request.as_bytes()).unwrap();
    let (mut states, mut events) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        // What the round before still has to say.
        reader.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
        while reader.read(&mut [0; 4096]).is_ok_and(|n| n > 0) {}
        reader.set_read_timeout(Some(PATIENCE)).unwrap();
        let pid = nix::unistd::Pid::from_raw(harness::wait_for_pid("supervisor-bench-0.service"));
        let (mut text, mut state, mut event) = (String::new(), None, None);
        let start = Instant::now();
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        while state.is_none() || event.is_none() {
            let mut buffer = [0; 4096];
            let n = reader.read(&mut buffer).expect("the stream tells it in time");
            text.push_str(&String::from_utf8_lossy(&buffer[..n]));
            let took = start.elapsed().as_secs_f64() * 1000.0;
            state = state.or(text.contains("event: state").then_some(took));
            event = event.or(text.contains("event: event").then_some(took));
        }
        states.extend(state);
        events.extend(event);
        drop(daemon.reports.next());
    }
    for (what, times) in [("state", states), ("event, on disk", events)] {
        let time = median(times);
        let figure = format!("death to the {what} at a reader");
        row(&figure, "ms", time, None, "under 10 ms", time < 10.0);
    }
}

/// Until the last of 500 runs, against 500 plain `StartTransientUnit` calls over one connection: from a client that
/// never hears what came of them, and from one that waits for each job, as `systemd-run` does.
fn five_hundred_starts() {
    const COUNT: usize = 500;
    const ROUNDS: usize = 3;
    let (mut ours, mut plain, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let daemon = Daemon::new(COUNT, &json!({}));
        daemon.wait_for(COUNT);
        ours.push(start.elapsed().as_secs_f64());
        drop(daemon);
        plain.push(plain_starts(COUNT, false));
        waiting.push(plain_starts(COUNT, true));
    }
    let (ours, plain, waiting) = (median(ours), median(plain), median(waiting));
    row(
        "500 services, from nothing to the last one",
        "s",
        ours,
        Some(plain),
        "at most 1.3 times plain calls",
        ours <= plain * 1.3,
    );
    row(
        "the same, beside a client that waits for jobs",
        "s",
        ours,
        Some(waiting),
        "at most 1.3 times its calls",
        ours <= waiting * 1.3,
    );
}

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Manager {
    #[allow(clippy::type_complexity)]
    fn start_transient_unit(
        &self,
        name: &str,
        mode: &str,
        properties: &[(&str, Variant<'_>)],
        aux: &[(&str, &[(&str, Variant<'_>)])],
    ) -> zbus::Result<OwnedObjectPath>;

    fn subscribe(&self) -> zbus::Result<()>;

    #[zbus(signal)]
    fn job_removed(&self, id: u32, job: OwnedObjectPath, unit: String, result: String) -> zbus::Result<()>;
}

fn plain_starts(count: usize, waits: bool) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let reports = Reports::new(folder.path());
    let names: Vec<String> = (0..count).map(|n| format!("plain-{n}")).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let start = Instant::now();
    runtime.block_on(async {
        let connection = zbus::Connection::system().await.unwrap();
        let manager = ManagerProxy::new(&connection).await.unwrap();
        let jobs = if waits {
            let jobs = manager.receive_job_removed().await.unwrap();
            manager.subscribe().await.unwrap();
            jobs.take(count).boxed()
        } else {
            stream::empty().boxed()
        };
        let calls = stream::iter(&names).map(|name| {
            let (manager, program) = (&manager, me());
            let mut argv = vec![program.clone()];
            argv.extend(reports.arguments(name));
            async move {
                let exec = vec![(program, argv, false)];
                let properties = [("ExecStart", Variant::new(exec)), ("Type", Variant::new("exec"))];
                manager
                    .start_transient_unit(&format!("{name}.service"), "fail", &properties, &[])
                    .await
                    .unwrap();
            }
        });
        let ended = async { jobs.for_each(|_| async {}).await };
        tokio::join!(calls.buffer_unordered(32).collect::<()>(), ended);
    });
    (0..count).for_each(|_| drop(reports.next()));
    let took = start.elapsed().as_secs_f64();
    let units: Vec<String> = names.iter().map(|name| format!("{name}.service")).collect();
    drop(Command::new("systemctl").arg("stop").args(units).status());
    took
}
