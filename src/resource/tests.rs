//! Rounds over copied trees of each layout, and over this very process.

use std::fs;
use std::path::PathBuf;

use super::*;

/// A made-up host: `proc` and the hierarchies that its mountinfo names.
struct Host(tempfile::TempDir);

const UNIT: &str = "supervisor.slice/supervisor-web.service";
/// Above what the kernel gives to processes: the real host has none of this number.
const NOBODY: u32 = 4_194_305;

impl Host {
    fn new(mounts: &[(&str, &str, &str)], cgroup: &str) -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        let line = |(point, kind, options): &(&str, &str, &str)| {
            format!(
                "30 29 0:1 / {}/{point} rw,nosuid - {kind} {kind} rw,{options}\n",
                host.0.path().display()
            )
        };
        host.write("proc/self/mountinfo", &mounts.iter().map(line).collect::<String>());
        host.write(&format!("proc/{NOBODY}/cgroup"), cgroup);
        host
    }

    fn unified() -> Self {
        Self::new(&[("cg", "cgroup2", "nsdelegate")], &format!("0::/{UNIT}/inner\n"))
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn meter(&self) -> Meter {
        Meter::at(&self.path("proc"))
    }
}

fn target() -> Target {
    Target { service: Id::new("web").unwrap(), invocation: InvocationId(1), pid: NOBODY, counted_from: None }
}

fn at(seconds: u64) -> Mono {
    Mono(Duration::from_secs(seconds))
}

fn only(samples: BTreeMap<Id, (InvocationId, Sample)>) -> Sample {
    assert_eq!(samples.len(), 1, "{samples:?}");
    samples.into_values().next().unwrap().1
}

fn near(value: Option<f64>, expected: f64) {
    assert!(value.is_some_and(|value| (value - expected).abs() < 1e-6), "{value:?} is not {expected}");
}

#[test]
fn the_unified_hierarchy() {
    let host = Host::unified();
    let file = |name: &str| format!("cg/{UNIT}/{name}");
    host.write(&file("cpu.stat"), "usage_usec 1000000\nnr_periods 10\nnr_throttled 5\n");
    host.write(&file("memory.current"), "5000\n");
    host.write(&file("memory.stat"), "anon 1\ninactive_file 1000\n");
    host.write(&file("memory.peak"), "9000\n");
    host.write(&file("memory.events"), "oom 3\noom_kill 2\n");
    host.write(&file("pids.current"), "4\n");
    host.write(&file("io.stat"), "8:0 rbytes=100 wbytes=200 rios=1 wios=1\n");
    host.write(&file("cpu.pressure"), "some avg10=1.50 avg60=0.00 avg300=0.00 total=0\n");
    let mut meter = host.meter();
    let first = only(meter.round(&[target()], at(100)));
    assert_eq!((first.memory, first.memory_peak, first.tasks), (Some(4000), Some(9000), Some(4)));
    assert_eq!((first.oom_kills, first.pressure.cpu, first.pressure.io), (Some(2), Some(1.5), None));
    assert_eq!((first.cpu_percent, first.throttled, first.io_read), (None, None, None), "no sample before");
    host.write(&file("cpu.stat"), "usage_usec 16000000\nnr_periods 30\nnr_throttled 20\n");
    host.write(&file("io.stat"), "8:0 rbytes=1100 wbytes=200\n8:16 rbytes=1000 wbytes=0\n");
    // More cache than is charged: both are read one after the other.
    host.write(&file("memory.stat"), "inactive_file 6000\n");
    let second = only(meter.round(&[target()], at(110)));
    near(second.cpu_percent, 150.0);
    near(second.throttled, 0.75);
    near(second.io_read, 200.0);
    near(second.io_write, 0.0);
    assert_eq!(second.memory, Some(0));
    assert_eq!((second.cpu_time, second.io_bytes), (Some(Duration::from_secs(16)), Some((2100, 200))));
    // Another run begins anew, and counters that went back say nothing.
    host.write(&file("cpu.stat"), "usage_usec 5\nnr_periods 0\nnr_throttled 0\n");
    assert_eq!(only(meter.round(&[target()], at(120))).cpu_percent, None);
    let next = Target { invocation: InvocationId(2), counted_from: Some(at(129)), ..target() };
    host.write(&file("cpu.stat"), "usage_usec 500000\nnr_periods 0\nnr_throttled 0\n");
    let sample = only(meter.round(&[next], at(130)));
    near(sample.cpu_percent, 50.0);
    near(sample.throttled, 0.0);
    assert!(meter.round(&[], at(140)).is_empty());
    assert!(meter.runs.is_empty(), "forgotten with the run");
}

