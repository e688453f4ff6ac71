//! The environment of a service as a file that only systemd's user can read: values may be secrets, and everything
//! in a transient unit is readable by all.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::atomic_file::{self, remove_if_there};
use crate::core::plan::{Id, Secret};

/// A file that is longer is not one of ours.
const LONGEST: u64 = 16 * 1024 * 1024;

/// The folder of the files.
#[derive(Debug, Clone)]
pub struct EnvFiles {
    folder: PathBuf,
}

impl EnvFiles {
    /// Makes the folder where it is missing and takes others' rights away from it.
    pub fn new(folder: PathBuf) -> io::Result<Self> {
        let files = Self { folder };
        files.make_folder()?;
        Ok(files)
    }

    fn make_folder(&self) -> io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        std::fs::set_permissions(&self.folder, std::fs::Permissions::from_mode(0o700))
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the environment of a service is.
    pub fn path(&self, service: &Id) -> PathBuf {
        self.folder.join(format!("{service}.env"))
    }

    /// Writes the environment of a service, whole or not at all. An empty one has no file.
    pub fn write(&self, service: &Id, environment: &BTreeMap<String, Secret>) -> io::Result<Option<PathBuf>> {
        if environment.is_empty() {
            self.remove(service)?;
            return Ok(None);
        }
        let (path, text) = (self.path(service), render(environment));
        let there = self.read(service).ok().flatten();
        if !there.is_some_and(|(found, private)| private && found == text.as_bytes()) {
            // Somebody may have removed it.
            self.make_folder()?;
            // Ids have no leading dot, so this is nobody's file.
            let fresh = self.folder.join(format!(".{service}.new"));
            atomic_file::replace(&path, &fresh, |file| file.write_all(text.as_bytes()))?;
        }
        Ok(Some(path))
    }

    /// What the file of a service holds, and whether nobody else can read it.
    fn read(&self, service: &Id) -> io::Result<Option<(Vec<u8>, bool)>> {
        let file = match std::fs::File::open(self.path(service)) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let private = file.metadata()?.permissions().mode() & 0o077 == 0;
        let mut found = Vec::new();
        file.take(LONGEST).read_to_end(&mut found)?;
        Ok(Some((found, private)))
    }

    /// Whether the file of a service holds another environment than this one. What a file has held that is gone or
    /// cannot be read is not known: that is no reason to end what runs. The names, without the values, are in the hash
    /// of the unit too.
    pub fn differs(&self, service: &Id, environment: &BTreeMap<String, Secret>) -> bool {
        let there = self.read(service).ok().flatten();
        there.is_some_and(|(found, _)| found != render(environment).as_bytes())
    }

    /// Removes all of them. What runs has read its own.
    pub fn clear(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.folder)? {
            remove_if_there(&entry?.path())?;
        }
        Ok(())
    }

    /// Removes the file of a service, where there is one.
    pub fn remove(&self, service: &Id) -> io::Result<()> {
        remove_if_there(&self.path(service))
    }
}

/// Lines that systemd's `EnvironmentFile=` reads back byte for byte. Inside double quotes it takes everything as it
/// is, line ends too, but for a backslash before one of `"`, `\`, `` ` `` and `$`.
fn render(environment: &BTreeMap<String, Secret>) -> String {
    let mut text = String::new();
    for (name, Secret(value)) in environment {
        text.push_str(name);
        text.push_str("=\"");
        for c in value.chars() {
            if matches!(c, '"' | '\\' | '`' | '$') {
                text.push('\\');
            }
            text.push(c);
        }
        text.push_str("\"\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id() -> Id {
        Id::new("web").unwrap()
    }

    fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, Secret> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), Secret((*value).to_owned()))).collect()
    }

    #[test]
    fn files_are_private_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let files = EnvFiles::new(folder.path().join("run/env")).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder.path().join("run/env")), 0o700);
        let first = environment(&[("A", "1"), ("TOKEN", "secret")]);
        let path = files.write(&id(), &first).unwrap().unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "A=\"1\"\nTOKEN=\"secret\"\n");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        files.write(&id(), &first).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(files.write(&id(), &environment(&[])).unwrap(), None);
        assert!(!path.exists());
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 0, "nothing is left over");
    }

    #[test]
    fn only_what_a_file_holds_is_a_reason_to_start_anew() {
        let folder = tempfile::tempdir().unwrap();
        let files = EnvFiles::new(folder.path().join("env")).unwrap();
        let (first, other, none) = (environment(&[("A", "1")]), environment(&[("A", "2")]), environment(&[]));
        let differ = || [&first, &other, &none].map(|environment| files.differs(&id(), environment));
        assert_eq!(differ(), [false; 3], "gone");
        let path = files.write(&id(), &first).unwrap().unwrap();
        assert_eq!(differ(), [false, true, true]);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(differ(), [false, true, true], "others can read it");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert_eq!(differ(), [false; 3], "it cannot be read");
    }

    /// systemd's reader (`parse_env_file_internal`), as far as our writer uses it.
    fn read_as_systemd_does(text: &str) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let mut chars = text.chars().peekable();
        while chars.peek().is_some() {
            let name: String = chars.by_ref().take_while(|c| *c != '=').collect();
            assert_eq!(chars.next(), Some('"'));
            let mut value = String::new();
            loop {
                match chars.next().unwrap() {
                    '"' => break,
                    '\\' => match chars.next().unwrap() {
                        c if "\"\\`$".contains(c) => value.push(c),
                        '\n' => {}
                        c => value.extend(['\\', c]),
                    },
                    c => value.push(c),
                }
            }
            assert_eq!(chars.next(), Some('\n'));
            found.insert(name, value);
        }
        found
    }

    proptest! {
        #[test]
        fn values_arrive_as_they_are(a: String, b: String) {
            let text = render(&environment(&[("A", &a), ("B", &b)]));
            let expected = [("A".to_owned(), a), ("B".to_owned(), b)].into();
            prop_assert_eq!(read_as_systemd_does(&text), expected);
        }
    }
}
