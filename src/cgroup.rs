//! The kernel's tables of control groups, as text: the groups that a process is in, and where they can be seen. The
//! same for one hierarchy (v2), one per controller (v1), or both.

use std::path::{Component, Path, PathBuf};

/// A mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The group that the mount point shows.
    pub root: PathBuf,
    /// Where.
    pub point: PathBuf,
}

impl Mount {
    /// The folder of the group `path`; `None` for one outside of what is mounted here.
    pub fn folder(&self, path: &str) -> Option<PathBuf> {
        let inside = Path::new(path).strip_prefix(&self.root).ok()?;
        let climbs = inside.components().any(|part| part == Component::ParentDir);
        (!climbs).then(|| self.point.join(inside))
    }
}

/// Controllers (comma-separated, none for v2) and path of each line of `/proc/PID/cgroup`: `4:memory:/a/b`.
pub fn memberships(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        Some((fields.next()?, fields.next()?))
    })
}

/// Mount, file system and options of a line of `/proc/PID/mountinfo`.
pub fn mount(line: &str) -> Option<(Mount, &str, &str)> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(3);
    let mount = Mount { root: unescaped(mount.next()?).into(), point: unescaped(mount.next()?).into() };
    let mut file_system = file_system.split(' ');
    Some((mount, file_system.next()?, file_system.nth(1)?))
}

/// `\040` is a space.
fn unescaped(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}
