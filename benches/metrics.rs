//! What metrics cost: a round of measuring 500 services, and a day of one service out of a month of 100 services.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a measurement is for reading, and ends where it fails"
)]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use process_supervisor::control::{History as _, MetricQuery};
use process_supervisor::core::event::InvocationId;
use process_supervisor::core::plan::Id;
use process_supervisor::core::{Mono, Wall};
use process_supervisor::resource::{Meter, Target};
use process_supervisor::store::Store;

fn main() {
    sampling();
    series();
}

fn id(n: u32) -> Id {
    Id::new(&format!("service-{n:03}")).expect("an id")
}

/// A copy of what the kernel shows of 500 services in the unified hierarchy.
fn sampling() {
    const SERVICES: u32 = 500;
    const FIRST_PID: u32 = 5_000_000;
    let host = tempfile::tempdir().unwrap();
    let root = host.path();
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let mount = format!("30 29 0:1 / {}/cg rw - cgroup2 cgroup2 rw\n", root.display());
    write("proc/self/mountinfo", &mount);
    let stat: String = (0..45).map(|n| format!("some_counter_of_memory_{n} 123456789\n")).collect();
    let pressure = "some avg10=0.12 avg60=0.05 avg300=0.00 total=123456\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n";
    for n in 0..SERVICES {
        let unit = format!("supervisor.slice/supervisor-{}.service", id(n));
        write(&format!("proc/{}/cgroup", FIRST_PID + n), &format!("0::/{unit}\n"));
        for (name, text) in [
            (
                "cpu.stat",
                "usage_usec 123456\nuser_usec 1\nsystem_usec 1\nnr_periods 10\nnr_throttled 1\nthrottled_usec 5\n",
            ),
            ("memory.current", "52428800\n"),
            ("memory.stat", &format!("anon 1\nfile 2\n{stat}inactive_file 4096\n")),
            ("memory.peak", "62428800\n"),
            ("memory.events", "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n"),
            ("pids.current", "5\n"),
            ("io.stat", "8:0 rbytes=4096 wbytes=4096 rios=1 wios=1 dbytes=0 dios=0\n"),
            ("cpu.pressure", pressure),
            ("memory.pressure", pressure),
            ("io.pressure", pressure),
        ] {
            write(&format!("cg/{unit}/{name}"), text);
        }
    }
    let target = |n: u32| Target {
        service: id(n),
        invocation: InvocationId(u128::from(n)),
        pid: FIRST_PID + n,
        counted_from: None,
    };
    let targets: Vec<Target> = (0..SERVICES).map(target).collect();
    let mut meter = Meter::at(&root.join("proc"));
    let mut times = Vec::new();
    for round in 0..21 {
        let begun = Instant::now();
        let samples = meter.round(&targets, Mono(Duration::from_secs(30 * round)));
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        assert_eq!(samples.len(), targets.len());
    }
    println!(
        "sampling: {SERVICES} services, 10 files each: {:.1} ms a round (first, which finds the groups: {:.1} ms)",
        median(&mut times[1..].to_vec()),
        times[0]
    );
}

/// A month of 100 services at 30 s: 8.6 million rows.
fn series() {
    const DAY: i64 = 86_400_000;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("architect.db");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let open = || Store::open(&path, folder.path().join("aside"), |trouble| panic_on(&trouble.message)).0;
    runtime.block_on(open().close(Duration::from_secs(60)));
    let rows = fill(&path);
    let bytes = fs::metadata(&path).unwrap().len();
    println!(
        "growth: {:.0} bytes a row, {:.0} KiB a service and day at 30 s",
        bytes as f64 / rows as f64,
        bytes as f64 / rows as f64 * 2880.0 / 1024.0
    );
    let store = open();
    let mut times = Vec::new();
    for n in 0..20u32 {
        let until = Wall((30 - i64::from(n)) * DAY);
        let query = MetricQuery { service: id(n * 5), since: Wall(until.0 - DAY), until, points: 300 };
        let begun = Instant::now();
        let points = runtime.block_on(store.metrics(query)).expect("a series");
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        assert!(points.len() <= 300 && points.iter().map(|point| point.samples).sum::<u64>() == 2880);
    }
    let worst = times.iter().copied().fold(0.0, f64::max);
    println!(
        "series: 24 h of one service at 300 points, {rows} rows: {:.1} ms (median of 20, worst {worst:.1} ms; goal 20 ms)",
        median(&mut times)
    );
}

#[expect(clippy::panic, reason = "trouble with the database makes the figures worthless")]
fn panic_on(message: &str) {
    panic!("{message}");
}

/// The rows as the rounds write them, one service after the other at each moment.
fn fill(path: &Path) -> i64 {
    let db = rusqlite::Connection::open(path).unwrap();
    db.execute_batch("PRAGMA synchronous = OFF; PRAGMA cache_size = -262144;").unwrap();
    let rows = 100 * 2880 * 30;
    db.execute(
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1)
         INSERT INTO supervisor_metrics (service_id, timestamp, cpu_percent, memory_mb, health_status,
             response_time_ms, tasks, throttled)
         SELECT format('service-%03d', i % 100), strftime('%Y-%m-%d %H:%M:%f', i / 100 * 30, 'unixepoch'),
             i % 997 / 10.0, 100 + i % 89 / 7.0, 'healthy', i % 13 / 3.0, 4, 0.0 FROM n",
        [rows],
    )
    .unwrap();
    drop(db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())));
    rows
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
