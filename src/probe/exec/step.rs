//! The last step before the check: becomes the service's user, and then the program.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, setgid, setgroups, setsid, setuid};

use super::StepOrder;
use super::subject::Ids;

/// As a shell says that a program cannot be run.
const CANNOT_RUN: u8 = 127;

/// Comes back only if the program cannot be run; the reason goes where its output would have gone.
pub(super) fn run() -> ExitCode {
    let Err(why) = become_it();
    // Nobody may listen any more.
    let _unheard = writeln!(std::io::stderr(), "it cannot be run: {why}");
    ExitCode::from(CANNOT_RUN)
}

fn become_it() -> Result<std::convert::Infallible, String> {
    let mut text = Vec::new();
    std::io::stdin().read_to_end(&mut text).map_err(|error| format!("no order: {error}"))?;
    let order: StepOrder = serde_json::from_slice(&text).map_err(|error| format!("the order: {error}"))?;
    SigSet::empty().thread_set_mask().map_err(|error| format!("signals: {error}"))?;
    umask(Mode::from_bits_truncate(0o022));
    // An error means that it leads a session already.
    let _leads = setsid();
    if let Some(user) = &order.user {
        change_to(user).map_err(|error| format!("as user {}: {error}", user.uid))?;
    }
    // After the change, which would undo it. The helper ends only by SIGKILL while the check runs.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|error| format!("signals: {error}"))?;
    std::env::set_current_dir(&order.folder)
        .map_err(|error| format!("in the folder {}: {error}", order.folder))?;
    let mut command = Command::new(&order.program);
    command.args(&order.args).env_clear().envs(&order.environment).stdin(Stdio::null());
    Err(command.exec().to_string())
}

fn change_to(user: &Ids) -> nix::Result<()> {
    setgroups(&user.groups.iter().copied().map(Gid::from_raw).collect::<Vec<_>>())?;
    setgid(Gid::from_raw(user.gid))?;
    setuid(Uid::from_raw(user.uid))
}
