//! Problems as a person at a terminal reads them.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::ops::Range;

use serde_json::Value as Json;

use super::Problem;
use super::json::{Node, Value};
use super::place::Document;
use super::schema::{properties, resolve, shared};

/// Characters of a source line that are shown.
const WIDTH: usize = 100;

/// What problems are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The configuration is not used.
    Error,
    /// It is used all the same.
    Warning,
}

/// Every problem with its source line, and a closing count; nothing for none. `text` gives the text of a file by its name; without it
/// the line is left out. Values that may be secret are shown as `***`.
pub fn render(problems: &[Problem], severity: Severity, text: impl Fn(&str) -> Option<String>) -> String {
    let mut sources: HashMap<&str, Option<Source>> = HashMap::new();
    let mut out = String::new();
    for problem in problems {
        let Problem { file, line, column, path, message, help } = problem;
        let path = if path.is_empty() { String::new() } else { format!("{path}: ") };
        let word = if severity == Severity::Warning { "warning: " } else { "" };
        let _ = writeln!(out, "{file}:{line}:{column}: {word}{path}{message}");
        let source = sources.entry(file).or_insert_with(|| text(file).map(|t| Source::new(file, t)));
        if let Some(source) = source {
            source.excerpt(*line, *column, &mut out);
        }
        if !help.is_empty() {
            let _ = writeln!(out, "  help: {help}");
        }
        out.push('\n');
    }
    let word = if severity == Severity::Warning { "warning" } else { "problem" };
    let _ = match problems.len() {
        0 => Ok(()),
        1 => writeln!(out, "1 {word}"),
        count => writeln!(out, "{count} {word}s"),
    };
    out
}

/// A file with the parts of it that may be shown. All else could be a secret: better a mask too many.
struct Source {
    doc: Document,
    public: Vec<Range<usize>>,
    /// What may be secret, what was read over, and what follows the place where the reader gave up.
    private: Vec<Range<usize>>,
}

impl Source {
    fn new(file: &str, text: String) -> Self {
        let end = text.len();
        let doc = Document::new(file.into(), text);
        let keys = doc.reading.keys.iter().filter(|r| !doc.text()[(*r).clone()].contains(['=', ':']));
        let mut public: Vec<_> = keys.cloned().collect();
        let mut private = doc.reading.dropped.clone();
        match &doc.reading.root {
            Some(root) => Sorter { public: &mut public, private: &mut private }.sort(Some(shared()), root),
            // Where a text belongs is not known without the whole, so that only keys are shown.
            None => private.push(doc.reading.lost_at.unwrap_or(0)..end),
        }
        public.sort_by_key(|r| r.start);
        private.sort_by_key(|r| r.start);
        Self { doc, public, private }
    }

    fn shown(&self, byte: usize, c: char) -> bool {
        let inside = |ranges: &[Range<usize>]| {
            let next = ranges.partition_point(|r| r.end <= byte);
            ranges.get(next).is_some_and(|r| r.contains(&byte))
        };
        !inside(&self.private) && (inside(&self.public) || "{}[]:, \t".contains(c))
    }

    fn excerpt(&self, line: usize, column: usize, out: &mut String) {
        let Some((start, text)) = self.doc.line(line) else { return };
        let mut shown = Vec::new();
        let mut caret = None;
        let mut masked = false;
        let characters = text.char_indices().filter(|(_, c)| *c != '\u{feff}');
        for (count, (offset, c)) in characters.enumerate() {
            if count + 1 == column {
                caret = Some(shown.len());
            }
            let was_masked = std::mem::replace(&mut masked, !self.shown(start + offset, c));
            if !masked {
                shown.push(if c.is_control() { ' ' } else { c });
            } else if !was_masked {
                shown.extend("***".chars());
            }
        }
        let caret = caret.unwrap_or(shown.len());
        let from = if caret > WIDTH * 3 / 4 { caret - WIDTH / 2 } else { 0 };
        let indent = shown.iter().skip(from).take_while(|c| **c == ' ').count().min(caret - from);
        let visible: String = shown.iter().skip(from + indent).take(WIDTH).collect();
        if !visible.contains(char::is_alphanumeric) {
            return;
        }
        let _ = writeln!(out, "{line:>5} | {}", visible.trim_end());
        let _ = writeln!(out, "      | {:>1$}", "^", caret - from - indent + 1);
    }
}

/// Sorts the values of a file into public ones and those that may be secret.
struct Sorter<'s> {
    public: &'s mut Vec<Range<usize>>,
    private: &'s mut Vec<Range<usize>>,
}

