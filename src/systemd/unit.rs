//! From a service's plan to the properties of its transient unit. No IO.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use zbus::Variant;

use super::SystemdError;
use super::name::{service_unit, slice_of};
use super::property::{self, Property};
use crate::core::plan::{Exec, Limits, ServicePlan, ServiceType};
use crate::place::Scope;

/// How long `execve` may take: the program's file may lie on a slow disk.
const EXEC_TIMEOUT: Duration = Duration::from_secs(90);
/// How long systemd waits for what it killed at once, before it gives up.
const KILLED_TIMEOUT: Duration = Duration::from_secs(10);
const SIGKILL: i32 = 9;
/// From this version on `ExecStartEx` is known to be written to the unit's file as `ExecStart=:`.
const EX_SURVIVES_RELOAD: u32 = 260;
/// Fields of the journal, and of adoption.
const FIELD_SERVICE: &str = "SUPERVISOR_SERVICE=";
const FIELD_EXEC_HASH: &str = "SUPERVISOR_EXEC_HASH=";
const FIELD_FOLDER: &str = "SUPERVISOR_FOLDER=";

/// The systemd that a unit is made for.
#[derive(Debug, Clone, Copy)]
pub struct Host<'a> {
    /// System or user.
    pub scope: Scope,
    /// Major version, such as 252; 0 where it cannot be read.
    pub version: u32,
    /// Folder of the environment files: no other supervisor has the same one, so that it marks our units.
    pub folder: &'a Path,
}

/// Everything that `StartTransientUnit` is told about one service.
#[derive(Debug)]
pub struct UnitSpec {
    /// `supervisor-<id>.service`.
    pub name: String,
    /// In the order in which systemd is to take them.
    pub properties: Vec<Property>,
    /// Fingerprint of `properties` except limits, within this run of the daemon: with the same one, the unit that
    /// systemd still has can be started again.
    pub fingerprint: u64,
}

/// Makes the unit of a service. `environment` is the file with the plan's environment, where there is one.
///
/// # Errors
/// A property of `unit_properties` that cannot be converted.
pub fn unit_spec(
    plan: &ServicePlan,
    host: Host<'_>,
    environment: Option<&Path>,
) -> Result<UnitSpec, SystemdError> {
    let name = service_unit(&plan.id);
    let users = users_properties(plan, &name)?;
    let mut properties = ours(plan, host, environment);
    let limits = limit_properties(&plan.limits, None);
    // What the user says by name stands above what we would say, except where both lists belong together.
    let said = |name: &str| name != "After" && users.iter().any(|(user, _)| overrides(user, name));
    properties.retain(|(name, _)| !said(name));
    let command = command(&plan.exec, host);
    let mut hasher = DefaultHasher::new();
    format!("{properties:?}{users:?}{command:?}").hash(&mut hasher);
    properties.extend(limits.into_iter().filter(|(name, _)| !user_sets(plan, name)));
    properties.extend(users);
    properties.push(command);
    Ok(UnitSpec { name, properties, fingerprint: hasher.finish() })
}

/// The limits of a running unit, to be set live. `default_tasks` stands in for no limit of ours: systemd's own bound
/// against runaway forks.
pub fn live_limits(plan: &ServicePlan, default_tasks: u64) -> Vec<Property> {
    let limits = limit_properties(&plan.limits, Some(default_tasks));
    limits.into_iter().filter(|(name, _)| !user_sets(plan, name)).collect()
}

/// The limits of a slice: every one is stated, so that one that was dropped goes.
pub fn slice_limits(limits: &Limits) -> Vec<Property> {
    limit_properties(limits, Some(u64::MAX))
}

/// Who made a unit. Its name does not say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Maker {
    /// This supervisor, from a plan with this hash.
    Us {
        /// [`ServicePlan::exec_hash`].
        exec_hash: String,
    },
    /// One with another folder.
    AnotherSupervisor,
    /// An administrator, a package.
    Somebody,
}

/// Reads from the `LogExtraFields` of a unit what [`unit_spec`] wrote there. `ours` is [`Host::folder`].
pub fn maker(fields: &[Vec<u8>], ours: &Path) -> Maker {
    match (field(fields, FIELD_FOLDER), field(fields, FIELD_EXEC_HASH)) {
        (Some(folder), Some(exec_hash)) if folder == folder_mark(ours) => Maker::Us { exec_hash },
        (Some(_), _) => Maker::AnotherSupervisor,
        (None, _) => Maker::Somebody,
    }
}

