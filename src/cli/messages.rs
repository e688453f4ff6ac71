//! Server-sent events, as they come.

use std::collections::VecDeque;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::failure::Failure;

/// The server says something every 15 s: after so long without a word it is gone.
const SILENCE: Duration = Duration::from_secs(45);
/// Why there are no more.
pub(super) const ENDED: &str = "the supervisor ended the connection";
/// Longest message, in bytes.
const LONGEST: usize = 1 << 20;

/// What comes over one connection.
pub(super) struct Messages {
    response: reqwest::Response,
    parser: Parser,
    there: VecDeque<Message>,
}

/// One message; without a kind, only its id is news.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: String,
    pub(super) id: Option<String>,
    pub(super) data: String,
}

impl Message {
    /// Its data.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_str(&self.data)
            .map_err(|error| Failure::Failed(format!("a message of the stream is not understood ({error})")))
    }
}

impl Messages {
    pub(super) fn new(response: reqwest::Response) -> Self {
        Self { response, parser: Parser::default(), there: VecDeque::new() }
    }

    /// `None` when the connection ended.
    pub(super) async fn next(&mut self) -> Result<Option<Message>, Failure> {
        loop {
            if let Some(message) = self.there.pop_front() {
                return Ok(Some(message));
            }
            let Ok(Ok(Some(part))) = tokio::time::timeout(SILENCE, self.response.chunk()).await else {
                return Ok(None);
            };
            self.there.extend(self.parser.take(&part));
            if self.parser.line.len() + self.parser.message.data.len() > LONGEST {
                return Err(Failure::Failed("the stream holds a message that is too long".into()));
            }
        }
    }
}

#[derive(Default)]
struct Parser {
    line: Vec<u8>,
    message: Message,
}

impl Parser {
    fn take(&mut self, part: &[u8]) -> Vec<Message> {
        let mut messages = Vec::new();
        for byte in part {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            let line = String::from_utf8_lossy(&self.line).into_owned();
            self.line.clear();
            match line.trim_end_matches('\r').split_once(':') {
                None => messages.extend(self.end()),
                Some((field, value)) => self.field(field, value.strip_prefix(' ').unwrap_or(value)),
            }
        }
        messages
    }

    fn field(&mut self, field: &str, value: &str) {
        match field {
            "event" => self.message.kind = value.into(),
            "id" => self.message.id = Some(value.into()),
            "data" => self.message.data.push_str(value),
            _ => {}
        }
    }

    fn end(&mut self) -> Option<Message> {
        let message = std::mem::take(&mut self.message);
        (message != Message::default()).then_some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_in_any_parts() {
        let text = ": keep-alive\n\n: keep-alive\nid: 7.1\n\nevent: event\nid: 8.2\ndata: {\"a\":\"ä: b\"}\n\nevent: ready\r\ndata: {}\r\n\r\nevent: half";
        let message = |kind: &str, id: Option<&str>, data: &str| Message {
            kind: kind.into(),
            id: id.map(Into::into),
            data: data.into(),
        };
        let expected = [
            message("", Some("7.1"), ""),
            message("event", Some("8.2"), "{\"a\":\"ä: b\"}"),
            message("ready", None, "{}"),
        ];
        for size in [1, 2, 7, 1000] {
            let mut parser = Parser::default();
            let seen: Vec<Message> =
                text.as_bytes().chunks(size).flat_map(|part| parser.take(part)).collect();
            assert_eq!(seen, expected, "{size}");
        }
    }
}
