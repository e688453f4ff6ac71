//! The files of a run's groups, read into one buffer that is used again and again.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::groups::Groups;
use super::parse;
use crate::core::sample::Sample;

/// Bytes of a file that are read. `memory.stat`, the longest, has some 1500; `io.stat` a hundred for each device.
const LONGEST: usize = 64 << 10;
/// The kernel fills its answer up to the end of the last line that fits in a page; less than this is the end.
const SHORT: usize = 2 << 10;

/// What only ever grows in a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counters {
    /// CPU time.
    pub cpu: Option<Duration>,
    /// CPU periods, and those in which the run was held back.
    pub periods: Option<(u64, u64)>,
    /// Bytes read and written.
    pub io: Option<(u64, u64)>,
}

impl Counters {
    /// Those of a run that begins.
    pub fn zero() -> Self {
        Self { cpu: Some(Duration::ZERO), periods: Some((0, 0)), io: Some((0, 0)) }
    }

    /// Fills in what these say over the time `took` since `before`. A counter that went back was begun anew, and
    /// says nothing this time.
    pub fn rates(&self, before: &Self, took: Duration, sample: &mut Sample) {
        let took = took.as_secs_f64();
        if let (Some(now), Some(then)) = (self.cpu, before.cpu) {
            sample.cpu_percent = now.checked_sub(then).map(|used| used.as_secs_f64() / took * 100.0);
        }
        if let (Some((all, held)), Some((all_then, held_then))) = (self.periods, before.periods)
            && let (Some(all), Some(held)) = (all.checked_sub(all_then), held.checked_sub(held_then))
        {
            // No period at all: nothing ran, and nothing was held back.
            sample.throttled = Some(if all == 0 { 0.0 } else { (held as f64 / all as f64).min(1.0) });
        }
        if let (Some((read, written)), Some((read_then, written_then))) = (self.io, before.io) {
            let rate = |now: u64, then: u64| now.checked_sub(then).map(|bytes| bytes as f64 / took);
            (sample.io_read, sample.io_write) = (rate(read, read_then), rate(written, written_then));
        }
    }
}

/// The files, as bits of [`Groups::missing`].
#[derive(Clone, Copy)]
enum Name {
    CpuStat,
    CpuUsage,
    Throttled,
    Memory,
    MemoryStat,
    Peak,
    Oom,
    Tasks,
    Io,
    CpuPressure,
    MemoryPressure,
    IoPressure,
}

/// Reads; holds nothing but its buffers.
#[derive(Debug, Default)]
pub(super) struct Reader {
    path: PathBuf,
    text: Vec<u8>,
}

impl Reader {
    /// Fills in what the files say at this moment, and gives the counters. v1 is asked where there is one: in a
    /// hybrid layout the unified hierarchy has no controllers, only pressure and CPU time.
    pub fn read(&mut self, groups: &mut Groups, sample: &mut Sample) -> Counters {
        let mut counters = Counters::default();
        let mut at = Files { reader: self, missing: &mut groups.missing };
        let unified = groups.unified.as_deref();
        if let Some(folder) = groups.cpuacct.as_deref() {
            counters.cpu =
                at.read(folder, Name::CpuUsage, "cpuacct.usage", parse::number).map(Duration::from_nanos);
        }
        if let Some(folder) = unified {
            let both = |text: &[u8]| Some((parse::keyed(text, b"usage_usec"), periods(text)));
            let (used, periods) = at.read(folder, Name::CpuStat, "cpu.stat", both).unwrap_or_default();
            counters.cpu = counters.cpu.or(used.map(Duration::from_micros));
            counters.periods = periods;
        }
        if let Some(folder) = groups.cpu.as_deref() {
            counters.periods = at.read(folder, Name::Throttled, "cpu.stat", periods).or(counters.periods);
        }
        match (groups.memory.as_deref(), unified) {
            (Some(folder), _) => at.memory_v1(folder, sample),
            (None, Some(folder)) => at.memory_v2(folder, sample),
            (None, None) => {}
        }
        if let Some(folder) = groups.pids.as_deref().or(unified) {
            sample.tasks = at.read(folder, Name::Tasks, "pids.current", parse::number);
        }
        counters.io = match (groups.blkio.as_deref(), unified) {
            (Some(folder), _) => {
                at.read(folder, Name::Io, "blkio.throttle.io_service_bytes", |text| Some(parse::io_v1(text)))
            }
            (None, Some(folder)) => at.read(folder, Name::Io, "io.stat", |text| Some(parse::io_v2(text))),
            (None, None) => None,
        };
        if let Some(folder) = unified {
            let pressure = &mut sample.pressure;
            pressure.cpu = at.read(folder, Name::CpuPressure, "cpu.pressure", parse::pressure);
            pressure.memory = at.read(folder, Name::MemoryPressure, "memory.pressure", parse::pressure);
            pressure.io = at.read(folder, Name::IoPressure, "io.pressure", parse::pressure);
        }
        groups.bare = counters.cpu.is_none() || sample.memory.is_none();
        counters
    }
}

