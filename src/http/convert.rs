//! From what the core shows to what goes over the wire.

use std::time::Duration;

use jiff::Timestamp;

use super::access::Caller;
use super::dto;
use crate::control::{AlertRow, Changed, EventRow, LogEntry, MetricPoint, ReloadReport, Spread};
use crate::core::plan::{Id, Probe, ServicePlan};
use crate::core::sample::{Host, Sample};
use crate::core::snapshot::{ServiceView, State};
use crate::core::time::{Mono, Wall};

/// `2026-01-31T08:15:00.250Z`.
pub(super) fn time(wall: Wall) -> String {
    // Only a broken clock is out of jiff's range.
    Timestamp::from_millisecond(wall.0).map_or_else(|_| String::new(), |at| format!("{at:.3}"))
}

pub(super) fn now_wall() -> Wall {
    Wall(Timestamp::now().as_millisecond())
}

/// The clock that uptimes are counted on.
pub(super) fn now_mono() -> Mono {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map(Duration::from);
    Mono(now.unwrap_or_default())
}

pub(super) fn service(view: &ServiceView, now: Mono) -> dto::Service {
    let plan = &view.plan;
    let up = matches!(view.state, State::Starting | State::Running | State::Stopping);
    dto::Service {
        id: plan.id.to_string(),
        name: plan.name.clone(),
        description: plan.description.clone(),
        state: view.state.as_str().into(),
        health: view.health.as_str().into(),
        pid: view.pid,
        port: plan.port,
        start_time: view.started_at.filter(|_| up).map(time),
        uptime_seconds: view.started_mono.filter(|_| up).map(|started| (now - started).as_secs()),
        restart_count: view.restart_count,
        last_restart: view.last_restart.map(time),
        priority: plan.priority,
        critical: plan.critical,
        enabled: plan.enabled,
        auto_restart: plan.auto_restart,
        groups: ids(&plan.groups),
        dependencies: plan.dependencies.iter().map(|d| d.service.to_string()).collect(),
        waiting_for: ids(&view.waiting_for),
        unit: format!("supervisor-{}.service", plan.id),
        cpu_percent: view.usage.and_then(|usage| usage.cpu_percent).map(short),
        memory_mb: view.usage.and_then(|usage| usage.memory).map(mebibytes),
        tasks: view.usage.and_then(|usage| usage.tasks),
        memory_limit_mb: plan.limits.memory_bytes.map(mebibytes),
        cpu_limit_percent: plan.limits.cpu_percent,
        usage: view.usage.as_ref().map(usage),
        attempt: view.attempt,
        next_retry_at: view.next_retry_at.map(time),
        last_exit: view.last_exit.as_ref().map(|(exit, at)| dto::LastExit {
            code: exit.code,
            signal: exit.signal,
            result: exit.result.to_string(),
            at: time(*at),
        }),
        reason: view.reason.clone(),
        since: time(view.since),
        flapping: view.flapping.is_some(),
        flapping_reason: view.flapping.clone(),
    }
}

pub(super) fn reading(sample: &Sample) -> dto::Reading {
    dto::Reading {
        cpu_percent: sample.cpu_percent.map(short),
        memory_mb: sample.memory.map(mebibytes),
        tasks: sample.tasks,
    }
}

fn usage(sample: &Sample) -> dto::Usage {
    dto::Usage {
        memory_peak_mb: sample.memory_peak.map(mebibytes),
        throttled: sample.throttled.map(short),
        pressure_cpu: sample.pressure.cpu,
        pressure_memory: sample.pressure.memory,
        pressure_io: sample.pressure.io,
        io_read: sample.io_read.map(f64::round),
        io_write: sample.io_write.map(f64::round),
        oom_kills: sample.oom_kills,
    }
}

pub(super) fn host(host: Host) -> dto::Host {
    dto::Host {
        cores: host.cores,
        cpu_percent: short(host.cpu_percent),
        memory_total_mb: mebibytes(host.memory),
        memory_used_mb: mebibytes(host.memory_used),
        load: host.load,
    }
}

fn mebibytes(bytes: u64) -> f64 {
    short(bytes as f64 / 1_048_576.0)
}

