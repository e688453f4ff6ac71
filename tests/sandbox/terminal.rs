//! In a terminal it feels like a shell: job control, Ctrl-C, an interactive shell when no command is given.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::pty::openpty;

use crate::harness::{binary, wait_for};

/// A sandbox in a terminal of its own.
struct Terminal {
    child: Child,
    window: Option<File>,
    text: String,
}

impl Terminal {
    fn start(arguments: &[&str]) -> Self {
        let pty = openpty(None, None).unwrap();
        // The terminal hangs up when this side is closed, so nobody else may have it.
        fcntl(&pty.master, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
        fcntl(&pty.master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let side = || Stdio::from(pty.slave.try_clone().unwrap());
        let child = Command::new("setsid")
            .args(["--ctty", "--wait", binary()])
            .args(arguments)
            .env("SHELL", "/bin/bash")
            .env("TERM", "dumb")
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .unwrap();
        Self { child, window: Some(pty.master.into()), text: String::new() }
    }

    fn type_in(&mut self, keys: &str) {
        self.window.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the screen shows it, and forgets what was shown up to there.
    fn expect(&mut self, what: &str) {
        wait_for(what, || {
            let mut buffer = [0; 1024];
            while let Ok(length @ 1..) = self.window.as_mut().unwrap().read(&mut buffer) {
                self.text.push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
            let end = self.text.find(what)? + what.len();
            self.text.drain(..end);
            Some(())
        });
    }

    fn hang_up(&mut self) {
        self.window = None;
    }

    fn exit_code(&mut self) -> Option<i32> {
        wait_for("the end", || self.child.try_wait().unwrap()).code()
    }
}

#[test]
fn control_c_reaches_the_command_once() {
    let script = "trap 'count=$((count+1))' INT; echo ready; while [ -z \"$count\" ]; do sleep 0.02; done; \
        sleep 0.3; echo counted $count; exit 9";
    let mut terminal = Terminal::start(&["--", "bash", "-c", script]);
    terminal.expect("ready");
    terminal.type_in("\x03");
    terminal.expect("counted 1\r\n");
    assert_eq!(terminal.exit_code(), Some(9));
}

#[test]
fn control_c_ends_a_plain_command() {
    let mut terminal = Terminal::start(&["--", "sh", "-c", "echo ready; exec sleep 1000"]);
    terminal.expect("ready");
    terminal.type_in("\x03");
    assert_eq!(terminal.exit_code(), Some(130));
}

#[test]
fn without_a_command_there_is_a_shell_with_job_control() {
    let mut terminal = Terminal::start(&[]);
    terminal.type_in("systemctl is-system-running\n");
    terminal.expect("\nrunning\r\n");
    terminal.type_in("sh -c 'echo started; exec sleep 1000'\n");
    terminal.expect("\nstarted\r\n");
    terminal.type_in("\x1a");
    terminal.expect("Stopped");
    terminal.type_in("disown -a; exit 5\n");
    assert_eq!(terminal.exit_code(), Some(5));
}

#[test]
fn a_hangup_ends_the_shell() {
    let mut terminal = Terminal::start(&[]);
    terminal.type_in("systemctl is-system-running\n");
    terminal.expect("\nrunning\r\n");
    // Only the session's leader, the sandbox itself, hears of it from the kernel.
    terminal.hang_up();
    // Either the signal or the end of its input ends the shell; the grace period must not have to (137).
    let code = terminal.exit_code();
    assert!([Some(0), Some(129)].contains(&code), "{code:?}");
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
