//! What is read is what JSON says, and what is wrong is named.

use super::*;
use proptest::prelude::*;

fn plain(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null | Value::Broken => serde_json::Value::Null,
        Value::Bool(b) => (*b).into(),
        Value::Number(n) => n.clone().into(),
        Value::Text(t) => t.clone().into(),
        Value::List(list) => list.iter().map(plain).collect(),
        Value::Object(members) => members.iter().map(|m| (m.key.clone(), plain(&m.value))).collect(),
    }
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(5, 64, 24, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..24).prop_map(Into::into),
            prop::collection::btree_map(any::<String>(), inner, 0..24)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_serde_json_writes_is_read_back(value in any_json(), pretty: bool) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
        let text = text.unwrap();
        let reading = read(&text);
        prop_assert!(reading.faults.is_empty(), "{:?}", reading.faults);
        prop_assert_eq!(plain(&reading.root.unwrap()), value);
    }

    #[test]
    fn any_text_is_judged_as_serde_json_judges_it(text in r#"([\[\]{}:,"'\\/*# \n]|[0-9eE+.-]|true|null|\\u[dD][89cC]00|"a"|.){0,40}"#) {
        let reading = read(&text);
        let theirs = serde_json::from_str::<serde_json::Value>(&text).is_ok();
        let twice = reading.faults.iter().any(|f| f.first.is_some());
        prop_assert!(reading.faults.is_empty() == theirs || twice, "{text:?}: {:?}", reading.faults);
        prop_assert!(reading.root.is_some() || !reading.faults.is_empty());
        for fault in reading.faults {
            prop_assert!(fault.at <= text.len() && text.is_char_boundary(fault.at));
        }
    }
}

#[test]
fn nesting_is_bounded() {
    let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
    assert!(read(&deep(MAX_DEPTH)).faults.is_empty());
    assert_eq!(read(&deep(MAX_DEPTH + 1)).faults.len(), 1);
    assert_eq!(read(&"[".repeat(1_000_000)).faults.len(), 1);
}

#[test]
fn faults_are_bounded() {
    assert_eq!(read(&"#\n".repeat(10_000)).faults.len(), MAX_FAULTS);
}

#[test]
fn the_first_of_two_equal_keys_is_kept_in_small_and_large_objects() {
    for count in [1, 15, 16, 17, 40] {
        let members: String = (0..count).map(|n| format!("\"k{n}\": 1, ")).collect();
        let reading = read(&format!("{{{members} \"k0\": 2}}"));
        assert_eq!(reading.faults.len(), 1, "{count}");
        assert_eq!(reading.faults[0].first, Some(1));
        assert_eq!(plain(&reading.root.unwrap())["k0"], 1);
        let last = count - 1;
        assert_eq!(read(&format!("{{{members} \"k{last}\": 2}}")).faults.len(), 1, "{count}");
    }
}

#[test]
fn several_slips_are_reported_in_one_go() {
    let text = "\u{feff}{ // c\n 'a': True, b: 01,\n \"c\": [1 2,], \"d\": .5, \"e\": \"\\q\" /* x */ }";
    let reading = read(text);
    assert!(reading.root.is_some());
    let messages: Vec<_> = reading.faults.iter().map(|f| f.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "the file starts with a byte order mark",
            "a comment",
            "single quotes around a text",
            "True is not JSON",
            "a key without quotes",
            "not a number as JSON writes it",
            "a comma is missing",
            "a comma before the closing bracket",
            "not a number as JSON writes it",
            "a backslash that means nothing in JSON",
            "a comment",
        ]
    );
}

fn messages(text: &str) -> Vec<String> {
    read(text).faults.into_iter().map(|fault| fault.message).collect()
}

#[test]
fn every_escape_is_read() {
    let reading = read(r#""\"\\\/\b\f\n\r\t\u0041\u00e9\ud83d\ude00""#);
    assert_eq!(plain(&reading.root.unwrap()), "\"\\/\u{8}\u{c}\n\r\tAé😀");
    assert_eq!(messages("\"\u{1}\u{2}\""), ["a control character in a text"; 2]);
}

#[test]
fn keys_without_quotes_are_known_as_such() {
    let reading = read("{_a: 1, $b-c.d: 2, e_5: 3}");
    assert_eq!(reading.faults.len(), 3);
    assert_eq!(plain(&reading.root.unwrap()), serde_json::json!({"_a": 1, "$b-c.d": 2, "e_5": 3}));
}

#[test]
fn what_ends_the_reading_is_named() {
    for (text, expected) in [
        ("{", "the file ends where \"}\" is missing"),
        ("{\"a\": 1,", "the file ends where \"}\" is missing"),
        ("{\"a\": 1", "the file ends where \"}\" is missing"),
        ("[", "the file ends where \"]\" is missing"),
        ("[1,", "the file ends where \"]\" is missing"),
        ("{?: 1}", "a key is missing: found \"?\""),
        ("{5: 1}", "a key is missing: found a digit"),
        ("{\"a\" 1}", "\":\" is missing after the key: found a digit"),
        ("{\"a\": 1 2}", "\",\" or \"}\" is missing: found a digit"),
        ("[1 ?]", "\",\" or \"]\" is missing: found \"?\""),
        ("['a]", "a single quote"),
        ("[?]", "a value is missing: found \"?\""),
        ("[é]", "a value is missing: found a letter"),
        ("[٣]", "a value is missing: found a digit"),
        ("[\u{7f}]", "a value is missing: found the character U+007F"),
    ] {
        assert_eq!(messages(text), [expected], "{text}");
    }
}

#[test]
fn words_of_other_languages_are_known() {
    let words =
        ["True", "TRUE", "yes", "on", "False", "FALSE", "no", "off", "None", "nil", "undefined", "NULL"];
    for word in words {
        assert_eq!(messages(&format!("[{word}]")), [format!("{word} is not JSON")]);
    }
    for word in ["NaN", "Infinity", "inf"] {
        assert_eq!(messages(&format!("[{word}]")), [format!("{word} is not a number in JSON")]);
    }
    assert_eq!(messages("[maybe]"), ["a word without quotes"]);
}
