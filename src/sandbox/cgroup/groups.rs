//! Creates and removes the sandbox's groups.
//!
//! A group belongs to the process that holds a lock on its directory. A group that nobody holds was left by a sandbox
//! whose every process was killed, and whoever comes next removes it. A second, short lock makes creating and locking one
//! step for others; it is on a file of the parent, since the parent itself may be another sandbox's group. The name also lists the controllers that were passed on at the top for the sandbox's sake, so that
//! the last of several sandboxes can take them back.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::super::error::{Error, Step};
use super::layout::{Hierarchy, Layout};

const PREFIX: &str = "supervisor-sandbox-";
/// What systemd can make use of.
const CONTROLLERS: [&str; 5] = ["cpuset", "cpu", "io", "memory", "pids"];
/// How long the kernel may take to let go of a group whose processes are dead.
const REMOVAL_DEADLINE: Duration = Duration::from_secs(10);

/// The groups of one sandbox. Nothing is removed on drop: [`Groups::remove`] does it and can report.
#[derive(Debug, Default)]
pub(in super::super) struct Groups {
    held: Vec<Held>,
}

#[derive(Debug)]
struct Held {
    directory: PathBuf,
    parent: PathBuf,
    unified: bool,
    _lock: Flock<File>,
}

impl Groups {
    /// Creates one group in every hierarchy. Those created before a failure are in `self` and want removing too.
    pub(in super::super) fn create(&mut self, layout: &Layout) -> Result<Vec<String>, Error> {
        let mut missing = Vec::new();
        for hierarchy in &layout.hierarchies {
            let _parent = lock_siblings(&hierarchy.parent)
                .step(|| format!("lock the cgroup {}", hierarchy.parent.display()))?;
            remove_stale_in(&hierarchy.parent, hierarchy.is_unified());
            let mut passed_on = BTreeSet::new();
            if layout.is_pure() {
                (passed_on, missing) = pass_on_controllers(&hierarchy.parent)?;
            }
            self.held.push(hold(hierarchy, &passed_on)?);
        }
        Ok(missing)
    }

    /// Moves the calling process into all of them.
    pub(in super::super) fn enter(&self) -> Result<(), Error> {
        self.held.iter().try_for_each(|held| super::enter(&held.directory))
    }

    /// Removes them, with whatever groups were created below. Call it when the processes in them are dead.
    pub(in super::super) fn remove(self) -> Result<(), Error> {
        let mut result = Ok(());
        for held in self.held {
            let _parent = lock_siblings(&held.parent);
            let removed = remove_tree(&held.directory, Instant::now() + REMOVAL_DEADLINE)
                .step(|| format!("remove the cgroup {}", held.directory.display()));
            if held.unified {
                take_back_controllers(&held.parent, &held.directory);
            }
            result = result.and(removed);
        }
        result
    }
}

/// Removes what sandboxes left behind that were killed together with their reaper.
pub(in super::super) fn remove_stale(layout: &Layout) {
    for hierarchy in &layout.hierarchies {
        if let Ok(_parent) = lock_siblings(&hierarchy.parent) {
            remove_stale_in(&hierarchy.parent, hierarchy.is_unified());
        }
    }
}

/// Takes the lock of a file or directory, or says that somebody has it.
fn lock(path: &Path) -> io::Result<Flock<File>> {
    Flock::lock(File::open(path)?, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error.into())
}

/// Keeps other sandboxes from creating and removing groups below `parent`. Others hold it for a moment only.
fn lock_siblings(parent: &Path) -> io::Result<Flock<File>> {
    let file = parent.join("cgroup.procs");
    let deadline = Instant::now() + REMOVAL_DEADLINE * 2;
    loop {
        match lock(&file) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(2));
            }
            other => return other,
        }
    }
}

