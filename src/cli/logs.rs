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
use crate::journal;
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
        .args(arguments(scope, wanted, &id, lines, out.json))
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

fn arguments(scope: Scope, wanted: &args::Logs, id: &Id, lines: u32, json: bool) -> Vec<String> {
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
    arguments.extend(journal::matches(scope, &format!("supervisor-{id}.service"), id));
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(follow: bool, lines: Option<u32>, since: Option<&str>) -> args::Logs {
        args::Logs { service: "web".into(), follow, lines, since: since.map(Into::into) }
    }

    #[test]
    fn what_is_wanted_becomes_arguments() {
        let id = Id::new("web").unwrap();
        let begins = |arguments: Vec<String>, with: &str| {
            let rest = arguments.join(" ").strip_prefix(with).map(ToOwned::to_owned);
            let terms = journal::matches(Scope::System, "supervisor-web.service", &id).join(" ");
            assert_eq!(rest, Some(terms), "{arguments:?}");
        };
        begins(
            arguments(Scope::System, &wanted(true, None, None), &id, 50, false),
            "--no-pager --no-hostname --output=short-iso --lines=50 --follow ",
        );
        begins(
            arguments(Scope::System, &wanted(false, None, Some("-1h")), &id, 50, true),
            "--no-pager --no-hostname --quiet --output=json --since=-1h ",
        );
    }
}
