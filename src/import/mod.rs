//! Configurations of other supervisors, made into ours. Pure: files and the environment come through [`World`].
//!
//! ```text
//!   files -> parse (sections, keys) -> program (services) -> the configuration, and what became of each key
//! ```
//!
//! No key is dropped in silence: each has a line in the report.

mod parse;
mod program;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value, json};

use parse::{Field, Section};

/// What a conversion asks of its surroundings.
pub trait World {
    /// The text of a file.
    fn read(&self, path: &Path) -> Result<String, String>;
    /// Files that a pattern with `*` and `?` names, in order.
    fn glob(&self, folder: &Path, pattern: &str) -> Vec<std::path::PathBuf>;
    /// A variable of the environment.
    fn variable(&self, name: &str) -> Option<String>;
    /// Name of this host.
    fn host(&self) -> String;
}

/// What became of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It means the same in ours.
    Mapped,
    /// It means something a little different.
    Changed,
    /// It is not in ours.
    Dropped,
}

/// A line of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// As it was named.
    pub file: String,
    /// 1-based.
    pub line: usize,
    /// Without brackets.
    pub section: String,
    /// Empty for the section as a whole.
    pub key: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Where it is now, or what to do instead.
    pub text: String,
}

/// What became of every key, in the order of the conversion.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report(pub Vec<Note>);

impl Report {
    fn note(&mut self, field: &Field, section: &str, outcome: Outcome, text: &str) {
        let note = Note {
            file: field.file.clone(),
            line: field.line,
            section: section.into(),
            key: field.key.clone(),
            outcome,
            text: text.into(),
        };
        // Each process of a program says the same.
        if !self.0.contains(&note) {
            self.0.push(note);
        }
    }

    fn mapped(&mut self, field: &Field, section: &str, text: &str) {
        self.note(field, section, Outcome::Mapped, text);
    }

    fn changed(&mut self, field: &Field, section: &str, text: &str) {
        self.note(field, section, Outcome::Changed, text);
    }

    fn dropped(&mut self, field: &Field, section: &str, text: &str) {
        self.note(field, section, Outcome::Dropped, text);
    }
}

/// Converts files of supervisord. An error names the place, what was expected, and means that nothing was converted.
pub fn supervisord(files: &[&Path], world: &dyn World) -> Result<(Value, Report), String> {
    let (mut sections, mut report) = (Vec::new(), Report::default());
    for file in files {
        read_with_includes(file, world, &mut sections, &mut report)?;
    }
    let mut services = Map::new();
    let mut groups = Map::new();
    let mut supervisor = Map::new();
    program::all(&sections, world, &mut report, &mut services, &mut groups, &mut supervisor)?;
    others(&sections, &mut report);
    report.0.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    let mut config = json!({ "services": services });
    if !groups.is_empty() {
        config["groups"] = groups.into();
    }
    if !supervisor.is_empty() {
        config["supervisor"] = supervisor.into();
    }
    Ok((config, report))
}

fn read_with_includes(
    file: &Path,
    world: &dyn World,
    sections: &mut Vec<Section>,
    report: &mut Report,
) -> Result<(), String> {
    let name = file.display().to_string();
    parse::read(&name, &world.read(file)?, sections, report)?;
    let Some(at) = sections.iter().position(|section| section.name == "include") else { return Ok(()) };
    let include = sections.remove(at);
    let folder = folder_of(file);
    for field in &include.fields {
        if field.key != "files" {
            report.dropped(field, "include", "supervisord does not know it either");
            continue;
        }
        let patterns = expanded(field, world, &BTreeMap::new())?;
        for pattern in patterns.split_whitespace() {
            let found = world.glob(folder, pattern);
            if found.is_empty() {
                report.changed(
                    field,
                    "include",
                    &format!("no file is called {pattern}, so nothing came of it"),
                );
            }
            for path in found {
                let name = path.display().to_string();
                parse::read(&name, &world.read(&path)?, sections, report)?;
                report.mapped(field, "include", &format!("{name} was read"));
            }
        }
        if patterns.trim().is_empty() {
            report.dropped(field, "include", "it names no file");
        }
    }
    // supervisord reads no includes of includes.
    sections.retain(|section| {
        if section.name == "include" {
            section.fields.iter().for_each(|field| {
                report.dropped(field, "include", "supervisord reads no includes of included files")
            });
        }
        section.name != "include"
    });
    Ok(())
}

/// Where `file` is: the working directory, where it is a name alone.
fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// `names`, then the environment of this command.
fn expanded(field: &Field, world: &dyn World, names: &BTreeMap<String, String>) -> Result<String, String> {
    let here = folder_of(Path::new(&field.file));
    let known = |name: &str| match name {
        "here" => Some(std::path::absolute(here).unwrap_or_else(|_| here.into()).display().to_string()),
        "host_node_name" => Some(world.host()),
        _ => names.get(name).cloned().or_else(|| world.variable(name.strip_prefix("ENV_")?)),
    };
    parse::expand(&field.value, known).map_err(|why| at_field(field, &why))
}

fn at_field(field: &Field, why: &str) -> String {
    format!("{}:{}: {}: {why}", field.file, field.line, field.key)
}

/// Sections that make no service: what to do instead.
fn others(sections: &[Section], report: &mut Report) {
    for section in sections {
        let kind = section.name.split(':').next().unwrap_or_default();
        let instead = match kind {
            "program" | "group" | "supervisord" | "DEFAULT" => continue,
            "unix_http_server" => {
                "the socket is /run/process-supervisor/supervisor.sock, open to the group process-supervisor"
            }
            "inet_http_server" => {
                "set \"listen\" under \"supervisor\"; callers need the token instead of a user and password"
            }
            "supervisorctl" => "supervisorctl finds the socket by itself; see --socket and --url",
            "rpcinterface" => "the API is HTTP with JSON, described at /api/supervisor/openapi.json",
            "eventlistener" => "read GET /api/supervisor/stream instead, as a service of your own",
            "fcgi-program" => {
                "make it a service that listens by itself (a php-fpm pool, spawn-fcgi), or a systemd socket unit"
            }
            "ctlplugin" => "there are no plugins of supervisorctl",
            _ => "supervisord does not know such a section",
        };
        if section.fields.is_empty() {
            let field = Field {
                key: String::new(),
                value: String::new(),
                file: section.file.clone(),
                line: section.line,
            };
            report.dropped(&field, &section.name, instead);
        }
        section.fields.iter().for_each(|field| report.dropped(field, &section.name, instead));
    }
}
