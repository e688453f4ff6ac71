//! Every setting that is known, its type, and how that type goes over D-Bus.

use zbus::{Structure, Variant};

use super::Property;
use super::parse::{
    boolean, cpu_mask, expected, microseconds, nanoseconds, networks, number, percent_scale, signal_number,
    size, words,
};

/// What a setting holds.
#[derive(Debug)]
pub enum Kind {
    Bool,
    Text,
    /// `StandardOutput`, where `file:` and the like are properties of their own.
    Output,
    /// Words; several lines add up.
    Words,
    U32,
    /// An octal file mode.
    Mode,
    /// A time; the D-Bus property has another name.
    Time(&'static str),
    Nanoseconds,
    /// Bytes, or a share of the memory, which is a property of its own.
    Size,
    /// A share only.
    Scale,
    /// 1 to 10000, for the CPU also `idle`.
    Weight,
    Whole {
        from: i32,
        to: i32,
    },
    /// A word that stands for a number, or the number.
    Named(&'static [(&'static str, i32)]),
    Cpus,
    /// A resource limit: `soft:hard`, or one number for both.
    Limit(Unit),
    Capabilities {
        /// Where nothing was said before, `~` takes away from all.
        all_at_first: bool,
    },
    Namespaces,
    /// Words that are allowed, or after `~` denied.
    Filter,
    Device,
    DeviceNumber(Unit),
    Networks,
    Bind,
    /// `a:b`.
    Pair,
    Commands,
    ExitStatus,
    Signal,
    Condition,
    /// The configuration has a field of its own for it.
    Elsewhere(&'static str),
    /// The supervisor needs it as it is.
    Always,
}

/// What a number counts.
#[derive(Debug, Clone, Copy)]
pub enum Unit {
    Count,
    Bytes,
    Seconds,
    Microseconds,
}

