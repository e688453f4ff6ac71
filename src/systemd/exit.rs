//! How a run ended: from systemd's properties to the core's [`Exit`], and to words. No IO, but for the look at a
//! program that could not be executed.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::core::event::{Exit, ExitResult};
use crate::core::plan::Exec;

/// `si_code` of `waitpid`: it exited, was killed, was killed with a core dump.
const CLD_EXITED: i32 = 1;
const CLD_KILLED: i32 = 2;
const CLD_DUMPED: i32 = 3;

/// Exit codes of systemd's own, between `fork` and `execve`.
pub const SET_UP_CODES: std::ops::RangeInclusive<i32> = 200..=245;

/// The properties of a service that say how its last run ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ending {
    /// `Result`.
    pub result: String,
    /// `ExecMainCode`.
    pub code: i32,
    /// `ExecMainStatus`.
    pub status: i32,
}

/// What the core is told. `oom`: the kernel says that it killed in this unit for want of memory.
pub fn exit_of(ending: &Ending, oom: bool) -> Exit {
    let (code, signal) = match ending.code {
        CLD_EXITED => (Some(ending.status), None),
        CLD_KILLED | CLD_DUMPED => (None, Some(ending.status)),
        _ => (None, None),
    };
    let result = match ExitResult::from(ending.result.as_str()) {
        // A unit that was ended because of another process's end, or by a child that the kernel killed.
        ExitResult::Signal | ExitResult::ExitCode | ExitResult::CoreDump if oom => ExitResult::OomKill,
        result => result,
    };
    Exit { code, signal, result }
}

/// Why a start failed, for a person. `exit` is of the run that failed, `result` the word of the job.
pub fn failure_message(exec: &Exec, job: &str, exit: Option<&Exit>) -> String {
    match (job, exit) {
        ("canceled", _) => {
            "the start was cancelled by somebody else's job on the unit (systemctl stop?)".into()
        }
        ("dependency", _) => "a unit that it requires (unit_properties) could not be started".into(),
        ("timeout", _) => "the start job timed out".into(),
        (_, Some(exit)) => exit_message(exec, exit),
        (job, None) => format!("systemd reports the start job as {job:?}"),
    }
}

fn exit_message(exec: &Exec, exit: &Exit) -> String {
    let by_systemd = exit.result == ExitResult::ExitCode;
    match (&exit.result, exit.code, exit.signal) {
        (ExitResult::Timeout, ..) => "it did not become ready in time (READY=1 was not sent)".into(),
        (ExitResult::Protocol, ..) => "it ended without sending READY=1".into(),
        (ExitResult::OomKill, ..) => "the kernel killed it for want of memory".into(),
        (ExitResult::Resources, ..) => {
            let file = exec
                .environment_file
                .as_deref()
                .map_or_else(String::new, |path| format!(", such as the environment_file {path}"));
            format!("systemd could not set up what the start needs{file}; `journalctl -u` has its words")
        }
        (_, Some(code), _) if by_systemd && SET_UP_CODES.contains(&code) => setup_message(exec, code),
        (_, Some(code), _) => format!("it exited with status {code} before it was ready"),
        (_, _, Some(signal)) => format!("it was ended by {} before it was ready", signal_name(signal)),
        (result, ..) => format!("systemd reports the result {result}"),
    }
}

/// systemd's own exit codes: what it could not do between `fork` and `execve`.
fn setup_message(exec: &Exec, code: i32) -> String {
    let user = exec.user.as_deref().unwrap_or("(none)");
    let group = exec.group.as_deref().unwrap_or("(none)");
    match code {
        200 => match &exec.working_directory {
            Some(directory) => {
                format!(
                    "cannot change to the working directory {directory}: {}",
                    look_at_directory(directory)
                )
            }
            None => "cannot change to the working directory".into(),
        },
        203 => format!("cannot execute {}: {}", exec.program, look_at_program(&exec.program)),
        216 => format!("cannot change to the group {group}: does it exist?"),
        217 => format!("cannot change to the user {user}: does it exist?"),
        _ => {
            let step = step_name(code);
            format!("systemd failed at the step {step} before the program was executed (status {code})")
        }
    }
}

fn step_name(code: i32) -> &'static str {
    match code {
        201 => "NICE (priority)",
        202 => "FDS (file descriptors)",
        204 => "MEMORY (out of memory)",
        205 => "LIMITS (resource limits)",
        206 => "OOM_ADJUST (OOMScoreAdjust)",
        207 => "SIGNAL_MASK",
        208 => "STDIN (standard input)",
        209 => "STDOUT (standard output)",
        210 => "CHROOT (RootDirectory)",
        211 => "IOPRIO (IO priority)",
        212 => "TIMERSLACK",
        213 => "SECUREBITS",
        214 => "SETSCHEDULER (CPU scheduling)",
        215 => "CPUAFFINITY",
        218 => "CAPABILITIES",
        219 => "CGROUP (control group)",
        220 => "SETSID",
        221 => "CONFIRM",
        222 => "STDERR (standard error)",
        224 => "PAM",
        225 => "NETWORK (PrivateNetwork)",
        226 => "NAMESPACE (file system sandboxing: a path may be missing)",
        227 => "NO_NEW_PRIVILEGES",
        228 => "SECCOMP (system call filter)",
        229 => "SELINUX_CONTEXT",
        230 => "PERSONALITY",
        231 => "APPARMOR_PROFILE",
        232 => "ADDRESS_FAMILIES",
        233 => "RUNTIME_DIRECTORY",
        235 => "CHOWN",
        236 => "SMACK_PROCESS_LABEL",
        237 => "KEYRING",
        238 => "STATE_DIRECTORY",
        239 => "CACHE_DIRECTORY",
        240 => "LOGS_DIRECTORY",
        241 => "CONFIGURATION_DIRECTORY",
        242 => "NUMA_POLICY",
        243 => "CREDENTIALS",
        245 => "BPF",
        _ => "of the set-up",
    }
}

