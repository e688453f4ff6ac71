//! What waits to be written. Bounded: services by their number, events by [`MAX_EVENTS`], metrics by
//! [`MAX_METRICS`], alerts by [`MAX_ALERTS`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::alerts::Patch;
use super::unwritten::Unwritten;
use crate::control::MetricRow;
use crate::core::Wall;
use crate::core::action::Record;
use crate::core::alert::AlertKey;
use crate::core::plan::Id;
use crate::core::snapshot::ServiceView;

/// So many events wait at most; the oldest go first.
pub(super) const MAX_EVENTS: usize = 10_000;
/// So many alerts are kept at most; those that are over go first.
const MAX_ALERTS: usize = 2_000;

/// So many rows of metrics wait at most, some 4 MiB; the oldest go first, and no event ever for them.
pub(super) const MAX_METRICS: usize = 30_000;
/// So many of them go into one transaction.
const BATCH_METRICS: usize = 1_000;

/// An event as its row will be.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct EventLine {
    pub service: Option<Id>,
    pub kind: String,
    pub at: Wall,
    pub message: String,
    pub details: String,
}

/// Events that were dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap {
    pub count: u64,
    pub first: Wall,
    pub last: Wall,
}

/// The newest that is known of a service. It stays after it was written: a file that vanishes is filled again from it.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept {
    pub record: Option<Arc<Record>>,
    pub view: Option<Arc<ServiceView>>,
}

/// Which parts of a [`Kept`] are to be written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Parts {
    record: bool,
    view: bool,
}

/// One transaction.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Deleted before `services` are written.
    pub forgotten: BTreeSet<Id>,
    pub services: Vec<(Id, Kept)>,
    pub gap: Option<Gap>,
    pub events: VecDeque<EventLine>,
    pub alerts: Vec<(AlertKey, Patch)>,
    /// Row and moment.
    pub acknowledged: BTreeMap<i64, Wall>,
    pub metrics: VecDeque<MetricRow>,
    /// Everything up to this number is on disk once the batch is.
    pub upto: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pending {
    kept: BTreeMap<Id, Kept>,
    dirty: BTreeMap<Id, Parts>,
    forgotten: BTreeSet<Id>,
    events: VecDeque<EventLine>,
    metrics: VecDeque<MetricRow>,
    gap: Option<Gap>,
    /// Alerts that are open, as far as this daemon knows them, and those whose end is not written yet.
    alerts: BTreeMap<AlertKey, Patch>,
    changed_alerts: BTreeSet<AlertKey>,
    acknowledged: BTreeMap<i64, Wall>,
    handed: u64,
    recorded: u64,
    saved: u64,
}

impl Batch {
    /// What of it is for the next daemon.
    pub fn unwritten(&self) -> Unwritten {
        Unwritten::new(&self.forgotten, self.services.iter().map(|(id, kept)| (id, kept.record.as_ref())))
    }
}

impl Pending {
    /// Starts with what the database holds already, `unwritten` aside, which is among `records`.
    pub fn new(records: &BTreeMap<Id, Record>, unwritten: Unwritten) -> Self {
        let kept = |record: &Record| Kept { record: Some(Arc::new(record.clone())), view: None };
        let parts = Parts { record: true, view: false };
        Self {
            kept: records.iter().map(|(id, r)| (id.clone(), kept(r))).collect(),
            dirty: unwritten.records.into_keys().map(|id| (id, parts)).collect(),
            forgotten: unwritten.forgotten,
            ..Self::default()
        }
    }

    pub fn save(&mut self, service: &Id, record: Record) {
        self.handed += 1;
        self.saved += 1;
        self.kept.entry(service.clone()).or_default().record = Some(Arc::new(record));
        self.dirty.entry(service.clone()).or_default().record = true;
    }

    pub fn show(&mut self, view: &Arc<ServiceView>) {
        self.handed += 1;
        self.kept.entry(view.plan.id.clone()).or_default().view = Some(view.clone());
        self.dirty.entry(view.plan.id.clone()).or_default().view = true;
    }

    pub fn forget(&mut self, service: &Id) {
        self.handed += 1;
        self.saved += 1;
        self.kept.remove(service);
        self.dirty.remove(service);
        self.forgotten.insert(service.clone());
    }

    pub fn event(&mut self, line: EventLine) {
        self.handed += 1;
        self.recorded += 1;
        self.events.push_back(line);
        self.bound();
    }

    pub fn alert(&mut self, key: AlertKey, patch: Patch) {
        self.handed += 1;
        self.changed_alerts.insert(key.clone());
        self.alerts.entry(key).or_default().merge(patch);
        self.bound_alerts();
    }

