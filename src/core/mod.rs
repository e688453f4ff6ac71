//! What the supervisor decides: a pure function from events to actions.
//!
//! ```text
//!   runtime (owns clock, systemd, disk)             core (owns decisions)
//!        Event: "unit exited, signal 9"   ------->   Engine::handle(now, event)
//!        Action: "start unit"             <-------   Vec<Action>
//!        sleep until                      <-------   Engine::next_deadline()
//!        readers (HTTP, CLI)              <-------   Snapshot
//! ```
//!
//! Nothing here reads a clock, a file or a socket, awaits, or draws a random number: time and randomness
//! arrive in [`Now`]. `handle` is total; an event that cannot be, or comes too late, changes nothing.

pub mod action;
pub mod alert;
mod backoff;
mod engine;
pub mod event;
mod flaps;
mod graph;
mod health;
pub mod plan;
pub mod sample;
mod service;
pub mod snapshot;
mod strain;
pub mod tally;
pub mod time;
mod timer;
mod words;

pub use engine::Engine;
pub use time::{Mono, Now, Wall};
