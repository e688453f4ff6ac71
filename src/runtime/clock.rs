//! The clocks and the dice that the core is not allowed to have.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use crate::core::time::Boot;
use crate::core::{Mono, Now, Wall};

/// Reads the clocks and draws 64 random bits.
pub fn now() -> Now {
    let mono = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    let with_sleep = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Now {
        mono: Mono(mono),
        wall: Wall(i64::try_from(wall.as_millis()).unwrap_or(i64::MAX)),
        asleep: with_sleep.saturating_sub(mono),
        entropy: RandomState::new().hash_one(mono),
    }
}

/// The moment on tokio's clock, which is the same clock with another origin.
pub fn instant(at: Mono) -> Instant {
    Instant::now() + (at - now().mono)
}

/// This boot of the machine.
pub fn boot(systemd_began: u64) -> Boot {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    Boot { id: id.map_or_else(|_| "unknown".into(), |id| id.trim().into()), systemd_began }
}
