//! What the API over TCP needs from files: tokens and certificates, read when the daemon starts and at each reload, and
//! tried again for as long as something is wrong with them.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::unistd::{Gid, Group, chown};
use rustls::ServerConfig;
use tokio::sync::{mpsc, oneshot, watch};

use super::{Input, clock};
use crate::config::{Anonymous, Settings};
use crate::core::action::{Entry, EntryKind, Level};
use crate::core::time::Human;
use crate::http::{News, Rules, Wanted};
use crate::place::{Places, Scope};
use crate::store::Store;
use crate::tls::{self, TlsFiles};
use crate::token::{self, Digest, Role};

/// Whoever is in it may use the socket, and read the tokens.
pub const GROUP: &str = "process-supervisor";
/// Between two tries to read what could not be read: it doubles from the first to the second.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The part of the configuration that this is about.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    listen: Vec<std::net::SocketAddr>,
    tls: Option<TlsFiles>,
    anonymous: bool,
    hosts: Vec<String>,
}

impl Asked {
    fn of(settings: &Settings) -> Self {
        Self {
            listen: settings.listen.clone(),
            tls: settings.tls.clone(),
            anonymous: settings.anonymous == Anonymous::Read,
            hosts: settings.allowed_hosts.clone(),
        }
    }
}

/// The handle that the loop holds.
#[derive(Debug)]
pub struct Access {
    asked: watch::Sender<Asked>,
    shared: Arc<Shared>,
}

/// What the server takes.
#[derive(Debug)]
pub struct Ends {
    pub rules: watch::Receiver<Rules>,
    pub wanted: watch::Receiver<Wanted>,
    pub teller: Arc<Teller>,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    scope: Scope,
    rules: watch::Sender<Rules>,
    /// Held from reading or writing a token until its digest is in the rules, so that none comes back.
    tokens: tokio::sync::Mutex<()>,
}

impl Access {
    /// Begins. Nobody is let in, and nothing is opened, until the files are read.
    pub fn start(places: &Places, settings: &Settings, inputs: mpsc::UnboundedSender<Input>) -> (Self, Ends) {
        let (asked, to_do) = watch::channel(Asked::of(settings));
        let (rules, rules_seen) = watch::channel(Rules::default());
        let (to_wanted, wanted) = watch::channel(Wanted::default());
        let teller = Arc::new(Teller { inputs, troubles: Mutex::default() });
        let shared = Arc::new(Shared {
            folder: places.state.clone(),
            scope: places.scope,
            rules,
            tokens: tokio::sync::Mutex::default(),
        });
        tokio::spawn(keep_read(shared.clone(), to_do, to_wanted, teller.clone()));
        (Self { asked, shared }, Ends { rules: rules_seen, wanted, teller })
    }

    /// A new configuration is in force; files are read again in any case. Returns at once.
    pub fn apply(&self, settings: &Settings) {
        self.asked.send_replace(Asked::of(settings));
    }

    /// Makes a new token. The old one is refused before the answer is given, and the event is on the disk if it can
    /// be. Returns at once.
    pub fn rotate(
        &self,
        store: Store,
        role: Role,
        origin: String,
        answer: oneshot::Sender<Result<String, String>>,
    ) {
        let shared = self.shared.clone();
        tokio::spawn(async move {
            let made = {
                let _turn = shared.tokens.lock().await;
                let (folder, scope) = (shared.folder.clone(), shared.scope);
                let write = move || token::rotate(&folder, role, group(scope));
                let made = tokio::task::spawn_blocking(write).await;
                let made = made.map_err(|e| e.to_string()).and_then(|made| made.map_err(|e| e.to_string()));
                made.map(|digest| shared.rules.send_modify(|rules| *place(rules, role) = Some(digest)))
            };
            if made.is_ok() {
                let entry = rotated(role, &origin);
                super::supervise::log(&entry);
                store.event(&entry, clock::now().wall);
                store.flushed(Duration::from_millis(250)).await;
            }
            drop(answer.send(made.map(|()| role.file(&shared.folder).display().to_string())));
        });
    }
}

fn rotated(role: Role, origin: &str) -> Entry {
    let word = role.as_str();
    Entry {
        service: None,
        kind: EntryKind::TokenRotated,
        level: Level::Info,
        message: format!(
            "the {word} token of the API was replaced, asked for by {origin}; the old one is refused"
        ),
        details: [("role", word.into()), ("origin", origin.into())].into(),
    }
}

fn place(rules: &mut Rules, role: Role) -> &mut Option<Digest> {
    match role {
        Role::Operator => &mut rules.operator,
        Role::Viewer => &mut rules.viewer,
    }
}

