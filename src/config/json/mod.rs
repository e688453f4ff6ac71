//! A strict JSON reader (RFC 8259) that knows where everything stands in the text.
//!
//! serde_json stops at the first fault and forgets positions; a person who edits a file wants all faults at once.
//! So the usual slips (comments, trailing commas, single quotes, `True`, bare keys) are reported and read over.
//! Faults never repeat the content of a text, which may be a secret.

use std::collections::HashMap;
use std::ops::Range;

use serde_json::Number;

/// How deep lists and objects may be nested. The configuration needs 6.
const MAX_DEPTH: usize = 64;

/// A file with more faults than this is hardly JSON; reading stops.
const MAX_FAULTS: usize = 200;

/// A value and where it stands, in bytes. Like all that holds values of the file, it has no `Debug`, which could tell
/// a secret.
pub(super) struct Node {
    pub start: usize,
    pub end: usize,
    pub value: Value,
}

/// A JSON value.
pub(super) enum Value {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Object(Vec<Member>),
    /// Something that was already reported.
    Broken,
}

/// A key with its value. Keys of one object differ: of two equal ones the first is kept.
pub(super) struct Member {
    pub key: String,
    pub key_start: usize,
    pub value: Node,
}

/// What is wrong with the text.
#[derive(Debug)]
pub(super) struct Fault {
    /// Byte offset.
    pub at: usize,
    /// Byte offset of what it refers to: its line stands in for `{line}` in `message`.
    pub first: Option<usize>,
    pub path: String,
    pub message: String,
    pub help: String,
}

/// What came of reading a text.
pub(super) struct Reading {
    /// Absent if the reader lost its way.
    pub root: Option<Node>,
    pub faults: Vec<Fault>,
    /// Where the reader gave up: nothing is known of what follows.
    pub lost_at: Option<usize>,
    /// Where each key stands that has a value.
    pub keys: Vec<Range<usize>>,
    /// What was read over and is in no tree: comments, values of repeated keys.
    pub dropped: Vec<Range<usize>>,
}

/// Reads a whole text.
pub(super) fn read(text: &str) -> Reading {
    let mut reader = Reader {
        text,
        bytes: text.as_bytes(),
        at: 0,
        path: Vec::new(),
        faults: Vec::new(),
        keys: Vec::new(),
        dropped: Vec::new(),
    };
    let root = reader.document();
    let lost_at = root.is_err().then_some(reader.at);
    Reading { root: root.ok(), faults: reader.faults, lost_at, keys: reader.keys, dropped: reader.dropped }
}

impl Node {
    /// The member of this object with this key.
    pub(super) fn member(&self, key: &str) -> Option<&Member> {
        match &self.value {
            Value::Object(members) => members.iter().find(|m| m.key == key),
            _ => None,
        }
    }

    /// What it is, in the words of messages.
    pub(super) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "null",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Object(_) => "an object",
            Value::Broken => "nothing that can be read",
        }
    }
}

/// The fault is noted and reading cannot go on.
struct Lost;

type Read<T> = Result<T, Lost>;

enum Step {
    Key(String),
    Index(usize),
}

struct Reader<'t> {
    text: &'t str,
    bytes: &'t [u8],
    at: usize,
    path: Vec<Step>,
    faults: Vec<Fault>,
    keys: Vec<Range<usize>>,
    dropped: Vec<Range<usize>>,
}

