//! What the whole host has and uses, beside which the services' totals say something.

use sysinfo::System;

use crate::core::sample::Host;

/// Measures the host. Keeps the counters of the last time, and the list of its cores.
#[derive(Debug)]
pub struct HostMeter(Option<System>);

impl HostMeter {
    /// Notes the counters to compare with.
    pub fn new() -> Self {
        let mut system = System::new().ok();
        system.iter_mut().for_each(System::refresh_cpu_usage);
        Self(system)
    }

    /// Over the time since the last call, which should be 200 ms at least: before that the CPU figure stays as it
    /// was. `None`: this host tells nothing. Reads three files.
    pub fn measure(&mut self) -> Option<Host> {
        let system = self.0.as_mut()?;
        system.refresh_cpu_usage();
        system.refresh_memory_specifics(sysinfo::MemoryRefreshKind::nothing().with_ram());
        let load = System::load_average().ok()?;
        Some(Host {
            cores: system.cpus().len(),
            cpu_percent: f64::from(system.global_cpu_usage()) * system.cpus().len() as f64,
            memory: system.total_memory(),
            memory_used: system.used_memory(),
            load: [load.one, load.five, load.fifteen],
        })
    }
}

impl Default for HostMeter {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host() {
        let mut meter = HostMeter::new();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        // Until its counters have moved: this very loop uses a core.
        loop {
            let host = meter.measure().unwrap();
            assert!(
                host.cores >= 1 && host.memory_used > 1 << 20 && host.memory_used <= host.memory,
                "{host:?}"
            );
            assert!(host.cpu_percent <= 100.0 * host.cores as f64 + 0.1, "{host:?}");
            assert!(host.load.iter().all(|load| *load >= 0.0));
            if host.cpu_percent > 1.0 {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "{host:?}");
        }
    }
}
