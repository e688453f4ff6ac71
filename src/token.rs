//! The bearer tokens of the API over TCP: one file for each role in the state directory.
//!
//! ```text
//!   token          operator: may do everything
//!   token-viewer   viewer: may read
//! ```
//!
//! The file is the secret; in memory only its digest is kept. A file comes into being whole or not at all, and is at no
//! moment readable for everybody.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::{Gid, fchown};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use crate::atomic_file;

/// Random bytes of a token, which is written in hexadecimal.
const BYTES: usize = 32;
/// Characters of a token that somebody wrote by hand.
const LENGTH: std::ops::RangeInclusive<usize> = 32..=512;
/// Owner reads and writes, group reads.
const MODE: u32 = 0o640;

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// To do everything.
    Operator,
    /// To read everything.
    Viewer,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Operator, Self::Viewer];

    /// `operator` or `viewer`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Viewer => "viewer",
        }
    }

    /// Where its token is.
    pub fn file(self, folder: &Path) -> PathBuf {
        folder.join(match self {
            Self::Operator => "token",
            Self::Viewer => "token-viewer",
        })
    }
}

/// Stands for a token that cannot be had from it.
#[derive(Clone, Copy)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Of the token itself, without the line's end.
    pub fn of(token: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, token).as_ref());
        Self(bytes)
    }
}

impl PartialEq for Digest {
    /// In the same time whatever differs.
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Digest {}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Digest(..)")
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read or written.
    #[error("the token file {} cannot be used: {source}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is in it is no token.
    #[error(
        "{} does not hold a token (one line of {} to {} printable characters); `supervisorctl token rotate{}` makes a new one",
        .path.display(), LENGTH.start(), LENGTH.end(), if *.viewer { " --viewer" } else { "" }
    )]
    Content {
        /// Which.
        path: PathBuf,
        /// That of the viewer.
        viewer: bool,
    },
    /// The operating system gives no random bytes.
    #[error("the operating system gives no random bytes for a token")]
    Random,
}

/// Reads the token of a role, or makes one where there is no file. Blocks. `group` may read the file.
pub fn load_or_make(folder: &Path, role: Role, group: Option<Gid>) -> Result<Digest, TokenError> {
    let path = role.file(folder);
    match read(&path, group) {
        Ok(text) => match text.trim_ascii() {
            token if is_token(token) => Ok(Digest::of(token)),
            _ => Err(TokenError::Content { path, viewer: role == Role::Viewer }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => rotate(folder, role, group),
        Err(source) => Err(TokenError::File { path, source }),
    }
}

/// Makes a new token in the place of the old one. Blocks. `group` may read the file.
pub fn rotate(folder: &Path, role: Role, group: Option<Gid>) -> Result<Digest, TokenError> {
    let path = role.file(folder);
    let mut bytes = [0; BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| TokenError::Random)?;
    let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    write(folder, &path, &token, group).map_err(|source| TokenError::File { path, source })?;
    Ok(Digest::of(token.as_bytes()))
}

fn is_token(text: &[u8]) -> bool {
    LENGTH.contains(&text.len()) && text.iter().all(u8::is_ascii_graphic)
}

fn read(path: &Path, group: Option<Gid>) -> io::Result<Vec<u8>> {
    // Opening a pipe would block without O_NONBLOCK.
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if metadata.permissions().mode() & 0o007 != 0 {
        tracing::warn!(
            "{} was open to everybody and is no longer; whoever read it has the token: rotate it with \
             `supervisorctl token rotate`",
            path.display()
        );
        file.set_permissions(Permissions::from_mode(MODE))?;
    }
    give_to(&file, group);
    let mut text = Vec::new();
    file.take(4096).read_to_end(&mut text)?;
    Ok(text)
}

/// Under another name first, so that nobody ever reads half a token.
fn write(folder: &Path, path: &Path, token: &str, group: Option<Gid>) -> io::Result<()> {
    atomic_file::replace(path, &path.with_extension("new"), |file| {
        file.write_all(token.as_bytes())?;
        file.write_all(b"\n")?;
        give_to(file, group);
        file.set_permissions(Permissions::from_mode(MODE))?;
        file.sync_all()
    })?;
    File::open(folder)?.sync_all()
}

/// A file that stays with its owner is safe, so a failure is no error.
fn give_to(file: &File, group: Option<Gid>) {
    if let Some(group) = group
        && file.metadata().is_ok_and(|now| now.gid() != group.as_raw())
        && let Err(error) = fchown(file, None, Some(group))
    {
        tracing::debug!("the token stays closed to group {group}: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn text(folder: &Path, role: Role) -> String {
        std::fs::read_to_string(role.file(folder)).unwrap().trim_end().to_owned()
    }

    #[test]
    fn a_token_is_made_once_and_is_not_for_everybody() {
        let folder = folder();
        let made = load_or_make(folder.path(), Role::Operator, None).unwrap();
        let mode = std::fs::metadata(Role::Operator.file(folder.path())).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o640);
        let token = text(folder.path(), Role::Operator);
        assert_eq!(token.len(), 64, "256 bits");
        assert_eq!(made, Digest::of(token.as_bytes()));
        let again = load_or_make(folder.path(), Role::Operator, None).unwrap();
        assert_eq!((made, token), (again, text(folder.path(), Role::Operator)));
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn no_two_tokens_are_alike() {
        let folder = folder();
        let tokens: BTreeSet<String> = (0..50)
            .flat_map(|_| Role::ALL)
            .map(|role| {
                let digest = rotate(folder.path(), role, None).unwrap();
                let token = text(folder.path(), role);
                assert_eq!(digest, Digest::of(token.as_bytes()));
                token
            })
            .collect();
        assert_eq!(tokens.len(), 100);
    }

    #[test]
    fn a_rotation_that_was_cut_off_is_no_obstacle() {
        let folder = folder();
        std::fs::write(folder.path().join("token.new"), "half").unwrap();
        std::fs::write(folder.path().join("token-viewer.new"), "half").unwrap();
        for role in Role::ALL {
            assert!(load_or_make(folder.path(), role, None).is_ok());
        }
    }

    #[test]
    fn a_file_that_was_open_to_everybody_is_closed() {
        let folder = folder();
        let path = Role::Viewer.file(folder.path());
        std::fs::write(&path, format!("{}\n", "a".repeat(40))).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        load_or_make(folder.path(), Role::Viewer, None).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
    }

    #[test]
    fn what_is_no_token_is_refused_and_not_overwritten() {
        let folder = folder();
        let path = Role::Operator.file(folder.path());
        for bad in ["", "\n", "short", &"x".repeat(513), &format!("{} y", "x".repeat(40)), &"ä".repeat(40)] {
            std::fs::write(&path, bad).unwrap();
            let error = load_or_make(folder.path(), Role::Operator, None).unwrap_err().to_string();
            assert!(error.contains("token rotate` makes a new one"), "{error}");
            assert!(bad.len() < 10 || !error.contains(bad));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), bad);
        }
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(load_or_make(folder.path(), Role::Operator, None).is_err());
        std::fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(load_or_make(folder.path(), Role::Operator, None).is_err());
        assert!(load_or_make(Path::new("/nonexistent"), Role::Operator, None).is_err());
    }

    #[test]
    fn digests_show_nothing() {
        let digest = Digest::of(b"secret");
        assert_eq!(format!("{digest:?}"), "Digest(..)");
        assert_ne!(digest, Digest::of(b"secreT"));
    }
}
