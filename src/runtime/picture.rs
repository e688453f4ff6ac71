//! What readers see: the picture that is published after each burst of events, and what goes with it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::{clock, measuring};
use crate::core::Engine;
use crate::core::event::InvocationId;
use crate::core::plan::Id;
use crate::core::snapshot::{ServiceView, Snapshot, State};
use crate::push::Pusher;
use crate::store::Store;
use crate::systemd::notify;

/// Answers of checks that change nothing else are shown together, so far apart at least: a picture is of all services,
/// and a thousand of them may be asked every second.
const TOGETHER: Duration = Duration::from_millis(50);

/// The one that is shown, and what the next one waits for.
pub struct Picture {
    shared: watch::Sender<Arc<Snapshot>>,
    /// There is something true to show: what systemd has, or that it cannot be asked. What an earlier daemon kept is
    /// neither.
    begun: bool,
    /// Something was decided since, which is shown at once.
    decided: bool,
    last: Option<Instant>,
    /// When there is more to show, if nothing is decided before.
    due: Option<Instant>,
    /// Runs that were measured since.
    measured: BTreeMap<Id, InvocationId>,
    /// The last line that systemd was told.
    status: String,
}

impl Picture {
    pub fn new(shared: watch::Sender<Arc<Snapshot>>) -> Self {
        Self {
            shared,
            begun: false,
            decided: false,
            last: None,
            due: None,
            measured: BTreeMap::new(),
            status: String::new(),
        }
    }

    /// From now on there is something true to show.
    pub fn begin(&mut self) {
        self.begun = true;
    }

    /// More happened than another answer of a check.
    pub fn decided(&mut self) {
        self.decided = true;
    }

    /// These runs have new figures, which are kept with the next picture.
    pub fn measured(&mut self, runs: impl IntoIterator<Item = (Id, InvocationId)>) {
        self.measured.extend(runs);
    }

    /// When [`Self::show`] wants to be called again, if nothing happens before.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// What is shown now.
    pub fn shown(&self) -> Arc<Snapshot> {
        Arc::clone(&self.shared.borrow())
    }

    /// Tells those who wait for the first picture, also where there is no service to be seen on it.
    pub fn tell(&self) {
        self.shared.send_modify(|_| {});
    }

    /// Publishes what `engine` has, now or when it is [`Self::due`].
    pub fn show(&mut self, engine: &mut Engine, store: &Store, pusher: Option<&Pusher>) {
        let now = Instant::now();
        match self.last.map(|last| last + TOGETHER) {
            Some(later) if !self.decided && now < later => self.due = Some(later),
            _ => {
                (self.decided, self.last, self.due) = (false, Some(now), None);
                self.publish(engine, store, pusher);
            }
        }
    }

    fn publish(&mut self, engine: &mut Engine, store: &Store, pusher: Option<&Pusher>) {
        if !self.begun {
            return;
        }
        let mut next = engine.snapshot();
        self.keep_measured(&next, store, pusher);
        let before = self.shown();
        next.version = before.version + 1;
        let mut changed = before.services.len() != next.services.len();
        for (old, view) in side_by_side(&before, &next) {
            if old.is_none_or(|old| !Arc::ptr_eq(old, view)) {
                changed = true;
                if old.is_none_or(|old| row_differs(old, view)) {
                    store.show(view);
                }
            }
        }
        let same = before.leaving == next.leaving
            && before.groups == next.groups
            && before.own_alerts == next.own_alerts;
        if !changed && same {
            return;
        }
        let status = status_line(&next);
        if status != self.status {
            notify::status(&status);
            self.status = status;
        }
        self.shared.send_replace(Arc::new(next));
    }

    /// The rows of what was measured since the last picture.
    fn keep_measured(&mut self, snapshot: &Snapshot, store: &Store, pusher: Option<&Pusher>) {
        if self.measured.is_empty() {
            return;
        }
        let rows = measuring::rows(&std::mem::take(&mut self.measured), snapshot, clock::now().wall);
        if let Some(pusher) = pusher {
            pusher.push(rows.iter().cloned());
        }
        store.measured(rows);
    }
}