fn periods(text: &[u8]) -> Option<(u64, u64)> {
    Some((parse::keyed(text, b"nr_periods")?, parse::keyed(text, b"nr_throttled")?))
}

struct Files<'a> {
    reader: &'a mut Reader,
    missing: &'a mut u32,
}

impl Files<'_> {
    fn memory_v1(&mut self, folder: &Path, sample: &mut Sample) {
        let used = self.read(folder, Name::Memory, "memory.usage_in_bytes", parse::number);
        let cache = |text: &[u8]| parse::keyed(text, b"total_inactive_file");
        let cache = self.read(folder, Name::MemoryStat, "memory.stat", cache).unwrap_or(0);
        sample.memory = used.map(|used| used.saturating_sub(cache));
        sample.memory_peak = self.read(folder, Name::Peak, "memory.max_usage_in_bytes", parse::number);
        let kills = |text: &[u8]| parse::keyed(text, b"oom_kill");
        sample.oom_kills = self.read(folder, Name::Oom, "memory.oom_control", kills);
    }

    fn memory_v2(&mut self, folder: &Path, sample: &mut Sample) {
        let used = self.read(folder, Name::Memory, "memory.current", parse::number);
        let cache = |text: &[u8]| parse::keyed(text, b"inactive_file");
        let cache = self.read(folder, Name::MemoryStat, "memory.stat", cache).unwrap_or(0);
        sample.memory = used.map(|used| used.saturating_sub(cache));
        sample.memory_peak = self.read(folder, Name::Peak, "memory.peak", parse::number);
        let kills = |text: &[u8]| parse::keyed(text, b"oom_kill");
        sample.oom_kills = self.read(folder, Name::Oom, "memory.events", kills);
    }

    /// What `parse` makes of a file. One that is not there is not tried again in this run.
    fn read<T>(
        &mut self,
        folder: &Path,
        name: Name,
        file: &str,
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> Option<T> {
        let bit = 1 << name as u32;
        if *self.missing & bit != 0 {
            return None;
        }
        let Reader { path, text } = &mut *self.reader;
        path.clear();
        path.push(folder);
        path.push(file);
        match fill(path, text) {
            Ok(text) => parse(text),
            Err(error) => {
                // Pressure may be switched off by the kernel's command line: then the files are there and cannot
                // be opened.
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unsupported) {
                    *self.missing |= bit;
                }
                None
            }
        }
    }
}

/// Reads at most [`LONGEST`] bytes. One call is enough for nearly all of these files: the kernel gives a short file
/// whole, and a short answer that ends with its line is all of it. 5,000 calls less for 500 services.
fn fill<'a>(path: &Path, text: &'a mut Vec<u8>) -> std::io::Result<&'a [u8]> {
    let mut file = File::open(path)?;
    // Once; what an earlier file left behind is not looked at.
    text.resize(LONGEST, 0);
    let mut filled = 0;
    while let Some(room) = text.get_mut(filled..).filter(|room| !room.is_empty()) {
        match file.read(room) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if filled < SHORT && text.get(filled - 1) == Some(&b'\n') {
            break;
        }
    }
    Ok(text.get(..filled).unwrap_or_default())
}
