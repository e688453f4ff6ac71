//! Checks what was read against the schema, and notes which parts are wrong.
//!
//! Wrong parts are left out by what follows, so that everything else is still looked at in the same go. Values of
//! environment variables and headers are free texts to the schema: no message here repeats one.

use std::collections::HashMap;

use serde_json::{Map, Value as Json};

use super::json::{Node, Value};
use super::part::Bad;
use super::place::At;
use super::report::Report;
use super::scalar::{rule, signal_names};
use super::schema::resolve;
use super::{list_words, quote, quote_key};
use crate::spelling::nearest;

/// The wrong parts of a document. The report says what is wrong with them.
pub(super) fn check(root: &Json, at: &At<'_>, report: &mut Report) -> Bad {
    let mut walker = Walker { root, report, bad: Bad::new() };
    if let Some(node) = at.node() {
        walker.walk(at, root, node);
    }
    walker.bad
}

struct Walker<'w> {
    root: &'w Json,
    report: &'w mut Report,
    bad: Bad,
}

impl<'w> Walker<'w> {
    fn walk(&mut self, at: &At<'_>, schema: &'w Json, node: &Node) {
        if !self.is_good(at, schema, node) {
            self.bad.insert(node.start);
        }
    }

    /// Whether the node is right; its parts may still be wrong.
    fn is_good(&mut self, at: &At<'_>, schema: &'w Json, node: &Node) -> bool {
        let schema = resolve(self.root, schema);
        if matches!(node.value, Value::Broken) {
            return false;
        }
        if let Some(branches) = schema.get("anyOf").and_then(Json::as_array) {
            let fits = |branch: &&Json| fits(resolve(self.root, branch), node);
            return match branches.iter().find(fits) {
                Some(branch) => self.is_good(at, branch, node),
                None => self.wrong_kind(at, schema, node),
            };
        }
        if let Some(words) = words(schema) {
            return self.word(at, schema, node, &words);
        }
        if !fits(schema, node) {
            return self.wrong_kind(at, schema, node);
        }
        match &node.value {
            Value::Null | Value::Broken => false,
            Value::Bool(_) => true,
            Value::Number(number) => self.number(at, schema, number),
            Value::Text(text) => self.text(at, schema, text),
            Value::List(list) => self.list(at, schema, list),
            Value::Object(_) => self.object(at, schema, node),
        }
    }

    fn wrong_kind(&mut self, at: &At<'_>, schema: &Json, node: &Node) -> bool {
        let expected = expected(self.root, schema);
        let help = match &node.value {
            Value::Null => "leave the key out to get its default".into(),
            Value::Text(text) if fits_unquoted(schema, text) => format!("write {text} without quotes"),
            Value::Number(_) | Value::Bool(_) if schema["type"] == "string" => {
                "write it in double quotes".into()
            }
            Value::Text(_) if schema["type"] == "array" => "write it in brackets: [\"..\"]".into(),
            _ => default_help(schema),
        };
        self.report.error(at, format!("expected {expected}, found {}", node.kind()), help);
        false
    }

    /// One of a fixed set of words.
    fn word(&mut self, at: &At<'_>, schema: &Json, node: &Node, words: &[&str]) -> bool {
        let Value::Text(text) = &node.value else { return self.wrong_kind(at, schema, node) };
        if words.contains(&text.as_str()) {
            return true;
        }
        let help = match nearest(text, words.iter().copied()) {
            Some(word) => format!("did you mean \"{word}\"? It takes {}", list_words(words)),
            None => format!("it takes {}", list_words(words)),
        };
        self.report.error(at, format!("{} is not known here", quote(text)), help);
        false
    }

    fn number(&mut self, at: &At<'_>, schema: &Json, number: &serde_json::Number) -> bool {
        let value = number.as_f64().unwrap_or(f64::NAN);
        let limit = |name: &str| schema.get(name).and_then(Json::as_f64);
        if limit("minimum").is_none_or(|least| value >= least)
            && limit("maximum").is_none_or(|most| value <= most)
        {
            return true;
        }
        let message = format!("{number} is out of range: expected {}", expected(self.root, schema));
        self.report.error(at, message, default_help(schema));
        false
    }

