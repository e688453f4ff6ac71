//! Alerts: what is wrong is worked out anew from the state of a service whenever that changed, and compared with
//! what was raised. So nothing is raised twice, and nothing stays that is no longer true.
//!
//! A service whose trouble comes from a dependency that is down or unhealthy raises nothing: the alert of the
//! root names it among `affected`.

use super::conditions::Verdict;
use super::*;
use crate::core::action::AfterStop;
use crate::core::alert::{Alert, AlertKey, AlertKind, Severity};
use crate::core::service::Service;
use crate::core::snapshot::Health;
use crate::core::time::{Human, Wall};
use std::time::Duration;

/// Names in `affected`; `affected_count` counts all.
const AFFECTED: usize = 50;
/// A connection to systemd that is back within this time is worth a line in the log, not an alert.
const SYSTEMD_AWAY: Duration = Duration::from_secs(10);

/// How bad those of the supervisor's own are.
const OWN: Severity = Severity::Error;

/// A condition that holds.
#[derive(Debug, Clone)]
pub(in crate::core) enum Alarm {
    /// Raised if it still holds then.
    Pending(Mono),
    Open(Open),
}

/// A condition that was told.
#[derive(Debug, Clone)]
pub(in crate::core) struct Open {
    key: AlertKey,
    /// What was told last; `None` for one that the last daemon raised.
    told: Option<Told>,
}

/// What is worth telling again when it changes.
#[derive(Debug, Clone, PartialEq)]
struct Told {
    severity: Severity,
    what: String,
    affected: Vec<Id>,
}

/// What the alerts need beside the services.
#[derive(Debug, Default)]
pub(super) struct Alerting {
    /// Services that changed since they were last looked at.
    stale: BTreeSet<Id>,
    /// The supervisor's own.
    own: BTreeMap<AlertKind, (Alarm, String)>,
    /// Raised by the last daemon, of services that are not in the plan, or a second time.
    left_over: Vec<AlertKey>,
}

impl Alerting {
    /// See [`Engine::stale`].
    pub fn mark(&mut self, id: &Id) {
        if !self.stale.contains(id) {
            self.stale.insert(id.clone());
        }
    }
}

impl Engine {
    /// Takes over the alerts that the last daemon left open. Those that are no longer true are resolved once
    /// systemd told what it has.
    #[must_use]
    pub fn with_open_alerts(mut self, open: impl IntoIterator<Item = AlertKey>) -> Self {
        for key in open {
            let alarm = Alarm::Open(Open { key: key.clone(), told: None });
            match &key.service {
                None => drop(self.alerting.own.insert(key.kind, (alarm, String::new()))),
                Some(id) => match self.services.get_mut(id) {
                    Some(service) if !service.alarms.contains_key(&key.kind) => {
                        service.take_over_alarm(key.kind, alarm);
                    }
                    _ => self.alerting.left_over.push(key),
                },
            }
        }
        self
    }

    /// The service changed: its alerts are looked at before the event is done with.
    pub(super) fn stale(&mut self, id: &Id) {
        self.alerting.mark(id);
    }

    pub(super) fn all_stale(&mut self) {
        self.alerting.stale.extend(self.services.keys().cloned());
    }

    /// Something about the supervisor itself; `None` when it is well again.
    pub(super) fn own_trouble(&mut self, kind: AlertKind, trouble: Option<String>) {
        match (trouble, self.alerting.own.remove(&kind)) {
            (Some(what), Some((alarm, _))) => drop(self.alerting.own.insert(kind, (alarm, what))),
            (Some(what), None) => {
                let wait = if kind == AlertKind::Systemd { SYSTEMD_AWAY } else { Duration::ZERO };
                let pending = Alarm::Pending(self.now.mono + wait);
                self.alerting.own.insert(kind, (pending, what));
            }
            (None, Some((Alarm::Open(open), _))) => self.resolve(&open.key, "it works again"),
            (None, _) => {}
        }
    }

    /// Those of the supervisor's own that were raised.
    pub(super) fn own_alerts(&self) -> Vec<(AlertKind, Severity)> {
        let open = self.alerting.own.iter().filter(|(_, (alarm, _))| matches!(alarm, Alarm::Open(_)));
        open.map(|(kind, _)| (*kind, OWN)).collect()
    }

    /// When one of the supervisor's own is to be raised.
    pub(super) fn own_alert_due(&self) -> Option<Mono> {
        let due = |(alarm, _): &(Alarm, String)| match alarm {
            Alarm::Pending(due) => Some(*due),
            Alarm::Open(_) => None,
        };
        self.alerting.own.values().filter_map(due).min()
    }

