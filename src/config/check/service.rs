//! One service.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use ring::digest::{SHA256, digest};
use serde::Serialize;
use serde_json::Value as Json;

use super::health::{Surroundings, local_port};
use super::{Context, ids, limits, secrets};
use crate::config::place::At;
use crate::config::raw::{self, Seconds};
use crate::config::world::Found;
use crate::config::{quote, scalar};
use crate::core::plan::{
    Condition, Dependency, Exec, Id, OnFailure, RestartPolicy, ServicePlan, ServiceType, Shutdown,
};
use crate::core::time::Human;

/// Longest single argument or variable, and all of them together: what the kernel takes.
const MAX_ARGUMENT: usize = 131_071;
const MAX_ARGUMENTS: usize = 2 << 20;

/// What is written of one service as it is meant.
pub(in crate::config) fn service(
    ctx: &mut Context<'_>,
    at: &At<'_>,
    id: Id,
    mut raw: raw::Service,
) -> ServicePlan {
    ctx.lacks = None;
    let name = name(ctx, at, &id, raw.name.take());
    let working_directory = ctx.absolute(&at.key("working_directory"), raw.working_directory.take());
    if let Some(folder) = &working_directory {
        ctx.folder(&at.key("working_directory"), folder);
    }
    let path = raw.environment.get("PATH").cloned();
    let around =
        Surroundings { path: path.as_ref(), folder: working_directory.as_deref(), enabled: raw.enabled };
    let health = ctx.health(&at.key("health_check"), raw.health_check.take().map(|h| *h), &around);
    let command = raw.command.take();
    let program = command
        .as_ref()
        .map(|command| ctx.program(&at.key("command"), command, around.path, around.folder, raw.enabled));
    let port = match raw.port {
        Some(0) => None,
        Some(port) => Some(port),
        None => local_port(&health.probe),
    };
    let exec = exec(
        ctx,
        at,
        &mut raw,
        (command.unwrap_or_default(), program.unwrap_or_default()),
        working_directory.clone(),
    );
    ServicePlan {
        name,
        description: raw.description,
        enabled: raw.enabled,
        priority: raw.priority,
        critical: raw.critical,
        exec,
        health,
        restart: restart_policy(ctx, &at.key("restart_policy"), &raw.restart_policy),
        auto_restart: raw.auto_restart,
        restart_on_exit: raw.restart_on_exit,
        limits: limits(
            raw.resource_limits.max_memory_mb,
            raw.resource_limits.max_cpu_percent,
            raw.resource_limits.max_tasks,
        ),
        warn_percent: raw.resource_limits.warn_percent,
        dependencies: dependencies(ctx, &at.key("dependencies"), &id),
        port,
        groups: ids(&raw.groups),
        labels: raw.labels,
        // Known when the groups are.
        exec_hash: String::new(),
        lacks: ctx.lacks.take(),
        id,
    }
}

fn name(ctx: &mut Context<'_>, at: &At<'_>, id: &Id, name: Option<String>) -> String {
    if name.as_ref().is_some_and(|n| n.contains(char::is_control)) {
        ctx.report.error(&at.key("name"), "a control character in a name", "write the name in one line");
    }
    name.unwrap_or_else(|| id.to_string())
}

fn exec(
    ctx: &mut Context<'_>,
    at: &At<'_>,
    raw: &mut raw::Service,
    (command, program): (String, String),
    working_directory: Option<String>,
) -> Exec {
    ctx.arguments(&at.key("args"), &raw.args);
    environment(ctx, &at.key("environment"), &raw.environment, &raw.args);
    let user = raw.user.as_ref().and_then(|user| ctx.account(&at.key("user"), user, true, raw.enabled));
    let group = raw.group.as_ref().and_then(|group| ctx.account(&at.key("group"), group, false, raw.enabled));
    Exec {
        command,
        program,
        args: std::mem::take(&mut raw.args),
        working_directory,
        environment: secrets(std::mem::take(&mut raw.environment)),
        environment_file: ctx.absolute(&at.key("environment_file"), raw.environment_file.take()),
        user: user.or_else(|| ctx.default_user.clone()),
        group,
        service_type: raw.service_type,
        shutdown: shutdown(ctx, &at.key("graceful_shutdown"), &raw.graceful_shutdown),
        unit_properties: ctx.properties(&at.key("unit_properties"), std::mem::take(&mut raw.unit_properties)),
    }
}

