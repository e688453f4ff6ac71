//! The process the caller started: it has the sandbox built, runs the command in it and waits for its end.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{Shutdown, shutdown};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::cgroup::{self, Layout};
use super::channel::{self, Message};
use super::command::{self, Job};
use super::console::{Console, Notify};
use super::error::{Error, Step};
use super::journal;

/// How long the command may take to end after a signal that asks it to.
const GRACE: Duration = Duration::from_secs(10);

/// Signals that are passed on to the command, and those that tell of children.
const HANDLED: [Signal; 7] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGCHLD,
];

/// The booted sandbox.
#[derive(Debug)]
struct Machine {
    first: Pid,
    pidfd: OwnedFd,
}

/// The front's own state.
#[derive(Debug)]
pub(super) struct Front {
    channel: OwnedFd,
    reaper: Pid,
    signals: SignalFd,
    notify: Option<Notify>,
    console: Option<Console>,
    machine: Option<Machine>,
    /// Whether the reaper may still say something.
    listening: bool,
}

/// What the front waits on.
#[derive(Debug, Clone, Copy)]
enum Source {
    Signals,
    Channel,
    Notify,
    Console,
}

/// What woke the front.
#[derive(Debug, Default)]
struct Woken {
    channel: bool,
    ready: bool,
    signal: Option<(Signal, bool)>,
}

/// Blocks the handled signals, so that they are read instead. Call it before the first fork. Returns the mask that the
/// caller had, too.
pub(super) fn take_signals() -> Result<(SignalFd, SigSet), Error> {
    let mask: SigSet = HANDLED.into_iter().collect();
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), Some(&mut before))
        .and_then(|()| SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK))
        .map(|signals| (signals, before))
        .step(|| "take over signals".into())
}

impl Front {
    pub(super) fn new(channel: OwnedFd, reaper: Pid, signals: SignalFd, notify: Notify) -> Self {
        Self { channel, reaper, signals, notify: Some(notify), console: None, machine: None, listening: true }
    }

    /// Boots, runs the job, takes everything down. Returns the command's exit code.
    pub(super) fn run(mut self, job: &Job, layout: &Layout, boot_timeout: Duration) -> Result<u8, Error> {
        let outcome = self.boot(boot_timeout).and_then(|()| self.run_job(job, layout));
        self.take_down(layout);
        outcome
    }

    fn boot(&mut self, timeout: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + timeout;
        loop {
            let Some(woken) = self.wait(Some(deadline))? else {
                let text = format!("systemd in the sandbox was not up after {} s", timeout.as_secs_f32());
                return Err(self.explain(text));
            };
            if let Some((signal, _)) = woken.signal
                && signal != Signal::SIGCHLD
            {
                return Err(Error::Interrupted(signal));
            }
            if woken.channel {
                match channel::receive(&self.channel) {
                    Some(Message::Failed(error)) => return Err(error),
                    Some(message) => self.note(message),
                    None => return Err(self.explain("systemd in the sandbox ended while booting".into())),
                }
            }
            if woken.ready {
                self.notify = None;
                return Ok(());
            }
        }
    }

    fn run_job(&mut self, job: &Job, layout: &Layout) -> Result<u8, Error> {
        let Some(machine) = &self.machine else {
            return Err(Error::Machine("systemd in the sandbox is not there".into()));
        };
        let command = command::start(job, layout, machine.first, &machine.pidfd)?;
        let mut deadline = None;
        loop {
            if let Some(code) = ended(command, WaitPidFlag::WNOHANG)? {
                return Ok(code);
            }
            match self.wait(deadline)? {
                Some(Woken { signal: Some((signal, from_terminal)), .. }) if signal != Signal::SIGCHLD => {
                    // The keyboard's go to the whole foreground group at once; a hangup to the session's leader alone.
                    if !(job.terminal && from_terminal && signal != Signal::SIGHUP) {
                        let _ = kill(command, signal);
                    }
                    let ends = matches!(signal, Signal::SIGTERM | Signal::SIGHUP)
                        || (signal == Signal::SIGINT && !job.terminal);
                    if ends {
                        deadline.get_or_insert(Instant::now() + GRACE);
                    }
                }
                Some(woken) => {
                    if woken.channel {
                        self.listen();
                    }
                }
                None => {
                    warn(&format!(
                        "the command is still there {} s after it was asked to end: killed",
                        GRACE.as_secs()
                    ));
                    self.hang_up();
                    return ended(command, WaitPidFlag::empty())?
                        .ok_or_else(|| Error::Machine("the command's end was not seen".into()));
                }
            }
        }
    }

