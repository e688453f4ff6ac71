//! Where the files of a run are: the control groups of its main process, in the unified hierarchy (v2), in one
//! hierarchy per controller (v1), or in both (hybrid).

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::cgroup::{Mount, memberships, mount};
use crate::core::plan::Id;

/// No file that is read here is longer.
const LONGEST: u64 = 1 << 20;

/// The hierarchies of this host.
#[derive(Debug, Default)]
pub(super) struct Hierarchies {
    proc: PathBuf,
    unified: Option<Mount>,
    cpu: Option<Mount>,
    cpuacct: Option<Mount>,
    memory: Option<Mount>,
    pids: Option<Mount>,
    blkio: Option<Mount>,
}

/// The folders of one run. `None`: this host has no such hierarchy, or the run has no group of its own in it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Groups {
    pub unified: Option<PathBuf>,
    pub cpu: Option<PathBuf>,
    pub cpuacct: Option<PathBuf>,
    pub memory: Option<PathBuf>,
    pub pids: Option<PathBuf>,
    pub blkio: Option<PathBuf>,
    /// Files that this kernel does not have, by their place in [`super::files`]: not tried again.
    pub missing: u32,
    /// Neither memory nor CPU time could be read from a group.
    pub bare: bool,
}

impl Groups {
    /// CPU time or memory has to come from the processes.
    pub fn lack_essentials(&self) -> bool {
        self.bare || (self.unified.is_none() && (self.memory.is_none() || self.cpuacct.is_none()))
    }
}

impl Hierarchies {
    /// As the mounts of `proc/self` have them.
    pub fn of(proc: &Path) -> Self {
        let mut all = Self { proc: proc.into(), ..Self::default() };
        let text = bounded(&proc.join("self/mountinfo"));
        for line in text.lines() {
            let Some((mount, kind, options)) = mount(line) else { continue };
            match kind {
                "cgroup2" => all.unified = all.unified.take().or(Some(mount)),
                "cgroup" => {
                    for controller in options.split(',') {
                        if let Some(place) = all.place(controller) {
                            // The first one is the one that others see, too.
                            *place = place.take().or_else(|| Some(mount.clone()));
                        }
                    }
                }
                _ => {}
            }
        }
        all
    }

    fn place(&mut self, controller: &str) -> Option<&mut Option<Mount>> {
        Some(match controller {
            "cpu" => &mut self.cpu,
            "cpuacct" => &mut self.cpuacct,
            "memory" => &mut self.memory,
            "pids" => &mut self.pids,
            "blkio" => &mut self.blkio,
            _ => return None,
        })
    }

    /// The folders of the unit in which `pid` runs. A group that is not the unit's own is not its usage.
    pub fn groups(&self, pid: u32, service: &Id) -> Groups {
        let text = bounded(&self.proc.join(pid.to_string()).join("cgroup"));
        let mut groups = Groups::default();
        let Some(unit) = unit_of(&text) else {
            tracing::debug!(
                "{service}: process {pid} is in no group of a service; its processes are measured"
            );
            return groups;
        };
        for (controllers, path) in memberships(&text) {
            let own =
                |mount: &Option<Mount>| -> Option<PathBuf> { mount.as_ref()?.folder(up_to(path, unit)?) };
            if controllers.is_empty() {
                groups.unified = own(&self.unified);
            }
            for controller in controllers.split(',') {
                match controller {
                    "cpu" => groups.cpu = own(&self.cpu),
                    "cpuacct" => groups.cpuacct = own(&self.cpuacct),
                    "memory" => groups.memory = own(&self.memory),
                    "pids" => groups.pids = own(&self.pids),
                    "blkio" => groups.blkio = own(&self.blkio),
                    _ => {}
                }
            }
        }
        groups
    }
}

/// The unit, as systemd's own hierarchy names it: `supervisor-web.service`.
fn unit_of(text: &str) -> Option<&str> {
    let of_systemd = |controllers: &str| controllers == "name=systemd" || controllers.is_empty();
    memberships(text).filter(|(controllers, _)| of_systemd(controllers)).find_map(|(_, path)| {
        path.split('/').find(|part| part.starts_with("supervisor-") && part.ends_with(".service"))
    })
}

/// The part of the path of a process that ends with `unit`; the process may be further down.
fn up_to<'p>(path: &'p str, unit: &str) -> Option<&'p str> {
    let mut end = 0;
    path.split('/').find_map(|part| {
        end += part.len() + 1;
        (part == unit).then(|| &path[..end - 1])
    })
}

/// What can be read of a file; nothing where it cannot be.
fn bounded(path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = fs::File::open(path) {
        drop(file.take(LONGEST).read_to_end(&mut bytes));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