/// In the order of their names, so that they can be searched.
#[rustfmt::skip]
pub const SETTINGS: &[(&str, Kind)] = &[
    ("After", Kind::Words),
    ("AllowedCPUs", Kind::Cpus),
    ("AllowedMemoryNodes", Kind::Cpus),
    ("AmbientCapabilities", Kind::Capabilities { all_at_first: false }),
    ("AppArmorProfile", Kind::Text),
    ("Before", Kind::Words),
    ("BindPaths", Kind::Bind),
    ("BindReadOnlyPaths", Kind::Bind),
    ("BindsTo", Kind::Words),
    ("BusName", Kind::Elsewhere("`type`")),
    ("CPUAccounting", Kind::Always),
    ("CPUAffinity", Kind::Cpus),
    ("CPUQuota", Kind::Elsewhere("`max_cpu_percent`")),
    ("CPUQuotaPeriodSec", Kind::Time("CPUQuotaPeriodUSec")),
    ("CPUSchedulingPolicy", Kind::Named(CPU_POLICIES)),
    ("CPUSchedulingPriority", Kind::Whole { from: 0, to: 99 }),
    ("CPUSchedulingResetOnFork", Kind::Bool),
    ("CPUWeight", Kind::Weight),
    ("CacheDirectory", Kind::Words),
    ("CacheDirectoryMode", Kind::Mode),
    ("CapabilityBoundingSet", Kind::Capabilities { all_at_first: true }),
    ("CollectMode", Kind::Always),
    ("ConfigurationDirectory", Kind::Words),
    ("ConfigurationDirectoryMode", Kind::Mode),
    ("Conflicts", Kind::Words),
    ("DefaultDependencies", Kind::Bool),
    ("Delegate", Kind::Bool),
    ("Description", Kind::Elsewhere("`description`")),
    ("DeviceAllow", Kind::Device),
    ("DevicePolicy", Kind::Text),
    ("DisableControllers", Kind::Words),
    ("Documentation", Kind::Words),
    ("DynamicUser", Kind::Bool),
    ("Environment", Kind::Elsewhere("`environment`")),
    ("EnvironmentFile", Kind::Elsewhere("`environment_file`")),
    ("ExecCondition", Kind::Commands),
    ("ExecPaths", Kind::Words),
    ("ExecReload", Kind::Commands),
    ("ExecSearchPath", Kind::Words),
    ("ExecStart", Kind::Elsewhere("`command` and `args`")),
    ("ExecStartPost", Kind::Commands),
    ("ExecStartPre", Kind::Commands),
    ("ExecStop", Kind::Commands),
    ("ExecStopPost", Kind::Commands),
    ("FailureAction", Kind::Elsewhere("`restart_policy`, `auto_restart` and `restart_on_exit`")),
    ("FileDescriptorName", Kind::Always),
    ("FileDescriptorStoreMax", Kind::U32),
    ("FinalKillSignal", Kind::Signal),
    ("Group", Kind::Elsewhere("`group`")),
    ("GuessMainPID", Kind::Elsewhere("`type`")),
    ("IOAccounting", Kind::Always),
    ("IODeviceWeight", Kind::DeviceNumber(Unit::Count)),
    ("IOReadBandwidthMax", Kind::DeviceNumber(Unit::Bytes)),
    ("IOReadIOPSMax", Kind::DeviceNumber(Unit::Count)),
    ("IOSchedulingClass", Kind::Named(IO_CLASSES)),
    ("IOSchedulingPriority", Kind::Whole { from: 0, to: 7 }),
    ("IOWeight", Kind::Weight),
    ("IOWriteBandwidthMax", Kind::DeviceNumber(Unit::Bytes)),
    ("IOWriteIOPSMax", Kind::DeviceNumber(Unit::Count)),
    ("IPAddressAllow", Kind::Networks),
    ("IPAddressDeny", Kind::Networks),
    ("IPCNamespacePath", Kind::Text),
    ("IgnoreOnIsolate", Kind::Bool),
    ("IgnoreSIGPIPE", Kind::Bool),
    ("InaccessiblePaths", Kind::Words),
    ("JoinsNamespaceOf", Kind::Words),
    ("KeyringMode", Kind::Text),
    ("KillMode", Kind::Text),
    ("KillSignal", Kind::Elsewhere("`graceful_shutdown`")),
    ("LimitAS", Kind::Limit(Unit::Bytes)),
    ("LimitCORE", Kind::Limit(Unit::Bytes)),
    ("LimitCPU", Kind::Limit(Unit::Seconds)),
    ("LimitDATA", Kind::Limit(Unit::Bytes)),
    ("LimitFSIZE", Kind::Limit(Unit::Bytes)),
    ("LimitLOCKS", Kind::Limit(Unit::Count)),
    ("LimitMEMLOCK", Kind::Limit(Unit::Bytes)),
    ("LimitMSGQUEUE", Kind::Limit(Unit::Bytes)),
    ("LimitNICE", Kind::Limit(Unit::Count)),
    ("LimitNOFILE", Kind::Limit(Unit::Count)),
    ("LimitNPROC", Kind::Limit(Unit::Count)),
    ("LimitRSS", Kind::Limit(Unit::Bytes)),
    ("LimitRTPRIO", Kind::Limit(Unit::Count)),
    ("LimitRTTIME", Kind::Limit(Unit::Microseconds)),
    ("LimitSIGPENDING", Kind::Limit(Unit::Count)),
    ("LimitSTACK", Kind::Limit(Unit::Bytes)),
    ("LoadCredential", Kind::Pair),
    ("LoadCredentialEncrypted", Kind::Pair),
    ("LockPersonality", Kind::Bool),
    ("LogExtraFields", Kind::Always),
    ("LogLevelMax", Kind::Named(LOG_LEVELS)),
    ("LogNamespace", Kind::Text),
    ("LogRateLimitBurst", Kind::U32),
    ("LogRateLimitIntervalSec", Kind::Time("LogRateLimitIntervalUSec")),
    ("LogsDirectory", Kind::Words),
    ("LogsDirectoryMode", Kind::Mode),
    ("ManagedOOMMemoryPressure", Kind::Text),
    ("ManagedOOMMemoryPressureLimit", Kind::Scale),
    ("ManagedOOMPreference", Kind::Text),
    ("ManagedOOMSwap", Kind::Text),
    ("MemoryAccounting", Kind::Always),
    ("MemoryDenyWriteExecute", Kind::Bool),
    ("MemoryHigh", Kind::Size),
    ("MemoryKSM", Kind::Bool),
    ("MemoryLimit", Kind::Elsewhere("`max_memory_mb`")),
    ("MemoryLow", Kind::Size),
    ("MemoryMax", Kind::Elsewhere("`max_memory_mb`")),
    ("MemoryMin", Kind::Size),
    ("MemorySwapMax", Kind::Size),
    ("MemoryZSwapMax", Kind::Size),
    ("MemoryZSwapWriteback", Kind::Bool),
    ("MountAPIVFS", Kind::Bool),
    ("NUMAMask", Kind::Cpus),
    ("NUMAPolicy", Kind::Named(NUMA_POLICIES)),
    ("NetworkNamespacePath", Kind::Text),
    ("Nice", Kind::Whole { from: -20, to: 19 }),
    ("NoExecPaths", Kind::Words),
    ("NoNewPrivileges", Kind::Bool),
    ("NonBlocking", Kind::Bool),
    ("NotifyAccess", Kind::Text),
    ("OOMPolicy", Kind::Text),
    ("OOMScoreAdjust", Kind::Whole { from: -1000, to: 1000 }),
    ("OnFailure", Kind::Words),
    ("OnSuccess", Kind::Words),
    ("PAMName", Kind::Text),
    ("PIDFile", Kind::Elsewhere("`type`")),
    ("PartOf", Kind::Words),
    ("PassEnvironment", Kind::Words),
    ("Personality", Kind::Text),
    ("PrivateDevices", Kind::Bool),
    ("PrivateIPC", Kind::Bool),
    ("PrivateMounts", Kind::Bool),
    ("PrivateNetwork", Kind::Bool),
    ("PrivateTmp", Kind::Bool),
    ("PrivateUsers", Kind::Bool),
    ("ProcSubset", Kind::Text),
    ("ProtectClock", Kind::Bool),
    ("ProtectControlGroups", Kind::Bool),
    ("ProtectHome", Kind::Text),
    ("ProtectHostname", Kind::Bool),
    ("ProtectKernelLogs", Kind::Bool),
    ("ProtectKernelModules", Kind::Bool),
    ("ProtectKernelTunables", Kind::Bool),
    ("ProtectProc", Kind::Text),
    ("ProtectSystem", Kind::Text),
    ("ReadOnlyPaths", Kind::Words),
    ("ReadWritePaths", Kind::Words),
    ("RefuseManualStart", Kind::Always),
    ("RefuseManualStop", Kind::Always),
    ("RemainAfterExit", Kind::Elsewhere("`type`")),
    ("RemoveIPC", Kind::Bool),
    ("Requires", Kind::Words),
    ("RequiresMountsFor", Kind::Words),
    ("Requisite", Kind::Words),
    ("Restart", Kind::Elsewhere("`restart_policy`, `auto_restart` and `restart_on_exit`")),
    ("RestartForceExitStatus", Kind::Elsewhere("`restart_policy`, `auto_restart` and `restart_on_exit`")),
    ("RestartKillSignal", Kind::Elsewhere("`restart_policy`, `auto_restart` and `restart_on_exit`")),
    ("RestartMaxDelaySec", Kind::Elsewhere("`restart_policy`, `auto_restart` and `restart_on_exit`")),
    ("RestartMode", Kind::Elsewhere("`restart_policy`, `auto_restart` and `restart_on_exit`")),
    ("RestartPreventExitStatus", Kind::Elsewhere("`restart_policy`, `auto_restart` and `restart_on_exit`")),
    ("RestartSec", Kind::Elsewhere("`restart_policy`, `auto_restart` and `restart_on_exit`")),
    ("RestartSteps", Kind::Elsewhere("`restart_policy`, `auto_restart` and `restart_on_exit`")),
    ("RestrictAddressFamilies", Kind::Filter),
    ("RestrictFileSystems", Kind::Filter),
    ("RestrictNamespaces", Kind::Namespaces),
    ("RestrictNetworkInterfaces", Kind::Filter),
    ("RestrictRealtime", Kind::Bool),
    ("RestrictSUIDSGID", Kind::Bool),
    ("RootDirectory", Kind::Text),
    ("RootDirectoryStartOnly", Kind::Bool),
    ("RootEphemeral", Kind::Bool),
    ("RootImage", Kind::Text),
    ("RuntimeDirectory", Kind::Words),
    ("RuntimeDirectoryMode", Kind::Mode),
    ("RuntimeDirectoryPreserve", Kind::Text),
    ("RuntimeMaxSec", Kind::Time("RuntimeMaxUSec")),
    ("RuntimeRandomizedExtraSec", Kind::Time("RuntimeRandomizedExtraUSec")),
    ("SELinuxContext", Kind::Text),
    ("SendSIGHUP", Kind::Bool),
    ("SendSIGKILL", Kind::Bool),
    ("SetCredential", Kind::Elsewhere("`environment`")),
    ("SetCredentialEncrypted", Kind::Elsewhere("`environment`")),
    ("SetLoginEnvironment", Kind::Bool),
    ("Slice", Kind::Elsewhere("`groups`")),
    ("SmackProcessLabel", Kind::Text),
    ("Sockets", Kind::Always),
    ("StandardError", Kind::Output),
    ("StandardInput", Kind::Text),
    ("StandardInputData", Kind::Elsewhere("`environment`")),
    ("StandardInputText", Kind::Elsewhere("`environment`")),
    ("StandardOutput", Kind::Output),
    ("StartLimitAction", Kind::Elsewhere("`restart_policy`, `auto_restart` and `restart_on_exit`")),
    ("StartLimitBurst", Kind::Elsewhere("`restart_policy`, `auto_restart` and `restart_on_exit`")),
    ("StartLimitIntervalSec", Kind::Elsewhere("`restart_policy`, `auto_restart` and `restart_on_exit`")),
    ("StartupAllowedCPUs", Kind::Cpus),
    ("StartupAllowedMemoryNodes", Kind::Cpus),
    ("StartupCPUWeight", Kind::Weight),
    ("StartupIOWeight", Kind::Weight),
    ("StartupMemoryHigh", Kind::Size),
    ("StartupMemoryLow", Kind::Size),
    ("StartupMemoryMax", Kind::Size),
    ("StartupMemorySwapMax", Kind::Size),
    ("StartupMemoryZSwapMax", Kind::Size),
    ("StateDirectory", Kind::Words),
    ("StateDirectoryMode", Kind::Mode),
    ("StopWhenUnneeded", Kind::Always),
    ("SuccessAction", Kind::Elsewhere("`restart_policy`, `auto_restart` and `restart_on_exit`")),
    ("SuccessExitStatus", Kind::ExitStatus),
    ("SupplementaryGroups", Kind::Words),
    ("SyslogFacility", Kind::Named(LOG_FACILITIES)),
    ("SyslogIdentifier", Kind::Text),
    ("SyslogLevel", Kind::Named(LOG_LEVELS)),
    ("SyslogLevelPrefix", Kind::Bool),
    ("SystemCallArchitectures", Kind::Words),
    ("SystemCallErrorNumber", Kind::Named(ERRORS)),
    ("SystemCallFilter", Kind::Filter),
    ("SystemCallLog", Kind::Filter),
    ("TTYPath", Kind::Text),
    ("TTYReset", Kind::Bool),
    ("TasksAccounting", Kind::Always),
    ("TasksMax", Kind::Elsewhere("`max_tasks`")),
    ("TemporaryFileSystem", Kind::Pair),
    ("TimeoutAbortSec", Kind::Time("TimeoutAbortUSec")),
    ("TimeoutSec", Kind::Elsewhere("`graceful_shutdown`")),
    ("TimeoutStartSec", Kind::Time("TimeoutStartUSec")),
    ("TimeoutStopSec", Kind::Elsewhere("`graceful_shutdown`")),
    ("TimerSlackNSec", Kind::Nanoseconds),
    ("Type", Kind::Elsewhere("`type`")),
    ("UMask", Kind::Mode),
    ("UnsetEnvironment", Kind::Words),
    ("Upholds", Kind::Words),
    ("User", Kind::Elsewhere("`user`")),
    ("UtmpIdentifier", Kind::Text),
    ("Wants", Kind::Words),
    ("WatchdogSec", Kind::Time("WatchdogUSec")),
    ("WatchdogSignal", Kind::Signal),
    ("WorkingDirectory", Kind::Elsewhere("`working_directory`")),
];

