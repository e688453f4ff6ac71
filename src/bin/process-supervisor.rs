//! The daemon: arguments, logging, exit code.
#![expect(clippy::print_stderr, reason = "a daemon that cannot start says so before there is a log")]

use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{self, ExitCode};

use clap::{Parser, Subcommand, ValueEnum};
use process_supervisor::config::{self, Severity};
use process_supervisor::place::{Places, Scope};
use process_supervisor::probe;
use process_supervisor::runtime::{self, SetupError};
use process_supervisor::systemd::own;
use process_supervisor::tls;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Keeps the services of supervisor_config.json running as systemd units.
///
/// SIGHUP reads the configuration again. SIGTERM ends the supervisor and leaves the services running; the next one
/// takes them over. SIGINT (Ctrl-C) stops the services in reverse order, then the supervisor.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = false)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The configuration [default: /etc/process-supervisor/supervisor_config.json, or that of the user]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Use the system manager (root's default)
    #[arg(long, global = true, conflicts_with = "user")]
    system: bool,
    /// Use the manager of the current user
    #[arg(long, global = true)]
    user: bool,
    /// How to write the log
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Auto)]
    log_format: LogFormat,
    /// Start in the background, as a unit of its own, and return when it is ready
    #[arg(long, conflicts_with_all = ["status", "stop", "check"])]
    daemon: bool,
    /// Print what `supervisorctl status` prints
    #[arg(long, conflicts_with_all = ["stop", "check"])]
    status: bool,
    /// Stop the services in reverse order, then the supervisor
    #[arg(long, conflicts_with = "check")]
    stop: bool,
    /// Check the configuration and exit
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Command {
    /// Run in the foreground (what happens without a command, too)
    Run,
    /// Runs exec checks; the daemon and systemd start it
    #[command(name = probe::HELPER_COMMAND, hide = true)]
    ProbeExec {
        #[arg(value_enum, default_value_t = probe::HelperRole::Helper)]
        role: probe::HelperRole,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// The journal when stderr is the journal, else text
    Auto,
    Journal,
    Text,
    Json,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Command::ProbeExec { role }) = arguments.command {
        return probe::run_helper(role);
    }
    tls::install_provider();
    let scope = match (arguments.system, arguments.user) {
        (true, _) => Scope::System,
        (_, true) => Scope::User,
        _ => Scope::of_this_process(),
    };
    let mut places = Places::new(scope, |name| std::env::var(name).ok());
    if let Some(config) = &arguments.config {
        places = places.with_config(config);
    }
    if arguments.status {
        become_supervisorctl(&places, "status")
    } else if arguments.stop {
        become_supervisorctl(&places, "shutdown")
    } else if arguments.check {
        become_supervisorctl(&places, "validate")
    } else if arguments.daemon {
        block_on(in_background(scope, &arguments))
    } else {
        block_on(in_foreground(places, arguments.log_format))
    }
}

/// The daemon has no client in it, which would be resident memory: this is the program installed beside it.
fn become_supervisorctl(places: &Places, command: &str) -> ExitCode {
    const NAME: &str = "supervisorctl";
    let beside = std::env::current_exe().map(|exe| exe.with_file_name(NAME)).ok();
    let program = beside.filter(|path| path.exists()).unwrap_or_else(|| NAME.into());
    let scope = format!("--{}", places.scope.as_str());
    let error = process::Command::new(&program)
        .args([scope.as_ref(), "--config".as_ref(), places.config.as_os_str(), command.as_ref()])
        .exec();
    eprintln!("process-supervisor: cannot run {}, which does this: {error}", program.display());
    ExitCode::FAILURE
}

fn block_on(future: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("process-supervisor: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(future) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("process-supervisor: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn in_foreground(places: Places, format: LogFormat) -> anyhow::Result<()> {
    start_log(format)?;
    let file = |name: &str| std::fs::read_to_string(name).ok();
    match runtime::run(places, VERSION).await {
        Err(SetupError::Config(problems)) => {
            anyhow::bail!(
                "{}\nnothing was started or stopped",
                config::render(&problems, Severity::Error, file)
            )
        }
        other => Ok(other?),
    }
}

async fn in_background(scope: Scope, arguments: &Arguments) -> anyhow::Result<()> {
    let mut passed = Vec::new();
    if let Some(config) = &arguments.config {
        passed.extend(["--config".into(), std::path::absolute(config)?.display().to_string()]);
    }
    if arguments.system || arguments.user {
        passed.push(format!("--{}", scope.as_str()));
    }
    Ok(own::run_in_background(scope, &std::env::current_exe()?, &passed).await?)
}

/// `RUST_LOG` chooses what is written: `debug`, or `info,process_supervisor::probe=trace`.
fn start_log(format: LogFormat) -> anyhow::Result<()> {
    let chosen = std::env::var("RUST_LOG").ok().and_then(|text| text.parse::<Targets>().ok());
    let usual = || Targets::new().with_default(LevelFilter::INFO).with_target("zbus", LevelFilter::WARN);
    let filter = chosen.unwrap_or_else(usual);
    let registry = tracing_subscriber::registry().with(filter);
    let to_stderr = || tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    match format {
        LogFormat::Auto if stderr_is_journal() => return start_journal_log(registry),
        LogFormat::Journal => return start_journal_log(registry),
        LogFormat::Json => registry.with(to_stderr().json().flatten_event(true)).init(),
        LogFormat::Auto | LogFormat::Text => {
            registry.with(to_stderr().with_ansi(std::io::stderr().is_terminal())).init();
        }
    }
    Ok(())
}

fn start_journal_log<S>(registry: S) -> anyhow::Result<()>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a> + Send + Sync,
{
    use tracing_journald::{Priority, PriorityMappings};
    let layer = tracing_journald::layer()
        .map_err(|error| anyhow::anyhow!("the journal cannot be written: {error}; try --log-format text"))?
        .with_field_prefix(None)
        .with_syslog_identifier("process-supervisor".into())
        .with_priority_mappings(PriorityMappings {
            info: Priority::Informational,
            ..PriorityMappings::new()
        });
    registry.with(layer).init();
    Ok(())
}

/// systemd names the socket that it made our stderr (`man systemd.exec`, `JOURNAL_STREAM`).
fn stderr_is_journal() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
    let stderr = std::io::stderr().as_fd().try_clone_to_owned().map(std::fs::File::from);
    stderr
        .and_then(|file| file.metadata())
        .is_ok_and(|meta| named == format!("{}:{}", meta.dev(), meta.ino()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_manual_is_that_of_this_program() {
        let command = Arguments::command().disable_help_subcommand(true);
        let mut text = Vec::new();
        clap_mangen::Man::new(command).section("8").date("").render(&mut text).unwrap();
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("man/process-supervisor.8");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            return std::fs::write(path, text).unwrap();
        }
        assert!(
            std::fs::read(path).unwrap_or_default() == text,
            "process-supervisor.8 is another one now: run `make golden`"
        );
    }
}
