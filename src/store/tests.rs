//! The store as its users see it, with everything that can befall a file.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rusqlite::Connection;

use super::testing::{entry, id, metric, record, view};
use super::*;
use crate::control::{EventQuery, History, MetricQuery};
use crate::core::action::{EntryKind, Want};
use crate::core::alert::{Alert, AlertKey, AlertKind, Severity};
use crate::core::snapshot::State;

/// For everything that is only waited for.
const LONG: Duration = Duration::from_secs(30);

/// Where what it could not write goes: in a folder that there is, whatever befalls the database.
fn aside(database: &Path) -> PathBuf {
    database.ancestors().find(|above| above.is_dir()).unwrap().join("aside")
}

/// What the store said.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Trouble>>>);

impl Told {
    fn open(&self, path: &Path) -> (Store, BTreeMap<Id, Record>) {
        let told = self.clone();
        Store::open(path, aside(path), move |trouble| told.0.lock().unwrap().push(trouble))
    }

    fn phases(&self) -> Vec<Phase> {
        self.0.lock().unwrap().iter().map(|trouble| trouble.phase).collect()
    }

    fn text(&self) -> String {
        self.0.lock().unwrap().iter().map(|trouble| format!("{trouble:?}\n")).collect()
    }

    fn wait_for(&self, phase: Phase) {
        until(&format!("{phase:?}"), || self.phases().contains(&phase));
    }
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < deadline, "never came: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn flush(store: &Store) -> bool {
    runtime().block_on(store.flushed(LONG))
}

fn close(store: Store) {
    assert!(runtime().block_on(store.close(LONG)));
}

fn events(store: &Store, query: EventQuery) -> Vec<crate::control::EventRow> {
    runtime().block_on(store.events(EventQuery { limit: 1000, ..query })).unwrap()
}

fn failed(n: usize) -> Entry {
    entry(Some("a"), EntryKind::ServiceFailed, &format!("a failed, {n}"))
}

/// One value of a question asked beside the store.
fn ask<T: rusqlite::types::FromSql>(path: &Path, sql: &str) -> T {
    let db = Connection::open(path).unwrap();
    db.query_row(sql, [], |row| row.get(0)).unwrap_or_else(|error| panic!("{sql}: {error}"))
}

#[test]
fn what_is_saved_is_there_for_the_next_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state/architect.db");
    let told = Told::default();
    let (store, records) = told.open(&path);
    assert!(records.is_empty());
    store.save(&id("a"), record(1));
    store.save(&id("a"), record(2));
    store.save(&id("b"), record(5));
    store.show(&view("a", State::Running));
    store.event(&failed(0), Wall(1_700_000_000_123));
    store.forget(&id("b"));
    assert!(flush(&store));
    // Beside the running store, as a dashboard does it.
    let row = "SELECT concat_ws('|', id, name, description, state, pid, port, start_time, restart_count,
               priority, critical, auto_restart, last_restart IS NULL, uptime_seconds > 0) FROM supervisor_services";
    assert_eq!(
        ask::<String>(&path, row),
        "a|Web|serves|running|4711|8080|2023-11-14 22:13:20.123|3|10|1|1|1|1"
    );
    assert_eq!(
        ask::<String>(&path, "SELECT datetime(timestamp) FROM supervisor_events"),
        "2023-11-14 22:13:20"
    );
    assert_eq!(ask::<i64>(&path, "SELECT details ->> 'pid' FROM supervisor_events"), 7);
    close(store);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path) & !0o640, 0, "{:o}", mode(&path));
    assert_eq!(mode(path.parent().unwrap()) & !0o750, 0);
    let (store, records) = told.open(&path);
    assert_eq!(records, BTreeMap::from([(id("a"), record(2))]));
    assert_eq!(events(&store, EventQuery::default()).len(), 1);
    assert_eq!(told.phases(), [], "{}", told.text());
}

