//! Programs that people run: nginx, redis and a Python web server from the distribution, and our example.

use serde_json::json;

use super::{Daemon, SOON, sh, wait_for};

#[test]
fn nginx_redis_and_python_are_supervised() {
    let mut daemon = Daemon::prepared(json!({}));
    let folder = daemon.folder.display().to_string();
    let nginx = format!(
        "daemon off; pid {folder}/nginx.pid; error_log stderr; events {{}} http {{ access_log off; server {{ listen 127.0.0.1:18611; location / {{ proxy_pass http://127.0.0.1:18613; }} }} }}"
    );
    std::fs::write(daemon.folder.join("nginx.conf"), nginx).unwrap();
    std::fs::create_dir(daemon.folder.join("www")).unwrap();
    std::fs::write(daemon.folder.join("www/index.html"), "hello from python").unwrap();
    daemon.configure(json!({
        "real-nginx": {
            "command": "nginx", "args": ["-c", format!("{folder}/nginx.conf")],
            "environment": {"PATH": "/usr/sbin:/usr/bin"},
            "health_check": {"type": "http", "endpoint": "http://127.0.0.1:18611/", "expected_content": "hello", "interval": 2, "timeout": 1},
            "dependencies": ["real-python"], "restart_policy": {"retry_delay": 0.2}
        },
        "real-redis": {
            "command": "redis-server", "args": ["--port", "18612", "--bind", "127.0.0.1", "--dir", folder, "--save", ""],
            "health_check": {"type": "tcp", "host": "127.0.0.1", "port": 18612, "interval": 2, "timeout": 1},
            "resource_limits": {"max_memory_mb": 128}, "restart_policy": {"retry_delay": 0.2}
        },
        "real-python": {
            "command": "python3", "args": ["-m", "http.server", "--bind", "127.0.0.1", "18613"], "working_directory": format!("{folder}/www"),
            "health_check": {"type": "http", "endpoint": "http://127.0.0.1:18613/", "interval": 2, "timeout": 1}
        },
    }));
    daemon.launch();
    for id in ["real-nginx", "real-redis", "real-python"] {
        assert_eq!(daemon.wait_state(id, "running")["health"], "healthy");
    }
    assert_eq!(sh("curl -s http://127.0.0.1:18611/"), "hello from python");
    // A worker that dies is nginx's affair; a master that dies is ours, and takes its workers along.
    for id in ["real-nginx", "real-redis"] {
        let before = daemon.service(id);
        sh(&format!("kill -9 {}", before["pid"]));
        wait_for("it is back", SOON, || {
            let now = daemon.service(id);
            (now["state"] == "running" && now["pid"] != before["pid"]).then_some(())
        });
    }
    assert_eq!(sh("curl -s http://127.0.0.1:18611/"), "hello from python");
    daemon.ok(&["shutdown"]);
    assert!(daemon.wait_for_end().success());
    assert_eq!(sh("pgrep -fc '[1]27.0.0.1 18613|[1]8612|[n]ginx.conf' || true"), "0");
}
