//! What comes from outside, as bytes: the targets of `fuzz/`. Nothing may panic, nothing may go on for ever, and what
//! is said of each must hold. The inputs in `fuzz/corpus` are tests, too.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::config::{self, Found, Lacking, Severity, Unreadable};
use crate::control::{About, Control, LogEntry, LogError, LogQuery, LogTail, Logs};
use crate::core::Wall;
use crate::core::plan::{HttpProbe, Id, Probe, ServicePlan};
use crate::core::snapshot::{ServiceView, Snapshot};
use crate::place::Scope;
use crate::probe::{Helper, OWN_BINARY, ProbeClient, Subject};
use crate::store::Store;
use crate::systemd::{name, property};
use crate::tls::{TlsFault, TlsFiles};
use crate::{cgroup, environment_file, http, import, journal, resource};

/// For an answer to begin: to half a request there is none.
const PATIENCE: Duration = Duration::from_millis(5);
/// For more of it: a stream has no end.
const PAUSE: Duration = Duration::from_millis(1);

/// A machine with one file, which every name leads to.
struct OneFile<'t>(&'t str);

impl config::World for OneFile<'_> {
    fn read(&self, _: &Path) -> Result<String, Unreadable> {
        Ok(self.0.into())
    }
    fn is_public(&self, _: &Path) -> bool {
        true
    }
    fn list(&self, _: &Path) -> Result<Vec<String>, Unreadable> {
        Ok(vec!["other.json".into()])
    }
    fn look(&self, path: &Path) -> Found {
        if path.to_string_lossy().len().is_multiple_of(2) { Found::Program } else { Found::Missing }
    }
    fn has_user(&self, name: &str) -> bool {
        name == "root"
    }
    fn has_group(&self, name: &str) -> bool {
        name == "root"
    }
    fn check_tls(&self, _: &TlsFiles) -> Result<(), TlsFault> {
        Ok(())
    }
}

impl import::World for OneFile<'_> {
    fn read(&self, _: &Path) -> Result<String, String> {
        Ok(self.0.into())
    }
    fn glob(&self, folder: &Path, pattern: &str) -> Vec<PathBuf> {
        vec![folder.join(pattern)]
    }
    fn variable(&self, name: &str) -> Option<String> {
        (name.len() < 4).then(|| name.into())
    }
    fn host(&self) -> String {
        "host".into()
    }
}

/// The text of `supervisor_config.json`: every problem has a place in it, and what is accepted can be shown.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match config::load_in(&OneFile(text), Path::new("/etc/c.json"), Scope::System, Lacking::Refuse) {
        Ok(loaded) => {
            let (plan, _) = loaded.into_parts();
            for service in plan.services.values() {
                config::effective(service);
            }
        }
        Err(problems) => {
            assert!(!problems.is_empty(), "refused, and nobody knows why");
            for problem in &problems {
                assert!(problem.line <= text.lines().count() + 1, "{problem:?}");
            }
            config::render(&problems, Severity::Error, |_| Some(text.into()));
        }
    }
}

/// Files of supervisord: what is made of them is JSON of the right shape.
pub fn import(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok((made, _)) = import::supervisord(&[Path::new("/etc/s.conf")], &OneFile(text)) {
        config(made.to_string().as_bytes());
    }
}

/// What `journalctl` writes.
pub fn journal(data: &[u8]) {
    let mut notes = journal::end::Notes::default();
    for line in data.split(|byte| *byte == b'\n') {
        journal::line::parse(line);
        notes.take(line);
    }
    notes.ended();
}

/// Files of the kernel's, and `environment_file`s.
pub fn cgroup(data: &[u8]) {
    resource::parse::number(data);
    resource::parse::keyed(data, b"usage_usec");
    resource::parse::pressure(data);
    resource::parse::io_v1(data);
    resource::parse::io_v2(data);
    if let Ok(text) = std::str::from_utf8(data) {
        cgroup::memberships(text).for_each(drop);
        text.lines().filter_map(cgroup::mount).for_each(drop);
        environment_file::parse(text);
    }
}

/// Names of units: what is escaped comes back as it was, and an id is its unit's.
pub fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let escaped = name::escape(text);
    if !text.contains('\0') {
        assert_eq!(name::unescape(&escaped).as_deref(), Some(text), "{escaped}");
    }
    assert_eq!(name::unit_of_object(&name::object_path(text)).as_deref(), Some(text));
    name::unescape(text);
    name::service_of_unit(text);
    name::service_of_object(text);
    if let Ok(id) = Id::new(text) {
        assert_eq!(name::service_of_unit(&name::service_unit(&id)), Some(id));
    }
}

/// `unit_properties`: the name on the first line, a value on each further one.
pub fn properties(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.lines().map(str::to_owned);
    if let Some(name) = lines.next() {
        let values: Vec<String> = lines.collect();
        if let Err(why) = property::convert(&name, &values) {
            assert!(!why.is_empty(), "{name} is refused, and nobody knows why");
        }
    }
}

struct NoLogs;

impl Logs for NoLogs {
    fn lines(&self, _: LogQuery) -> futures_util::future::BoxFuture<'_, Result<Vec<LogEntry>, LogError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn follow(&self, _: Arc<ServicePlan>) -> Result<LogTail, LogError> {
        Err(LogError::Unavailable("none".into()))
    }
}

