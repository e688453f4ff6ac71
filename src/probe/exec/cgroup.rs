//! Into the cgroup of the service, on every layout: one hierarchy (v2), one per controller (v1), or both.

use std::path::PathBuf;

use crate::cgroup::{memberships, mount};

/// Moves this process to where the main process is. An `Err` goes on after the program's name. Where `required` is
/// not set, being refused is no failure: the answer says what kept it out.
pub(super) fn enter(main_pid: u32, unit: &str, required: bool) -> Result<Option<String>, String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (theirs, ours) = (read(&format!("/proc/{main_pid}/cgroup")), read("/proc/self/cgroup"));
    let ours: Vec<_> = memberships(&ours).collect();
    let mounts = read("/proc/self/mountinfo");
    let of_unit = |(_, path): (&str, &str)| path.split('/').any(|part| part == unit);
    if !memberships(&theirs).any(of_unit) {
        return Err(format!(
            "was not run: process {main_pid} is not in {unit} any more, the service has ended"
        ));
    }
    let mut refused = None;
    for place in memberships(&theirs).filter(|place| !ours.contains(place)) {
        let Some(folder) = folder(&mounts, place) else { continue };
        // systemd makes groups of the unit only for the controllers that it needs; elsewhere no limit is lost.
        if let Err(error) = std::fs::write(folder.join("cgroup.procs"), "0")
            && of_unit(place)
        {
            refused = Some(format!("{}: {error}", folder.display()));
        }
    }
    match refused {
        Some(why) if required => {
            Err(format!("was not run: it cannot be put into the service's cgroup {why}"))
        }
        refused => Ok(refused),
    }
}

/// Where a group of a hierarchy can be seen in the file system.
fn folder(mountinfo: &str, (controllers, path): (&str, &str)) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, kind, options) = mount(line)?;
        let suits = match (kind, controllers) {
            ("cgroup2", "") => true,
            ("cgroup", "") => false,
            ("cgroup", controllers) => controllers.split(',').all(|c| options.split(',').any(|o| o == c)),
            _ => false,
        };
        mount.folder(path).filter(|_| suits)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
        24 1 0:22 / /proc rw - proc proc rw\n\
        30 24 0:26 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n\
        31 24 0:27 /box /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        32 24 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        33 24 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n";

    #[test]
    fn each_hierarchy_has_its_folder() {
        for (line, expected) in [
            ("0::/a/x.service", Some("/sys/fs/cgroup/unified/a/x.service")),
            ("5:memory:/box/a", Some("/sys/fs/cgroup/memory/a")),
            ("5:memory:/other", None),
            ("4:cpu,cpuacct:/a:b", Some("/sys/fs/cgroup/cpu,cpuacct/a:b")),
            ("1:name=systemd:/a", Some("/sys/fs/cgroup/systemd/a")),
            ("0::/../a", None),
            ("7:pids:/a", None),
        ] {
            let place = memberships(line).next().unwrap();
            assert_eq!(folder(MOUNTS, place), expected.map(PathBuf::from), "{line}");
        }
    }

    #[test]
    fn a_process_that_left_the_unit_is_not_followed() {
        let left = enter(std::process::id(), "no-such.service", true).unwrap_err();
        assert!(left.contains("is not in no-such.service any more"), "{left}");
    }
}
