//! From nothing to a running loop, and back.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::access::{self, Access};
use super::folder::Folder;
use super::logs::ServiceLogs;
use super::supervise::{Ends, Leaving, Loop};
use super::{Input, clock, courier, measuring, reload};
use crate::config::{self, Lacking, Problem};
use crate::control::{About, Control};
use crate::core::Engine;
use crate::core::snapshot::Snapshot;
use crate::http;
use crate::place::Places;
use crate::store::Store;
use crate::systemd::{Manager, SystemdError, notify, own};

/// Requests that wait for the loop; more wait at their senders.
const REQUESTS: usize = 256;
/// For the last words to the database and to API clients.
const FAREWELL: Duration = Duration::from_secs(5);
/// Open files: connections, streams, probes, and some to spare.
const FILES: u64 = 4096;

/// Why the daemon could not start. Services that run are not touched by that.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Every problem in the configuration.
    #[error("the configuration has {} problems", .0.len())]
    Config(Vec<Problem>),
    /// Another daemon has these places.
    #[error("another supervisor (pid {pid}) runs with {}: talk to it with supervisorctl, or stop it first", .folder.display())]
    Taken {
        /// Its runtime folder.
        folder: PathBuf,
        /// As it wrote it down.
        pid: String,
    },
    /// A folder or file cannot be made.
    #[error("cannot prepare {}: {source}; it has to be writable for this user", .path.display())]
    Path {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// systemd cannot be used.
    #[error(transparent)]
    Systemd(#[from] SystemdError),
    /// A signal handler could not be installed.
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] std::io::Error),
}

/// Runs the daemon in the foreground until it is told to end.
pub async fn run(places: Places, version: &'static str) -> Result<(), SetupError> {
    let started_at = clock::now().wall;
    allow_files();
    make_state(&places.state)?;
    let folder = Folder::take(&places)?;
    let (to_notices, notices) = mpsc::unbounded_channel();
    let manager = Manager::connect(places.scope, places.environment(), to_notices).await?;
    let loaded = reload::load(places.clone(), &manager, Lacking::Warn).await.map_err(SetupError::Config)?;
    for warning in &loaded.warnings {
        warn!("{}:{}: {}: {}; {}", warning.file, warning.line, warning.path, warning.message, warning.help);
    }
    if let Some(warning) = own::linger_warning(places.scope).await {
        warn!("{warning}");
    }
    // Only these live as long as the daemon.
    let (plan, settings) = loaded.into_parts();
    let database = settings.database.clone().unwrap_or_else(|| places.database());
    let (to_inputs, inputs) = mpsc::unbounded_channel();
    let (store, records) = open_store(database, places.unwritten(), to_inputs.clone()).await;
    store.retain(settings.retention_days);
    let engine = Engine::new(clock::now(), clock::boot(manager.began()), plan, records)
        .with_open_alerts(store.open_alerts().iter().cloned());
    let begun = format!(
        "process-supervisor {version} supervises {} services of {} through systemd {} ({} scope)",
        engine.plan().services.len(),
        places.config.display(),
        manager.version(),
        places.scope.as_str(),
    );
    let (to_requests, requests) = mpsc::channel(REQUESTS);
    let (to_snapshot, snapshot) = watch::channel(Arc::new(Snapshot::default()));
    let about = Arc::new(About {
        version,
        scope: places.scope.as_str(),
        systemd_version: manager.version(),
        started_at,
        config_path: places.config.display().to_string(),
        state: places.state.clone(),
    });
    let (to_host, host) = watch::channel(None);
    let logs = Arc::new(ServiceLogs::new(places.scope));
    let history = Arc::new(store.clone());
    let control =
        Control::new(to_requests, snapshot.clone(), config::effective, about, history, logs).with_host(host);
    let (access, tcp) = Access::start(&places, &settings, to_inputs.clone());
    let end_server = CancellationToken::new();
    let server = tokio::spawn(serve(folder.clone(), tcp, control, snapshot, end_server.clone())?);
    let (metrics_interval, interval) = watch::channel(settings.metrics_interval);
    measuring::start(to_snapshot.subscribe(), interval, to_inputs.clone(), to_host);
    let pusher = measuring::pusher(&settings, &to_inputs);
    let snapshot = to_snapshot;
    let ends = Ends { notices, requests, inputs, to_inputs, snapshot, metrics_interval, pusher, access };
    let errands = courier::start(store.clone(), manager.clone());
    let the_loop = Loop::new(places.clone(), engine, manager.clone(), store, errands, ends, settings);
    the_loop.tell_start(begun);
    // A task of its own: waking what the runtime blocks on costs a system call each time.
    let ended = tokio::spawn(the_loop.run()).await;
    let ended = ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    let (leaving, store) = ended.map_err(SetupError::Signals)?;
    if leaving == Leaving::ServicesStopped {
        manager.forget_environments();
        if let Err(error) = manager.stay_down().await {
            warn!("systemd may start the supervisor again: {error}");
        }
    }
    notify::stopping(match leaving {
        Leaving::ServicesRunning => "leaving; services go on running",
        Leaving::ServicesStopped => "all services are stopped; leaving",
    });
    end_server.cancel();
    if tokio::time::timeout(FAREWELL, server).await.is_err() {
        warn!("some API clients did not get their last answer in {} s", FAREWELL.as_secs());
    }
    drop(std::fs::remove_file(places.socket()));
    if !store.close(FAREWELL).await {
        warn!("the database could not take everything before the end; see the messages before");
    }
    Ok(())
}

/// The usual limit is less than all connections together. Services are not ours by descent: they keep theirs.
fn allow_files() {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    if soft < FILES.min(hard)
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, FILES.min(hard), hard)
    {
        warn!(
            "no more than {soft} open files are allowed ({error}); fewer API clients can be served at once"
        );
    }
}

async fn open_store(
    database: PathBuf,
    aside: PathBuf,
    inputs: mpsc::UnboundedSender<Input>,
) -> (Store, BTreeMap<crate::core::plan::Id, crate::core::action::Record>) {
    let trouble = move |trouble| drop(inputs.send(Input::Trouble(trouble)));
    let open = move || Store::open(&database, aside, trouble);
    match tokio::task::spawn_blocking(open).await {
        Ok(opened) => opened,
        // `Store::open` never fails; a panic in it is a bug, told as such.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// The server starts to answer once there is a picture to show.
fn serve(
    folder: Folder,
    tcp: access::Ends,
    control: Control,
    mut snapshot: watch::Receiver<Arc<Snapshot>>,
    end: CancellationToken,
) -> Result<impl Future<Output = ()>, SetupError> {
    let first = folder.listen()?;
    let (next, listeners) = mpsc::channel(1);
    Ok(async move {
        let _ = snapshot.changed().await;
        let router = http::router(control);
        let teller = tcp.teller.clone();
        let tell = move |news| teller.tell(access::Part::Addresses, news);
        tokio::join!(
            folder.keep(next, |news| tcp.teller.tell_of_folder(news)),
            http::serve_unix(first, listeners, router.clone(), end.cancelled()),
            http::serve_tcp(router, tcp.rules, tcp.wanted, tell, end.cancelled()),
        );
    })
}

fn make_state(state: &Path) -> Result<(), SetupError> {
    let made = DirBuilder::new().recursive(true).mode(0o750).create(state);
    made.map_err(|source| SetupError::Path { path: state.into(), source })
}
