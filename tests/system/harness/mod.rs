//! What every suite needs: the sandbox, plans, and waiting for notices with a deadline.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use process_supervisor::core::event::{Exit, InvocationId, OpId, StartFailure, Started, UnitSeen};
use process_supervisor::core::plan::{Id, OnFailure, Plan, Secret, ServicePlan};
use process_supervisor::place::Scope;
use process_supervisor::systemd::{Manager, Notice};
use tokio::sync::mpsc;

/// Longer than anything here may take on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// How long a test may hold its turn; the longest needs half a minute when the machine is its own.
const TURN: Duration = Duration::from_mins(3);

/// What a test holds as long as it needs systemd as it is (shared), or disturbs it for all (alone).
pub struct Turn {
    #[expect(dead_code, reason = "held for its lock")]
    lock: nix::fcntl::Flock<File>,
    #[expect(dead_code, reason = "held for its end, which the watch over this test sees")]
    ended: std::sync::mpsc::Sender<()>,
}

/// In the sandbox, beside other tests.
pub fn shared() -> Turn {
    take_turn(nix::fcntl::FlockArg::LockShared)
}

/// In the sandbox, with no other test running.
pub fn alone() -> Turn {
    take_turn(nix::fcntl::FlockArg::LockExclusive)
}

fn take_turn(how: nix::fcntl::FlockArg) -> Turn {
    assert!(
        std::env::var_os("SUPERVISOR_SANDBOX").is_some_and(|set| set == "1"),
        "this test needs a private systemd: run `make test`, which boots one and runs the tests in it"
    );
    let file = File::options().create(true).append(true).open("/run/lock-of-the-tests").unwrap();
    let lock = nix::fcntl::Flock::lock(file, how).map_err(|(_, error)| error).unwrap();
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        if end.recv_timeout(TURN) == Err(RecvTimeoutError::Timeout) {
            say_where_it_hangs();
            std::process::exit(101);
        }
    });
    Turn { lock, ended }
}

/// A test that hangs would hold up all others, and its end by a signal from outside would not say where.
fn say_where_it_hangs() {
    let threads = format!(
        "cd /proc/{}/task; for task in *; do echo $(cat $task/comm); cat $task/stack; done",
        std::process::id()
    );
    let all = "ps -eo pid,ppid,stat,wchan:24,etimes,args --forest; systemctl --no-pager list-jobs";
    eprintln!("this test has hung for {TURN:?}; its threads, all processes, the jobs of systemd:");
    // The time limit is for a systemd that hangs too.
    let _ = Command::new("timeout").args(["20", "/bin/sh", "-c", &format!("{threads}; {all}")]).status();
}

/// A named pipe into a service that says what comes, line by line. Held open both ways, so that neither end ever waits
/// for the other, and no line is lost in between.
pub struct Pipe {
    path: PathBuf,
    end: File,
}

impl Pipe {
    /// In a folder that exists.
    pub fn new(folder: &Path) -> Self {
        let path = folder.join("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR).unwrap();
        let end = File::options().read(true).write(true).open(&path).unwrap();
        Self { path, end }
    }

    /// What the service runs last in its shell: "got " and the line.
    pub fn script(&self) -> String {
        format!("while read line; do echo got $line; done < {}", self.path.display())
    }

    pub fn say(&mut self, line: &str) {
        writeln!(self.end, "{line}").unwrap();
    }
}

pub fn id(text: &str) -> Id {
    Id::new(text).unwrap()
}

/// A service that runs `script` in a shell.
pub fn service(name: &str, script: &str) -> ServicePlan {
    program(name, "/bin/sh", &["-c", script])
}

pub fn program(name: &str, program: &str, args: &[&str]) -> ServicePlan {
    let mut plan = ServicePlan::new(id(name), program);
    plan.exec.args = args.iter().map(|arg| (*arg).to_owned()).collect();
    plan.exec.shutdown.timeout = Duration::from_secs(10);
    plan.health.interval = Duration::from_secs(5);
    plan.health.timeout = Duration::from_secs(1);
    plan.health.failure_threshold = 2;
    plan.exec_hash = format!("hash-of-{name}");
    plan
}

pub fn secrets(pairs: &[(&str, &str)]) -> BTreeMap<String, Secret> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), Secret((*value).to_owned()))).collect()
}

pub fn properties(pairs: &[(&str, &str)]) -> BTreeMap<String, Vec<String>> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), vec![(*value).to_owned()])).collect()
}

pub fn plan(services: &[&ServicePlan]) -> Plan {
    Plan {
        services: services.iter().map(|s| (s.id.clone(), Arc::new((*s).clone()))).collect(),
        ..Plan::default()
    }
}

/// A folder that every user may write to.
pub fn folder() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    folder
}

/// A manager, its notices, and the services to clean up.
pub struct Rig {
    pub manager: Manager,
    notices: mpsc::UnboundedReceiver<Notice>,
    /// Notices that were not asked for yet.
    pub waiting: VecDeque<Notice>,
    ops: u64,
    scope: Scope,
    pub env_dir: PathBuf,
    /// Kept as long as the files in it are needed.
    folder: Option<tempfile::TempDir>,
    used: Vec<Id>,
}

