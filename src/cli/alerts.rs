//! `alerts` and `summary`: what somebody should see to.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::args;
use super::client::Client;
use super::failure::Failure;
use super::out::Out;
use super::status::health_tone;
use super::table::{Cell, Style, Tone, clean, paint, table};
use crate::http::dto::{Alert, Alerts, Host, Summary};

pub(super) async fn alerts(client: &Client, out: &mut Out, wanted: &args::Alerts) -> Result<(), Failure> {
    if let Some(args::AlertAction::Ack { number }) = &wanted.action {
        return acknowledge(client, out, *number).await;
    }
    let all = if wanted.all { "true" } else { "false" };
    let reply = client.get(&["alerts"], &[("all", all)]).await?;
    if out.json {
        return out.line(&reply.text);
    }
    let alerts: Alerts = reply.read()?;
    out.text(&render(&alerts.alerts, wanted.all, &TimeZone::system(), out.style))
}

async fn acknowledge(client: &Client, out: &mut Out, number: i64) -> Result<(), Failure> {
    let reply = client.post(&["alerts", &number.to_string(), "ack"], &[]).await?;
    if out.json {
        return out.line(&reply.text);
    }
    let alert: Alert = reply.read()?;
    out.line(&format!("alert {} is acknowledged: {}", alert.id, clean(&alert.message)))
}

fn render(alerts: &[Alert], all: bool, zone: &TimeZone, style: Style) -> String {
    if alerts.is_empty() {
        return if all { "No alerts.\n" } else { "No open alerts.\n" }.into();
    }
    let rows: Vec<[Cell; 6]> = alerts.iter().map(|alert| row(alert, zone)).collect();
    table(["N", "SINCE", "SEVERITY", "TYPE", "STATUS", "WHAT"], &rows, style)
}

fn row(alert: &Alert, zone: &TimeZone) -> [Cell; 6] {
    let tone = match alert.severity.as_str() {
        "critical" | "error" => Tone::Bad,
        _ => Tone::Changing,
    };
    let (status, tone) = match (&alert.resolved_at, &alert.acknowledged_at) {
        (Some(_), _) => ("resolved", Tone::Off),
        (None, Some(_)) => ("seen", tone),
        (None, None) => ("open", tone),
    };
    let since = alert.created_at.parse::<Timestamp>().map_or_else(
        |_| alert.created_at.clone(),
        |at| at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
    );
    let affected = alert.details.get("affected_count").and_then(serde_json::Value::as_u64);
    let affected = affected.map_or(String::new(), |n| format!(" ({n} more services are affected)"));
    [
        alert.id.to_string().into(),
        since.into(),
        Cell::new(&alert.severity, tone),
        (&alert.alert_type).into(),
        Cell::new(status, tone),
        format!("{}{affected}", alert.message).into(),
    ]
}

pub(super) async fn summary(client: &Client, out: &mut Out) -> Result<(), Failure> {
    let reply = client.get(&["summary"], &[]).await?;
    if out.json {
        return out.line(&reply.text);
    }
    out.text(&render_summary(&reply.read()?, &TimeZone::system(), out.style))
}

fn render_summary(summary: &Summary, zone: &TimeZone, style: Style) -> String {
    let counts = |counts: &BTreeMap<String, usize>, tone: &dyn Fn(&str) -> Tone| {
        let parts = counts.iter().map(|(word, n)| format!("{n} {}", paint(&clean(word), tone(word), style)));
        parts.collect::<Vec<_>>().join(", ")
    };
    let plain = |_: &str| Tone::Plain;
    let unknown = || "unknown".to_owned();
    let mut lines = vec![
        format!("Services:  {} ({})", summary.services, counts(&summary.states, &plain)),
        format!("Health:    {}", counts(&summary.health, &health_tone)),
        format!("CPU:       {}", summary.cpu_percent.map_or_else(unknown, |cpu| format!("{cpu:.1} %"))),
        format!("Memory:    {}", summary.memory_mb.map_or_else(unknown, |mib| format!("{mib:.1} MiB"))),
        format!("Host:      {}", summary.host.as_ref().map_or_else(unknown, host)),
        format!("Restarts:  {} in 24 h", summary.restarts_24h.map_or_else(unknown, |n| n.to_string())),
    ];
    for (what, names) in
        [("Critical:  in trouble: ", &summary.critical_in_trouble), ("Flapping:  ", &summary.flapping)]
    {
        if !names.is_empty() {
            lines.push(paint(&clean(&format!("{what}{}", names.join(", "))), Tone::Bad, style));
        }
    }
    format!("{}\n\n{}", lines.join("\n"), render(&summary.open_alerts, false, zone, style))
}

