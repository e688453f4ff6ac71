//! The last resort, where no control group tells: the processes of a run, added up.

use std::time::Duration;

use sysinfo::ProcessRefreshKind;

use crate::process_tree::ProcessTree;

/// What a process and all below it use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Resident memory; what processes share is counted for each.
    pub memory: u64,
    /// CPU time of those that live.
    pub cpu: Duration,
}

/// All processes of the host, looked at only in rounds that need them.
#[derive(Debug, Default)]
pub(super) struct Processes(Option<ProcessTree>);

impl Processes {
    pub fn begin_round(&mut self, needed: bool) {
        if !needed {
            self.0 = None;
            return;
        }
        if self.0.is_none() {
            self.0 = ProcessTree::new(ProcessRefreshKind::nothing().with_memory().with_cpu());
        }
        self.0.iter_mut().for_each(ProcessTree::look);
    }

    /// `None`: there is no such process.
    pub fn usage(&self, root: u32) -> Option<Usage> {
        let processes = self.0.as_ref()?.from(root);
        processes.into_iter().map(Usage::of).reduce(Usage::and)
    }
}

impl Usage {
    fn of(process: &sysinfo::Process) -> Self {
        Self { memory: process.memory(), cpu: Duration::from_millis(process.accumulated_cpu_time()) }
    }

    fn and(self, other: Self) -> Self {
        Self { memory: self.memory.saturating_add(other.memory), cpu: self.cpu.saturating_add(other.cpu) }
    }
}
