//! The daemon as a unit of its own.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use zbus::message::Type;
use zbus::{MessageStream, ObjectPath, Variant};

use super::SystemdError;
use super::bus::{self, Link, error_name, explain};
use super::name::{OWN_UNIT, object_path};
use super::property::Property;
use super::watch::activity;
use crate::core::event::Activity;
use crate::place::Scope;

/// Reading a large configuration and adopting a thousand services takes seconds; this is for a start that hangs.
const START_TIMEOUT: Duration = Duration::from_secs(90);
/// Over what systemd itself grants the start.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// For systemd's answer to a call that makes a job.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
const JOURNAL_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is asked for lines that are not there yet, and the pause between.
const JOURNAL_TRIES: u32 = 30;
const JOURNAL_AGAIN: Duration = Duration::from_millis(100);
const SECOND: u64 = 1_000_000;
/// Where the folders come from, and what is logged; not secret.
const PASSED_ON: [&str; 5] =
    ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "STATE_DIRECTORY", "RUNTIME_DIRECTORY", "RUST_LOG"];
/// As the installed unit has it: a heap for each of a few threads would be resident memory.
const ONE_HEAP: &str = "MALLOC_ARENA_MAX=1";

/// Starts the daemon in the background as [`OWN_UNIT`] and returns when it is ready. Where the unit is installed, that
/// one is started, as its file says; else a transient one of `exe` (absolute) with `args` is made.
///
/// # Errors
/// It runs already, systemd cannot be reached, or the daemon ended before it was ready: then with its last words.
pub async fn run_in_background(scope: Scope, exe: &Path, args: &[String]) -> Result<(), SystemdError> {
    let connection = bus::connect(scope).await?;
    // From before the job is made: its end may come at once.
    let mut messages = MessageStream::from(&connection);
    bus::listen(&connection, scope).await?;
    let owner = bus::owner(&connection, scope).await?;
    let link = bus::subscribe(&connection, owner, scope).await?;
    let asked = async {
        refuse_second(&link, scope).await?;
        let began = SystemTime::now();
        Ok((began, make_job(&link, scope, exe, args).await?))
    };
    let (began, job) =
        tokio::time::timeout(CALL_TIMEOUT, asked).await.map_err(|_| unanswered("StartTransientUnit"))??;
    let result = tokio::time::timeout(ANSWER_TIMEOUT, job_result(&mut messages, &link, &job)).await;
    let result = result.ok().flatten().unwrap_or_else(|| "timeout".into());
    if result == "done" {
        return Ok(());
    }
    let reason = last_words(&link, scope, began).await;
    // Else `Restart=` would try again what was just reported as failed.
    let _ = link.manager.stop_unit(OWN_UNIT, "replace").await;
    let _ = link.manager.reset_failed_unit(OWN_UNIT).await;
    Err(SystemdError::Job { what: "start", unit: OWN_UNIT.into(), result, reason })
}

fn unanswered(what: &'static str) -> SystemdError {
    SystemdError::Refused {
        what,
        unit: OWN_UNIT.into(),
        reason: format!(
            "systemd did not answer in {} s; where you are not root it asks polkit first, which may not be up: try \
             again as root (sudo), or use --user",
            CALL_TIMEOUT.as_secs()
        ),
    }
}

async fn refuse_second(link: &Link, scope: Scope) -> Result<(), SystemdError> {
    let running = running(link).await.map_err(|error| explain(scope, error, "Get", OWN_UNIT))?;
    let Some(pid) = running else { return Ok(()) };
    if pid == 0 {
        // One that failed waits for its next try. This start takes its place, and says what becomes of it.
        let _ = link.manager.stop_unit(OWN_UNIT, "replace").await;
        return Ok(());
    }
    Err(SystemdError::Refused {
        what: "a second daemon",
        unit: OWN_UNIT.into(),
        reason: format!(
            "it is running already (PID {pid}); `supervisorctl status` shows its services, and \
             `process-supervisor --stop` ends it"
        ),
    })
}

/// Has systemd stop the unit of this process, where it is one: `Restart=` would bring back what was told to end. One that
/// systemd stops or restarts already is left to that.
pub(super) async fn stay_down(link: &Link, scope: Scope) -> Result<(), SystemdError> {
    let stop = async {
        if running(link).await? == Some(std::process::id()) {
            link.manager.stop_unit(OWN_UNIT, "replace").await?;
        }
        Ok(())
    };
    let stopped = tokio::time::timeout(CALL_TIMEOUT, stop).await.map_err(|_| unanswered("StopUnit"))?;
    stopped.map_err(|error| explain(scope, error, "StopUnit", OWN_UNIT))
}

/// The main process of the unit while it is up, and is not being stopped; 0 between two tries.
async fn running(link: &Link) -> zbus::Result<Option<u32>> {
    let (unit, service) = link.unit(&object_path(OWN_UNIT)).await?;
    // A unit that is not loaded has no state; then there is nothing that runs.
    let state = unit.active_state().await.map(|state| activity(&state));
    if !matches!(state, Ok(Activity::Active | Activity::Activating)) {
        return Ok(None);
    }
    Ok(Some(service.main_pid().await.unwrap_or(0)))
}

