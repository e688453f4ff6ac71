//! `supervisor-sandbox [--] [CMD...]`: runs a command under a private systemd.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use process_supervisor::sandbox::{self, CgroupChoice, Options};

/// Boots a private systemd with D-Bus, journald and logind, runs CMD in it and takes everything down again.
///
/// The sandbox sees the files of this machine; what it writes is gone afterwards, except below --bind. It has its own
/// processes, cgroups, /tmp, /run, /dev, host name and journal, and shares the network. The exit code is that of CMD, or 128
/// plus the number of the signal that ended it; 2 when something is missing here, 125 when the sandbox failed,
/// 126 and 127 when CMD cannot be run or found.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Write through to this directory or file of this machine (may be given several times)
    #[arg(long = "bind", value_name = "PATH")]
    binds: Vec<PathBuf>,
    /// The cgroup layout inside
    #[arg(long, value_enum, default_value_t)]
    cgroup: CgroupChoice,
    /// How many seconds the private systemd may take to boot
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    boot_timeout: u64,
    /// The command and its arguments; an interactive shell when none is given
    #[arg(value_name = "CMD", trailing_var_arg = true)]
    command: Vec<OsString>,
}

#[expect(clippy::print_stderr, reason = "tells the caller why the command did not run")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = Options {
        binds: arguments.binds,
        cgroup: arguments.cgroup,
        boot_timeout: Duration::from_secs(arguments.boot_timeout),
        command: arguments.command,
    };
    match sandbox::run(&options) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("supervisor-sandbox: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
