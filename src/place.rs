//! Where things are, in both scopes (the table of the contract, section 1).

use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Which systemd the daemon talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The system manager; needs root.
    System,
    /// `systemd --user` of the current user.
    User,
}

impl Scope {
    /// Root means system where the command line says nothing.
    pub fn of_this_process() -> Self {
        if nix::unistd::geteuid().is_root() { Self::System } else { Self::User }
    }

    /// `system` or `user`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
        }
    }
}

/// Folders and files of one daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Which systemd they belong to.
    pub scope: Scope,
    /// `supervisor_config.json`.
    pub config: PathBuf,
    /// `architect.db`, `token`; kept over a reboot.
    pub state: PathBuf,
    /// `supervisor.sock`, `env/`; gone after a reboot.
    pub runtime: PathBuf,
    /// The socket of those who run exec checks for a daemon that may not.
    pub exec_checks: Option<Arc<Path>>,
}

const NAME: &str = "process-supervisor";

impl Places {
    /// The places of `scope`, from the environment as `var` gives it (`std::env::var` without its error).
    /// systemd's `STATE_DIRECTORY` and `RUNTIME_DIRECTORY` win where they are set; `EXEC_CHECKS_SOCKET` is that of the
    /// installed unit.
    pub fn new(scope: Scope, var: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| var(name).filter(|v| v.starts_with('/')).map(PathBuf::from);
        let home = || set("HOME").unwrap_or_else(|| "/".into());
        let uid = nix::unistd::geteuid();
        let (config, state, runtime) = match scope {
            Scope::System => (PathBuf::from("/etc"), PathBuf::from("/var/lib"), PathBuf::from("/run")),
            Scope::User => (
                set("XDG_CONFIG_HOME").unwrap_or_else(|| home().join(".config")),
                set("XDG_STATE_HOME").unwrap_or_else(|| home().join(".local/state")),
                set("XDG_RUNTIME_DIR").unwrap_or_else(|| format!("/run/user/{uid}").into()),
            ),
        };
        Self {
            scope,
            config: config.join(NAME).join("supervisor_config.json"),
            state: set("STATE_DIRECTORY").unwrap_or_else(|| state.join(NAME)),
            runtime: set("RUNTIME_DIRECTORY").unwrap_or_else(|| runtime.join(NAME)),
            exec_checks: set("EXEC_CHECKS_SOCKET").map(Arc::from),
        }
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.runtime.join("supervisor.sock")
    }

    /// Folder of the services' environment files.
    pub fn environment(&self) -> PathBuf {
        self.runtime.join("env")
    }

    /// States of services that the database could not take yet.
    pub fn unwritten(&self) -> PathBuf {
        self.runtime.join("unwritten.json")
    }

    /// The database, where the configuration names no other.
    pub fn database(&self) -> PathBuf {
        self.state.join("architect.db")
    }

    /// The same, with another configuration file.
    #[must_use]
    pub fn with_config(self, config: &Path) -> Self {
        Self { config: std::path::absolute(config).unwrap_or_else(|_| config.into()), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_the_contract() {
        let system = Places::new(Scope::System, |_| None);
        assert_eq!(system.config, Path::new("/etc/process-supervisor/supervisor_config.json"));
        assert_eq!(system.database(), Path::new("/var/lib/process-supervisor/architect.db"));
        assert_eq!(system.socket(), Path::new("/run/process-supervisor/supervisor.sock"));
        let user = Places::new(Scope::User, |name| match name {
            "HOME" => Some("/home/a".into()),
            "XDG_RUNTIME_DIR" => Some("/run/user/7".into()),
            "XDG_STATE_HOME" => Some("relative".into()),
            _ => None,
        });
        assert_eq!(user.config, Path::new("/home/a/.config/process-supervisor/supervisor_config.json"));
        assert_eq!(user.state, Path::new("/home/a/.local/state/process-supervisor"));
        assert_eq!(user.environment(), Path::new("/run/user/7/process-supervisor/env"));
    }
}
