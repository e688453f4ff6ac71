//! A service as it is in force: the configuration with every default filled in and secrets as `***`.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::core::plan::{
    Dependency, HealthCheck, HttpProbe, Id, Limits, Probe, RestartPolicy, Secret, ServicePlan,
};

/// What stands for a value that is not shown.
const HIDDEN: &str = "***";

/// The effective configuration of a service: every default filled in, `command` the file that was chosen, secrets
/// as `***`.
pub fn effective(plan: &ServicePlan) -> Value {
    let exec = &plan.exec;
    let mut limits = limits(&plan.limits);
    limits.insert("warn_percent".into(), plan.warn_percent.into());
    let mut value = json!({
        "enabled": plan.enabled,
        "priority": plan.priority,
        "critical": plan.critical,
        "name": plan.name,
        "description": plan.description,
        "command": exec.program,
        "args": exec.args,
        "working_directory": exec.working_directory,
        "environment": hidden(&exec.environment),
        "environment_file": exec.environment_file,
        "user": exec.user,
        "group": exec.group,
        "health_check": health_check(&plan.health),
        "restart_policy": restart_policy(&plan.restart),
        "auto_restart": plan.auto_restart,
        "restart_on_exit": plan.restart_on_exit,
        "resource_limits": limits,
        "graceful_shutdown": {
            "enabled": exec.shutdown.graceful,
            "timeout": duration(exec.shutdown.timeout),
            "signal": signal(exec.shutdown.signal),
        },
        "dependencies": plan.dependencies.iter().map(dependency).collect::<Value>(),
        "type": exec.service_type,
        "port": plan.port.unwrap_or(0),
        "groups": plan.groups.iter().map(Id::as_str).collect::<Value>(),
        "labels": plan.labels,
        "unit_properties": exec.unit_properties,
    });
    drop_nulls(&mut value);
    value
}

fn health_check(check: &HealthCheck) -> Value {
    let mut object = probe(&check.probe);
    object.insert("interval".into(), duration(check.interval));
    object.insert("timeout".into(), duration(check.timeout));
    object.insert("failure_threshold".into(), check.failure_threshold.into());
    object.insert("success_threshold".into(), check.success_threshold.into());
    object.insert("start_period".into(), duration(check.start_period));
    if let Some(fallback) = &check.fallback {
        object.insert("fallback_check".into(), probe(fallback).into());
    }
    object.into()
}

fn probe(probe: &Probe) -> Map<String, Value> {
    let value = match probe {
        Probe::Http(HttpProbe {
            endpoint,
            method,
            headers,
            expected_status,
            expected_content,
            tls_verify,
        }) => json!({
            "type": "http",
            "endpoint": endpoint,
            "method": method,
            "headers": hidden(headers),
            "expected_status": expected_status.iter().map(status).collect::<Value>(),
            "expected_content": expected_content,
            "tls_verify": tls_verify,
        }),
        Probe::Tcp { host, port } => json!({"type": "tcp", "host": host, "port": port}),
        Probe::Process => json!({"type": "process"}),
        Probe::Exec { program, args } => json!({"type": "exec", "command": program, "args": args}),
    };
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

fn restart_policy(policy: &RestartPolicy) -> Value {
    json!({
        "max_retries": policy.max_retries.map_or(-1, i64::from),
        "retry_delay": duration(policy.retry_delay),
        "backoff_multiplier": number(policy.backoff_multiplier),
        "max_backoff": duration(policy.max_backoff),
        "jitter": number(policy.jitter),
        "reset_after": duration(policy.reset_after),
        "after_max_retries": policy.after_max_retries,
    })
}

fn limits(limits: &Limits) -> Map<String, Value> {
    #[expect(
        clippy::cast_precision_loss,
        reason = "limits come from a number of the file, which was a float"
    )]
    let mebibytes = |bytes: u64| number(bytes as f64 / 1_048_576.0);
    let mut object = Map::new();
    let mut put = |name: &str, value: Option<Value>| value.map(|v| object.insert(name.into(), v));
    put("max_memory_mb", limits.memory_bytes.map(mebibytes));
    put("max_cpu_percent", limits.cpu_percent.map(number));
    put("max_tasks", limits.tasks.map(Value::from));
    object
}

fn dependency(on: &Dependency) -> Value {
    json!({"service": on.service, "condition": on.condition, "on_failure": on.on_failure})
}

fn status((low, high): &(u16, u16)) -> Value {
    if low == high { json!(low) } else { json!(format!("{}xx", low / 100)) }
}

fn signal(number: i32) -> Value {
    nix::sys::signal::Signal::try_from(number).map_or_else(|_| number.into(), |s| s.as_str().into())
}

fn hidden(secrets: &std::collections::BTreeMap<String, Secret>) -> Value {
    secrets.keys().map(|key| (key.clone(), Value::from(HIDDEN))).collect()
}

fn duration(duration: Duration) -> Value {
    number(duration.as_secs_f64())
}

/// A number as a person writes it: 30, not 30.0.
pub(super) fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 9e15 {
        #[expect(clippy::cast_possible_truncation, reason = "whole and inside i64, as was just seen")]
        return Value::from(value as i64);
    }
    Value::from(value)
}

/// A key without a value is left out, as in the file.
pub(super) fn drop_nulls(value: &mut Value) {
    if let Value::Object(object) = value {
        object.retain(|_, v| !v.is_null());
        object.values_mut().for_each(drop_nulls);
    }
}