impl Reader<'_> {
    fn document(&mut self) -> Read<Node> {
        if self.text.starts_with('\u{feff}') {
            self.fault(0, "the file starts with a byte order mark", "save it as UTF-8 without BOM")?;
            self.at = '\u{feff}'.len_utf8();
        }
        self.space()?;
        if self.peek().is_none() {
            return self.lost(self.at, "the file is empty", "write at least {\"services\": {}}");
        }
        let root = self.value()?;
        self.space()?;
        if self.peek().is_some() {
            let found = self.found();
            let help = "a file holds one object; remove what follows it, or look for a brace too many above";
            return self.lost(self.at, format!("{found} after the end of the configuration"), help);
        }
        Ok(root)
    }

    fn value(&mut self) -> Read<Node> {
        let start = self.at;
        let value = match self.peek() {
            Some(b'{') => self.object()?,
            Some(b'[') => self.list()?,
            Some(b'"') => self.string()?.map_or(Value::Broken, Value::Text),
            Some(b'\'') => self.single_quoted()?,
            Some(b'-' | b'+' | b'.' | b'0'..=b'9') => self.number()?,
            Some(b) if b.is_ascii_alphabetic() => self.word()?,
            _ => {
                let found = self.found();
                return self.lost(start, format!("a value is missing: found {found}"), VALUES);
            }
        };
        Ok(Node { start, end: self.at, value })
    }

    fn object(&mut self) -> Read<Value> {
        self.deeper()?;
        self.at += 1;
        let mut members = Members::default();
        loop {
            self.space()?;
            match self.peek() {
                Some(b'}') => break,
                None => return self.unclosed("}"),
                _ => {}
            }
            let key_start = self.at;
            let key = self.key()?;
            let key_end = self.at;
            self.space()?;
            if self.peek() == Some(b':') {
                self.at += 1;
                self.keys.push(key_start..key_end);
            } else {
                let found = self.found();
                return self.lost(self.at, format!("\":\" is missing after the key: found {found}"), MEMBER);
            }
            self.space()?;
            self.path.push(Step::Key(key.clone().unwrap_or_default()));
            let value = self.value()?;
            let range = value.start..value.end;
            if let Some(key) = key
                && let Some(first) = members.add(Member { key, key_start, value })
            {
                self.dropped.push(range);
                let Some(Step::Key(key)) = self.path.last() else { return Err(Lost) };
                let message = format!("key {} is here twice, first in line {{line}}", super::quote_key(key));
                self.push(key_start, Some(first), message, "remove one of the two".into())?;
            }
            self.path.pop();
            if !self.comma(b'}')? {
                break;
            }
        }
        self.at += 1;
        Ok(Value::Object(members.list))
    }

    fn list(&mut self) -> Read<Value> {
        self.deeper()?;
        self.at += 1;
        let mut list = Vec::new();
        loop {
            self.space()?;
            match self.peek() {
                Some(b']') => break,
                None => return self.unclosed("]"),
                _ => {}
            }
            self.path.push(Step::Index(list.len()));
            list.push(self.value()?);
            self.path.pop();
            if !self.comma(b']')? {
                break;
            }
        }
        self.at += 1;
        Ok(Value::List(list))
    }

    /// After a member or element: whether another follows. Leaves the closing bracket to be read.
    fn comma(&mut self, close: u8) -> Read<bool> {
        let end = self.at;
        self.space()?;
        match self.peek() {
            Some(b',') => {
                let comma = self.at;
                self.at += 1;
                self.space()?;
                if self.peek() == Some(close) {
                    self.fault(comma, "a comma before the closing bracket", "remove the comma")?;
                }
                Ok(true)
            }
            Some(b) if b == close => Ok(false),
            Some(b'"') => {
                self.fault(end, "a comma is missing", "write a comma between two entries")?;
                Ok(true)
            }
            Some(b'{' | b'[' | b'-' | b'0'..=b'9') if close == b']' => {
                self.fault(end, "a comma is missing", "write a comma between two entries")?;
                Ok(true)
            }
            None => self.unclosed(if close == b'}' { "}" } else { "]" }),
            _ => {
                let found = self.found();
                let message = format!("\",\" or \"{}\" is missing: found {found}", char::from(close));
                self.lost(self.at, message, "look for a missing quote, comma or bracket just before")
            }
        }
    }

    fn unclosed<T>(&mut self, close: &str) -> Read<T> {
        let message = format!("the file ends where \"{close}\" is missing");
        self.lost(self.at, message, "close every bracket that is open; the file may have been cut off")
    }

    fn deeper(&mut self) -> Read<()> {
        if self.path.len() < MAX_DEPTH {
            return Ok(());
        }
        self.lost(self.at, format!("more than {MAX_DEPTH} brackets are open"), "no field is nested that deep")
    }

    /// A key; `None` if it is there but was reported.
    fn key(&mut self) -> Read<Option<String>> {
        let start = self.at;
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'\'') => match self.single_quoted()? {
                Value::Text(key) => Ok(Some(key)),
                _ => Ok(None),
            },
            Some(b) if b.is_ascii_alphabetic() || b == b'_' || b == b'$' => {
                while self.peek().is_some_and(|b| b.is_ascii_alphanumeric() || b"_-$.".contains(&b)) {
                    self.at += 1;
                }
                self.fault(start, "a key without quotes", "write keys in double quotes")?;
                Ok(Some(self.text[start..self.at].into()))
            }
            _ => {
                let found = self.found();
                self.lost(start, format!("a key is missing: found {found}"), MEMBER)
            }
        }
    }

    /// A text in double quotes; `None` if something in it was reported.
    fn string(&mut self) -> Read<Option<String>> {
        let start = self.at;
        self.at += 1;
        let mut out = String::new();
        let mut good = true;
        loop {
            let run = self.at;
            while self.peek().is_some_and(|b| b != b'"' && b != b'\\' && b >= 0x20) {
                self.at += 1;
            }
            out.push_str(&self.text[run..self.at]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(good.then_some(out));
                }
                Some(b'\\') => match self.escape() {
                    Some(c) => out.push(c),
                    None => {
                        good = false;
                        self.fault(self.at, "a backslash that means nothing in JSON", ESCAPES)?;
                        self.at += 1;
                    }
                },
                None | Some(b'\n' | b'\r') => {
                    self.at = start;
                    return self.lost(
                        start,
                        "the closing quote is missing",
                        "end the text with a double quote in the same line; a line break in it is written \\n",
                    );
                }
                Some(_) => {
                    good = false;
                    self.fault(self.at, "a control character in a text", "write a tab as \\t")?;
                    self.at += 1;
                }
            }
        }
    }

    /// Reads an escape; where it is none, stays at the backslash.
    fn escape(&mut self) -> Option<char> {
        let simple = match self.bytes.get(self.at + 1)? {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode_escape(),
            _ => return None,
        };
        self.at += 2;
        Some(simple)
    }

    fn unicode_escape(&mut self) -> Option<char> {
        let unit = |at: usize| {
            let hex = self.bytes.get(at..at + 6)?;
            let digits = hex.strip_prefix(b"\\u")?;
            digits.iter().try_fold(0u32, |n, &b| Some(n * 16 + char::from(b).to_digit(16)?))
        };
        let high = unit(self.at)?;
        let (c, length) = match high {
            0xd800..0xdc00 => {
                let low = unit(self.at + 6).filter(|low| (0xdc00..0xe000).contains(low))?;
                (char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00))?, 12)
            }
            _ => (char::from_u32(high)?, 6),
        };
        self.at += length;
        Some(c)
    }

    fn single_quoted(&mut self) -> Read<Value> {
        let start = self.at;
        let line = self.text[start + 1..].split(['\n', '\r']).next().unwrap_or_default();
        let Some(length) = line.find('\'') else {
            return self.lost(start, "a single quote", "JSON knows double quotes only");
        };
        self.at = start + length + 2;
        self.fault(start, "single quotes around a text", "JSON knows double quotes only")?;
        Ok(Value::Text(line[..length].into()))
    }

    fn number(&mut self) -> Read<Value> {
        let start = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_alphanumeric() || b"+-._".contains(&b)) {
            self.at += 1;
        }
        let token = &self.text[start..self.at];
        if !is_number(token) {
            let help = "write numbers like 30, -1 or 0.5: no leading zero or plus, no unit, no hexadecimal";
            self.fault(start, "not a number as JSON writes it", help)?;
            return Ok(Value::Broken);
        }
        let whole = if token == "-0" { None } else { token.parse::<i64>().ok().map(Number::from) };
        let whole = whole.or_else(|| token.parse::<u64>().ok().map(Number::from));
        match whole.or_else(|| token.parse::<f64>().ok().and_then(Number::from_f64)) {
            Some(number) => Ok(Value::Number(number)),
            None => {
                self.fault(start, "a number too large", "no field needs one as large")?;
                Ok(Value::Broken)
            }
        }
    }

    fn word(&mut self) -> Read<Value> {
        let start = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_') {
            self.at += 1;
        }
        let (message, help) = match &self.text[start..self.at] {
            "true" => return Ok(Value::Bool(true)),
            "false" => return Ok(Value::Bool(false)),
            "null" => return Ok(Value::Null),
            word @ ("True" | "TRUE" | "yes" | "on") => (format!("{word} is not JSON"), "write true"),
            word @ ("False" | "FALSE" | "no" | "off") => (format!("{word} is not JSON"), "write false"),
            word @ ("None" | "nil" | "undefined" | "NULL") => {
                (format!("{word} is not JSON"), "leave the key out to get its default")
            }
            word @ ("NaN" | "Infinity" | "inf") => {
                (format!("{word} is not a number in JSON"), "write a number")
            }
            _ => {
                self.at = start;
                return self.lost(start, "a word without quotes", VALUES);
            }
        };
        self.push(start, None, message, help.into())?;
        Ok(Value::Broken)
    }

    /// Skips white space, and comments after reporting them.
    fn space(&mut self) -> Read<()> {
        loop {
            while self.peek().is_some_and(|b| b" \t\n\r".contains(&b)) {
                self.at += 1;
            }
            let rest = &self.text[self.at..];
            let length = if rest.starts_with("//") || rest.starts_with('#') {
                rest.find('\n').unwrap_or(rest.len())
            } else if rest.starts_with("/*") {
                rest.find("*/").map_or(rest.len(), |end| end + 2)
            } else {
                return Ok(());
            };
            self.dropped.push(self.at..self.at + length);
            self.fault(self.at, "a comment", "JSON has none: remove it, or use \"description\"")?;
            self.at += length;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// What stands here, without repeating letters or digits, which may be a secret.
    fn found(&self) -> String {
        match self.text[self.at..].chars().next() {
            None => "the end of the file".into(),
            Some('"') => "a text".into(),
            Some(c) if c.is_ascii_punctuation() => format!("\"{c}\""),
            Some(c) if c.is_alphabetic() => "a letter".into(),
            Some(c) if c.is_numeric() => "a digit".into(),
            Some(c) => format!("the character U+{:04X}", u32::from(c)),
        }
    }

    fn fault(&mut self, at: usize, message: &str, help: &str) -> Read<()> {
        self.push(at, None, message.into(), help.into())
    }

    fn lost<T>(&mut self, at: usize, message: impl Into<String>, help: &str) -> Read<T> {
        self.push(at, None, message.into(), help.into())?;
        Err(Lost)
    }

    fn push(&mut self, at: usize, first: Option<usize>, message: String, help: String) -> Read<()> {
        let mut path = super::place::Shown::default();
        for step in &self.path {
            match step {
                Step::Key(key) => path.key(key),
                Step::Index(index) => path.index(*index),
            }
        }
        self.faults.push(Fault { at, first, path: path.0, message, help });
        if self.faults.len() < MAX_FAULTS { Ok(()) } else { Err(Lost) }
    }
}

const VALUES: &str = "write a text in double quotes, a number, true, false, a list or an object";
const MEMBER: &str = "write \"key\": value";
const ESCAPES: &str =
    "write a backslash as \\\\; the others are \\\" \\/ \\b \\f \\n \\r \\t and \\u with four hex digits";

/// Members of an object; a map joins in when there are many, so that a large object is not quadratic.
#[derive(Default)]
struct Members {
    list: Vec<Member>,
    places: HashMap<String, usize>,
}

impl Members {
    /// Adds one unless its key is there; then gives the place of that key.
    fn add(&mut self, member: Member) -> Option<usize> {
        const FEW: usize = 16;
        if self.list.len() == FEW {
            self.places = self.list.iter().map(|m| (m.key.clone(), m.key_start)).collect();
        }
        let first = if self.list.len() < FEW {
            self.list.iter().find(|m| m.key == member.key).map(|m| m.key_start)
        } else {
            self.places.get(&member.key).copied()
        };
        if first.is_none() {
            if self.list.len() >= FEW {
                self.places.insert(member.key.clone(), member.key_start);
            }
            self.list.push(member);
        }
        first
    }
}

/// The grammar of RFC 8259, section 6.
fn is_number(token: &str) -> bool {
    let digits = |text: &mut &str| {
        let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
        let count = text.len() - rest.len();
        *text = rest;
        count
    };
    let mut rest = token.strip_prefix('-').unwrap_or(token);
    let leading_zero = rest.starts_with('0');
    let whole = digits(&mut rest);
    if whole == 0 || (leading_zero && whole > 1) {
        return false;
    }
    if let Some(fraction) = rest.strip_prefix('.') {
        rest = fraction;
        if digits(&mut rest) == 0 {
            return false;
        }
    }
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        rest = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if digits(&mut rest) == 0 {
            return false;
        }
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests;