/// A server of the API, and one that answers what it is given, for as long as this process is there.
struct Servers {
    runtime: Runtime,
    folder: PathBuf,
    client: ProbeClient,
    answers: UnixListener,
    _snapshot: watch::Sender<Arc<Snapshot>>,
}

#[expect(clippy::expect_used, reason = "without them there is nothing to do")]
static SERVERS: LazyLock<Servers> = LazyLock::new(|| {
    crate::tls::install_provider();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let inside = runtime.enter();
    // As every program of Rust's has it, but for those that begin with the fuzzer's `main`.
    let _never = signal(SignalKind::pipe()).expect("a peer that is gone is no reason to end");
    let folder = std::env::temp_dir().join(format!("process-supervisor-fuzz-{}", std::process::id()));
    drop(std::fs::remove_dir_all(&folder));
    std::fs::create_dir_all(&folder).expect("a folder");
    let bind = |name: &str| UnixListener::bind(folder.join(name)).expect("a socket");
    let (listener, answers) = (bind("api"), bind("answers"));
    let (store, _) = Store::open(&folder.join("a.db"), folder.join("aside"), |_| {});
    let web = Id::new("web").expect("an id");
    let view = ServiceView::new(Arc::new(ServicePlan::new(web.clone(), "/bin/true")));
    let snapshot = Snapshot { services: [(web, Arc::new(view))].into(), ..Snapshot::default() };
    let (to_snapshot, snapshots) = watch::channel(Arc::new(snapshot));
    let about = About {
        version: "0",
        scope: "system",
        systemd_version: "252".into(),
        started_at: Wall(0),
        config_path: "/c.json".into(),
        state: folder.clone(),
    };
    let (requests, _) = mpsc::channel(1);
    let effective = config::effective;
    let control =
        Control::new(requests, snapshots, effective, Arc::new(about), Arc::new(store), Arc::new(NoLogs));
    runtime.spawn(http::serve_unix(
        listener,
        mpsc::channel(1).1,
        http::router(control),
        std::future::pending(),
    ));
    drop(inside);
    Servers { runtime, folder, client: ProbeClient::default(), answers, _snapshot: to_snapshot }
});

/// Bytes to the API: what is answered is HTTP, and never the daemon's own fault.
pub fn request(data: &[u8]) {
    let servers = &*SERVERS;
    let asked = servers.runtime.block_on(async {
        let mut stream = UnixStream::connect(servers.folder.join("api")).await?;
        let mut answer = Vec::new();
        // Refused half-way: the answer says why.
        let _sent = tokio::time::timeout(PATIENCE, stream.write_all(data)).await;
        loop {
            let patience = if answer.is_empty() { PATIENCE } else { PAUSE };
            match tokio::time::timeout(patience, stream.read_buf(&mut answer)).await {
                Ok(Ok(1..)) if answer.len() < 1 << 20 => {}
                _ => return std::io::Result::Ok(answer),
            }
        }
    });
    if let Ok(answer) = asked
        && !answer.is_empty()
    {
        let start = String::from_utf8_lossy(&answer[..answer.len().min(64)]).into_owned();
        assert!(start.starts_with("HTTP/1."), "{start}");
        assert!(!start.contains(" 500 "), "{start}");
    }
}

/// Bytes from a server that is asked how it is: they are an answer, or there is a reason in words.
pub fn probe(data: &[u8]) {
    let servers = &*SERVERS;
    let check = HttpProbe {
        endpoint: format!(
            "http+unix://{}/health",
            servers.folder.join("answers").display().to_string().replace('/', "%2F")
        ),
        method: "GET".into(),
        headers: Default::default(),
        expected_status: vec![(200, 299)],
        expected_content: Some("fine".into()),
        tls_verify: true,
    };
    let Ok(id) = Id::new("web") else { return };
    let mut plan = ServicePlan::new(id, "/bin/true");
    (plan.health.probe, plan.health.timeout) = (Probe::Http(check), PATIENCE);
    let subject = Subject { pid: None, unit: None, helper: Helper::Program(Path::new(OWN_BINARY)) };
    let report = servers.runtime.block_on(async {
        let answer = async {
            if let Ok((mut stream, _)) = servers.answers.accept().await {
                let mut head = [0; 4096];
                let _asked = stream.read(&mut head).await;
                let _told = stream.write_all(data).await;
                let _ended = stream.shutdown().await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            report = crate::probe::run(&plan, subject, &servers.client) => Some(report),
            () = answer => None,
        }
    });
    if let Some(Ok(report)) = report {
        assert!(!report.message.is_empty() && report.message.len() < 4096, "{}", report.message.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Target = (&'static str, fn(&[u8]));

    /// Each with its name, which is that of its folder in the corpus.
    const TARGETS: [Target; 8] = [
        ("config", config),
        ("import", import),
        ("journal", journal),
        ("cgroup", cgroup),
        ("names", names),
        ("properties", properties),
        ("request", request),
        ("probe", probe),
    ];

    #[test]
    fn what_is_kept_of_the_inputs_holds() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        for (name, target) in TARGETS {
            let inputs: Vec<_> = std::fs::read_dir(corpus.join(name)).unwrap().collect();
            assert!(!inputs.is_empty(), "{name} has none");
            for input in inputs {
                let path = input.unwrap().path();
                eprintln!("{}", path.display());
                target(&std::fs::read(path).unwrap());
            }
        }
    }
}