fn hold(hierarchy: &Hierarchy, passed_on: &BTreeSet<String>) -> Result<Held, Error> {
    let suffix: String = passed_on.iter().map(|controller| format!("+{controller}")).collect();
    let pid = std::process::id();
    // Another PID namespace may use the same number.
    for attempt in 0..100 {
        let directory = hierarchy.parent.join(format!("{PREFIX}{pid}.{attempt}{suffix}"));
        match fs::create_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                return Err(Error::Requirement(format!(
                    "{} is mounted read-only: start the container with --privileged",
                    hierarchy.point.display()
                )));
            }
            other => other.step(|| format!("create the cgroup {}", directory.display()))?,
        }
        if hierarchy.name.split(',').any(|controller| controller == "cpuset") {
            // A new group of version 1 has no processors and no memory nodes, and takes no process without.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let inherited = fs::read(hierarchy.parent.join(file)).unwrap_or_default();
                let _ = fs::write(directory.join(file), inherited);
            }
        }
        let lock = lock(&directory).step(|| format!("lock the cgroup {}", directory.display()))?;
        let (parent, unified) = (hierarchy.parent.clone(), hierarchy.is_unified());
        return Ok(Held { directory, parent, unified, _lock: lock });
    }
    Err(Error::Machine(format!("too many sandboxes below {}", hierarchy.parent.display())))
}

fn siblings(parent: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX)))
        .collect()
}

/// The caller holds the lock of `parent`.
fn remove_stale_in(parent: &Path, unified: bool) {
    for group in siblings(parent) {
        if let Ok(_orphan) = lock(&group) {
            let removed = remove_tree(&group, Instant::now());
            if removed.is_ok() && unified {
                take_back_controllers(parent, &group);
            }
        }
    }
}

fn remove_tree(group: &Path, deadline: Instant) -> io::Result<()> {
    let mut pause = Duration::from_millis(1);
    loop {
        match remove_once(group) {
            Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) && Instant::now() < deadline => {
                // The kernel tells of the last exit a moment before it lets the group go, and version 1 not at all.
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(50));
            }
            other => return other,
        }
    }
}

fn remove_once(group: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_once(&entry.path())?;
        }
    }
    match fs::remove_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Makes the controllers of `parent` available to its children. Returns those that sandboxes have turned on, and those
/// that could not be had although they exist. The caller holds the lock of `parent`.
fn pass_on_controllers(parent: &Path) -> Result<(BTreeSet<String>, Vec<String>), Error> {
    let control = parent.join("cgroup.subtree_control");
    let words = |path: &Path| -> Result<Vec<String>, Error> {
        let text = fs::read_to_string(path).step(|| format!("read {}", path.display()))?;
        Ok(text.split_whitespace().map(str::to_owned).collect())
    };
    let available = words(&parent.join("cgroup.controllers"))?;
    let enabled = words(&control)?;
    let mut ours: BTreeSet<String> = siblings(parent).iter().flat_map(|group| recorded(group)).collect();
    let mut missing = Vec::new();
    for controller in CONTROLLERS {
        let listed = |list: &[String]| list.iter().any(|word| word == controller);
        if !listed(&available) || listed(&enabled) {
            continue;
        }
        match fs::write(&control, format!("+{controller}")) {
            Ok(()) => drop(ours.insert(controller.to_owned())),
            Err(_) => missing.push(controller.to_owned()),
        }
    }
    Ok((ours, missing))
}

/// Takes back what was turned on for the sandbox's sake, unless another one still runs. The caller holds the lock.
fn take_back_controllers(parent: &Path, group: &Path) {
    if siblings(parent).is_empty() {
        for controller in recorded(group) {
            let _ = fs::write(parent.join("cgroup.subtree_control"), format!("-{controller}"));
        }
    }
}

/// The controllers in the name of a group.
fn recorded(group: &Path) -> Vec<String> {
    let name = group.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.split('+').skip(1).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_records_what_was_turned_on() {
        assert_eq!(recorded(Path::new("/c/supervisor-sandbox-7.0+cpu+memory")), ["cpu", "memory"]);
        assert!(recorded(Path::new("/c/supervisor-sandbox-7.0")).is_empty());
    }

    #[test]
    fn only_groups_without_an_owner_are_stale() {
        let parent = tempfile::tempdir().unwrap();
        let (dead, alive, other) = ("supervisor-sandbox-1.0", "supervisor-sandbox-2.0", "system.slice");
        for name in [dead, alive, other] {
            fs::create_dir_all(parent.path().join(name).join("init.scope")).unwrap();
        }
        let _owner = lock(&parent.path().join(alive)).unwrap();
        remove_stale_in(parent.path(), false);
        let mut left: Vec<_> =
            fs::read_dir(parent.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [alive, other]);
    }
}
