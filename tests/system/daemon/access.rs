//! The API over TCP: tokens, who may do what, and a port that somebody else has.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::{Daemon, SOON, sh, sleeper, wait_for};

/// A free port. The sandbox has the network of the host, where the usual one may be taken.
pub(super) fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

pub(super) fn listening(at: SocketAddr, more: Value) -> Value {
    let mut supervisor = json!({"listen": [at.to_string()]});
    supervisor.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    supervisor
}

pub(super) fn is_up(at: SocketAddr) {
    wait_for("the port is open", SOON, || TcpStream::connect(at).ok());
}

pub(super) fn token(daemon: &Daemon, name: &str) -> String {
    let path = daemon.folder.join("state").join(name);
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o640, "{name}");
    let token = fs::read_to_string(path).unwrap();
    assert_eq!(token.trim_end().len(), 64, "{name}");
    token.trim_end().into()
}

/// Status and answer of a request by curl.
fn curl(url: &str, token: Option<&str>, more: &[&str]) -> (u16, Value) {
    let mut command = Command::new("curl");
    command.args(["-sS", "-w", "\n%{http_code}"]).args(more).arg(url);
    if let Some(token) = token {
        command.args(["-H", &format!("Authorization: Bearer {token}")]);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, code) = text.rsplit_once('\n').unwrap();
    (code.parse().unwrap(), serde_json::from_str(body).unwrap_or(Value::Null))
}

fn messages(daemon: &Daemon, kind: &str) -> Vec<String> {
    let (_, page) = daemon.api("GET", &format!("events?type={kind}"));
    page["events"].as_array().unwrap().iter().map(|event| event["message"].as_str().unwrap().into()).collect()
}

#[test]
fn tokens_open_the_api_over_tcp() {
    let at = free();
    let mut daemon = Daemon::prepared(json!({}));
    daemon
        .configure_whole(json!({"supervisor": listening(at, json!({})), "services": {"ac-web": sleeper()}}));
    daemon.launch();
    is_up(at);
    let (operator, viewer) = (token(&daemon, "token"), token(&daemon, "token-viewer"));
    let api = format!("http://{at}/api/supervisor");
    let stop = format!("{api}/services/ac-web/stop");
    let status = format!("{api}/status");
    assert_eq!(curl(&status, None, &[]).0, 401);
    assert_eq!(curl(&status, Some("wrong"), &[]).0, 401);
    assert_eq!(curl(&status, Some(&viewer), &[]).1["services"]["ac-web"]["id"], "ac-web");
    assert_eq!(curl(&stop, Some(&viewer), &["-X", "POST"]).0, 403);
    assert_eq!(curl(&status, Some(&operator), &["-H", "Host: evil.example"]).0, 403);
    daemon.wait_state("ac-web", "running");
    let (code, stopped) = curl(&stop, Some(&operator), &["-X", "POST"]);
    assert_eq!((code, &stopped["state"]), (200, &json!("stopped")), "{stopped}");
    let start = format!("{api}/services/ac-web/start");
    assert_eq!(curl(&start, Some(&operator), &["-X", "POST"]).1["state"], "running");
    let told = daemon.messages("ac-web");
    let by =
        |verb: &str| told.iter().any(|m| m.contains(verb) && m.contains("token operator from 127.0.0.1:"));
    assert!(by("stop") && by("start"), "{told:#?}");

    // The CLI, with the token in a file.
    let mut command = daemon.program(env!("CARGO_BIN_EXE_supervisorctl"));
    command.args(["--url", &format!("http://{at}"), "--token-file"]).arg(daemon.folder.join("state/token"));
    let output = command.arg("status").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    // Rotation, and a restart that keeps what was rotated.
    let said = daemon.ok(&["token", "rotate"]);
    assert!(said.contains("refused from now on"), "{said}");
    assert_eq!(curl(&status, Some(&operator), &[]).0, 401, "the old one");
    let new = token(&daemon, "token");
    assert_ne!(new, operator);
    assert_eq!(curl(&status, Some(&new), &[]).0, 200);
    assert_eq!(curl(&status, Some(&viewer), &[]).0, 200, "the other role keeps its own");
    let told = messages(&daemon, "token_rotated");
    assert!(
        told.len() == 1 && told[0].contains("operator") && told[0].contains("over the socket"),
        "{told:?}"
    );
    daemon.kill();
    daemon.launch();
    is_up(at);
    assert_eq!(curl(&status, Some(&new), &[]).0, 200);
    for secret in [&operator, &new, &viewer] {
        assert!(!daemon.log().contains(secret.as_str()), "a token is in the log");
        let (_, events) = daemon.api("GET", "events?limit=1000");
        assert!(!events.to_string().contains(secret.as_str()));
    }
}

