//! How much, how many and how long is good, and not one more.

use std::path::Path;

use process_supervisor::config::{Found, Lacking, Unreadable, World, load_in};
use process_supervisor::place::Scope;
use process_supervisor::tls::{TlsFault, TlsFiles};

use super::check;

#[test]
fn the_number_of_problems_is_bounded() {
    let services: Vec<_> = (0..5000).map(|n| format!("\"s{n}\": {{\"comand\": 1}}")).collect();
    let text = format!("{{\"services\": {{{}}}}}", services.join(","));
    let problems = check(&text).unwrap_err();
    assert_eq!(problems.len(), 1001);
    assert!(problems[1000].message.contains("more problems"));
    assert_eq!((problems[1000].path.as_str(), problems[1000].help.as_str()), ("", "correct these first"));

    let forever = r#""command": "/usr/bin/app", "restart_policy": {"retry_delay": 0, "max_retries": -1}"#;
    let warned: Vec<_> = (0..1500).map(|n| format!("\"s{n}\": {{{forever}}}")).collect();
    let loaded = check(&format!("{{\"services\": {{{}}}}}", warned.join(","))).unwrap();
    assert_eq!(loaded.warnings.len(), 1000);
}

/// A main file that includes others of this size, in bytes, which hold nothing.
struct Large(Vec<usize>);

impl World for Large {
    fn read(&self, path: &Path) -> Result<String, Unreadable> {
        let Some(number) = path.to_str().and_then(|name| name.strip_suffix(".large")) else {
            let names: Vec<_> = (0..self.0.len()).map(|n| format!("\"{n}.large\"")).collect();
            return Ok(format!("{{\"include\": [{}], \"services\": {{}}}}", names.join(", ")));
        };
        Ok(" ".repeat(self.0[number.parse::<usize>().unwrap()] - 2) + "{}")
    }

    fn is_public(&self, _: &Path) -> bool {
        false
    }

    fn list(&self, _: &Path) -> Result<Vec<String>, Unreadable> {
        Ok(Vec::new())
    }

    fn look(&self, _: &Path) -> Found {
        Found::File
    }

    fn has_user(&self, _: &str) -> bool {
        true
    }

    fn has_group(&self, _: &str) -> bool {
        true
    }

    fn check_tls(&self, _: &TlsFiles) -> Result<(), TlsFault> {
        Ok(())
    }
}

#[test]
fn included_files_are_bounded_together() {
    const SIZE: usize = 16 << 20;
    let whole = Large(vec![SIZE; 4]);
    load_in(&whole, Path::new("main.json"), Scope::System, Lacking::Refuse).unwrap();
    let more = Large(vec![SIZE, SIZE, SIZE, SIZE, 3]);
    let problems = load_in(&more, Path::new("main.json"), Scope::System, Lacking::Refuse).unwrap_err();
    let said: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(said, ["more than 64 MiB or 10000 files are included"]);
}

#[test]
fn numbers_are_good_up_to_their_bounds() {
    let of_service =
        |fields: &str| format!(r#"{{"services": {{"web": {{"command": "/usr/bin/app", {fields}}}}}}}"#);
    let check_of = |fields: &str| of_service(&format!(r#""health_check": {{"type": "process", {fields}}}"#));
    let supervisor = |fields: &str| format!(r#"{{"supervisor": {{{fields}}}, "services": {{}}}}"#);
    let named = |length: usize| of_service(&format!(r#""name": "{}""#, "ä".repeat(length)));
    let tcp = |fields: &str| of_service(&format!(r#""health_check": {{"type": "tcp", {fields}}}"#));
    let socket = |length: usize| tcp(&format!(r#""host": "unix:/{}""#, "x".repeat(length - 1)));
    let host = |length: usize| tcp(&format!(r#""host": "{}", "port": 1"#, "x".repeat(length)));
    let argument = |length: usize| of_service(&format!(r#""args": ["{}"]"#, "x".repeat(length)));
    let variable =
        |length: usize| of_service(&format!(r#""environment": {{"KEY": "{}"}}"#, "x".repeat(length)));
    // Nine bytes more for each, and "KEY=".
    let whole = vec![format!("\"{}\"", "x".repeat((128 << 10) - 9)); 15].join(",");
    let together = |length: usize| {
        let value = "x".repeat(length - 9 - 4);
        of_service(&format!(r#""args": [{whole}], "environment": {{"KEY": "{value}"}}"#))
    };
    let allowed = |length: usize| supervisor(&format!(r#""allowed_hosts": ["{}"]"#, "x".repeat(length)));
    for (good, bad) in [
        (named(200), named(201)),
        (socket(107), socket(108)),
        (host(253), host(254)),
        (argument(131_071), argument(131_072)),
        (variable(131_071 - 4), variable(131_072 - 4)),
        (together(128 << 10), together((128 << 10) + 1)),
        (check_of(r#""interval": 0.1"#), check_of(r#""interval": 0.099"#)),
        (check_of(r#""timeout": 0.001"#), check_of(r#""timeout": 0.0009"#)),
        (check_of(r#""interval": 5, "timeout": 5"#), check_of(r#""interval": 5, "timeout": 5.001"#)),
        (
            of_service(r#""graceful_shutdown": {"timeout": 0.001}"#),
            of_service(r#""graceful_shutdown": {"timeout": 0.0009}"#),
        ),
        (allowed(253), allowed(254)),
        (supervisor(r#""metrics_interval": 1"#), supervisor(r#""metrics_interval": 0.999"#)),
        (supervisor(r#""metrics_interval": 86400"#), supervisor(r#""metrics_interval": 86400.001"#)),
    ] {
        let shown = |text: &str| text.chars().take(200).collect::<String>();
        assert!(check(&good).is_ok(), "{}", shown(&good));
        assert!(check(&bad).is_err(), "{}", shown(&bad));
    }
}
