//! Files of supervisord as people have them (`tests/supervisord`): read as supervisord reads them, then started.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value, json};

use super::Daemon;

const PROGRAM: &str = env!("CARGO_BIN_EXE_supervisorctl");
/// What one of the files takes from the environment.
const VARIABLE: (&str, &str) = ("IMPORT_TEST", "of whoever imports");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files() -> Vec<PathBuf> {
    let folder = std::fs::read_dir(root().join("tests/supervisord")).unwrap();
    let mut files: Vec<PathBuf> = folder.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
    files.sort();
    assert!(files.len() >= 30);
    files
}

/// The configuration that is made of a file.
fn imported(file: &Path) -> Value {
    let mut command = Command::new(PROGRAM);
    command.args(["import", "supervisord"]).arg(file).env(VARIABLE.0, VARIABLE.1);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The line `; expect: web=running once=stopped` of a file.
fn expectations(file: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(file).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("; expect: ")).unwrap();
    let pair = |pair: &str| pair.split_once('=').map(|(id, what)| (id.to_owned(), what.to_owned())).unwrap();
    line.split_whitespace().map(pair).collect()
}

#[test]
fn files_are_read_as_supervisord_reads_them() {
    let output = Command::new(root().join("target/python/supervisord/bin/python"))
        .arg("-B")
        .arg(root().join("tests/supervisord/compare.py"))
        .arg(PROGRAM)
        .args(files())
        .env(VARIABLE.0, VARIABLE.1)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.ends_with(", 0 files with differences\n"), "{text}");
}

#[test]
fn imported_services_run_as_they_did() {
    let (mut services, mut expected) = (Map::new(), Vec::new());
    for file in files() {
        let config = imported(&file);
        let made = config["services"].as_object().unwrap();
        let of_this = expectations(&file);
        assert_eq!(
            made.keys().collect::<std::collections::BTreeSet<_>>(),
            of_this.iter().map(|(id, _)| id).collect(),
            "{}",
            file.display()
        );
        let check = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(check.path(), config.to_string()).unwrap();
        let valid = Command::new(PROGRAM).arg("validate").arg(check.path()).output().unwrap();
        let lacks = of_this.iter().any(|(_, what)| what == "missing");
        assert_eq!(valid.status.success(), !lacks, "{}: {valid:?}", file.display());
        services.extend(made.clone());
        expected.extend(of_this);
    }
    let daemon = Daemon::start(services.into());
    for (id, what) in expected {
        let is = |service: &Value| match what.as_str() {
            // Down, and tried again.
            "backoff" => service["attempt"].as_u64() > Some(0),
            "missing" => service["reason"].as_str().unwrap().contains("cannot execute /nowhere/php"),
            "stopped" => service["state"] == "stopped" && service["attempt"] == json!(0),
            state => service["state"] == state,
        };
        daemon.wait_service(&id, &what, is);
    }
    let seen = daemon.api("GET", "status").1;
    let running = seen["services"].as_object().unwrap().values().filter(|s| s["state"] == "running").count();
    assert!(running >= 40, "{running}");
}
