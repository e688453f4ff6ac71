//! What the machine must have, each with its remedy.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::error::Error;

const SYSTEMD: [&str; 2] = ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"];
const BUSES: [&str; 2] = ["/usr/bin/dbus-daemon", "/usr/bin/dbus-broker"];

/// Checks what can be told without changing anything, and returns the program that becomes PID 1.
///
/// # Errors
/// The first missing requirement, as one sentence with the remedy.
pub(super) fn check() -> Result<PathBuf, Error> {
    check_with(nix::unistd::geteuid().is_root(), &|path| Path::new(path).exists(), &installer())
}

fn check_with(root: bool, exists: &dyn Fn(&str) -> bool, installer: &str) -> Result<PathBuf, Error> {
    let missing = |text: String| Err(Error::Requirement(text));
    if !root {
        return missing("root is needed to create namespaces: run supervisor-sandbox with sudo".into());
    }
    let systemd = SYSTEMD.into_iter().find(|path| exists(path));
    let bus = BUSES.into_iter().any(exists);
    match (systemd, bus) {
        (Some(systemd), true) => Ok(systemd.into()),
        (Some(_), false) => missing(format!("the D-Bus message bus is not installed: {installer} dbus")),
        (None, true) => missing(format!("systemd is not installed: {installer} systemd")),
        (None, false) => missing(format!("systemd and D-Bus are not installed: {installer} systemd dbus")),
    }
}

/// The first systemd that refuses control groups of version 1.
const FIRST_WITHOUT_VERSION_1: u32 = 258;

/// Whether this systemd still works with control groups of version 1.
pub(super) fn takes_version_1(systemd: &Path) -> bool {
    let output = Command::new(systemd).arg("--version").stderr(Stdio::null()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    major_version(&text).is_none_or(|version| version < FIRST_WITHOUT_VERSION_1)
}

fn major_version(text: &str) -> Option<u32> {
    let word = text.strip_prefix("systemd ")?;
    let digits = word.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// The command that installs packages here.
fn installer() -> String {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    installer_of(&release).into()
}

fn installer_of(release: &str) -> &'static str {
    let names: Vec<&str> = release
        .lines()
        .filter_map(|line| line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE=")))
        .flat_map(|value| value.trim_matches('"').split_whitespace())
        .collect();
    let is = |name: &str| names.contains(&name);
    if is("debian") || is("ubuntu") {
        "apt-get install"
    } else if is("fedora") || is("rhel") || is("centos") {
        "dnf install"
    } else if is("suse") || is("opensuse") {
        "zypper install"
    } else if is("arch") {
        "pacman -S"
    } else {
        "install the packages"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_piece_names_its_remedy() {
        let all = ["/usr/lib/systemd/systemd", "/usr/bin/dbus-daemon"];
        let cases: [(bool, &[&str], &str); 4] = [
            (false, &all, "root is needed to create namespaces: run supervisor-sandbox with sudo"),
            (true, &[], "systemd and D-Bus are not installed: apt-get install systemd dbus"),
            (true, &all[..1], "the D-Bus message bus is not installed: apt-get install dbus"),
            (true, &all[1..], "systemd is not installed: apt-get install systemd"),
        ];
        for (root, present, expected) in cases {
            let result = check_with(root, &|path| present.contains(&path), "apt-get install");
            let error = result.unwrap_err();
            assert_eq!(error.to_string(), expected);
            assert_eq!(error.exit_code(), 2);
        }
        let found = check_with(true, &|path| all.contains(&path), "").unwrap();
        assert_eq!(found, Path::new("/usr/lib/systemd/systemd"));
    }

    #[test]
    fn versions_are_read() {
        let cases = [
            ("systemd 252 (252.38-1~deb12u1)\n+PAM", Some(252)),
            ("systemd 258~rc1 (x)", Some(258)),
            ("systemd 260.1", Some(260)),
            ("busybox", None),
        ];
        for (text, expected) in cases {
            assert_eq!(major_version(text), expected, "{text}");
        }
    }

    #[test]
    fn the_installer_is_the_distributions() {
        let cases = [
            ("ID=debian\n", "apt-get install"),
            ("NAME=x\nID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", "apt-get install"),
            ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", "dnf install"),
            ("ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"\n", "zypper install"),
            ("ID=arch\n", "pacman -S"),
            ("", "install the packages"),
        ];
        for (release, expected) in cases {
            assert_eq!(installer_of(release), expected, "{release}");
        }
    }
}
