//! What a run of a service uses, as measured at one moment.

use std::time::Duration;

/// Figures of one run over the time since the sample before. `None`: this host cannot tell, or there is no sample
/// before to compare with.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sample {
    /// CPU time over real time; 100 is one core.
    pub cpu_percent: Option<f64>,
    /// Memory charged to the service, without the page cache that the kernel can drop at once. Bytes.
    pub memory: Option<u64>,
    /// The most it ever used in this run. Bytes.
    pub memory_peak: Option<u64>,
    /// Processes and threads.
    pub tasks: Option<u64>,
    /// Share of the CPU periods in which it was held back by its limit: 0 to 1.
    pub throttled: Option<f64>,
    /// Share of the last 10 s in which some task waited for CPU, memory or I/O: 0 to 100 (`avg10` of the kernel).
    pub pressure: Pressure,
    /// Read from block devices. Bytes per second.
    pub io_read: Option<f64>,
    /// Written to block devices. Bytes per second.
    pub io_write: Option<f64>,
    /// CPU time of this run so far.
    pub cpu_time: Option<Duration>,
    /// Read from block devices in this run so far, and written to them. Bytes.
    pub io_bytes: Option<(u64, u64)>,
    /// Processes of this run killed for want of memory so far.
    pub oom_kills: Option<u64>,
}

/// Pressure stall information: the `some avg10` figures.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    /// Of CPU.
    pub cpu: Option<f64>,
    /// Of memory.
    pub memory: Option<f64>,
    /// Of I/O.
    pub io: Option<f64>,
}

/// What the whole host has and uses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Host {
    /// Cores that are switched on.
    pub cores: usize,
    /// Of all cores together; 100 is one core.
    pub cpu_percent: f64,
    /// Bytes.
    pub memory: u64,
    /// What programs could not have. Bytes.
    pub memory_used: u64,
    /// Tasks that ran or wanted to, over the last 1, 5 and 15 minutes.
    pub load: [f64; 3],
}