    fn text(&mut self, at: &At<'_>, schema: &Json, text: &str) -> bool {
        if let Some((holds, help)) = schema.get("pattern").and_then(Json::as_str).and_then(rule)
            && !holds(text)
        {
            let near = nearest(text.strip_prefix("SIG").unwrap_or(text), signal_names().map(|s| &s[3..]));
            let help = match near {
                Some(name) if schema["pattern"] == super::scalar::SIGNAL => {
                    format!("did you mean \"SIG{name}\"?")
                }
                _ => help.into(),
            };
            self.report.error(at, format!("{} is not valid here", quote(text)), help);
            return false;
        }
        let length = text.chars().count() as u64;
        if schema.get("minLength").and_then(Json::as_u64).is_some_and(|least| length < least) {
            self.report.error(at, "the text is empty", "write a text, or leave the key out");
            return false;
        }
        if let Some(most) = schema.get("maxLength").and_then(Json::as_u64).filter(|most| length > *most) {
            self.report.error(at, format!("the text has {length} characters"), format!("it may have {most}"));
            return false;
        }
        true
    }

    fn list(&mut self, at: &At<'_>, schema: &'w Json, list: &[Node]) -> bool {
        if list.is_empty() && schema.get("minItems").is_some() {
            self.report.error(at, "the list is empty", "write an entry, or leave the key out");
            return false;
        }
        let items = &schema["items"];
        let unique = schema.get("uniqueItems").is_some();
        let mut seen = HashMap::new();
        for (index, node) in list.iter().enumerate() {
            let at = at.index(index);
            self.walk(&at, items, node);
            if unique
                && let Value::Text(text) = &node.value
                && let Some(first) = seen.insert(text, index)
            {
                let message = format!("{} is here twice, first as entry {}", quote(text), first + 1);
                self.report.error(&at, message, "remove one of the two");
                self.bad.insert(node.start);
            }
        }
        true
    }

    fn object(&mut self, at: &At<'_>, schema: &'w Json, node: &Node) -> bool {
        let Value::Object(members) = &node.value else { return false };
        let known = schema.get("properties").and_then(Json::as_object);
        let others = schema.get("additionalProperties").filter(|s| s.is_object());
        let key_rule = schema.get("propertyNames").and_then(|s| rule(s.get("pattern")?.as_str()?));
        for member in members {
            let at = at.of(member);
            let named = known.and_then(|known| known.get(&member.key));
            match (named.or(others), key_rule) {
                (Some(_), Some((holds, help))) if !holds(&member.key) => {
                    self.report.error_key(&at, format!("{} is not valid here", quote_key(&member.key)), help);
                    self.bad.insert(member.value.start);
                }
                (Some(schema), _) => self.walk(&at, schema, &member.value),
                (None, _) => {
                    self.bad.insert(member.value.start);
                    if self.report.room() {
                        let help = unknown_help(known, &member.key, &member.value);
                        self.report.error_key(&at, format!("unknown key {}", quote_key(&member.key)), help);
                    }
                }
            }
        }
        let required = schema.get("required").and_then(Json::as_array).into_iter().flatten();
        for key in required.filter_map(Json::as_str).filter(|key| node.member(key).is_none()) {
            let schema = known.and_then(|known| known.get(key)).map(|s| (s, resolve(self.root, s)));
            let value = schema.map_or_else(String::new, |(own, s)| {
                let example = own.pointer("/examples/0").map(Json::to_string);
                example.unwrap_or_else(|| expected(self.root, s))
            });
            let help = format!("add \"{key}\": {value}");
            self.report.error_key(at, format!("key \"{key}\" is missing"), help);
        }
        true
    }
}

