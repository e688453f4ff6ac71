//! Turns what changed into messages, once for all readers. Runs while there is one, and wakes only for a change.
//!
//! ```text
//!   snapshots (published by the loop) ------ what differs --> state, health, service, removed, metrics --.
//!   event table, after each commit of ours -- rows after the last one --> event                          |--> ring
//!   alert table, the same ------------------- what differs --> alert ------------------------------------'
//! ```
//!
//! Events are read back from the table: so they are on disk before anybody sees them, have the ids of their rows, come
//! in their order, and those of other programs are among them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::hub::Hub;
use super::message::{Kind, Message, Position};
use crate::control::{AlertQuery, AlertRow, EventQuery, HistoryError};
use crate::core::snapshot::{ServiceView, Snapshot};
use crate::core::time::{Mono, Wall};
use crate::http::access::Caller;
use crate::http::{convert, dto};

/// From one look for rows of other programs to the next; those of ours are seen at once.
const OTHERS: Duration = Duration::from_secs(15);
/// Events of one look.
const PAGE: u32 = 200;
/// Alerts of one look.
const ALERTS: u32 = 1000;
/// Alerts that were resolved so long before the last look are looked at again: they are written a little later.
const LATE_MS: i64 = 60_000;

/// Until nobody reads any more or the daemon ends.
pub(super) async fn run(hub: Arc<Hub>) {
    let mut snapshots = hub.control.snapshots();
    let mut changes = hub.control.history().changes();
    let mut shown = snapshots.borrow_and_update().clone();
    let mut seen = *changes.borrow_and_update();
    let mut alerts = Alerts::default();
    // What is there already is no news.
    drop(alerts.news(&hub).await);
    hub.begin(newest(&hub).await.ok());
    loop {
        let look = tokio::select! {
            changed = snapshots.changed() => {
                let Ok(()) = changed else { break };
                let now = snapshots.borrow_and_update().clone();
                differences(&shown, &now, convert::now_mono()).into_iter().for_each(|m| hub.tell(m));
                shown = now;
                continue;
            }
            Ok(()) = changes.changed() => {
                let now = *changes.borrow_and_update();
                let before = std::mem::replace(&mut seen, now);
                (now.events != before.events, now.alerts != before.alerts)
            }
            () = tokio::time::sleep(OTHERS) => (true, true),
            () = hub.idle.notified() => {
                if hub.rest() {
                    return;
                }
                continue;
            }
        };
        catch_up(&hub, &mut alerts, look).await;
    }
    // The loop ended. Its last words are on the way into the database.
    hub.control.history().flushed().await;
    catch_up(&hub, &mut alerts, (true, true)).await;
    hub.ring.close();
}

/// What cannot be read now is read at the next look: nothing is passed over.
async fn catch_up(hub: &Hub, alerts: &mut Alerts, (events, rows): (bool, bool)) {
    if events && let Err(error) = new_events(hub).await {
        tracing::debug!("the stream waits for the database: {error}");
    }
    if rows {
        match alerts.news(hub).await {
            Ok(news) => news.into_iter().for_each(|row| hub.tell(alert(row))),
            Err(error) => tracing::debug!("the stream waits for the database: {error}"),
        }
    }
}

/// One text for all readers, so without what some may not see: `GET alerts` has the lines of the log.
pub(super) fn alert(row: AlertRow) -> Message {
    Message::new(Kind::Alert, row.service.clone(), &convert::alert(row, Caller::Anonymous))
}

async fn newest(hub: &Hub) -> Result<Position, HistoryError> {
    let rows = hub.control.history().events(EventQuery { limit: 1, ..EventQuery::default() }).await?;
    Ok(rows.first().map_or(Position::default(), Position::of))
}

