//! `supervisorctl` (section 7 of the contract): a client of the API.
//!
//! ```text
//!   args -> run -> show, orders, reload, logs, check -> client -> the API
//!              |      |                                    |
//!              |      '-> table, paint (pure) -> out       |
//!              |          (the one place that prints)      |
//!              '-> watch, top  <-  live (a picture that the stream keeps true)
//! ```
//!
//! It holds no knowledge that the daemon has: names, outcomes and reasons are those of the API. `logs` and
//! `validate` work without a daemon.

mod alerts;
mod args;
mod check;
mod client;
mod completions;
mod dashboard;
mod failure;
mod follow;
mod import;
mod live;
mod logs;
mod messages;
mod metrics;
mod orders;
mod out;
mod reload;
mod select;
mod show;
mod status;
mod table;
mod token;
mod top;
mod wait;
mod watch;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command, TokenAction};
use client::Client;
use failure::Failure;
use out::Out;

use crate::place::{Places, Scope};

/// Runs one command line, of which the first word is the name of the program, to its end.
/// The exit code is that of the contract.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match Args::try_parse_from(arguments) {
        Ok(args) => args,
        Err(error) => {
            // Help and version go to stdout and are a success; a closed pipe is nobody's fault.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    let mut out = Out::of_this_process(args.json);
    let failure = match execute(args, &mut out) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(failure) => failure,
    };
    out.failure(&failure);
    ExitCode::from(failure.code())
}

fn execute(args: Args, out: &mut Out) -> Result<(), Failure> {
    let scope = match (args.system, args.user) {
        (true, _) => Scope::System,
        (_, true) => Scope::User,
        _ => Scope::of_this_process(),
    };
    let places = Places::new(scope, |name| std::env::var(name).ok());
    match &args.command {
        Command::Validate { file } => {
            let file = file.as_ref().or(args.config.as_ref()).unwrap_or(&places.config);
            return check::validate(out, file, scope);
        }
        Command::Schema => return check::schema(out),
        Command::Import { from } => return import::run(out, from),
        Command::Completions { shell } => return out.text(&completions::script(*shell)),
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("cannot start: {error}")))?;
    let client = Client::new(&args, &places)?;
    // Where the supervisor is another one than that of these places, its token is not among them.
    let own = args.url.is_none() && args.socket.is_none();
    runtime.block_on(with_daemon(args.command, &client, &places, own, out))
}

async fn with_daemon(
    command: Command,
    client: &Client,
    places: &Places,
    own: bool,
    out: &mut Out,
) -> Result<(), Failure> {
    match command {
        Command::Status(wanted) => status::status(client, out, &wanted).await,
        Command::Top => top::top(client, out).await,
        Command::Start(order) => orders::run(client, out, orders::Verb::Start, &order).await,
        Command::Stop(order) => orders::run(client, out, orders::Verb::Stop, &order).await,
        Command::Restart(order) => orders::run(client, out, orders::Verb::Restart, &order).await,
        Command::Reset { services } => orders::reset(client, out, &services).await,
        Command::Signal { signal, services } => orders::signal(client, out, &signal, &services).await,
        Command::Logs(wanted) => logs::logs(client, out, places.scope, &wanted, 50).await,
        Command::Tail(wanted) => logs::logs(client, out, places.scope, &wanted, 10).await,
        Command::Health { service } => show::health(client, out, service.as_deref()).await,
        Command::Events(wanted) => show::events(client, out, &wanted).await,
        Command::Metrics(wanted) => metrics::metrics(client, out, &wanted).await,
        Command::Alerts(wanted) => alerts::alerts(client, out, &wanted).await,
        Command::Summary => alerts::summary(client, out).await,
        Command::Reload { dry_run } => reload::reload(client, out, dry_run).await,
        Command::Update => reload::reload(client, out, false).await,
        Command::Reread => reload::reload(client, out, true).await,
        Command::Avail { names } => show::avail(client, out, names).await,
        Command::Pid { service } => show::pid(client, out, service.as_deref()).await,
        Command::Wait(wanted) => wait::wait(client, out, &wanted).await,
        Command::Token { action: TokenAction::Rotate { viewer } } => {
            token::rotate(client, out, own.then_some(places), viewer).await
        }
        Command::Dashboard => dashboard::dashboard(client, out, places.scope).await,
        Command::Shutdown => wait::shutdown(client, out).await,
        Command::Version => show::version(client, out).await,
        Command::Validate { .. } | Command::Schema | Command::Import { .. } | Command::Completions { .. } => {
            Ok(())
        }
    }
}