impl Context<'_> {
    /// A folder that is missing makes the start fail; it may be there by then.
    fn folder(&mut self, at: &At<'_>, folder: &str) {
        if !folder.starts_with('/') {
            return;
        }
        let world = self.world;
        let found = *self.folders.entry(folder.into()).or_insert_with(|| world.look(folder.as_ref()));
        let what = match found {
            Found::Missing => "does not exist",
            Found::File | Found::Program => "is not a directory",
            Found::Directory | Found::Hidden => return,
        };
        let help = "make it before the service starts, or correct the path: the start fails without it";
        self.report.warn(at, format!("{} {what}", quote(folder)), help);
    }

    pub(super) fn arguments(&mut self, at: &At<'_>, args: &[String]) {
        for (index, arg) in args.iter().enumerate() {
            let at = at.index(index);
            self.no_nul(&at, arg);
            if arg.len() > MAX_ARGUMENT {
                let message = format!("the argument has {} bytes", arg.len());
                self.report.error(
                    &at,
                    message,
                    format!("the kernel takes {MAX_ARGUMENT}: pass a file instead"),
                );
            }
        }
    }
}

fn environment(ctx: &mut Context<'_>, at: &At<'_>, environment: &BTreeMap<String, String>, args: &[String]) {
    for (key, value) in environment {
        let at = at.key(key);
        ctx.no_nul(&at, value);
        ctx.exposed(&at, key, value);
        let length = key.len() + 1 + value.len();
        if length > MAX_ARGUMENT {
            let help = format!("the kernel takes {MAX_ARGUMENT}: pass a file instead");
            ctx.report.error(&at, format!("the variable has {length} bytes"), help);
        }
    }
    // Each string has its end and a pointer to it.
    let sizes = args.iter().map(String::len).chain(environment.iter().map(|(k, v)| k.len() + 1 + v.len()));
    let total: usize = sizes.map(|size| size + 9).sum();
    if total > MAX_ARGUMENTS {
        let message = format!("arguments and environment have {total} bytes together");
        ctx.report.error_key(at, message, format!("the kernel takes {MAX_ARGUMENTS}: pass files instead"));
    }
}

fn shutdown(ctx: &mut Context<'_>, at: &At<'_>, raw: &raw::GracefulShutdown) -> Shutdown {
    // systemd would take 0 as "wait for ever".
    let why = "to kill at once, write \"enabled\": false";
    let timeout = ctx.duration_from(&at.key("timeout"), &raw.timeout, Duration::from_millis(1), why);
    let signal = match &raw.signal.0 {
        Json::String(name) => scalar::signal(name),
        number => number.as_i64().and_then(|n| i32::try_from(n).ok()),
    };
    let signal = signal.unwrap_or(nix::libc::SIGTERM);
    if matches!(signal, nix::libc::SIGSTOP | nix::libc::SIGCONT) {
        let help = "use the signal on which the program ends by itself, such as SIGTERM or SIGINT";
        ctx.report.error(&at.key("signal"), "no program ends on this signal", help);
    }
    Shutdown { graceful: raw.enabled, timeout, signal }
}

fn restart_policy(ctx: &mut Context<'_>, at: &At<'_>, raw: &raw::RestartPolicy) -> RestartPolicy {
    let longest = Duration::from_secs(300);
    let retry_delay = ctx.duration(&at.key("retry_delay"), &raw.retry_delay);
    let cap_at = at.key("max_backoff");
    let max_backoff = raw
        .max_backoff
        .as_ref()
        .map_or(longest.max(retry_delay), |written: &Seconds| ctx.duration(&cap_at, written));
    if max_backoff < retry_delay {
        let message = format!("max_backoff cuts every delay: retry_delay is {}", Human(retry_delay));
        let help =
            format!("the service is restarted after {} each time; raise max_backoff", Human(max_backoff));
        ctx.report.warn(&cap_at, message, help);
    }
    let max_retries = u32::try_from(raw.max_retries).ok();
    if retry_delay.min(max_backoff).is_zero() && max_retries.is_none() {
        let message = "restarts have neither a pause nor an end: a service that crashes at once keeps a core busy, ten times a second \
             in the long run";
        let help = "raise retry_delay to 1 or more, or give max_retries an end";
        ctx.report.warn(&at.key("retry_delay"), message, help);
    }
    RestartPolicy {
        max_retries,
        retry_delay,
        backoff_multiplier: raw.backoff_multiplier,
        max_backoff,
        jitter: raw.jitter,
        reset_after: ctx.duration(&at.key("reset_after"), &raw.reset_after),
        after_max_retries: raw.after_max_retries,
    }
}

