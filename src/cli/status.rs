//! `status`: one line per service that says what it is and why; with `-w` as it is from now on.

use std::time::Duration;

use jiff::Timestamp;

use super::client::Client;
use super::failure::Failure;
use super::out::Out;
use super::select::keep;
use super::table::{Cell, Style, Tone, table};
use super::{args, watch};
use crate::core::time::Human;
use crate::http::dto::{Service, Status};

pub(super) async fn status(client: &Client, out: &mut Out, wanted: &args::Status) -> Result<(), Failure> {
    let patterns = &wanted.services;
    let mut status = client.status().await?;
    if wanted.watch {
        return watch::watch(client, out, status, patterns).await;
    }
    keep(&mut status, patterns)?;
    if out.json {
        out.value(&status)?;
    } else if status.services.is_empty() {
        out.line(&format!(
            "No services: {} has none. Add some, then `supervisorctl reload`.",
            status.supervisor.config_path
        ))?;
    } else {
        let mut text = render(&status, Timestamp::now(), out.style);
        // One service by its name: all that is known of it.
        if let ([_], 1, Some(service)) = (&**patterns, status.services.len(), status.services.values().next())
        {
            text.push_str(&details(service));
        }
        out.text(&text)?;
    }
    let well = |s: &Service| is_well(s.enabled, &s.state, &s.health);
    if status.services.values().all(well) { Ok(()) } else { Err(Failure::Unwell) }
}

/// Whether it is as the configuration wants it.
pub(super) fn is_well(enabled: bool, state: &str, health: &str) -> bool {
    match state {
        "running" => health != "unhealthy",
        "stopped" => !enabled,
        _ => false,
    }
}

/// How bad it is, from 3 (a critical service is down) to 0 (well).
pub(super) fn trouble(service: &Service) -> u8 {
    match service.state.as_str() {
        _ if is_well(service.enabled, &service.state, &service.health) => {
            u8::from(service.flapping || service.health == "degraded")
        }
        "starting" | "stopping" => 1,
        _ if service.critical => 3,
        _ => 2,
    }
}

/// The table. `now` counts the time to the next retry.
pub(super) fn render(status: &Status, now: Timestamp, style: Style) -> String {
    let rows: Vec<[Cell; 7]> = status.services.values().map(|service| row(service, now)).collect();
    table(["NAME", "STATE", "HEALTH", "PID", "UPTIME", "RESTARTS", "WHY"], &rows, style)
}

/// What it uses, a figure per line; nothing where nothing was measured.
pub(super) fn details(service: &Service) -> String {
    let usage = service.usage.clone().unwrap_or_default();
    let mib = |value: Option<f64>| value.map(|mib| format!("{mib:.1} MiB"));
    let percent = |value: Option<f64>| value.map(|percent| format!("{percent:.1} %"));
    let rate = |value: Option<f64>| value.map(|bytes| format!("{:.1} KiB/s", bytes / 1024.0));
    let lines = [
        ("cpu", percent(service.cpu_percent)),
        ("memory", mib(service.memory_mb)),
        ("memory peak", mib(usage.memory_peak_mb)),
        ("tasks", service.tasks.map(|tasks| tasks.to_string())),
        ("held back by its CPU limit", percent(usage.throttled.map(|share| share * 100.0))),
        ("waited for CPU", percent(usage.pressure_cpu)),
        ("waited for memory", percent(usage.pressure_memory)),
        ("waited for I/O", percent(usage.pressure_io)),
        ("reads", rate(usage.io_read)),
        ("writes", rate(usage.io_write)),
        ("killed for want of memory", usage.oom_kills.filter(|n| *n > 0).map(|n| format!("{n} processes"))),
    ];
    let lines = lines.into_iter().filter_map(|(name, value)| Some(format!("  {name:<27} {}\n", value?)));
    let text: String = lines.collect();
    if text.is_empty() { text } else { format!("\n{text}") }
}

fn row(service: &Service, now: Timestamp) -> [Cell; 7] {
    let dash = || String::from("-");
    let uptime = service.uptime_seconds.map_or_else(dash, |s| match s {
        0 => "0 s".into(),
        s => Human(Duration::from_secs(s)).to_string(),
    });
    [
        Cell::from(&service.id),
        Cell::new(&service.state, state_tone(service)),
        Cell::new(&service.health, health_tone(&service.health)),
        Cell::from(service.pid.map_or_else(dash, |pid| pid.to_string())),
        Cell::from(uptime),
        Cell::from(service.restart_count.to_string()),
        Cell::from(why(service, now)),
    ]
}

pub(super) fn state_tone(service: &Service) -> Tone {
    match service.state.as_str() {
        "running" => Tone::Good,
        "failed" | "fatal" => Tone::Bad,
        "stopped" if service.waiting_for.is_empty() => Tone::Off,
        _ => Tone::Changing,
    }
}

pub(super) fn health_tone(health: &str) -> Tone {
    match health {
        "healthy" => Tone::Good,
        "degraded" => Tone::Changing,
        "unhealthy" => Tone::Bad,
        _ => Tone::Off,
    }
}