/// systemd does not hand on the reason of a failed `execve`, so the file is looked at again. Blocks for a `stat` and
/// one short read of a local file.
fn look_at_program(program: &str) -> String {
    let metadata = match std::fs::metadata(program) {
        Ok(metadata) => metadata,
        Err(error) => return plain(&error),
    };
    if !metadata.is_file() {
        return "it is not a file".into();
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return format!("permission denied (not executable; chmod +x {program})");
    }
    match interpreter(program) {
        Some(path) => match std::fs::metadata(&path) {
            Err(error) => format!("its interpreter {path}: {}", plain(&error)),
            Ok(_) => {
                "the service's user may not execute it or its interpreter, or it is being written".into()
            }
        },
        None => {
            "the service's user may not execute it, it is being written, or it is no program for this machine"
                .into()
        }
    }
}

/// The interpreter after `#!`.
fn interpreter(program: &str) -> Option<String> {
    use std::io::Read;
    let mut head = [0_u8; 256];
    let length = std::fs::File::open(program).ok()?.read(&mut head).ok()?;
    let line = head.get(..length)?.strip_prefix(b"#!")?.split(|b| *b == b'\n').next()?;
    String::from_utf8_lossy(line).split_whitespace().next().map(str::to_owned)
}

fn look_at_directory(path: &str) -> String {
    match std::fs::metadata(Path::new(path)) {
        Ok(metadata) if metadata.is_dir() => "the service's user may not enter it".into(),
        Ok(_) => "it is not a directory".into(),
        Err(error) => plain(&error),
    }
}

/// Without the `(os error 2)`.
fn plain(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => error.to_string(),
    }
}

/// `SIGKILL`, or `signal 34` for one without a name.
pub fn signal_name(signal: i32) -> String {
    nix::sys::signal::Signal::try_from(signal)
        .map_or_else(|_| format!("signal {signal}"), |signal| signal.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ending(result: &str, code: i32, status: i32) -> Ending {
        Ending { result: result.into(), code, status }
    }

    #[test]
    fn properties_become_exits() {
        let exit = |code, signal, result| Exit { code, signal, result };
        for (given, oom, expected) in [
            (ending("success", CLD_EXITED, 0), false, exit(Some(0), None, ExitResult::Success)),
            (ending("exit-code", CLD_EXITED, 7), false, exit(Some(7), None, ExitResult::ExitCode)),
            (ending("signal", CLD_KILLED, 9), false, exit(None, Some(9), ExitResult::Signal)),
            (ending("signal", CLD_KILLED, 9), true, exit(None, Some(9), ExitResult::OomKill)),
            (ending("exit-code", CLD_EXITED, 137), true, exit(Some(137), None, ExitResult::OomKill)),
            (ending("core-dump", CLD_DUMPED, 11), false, exit(None, Some(11), ExitResult::CoreDump)),
            (ending("oom-kill", CLD_KILLED, 9), false, exit(None, Some(9), ExitResult::OomKill)),
            (ending("success", CLD_KILLED, 15), true, exit(None, Some(15), ExitResult::Success)),
            (ending("timeout", CLD_KILLED, 9), true, exit(None, Some(9), ExitResult::Timeout)),
            (ending("new-word", 0, 0), false, exit(None, None, ExitResult::Other("new-word".into()))),
        ] {
            assert_eq!(exit_of(&given, oom), expected, "{given:?} {oom}");
        }
    }

    fn exec(program: &str) -> Exec {
        crate::systemd::unit::tests::plan("x", program).exec
    }

    #[test]
    fn failed_starts_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("plain");
        std::fs::write(&plain, "x").unwrap();
        let script = folder.path().join("script");
        std::fs::write(&script, "#!/nowhere/sh -x\n").unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut moved = exec("/bin/true");
        moved.working_directory = Some("/nowhere".into());
        moved.user = Some("nobody-such".into());
        for (exec, code, part) in [
            (exec("/nowhere/x"), 203, "cannot execute /nowhere/x: no such file or directory"),
            (exec(plain.to_str().unwrap()), 203, "permission denied (not executable; chmod +x "),
            (exec(script.to_str().unwrap()), 203, "its interpreter /nowhere/sh: no such file"),
            (exec("/"), 203, "it is not a file"),
            (
                moved.clone(),
                200,
                "cannot change to the working directory /nowhere: no such file or directory",
            ),
            (moved.clone(), 217, "cannot change to the user nobody-such"),
            (moved.clone(), 226, "NAMESPACE"),
            (moved, 3, "it exited with status 3"),
        ] {
            let exit = Exit { code: Some(code), signal: None, result: ExitResult::ExitCode };
            let message = failure_message(&exec, "failed", Some(&exit));
            assert!(message.contains(part), "{code}: {message}");
        }
    }

    #[test]
    fn other_failures_are_named() {
        let exit = |result| Exit { code: None, signal: Some(15), result };
        for (job, exit, part) in [
            ("canceled", None, "systemctl stop"),
            ("failed", Some(exit(ExitResult::Timeout)), "READY=1"),
            ("failed", Some(exit(ExitResult::Signal)), "SIGTERM"),
            ("failed", Some(exit(ExitResult::Resources)), "journalctl"),
            ("invalid", None, "\"invalid\""),
        ] {
            let message = failure_message(&exec("/x"), job, exit.as_ref());
            assert!(message.contains(part), "{job}: {message}");
        }
        assert_eq!(signal_name(9), "SIGKILL");
        assert_eq!(signal_name(40), "signal 40");
    }
}
