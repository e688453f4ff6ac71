//! Files as people write them. The configurations that come of them pass our own check.

use std::collections::BTreeMap;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::config;
use crate::place::Scope;

#[derive(Default)]
struct Made(BTreeMap<PathBuf, String>, BTreeMap<&'static str, &'static str>);

impl World for Made {
    fn read(&self, path: &Path) -> Result<String, String> {
        self.0.get(path).cloned().ok_or_else(|| format!("{}: no such file", path.display()))
    }

    fn glob(&self, folder: &Path, pattern: &str) -> Vec<PathBuf> {
        let pattern = folder.join(pattern);
        let begin = pattern.to_string_lossy().trim_end_matches("*.conf").to_owned();
        self.0
            .keys()
            .filter(|path| path.to_string_lossy().starts_with(&begin) && **path != pattern)
            .cloned()
            .collect()
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.1.get(name).map(|value| (*value).to_owned())
    }

    fn host(&self) -> String {
        "box".into()
    }
}

fn world(files: &[(&str, &str)]) -> Made {
    let files = files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect();
    Made(files, BTreeMap::from([("HOME", "/root"), ("PORT", "8000")]))
}

fn convert(text: &str) -> Result<(Value, Report), String> {
    supervisord(&[Path::new("/etc/s.conf")], &world(&[("/etc/s.conf", text)]))
}

/// Converts, and has the result checked as `validate` does.
fn valid(text: &str) -> (Value, Report) {
    let (config, report) = convert(text).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.json");
    std::fs::write(&file, config.to_string()).unwrap();
    let loaded = config::load(&file, Scope::System);
    let told = loaded.map(|_| ()).map_err(|problems| format!("{problems:#?}"));
    assert_eq!(told, Ok(()), "{config:#}");
    (config, report)
}

fn told<'a>(report: &'a Report, key: &str) -> Vec<(usize, Outcome, &'a str)> {
    report.0.iter().filter(|n| n.key == key).map(|n| (n.line, n.outcome, n.text.as_str())).collect()
}

#[test]
fn a_program_with_every_key() {
    let (config, report) = valid(
        "[program:web]\n\
         command=/bin/sh -c 'echo \"a b\"' -- %(program_name)s %%d ; a comment\n\
         process_name=%(program_name)s\nnumprocs=1\nnumprocs_start=0\npriority=10\nautostart=false\n\
         autorestart=unexpected\nstartsecs=5\nstartretries=7\nexitcodes=0,2\nstopsignal=quit\nstopwaitsecs=20\n\
         stopasgroup=true\nkillasgroup=true\nuser=root\nredirect_stderr=true\nstdout_logfile=/var/log/web.log\n\
         stdout_logfile_maxbytes=1MB\nstdout_logfile_backups=10\nstdout_capture_maxbytes=1MB\n\
         stdout_events_enabled=false\nstdout_syslog=true\nstderr_logfile=NONE\nstderr_logfile_maxbytes=1MB\n\
         stderr_logfile_backups=1\nstderr_capture_maxbytes=0\nstderr_events_enabled=false\nstderr_syslog=false\n\
         environment=A=\"1\",B='two, three'\ndirectory=/tmp\numask=022\nserverurl=AUTO\nnonsense=1\n",
    );
    assert_eq!(
        config["services"]["web"],
        json!({
            "command": "/bin/sh", "args": ["-c", "echo \"a b\"", "--", "web", "%d"], "priority": 10, "enabled": false,
            "user": "root", "working_directory": "/tmp", "environment": {"A": "1", "B": "two, three"},
            "restart_policy": {"max_retries": 7, "retry_delay": 1, "reset_after": 5},
            "graceful_shutdown": {"timeout": 20, "signal": "SIGQUIT"},
            "unit_properties": {"SuccessExitStatus": "2", "UMask": "022"},
        })
    );
    // Every line of the file has its answer.
    let lines: std::collections::BTreeSet<usize> = report.0.iter().map(|note| note.line).collect();
    assert_eq!(lines.into_iter().collect::<Vec<_>>(), (2..=34).collect::<Vec<_>>());
    assert_eq!(told(&report, "nonsense")[0].1, Outcome::Dropped);
    assert_eq!(told(&report, "stdout_logfile")[0].1, Outcome::Changed);
}

