//! The few system calls that have no safe wrapper.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, Pid};

/// Forks. The caller must have one thread only, which holds for the sandbox's binary.
pub(super) fn fork() -> nix::Result<ForkResult> {
    // SAFETY: with one thread, no other thread can hold a lock that the child would wait for.
    unsafe { nix::unistd::fork() }
}

/// A descriptor that stays bound to this very process, whatever happens to its number. Close-on-exec.
pub(super) fn pidfd(pid: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: takes two integers and touches no memory.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    let fd = RawFd::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just returned it, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The other side of a terminal whose master this is, wherever its file may be. Close-on-exec.
pub(super) fn slave(master: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: takes an integer and touches no memory.
    let fd = Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
    // SAFETY: the kernel has just returned it, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a signal through a pidfd. A process that is gone already is no error.
pub(super) fn signal(pidfd: BorrowedFd<'_>, signal: Signal) -> nix::Result<()> {
    // SAFETY: a null siginfo is allowed; no memory is touched.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal as libc::c_int,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    match Errno::result(result) {
        Ok(_) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Closes every descriptor from 3 on but those in `keep`. The caller must not use any other one afterwards.
pub(super) fn close_all_but(keep: &mut [RawFd]) -> nix::Result<()> {
    keep.sort_unstable();
    let mut first: libc::c_uint = 3;
    for &fd in keep.iter() {
        let Ok(fd) = libc::c_uint::try_from(fd) else { continue };
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = first.max(fd + 1);
    }
    close_range(first, libc::c_uint::MAX)
}

fn close_range(first: libc::c_uint, last: libc::c_uint) -> nix::Result<()> {
    // SAFETY: touches no memory; the caller promises that nothing uses these descriptors any more.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}
