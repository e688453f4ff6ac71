//! Configuration files from outside: what loads, and which message each fault gives.
//!
//! `UPDATE_GOLDEN=1 cargo test --test config` rewrites the expected texts; read the difference before you commit it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use process_supervisor::config::{
    self, Found, Lacking, Loaded, Machine, Problem, Severity, Unreadable, World, load_in, render,
};
use process_supervisor::core::plan::{Id, Plan, Probe, ServicePlan, ServiceType};
use process_supervisor::place::Scope;
use process_supervisor::tls::{TlsFault, TlsFile, TlsFiles};
use proptest::prelude::*;

mod bounds;

/// Relative paths are in a folder of fixtures; absolute ones on a machine that has only what is listed here.
struct Fixtures(PathBuf);

/// What no name can be: no machine is to be asked for it, so these say that it is there.
fn is_no_name(name: &str) -> bool {
    name.contains([':', '/', ' '])
}

impl World for Fixtures {
    fn read(&self, path: &Path) -> Result<String, Unreadable> {
        Machine.read(&self.0.join(path))
    }

    fn is_public(&self, path: &Path) -> bool {
        path.ends_with("public.json")
    }

    fn list(&self, directory: &Path) -> Result<Vec<String>, Unreadable> {
        Machine.list(&self.0.join(directory))
    }

    fn look(&self, path: &Path) -> Found {
        match path.to_str() {
            Some("/usr/bin/app" | "/usr/bin/python3" | "/srv/shop/run.sh") => Found::Program,
            Some("/opt/data.txt" | "/opt/app") => Found::File,
            Some("/usr/bin" | "/srv/shop") => Found::Directory,
            Some("/closed/app") => Found::Hidden,
            Some(absolute) if absolute.starts_with('/') => Found::Missing,
            _ => Machine.look(&self.0.join(path)),
        }
    }

    fn has_user(&self, name: &str) -> bool {
        name == "nobody" || is_no_name(name)
    }

    fn has_group(&self, name: &str) -> bool {
        name == "nogroup" || is_no_name(name)
    }

    fn check_tls(&self, files: &TlsFiles) -> Result<(), TlsFault> {
        let fault = |file| Err(TlsFault { file, message: "it is of no use".into(), help: "mend it".into() });
        match (files.certificate.to_str(), files.key.to_str()) {
            (Some("/etc/shop.crt"), Some("/etc/shop.key")) => Ok(()),
            (Some("/etc/shop.crt"), _) => fault(TlsFile::Key),
            _ => fault(TlsFile::Certificate),
        }
    }
}

/// Every service of a configuration as it is in force.
fn effective(loaded: &Loaded) -> BTreeMap<String, serde_json::Value> {
    let services = loaded.plan.services.iter();
    services.map(|(id, plan)| (id.to_string(), config::effective(plan))).collect()
}

/// One text, and the machine of [`Fixtures`].
struct Text<'t>(&'t str);

impl World for Text<'_> {
    fn read(&self, _: &Path) -> Result<String, Unreadable> {
        Ok(self.0.into())
    }

    fn is_public(&self, _: &Path) -> bool {
        false
    }

    fn list(&self, _: &Path) -> Result<Vec<String>, Unreadable> {
        Ok(Vec::new())
    }

    fn look(&self, path: &Path) -> Found {
        Fixtures(PathBuf::new()).look(path)
    }

    fn has_user(&self, name: &str) -> bool {
        name == "nobody" || is_no_name(name)
    }

    fn has_group(&self, name: &str) -> bool {
        name == "nogroup" || is_no_name(name)
    }

    fn check_tls(&self, files: &TlsFiles) -> Result<(), TlsFault> {
        Fixtures(PathBuf::new()).check_tls(files)
    }
}

fn check(text: &str) -> Result<Loaded, Vec<Problem>> {
    load_in(&Text(text), Path::new("f.json"), Scope::System, Lacking::Refuse)
}