#[test]
fn restarts_are_the_same() {
    let of = |value: &str| {
        let (config, _) = valid(&format!("[program:w]\ncommand=/bin/sleep 1\n{value}"));
        let web = &config["services"]["w"];
        (web["auto_restart"].as_bool().unwrap_or(true), web["restart_on_exit"].as_bool().unwrap_or(false))
    };
    assert_eq!(of(""), (true, false), "unexpected is the default");
    assert_eq!(of("autorestart=unexpected"), (true, false));
    assert_eq!(of("autorestart=true"), (true, true));
    assert_eq!(of("autorestart=false"), (false, false));
    assert!(
        convert("[program:w]\ncommand=x\nautorestart=perhaps")
            .unwrap_err()
            .contains("/etc/s.conf:3: autorestart")
    );
}

#[test]
fn processes_groups_and_names() {
    let (config, _) = valid(
        "[program:worker]\ncommand=/bin/sleep %(process_num)d\nnumprocs=3\nnumprocs_start=1\n\
         process_name=%(program_name)s_%(process_num)02d\n\
         [program:mail queue]\ncommand=/bin/sleep 1\n[program:api]\ncommand=/bin/sleep 1\n\
         [group:front]\nprograms=api,mail queue\npriority=5\n",
    );
    let services: Vec<&String> = config["services"].as_object().unwrap().keys().collect();
    assert_eq!(services, ["api", "mail-queue", "worker_01", "worker_02", "worker_03"]);
    assert_eq!(config["services"]["worker_02"]["args"], json!(["2"]));
    assert_eq!(config["groups"]["worker"]["services"], json!(["worker_01", "worker_02", "worker_03"]));
    assert_eq!(config["groups"]["front"]["services"], json!(["mail-queue", "api"]));
    let twice = "[program:a]\ncommand=/bin/sleep 1\nnumprocs=2\n";
    assert!(convert(twice).unwrap_err().contains("process_name"), "supervisord refuses it as well");
}

#[test]
fn files_are_read_as_python_reads_them() {
    let text = "\u{feff}; a file\r\n[program:one]\r\ncommand = /bin/sleep 1\r\n# between\r\n\
                environment : A=\"1;2\",\r\n    B=\"3\"   ; of B\r\ncommand=/bin/sleep 2;not a comment\r\n\
                Directory=/tmp\r\n[program:one]\r\nuser=root\r\n";
    let (config, report) = convert(text).unwrap();
    let one = &config["services"]["one"];
    assert_eq!((&one["args"], &one["user"]), (&json!(["2;not", "a", "comment"]), &json!("root")));
    assert_eq!(one["environment"], json!({"A": "1;2", "B": "3"}));
    assert_eq!(one["working_directory"], "/tmp", "keys are in small letters");
    assert_eq!(
        told(&report, "command")[0],
        (3, Outcome::Dropped, "/etc/s.conf:7 sets it again, which counts")
    );
}

#[test]
fn names_are_expanded() {
    let (config, _) = convert(
        "[program:web]\ncommand=/bin/echo %(here)s %(host_node_name)s %(ENV_HOME)s %(ENV_MODE)s %(group_name)s 100%%\n\
         environment=MODE=\"%(program_name)s-%(ENV_PORT)s\"\n",
    )
    .unwrap();
    assert_eq!(config["services"]["web"]["args"], json!(["/etc", "box", "/root", "web-8000", "web", "100%"]));
    for (bad, named) in [("%(ENV_NOPE)s", "ENV_NOPE"), ("100%", "%%"), ("%(here)x", "s or d")] {
        let error = convert(&format!("[program:web]\ncommand=/bin/echo {bad}\n")).unwrap_err();
        assert!(error.contains("/etc/s.conf:2: command") && error.contains(named), "{error}");
    }
}

