//! One message of the stream: encoded once, shared by all who read it, with what a filter has to know.

use std::collections::BTreeSet;
use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use axum::body::Bytes;
use serde::Serialize;

use crate::control::EventRow;
use crate::core::action::EntryKind;
use crate::core::plan::Id;
use crate::core::time::Wall;
use crate::http::{convert, dto};

/// What a message is about. Its word is the `event:` of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A row of the event table. The only kind with an id, and the only one that is never left out.
    Event,
    /// A service whose state changed, as it is now.
    State,
    /// A service whose health changed, as it is now.
    Health,
    /// A service of which something else changed, or that a reader did not know yet.
    Service,
    /// A service that left the configuration.
    Removed,
    /// An alert that is new, changed, seen or over, as it is now.
    Alert,
    /// A round of measuring, all services together.
    Metrics,
    /// Events are missing here. For every reader, whatever it filters.
    Resync,
}

impl Kind {
    /// Those that can be asked for.
    const ALL: [Self; 7] =
        [Self::Event, Self::State, Self::Health, Self::Service, Self::Removed, Self::Alert, Self::Metrics];

    fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::State => "state",
            Self::Health => "health",
            Self::Service => "service",
            Self::Removed => "removed",
            Self::Alert => "alert",
            Self::Metrics => "metrics",
            Self::Resync => "resync",
        }
    }
}

/// A place in the event history: a row, and its time, which tells it from a row of that number in another file.
/// Written `812.1769847300250`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::http) struct Position {
    /// 0: before the first.
    pub(super) id: i64,
    pub(super) at: Wall,
}

impl Position {
    pub(super) fn of(row: &EventRow) -> Self {
        Self { id: row.id, at: row.at }
    }
}

/// An event's id alone names its row too, but cannot tell it from one of another file.
impl FromStr for Position {
    type Err = ParseIntError;
    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        let (id, at) = text.split_once('.').unwrap_or((text, "-1"));
        Ok(Self { id: id.parse()?, at: Wall(at.parse()?) })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.id, self.at.0)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) kind: Kind,
    pub(super) service: Option<String>,
    /// Of an event: its type.
    pub(super) event_type: Option<String>,
    /// Of an event: its place.
    pub(super) position: Option<Position>,
    pub(super) bytes: Bytes,
}

impl Message {
    pub(super) fn new(kind: Kind, service: Option<String>, data: &impl Serialize) -> Self {
        let bytes = frame(kind.as_str(), None, data);
        Self { kind, service, event_type: None, position: None, bytes }
    }

    pub(super) fn event(row: EventRow) -> Self {
        let (position, service, kind) = (Position::of(&row), row.service.clone(), row.kind.clone());
        let bytes = frame(Kind::Event.as_str(), Some(&position), &convert::event(row));
        Self { kind: Kind::Event, service, event_type: Some(kind), position: Some(position), bytes }
    }

    /// The reader goes on from `position`; `missed` messages are gone, where that is known.
    pub(super) fn resync(position: Option<Position>, reason: &str, missed: Option<u64>) -> Self {
        let data = dto::Resync { reason: reason.into(), missed };
        let bytes = frame(Kind::Resync.as_str(), displayed(&position), &data);
        Self { kind: Kind::Resync, service: None, event_type: None, position, bytes }
    }
}

/// A server-sent event. JSON has no line ends in it, so the data is one line.
pub(in crate::http) fn frame(kind: &str, id: Option<&dyn fmt::Display>, data: &impl Serialize) -> Bytes {
    let data = serde_json::to_string(data).unwrap_or_default();
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("event: {kind}\n{id}data: {data}\n\n").into()
}

pub(super) fn displayed(position: &Option<Position>) -> Option<&dyn fmt::Display> {
    position.as_ref().map(|position| position as _)
}

/// Proves that the connection lives, and brings the reader's id up to date where a filter kept events from it.
pub(in crate::http) fn keep_alive(position: Option<Position>) -> Bytes {
    let id = position.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!(": keep-alive\n{id}\n").into()
}

/// What a reader wants to see. Empty: everything.
#[derive(Debug, Clone, Default)]
pub(super) struct Filter {
    pub(super) service: Option<Id>,
    /// Kinds of messages and types of events.
    words: Option<BTreeSet<String>>,
}

