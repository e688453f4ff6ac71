//! Turns `supervisor_config.json` into transient systemd units and keeps them running.
//!
//! ```text
//!  JSON file -> config -> Plan --.
//!                                v
//!  systemd, probes,    --> Event --> core::Engine --> Action --> runtime --> systemd, store
//!  orders, clock                         |
//!       ^                                '--> Snapshot --> http --> cli
//!       '------------------ answers come back as Events --------'
//! ```
//!
//! `core` decides and touches nothing; the adapters (`systemd`, `probe`, `resource`, `store`, `push`, `journal`, `http`) touch the world
//! and decide nothing; `runtime` is the one loop between them.

mod atomic_file;
mod cgroup;
pub mod cli;
pub mod config;
pub mod control;
pub mod core;
mod environment_file;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
#[cfg(test)]
mod golden;
pub mod http;
pub mod import;
pub mod journal;
mod mask;
pub mod place;
pub mod probe;
mod process_tree;
pub mod push;
pub mod resource;
pub mod ring;
pub mod runtime;
#[allow(unsafe_code)]
pub mod sandbox;
mod spelling;
pub mod store;
pub mod systemd;
pub mod tls;
pub mod token;