    pub fn acknowledge(&mut self, row: i64, at: Wall) {
        self.handed += 1;
        self.acknowledged.entry(row).or_insert(at);
    }

    /// Nobody waits for these: they are not in [`Self::handed`].
    pub fn metrics(&mut self, rows: impl IntoIterator<Item = MetricRow>) {
        self.metrics.extend(rows);
        self.bound();
    }

    /// How much was handed in so far.
    pub fn handed(&self) -> u64 {
        self.handed
    }

    /// Events handed in so far, written or not.
    pub fn recorded(&self) -> u64 {
        self.recorded
    }

    /// Changes of records handed in so far, written or not.
    pub fn saved(&self) -> u64 {
        self.saved
    }

    /// What the next daemon would have to know if this one ended now.
    pub fn unwritten(&self) -> Unwritten {
        let dirty = self.dirty.iter().filter(|(_, parts)| parts.record);
        let record = |id| self.kept.get(id).and_then(|kept| kept.record.as_ref());
        Unwritten::new(&self.forgotten, dirty.map(|(id, _)| (id, record(id))))
    }

    pub fn is_empty(&self) -> bool {
        self.dirty.is_empty()
            && self.forgotten.is_empty()
            && self.events.is_empty()
            && self.metrics.is_empty()
            && self.gap.is_none()
            && self.changed_alerts.is_empty()
            && self.acknowledged.is_empty()
    }

    /// Everything has to be written again: the file is another one.
    pub fn all_anew(&mut self) {
        for (id, kept) in &self.kept {
            let parts = Parts { record: kept.record.is_some(), view: kept.view.is_some() };
            self.dirty.insert(id.clone(), parts);
        }
        self.changed_alerts.extend(self.alerts.keys().cloned());
    }

    /// The next transaction. All of the events: a record is not to be on disk without those that led to it.
    pub fn take(&mut self) -> Batch {
        let services = std::mem::take(&mut self.dirty)
            .into_iter()
            .filter_map(|(id, parts)| {
                let kept = self.kept.get(&id)?;
                let record = kept.record.clone().filter(|_| parts.record);
                let view = kept.view.clone().filter(|_| parts.view);
                Some((id, Kept { record, view }))
            })
            .collect();
        Batch {
            forgotten: std::mem::take(&mut self.forgotten),
            services,
            gap: self.gap.take(),
            events: std::mem::take(&mut self.events),
            alerts: self.take_alerts(),
            acknowledged: std::mem::take(&mut self.acknowledged),
            metrics: self.metrics.drain(..self.metrics.len().min(BATCH_METRICS)).collect(),
            upto: self.handed,
        }
    }

    /// Those that are over are not needed any more once they are written.
    fn take_alerts(&mut self) -> Vec<(AlertKey, Patch)> {
        let take = |key: AlertKey| {
            let over = self.alerts.get(&key)?.resolved.is_some();
            let patch = if over { self.alerts.remove(&key) } else { self.alerts.get(&key).cloned() };
            Some((key, patch?))
        };
        std::mem::take(&mut self.changed_alerts).into_iter().filter_map(take).collect()
    }

    fn bound_alerts(&mut self) {
        while self.alerts.len() > MAX_ALERTS {
            let over = self.alerts.iter().find(|(_, patch)| patch.resolved.is_some());
            let Some(key) = over.or(self.alerts.iter().next()).map(|(key, _)| key.clone()) else { return };
            self.alerts.remove(&key);
            self.changed_alerts.remove(&key);
        }
    }

    /// The transaction could not be done: its parts wait again, before what came since.
    pub fn give_back(&mut self, batch: Batch) {
        self.forgotten.extend(batch.forgotten);
        for (id, written) in batch.services {
            // Forgotten since: nothing to write any more.
            if self.kept.contains_key(&id) {
                let parts = self.dirty.entry(id).or_default();
                parts.record |= written.record.is_some();
                parts.view |= written.view.is_some();
            }
        }
        for (key, mut patch) in batch.alerts {
            if let Some(newer) = self.alerts.remove(&key) {
                patch.merge(newer);
            }
            self.changed_alerts.insert(key.clone());
            self.alerts.insert(key, patch);
        }
        self.bound_alerts();
        for (row, at) in batch.acknowledged {
            self.acknowledged.insert(row, at);
        }
        let newer = std::mem::replace(&mut self.events, batch.events);
        self.events.extend(newer);
        let newer = std::mem::replace(&mut self.metrics, batch.metrics);
        self.metrics.extend(newer);
        self.gap = match (batch.gap, self.gap) {
            (Some(a), Some(b)) => Some(Gap { count: a.count + b.count, first: a.first, last: b.last }),
            (a, b) => a.or(b),
        };
        self.bound();
    }

