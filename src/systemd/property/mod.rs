//! `unit_properties`: from names and values as in a unit file to D-Bus properties. No IO.
//!
//! systemd takes typed values over D-Bus and leaves the conversion to its clients, so this table knows each setting's
//! type. Values are literal: `%` is not a specifier here, as for every transient unit.

mod parse;
mod table;

use zbus::Variant;

use table::{Kind, SETTINGS};

/// A property as systemd takes it over D-Bus.
pub type Property = (String, Variant<'static>);

/// One setting as D-Bus properties, or why it cannot be used, for a person. `values` are assigned in turn, as
/// several lines of a unit file: lists grow, other settings keep the last, an empty value clears what was before.
pub fn convert(name: &str, values: &[String]) -> Result<Vec<Property>, String> {
    let Some(kind) = kind_of(name) else {
        return Err(unknown(name));
    };
    table::to_dbus(name, kind, values)
}

fn kind_of(name: &str) -> Option<&'static Kind> {
    if let Ok(at) = SETTINGS.binary_search_by_key(&name, |(name, _)| name) {
        return Some(&SETTINGS[at].1);
    }
    let condition = name.strip_prefix("Condition").or_else(|| name.strip_prefix("Assert"))?;
    table::CONDITIONS.contains(&condition).then_some(&Kind::Condition)
}

fn unknown(name: &str) -> String {
    let nearest = SETTINGS
        .iter()
        .map(|(known, _)| (distance(name, known), known))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, known)| *distance <= known.len() / 3);
    match nearest {
        Some((_, known)) => format!("this setting is not known; did you mean {known:?}?"),
        None => {
            "this setting is not known. Settings are named as in a unit file, for example ProtectSystem, \
                 LimitNOFILE or ReadWritePaths"
                .into()
        }
    }
}

