//! A daemon with services for benchmarks, in a private systemd. The services are the benchmark itself: it reports the
//! moment at which it runs, and sleeps.
#![allow(dead_code, reason = "each benchmark uses a part of it")]

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

pub const PATIENCE: Duration = Duration::from_secs(120);
const CHILD: &str = "--report-to";

/// What every benchmark does first: it is the service where it was started as one, and else checks where it runs.
pub fn begin() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|a| a == CHILD) {
        report_and_sleep(&arguments[at + 1], &arguments[at + 2]);
    }
    assert!(
        std::env::var_os("SUPERVISOR_SANDBOX").is_some(),
        "run `make bench`: this needs a private systemd"
    );
    println!("{:<46} {:>12} {:>12} {:>8}  goal", "figure", "ours", "peer", "ratio");
}

/// The service: says "I run" once, then sleeps.
fn report_and_sleep(socket: &str, name: &str) -> ! {
    UnixDatagram::unbound().unwrap().send_to(name.as_bytes(), socket).expect("report");
    loop {
        std::thread::park();
    }
}

/// Where the services report.
pub struct Reports {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Reports {
    pub fn new(folder: &Path) -> Self {
        let path = folder.join("reports");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, path }
    }

    /// Waits for the next one, and gives its name.
    pub fn next(&self) -> String {
        let mut buffer = [0; 64];
        let n = self.socket.recv(&mut buffer).expect("a service reports in time");
        String::from_utf8_lossy(&buffer[..n]).into()
    }

    pub fn arguments(&self, name: &str) -> Vec<String> {
        vec![CHILD.into(), self.path.display().to_string(), name.into()]
    }
}

pub fn me() -> String {
    std::env::current_exe().unwrap().display().to_string()
}

/// A daemon with `count` services of this program.
pub struct Daemon {
    child: Child,
    pub folder: tempfile::TempDir,
    pub reports: Reports,
}

impl Daemon {
    pub fn new(count: usize, more: &Value) -> Self {
        Self::with(count, |_| more.clone())
    }

    /// Each with more of its own.
    pub fn with(count: usize, more: impl Fn(usize) -> Value) -> Self {
        Self::configured(json!({}), count, more)
    }

    /// One service, and TCP at an address of its own.
    pub fn listening(address: &str, more: &Value) -> Self {
        Self::configured(json!({"listen": [address]}), 1, |_| more.clone())
    }

    fn configured(supervisor: Value, count: usize, more: impl Fn(usize) -> Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let reports = Reports::new(folder.path());
        let mut services = Map::new();
        for n in 0..count {
            let id = format!("bench-{n}");
            let mut service = json!({"command": me(), "args": reports.arguments(&id)});
            service.as_object_mut().unwrap().extend(more(n).as_object().unwrap().clone());
            services.insert(id, service);
        }
        let config = folder.path().join("supervisor_config.json");
        std::fs::write(&config, json!({"supervisor": supervisor, "services": services}).to_string()).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let daemon = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/release/process-supervisor");
        let child = Command::new(daemon)
            .arg("--config")
            .arg(config)
            .env("MALLOC_ARENA_MAX", "1") // as its unit does
            .env("RUNTIME_DIRECTORY", folder.path().join("runtime"))
            .env("STATE_DIRECTORY", folder.path().join("state"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, folder, reports }
    }

    /// Waits until each of `count` services reported once, and gives their names in order.
    pub fn wait_for(&self, count: usize) {
        (0..count).for_each(|_| drop(self.reports.next()));
    }

    /// Where its API listens.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("runtime/supervisor.sock")
    }

    pub fn main_pid(unit: &str) -> i32 {
        let output = Command::new("systemctl").args(["show", "-P", "MainPID", unit]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    }

    pub fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap()
    }

    /// From the death of its only service to the new process, in milliseconds.
    pub fn kill_and_wait(&self) -> f64 {
        kill_and_wait("supervisor-bench-0.service", &self.reports)
    }

    /// Resident memory in MiB: all of it, and what is not backed by a file.
    pub fn memory(&self) -> (f64, f64) {
        let status = self.proc("status");
        let kib = |key: &str| {
            let line = status.lines().find(|line| line.starts_with(key)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap()
        };
        (kib("VmRSS:") / 1024.0, kib("RssAnon:") / 1024.0)
    }

    /// CPU seconds so far.
    pub fn cpu(&self) -> f64 {
        cpu_of(self.pid())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

/// From SIGKILL to the first instruction of the new process, in milliseconds.
pub fn kill_and_wait(unit: &str, reports: &Reports) -> f64 {
    // Both get the same rest before; the daemon needs its second of being alive as little as systemd does.
    let pid = wait_for_pid(unit);
    let start = Instant::now();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    drop(reports.next());
    start.elapsed().as_secs_f64() * 1000.0
}

pub fn wait_for_pid(unit: &str) -> i32 {
    let start = Instant::now();
    loop {
        let pid = Daemon::main_pid(unit);
        if pid != 0 && Path::new(&format!("/proc/{pid}")).exists() {
            return pid;
        }
        assert!(start.elapsed() < PATIENCE, "{unit} has no process");
    }
}

/// CPU seconds of a process so far, to the nanosecond: `stat` counts ticks, and what wakes with the tick looks busier
/// than it is.
pub fn cpu_of(pid: u32) -> f64 {
    let clock = nix::time::clock_getcpuclockid(nix::unistd::Pid::from_raw(pid.cast_signed())).unwrap();
    Duration::from(clock.now().unwrap()).as_secs_f64()
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(Command::new("kill").args(["-INT", &self.child.id().to_string()]).status());
        let status = self.child.wait();
        if !status.is_ok_and(|status| status.success()) {
            println!("{}", std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default());
        }
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

pub fn row(figure: &str, unit: &str, ours: f64, peer: Option<f64>, goal: &str, met: bool) {
    let peer_text = peer.map_or_else(String::new, |peer| format!("{peer:.2} {unit}"));
    let ratio = peer.map_or_else(String::new, |peer| format!("{:.2}", ours / peer));
    let met = if met { "met" } else { "MISSED" };
    println!("{figure:<46} {:>12} {peer_text:>12} {ratio:>8}  {goal}: {met}", format!("{ours:.2} {unit}"));
}

/// Until everything is `running` (a second) and written down.
pub fn settle() {
    pause(Duration::from_secs(4));
}

pub fn pause(time: Duration) {
    std::thread::sleep(time);
}