/// What may stand behind `Condition` and `Assert`.
pub const CONDITIONS: &[&str] = &[
    "ACPower",
    "Architecture",
    "CPUFeature",
    "CPUPressure",
    "CPUs",
    "Capability",
    "ControlGroupController",
    "DirectoryNotEmpty",
    "Environment",
    "FileIsExecutable",
    "FileNotEmpty",
    "Firmware",
    "FirstBoot",
    "Group",
    "Host",
    "IOPressure",
    "KernelCommandLine",
    "KernelVersion",
    "Memory",
    "MemoryPressure",
    "NeedsUpdate",
    "OSRelease",
    "PathExists",
    "PathExistsGlob",
    "PathIsDirectory",
    "PathIsEncrypted",
    "PathIsMountPoint",
    "PathIsReadWrite",
    "PathIsSymbolicLink",
    "Security",
    "User",
    "Virtualization",
];

const LOG_LEVELS: &[(&str, i32)] = &[
    ("emerg", 0),
    ("alert", 1),
    ("crit", 2),
    ("err", 3),
    ("warning", 4),
    ("notice", 5),
    ("info", 6),
    ("debug", 7),
];
const LOG_FACILITIES: &[(&str, i32)] = &[
    ("kern", 0),
    ("user", 1),
    ("mail", 2),
    ("daemon", 3),
    ("auth", 4),
    ("syslog", 5),
    ("lpr", 6),
    ("news", 7),
    ("uucp", 8),
    ("cron", 9),
    ("authpriv", 10),
    ("ftp", 11),
    ("local0", 16),
    ("local1", 17),
    ("local2", 18),
    ("local3", 19),
    ("local4", 20),
    ("local5", 21),
    ("local6", 22),
    ("local7", 23),
];
const CPU_POLICIES: &[(&str, i32)] = &[("other", 0), ("fifo", 1), ("rr", 2), ("batch", 3), ("idle", 5)];
const IO_CLASSES: &[(&str, i32)] = &[("none", 0), ("realtime", 1), ("best-effort", 2), ("idle", 3)];
const NUMA_POLICIES: &[(&str, i32)] =
    &[("default", 0), ("preferred", 1), ("bind", 2), ("interleave", 3), ("local", 4)];
