//! What a new configuration changes, service by service.

use super::Settings;
use crate::control::{Changed, ReloadReport};
use crate::core::plan::{Plan, ServicePlan};

/// Compares two plans. Each service is in exactly one list: `restarted` where what systemd executes differs or the
/// unit has to move to another slice, `updated_live` where anything else does.
pub fn diff(old: &Plan, new: &Plan) -> ReloadReport {
    let mut report = ReloadReport {
        added: new.services.keys().filter(|id| !old.services.contains_key(*id)).cloned().collect(),
        removed: old.services.keys().filter(|id| !new.services.contains_key(*id)).cloned().collect(),
        ..ReloadReport::default()
    };
    for (id, now) in &new.services {
        let Some(before) = old.services.get(id) else { continue };
        let restart = executed(before, now);
        let mut live = other(before, now);
        let limits = |plan: &Plan| -> Vec<_> {
            now.groups.iter().map(|g| plan.groups.get(g).cloned().unwrap_or_default()).collect()
        };
        if before.groups != now.groups || limits(old) != limits(new) {
            live.push("groups");
        }
        let moved = before.groups.first() != now.groups.first();
        let restarted = moved || !restart.is_empty();
        let fields: Vec<String> = restart.into_iter().chain(live).map(String::from).collect();
        if fields.is_empty() {
            report.unchanged.push(id.clone());
        } else {
            let list = if restarted { &mut report.restarted } else { &mut report.updated_live };
            list.push(Changed { id: id.clone(), fields });
        }
    }
    report
}

/// Names of the fields of the `supervisor` block that differ.
pub fn diff_settings(a: &Settings, b: &Settings) -> Vec<&'static str> {
    differing(&[
        ("listen", a.listen != b.listen),
        ("tls", a.tls != b.tls),
        ("allowed_hosts", a.allowed_hosts != b.allowed_hosts),
        ("anonymous", a.anonymous != b.anonymous),
        ("database", a.database != b.database),
        ("metrics_interval", a.metrics_interval != b.metrics_interval),
        ("retention_days", a.retention_days != b.retention_days),
        ("stop_services_on_exit", a.stop_services_on_exit != b.stop_services_on_exit),
        ("default_user", a.default_user != b.default_user),
        ("dashboard_url", a.dashboard_url != b.dashboard_url),
        ("dashboard_token_file", a.dashboard_token_file != b.dashboard_token_file),
        ("max_concurrent_starts", a.max_concurrent_starts != b.max_concurrent_starts),
    ])
}

/// Names of the fields that differ in what systemd executes.
fn executed(before: &ServicePlan, now: &ServicePlan) -> Vec<&'static str> {
    let (a, b) = (&before.exec, &now.exec);
    differing(&[
        ("command", a.command != b.command),
        ("args", a.args != b.args),
        ("working_directory", a.working_directory != b.working_directory),
        ("environment", a.environment != b.environment),
        ("environment_file", a.environment_file != b.environment_file),
        ("user", a.user != b.user),
        ("group", a.group != b.group),
        ("type", a.service_type != b.service_type),
        ("graceful_shutdown", a.shutdown != b.shutdown),
        ("unit_properties", a.unit_properties != b.unit_properties),
    ])
}

/// Names of all other fields that differ, groups aside.
fn other(a: &ServicePlan, b: &ServicePlan) -> Vec<&'static str> {
    differing(&[
        ("command", a.exec.command == b.exec.command && a.exec.program != b.exec.program),
        ("enabled", a.enabled != b.enabled),
        ("name", a.name != b.name),
        ("description", a.description != b.description),
        ("priority", a.priority != b.priority),
        ("critical", a.critical != b.critical),
        ("health_check", a.health != b.health),
        ("restart_policy", a.restart != b.restart),
        ("auto_restart", a.auto_restart != b.auto_restart),
        ("restart_on_exit", a.restart_on_exit != b.restart_on_exit),
        ("resource_limits", a.limits != b.limits || a.warn_percent != b.warn_percent),
        ("dependencies", a.dependencies != b.dependencies),
        ("port", a.port != b.port),
        ("labels", a.labels != b.labels),
    ])
}

fn differing(fields: &[(&'static str, bool)]) -> Vec<&'static str> {
    fields.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect()
}