/// To what a measurement is worth.
fn short(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

pub(super) fn metric(point: MetricPoint) -> dto::Metric {
    let part = |spread: Option<Spread>, of: fn(Spread) -> f64| spread.map(of).map(short);
    dto::Metric {
        timestamp: time(point.at),
        samples: point.samples,
        cpu_percent: part(point.cpu_percent, |s| s.avg),
        cpu_percent_min: part(point.cpu_percent, |s| s.min),
        cpu_percent_max: part(point.cpu_percent, |s| s.max),
        memory_mb: part(point.memory_mb, |s| s.avg),
        memory_mb_min: part(point.memory_mb, |s| s.min),
        memory_mb_max: part(point.memory_mb, |s| s.max),
        health_status: point.health.map(|health| health.as_str().into()),
        response_time_ms: part(point.response_time_ms, |s| s.avg),
        response_time_ms_max: part(point.response_time_ms, |s| s.max),
        tasks: point.tasks,
        throttled: point.throttled.map(short),
    }
}

pub(super) fn event(row: EventRow) -> dto::Event {
    dto::Event {
        id: row.id,
        service_id: row.service,
        event_type: row.kind,
        timestamp: time(row.at),
        message: row.message,
        details: row.details,
    }
}

/// Lines of the log are left out for those who may not see it.
pub(super) fn alert(mut row: AlertRow, caller: Caller) -> dto::Alert {
    if let (false, Some(details)) = (caller.may_see_inside(), row.details.as_object_mut()) {
        details.remove("log");
    }
    dto::Alert {
        id: row.id,
        service_id: row.service,
        alert_type: row.kind,
        severity: row.severity,
        message: row.message,
        details: row.details,
        created_at: time(row.created_at),
        acknowledged_at: row.acknowledged_at.map(time),
        resolved_at: row.resolved_at.map(time),
    }
}

pub(super) fn log_line(entry: LogEntry) -> dto::LogLine {
    dto::LogLine {
        timestamp: time(entry.at),
        priority: entry.priority,
        message: entry.message,
        pid: entry.pid,
        unit: entry.unit,
        cursor: entry.cursor,
    }
}

pub(super) fn check(view: &ServiceView) -> dto::Check {
    let (kind, target) = probe(&view.plan);
    let last = view.last_probe.as_ref();
    dto::Check {
        kind: kind.into(),
        target,
        status: match last {
            Some(last) if last.passed => "passing".into(),
            Some(_) => "failing".into(),
            None => "unknown".into(),
        },
        response_time_ms: last.map(|last| (last.took.as_secs_f64() * 1e6).round() / 1e3),
        message: last.map_or_else(|| "not checked yet".into(), |last| last.message.clone()),
        checked_at: last.map(|last| time(last.at)),
        consecutive_failures: last.map_or(0, |last| last.consecutive_failures),
    }
}

fn probe(plan: &ServicePlan) -> (&'static str, String) {
    match &plan.health.probe {
        Probe::Http(http) => ("http", bare_url(&http.endpoint)),
        Probe::Tcp { host, port: Some(port) } => ("tcp", format!("{host}:{port}")),
        Probe::Tcp { host, port: None } => ("tcp", host.clone()),
        Probe::Process => ("process", "main process".into()),
        Probe::Exec { program, .. } => ("exec", program.clone()),
    }
}

/// Without user, password, query and fragment: those may be secrets.
fn bare_url(url: &str) -> String {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let url = &url[..end];
    let Some((scheme, rest)) = url.split_once("://") else { return url.into() };
    let host_end = rest.find('/').unwrap_or(rest.len());
    let host = rest[..host_end].rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{}", &rest[host_end..])
}

pub(super) fn reload(report: ReloadReport) -> dto::Reload {
    let changed = |list: Vec<Changed>| {
        list.into_iter().map(|c| dto::Changed { id: c.id.into(), fields: c.fields }).collect()
    };
    dto::Reload {
        added: ids(&report.added),
        removed: ids(&report.removed),
        restarted: changed(report.restarted),
        updated_live: changed(report.updated_live),
        unchanged: ids(&report.unchanged),
        supervisor: report.supervisor,
        warnings: report.warnings,
    }
}

fn ids(ids: &[Id]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_with_milliseconds() {
        assert_eq!(time(Wall(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(Wall(1_769_847_300_250)), "2026-01-31T08:15:00.250Z");
        assert_eq!(time(Wall(i64::MAX)), "");
    }

    #[test]
    fn a_target_holds_no_secret() {
        for (url, shown) in [
            ("http://localhost:8080/health", "http://localhost:8080/health"),
            ("http://u:p@h:1/a?token=x#y", "http://h:1/a"),
            ("http://u:p@h", "http://h"),
            ("http://h?x=/@", "http://h"),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(bare_url(url), shown);
        }
    }
}
