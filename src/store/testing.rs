//! Values for the tests of this folder.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::control::MetricRow;
use crate::core::action::{AfterStop, Entry, EntryKind, Level, Record, Want};
use crate::core::event::{Exit, ExitResult, InvocationId};
use crate::core::plan::{Id, ServicePlan};
use crate::core::snapshot::{Health, ServiceView, State};
use crate::core::{Mono, Wall};

pub fn id(text: &str) -> Id {
    Id::new(text).unwrap()
}

pub fn record(restart_count: u64) -> Record {
    Record {
        boot_id: "9b0f2c9e-6d0e-4c8a-9f5e-3d8f0a1b2c3d".into(),
        systemd_began: 24_964_350_767,
        state: State::Backoff,
        want: Want::Up,
        enabled: true,
        was_ready: true,
        restarting: false,
        after_stop: AfterStop::Rest,
        attempt: 2,
        restart_count,
        last_restart: Some(Wall(1_700_000_000_123)),
        invocation: Some(InvocationId(0xfeed)),
        ended: Some(InvocationId(0xfeed)),
        started: Some((Mono(Duration::from_secs(1)), Wall(1_700_000_000_000))),
        entered: (Mono(Duration::from_millis(1500)), Wall(1_700_000_000_500)),
        retry_at: Some((Mono(Duration::from_secs(20)), Wall(1_700_000_019_000))),
        last_exit: Some((
            Exit { code: None, signal: Some(9), result: ExitResult::OomKill },
            Wall(1_700_000_000_500),
        )),
        reason: "killed by the kernel for want of memory".into(),
        turns: Vec::new(),
        flapping: None,
    }
}

pub fn entry(service: Option<&str>, kind: EntryKind, message: &str) -> Entry {
    Entry {
        service: service.map(id),
        kind,
        level: Level::Info,
        message: message.into(),
        details: BTreeMap::from([("pid", 7.into())]),
    }
}

pub fn metric(service: &str, at: i64) -> MetricRow {
    MetricRow {
        service: id(service),
        at: Wall(at),
        cpu_percent: Some(12.5),
        memory_mb: Some(100.0),
        health: Some(Health::Healthy),
        response_time_ms: Some(2.5),
        tasks: Some(3),
        throttled: None,
    }
}

pub fn view(service: &str, state: State) -> Arc<ServiceView> {
    let plan = ServicePlan {
        name: "Web".into(),
        description: "serves".into(),
        priority: 10,
        critical: true,
        port: Some(8080),
        ..ServicePlan::new(id(service), "/bin/true")
    };
    Arc::new(ServiceView {
        state,
        health: Health::Healthy,
        pid: Some(4711),
        started_at: Some(Wall(1_700_000_000_123)),
        started_mono: Some(Mono(Duration::ZERO)),
        restart_count: 3,
        ..ServiceView::new(Arc::new(plan))
    })
}
