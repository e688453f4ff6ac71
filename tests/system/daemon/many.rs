//! Five hundred services.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Daemon, sh, sleeper, wait_for, with};

#[test]
fn five_hundred_start_and_stop_in_reverse() {
    const COUNT: usize = 500;
    let mut services = Map::new();
    for n in 0..COUNT {
        // Ten chains of fifty.
        let dependencies = if n >= 10 {
            json!([{"service": format!("many-{}", n - 10), "condition": "started"}])
        } else {
            json!([])
        };
        services.insert(format!("many-{n}"), with(sleeper(), json!({"dependencies": dependencies})));
    }
    let mut daemon = Daemon::prepared_alone(Value::Object(services));
    daemon.launch();
    let all = |state: &str| {
        let status = daemon.api("GET", "status").1;
        status["services"].as_object().unwrap().values().filter(|service| service["state"] == state).count()
    };
    wait_for("500 run", Duration::from_secs(120), || (all("running") == COUNT).then_some(()));
    assert_eq!(
        sh("systemctl list-units --state=active --plain --no-legend 'supervisor-many-*.service' | wc -l"),
        COUNT.to_string()
    );
    daemon.ok(&["shutdown"]);
    assert!(daemon.wait_for_end().success());
    assert_eq!(
        sh("systemctl list-units --state=active --plain --no-legend 'supervisor-many-*.service' | wc -l"),
        "0"
    );
    // The order of the ends stands in the database.
    let rows = sh(&format!(
        "python3 -c \"import sqlite3; print('\\n'.join(r[0] for r in sqlite3.connect('{}').execute(\\\"select service_id from supervisor_events where event_type='service_stopped' order by id\\\")))\"",
        daemon.database().display()
    ));
    let place: std::collections::BTreeMap<&str, usize> =
        rows.lines().enumerate().map(|(place, id)| (id, place)).collect();
    assert_eq!(place.len(), COUNT);
    for n in 10..COUNT {
        let (dependent, dependency) = (format!("many-{n}"), format!("many-{}", n - 10));
        assert!(
            place[dependent.as_str()] < place[dependency.as_str()],
            "{dependent} stopped after {dependency}"
        );
    }
}
