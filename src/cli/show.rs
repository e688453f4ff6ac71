//! Commands that only look: `health`, `events`, `pid`, `avail`, `version`.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::args;
use super::client::{Client, Reply};
use super::failure::Failure;
use super::follow;
use super::out::Out;
use super::select::select;
use super::status::{health_tone, is_well};
use super::table::{Cell, Style, Tone, clean, paint, table};
use crate::http::dto::{Event, Events, OverallHealth, ServiceHealth};

pub(super) async fn health(client: &Client, out: &mut Out, service: Option<&str>) -> Result<(), Failure> {
    let (reply, text, well) = match service {
        Some(id) => {
            let reply = client.get(&["services", id, "health"], &[]).await?;
            let health: ServiceHealth = reply.read()?;
            let well = is_well(true, &health.state, &health.health);
            (reply, render_checks(&health, out.style), well)
        }
        None => {
            let reply = client.get(&["health"], &[]).await?;
            let health: OverallHealth = reply.read()?;
            let well = health.services.values().all(|s| is_well(s.enabled, &s.state, &s.health));
            (reply, render_health(&health, out.style), well)
        }
    };
    print(out, &reply, &text)?;
    if well { Ok(()) } else { Err(Failure::Unwell) }
}

fn print(out: &mut Out, reply: &Reply, text: &str) -> Result<(), Failure> {
    if out.json { out.line(&reply.text) } else { out.text(text) }
}

fn render_health(health: &OverallHealth, style: Style) -> String {
    let rows: Vec<[Cell; 4]> = health
        .services
        .iter()
        .map(|(id, line)| {
            let message = if line.enabled { &line.message } else { "disabled in the configuration" };
            let name = if line.critical { format!("{id} (critical)") } else { id.clone() };
            [
                name.into(),
                Cell::new(&line.health, health_tone(&line.health)),
                (&line.state).into(),
                message.into(),
            ]
        })
        .collect();
    let overall = paint(&clean(&health.status), health_tone(&health.status), style);
    format!("{}\nAll together: {overall}\n", table(["NAME", "HEALTH", "STATE", "LAST ANSWER"], &rows, style))
}

fn render_checks(health: &ServiceHealth, style: Style) -> String {
    let rows: Vec<[Cell; 5]> = health
        .checks
        .iter()
        .map(|check| {
            let tone = match check.status.as_str() {
                "passing" => Tone::Good,
                "failing" => Tone::Bad,
                _ => Tone::Off,
            };
            [
                format!("{} {}", check.kind, check.target).into(),
                Cell::new(&check.status, tone),
                check.response_time_ms.map_or("-".into(), |ms| format!("{ms:.1} ms")).into(),
                check.consecutive_failures.to_string().into(),
                (&check.message).into(),
            ]
        })
        .collect();
    let word = paint(&clean(&health.health), health_tone(&health.health), style);
    format!(
        "{} is {} and {word}\n\n{}",
        clean(&health.id),
        clean(&health.state),
        table(["CHECK", "STATUS", "TOOK", "FAILURES", "LAST ANSWER"], &rows, style)
    )
}

pub(super) async fn events(client: &Client, out: &mut Out, wanted: &args::Events) -> Result<(), Failure> {
    let service = wanted.service.as_deref();
    if let Some(id) = service {
        // A name that was never there is a slip; the events of a removed service are still shown.
        check_name(client, id).await?;
    }
    let limit = wanted.lines.to_string();
    let mut query = vec![("limit", limit.as_str())];
    query.extend(service.map(|id| ("service", id)));
    let reply = client.get(&["events"], &query).await?;
    if out.json && !wanted.follow {
        return out.line(&reply.text);
    }
    let page: Events = reply.read()?;
    let last = page.events.first().map(|event| event.id);
    for event in page.events.into_iter().rev() {
        print_event(out, &event)?;
    }
    if wanted.follow { follow::events(client, out, service, last).await } else { Ok(()) }
}

async fn check_name(client: &Client, id: &str) -> Result<(), Failure> {
    match client.get(&["services", id], &[]).await {
        Err(Failure::Problem(problem)) if problem.is("unknown_service") => {
            let past = client.get(&["events"], &[("service", id), ("limit", "1")]).await?;
            let past: Events = past.read()?;
            if past.events.is_empty() { Err(Failure::Problem(problem)) } else { Ok(()) }
        }
        Err(failure) => Err(failure),
        Ok(_) => Ok(()),
    }
}

pub(super) fn print_event(out: &mut Out, event: &Event) -> Result<(), Failure> {
    if out.json {
        return out.value(event);
    }
    let line = render_event(event, &TimeZone::system(), out.style);
    out.line(&line)
}

fn render_event(event: &Event, zone: &TimeZone, style: Style) -> String {
    let time = event.timestamp.parse::<Timestamp>().map_or_else(
        |_| clean(&event.timestamp),
        |at| at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
    );
    let tone = match event.event_type.as_str() {
        "service_started" | "service_adopted" => Tone::Good,
        "service_failed" | "gave_up" | "config_rejected" | "exited_unsupervised" => Tone::Bad,
        "restart_scheduled" | "resource_limit" | "external_change" | "database_trouble"
        | "listener_trouble" => Tone::Changing,
        _ => Tone::Plain,
    };
    let kind = paint(&format!("{:<18}", clean(&event.event_type)), tone, style);
    let who = event.service_id.as_deref().unwrap_or("(supervisor)");
    format!("{time}  {:<16}  {kind}  {}", clean(who), clean(&event.message))
}