    fn bound(&mut self) {
        while self.events.len() > MAX_EVENTS
            && let Some(lost) = self.events.pop_front()
        {
            let gap = self.gap.get_or_insert(Gap { count: 0, first: lost.at, last: lost.at });
            gap.count += 1;
            gap.last = lost.at;
        }
        self.metrics.drain(..self.metrics.len().saturating_sub(MAX_METRICS));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{id, metric, record};
    use super::*;

    fn line(at: i64) -> EventLine {
        EventLine {
            service: None,
            kind: "service_started".into(),
            at: Wall(at),
            message: String::new(),
            details: "{}".into(),
        }
    }

    fn restarts(batch: &Batch) -> Vec<(String, u64)> {
        let count = |k: &Kept| k.record.as_ref().map_or(0, |r| r.restart_count);
        batch.services.iter().map(|(id, kept)| (id.to_string(), count(kept))).collect()
    }

    #[test]
    fn rows_of_one_service_collapse_to_the_last() {
        let mut pending = Pending::default();
        for n in 0..5 {
            pending.save(&id("a"), record(n));
        }
        pending.save(&id("b"), record(7));
        let batch = pending.take();
        assert_eq!(restarts(&batch), [("a".into(), 4), ("b".into(), 7)]);
        assert_eq!(batch.upto, 6);
        assert!(pending.is_empty());
    }

    #[test]
    fn a_failed_batch_does_not_overwrite_what_came_since() {
        let mut pending = Pending::default();
        pending.save(&id("a"), record(1));
        pending.save(&id("gone"), record(1));
        pending.event(line(1));
        let failed = pending.take();
        pending.save(&id("a"), record(2));
        pending.forget(&id("gone"));
        pending.event(line(2));
        pending.give_back(failed);
        let again = pending.take();
        assert_eq!(restarts(&again), [("a".into(), 2)]);
        assert_eq!(again.forgotten, BTreeSet::from([id("gone")]));
        assert_eq!(again.events.iter().map(|e| e.at.0).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(again.upto, 6);
    }

    #[test]
    fn a_service_that_comes_back_after_it_was_forgotten_is_written() {
        let mut pending = Pending::new(&BTreeMap::from([(id("a"), record(9))]), Unwritten::default());
        assert!(pending.is_empty(), "what is in the file needs no writing");
        pending.forget(&id("a"));
        pending.save(&id("a"), record(1));
        let batch = pending.take();
        assert!(batch.forgotten.contains(&id("a")));
        assert_eq!(restarts(&batch), [("a".into(), 1)]);
    }

    #[test]
    fn events_are_bounded_and_the_gap_is_counted() {
        let mut pending = Pending::default();
        let extra = 25;
        for n in 0..MAX_EVENTS + extra {
            pending.event(line(n as i64));
        }
        let batch = pending.take();
        assert_eq!(batch.gap, Some(Gap { count: 25, first: Wall(0), last: Wall(24) }));
        assert_eq!((batch.events.len(), batch.upto), (MAX_EVENTS, (MAX_EVENTS + extra) as u64));
        for n in 0..1_000 {
            pending.event(line((MAX_EVENTS + extra + n) as i64));
        }
        pending.give_back(batch);
        let gap = pending.take().gap.unwrap();
        assert_eq!(gap, Gap { count: 1025, first: Wall(0), last: Wall(1024) });
    }

    #[test]
    fn metrics_are_bounded_and_displace_no_event() {
        let mut pending = Pending::default();
        pending.event(line(1));
        let row = |n: usize| MetricRow { at: Wall(n as i64), ..metric("a", 0) };
        pending.metrics((0..MAX_METRICS + 5).map(row));
        let batch = pending.take();
        assert_eq!((batch.events.len(), batch.upto), (1, 1), "nobody waits for metrics");
        assert_eq!((batch.metrics.len(), batch.metrics[0].at), (BATCH_METRICS, Wall(5)));
        pending.metrics((0..10).map(row));
        pending.give_back(batch);
        assert_eq!(pending.metrics.len(), MAX_METRICS);
        let again = pending.take();
        assert_eq!((again.events.len(), again.metrics[0].at), (1, Wall(15)), "oldest first, in order");
        while !pending.is_empty() {
            pending.take();
        }
    }

    #[test]
    fn a_new_file_gets_everything() {
        let mut pending = Pending::new(&BTreeMap::from([(id("a"), record(9))]), Unwritten::default());
        pending.all_anew();
        assert_eq!(restarts(&pending.take()), [("a".into(), 9)]);
    }
}