fn host(host: &Host) -> String {
    let Host { cores, cpu_percent, memory_total_mb, memory_used_mb, load: [one, five, fifteen] } = host;
    let cores = if *cores == 1 { "1 core".into() } else { format!("{cores} cores") };
    format!(
        "CPU {cpu_percent:.1} % of {cores}, memory {memory_used_mb:.0} of {memory_total_mb:.0} MiB, \
         load {one:.2} {five:.2} {fifteen:.2}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(id: i64, severity: &str) -> Alert {
        Alert {
            id,
            service_id: Some("db".into()),
            alert_type: "down".into(),
            severity: severity.into(),
            message: "db is down (fatal): exited with status 1".into(),
            details: serde_json::json!({"affected_count": 2}),
            created_at: "2026-01-31T08:15:00.250Z".into(),
            acknowledged_at: None,
            resolved_at: None,
        }
    }

    fn some() -> Vec<Alert> {
        let seen = Alert { acknowledged_at: Some("2026-01-31T08:16:00.000Z".into()), ..alert(8, "error") };
        let over = Alert {
            resolved_at: Some("2026-01-31T08:17:00.000Z".into()),
            details: serde_json::Value::Null,
            ..alert(7, "warning")
        };
        vec![alert(9, "critical"), seen, over]
    }

    #[test]
    fn alerts_in_a_table() {
        insta::assert_snapshot!(render(&some(), true, &TimeZone::UTC, Style::default()), @r"
        N  SINCE                SEVERITY  TYPE  STATUS    WHAT
        9  2026-01-31 08:15:00  critical  down  open      db is down (fatal): exited with status 1 (2 more services are affected)
        8  2026-01-31 08:15:00  error     down  seen      db is down (fatal): exited with status 1 (2 more services are affected)
        7  2026-01-31 08:15:00  warning   down  resolved  db is down (fatal): exited with status 1
        ");
        assert_eq!(render(&[], false, &TimeZone::UTC, Style::default()), "No open alerts.\n");
    }

    #[test]
    fn a_summary_at_a_glance() {
        let summary = Summary {
            services: 3,
            states: [("running".into(), 2), ("fatal".into(), 1)].into(),
            health: [("healthy".into(), 2), ("unknown".into(), 1)].into(),
            critical_in_trouble: vec!["db".into()],
            flapping: vec![],
            cpu_percent: Some(12.5),
            memory_mb: None,
            host: Some(Host {
                cores: 2,
                cpu_percent: 61.04,
                memory_total_mb: 3931.2,
                memory_used_mb: 812.6,
                load: [0.61, 0.7, 1.0],
            }),
            restarts_24h: Some(5),
            recent_events: vec![],
            open_alerts: vec![alert(9, "critical")],
        };
        insta::assert_snapshot!(render_summary(&summary, &TimeZone::UTC, Style::default()), @r"
        Services:  3 (1 fatal, 2 running)
        Health:    2 healthy, 1 unknown
        CPU:       12.5 %
        Memory:    unknown
        Host:      CPU 61.0 % of 2 cores, memory 813 of 3931 MiB, load 0.61 0.70 1.00
        Restarts:  5 in 24 h
        Critical:  in trouble: db

        N  SINCE                SEVERITY  TYPE  STATUS  WHAT
        9  2026-01-31 08:15:00  critical  down  open    db is down (fatal): exited with status 1 (2 more services are affected)
        ");
    }
}
