//! The last resort, where no control group tells: the processes of a run, added up.

use std::collections::HashMap;
use std::time::Duration;

use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

/// What a process and all below it use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tree {
    /// Resident memory; what processes share is counted for each.
    pub memory: u64,
    /// CPU time of those that live.
    pub cpu: Duration,
}

/// All processes of the host, looked at only in rounds that need them.
#[derive(Debug, Default)]
pub(super) struct Processes {
    system: Option<System>,
    children: HashMap<Pid, Vec<Pid>>,
}

impl Processes {
    pub fn begin_round(&mut self, needed: bool) {
        self.children.clear();
        if !needed {
            self.system = None;
            return;
        }
        if self.system.is_none() {
            self.system = System::new().ok();
        }
        let Some(system) = &mut self.system else { return };
        let what = ProcessRefreshKind::nothing().with_memory().with_cpu().without_tasks();
        system.refresh_processes_specifics(ProcessesToUpdate::All, true, what);
        for (pid, process) in system.processes() {
            if let Some(parent) = process.parent() {
                self.children.entry(parent).or_default().push(*pid);
            }
        }
    }

    /// `None`: there is no such process.
    pub fn tree(&self, root: u32) -> Option<Tree> {
        let system = self.system.as_ref()?;
        let root = Pid::from_u32(root);
        system.process(root)?;
        let mut tree = Tree::default();
        let mut open = vec![root];
        // Each process has one parent; the bound is for a picture that was taken while they came and went.
        for _ in 0..system.processes().len() {
            let Some(pid) = open.pop() else { break };
            if let Some(process) = system.process(pid) {
                tree.memory = tree.memory.saturating_add(process.memory());
                tree.cpu += Duration::from_millis(process.accumulated_cpu_time());
            }
            open.extend(self.children.get(&pid).into_iter().flatten());
        }
        Some(tree)
    }
}