/// A path in characters that every systemd reads back from a unit's file: 252 splits `LogExtraFields` at white space.
fn folder_mark(path: &Path) -> String {
    let mut out = String::new();
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(byte) {
            out.push(char::from(*byte));
        } else {
            let _ = write!(out, "={byte:02X}");
        }
    }
    out
}

/// The path of a file, where a pattern is expected (`exec_context_load_environment`).
fn as_pattern(path: &Path) -> String {
    let mut out = String::new();
    for c in path.to_string_lossy().chars() {
        if r"*?[]\".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn field(fields: &[Vec<u8>], name: &str) -> Option<String> {
    let value = fields.iter().find_map(|field| field.strip_prefix(name.as_bytes()))?;
    String::from_utf8(value.to_vec()).ok()
}

fn users_properties(plan: &ServicePlan, unit: &str) -> Result<Vec<Property>, SystemdError> {
    let mut all = Vec::new();
    for (name, values) in &plan.exec.unit_properties {
        let converted = property::convert(name, values).map_err(|reason| SystemdError::Property {
            unit: unit.into(),
            property: name.clone(),
            reason,
        })?;
        all.extend(converted);
    }
    Ok(all)
}

fn overrides(user: &str, ours: &str) -> bool {
    // `StandardOutputFileToAppend` stands for `StandardOutput`.
    user == ours || (ours.starts_with("Standard") && user.starts_with(ours))
}

/// Swap is the one limit that a user may set beside the field of the configuration.
fn user_sets(plan: &ServicePlan, property: &str) -> bool {
    property == "MemorySwapMax" && plan.exec.unit_properties.contains_key(property)
}

fn ours(plan: &ServicePlan, host: Host<'_>, environment: Option<&Path>) -> Vec<Property> {
    // No `AddRef`: for each reference systemd takes a match rule of its own bus connection, of which dbus-daemon
    // allows 512, and with one too many systemd loses the bus. The last signal of a unit says how its run ended
    // before the unit is forgotten; one that failed stays.
    let mut list = List::default();
    list.set("Description", plan.name.clone());
    list.set("Slice", slice_of(&plan.groups));
    // Stopped in the reverse order when the machine goes down: with a network and remote files to end in good order.
    let base: &[&str] =
        if host.scope == Scope::System { &["network.target", "remote-fs.target"] } else { &[] };
    let after = plan.dependencies.iter().map(|d| service_unit(&d.service));
    list.set("After", base.iter().map(|unit| (*unit).to_owned()).chain(after).collect::<Vec<_>>());
    // No target wants it: `systemctl isolate graphical.target` would end it.
    list.set("IgnoreOnIsolate", true);
    list.set("StartLimitIntervalUSec", 0_u64);
    list.set("Restart", "no");
    execution(&mut list, plan, host, environment);
    shutdown(&mut list, plan);
    for name in ["CPUAccounting", "MemoryAccounting", "TasksAccounting", "IOAccounting"] {
        list.set(name, true);
    }
    list.set("OOMPolicy", "kill");
    if plan.critical {
        list.set("CPUWeight", 200_u64);
        // An ordinary user may only make its own processes likelier to be chosen.
        if host.scope == Scope::System {
            list.set("OOMScoreAdjust", -500_i32);
        }
    }
    list.0
}

fn execution(list: &mut List, plan: &ServicePlan, host: Host<'_>, environment: Option<&Path>) {
    let exec = &plan.exec;
    let (kind, timeout) = match exec.service_type {
        ServiceType::Exec => ("exec", EXEC_TIMEOUT),
        ServiceType::Notify => ("notify", start_budget(plan)),
    };
    list.set("Type", kind);
    list.set("TimeoutStartUSec", microseconds(timeout));
    if exec.service_type == ServiceType::Notify {
        list.set("NotifyAccess", "main");
    }
    if let Some(directory) = &exec.working_directory {
        list.set("WorkingDirectory", directory.clone());
    }
    // In the user scope the configuration refuses both.
    if let Some(user) = &exec.user {
        list.set("User", user.clone());
    }
    if let Some(group) = &exec.group {
        list.set("Group", group.clone());
    }
    // Later files win: what stands in the configuration itself comes last.
    let files = exec.environment_file.as_deref().map(Path::new).into_iter().chain(environment);
    let files: Vec<(String, bool)> = files.map(|path| (as_pattern(path), false)).collect();
    if !files.is_empty() {
        list.set("EnvironmentFiles", files);
    }
    list.set("StandardOutput", "journal");
    list.set("StandardError", "journal");
    list.set("SyslogIdentifier", plan.id.as_str().to_owned());
    let fields = [
        format!("{FIELD_SERVICE}{}", plan.id),
        format!("{FIELD_EXEC_HASH}{}", plan.exec_hash),
        format!("{FIELD_FOLDER}{}", folder_mark(host.folder)),
    ];
    list.set("LogExtraFields", fields.map(String::into_bytes).to_vec());
}

/// The program and its arguments, literally.
///
/// `ExecStart` replaces `$NAME`, unless it is written `$$NAME`. `ExecStartEx` can be told not to, but older systemd
/// writes it to the unit's file under a name that it does not read: after a daemon-reload the unit is broken, and no
/// limit can be changed any more. So it is used only where it is needed and works. In that file an older systemd
/// also doubles the dollars of `$$` once more, and puts a backslash before `;`: every start of ours after a reload
/// makes the unit anew, so only somebody's `systemctl restart` after a daemon-reload would see it, and a start that
/// somebody's daemon-reload overtakes between the making of the unit and the execution of its program. A quote, dollar,
/// semicolon or backslash in the path of the program it cannot read back at all, nor anything that follows in the file
/// (`config_parse_exec`): so this comes last.
fn command(exec: &Exec, host: Host<'_>) -> Property {
    let argv: Vec<String> = std::iter::once(&exec.program).chain(&exec.args).cloned().collect();
    let program = exec.program.clone();
    if !exec.args.iter().any(|arg| arg.contains('$')) {
        ("ExecStart".into(), Variant::from(vec![(program, argv, false)]))
    } else if host.version >= EX_SURVIVES_RELOAD {
        ("ExecStartEx".into(), Variant::from(vec![(program, argv, vec!["no-env-expand".to_owned()])]))
    } else {
        let argv: Vec<String> = argv.iter().map(|arg| arg.replace('$', "$$")).collect();
        ("ExecStart".into(), Variant::from(vec![(program, argv, false)]))
    }
}

/// Whether every systemd reads the command back from the unit's file as it was told: plain characters only.
pub fn survives_reload(exec: &Exec) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || " _./:=,@+-".contains(c);
    std::iter::once(&exec.program).chain(&exec.args).all(|word| !word.is_empty() && word.chars().all(plain))
}

