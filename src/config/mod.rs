//! From `supervisor_config.json` to a checked [`Plan`], or to every problem in it.
//!
//! ```text
//!  text -> json (tree with places) -> walk (against the schema) -> part, raw (serde) -> check -> Plan, Settings
//!              \________________________\________________________________________________\---> Problems
//! ```
//!
//! Each step reports all it finds and hands on what is right, so that one run names every fault. Questions to the
//! machine go through [`World`]. No message, and nothing but the plan, holds an environment or header value.

mod check;
mod diff;
mod effective;
mod include;
mod json;
mod part;
mod place;
mod problem;
mod raw;
mod render;
mod report;
mod scalar;
mod schema;
mod walk;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;

pub use check::Settings;
pub use diff::{diff, diff_settings};
pub use effective::effective;
pub use problem::Problem;
pub use raw::Anonymous;
pub use render::{Severity, render};
pub use schema::schema;
pub use world::{Found, MAX_FILE, Machine, Unreadable, World};

use crate::core::plan::{Id, Plan};
use crate::place::Scope;
use check::fleet::{Entry, Fleet};
use check::{Context, service, supervisor};
use place::{At, Document};
use report::Report;

/// All files of one configuration together may have so many bytes.
const MAX_TOTAL: usize = 64 << 20;
const MAX_FILES: usize = 10_000;

/// A configuration that can be used.
#[derive(Debug)]
pub struct Loaded {
    /// What is to run.
    pub plan: Plan,
    /// The supervisor's own settings.
    pub settings: Settings,
    /// What works but is hardly meant.
    pub warnings: Vec<Problem>,
    /// The files that were read, the main one first.
    pub files: Vec<PathBuf>,
    /// Where each of the `unit_properties` stands, for those that systemd refuses.
    properties: BTreeMap<(Id, String), Problem>,
}

impl Loaded {
    /// What is needed for longer than the reading.
    pub fn into_parts(self) -> (Plan, Settings) {
        (self.plan, self.settings)
    }

    /// systemd does not take this one of the `unit_properties` of a service.
    pub fn refused_property(&self, service: &Id, property: &str, why: &str) -> Problem {
        let message = format!("systemd does not take {property}: {why}");
        let help = "see `man systemd.exec` and `man systemd.resource-control`, or remove it".into();
        let place = self.properties.get(&(service.clone(), property.into())).cloned().unwrap_or_default();
        Problem { message, help, ..place }
    }

    /// The unit of this service cannot be made, and the daemon starts all the same.
    pub fn set_lacking(&mut self, service: &Id, what: &str) {
        if let Some(plan) = self.plan.services.get_mut(service) {
            Arc::make_mut(plan).lacks.get_or_insert_with(|| what.to_owned());
        }
    }
}

/// What to do about a program, user or group that the machine does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lacking {
    /// An error: nothing is changed for a configuration that cannot work.
    Refuse,
    /// A warning: for the start of the daemon, where one missing program should not keep all services down. The
    /// start of that service fails and is tried again.
    Warn,
}

/// Reads and checks a configuration and the files it includes.
///
/// # Errors
///
/// Every problem, sorted by file and place, if there is one.
pub fn load(path: &Path, scope: Scope) -> Result<Loaded, Vec<Problem>> {
    load_in(&Machine, path, scope, Lacking::Refuse)
}

/// The files of this machine that `pattern` names, sorted: `*` and `?` may be in every part of it. None of a folder
/// that cannot be read.
pub(crate) fn files(folder: &Path, pattern: &str) -> Vec<PathBuf> {
    include::expand(&Machine, folder, pattern).unwrap_or_default()
}

/// As [`load`], with the machine as an argument.
///
/// # Errors
///
/// As [`load`].
pub fn load_in(
    world: &dyn World,
    path: &Path,
    scope: Scope,
    lacking: Lacking,
) -> Result<Loaded, Vec<Problem>> {
    let mut ctx = Context::new(world, scope, lacking == Lacking::Warn);
    let files = Files::read(world, path, &mut ctx.report);
    let names: Vec<String> = files.docs.iter().map(|d| d.file.clone()).collect();
    let made = assemble(&files, &mut ctx);
    let (errors, warnings) = ctx.report.sorted(&names);
    match made {
        Some((plan, settings, properties)) if errors.is_empty() => {
            Ok(Loaded { plan, settings, warnings, files: files.paths, properties })
        }
        _ => Err(errors),
    }
}

