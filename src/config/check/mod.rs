//! From what was written to what is meant: small checks, each of which reports all that it finds.
//!
//! A check that finds a fault still gives some value, so that the others can run; with an error in the report nobody
//! sees the plan.

mod exposed;
pub(super) mod fleet;
mod health;
mod program;
mod properties;
mod service;
mod supervisor;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use serde_json::Value as Json;

use super::place::At;
use super::raw::{Account, Seconds};
use super::report::Report;
use super::scalar;
use super::world::World;
use crate::core::plan::{Id, Limits, Secret};
use crate::place::Scope;

pub(super) use service::service;
pub use supervisor::Settings;
pub(super) use supervisor::supervisor;

/// What the checks of one configuration share.
pub(super) struct Context<'c> {
    pub world: &'c dyn World,
    pub scope: Scope,
    /// Whether what the machine lacks (a program, a user) is only a warning.
    pub lenient: bool,
    pub report: Report,
    /// Default of `user`.
    pub default_user: Option<String>,
    /// What the machine lacks of what the service at hand needs: the first such thing.
    lacks: Option<String>,
    programs: HashMap<(Option<String>, String), program::Search>,
    accounts: HashMap<(bool, String), bool>,
    folders: HashMap<String, super::world::Found>,
    /// Files with secrets, as far as it was asked who can read them.
    exposed: HashSet<String>,
}

impl<'c> Context<'c> {
    pub(super) fn new(world: &'c dyn World, scope: Scope, lenient: bool) -> Self {
        Self {
            world,
            scope,
            lenient,
            report: Report::default(),
            default_user: None,
            lacks: None,
            programs: HashMap::new(),
            accounts: HashMap::new(),
            folders: HashMap::new(),
            exposed: HashSet::new(),
        }
    }

    /// The machine lacks something. It is no error for a service that is not to run.
    fn lacking(&mut self, at: &At<'_>, enabled: bool, message: String, help: impl Into<String>) {
        if enabled && !self.lenient {
            self.report.error(at, message, help);
        } else {
            self.lacks.get_or_insert_with(|| message.clone());
            self.report.warn(at, message, help);
        }
    }

    /// A user or group as text. It has to be known to the machine, and settable in this scope.
    fn account(&mut self, at: &At<'_>, account: &Account, is_user: bool, enabled: bool) -> Option<String> {
        let name = match &account.0 {
            Json::String(name) => name.clone(),
            other => other.to_string(),
        };
        let kind = if is_user { "user" } else { "group" };
        if self.scope == Scope::User {
            let message = format!("a {kind} can be set in the system scope only");
            self.report.error(at, message, "remove it: every service runs as the user of this supervisor");
            return Some(name);
        }
        if name.bytes().all(|b| b.is_ascii_digit()) {
            if name.parse::<u32>().is_ok_and(|n| n < u32::MAX) {
                return Some(name);
            }
            self.report.error(at, format!("{kind} number {name} is too large"), "write 0 to 4294967294");
            return Some(name);
        }
        let world = self.world;
        let known = *self.accounts.entry((is_user, name.clone())).or_insert_with(|| {
            let plain = name.bytes().all(|b| b.is_ascii_graphic() && b != b':' && b != b'/');
            plain && if is_user { world.has_user(&name) } else { world.has_group(&name) }
        });
        if !known {
            let add = if is_user { "useradd --system" } else { "groupadd --system" };
            let message = format!("there is no {kind} {}", super::quote(&name));
            self.lacking(at, enabled, message, format!("correct the name, or make the {kind} with {add}"));
        }
        Some(name)
    }

    /// A path that has to be absolute.
    fn absolute(&mut self, at: &At<'_>, path: Option<String>) -> Option<String> {
        let path = path?;
        self.no_nul(at, &path);
        if !path.starts_with('/') {
            let help = "write the whole path from \"/\" on; \"~\" and variables are not expanded";
            self.report.error(at, format!("{} is not an absolute path", super::quote(&path)), help);
        }
        Some(path)
    }

    fn no_nul(&mut self, at: &At<'_>, text: &str) {
        if text.contains('\0') {
            self.report.error(at, "a zero byte in the text", "remove \\u0000: no program can be given one");
        }
    }

    /// A duration; the schema has seen its form.
    fn duration(&mut self, at: &At<'_>, written: &Seconds) -> Duration {
        let duration = match written {
            Seconds::Number(seconds) => scalar::seconds(*seconds),
            Seconds::Text(text) => scalar::duration(text),
        };
        duration.unwrap_or_else(|| {
            self.report.error(at, "not a duration", "write seconds, or a text such as \"1m30s\"");
            Duration::ZERO
        })
    }

    /// A duration that is at least `least`.
    fn duration_from(&mut self, at: &At<'_>, written: &Seconds, least: Duration, why: &str) -> Duration {
        let duration = self.duration(at, written);
        if duration < least {
            let least = crate::core::time::Human(least);
            self.report.error(at, format!("expected {least} or more"), why);
        }
        duration
    }
}

fn limits(memory_mb: Option<f64>, cpu_percent: Option<f64>, tasks: Option<u64>) -> Limits {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the schema bounds it to 1..=1e9"
    )]
    let bytes = |mb: f64| (mb * 1_048_576.0) as u64;
    Limits { memory_bytes: memory_mb.map(bytes), cpu_percent, tasks }
}

fn secrets(plain: BTreeMap<String, String>) -> BTreeMap<String, Secret> {
    plain.into_iter().map(|(key, value)| (key, Secret(value))).collect()
}

/// An id that the schema has seen.
fn ids(texts: &[String]) -> Vec<Id> {
    texts.iter().filter_map(|t| Id::new(t).ok()).collect()
}
