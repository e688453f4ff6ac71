//! The helper: starts the check, watches over it, and leaves nothing of it behind.

use std::collections::BTreeMap;
use std::io::{PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::output::Output;
use super::{Answer, COMMAND, Order, StepOrder, cgroup, descendants, subject};
use crate::core::time::Human;
use crate::environment_file;
use crate::mask::Mask;
use crate::probe::Finding;

/// Longer than any order the configuration lets through, in bytes.
const LONGEST_ORDER: u64 = 16 << 20;
/// Read of what the check had printed when it ended, in reads.
const LAST_READS: usize = 64;

/// How the check ended.
enum End {
    Exited(ExitStatus),
    TimedOut,
    Cancelled(&'static str),
}

/// Takes an order from standard input, writes the answer to standard output.
pub(super) fn run() -> ExitCode {
    let text = serde_json::to_vec(&helped()).unwrap_or_default();
    match std::io::stdout().write_all(&text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn helped() -> Answer {
    let begun = Instant::now();
    let order = read_order().map_err(|error| format!("its order cannot be read: {error}"))?;
    let program = order.program.clone();
    Ok(checked(order, begun).map_err(|why| format!("{program} {why}")))
}

/// The line, byte by byte as far as the pipe is concerned: what comes after it is the end of the daemon's interest.
fn read_order() -> std::io::Result<Order> {
    let mut line = Vec::new();
    let mut chunk = [0; 64 << 10];
    let mut input = std::io::stdin().lock().take(LONGEST_ORDER);
    while line.last() != Some(&b'\n') {
        match input.read(&mut chunk)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => line.extend_from_slice(&chunk[..read]),
        }
    }
    Ok(serde_json::from_slice(&line)?)
}

/// An `Err` goes on after the program's name.
fn checked(order: Order, begun: Instant) -> Finding {
    let signals = catch_signals(order.stop_signal)
        .map_err(|error| format!("could not be run: signals cannot be caught: {error}"))?;
    let variables = variables(&order)?;
    let subject = subject::of(&order)?;
    // Before anything is started: from here on everything that is forked is a descendant to the end.
    prctl::set_child_subreaper(true)
        .map_err(|error| format!("could not be run: its children cannot be adopted: {error}"))?;
    let beside = match &order.unit {
        Some(unit) => cgroup::enter(order.main_pid, unit, nix::unistd::geteuid().is_root())?,
        None => None,
    };
    let mut output = Output::new(Mask::new(
        variables.iter().filter(|(name, _)| *name != "PATH").map(|(_, value)| value.as_str()),
    ));
    let step = StepOrder {
        program: order.program,
        args: order.args,
        environment: subject.environment(variables),
        folder: order.working_directory.unwrap_or(subject.home),
        user: subject.ids,
    };
    let (child, mut printed) = start(&step).map_err(|error| format!("could not be started: {error}"))?;
    let end = watch(child, &mut printed, &mut output, &signals, begun + order.timeout);
    let all_gone = descendants::kill_all();
    let said = output.last_line().map_or_else(String::new, |line| format!(": {line}"));
    let mut notes = beside.map_or_else(String::new, |why| format!(" (outside the service's limits: {why})"));
    if !all_gone {
        notes.push_str(" (some of its processes could not be killed)");
    }
    match end {
        End::Exited(status) if status.success() => Ok(format!("{} passes{said}{notes}", step.program)),
        End::Exited(status) => Err(format!("{}{said}{notes}", in_words(status))),
        End::TimedOut => {
            Err(format!("did not end within {} and was killed{said}{notes}", Human(order.timeout)))
        }
        End::Cancelled(why) => Err(format!("was killed: {why}")),
    }
}

/// Those of its file, and above them those of the configuration.
fn variables(order: &Order) -> Result<BTreeMap<String, String>, String> {
    let mut variables = match &order.environment_file {
        Some(path) => environment_file::read(path)
            .map_err(|error| format!("was not run: its environment_file {path} cannot be read: {error}"))?,
        None => BTreeMap::new(),
    };
    variables.extend(order.environment.clone());
    Ok(variables)
}

/// Every signal that may come from the daemon, from systemd or from a child, as a descriptor to wait for.
fn catch_signals(stop_signal: i32) -> nix::Result<SignalFd> {
    let mut caught = SigSet::empty();
    let usual = [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];
    for signal in usual.into_iter().chain(Signal::try_from(stop_signal)) {
        caught.add(signal);
    }
    caught.thread_block()?;
    SignalFd::with_flags(&caught, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

fn start(order: &StepOrder) -> std::io::Result<(Pid, PipeReader)> {
    let (reader, writer) = std::io::pipe()?;
    let text = serde_json::to_vec(order)?;
    // The file that runs now, also where another version has taken its name.
    let mut child = Command::new("/proc/self/exe")
        .args([COMMAND, "step"])
        .stdin(Stdio::piped())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(&text)?;
    }
    Ok((Pid::from_raw(child.id().cast_signed()), reader))
}

fn watch(
    child: Pid,
    printed: &mut PipeReader,
    output: &mut Output,
    signals: &SignalFd,
    until: Instant,
) -> End {
    let lifeline = std::io::stdin();
    let mut open = true;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return End::TimedOut;
        }
        let mut fds = vec![
            PollFd::new(lifeline.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        if open {
            fds.push(PollFd::new(printed.as_fd(), PollFlags::POLLIN));
        }
        // Whole milliseconds, and never one too few.
        let wait = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        if poll(&mut fds, wait).is_err() {
            continue;
        }
        let ready = |fd: Option<&PollFd<'_>>| fd.and_then(PollFd::any).unwrap_or(false);
        let (gone, signalled, said) = (ready(fds.first()), ready(fds.get(1)), ready(fds.get(2)));
        if gone {
            return End::Cancelled("the supervisor no longer waits for it");
        }
        if signalled && was_told_to_end(signals) {
            return End::Cancelled("the service is being stopped");
        }
        if let Some(status) = ended(child) {
            read_rest(printed, output);
            return End::Exited(status);
        }
        open = open && (!said || output.read_some(printed));
    }
}

fn was_told_to_end(signals: &SignalFd) -> bool {
    let mut told = false;
    while let Ok(Some(signal)) = signals.read_signal() {
        told |= signal.ssi_signo.cast_signed() != Signal::SIGCHLD as i32;
    }
    told
}

fn ended(child: Pid) -> Option<ExitStatus> {
    match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::Exited(_, code)) => Some(ExitStatus::from_raw(code << 8)),
        Ok(WaitStatus::Signaled(_, signal, _)) => Some(ExitStatus::from_raw(signal as i32)),
        _ => None,
    }
}

/// What is in the pipe already. A process that the check left behind may hold the other end for ever.
fn read_rest(printed: &mut PipeReader, output: &mut Output) {
    for _ in 0..LAST_READS {
        let mut fds = [PollFd::new(printed.as_fd(), PollFlags::POLLIN)];
        if !poll(&mut fds, PollTimeout::ZERO).is_ok_and(|n| n > 0) || !output.read_some(printed) {
            return;
        }
    }
}

fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".into(),
    }
}