impl Sorter<'_> {
    /// Public is what stands under a key that the schema knows, other than `environment` and `headers`. An unknown
    /// key may be one of these, misspelt, or above them; only a number or a word of its own is no secret. An address
    /// may have a password in it.
    fn sort(&mut self, schema: Option<&Json>, node: &Node) {
        match &node.value {
            Value::Object(members) => {
                let known = schema.and_then(|s| properties(shared(), s));
                let others = schema.and_then(|s| resolve(shared(), s).get("additionalProperties"));
                let others = others.filter(|s| s.is_object());
                for member in members {
                    let value = &member.value;
                    let inner = known.and_then(|k| k.get(&member.key)).or(others);
                    if ["environment", "headers"].contains(&member.key.to_ascii_lowercase().as_str()) {
                        self.hide(value);
                    } else if let Some(inner) = inner {
                        self.sort(Some(branch(inner, value)), value);
                    } else if matches!(value.value, Value::Bool(_) | Value::Number(_) | Value::Null) {
                        self.public.push(value.start..value.end);
                    } else {
                        self.hide(value);
                    }
                }
            }
            Value::List(list) => {
                let items = schema.map(|s| &resolve(shared(), s)["items"]);
                for node in list {
                    self.sort(items.map(|s| branch(s, node)), node);
                }
            }
            Value::Text(text) if text.contains('@') && text.contains(':') => self.hide(node),
            _ => self.public.push(node.start..node.end),
        }
    }

    fn hide(&mut self, node: &Node) {
        match &node.value {
            Value::Object(members) => members.iter().for_each(|m| self.hide(&m.value)),
            Value::List(list) => list.iter().for_each(|n| self.hide(n)),
            _ => self.private.push(node.start..node.end),
        }
    }
}

/// The form of an `anyOf` that an object takes: of the others, none has keys in it.
fn branch<'s>(schema: &'s Json, node: &Node) -> &'s Json {
    let schema = resolve(shared(), schema);
    let Value::Object(_) = node.value else { return schema };
    let branches = schema.get("anyOf").and_then(Json::as_array).into_iter().flatten();
    branches.map(|b| resolve(shared(), b)).find(|b| b["type"] == "object").unwrap_or(schema)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, line: usize, column: usize) -> String {
        let problem = Problem {
            file: "f".into(),
            line,
            column,
            path: String::new(),
            message: "m".into(),
            help: String::new(),
        };
        render(&[problem], Severity::Error, |_| Some(text.into()))
    }

    #[test]
    fn the_caret_stands_under_the_column() {
        assert_eq!(
            shown("{\n  \"ä\": 1}", 2, 8),
            "f:2:8: m\n    2 | \"ä\": 1}\n      |      ^\n\n1 problem\n"
        );
        assert_eq!(shown("{\n\t\"a\": 1}", 2, 2), "f:2:2: m\n    2 | \"a\": 1}\n      | ^\n\n1 problem\n");
    }

    #[test]
    fn long_lines_are_cut_and_control_characters_not_sent() {
        let text = format!("{{\"services\": {{}}, {} \"x\u{1b}[2J\": 1}}", " ".repeat(1000));
        let out = shown(&text, 1, 1020);
        assert!(out.len() < 400 && !out.contains('\u{1b}'), "{out:?}");
        shown("{}", 9, 9);
        shown("{}", 1, 900);
    }

    #[test]
    fn what_the_schema_knows_is_shown() {
        let text = r#"{"services": {"a": {"health_check": {"expected_status": ["2xx", 301]}, "colour": 1}}}"#;
        let out = shown(text, 1, text.find("\"colour\"").unwrap() + 1);
        assert!(out.contains(r#"["2xx", 301]"#), "{out}");
    }

    #[test]
    fn values_that_may_be_secret_are_masked_and_the_caret_moves_along() {
        for text in [
            r#"{"services": {"a": {"environment": {"K": "hunter2", "L": 12345678}, "colour": 1}}}"#,
            r#"{"services": {"a": {"health_check": {"headers": {"K": "hunter2"}, "colour": 1}}}}"#,
            r#"{"services": {"a": {"env": {"K": "hunter2"}}, "colour": 1}}"#,
            r#"{"services": {"a": {"environment": ["hunter2"], "colour": 1}}}"#,
            r#"{"services": {"a": {"health_check": {"endpoint": "http://u:hunter2@h", "colour": 1}}}}"#,
            r#"{"services": {"a": {"environment": {"K": "hunter2"} "colour" 1, "L": "hunter2"}}}"#,
            r#"{"services": {"a": {"colour", "environment": {"K": "hunter2"}}}}"#,
            r#"{"colour": {"environment": {"K": "hunter2}}}}"#,
        ] {
            let column = text.find("\"colour\"").unwrap() + 1;
            let out = shown(text, 1, column);
            assert!(!out.contains("hunter2") && !out.contains("12345678"), "{out}");
            let lines: Vec<_> = out.lines().collect();
            if lines[1].contains("colour") {
                assert_eq!(lines[1].find("\"colour\""), lines[2].find('^'), "{out}");
            }
        }
    }
}