const ERRORS: &[(&str, i32)] = &[("EPERM", 1), ("EACCES", 13), ("ENOSYS", 38), ("EUCLEAN", 117)];
const CAPABILITIES: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];
/// Kinds of namespaces, by the number of `clone(2)`.
const NAMESPACES: &[(&str, u64)] = &[
    ("cgroup", 0x0200_0000),
    ("ipc", 0x0800_0000),
    ("net", 0x4000_0000),
    ("mnt", 0x0002_0000),
    ("pid", 0x2000_0000),
    ("user", 0x1000_0000),
    ("uts", 0x0400_0000),
];
/// `MS_REC`: what is mounted below comes too.
const RECURSIVE: u64 = 16384;

type Converted = Result<Vec<Property>, String>;

pub fn to_dbus(name: &str, kind: &Kind, values: &[String]) -> Converted {
    let last = || values.last().map(|v| v.trim()).ok_or_else(|| "a value is missing".to_owned());
    let one = |value: Variant<'static>| Ok(vec![(name.to_owned(), value)]);
    match kind {
        Kind::Elsewhere(field) => Err(format!("this is set by the supervisor; use {field}")),
        Kind::Always => Err("the supervisor needs this as it sets it itself".into()),
        Kind::Bool => one(boolean(last()?)?.into()),
        Kind::Text => one(last()?.to_owned().into()),
        Kind::Output => output(name, last()?),
        Kind::U32 => one(number::<u32>(last()?)?.into()),
        Kind::Mode => one(mode(last()?)?.into()),
        Kind::Time(dbus) => Ok(vec![((*dbus).to_owned(), microseconds(last()?)?.into())]),
        Kind::Nanoseconds => one(nanoseconds(last()?, 1)?.into()),
        Kind::Size => size_or_share(name, last()?),
        Kind::Scale => {
            let scale =
                percent_scale(last()?).ok_or_else(|| expected("a share such as 50%", &values.join(" ")))?;
            one(scale.into())
        }
        Kind::Weight => one(weight(name, last()?)?.into()),
        Kind::Whole { from, to } => one(whole(last()?, *from, *to)?.into()),
        Kind::Named(table) => one(named(last()?, table)?.into()),
        Kind::Cpus => one(cpu_mask(last()?)?.into()),
        Kind::Limit(unit) => limit(name, *unit, last()?),
        Kind::Signal => one(signal_number(last()?)?.into()),
        Kind::Capabilities { all_at_first } => one(capabilities(values, *all_at_first)?.into()),
        Kind::Namespaces => one(namespaces(values)?.into()),
        Kind::Words => each(name, values, |value| Ok(words(value)?.into())),
        Kind::Filter => each(name, values, filter),
        Kind::Device => each(name, values, |value| {
            let parts = words(value)?;
            list(pair_of_words(&parts)?.into_iter().collect::<Vec<(String, String)>>())
        }),
        Kind::DeviceNumber(unit) => each(name, values, |value| device_number(value, *unit)),
        Kind::Networks => each(name, values, |value| {
            let mut all = Vec::new();
            for word in words(value)? {
                all.extend(networks(&word)?);
            }
            list(all)
        }),
        Kind::Bind => each(name, values, bind),
        Kind::Pair => each(name, values, |value| {
            list(words(value)?.iter().map(|word| split_pair(word)).collect::<Vec<_>>())
        }),
        Kind::Commands => commands(name, values),
        Kind::ExitStatus => each(name, values, exit_status),
        Kind::Condition => condition(name, values),
    }
}

