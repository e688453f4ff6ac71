//! What all readers have in common: the ring, the feed that fills it while there is a reader, and the bounds.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use super::message::{Message, Position};
use super::{READS, feed};
use crate::control::Control;
use crate::ring::{Ring, Tail};

/// Messages that a reader may be behind, and their bytes: minutes for most, seconds for a host in trouble.
const MESSAGES: usize = 1024;
const BYTES: usize = 4 << 20;

/// See the module.
#[derive(Debug)]
pub(in crate::http) struct Hub {
    pub(super) control: Control,
    pub(super) ring: Arc<Ring<Message>>,
    state: Mutex<State>,
    /// The last reader left.
    pub(super) idle: Notify,
    /// The feed knows where it begins.
    primed: watch::Sender<bool>,
    /// Readers that look into the database at once: each look costs a thread and a connection.
    pub(super) reads: Semaphore,
}

#[derive(Debug, Default)]
struct State {
    readers: usize,
    /// A feed runs.
    fed: bool,
    /// The newest event that is or was in the ring; `None` while the database cannot be read.
    last: Option<Position>,
}

/// Counts one reader, and holds its slot.
#[derive(Debug)]
pub(super) struct Place {
    hub: Arc<Hub>,
    _slot: OwnedSemaphorePermit,
}

impl Hub {
    pub(in crate::http) fn new(control: Control) -> Arc<Self> {
        Arc::new(Self {
            control,
            ring: Ring::new(MESSAGES, BYTES),
            state: Mutex::default(),
            idle: Notify::new(),
            primed: watch::Sender::new(false),
            reads: Semaphore::new(READS),
        })
    }

    /// Counts a reader in, and waits until the feed runs.
    pub(super) async fn enter(self: &Arc<Self>, slot: OwnedSemaphorePermit) -> Place {
        let begin = {
            let mut state = self.lock();
            state.readers += 1;
            !std::mem::replace(&mut state.fed, true)
        };
        if begin {
            self.primed.send_replace(false);
            tokio::spawn(feed::run(self.clone()));
        }
        let place = Place { hub: self.clone(), _slot: slot };
        // The sender is ours: it cannot be gone.
        let _primed = self.primed.subscribe().wait_for(|primed| *primed).await.is_ok();
        place
    }

    /// A reader's way into the ring, and the newest event before it.
    pub(super) fn join(&self) -> (Tail<Message>, Option<Position>) {
        let state = self.lock();
        (self.ring.tail(), state.last)
    }

    /// For the feed: it begins after that event.
    pub(super) fn begin(&self, last: Option<Position>) {
        self.lock().last = last;
        self.primed.send_replace(true);
    }

    /// For the feed: a message to all, under the lock of [`Self::join`].
    pub(super) fn tell(&self, message: Message) {
        let mut state = self.lock();
        state.last = message.position.or(state.last);
        let bytes = message.bytes.len();
        self.ring.push(message, bytes);
    }

    pub(super) fn last(&self) -> Option<Position> {
        self.lock().last
    }

    /// For the feed: whether it may end, as nobody reads.
    pub(super) fn rest(&self) -> bool {
        let mut state = self.lock();
        state.fed = state.readers > 0;
        !state.fed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.hub.lock();
        state.readers -= 1;
        if state.readers == 0 {
            self.hub.idle.notify_one();
        }
    }
}