/// What a person wants to know next; nothing where all is well.
pub(super) fn why(service: &Service, now: Timestamp) -> String {
    let mut parts = Vec::new();
    if service.flapping {
        parts
            .push(format!("flapping: {}", service.flapping_reason.as_deref().unwrap_or("up and down again")));
    }
    if service.state == "running" && service.health == "healthy" {
        return parts.concat();
    }
    if !service.enabled && service.state == "stopped" {
        parts.push("disabled in the configuration".to_owned());
    } else if !service.reason.is_empty() {
        // The countdown below says it as it is now.
        let reason =
            service.reason.rsplit_once(", restart in ").map_or(&*service.reason, |(before, _)| before);
        parts.push(if service.next_retry_at.is_some() { reason } else { &service.reason }.to_owned());
    }
    let waits = service.waiting_for.join(", ");
    if !waits.is_empty() && !service.waiting_for.iter().all(|id| service.reason.contains(id.as_str())) {
        parts.push(format!("waiting for {waits}"));
    }
    if let Some(at) = service.next_retry_at.as_ref().and_then(|at| at.parse::<Timestamp>().ok()) {
        let left = at.as_millisecond() - now.as_millisecond();
        parts.push(match u64::try_from(left) {
            Ok(left) if left > 0 => {
                format!("next try in {}", Human(Duration::from_secs(left.div_ceil(1000))))
            }
            _ => "next try now".into(),
        });
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::select::tests::{service, status};

    fn example() -> Status {
        let well = Service {
            pid: Some(4242),
            uptime_seconds: Some(7500),
            reason: "the first probe passed".into(),
            ..service("architect-prod", &[], &[])
        };
        let waits = Service {
            state: "stopped".into(),
            health: "unknown".into(),
            waiting_for: vec!["db".into()],
            reason: "started with the supervisor".into(),
            ..service("pharma", &["db"], &[])
        };
        let backoff = Service {
            state: "backoff".into(),
            health: "unknown".into(),
            restart_count: 3,
            next_retry_at: Some("2026-01-31T08:00:12.000Z".into()),
            reason: "exited with status 1; attempt 2 of 5, restart in 20 s".into(),
            ..service("db", &[], &[])
        };
        let off = Service {
            enabled: false,
            state: "stopped".into(),
            health: "unknown".into(),
            ..service("old", &[], &[])
        };
        status(vec![well, waits, backoff, off])
    }

    fn now() -> Timestamp {
        "2026-01-31T08:00:00.500Z".parse().unwrap()
    }

    #[test]
    fn the_table_says_what_and_why() {
        insta::assert_snapshot!(render(&example(), now(), Style::default()), @r"
        NAME            STATE    HEALTH   PID   UPTIME     RESTARTS  WHY
        architect-prod  running  healthy  4242  2 h 5 min  0
        db              backoff  unknown  -     -          3         exited with status 1; attempt 2 of 5; next try in 12 s
        old             stopped  unknown  -     -          0         disabled in the configuration
        pharma          stopped  unknown  -     -          0         started with the supervisor; waiting for db
        ");
    }

    #[test]
    fn details_are_what_was_measured() {
        assert_eq!(details(&service("a", &[], &[])), "");
        let usage =
            crate::http::dto::Usage { throttled: Some(0.5), oom_kills: Some(0), ..Default::default() };
        let busy = Service {
            cpu_percent: Some(12.34),
            memory_mb: Some(99.0),
            usage: Some(usage),
            ..service("a", &[], &[])
        };
        insta::assert_snapshot!(details(&busy), @r"
        cpu                         12.3 %
        memory                      99.0 MiB
        held back by its CPU limit  50.0 %
        ");
    }

    #[test]
    fn no_line_is_longer_than_the_terminal() {
        let style = Style { width: Some(80), colours: false };
        let text = render(&example(), now(), style);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("waiti…") || text.contains('…'), "{text}");
    }

    #[test]
    fn well_means_as_the_configuration_wants_it() {
        let well = |s: &Service| is_well(s.enabled, &s.state, &s.health);
        let all = example();
        let names: Vec<&str> = all.services.values().filter(|s| well(s)).map(|s| s.id.as_str()).collect();
        assert_eq!(names, ["architect-prod", "old"]);
        assert!(!well(&Service { health: "unhealthy".into(), ..service("a", &[], &[]) }));
        let by_hand = Service { enabled: false, state: "fatal".into(), ..service("a", &[], &[]) };
        assert!(!well(&by_hand), "disabled, and somebody wanted it to run");
    }

    #[test]
    fn trouble_has_degrees() {
        let of = |state: &str, critical| {
            trouble(&Service { state: state.into(), critical, ..service("a", &[], &[]) })
        };
        assert_eq!(["running", "starting", "fatal", "stopped"].map(|state| of(state, false)), [0, 1, 2, 2]);
        assert_eq!(["running", "starting", "fatal", "stopped"].map(|state| of(state, true)), [0, 1, 3, 3]);
        assert_eq!(trouble(&Service { flapping: true, ..service("a", &[], &[]) }), 1);
    }

    #[test]
    fn flapping_is_marked_however_well_it_looks() {
        let flapping = Service {
            flapping: true,
            flapping_reason: Some("it failed 5 times in 5 min".into()),
            ..example().services["architect-prod"].clone()
        };
        assert_eq!(why(&flapping, now()), "flapping: it failed 5 times in 5 min");
    }

    #[test]
    fn a_retry_that_is_due_is_not_in_the_past() {
        let due = Service {
            next_retry_at: Some("2026-01-31T08:00:00.000Z".into()),
            ..example().services["db"].clone()
        };
        assert_eq!(why(&due, now()), "exited with status 1; attempt 2 of 5; next try now");
    }
}