fn shutdown(list: &mut List, plan: &ServicePlan) {
    let shutdown = &plan.exec.shutdown;
    let (signal, timeout) = match shutdown.graceful {
        true => (shutdown.signal, shutdown.timeout),
        false => (SIGKILL, KILLED_TIMEOUT),
    };
    list.set("KillMode", "control-group");
    list.set("KillSignal", signal);
    list.set("TimeoutStopUSec", microseconds(timeout));
    list.set("SendSIGKILL", true);
}

/// How long a `notify` service may take until it says `READY=1`: what its probes would have granted it.
fn start_budget(plan: &ServicePlan) -> Duration {
    let health = &plan.health;
    let probes = health.interval.saturating_mul(health.failure_threshold);
    health.start_period.saturating_add(probes).max(Duration::from_secs(1))
}

/// systemd's longest finite time is far beyond any that the configuration takes.
fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX - 1)
}

/// With `default_tasks` (live) every limit is stated; without it (a new unit) only those that are set.
///
/// A limited service gets no swap: memory that may be swapped out has no limit that a user would recognise, and a
/// service that thrashes is worse than one that is killed and restarted. `MemorySwapMax` in `unit_properties` says
/// otherwise.
fn limit_properties(limits: &Limits, default_tasks: Option<u64>) -> Vec<Property> {
    let live = default_tasks.is_some();
    let mut list = List::default();
    if limits.memory_bytes.is_some() || live {
        list.set("MemoryMax", limits.memory_bytes.unwrap_or(u64::MAX));
        list.set("MemorySwapMax", if limits.memory_bytes.is_some() { 0 } else { u64::MAX });
    }
    if limits.cpu_percent.is_some() || live {
        list.set("CPUQuotaPerSecUSec", limits.cpu_percent.map_or(u64::MAX, cpu_quota));
    }
    if let Some(tasks) = limits.tasks.or(default_tasks) {
        list.set("TasksMax", tasks);
    }
    list.0
}