fn plan(text: &str) -> Plan {
    check(text).unwrap_or_else(|problems| panic!("{problems:#?}")).plan
}

fn fixtures(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config").join(kind)
}

fn names(folder: &Path, extension: &str) -> BTreeSet<String> {
    let stem = |name: String| name.strip_suffix(extension).map(String::from);
    Machine.list(folder).unwrap().into_iter().filter_map(stem).collect()
}

fn load_fixture(folder: &Path, name: &str) -> Result<Loaded, Vec<Problem>> {
    let scope = if name.starts_with("user-") { Scope::User } else { Scope::System };
    load_in(&Fixtures(folder.into()), Path::new(&format!("{name}.json")), scope, Lacking::Refuse)
}

/// Compares with the expected text, or writes it.
fn golden(path: &Path, actual: &str, failures: &mut String) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, actual).unwrap();
    } else if std::fs::read_to_string(path).ok().as_deref() != Some(actual) {
        let _ = writeln!(failures, "--- {} should be\n{actual}", path.display());
    }
}

#[test]
fn each_bad_file_gives_its_message() {
    let folder = fixtures("bad");
    let files = names(&folder, ".json");
    assert!(files.len() >= 45, "{}", files.len());
    let mut failures = String::new();
    for name in &files {
        let problems = match load_fixture(&folder, name) {
            Ok(_) => panic!("{name} was accepted"),
            Err(problems) => problems,
        };
        assert!(!problems.is_empty(), "{name}");
        let text =
            render(&problems, Severity::Error, |file| Fixtures(folder.clone()).read(Path::new(file)).ok());
        assert!(!text.contains("SECRET"), "{name}: {text}");
        assert!(!text.contains("12345678"), "{name}: {text}");
        golden(&folder.join(format!("{name}.txt")), &text, &mut failures);
    }
    assert!(failures.is_empty(), "{failures}");
    assert_eq!(files, names(&folder, ".txt"), "an expected text without a file");
}

#[test]
fn each_good_file_loads_with_its_warnings() {
    let folder = fixtures("good");
    let files = names(&folder, ".json");
    let mut failures = String::new();
    for name in &files {
        let loaded = load_fixture(&folder, name)
            .unwrap_or_else(|problems| panic!("{name}: {}", render(&problems, Severity::Error, |_| None)));
        let mut text =
            render(&loaded.warnings, Severity::Warning, |f| Fixtures(folder.clone()).read(Path::new(f)).ok());
        let _ = writeln!(text, "{}", serde_json::to_string_pretty(&effective(&loaded)).unwrap());
        let _ = writeln!(text, "{:#?}", loaded.settings);
        golden(&folder.join(format!("{name}.txt")), &text, &mut failures);
        assert!(!format!("{loaded:?}{text}").contains("SECRET"), "{name}");
    }
    assert!(failures.is_empty(), "{failures}");
    assert_eq!(files, names(&folder, ".txt"), "an expected text without a file");
}

#[test]
fn the_published_schema_is_the_one_in_use() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/supervisor_config.schema.json");
    let text = serde_json::to_string_pretty(&config::schema()).unwrap() + "\n";
    let mut failures = String::new();
    golden(&path, &text, &mut failures);
    assert!(failures.is_empty(), "run with UPDATE_GOLDEN=1: {failures}");
}

