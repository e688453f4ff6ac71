//! One reader: from where it was to now, then along with everybody else.
//!
//! ```text
//!   hello --> events after its id, in pages --> services and alerts as they are --> ready --> what the ring brings
//!     '-- resync, where that is not possible --'                    ^                                  |
//!                                                                    '------ resync: it was too slow <--'
//! ```
//!
//! A step is made only when the connection has room, and holds one page: a reader that does not read costs no more.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::stream;

use super::feed;
use super::hub::{Hub, Place};
use super::message::{Filter, Kind, Message, Position, displayed, frame, keep_alive};
use crate::control::{AlertQuery, EventQuery, EventRow, HistoryError};
use crate::core::plan::Id;
use crate::core::snapshot::Snapshot;
use crate::core::time::Wall;
use crate::http::{convert, dto};
use crate::ring::{Next, Tail};

/// Events of one look into the database.
const PAGE: u32 = 50;
/// Services that are told in one step.
const SERVICES: usize = 20;
/// Alerts that are told as they are.
const ALERTS: u32 = 200;
/// After so long without a message a comment is sent.
pub(in crate::http) const KEEP_ALIVE: Duration = Duration::from_secs(15);

const TOO_SLOW: &str = "you read too slowly; connect again with the id of the last event you saw to get what is \
                        missing";
const UNKNOWN_ID: &str = "the event with your id is no longer kept, or is of another database; `GET events` has what \
                          there is";
const UNREADABLE: &str = "the event history cannot be read at the moment";

/// See the module.
pub(super) struct Reader {
    hub: Arc<Hub>,
    filter: Filter,
    tail: Tail<Message>,
    /// The last event that it saw, or that its filter kept from it.
    position: Option<Position>,
    /// Alerts that were over before that are not told.
    since: Option<Wall>,
    phase: Phase,
    outbox: VecDeque<Bytes>,
    _place: Place,
}

enum Phase {
    /// Telling events up to this one.
    Past(Position),
    /// Telling services as they are, after that one.
    Services(Arc<Snapshot>, Option<Id>),
    Alerts,
    Now,
    Over,
}

impl Reader {
    /// Finds out where to begin. `asked`: the id of the last event it saw.
    pub(super) async fn begin(
        hub: Arc<Hub>,
        place: Place,
        filter: Filter,
        asked: Option<&str>,
    ) -> Result<Self, HistoryError> {
        let known = match asked {
            Some(asked) => match asked.trim().parse() {
                Ok(asked) => {
                    let _turn = hub.reads.acquire().await;
                    find(&hub, asked).await?
                }
                Err(_) => None,
            },
            None => None,
        };
        let (tail, last) = hub.join();
        let position = known.or(last);
        let phase = match (known, last) {
            (Some(known), Some(last)) if known.id < last.id => Phase::Past(last),
            // It may have seen in the table what the feed has not read yet: see `take`.
            _ => Phase::Services(hub.control.snapshot(), None),
        };
        let mut outbox = VecDeque::from([hello(&hub, known.is_some(), position)]);
        if asked.is_some() && known.is_none() {
            outbox.push_back(Message::resync(position, UNKNOWN_ID, None).bytes);
        }
        let since = known.map(|known| known.at);
        Ok(Self { hub, filter, tail, position, since, phase, outbox, _place: place })
    }