    /// systemd told for the first time what it has: what the last daemon knew of itself and of services that are
    /// gone is no longer true.
    pub(super) fn settle_old_alerts(&mut self) {
        for key in mem::take(&mut self.alerting.left_over) {
            self.resolve(&key, "nothing is known of it any more");
        }
        for (kind, (alarm, what)) in mem::take(&mut self.alerting.own) {
            match alarm {
                Alarm::Open(open) if what.is_empty() => {
                    self.resolve(&open.key, "the supervisor was started again");
                }
                alarm => drop(self.alerting.own.insert(kind, (alarm, what))),
            }
        }
        self.all_stale();
    }

    /// Looks at everything that changed. The last thing that is done about an event.
    pub(super) fn raise_and_resolve(&mut self) {
        self.raise_own();
        if !self.met {
            return;
        }
        let mut roots = BTreeSet::new();
        let ranked = |engine: &Self, id: Id| engine.rank.get(&id).map(|rank| (*rank, id));
        let mut work: BTreeSet<(usize, Id)> =
            mem::take(&mut self.alerting.stale).into_iter().filter_map(|id| ranked(self, id)).collect();
        let graph = Arc::clone(&self.graph);
        while let Some((_, id)) = work.pop_first() {
            let root = self.root_of(&id);
            let Some(service) = self.services.get_mut(&id) else { continue };
            let trouble = service.is_trouble();
            let before = mem::replace(&mut service.blame, (trouble, root.clone()));
            if before != (trouble, root.clone()) {
                work.extend(graph.dependents(&id).iter().filter_map(|id| ranked(self, id.clone())));
            }
            roots.extend(before.1);
            roots.extend(root);
            self.look_at(&id);
            // With its alert over it is no longer to blame.
            if self.services.get(&id).is_some_and(|service| service.is_trouble() != trouble) {
                work.extend(ranked(self, id));
            }
        }
        for root in roots {
            self.look_at(&root);
        }
    }

    /// The dependency whose trouble is the trouble of `id`, at the far end of the chain.
    fn root_of(&self, id: &Id) -> Option<Id> {
        let needed = &self.services.get(id)?.plan.dependencies;
        needed.iter().find_map(|needs| {
            let dependency = self.services.get(&needs.service)?;
            let waits = !dependency.waiting_for.is_empty() && dependency.want == Want::Up;
            match &dependency.blame {
                (trouble, Some(root)) if *trouble || waits => Some(root.clone()),
                (true, None) => Some(needs.service.clone()),
                _ => None,
            }
        })
    }

    /// Compares what is wrong with one service with what was told.
    fn look_at(&mut self, id: &Id) {
        let now = self.now.mono;
        let mut next = self.look_for_flapping(id);
        for kind in AlertKind::OF_SERVICE {
            let Some(service) = self.services.get(id) else { return };
            let alarm = service.alarms.get(&kind).cloned();
            let verdict = self.verdict(service, kind, &alarm);
            let at = match (verdict, alarm) {
                (Verdict::Clear(_), None) | (Verdict::Keep(_), None) => None,
                (Verdict::Clear(why), Some(alarm)) => {
                    self.services.get_mut(id).into_iter().for_each(|s| drop(s.alarms.remove(&kind)));
                    if let Alarm::Open(open) = alarm {
                        self.services.get_mut(id).into_iter().for_each(|s| s.view = None);
                        self.resolve(&open.key, &why);
                    }
                    None
                }
                (Verdict::Keep(until), Some(Alarm::Open(_))) => until,
                (Verdict::Holds(wait), None) if wait > Duration::ZERO => {
                    let due = now + wait;
                    self.services
                        .get_mut(id)
                        .into_iter()
                        .for_each(|s| drop(s.alarms.insert(kind, Alarm::Pending(due))));
                    Some(due)
                }
                (Verdict::Holds(wait), Some(Alarm::Pending(due))) if due.min(now + wait) > now => Some(due),
                (Verdict::Keep(_), Some(Alarm::Pending(due))) if due > now => Some(due),
                (Verdict::Holds(_), alarm) => {
                    self.tell(id, kind, alarm);
                    self.look_again(id, kind)
                }
                (Verdict::Keep(_), Some(Alarm::Pending(_))) => {
                    self.tell(id, kind, None);
                    None
                }
            };
            next = next.into_iter().chain(at).min();
        }
        match next {
            Some(at) => self.timers.set(id, Timer::Alert, at),
            None => self.timers.clear(id, Timer::Alert),
        }
    }

