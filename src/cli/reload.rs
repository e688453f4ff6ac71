//! `reload`: what a new configuration changes, or every error in it.

use super::check;
use super::client::Client;
use super::failure::Failure;
use super::out::Out;
use super::table::clean;
use crate::config::Severity;
use crate::http::dto::{Changed, Reload};

pub(super) async fn reload(client: &Client, out: &mut Out, dry_run: bool) -> Result<(), Failure> {
    let query: &[(&str, &str)] = if dry_run { &[("dry_run", "true")] } else { &[] };
    let reply = match client.post(&["reload"], query).await {
        Err(Failure::Problem(problem)) if !problem.errors.is_empty() => {
            out.complain(check::render(&problem.errors, Severity::Error).trim_end());
            return Err(Failure::Problem(problem));
        }
        other => other?,
    };
    if out.json {
        return out.line(&reply.text);
    }
    let report: Reload = reply.read()?;
    if !report.warnings.is_empty() {
        out.complain(check::render(&report.warnings, Severity::Warning).trim_end());
    }
    out.text(&render(&report, dry_run))
}

fn render(report: &Reload, dry_run: bool) -> String {
    let would = |now: &str, later: &str| if dry_run { format!("would be {later}") } else { now.to_owned() };
    let mut lines = Vec::new();
    for id in &report.added {
        lines.push(format!("{}: {}", clean(id), would("added", "added")));
    }
    for id in &report.removed {
        lines.push(format!("{}: {}", clean(id), would("removed, and stopped", "stopped and removed")));
    }
    let mut changes = |list: &[Changed], word: String| {
        for changed in list {
            lines.push(format!("{}: {word} ({})", clean(&changed.id), clean(&changed.fields.join(", "))));
        }
    };
    changes(&report.restarted, would("restarted for its changes", "restarted for its changes"));
    changes(&report.updated_live, would("changed while it runs", "changed while it runs"));
    for field in &report.supervisor {
        let from = if field == "database" { ", from the next start of the supervisor on" } else { "" };
        lines.push(format!("supervisor.{}: {}{from}", clean(field), would("changed", "changed")));
    }
    let same = report.unchanged.len();
    let services = if same == 1 { "service" } else { "services" };
    if lines.is_empty() {
        return format!(
            "Nothing {}: {same} {services} unchanged.\n",
            if dry_run { "would change" } else { "changed" }
        );
    }
    format!("{}\n{same} {services} unchanged.\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_named_with_their_fields() {
        let changed = |id: &str, fields: &[&str]| Changed {
            id: id.into(),
            fields: fields.iter().map(|f| String::from(*f)).collect(),
        };
        let report = Reload {
            added: vec!["new".into()],
            removed: vec!["old".into()],
            restarted: vec![changed("web", &["args", "environment"])],
            updated_live: vec![changed("db", &["resource_limits"])],
            unchanged: vec!["a".into(), "b".into()],
            supervisor: vec!["listen".into(), "database".into()],
            warnings: vec![],
        };
        insta::assert_snapshot!(render(&report, false), @r"
        new: added
        old: removed, and stopped
        web: restarted for its changes (args, environment)
        db: changed while it runs (resource_limits)
        supervisor.listen: changed
        supervisor.database: changed, from the next start of the supervisor on
        2 services unchanged.
        ");
        assert!(
            render(&report, true).contains("web: would be restarted for its changes (args, environment)")
        );
        let same = Reload { unchanged: vec!["a".into()], ..Reload::default() };
        assert_eq!(render(&same, false), "Nothing changed: 1 service unchanged.\n");
    }
}