#[test]
fn the_tables_are_those_of_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    close(Told::default().open(&path).0);
    for (table, columns) in [
        (
            "supervisor_services",
            "id TEXT, name TEXT, description TEXT, state TEXT, pid INTEGER, port INTEGER, start_time TIMESTAMP, \
             uptime_seconds INTEGER, restart_count INTEGER, last_restart TIMESTAMP, priority INTEGER, critical \
             INTEGER, auto_restart INTEGER",
        ),
        (
            "supervisor_metrics",
            "id INTEGER, service_id TEXT, timestamp TIMESTAMP, cpu_percent REAL, memory_mb REAL, health_status \
             TEXT, response_time_ms REAL, tasks INTEGER, throttled REAL",
        ),
        (
            "supervisor_events",
            "id INTEGER, service_id TEXT, event_type TEXT, timestamp TIMESTAMP, message TEXT, details TEXT",
        ),
        (
            "health_alerts",
            "id INTEGER, service_id TEXT, alert_type TEXT, severity TEXT, message TEXT, details TEXT, created_at \
             TIMESTAMP, acknowledged_at TIMESTAMP, resolved_at TIMESTAMP, supervisor_key TEXT",
        ),
    ] {
        let sql = format!("SELECT group_concat(name || ' ' || type, ', ') FROM pragma_table_info('{table}')");
        assert_eq!(ask::<String>(&path, &sql), columns);
    }
}

#[test]
fn a_file_of_schema_version_1_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    Connection::open(&path).unwrap().execute_batch(include_str!("fixtures/v1.sql")).unwrap();
    let told = Told::default();
    let (store, records) = told.open(&path);
    assert_eq!(records[&id("web")], Record { systemd_began: 0, ..record(3) });
    assert_eq!((records[&id("idle")].want, &records[&id("idle")].last_exit), (Want::StoppedByHand, &None));
    store.event(&failed(0), Wall(0));
    assert!(flush(&store));
    let rows = events(&store, EventQuery::default());
    assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), [42, 41]);
    assert_eq!((rows[1].at, &rows[1].details["signal"]), (Wall(1_700_000_000_500), &9.into()));
    assert_eq!(told.phases(), [], "{}", told.text());
}

#[test]
fn tables_of_others_stay_and_old_ones_of_ours_are_completed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let theirs = Connection::open(&path).unwrap();
    theirs
        .execute_batch(
            "PRAGMA user_version = 77;
             CREATE TABLE reports (id INTEGER, body TEXT); INSERT INTO reports VALUES (1, 'x');
             CREATE TABLE supervisor_services (id TEXT, name TEXT, owner TEXT DEFAULT 'ops', state TEXT);
             INSERT INTO supervisor_services (id, name, state) VALUES ('a', 'old', 'running'), ('b', 'b', 'fatal');
             CREATE TABLE supervisor_events (id INTEGER PRIMARY KEY, service_id, event_type, timestamp, message,
             details);
             INSERT INTO supervisor_events VALUES (5, 'a', 'weird', 'yesterday', x'ff00', 'not json'),
             (6, 7, NULL, NULL, 1.5, NULL);",
        )
        .unwrap();
    let told = Told::default();
    let (store, _) = told.open(&path);
    store.show(&view("a", State::Stopped));
    assert!(flush(&store));
    assert_eq!(ask::<i64>(&path, "PRAGMA user_version"), 77);
    assert_eq!(ask::<String>(&path, "SELECT body FROM reports"), "x");
    let row = "SELECT name || owner || port FROM supervisor_services WHERE id = 'a'";
    assert_eq!(ask::<String>(&path, row), "Webops8080");
    assert_eq!(ask::<i64>(&path, "SELECT count(*) FROM supervisor_services"), 2);
    let rows = events(&store, EventQuery::default());
    assert_eq!(rows.len(), 2);
    assert_eq!((rows[1].message.as_str(), &rows[1].details), ("\u{fffd}\0", &"not json".into()));
    assert_eq!(told.phases(), [], "{}", told.text());
}

