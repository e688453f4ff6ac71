//! Single values written as text: ids, durations, signals, addresses. Each rule stands here once, as a pattern for the
//! schema and as a function.

use std::str::FromStr;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::core::plan::Id;

pub(super) const ID: &str = Id::PATTERN;
pub(super) const ENVIRONMENT_KEY: &str = "^[A-Za-z_][A-Za-z0-9_]*$";
pub(super) const PROPERTY: &str = "^[A-Z][A-Za-z0-9]*$";
pub(super) const DURATION: &str = "^([0-9]+(\\.[0-9]+)?(ms|s|m|h|d))+$";
pub(super) const SIGNAL: &str = "^(SIG)?[A-Z][A-Z0-9]*$";
pub(super) const STATUS_CLASS: &str = "^[1-5]xx$";

/// Ten years: longer is a mistake.
pub(super) const MAX_SECONDS: f64 = 315_360_000.0;

/// What a pattern of the schema means: the test, and what a text that fails it should be.
pub(super) type Rule = (fn(&str) -> bool, &'static str);

/// The rule behind a pattern.
pub(super) fn rule(pattern: &str) -> Option<Rule> {
    Some(match pattern {
        ID => (
            |t| Id::new(t).is_ok(),
            "an id is 1 to 64 letters, digits, \"_\", \".\" or \"-\", and starts with a letter or digit",
        ),
        ENVIRONMENT_KEY => (
            environment_key,
            "a name of a variable is letters, digits and \"_\", and does not start with a digit",
        ),
        PROPERTY => (property, "write it as in a unit file, such as \"PrivateTmp\""),
        DURATION => (
            |t| duration(t).is_some(),
            "write seconds as a number, or a text such as \"1m30s\" (units: ms, s, m, h, d), up to 10 years",
        ),
        SIGNAL => (|t| signal(t).is_some(), "write a name such as \"SIGTERM\" or \"TERM\", or a number"),
        STATUS_CLASS => {
            (|t| status_class(t).is_some(), "write a code such as 200, or a class such as \"2xx\"")
        }
        _ => return None,
    })
}

fn environment_key(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn property(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_uppercase()) && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// Seconds as a duration, if they are one.
pub(super) fn seconds(seconds: f64) -> Option<Duration> {
    if !(0.0..=MAX_SECONDS).contains(&seconds) {
        return None;
    }
    // Whole nanoseconds of a fraction such as 0.1 would not round-trip; nobody needs less than a microsecond.
    let micros = Duration::try_from_secs_f64(seconds).ok()?.as_nanos().saturating_add(500) / 1000;
    Some(Duration::from_micros(u64::try_from(micros).ok()?))
}

/// `1m30s`, `500ms`, `1.5h`: numbers with units, added up.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let (number, after) = rest.split_at(number_end);
        let unit_end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) {
            return None;
        }
        let scale = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * scale;
        rest = after;
    }
    if text.is_empty() { None } else { seconds(total) }
}

/// The number of a signal, by name with or without `SIG`.
pub(super) fn signal(name: &str) -> Option<i32> {
    let full = if name.starts_with("SIG") { name.to_owned() } else { format!("SIG{name}") };
    Signal::from_str(&full).ok().map(|s| s as i32)
}

/// The names of all signals, for the nearest spelling.
pub(super) fn signal_names() -> impl Iterator<Item = &'static str> {
    Signal::iterator().map(Signal::as_str)
}

/// `2xx` as a range of codes.
pub(super) fn status_class(text: &str) -> Option<(u16, u16)> {
    let digit = text.strip_suffix("xx")?.parse::<u16>().ok().filter(|d| (1..=5).contains(d))?;
    (text.len() == 3).then_some((digit * 100, digit * 100 + 99))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::string::string_regex;

    #[test]
    fn durations() {
        for (text, millis) in [
            ("1m30s", Some(90_000)),
            ("500ms", Some(500)),
            ("2h", Some(7_200_000)),
            ("1d", Some(86_400_000)),
            ("1.5s", Some(1500)),
            ("0s", Some(0)),
            ("", None),
            ("30", None),
            ("-1s", None),
            ("1 m", None),
            ("1.s", None),
            (".5s", None),
            ("1w", None),
            ("s", None),
            ("3651d", None),
            ("1e3s", None),
        ] {
            assert_eq!(duration(text), millis.map(Duration::from_millis), "{text}");
        }
        assert_eq!(seconds(0.1), Some(Duration::from_millis(100)));
        for bad in [-1.0, f64::NAN, f64::INFINITY, MAX_SECONDS + 1.0] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn signals_and_classes() {
        assert_eq!(signal("TERM"), Some(15));
        assert_eq!(signal("SIGUSR1"), Some(10));
        assert_eq!(signal("SIGFOO"), None);
        assert_eq!(signal(""), None);
        assert_eq!(status_class("2xx"), Some((200, 299)));
        for bad in ["6xx", "0xx", "2XX", "20x", "+2xx", ""] {
            assert_eq!(status_class(bad), None, "{bad}");
        }
    }

    fn accepted(pattern: &'static str) -> impl Strategy<Value = (&'static str, String)> {
        let inner = pattern.trim_start_matches('^').trim_end_matches('$');
        string_regex(inner).unwrap().prop_map(move |text| (pattern, text))
    }

    proptest! {
        #[test]
        fn functions_take_what_their_patterns_take(
            (pattern, text) in prop_oneof![
                accepted(ID), accepted(ENVIRONMENT_KEY), accepted(PROPERTY), accepted(STATUS_CLASS),
            ]
        ) {
            prop_assert!(rule(pattern).unwrap().0(&text), "{pattern} {text:?}");
        }

        #[test]
        fn any_text_can_be_tried(text: String) {
            for pattern in [ID, ENVIRONMENT_KEY, PROPERTY, DURATION, SIGNAL, STATUS_CLASS] {
                rule(pattern).unwrap().0(&text);
            }
        }
    }
}
