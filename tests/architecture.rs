//! The invariants of the source that a text search can see. Each check is tried on samples that break it.

#![expect(clippy::unwrap_used, reason = "a test that cannot read the source has to fail")]

use std::fs;
use std::path::{Path, PathBuf};

/// A source file: its path below `src`, and its text without comments.
struct Source {
    path: String,
    code: String,
}

/// Drops line comments, so that a rule can be named where it is explained. A `//` inside a text of the code is cut
/// as well, which hides no `use` and no path.
fn without_comments(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

fn sources() -> Vec<Source> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, out);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                out.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    files.sort();
    let read = |file: PathBuf| Source {
        path: file.strip_prefix(&root).unwrap().to_str().unwrap().into(),
        code: without_comments(&fs::read_to_string(&file).unwrap()),
    };
    files.into_iter().map(read).collect()
}

/// Whether `word` stands in `code` as a word of its own.
fn has_word(code: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let alone = |at: usize| !code[..at].ends_with(part) && !code[at + word.len()..].starts_with(part);
    code.match_indices(word).any(|(at, _)| alone(at))
}

/// The modules of this crate that `code` names: `crate::a::..`, `crate::{a, b::{c, d}}`.
fn modules_named(code: &str) -> Vec<String> {
    let first_word = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let mut named = Vec::new();
    for (at, prefix) in code.match_indices("crate::") {
        let rest = &code[at + prefix.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            named.push(first_word(rest));
            continue;
        };
        let (mut depth, mut begin) = (0, 0);
        for (n, c) in group.char_indices() {
            let at_end = c == '}' && depth == 0;
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if at_end || c == ',' && depth == 0 {
                named.push(first_word(&group[begin..n]));
                begin = n + 1;
            }
            if at_end {
                break;
            }
        }
    }
    named.retain(|name| !name.is_empty());
    named
}

fn module_of(path: &str) -> &str {
    path.split('/').next().unwrap_or(path).trim_end_matches(".rs")
}

/// `core` decides and touches nothing: no clock, no IO, no async, no randomness, no other module.
fn core_is_pure(source: &Source) -> Vec<String> {
    const CRATES: &[&str] = &[
        "tokio",
        "zbus",
        "rusqlite",
        "reqwest",
        "axum",
        "nix",
        "rand",
        "tracing",
        "futures_util",
        "jiff",
        "anyhow",
    ];
    const NAMES: &[&str] = &[
        "Instant",
        "SystemTime",
        "thread",
        "async",
        "await",
        "println",
        "eprintln",
        "std::fs",
        "std::net",
        "std::env",
        "std::process",
        "std::io",
    ];
    if module_of(&source.path) != "core" {
        return Vec::new();
    }
    // The tests of the core read PROPTEST_CASES.
    let allowed = |word: &str| word == "std::env" && source.path.contains("/tests/");
    let words = CRATES.iter().chain(NAMES).filter(|word| !allowed(word) && has_word(&source.code, word));
    let others = modules_named(&source.code).into_iter().filter(|module| module != "core");
    words
        .map(|word| format!("core uses {word}"))
        .chain(others.map(|m| format!("core uses crate::{m}")))
        .collect()
}

/// Adapters know `core` and the shared words, never each other nor who drives them.
fn adapters_stay_apart(source: &Source) -> Vec<String> {
    const ADAPTERS: [&str; 7] = ["systemd", "probe", "resource", "store", "push", "journal", "http"];
    const DRIVERS: [&str; 2] = ["runtime", "cli"];
    let own = module_of(&source.path);
    if !ADAPTERS.contains(&own) {
        return Vec::new();
    }
    modules_named(&source.code)
        .into_iter()
        .filter(|module| module != own)
        .filter(|module| ADAPTERS.contains(&module.as_str()) || DRIVERS.contains(&module.as_str()))
        .map(|module| format!("{own} uses crate::{module}"))
        .collect()
}

/// One place decides restarts: units of services carry `Restart=no`, set in one file. `systemd/own.rs` is about the
/// daemon's own unit, which systemd does restart.
fn systemd_restarts_no_service(source: &Source) -> Vec<String> {
    if module_of(&source.path) != "systemd" || source.path == "systemd/own.rs" {
        return Vec::new();
    }
    let code: String = source.code.split_whitespace().collect();
    let setting = "set(\"Restart\",";
    let values = code.match_indices(setting).map(|(at, _)| code[at + setting.len()..].split('"').nth(1));
    values
        .filter_map(|value| match value {
            _ if source.path != "systemd/unit.rs" => Some("Restart is set outside systemd/unit.rs".into()),
            Some("no") => None,
            other => Some(format!("Restart is set to {other:?}")),
        })
        .collect()
}

/// Unsafe code is allowed in `sandbox` alone.
fn unsafe_is_in_the_sandbox_alone(source: &Source) -> Vec<String> {
    let in_sandbox = module_of(&source.path) == "sandbox" || source.path == "bin/supervisor-sandbox.rs";
    let lines: Vec<&str> = source.code.lines().map(str::trim).collect();
    let lifts = |line: &str| {
        line.contains("unsafe_code") && ["allow(", "expect(", "warn("].iter().any(|word| line.contains(word))
    };
    let of_sandbox = |n: usize| {
        let next = lines.get(n + 1).map(|next| next.trim_start_matches("pub "));
        source.path == "lib.rs" && next == Some("mod sandbox;")
    };
    let bad = lines.iter().enumerate().filter(|(n, line)| lifts(line) && !in_sandbox && !of_sandbox(*n));
    bad.map(|(_, line)| format!("{line} lifts the ban on unsafe code")).collect()
}