#[test]
fn a_token_is_rotated_without_a_supervisor() {
    let mut daemon = Daemon::start(json!({}));
    let old = token(&daemon, "token-viewer");
    daemon.signal("TERM");
    daemon.wait_for_end();
    let rotate = |daemon: &Daemon| {
        let mut command = daemon.program(env!("CARGO_BIN_EXE_supervisorctl"));
        command.args(["token", "rotate", "--viewer"]).output().unwrap()
    };
    let output = rotate(&daemon);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("no supervisor runs"));
    assert_ne!(token(&daemon, "token-viewer"), old);
}

#[test]
fn a_port_that_is_taken_is_an_alert_and_not_the_end() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    let mut daemon = Daemon::prepared(json!({}));
    daemon.configure_whole(
        json!({"supervisor": listening(at, json!({})), "services": {"ac-taken": sleeper()}}),
    );
    daemon.launch();
    daemon.wait_state("ac-taken", "running");
    let alerts = |all: &str| daemon.api("GET", &format!("alerts{all}")).1["alerts"].clone();
    let alert = wait_for("the alert", SOON, || alerts("").get(0).cloned());
    assert_eq!((&alert["alert_type"], &alert["service_id"]), (&json!("listener"), &Value::Null));
    let message = alert["message"].as_str().unwrap();
    assert!(message.contains(&at.to_string()) && message.contains("ss -ltnp"), "{message}");
    assert_eq!(messages(&daemon, "listener_trouble").len(), 1);
    drop(taken);
    is_up(at);
    wait_for("the alert is over", SOON, || alerts("").as_array().unwrap().is_empty().then_some(()));
    assert!(!alerts("?all=true")[0]["resolved_at"].is_null());
}

/// A certificate for 127.0.0.1, valid for two days.
fn certificate(folder: &Path, name: &str) {
    let (folder, options) = (folder.display(), "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2");
    sh(&format!(
        "cd {folder} && openssl req -x509 {options} -subj /CN={name} -addext subjectAltName=IP:127.0.0.1 \
         -addext basicConstraints=critical,CA:FALSE -keyout {name}.key -out {name}.crt && chmod 600 {name}.key"
    ));
}

#[test]
fn a_reload_changes_addresses_certificates_and_anonymous_reading() {
    let (first, second) = (free(), free());
    let mut daemon = Daemon::prepared(json!({}));
    let config = |at: SocketAddr, more: Value| json!({"supervisor": listening(at, more), "services": {"ac-live": sleeper()}});
    daemon.configure_whole(config(first, json!({})));
    daemon.launch();
    is_up(first);
    let before = daemon.wait_state("ac-live", "running");
    daemon.configure_whole(config(second, json!({"anonymous": "read"})));
    daemon.ok(&["reload"]);
    is_up(second);
    wait_for("the old one is closed", SOON, || TcpStream::connect(first).is_err().then_some(()));
    let plain = format!("http://{second}/api/supervisor/services/ac-live");
    let (code, shown) = curl(&plain, None, &[]);
    assert_eq!((code, &shown["config"]), (200, &Value::Null));
    assert_eq!(curl(&plain, Some(&token(&daemon, "token-viewer")), &[]).1["config"]["command"], "/bin/sleep");

    for name in ["one", "two"] {
        certificate(&daemon.folder, name);
    }
    let folder = daemon.folder.clone();
    let file = |name: &str| folder.join(name).display().to_string();
    let (served, key) = (file("one.crt"), file("one.key"));
    let (one, two) = (file("ca-one"), file("two.crt"));
    fs::copy(&served, &one).unwrap();
    let tls = json!({"anonymous": "read", "tls": {"certificate": served, "key": two}});
    let wrong = config(second, tls);
    fs::write(daemon.config(), wrong.to_string()).unwrap();
    let refused = daemon.ctl(&["reload"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("supervisor.tls.key"), "{said}");
    assert_eq!(curl(&plain, None, &[]).0, 200, "nothing changed");
    daemon.configure_whole(config(
        second,
        json!({"anonymous": "read", "tls": {"certificate": &served, "key": &key}}),
    ));
    daemon.ok(&["reload"]);
    let secure = plain.replace("http:", "https:");
    let trusting = |ca: &str| {
        Command::new("curl").args(["-sSf", "--cacert", ca, &secure]).output().unwrap().status.success()
    };
    wait_for("TLS", SOON, || trusting(&one).then_some(()));
    assert!(!trusting(&two));
    fs::copy(&two, &served).unwrap();
    fs::copy(file("two.key"), &key).unwrap();
    daemon.signal("HUP");
    wait_for("the renewed certificate", SOON, || trusting(&two).then_some(()));
    assert_eq!(daemon.service("ac-live")["pid"], before["pid"], "services do not notice");
}