pub(super) async fn pid(client: &Client, out: &mut Out, service: Option<&str>) -> Result<(), Failure> {
    let status = client.status().await?;
    let Some(pattern) = service else {
        return if out.json {
            out.value(&serde_json::json!({"pid": status.supervisor.pid}))
        } else {
            out.line(&status.supervisor.pid.to_string())
        };
    };
    let chosen = select(&status, &[pattern.to_owned()])?;
    let several = chosen.len() > 1;
    for selected in &chosen {
        let (id, pid) = (&selected.service.id, selected.service.pid);
        if out.json {
            out.value(&serde_json::json!({"id": id, "pid": pid}))?;
        } else {
            let pid = pid.unwrap_or(0);
            out.line(&if several { format!("{id} {pid}") } else { pid.to_string() })?;
        }
    }
    match chosen.as_slice() {
        [one] if one.service.pid.is_none() => {
            Err(Failure::Failed(format!("{} is {} and has no process", one.service.id, one.service.state)))
        }
        _ => Ok(()),
    }
}

pub(super) async fn avail(client: &Client, out: &mut Out, names: bool) -> Result<(), Failure> {
    let status = client.status().await?;
    if names && !out.json {
        return out.text(&status.services.keys().map(|id| format!("{id}\n")).collect::<String>());
    }
    if out.json {
        return out.value(&status.services.values().collect::<Vec<_>>());
    }
    let rows: Vec<[Cell; 5]> = status
        .services
        .values()
        .map(|s| {
            let (word, tone) = if s.enabled { ("yes", Tone::Good) } else { ("no", Tone::Off) };
            let about = if s.description.is_empty() { &s.name } else { &s.description };
            let groups = if s.groups.is_empty() { "-".into() } else { s.groups.join(",") };
            [
                (&s.id).into(),
                Cell::new(word, tone),
                s.priority.to_string().into(),
                groups.into(),
                about.into(),
            ]
        })
        .collect();
    let text = table(["NAME", "ENABLED", "PRIORITY", "GROUPS", "DESCRIPTION"], &rows, out.style);
    out.text(&text)
}

pub(super) async fn version(client: &Client, out: &mut Out) -> Result<(), Failure> {
    let own = env!("CARGO_PKG_VERSION");
    let daemon = client.status().await;
    if out.json {
        let daemon = daemon.as_ref().ok().map(|status| &status.supervisor);
        return out.value(&serde_json::json!({"supervisorctl": own, "supervisor": daemon}));
    }
    out.line(&format!("supervisorctl {own}"))?;
    match daemon {
        Ok(status) => {
            let s = status.supervisor;
            out.line(&format!(
                "process-supervisor {} (pid {}, {} scope, systemd {})",
                clean(&s.version),
                s.pid,
                clean(&s.scope),
                clean(&s.systemd_version)
            ))
        }
        Err(failure) => out.line(&format!("process-supervisor: {}", clean(&failure.to_string()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::dto::{Check, HealthLine};

    #[test]
    fn health_of_all() {
        let line = |health: &str, state: &str, critical, message: &str| HealthLine {
            health: health.into(),
            state: state.into(),
            critical,
            enabled: true,
            message: message.into(),
        };
        let health = OverallHealth {
            status: "unhealthy".into(),
            services: [
                ("db".into(), line("healthy", "running", false, "connected")),
                ("web".into(), line("unhealthy", "running", true, "HTTP 503")),
            ]
            .into(),
        };
        insta::assert_snapshot!(render_health(&health, Style::default()), @r"
        NAME            HEALTH     STATE    LAST ANSWER
        db              healthy    running  connected
        web (critical)  unhealthy  running  HTTP 503

        All together: unhealthy
        ");
    }

    #[test]
    fn checks_of_one() {
        let health = ServiceHealth {
            id: "web".into(),
            health: "healthy".into(),
            state: "running".into(),
            reason: String::new(),
            checks: vec![Check {
                kind: "http".into(),
                target: "http://localhost:8080/health".into(),
                status: "passing".into(),
                response_time_ms: Some(1.25),
                message: "HTTP 200".into(),
                checked_at: None,
                consecutive_failures: 0,
            }],
        };
        insta::assert_snapshot!(render_checks(&health, Style::default()), @r"
        web is running and healthy

        CHECK                              STATUS   TOOK    FAILURES  LAST ANSWER
        http http://localhost:8080/health  passing  1.2 ms  0         HTTP 200
        ");
    }

    #[test]
    fn an_event_is_a_line() {
        let event = Event {
            id: 3,
            service_id: Some("web".into()),
            event_type: "service_failed".into(),
            timestamp: "2026-01-31T08:15:00.250Z".into(),
            message: "web: running -> backoff\n(exit status 1)".into(),
            details: serde_json::Value::Null,
        };
        assert_eq!(
            render_event(&event, &TimeZone::UTC, Style::default()),
            "2026-01-31 08:15:00  web               service_failed      web: running -> backoff (exit status 1)"
        );
    }
}