/// One property for each line; an empty list of systemd's clears what was before.
fn each(
    name: &str,
    values: &[String],
    convert: impl Fn(&str) -> Result<Variant<'static>, String>,
) -> Converted {
    if values.is_empty() {
        return Err("a value is missing".into());
    }
    values.iter().map(|value| Ok((name.to_owned(), convert(value)?))).collect()
}

/// An array of structures.
fn list<T>(items: Vec<T>) -> Result<Variant<'static>, String>
where
    Vec<T>: Into<Variant<'static>>,
{
    Ok(items.into())
}

fn output(name: &str, value: &str) -> Converted {
    for (prefix, suffix) in [("file:", "File"), ("append:", "FileToAppend"), ("truncate:", "FileToTruncate")]
    {
        if let Some(path) = value.strip_prefix(prefix) {
            return Ok(vec![(format!("{name}{suffix}"), path.to_owned().into())]);
        }
    }
    Ok(vec![(name.to_owned(), value.to_owned().into())])
}

fn mode(value: &str) -> Result<u32, String> {
    u32::from_str_radix(value, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| expected("an octal mode such as 0750", value))
}

fn size_or_share(name: &str, value: &str) -> Converted {
    if let Some(scale) = percent_scale(value) {
        return Ok(vec![(format!("{name}Scale"), scale.into())]);
    }
    Ok(vec![(name.to_owned(), size(value, 1024)?.into())])
}

