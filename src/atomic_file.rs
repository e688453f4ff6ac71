//! Files that come into being whole or not at all.

use std::fs::{File, OpenOptions, remove_file, rename};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Puts in the place of `path` what `fill` writes. Until then it has the name `fresh`, in the same folder, and is
/// nobody's but its owner's (0600); what had that name is gone. After a failure nothing is left of it.
pub fn replace(path: &Path, fresh: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    remove_if_there(fresh)?;
    // Never through a link that somebody puts there in between.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(fresh)?;
    fill(&mut file).and_then(|()| rename(fresh, path)).inspect_err(|_| drop(remove_file(fresh)))
}

/// Removes a file; one that is not there is no error.
pub fn remove_if_there(path: &Path) -> io::Result<()> {
    match remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn it_is_whole_or_as_it_was_and_follows_no_link() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (path, fresh) = (at("a"), at("a.new"));
        fs::write(at("other"), "theirs").unwrap();
        symlink(at("other"), &fresh).unwrap();
        replace(&path, &fresh, |file| file.write_all(b"one")).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        let failed = replace(&path, &fresh, |file| {
            file.write_all(b"tw")?;
            Err(io::Error::other("no more room"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "no more room");
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        assert_eq!(fs::read_to_string(at("other")).unwrap(), "theirs");
        assert!(!fresh.exists());
    }
}