/// Microseconds of CPU time per second; 100 percent is one core.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the value is clamped to a range that fits before it is cast"
)]
fn cpu_quota(percent: f64) -> u64 {
    (percent * 10_000.0).clamp(1.0, 1e15).round() as u64
}

#[derive(Default)]
struct List(Vec<Property>);

impl List {
    fn set(&mut self, name: &str, value: impl Into<Variant<'static>>) {
        self.0.push((name.into(), value.into()));
    }
}

/// A unit that takes the user's properties and never executes anything: its condition does not hold.
pub fn probe_properties(users: Vec<Property>) -> Vec<Property> {
    let mut list = List::default();
    list.set("Description", "Check of unit_properties (nothing is executed)");
    list.set("ExecStart", vec![("/bin/true".to_owned(), vec!["/bin/true".to_owned()], false)]);
    // Not one word of it in the journal.
    list.set("LogLevelMax", 0_i32);
    list.0.extend(users);
    let never: Vec<(String, bool, bool, String)> =
        vec![("ConditionPathExists".into(), false, true, "/".into())];
    list.set("Conditions", never);
    list.0
}

#[cfg(test)]
pub mod tests {

    use super::*;
    use crate::core::plan::{Condition, Dependency, Id, OnFailure, Shutdown};

    pub fn plan(id: &str, program: &str) -> ServicePlan {
        let plan = ServicePlan::new(Id::new(id).unwrap(), program);
        ServicePlan { name: format!("the {id}"), exec_hash: "abc123".into(), ..plan }
    }