impl Filter {
    /// `types` is a list with commas; the error says what can be in it.
    pub(super) fn new(service: Option<Id>, types: Option<&str>) -> Result<Self, String> {
        let known = |word: &str| {
            Kind::ALL.iter().any(|kind| kind.as_str() == word)
                || serde_json::from_value::<EntryKind>(word.into()).is_ok()
        };
        let words: Option<BTreeSet<String>> =
            types.map(|types| types.split(',').map(|word| word.trim().to_owned()).collect());
        if let Some(bad) = words.iter().flatten().find(|word| !known(word)) {
            let bad: String = bad.chars().take(60).collect();
            let kinds = Kind::ALL.map(Kind::as_str).join(", ");
            return Err(format!(
                "type: \"{}\" is neither a kind of message ({kinds}) nor a type of event (service_failed, ...)",
                bad.escape_debug()
            ));
        }
        Ok(Self { service, words })
    }

    pub(super) fn wants(&self, message: &Message) -> bool {
        if message.kind == Kind::Resync {
            return true;
        }
        let service = match (&self.service, &message.service) {
            (None, _) => true,
            (Some(wanted), Some(service)) => wanted.as_str() == service,
            (Some(_), None) => message.kind == Kind::Metrics,
        };
        service && self.wants_kind(message.kind, message.event_type.as_deref())
    }

    /// Whether it wants to know of services as they are.
    pub(super) fn wants_services(&self) -> bool {
        [Kind::State, Kind::Health, Kind::Service].iter().any(|kind| self.wants_kind(*kind, None))
    }

    pub(super) fn wants_alerts(&self) -> bool {
        self.wants_kind(Kind::Alert, None)
    }

    fn wants_kind(&self, kind: Kind, event_type: Option<&str>) -> bool {
        let Some(words) = &self.words else { return true };
        words.contains(kind.as_str()) || event_type.is_some_and(|word| words.contains(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_message_is_one_block_whatever_is_in_it() {
        let row = EventRow {
            id: 812,
            service: Some("web".into()),
            kind: "service_failed".into(),
            at: Wall(1_769_847_300_250),
            message: "a\nb\r\n\ndata: c\0\u{2028}".into(),
            details: json!({"x": "\n"}),
        };
        let text = String::from_utf8(Message::event(row).bytes.to_vec()).unwrap();
        assert!(text.starts_with("event: event\nid: 812.1769847300250\ndata: {\"id\":812,"), "{text}");
        assert_eq!((text.lines().count(), text.matches("\n\n").count()), (4, 1), "{text}");
        assert!(text.ends_with("}\n\n") && !text.contains('\r') && !text.contains('\0'));
        assert_eq!(keep_alive(None), ": keep-alive\n\n");
        let position = Some(Position { id: 7, at: Wall(5) });
        assert_eq!(keep_alive(position), ": keep-alive\nid: 7.5\n\n");
    }

    #[test]
    fn filters_choose_by_service_kind_and_type_of_event() {
        let message = |kind, service: Option<&str>, event_type: Option<&str>| Message {
            event_type: event_type.map(Into::into),
            ..Message::new(kind, service.map(Into::into), &())
        };
        let all = [
            message(Kind::Event, Some("web"), Some("service_failed")),
            message(Kind::Event, Some("web"), Some("health_changed")),
            message(Kind::Event, None, Some("config_reloaded")),
            message(Kind::State, Some("web"), None),
            message(Kind::State, Some("db"), None),
            message(Kind::Alert, Some("db"), None),
            message(Kind::Metrics, None, None),
        ];
        let seen = |service: Option<&str>, types: Option<&str>| {
            let filter = Filter::new(service.map(|id| Id::new(id).unwrap()), types).unwrap();
            (0..all.len()).filter(|n| filter.wants(&all[*n])).collect::<Vec<_>>()
        };
        assert_eq!(seen(None, None).len(), all.len());
        assert_eq!(seen(Some("web"), None), [0, 1, 3, 6], "metrics are of all services");
        assert_eq!(seen(None, Some("state, alert")), [3, 4, 5]);
        assert_eq!(seen(None, Some("service_failed")), [0]);
        assert_eq!(seen(Some("web"), Some("event")), [0, 1]);
        let bad = Filter::new(None, Some("state,stat")).unwrap_err();
        assert!(bad.contains("\"stat\"") && bad.contains("metrics"), "{bad}");
    }
}
