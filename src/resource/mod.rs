//! What running services use, read from the kernel: one round of all of them at a time, off the loop.
//!
//! ```text
//!   Target --> groups (where its files are, once per run) --> files --> parse --> Sample
//!                  '-- none: processes (the process tree, through sysinfo) --------^
//! ```
//!
//! Figures that are rates compare with the counters of the round before; these are all that is kept, and go with the
//! run. What this kernel does not have is `None`, not zero.

mod files;
mod groups;
mod host;
pub(crate) mod parse;
mod processes;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use crate::core::Mono;
use crate::core::event::InvocationId;
use crate::core::plan::Id;
use crate::core::sample::Sample;

use files::{Counters, Reader};
use groups::{Groups, Hierarchies};
use processes::Processes;

pub use host::HostMeter;

/// A rate over less than this says nothing. The kernel's own accounting is that coarse.
const SHORTEST: Duration = Duration::from_millis(50);

/// A run that is to be measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Which service.
    pub service: Id,
    /// Which run of it.
    pub invocation: InvocationId,
    /// Main process.
    pub pid: u32,
    /// When the run began, where its counters then began at zero. `None`: the first round only notes them.
    pub counted_from: Option<Mono>,
}

/// Measures. Keeps the counters of the last round, and where the files of each run are.
#[derive(Debug)]
pub struct Meter {
    hierarchies: Hierarchies,
    runs: HashMap<Id, Run>,
    reader: Reader,
    processes: Processes,
}

/// One run, from its first round to its last.
#[derive(Debug)]
struct Run {
    invocation: InvocationId,
    pid: u32,
    groups: Groups,
    before: Option<(Mono, Counters)>,
    /// Of the round, to forget those that are over.
    seen: bool,
}

impl Meter {
    /// For this host.
    pub fn new() -> Self {
        Self::at(Path::new("/proc"))
    }

    /// For the processes of `proc`, whose `self/mountinfo` says where the control groups are.
    pub fn at(proc: &Path) -> Self {
        Self {
            hierarchies: Hierarchies::of(proc),
            runs: HashMap::new(),
            reader: Reader::default(),
            processes: Processes::default(),
        }
    }

    /// Measures all of them. `now` is the moment of the round. Runs that are not in it are forgotten; those that
    /// ended in the meantime are left out. Blocks, for some milliseconds.
    pub fn round(&mut self, targets: &[Target], now: Mono) -> BTreeMap<Id, (InvocationId, Sample)> {
        self.runs.values_mut().for_each(|run| run.seen = false);
        for target in targets {
            self.note(target);
        }
        self.runs.retain(|_, run| run.seen);
        self.processes.begin_round(self.runs.values().any(|run| run.groups.lack_essentials()));
        let mut samples = BTreeMap::new();
        for target in targets {
            let Some(run) = self.runs.get_mut(&target.service) else { continue };
            if let Some(sample) = measure(run, &mut self.reader, &self.processes, target, now) {
                samples.insert(target.service.clone(), (target.invocation, sample));
            }
        }
        samples
    }

    /// Finds the files of a run that is new.
    fn note(&mut self, target: &Target) {
        let known = self
            .runs
            .get_mut(&target.service)
            .filter(|run| run.invocation == target.invocation && run.pid == target.pid);
        if let Some(run) = known {
            run.seen = true;
            return;
        }
        // A main process that replaced another one in the same run may be told under the old counters.
        let before = self
            .runs
            .remove(&target.service)
            .filter(|run| run.invocation == target.invocation)
            .and_then(|run| run.before);
        let groups = self.hierarchies.groups(target.pid, &target.service);
        let run = Run { invocation: target.invocation, pid: target.pid, groups, before, seen: true };
        self.runs.insert(target.service.clone(), run);
    }
}

impl Default for Meter {
    fn default() -> Self {
        Self::new()
    }
}

/// `None` where nothing could be read: the run is over, or the kernel tells nothing.
fn measure(
    run: &mut Run,
    reader: &mut Reader,
    processes: &Processes,
    target: &Target,
    now: Mono,
) -> Option<Sample> {
    let mut sample = Sample::default();
    let mut counters = reader.read(&mut run.groups, &mut sample);
    if run.groups.lack_essentials()
        && let Some(usage) = processes.usage(run.pid)
    {
        sample.memory = sample.memory.or(Some(usage.memory));
        counters.cpu = counters.cpu.or(Some(usage.cpu));
    }
    if sample == Sample::default() && counters == Counters::default() {
        return None;
    }
    let zero = || target.counted_from.map(|from| (from, Counters::zero()));
    if let Some((at, before)) = run.before.or_else(zero)
        && now - at >= SHORTEST
    {
        counters.rates(&before, now - at, &mut sample);
    }
    (sample.cpu_time, sample.io_bytes) = (counters.cpu, counters.io);
    run.before = Some((now, counters));
    Some(sample)
}