/// Each service of `next`, with what it was in `before`. Both are sorted, and this is done for every burst of changes.
fn side_by_side<'a>(
    before: &'a Snapshot,
    next: &'a Snapshot,
) -> impl Iterator<Item = (Option<&'a Arc<ServiceView>>, &'a Arc<ServiceView>)> {
    let mut olds = before.services.iter().peekable();
    next.services.iter().map(move |(id, view)| {
        while olds.next_if(|(old, _)| *old < id).is_some() {}
        (olds.next_if(|(old, _)| *old == id).map(|(_, old)| old), view)
    })
}

/// Whether `supervisor_services` has to tell something else. The answer of a probe is not in it, and is no reason to
/// wake the disk; a round of measuring brings the uptime up to date.
fn row_differs(old: &ServiceView, new: &ServiceView) -> bool {
    let told = |view: &ServiceView| {
        (view.state, view.pid, view.started_at, view.restart_count, view.last_restart, view.usage)
    };
    told(old) != told(new) || !Arc::ptr_eq(&old.plan, &new.plan)
}

/// For `systemctl status`: `12 running, 1 backoff of 13 services`.
pub fn status_line(snapshot: &Snapshot) -> String {
    let mut counts: BTreeMap<State, usize> = BTreeMap::new();
    for view in snapshot.services.values() {
        *counts.entry(view.state).or_default() += 1;
    }
    let parts: Vec<String> = counts.iter().map(|(state, n)| format!("{n} {state}")).collect();
    let total = snapshot.services.len();
    if parts.is_empty() { "no services".into() } else { format!("{} of {total} services", parts.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event::{Event, UnitSeen};
    use crate::core::plan::{Plan, ServicePlan};

    #[tokio::test]
    async fn what_is_decided_is_shown_at_once_and_other_answers_of_checks_together() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(&folder.path().join("a.db"), folder.path().join("aside"), |trouble| {
            panic!("{trouble:?}")
        });
        let id = Id::new("web").unwrap();
        let services = [(id.clone(), Arc::new(ServicePlan::new(id.clone(), "/bin/true")))].into();
        let plan = Plan { services, ..Plan::default() };
        let mut engine = Engine::new(clock::now(), clock::boot(1), plan, BTreeMap::new());
        let (shared, readers) = watch::channel(Arc::new(Snapshot::default()));
        let mut picture = Picture::new(shared);
        let shown = |readers: &watch::Receiver<Arc<Snapshot>>| readers.borrow().version;

        picture.decided();
        picture.show(&mut engine, &store, None);
        assert_eq!(shown(&readers), 0, "nothing is true before systemd was asked");
        engine.handle(clock::now(), Event::Resynced { units: [(id.clone(), UnitSeen::GONE)].into() });
        picture.begin();
        picture.decided();
        picture.show(&mut engine, &store, None);
        assert_eq!((shown(&readers), picture.due()), (1, None));

        let run = InvocationId(1);
        engine
            .handle(clock::now(), Event::UnitAppeared { service: id.clone(), invocation: run, pid: Some(1) });
        picture.show(&mut engine, &store, None);
        assert_eq!(shown(&readers), 1, "more may come");
        let due = picture.due().expect("and if not, this is shown");
        assert!(due <= Instant::now() + TOGETHER);
        tokio::time::sleep_until(due).await;
        picture.show(&mut engine, &store, None);
        assert_eq!((shown(&readers), picture.due()), (2, None));

        engine.handle(clock::now(), Event::UnitAppeared { service: id, invocation: run, pid: Some(2) });
        picture.decided();
        picture.show(&mut engine, &store, None);
        assert_eq!((shown(&readers), picture.due()), (3, None));
    }
}