    /// When one that was just told may be over by mere passing of time.
    fn look_again(&self, id: &Id, kind: AlertKind) -> Option<Mono> {
        let service = self.services.get(id)?;
        match self.verdict(service, kind, &service.alarms.get(&kind).cloned()) {
            Verdict::Keep(until) => until,
            _ => None,
        }
    }

    /// Says when it begins and when it ends; gives when it may end by mere passing of time.
    fn look_for_flapping(&mut self, id: &Id) -> Option<Mono> {
        let now = self.now.mono;
        let service = self.services.get_mut(id)?;
        let plan = Arc::clone(&service.plan);
        let (changed, next) = service.flaps.judge(&plan, now);
        if changed {
            service.view = None;
            let (level, message) = match service.flaps.reason() {
                Some(why) => {
                    (Level::Warning, format!("{id}: flapping: {why}; restarts go on, somebody should look"))
                }
                None => (Level::Info, format!("{id}: no longer flapping")),
            };
            let flapping = service.flaps.is_flapping();
            self.record(id, EntryKind::Flapping, level, message, [("flapping", flapping.into())]);
            self.persist(id);
        }
        next
    }

    /// Raises it, or tells what changed about it.
    fn tell(&mut self, id: &Id, kind: AlertKind, alarm: Option<Alarm>) {
        let wall = self.now.wall;
        let Some(service) = self.services.get(id) else { return };
        let told = Told {
            severity: severity(service, kind),
            what: self.words_of(service, kind),
            affected: if kind.may_come_from_elsewhere() { self.affected(id) } else { Vec::new() },
        };
        let (key, news) = match &alarm {
            Some(Alarm::Open(open)) if open.told.as_ref() == Some(&told) => return,
            Some(Alarm::Open(open)) => (open.key.clone(), false),
            _ => (AlertKey { service: Some(id.clone()), kind, raised: wall }, true),
        };
        let alert = Alert {
            key: key.clone(),
            severity: told.severity,
            message: told.what.clone(),
            details: details(service, &key, wall, &told.affected),
        };
        if let Some(service) = self.services.get_mut(id) {
            service.alarms.insert(kind, Alarm::Open(Open { key, told: Some(told) }));
            service.view = None;
        }
        if news { self.raise(alert) } else { self.out.push(Action::UpdateAlert(Box::new(alert))) }
    }

    /// Those of services.
    #[cfg(test)]
    pub(super) fn open_alerts(&self) -> BTreeSet<AlertKey> {
        let key = |alarm: &Alarm| match alarm {
            Alarm::Open(open) => Some(open.key.clone()),
            Alarm::Pending(_) => None,
        };
        self.services.values().flat_map(|service| service.alarms.values()).filter_map(key).collect()
    }

    /// The one way for an alert to come into the world.
    fn raise(&mut self, alert: Alert) {
        let level = match alert.severity {
            Severity::Warning => Level::Warning,
            Severity::Error | Severity::Critical => Level::Error,
        };
        self.out.push(Action::Record(Entry {
            service: alert.key.service.clone(),
            kind: EntryKind::AlertRaised,
            level,
            message: format!("alert ({}): {}", alert.severity.as_str(), alert.message),
            details: BTreeMap::from([
                ("alert", alert.key.to_string().into()),
                ("alert_type", alert.key.kind.as_str().into()),
                ("severity", alert.severity.as_str().into()),
            ]),
        }));
        self.out.push(Action::RaiseAlert(Box::new(alert)));
    }

    fn resolve(&mut self, key: &AlertKey, why: &str) {
        let lasted = Duration::from_millis(u64::try_from(self.now.wall.0 - key.raised.0).unwrap_or(0));
        let whose = key.service.as_ref().map_or("the supervisor", Id::as_str);
        let message = format!("{whose}: {} is over after {}: {why}", key.kind, Human(lasted));
        let details = [("alert", key.to_string().into()), ("alert_type", key.kind.as_str().into())];
        self.out.push(Action::Record(Entry {
            service: key.service.clone(),
            kind: EntryKind::AlertResolved,
            level: Level::Info,
            message: message.clone(),
            details: details.into(),
        }));
        self.out.push(Action::ResolveAlert { key: key.clone(), message });
    }

