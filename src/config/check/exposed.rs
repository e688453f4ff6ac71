//! Values that look like secrets, in a file that everybody on the machine can read.

use std::path::Path;

use super::Context;
use crate::config::place::At;

/// Parts of names, in small letters, whose values are secret nearly always.
const NAMES: [&str; 12] = [
    "password",
    "passwd",
    "secret",
    "token",
    "credential",
    "api_key",
    "api-key",
    "apikey",
    "access_key",
    "private_key",
    "authorization",
    "cookie",
];
/// Ends of names whose values only lead to a secret.
const LEADS: [&str; 3] = ["_file", "_path", "_dir"];

impl Context<'_> {
    /// Warns of the first such value of each file. `at` is that of the value.
    pub(super) fn exposed(&mut self, at: &At<'_>, name: &str, value: &str) {
        let file = &at.doc.file;
        // The machine is asked once for each file with one, and never for the others.
        if !is_secret(name, value)
            || !self.exposed.insert(file.clone())
            || !self.world.is_public(Path::new(file))
        {
            return;
        }
        let help = format!(
            "chmod o-rwx {file}; variables can also come from an \"environment_file\" that is closed to others"
        );
        self.report.warn(
            at,
            "it looks like a secret, and everybody on this machine can read this file",
            help,
        );
    }
}

/// A word for it in the name, or a user in an address.
fn is_secret(name: &str, value: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let named = NAMES.iter().any(|part| name.contains(part)) && !LEADS.iter().any(|end| name.ends_with(end));
    let address = value.split_once("://").is_some_and(|(_, rest)| rest.contains('@'));
    (named && !value.is_empty()) || address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret() {
        for (name, value) in [
            ("DB_PASSWORD", "x"),
            ("Authorization", "Bearer x"),
            ("X-Api-Key", "x"),
            ("URL", "redis://:x@host"),
        ] {
            assert!(is_secret(name, value), "{name}");
        }
        for (name, value) in [
            ("DB_PASSWORD", ""),
            ("DB_PASSWORD_FILE", "/run/x"),
            ("LANG", "C.UTF-8"),
            ("URL", "redis://host"),
            ("MAIL", "a@b"),
        ] {
            assert!(!is_secret(name, value), "{name}");
        }
    }
}
