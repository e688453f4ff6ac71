//! Exec checks through the helper, without systemd: what runs, as whom, what is left of it, what is told.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use process_supervisor::core::event::ProbeReport;
use process_supervisor::core::plan::{Id, Probe, Secret, ServicePlan};
use process_supervisor::probe::{self, Helper, ProbeClient, Subject, Unable};

const LONG: Duration = Duration::from_secs(30);

fn check(script: &str) -> ServicePlan {
    let mut plan = ServicePlan::new(Id::new("web").unwrap(), "/bin/web");
    plan.health.timeout = LONG;
    plan.health.probe = Probe::Exec { program: "/bin/sh".into(), args: vec!["-c".into(), script.into()] };
    plan
}

const SUPERVISOR: &str = env!("CARGO_BIN_EXE_process-supervisor");

async fn asked_through(helper: Helper<'_>, plan: &ServicePlan, pid: u32) -> Result<ProbeReport, Unable> {
    probe::run(plan, Subject { pid: Some(pid), unit: None, helper }, &ProbeClient::default()).await
}

async fn asked_about(plan: &ServicePlan, pid: u32) -> ProbeReport {
    asked_through(Helper::Program(Path::new(SUPERVISOR)), plan, pid).await.unwrap()
}

async fn asked(plan: &ServicePlan) -> (bool, String) {
    let report = asked_about(plan, std::process::id()).await;
    (report.passed, report.message)
}

/// Killed and buried when dropped.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        drop((self.0.kill(), self.0.wait()));
    }
}

/// The pids that a script wrote, one a line, once there are so many.
async fn pids(file: &Path, count: usize) -> Vec<u32> {
    let deadline = Instant::now() + LONG;
    loop {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let pids: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
        if pids.len() >= count && text.ends_with('\n') {
            return pids;
        }
        assert!(Instant::now() < deadline, "{count} pids, there are {pids:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn gone(pids: &[u32]) {
    let deadline = Instant::now() + LONG;
    while let Some(pid) = pids.iter().find(|pid| PathBuf::from(format!("/proc/{pid}")).exists()) {
        assert!(Instant::now() < deadline, "{pid} is still there");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A check that forks one process into a session of its own and another whose parent ends; none minds SIGTERM.
fn forking(file: &Path, end: &str) -> String {
    format!(
        "trap '' TERM HUP; echo $$ >> {0}; \
         setsid sh -c 'trap \"\" TERM HUP; echo $$ >> {0}; while :; do sleep 1; done' & \
         (sh -c 'trap \"\" TERM HUP; echo $$ >> {0}; while :; do sleep 1; done' &) ; \
         while [ $(wc -l < {0}) -lt 3 ]; do sleep 0.01; done; {end}",
        file.display()
    )
}

#[tokio::test]
async fn the_exit_decides_and_the_last_line_is_told() {
    for (script, passed, message) in [
        ("exit 0", true, "/bin/sh passes"),
        ("echo one; echo two >&2; echo", true, "/bin/sh passes: two"),
        ("exit 3", false, "/bin/sh exited with status 3"),
        ("echo no database; exit 1", false, "/bin/sh exited with status 1: no database"),
        ("kill -9 $$", false, "/bin/sh was killed by signal 9"),
    ] {
        assert_eq!(asked(&check(script)).await, (passed, message.into()), "{script}");
    }
    let mut plan = check("");
    plan.health.probe = Probe::Exec { program: "/nonexistent/check".into(), args: vec![] };
    let message =
        "/nonexistent/check exited with status 127: it cannot be run: No such file or directory (os error 2)";
    assert_eq!(asked(&plan).await, (false, message.into()));
}

#[tokio::test]
async fn a_flood_of_output_is_thrown_away() {
    let mut plan = check("echo first; i=0; while :; do echo yes yes yes yes yes yes yes; done");
    plan.health.timeout = Duration::from_secs(1);
    let (passed, message) = asked(&plan).await;
    assert!(!passed);
    assert_eq!(message, "/bin/sh did not end within 1 s and was killed: yes yes yes yes yes yes yes");
    let whole = asked(&check("head -c 20000000 /dev/zero; echo end")).await;
    assert_eq!(whole, (true, "/bin/sh passes".into()), "read to its end, though not kept");
}

#[tokio::test]
async fn what_a_check_forks_ends_with_it_however_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    for (name, end, passed) in
        [("passes", "exit 0", true), ("fails", "exit 1", false), ("hangs", "sleep 1000", false)]
    {
        let file = folder.path().join(name);
        std::fs::write(&file, "").unwrap();
        let mut plan = check(&forking(&file, end));
        if name == "hangs" {
            plan.health.timeout = Duration::from_secs(3);
        }
        let begun = Instant::now();
        let found = asked(&plan).await;
        assert_eq!(found.0, passed, "{name}: {found:?}");
        assert!(begun.elapsed() < LONG);
        for pid in pids(&file, 3).await {
            assert!(!PathBuf::from(format!("/proc/{pid}")).exists(), "{name}: {pid} is left");
        }
    }
}

#[tokio::test]
async fn a_check_that_nobody_waits_for_any_more_is_killed_whole() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pids");
    std::fs::write(&file, "").unwrap();
    let plan = check(&forking(&file, "sleep 1000"));
    let asking = tokio::spawn(async move { asked(&plan).await });
    let started = pids(&file, 3).await;
    asking.abort();
    gone(&started).await;
}

#[tokio::test]
async fn it_has_the_variables_the_folder_and_the_arguments_of_the_service() {
    let folder = tempfile::tempdir().unwrap();
    let seen = folder.path().join("seen");
    let file = folder.path().join("web.env");
    std::fs::write(&file, "FROM_FILE='a b'\nBOTH=file\n").unwrap();
    let mut plan = check("");
    let script =
        format!("pwd > {0}; echo \"$FROM_FILE/$BOTH/$TOKEN/$1/$PATH\" >> {0}; umask >> {0}", seen.display());
    let args = ["-c", &script, "sh", "$HOME %n"].map(String::from).to_vec();
    plan.health.probe = Probe::Exec { program: "/bin/sh".into(), args };
    plan.exec.environment_file = Some(file.display().to_string());
    plan.exec.environment = BTreeMap::from(
        [("BOTH", "config"), ("TOKEN", "s3cret-token")].map(|(k, v)| (k.into(), Secret(v.into()))),
    );
    plan.exec.working_directory = Some("/usr".into());
    assert_eq!(asked(&plan).await, (true, "/bin/sh passes".into()));
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let expected = format!("/usr\na b/config/s3cret-token/$HOME %n/{path}\n0022\n");
    assert_eq!(std::fs::read_to_string(&seen).unwrap(), expected);
    let args = ["-c", "echo it is $TOKEN; exit 1"].map(String::from).to_vec();
    plan.health.probe = Probe::Exec { program: "/bin/sh".into(), args };
    assert_eq!(asked(&plan).await.1, "/bin/sh exited with status 1: it is ***");
    plan.exec.environment_file = Some("/nonexistent.env".into());
    let message = asked(&plan).await.1;
    assert!(
        message.contains("was not run: its environment_file /nonexistent.env cannot be read"),
        "{message}"
    );
}

#[tokio::test]
async fn it_runs_as_the_user_that_the_service_runs_as() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: needs root");
    }
    let service = Service(Command::new("sleep").arg("1000").uid(65_534).gid(12_345).spawn().unwrap());
    let pid = service.0.id();
    let deadline = Instant::now() + LONG;
    while !std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap().contains("Uid:\t65534") {
        assert!(Instant::now() < deadline);
    }
    let mut plan = check("echo $(id -u) $(id -g) $(id -G)");
    plan.exec.user = Some("nobody".into());
    assert_eq!(asked_about(&plan, pid).await.message, "/bin/sh passes: 65534 12345 12345");
    plan.exec.user = None;
    let report = asked_about(&plan, pid).await;
    assert!(report.message.starts_with("/bin/sh passes: 0 0"), "no user in the plan: {report:?}");
    plan.exec.user = Some("nobody".into());
    drop(service);
    let report = asked_about(&plan, pid).await;
    assert_eq!(report.message, format!("/bin/sh was not run: the service's main process {pid} is gone"));
}

