//! systemd over D-Bus: units from plans, answers and signals as events.
//!
//! ```text
//!   Manager::start/stop ---> op (calls) ------> systemd
//!                              |                   |
//!                              v                   v signals
//!   Notice <------ units (the one picture) <--- watch
//! ```
//!
//! Everything that happens to units, answers to orders included, leaves through **one** channel of [`Notice`]s in
//! the order in which it happened: the end of a run comes after the answer to its start, and before the answer to
//! the stop that ended it. Nothing here decides whether anything is restarted.

mod bus;
mod check;
mod env_file;
mod error;
mod exit;
mod manager;
pub mod name;
pub mod notify;
mod oom;
mod order;
pub mod own;
pub(crate) mod property;
mod proxies;
mod read;
mod unit;
mod units;
mod watch;

pub use error::SystemdError;
pub use exit::signal_name;
pub use manager::Manager;

use std::collections::BTreeMap;

use crate::core::event::{Exit, InvocationId, OpId, StartFailure, Started, UnitSeen};
use crate::core::plan::Id;

/// What happened in systemd, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// Answer to [`Manager::start`]. After a failure no [`Notice::Exited`] comes for the run that failed.
    StartFinished {
        /// Which service.
        service: Id,
        /// Which order.
        op: OpId,
        /// What came of it.
        result: Result<Started, StartFailure>,
    },
    /// Answer to [`Manager::stop`]; the end of the run itself came before, as [`Notice::Exited`].
    StopFinished {
        /// Which service.
        service: Id,
        /// Which order.
        op: OpId,
        /// Why it could not be stopped, for a person.
        result: Result<(), String>,
    },
    /// A run ended: told once for each run that was told as started, appeared or seen active.
    Exited {
        /// Which service.
        service: Id,
        /// Which run.
        invocation: InvocationId,
        /// How.
        exit: Exit,
        /// A job that we did not ask for was in progress on the unit (`systemctl stop|restart`).
        external: bool,
    },
    /// A unit became active without our asking, or its main process changed.
    Appeared {
        /// Which service.
        service: Id,
        /// The run it is in.
        invocation: InvocationId,
        /// Its main process, where it has one.
        pid: Option<u32>,
    },
    /// Answer to [`Manager::resync`]: the truth at this place in the order of notices.
    Resynced {
        /// A service that is not in it has no unit.
        units: BTreeMap<Id, UnitSeen>,
    },
    /// The connection to systemd is gone; it is being made again, for ever. Orders in flight are answered as
    /// `unreachable`.
    Lost {
        /// Why, for a person.
        reason: String,
    },
    /// Connected again, or systemd finished a reload or re-execution. The runtime now calls [`Manager::resync`],
    /// and [`Manager::apply_limits`] for what runs (a re-execution can drop limits).
    Back,
}
