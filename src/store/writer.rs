//! The one thread that writes: a transaction per batch, a way out of every kind of trouble, and a word when it
//! begins and ends.

use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;

use super::error::{Class, StoreError};
use super::file::{self, Database};
use super::pending::{Batch, MAX_EVENTS, MAX_METRICS, Pending};
use super::retention::{self, Leaps};
use super::unwritten::Aside;
use super::{Phase, Trouble};
use crate::control::Changes;
use crate::core::Wall;
use crate::core::time::Human;

/// After so long without work the write-ahead log is copied into the file.
const QUIET: Duration = Duration::from_secs(1);
/// Between two tries while another program holds the lock, beyond SQLite's own wait.
const BUSY_RETRY: Duration = Duration::from_millis(50);
/// A lock held for longer is trouble.
const BUSY_PATIENCE: Duration = Duration::from_secs(3);
/// Between two tries after any other failure: it doubles from the first to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// While the database is in trouble: between two writes of what it could not take.
const ASIDE_PAUSE: Duration = Duration::from_millis(50);
/// From one look at what is too old to the next. Where it was not quiet for as long again, it is done beside the work.
const CLEANING: Duration = if cfg!(test) { Duration::from_millis(500) } else { Duration::from_secs(600) };
/// Between two steps of it, for other programs that want to write.
const CLEANING_PAUSE: Duration = Duration::from_millis(50);
/// A corrupt file is not set aside more often than this.
const REPLACE_PAUSE: Duration = Duration::from_secs(60);

/// What the handles and the thread have in common. The lock is never held over an access to the file.
#[derive(Debug)]
pub(super) struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    pub progress: watch::Sender<Progress>,
    /// For those who follow events and alerts.
    pub changes: watch::Sender<Changes>,
}

/// Under the lock.
#[derive(Debug)]
pub(super) struct Queue {
    pub pending: Pending,
    /// Somebody hands in what is to be one transaction, and is not done yet.
    pub held: usize,
    /// A reader met damage: look at the file.
    pub suspect: bool,
    /// How long metrics and events are kept; `None` for ever.
    pub retain: Option<Duration>,
    /// Write what is there and end, trying no longer than this.
    pub closing: Option<Instant>,
}

impl Queue {
    /// The thread has something to do. What is handed in together is so once it is whole.
    fn has_work(&self) -> bool {
        self.closing.is_some() || self.suspect || self.held == 0 && !self.pending.is_empty()
    }
}

/// How far the thread is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    /// Everything up to this number is on disk.
    pub committed: u64,
    /// Trouble was told and is not over.
    pub troubled: bool,
    /// The thread has ended.
    pub ended: bool,
    /// Bytes on disk when something was last written.
    pub size: Option<u64>,
}