    fn raise_own(&mut self) {
        let (now, wall) = (self.now.mono, self.now.wall);
        let due = |alarm: &Alarm| matches!(alarm, Alarm::Pending(due) if *due <= now);
        let mut news = Vec::new();
        for (kind, (alarm, what)) in self.alerting.own.iter_mut().filter(|(_, (alarm, _))| due(alarm)) {
            let key = AlertKey { service: None, kind: *kind, raised: wall };
            *alarm = Alarm::Open(Open { key: key.clone(), told: None });
            let details = BTreeMap::from([("reason", what.as_str().into())]);
            news.push(Alert { key, severity: OWN, message: what.clone(), details });
        }
        news.into_iter().for_each(|alert| self.raise(alert));
    }

    /// All alerts of a service that is no longer known.
    pub(super) fn resolve_all_of(&mut self, service: &Service) {
        for alarm in service.alarms.values() {
            if let Alarm::Open(open) = alarm {
                self.resolve(&open.key, "the service left the configuration");
            }
        }
    }

    /// Services in trouble, or waiting, because of `id`.
    fn affected(&self, id: &Id) -> Vec<Id> {
        let hit = |s: &&Service| {
            s.blame.1.as_ref() == Some(id) && s.want == Want::Up && (s.blame.0 || !s.waiting_for.is_empty())
        };
        self.services.values().filter(hit).map(|s| s.plan.id.clone()).collect()
    }
}

fn severity(service: &Service, kind: AlertKind) -> Severity {
    match kind {
        _ if service.plan.critical => Severity::Critical,
        AlertKind::Down if service.state == State::Backoff => Severity::Warning,
        AlertKind::Down | AlertKind::Unhealthy | AlertKind::KeepTrying | AlertKind::OomKill => {
            Severity::Error
        }
        _ => Severity::Warning,
    }
}

/// What a person needs at three in the morning. No value of the configuration that may be a secret is in it.
fn details(service: &Service, key: &AlertKey, wall: Wall, affected: &[Id]) -> BTreeMap<&'static str, Value> {
    let millis = |at: Wall| Value::from(at.0);
    let answers: Vec<Value> = service
        .answers
        .iter()
        .map(|a| serde_json::json!({"at_ms": a.at.0, "passed": a.passed, "message": a.message}))
        .collect();
    let mut details = BTreeMap::from([
        ("since_ms", millis(key.raised)),
        ("as_of_ms", millis(wall)),
        ("state", service.state.as_str().into()),
        ("health", service.watch.health().as_str().into()),
        ("reason", service.reason.clone().into()),
        ("attempt", service.attempt.into()),
        ("max_retries", service.plan.restart.max_retries.into()),
        ("restart_count", service.restart_count.into()),
        ("last_probes", answers.into()),
    ]);
    if let Some((_, at)) = service.retry_at {
        details.insert("next_retry_at_ms", millis(at));
    }
    if let Some((exit, at)) = &service.last_exit {
        let exit = serde_json::json!({"code": exit.code, "signal": exit.signal,
            "result": exit.result.to_string(), "at_ms": at.0});
        details.insert("last_exit", exit);
    }
    if !affected.is_empty() {
        let names: Vec<Value> = affected.iter().take(AFFECTED).map(|id| id.as_str().into()).collect();
        details.insert("affected", names.into());
        details.insert("affected_count", affected.len().into());
    }
    details
}

impl Service {
    /// Its own failure or illness, or one that it is not over yet.
    pub(super) fn is_trouble(&self) -> bool {
        if self.want != Want::Up {
            return false;
        }
        let failing = self.attempt > 0 || matches!(self.after_stop, AfterStop::Fail(_));
        match self.state {
            State::Failed | State::Fatal | State::Backoff => true,
            State::Starting | State::Stopping | State::Stopped => failing && self.waiting_for.is_empty(),
            State::Running => self.watch.health() == Health::Unhealthy || self.has_open(AlertKind::Down),
        }
    }

    /// Those that were raised, and how bad they are.
    pub(in crate::core) fn open_alerts(&self) -> Vec<(AlertKind, Severity)> {
        let open = self.alarms.iter().filter(|(_, alarm)| matches!(alarm, Alarm::Open(_)));
        open.map(|(kind, _)| (*kind, severity(self, *kind))).collect()
    }

    fn has_open(&self, kind: AlertKind) -> bool {
        matches!(self.alarms.get(&kind), Some(Alarm::Open(_)))
    }

    /// The last daemon raised it.
    fn take_over_alarm(&mut self, kind: AlertKind, alarm: Alarm) {
        match kind {
            AlertKind::OomKill => self.strain.oom = Some(self.since.0),
            AlertKind::Memory | AlertKind::Tasks | AlertKind::Cpu | AlertKind::CpuThrottled => {
                self.strain.high.insert(kind, String::new());
            }
            _ => {}
        }
        self.alarms.insert(kind, alarm);
    }
}