/// The files of a configuration, as far as they could be read.
struct Files {
    docs: Vec<Document>,
    paths: Vec<PathBuf>,
    /// Whether there is none that could not be read, so that nothing is missing from `docs`.
    complete: bool,
}

impl Files {
    fn read(world: &dyn World, path: &Path, report: &mut Report) -> Self {
        let mut files = Self { docs: Vec::new(), paths: Vec::new(), complete: true };
        match world.read(path) {
            Ok(text) => files.add(path, text),
            Err(e) => {
                report.file(&path.display().to_string(), e.message, e.help);
                files.complete = false;
                return files;
            }
        }
        let (more, all_read) = files
            .docs
            .first()
            .map_or_else(|| (Vec::new(), true), |main| included(world, path, &At::root(main), report));
        files.complete &= all_read;
        for (path, text) in more {
            files.add(&path, text);
        }
        files
    }

    fn add(&mut self, path: &Path, text: String) {
        let doc = Document::new(path.display().to_string(), text);
        self.complete &= doc.reading.root.is_some();
        self.docs.push(doc);
        self.paths.push(path.into());
    }
}

/// The files that the main one includes, and whether all of them could be read.
fn included(
    world: &dyn World,
    main: &Path,
    at: &At<'_>,
    report: &mut Report,
) -> (Vec<(PathBuf, String)>, bool) {
    let folder = main.parent().unwrap_or(Path::new(""));
    let at = at.key("include");
    let (mut files, mut all_read, mut total) = (Vec::new(), true, 0);
    let mut seen = BTreeSet::from([main.to_path_buf()]);
    let Some(json::Value::List(list)) = at.node().map(|n| &n.value) else { return (files, all_read) };
    for (index, node) in list.iter().enumerate() {
        let at = at.index(index);
        let json::Value::Text(pattern) = &node.value else { continue };
        let found = match include::expand(world, folder, pattern) {
            Ok(found) => found,
            Err(e) => {
                all_read = false;
                report.error(&at, e.message, e.help);
                continue;
            }
        };
        if found.is_empty() && include::is_pattern(pattern) {
            let help = format!("looked in {}", folder.join(pattern).display());
            report.warn(&at, format!("{} matches no file", quote(pattern)), help);
        } else if found.is_empty() {
            all_read = false;
            let help = format!("make {}, or remove it from \"include\"", folder.join(pattern).display());
            report.error(&at, format!("there is no file {}", quote(pattern)), help);
        }
        for path in found {
            if !seen.insert(path.clone()) {
                continue;
            }
            let text = match world.read(&path) {
                Ok(text) => text,
                Err(e) => {
                    all_read = false;
                    report.file(&path.display().to_string(), e.message, e.help);
                    continue;
                }
            };
            total += text.len();
            if total > MAX_TOTAL || files.len() >= MAX_FILES {
                let message = format!("more than {} MiB or {MAX_FILES} files are included", MAX_TOTAL >> 20);
                report.error(&at, message, "include fewer or smaller files");
                return (files, false);
            }
            files.push((path, text));
        }
    }
    (files, all_read)
}