/// The tree holds to `check`, and `check` sees each of the samples that break it.
fn holds(check: fn(&Source) -> Vec<String>, breaking: &[(&str, &str)], fine: &[(&str, &str)]) {
    let sample = |(path, text): &(&str, &str)| Source { path: (*path).into(), code: without_comments(text) };
    for bad in breaking {
        assert!(!check(&sample(bad)).is_empty(), "the check does not see {bad:?}");
    }
    for good in fine {
        assert_eq!(check(&sample(good)), Vec::<String>::new(), "{good:?}");
    }
    let sources = sources();
    assert!(sources.len() > 20, "the sources were not found");
    let found: Vec<String> = sources
        .iter()
        .flat_map(|s| check(s).into_iter().map(|bad| format!("src/{}: {bad}", s.path)))
        .collect();
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn the_core_decides_and_touches_nothing() {
    holds(
        core_is_pure,
        &[
            ("core/x.rs", "use std::time::Instant;"),
            ("core/x.rs", "use std::time::{Duration, SystemTime};"),
            ("core/engine/x.rs", "let now = tokio::time::sleep(d);"),
            ("core/x.rs", "use crate::store::Store;"),
            ("core/x.rs", "use crate::{core::{Mono, Now}, runtime};"),
            ("core/x.rs", "fn f() { std::fs::read(p) }"),
            ("core/x.rs", "async fn f() {}"),
            ("core/engine/tests/x.rs", "use rand::random;"),
        ],
        &[
            ("core/x.rs", "// an Instant would be wrong here, as would crate::store"),
            ("core/x.rs", "use crate::core::{Mono, Now}; struct Instantly; let random = 3;"),
            ("core/x.rs", "use crate::{core::{Mono, Now}, core::plan};"),
            ("store/x.rs", "use std::time::Instant;"),
            ("core/engine/tests/x.rs", "std::env::var(\"PROPTEST_CASES\")"),
        ],
    );
}

#[test]
fn adapters_know_the_core_and_not_each_other() {
    holds(
        adapters_stay_apart,
        &[
            ("http/api.rs", "use crate::store::Store;"),
            ("http.rs", "use crate::{control::Control, core::{Id, Now}, systemd::Bus};"),
            ("probe/mod.rs", "crate::runtime::spawn()"),
            ("journal/mod.rs", "use crate::http::Page;"),
        ],
        &[
            ("http/api.rs", "use crate::control::Control; use crate::core::plan::Id; use crate::http::dto;"),
            ("runtime/mod.rs", "use crate::store::Store; use crate::systemd::Bus;"),
            ("store/mod.rs", "use crate::config::Problem;"),
        ],
    );
}

#[test]
fn units_of_services_carry_restart_no() {
    holds(
        systemd_restarts_no_service,
        &[
            ("systemd/unit.rs", r#"list.set("Restart", "always")"#),
            ("systemd/unit.rs", r#"set("Restart", "no"); set("Restart", Value::from("on-failure"))"#),
            ("systemd/unit.rs", "set(\n    \"Restart\",\n    policy,\n)"),
            ("systemd/bus.rs", r#"set("Restart", "no")"#),
        ],
        &[("systemd/unit.rs", r#"set("Restart", Value::from("no")); set("RestartUSec", 5)"#)],
    );
}

#[test]
fn only_the_sandbox_may_be_unsafe() {
    holds(
        unsafe_is_in_the_sandbox_alone,
        &[
            ("http/mod.rs", "#[allow(unsafe_code)]\nfn f() {}"),
            ("lib.rs", "#[allow(unsafe_code)]\npub mod store;"),
            ("probe/x.rs", "#![expect(unsafe_code, reason = \"fast\")]"),
        ],
        &[
            ("lib.rs", "#[allow(unsafe_code)]\npub mod sandbox;"),
            ("sandbox/ns.rs", "#[allow(unsafe_code)]\nfn f() {}"),
        ],
    );
}

/// The files below the folders, with what is in them.
fn texts(folders: &[&str], kinds: &[&str]) -> String {
    let mut text = String::new();
    let mut open: Vec<PathBuf> =
        folders.iter().map(|folder| Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).collect();
    while let Some(path) = open.pop() {
        if path.is_dir() && !path.ends_with("node_modules") {
            open.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|kind| kinds.iter().any(|known| kind == *known)) {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
    text
}

#[test]
fn each_test_that_the_security_review_names_is_there() {
    let review = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("SECURITY.md")).unwrap();
    let code = texts(&["src", "tests", "packaging/python/tests"], &["rs", "py"]);
    let named: Vec<&str> = review.split('`').skip(1).step_by(2).filter(|word| word.contains('_')).collect();
    assert!(named.len() > 30, "{named:?}");
    for test in named {
        let there = ["fn ", "def "].iter().any(|before| code.contains(&format!("{before}{test}(")));
        // A name of the configuration.
        let known = code.contains(&format!("\"{test}\""));
        assert!(there || known, "there is no {test}");
    }
}