#[test]
fn a_newer_schema_is_read_but_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let (store, _) = Told::default().open(&path);
    store.save(&id("a"), record(1));
    close(store);
    Connection::open(&path).unwrap().execute("INSERT INTO supervisor_schema VALUES (99, '')", []).unwrap();
    let told = Told::default();
    let (store, records) = told.open(&path);
    assert_eq!(records.len(), 1);
    assert_eq!(told.phases(), [Phase::Began]);
    assert!(told.text().contains("schema version 99") && told.text().contains("newer version"));
    store.save(&id("a"), record(2));
    assert!(!flush(&store));
    assert!(ask::<String>(&path, "SELECT record FROM supervisor_records").contains(r#""restart_count":1"#));
    // A person repairs it; nothing was lost.
    Connection::open(&path).unwrap().execute("DELETE FROM supervisor_schema WHERE version = 99", []).unwrap();
    told.wait_for(Phase::Ended);
    assert!(ask::<String>(&path, "SELECT record FROM supervisor_records").contains(r#""restart_count":2"#));
}

#[test]
fn an_unreadable_record_does_not_hide_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let (store, _) = Told::default().open(&path);
    store.save(&id("a"), record(1));
    close(store);
    Connection::open(&path)
        .unwrap()
        .execute_batch(
            "INSERT INTO supervisor_records VALUES ('b', '{\"state\":', ''), ('c', x'00', ''), ('../d', '{}', '');",
        )
        .unwrap();
    let told = Told::default();
    let (_store, records) = told.open(&path);
    assert_eq!(records.into_keys().collect::<Vec<_>>(), [id("a")]);
    assert_eq!(told.phases(), [Phase::Noted; 3]);
    assert!(told.text().contains("record of \\\"b\\\""), "{}", told.text());
}

#[test]
fn a_corrupt_file_is_set_aside_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    fs::write(&path, "no database at all. ".repeat(500)).unwrap();
    let told = Told::default();
    let (store, records) = told.open(&path);
    assert!(records.is_empty());
    assert_eq!(told.phases(), [Phase::Noted], "{}", told.text());
    store.save(&id("a"), record(1));
    assert!(flush(&store));
    let aside: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|file| file.to_string_lossy().contains(".corrupt-"))
        .collect();
    assert!(fs::read_to_string(&aside[0]).unwrap().starts_with("no database"));
    assert!(told.text().contains(aside[0].to_str().unwrap()));
}

#[test]
fn a_file_that_becomes_corrupt_is_replaced_by_all_that_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let (store, _) = Told::default().open(&path);
    store.save(&id("quiet"), record(4));
    close(store);
    let told = Told::default();
    let (store, _) = told.open(&path);
    // In place, so that only the content changes.
    let size = fs::metadata(&path).unwrap().len();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![0xa5; size as usize], 0).unwrap();
    let until_seen = Instant::now() + LONG;
    while told.phases().is_empty() {
        assert!(Instant::now() < until_seen);
        // A reader or the writer meets it, whichever is first.
        let _damaged = runtime().block_on(store.events(EventQuery { limit: 1, ..EventQuery::default() }));
        store.save(&id("busy"), record(1));
        flush(&store);
    }
    assert_eq!(told.phases()[0], Phase::Noted, "{}", told.text());
    store.save(&id("busy"), record(2));
    store.measured(vec![metric("busy", 1)]);
    assert!(flush(&store));
    close(store);
    assert_eq!(ask::<i64>(&path, "SELECT count(*) FROM supervisor_metrics"), 1);
    let (_store, records) = told.open(&path);
    assert_eq!(records, BTreeMap::from([(id("busy"), record(2)), (id("quiet"), record(4))]));
}

#[test]
fn a_file_that_is_deleted_is_made_anew_with_all_that_is_known() {
    for suffixes in [&["", "-wal", "-shm"][..], &[""], &["-wal", "-shm"]] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub/a.db");
        let told = Told::default();
        let (store, _) = told.open(&path);
        store.save(&id("quiet"), record(4));
        assert!(flush(&store));
        for suffix in suffixes {
            fs::remove_file(format!("{}{suffix}", path.display())).unwrap();
        }
        if suffixes.len() == 3 {
            fs::remove_dir(path.parent().unwrap()).unwrap();
        }
        store.save(&id("a"), record(1));
        assert!(flush(&store), "{}", told.text());
        assert_eq!(told.phases(), [Phase::Noted], "{suffixes:?}: {}", told.text());
        assert_eq!(ask::<i64>(&path, "SELECT count(*) FROM supervisor_records"), 2, "{suffixes:?}");
        close(store);
        assert_eq!(Told::default().open(&path).1.len(), 2, "{suffixes:?}");
    }
}

