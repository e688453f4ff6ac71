//! Which files `include` means.

use std::path::{Path, PathBuf};

use super::world::{Found, Unreadable, World};

/// The files that a pattern names, sorted. `*` and `?` stand for any characters and any one character of a name;
/// names that start with a dot have to be asked for. A file that is there and cannot be looked at is named as well: to
/// leave it out would be to take its services away.
///
/// # Errors
/// A folder cannot be read.
pub(super) fn expand(world: &dyn World, folder: &Path, pattern: &str) -> Result<Vec<PathBuf>, Unreadable> {
    /// Directories looked into for one pattern.
    const MAX_PATHS: usize = 10_000;
    let full = folder.join(pattern);
    let mut paths = vec![PathBuf::new()];
    for part in full.components() {
        let Some(name) = part.as_os_str().to_str().filter(|n| is_pattern(n)) else {
            paths.iter_mut().for_each(|p| p.push(part));
            continue;
        };
        let mut found = Vec::new();
        for dir in paths {
            let mut names = world.list(&dir)?;
            names.retain(|n| matches(name, n));
            names.sort();
            found.extend(names.into_iter().map(|n| dir.join(n)).take(MAX_PATHS - found.len()));
        }
        paths = found;
    }
    let last_is_pattern = full.file_name().and_then(|n| n.to_str()).is_some_and(is_pattern);
    paths.retain(|path| match world.look(path) {
        Found::File | Found::Program | Found::Hidden => true,
        Found::Directory => false,
        // A link that leads nowhere, where the name was found.
        Found::Missing => last_is_pattern,
    });
    Ok(paths)
}

/// Whether it holds `*` or `?`.
pub(super) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?'])
}

fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where to go on if the last `*` has to take one more character.
    let mut retry = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                retry = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((star, taken)) = retry else { return false };
                retry = Some((star, taken + 1));
                p = star + 1;
                n = taken + 1;
            }
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::world::Machine;

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("*.json", "a.json", true),
            ("*.json", ".a.json", false),
            (".*", ".a", true),
            ("*", "", true),
            ("*.conf", "a.conf", true),
            ("*.conf", ".conf", false),
            (".*", ".conf", true),
            ("*.conf", "a.config", false),
            ("w?b*", "web-1", true),
            ("w?b", "wb", false),
            ("a*b*c", "aXbYc", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("a", "a", true),
            ("a", "ab", false),
            ("**", "ab", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
        let long = "a".repeat(255);
        assert!(!matches(&"a*".repeat(100), &format!("{}b", &long[..50])));
    }

    #[test]
    fn expands_in_every_part_of_the_path_and_sorts() {
        let root = tempfile::tempdir().unwrap();
        for file in ["b/2.json", "b/1.json", "a/3.json", "a/x.txt", "a/sub.json/deep"] {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let found = |pattern: &str| -> Vec<String> {
            let paths = expand(&Machine, root.path(), pattern).unwrap();
            paths.iter().map(|p| p.strip_prefix(root.path()).unwrap().display().to_string()).collect()
        };
        assert_eq!(found("*/*.json"), ["a/3.json", "b/1.json", "b/2.json"]);
        assert_eq!(found("b/1.json"), ["b/1.json"]);
        assert_eq!(found("c/*.json"), [""; 0]);
        assert_eq!(found("b"), [""; 0]);
        assert_eq!(found("b/1.json/*"), [""; 0]);
    }

    #[test]
    fn what_cannot_be_looked_at_is_not_left_out() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("d")).unwrap();
        std::os::unix::fs::symlink("nowhere", root.path().join("d/a.json")).unwrap();
        std::os::unix::fs::symlink("loop", root.path().join("loop")).unwrap();
        let found = expand(&Machine, root.path(), "d/*.json").unwrap();
        assert_eq!(found, [root.path().join("d/a.json")]);
        assert!(expand(&Machine, root.path(), "d/a.json").unwrap().is_empty());
        assert!(expand(&Machine, root.path(), "*/b.json").unwrap().is_empty());
        let lost = expand(&Machine, root.path(), "loop/*.json").unwrap_err();
        let folder = root.path().join("loop");
        assert!(
            lost.message.starts_with(&format!("the folder {} cannot be read", folder.display())),
            "{lost:?}"
        );
    }
}