    /// The body of the answer.
    pub(super) fn into_body(self) -> Body {
        Body::from_stream(stream::unfold(self, |mut reader| async move {
            let bytes = reader.next().await?;
            Some((Ok::<_, Infallible>(bytes), reader))
        }))
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.outbox.pop_front() {
                return Some(bytes);
            }
            // Room for a page is not kept while it waits.
            self.outbox.shrink_to(0);
            match &self.phase {
                Phase::Past(last) => self.past(*last).await,
                Phase::Services(snapshot, after) => self.services(snapshot.clone(), after.clone()),
                Phase::Alerts => self.alerts().await,
                Phase::Now => match tokio::time::timeout(KEEP_ALIVE, self.tail.next()).await {
                    Ok(next) => self.take(next),
                    Err(_) => return Some(keep_alive(self.position)),
                },
                Phase::Over => return None,
            }
        }
    }

    /// A page of events. When there are no more, the ring goes on where they end, if it still has that.
    async fn past(&mut self, last: Position) {
        let from = self.position.unwrap_or_default();
        let query = EventQuery {
            service: self.filter.service.clone(),
            after: Some(from.id),
            before: Some(last.id + 1),
            limit: PAGE,
            ..EventQuery::default()
        };
        let rows = match page(&self.hub, from, query).await {
            Ok(rows) => rows,
            Err(why) => {
                // Its id stays what it was: it may come back for what is missing here.
                self.outbox.push_back(Message::resync(None, why, None).bytes);
                return self.everything();
            }
        };
        let more = rows.len() >= PAGE as usize;
        for row in rows {
            self.position = Some(Position::of(&row));
            let message = Message::event(row);
            if self.filter.wants(&message) {
                self.outbox.push_back(message.bytes);
            }
        }
        if more {
            return;
        }
        self.position = Some(last);
        if self.tail.is_behind() {
            let (tail, last) = self.hub.join();
            self.tail = tail;
            self.phase = Phase::Past(last.unwrap_or_default());
        } else {
            self.everything();
        }
    }

    /// Goes on with everything as it is.
    fn everything(&mut self) {
        self.phase = Phase::Services(self.hub.control.snapshot(), None);
    }

    fn services(&mut self, snapshot: Arc<Snapshot>, after: Option<Id>) {
        let filter = |id: &Id| self.filter.service.as_ref().is_none_or(|wanted| wanted == id);
        let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let views = snapshot.services.range::<Id, _>((from, Bound::Unbounded)).filter(|(id, _)| filter(id));
        let (now, wanted) = (convert::now_mono(), self.filter.wants_services());
        let mut last = None;
        for (id, view) in views.take(if wanted { SERVICES } else { 0 }) {
            let message = Message::new(Kind::Service, Some(id.to_string()), &convert::service(view, now));
            self.outbox.push_back(message.bytes);
            last = Some(id.clone());
        }
        self.phase = match last {
            Some(last) => Phase::Services(snapshot, Some(last)),
            None => Phase::Alerts,
        };
    }

    async fn alerts(&mut self) {
        if self.filter.wants_alerts() {
            let query = AlertQuery { since: self.since, limit: ALERTS, ..AlertQuery::default() };
            let rows = {
                let _turn = self.hub.reads.acquire().await;
                self.hub.control.history().alerts(query).await
            };
            // Where they cannot be read, they come when they can be.
            let messages = rows.unwrap_or_default().into_iter().map(feed::alert);
            self.outbox.extend(messages.filter(|m| self.filter.wants(m)).map(|m| m.bytes));
        }
        self.outbox.push_back(frame("ready", None, &serde_json::Map::new()));
        self.phase = Phase::Now;
    }

    /// In the table, before it came through the ring.
    fn has_seen(&self, message: &Message) -> bool {
        let seen = |at: Position| self.position.is_some_and(|position| at.id <= position.id);
        message.kind == Kind::Event && message.position.is_some_and(seen)
    }

    fn take(&mut self, next: Next<Message>) {
        match next {
            Next::Item(message) if self.has_seen(&message) => {}
            Next::Item(message) => {
                self.position = message.position.or(self.position);
                if self.filter.wants(&message) {
                    self.outbox.push_back(message.bytes.clone());
                }
                if message.kind == Kind::Resync {
                    self.everything();
                }
            }
            Next::Missed(count) => {
                let (tail, last) = self.hub.join();
                (self.tail, self.position) = (tail, last.or(self.position));
                self.outbox.push_back(Message::resync(self.position, TOO_SLOW, Some(count)).bytes);
                self.everything();
            }
            Next::Closed => self.phase = Phase::Over,
        }
    }
}

fn hello(hub: &Hub, resumed: bool, position: Option<Position>) -> Bytes {
    let about = hub.control.about();
    let hello = dto::Hello {
        resumed,
        services: hub.control.snapshot().services.len(),
        version: about.version.into(),
        pid: std::process::id(),
        started_at: convert::time(about.started_at),
    };
    frame("hello", displayed(&position), &hello)
}

/// Where that is in the history; `None` where the history does not have it.
async fn find(hub: &Hub, asked: Position) -> Result<Option<Position>, HistoryError> {
    if asked.id < 0 {
        return Ok(None);
    }
    let query = EventQuery { after: Some(asked.id - 1), limit: 1, ..EventQuery::default() };
    let first = hub.control.history().events(query).await?.first().map(Position::of);
    Ok(match first {
        // Before the first event: nothing may be missing at the front.
        _ if asked.id == 0 => first.is_none_or(|first| first.id == 1).then_some(Position::default()),
        Some(first) if first.id == asked.id && (asked.at.0 < 0 || asked.at == first.at) => Some(first),
        _ => None,
    })
}

/// Events after `from`, or that they are not all there any more.
async fn page(hub: &Hub, from: Position, query: EventQuery) -> Result<Vec<EventRow>, &'static str> {
    let _turn = hub.reads.acquire().await;
    let rows = hub.control.history().events(query).await.map_err(|_| UNREADABLE)?;
    // Rows go from the oldest on: while this one is there, none after it went before we read them.
    match find(hub, from).await {
        Ok(Some(_)) => Ok(rows),
        Ok(None) => Err(UNKNOWN_ID),
        Err(_) => Err(UNREADABLE),
    }
}
