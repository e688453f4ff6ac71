//! Which hierarchies the host has, and where the sandbox's groups go in them.

use std::path::{Path, PathBuf};

use super::super::error::{Error, Step};
use super::super::mountinfo::{self, Mount};

/// Which cgroup layout the sandbox gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Choice {
    /// The host's own: version 2 alone, or version 1 controllers beside it.
    #[default]
    Auto,
    /// Version 2 alone, with those controllers that are not bound to version 1.
    Unified,
}

/// The hierarchies that the sandbox uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Layout {
    /// At least one; exactly one of version 2 for a pure version 2 layout.
    pub hierarchies: Vec<Hierarchy>,
}

/// One hierarchy of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Hierarchy {
    /// As in the second field of `/proc/self/cgroup`: `memory`, `cpu,cpuacct`, `name=systemd`, or empty for version 2.
    pub name: String,
    /// Where it is mounted.
    pub point: PathBuf,
    /// Which of its groups is mounted there.
    pub root: PathBuf,
    /// The group below which the sandbox's own is created.
    pub parent: PathBuf,
    /// Options of a further mount of it.
    pub options: Option<String>,
}

impl Hierarchy {
    pub(super) fn is_unified(&self) -> bool {
        self.name.is_empty()
    }

    /// The directory of a group, given as in `/proc/PID/cgroup`.
    pub(super) fn locate(&self, group: &str) -> PathBuf {
        match Path::new(group).strip_prefix(&self.root) {
            Ok(below) => self.point.join(below),
            Err(_) => self.point.clone(),
        }
    }

    /// The directory below `/sys/fs/cgroup` in the sandbox.
    pub(super) fn directory_name(&self) -> &str {
        match self.name.as_str() {
            "" => "unified",
            name => name.strip_prefix("name=").unwrap_or(name),
        }
    }

    /// Further names under which programs look for it: one for each of several controllers.
    pub(super) fn aliases(&self) -> impl Iterator<Item = &str> {
        self.name.split(',').filter(|_| self.name.contains(','))
    }
}

impl Layout {
    /// Looks at the host.
    ///
    /// # Errors
    /// A missing requirement where no hierarchy is mounted that systemd can use.
    pub(in super::super) fn detect(choice: Choice) -> Result<Self, Error> {
        let mounts = std::fs::read("/proc/self/mountinfo").step(|| "read /proc/self/mountinfo".into())?;
        let own = std::fs::read_to_string("/proc/self/cgroup").step(|| "read /proc/self/cgroup".into())?;
        Self::from_tables(choice, &mountinfo::parse(&mounts), &own).ok_or_else(|| {
            Error::Requirement(
                "no cgroup hierarchy is mounted that systemd could use: mount -t cgroup2 cgroup2 /sys/fs/cgroup"
                    .into(),
            )
        })
    }

    /// Whether version 2 is all there is.
    pub(in super::super) fn is_pure(&self) -> bool {
        self.hierarchies.iter().all(Hierarchy::is_unified)
    }

    fn from_tables(choice: Choice, mounts: &[Mount], own: &str) -> Option<Self> {
        let unified = mounts.iter().find(|mount| mount.kind == "cgroup2").map(|mount| Hierarchy {
            name: String::new(),
            point: mount.point.clone(),
            root: mount.root.clone(),
            parent: mount.point.clone(),
            options: None,
        });
        let mut old: Vec<Hierarchy> = Vec::new();
        for line in own.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(name), Some(group)) = (fields.next(), fields.next()) else { continue };
            let found = mounts.iter().find(|mount| mount.kind == "cgroup" && carries(mount, name));
            if let (false, Some(mount)) = (name.is_empty(), found) {
                let mut hierarchy = Hierarchy {
                    name: name.into(),
                    point: mount.point.clone(),
                    root: mount.root.clone(),
                    parent: PathBuf::new(),
                    options: Some(mount_options(mount)),
                };
                hierarchy.parent = hierarchy.locate(group);
                old.push(hierarchy);
            }
        }
        let usable = old.iter().any(|hierarchy| hierarchy.name == "name=systemd");
        if choice == Choice::Unified || !usable {
            return Some(Self { hierarchies: vec![unified?] });
        }
        old.extend(unified);
        Some(Self { hierarchies: old })
    }
}