#[test]
fn defaults_are_those_of_the_contract() {
    let plan = plan(r#"{"services": {"web": {"command": "app"}}}"#);
    let web = &plan.services["web"];
    assert_eq!((web.name.as_str(), web.enabled, web.priority, web.critical), ("web", true, 100, false));
    assert_eq!((web.exec.program.as_str(), web.exec.service_type), ("/usr/bin/app", ServiceType::Exec));
    assert_eq!((web.auto_restart, web.restart_on_exit, web.warn_percent, web.port), (true, false, 90, None));
    assert_eq!(web.health.probe, Probe::Process);
    assert_eq!((web.health.interval, web.health.timeout), (Duration::from_secs(30), Duration::from_secs(10)));
    assert_eq!((web.health.failure_threshold, web.health.success_threshold), (3, 1));
    assert_eq!((web.restart.max_retries, web.restart.retry_delay), (Some(5), Duration::from_secs(10)));
    assert_eq!(
        (web.restart.max_backoff, web.restart.reset_after),
        (Duration::from_secs(300), Duration::from_secs(60))
    );
    assert!((web.restart.backoff_multiplier - 2.0).abs() < 1e-9 && web.restart.jitter == 0.0);
    assert_eq!((web.exec.shutdown.graceful, web.exec.shutdown.timeout), (true, Duration::from_secs(30)));
    assert_eq!((web.exec.shutdown.signal, plan.max_concurrent_starts), (15, None));
}

#[test]
fn values_arrive_as_they_were_written() {
    let loaded = load_fixture(&fixtures("good"), "everything").unwrap();
    let web = &loaded.plan.services["web"];
    assert_eq!(web.exec.args, ["", "$HOME", "%n", "a b", "\"'", "line\nbreak", "ü😀"]);
    assert_eq!(web.exec.environment["TOKEN"].0, "SECRET-hunter2");
    assert_eq!(web.exec.user.as_deref(), Some("nobody"), "default_user");
    assert_eq!(web.limits.memory_bytes, Some(537_395_200));
    assert_eq!(web.port, Some(8443));
    assert_eq!(web.restart.max_retries, None);
    assert_eq!(web.health.timeout, Duration::from_secs(10));
    let Probe::Http(http) = &web.health.probe else { panic!("{:?}", web.health) };
    assert_eq!(http.expected_status, [(200, 200), (300, 399)]);
    assert_eq!(http.headers["Authorization"].0, "Bearer SECRET-hunter2");
    let groups: Vec<_> = web.groups.iter().map(|g| g.as_str()).collect();
    assert_eq!(groups, ["front", "shop"], "its own first");
    let db = &loaded.plan.services["db"];
    assert_eq!(db.health.start_period, Duration::from_secs(90));
    assert_eq!(db.exec.shutdown.signal, 2);
    assert_eq!(db.exec.user.as_deref(), Some("33"));
    assert_eq!(db.exec.unit_properties["PrivateTmp"], ["yes"]);
    assert_eq!(db.exec.unit_properties["ReadOnlyPaths"], ["/etc", "/usr"]);
    assert_eq!(db.exec.unit_properties["Nice"], ["5"]);
    assert_eq!(loaded.plan.groups.keys().map(|g| g.as_str()).collect::<Vec<_>>(), ["batch", "front", "shop"]);
    assert_eq!(loaded.plan.max_concurrent_starts.map(|n| n.get()), Some(4));
}

#[test]
fn where_a_name_leads_is_no_change_of_the_configuration() {
    let load = |path: &str| {
        let text = format!(
            r#"{{"services": {{"web": {{"command": "run.sh", "environment": {{"PATH": "{path}"}}}}}}}}"#
        );
        let loaded = load_in(&Text(&text), Path::new("f"), Scope::System, Lacking::Warn).unwrap();
        let web = loaded.plan.services.values().next().unwrap();
        (web.exec.program.clone(), web.exec_hash.clone())
    };
    let (here, nowhere) = (load("/srv/shop"), load("/nowhere/bin"));
    assert_eq!((here.0.as_str(), nowhere.0.as_str()), ("/srv/shop/run.sh", "/usr/bin/run.sh"));
    assert_eq!(here.1, nowhere.1);
}

#[test]
fn the_effective_configuration_means_the_same() {
    for name in names(&fixtures("good"), ".json") {
        let loaded = load_fixture(&fixtures("good"), &name).unwrap();
        if name == "user-scope" {
            continue;
        }
        let text = serde_json::json!({ "services": effective(&loaded) }).to_string();
        let again = load_in(&Text(&text), Path::new("f"), Scope::System, Lacking::Warn)
            .unwrap_or_else(|p| panic!("{name}: {}", render(&p, Severity::Error, |_| Some(text.clone()))));
        assert_eq!(effective(&again), effective(&loaded), "{name}");
        for (id, service) in &loaded.plan.services {
            // The file that a name led to is another command than the name.
            if service.exec.command == service.exec.program {
                assert_eq!(again.plan.services[id].exec_hash, service.exec_hash, "{name} {id}");
            }
            assert_eq!(again.plan.services[id].restart, service.restart);
            assert_eq!(again.plan.services[id].limits, service.limits);
        }
    }
}

#[test]
fn a_missing_program_is_a_warning_when_the_daemon_starts() {
    let text = r#"{"services": {"web": {"command": "no-such"}, "api": {"command": "app", "user": "nobdy"}}}"#;
    assert_eq!(check(text).unwrap_err().len(), 2);
    let loaded = load_in(&Text(text), Path::new("f"), Scope::System, Lacking::Warn).unwrap();
    assert_eq!(loaded.warnings.len(), 2);
    assert!(loaded.plan.services["web"].exec.program.starts_with('/'));
}

#[test]
fn loads_from_the_disk_of_this_machine() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("supervisor_config.json");
    let problems = config::load(&path, Scope::User).unwrap_err();
    assert!(problems[0].message.contains("cannot be read"), "{problems:?}");
    std::fs::create_dir(folder.path().join("d")).unwrap();
    std::fs::write(&path, r#"{"include": ["*.json", "d/*.json"], "services": {"a": {"command": "sh"}}}"#)
        .unwrap();
    std::fs::write(folder.path().join("d/b.json"), r#"{"services": {"b": {"command": "sh"}}}"#).unwrap();
    let loaded = config::load(&path, Scope::User).unwrap();
    assert_eq!(loaded.files, [path, folder.path().join("d/b.json")]);
    assert_eq!(loaded.plan.services.len(), 2);
    assert!(loaded.plan.services["a"].exec.program.ends_with("bin/sh"));
    std::fs::write(folder.path().join("d/b.json"), b"\xff").unwrap();
    let problems = config::load(&loaded.files[0], Scope::User).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].message.contains("not UTF-8") && problems[0].file.ends_with("b.json"),
        "{problems:?}"
    );
    // To leave these out would be to take their services away.
    std::fs::remove_file(folder.path().join("d/b.json")).unwrap();
    std::os::unix::fs::symlink("nowhere", folder.path().join("d/b.json")).unwrap();
    let problems = config::load(&loaded.files[0], Scope::User).unwrap_err();
    assert!(
        problems[0].message.contains("cannot be read") && problems[0].file.ends_with("b.json"),
        "{problems:?}"
    );
    std::fs::remove_dir_all(folder.path().join("d")).unwrap();
    std::os::unix::fs::symlink("d", folder.path().join("d")).unwrap();
    let problems = config::load(&loaded.files[0], Scope::User).unwrap_err();
    assert_eq!(problems[0].path, "include[1]");
    assert!(problems[0].message.contains("/d cannot be read: "), "{problems:?}");
}