impl Shared {
    pub fn new(pending: Pending, troubled: bool) -> Self {
        Self {
            queue: Mutex::new(Queue { pending, held: 0, suspect: false, retain: None, closing: None }),
            wake: Condvar::new(),
            progress: watch::Sender::new(Progress { troubled, ..Progress::default() }),
            changes: watch::Sender::new(Changes::default()),
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the queue, and wakes the thread if there is something to do for it: most decisions write nothing.
    pub fn change<T>(&self, change: impl FnOnce(&mut Queue) -> T) -> T {
        let mut queue = self.lock();
        let done = change(&mut queue);
        if queue.has_work() {
            self.wake.notify_one();
        }
        done
    }

    /// The next transaction: all that is handed in together, or nothing of it.
    fn take(&self) -> Batch {
        let held = |queue: &mut Queue| queue.held > 0;
        let mut queue = self.wake.wait_while(self.lock(), held).unwrap_or_else(PoisonError::into_inner);
        queue.pending.take()
    }

    /// Wakes those who follow what is in `batch`, and nobody else.
    fn committed(&self, batch: &Batch) {
        let events = u64::from(!batch.events.is_empty() || batch.gap.is_some());
        let alerts = u64::from(!batch.alerts.is_empty() || !batch.acknowledged.is_empty());
        self.changes.send_if_modified(|changes| {
            changes.events += events;
            changes.alerts += alerts;
            events + alerts > 0
        });
    }

    /// Sleeps until `until` holds or the time is over.
    fn sleep(&self, at_most: Duration, until: impl Fn(&Queue) -> bool) {
        let asleep = |queue: &mut Queue| !until(queue);
        drop(
            self.wake
                .wait_timeout_while(self.lock(), at_most, asleep)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }
}

/// Trouble that lasts.
#[derive(Debug)]
struct Failing {
    since: Instant,
    told: bool,
    delay: Duration,
}

/// See the module.
pub(super) struct Writer {
    shared: std::sync::Arc<Shared>,
    path: PathBuf,
    db: Option<Database>,
    failing: Option<Failing>,
    aside: Aside,
    trouble: Box<dyn Fn(Trouble) + Send>,
    /// Written since the last checkpoint.
    unmerged: bool,
    /// When a corrupt file was last set aside.
    replaced: Option<Instant>,
    /// When what is too old is next looked for.
    clean_at: Instant,
    leaps: Leaps,
}

impl Writer {
    /// `told`: the open failed, and that was told.
    pub fn new(
        shared: std::sync::Arc<Shared>,
        path: PathBuf,
        db: Option<Database>,
        aside: Aside,
        told: bool,
        trouble: Box<dyn Fn(Trouble) + Send>,
    ) -> Self {
        let failing = told.then(|| Failing { since: Instant::now(), told, delay: RETRY.0 });
        let clean_at = Instant::now();
        let leaps = Leaps::new(retention::running(), now());
        Self { shared, path, db, failing, aside, trouble, unmerged: false, replaced: None, clean_at, leaps }
    }

    /// Until the last handle is dropped or the store is closed.
    pub fn run(mut self) {
        loop {
            self.wait();
            let closing = self.shared.lock().closing;
            self.step();
            let done = self.shared.lock().pending.is_empty();
            if closing.is_some_and(|deadline| done || Instant::now() >= deadline) {
                break;
            }
        }
        if let Some(db) = self.db.take() {
            db.close();
        }
        self.shared.progress.send_modify(|progress| progress.ended = true);
    }

    /// For work, the next try, or the end; and puts the log away when it is quiet.
    fn wait(&mut self) {
        if let Some(failing) = &self.failing {
            return self.wait_to_try_again(failing.delay);
        }
        if self.unmerged {
            self.shared.sleep(QUIET, Queue::has_work);
            let due = !self.shared.lock().has_work() || self.db.as_ref().is_some_and(Database::log_is_large);
            if due && let Some(db) = &self.db {
                db.checkpoint();
                self.unmerged = false;
            }
        }
        self.clean();
        self.shared.sleep(Duration::MAX, Queue::has_work);
    }

    /// New work does not make a try more hopeful; what the next daemon would have to know of it is put aside.
    fn wait_to_try_again(&mut self, delay: Duration) {
        let closing = |queue: &Queue| queue.closing.is_some();
        let delay = if closing(&self.shared.lock()) { BUSY_RETRY } else { delay };
        let ends = |queue: &Queue| closing(queue) && delay > BUSY_RETRY;
        let until = Instant::now() + delay;
        loop {
            let (saved, unwritten) = {
                let queue = self.shared.lock();
                (queue.pending.saved(), queue.pending.unwritten())
            };
            self.aside.write(&unwritten);
            let left = || until.saturating_duration_since(Instant::now());
            self.shared.sleep(left().min(ASIDE_PAUSE), ends);
            self.shared.sleep(left(), |queue| ends(queue) || queue.pending.saved() > saved);
            if left().is_zero() || ends(&self.shared.lock()) {
                return;
            }
        }
    }

    /// Deletes what is too old, in steps, as long as there is nothing else to do. What is left waits for the next
    /// quiet moment, or, where there is none, goes step by step with the batches. So does everything when it cannot be
    /// done now.
    fn clean(&mut self) {
        if Instant::now() < self.clean_at {
            return;
        }
        loop {
            let (busy, retain) = {
                let queue = self.shared.lock();
                (queue.has_work(), queue.retain)
            };
            let may = !busy || self.clean_at.elapsed() > CLEANING;
            let (true, Some(retain), Some(db)) = (may, retain, &mut self.db) else { return };
            let (old, now) = (i64::try_from(retain.as_millis()).unwrap_or(i64::MAX), now());
            if let Some(ahead) = self.leaps.ahead(retention::running(), now) {
                let ahead = Human(ahead);
                tracing::warn!(
                    "the clock leapt ahead by {ahead}; in case it is wrong, nothing is deleted as too old for a day"
                );
                self.clean_at = Instant::now() + Leaps::DAY;
                return;
            }
            match db.clean(Wall(now.0.saturating_sub(old)), now) {
                Ok(true) => self.unmerged = true,
                Ok(false) => break,
                Err(error) => {
                    tracing::debug!("old rows stay for now: {error}");
                    break;
                }
            }
            if db.log_is_large() {
                db.checkpoint();
            }
            if busy {
                return;
            }
            self.shared.sleep(CLEANING_PAUSE, Queue::has_work);
        }
        self.clean_at = Instant::now() + CLEANING;
        if let Some(db) = self.db.as_ref().filter(|_| std::mem::take(&mut self.unmerged)) {
            db.checkpoint();
        }
    }

    /// One try to write one batch.
    fn step(&mut self) {
        match self.ready().and_then(|()| self.write()) {
            Ok(()) => self.succeeded(),
            Err(error) if error.class() == Class::Corrupt => self.replace_corrupt(&error),
            Err(error) => self.failed(&error),
        }
    }

    /// Sees to it that the right file is open.
    fn ready(&mut self) -> Result<(), StoreError> {
        if self.db.as_ref().is_some_and(|db| !db.is_there()) {
            self.db = None;
            self.shared.lock().pending.all_anew();
            self.note(format!(
                "the database {} was deleted or replaced while it was in use: what is known of each service is \
                 written to it anew, its older events are gone",
                self.path.display()
            ));
        }
        if self.db.is_none() {
            self.db = Some(Database::open(&self.path, now())?);
        }
        let suspect = std::mem::take(&mut self.shared.lock().suspect);
        if suspect { file::check(&self.path) } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), StoreError> {
        let Some(db) = &mut self.db else { return Ok(()) };
        let batch = self.shared.take();
        if self.aside.is_there() {
            // Never older than the database: that takes this batch before the file is removed.
            self.aside.write(&batch.unwritten());
        }
        match db.write(&batch, now()) {
            Ok(refused) => {
                self.unmerged = true;
                self.aside.remove();
                let size = db.size();
                self.shared.progress.send_modify(|progress| {
                    (progress.committed, progress.size) = (batch.upto, Some(size));
                });
                self.shared.committed(&batch);
                if let Some(first) = refused.first() {
                    self.note(format!(
                        "{} rows were refused by the database {} and left out, the first: {first}",
                        refused.len(),
                        self.path.display()
                    ));
                }
                Ok(())
            }
            Err(error) => {
                self.shared.lock().pending.give_back(batch);
                Err(error)
            }
        }
    }

    fn succeeded(&mut self) {
        // Over only when the backlog is written: several batches, perhaps.
        if self.failing.is_none() || !self.shared.lock().pending.is_empty() {
            if let Some(failing) = &mut self.failing {
                failing.delay = Duration::ZERO;
            }
            return;
        }
        let Some(failing) = self.failing.take().filter(|failing| failing.told) else { return };
        self.shared.progress.send_modify(|progress| progress.troubled = false);
        self.tell(
            Phase::Ended,
            format!(
                "the database {} is written again after {}; what was kept in memory is in it",
                self.path.display(),
                Human(failing.since.elapsed())
            ),
        );
    }

    fn failed(&mut self, error: &StoreError) {
        let busy = error.class() == Class::Busy;
        if !busy {
            self.db = None;
        }
        let failing =
            self.failing.get_or_insert(Failing { since: Instant::now(), told: false, delay: Duration::ZERO });
        failing.delay = if busy { BUSY_RETRY } else { (failing.delay * 2).clamp(RETRY.0, RETRY.1) };
        if !failing.told && (!busy || failing.since.elapsed() >= BUSY_PATIENCE) {
            failing.told = true;
            self.shared.progress.send_modify(|progress| progress.troubled = true);
            self.tell(Phase::Began, cannot_be_written(&self.path, error));
        }
    }

    /// The file is no good: out of the way with it, and a fresh one with everything that is known.
    fn replace_corrupt(&mut self, why: &StoreError) {
        self.db = None;
        // A fresh file that is corrupt at once is a matter of the disk: not one more file every moment.
        if self.replaced.is_some_and(|at| at.elapsed() < REPLACE_PAUSE) {
            return self.failed(why);
        }
        match file::set_aside(&self.path, now()) {
            Ok(aside) => {
                self.replaced = Some(Instant::now());
                self.shared.lock().pending.all_anew();
                self.note(was_set_aside(&self.path, &aside));
            }
            Err(error) => self.failed(&error),
        }
    }

    fn note(&self, message: String) {
        self.tell(Phase::Noted, message);
    }

    fn tell(&self, phase: Phase, message: String) {
        (self.trouble)(Trouble { phase, message });
    }
}

pub(super) fn cannot_be_written(path: &std::path::Path, error: &StoreError) -> String {
    format!(
        "the database {} cannot be written: {error}. Supervision goes on; what happens is kept in memory (up to \
         {MAX_EVENTS} events and {MAX_METRICS} samples), the states of services in the runtime folder too, and written \
         as soon as it can be, tried again at least every {}",
        path.display(),
        Human(RETRY.1)
    )
}

pub(super) fn was_set_aside(path: &std::path::Path, aside: &std::path::Path) -> String {
    format!(
        "the database {} is corrupt: it was renamed to {}, and a fresh one takes its place; `sqlite3 FILE .recover` \
         may get older events out of it",
        path.display(),
        aside.display()
    )
}

pub(super) fn now() -> Wall {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Wall(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
