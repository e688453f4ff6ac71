//! The API against its own description: every operation is asked with what the document allows, and with what it does
//! not, and has to answer as it says. schemathesis thinks of the requests.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::access::{free, is_up, listening, token};
use super::{Daemon, script, sleeper, with};

fn schemathesis() -> PathBuf {
    let program =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/python/schemathesis/bin/schemathesis");
    assert!(program.exists(), "{} is missing: `make {0}` puts it there", program.display());
    program
}

/// Streams do not end, and a shutdown would. Ids are those of services that are there, and any others.
fn askable(mut document: Value) -> Value {
    let paths = document["paths"].as_object_mut().unwrap();
    for never_asked in ["stream", "shutdown"] {
        assert!(paths.remove(&format!("/api/supervisor/{never_asked}")).is_some(), "{never_asked}");
    }
    for (path, operations) in paths {
        let known = if path.contains("groups") {
            json!(["oa-group"])
        } else {
            json!(["oa-web", "oa-ill", "oa-idle"])
        };
        for operation in operations.as_object_mut().unwrap().values_mut() {
            let parameters = operation["parameters"].as_array_mut().unwrap();
            parameters.retain(|parameter| parameter["name"] != "follow");
            for id in parameters.iter_mut().filter(|parameter| parameter["name"] == "id") {
                id["schema"] = json!({"anyOf": [{"enum": known}, id["schema"]]});
            }
        }
    }
    document
}

#[test]
fn it_does_what_its_description_says() {
    let at = free();
    let mut daemon = Daemon::prepared(json!({}));
    let group = json!({"groups": ["oa-group"]});
    daemon.configure_whole(json!({
        "supervisor": listening(at, json!({})),
        "groups": {"oa-group": {}},
        "services": {
            "oa-web": with(sleeper(), group.clone()),
            "oa-idle": with(sleeper(), json!({"enabled": false})),
            "oa-ill": with(script("exit 1"), with(group, json!({"restart_policy": {"retry_delay": 1}}))),
        },
    }));
    daemon.launch();
    is_up(at);
    daemon.wait_state("oa-web", "running");
    let (code, document) = daemon.api("GET", "openapi.json");
    assert_eq!((code, &document["openapi"]), (200, &json!("3.1.0")));
    let file = daemon.folder.join("openapi.json");
    let document = askable(document);
    let operations: usize =
        document["paths"].as_object().unwrap().values().map(|path| path.as_object().unwrap().len()).sum();
    std::fs::write(&file, document.to_string()).unwrap();
    // A thousand samples too many may be too many bytes first.
    let refusals = "[checks.negative_data_rejection]\nexpected-statuses = [\"400\", \"403\", \"404\", \"405\", \"409\", \"413\", \"415\", \"422\"]\n";
    std::fs::write(daemon.folder.join("schemathesis.toml"), refusals).unwrap();
    let asked = Command::new(schemathesis())
        .arg("run")
        .arg(&file)
        .args([
            "--url",
            &format!("http://{at}"),
            "--header",
            &format!("Authorization: Bearer {}", token(&daemon, "token")),
        ])
        // What a schema cannot say is refused as well: `since` after `until`, `SIGNOPE`.
        .args(["--exclude-checks", "positive_data_acceptance"])
        .args(["--seed", "1", "--max-examples", "25", "--request-timeout", "40", "--no-color"])
        .current_dir(&daemon.folder)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&asked.stdout);
    assert!(asked.status.success(), "{told}");
    assert!(
        operations > 20 && told.contains(&format!("Tested: {operations}")),
        "every operation was asked: {told}"
    );
    daemon.ok(&["start", "oa-web"]);
}
