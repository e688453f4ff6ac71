//! What people see in a terminal of their own: `top` and `status -w`, in tmux.

use std::process::Command;

use serde_json::json;

use super::{Daemon, SOON, script, sh, sleeper, wait_for, with};

/// A terminal that runs one command. It ends with this.
struct Terminal {
    name: String,
}

impl Terminal {
    /// Runs `supervisorctl` in it, and then says how it ended.
    fn open(daemon: &Daemon, name: &str, arguments: &str) -> Self {
        let command = format!(
            "trap : INT; '{}' --socket {} {arguments}; echo ended with $?; exec sleep 1000",
            env!("CARGO_BIN_EXE_supervisorctl"),
            daemon.folder.join("runtime/supervisor.sock").display()
        );
        let terminal = Self { name: format!("supervisor-test-{name}") };
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "130", "-y", "24", &command]);
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let output =
            Command::new("tmux").args(["-L", &self.name]).args(arguments).env("LC_ALL", "C.UTF-8").output();
        let output = output.unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until a line of the screen has all of these.
    fn wait_line(&self, parts: &[&str]) -> String {
        let mut screen = String::new();
        let has = |line: &&str| parts.iter().all(|part| line.contains(part));
        wait_for(&format!("{parts:?} on the screen"), SOON, || {
            screen = self.screen();
            screen.lines().find(has).map(str::to_owned)
        })
    }

    fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let tmux = |command: &[&str]| Command::new("tmux").args(["-L", &self.name]).args(command).output();
        if let (true, Ok(screen)) = (std::thread::panicking(), tmux(&["capture-pane", "-p"])) {
            eprintln!("{}", String::from_utf8_lossy(&screen.stdout));
        }
        drop(tmux(&["kill-server"]));
    }
}

/// One that is well, one that says things, and one that is not well.
fn three(name: &str) -> Daemon {
    let id = |rest: &str| format!("{name}-{rest}");
    let daemon = Daemon::start(json!({
        id("calm"): sleeper(),
        id("talks"): with(script(r"n=0; while sleep 0.1; do n=$((n+1)); printf '\033[31mline\033[0m %s\n' $n; done"),
            json!({"groups": ["talkers"]})),
        id("ends"): with(script("exit 3"), json!({
            "critical": true, "restart_policy": {"retry_delay": 3000, "max_backoff": 3000, "jitter": 0}})),
    }));
    daemon.wait_state(&id("calm"), "running");
    daemon.wait_state(&id("talks"), "running");
    daemon.wait_state(&id("ends"), "backoff");
    daemon
}

#[test]
fn top_shows_acts_and_leaves_the_terminal_as_it_was() {
    let mut daemon = three("top");
    let terminal = Terminal::open(&daemon, "top", "top");
    terminal.wait_line(&["3 services:", "1 backoff", "2 running"]);
    let rows: Vec<usize> = ["top-ends", "top-calm", "top-talks"]
        .map(|id| terminal.screen().lines().position(|line| line.starts_with(id)).unwrap())
        .into();
    assert!(rows.is_sorted(), "trouble first: {rows:?}");
    assert!(terminal.wait_line(&["top-ends", "exited with status 3"]).contains("next try in 49 min"));

    // The log of the one that talks, and it goes on.
    terminal.press(&["/", "talkers", "Enter", "l"]);
    let first = terminal.wait_line(&[" line "]);
    wait_for("more of it", SOON, || (!terminal.screen().contains(first.trim_end())).then_some(()));
    assert!(!terminal.screen().contains("[31m"), "colours are left out");
    assert!(!terminal.screen().contains("top-calm"), "filtered");
    terminal.press(&["Escape"]);
    terminal.wait_line(&["top-calm"]);
    terminal.press(&["d"]);
    terminal.wait_line(&["unit", "supervisor-top-talks.service"]);

    // A stop is asked about, and told when it is done.
    terminal.press(&["x", "n"]);
    terminal.wait_line(&["nothing was done"]);
    assert_eq!(daemon.state("top-talks"), "running");
    terminal.press(&["x"]);
    terminal.wait_line(&["stop top-talks? y does it"]);
    terminal.press(&["y"]);
    terminal.wait_line(&["top-talks: stopped (after"]);
    terminal.wait_line(&["top-talks", "stopped", "stopped by"]);
    terminal.press(&["s"]);
    terminal.wait_line(&["top-talks is running (pid"]);

    // What happens elsewhere is seen; so is a supervisor that is gone and back.
    daemon.ok(&["stop", "top-calm"]);
    terminal.wait_line(&["top-calm", "stopped"]);
    daemon.kill();
    terminal.wait_line(&["This may be out of date"]);
    daemon.launch();
    terminal.wait_line(&["process-supervisor", "sorted by trouble"]);
    terminal.wait_line(&["top-calm", "stopped"]);

    terminal.tmux(&["resize-window", "-x", "60", "-y", "12"]);
    wait_for("a narrow picture", SOON, || (!terminal.screen().contains("UPTIME")).then_some(()));
    terminal.press(&["q"]);
    terminal.wait_line(&["ended with 0"]);
    assert!(!terminal.screen().contains("sorted by"), "the screen from before is back");
    assert_eq!(terminal.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]).trim(), "0 1");
    assert!(
        sh(&format!("stty -a < {}", terminal.tmux(&["display-message", "-p", "#{pane_tty}"]).trim()))
            .contains(" echo ")
    );
}

#[test]
fn status_is_watched() {
    let daemon = three("watch");
    let terminal = Terminal::open(&daemon, "watch", "status -w watch-calm watch-ends");
    terminal.wait_line(&["watch-calm", "running"]);
    daemon.ok(&["stop", "watch-calm"]);
    terminal.wait_line(&["watch-calm", "stopped"]);
    assert_eq!(terminal.screen().matches("NAME").count(), 1, "it is drawn over: {}", terminal.screen());
    assert!(!terminal.screen().contains("watch-talks"));
    terminal.press(&["C-c"]);
    terminal.wait_line(&["ended with 130"]);

    // Elsewhere each change is a line.
    let piped = Terminal::open(&daemon, "piped", "status --watch watch-calm | cat");
    piped.wait_line(&["watch-calm", "stopped"]);
    daemon.ok(&["start", "watch-calm"]);
    piped.wait_line(&["watch-calm: stopped -> starting"]);
    piped.wait_line(&["watch-calm: starting -> running"]);
    assert!(!piped.screen().contains("watch-talks:"));
}

#[test]
fn what_is_for_a_terminal_says_so_elsewhere() {
    let daemon = Daemon::start(json!({"terminal-none": sleeper()}));
    for (arguments, says) in [(&["top"][..], "needs a terminal"), (&["--json", "top"], "status -w --json")] {
        let output = daemon.ctl(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(says), "{error}");
    }
}