/// The dependencies, read from the text so that each keeps its place in it. Whom they name is checked by `fleet`.
fn dependencies(ctx: &mut Context<'_>, at: &At<'_>, id: &Id) -> Vec<Dependency> {
    use crate::config::json::Value;
    let Some(Value::List(list)) = at.node().map(|n| &n.value) else { return Vec::new() };
    let mut seen: BTreeMap<Id, usize> = BTreeMap::new();
    let mut dependencies = Vec::new();
    for (index, node) in list.iter().enumerate() {
        let word = |key: &str| match node.member(key).map(|m| &m.value.value) {
            Some(Value::Text(text)) => Some(text.as_str()),
            _ => None,
        };
        let service = match &node.value {
            Value::Text(text) => Some(text.as_str()),
            _ => word("service"),
        };
        let Some(service) = service.and_then(|s| Id::new(s).ok()) else { continue };
        let at = at.index(index);
        if service == *id {
            ctx.report.error(&at, "the service depends on itself", "remove it from its own dependencies");
            continue;
        }
        if let Some(first) = seen.insert(service.clone(), index) {
            let message = format!("{service} is here twice, first as entry {}", first + 1);
            ctx.report.error(&at, message, "remove one of the two");
            continue;
        }
        dependencies.push(Dependency {
            service,
            condition: if word("condition") == Some("started") {
                Condition::Started
            } else {
                Condition::Healthy
            },
            on_failure: match word("on_failure") {
                Some("restart") => OnFailure::Restart,
                Some("ignore") => OnFailure::Ignore,
                _ => OnFailure::Hold,
            },
        });
    }
    dependencies
}

/// What the fingerprint is taken of, in an order that stays. `version` is raised when the meaning of a field changes.
#[derive(Serialize)]
struct Executed<'e> {
    version: u8,
    command: &'e str,
    args: &'e [String],
    working_directory: Option<&'e str>,
    environment: Vec<&'e str>,
    environment_file: Option<&'e str>,
    user: Option<&'e str>,
    group: Option<&'e str>,
    service_type: ServiceType,
    graceful: bool,
    stop_timeout: Duration,
    stop_signal: i32,
    unit_properties: &'e BTreeMap<String, Vec<String>>,
    slice: Option<&'e Id>,
}

/// SHA-256 in hex over all that systemd executes, environment values aside.
pub(super) fn exec_hash(exec: &Exec, slice: Option<&Id>) -> String {
    let Exec {
        command,
        program: _,
        args,
        working_directory,
        environment,
        environment_file,
        user,
        group,
        service_type,
        shutdown: Shutdown { graceful, timeout, signal },
        unit_properties,
    } = exec;
    let executed = Executed {
        version: 1,
        command,
        args,
        working_directory: working_directory.as_deref(),
        environment: environment.keys().map(String::as_str).collect(),
        environment_file: environment_file.as_deref(),
        user: user.as_deref(),
        group: group.as_deref(),
        service_type: *service_type,
        graceful: *graceful,
        stop_timeout: *timeout,
        stop_signal: *signal,
        unit_properties,
        slice,
    };
    // Strings, numbers and maps with text keys: there is nothing in it that JSON could refuse.
    let canonical = serde_json::to_vec(&executed).unwrap_or_default();
    let mut hex = String::with_capacity(64);
    for byte in digest(&SHA256, &canonical).as_ref() {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}
