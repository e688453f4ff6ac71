//! The daemon and the CLI as a person uses them, over real systemd: one daemon per test, in folders of its own.

mod access;
mod alerts;
mod campaign;
mod cli;
mod control;
mod disk;
mod flask;
mod folder;
mod import;
mod keeping;
mod many;
mod metrics;
mod openapi;
mod openmetrics;
mod policy;
mod probes;
mod real;
mod reload;
mod secrets;
mod stream;
mod terminal;
mod user;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{self, Turn};

/// For anything that should happen soon. Generous: the suite shares two cores.
pub const SOON: Duration = Duration::from_secs(30);

/// A daemon with a configuration of its own. Everything of it is gone when it is dropped.
pub struct Daemon {
    pub folder: PathBuf,
    child: Option<Child>,
    /// Runs it and its CLI as this user.
    user: Option<String>,
    /// A folder with programs that it takes before those of the machine.
    pub programs: Option<PathBuf>,
    ids: Vec<String>,
    _turn: Turn,
}

/// A service that lives until it is told to end.
pub fn sleeper() -> Value {
    json!({"command": "/bin/sleep", "args": ["1000000"]})
}

/// A service that runs a shell script.
pub fn script(text: &str) -> Value {
    json!({"command": "/bin/sh", "args": ["-c", text]})
}

/// `base` with more fields.
pub fn with(mut base: Value, more: Value) -> Value {
    let object = base.as_object_mut().unwrap();
    object.extend(more.as_object().unwrap().clone());
    base
}