#[test]
fn included_files_and_the_rest() {
    let files = world(&[
        (
            "/etc/s.conf",
            "[unix_http_server]\nfile=/run/s.sock\n[inet_http_server]\nport=9001\n[supervisord]\nuser=root\numask=077\n\
             environment=LANG=\"C\"\nlogfile=/x\n[rpcinterface:supervisor]\nx=y\n[supervisorctl]\nserverurl=unix://\n\
             [eventlistener:mail]\ncommand=crashmail\nevents=PROCESS_STATE\n[fcgi-program:php]\nsocket=tcp://x\n\
             [include]\nfiles = conf.d/*.conf none/*.conf\n",
        ),
        ("/etc/conf.d/a.conf", "[program:a]\ncommand=/bin/sleep 1\n"),
        ("/etc/conf.d/b.conf", "[program:b]\ncommand=/bin/sleep 1\n[include]\nfiles=more\n"),
    ]);
    let (config, report) = supervisord(&[Path::new("/etc/s.conf")], &files).unwrap();
    assert_eq!(config["services"].as_object().unwrap().len(), 2);
    assert_eq!(config["supervisor"]["default_user"], "root");
    assert_eq!(config["services"]["b"]["environment"], json!({"LANG": "C"}));
    assert_eq!(config["services"]["b"]["unit_properties"]["UMask"], "077");
    for key in ["file", "port", "x", "serverurl", "events", "socket", "logfile"] {
        assert_eq!(told(&report, key)[0].1, Outcome::Dropped, "{key}");
    }
    assert_eq!(
        told(&report, "files").len(),
        4,
        "two were read, none was found, one is too deep: {report:#?}"
    );
}

#[test]
fn files_beside_a_file_of_this_folder() {
    let files = world(&[
        ("s.conf", "[include]\nfiles = conf.d/*.conf\n"),
        ("./conf.d/a.conf", "[program:a]\ncommand=/bin/sleep 1\n"),
    ]);
    let (config, report) = supervisord(&[Path::new("s.conf")], &files).unwrap();
    assert_eq!(config["services"].as_object().unwrap().len(), 1, "{report:#?}");
}

#[test]
fn shell_signs_are_told() {
    let (config, report) = valid("[program:web]\ncommand=/bin/echo a && /bin/echo b\n");
    assert_eq!(config["services"]["web"]["args"], json!(["a", "&&", "/bin/echo", "b"]));
    let (_, outcome, text) = told(&report, "command")[0];
    assert!(outcome == Outcome::Changed && text.contains("/bin/sh"), "{text}");
}

#[test]
fn environments_have_the_quoting_of_supervisord() {
    for (text, expected) in [
        ("A=1,B=2", Some(vec![("A", "1"), ("B", "2")])),
        ("A=\"x,y\" , B='q'", Some(vec![("A", "x,y"), ("B", "q")])),
        ("PATH=/usr/bin:/bin", Some(vec![("PATH", "/usr/bin:/bin")])),
        ("A=\"\"", Some(vec![("A", "")])),
        ("", Some(vec![])),
        ("A=a@b", None),
        ("A", None),
        ("A=\"x", None),
    ] {
        let pairs = parse::pairs(text).ok();
        let expected = expected
            .map(|all| all.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect::<Vec<_>>());
        assert_eq!(pairs, expected, "{text}");
    }
}

#[test]
fn what_is_no_such_file_is_refused_with_its_place() {
    for (text, named) in [
        ("command=x\n", "/etc/s.conf:1: a section"),
        ("[program:a]\nwords without a sign\n", "/etc/s.conf:2: a line \"key=value\""),
        ("[program:a]\nuser=root\n", "/etc/s.conf:1: [program:a] has no command"),
        ("[program:a]\ncommand='x\n", "/etc/s.conf:2: command: a quote"),
        ("[program:a]\ncommand=x\nnumprocs=many\n", "/etc/s.conf:3: numprocs: a whole number"),
        ("[program:a]\ncommand=x\nnumprocs=100000\n", "numprocs can be 0 to 1000"),
        ("[group:g]\nprograms=nobody\n", "/etc/s.conf:2: programs: there is no [program:nobody]"),
    ] {
        let error = convert(text).unwrap_err();
        assert!(error.contains(named), "{text}: {error}");
    }
}

proptest! {
    #[test]
    fn no_file_panics(text in "(\\[(program|group|include|x):?[a-z%(){}]{0,5}\\]\n|[a-z_]{1,12}[=:][ -~é]{0,20}\n|[ \t;#]{0,3}[ -~]{0,20}\n){0,12}") {
        let _ = convert(&text);
    }

    #[test]
    fn no_value_panics(command in ".{0,40}", environment in ".{0,40}") {
        let _ = convert(&format!("[program:a]\ncommand={command}\nenvironment={environment}\n"));
    }
}
