//! `unit_properties`: what may not be set there, because the supervisor sets it, and in which form values are kept.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::Context;
use crate::config::place::At;
use crate::config::raw::PropertyValue;

/// What a user reaches for, and what to do instead.
const OWNED: &[(&[&str], &str)] = &[
    (&["ExecStart", "ExecStartEx", "ExecSearchPath"], "use \"command\" and \"args\""),
    (&["Type"], "use \"type\""),
    (
        &[
            "Restart",
            "RestartSec",
            "RestartSteps",
            "RestartMaxDelaySec",
            "RestartMode",
            "RestartUSec",
            "RestartForceExitStatus",
            "RestartPreventExitStatus",
            "StartLimitIntervalSec",
            "StartLimitIntervalUSec",
            "StartLimitBurst",
            "StartLimitAction",
        ],
        "use \"restart_policy\", \"auto_restart\" and \"restart_on_exit\": the supervisor decides on restarts",
    ),
    (&["KillSignal", "RestartKillSignal"], "use \"graceful_shutdown.signal\""),
    (
        &["TimeoutStopSec", "TimeoutStopUSec", "TimeoutSec", "TimeoutStopFailureMode"],
        "use \"graceful_shutdown.timeout\"",
    ),
    (
        &["KillMode", "SendSIGKILL", "FinalKillSignal"],
        "remove it: a service is always stopped with all its processes, see \"graceful_shutdown\"",
    ),
    (
        &["Environment", "PassEnvironment", "UnsetEnvironment"],
        "use \"environment\", whose values are kept secret",
    ),
    (&["EnvironmentFile", "EnvironmentFiles"], "use \"environment_file\""),
    (&["User", "DynamicUser"], "use \"user\""),
    (&["Group"], "use \"group\""),
    (&["WorkingDirectory"], "use \"working_directory\""),
    (&["MemoryMax", "MemoryLimit"], "use \"resource_limits.max_memory_mb\""),
    (&["CPUQuota", "CPUQuotaPerSecUSec"], "use \"resource_limits.max_cpu_percent\""),
    (&["TasksMax"], "use \"resource_limits.max_tasks\""),
    (&["Slice"], "use \"groups\": the first one names the slice"),
    (
        &["Requires", "Requisite", "BindsTo", "PartOf", "Upholds", "PropagatesStopTo", "StopPropagatedFrom"],
        "use \"dependencies\": systemd would stop the service behind the supervisor's back",
    ),
    (
        &["SetCredential", "SetCredentialEncrypted"],
        "use \"LoadCredential\" with a file: the value would stand in a world-readable unit",
    ),
    (&["Description"], "use \"name\" and \"description\""),
    (
        &["SyslogIdentifier", "LogExtraFields", "StandardOutput", "StandardError", "LogNamespace"],
        "remove it: output goes to the journal under the id, where \"supervisorctl logs\" finds it",
    ),
    (
        &[
            "OOMPolicy",
            "CollectMode",
            "AddRef",
            "RemainAfterExit",
            "CPUAccounting",
            "MemoryAccounting",
            "TasksAccounting",
            "GuessMainPID",
            "PIDFile",
            "BusName",
            "NonBlocking",
            "FileDescriptorStoreMax",
            "Names",
            "Id",
            "DefaultDependencies",
            "SuccessAction",
            "FailureAction",
            "OnFailure",
            "OnSuccess",
        ],
        "remove it: the supervisor depends on its own value",
    ),
];

impl Context<'_> {
    pub(super) fn properties(
        &mut self,
        at: &At<'_>,
        written: BTreeMap<String, PropertyValue>,
    ) -> BTreeMap<String, Vec<String>> {
        let mut properties = BTreeMap::new();
        for (name, PropertyValue(value)) in written {
            let at = at.key(&name);
            if let Some((_, instead)) = OWNED.iter().find(|(names, _)| names.contains(&name.as_str())) {
                self.report.error_key(&at, format!("{name} is set by the supervisor itself"), *instead);
                continue;
            }
            let values: Vec<String> = match value {
                Json::Array(list) => list.iter().map(one).collect(),
                other => vec![one(&other)],
            };
            if values.iter().any(|v| v.contains(|c: char| c.is_control() && c != '\t')) {
                let help = "write one line; for several assignments write a list";
                self.report.error(&at, "a line break or control character in a property", help);
            }
            properties.insert(name, values);
        }
        properties
    }
}

/// A value as it stands in a unit file.
fn one(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Bool(true) => "yes".into(),
        Json::Bool(false) => "no".into(),
        Json::Number(n) => n
            .as_f64()
            .filter(|_| n.is_f64())
            .map_or_else(|| n.to_string(), |f| crate::config::effective::number(f).to_string()),
        other => other.to_string(),
    }
}