#[test]
fn a_lock_of_another_program_delays_nobody_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let told = Told::default();
    let (store, _) = told.open(&path);
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let started = Instant::now();
    for n in 0..pending::MAX_EVENTS + 100 {
        store.event(&failed(n), Wall(n as i64));
    }
    for round in 0..(pending::MAX_METRICS as i64 / 500 + 2) {
        store.measured((0..500).map(|n| metric("a", round * 500 + n)).collect());
    }
    store.save(&id("a"), record(1));
    assert!(started.elapsed() < Duration::from_secs(2), "callers were held up: {:?}", started.elapsed());
    assert!(!runtime().block_on(store.flushed(Duration::from_millis(50))));
    told.wait_for(Phase::Began);
    let started = Instant::now();
    assert!(!flush(&store), "known trouble is not waited for");
    assert!(started.elapsed() < Duration::from_secs(1));
    assert_eq!(events(&store, EventQuery::default()), [], "readers are not held up");
    other.execute_batch("ROLLBACK").unwrap();
    told.wait_for(Phase::Ended);
    assert_eq!(told.phases(), [Phase::Began, Phase::Ended], "said once");
    assert!(flush(&store));
    let count = "SELECT count(*) FROM supervisor_events WHERE event_type = 'service_failed'";
    assert_eq!(ask::<i64>(&path, count), pending::MAX_EVENTS as i64);
    let gaps = events(&store, EventQuery { kind: Some(EntryKind::DatabaseTrouble), ..EventQuery::default() });
    assert_eq!((gaps.len(), &gaps[0].details["dropped"]), (1, &100.into()), "{gaps:?}");
    let kept = "SELECT count(*) || ' from ' || min(timestamp) FROM supervisor_metrics";
    let expected = format!("{} from 1970-01-01 00:00:01.000", pending::MAX_METRICS);
    assert_eq!(ask::<String>(&path, kept), expected, "the oldest are dropped, nothing else");
    assert_eq!(ask::<i64>(&path, "SELECT count(*) FROM supervisor_records"), 1);
}

#[test]
fn latency_stays_bounded_beside_a_program_that_writes_all_the_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let told = Told::default();
    let (store, _) = told.open(&path);
    let over = Arc::new(AtomicBool::new(false));
    let hammers: Vec<_> = (0..2)
        .map(|_| {
            let (over, path) = (over.clone(), path.clone());
            thread::spawn(move || {
                let db = Connection::open(path).unwrap();
                db.busy_timeout(LONG).unwrap();
                db.execute_batch("PRAGMA synchronous = NORMAL; CREATE TABLE IF NOT EXISTS noise (x)")
                    .unwrap();
                while !over.load(Ordering::Relaxed) {
                    db.execute_batch("BEGIN IMMEDIATE; INSERT INTO noise VALUES (randomblob(2000)); COMMIT")
                        .unwrap();
                }
            })
        })
        .collect();
    let mut worst_call = Duration::ZERO;
    for n in 0..200 {
        let started = Instant::now();
        store.save(&id("a"), record(n));
        store.event(&failed(n as usize), Wall(0));
        worst_call = worst_call.max(started.elapsed());
        assert!(flush(&store), "{}", told.text());
    }
    over.store(true, Ordering::Relaxed);
    hammers.into_iter().for_each(|hammer| hammer.join().unwrap());
    // Measured: microseconds; the rest is for a loaded machine.
    assert!(worst_call < Duration::from_millis(500), "{worst_call:?}");
    assert_eq!(ask::<i64>(&path, "SELECT count(*) FROM supervisor_events"), 200);
    assert_eq!(told.phases(), [], "{}", told.text());
}

/// Runs `test` on a small disk of its own, or says why not.
fn on_small_disk(test: impl FnOnce(&Path) + Send + 'static) {
    use nix::mount::{MsFlags, mount};
    let own_mounts = thread::spawn(move || {
        let folder = tempfile::tempdir().unwrap();
        let none = None::<&str>;
        let mounted = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)
            .and_then(|()| mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none))
            .and_then(|()| {
                mount(Some("tmpfs"), folder.path(), Some("tmpfs"), MsFlags::empty(), Some("size=512k"))
            });
        match mounted {
            Ok(()) => test(folder.path()),
            Err(error) => eprintln!("skipped: a small disk needs the right to mount ({error})"),
        }
    });
    own_mounts.join().unwrap();
}

