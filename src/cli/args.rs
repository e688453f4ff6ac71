//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

const AFTER_HELP: &str = "\
Services are named by id, `group:*` for all of a group, or `all`.

Exit codes:
  0  done; all enabled services are well
  1  failed
  2  wrong usage
  3  status or health found an enabled service that is not running or unhealthy
  4  no supervisor answers
  5  no such service";

/// Control the services of a process supervisor.
#[derive(Debug, Parser)]
#[command(name = "supervisorctl", version, after_help = AFTER_HELP, max_term_width = 110)]
pub(super) struct Args {
    /// Socket of the supervisor [default: that of the scope]
    #[arg(long, global = true, value_name = "PATH", conflicts_with = "url")]
    pub(super) socket: Option<PathBuf>,
    /// Talk to http://HOST:PORT instead of a socket
    #[arg(long, global = true, value_name = "URL")]
    pub(super) url: Option<String>,
    /// File with the token for --url
    #[arg(long, global = true, value_name = "FILE", requires = "url")]
    pub(super) token_file: Option<PathBuf>,
    /// The supervisor of the system [default for root]
    #[arg(long, global = true, conflicts_with = "user")]
    pub(super) system: bool,
    /// The supervisor of this user [default for everybody else]
    #[arg(long, global = true)]
    pub(super) user: bool,
    /// Print JSON, as the API gives it
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Configuration file, for validate
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show services, and why they are as they are
    Status(Status),
    /// Show all services live, with their logs, and act on them
    Top,
    /// Start services and wait until they are ready
    Start(Order),
    /// Stop services, dependents first, and wait until they are down
    Stop(Order),
    /// Restart services and wait until they are ready
    Restart(Order),
    /// Count the restart attempts from 0 again
    Reset {
        #[arg(value_name = "SERVICE", required = true)]
        services: Vec<String>,
    },
    /// Send a signal to the main process of services (SIGKILL goes to all of their processes)
    Signal {
        /// SIGHUP, HUP or a number
        signal: String,
        #[arg(value_name = "SERVICE", required = true)]
        services: Vec<String>,
    },
    /// Show what a service wrote (works without a supervisor)
    Logs(Logs),
    /// Show health of all services, or the checks of one
    Health {
        #[arg(value_name = "SERVICE")]
        service: Option<String>,
    },
    /// Show what happened
    Events(Events),
    /// Draw what a service used
    Metrics(Metrics),
    /// Show open alerts, or note that one was seen
    Alerts(Alerts),
    /// Show everything at a glance
    Summary,
    /// Read the configuration again and apply what changed
    Reload {
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
    },
    /// Check a configuration file (works without a supervisor)
    Validate {
        /// [default: that of the scope]
        file: Option<PathBuf>,
    },
    /// Print the JSON Schema of the configuration
    Schema,
    /// Make a configuration of another supervisor's (works without a supervisor)
    Import {
        #[command(subcommand)]
        from: ImportFrom,
    },
    /// Wait until a service is running
    Wait(Wait),
    /// Replace a token of the API over TCP (works without a supervisor)
    Token {
        #[command(subcommand)]
        action: TokenAction,
    },
    /// Print the address of the web dashboard, which logs in
    Dashboard,
    /// Stop all services in reverse order, then the supervisor
    Shutdown,
    /// Print what makes a shell complete commands and names of services: eval "$(supervisorctl completions bash)"
    Completions { shell: clap_complete::Shell },
    /// Show versions
    Version,
    /// Show the process id of the supervisor or of a service
    Pid {
        /// A service, or all [default: the supervisor]
        #[arg(value_name = "SERVICE")]
        service: Option<String>,
    },
    /// Same as logs, ten lines
    Tail(Logs),
    /// Same as reload
    Update,
    /// Same as reload --dry-run
    Reread,
    /// List the configured services
    Avail {
        /// Their names alone, one on a line
        #[arg(long)]
        names: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Status {
    /// Which [default: all]
    #[arg(value_name = "SERVICE")]
    pub(super) services: Vec<String>,
    /// Go on as they change: drawn over on a terminal, else a line for each change
    #[arg(short, long)]
    pub(super) watch: bool,
}

#[derive(Debug, Default, clap::Args)]
pub(super) struct Order {
    #[arg(value_name = "SERVICE", required = true)]
    pub(super) services: Vec<String>,
    /// Do not wait for the outcome
    #[arg(long)]
    pub(super) no_wait: bool,
    /// Wait at most so many seconds [default: what the service may take]
    #[arg(long, value_name = "SECONDS", value_parser = seconds, conflicts_with = "no_wait")]
    pub(super) timeout: Option<f64>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Logs {
    #[arg(value_name = "SERVICE")]
    pub(super) service: String,
    /// Go on as lines are written
    #[arg(short, long)]
    pub(super) follow: bool,
    /// Number of lines
    #[arg(short = 'n', long, value_name = "N")]
    pub(super) lines: Option<u32>,
    /// Not older than this: "10 min ago", "today", "2026-01-31 08:15"
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(super) since: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Events {
    #[arg(value_name = "SERVICE")]
    pub(super) service: Option<String>,
    /// Go on as events happen
    #[arg(short, long)]
    pub(super) follow: bool,
    /// Number of events
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) lines: u32,
}

#[derive(Debug, clap::Args)]
pub(super) struct Metrics {
    #[arg(value_name = "SERVICE")]
    pub(super) service: String,
    /// Not older than this: 30m, 6h, 7d, or a time such as 2026-01-31T08:15:00Z
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub(super) since: String,
    /// Points of the series [default: what fits]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=5000))]
    pub(super) points: Option<u32>,
}

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Alerts {
    /// Those that are over too
    #[arg(long)]
    pub(super) all: bool,
    #[command(subcommand)]
    pub(super) action: Option<AlertAction>,
}

#[derive(Debug, Subcommand)]
pub(super) enum AlertAction {
    /// Note that an alert was seen
    Ack {
        /// Its number, as the list shows it
        #[arg(value_name = "N")]
        number: i64,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ImportFrom {
    /// Files of supervisord; what became of each key is told on stderr
    Supervisord {
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        /// Where the configuration is written [default: stdout]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Replace a file that is there
        #[arg(long, requires = "output")]
        force: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum TokenAction {
    /// Make a new token; the old one is refused from then on
    Rotate {
        /// The token that may only read
        #[arg(long)]
        viewer: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Wait {
    #[arg(value_name = "SERVICE")]
    pub(super) service: String,
    /// Wait until it is healthy too
    #[arg(long)]
    pub(super) healthy: bool,
    /// Give up after so many seconds [default: never]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(super) timeout: Option<f64>,
}

fn seconds(text: &str) -> Result<f64, String> {
    text.parse::<f64>()
        .ok()
        .filter(|seconds| (0.0..=86_400.0).contains(seconds))
        .ok_or_else(|| "seconds from 0 to 86400 are expected".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn flags_are_taken_before_and_after_the_command() {
        for line in ["--json status web", "status --json web", "status web --json"] {
            let args = Args::parse_from(["supervisorctl"].into_iter().chain(line.split(' ')));
            assert!(
                args.json && matches!(args.command, Command::Status(wanted) if wanted.services == ["web"])
            );
        }
    }

    #[test]
    fn wrong_usage_is_refused() {
        for line in [
            "",
            "start",
            "nonsense",
            "status --system --user",
            "status --token-file t",
            "wait web --timeout -1",
            "wait web --timeout nan",
            "events -n 0",
        ] {
            let words = ["supervisorctl"].into_iter().chain(line.split(' ').filter(|w| !w.is_empty()));
            assert!(Args::try_parse_from(words).is_err(), "{line:?}");
        }
    }
}
