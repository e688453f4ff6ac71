//! The suites that need a real systemd. `make test` boots a private one and runs them in it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that fails says so by ending"
)]

mod daemon;
mod harness;
mod journal;
mod units;