fn weight(name: &str, value: &str) -> Result<u64, String> {
    if value == "idle" && name.contains("CPU") {
        return Ok(0);
    }
    number::<u64>(value)
        .ok()
        .filter(|weight| (1..=10_000).contains(weight))
        .ok_or_else(|| expected("a weight from 1 to 10000", value))
}

fn whole(value: &str, from: i32, to: i32) -> Result<i32, String> {
    number::<i32>(value)
        .ok()
        .filter(|number| (from..=to).contains(number))
        .ok_or_else(|| expected(&format!("a whole number from {from} to {to}"), value))
}

fn named(value: &str, table: &[(&str, i32)]) -> Result<i32, String> {
    let found = table.iter().find(|(word, number)| value == *word || value == number.to_string());
    found.map(|(_, number)| *number).ok_or_else(|| {
        let known: Vec<&str> = table.iter().map(|(word, _)| *word).collect();
        expected(&format!("one of {}", known.join(", ")), value)
    })
}

fn limit(name: &str, unit: Unit, value: &str) -> Converted {
    let parse = |text: &str| match unit {
        _ if text == "infinity" => Ok(u64::MAX),
        Unit::Count => number(text),
        Unit::Bytes => size(text, 1024),
        Unit::Seconds => nanoseconds(text, 1_000_000_000).map(|n| n.div_ceil(1_000_000_000)),
        Unit::Microseconds => nanoseconds(text, 1000).map(|n| n.div_ceil(1000)),
    };
    let (soft, hard) = value.split_once(':').unwrap_or((value, value));
    let (soft, hard) = (parse(soft)?, parse(hard)?);
    if soft > hard {
        return Err(expected("a soft limit that is not above the hard one", value));
    }
    Ok(vec![(name.to_owned(), hard.into()), (format!("{name}Soft"), soft.into())])
}

