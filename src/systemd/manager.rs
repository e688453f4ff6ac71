//! The door to systemd.

use std::collections::{BTreeMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{Notify, Semaphore, mpsc, watch as channel};
use zbus::MessageStream;
use zbus::message::Sequence;
use zbus::names::OwnedUniqueName;

use super::bus::{self, Link, explain};
use super::env_file::EnvFiles;
use super::name::{group_slice, service_unit};
use super::oom::OomLog;
use super::units::{Units, unreachable_start};
use super::watch::{set_up, watch};
use super::{Notice, SystemdError, check, order, own, read, unit};
use crate::core::event::{OpId, StartFailure, UnitSeen};
use crate::core::plan::{Id, Limits, Plan, ServicePlan};
use crate::place::Scope;

/// Calls in flight at once. The bus refuses more than 128 on one connection, and systemd answers one after the other.
const WINDOW: usize = 32;
/// Jobs in progress at once. For each, systemd takes a match rule of its own bus connection, of which dbus-daemon allows
/// 512; with one too many systemd loses the bus. It begins with the jobs that it has when no call waits, and tells of
/// their ends after the last of them: with few at once, it is waited for often. Starts that take long do not keep stops
/// waiting.
const START_JOBS: usize = 256;
const STOP_JOBS: usize = 128;
/// Descriptions of units that exist at once: each takes 12 KiB, and systemd reads one after the other.
const SPECS: usize = 8;
/// How long an order waits for systemd to come back before it is answered as unreachable.
const LINK_TIMEOUT: Duration = Duration::from_secs(5);
const SIGKILL: i32 = 9;
const FAULT: &str = "a fault of the supervisor itself, which its own log has; please report it";

/// A connection to systemd that is made again for ever. Cheap to clone; ends with its last clone.
#[derive(Debug, Clone)]
pub struct Manager {
    inner: Arc<Inner>,
    _watcher: Arc<EndsWithUs>,
}

/// What the tasks share.
#[derive(Debug)]
pub struct Inner {
    pub scope: Scope,
    pub environment: EnvFiles,
    units: Mutex<Units>,
    link: channel::Sender<Option<Link>>,
    version: Mutex<String>,
    began: AtomicU64,
    /// The only sender whose signals count.
    owner: Mutex<Option<OwnedUniqueName>>,
    processed: channel::Sender<Sequence>,
    window: Semaphore,
    pub start_jobs: Semaphore,
    pub stop_jobs: Semaphore,
    pub specs: Semaphore,
    /// Orders are to look whether their jobs are still there.
    recheck: Notify,
    /// Properties that this systemd does not know.
    pub unsupported: Mutex<HashSet<String>>,
    pub accepted: Mutex<check::Accepted>,
    /// One reading of everything at a time.
    pub reading: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct EndsWithUs(tokio::task::AbortHandle);

impl Drop for EndsWithUs {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A lock that a panic elsewhere does not close.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Works on an order; `answer` is for one that panics: a fault of ours may cost an attempt, and never leaves a service
/// without an answer.
async fn answered(order: impl Future<Output = ()>, answer: impl FnOnce()) {
    if AssertUnwindSafe(order).catch_unwind().await.is_err() {
        answer();
    }
}

impl Manager {
    /// Connects, subscribes, and starts the task that watches systemd and connects again when it has to.
    /// `env_dir` is made where it is missing (0700). Until the first [`Manager::units`] or [`Manager::resync`] only
    /// answers are told. `notices` is unbounded because each comes from a change of a unit, of which systemd has a
    /// bounded number and starts none that was not asked for.
    ///
    /// # Errors
    /// No bus, no systemd on it, or a folder that cannot be made.
    pub async fn connect(
        scope: Scope,
        env_dir: PathBuf,
        notices: mpsc::UnboundedSender<Notice>,
    ) -> Result<Self, SystemdError> {
        let environment = EnvFiles::new(env_dir.clone()).map_err(|error| SystemdError::EnvironmentFile {
            what: "make the folder of",
            path: env_dir,
            error,
        })?;
        let connection = bus::connect(scope).await?;
        let messages = MessageStream::from(&connection);
        let inner = Arc::new(Inner {
            scope,
            environment,
            units: Mutex::new(Units::new(notices, OomLog::open())),
            link: channel::Sender::new(None),
            version: Mutex::new(String::new()),
            began: AtomicU64::new(0),
            owner: Mutex::new(None),
            processed: channel::Sender::new(Sequence::default()),
            window: Semaphore::new(WINDOW),
            start_jobs: Semaphore::new(START_JOBS),
            stop_jobs: Semaphore::new(STOP_JOBS),
            specs: Semaphore::new(SPECS),
            recheck: Notify::new(),
            unsupported: Mutex::default(),
            accepted: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
        });
        let watcher = tokio::spawn(watch(Arc::downgrade(&inner), messages));
        let manager = Self { inner, _watcher: Arc::new(EndsWithUs(watcher.abort_handle())) };
        set_up(&manager.inner, &connection, true).await?;
        Ok(manager)
    }

    /// systemd's version: `252.38-1~deb12u1`.
    pub fn version(&self) -> String {
        lock(&self.inner.version).clone()
    }

    /// When this systemd began, in microseconds on the monotonic clock: another one, of the same boot of the machine,
    /// began at another time. The systemd of a user ends with the user's last session, that of a container with the
    /// container.
    pub fn began(&self) -> u64 {
        self.inner.began.load(Ordering::Relaxed)
    }

    /// Everything was told to end: the unit of this process, where it is one, is not to be restarted by systemd.
    ///
    /// # Errors
    /// systemd cannot be asked.
    pub async fn stay_down(&self) -> Result<(), SystemdError> {
        own::stay_down(&self.inner.link().await?, self.inner.scope).await
    }

    /// Makes the unit run; answered by [`Notice::StartFinished`], always. Returns at once.
    pub fn start(&self, op: OpId, plan: Arc<ServicePlan>) {
        let begun = self.inner.units().begin_start(op, Arc::clone(&plan));
        let (inner, service) = (Arc::clone(&self.inner), plan.id.clone());
        let order = order::start(Arc::clone(&inner), op, plan, begun);
        tokio::spawn(answered(order, move || {
            let failure = StartFailure { unreachable: false, ..unreachable_start(FAULT) };
            inner.units().start_failed(&service, op, failure);
        }));
    }

    /// Ends the unit; answered by [`Notice::StopFinished`], always. Returns at once. `kill`: SIGKILL to all first.
    pub fn stop(&self, op: OpId, service: Id, kill: bool) {
        let begun = self.inner.units().begin_stop(op, &service);
        let (inner, stopped) = (Arc::clone(&self.inner), service.clone());
        let order = order::stop(Arc::clone(&inner), op, service, kill, begun);
        tokio::spawn(answered(order, move || {
            inner.units().stop_answered(&stopped, op, Err(FAULT.into()));
        }));
    }

    /// Sends a signal to the main process; SIGKILL goes to every process of the unit.
    ///
    /// # Errors
    /// There is no such process or unit, or systemd cannot be reached.
    pub async fn signal(&self, service: &Id, signal: i32) -> Result<(), SystemdError> {
        let unit = service_unit(service);
        let whom = if signal == SIGKILL { "all" } else { "main" };
        self.inner
            .call("KillUnit", &unit, async |link| link.manager.kill_unit(&unit, whom, signal).await)
            .await
    }

    /// Lets systemd forget a unit that is down, and removes its environment file.
    pub async fn release(&self, service: &Id) {
        let mut turn = self.inner.units().queue(service);
        turn.come().await;
        order::release(&self.inner, service).await;
        if let Err(error) = self.inner.environment.remove(service) {
            tracing::warn!(%service, %error, "an environment file could not be removed");
        }
    }

    /// Removes what is kept for services that run, once none does.
    pub fn forget_environments(&self) {
        if let Err(error) = self.inner.environment.clear() {
            tracing::warn!(%error, "environment files could not be removed");
        }
    }

    /// Gives the running unit the limits of the plan; it keeps its process.
    ///
    /// # Errors
    /// There is no such unit, or systemd refuses.
    pub async fn apply_limits(&self, plan: &ServicePlan) -> Result<(), SystemdError> {
        order::set_limits(&self.inner, plan).await?;
        if let Some(made) = &mut self.inner.units().get(&plan.id).made {
            made.limits = plan.limits;
        }
        Ok(())
    }

    /// Gives a group's slice its limits, whether it has services yet or not.
    ///
    /// # Errors
    /// systemd refuses.
    pub async fn set_group_limits(&self, group: &Id, limits: &Limits) -> Result<(), SystemdError> {
        let slice = group_slice(group);
        let properties = unit::slice_limits(limits);
        self.inner
            .call("SetUnitProperties", &slice, async |link| {
                link.manager.set_unit_properties(&slice, true, &properties).await
            })
            .await
    }

    /// All service units of ours that there are now. Notices sent before this
    /// returns are part of the picture; [`Manager::resync`] gives it a place in their order.
    ///
    /// # Errors
    /// systemd cannot be reached.
    pub async fn units(&self, plan: &Plan) -> Result<BTreeMap<Id, UnitSeen>, SystemdError> {
        read::units(&self.inner, plan, |_, units| units).await
    }

    /// The same as an answer in the order of notices: [`Notice::Resynced`], or, where systemd went away
    /// meanwhile, the next [`Notice::Back`]. Returns at once.
    pub fn resync(&self, plan: Arc<Plan>) {
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move {
            let told = read::units(&inner, &plan, |units, seen| units.tell_resynced(seen)).await;
            if let Err(error) = told {
                tracing::warn!(%error, "the state of the units could not be read; waiting for systemd");
                // Reachable, and yet it did not answer: ask to be asked again.
                if inner.link.borrow().is_some() {
                    tokio::time::sleep(LINK_TIMEOUT).await;
                    inner.units().back();
                }
            }
        });
    }

    /// Which `unit_properties` of the plan the running systemd does not take, and why. Executes nothing.
    ///
    /// # Errors
    /// systemd cannot be reached or does not let us.
    pub async fn check_unit_properties(
        &self,
        plan: &ServicePlan,
    ) -> Result<Vec<(String, String)>, SystemdError> {
        check::check(&self.inner, plan).await
    }
}

impl Inner {
    /// The picture. Held for moments only, never over an `await`.
    pub fn units(&self) -> MutexGuard<'_, Units> {
        lock(&self.units)
    }

    pub fn is_systemd(&self, sender: Option<&str>) -> bool {
        sender.is_some() && lock(&self.owner).as_ref().map(|owner| owner.as_str()) == sender
    }

    pub fn expect_owner(&self, owner: Option<OwnedUniqueName>) {
        *lock(&self.owner) = owner;
    }

    pub fn link_up(&self, link: Link) {
        lock(&self.version).clone_from(&link.version);
        self.began.store(link.began, Ordering::Relaxed);
        self.link.send_replace(Some(link));
    }

    pub fn link_down(&self) {
        self.expect_owner(None);
        self.link.send_replace(None);
        // Another systemd may know more, or less.
        lock(&self.unsupported).clear();
        lock(&self.accepted).clear();
    }

    /// 252 of `252.38-1~deb12u1`; 0 where there is no number.
    pub fn major_version(&self) -> u32 {
        let version = lock(&self.version);
        version.split(|c: char| !c.is_ascii_digit()).next().and_then(|major| major.parse().ok()).unwrap_or(0)
    }

    /// systemd, once it is there.
    pub async fn link(&self) -> Result<Link, SystemdError> {
        let mut link = self.link.subscribe();
        let found = tokio::time::timeout(LINK_TIMEOUT, link.wait_for(Option::is_some)).await;
        match found {
            Ok(Ok(link)) => link.clone().ok_or_else(|| self.away()),
            _ => Err(self.away()),
        }
    }

    fn away(&self) -> SystemdError {
        bus::unreachable(self.scope, "the connection is lost and is being made again")
    }

    /// One call of systemd, inside the window.
    pub async fn try_call<T>(
        &self,
        call: impl AsyncFnOnce(Link) -> zbus::Result<T>,
    ) -> Result<zbus::Result<T>, SystemdError> {
        let link = self.link().await?;
        let _place = self.window.acquire().await;
        Ok(call(link).await)
    }

    /// The same, with the error explained.
    pub async fn call<T>(
        &self,
        what: &'static str,
        unit: &str,
        call: impl AsyncFnOnce(Link) -> zbus::Result<T>,
    ) -> Result<T, SystemdError> {
        self.try_call(call).await?.map_err(|error| explain(self.scope, error, what, unit))
    }

    pub fn processed(&self, position: Sequence) {
        self.processed.send_replace(position);
    }

    /// Waits until everything that systemd said until now is in the picture.
    pub async fn caught_up(&self) -> Result<(), SystemdError> {
        let link = self.link().await?;
        let _place = self.window.acquire().await;
        let connection = link.manager.inner().connection();
        let peer = Some("org.freedesktop.DBus.Peer");
        let answer = connection
            .call_method(Some(link.owner.clone()), "/org/freedesktop/systemd1", peer, "Ping", &())
            .await
            .map_err(|error| explain(self.scope, error, "Ping", "the manager"))?;
        let position = answer.recv_position();
        let mut processed = self.processed.subscribe();
        // A new connection counts from the beginning; what is waited for is gone then.
        let seen = processed.wait_for(|seen| *seen >= position);
        match tokio::time::timeout(LINK_TIMEOUT, seen).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(self.away()),
        }
    }

    /// Wakes the orders that wait for a job.
    pub fn recheck(&self) {
        self.recheck.notify_waiters();
    }

    pub fn rechecks(&self) -> tokio::sync::futures::Notified<'_> {
        self.recheck.notified()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_order_that_panics_is_answered() {
        let mut answers = 0;
        answered(async { panic!("a fault of ours") }, || answers += 1).await;
        assert_eq!(answers, 1);
        answered(async {}, || answers += 1).await;
        assert_eq!(answers, 1);
    }
}