/// Checks all files together. Gives nothing if the main one has no content to go on with.
fn assemble(files: &Files, ctx: &mut Context<'_>) -> Option<(Plan, Settings, Places)> {
    let roots: Vec<At<'_>> = files.docs.iter().map(At::root).collect();
    let mut bad = Vec::new();
    for (index, at) in roots.iter().enumerate() {
        at.doc.reading.faults.iter().for_each(|fault| ctx.report.fault(at.doc, fault));
        bad.push(walk::check(schema::shared(), at, &mut ctx.report));
        if index > 0 {
            only_in_main(at, &mut ctx.report);
        }
    }
    let root = roots.first()?;
    root.node()?;
    let settings_at = root.key("supervisor");
    let raw: raw::Supervisor = take(&settings_at, bad.first()?, &mut ctx.report).unwrap_or_default();
    let settings = supervisor(ctx, &settings_at, raw);
    ctx.default_user.clone_from(&settings.default_user);

    let service_lists: Vec<At<'_>> = roots.iter().map(|at| at.key("services")).collect();
    let group_lists: Vec<At<'_>> = roots.iter().map(|at| at.key("groups")).collect();
    let mut fleet = Fleet {
        services: BTreeMap::new(),
        groups: BTreeMap::new(),
        named: BTreeSet::new(),
        complete: files.complete,
    };
    let mut properties = Places::new();
    let mut first_places: BTreeMap<String, (String, usize)> = BTreeMap::new();
    let mut first_groups = first_places.clone();
    for (doc, bad) in bad.iter().enumerate() {
        let list_at = &service_lists[doc];
        for (key, at) in members(list_at) {
            fleet.named.insert(key.into());
            if twice("service", key, &at, &mut first_places, &mut ctx.report) {
                continue;
            }
            let Some(raw) = take(&at, bad, &mut ctx.report) else { continue };
            if let Ok(id) = Id::new(key) {
                let plan = service(ctx, &at, id.clone(), raw);
                places_of(&at.key("unit_properties"), &id, &mut properties);
                fleet.services.insert(id, Entry { at, plan });
            }
        }
        for (key, at) in members(&group_lists[doc]) {
            if twice("group", key, &at, &mut first_groups, &mut ctx.report) {
                continue;
            }
            let Some(raw) = take(&at, bad, &mut ctx.report) else { continue };
            if let Ok(id) = Id::new(key) {
                fleet.groups.insert(id, (at, raw));
            }
        }
    }
    if fleet.named.is_empty() && fleet.complete {
        ctx.report.warn(root, "no service is configured", "add one under \"services\"");
    }
    let (services, groups) = fleet.check(ctx);
    let max_concurrent_starts = settings.max_concurrent_starts;
    Some((Plan { services, groups, max_concurrent_starts }, settings, properties))
}

/// Problems without words yet, by what they would be about.
type Places = BTreeMap<(Id, String), Problem>;

fn places_of(at: &At<'_>, service: &Id, places: &mut Places) {
    for (name, at) in members(at) {
        let mut found = Report::default();
        found.error_key(&at, "", "");
        places.extend(found.errors.pop().map(|problem| ((service.clone(), name.into()), problem)));
    }
}

fn only_in_main(at: &At<'_>, report: &mut Report) {
    for key in ["supervisor", "include"] {
        let at = at.key(key);
        if at.node().is_some() {
            let help = "move it to the main file; an included file holds \"services\" and \"groups\"";
            report.error_key(&at, format!("\"{key}\" in an included file"), help);
        }
    }
}

/// The members of the object at a place, with the place of each.
fn members<'d>(at: &'d At<'d>) -> impl Iterator<Item = (&'d str, At<'d>)> {
    let members = match at.node().map(|n| &n.value) {
        Some(json::Value::Object(members)) => members.as_slice(),
        _ => &[],
    };
    members.iter().map(|m| (m.key.as_str(), at.of(m)))
}

/// Whether another file has this id already.
fn twice(
    kind: &str,
    id: &str,
    at: &At<'_>,
    firsts: &mut BTreeMap<String, (String, usize)>,
    report: &mut Report,
) -> bool {
    if let Some((file, line)) = firsts.get(id) {
        let message = format!("{kind} {} is in two files, first in {file}:{line}", quote_key(id));
        report.error_key(at, message, "rename or remove one of the two");
        return true;
    }
    let (line, _) = at.doc.position(at.key_offset());
    firsts.insert(id.into(), (at.doc.file.clone(), line));
    false
}

/// Reads a part of a file, unless it is absent or wrong as a whole. The schema came from these types, so that a checked
/// part fits; if ever not, that is said too, without serde's words, which could repeat a value.
fn take<T: DeserializeOwned>(at: &At<'_>, bad: &part::Bad, report: &mut Report) -> Option<T> {
    let node = at.node().filter(|node| !bad.contains(&node.start))?;
    let part = part::read(node, bad);
    if part.is_err() {
        report.error(at, "this part cannot be used", "compare it with the schema (supervisorctl schema)");
    }
    part.ok()
}

/// A text from a file as it is repeated in a message: in quotes, without control characters, cut if it is long.
fn quote(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// A key as it is repeated in a message. `TOKEN=secret` and `Header: secret` written as a key are cut.
fn quote_key(key: &str) -> String {
    match key.find(['=', ':']) {
        Some(end) => format!("{:?}", format!("{}...", &key[..=end])),
        None => quote(key),
    }
}

/// `"a", "b" or "c"`.
fn list_words(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => format!("\"{one}\""),
        [head @ .., last] => format!("\"{}\" or \"{last}\"", head.join("\", \"")),
    }
}