    /// Waits for the next thing to happen; `None` when the deadline comes first.
    fn wait(&mut self, deadline: Option<Instant>) -> Result<Option<Woken>, Error> {
        let timeout = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
            None => PollTimeout::NONE,
            Some(Duration::ZERO) => return Ok(None),
            Some(left) => PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX),
        };
        let has_come = match self.poll(timeout) {
            Err(Errno::EINTR) => Vec::new(),
            other => other.step(|| "wait".into())?,
        };
        let mut woken = Woken::default();
        for source in has_come {
            match source {
                Source::Channel => woken.channel = true,
                Source::Console => self.console.iter_mut().for_each(Console::read),
                Source::Signals => woken.signal = self.read_signal()?,
                Source::Notify => {
                    let first = self.machine.as_ref().map(|machine| machine.first);
                    woken.ready = self.notify.as_ref().is_some_and(|notify| notify.says_ready(first));
                }
            }
        }
        Ok(Some(woken))
    }

    /// The sources that have something to say.
    fn poll(&self, timeout: PollTimeout) -> nix::Result<Vec<Source>> {
        let sources = [
            (Source::Signals, Some(self.signals.as_fd())),
            (Source::Channel, self.listening.then_some(self.channel.as_fd())),
            // Only when it is known whose word counts.
            (Source::Notify, self.machine.as_ref().and(self.notify.as_ref()).map(Notify::readable)),
            (Source::Console, self.console.as_ref().and_then(Console::readable)),
        ];
        let open: Vec<_> = sources.into_iter().filter_map(|(source, fd)| Some((source, fd?))).collect();
        let mut watched: Vec<_> = open.iter().map(|(_, fd)| PollFd::new(*fd, PollFlags::POLLIN)).collect();
        poll(&mut watched, timeout)?;
        let has_come = open.iter().zip(&watched).filter(|(_, fd)| fd.any().unwrap_or(false));
        Ok(has_come.map(|((source, _), _)| *source).collect())
    }

    /// The next signal, and whether the terminal driver sent it.
    fn read_signal(&self) -> Result<Option<(Signal, bool)>, Error> {
        let Some(info) = self.signals.read_signal().step(|| "read a signal".into())? else { return Ok(None) };
        let number = i32::try_from(info.ssi_signo).unwrap_or_default();
        Ok(Signal::try_from(number).ok().map(|signal| (signal, info.ssi_code == libc::SI_KERNEL)))
    }

    fn listen(&mut self) {
        match channel::receive(&self.channel) {
            Some(message) => self.note(message),
            None => self.listening = false,
        }
    }

    fn note(&mut self, message: Message) {
        match message {
            Message::Started(first, pidfd) => self.machine = Some(Machine { first, pidfd }),
            Message::Console(terminal) => self.console = Some(Console::new(terminal)),
            Message::Failed(error) => warn(&error.to_string()),
            Message::Warning(text) => warn(&text),
        }
    }

    /// Adds what the private systemd said last.
    fn explain(&mut self, mut text: String) -> Error {
        if let Some(console) = &self.console {
            let tail = console.tail();
            if !tail.is_empty() {
                text.push_str("\nIts console ended with:\n");
                text.push_str(&tail);
            }
        }
        if let Some(machine) = &self.machine
            && let Some(tail) = journal::tail(machine.first)
        {
            text.push_str("\nIts journal ended with:\n");
            text.push_str(&tail);
        }
        Error::Machine(text)
    }

    /// Tells the reaper to begin.
    fn hang_up(&self) {
        let _ = shutdown(self.channel.as_raw_fd(), Shutdown::Write);
    }

    /// Returns when nothing of the sandbox is left.
    fn take_down(mut self, layout: &Layout) {
        self.hang_up();
        while self.listening {
            self.listen();
        }
        let status = waitpid(self.reaper, None);
        if !matches!(status, Ok(WaitStatus::Exited(_, 0))) {
            // Somebody killed the reaper, and the kernel the rest. What it would have done is left to do.
            if let Some(machine) = &self.machine {
                let mut watched = [PollFd::new(machine.pidfd.as_fd(), PollFlags::POLLIN)];
                let _ = poll(&mut watched, PollTimeout::from(10_000_u16));
            }
            cgroup::remove_stale(layout);
        }
    }
}

/// The exit code of the command, if it has ended: its own, or 128 + signal.
fn ended(command: Pid, flags: WaitPidFlag) -> Result<Option<u8>, Error> {
    match waitpid(command, Some(flags)).step(|| "wait for the command".into())? {
        WaitStatus::Exited(_, code) => Ok(Some(u8::try_from(code).unwrap_or(u8::MAX))),
        WaitStatus::Signaled(_, signal, _) => Ok(Some(128_u8.saturating_add(signal as u8))),
        _ => Ok(None),
    }
}

#[expect(clippy::print_stderr, reason = "the sandbox has no other way to tell its caller")]
fn warn(text: &str) {
    eprintln!("supervisor-sandbox: {text}");
}
