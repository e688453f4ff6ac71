//! A private systemd for runs and tests: boots a real one, with D-Bus, journald and logind, on a machine whose PID 1 is
//! something else, runs one command in it and leaves nothing behind.
//!
//! ```text
//!  front (what the caller started) --- fork ---> reaper --- fork ---> first process = systemd, PID 1 inside
//!    |   ^                                         |                    |  own mounts, PIDs, cgroups, host name, IPC
//!    |   '---- messages, console, READY=1 ---------'--------------------'
//!    '-- fork into the namespaces --> command, in a scope of the private systemd
//! ```
//!
//! The front may be killed at any moment: the reaper sees it and ends the first process, with which the kernel ends
//! everything inside and drops the mounts; then the reaper removes the cgroups, the only thing that outlives a process.
//! If the reaper is killed, the kernel ends the first process, and the front, or the next sandbox, removes the cgroups.
//! The network is the host's.

mod cgroup;
mod channel;
mod command;
mod console;
mod contain;
mod error;
mod front;
mod image;
mod init;
mod journal;
mod mountinfo;
mod mounts;
mod reaper;
mod requirements;
mod sys;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::{ForkResult, getpid};

pub use cgroup::Choice as CgroupChoice;
pub use error::Error;

use command::Job;
use error::Step;
use front::Front;
use init::Blueprint;
use mounts::Windows;

/// What the caller asks for.
#[derive(Debug)]
pub struct Options {
    /// Directories or files of the host that are written through, at the same path.
    pub binds: Vec<PathBuf>,
    /// The cgroup layout.
    pub cgroup: CgroupChoice,
    /// How long the private systemd may take to boot.
    pub boot_timeout: Duration,
    /// Program and arguments; empty for an interactive shell.
    pub command: Vec<OsString>,
}

/// Boots a private systemd, runs the command in it and takes everything down. Returns the command's exit code, or 128
/// plus the number of the signal that ended it. The calling process must have one thread only.
///
/// # Errors
/// See [`Error`]; nothing is left behind in any case.
pub fn run(options: &Options) -> Result<u8, Error> {
    let systemd = requirements::check()?;
    let (signals, blocked) = front::take_signals()?;
    let job = job(options, blocked)?;
    let mut layout = cgroup::Layout::detect(options.cgroup)?;
    if !layout.is_pure() && !requirements::takes_version_1(&systemd) {
        layout = cgroup::Layout::detect(CgroupChoice::Unified)?;
    }
    let windows = Windows { cwd: job.cwd.clone(), binds: binds(&options.binds)? };
    let notify = console::Notify::bind()?;
    let blueprint = Blueprint { systemd, windows, layout, notify: notify.address.clone() };
    let (ours, theirs) = channel::pair().step(|| "make a socket pair".into())?;
    let own = sys::pidfd(getpid()).step(|| "watch the front".into())?;
    match sys::fork().step(|| "start the reaper".into())? {
        ForkResult::Child => {
            drop((ours, notify, signals));
            // Nothing but SIGKILL may keep it from its work. This cannot fail with a valid set.
            let _ = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&SigSet::all()), None);
            reaper::run(&blueprint, theirs, own)
        }
        ForkResult::Parent { child } => {
            drop((theirs, own));
            Front::new(ours, child, signals, notify).run(&job, &blueprint.layout, options.boot_timeout)
        }
    }
}

fn job(options: &Options, blocked: SigSet) -> Result<Job, Error> {
    let cwd = std::env::current_dir().step(|| "find the working directory".into())?;
    let terminal =
        std::io::stdin().is_terminal() || std::io::stdout().is_terminal() || std::io::stderr().is_terminal();
    let mut argv = options.command.clone();
    if argv.is_empty() {
        if !std::io::stdin().is_terminal() {
            return Err(Error::Requirement(
                "no command was given and standard input is no terminal for a shell: name a command".into(),
            ));
        }
        argv.push(std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into()));
    }
    Ok(Job { argv, cwd, blocked, terminal })
}

/// Places that the private systemd writes to by itself, or that belong to the kernel.
const NEVER_BOUND: [&str; 9] = ["/", "/dev", "/etc", "/proc", "/run", "/sys", "/tmp", "/usr", "/var"];

/// Absolute, existing, parents before children.
fn binds(asked: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let mut binds = Vec::new();
    for path in asked {
        let full = path.canonicalize().step(|| format!("bind {}", path.display()))?;
        let kernel = ["/dev", "/proc", "/sys"].iter().any(|tree| full.starts_with(tree));
        if kernel || NEVER_BOUND.iter().any(|place| full == Path::new(place)) {
            return Err(Error::Requirement(format!(
                "{} cannot be bound because the private systemd would change it: bind a directory below",
                full.display()
            )));
        }
        binds.push(full);
    }
    binds.sort();
    binds.dedup();
    Ok(binds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binds_are_checked_and_ordered() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().canonicalize().unwrap();
        let inner = base.join("inner");
        std::fs::create_dir(&inner).unwrap();
        assert_eq!(binds(&[inner.clone(), base.clone(), inner.join("..")]).unwrap(), [base, inner]);
        for refused in ["/", "/var", "/proc/self", "/tmp/.."] {
            assert_eq!(binds(&[refused.into()]).unwrap_err().exit_code(), 2, "{refused}");
        }
        assert!(binds(&["/nonexistent".into()]).is_err());
    }
}
