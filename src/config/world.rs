//! The machine that a configuration is checked against: files, programs, users.

use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::tls::{TlsFault, TlsFiles};

/// The largest file that is read, in bytes.
pub const MAX_FILE: u64 = 16 << 20;

/// What there is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A file that somebody may execute.
    Program,
    /// Any other file.
    File,
    /// A directory.
    Directory,
    /// Nothing.
    Missing,
    /// It cannot be known: a directory on the way is closed to this process.
    Hidden,
}

/// Why a file could not be read, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

/// Questions to the machine. Tests answer them without one.
pub trait World {
    /// The text of a configuration file of at most [`MAX_FILE`] bytes.
    fn read(&self, path: &Path) -> Result<String, Unreadable>;
    /// Whether everybody on the machine can read this file, as far as its mode and those of the folders above it say.
    fn is_public(&self, path: &Path) -> bool;
    /// The names in a directory; none if there is no such directory.
    fn list(&self, directory: &Path) -> Result<Vec<String>, Unreadable>;
    /// What is there.
    fn look(&self, path: &Path) -> Found;
    /// Whether there is a user of this name.
    fn has_user(&self, name: &str) -> bool;
    /// Whether there is a group of this name.
    fn has_group(&self, name: &str) -> bool;
    /// Whether a certificate and its key can be served.
    fn check_tls(&self, files: &TlsFiles) -> Result<(), TlsFault>;
}

/// This machine.
#[derive(Debug, Clone, Copy)]
pub struct Machine;

impl World for Machine {
    fn read(&self, path: &Path) -> Result<String, Unreadable> {
        // Looked at before it is opened: opening a pipe would block.
        let metadata = std::fs::metadata(path).map_err(|e| unreadable(path, &e))?;
        if !metadata.is_file() {
            return Err(Unreadable {
                message: "not a regular file".into(),
                help: "name a file that holds the configuration".into(),
            });
        }
        let mut bytes = Vec::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
            .map_err(|e| unreadable(path, &e))?;
        decode(bytes)
    }

    fn is_public(&self, path: &Path) -> bool {
        let Ok(path) = path.canonicalize() else { return false };
        let lets_others =
            |path: &Path, bit| std::fs::metadata(path).is_ok_and(|m| m.permissions().mode() & bit != 0);
        lets_others(&path, 0o004) && path.ancestors().skip(1).all(|folder| lets_others(folder, 0o001))
    }

    fn list(&self, directory: &Path) -> Result<Vec<String>, Unreadable> {
        let names = std::fs::read_dir(directory)
            .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect::<Result<Vec<_>, _>>());
        match names {
            Ok(names) => Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect()),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(Vec::new()),
            Err(e) => {
                let message = format!("the folder {} cannot be read: {e}", directory.display());
                Err(Unreadable { message, ..unreadable(directory, &e) })
            }
        }
    }

    fn look(&self, path: &Path) -> Found {
        match std::fs::metadata(path) {
            Ok(m) if m.is_dir() => Found::Directory,
            Ok(m) if m.is_file() && m.permissions().mode() & 0o111 != 0 => Found::Program,
            Ok(_) => Found::File,
            Err(e) if e.kind() == ErrorKind::PermissionDenied => Found::Hidden,
            Err(_) => Found::Missing,
        }
    }

    fn has_user(&self, name: &str) -> bool {
        // A directory service that does not answer is no reason to refuse the user.
        !matches!(nix::unistd::User::from_name(name), Ok(None))
    }

    fn has_group(&self, name: &str) -> bool {
        !matches!(nix::unistd::Group::from_name(name), Ok(None))
    }

    fn check_tls(&self, files: &TlsFiles) -> Result<(), TlsFault> {
        crate::tls::load(files).map(drop)
    }
}

/// Bytes of a file as text.
fn decode(bytes: Vec<u8>) -> Result<String, Unreadable> {
    if bytes.len() as u64 > MAX_FILE {
        return Err(Unreadable {
            message: format!("the file is larger than {} MiB", MAX_FILE >> 20),
            help: "split it, and name the parts in \"include\"".into(),
        });
    }
    String::from_utf8(bytes).map_err(|e| {
        let before = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        Unreadable { message: format!("not UTF-8 in line {line}"), help: "save the file as UTF-8".into() }
    })
}

fn unreadable(path: &Path, error: &std::io::Error) -> Unreadable {
    let help = match error.kind() {
        ErrorKind::NotFound => {
            format!("create {}, or name another file with --config", path.display())
        }
        ErrorKind::PermissionDenied => "let this user read it, or run this as its owner".into(),
        _ => "see to it that the file can be read".into(),
    };
    Unreadable { message: format!("the file cannot be read: {error}"), help }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_cannot_be_read_say_why() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let message = |path: &Path| Machine.read(path).unwrap_err().message;
        assert!(message(&path).contains("No such file"), "{}", message(&path));
        assert_eq!(message(folder.path()), "not a regular file");
        std::fs::write(&path, b"{\n\n\xff}").unwrap();
        assert_eq!(message(&path), "not UTF-8 in line 3");
        std::fs::File::create(&path).unwrap().set_len(MAX_FILE + 1).unwrap();
        assert_eq!(message(&path), "the file is larger than 16 MiB");
        std::fs::File::options().write(true).open(&path).unwrap().set_len(MAX_FILE).unwrap();
        assert_eq!(Machine.read(&path).unwrap().len() as u64, MAX_FILE);
        nix::unistd::mkfifo(&folder.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(message(&folder.path().join("pipe")), "not a regular file");
        std::fs::write(&path, "{}").unwrap();
        assert_eq!(Machine.read(&path).unwrap(), "{}");
    }

    #[test]
    fn a_file_is_as_public_as_the_folders_above_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        std::fs::write(&path, "{}").unwrap();
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        for (of_folder, of_file, public) in
            [(0o755, 0o644, true), (0o711, 0o604, true), (0o750, 0o644, false), (0o755, 0o640, false)]
        {
            mode(folder.path(), of_folder);
            mode(&path, of_file);
            assert_eq!(Machine.is_public(&path), public, "{of_folder:o} {of_file:o}");
        }
        assert!(!Machine.is_public(&folder.path().join("nothing")));
    }

    #[test]
    fn each_reason_has_its_remedy() {
        use std::io::ErrorKind::{IsADirectory, NotFound, PermissionDenied};
        for (kind, help) in [
            (NotFound, "create /a.json, or name another file with --config"),
            (PermissionDenied, "let this user read it, or run this as its owner"),
            (IsADirectory, "see to it that the file can be read"),
        ] {
            assert_eq!(unreadable(Path::new("/a.json"), &kind.into()).help, help);
        }
    }

    #[test]
    fn what_there_is_at_a_path() {
        assert_eq!(Machine.look(Path::new("/bin/sh")), Found::Program);
        assert_eq!(Machine.look(Path::new("/etc/passwd")), Found::File);
        assert_eq!(Machine.look(Path::new("/etc")), Found::Directory);
        assert_eq!(Machine.look(Path::new("/nonexistent/x")), Found::Missing);
        assert!(Machine.has_user("root") && !Machine.has_user("no-such-user"));
        assert!(Machine.has_group("root") && !Machine.has_group("no-such-group"));
        let nowhere = TlsFiles { certificate: "/nonexistent/a.crt".into(), key: "/nonexistent/a.key".into() };
        assert!(Machine.check_tls(&nowhere).is_err());
    }
}
