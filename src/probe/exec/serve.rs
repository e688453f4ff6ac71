//! For a supervisor that may not become another user nor enter a cgroup: starts a helper for whoever connects.
//!
//! It decides nothing and reads nothing that comes over the connection, which becomes the helper's standard input and
//! output. Who may connect is said by the socket's mode: its owner alone.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};

use super::Answer;
use crate::probe::OWN_BINARY;

/// Without a check it ends; the next one has it started again.
const IDLE: Duration = Duration::from_secs(300);

/// Serves until there is nothing to do.
pub(super) fn run() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(serve())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _unheard = writeln!(io::stderr(), "exec checks cannot be served on standard input: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> io::Result<()> {
    let listener = std::os::unix::net::UnixListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    while let Ok(accepted) = tokio::time::timeout(IDLE, listener.accept()).await {
        // systemd starts us again for those who wait.
        help(accepted?.0);
    }
    Ok(())
}

/// Starts a helper, or says why there is none.
fn help(stream: UnixStream) {
    let Ok(mut stream) = stream.into_std() else { return };
    let started = stream
        .set_nonblocking(false)
        .and_then(|()| stream.try_clone())
        .and_then(|theirs| super::start(Path::new(OWN_BINARY), OwnedFd::from(theirs)));
    if let Err(error) = started {
        let answer: Answer = Err(format!("its helper: {error}"));
        let text = serde_json::to_vec(&answer).unwrap_or_default();
        // A few bytes, which the socket takes at once; whoever asked may be gone.
        let _unheard = stream.write_all(&text);
    }
}