fn unknown_help(known: Option<&Map<String, Json>>, key: &str, value: &Node) -> String {
    let Some(known) = known else { return String::new() };
    if value.member("command").is_some() && known.contains_key("services") {
        return "this looks like a service: put it into \"services\"".into();
    }
    let words: Vec<&str> = known.keys().map(String::as_str).collect();
    match nearest(key, words.iter().copied()) {
        Some(word) => format!("did you mean \"{word}\"?"),
        None => format!("known here: {}", words.join(", ")),
    }
}

/// The words of an enumeration.
fn words(schema: &Json) -> Option<Vec<&str>> {
    if let Some(list) = schema.get("enum").and_then(Json::as_array) {
        return Some(list.iter().filter_map(Json::as_str).collect());
    }
    let branches = schema.get("oneOf")?.as_array()?;
    Some(branches.iter().filter_map(|b| b.get("const")?.as_str()).collect())
}

/// Whether the kind of a value is the one that a schema asks for.
fn fits(schema: &Json, node: &Node) -> bool {
    let Some(kind) = schema.get("type").and_then(Json::as_str) else { return true };
    match (&node.value, kind) {
        (Value::Number(n), "integer") => !n.is_f64() || n.as_f64().is_some_and(|f| f.fract() == 0.0),
        (Value::Bool(_), "boolean")
        | (Value::Number(_), "number")
        | (Value::Text(_), "string")
        | (Value::List(_), "array")
        | (Value::Object(_), "object") => true,
        _ => false,
    }
}

fn fits_unquoted(schema: &Json, text: &str) -> bool {
    match schema["type"].as_str() {
        Some("boolean") => text == "true" || text == "false",
        Some("integer") => text.len() < 20 && text.parse::<i64>().is_ok(),
        Some("number") => text.len() < 20 && text.parse::<f64>().is_ok_and(f64::is_finite),
        _ => false,
    }
}

/// What a schema asks for, in words.
fn expected(root: &Json, schema: &Json) -> String {
    if let Some(title) = schema.get("title").and_then(Json::as_str)
        && schema["type"] != "object"
    {
        return title.into();
    }
    if let Some(words) = words(schema) {
        return list_words(&words);
    }
    let bound = |name: &str| schema.get(name);
    let range = |what: &str| match (bound("minimum"), bound("maximum")) {
        (Some(least), Some(most)) => format!("{what} from {least} to {most}"),
        _ => what.into(),
    };
    match schema["type"].as_str() {
        Some("string") => "a text".into(),
        Some("integer") => range("a whole number"),
        Some("number") => range("a number"),
        Some("boolean") => "true or false".into(),
        Some("array") => match expected(root, resolve(root, &schema["items"])).as_str() {
            "a text" => "a list of texts".into(),
            _ => "a list".into(),
        },
        _ => "an object".into(),
    }
}

/// What to write instead, from the examples and the default in the schema.
fn default_help(schema: &Json) -> String {
    match (schema.pointer("/examples/0"), schema.get("default")) {
        (Some(example), _) => format!("for example {example}"),
        (None, Some(default)) if !default.is_object() && !default.is_array() => {
            format!("the default is {default}")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_would_fit_without_quotes() {
        let nines = |count: usize| "9".repeat(count);
        for (kind, fits, does_not) in [
            ("boolean", vec!["true".into(), "false".into()], vec!["yes".to_owned(), nines(1)]),
            (
                "integer",
                vec!["-5".into(), nines(18)],
                vec!["1.5".into(), nines(20), format!("0{}", nines(19))],
            ),
            ("number", vec!["1.5".into(), nines(19)], vec!["inf".into(), "x".into(), nines(20)]),
            ("string", vec![], vec!["x".into()]),
        ] {
            for (texts, expected) in [(fits, true), (does_not, false)] {
                for text in texts {
                    assert_eq!(fits_unquoted(&json!({"type": kind}), &text), expected, "{kind} {text}");
                }
            }
        }
    }
}