fn capabilities(values: &[String], all_at_first: bool) -> Result<u64, String> {
    let mut mask: Option<u64> = None;
    for value in values {
        let value = value.trim();
        if value.is_empty() {
            mask = Some(0);
            continue;
        }
        let (inverted, list) = value.strip_prefix('~').map_or((false, value), |list| (true, list));
        let mut bits = 0;
        for word in words(list)? {
            let upper = word.to_ascii_uppercase();
            let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
            let at = CAPABILITIES.iter().position(|known| *known == name);
            bits |= 1_u64 << at.ok_or_else(|| format!("{word} is no capability of Linux"))?;
        }
        mask = Some(match (inverted, mask) {
            (false, None) => bits,
            (false, Some(mask)) => mask | bits,
            (true, None) if all_at_first => !bits,
            (true, mask) => mask.unwrap_or(0) & !bits,
        });
    }
    mask.ok_or_else(|| "a value is missing".into())
}

/// The kinds of namespaces that stay allowed.
fn namespaces(values: &[String]) -> Result<u64, String> {
    let all = NAMESPACES.iter().fold(0, |all, (_, bit)| all | bit);
    let mut mask: Option<u64> = None;
    for value in values {
        let value = value.trim();
        if let Ok(restrict) = boolean(value) {
            mask = Some(if restrict { 0 } else { all });
            continue;
        }
        let (inverted, list) = value.strip_prefix('~').map_or((false, value), |list| (true, list));
        let mut bits = 0;
        for word in words(list)? {
            let known = NAMESPACES.iter().find(|(name, _)| *name == word);
            bits |= known.ok_or_else(|| expected("cgroup, ipc, net, mnt, pid, user or uts", &word))?.1;
        }
        mask = Some(if inverted { mask.unwrap_or(all) & !bits } else { mask.unwrap_or(0) | bits });
    }
    mask.ok_or_else(|| "a value is missing".into())
}

fn filter(value: &str) -> Result<Variant<'static>, String> {
    let value = value.trim();
    let (allow, list) = value.strip_prefix('~').map_or((true, value), |list| (false, list));
    Ok(Structure::from((allow, words(list)?)).into())
}

fn pair_of_words(parts: &[String]) -> Result<Option<(String, String)>, String> {
    match parts {
        [] => Ok(None),
        [first] => Ok(Some((first.clone(), String::new()))),
        [first, second] => Ok(Some((first.clone(), second.clone()))),
        _ => Err(expected("one or two words", &parts.join(" "))),
    }
}

fn device_number(value: &str, unit: Unit) -> Result<Variant<'static>, String> {
    let mut found: Vec<(String, u64)> = Vec::new();
    if let Some((device, amount)) = pair_of_words(&words(value)?)? {
        let amount = match unit {
            Unit::Bytes => size(&amount, 1000)?,
            _ => number(&amount)?,
        };
        found.push((device, amount));
    }
    Ok(found.into())
}