#[tokio::test]
async fn nothing_leaks() {
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let plan = check("exit 0");
    asked(&plan).await;
    let before = descriptors();
    for _ in 0..50 {
        assert!(asked(&plan).await.0);
    }
    assert_eq!(descriptors(), before);
    let children = format!("/proc/self/task/{}/children", std::process::id());
    assert_eq!(
        std::fs::read_to_string(children).unwrap_or_default(),
        "",
        "nothing runs, nothing is unburied"
    );
}

/// What runs checks for a supervisor that may not, at a socket.
fn served(socket: &Path) -> Service {
    let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    let serving =
        Command::new(SUPERVISOR).args(["probe-exec", "serve"]).stdin(OwnedFd::from(listener)).spawn();
    Service(serving.unwrap())
}

#[tokio::test]
async fn checks_are_run_by_whom_the_socket_leads_to() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("checks");
    let ask = |plan: ServicePlan| {
        let socket = socket.clone();
        async move { asked_through(Helper::Socket(&socket), &plan, std::process::id()).await }
    };
    let lack = ask(check("true")).await.unwrap_err().to_string();
    assert!(lack.contains("nobody runs checks at") && lack.contains("systemctl restart"), "{lack}");

    let server = served(&socket);
    let mut many = tokio::task::JoinSet::new();
    for n in 0..20 {
        many.spawn(ask(check(&format!("echo {n}; exit {}", n % 2))));
    }
    let answers: Vec<_> = many.join_all().await.into_iter().map(|report| report.unwrap().message).collect();
    for n in 0..20 {
        let told = if n % 2 == 0 { format!("passes: {n}") } else { format!("exited with status 1: {n}") };
        assert!(answers.contains(&format!("/bin/sh {told}")), "{n}: {answers:?}");
    }

    // The supervisor loses interest half-way.
    let file = folder.path().join("pids");
    std::fs::write(&file, "").unwrap();
    let asking = tokio::spawn(ask(check(&forking(&file, "sleep 1000"))));
    let running = pids(&file, 3).await;
    asking.abort();
    gone(&running).await;

    // Whoever serves may end while a check runs.
    std::fs::write(&file, "").unwrap();
    let script = format!("echo $$ >> {0}; while [ ! -e {0}.end ]; do sleep 0.01; done", file.display());
    let asking = tokio::spawn(ask(check(&script)));
    pids(&file, 1).await;
    drop(server);
    std::fs::write(folder.path().join("pids.end"), "").unwrap();
    assert!(asking.await.unwrap().unwrap().passed);
    let lack = ask(check("true")).await.unwrap_err().to_string();
    assert!(lack.contains("Connection refused"), "{lack}");
}
