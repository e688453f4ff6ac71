//! Whether the running systemd takes the `unit_properties` of a service: it is asked, with a unit that never
//! executes anything and leaves nothing.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use super::SystemdError;
use super::bus::{error_name, error_words, explain};
use super::manager::{Inner, lock};
use super::property::{self, Property};
use super::unit::probe_properties;
use crate::core::plan::ServicePlan;

/// Settings that systemd took before, with their values: most services of a file are alike.
pub type Accepted = HashSet<(String, Vec<String>)>;

/// A bound against growing with every value that was ever configured.
const ACCEPTED_KEPT: usize = 10_000;

/// These would start, stop or wait for other units, even of a unit that does not run. Their type is all that can be
/// checked.
const DEPENDENCIES: &[&str] = &[
    "After",
    "Before",
    "BindsTo",
    "Conflicts",
    "JoinsNamespaceOf",
    "OnFailure",
    "OnSuccess",
    "PartOf",
    "Requires",
    "RequiresMountsFor",
    "Requisite",
    "Upholds",
    "Wants",
];

static COUNT: AtomicU64 = AtomicU64::new(0);

/// Which settings are refused, and why.
pub async fn check(inner: &Inner, plan: &ServicePlan) -> Result<Vec<(String, String)>, SystemdError> {
    let mut refused = Vec::new();
    let mut asked: Vec<(&String, &Vec<String>, Vec<Property>)> = Vec::new();
    for (name, values) in &plan.exec.unit_properties {
        match property::convert(name, values) {
            Err(reason) => refused.push((name.clone(), reason)),
            Ok(_) if DEPENDENCIES.contains(&name.as_str()) => {}
            Ok(_) if lock(&inner.accepted).contains(&(name.clone(), values.clone())) => {}
            Ok(properties) => asked.push((name, values, properties)),
        }
    }
    if asked.is_empty() {
        return Ok(refused);
    }
    let all = asked.iter().flat_map(|(.., properties)| copy(properties)).collect();
    if ask(inner, all).await?.is_none() {
        for (name, values, _) in asked {
            accept(inner, name, values);
        }
        return Ok(refused);
    }
    // One of them is to blame, or more.
    let before = refused.len();
    for (name, values, properties) in &asked {
        match ask(inner, copy(properties)).await? {
            Some(reason) => refused.push(((*name).clone(), reason)),
            None => accept(inner, name, values),
        }
    }
    if refused.len() == before {
        let all = asked.iter().flat_map(|(.., properties)| copy(properties)).collect();
        if let Some(reason) = ask(inner, all).await? {
            let names: Vec<&str> = asked.iter().map(|(name, ..)| name.as_str()).collect();
            refused.push((names.join(", "), format!("together: {reason}")));
        }
    }
    Ok(refused)
}

/// Values hold no file descriptors, which are all that cannot be copied.
fn copy(properties: &[Property]) -> Vec<Property> {
    properties.iter().filter_map(|(name, value)| Some((name.clone(), value.try_clone().ok()?))).collect()
}

fn accept(inner: &Inner, name: &str, values: &[String]) {
    let mut accepted = lock(&inner.accepted);
    if accepted.len() >= ACCEPTED_KEPT {
        accepted.clear();
    }
    accepted.insert((name.to_owned(), values.to_vec()));
}

/// systemd's objection, if it has one.
async fn ask(inner: &Inner, properties: Vec<Property>) -> Result<Option<String>, SystemdError> {
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("process-supervisor-check-{}-{count}.service", std::process::id());
    let properties = probe_properties(properties);
    let asked = inner
        .try_call(async |link| link.manager.start_transient_unit(&name, "replace", &properties, &[]).await)
        .await?;
    let Err(error) = asked else { return Ok(None) };
    match error_name(&error).rsplit('.').next().unwrap_or_default() {
        "InvalidArgs" | "BadUnitSetting" | "NotSupported" | "InvalidSignature" => {
            Ok(Some(error_words(&error)))
        }
        "PropertyReadOnly" | "UnknownProperty" => {
            let version = inner.link().await?.version;
            Ok(Some(format!("systemd {version} does not know this setting")))
        }
        _ => Err(explain(inner.scope, error, "StartTransientUnit", &name)),
    }
}