#[test]
fn a_full_disk_is_survived() {
    on_small_disk(|disk| {
        let path = disk.join("a.db");
        let told = Told::default();
        let (store, _) = told.open(&path);
        store.save(&id("a"), record(1));
        assert!(flush(&store));
        let ballast = disk.join("ballast");
        let mut filler = fs::File::create(&ballast).unwrap();
        while std::io::Write::write_all(&mut filler, &[0; 512]).is_ok() {}
        store.save(&id("a"), record(2));
        for n in 0..300 {
            store.event(&failed(n), Wall(n as i64));
            store.measured(vec![metric("a", n as i64)]);
        }
        told.wait_for(Phase::Began);
        assert!(told.text().contains("free some space"), "{}", told.text());
        assert!(!flush(&store));
        drop(filler);
        fs::remove_file(&ballast).unwrap();
        told.wait_for(Phase::Ended);
        assert_eq!(told.phases(), [Phase::Began, Phase::Ended]);
        assert_eq!(events(&store, EventQuery::default()).len(), 300);
        assert_eq!(ask::<i64>(&path, "SELECT count(*) FROM supervisor_metrics"), 300);
        close(store);
        assert_eq!(told.open(&path).1, BTreeMap::from([(id("a"), record(2))]));
    });
}

#[test]
fn a_read_only_disk_is_survived_and_its_records_are_read() {
    on_small_disk(|disk| {
        use nix::mount::{MsFlags, mount};
        let path = disk.join("a.db");
        let (store, _) = Told::default().open(&path);
        store.save(&id("a"), record(1));
        close(store);
        assert!(!disk.join("a.db-wal").exists(), "closed in good order");
        let remount =
            |flags| mount(None::<&str>, disk, None::<&str>, MsFlags::MS_REMOUNT | flags, None::<&str>);
        remount(MsFlags::MS_RDONLY).unwrap();
        let told = Told::default();
        let (store, records) = told.open(&path);
        assert_eq!(records, BTreeMap::from([(id("a"), record(1))]), "{}", told.text());
        store.save(&id("a"), record(2));
        told.wait_for(Phase::Began);
        remount(MsFlags::empty()).unwrap();
        told.wait_for(Phase::Ended);
        close(store);
        assert_eq!(told.open(&path).1, BTreeMap::from([(id("a"), record(2))]));
    });
}

#[test]
fn a_place_where_nothing_can_be_made_is_survived() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let told = Told::default();
    let (store, records) = told.open(&file.join("a.db"));
    assert!(records.is_empty());
    assert_eq!(told.phases(), [Phase::Began], "{}", told.text());
    store.save(&id("a"), record(1));
    assert!(!flush(&store));
    let answer = runtime().block_on(store.events(EventQuery { limit: 1, ..EventQuery::default() }));
    assert!(answer.unwrap_err().to_string().contains("a.db"));
    fs::remove_file(&file).unwrap();
    told.wait_for(Phase::Ended);
    assert_eq!(ask::<i64>(&file.join("a.db"), "SELECT count(*) FROM supervisor_records"), 1);
}

#[test]
fn a_row_that_the_table_refuses_does_not_hold_up_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let told = Told::default();
    let (store, _) = told.open(&path);
    Connection::open(&path)
        .unwrap()
        .execute_batch(
            "CREATE TRIGGER picky BEFORE INSERT ON supervisor_events WHEN NEW.message LIKE '%, 1'
             BEGIN SELECT RAISE(ABORT, 'not this one'); END",
        )
        .unwrap();
    (0..3).for_each(|n| store.event(&failed(n), Wall(n as i64)));
    store.save(&id("a"), record(1));
    assert!(flush(&store));
    until("it is said", || !told.phases().is_empty());
    assert!(told.text().contains("not this one"), "{}", told.text());
    assert_eq!(events(&store, EventQuery::default()).len(), 2);
}

#[test]
fn the_history_is_filtered_in_the_order_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let (store, _) = Told::default().open(&path);
    let kinds = [EntryKind::ServiceStarted, EntryKind::ServiceFailed];
    for n in 0..12 {
        let service = [Some("a"), Some("b"), None][n % 3];
        store.event(&entry(service, kinds[n % 2], &n.to_string()), Wall(n as i64 * 1000));
    }
    assert!(flush(&store));
    let all = EventQuery::default();
    for (query, expected) in [
        (EventQuery { service: Some(id("a")), ..all.clone() }, &[9, 6, 3, 0][..]),
        (EventQuery { kind: Some(EntryKind::ServiceFailed), ..all.clone() }, &[11, 9, 7, 5, 3, 1]),
        (EventQuery { since: Some(Wall(10_000)), ..all.clone() }, &[11, 10]),
        (EventQuery { before: Some(3), ..all.clone() }, &[1, 0]),
        (EventQuery { after: Some(10), ..all.clone() }, &[10, 11]),
        (EventQuery { service: Some(id("b")), before: Some(9), after: Some(3), ..all.clone() }, &[4, 7]),
        (EventQuery { service: Some(id("nobody")), ..all.clone() }, &[]),
    ] {
        let found: Vec<i64> =
            events(&store, query.clone()).iter().map(|row| row.message.parse().unwrap()).collect();
        assert_eq!(found, expected, "{query:?}");
    }
    let page = runtime().block_on(store.events(EventQuery { limit: 2, ..all })).unwrap();
    assert_eq!(page.iter().map(|row| row.id).collect::<Vec<_>>(), [12, 11]);
    assert_eq!((page[0].service.as_deref(), page[0].kind.as_str()), (None, "service_failed"));
    assert_eq!(page[0].at, Wall(11_000));
}