/// Edits from one word to the other, upper and lower case alike.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.to_ascii_lowercase(), b.to_ascii_lowercase());
    // An absurdly long name from the configuration costs nothing.
    if a.len() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(name: &str, values: &[&str]) -> String {
        let values: Vec<String> = values.iter().map(|v| (*v).to_owned()).collect();
        match convert(name, &values) {
            Ok(properties) => properties
                .iter()
                .map(|(name, value)| format!("{name}={}", print(value)))
                .collect::<Vec<_>>()
                .join(" "),
            Err(why) => format!("ERROR {why}"),
        }
    }

    /// Type and value. zbus says the types of numbers too, which stand in front already.
    fn print(value: &Variant<'_>) -> String {
        let mut text = value.to_string();
        for word in ["uint64 ", "uint32 ", "byte ", "@as ", "@a(st) "] {
            text = text.replace(word, "");
        }
        format!("{} {text}", value.value_signature())
    }

    #[test]
    fn the_table_is_sorted_so_that_it_can_be_searched() {
        for pair in SETTINGS.windows(2) {
            assert!(pair[0].0 < pair[1].0, "{} stands before {}", pair[0].0, pair[1].0);
        }
    }

    #[test]
    fn values_become_what_systemd_takes() {
        let table: &[(&str, &[&str], &str)] = &[
            ("PrivateTmp", &["true"], "PrivateTmp=b true"),
            ("PrivateTmp", &["off"], "PrivateTmp=b false"),
            ("ProtectSystem", &["strict"], "ProtectSystem=s \"strict\""),
            ("Nice", &["-5"], "Nice=i -5"),
            ("UMask", &["0027"], "UMask=u 23"),
            ("MemoryHigh", &["512M"], "MemoryHigh=t 536870912"),
            ("MemoryHigh", &["infinity"], "MemoryHigh=t 18446744073709551615"),
            ("MemoryHigh", &["50%"], "MemoryHighScale=u 2147483648"),
            ("CPUWeight", &["idle"], "CPUWeight=t 0"),
            ("IOWeight", &["500"], "IOWeight=t 500"),
            ("RuntimeMaxSec", &["1h 30min"], "RuntimeMaxUSec=t 5400000000"),
            ("TimeoutStartSec", &["1.5"], "TimeoutStartUSec=t 1500000"),
            ("WatchdogSec", &["infinity"], "WatchdogUSec=t 18446744073709551615"),
            ("TimerSlackNSec", &["50us"], "TimerSlackNSec=t 50000"),
            ("LimitNOFILE", &["1024:4096"], "LimitNOFILE=t 4096 LimitNOFILESoft=t 1024"),
            (
                "LimitCORE",
                &["infinity"],
                "LimitCORE=t 18446744073709551615 LimitCORESoft=t 18446744073709551615",
            ),
            ("LimitMEMLOCK", &["64K"], "LimitMEMLOCK=t 65536 LimitMEMLOCKSoft=t 65536"),
            ("LimitCPU", &["2min"], "LimitCPU=t 120 LimitCPUSoft=t 120"),
            (
                "ReadWritePaths",
                &["/a -/b", "\"+/c d\""],
                "ReadWritePaths=as [\"/a\", \"-/b\"] ReadWritePaths=as [\"+/c d\"]",
            ),
            ("CapabilityBoundingSet", &["CAP_NET_BIND_SERVICE CAP_CHOWN"], "CapabilityBoundingSet=t 1025"),
            ("AmbientCapabilities", &["cap_net_raw"], "AmbientCapabilities=t 8192"),
            ("CapabilityBoundingSet", &["~CAP_CHOWN"], "CapabilityBoundingSet=t 18446744073709551614"),
            ("CapabilityBoundingSet", &[""], "CapabilityBoundingSet=t 0"),
            (
                "SystemCallFilter",
                &["@system-service", "~@privileged"],
                "SystemCallFilter=(bas) (true, [\"@system-service\"]) SystemCallFilter=(bas) (false, [\"@privileged\"])",
            ),
            (
                "RestrictAddressFamilies",
                &["AF_INET AF_UNIX"],
                "RestrictAddressFamilies=(bas) (true, [\"AF_INET\", \"AF_UNIX\"])",
            ),
            ("RestrictNamespaces", &["true"], "RestrictNamespaces=t 0"),
            ("RestrictNamespaces", &["~user"], "RestrictNamespaces=t 1845624832"),
            (
                "DeviceAllow",
                &["/dev/null rw", "char-pts"],
                "DeviceAllow=a(ss) [(\"/dev/null\", \"rw\")] DeviceAllow=a(ss) [(\"char-pts\", \"\")]",
            ),
            ("IOReadBandwidthMax", &["/dev/sda 10M"], "IOReadBandwidthMax=a(st) [(\"/dev/sda\", 10000000)]"),
            ("CPUAffinity", &["0-2 9"], "CPUAffinity=ay [0x07, 0x02]"),
            ("IPAddressDeny", &["10.0.0.0/8"], "IPAddressDeny=a(iayu) [(2, [0x0a, 0x00, 0x00, 0x00], 8)]"),
            (
                "BindReadOnlyPaths",
                &["-/a:/b:norbind"],
                "BindReadOnlyPaths=a(ssbt) [(\"/a\", \"/b\", true, 0)]",
            ),
            ("TemporaryFileSystem", &["/var:ro"], "TemporaryFileSystem=a(ss) [(\"/var\", \"ro\")]"),
            ("LoadCredential", &["key:/etc/key"], "LoadCredential=a(ss) [(\"key\", \"/etc/key\")]"),
            (
                "ExecStartPre",
                &["-/bin/mkdir -p \"/a b\""],
                "ExecStartPre=a(sasb) [(\"/bin/mkdir\", [\"/bin/mkdir\", \"-p\", \"/a b\"], true)]",
            ),
            (
                "ExecStartPost",
                &["/bin/x", "-+/bin/y"],
                "ExecStartPostEx=a(sasas) [(\"/bin/x\", [\"/bin/x\"], [])] \
                 ExecStartPostEx=a(sasas) [(\"/bin/y\", [\"/bin/y\"], [\"ignore-failure\", \"privileged\"])]",
            ),
            ("SuccessExitStatus", &["3 SIGUSR1"], "SuccessExitStatus=(aiai) ([3], [10])"),
            (
                "ConditionPathExists",
                &["|!/a"],
                "Conditions=a(sbbs) [(\"ConditionPathExists\", true, true, \"/a\")]",
            ),
            ("StandardOutput", &["append:/var/log/x"], "StandardOutputFileToAppend=s \"/var/log/x\""),
            ("FinalKillSignal", &["SIGABRT"], "FinalKillSignal=i 6"),
            ("LogLevelMax", &["warning"], "LogLevelMax=i 4"),
            ("CPUSchedulingPolicy", &["batch"], "CPUSchedulingPolicy=i 3"),
        ];
        for (name, values, expected) in table {
            assert_eq!(shown(name, values), *expected, "{name}={values:?}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_a_reason() {
        let table: &[(&str, &[&str], &str)] = &[
            ("ProtectSytem", &["strict"], "did you mean \"ProtectSystem\"?"),
            ("Quux", &["1"], "named as in a unit file"),
            ("ExecStart", &["/bin/true"], "`command`"),
            ("Environment", &["A=b"], "`environment`"),
            ("MemoryMax", &["1G"], "`max_memory_mb`"),
            ("Restart", &["always"], "`restart_policy`"),
            ("PrivateTmp", &["perhaps"], "yes or no"),
            ("Nice", &["loud"], "whole number"),
            ("Nice", &[], "a value is missing"),
            ("MemoryHigh", &["12Q"], "a size"),
            ("RuntimeMaxSec", &["5 fortnights"], "a time"),
            ("CapabilityBoundingSet", &["CAP_MAGIC"], "CAP_MAGIC"),
            ("LimitNOFILE", &["9:1"], "soft"),
            ("ReadWritePaths", &["\"/a"], "quote"),
            ("FinalKillSignal", &["SIGNOPE"], "signal"),
            ("CPUAffinity", &["0-99999999"], "CPU"),
            ("ConditionMagic", &["x"], "not known"),
            ("CPUWeight", &["0"], "1 to 10000"),
        ];
        for (name, values, part) in table {
            let found = shown(name, values);
            assert!(found.starts_with("ERROR ") && found.contains(part), "{name}={values:?}: {found}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_value_panics(at in 0..SETTINGS.len(), value: String) {
            let _ = convert(SETTINGS[at].0, &[value]);
        }

        #[test]
        fn no_name_panics(name: String) {
            let _ = convert(&name, &["1".to_owned()]);
        }
    }
}