/// The group of a process in one hierarchy, out of its `/proc/PID/cgroup`.
pub(super) fn membership<'a>(table: &'a str, name: &str) -> Option<&'a str> {
    table.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        (fields.next()? == name).then(|| fields.next())?
    })
}

fn carries(mount: &Mount, name: &str) -> bool {
    name.split(',').all(|part| mount.options.iter().any(|option| option == part))
}

/// The options that name an existing hierarchy. Others than its own would make the kernel complain in its log.
fn mount_options(mount: &Mount) -> String {
    let passing = |option: &&String| {
        !matches!(option.as_str(), "rw" | "ro" | "seclabel" | "clone_children")
            && !option.contains("release_agent=")
    };
    let mut options: Vec<&str> = mount.options.iter().filter(passing).map(String::as_str).collect();
    if options.iter().any(|option| option.starts_with("name=")) {
        options.insert(0, "none");
    }
    options.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(root: &str, point: &str, kind: &str, options: &str) -> Mount {
        Mount {
            root: root.into(),
            point: point.into(),
            kind: kind.into(),
            options: options.split(',').map(str::to_owned).collect(),
        }
    }

    #[test]
    fn pure_version_2_goes_to_the_top() {
        let mounts = [mount("/", "/sys/fs/cgroup", "cgroup2", "rw,nsdelegate")];
        let layout = Layout::from_tables(Choice::Auto, &mounts, "0::/user.slice/session-1.scope\n").unwrap();
        assert_eq!(layout.hierarchies.len(), 1);
        assert_eq!(layout.hierarchies[0].parent, Path::new("/sys/fs/cgroup"));
    }

    #[test]
    fn hybrid_stays_below_the_callers_groups() {
        let mounts = [
            mount("/", "/c/cpu,cpuacct", "cgroup", "rw,cpu,cpuacct"),
            mount("/docker/7", "/c/memory", "cgroup", "rw,memory"),
            mount("/", "/c/systemd", "cgroup", "rw,xattr,name=systemd,release_agent=/x"),
            mount("/", "/c/unified", "cgroup2", "rw"),
        ];
        let own = "5:net_cls:/\n4:memory:/docker/7/job\n3:cpu,cpuacct:/\n1:name=systemd:/a:b\n0::/x\n";
        let layout = Layout::from_tables(Choice::Auto, &mounts, own).unwrap();
        let seen: Vec<(&str, &Path, Option<&str>)> = layout
            .hierarchies
            .iter()
            .map(|h| (h.directory_name(), h.parent.as_path(), h.options.as_deref()))
            .collect();
        assert_eq!(
            seen,
            [
                ("memory", Path::new("/c/memory/job"), Some("memory")),
                ("cpu,cpuacct", Path::new("/c/cpu,cpuacct"), Some("cpu,cpuacct")),
                ("systemd", Path::new("/c/systemd/a:b"), Some("none,xattr,name=systemd")),
                ("unified", Path::new("/c/unified"), None),
            ]
        );
        assert_eq!(layout.hierarchies[1].aliases().collect::<Vec<_>>(), ["cpu", "cpuacct"]);
        let forced = Layout::from_tables(Choice::Unified, &mounts, own).unwrap();
        assert_eq!(forced.hierarchies.len(), 1);
        assert!(forced.hierarchies[0].is_unified());
    }

    #[test]
    fn nothing_usable_is_said() {
        let mounts = [mount("/", "/c/memory", "cgroup", "rw,memory")];
        assert_eq!(Layout::from_tables(Choice::Auto, &mounts, "4:memory:/\n"), None);
    }

    #[test]
    fn membership_is_by_hierarchy() {
        let table = "4:memory:/m\n1:name=systemd:/s\n0::/u:v\n";
        assert_eq!(membership(table, "memory"), Some("/m"));
        assert_eq!(membership(table, ""), Some("/u:v"));
        assert_eq!(membership(table, "pids"), None);
    }
}
