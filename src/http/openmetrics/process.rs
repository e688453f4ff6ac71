//! What the daemon itself uses, under the names that every exporter has.

use std::fs;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeValLike;

/// As of one moment. `None`: the kernel does not tell.
#[derive(Debug, Default)]
pub(super) struct Process {
    /// CPU time of all threads, in seconds.
    pub cpu: Option<f64>,
    /// Bytes.
    pub resident: Option<u64>,
    /// Bytes.
    pub virtual_size: Option<u64>,
    pub threads: Option<u64>,
    pub open_files: Option<u64>,
    /// Open files at most.
    pub max_files: Option<u64>,
}

impl Process {
    /// Of this process. Reads `/proc`, which does not wait for a disk.
    pub fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kibibytes = |key| number(&status, key).map(|kibibytes| kibibytes.saturating_mul(1024));
        let usage = getrusage(UsageWho::RUSAGE_SELF).ok();
        Self {
            cpu: usage.map(|usage| (usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6),
            resident: kibibytes("VmRSS:"),
            virtual_size: kibibytes("VmSize:"),
            threads: number(&status, "Threads:"),
            // The one that lists them is in the list.
            open_files: fs::read_dir("/proc/self/fd")
                .ok()
                .map(|list| (list.count() as u64).saturating_sub(1)),
            max_files: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft),
        }
    }
}

/// The number after `key` on a line of its own: `VmRSS: 11904 kB`.
fn number(status: &str, key: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}