#[test]
fn one_hierarchy_per_controller_and_the_hybrid() {
    let host = Host::new(
        &[
            ("memory", "cgroup", "memory"),
            ("cpu", "cgroup", "cpu"),
            ("cpuacct", "cgroup", "cpuacct"),
            ("pids", "cgroup", "pids"),
            ("blkio", "cgroup", "blkio"),
            ("unified", "cgroup2", "nsdelegate"),
        ],
        &format!(
            "9:name=systemd:/{UNIT}\n8:pids:/{UNIT}\n7:blkio:/{UNIT}\n4:memory:/{UNIT}\n2:cpuacct:/\n1:cpu:/{UNIT}\n0::/{UNIT}\n"
        ),
    );
    host.write(&format!("memory/{UNIT}/memory.usage_in_bytes"), "7000\n");
    host.write(&format!("memory/{UNIT}/memory.stat"), "inactive_file 1\ntotal_inactive_file 2000\n");
    host.write(&format!("memory/{UNIT}/memory.max_usage_in_bytes"), "8000\n");
    host.write(&format!("memory/{UNIT}/memory.oom_control"), "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n");
    host.write(&format!("pids/{UNIT}/pids.current"), "3\n");
    host.write(
        &format!("blkio/{UNIT}/blkio.throttle.io_service_bytes"),
        "8:0 Read 10\n8:0 Write 20\nTotal 30\n",
    );
    host.write(&format!("cpu/{UNIT}/cpu.stat"), "nr_periods 4\nnr_throttled 3\nthrottled_time 9\n");
    // All of the host: not this run's.
    host.write("cpuacct/cpuacct.usage", "999999999999\n");
    host.write(&format!("unified/{UNIT}/cpu.stat"), "usage_usec 2000000\n");
    host.write(
        &format!("unified/{UNIT}/memory.pressure"),
        "some avg10=0.25 avg60=0.00 avg300=0.00 total=0\n",
    );
    let run = Target { counted_from: Some(at(96)), ..target() };
    let sample = only(host.meter().round(&[run], at(100)));
    assert_eq!((sample.memory, sample.memory_peak, sample.tasks), (Some(5000), Some(8000), Some(3)));
    assert_eq!((sample.oom_kills, sample.pressure.memory), (Some(1), Some(0.25)));
    near(sample.cpu_percent, 50.0);
    near(sample.throttled, 0.75);
    near(sample.io_write, 5.0);
}

#[test]
fn garbage_and_nothing_do_no_harm() {
    let host = Host::unified();
    for name in ["cpu.stat", "memory.current", "memory.stat", "io.stat", "cpu.pressure", "pids.current"] {
        host.write(&format!("cg/{UNIT}/{name}"), "\0\u{fffd} max\n=\nusage_usec x\nrbytes=\n");
    }
    assert_eq!(host.meter().round(&[target()], at(1)).len(), 1, "an empty io.stat is zero");
    fs::remove_dir_all(host.path("cg")).unwrap();
    assert_eq!(host.meter().round(&[target()], at(1)), BTreeMap::new(), "the run is over");
    fs::remove_dir_all(host.path("proc")).unwrap();
    assert_eq!(host.meter().round(&[target()], at(1)), BTreeMap::new());
}

#[test]
fn without_groups_the_processes_are_added_up() {
    let host = Host::new(&[], "0::/user.slice/session-1.scope\n");
    let mut meter = host.meter();
    let own = Target { pid: std::process::id(), ..target() };
    let first = only(meter.round(std::slice::from_ref(&own), at(10)));
    assert!(first.memory.is_some_and(|bytes| bytes > 100_000), "{first:?}");
    // Until the CPU time of this process has grown, as it must.
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    for round in 11.. {
        let mut sum = 0u64;
        for n in 0..20_000_000u64 {
            sum = std::hint::black_box(sum.wrapping_add(n));
        }
        let sample = only(meter.round(std::slice::from_ref(&own), at(round)));
        if sample.cpu_percent.is_some_and(|percent| percent > 0.0) {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{sample:?}");
    }
}
