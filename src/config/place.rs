//! Where something stands in a configuration file: its path for people, its line and column.

use std::fmt::Write as _;

use super::json::{Member, Node, Reading, Value};
use super::{json, quote_key};

/// One file and what was read of it.
pub(super) struct Document {
    /// As it was named.
    pub file: String,
    text: String,
    /// Byte offset of the start of each line.
    lines: Vec<usize>,
    pub reading: Reading,
}

impl Document {
    pub(super) fn new(file: String, text: String) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let reading = json::read(&text);
        Self { file, text, lines, reading }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Line and column of a byte offset, both from 1; the column in characters.
    pub(super) fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.lines.partition_point(|&start| start <= offset).max(1);
        let start = self.lines.get(line - 1).copied().unwrap_or(0);
        let before = self.text.get(start..offset).unwrap_or_default();
        (line, before.trim_start_matches('\u{feff}').chars().count() + 1)
    }

    /// The text of a line without its end, and the byte offset of its start.
    pub(super) fn line(&self, line: usize) -> Option<(usize, &str)> {
        let start = *self.lines.get(line.checked_sub(1)?)?;
        let end = self.lines.get(line).copied().unwrap_or(self.text.len());
        Some((start, self.text.get(start..end)?.trim_end_matches(['\n', '\r'])))
    }
}

/// A path as it is shown: `services.web.args[2]`, `services["a.b"].command`.
#[derive(Debug, Default)]
pub(super) struct Shown(pub String);

impl Shown {
    pub(super) fn key(&mut self, key: &str) {
        let simple = |c: char| c.is_alphanumeric() || c == '_' || c == '-' || c == '$';
        if key.is_empty() || key.len() > 64 || !key.chars().all(simple) {
            let _ = write!(self.0, "[{}]", quote_key(key));
        } else {
            if !self.0.is_empty() {
                self.0.push('.');
            }
            self.0.push_str(key);
        }
    }

    pub(super) fn index(&mut self, index: usize) {
        let _ = write!(self.0, "[{index}]");
    }
}

/// A place in a document. Made on the way down, worked out only when a problem is found there.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub doc: &'a Document,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Key(&'a At<'a>, &'a str),
    /// A key whose member is at hand, so that it need not be searched for.
    Member(&'a At<'a>, &'a Member),
    Index(&'a At<'a>, usize),
}

impl<'a> At<'a> {
    pub(super) fn root(doc: &'a Document) -> Self {
        Self { doc, step: Step::Root }
    }

    pub(super) fn key(&'a self, key: &'a str) -> At<'a> {
        At { doc: self.doc, step: Step::Key(self, key) }
    }

    pub(super) fn of(&'a self, member: &'a Member) -> At<'a> {
        At { doc: self.doc, step: Step::Member(self, member) }
    }

    pub(super) fn index(&'a self, index: usize) -> At<'a> {
        At { doc: self.doc, step: Step::Index(self, index) }
    }

    pub(super) fn shown(&self) -> String {
        fn walk(at: &At<'_>, out: &mut Shown) {
            match at.step {
                Step::Root => {}
                Step::Key(up, key) => {
                    walk(up, out);
                    out.key(key);
                }
                Step::Member(up, member) => {
                    walk(up, out);
                    out.key(&member.key);
                }
                Step::Index(up, index) => {
                    walk(up, out);
                    out.index(index);
                }
            }
        }
        let mut out = Shown::default();
        walk(self, &mut out);
        out.0
    }

    /// The value at this place, if the file has it.
    pub(super) fn node(&self) -> Option<&'a Node> {
        match self.step {
            Step::Root => self.doc.reading.root.as_ref(),
            Step::Key(..) | Step::Member(..) => self.member().map(|m| &m.value),
            Step::Index(up, index) => match &up.node()?.value {
                Value::List(list) => list.get(index),
                _ => None,
            },
        }
    }

    fn member(&self) -> Option<&'a Member> {
        match self.step {
            Step::Key(up, key) => up.node()?.member(key),
            Step::Member(_, member) => Some(member),
            _ => None,
        }
    }

    /// Byte offset of the value here; where the file has none, of the key that should hold it.
    pub(super) fn offset(&self) -> usize {
        match (self.node(), self.step) {
            (Some(node), _) => node.start,
            (None, Step::Key(up, _) | Step::Member(up, _) | Step::Index(up, _)) => up.key_offset(),
            (None, Step::Root) => 0,
        }
    }

    /// Byte offset of the key here; of the value, or the nearest key above, where there is none.
    pub(super) fn key_offset(&self) -> usize {
        match self.member() {
            Some(member) => member.key_start,
            None => self.offset(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_are_long_or_odd_are_quoted() {
        let shown = |key: &str| {
            let mut shown = Shown("services".into());
            shown.key(key);
            shown.0
        };
        assert_eq!(shown("web-1"), "services.web-1");
        assert_eq!(shown(&"a".repeat(64)), format!("services.{}", "a".repeat(64)));
        for odd in ["", "a.b", "a b", &"a".repeat(65)] {
            assert!(shown(odd).starts_with("services[\""), "{odd}");
        }
    }
}
