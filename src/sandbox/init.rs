//! The first process of the PID namespace: builds the sandbox around itself and becomes systemd.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::pty::{posix_openpt, ptsname_r, unlockpt};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, execve, setsid};

use super::cgroup::{Groups, Layout};
use super::channel::{self, Message};
use super::contain::contain;
use super::error::{Error, Step};
use super::image;
use super::mounts::{self, Windows};

/// What the first process needs to know.
#[derive(Debug)]
pub(super) struct Blueprint {
    /// The program that becomes PID 1.
    pub systemd: PathBuf,
    /// What of the host is let through.
    pub windows: Windows,
    /// The host's cgroup hierarchies.
    pub layout: Layout,
    /// Where systemd reports that it has booted: the value of `NOTIFY_SOCKET`.
    pub notify: String,
}

/// Waits for `go`, then builds and executes. Never returns: a failure is reported and ends the process.
pub(super) fn run(blueprint: &Blueprint, groups: &Groups, report: &OwnedFd, go: OwnedFd) -> ! {
    let Err(error) = become_systemd(blueprint, groups, report, go);
    channel::send(report, &Message::Failed(error));
    std::process::exit(125);
}

fn become_systemd(
    blueprint: &Blueprint,
    groups: &Groups,
    report: &OwnedFd,
    go: OwnedFd,
) -> Result<Infallible, Error> {
    // The reaper's death ends everything. If it died before this line, reading "go" ends instead.
    set_pdeathsig(Signal::SIGKILL).step(|| "tie the sandbox to its reaper".into())?;
    File::from(go).read_exact(&mut [0]).step(|| "hear from the reaper".into())?;
    setsid().step(|| "start a session".into())?;
    umask(Mode::from_bits_truncate(0o022));
    // What systemd would find and hand out on a machine of its own; the caller's may be lower.
    let _ = setrlimit(Resource::RLIMIT_NOFILE, 1024, 524_288);
    // A login's audit identity would keep PAM inside from setting one.
    let _ = fs::write("/proc/self/loginuid", u32::MAX.to_string());

    unshare_or_explain(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC)?;
    groups.enter()?;
    unshare_or_explain(CloneFlags::CLONE_NEWCGROUP)?;
    mounts::enter(&blueprint.windows, &blueprint.layout)?;
    image::write()?;
    take_console(report)?;
    contain()?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).step(|| "unblock signals".into())?;
    execute(blueprint)
}

/// Leaves some of the host's namespaces.
pub(super) fn unshare_or_explain(flags: CloneFlags) -> Result<(), Error> {
    use nix::errno::Errno;
    unshare(flags).map_err(|error| match error {
        Errno::EPERM => Error::Requirement(
            "this machine refuses new namespaces: in a container, start it with --privileged".into(),
        ),
        Errno::EINVAL => Error::Requirement(
            "the kernel lacks PID, mount, UTS, IPC or cgroup namespaces: use one that has them".into(),
        ),
        Errno::ENOSPC => Error::Requirement(
            "the limit on namespaces is reached: raise the sysctl values below user.max_*_namespaces".into(),
        ),
        error => Error::Setup { what: "create namespaces".into(), source: error.into() },
    })
}

/// Makes a terminal that is the console inside and whose other side the front reads.
fn take_console(report: &OwnedFd) -> Result<(), Error> {
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)
        .and_then(|master| unlockpt(&master).map(|()| master))
        .step(|| "make a console".into())?;
    let slave = ptsname_r(&master).step(|| "name the console".into())?;
    File::create("/dev/console").step(|| "create /dev/console".into())?;
    mount(Some(slave.as_str()), "/dev/console", None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .step(|| "mount /dev/console".into())?;
    let open =
        |path: &str| OpenOptions::new().read(true).write(true).open(path).step(|| format!("open {path}"));
    let (null, console) = (open("/dev/null")?, {
        use std::os::unix::fs::OpenOptionsExt;
        OpenOptions::new()
            .write(true)
            .custom_flags(OFlag::O_NOCTTY.bits())
            .open("/dev/console")
            .step(|| "open /dev/console".into())?
    });
    dup2_stdin(&null)
        .and_then(|()| dup2_stdout(&console))
        .and_then(|()| dup2_stderr(&console))
        .step(|| "attach the console".into())?;
    channel::send(report, &Message::Console(OwnedFd::from(master)));
    Ok(())
}

fn execute(blueprint: &Blueprint) -> Result<Infallible, Error> {
    let text =
        |value: String| CString::new(value).map_err(std::io::Error::from).step(|| "start systemd".into());
    let path = text(blueprint.systemd.display().to_string())?;
    let arguments =
        [format!("--unit={}", image::TARGET), "--show-status=yes".into(), "--crash-shell=no".into()];
    let environment = [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
        "TERM=dumb".into(),
        "SYSTEMD_COLORS=0".into(),
        // Tells systemd and everything below it that hardware and kernel are not theirs.
        "container=supervisor-sandbox".into(),
        format!("NOTIFY_SOCKET={}", blueprint.notify),
    ];
    let mut argv = vec![path.clone()];
    for argument in arguments {
        argv.push(text(argument)?);
    }
    let envp = environment.into_iter().map(text).collect::<Result<Vec<_>, _>>()?;
    execve(&path, &argv, &envp).step(|| format!("execute {}", blueprint.systemd.display()))
}