/// Starts the installed unit, or makes a transient one; the job's object.
async fn make_job(link: &Link, scope: Scope, exe: &Path, args: &[String]) -> Result<String, SystemdError> {
    // `transient`: one of ours that failed and is still there.
    let installed = link.manager.get_unit_file_state(OWN_UNIT).await.is_ok_and(|state| state != "transient");
    if installed {
        let job = link.manager.start_unit(OWN_UNIT, "replace").await;
        return Ok(job.map_err(|error| explain(scope, error, "StartUnit", OWN_UNIT))?.as_str().to_owned());
    }
    // It is no error if there is nothing to reset.
    let _ = link.manager.reset_failed_unit(OWN_UNIT).await;
    let passed_on = PASSED_ON.iter().filter_map(|name| Some(format!("{name}={}", std::env::var(name).ok()?)));
    let environment: Vec<String> = passed_on.chain([ONE_HEAP.into()]).collect();
    let properties = properties(scope, exe, args, environment);
    let mut tries = 0;
    loop {
        match link.manager.start_transient_unit(OWN_UNIT, "replace", &properties, &[]).await {
            Ok(job) => return Ok(job.as_str().to_owned()),
            // What was reset is forgotten a moment later.
            Err(error) if error_name(&error).ends_with("UnitExists") && tries < 20 => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => return Err(explain(scope, error, "StartTransientUnit", OWN_UNIT)),
        }
    }
}

fn properties(scope: Scope, exe: &Path, args: &[String], environment: Vec<String>) -> Vec<Property> {
    let exe = exe.to_string_lossy().into_owned();
    // `$NAME` would be replaced in arguments.
    let argv: Vec<String> = std::iter::once(&exe).chain(args).map(|word| word.replace('$', "$$")).collect();
    let mut list: Vec<Property> = Vec::new();
    let mut set = |name: &str, value: Variant<'static>| list.push((name.to_owned(), value));
    set("Description", "Process supervisor".into());
    set("Type", "notify".into());
    set("NotifyAccess", "main".into());
    set("ExecStart", vec![(exe, argv, false)].into());
    set("Environment", environment.into());
    set("Restart", "on-failure".into());
    set("RestartUSec", SECOND.into());
    // It holds everything else up: systemd does not stop trying.
    set("StartLimitIntervalUSec", 0_u64.into());
    set("TimeoutStartUSec", u64::try_from(START_TIMEOUT.as_micros()).unwrap_or(u64::MAX).into());
    set("WatchdogUSec", (30 * SECOND).into());
    // The services are units of their own; what is killed with the daemon are its probes and log readers.
    set("KillMode", "mixed".into());
    set("OOMPolicy", "continue".into());
    // No target wants it.
    set("IgnoreOnIsolate", true.into());
    if scope == Scope::System {
        set("OOMScoreAdjust", (-900_i32).into());
    }
    list
}

/// systemd's word for the end of the job; `None` where the connection ended first.
async fn job_result(messages: &mut MessageStream, link: &Link, job: &str) -> Option<String> {
    while let Some(Ok(message)) = messages.next().await {
        let header = message.header();
        let from_systemd = header.sender().is_some_and(|sender| sender.as_str() == link.owner.as_str());
        let removed = header.member().is_some_and(|member| member.as_str() == "JobRemoved");
        if message.message_type() != Type::Signal || !from_systemd || !removed {
            continue;
        }
        let body = message.body();
        let Ok((_, path, _, result)) = body.deserialize::<(u32, ObjectPath<'_>, &str, &str)>() else {
            continue;
        };
        if path.as_str() == job {
            return Some(result.to_owned());
        }
    }
    None
}

/// How the daemon that was asked for at `began` ended, and what it said last.
async fn last_words(link: &Link, scope: Scope, began: SystemTime) -> String {
    let (status, pid) = match ending(link).await {
        Ok(ending) => ending,
        Err(error) => return error.to_string(),
    };
    match tokio::time::timeout(JOURNAL_TIMEOUT, journal_of(pid, began)).await {
        Ok(words) if !words.is_empty() => format!("{status}; its last words:\n{words}"),
        _ => {
            let which = match scope {
                Scope::System => "--unit",
                Scope::User => "--user-unit",
            };
            format!("{status}; `journalctl {which} {OWN_UNIT}` shows its log")
        }
    }
}

/// The last lines of a process that has just ended: its own, not systemd's about it. journald may take a moment to
/// write them, and by then sees neither the unit nor the invocation of what is gone; the process is always known.
async fn journal_of(pid: u32, began: SystemTime) -> String {
    let process = format!("_PID={pid}");
    let began = began.duration_since(UNIX_EPOCH).unwrap_or_default();
    let since = format!("--since=@{}.{:06}", began.as_secs(), began.subsec_micros());
    for _ in 0..JOURNAL_TRIES {
        let journal = tokio::process::Command::new("journalctl")
            .args(["-n", "5", "-o", "cat", "--no-pager", "-q", &since, &process])
            .kill_on_drop(true)
            .output();
        let Ok(output) = journal.await else { break };
        if !output.stdout.is_empty() {
            return String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        }
        tokio::time::sleep(JOURNAL_AGAIN).await;
    }
    String::new()
}

/// In words, and of which process.
async fn ending(link: &Link) -> zbus::Result<(String, u32)> {
    let (_, service) = link.unit(&object_path(OWN_UNIT)).await?;
    let status = service.exec_main_status().await?;
    let words = match service.exec_main_code().await? {
        1 => format!("it exited with status {status}"),
        2 | 3 => format!("it was ended by {}", super::signal_name(status)),
        _ => "it was not ready in time".into(),
    };
    Ok((words, service.exec_main_pid().await?))
}

/// In the user scope without linger everything ends with the last session: the sentence that says so, with the
/// remedy. `None` where there is nothing to warn about.
pub async fn linger_warning(scope: Scope) -> Option<String> {
    if scope == Scope::System {
        return None;
    }
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok()??.name;
    let lingers =
        tokio::fs::try_exists(Path::new("/var/lib/systemd/linger").join(&user)).await.unwrap_or(true);
    (!lingers).then(|| {
        format!(
            "the services of {user} end when {user}'s last session ends; `loginctl enable-linger {user}` keeps \
             them running"
        )
    })
}
