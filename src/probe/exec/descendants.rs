//! Every process that the check started, wherever it went: as their reaper we inherit those whose parents end.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use sysinfo::ProcessRefreshKind;

use crate::process_tree::ProcessTree;

/// For all of them to go.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(2);

/// Kills them until none is left; `false` if some do not go.
pub(super) fn kill_all() -> bool {
    let until = Instant::now() + PATIENCE;
    let mut tree = None;
    while any_left() {
        if Instant::now() >= until {
            return false;
        }
        if tree.is_none() {
            tree = ProcessTree::new(ProcessRefreshKind::nothing());
        }
        if let Some(tree) = &mut tree {
            tree.look();
            for process in tree.from(std::process::id()).into_iter().skip(1) {
                // An error means: it is gone, or it may not be killed, which the next look shows.
                let _gone = kill(Pid::from_raw(process.pid().as_u32().cast_signed()), Signal::SIGKILL);
            }
        }
        std::thread::sleep(PAUSE);
    }
    true
}

/// Buries the dead. Whoever lives has an ancestor that is our child.
fn any_left() -> bool {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return true,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
}
