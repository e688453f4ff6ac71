//! Which file a command is.

use std::path::Path;

use super::Context;
use crate::config::place::At;
use crate::config::quote;
use crate::config::world::{Found, World};

/// Where systemd looks if the service sets no PATH.
pub(super) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What came of looking for a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Search {
    /// This file.
    Found(String),
    /// This is there, but cannot be executed.
    Not(String, Found),
    /// Nothing of this name.
    Nowhere,
}

impl Context<'_> {
    /// The absolute path of a command. `path` is the PATH of the service, which may be a secret as any variable.
    pub(super) fn program(
        &mut self,
        at: &At<'_>,
        command: &str,
        path: Option<&String>,
        folder: Option<&str>,
        enabled: bool,
    ) -> String {
        self.no_nul(at, command);
        if !command.starts_with('/') && (command.contains('/') || command.starts_with('~')) {
            let there = folder.map(|f| Path::new(f).join(command.trim_start_matches("./")));
            let help = match there.filter(|p| self.world.look(p) == Found::Program) {
                Some(there) => format!("write {}", quote(&there.to_string_lossy())),
                None => "write an absolute path, or a name without \"/\" to look it up in PATH; \"~\" is not expanded"
                    .into(),
            };
            let message =
                format!("{} is a relative path, and it is not clear relative to what", quote(command));
            self.report.error(at, message, help);
            return command.into();
        }
        match self.search(command, path) {
            Search::Found(program) => program,
            Search::Not(program, Found::Directory) => {
                let message = format!("{} is a directory", quote(&program));
                self.lacking(at, enabled, message, "name the program in it");
                program
            }
            Search::Not(program, Found::Hidden) => {
                let message = format!("{} cannot be looked at by this user", quote(&program));
                self.report.warn(at, message, "whether it is there shows when the service starts");
                program
            }
            Search::Not(program, _) => {
                let message = format!("{} is not executable", quote(&program));
                let help = format!(
                    "chmod +x it, or name its interpreter as the command and {} in \"args\"",
                    quote(&program)
                );
                self.lacking(at, enabled, message, help);
                program
            }
            Search::Nowhere => {
                self.nowhere(at, command, path, enabled);
                if command.starts_with('/') { command.into() } else { format!("/usr/bin/{command}") }
            }
        }
    }

    fn nowhere(&mut self, at: &At<'_>, command: &str, path: Option<&String>, enabled: bool) {
        let first = command.split_whitespace().next().unwrap_or_default();
        if first != command && matches!(self.search(first, path), Search::Found(_)) {
            let rest: Vec<&str> = command.split_whitespace().skip(1).collect();
            let rest = serde_json::to_string(&rest).unwrap_or_default();
            let message = format!("there is no program {}: a command is one file", quote(command));
            let help = format!("write \"command\": {}, \"args\": {rest}", quote(first));
            return self.lacking(at, enabled, message, help);
        }
        let message = format!("there is no program {}", quote(command));
        let help = match path {
            _ if command.starts_with('/') => "install it, or correct the path".into(),
            Some(_) => "install it, write its absolute path, or correct PATH in \"environment\"".into(),
            None => format!("install it, or write its absolute path; looked in {DEFAULT_PATH}"),
        };
        self.lacking(at, enabled, message, help);
    }

    fn search(&mut self, command: &str, path: Option<&String>) -> Search {
        let key = (path.cloned(), command.to_owned());
        if let Some(known) = self.programs.get(&key) {
            return known.clone();
        }
        let found = search(self.world, command, path.map_or(DEFAULT_PATH, String::as_str));
        self.programs.insert(key, found.clone());
        found
    }
}

fn search(world: &dyn World, command: &str, path: &str) -> Search {
    let look = |file: &Path| {
        let shown = file.to_string_lossy().into_owned();
        match world.look(file) {
            Found::Program => Search::Found(shown),
            Found::Missing => Search::Nowhere,
            other => Search::Not(shown, other),
        }
    };
    if command.starts_with('/') {
        return look(Path::new(command));
    }
    let mut best = Search::Nowhere;
    for folder in path.split(':').filter(|f| f.starts_with('/')) {
        match look(&Path::new(folder).join(command)) {
            found @ Search::Found(_) => return found,
            other @ Search::Not(..) if best == Search::Nowhere => best = other,
            _ => {}
        }
    }
    best
}
