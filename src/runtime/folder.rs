//! The runtime folder: the lock that keeps a second daemon away, and the control socket. What somebody removes of it is
//! made again, for without them nobody reaches the daemon, and another one could be started beside it.
//!
//! ```text
//!   inotify: something left the folder --> Folder::whole --> the folder, the lock, the socket: still ours?
//!                                                |
//!                         a listener to serve <--+--> made again, or why not; tried until it is
//! ```

use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::unistd::Group;
use tokio::net::UnixListener;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::mpsc;
use tracing::warn;

use super::access::{self, GROUP};
use super::setup::SetupError;
use crate::core::time::Human;
use crate::http::News;
use crate::place::Places;

/// Between two tries to make again what could not be made: it doubles from the first to the second.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Who removes one thing may be about to remove all: nothing is put in the way of that.
const SETTLE: Duration = Duration::from_millis(200);

/// The runtime folder of this daemon. Clones are the same one; it is let go with the last.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    socket: PathBuf,
    held: Arc<Mutex<Held>>,
}

#[derive(Debug)]
struct Held {
    lock: Flock<File>,
    /// Open, so that no other one gets its number.
    folder: File,
    socket: Option<Metadata>,
}

impl Folder {
    /// Makes it where it is missing, and takes it. One daemon has it; the lock goes with the process, however that ends.
    ///
    /// # Errors
    /// It cannot be made, or another daemon has it.
    pub fn take(places: &Places) -> Result<Self, SetupError> {
        let path = places.runtime.clone();
        let failed = |source| SetupError::Path { path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o755).create(&path).map_err(failed)?;
        let lock = lock(&path)?;
        let folder = File::open(&path).map_err(failed)?;
        let held = Arc::new(Mutex::new(Held { lock, folder, socket: None }));
        Ok(Self { path, socket: places.socket(), held })
    }

    /// Opens the control socket.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn listen(&self) -> Result<UnixListener, SetupError> {
        self.open_socket(&mut self.held())
    }

    /// Sends a new listener for each time that the socket was removed. Ends when nobody takes them.
    pub async fn keep(self, listeners: mpsc::Sender<UnixListener>, tell: impl Fn(News)) {
        let removals = match Removals::new() {
            Ok(removals) => removals,
            Err(error) => {
                return warn!(
                    "{} is not watched, and not made again if removed: {error}",
                    self.path.display()
                );
            }
        };
        // What is wrong, as it was told; empty where something was made again, and that is to be told.
        let (mut pause, mut told) = (RETRY.0, None);
        loop {
            match self.whole(&removals) {
                Ok(None) => {
                    pause = RETRY.0;
                    if told.take().is_some() {
                        tell(self.again());
                    }
                    tokio::select! {
                        () = listeners.closed() => return,
                        () = removals.next() => tokio::time::sleep(SETTLE).await,
                    }
                }
                Ok(Some(listener)) => {
                    told = Some(String::new());
                    if listeners.send(listener).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    let trouble = error.to_string();
                    if told.as_ref() != Some(&trouble) {
                        tell(self.lost(&trouble));
                        told = Some(trouble);
                    }
                    tokio::select! {
                        () = listeners.closed() => return,
                        () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY.1),
                    }
                }
            }
        }
    }

    /// Sees that all is there, and ours. A listener where the socket had to be made.
    fn whole(&self, removals: &Removals) -> Result<Option<UnixListener>, SetupError> {
        let failed = |source| SetupError::Path { path: self.path.clone(), source };
        let mut held = self.held();
        DirBuilder::new().recursive(true).mode(0o755).create(&self.path).map_err(failed)?;
        // First: what is removed after this is told.
        removals.watch(&self.path).map_err(failed)?;
        let folder = File::open(&self.path).map_err(failed)?;
        let before = held.folder.metadata().map_err(failed)?;
        if !is_same(&folder.metadata().map_err(failed)?, &before) {
            // As it was, whatever our umask is.
            folder.set_permissions(before.permissions()).map_err(failed)?;
            held.folder = folder;
        }
        let at = |path: &Path| std::fs::symlink_metadata(path).ok();
        let locked = held.lock.metadata().map_err(failed)?;
        if !at(&lock_path(&self.path)).is_some_and(|found| is_same(&found, &locked)) {
            held.lock = lock(&self.path)?;
        }
        if at(&self.socket).zip(held.socket.as_ref()).is_some_and(|(found, ours)| is_same(&found, ours)) {
            return Ok(None);
        }
        self.open_socket(&mut held).map(Some)
    }

    fn open_socket(&self, held: &mut Held) -> Result<UnixListener, SetupError> {
        let failed = |source| SetupError::Path { path: self.socket.clone(), source };
        // We hold the lock of this folder: a socket that is there belongs to a daemon that is gone.
        drop(std::fs::remove_file(&self.socket));
        let listener = UnixListener::bind(&self.socket).map_err(failed)?;
        open_to_group(&self.socket);
        std::fs::set_permissions(&self.socket, Permissions::from_mode(0o660)).map_err(failed)?;
        held.socket = Some(std::fs::symlink_metadata(&self.socket).map_err(failed)?);
        Ok(listener)
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn again(&self) -> News {
        let message =
            format!("somebody removed the control socket {}; it is there again", self.socket.display());
        News { message, trouble: None }
    }

    fn lost(&self, trouble: &str) -> News {
        let message = format!(
            "somebody removed the control socket {}, and it cannot be made again: {trouble}. It is tried again, at \
             least every {}; supervision goes on",
            self.socket.display(),
            Human(RETRY.1)
        );
        News { message, trouble: Some(format!("the control socket was removed: {trouble}")) }
    }
}

/// Tells that something left the folder.
#[derive(Debug)]
struct Removals {
    inotify: Inotify,
    /// The same, to read from: it can be read as a pipe can.
    told: Receiver,
}

impl Removals {
    fn new() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let told = Receiver::from_owned_fd_unchecked(inotify.as_fd().try_clone_to_owned()?)?;
        Ok(Self { inotify, told })
    }

    fn watch(&self, folder: &Path) -> io::Result<()> {
        let removals = AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF;
        self.inotify.add_watch(folder, removals | AddWatchFlags::IN_ONLYDIR)?;
        Ok(())
    }

    /// Waits for the next, whatever it is of.
    async fn next(&self) {
        let mut events = [0; 4096];
        if self.told.readable().await.is_ok() {
            while self.told.try_read(&mut events).is_ok_and(|bytes| bytes > 0) {}
        }
    }
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Where the group exists and we may: its members may use the socket.
fn open_to_group(path: &Path) {
    if let Ok(Some(group)) = Group::from_name(GROUP)
        && let Err(error) = access::give_to(path, group.gid)
    {
        warn!("the socket stays closed to group {GROUP}: {error}");
    }
}

fn lock_path(folder: &Path) -> PathBuf {
    folder.join("lock")
}

fn lock(folder: &Path) -> Result<Flock<File>, SetupError> {
    let path = lock_path(folder);
    let failed = |source| SetupError::Path { path: path.clone(), source };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o644)
        .open(&path)
        .map_err(failed)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => {
            lock.set_len(0).map_err(failed)?;
            std::fs::write(&path, std::process::id().to_string()).map_err(failed)?;
            Ok(lock)
        }
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
            let pid = std::fs::read_to_string(&path).unwrap_or_default();
            Err(SetupError::Taken { folder: folder.into(), pid: pid.trim().into() })
        }
        Err((_, error)) => Err(failed(error.into())),
    }
}
