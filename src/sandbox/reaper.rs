//! The process that takes the sandbox down when its front is done, or dead.
//!
//! It is the parent of the namespace's first process, in a session of its own and deaf to every signal but SIGKILL. If
//! even that one comes, the kernel kills the first process and with it the whole namespace; the front, or the next
//! sandbox, removes the groups.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, pipe2, setsid};

use super::cgroup::Groups;
use super::channel::{self, Message};
use super::error::{Error, Step};
use super::init::{self, Blueprint};
use super::sys;

/// Builds the sandbox, guards it and takes it down. All signals are blocked by the caller. `front` refers to the front
/// process.
pub(super) fn run(blueprint: &Blueprint, report: OwnedFd, front: OwnedFd) -> ! {
    let mut groups = Groups::default();
    let done = stand_apart(&report, &front).and_then(|()| guard(blueprint, &mut groups, &report, &front));
    if let Err(error) = done {
        channel::send(&report, &Message::Failed(error));
    }
    if let Err(error) = groups.remove() {
        channel::send(&report, &Message::Warning(error.to_string()));
    }
    std::process::exit(0)
}

/// Holds nothing of the caller's: no terminal, no pipe, no directory.
fn stand_apart(report: &OwnedFd, front: &OwnedFd) -> Result<(), Error> {
    setsid().step(|| "start a session for the reaper".into())?;
    prctl::set_name(c"sandbox-reaper").step(|| "name the reaper".into())?;
    chdir("/").step(|| "change to /".into())?;
    let null = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .step(|| "open /dev/null".into())?;
    dup2_stdin(&null)
        .and_then(|()| dup2_stdout(&null))
        .and_then(|()| dup2_stderr(&null))
        .step(|| "let go of the terminal".into())?;
    drop(null);
    sys::close_all_but(&mut [report.as_raw_fd(), front.as_raw_fd()]).step(|| "close descriptors".into())
}

fn guard(blueprint: &Blueprint, groups: &mut Groups, report: &OwnedFd, front: &OwnedFd) -> Result<(), Error> {
    let missing = groups.create(&blueprint.layout)?;
    if !missing.is_empty() {
        channel::send(
            report,
            &Message::Warning(format!(
                "the cgroup controllers {} cannot be passed on from here, so limits of that kind do not hold inside",
                missing.join(", ")
            )),
        );
    }
    let (first, pidfd, mut go) = start(blueprint, groups, report)?;
    channel::send(report, &Message::Started(first, pidfd.try_clone().step(|| "share the sandbox".into())?));
    // If it is dead already, that shows below.
    let _ = go.write_all(b"g");
    wait_for_end(report, front, &pidfd);
    sys::signal(pidfd.as_fd(), Signal::SIGKILL).step(|| "end the sandbox".into())?;
    waitpid(first, None).step(|| "wait for the sandbox's end".into()).map(drop)
}

/// Forks the first process of a new PID namespace. It waits for a byte on the returned pipe.
fn start(
    blueprint: &Blueprint,
    groups: &Groups,
    report: &OwnedFd,
) -> Result<(Pid, OwnedFd, std::fs::File), Error> {
    init::unshare_or_explain(CloneFlags::CLONE_NEWPID)?;
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).step(|| "make a pipe".into())?;
    match sys::fork().step(|| "start the sandbox's first process".into())? {
        ForkResult::Child => {
            drop(writer);
            init::run(blueprint, groups, report, reader)
        }
        ForkResult::Parent { child } => {
            let pidfd = sys::pidfd(child).step(|| "watch the sandbox's first process".into())?;
            Ok((child, pidfd, writer.into()))
        }
    }
}

/// Until the front hangs up or dies, or the sandbox ends by itself.
fn wait_for_end(report: &OwnedFd, front: &OwnedFd, first: &OwnedFd) {
    let mut watched = [report, front, first].map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN));
    while matches!(poll(&mut watched, PollTimeout::NONE), Err(nix::errno::Errno::EINTR) | Ok(0)) {}
}
