//! Names of units, slices and D-Bus objects, both ways. No IO.

use crate::core::plan::Id;

const SERVICE_PREFIX: &str = "supervisor-";
const SERVICE_SUFFIX: &str = ".service";
const UNIT_PATH: &str = "/org/freedesktop/systemd1/unit/";

/// The unit of the daemon itself.
pub const OWN_UNIT: &str = "process-supervisor.service";
/// The slice that holds every service which is in no group, and the slices of the groups.
pub const SLICE: &str = "supervisor.slice";
/// What matches every service unit of ours, and a few names that [`service_of_unit`] sorts out.
pub const SERVICE_PATTERN: &str = "supervisor-*.service";

/// `supervisor-<id>.service`. Every byte of an id is legal in a unit name.
pub fn service_unit(service: &Id) -> String {
    format!("{SERVICE_PREFIX}{service}{SERVICE_SUFFIX}")
}

/// The service that a unit belongs to; `None` for units that are not ours.
pub fn service_of_unit(unit: &str) -> Option<Id> {
    Id::new(unit.strip_prefix(SERVICE_PREFIX)?.strip_suffix(SERVICE_SUFFIX)?).ok()
}

/// The slice of a group: `supervisor-<group>.slice`, where a dash of the group is `\x2d` (a plain dash would
/// mean a slice inside a slice).
pub fn group_slice(group: &Id) -> String {
    format!("supervisor-{}.slice", escape(group.as_str()))
}

/// The slice of a service: that of its first group.
pub fn slice_of(groups: &[Id]) -> String {
    groups.first().map_or_else(|| SLICE.to_owned(), group_slice)
}

/// systemd's escaping of any text for use inside a unit name (`systemd-escape`).
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'/' => out.push('-'),
            b'.' if at == 0 => push_hex(&mut out, byte),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'_' | b'.' => out.push(char::from(byte)),
            _ => push_hex(&mut out, byte),
        }
    }
    out
}

fn push_hex(out: &mut String, byte: u8) {
    out.push_str(&format!("\\x{byte:02x}"));
}

/// The reverse of [`escape`]; `None` where the text is not the result of one.
pub fn unescape(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'-' => out.push(b'/'),
            b'\\' => {
                let (hex, after) = rest.strip_prefix(b"x")?.split_at_checked(2)?;
                out.push(hex_byte(hex)?);
                rest = after;
            }
            other => out.push(other),
        }
    }
    String::from_utf8(out).ok()
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// The D-Bus object of a unit. Everything but letters and digits becomes `_` and two hex digits, and so does a
/// digit in front.
pub fn object_path(unit: &str) -> String {
    let mut path = String::with_capacity(UNIT_PATH.len() + unit.len() * 2);
    path.push_str(UNIT_PATH);
    for (at, byte) in unit.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (at > 0 && byte.is_ascii_digit()) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("_{byte:02x}"));
        }
    }
    path
}

/// The unit of a D-Bus object; `None` where the path is not one of a unit.
pub fn unit_of_object(path: &str) -> Option<String> {
    let mut rest = path.strip_prefix(UNIT_PATH)?.as_bytes();
    let mut out = Vec::with_capacity(rest.len());
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'_' {
            let (hex, after) = rest.split_at_checked(2)?;
            out.push(hex_byte(hex)?);
            rest = after;
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

/// What the object paths of our service units start with: `supervisor-`, escaped.
pub const OBJECT_PREFIX: &str = "/org/freedesktop/systemd1/unit/supervisor_2d";

/// The service that a D-Bus object belongs to. The prefix is looked at first: most signals are not for us.
pub fn service_of_object(path: &str) -> Option<Id> {
    if !path.starts_with(OBJECT_PREFIX) {
        return None;
    }
    service_of_unit(&unit_of_object(path)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(text: &str) -> Id {
        Id::new(text).unwrap()
    }

    #[test]
    fn names_as_systemd_writes_them() {
        assert_eq!(service_unit(&id("architect-prod")), "supervisor-architect-prod.service");
        assert_eq!(group_slice(&id("web-tier")), "supervisor-web\\x2dtier.slice");
        assert_eq!(slice_of(&[id("a"), id("b")]), "supervisor-a.slice");
        assert_eq!(slice_of(&[]), "supervisor.slice");
        // As `systemd-escape` and `busctl tree` print them.
        assert_eq!(escape(".hidden/ä b-c"), "\\x2ehidden-\\xc3\\xa4\\x20b\\x2dc");
        assert_eq!(
            object_path("supervisor-a.b_c-1.service"),
            "/org/freedesktop/systemd1/unit/supervisor_2da_2eb_5fc_2d1_2eservice"
        );
        assert_eq!(object_path("1x"), "/org/freedesktop/systemd1/unit/_31x");
        assert!(object_path("supervisor-x.service").starts_with(OBJECT_PREFIX));
    }

    #[test]
    fn units_of_others_are_not_ours() {
        for unit in
            ["supervisor.service", "supervisor-.service", "supervisor-a b.service", "supervisor-a.slice", "x"]
        {
            assert_eq!(service_of_unit(unit), None, "{unit}");
            assert_eq!(service_of_object(&object_path(unit)), None, "{unit}");
        }
        for path in [
            "/",
            "/org/freedesktop/systemd1/unit/supervisor_2",
            "/org/freedesktop/systemd1/unit/supervisor_2d_zz",
        ] {
            assert_eq!(service_of_object(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn escaping_is_reversible(text in any::<String>()) {
            let escaped = escape(&text);
            prop_assert!(escaped.bytes().all(|b| b.is_ascii_alphanumeric() || b":_.\\-".contains(&b)));
            prop_assert_eq!(unescape(&escaped), Some(text));
        }

        #[test]
        fn object_paths_are_reversible(text in any::<String>()) {
            let path = object_path(&text);
            prop_assert!(path.bytes().all(|b| b.is_ascii_alphanumeric() || b"_/".contains(&b)));
            prop_assert_eq!(unit_of_object(&path), Some(text));
        }

        #[test]
        fn a_service_is_found_from_its_unit(text in "[A-Za-z0-9][A-Za-z0-9_.-]{0,63}") {
            let id = Id::new(&text).unwrap();
            let unit = service_unit(&id);
            prop_assert_eq!(service_of_unit(&unit), Some(id.clone()));
            prop_assert_eq!(service_of_object(&object_path(&unit)), Some(id));
            prop_assert_eq!(group_slice(&Id::new(&text).unwrap()).matches('-').count(), 1);
        }

        #[test]
        fn nothing_panics(text in any::<String>()) {
            let _ = (unescape(&text), unit_of_object(&text), service_of_object(&text), service_of_unit(&text));
        }
    }
}
