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
//!        <-finding-                                        <-- first 4 KiB of what it prints ---
//! ```

mod cgroup;
mod descendants;
mod helper;
mod output;
mod step;
mod subject;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Finding, Unable};
use crate::core::plan::ServicePlan;
use crate::core::time::Human;

pub use helper::run as run_helper;

/// The hidden command of the binary, and the word that makes it the second step.
pub const COMMAND: &str = "probe-exec";
/// As [`COMMAND`] says.
pub const STEP: &str = "--step";

/// For the helper, beyond the check's own time: it starts, and it kills what is left of the check.
const GRACE: Duration = Duration::from_secs(2);
/// Of a finding, in bytes.
const LONGEST_FINDING: u64 = 16 << 10;

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
    (helper, unit): (&Path, Option<&str>),
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
    async fn carry_out(self, helper: &Path) -> Result<Finding, Unable> {
        let broken = |what: &str, error: &dyn std::fmt::Display| {
            Unable(format!("{} could not be run: {what}: {error}", self.program))
        };
        let mut line = serde_json::to_vec(&self).map_err(|error| broken("its order", &error))?;
        line.push(b'\n');
        let mut child = tokio::process::Command::new(helper)
            .arg(COMMAND)
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| broken("the supervisor's own binary", &error))?;
        let (Some(mut lifeline), Some(answer)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(broken("its helper", &"no pipes"));
        };
        lifeline.write_all(&line).await.map_err(|error| broken("its helper", &error))?;
        let mut text = Vec::new();
        let read = answer.take(LONGEST_FINDING).read_to_end(&mut text).await;
        read.map_err(|error| broken("its helper", &error))?;
        drop(lifeline);
        let ended = child.wait().await.map_err(|error| broken("its helper", &error))?;
        Ok(serde_json::from_slice(&text).unwrap_or_else(|_| {
            Err(format!(
                "{} was killed from outside, with all of the service's processes ({ended})",
                self.program
            ))
        }))
    }
}