impl Rig {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let env_dir = folder.path().join("env");
        let mut rig = Self::with(Scope::System, &env_dir).await;
        rig.folder = Some(folder);
        rig
    }

    pub async fn with(scope: Scope, env_dir: &Path) -> Self {
        let (send, notices) = mpsc::unbounded_channel();
        let manager = Manager::connect(scope, env_dir.into(), send).await.unwrap();
        manager.units(&Plan::default()).await.unwrap();
        let env_dir = env_dir.to_owned();
        let (waiting, used) = (VecDeque::new(), Vec::new());
        Self { manager, notices, waiting, ops: 0, scope, env_dir, folder: None, used }
    }

    fn op(&mut self) -> OpId {
        self.ops += 1;
        OpId(self.ops)
    }

    /// The first notice, now or to come, that is what is wanted; those before it stay.
    pub async fn wait<T>(&mut self, what: &str, want: impl Fn(&Notice) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        let mut at = 0;
        loop {
            while at < self.waiting.len() {
                if let Some(found) = want(&self.waiting[at]) {
                    self.waiting.remove(at);
                    return found;
                }
                at += 1;
            }
            let next = tokio::time::timeout_at(deadline.into(), self.notices.recv()).await;
            match next {
                Ok(Some(notice)) => self.waiting.push_back(notice),
                _ => panic!("{what}: not within {DEADLINE:?}; there was {:#?}", self.waiting),
            }
        }
    }

    pub fn begin_start(&mut self, plan: &ServicePlan) -> OpId {
        let op = self.op();
        self.used.push(plan.id.clone());
        self.manager.start(op, Arc::new(plan.clone()));
        op
    }

    pub async fn started(&mut self, wanted: OpId) -> Result<Started, StartFailure> {
        self.wait("the answer to a start", |notice| match notice {
            Notice::StartFinished { op, result, .. } if *op == wanted => Some(result.clone()),
            _ => None,
        })
        .await
    }

    pub async fn try_start(&mut self, plan: &ServicePlan) -> Result<Started, StartFailure> {
        let op = self.begin_start(plan);
        self.started(op).await
    }

    pub async fn start(&mut self, plan: &ServicePlan) -> Started {
        self.try_start(plan).await.unwrap_or_else(|failure| panic!("{}: {failure:?}", plan.id))
    }

    pub fn begin_stop(&mut self, plan: &ServicePlan, kill: bool) -> OpId {
        let op = self.op();
        self.manager.stop(op, plan.id.clone(), kill);
        op
    }

    pub async fn stopped(&mut self, wanted: OpId) -> Result<(), String> {
        self.wait("the answer to a stop", |notice| match notice {
            Notice::StopFinished { op, result, .. } if *op == wanted => Some(result.clone()),
            _ => None,
        })
        .await
    }

    /// Stops; the exit has been told before the answer.
    pub async fn stop(&mut self, plan: &ServicePlan, kill: bool) -> Exit {
        let op = self.begin_stop(plan, kill);
        self.stopped(op).await.unwrap();
        let at = self
            .waiting
            .iter()
            .position(|n| matches!(n, Notice::Exited { service, .. } if *service == plan.id))
            .unwrap_or_else(|| panic!("the exit comes before the answer: {:?}", self.waiting));
        match self.waiting.remove(at) {
            Some(Notice::Exited { exit, external: false, .. }) => exit,
            other => panic!("{other:?}"),
        }
    }

    pub async fn exited(&mut self, plan: &ServicePlan) -> (InvocationId, Exit, bool) {
        let wanted = plan.id.clone();
        self.wait(&format!("the exit of {wanted}"), |notice| match notice {
            Notice::Exited { service, invocation, exit, external } if *service == wanted => {
                Some((*invocation, exit.clone(), *external))
            }
            _ => None,
        })
        .await
    }

    pub async fn appeared(&mut self, plan: &ServicePlan) -> (InvocationId, Option<u32>) {
        let wanted = plan.id.clone();
        self.wait(&format!("{wanted} from outside"), |notice| match notice {
            Notice::Appeared { service, invocation, pid } if *service == wanted => Some((*invocation, *pid)),
            _ => None,
        })
        .await
    }

    pub async fn back(&mut self) {
        self.wait("systemd is back", |n| matches!(n, Notice::Back).then_some(())).await;
    }

    pub async fn resync(&mut self, plan: Plan) -> BTreeMap<Id, UnitSeen> {
        self.manager.resync(Arc::new(plan));
        self.wait("the picture of all units", |notice| match notice {
            Notice::Resynced { units } => Some(units.clone()),
            _ => None,
        })
        .await
    }
}

impl Rig {
    /// Goes without cleaning up, as a daemon that is killed.
    pub fn vanish(mut self) {
        self.used.clear();
    }
}

impl Drop for Rig {
    /// Leaves nothing running, however the test ended.
    fn drop(&mut self) {
        for service in &self.used {
            let unit = format!("supervisor-{service}.service");
            let _ = systemctl(self.scope).args(["kill", "-s", "KILL", &unit]).output();
            let _ = systemctl(self.scope).args(["stop", &unit]).output();
            let _ = systemctl(self.scope).args(["reset-failed", &unit]).output();
        }
    }
}

pub fn systemctl(scope: Scope) -> Command {
    let mut command = Command::new("systemctl");
    command.arg(match scope {
        Scope::System => "--system",
        Scope::User => "--user",
    });
    command
}

/// Runs a command to its end, without standing in the way of the test's other tasks.
pub async fn run(program: &str, args: &[&str]) -> String {
    let (program, args) = (program.to_owned(), args.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>());
    let output = tokio::task::spawn_blocking(move || Command::new(program).args(args).output().unwrap())
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// One property as systemd shows it.
pub async fn show(unit: &str, property: &str) -> String {
    run("systemctl", &["show", "--value", "-p", property, unit]).await.trim_end().to_owned()
}

/// Waits for something outside of the notices.
pub async fn until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A process that ended and waits to be collected is not alive.
pub fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

/// The word for a dependency that is not lost; here so that plans read well.
pub const HOLD: OnFailure = OnFailure::Hold;
