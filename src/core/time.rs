//! Time as the core sees it: handed in, never read.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment on the monotonic clock (`CLOCK_MONOTONIC`: since boot, standing still in a suspend).
/// Comparable between two runs of the daemon within one boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Mono(pub Duration);

/// A moment on the wall clock, in milliseconds since 1970 UTC. For showing only: no decision depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Wall(pub i64);

/// What the outside lends to one decision.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For every timer.
    pub mono: Mono,
    /// For every record.
    pub wall: Wall,
    /// How long this machine was suspended since its boot, all times together.
    pub asleep: Duration,
    /// Fresh random bits, used for jitter.
    pub entropy: u64,
}

impl Add<Duration> for Mono {
    type Output = Self;
    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by))
    }
}

impl Sub for Mono {
    type Output = Duration;
    /// How long after `earlier` this is; zero if it is not.
    fn sub(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Wall {
    type Output = Self;
    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }
}

/// A boot of the machine, and of the systemd in it: a user has another with the next session, a container with the next
/// start, on the same machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// The kernel's name for it.
    pub id: String,
    /// When systemd began, in microseconds on the monotonic clock.
    pub systemd_began: u64,
}

/// A duration as people write it: `250 ms`, `1.5 s`, `2 min 5 s`, `3 h 20 min`, `4 d 2 h`.
#[derive(Debug, Clone, Copy)]
pub struct Human(pub Duration);

impl fmt::Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.0.as_secs(), self.0.subsec_millis());
        let pair = |f: &mut fmt::Formatter<'_>, big: u64, unit: &str, small: u64, small_unit: &str| {
            if small == 0 {
                write!(f, "{big} {unit}")
            } else {
                write!(f, "{big} {unit} {small} {small_unit}")
            }
        };
        match seconds {
            0 => write!(f, "{millis} ms"),
            1..60 if millis >= 100 => write!(f, "{seconds}.{} s", millis / 100),
            1..60 => write!(f, "{seconds} s"),
            60..3600 => pair(f, seconds / 60, "min", seconds % 60, "s"),
            3600..86400 => pair(f, seconds / 3600, "h", seconds % 3600 / 60, "min"),
            _ => pair(f, seconds / 86400, "d", seconds % 86400 / 3600, "h"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        for (millis, shown) in [
            (0, "0 ms"),
            (250, "250 ms"),
            (1000, "1 s"),
            (1540, "1.5 s"),
            (20_000, "20 s"),
            (125_000, "2 min 5 s"),
            (300_000, "5 min"),
            (12_000_000, "3 h 20 min"),
            (352_800_000, "4 d 2 h"),
        ] {
            assert_eq!(Human(Duration::from_millis(millis)).to_string(), shown);
        }
    }
}
