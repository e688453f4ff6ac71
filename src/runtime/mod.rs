//! The one loop: an event or a deadline comes in, the engine decides, the actions are carried out.
//!
//! ```text
//!   notices, requests, signals, probe answers --> Loop --> Engine --> Action
//!                                                  |                    |
//!                              Snapshot (published) <    now: log, store, probe, limits
//!                                                       after the disk has it: start, stop, answer (courier)
//! ```
//!
//! Nothing here decides about a service, and nothing here waits: what takes time is a task that sends its result
//! back into the loop.

mod access;
mod alerts;
mod clock;
mod courier;
mod folder;
mod journal_gaps;
mod logs;
mod measuring;
mod picture;
mod probes;
mod reload;
mod setup;
mod signals;
mod supervise;

pub use setup::{SetupError, run};

use std::collections::BTreeMap;

use crate::config::{Loaded, Problem};
use crate::core::action::Level;
use crate::core::event::{InvocationId, ProbeReport};
use crate::core::plan::Id;
use crate::core::sample::Sample;
use crate::journal::Ended;
use crate::probe::Unable;
use crate::push::News;
use crate::store::Trouble;

/// What tasks and threads send back into the loop.
#[derive(Debug)]
enum Input {
    /// A probe was answered.
    Probed { service: Id, invocation: InvocationId, report: ProbeReport },
    /// It could not be asked, for want of something on our side.
    Unprobed { service: Id, invocation: InvocationId, lack: Unable },
    /// The configuration was read and checked.
    Loaded(Box<Result<Loaded, Vec<Problem>>>),
    /// What the journal knows of runs that vanished; `None` for those it does not know.
    Ended(BTreeMap<InvocationId, Option<Ended>>),
    /// A round of measuring.
    Sampled(BTreeMap<Id, (InvocationId, Sample)>),
    /// The database cannot be written, or can be again.
    Trouble(Trouble),
    /// Samples do not reach the other dashboard, or do so again.
    Pushing(News),
    /// Somebody had removed the runtime folder, or what is in it.
    FolderMade,
    /// The API cannot be served over TCP as it should, or can be again. `trouble` is all that is wrong now.
    Access { level: Level, message: String, trouble: Option<String> },
}