/// Waits until `probe` gives something, and says what it waited for if it never does.
pub fn wait_for<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a command and gives its standard output; fails with what it said.
pub fn sh(command: &str) -> String {
    let output = Command::new("/bin/sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().into()
}

impl Daemon {
    /// Makes the folders and the configuration, and starts nothing yet. `services` is the JSON object of services.
    pub fn prepared(services: Value) -> Self {
        Self::with_turn(harness::shared(), services)
    }

    /// The same, with no other test running: for those that disturb systemd.
    pub fn prepared_alone(services: Value) -> Self {
        Self::with_turn(harness::alone(), services)
    }

    fn with_turn(turn: Turn, services: Value) -> Self {
        let folder = tempfile::Builder::new().prefix("supervisor-test-").tempdir().unwrap().keep();
        fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut daemon =
            Self { folder, child: None, user: None, programs: None, ids: Vec::new(), _turn: turn };
        daemon.configure(services);
        daemon
    }

    /// The same, started.
    pub fn start(services: Value) -> Self {
        let mut daemon = Self::prepared(services);
        daemon.launch();
        daemon
    }

    /// For an ordinary user, in the user scope.
    pub fn prepared_as(user: &str, services: Value) -> Self {
        let mut daemon = Self::prepared(services);
        daemon.user = Some(user.into());
        sh(&format!("chown -R {user} {}", daemon.folder.display()));
        daemon
    }

    /// Writes another configuration; the daemon is not told.
    pub fn configure(&mut self, services: Value) {
        self.configure_whole(json!({ "services": services }));
    }

    /// A daemon listens on TCP only where its test says so: many run at once.
    pub fn configure_whole(&mut self, mut config: Value) {
        let supervisor = config.as_object_mut().unwrap().entry("supervisor").or_insert_with(|| json!({}));
        supervisor.as_object_mut().unwrap().entry("listen").or_insert_with(|| json!([]));
        self.ids.extend(config["services"].as_object().unwrap().keys().cloned());
        fs::write(self.config(), serde_json::to_string_pretty(&config).unwrap()).unwrap();
    }

    pub fn config(&self) -> PathBuf {
        self.folder.join("supervisor_config.json")
    }

    pub fn database(&self) -> PathBuf {
        self.folder.join("state/architect.db")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// A program of ours, with the folders of this daemon.
    pub fn program(&self, path: &str) -> Command {
        let mut command = match &self.user {
            None => Command::new(path),
            Some(user) => {
                let mut command = Command::new("/sbin/runuser");
                command.args(["-u", user, "--", "env"]);
                let uid = sh(&format!("id -u {user}"));
                command.arg(format!("XDG_RUNTIME_DIR=/run/user/{uid}"));
                command.arg(format!("DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/{uid}/bus"));
                command.arg(path);
                command
            }
        };
        command.env("RUNTIME_DIRECTORY", self.folder.join("runtime"));
        command.env("STATE_DIRECTORY", self.folder.join("state"));
        command.env_remove("NOTIFY_SOCKET").current_dir("/");
        command
    }

    /// Starts the daemon and waits until it answers.
    pub fn launch(&mut self) {
        self.launch_only();
        self.wait_until_up();
    }

    /// Starts the daemon and returns at once.
    pub fn launch_only(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.join("log")).unwrap();
        let mut command = self.program(env!("CARGO_BIN_EXE_process-supervisor"));
        if let Some(programs) = &self.programs {
            let path = std::env::var("PATH").unwrap();
            command.env("PATH", format!("{}:{path}", programs.display()));
        }
        command.arg("--config").arg(self.config()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    pub fn wait_until_up(&mut self) {
        wait_for("the daemon answers", SOON, || {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().unwrap()) {
                panic!("the daemon ended with {status}:\n{}", self.log());
            }
            (self.ctl(&["version"]).status.success()
                && self.ctl(&["--json", "status"]).status.code() != Some(4))
            .then_some(())
        });
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn signal(&self, signal: &str) {
        sh(&format!("kill -{signal} {}", self.pid()));
    }

    /// SIGKILL, at once.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Waits for the daemon to end by itself.
    pub fn wait_for_end(&mut self) -> std::process::ExitStatus {
        let mut child = self.child.take().unwrap();
        wait_for("the daemon ends", Duration::from_secs(90), || child.try_wait().unwrap())
    }

    /// Runs supervisorctl.
    pub fn ctl(&self, arguments: &[&str]) -> Output {
        let mut command = self.program(env!("CARGO_BIN_EXE_supervisorctl"));
        command.arg("--socket").arg(self.folder.join("runtime/supervisor.sock"));
        command.args(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs supervisorctl, which has to succeed, and gives its output.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.ctl(arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(
            output.status.success(),
            "supervisorctl {arguments:?}: {}\n{out}{err}\nlog:\n{}",
            output.status,
            self.log()
        );
        out.into()
    }

    /// The answer of the API to a GET, or to a POST where `method` says so.
    pub fn api(&self, method: &str, path: &str) -> (u16, Value) {
        let output = Command::new("curl")
            .args(["-sS", "-X", method, "-w", "\n%{http_code}", "--unix-socket"])
            .arg(self.folder.join("runtime/supervisor.sock"))
            .arg(format!("http://localhost/api/supervisor/{path}"))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, code) = text.rsplit_once('\n').unwrap();
        (code.parse().unwrap(), serde_json::from_str(body).unwrap_or(Value::Null))
    }

    /// One service, as the API shows it.
    pub fn service(&self, id: &str) -> Value {
        self.api("GET", "status").1["services"][id].clone()
    }

    pub fn state(&self, id: &str) -> String {
        self.service(id)["state"].as_str().unwrap_or("none").into()
    }

    pub fn pid_of(&self, id: &str) -> u64 {
        self.service(id)["pid"].as_u64().unwrap_or(0)
    }

    /// Waits for a state and gives the service as it was then.
    pub fn wait_state(&self, id: &str, state: &str) -> Value {
        self.wait_service(id, state, |service| service["state"] == state)
    }

    /// Waits until a service is as `is` has it, `what` in words, and gives it as it was then.
    pub fn wait_service(&self, id: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let start = Instant::now();
        while start.elapsed() < SOON {
            last = self.service(id);
            if is(&last) {
                return last;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{id} is not {what} but {last}\n{:#?}", self.messages(id));
    }

    /// All events, oldest first, of one service.
    pub fn events(&self, id: &str) -> Vec<Value> {
        let (_, page) = self.api("GET", &format!("events?limit=1000&service={id}"));
        page["events"].as_array().unwrap().iter().rev().cloned().collect()
    }

    /// Their messages.
    pub fn messages(&self, id: &str) -> Vec<String> {
        self.events(id).iter().map(|event| event["message"].as_str().unwrap().into()).collect()
    }

    /// Milliseconds since the epoch at which the service entered `state`, once for each time.
    pub fn times(&self, id: &str, state: &str) -> Vec<i64> {
        let of = |event: &Value| event["details"]["to"] == state;
        let at = |event: &Value| {
            event["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond()
        };
        self.events(id).iter().filter(|e| of(e)).map(at).collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
        if std::thread::panicking() {
            eprintln!("log of the daemon:\n{}", self.log());
        }
        let units: Vec<String> = self.ids.iter().map(|id| format!("supervisor-{id}.service")).collect();
        let systemctl = |verb: &str| {
            let mut command = match &self.user {
                None => Command::new("systemctl"),
                Some(user) => {
                    let mut command = Command::new("systemctl");
                    command.args(["--user", "-M", &format!("{user}@")]);
                    command
                }
            };
            drop(command.arg(verb).args(&units).output());
        };
        systemctl("kill");
        systemctl("stop");
        systemctl("reset-failed");
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// A path that a script can write to, in the folder of the daemon.
pub fn path(daemon: &Daemon, name: &str) -> PathBuf {
    daemon.folder.join(name)
}

/// Lines of a file that is there or will be.
pub fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(Into::into).collect()
}
