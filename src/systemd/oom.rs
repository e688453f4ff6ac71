//! Who the kernel killed for want of memory, from its log.
//!
//! On cgroup v1 (and where systemd looks away) an OOM kill is only a signal 9. The kernel writes one line with the
//! cgroup of the victim before it sends the signal, so the log is read when a run has ended badly.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

use crate::cgroup::memberships;

/// Kills that nobody asked about yet; the oldest go first.
const KEPT: usize = 256;
/// One record of the log is at most 8 KiB.
const RECORD: usize = 8192;
/// The log holds no more records than this at once; a bound against one that grows while it is read.
const RECORDS: usize = 65_536;

/// The kernel's log from now on. Without the right to read it, it knows nothing.
#[derive(Debug)]
pub struct OomLog {
    log: Option<File>,
    /// Units whose processes were killed.
    kills: VecDeque<String>,
}

impl OomLog {
    /// A log that knows nothing.
    #[cfg(test)]
    pub fn none() -> Self {
        Self { log: None, kills: VecDeque::new() }
    }

    /// Opens the log at its end.
    pub fn open() -> Self {
        let open = || -> io::Result<File> {
            let mut file =
                File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open("/dev/kmsg")?;
            file.seek(SeekFrom::End(0))?;
            Ok(file)
        };
        let log = open().map_err(|error| without_log(&error)).ok();
        Self { log, kills: VecDeque::new() }
    }

    /// Whether the kernel killed in this unit since the last time it was asked for it.
    pub fn take(&mut self, unit: &str) -> bool {
        self.read();
        let before = self.kills.len();
        self.kills.retain(|killed| killed != unit);
        self.kills.len() != before
    }

    /// A new run begins: what was killed in an earlier one is not about it.
    pub fn forget(&mut self, unit: &str) {
        self.take(unit);
    }

    /// Never blocks: the file is in non-blocking mode.
    fn read(&mut self) {
        let Some(log) = &mut self.log else { return };
        let mut record = [0_u8; RECORD];
        for _ in 0..RECORDS {
            match log.read(&mut record) {
                Ok(0) => return,
                Ok(length) => {
                    let record = record.get(..length).unwrap_or_default();
                    if let Some(unit) = victim(&String::from_utf8_lossy(record)) {
                        if self.kills.len() == KEPT {
                            self.kills.pop_front();
                        }
                        self.kills.push_back(unit);
                    }
                }
                // Records were overwritten before they were read; the next read goes on behind them.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }
}

/// Where systemd says it too, nothing is lost.
fn without_log(error: &io::Error) {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let is_memory = |controllers: &str| controllers.split(',').any(|controller| controller == "memory");
    if memberships(&groups).any(|(controllers, _)| is_memory(controllers)) {
        tracing::warn!(
            "/dev/kmsg cannot be read ({error}): on this host, with control groups v1, a kill for want of memory is \
             told as signal 9 alone; process-supervisor.service says what gives it the right to"
        );
    }
}

/// The unit of the process that was killed, from a record such as
/// `6,339,5140900,-;oom-kill:constraint=CONSTRAINT_MEMCG,...,task_memcg=/a/b.service,task=x,pid=1,uid=0`.
fn victim(record: &str) -> Option<String> {
    let (_, message) = record.split_once(';')?;
    let line = message.lines().next()?.strip_prefix("oom-kill:")?;
    let (_, after) = line.split_once("task_memcg=")?;
    // A cgroup's name may hold a comma; the field after it cannot be mistaken.
    let path = after.split_once(",task=").map_or(after, |(path, _)| path);
    let unit = path.split('/').find(|part| part.starts_with("supervisor-") && part.ends_with(".service"))?;
    Some(unit.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn victims_are_found_by_their_unit() {
        let line = |group: &str| {
            format!(
                "6,339,5140900,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,\
                 oom_memcg={group},task_memcg={group},task=hog,pid=42,uid=0\n SUBSYSTEM=memory\n"
            )
        };
        for (group, unit) in [
            ("/supervisor.slice/supervisor-web.service", Some("supervisor-web.service")),
            (
                "/box/supervisor.slice/supervisor-g.slice/supervisor-a-b.service/sub",
                Some("supervisor-a-b.service"),
            ),
            ("/supervisor.slice", None),
            ("/system.slice/nginx.service", None),
        ] {
            assert_eq!(victim(&line(group)).as_deref(), unit, "{group}");
        }
        for other in [
            "",
            "6,1,1,-;",
            "6,1,1,-;oom-kill:",
            "oom-kill:task_memcg=/supervisor-x.service",
            "6;x\noom-kill:task_memcg=/supervisor-x.service",
        ] {
            assert_eq!(victim(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_kill_is_told_once_and_the_list_is_bounded() {
        let mut log = OomLog { log: None, kills: VecDeque::new() };
        log.kills.extend(["a".to_owned(), "b".to_owned(), "a".to_owned()]);
        assert!(log.take("a"));
        assert!(!log.take("a"));
        assert!(log.take("b"));
    }

    proptest::proptest! {
        #[test]
        fn no_record_panics(record: String) {
            let _ = victim(&record);
        }
    }
}
