//! Starting sandboxes, and looking at the machine around them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

pub const DEADLINE: Duration = Duration::from_secs(60);

pub fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_supervisor-sandbox")
}

/// The program, without arguments, as root.
pub fn sandbox() -> Command {
    assert!(nix::unistd::geteuid().is_root(), "these tests need root: run them with sudo");
    let mut command = Command::new(binary());
    command.stdin(Stdio::null());
    command
}

/// Runs a shell script in a sandbox.
pub fn inside(script: &str) -> Output {
    sandbox().args(["--", "bash", "-c", script]).output().unwrap()
}

/// Runs a shell script in a sandbox and returns what it prints. Fails if the script does.
pub fn printed_inside(script: &str) -> String {
    let output = inside(script);
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Waits for something to be there, with a deadline.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not seen within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Makes this process the one that inherits whatever a killed sandbox leaves, so that it can be counted.
pub fn adopt_orphans() {
    assert!(
        std::env::var_os("NEXTEST").is_some(),
        "run with cargo nextest: each test needs a process of its own"
    );
    nix::sys::prctl::set_child_subreaper(true).unwrap();
}

/// Waits until no process that descends from this one is left, and returns those that were adopted.
pub fn bury_orphans() -> Vec<Pid> {
    let mut buried = Vec::new();
    wait_for("the end of the sandbox's processes", || {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Err(nix::errno::Errno::ECHILD) => return Some(()),
            Ok(WaitStatus::StillAlive) => {}
            Ok(status) => buried.extend(status.pid()),
            Err(error) => panic!("{error}"),
        }
        None
    });
    buried
}

/// The children of a process.
pub fn children(pid: Pid) -> Vec<Pid> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap())).collect()
}

/// The reaper and the first process of a running sandbox, when both are there.
pub fn reaper_and_first(front: Pid) -> Option<(Pid, Pid)> {
    let reaper = *children(front).first()?;
    let first = *children(reaper).first()?;
    Some((reaper, first))
}

/// Directories that belong to the sandbox of this reaper, in every hierarchy.
pub fn groups_of(reaper: Pid) -> Vec<PathBuf> {
    let mut found = Vec::new();
    collect(Path::new("/sys/fs/cgroup"), &mut found);
    let name = format!("supervisor-sandbox-{reaper}.");
    found.retain(|path| path.file_name().is_some_and(|last| last.to_string_lossy().starts_with(&name)));
    found
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path());
            collect(&entry.path(), found);
        }
    }
}

/// What of the machine a sandbox could change, as text to compare.
pub fn look_at_host() -> BTreeMap<String, String> {
    let mut seen = BTreeMap::new();
    let files = [
        "/proc/self/mountinfo",
        "/proc/swaps",
        "/etc/machine-id",
        "/etc/hostname",
        "/etc/passwd",
        "/etc/fstab",
        "/etc/resolv.conf",
        "/proc/sys/kernel/hostname",
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/sysrq",
        "/proc/sys/kernel/pid_max",
        "/proc/sys/kernel/printk",
        "/proc/sys/fs/file-max",
        "/proc/sys/fs/nr_open",
        "/proc/sys/fs/protected_fifos",
        "/proc/sys/fs/inotify/max_user_instances",
        "/proc/sys/net/unix/max_dgram_qlen",
        "/proc/sys/net/ipv4/ping_group_range",
        "/proc/sys/net/ipv4/conf/all/rp_filter",
        "/proc/sys/vm/max_map_count",
        "/proc/sys/vm/overcommit_memory",
    ];
    for file in files {
        seen.insert(file.into(), fs::read_to_string(file).unwrap_or_default());
    }
    for tree in ["/dev", "/run", "/etc/systemd", "/var/lib/systemd", "/var/log/journal"] {
        describe(Path::new(tree), &mut seen);
    }
    let names = fs::read_dir("/tmp")
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().into_string().unwrap_or_default());
    let units: Vec<String> = names.filter(|name| name.starts_with("systemd-")).collect();
    seen.insert("/tmp/systemd-*".into(), units.join(" "));
    seen
}

fn describe(path: &Path, seen: &mut BTreeMap<String, String>) {
    let Ok(data) = fs::symlink_metadata(path) else { return };
    // Terminals and shared memory come and go with other programs, temporary folders with other tests.
    let temporary = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".tmp"));
    if temporary || ["/dev/pts", "/dev/shm"].iter().any(|volatile| path == Path::new(volatile)) {
        return;
    }
    let text = format!("{:o} {} {} {:x}", data.mode(), data.uid(), data.gid(), data.rdev());
    seen.insert(path.display().to_string(), text);
    if data.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            describe(&entry.path(), seen);
        }
    }
}

/// Fails with what differs.
pub fn assert_host_is(before: &BTreeMap<String, String>) {
    let after = look_at_host();
    let keys = before.keys().chain(after.keys()).filter(|key| before.get(*key) != after.get(*key));
    let changes: Vec<String> =
        keys.map(|key| format!("{key}: {:?} -> {:?}", before.get(key), after.get(key))).collect();
    assert!(changes.is_empty(), "the host has changed:\n{}", changes.join("\n"));
}
