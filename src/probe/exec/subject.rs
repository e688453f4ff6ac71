//! As whom a check runs: who the service's main process is.

use std::collections::BTreeMap;

use nix::unistd::{Uid, User, geteuid};
use serde::{Deserialize, Serialize};

use super::Order;

/// Where systemd looks if the service sets no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What a check in the user scope has from the supervisor, as the service has it from `systemd --user`.
const SESSION: [&str; 3] = ["XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "LANG"];

/// Of a process, as numbers.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ids {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// Who runs the check.
pub(super) struct Subject {
    /// `None`: who we are.
    pub ids: Option<Ids>,
    /// Where it runs if the service names no folder.
    pub home: String,
    about: BTreeMap<String, String>,
}

/// An `Err` goes on after the program's name.
pub(super) fn of(order: &Order) -> Result<Subject, String> {
    let pid = order.main_pid;
    let ids = if order.as_main_process && geteuid().is_root() {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))
            .map_err(|_| format!("was not run: the service's main process {pid} is gone"))?;
        let ids = parse(&status);
        Some(ids.ok_or_else(|| format!("was not run: the user of process {pid} is not known"))?)
    } else {
        None
    };
    let user_scope = !geteuid().is_root();
    let mut about = BTreeMap::from([("PATH".to_owned(), DEFAULT_PATH.to_owned())]);
    let mut home = "/".to_owned();
    if ids.is_some() || user_scope {
        let uid = ids.as_ref().map_or_else(geteuid, |ids| Uid::from_raw(ids.uid));
        if let Ok(Some(account)) = User::from_uid(uid) {
            let folder = account.dir.to_string_lossy().into_owned();
            if user_scope {
                home.clone_from(&folder);
            }
            about.extend([
                ("HOME".into(), folder),
                ("USER".into(), account.name.clone()),
                ("LOGNAME".into(), account.name),
                ("SHELL".into(), account.shell.to_string_lossy().into_owned()),
            ]);
        }
    }
    let session = SESSION.into_iter().filter(|name| user_scope || *name == "LANG");
    about.extend(session.filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?))));
    Ok(Subject { ids, home, about })
}

impl Subject {
    /// What systemd sets for the user, and above it what the service sets.
    pub fn environment(&self, of_service: BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut all = self.about.clone();
        all.extend(of_service);
        all
    }
}

/// The effective ids of `/proc/PID/status`.
fn parse(status: &str) -> Option<Ids> {
    let numbers = |name: &str| -> Option<Vec<u32>> {
        let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
        rest.split_ascii_whitespace().map(|word| word.parse().ok()).collect()
    };
    Some(Ids { uid: *numbers("Uid:")?.get(1)?, gid: *numbers("Gid:")?.get(1)?, groups: numbers("Groups:")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_ids_count() {
        let status = "Name:\tUid: 7\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \nNSpid:\t1\n";
        assert_eq!(parse(status), Some(Ids { uid: 2, gid: 6, groups: vec![9, 10] }));
        assert_eq!(parse("Uid:\t1\t2\t3\t4\n"), None);
    }
}
