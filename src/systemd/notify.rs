//! Messages to the systemd that runs this daemon. Without one (`NOTIFY_SOCKET` unset) nothing is sent.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::debug;

/// The daemon does what it is there for.
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// One line for `systemctl status`.
pub fn status(text: &str) {
    send(&[NotifyState::Status(text)]);
}

/// The configuration is being read again; ends with [`ready`].
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => {
            send(&[NotifyState::Reloading, now]);
        }
        Err(error) => debug!(%error, "no monotonic time for RELOADING=1"),
    }
}

/// The daemon is on its way out.
pub fn stopping(status: &str) {
    send(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// The loop is alive. To be sent from the loop itself, else it says nothing. `false` if it could not be sent: that takes
/// a free descriptor.
pub fn alive() -> bool {
    send(&[NotifyState::Watchdog])
}

/// How often [`alive`] has to be called: half of what systemd allows; `None` where it does not watch.
pub fn alive_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|allowed| allowed / 2)
}

fn send(state: &[NotifyState<'_>]) -> bool {
    let sent = sd_notify::notify(state);
    if let Err(error) = &sent {
        debug!(%error, "systemd could not be notified");
    }
    sent.is_ok()
}
