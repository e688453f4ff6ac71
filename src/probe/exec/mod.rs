//! A program of the user's: an exit with 0 is healthy.
//!
//! The daemon starts this very binary as a helper, `process-supervisor probe-exec`, and hands it the order on its
//! standard input: secrets are in no argument and no file. The helper moves into the service's cgroup, where its
//! limits hold and from where systemd's stop reaches it, adopts whatever the check forks (`setsid` or not), and kills
//! all of it when the check ends, the time is over, or its standard input closes: a daemon that gives up or dies
//! needs nothing more. A second step of the helper becomes the service's user and then the program.
//!
//! ```text
//! daemon --order--> helper (root, in the service's cgroup) --fork--> step: user, folder, exec --> program
//!        <-answer-                                         <-- first 4 KiB of what it prints ---
//! ```
//!
//! Becoming a user and entering a cgroup takes capabilities. Where the daemon has none, as in its installed unit, the
//! helper is started by a process that has them and does nothing else: see [`serve`].

mod cgroup;
mod descendants;
mod helper;
mod output;
mod serve;
mod step;
mod subject;

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::Command;

use super::{Finding, Helper, Unable};
use crate::core::plan::ServicePlan;
use crate::core::time::Human;

/// The hidden command of the binary.
pub const COMMAND: &str = "probe-exec";

/// What the binary is under that command, in the words of its command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Runs the check that it is told on standard input.
    Helper,
    /// Becomes the user and the program of the check.
    Step,
    /// Starts a helper for whoever connects to the listening socket that is its standard input.
    Serve,
}

/// What `process-supervisor probe-exec` does.
pub fn run_helper(role: Role) -> ExitCode {
    match role {
        Role::Helper => helper::run(),
        Role::Step => step::run(),
        Role::Serve => serve::run(),
    }
}

/// For the helper, beyond the check's own time: it starts, and it kills what is left of the check.
const GRACE: Duration = Duration::from_secs(2);
/// Of an answer, in bytes.
const LONGEST_ANSWER: u64 = 16 << 10;

/// What comes back for an order; an `Err` says why the check could not be run at all.
type Answer = Result<Finding, String>;

/// What the helper is told. One line of JSON.
#[derive(Serialize, Deserialize)]
struct Order {
    program: String,
    args: Vec<String>,
    environment: BTreeMap<String, String>,
    environment_file: Option<String>,
    working_directory: Option<String>,
    main_pid: u32,
    /// Whose cgroup it is to move into; `None` leaves it where it is.
    unit: Option<String>,
    /// Run as the user and the groups of the main process.
    as_main_process: bool,
    /// The signal with which systemd stops the service.
    stop_signal: i32,
    timeout: Duration,
}

/// The order for the step: what is left to do once everything is looked up.
#[derive(Serialize, Deserialize)]
struct StepOrder {
    program: String,
    args: Vec<String>,
    environment: BTreeMap<String, String>,
    folder: String,
    user: Option<subject::Ids>,
}

/// Runs `program` for the service. The helper bounds the time; it gets a little longer than that itself.
pub(super) async fn ask(
    (program, args): (&str, &[String]),
    plan: &ServicePlan,
    pid: Option<u32>,
    (helper, unit): (Helper<'_>, Option<&str>),
    timeout: Duration,
) -> Result<Finding, Unable> {
    let Some(main_pid) = pid else { return Ok(Err("there is no main process".into())) };
    let exec = &plan.exec;
    let order = Order {
        program: program.into(),
        args: args.to_vec(),
        environment: exec.environment.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect(),
        environment_file: exec.environment_file.clone(),
        working_directory: exec.working_directory.clone(),
        main_pid,
        unit: unit.map(Into::into),
        as_main_process: exec.user.is_some()
            || exec.group.is_some()
            || exec.unit_properties.contains_key("DynamicUser"),
        stop_signal: exec.shutdown.signal,
        timeout,
    };
    let answer = tokio::time::timeout(timeout + GRACE, order.carry_out(helper)).await;
    answer.unwrap_or_else(|_| {
        Ok(Err(format!("{program} could not even be ended within {}", Human(timeout + GRACE))))
    })
}

impl Order {
    /// Dropped half-way, this closes the helper's input, on which it kills the check.
    async fn carry_out(self, helper: Helper<'_>) -> Result<Finding, Unable> {
        let broken =
            |why: &dyn std::fmt::Display| Unable(format!("{} could not be run: {why}", self.program));
        let mut line = serde_json::to_vec(&self).map_err(|error| broken(&format!("its order: {error}")))?;
        line.push(b'\n');
        let mut helper = helper.begin().await.map_err(|why| broken(&why))?;
        let gone = |error| broken(&format!("its helper: {error}"));
        helper.write_all(&line).await.map_err(gone)?;
        let mut text = Vec::new();
        match (&mut helper).take(LONGEST_ANSWER).read_to_end(&mut text).await {
            // The helper was killed before it had read its order.
            Err(error) if error.kind() != ErrorKind::ConnectionReset => return Err(gone(error)),
            _ => {}
        }
        match serde_json::from_slice::<Answer>(&text) {
            Ok(answer) => answer.map_err(|why| broken(&why)),
            Err(_) => Ok(Err(format!(
                "{} was killed from outside, with all of the service's processes",
                self.program
            ))),
        }
    }
}

impl Helper<'_> {
    /// The standard input and output of a helper that waits for its order.
    async fn begin(self) -> Result<UnixStream, String> {
        match self {
            Self::Program(program) => {
                let pair = || -> io::Result<_> {
                    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
                    ours.set_nonblocking(true)?;
                    start(program, theirs.into())?;
                    UnixStream::from_std(ours)
                };
                pair().map_err(|error| format!("the supervisor's own binary: {error}"))
            }
            Self::Socket(socket) => UnixStream::connect(socket).await.map_err(|error| {
                let unit = "process-supervisor-checks.socket";
                format!("nobody runs checks at {} ({error}): `systemctl restart {unit}`", socket.display())
            }),
        }
    }
}

/// Starts a helper with this as its standard input and output. Its end is seen to by tokio.
fn start(program: &Path, stream: OwnedFd) -> io::Result<()> {
    let mut command = Command::new(program);
    command.arg(COMMAND).current_dir("/").process_group(0);
    command.stdin(stream.try_clone()?).stdout(stream).stderr(Stdio::null());
    command.spawn().map(drop)
}
