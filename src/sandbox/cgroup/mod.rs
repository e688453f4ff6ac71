//! Control groups: a child group of its own for the sandbox in every hierarchy of the host.
//!
//! Where the host is pure version 2, that is one group at the top of the tree, the one place that may pass on controllers
//! while other processes run. Where version 1 controllers are mounted, it is a child of the caller's own group in each
//! hierarchy, so that limits of the caller go on to hold.

mod groups;
mod layout;

pub(super) use groups::{Groups, remove_stale};
pub use layout::Choice;
pub(super) use layout::Layout;

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::unistd::Pid;

use super::error::{Error, Step};

/// Moves the calling process into the groups of `pid`. Both are seen from the host.
pub(super) fn join(layout: &Layout, pid: Pid) -> Result<(), Error> {
    let table = format!("/proc/{pid}/cgroup");
    let memberships = fs::read_to_string(&table).step(|| format!("read {table}"))?;
    for hierarchy in &layout.hierarchies {
        let Some(path) = layout::membership(&memberships, &hierarchy.name) else { continue };
        enter(&hierarchy.locate(path))?;
    }
    Ok(())
}

/// Moves the calling process into one group.
fn enter(group: &Path) -> Result<(), Error> {
    let procs = group.join("cgroup.procs");
    fs::write(&procs, "0").step(|| format!("enter the cgroup {}", group.display()))
}

/// Mounts the hierarchies below `/sys/fs/cgroup`, as seen from the calling process's cgroup namespace.
pub(super) fn mount_inside(layout: &Layout) -> Result<(), Error> {
    let top = Path::new("/sys/fs/cgroup");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    if layout.is_pure() {
        return mount(Some("cgroup2"), top, Some("cgroup2"), flags, None::<&str>)
            .step(|| "mount cgroup2 on /sys/fs/cgroup".into());
    }
    mount(Some("tmpfs"), top, Some("tmpfs"), flags, Some("mode=0755"))
        .step(|| "mount a tmpfs on /sys/fs/cgroup".into())?;
    for hierarchy in &layout.hierarchies {
        let point: PathBuf = top.join(hierarchy.directory_name());
        fs::create_dir(&point).step(|| format!("create {}", point.display()))?;
        let kind = if hierarchy.is_unified() { "cgroup2" } else { "cgroup" };
        mount(Some(kind), &point, Some(kind), flags, hierarchy.options.as_deref())
            .step(|| format!("mount the cgroup hierarchy {}", point.display()))?;
        for alias in hierarchy.aliases() {
            let link = top.join(alias);
            std::os::unix::fs::symlink(hierarchy.directory_name(), &link)
                .step(|| format!("create {}", link.display()))?;
        }
    }
    Ok(())
}