/// Reads what is asked for, whenever that changes, and again and again while something is wrong with it.
async fn keep_read(
    shared: Arc<Shared>,
    mut asked: watch::Receiver<Asked>,
    wanted: watch::Sender<Wanted>,
    teller: Arc<Teller>,
) {
    let (mut pause, mut told) = (RETRY.0, None);
    loop {
        let now = asked.borrow_and_update().clone();
        let troubles = read(&shared, &now, &wanted).await;
        let trouble = (!troubles.is_empty()).then(|| troubles.join("; "));
        if trouble != told {
            let message = match &trouble {
                Some(what) => format!(
                    "{what}. It is tried again, at least every {}; supervision goes on, and so does the socket",
                    Human(RETRY.1)
                ),
                None => "tokens and certificate of the API are in order again".into(),
            };
            teller.tell(Part::Files, News { message, trouble: trouble.clone() });
            told.clone_from(&trouble);
        }
        let changed = if trouble.is_some() {
            match tokio::time::timeout(pause, asked.changed()).await {
                Ok(changed) => changed,
                Err(_) => {
                    pause = (pause * 2).min(RETRY.1);
                    continue;
                }
            }
        } else {
            asked.changed().await
        };
        if changed.is_err() {
            return;
        }
        pause = RETRY.0;
    }
}

/// Reads all files once, puts what is well into force, and gives what is wrong. Without its certificate nothing is
/// opened that was not open before: never plain where TLS is wanted.
async fn read(shared: &Shared, asked: &Asked, wanted: &watch::Sender<Wanted>) -> Vec<String> {
    let mut troubles = Vec::new();
    {
        let _turn = shared.tokens.lock().await;
        let (folder, scope) = (shared.folder.clone(), shared.scope);
        let tokens = tokio::task::spawn_blocking(move || tokens(&folder, scope)).await;
        let mut rules = Rules { anonymous: asked.anonymous, hosts: hosts(asked), ..Rules::default() };
        for (role, made) in tokens.into_iter().flatten() {
            match made {
                Ok(digest) => *place(&mut rules, role) = Some(digest),
                Err(why) => {
                    troubles.push(format!("no {} token is accepted by the API: {why}", role.as_str()));
                }
            }
        }
        shared.rules.send_if_modified(|old| std::mem::replace(old, rules.clone()) != rules);
    }
    let files = asked.tls.clone();
    let loaded = tokio::task::spawn_blocking(move || certificate(files)).await;
    match loaded.map_err(|error| error.to_string()).and_then(|loaded| loaded) {
        Ok(tls) => drop(wanted.send_replace(Wanted { listen: asked.listen.iter().copied().collect(), tls })),
        Err(why) => troubles.push(format!(
            "the certificate of the API cannot be used, and what was open with another one stays as it is: {why}"
        )),
    }
    // Where nobody can ask over TCP, nothing is missing.
    if asked.listen.is_empty() { Vec::new() } else { troubles }
}

/// Nothing is asked of the kernel where the group has it already: the installed unit may not ask.
pub(super) fn give_to(path: &Path, group: Gid) -> std::io::Result<()> {
    if path.metadata()?.gid() == group.as_raw() {
        return Ok(());
    }
    Ok(chown(path, None, Some(group))?)
}

type Made = Vec<(Role, Result<Digest, String>)>;

fn tokens(folder: &Path, scope: Scope) -> Made {
    let group = group(scope);
    if let Some(group) = group
        && let Err(error) = give_to(folder, group)
    {
        tracing::warn!("the tokens in {} stay closed to group {GROUP}: {error}", folder.display());
    }
    let load = |role| (role, token::load_or_make(folder, role, group).map_err(|error| error.to_string()));
    Role::ALL.map(load).into()
}

fn certificate(files: Option<TlsFiles>) -> Result<Option<Arc<ServerConfig>>, String> {
    files.map(|files| tls::load(&files).map_err(|fault| fault.to_string())).transpose()
}

/// The group that may read the tokens, where there is one. In the user scope they are the user's alone.
fn group(scope: Scope) -> Option<Gid> {
    let group = Group::from_name(GROUP).ok().flatten().map(|group| group.gid);
    group.filter(|_| scope == Scope::System)
}

/// Names by which this host may be called.
fn hosts(asked: &Asked) -> Vec<String> {
    let own = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    asked.hosts.iter().cloned().chain(own.map(|name| name.to_ascii_lowercase())).collect()
}

/// Puts together what is wrong with files, with addresses and with the socket.
#[derive(Debug)]
pub struct Teller {
    inputs: mpsc::UnboundedSender<Input>,
    troubles: Mutex<[Option<String>; 3]>,
}

/// Where something is wrong.
#[derive(Debug, Clone, Copy)]
pub enum Part {
    Files,
    Addresses,
    Socket,
}

impl Teller {
    /// What is told of the runtime folder: without trouble it was made again.
    pub fn tell_of_folder(&self, news: News) {
        if news.trouble.is_none() {
            drop(self.inputs.send(Input::FolderMade));
        }
        self.tell(Part::Socket, news);
    }

    pub fn tell(&self, part: Part, News { message, trouble }: News) {
        let level = if trouble.is_some() { Level::Error } else { Level::Info };
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        troubles[part as usize] = trouble;
        let all: Vec<&str> = troubles.iter().flatten().map(String::as_str).collect();
        let trouble = (!all.is_empty()).then(|| all.join("; "));
        drop(self.inputs.send(Input::Access { level, message, trouble }));
    }
}
