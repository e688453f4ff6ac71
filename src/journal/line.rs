//! One line of `journalctl -o json`.

use serde_json::{Map, Value};

use super::LogLine;
use crate::core::Wall;

/// Longest message, in bytes; the rest is cut.
pub(super) const MESSAGE: usize = 64 << 10;

/// A field's text. journalctl gives bytes that are not printable as an array of numbers, several fields of one name
/// as an array of them, and a field that is too large as null.
pub(super) fn text(fields: &Map<String, Value>, name: &str) -> Option<String> {
    fn of(value: &Value) -> Option<String> {
        match value {
            Value::String(text) => Some(text.clone()),
            Value::Array(parts) if parts.iter().all(Value::is_u64) => {
                let byte = |part: &Value| part.as_u64().and_then(|n| u8::try_from(n).ok());
                let bytes: Option<Vec<u8>> = parts.iter().map(byte).collect();
                Some(String::from_utf8_lossy(&bytes?).into_owned())
            }
            // Not deeper: a text or its bytes.
            Value::Array(parts) => match parts.first()? {
                Value::Array(inner) if !inner.iter().all(Value::is_u64) => None,
                first => of(first),
            },
            _ => None,
        }
    }
    of(fields.get(name)?)
}

/// A number, as journald writes them: in text.
pub(super) fn number<T: std::str::FromStr>(fields: &Map<String, Value>, name: &str) -> Option<T> {
    text(fields, name)?.parse().ok()
}

/// `None` for what is no entry (journalctl's remarks, garbage).
pub(crate) fn parse(json: &[u8]) -> Option<LogLine> {
    let fields: Map<String, Value> = serde_json::from_slice(json).ok()?;
    let micros: i64 = number(&fields, "__REALTIME_TIMESTAMP")?;
    let mut message = text(&fields, "MESSAGE").unwrap_or_default();
    if message.len() > MESSAGE {
        message.truncate(message.floor_char_boundary(MESSAGE));
        message.push('…');
    }
    Some(LogLine {
        at: Wall(micros / 1000),
        message,
        priority: number(&fields, "PRIORITY").filter(|priority| *priority <= 7),
        pid: number(&fields, "_PID"),
        unit: text(&fields, "_SYSTEMD_USER_UNIT").or_else(|| text(&fields, "_SYSTEMD_UNIT")),
        cursor: text(&fields, "__CURSOR")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(message: &str) -> String {
        format!(
            r#"{{"__CURSOR":"s=1;i=2","__REALTIME_TIMESTAMP":"1795422747510310","PRIORITY":"3","_PID":"41",{message}}}"#
        )
    }

    #[test]
    fn messages_of_every_form() {
        for (json, message) in [
            (r#""MESSAGE":"hello""#, "hello"),
            (r#""MESSAGE":"ä \"q\" \\ \n""#, "ä \"q\" \\ \n"),
            (r#""MESSAGE":[97,255,98]"#, "a\u{fffd}b"),
            (r#""MESSAGE":[120,27,91,51,49,109]"#, "x\u{1b}[31m"),
            (r#""MESSAGE":[]"#, ""),
            (r#""MESSAGE":null"#, ""),
            (r#""OTHER":"x""#, ""),
            (r#""MESSAGE":["first","second"]"#, "first"),
            (r#""MESSAGE":[[97,255],"second"]"#, "a\u{fffd}"),
            (r#""MESSAGE":[[[97]]]"#, ""),
            (r#""MESSAGE":[97,300]"#, ""),
            (r#""MESSAGE":{"a":1}"#, ""),
        ] {
            let parsed = parse(line(json).as_bytes()).unwrap();
            assert_eq!(parsed.message, message, "{json}");
            assert_eq!(parsed.at, Wall(1_795_422_747_510));
            assert_eq!((parsed.priority, parsed.pid, parsed.cursor.as_str()), (Some(3), Some(41), "s=1;i=2"));
        }
    }

    #[test]
    fn what_is_no_entry_is_left_out() {
        for json in [
            "",
            "-- No entries --",
            "{}",
            "[]",
            "null",
            r#"{"__CURSOR":"s=1","MESSAGE":"no time"}"#,
            r#"{"__REALTIME_TIMESTAMP":"1","MESSAGE":"no cursor"}"#,
            r#"{"__CURSOR":"s=1","__REALTIME_TIMESTAMP":"soon"}"#,
            r#"{"__CURSOR":"s=1","__REALTIME_TIMESTAMP":"1""#,
        ] {
            assert_eq!(parse(json.as_bytes()), None, "{json}");
        }
    }

    #[test]
    fn odd_numbers_are_left_out() {
        let json = r#"{"__CURSOR":"c","__REALTIME_TIMESTAMP":"1000","PRIORITY":"9","_PID":"-1"}"#;
        let parsed = parse(json.as_bytes()).unwrap();
        assert_eq!((parsed.priority, parsed.pid), (None, None));
    }

    #[test]
    fn a_long_message_is_cut() {
        let parsed = parse(line(&format!(r#""MESSAGE":"{}""#, "ä".repeat(MESSAGE))).as_bytes()).unwrap();
        assert!(parsed.message.len() <= MESSAGE + 4 && parsed.message.ends_with("ä…"));
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u8>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".*".prop_map(Value::from),
            "[0-9]{1,20}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 20, 6, |inner| prop::collection::vec(inner, 0..6).prop_map(Value::from))
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            parse(&bytes);
        }

        #[test]
        fn no_fields_panic(values in prop::collection::vec(json(), 5)) {
            let names = ["__CURSOR", "__REALTIME_TIMESTAMP", "MESSAGE", "PRIORITY", "_PID"];
            let fields: Map<_, _> = names.map(String::from).into_iter().zip(values).collect();
            let text = Value::from(fields).to_string();
            if let Some(line) = parse(text.as_bytes()) {
                prop_assert!(line.message.len() <= MESSAGE + 4);
            }
        }
    }
}
