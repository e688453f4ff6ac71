//! `logs`: what a service wrote, from the journal itself. Works without a supervisor.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::args;
use super::client::Client;
use super::failure::Failure;
use super::out::Out;
use crate::core::plan::Id;
use crate::place::Scope;

/// How long the supervisor may take to say whether it knows the name.
const ASK_TIME: Duration = Duration::from_secs(2);

pub(super) async fn logs(
    client: &Client,
    out: &mut Out,
    scope: Scope,
    wanted: &args::Logs,
    lines: u32,
) -> Result<(), Failure> {
    let id = Id::new(&wanted.service)
        .map_err(|error| Failure::NoService(format!("{}: {error}", wanted.service)))?;
    let asked = tokio::time::timeout(ASK_TIME, client.get(&["services", id.as_str()], &[])).await;
    if let Ok(Err(Failure::Problem(problem))) = asked
        && problem.is("unknown_service")
    {
        return Err(Failure::Problem(problem));
    }
    let status = Command::new("journalctl")
        .args(arguments(scope, nix::unistd::getuid().as_raw(), wanted, &id, lines, out.json))
        .stdin(Stdio::null())
        .status();
    match status {
        Ok(status) if status.success() || status.signal() == Some(Signal::SIGPIPE as i32) => Ok(()),
        Ok(_) => Err(Failure::NotDone),
        Err(error) => {
            Err(Failure::Failed(format!("cannot run journalctl, which reads the journal: {error}")))
        }
    }
}

/// The service's own lines, the manager's about its unit, and the supervisor's about it. Not by a field alone
/// that anybody may set: each is tied to a unit or to the manager, and in the user scope to the user.
fn arguments(scope: Scope, uid: u32, wanted: &args::Logs, id: &Id, lines: u32, json: bool) -> Vec<String> {
    let lines = match (wanted.lines, &wanted.since) {
        (Some(lines), _) => Some(lines),
        // All since then, unless a number was given too.
        (None, Some(_)) => None,
        (None, None) => Some(lines),
    };
    let mut arguments: Vec<String> = vec!["--no-pager".into(), "--no-hostname".into()];
    // Its hints, such as a missing right to read, are for people.
    let output = if json { ["--quiet", "--output=json"].as_slice() } else { &["--output=short-iso"] };
    arguments.extend(output.iter().map(|&argument| argument.into()));
    arguments.extend(lines.map(|lines| format!("--lines={lines}")));
    arguments.extend(wanted.since.as_ref().map(|since| format!("--since={since}")));
    if wanted.follow {
        arguments.push("--follow".into());
    }
    let (own, about, user) = match scope {
        Scope::System => ("_SYSTEMD_UNIT", "UNIT", None),
        Scope::User => ("_SYSTEMD_USER_UNIT", "USER_UNIT", Some(format!("_UID={uid}"))),
    };
    let unit = format!("supervisor-{id}.service");
    let manager = (scope == Scope::System).then(|| "_PID=1".to_owned());
    let terms = [
        vec![format!("{own}={unit}")],
        [vec![format!("{about}={unit}")], manager.into_iter().collect()].concat(),
        vec![format!("SUPERVISOR_SERVICE={id}"), format!("{own}=process-supervisor.service")],
    ];
    for (index, term) in terms.into_iter().enumerate() {
        if index > 0 {
            arguments.push("+".into());
        }
        arguments.extend(term);
        arguments.extend(user.clone());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(follow: bool, lines: Option<u32>, since: Option<&str>) -> args::Logs {
        args::Logs { service: "web".into(), follow, lines, since: since.map(Into::into) }
    }

    #[test]
    fn the_selection_is_tied_to_units() {
        let id = Id::new("web").unwrap();
        let system = arguments(Scope::System, 0, &wanted(true, None, None), &id, 50, false).join(" ");
        assert_eq!(
            system,
            "--no-pager --no-hostname --output=short-iso --lines=50 --follow \
             _SYSTEMD_UNIT=supervisor-web.service + UNIT=supervisor-web.service _PID=1 + \
             SUPERVISOR_SERVICE=web _SYSTEMD_UNIT=process-supervisor.service"
        );
        let user = arguments(Scope::User, 7, &wanted(false, None, Some("-1h")), &id, 50, true).join(" ");
        assert_eq!(
            user,
            "--no-pager --no-hostname --quiet --output=json --since=-1h \
             _SYSTEMD_USER_UNIT=supervisor-web.service _UID=7 + USER_UNIT=supervisor-web.service _UID=7 + \
             SUPERVISOR_SERVICE=web _SYSTEMD_USER_UNIT=process-supervisor.service _UID=7"
        );
    }
}
