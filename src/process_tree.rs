//! The processes of the host, and which of them are below another one.

use std::collections::HashMap;

use sysinfo::{Pid, Process, ProcessRefreshKind, ProcessesToUpdate, System};

/// As of the last look.
#[derive(Debug)]
pub struct ProcessTree {
    system: System,
    what: ProcessRefreshKind,
    children: HashMap<Pid, Vec<Pid>>,
}

impl ProcessTree {
    /// Empty before the first look, which notes `what` of each process. `None`: this host shows no processes.
    pub fn new(what: ProcessRefreshKind) -> Option<Self> {
        Some(Self { system: System::new().ok()?, what: what.without_tasks(), children: HashMap::new() })
    }

    /// Looks at all processes. Blocks, for some milliseconds.
    pub fn look(&mut self) {
        self.system.refresh_processes_specifics(ProcessesToUpdate::All, true, self.what);
        self.children.clear();
        for (pid, process) in self.system.processes() {
            if let Some(parent) = process.parent() {
                self.children.entry(parent).or_default().push(*pid);
            }
        }
    }

    /// That process, if it is there, and all below it.
    pub fn from(&self, root: u32) -> Vec<&Process> {
        let mut found = Vec::new();
        let mut open = vec![Pid::from_u32(root)];
        // Each process has one parent; the bound is for a picture that was taken while they came and went.
        while let Some(pid) = open.pop().filter(|_| found.len() < self.system.processes().len()) {
            found.extend(self.system.process(pid));
            open.extend(self.children.get(&pid).into_iter().flatten());
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_below_us_and_gone_when_it_ended() {
        let mut tree = ProcessTree::new(ProcessRefreshKind::nothing()).unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let own = std::process::id();
        tree.look();
        let pids = |tree: &ProcessTree| -> Vec<u32> {
            tree.from(own).iter().map(|process| process.pid().as_u32()).collect()
        };
        assert_eq!((pids(&tree)[0], pids(&tree).contains(&child.id())), (own, true));
        child.kill().unwrap();
        child.wait().unwrap();
        tree.look();
        assert!(!pids(&tree).contains(&child.id()));
        assert!(tree.from(u32::MAX).is_empty());
    }
}