#[test]
fn what_is_left_is_written_when_the_last_handle_goes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let (store, _) = Told::default().open(&path);
    (0..2500).for_each(|n| store.event(&failed(n), Wall(0)));
    drop(store.clone());
    drop(store);
    until("all are written", || ask::<i64>(&path, "SELECT count(*) FROM supervisor_events") == 2500);
}

const CHILD: &str = "STORE_TEST_FILE";

/// Not a test of its own: the process that the next one kills.
#[test]
#[ignore = "run by the test that kills it"]
fn child_that_is_killed() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let (store, _) = Told::default().open(Path::new(&path));
    let runtime = runtime();
    for n in 1.. {
        store.save(&id("a"), record(n));
        store.event(&failed(n as usize), Wall(0));
        assert!(runtime.block_on(store.flushed(LONG)));
        println!("\nflushed {n}");
    }
}

#[test]
fn nothing_flushed_is_lost_by_sigkill() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let mut before = 0;
    for round in 0..5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::child_that_is_killed", "--ignored", "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut flushed =
            lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("flushed ")?.parse().ok());
        let mut last: u64 = flushed.by_ref().nth(20 + 37 * round).unwrap();
        child.kill().unwrap();
        // What it had said by then counts too.
        last = flushed.last().unwrap_or(last);
        child.wait().unwrap();
        let told = Told::default();
        let (store, records) = told.open(&path);
        assert!(records[&id("a")].restart_count >= last, "{records:?} after {last}");
        let rows: i64 = ask(&path, "SELECT count(*) FROM supervisor_events");
        assert!(rows >= before + last as i64, "{rows} rows after {before} and {last}");
        before = rows;
        assert_eq!(told.phases(), [], "{}", told.text());
        close(store);
    }
}

fn alert(service: Option<&str>, message: &str) -> Alert {
    Alert {
        key: AlertKey { service: service.map(id), kind: AlertKind::Down, raised: Wall(1_700_000_000_123) },
        severity: Severity::Error,
        message: message.into(),
        details: [("since_ms", 1_700_000_000_123_i64.into()), ("attempt", 2.into())].into(),
    }
}

fn alerts(store: &Store, all: bool) -> Vec<crate::control::AlertRow> {
    let query = crate::control::AlertQuery { all, limit: 100, ..Default::default() };
    runtime().block_on(store.alerts(query)).unwrap()
}

#[test]
fn an_alert_is_one_row_from_its_beginning_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let told = Told::default();
    let (store, _) = told.open(&path);
    let foreign = "INSERT INTO health_alerts (service_id, alert_type, message, details)
                   VALUES ('x', 'theirs', 'm', 'no json')";
    assert!(flush(&store));
    Connection::open(&path).unwrap().execute(foreign, []).unwrap();
    let first = alert(Some("a"), "a is down");
    store.alert(first.clone());
    assert!(flush(&store));
    store.alert(alert(Some("a"), "a is down for good"));
    store.alert_detail(first.key.clone(), "log", serde_json::json!(["line"]));
    assert!(flush(&store));
    let rows = alerts(&store, false);
    assert_eq!(rows.len(), 2, "{rows:#?}");
    assert_eq!((rows[0].kind.as_str(), rows[0].message.as_str()), ("down", "a is down for good"));
    let details = serde_json::json!({"since": "2023-11-14T22:13:20.123Z", "attempt": 2, "log": ["line"]});
    assert_eq!(rows[0].details, details);
    assert_eq!(rows[1].details, "no json");
    // The next daemon finds its own, and only those.
    close(store);
    let (store, _) = told.open(&path);
    assert_eq!(store.open_alerts(), std::slice::from_ref(&first.key));
    store.acknowledge(rows[0].id, Wall(5));
    store.acknowledge(rows[0].id, Wall(6));
    store.alert_resolved(first.key.clone(), "it runs again", Wall(1_700_000_060_000));
    assert!(flush(&store));
    assert_eq!(alerts(&store, false).len(), 1, "theirs");
    let rows = alerts(&store, true);
    assert_eq!(rows[1].acknowledged_at, Some(Wall(5)));
    assert_eq!(rows[1].resolved_at, Some(Wall(1_700_000_060_000)));
    assert_eq!(rows[1].details["resolution"], "it runs again");
    close(store);
    assert_eq!(told.open(&path).0.open_alerts(), []);
    let theirs = "SELECT count(*) FROM health_alerts WHERE alert_type = 'theirs' AND details = 'no json'
                  AND supervisor_key IS NULL AND resolved_at IS NULL";
    assert_eq!(ask::<i64>(&path, theirs), 1);
}

