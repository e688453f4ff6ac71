//! `supervisor-sandbox` against the real kernel and a real systemd. Needs root, the packages systemd and dbus, and
//! cargo-nextest (each test adopts the orphans of its own process).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::zombie_processes,
    reason = "tests end where something is wrong"
)]

mod harness;

mod command;
mod host;
mod refusal;
mod systemd;
mod takedown;
mod terminal;
