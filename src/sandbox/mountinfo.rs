//! Reads `/proc/self/mountinfo`.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// One mount, as far as the sandbox cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// What of the file system is mounted.
    pub root: PathBuf,
    /// Where.
    pub point: PathBuf,
    /// The type, such as `ext4` or `cgroup2`.
    pub kind: String,
    /// Options of the file system (not of the mount).
    pub options: Vec<String>,
}

/// Parses the whole table; lines that do not look like mounts are left out.
pub(super) fn parse(table: &[u8]) -> Vec<Mount> {
    table.split(|&byte| byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let dash = fields.iter().position(|field| *field == b"-")?;
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    Some(Mount {
        root: unescape(fields.get(3)?),
        point: unescape(fields.get(4)?),
        kind: text(fields.get(dash + 1)?),
        options: text(fields.get(dash + 3)?).split(',').map(str::to_owned).collect(),
    })
}

/// Undoes the kernel's `\040` style of writing blanks.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = (first == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// Writes a path the way overlayfs wants it in its options.
pub(super) fn escape_option(path: &std::path::Path) -> OsString {
    let mut bytes = Vec::new();
    for &byte in path.as_os_str().as_bytes() {
        if matches!(byte, b'\\' | b':' | b',') {
            bytes.push(b'\\');
        }
        bytes.push(byte);
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_hybrid_table() {
        let table = b"27 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw,discard\n\
            40 31 0:37 /docker/1 /sys/fs/cgroup/sys\\040temd rw - cgroup cgroup rw,name=systemd\n\
            nonsense\n";
        let mounts = parse(table);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].kind, "ext4");
        assert_eq!(mounts[1].point, PathBuf::from("/sys/fs/cgroup/sys temd"));
        assert_eq!(mounts[1].root, PathBuf::from("/docker/1"));
        assert_eq!(mounts[1].options, ["rw", "name=systemd"]);
    }

    #[test]
    fn options_of_overlayfs_survive_odd_paths() {
        assert_eq!(escape_option(std::path::Path::new("/a:b,c\\d")), "/a\\:b\\,c\\\\d");
    }
}