#[test]
fn open_alerts_are_written_anew_when_the_file_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let (store, _) = Told::default().open(&path);
    store.alert(alert(Some("a"), "a is down"));
    store.alert(alert(None, "over"));
    store.alert_resolved(alert(None, "").key, "it works again", Wall(2));
    assert!(flush(&store));
    fs::remove_file(&path).unwrap();
    store.event(&failed(1), Wall(1));
    assert!(flush(&store));
    let rows = alerts(&store, true);
    assert_eq!(rows.iter().map(|row| row.message.as_str()).collect::<Vec<_>>(), ["a is down"]);
}

#[test]
fn what_is_older_than_its_days_goes_when_it_is_quiet() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let told = Told::default();
    let (store, _) = told.open(&path);
    let (now, day) = (writer::now().0, 86_400_000);
    let old = retention::STEP * 3;
    store.measured((0..old).map(|n| metric("a", now - 9 * day + n)).collect());
    store.measured((0..10).map(|n| metric("a", now - day + n)).collect());
    store.event(&failed(1), Wall(now - 9 * day));
    store.event(&failed(2), Wall(now));
    let count =
        "SELECT (SELECT count(*) FROM supervisor_metrics) || ' ' || (SELECT count(*) FROM supervisor_events)";
    until("all rows", || ask::<String>(&path, count) == format!("{} 2", old + 10));
    store.retain(8);
    store.save(&id("a"), record(1));
    until("only the young ones", || ask::<String>(&path, count) == "10 1");
    assert_eq!(events(&store, EventQuery::default())[0].message, "a failed, 2");
    let query = MetricQuery { service: id("a"), since: Wall(now - 2 * day), until: Wall(now), points: 5 };
    let points = runtime().block_on(store.metrics(query)).unwrap();
    assert_eq!(points.iter().map(|point| point.samples).sum::<u64>(), 10);
    assert_eq!(told.phases(), [], "{}", told.text());
}

#[test]
fn what_is_older_than_its_days_goes_where_it_is_never_quiet() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let (store, _) = Told::default().open(&path);
    let (now, day) = (writer::now().0, 86_400_000);
    store.measured((0..retention::STEP * 3).map(|n| metric("a", now - 9 * day + n)).collect());
    assert!(flush(&store));
    let busy = store.clone();
    // Until this process ends.
    thread::spawn(move || {
        loop {
            busy.save(&id("a"), record(1));
        }
    });
    thread::sleep(Duration::from_millis(100));
    store.retain(8);
    let count = "SELECT count(*) FROM supervisor_metrics";
    until("only the young ones", || ask::<i64>(&path, count) == 0);
}

#[test]
fn what_is_handed_in_together_is_written_together() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let store = Told::default().open(&path).0;
    assert!(flush(&store));
    let rows = Connection::open(&path).unwrap();
    let events =
        || -> u32 { rows.query_row("SELECT count(*) FROM supervisor_events", [], |row| row.get(0)).unwrap() };
    let together = store.together();
    store.event(&entry(Some("a"), EntryKind::ServiceStarted, "one"), Wall(1));
    // Long enough for a writer that does not wait for the rest.
    assert!(!runtime().block_on(store.flushed(Duration::from_millis(200))));
    assert_eq!(events(), 0);
    store.save(&id("a"), record(1));
    drop(together);
    assert!(flush(&store));
    assert_eq!(events(), 1);
}
