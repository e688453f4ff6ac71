//! `import supervisord`: reads supervisord's files, writes a configuration, and says what became of every key.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::args::ImportFrom;
use super::failure::Failure;
use super::out::Out;
use super::table::clean;
use crate::atomic_file;
use crate::config;
use crate::import::{self, Note, Outcome, Report, World};

/// No file of supervisord is larger, in bytes.
const MOST: u64 = 4 << 20;

pub(super) fn run(out: &mut Out, from: &ImportFrom) -> Result<(), Failure> {
    let ImportFrom::Supervisord { files, output, force } = from;
    let paths: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    let (config, report) = import::supervisord(&paths, &Host).map_err(Failure::Failed)?;
    let text = format!("{config:#}\n");
    if let Some(path) = output {
        write(path, &text, *force)?;
    }
    if out.json {
        return out.value(&json!({"config": config, "report": report}));
    }
    lines(&report).iter().for_each(|line| out.complain(line));
    match output {
        Some(path) => out.line(&format!("{} is written; next: supervisorctl validate {0}", path.display())),
        None => out.text(&text),
    }
}

/// What became of each key, and how many of each outcome there are.
fn lines(report: &Report) -> Vec<String> {
    let line = |note: &Note| {
        let mark = match note.outcome {
            Outcome::Mapped => "  ",
            Outcome::Changed => "~ ",
            Outcome::Dropped => "! ",
        };
        let key = if note.key.is_empty() { String::new() } else { format!(" {}", note.key) };
        clean(&format!("{mark}{}:{}: [{}]{key}: {}", note.file, note.line, note.section, note.text))
    };
    let count = |outcome| report.0.iter().filter(|note| note.outcome == outcome).count();
    let summary = format!(
        "mapped: {}; changed (~): {}; not carried over (!): {}",
        count(Outcome::Mapped),
        count(Outcome::Changed),
        count(Outcome::Dropped)
    );
    report.0.iter().map(line).chain([summary]).collect()
}

/// For its owner alone: values of environments may be secrets. An earlier file stays whole until the new one is.
fn write(path: &Path, text: &str, force: bool) -> Result<(), Failure> {
    let failed =
        |error: std::io::Error| Failure::Failed(format!("{} cannot be written: {error}", path.display()));
    if path.exists() && !force {
        return Err(Failure::Failed(format!("{} is there already; --force replaces it", path.display())));
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let fill = |file: &mut fs::File| file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    atomic_file::replace(path, beside.as_ref(), fill).map_err(failed)
}

/// This host.
struct Host;

impl World for Host {
    fn read(&self, path: &Path) -> Result<String, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let mut bytes = Vec::new();
        // A pipe has no size that could be looked at before.
        fs::File::open(path).and_then(|file| file.take(MOST + 1).read_to_end(&mut bytes)).map_err(failed)?;
        if bytes.len() as u64 > MOST {
            return Err(format!(
                "{}: it has more than {MOST} bytes; that is no file of supervisord",
                path.display()
            ));
        }
        String::from_utf8(bytes).map_err(|error| {
            format!(
                "{}: byte {} is not UTF-8; convert the file first (iconv)",
                path.display(),
                error.utf8_error().valid_up_to()
            )
        })
    }

    fn glob(&self, folder: &Path, pattern: &str) -> Vec<PathBuf> {
        config::files(folder, pattern)
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn host(&self) -> String {
        nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::golden;

    /// The files are started for real in the tests over systemd.
    #[test]
    fn every_key_of_many_files_has_its_answer() {
        let all = config::files(Path::new("tests/supervisord"), "*.conf");
        assert!(all.len() >= 30, "{}", all.len());
        let text = all.iter().flat_map(|file| {
            let told = match import::supervisord(&[file], &Host) {
                Ok((_, report)) => lines(&report),
                Err(why) => vec![why],
            };
            std::iter::once(format!("{}:", file.display())).chain(told).chain([String::new()])
        });
        golden("tests/supervisord/reports.txt", &text.map(|line| line + "\n").collect::<String>());
    }

    #[test]
    fn what_never_ends_is_not_read_to_its_end() {
        assert!(Host.read(Path::new("/dev/zero")).unwrap_err().contains("more than 4194304 bytes"));
        assert!(Host.read(Path::new("/nowhere")).unwrap_err().starts_with("/nowhere: "));
    }

    #[test]
    fn a_file_is_for_its_owner_and_replaced_only_when_told() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.json");
        write(&path, "{}", false).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(write(&path, "[]", false).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "{}");
        write(&path, "[]", true).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "[]");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