#[test]
fn the_fingerprint_follows_what_is_executed_and_not_the_secrets() {
    let hash = |fields: &str| {
        let text = format!(r#"{{"services": {{"web": {{"command": "app", {fields}}}}}}}"#);
        plan(&text).services["web"].exec_hash.clone()
    };
    let base = hash(r#""environment": {"A": "1"}"#);
    // With another value, an upgrade would restart every service.
    assert_eq!(base, "42781489f94aa7632de7bd76013eb8bb06af4c8fbd5d2de145b9ec7354a3934b");
    assert_eq!(
        base,
        hash(r#""environment": {"A": "2"}, "priority": 3, "resource_limits": {"max_tasks": 9}"#)
    );
    let others = [
        r#""environment": {"B": "1"}"#,
        r#""environment": {"A": "1"}, "args": ["x"]"#,
        r#""environment": {"A": "1"}, "working_directory": "/srv/shop""#,
        r#""environment": {"A": "1"}, "environment_file": "/x""#,
        r#""environment": {"A": "1"}, "user": "nobody""#,
        r#""environment": {"A": "1"}, "group": "nogroup""#,
        r#""environment": {"A": "1"}, "type": "notify""#,
        r#""environment": {"A": "1"}, "graceful_shutdown": {"signal": "INT"}"#,
        r#""environment": {"A": "1"}, "graceful_shutdown": {"timeout": 5}"#,
        r#""environment": {"A": "1"}, "graceful_shutdown": {"enabled": false}"#,
        r#""environment": {"A": "1"}, "unit_properties": {"PrivateTmp": true}"#,
        r#""environment": {"A": "1"}, "groups": ["g"]"#,
    ];
    let hashes: BTreeSet<_> = others.into_iter().map(hash).chain([base]).collect();
    assert_eq!(hashes.len(), others.len() + 1);
}

#[test]
fn a_reload_says_what_changes() {
    let service = |fields: &str| format!(r#"{{"command": "app"{fields}}}"#);
    let file = |services: &[(&str, String)], groups: &str| {
        let list: Vec<_> = services.iter().map(|(id, s)| format!("\"{id}\": {s}")).collect();
        plan(&format!(r#"{{"services": {{{}}}, "groups": {{{groups}}}}}"#, list.join(", ")))
    };
    let live = [
        ("enabled", "false"),
        ("name", "\"x\""),
        ("description", "\"x\""),
        ("priority", "1"),
        ("critical", "true"),
        ("health_check", "{\"type\": \"process\", \"interval\": 5}"),
        ("restart_policy", "{\"max_retries\": 1}"),
        ("auto_restart", "false"),
        ("restart_on_exit", "true"),
        ("resource_limits", "{\"max_tasks\": 5}"),
        ("dependencies", "[\"same\"]"),
        ("port", "80"),
        ("labels", "{\"a\": \"b\"}"),
    ];
    let restart = [
        ("args", "[\"x\"]"),
        ("working_directory", "\"/srv/shop\""),
        ("environment", "{\"A\": \"b\"}"),
        ("environment_file", "\"/x\""),
        ("user", "\"nobody\""),
        ("group", "\"nogroup\""),
        ("type", "\"notify\""),
        ("graceful_shutdown", "{\"timeout\": 5}"),
        ("unit_properties", "{\"Nice\": 5}"),
        ("groups", "[\"g\"]"),
    ];
    for (table, restarts) in [(&live[..], false), (&restart[..], true)] {
        for (field, value) in table {
            let old = file(&[("same", service("")), ("it", service(""))], "");
            let new = file(&[("same", service("")), ("it", service(&format!(", \"{field}\": {value}")))], "");
            let report = config::diff(&old, &new);
            let (hit, other) = if restarts {
                (&report.restarted, &report.updated_live)
            } else {
                (&report.updated_live, &report.restarted)
            };
            assert_eq!(hit.len(), 1, "{field}: {report:?}");
            assert_eq!((hit[0].id.as_str(), &hit[0].fields[..]), ("it", &[(*field).to_string()][..]));
            assert!(other.is_empty());
            assert_eq!(report.unchanged.iter().map(|i| i.as_str()).collect::<Vec<_>>(), ["same"]);
        }
    }
    let run = |program: &str| file(&[("it", format!(r#"{{"command": "/usr/bin/{program}"}}"#))], "");
    let report = config::diff(&run("app"), &run("python3"));
    assert_eq!(report.restarted[0].fields, ["command"]);

    let old = file(
        &[("a", service("")), ("b", service(", \"groups\": [\"g\"], \"environment\": {\"A\": \"1\"}"))],
        "",
    );
    let new = file(
        &[
            ("c", service("")),
            ("b", service(", \"groups\": [\"g\", \"h\"], \"environment\": {\"A\": \"2\"}")),
        ],
        "",
    );
    let report = config::diff(&old, &new);
    assert_eq!((report.added[0].as_str(), report.removed[0].as_str()), ("c", "a"));
    assert_eq!(report.restarted[0].fields, ["environment", "groups"]);
    let limited =
        file(&[("b", service(", \"groups\": [\"g\"]"))], r#""g": {"resource_limits": {"max_tasks": 5}}"#);
    let free = file(&[("b", service(", \"groups\": [\"g\"]"))], "");
    assert_eq!(config::diff(&free, &limited).updated_live[0].fields, ["groups"]);
}

#[test]
fn a_group_that_is_named_on_both_sides_is_joined_once() {
    let both = r#"{"services": {"web": {"command": "app", "groups": ["g"]}}, "groups": {"g": {"services": ["web"]}}}"#;
    let groups: Vec<_> = plan(both).services["web"].groups.iter().map(|g| g.to_string()).collect();
    assert_eq!(groups, ["g"]);
}

#[test]
fn a_reload_names_what_changes_of_the_supervisor() {
    let settings = |fields: &str| {
        check(&format!(r#"{{"supervisor": {{{fields}}}, "services": {{}}}}"#)).unwrap().settings
    };
    let before = settings("");
    for (field, value) in [
        ("listen", r#"["127.0.0.1:9002"]"#),
        ("tls", r#"{"certificate": "/etc/shop.crt", "key": "/etc/shop.key"}"#),
        ("allowed_hosts", r#"["shop.example.com"]"#),
        ("anonymous", r#""read""#),
        ("database", r#""/srv/shop.db""#),
        ("metrics_interval", "7"),
        ("retention_days", "7"),
        ("stop_services_on_exit", "true"),
        ("default_user", r#""nobody""#),
        ("dashboard_url", r#""http://127.0.0.1:1""#),
        ("max_concurrent_starts", "7"),
    ] {
        let after = settings(&format!("\"{field}\": {value}"));
        assert_eq!(config::diff_settings(&before, &after), [field]);
        assert_eq!(config::diff_settings(&after, &after), [""; 0]);
    }
    let url = r#""dashboard_url": "http://127.0.0.1:1""#;
    let token = settings(&format!(r#"{url}, "dashboard_token_file": "/etc/token""#));
    assert_eq!(config::diff_settings(&settings(url), &token), ["dashboard_token_file"]);
}

/// Good files with a marker in each secret, to be broken in all ways.
fn secret_files() -> Vec<String> {
    let texts = names(&fixtures("good"), ".json")
        .into_iter()
        .map(|name| std::fs::read_to_string(fixtures("good").join(format!("{name}.json"))).unwrap());
    texts.chain([r#"{"services":{"a":{"command":"app","environment":{"A":"SECRETone","B":"SECRETtwo"},"health_check":{"type":"http","endpoint":"http://localhost/","headers":{"X":"SECRETthree"}}}}}"#.into()]).collect()
}

proptest! {
    #[test]
    fn broken_files_never_panic_nor_tell_secrets(
        which: prop::sample::Index,
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..4, "[\\[\\]{}:,\"'\\\\/*# \n0-9a-z-]{0,3}"), 1..4),
    ) {
        let files = secret_files();
        let mut chars: Vec<char> = which.get(&files).chars().collect();
        for (at, remove, insert) in edits {
            let at = at.index(chars.len() + 1);
            // A secret that is cut in two cannot be searched for.
            let near: String = chars[at.saturating_sub(24)..(at + 24).min(chars.len())].iter().collect();
            let end = if near.contains("SECRET") { at } else { (at + remove).min(chars.len()) };
            chars.splice(at..end, insert.chars());
        }
        let text: String = chars.into_iter().collect();
        let shown = match check(&text) {
            Ok(loaded) => format!(
                "{loaded:?} {:?} {}",
                effective(&loaded),
                render(&loaded.warnings, Severity::Warning, |_| Some(text.clone()))
            ),
            Err(problems) => {
                format!("{problems:?} {}", render(&problems, Severity::Error, |_| Some(text.clone())))
            }
        };
        prop_assert!(!shown.contains("SECRET"), "{text}\n{shown}");
    }

    #[test]
    fn values_of_wrong_kinds_never_panic(
        field in "[a-z_]{0,8}|command|args|environment|health_check|dependencies|groups|port|type|unit_properties|restart_policy",
        value in "null|true|-1|0|1e308|1.5|\"\"|\"a\"|\\[\\]|\\[null\\]|\\[\\[\\]\\]|\\{\\}|\\{\"type\": \"(http|tcp|exec|process)\"\\}|\\{\"A\": \\{\\}\\}",
    ) {
        let _ = check(&format!(r#"{{"services": {{"web": {{"command": "app", "{field}": {value}}}}}}}"#));
        let _ = check(&format!(r#"{{"supervisor": {{"{field}": {value}}}, "{field}": {value}, "services": {value}}}"#));
    }
}

#[test]
fn a_service_that_says_only_its_command_has_the_defaults_of_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.json");
    std::fs::write(&path, r#"{"services": {"web": {"command": "/bin/sh"}}}"#).unwrap();
    let loaded = config::load(&path, Scope::System).unwrap();
    let (id, plan) = loaded.plan.services.first_key_value().unwrap();
    let defaults =
        ServicePlan { exec_hash: plan.exec_hash.clone(), ..ServicePlan::new(id.clone(), "/bin/sh") };
    assert_eq!(**plan, defaults);
}

/// What the README tells people to write is taken as it stands there.
#[test]
fn the_examples_of_the_readme_are_valid() {
    let readme = include_str!("../../README.md");
    let valid = |text: &str| {
        if let Err(problems) = load_in(&Text(text), Path::new("f.json"), Scope::System, Lacking::Warn) {
            panic!("{text}\n{problems:#?}");
        }
    };
    let blocks: Vec<&str> =
        readme.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let whole: Vec<&&str> = blocks.iter().filter(|block| block.starts_with('{')).collect();
    assert!(whole.len() >= 2, "{whole:?}");
    whole.iter().for_each(|block| valid(block));
    let fields = readme.lines().filter_map(|line| line.split_once("| `\"")?.1.strip_suffix("` |"));
    let fields: Vec<String> = fields.map(|field| format!("\"{field}")).collect();
    assert!(fields.len() >= 15, "{fields:?}");
    for field in fields {
        valid(&format!(
            r#"{{"services": {{"database": {{"command": "/bin/true"}},
                "web": {{"command": "/bin/true", {field}}}}}}}"#
        ));
    }
}

#[test]
fn what_systemd_refuses_is_told_with_its_place() {
    let text = "{\"services\": {\"web\": {\"command\": \"/usr/bin/app\",\n  \"unit_properties\": {\"PrivateTmp\": true, \"Nice\": 5}}}}";
    let mut loaded = check(text).unwrap();
    let id = Id::new("web").unwrap();
    let problem = loaded.refused_property(&id, "Nice", "not today");
    assert_eq!((problem.line, problem.column), (2, 43), "{problem:?}");
    assert_eq!(problem.path, "services.web.unit_properties.Nice");
    assert_eq!(problem.message, "systemd does not take Nice: not today");
    assert!(problem.help.contains("man systemd.exec"));
    let elsewhere = loaded.refused_property(&id, "CPUWeight", "no");
    assert_eq!((elsewhere.line, elsewhere.message.as_str()), (0, "systemd does not take CPUWeight: no"));

    assert_eq!(loaded.plan.services[&id].lacks, None);
    loaded.set_lacking(&id, "the first");
    loaded.set_lacking(&id, "the second");
    assert_eq!(loaded.plan.services[&id].lacks.as_deref(), Some("the first"));
}
