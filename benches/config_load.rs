//! How long a configuration of 1,000 services takes to load: median of 20 runs, in milliseconds.

use std::fmt::Write as _;
use std::time::Instant;

use process_supervisor::config;
use process_supervisor::place::Scope;

/// Services with everything that people usually set, each depending on an earlier one.
fn text(services: usize) -> String {
    let mut text = String::from("{\n  \"services\": {\n");
    for n in 0..services {
        let comma = if n == 0 { "" } else { ",\n" };
        let dependencies = if n % 10 == 0 { String::new() } else { format!("\"service-{:04}\"", n - 1) };
        let _ = write!(
            text,
            r#"{comma}    "service-{n:04}": {{
      "name": "Service {n}", "command": "sleep", "args": ["infinity", "--number", "{n}"], "priority": {priority},
      "environment": {{"APP_ENV": "prod", "PORT": "{port}", "TOKEN": "secret-{n}"}},
      "health_check": {{"type": "http", "endpoint": "http://localhost:{port}/health", "interval": 30, "timeout": "5s"}},
      "restart_policy": {{"max_retries": 5, "retry_delay": 10, "backoff_multiplier": 2}},
      "resource_limits": {{"max_memory_mb": 256, "max_cpu_percent": 80}},
      "graceful_shutdown": {{"timeout": 30, "signal": "SIGTERM"}},
      "dependencies": [{dependencies}], "groups": ["group-{group}"], "labels": {{"team": "t{group}"}},
      "unit_properties": {{"PrivateTmp": true}}
    }}"#,
            priority = n % 50,
            port = 10_000 + n,
            group = n % 20,
        );
    }
    text.push_str("\n  }\n}\n");
    text
}

#[expect(
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a measurement is for reading, and ends where it fails"
)]
fn main() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("supervisor_config.json");
    let text = text(1000);
    std::fs::write(&path, &text).expect("room for the file");
    let mut times: Vec<f64> = (0..20)
        .map(|_| {
            let start = Instant::now();
            let loaded = config::load(&path, Scope::User).expect("a valid configuration");
            let time = start.elapsed().as_secs_f64() * 1000.0;
            assert_eq!(loaded.plan.services.len(), 1000);
            time
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("config_load: 1000 services, {} KiB: {:.1} ms (median of 20)", text.len() / 1024, times[10]);
}
