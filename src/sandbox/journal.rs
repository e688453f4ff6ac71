//! The last lines of the private journal, for a failure report.

use std::process::{Command, Stdio};

use nix::unistd::Pid;

const LINES: &str = "20";

/// Reads the journal of the sandbox whose first process is `first`, from outside. `None` when it says nothing.
pub(super) fn tail(first: Pid) -> Option<String> {
    let output = Command::new("journalctl")
        .args(["--no-pager", "--quiet", "--output=short-monotonic", "--lines", LINES, "--directory"])
        .arg(format!("/proc/{first}/root/var/log/journal"))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (!text.is_empty()).then_some(text)
}