fn split_pair(word: &str) -> (String, String) {
    let (first, second) = word.split_once(':').unwrap_or((word, ""));
    (first.to_owned(), second.to_owned())
}

fn bind(value: &str) -> Result<Variant<'static>, String> {
    let mut found: Vec<(String, String, bool, u64)> = Vec::new();
    for word in words(value)? {
        let (optional, word) = word.strip_prefix('-').map_or((false, word.as_str()), |word| (true, word));
        let mut parts = word.splitn(3, ':');
        let source = parts.next().unwrap_or_default();
        let target = parts.next().filter(|target| !target.is_empty()).unwrap_or(source);
        let flags = match parts.next() {
            None | Some("" | "rbind") => RECURSIVE,
            Some("norbind") => 0,
            Some(other) => return Err(expected("rbind or norbind", other)),
        };
        found.push((source.to_owned(), target.to_owned(), optional, flags));
    }
    Ok(found.into())
}

/// Commands with no other prefix than `-` go the older way: systemd before version 260 loses the other one in a
/// daemon-reload.
fn commands(name: &str, values: &[String]) -> Converted {
    let parsed = values.iter().map(|value| command(value)).collect::<Result<Vec<_>, _>>()?;
    let plain = |flags: &[&str]| flags.iter().all(|flag| *flag == "ignore-failure");
    if parsed.iter().flatten().all(|command| plain(&command.flags)) {
        let old = |command: Command| (command.program, command.argv, !command.flags.is_empty());
        let lines = parsed.into_iter().map(|line| line.into_iter().map(old).collect::<Vec<_>>());
        return Ok(lines.map(|line| (name.to_owned(), line.into())).collect());
    }
    let new = |command: Command| {
        let flags: Vec<String> = command.flags.iter().map(|flag| (*flag).to_owned()).collect();
        (command.program, command.argv, flags)
    };
    let lines = parsed.into_iter().map(|line| line.into_iter().map(new).collect::<Vec<_>>());
    Ok(lines.map(|line| (format!("{name}Ex"), line.into())).collect())
}

struct Command {
    program: String,
    argv: Vec<String>,
    flags: Vec<&'static str>,
}

/// `-/bin/x "a b"`: prefixes, program, arguments; none in an empty line. `$NAME` is replaced by systemd unless `:`
/// stands in front.
fn command(value: &str) -> Result<Option<Command>, String> {
    const PREFIXES: [(&str, &str); 5] = [
        ("!!", "ambient"),
        ("-", "ignore-failure"),
        (":", "no-env-expand"),
        ("+", "privileged"),
        ("!", "no-setuid"),
    ];
    let mut flags = Vec::new();
    let mut rest = value.trim();
    while let Some((after, flag)) =
        PREFIXES.iter().find_map(|(prefix, flag)| Some((rest.strip_prefix(prefix)?, *flag)))
    {
        flags.push(flag);
        rest = after;
    }
    let argv = words(rest)?;
    let Some(program) = argv.first().cloned() else { return Ok(None) };
    if !program.starts_with('/') {
        return Err(expected("a command with an absolute path", value));
    }
    Ok(Some(Command { program, argv, flags }))
}

fn exit_status(value: &str) -> Result<Variant<'static>, String> {
    let (mut codes, mut signals): (Vec<i32>, Vec<i32>) = (Vec::new(), Vec::new());
    for word in words(value)? {
        match word.parse::<u8>() {
            Ok(code) => codes.push(code.into()),
            Err(_) => signals.push(signal_number(&word)?),
        }
    }
    Ok(Structure::from((codes, signals)).into())
}

fn condition(name: &str, values: &[String]) -> Converted {
    let property = if name.starts_with("Assert") { "Asserts" } else { "Conditions" };
    each(property, values, |value| {
        let (trigger, value) = value.strip_prefix('|').map_or((false, value), |value| (true, value));
        let (negate, value) = value.strip_prefix('!').map_or((false, value), |value| (true, value));
        list(vec![(name.to_owned(), trigger, negate, value.to_owned())])
    })
}
