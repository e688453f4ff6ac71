//! The command: a child of the front that enters the sandbox, so that terminal, pipes and exit status are the caller's own.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use futures_util::StreamExt;
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::{ForkResult, Pid, chdir, setsid};
use zbus::{OwnedObjectPath, Variant};

use super::cgroup::{self, Layout};
use super::contain::contain;
use super::error::{Error, Step};
use super::sys;

/// Variables that describe the caller's own session or service manager, which is not the one inside.
const FOREIGN: [&str; 18] = [
    "CREDENTIALS_DIRECTORY",
    "DBUS_SESSION_BUS_ADDRESS",
    "DBUS_STARTER_ADDRESS",
    "DBUS_SYSTEM_BUS_ADDRESS",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "MAINPID",
    "MANAGERPID",
    "NOTIFY_SOCKET",
    "SYSTEMD_EXEC_PID",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "XDG_RUNTIME_DIR",
    "XDG_SESSION_ID",
    "XDG_VTNR",
];

/// What to run.
#[derive(Debug)]
pub(super) struct Job {
    /// Program and arguments, not empty.
    pub argv: Vec<OsString>,
    /// Where, as inside and outside.
    pub cwd: PathBuf,
    /// The signals that the caller had blocked.
    pub blocked: SigSet,
    /// Whether it stays in the caller's session, whose terminal it uses.
    pub terminal: bool,
}

/// Starts the command. From here on every child of the calling process is born into the sandbox.
pub(super) fn start(job: &Job, layout: &Layout, first: Pid, pidfd: &OwnedFd) -> Result<Pid, Error> {
    setns(pidfd, CloneFlags::CLONE_NEWPID).step(|| "enter the sandbox".into())?;
    match sys::fork().step(|| "start the command".into())? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let code = become_command(job, layout, first, pidfd);
            std::process::exit(code.into())
        }
    }
}

/// Returns only where the command could not be started, with the exit code that says so.
fn become_command(job: &Job, layout: &Layout, first: Pid, pidfd: &OwnedFd) -> u8 {
    if let Err(error) = enter(job, layout, first, pidfd) {
        complain(&error.to_string());
        return error.exit_code();
    }
    let Some((program, arguments)) = job.argv.split_first() else { return 125 };
    let mut command = Command::new(program);
    command.args(arguments);
    for name in FOREIGN {
        command.env_remove(name);
    }
    if std::env::var_os("TMPDIR").is_some_and(|path| !Path::new(&path).is_dir()) {
        command.env_remove("TMPDIR");
    }
    let error = command.exec();
    complain(&format!("cannot run {}: {error}", program.display()));
    if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 }
}

fn enter(job: &Job, layout: &Layout, first: Pid, pidfd: &OwnedFd) -> Result<(), Error> {
    // Not to complain about a sandbox that is being taken down because the front was killed.
    set_pdeathsig(Signal::SIGKILL).step(|| "tie the command to the front".into())?;
    if !job.terminal {
        setsid().step(|| "start a session".into())?;
    }
    cgroup::join(layout, first)?;
    let namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWCGROUP;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&job.blocked), None)
        .step(|| "restore the signal mask".into())?;
    setns(pidfd.as_fd(), namespaces).step(|| "enter the sandbox".into())?;
    contain()?;
    chdir(&job.cwd).step(|| format!("change to {} in the sandbox", job.cwd.display()))?;
    let title = job.argv.join(OsStr::new(" "));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .step(|| "start a runtime".into())?;
    runtime.block_on(enter_scope(&title.to_string_lossy())).map_err(|error| {
        Error::Machine(format!("systemd in the sandbox did not take the command: {error}"))
    })?;
    set_pdeathsig(None).step(|| "release the command".into())
}

/// Has the private systemd put this process into a scope: nothing but systemd belongs into its own group.
async fn enter_scope(title: &str) -> zbus::Result<()> {
    let bus = zbus::connection::Builder::address("unix:path=/run/dbus/system_bus_socket").build().await?;
    let manager = zbus::Proxy::new(
        &bus,
        "org.freedesktop.systemd1",
        "/org/freedesktop/systemd1",
        "org.freedesktop.systemd1.Manager",
    )
    .await?;
    let mut ended = manager.receive_signal("JobRemoved").await?;
    manager.call_method("Subscribe", &()).await?;
    let properties: Vec<(&str, Variant<'_>)> = vec![
        ("Description", title.into()),
        ("PIDs", vec![std::process::id()].into()),
        ("TasksMax", u64::MAX.into()),
    ];
    let auxiliary: Vec<(&str, Vec<(&str, Variant<'_>)>)> = Vec::new();
    let job: OwnedObjectPath =
        manager.call("StartTransientUnit", &("command.scope", "fail", properties, auxiliary)).await?;
    while let Some(message) = ended.next().await {
        let (_, path, _, result): (u32, OwnedObjectPath, String, String) = message.body().deserialize()?;
        if path == job {
            return match result.as_str() {
                "done" => report_failed_units(&manager).await,
                other => Err(zbus::Error::Failure(format!("the job for command.scope ended as {other}"))),
            };
        }
    }
    Err(zbus::Error::Failure("the bus connection was closed".into()))
}

/// A unit that failed at boot is worth a line, since what follows may depend on it.
async fn report_failed_units(manager: &zbus::Proxy<'_>) -> zbus::Result<()> {
    let failed: u32 = manager.get_property("NFailedUnits").await?;
    if failed > 0 {
        type Unit =
            (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);
        let units: Vec<Unit> = manager.call("ListUnitsFiltered", &(vec!["failed"],)).await?;
        let names: Vec<String> = units.into_iter().map(|unit| unit.0).collect();
        complain(&format!("booted, but failed inside: {}", names.join(", ")));
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "the command's standard error is where the caller looks")]
fn complain(text: &str) {
    eprintln!("supervisor-sandbox: {text}");
}