    fn old() -> Host<'static> {
        host(252)
    }

    fn host(version: u32) -> Host<'static> {
        Host { scope: Scope::System, version, folder: Path::new("/run/process-supervisor/env") }
    }

    fn shown(properties: &[Property]) -> String {
        properties
            .iter()
            .map(|(name, value)| format!("{name} {} {value}\n", value.value_signature()))
            .collect()
    }

    #[test]
    fn a_plain_service() {
        let spec = unit_spec(&plan("web", "/bin/web"), old(), None).unwrap();
        assert_eq!(spec.name, "supervisor-web.service");
        insta::assert_snapshot!(shown(&spec.properties));
    }

    #[test]
    fn a_service_with_everything() {
        let mut plan = plan("web", "/bin/web");
        plan.critical = true;
        plan.groups = vec![Id::new("front-end").unwrap()];
        plan.dependencies = vec![Dependency {
            service: Id::new("db").unwrap(),
            condition: Condition::Healthy,
            on_failure: OnFailure::Hold,
        }];
        plan.limits = Limits { memory_bytes: Some(64 << 20), cpu_percent: Some(150.5), tasks: Some(20) };
        plan.exec.args = vec!["$HOME".into(), "%n".into(), "a b\n".into(), String::new()];
        plan.exec.working_directory = Some("/srv".into());
        plan.exec.environment_file = Some("/etc/web.env".into());
        plan.exec.user = Some("www".into());
        plan.exec.group = Some("web".into());
        plan.exec.service_type = ServiceType::Notify;
        plan.exec.shutdown = Shutdown { graceful: false, timeout: Duration::from_secs(3), signal: 2 };
        plan.exec.unit_properties = [
            ("After", "network-online.target"),
            ("OOMPolicy", "continue"),
            ("MemorySwapMax", "1G"),
            ("PrivateTmp", "true"),
            ("StandardError", "append:/var/log/web"),
        ]
        .map(|(name, value)| (name.to_owned(), vec![value.to_owned()]))
        .into();
        let spec = unit_spec(&plan, old(), Some(Path::new("/run/env/web.env"))).unwrap();
        insta::assert_snapshot!(shown(&spec.properties));
    }

    #[test]
    fn dollars_stay_dollars() {
        let mut plan = plan("web", "/bin/web");
        let command = |plan: &ServicePlan, version| {
            let spec = unit_spec(plan, host(version), None).unwrap();
            let (name, value) =
                spec.properties.iter().find(|(name, _)| name.starts_with("ExecStart")).unwrap();
            format!("{name} {value}")
        };
        plan.exec.args = vec!["a %n".into()];
        let plain = "ExecStart [(\"/bin/web\", [\"/bin/web\", \"a %n\"], false)]";
        assert_eq!(command(&plan, 252), plain);
        assert_eq!(command(&plan, 260), plain);
        plan.exec.args = vec!["$HOME".into()];
        assert_eq!(command(&plan, 252), "ExecStart [(\"/bin/web\", [\"/bin/web\", \"$$HOME\"], false)]");
        assert_eq!(
            command(&plan, 260),
            "ExecStartEx [(\"/bin/web\", [\"/bin/web\", \"$HOME\"], [\"no-env-expand\"])]"
        );
    }

    #[test]
    fn only_plain_commands_are_trusted_after_a_reload() {
        let mut exec = plan("web", "/usr/bin/web-1").exec;
        exec.args = vec!["--port=80".into(), "a b".into()];
        assert!(survives_reload(&exec));
        for arg in ["$x", "a;b", "\\", "\"", "'", "%n", "", "\n", "ä", "\u{1}"] {
            exec.args[1] = arg.into();
            assert!(!survives_reload(&exec), "{arg:?}");
        }
    }

    #[test]
    fn live_limits_state_every_limit() {
        let mut plan = plan("web", "/bin/web");
        insta::assert_snapshot!(shown(&live_limits(&plan, 4915)), @r"
        MemoryMax t uint64 18446744073709551615
        MemorySwapMax t uint64 18446744073709551615
        CPUQuotaPerSecUSec t uint64 18446744073709551615
        TasksMax t uint64 4915
        ");
        plan.limits = Limits { memory_bytes: Some(1), cpu_percent: Some(0.000_01), tasks: Some(3) };
        insta::assert_snapshot!(shown(&live_limits(&plan, 4915)), @r"
        MemoryMax t uint64 1
        MemorySwapMax t uint64 0
        CPUQuotaPerSecUSec t uint64 1
        TasksMax t uint64 3
        ");
    }

    #[test]
    fn an_ordinary_user_cannot_protect_from_the_oom_killer() {
        let mut plan = plan("web", "/bin/web");
        plan.critical = true;
        let has = |scope| {
            let spec = unit_spec(&plan, Host { scope, ..old() }, None).unwrap();
            spec.properties.iter().any(|(name, _)| name == "OOMScoreAdjust")
        };
        assert!(has(Scope::System));
        assert!(!has(Scope::User));
    }

    #[test]
    fn limits_alone_do_not_change_the_fingerprint() {
        let mut plan = plan("web", "/bin/web");
        let of = |plan: &ServicePlan| unit_spec(plan, old(), None).unwrap().fingerprint;
        let first = of(&plan);
        plan.limits.tasks = Some(7);
        assert_eq!(of(&plan), first);
        plan.exec.args.push("x".into());
        assert_ne!(of(&plan), first);
    }

    #[test]
    fn a_bad_property_names_unit_and_property() {
        let mut plan = plan("web", "/bin/web");
        plan.exec.unit_properties.insert("PrivateTmp".into(), vec!["maybe".into()]);
        let error = unit_spec(&plan, old(), None).unwrap_err().to_string();
        assert!(
            error.starts_with("supervisor-web.service: unit_properties.PrivateTmp: expected yes or no"),
            "{error}"
        );
    }

    #[test]
    fn it_is_read_who_made_a_unit() {
        let fields =
            |fields: &[&str]| fields.iter().map(|field| field.as_bytes().to_vec()).collect::<Vec<_>>();
        let ours =
            fields(&["SUPERVISOR_SERVICE=web", "SUPERVISOR_EXEC_HASH=ab", "SUPERVISOR_FOLDER=/run/a/env"]);
        let made = |fields: &[Vec<u8>], folder: &str| maker(fields, Path::new(folder));
        assert_eq!(made(&ours, "/run/a/env"), Maker::Us { exec_hash: "ab".into() });
        assert_eq!(made(&ours, "/run/b/env"), Maker::AnotherSupervisor);
        assert_eq!(made(&ours[..2], "/run/a/env"), Maker::Somebody);
        assert_eq!(made(&[], "/run/a/env"), Maker::Somebody);
        assert_eq!(folder_mark(Path::new("/run/a b/[c]=%n\\d/é")), "/run/a=20b/=5Bc=5D=3D=25n=5Cd/=C3=A9");
    }
}