/// Tells all events after the last one. That one is read again: if it is no longer there, the table was trimmed under
/// us or is another one, and what is missing cannot be known.
async fn new_events(hub: &Hub) -> Result<(), HistoryError> {
    let Some(mut last) = hub.last() else {
        let last = newest(hub).await?;
        restart(hub, last, "the event history could not be read for a while");
        return Ok(());
    };
    loop {
        let after = EventQuery { after: Some(last.id - 1), limit: PAGE, ..EventQuery::default() };
        let mut rows = hub.control.history().events(after).await?.into_iter();
        if last.id > 0 && rows.next().map(|row| Position::of(&row)) != Some(last) {
            let newest = newest(hub).await?;
            restart(hub, newest, "the event history was deleted or replaced");
            return Ok(());
        }
        let before = last;
        for row in rows {
            last = Position::of(&row);
            hub.tell(Message::event(row));
        }
        if last == before {
            return Ok(());
        }
    }
}

/// All readers have to begin anew.
fn restart(hub: &Hub, last: Position, why: &str) {
    hub.tell(Message::resync(Some(last), why, None));
}

/// Alerts as they were last told.
#[derive(Default)]
struct Alerts {
    told: BTreeMap<i64, AlertRow>,
    looked: Option<Wall>,
}

impl Alerts {
    /// Those that are not as they were told.
    async fn news(&mut self, hub: &Hub) -> Result<Vec<AlertRow>, HistoryError> {
        let now = convert::now_wall();
        let since = Wall(self.looked.unwrap_or(now).0.saturating_sub(LATE_MS));
        let query = |query| hub.control.history().alerts(query);
        let rows = query(AlertQuery { since: Some(since), limit: ALERTS, ..AlertQuery::default() }).await?;
        let mut there: BTreeMap<i64, AlertRow> = rows.into_iter().map(|row| (row.id, row)).collect();
        // One that was open is told to the end, however late that is written.
        let open = self.told.values().filter(|row| row.resolved_at.is_none());
        let missing: Vec<i64> = open.map(|row| row.id).filter(|id| !there.contains_key(id)).collect();
        for id in missing {
            let row = query(AlertQuery { id: Some(id), limit: 1, ..AlertQuery::default() }).await?;
            there.extend(row.into_iter().map(|row| (row.id, row)));
        }
        let new = |(id, row): (&i64, &AlertRow)| (self.told.get(id) != Some(row)).then(|| row.clone());
        let news = there.iter().filter_map(new).collect();
        (self.told, self.looked) = (there, Some(now));
        Ok(news)
    }
}

/// What a reader who knows `old` has to be told. Rounds of measuring are told together.
fn differences(old: &Snapshot, new: &Snapshot, now: Mono) -> Vec<Message> {
    let (mut messages, mut readings) = (Vec::new(), BTreeMap::new());
    for (id, view) in &new.services {
        let before = old.services.get(id);
        if before.is_some_and(|before| Arc::ptr_eq(before, view)) {
            continue;
        }
        if let Some(kind) = kind(before.map(Arc::as_ref), view) {
            messages.push(Message::new(kind, Some(id.to_string()), &convert::service(view, now)));
        }
        if let Some(usage) = view.usage.as_ref().filter(|_| before.is_none_or(|b| b.usage != view.usage)) {
            readings.insert(id.to_string(), convert::reading(usage));
        }
    }
    for id in old.services.keys().filter(|id| !new.services.contains_key(*id)) {
        let removed = dto::Removed { id: id.to_string() };
        messages.push(Message::new(Kind::Removed, Some(id.to_string()), &removed));
    }
    if !readings.is_empty() {
        let timestamp = convert::time(convert::now_wall());
        messages.push(Message::new(Kind::Metrics, None, &dto::Readings { timestamp, services: readings }));
    }
    messages
}

/// `None`: nothing that a `Service` shows beside what it uses.
fn kind(old: Option<&ServiceView>, new: &ServiceView) -> Option<Kind> {
    let Some(old) = old else { return Some(Kind::Service) };
    if old.state != new.state {
        return Some(Kind::State);
    }
    if old.health != new.health {
        return Some(Kind::Health);
    }
    let as_before = ServiceView { last_probe: old.last_probe.clone(), usage: old.usage, ..new.clone() };
    (as_before != *old).then_some(Kind::Service)
}
