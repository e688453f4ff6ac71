//! The file as it is written, one to one. The JSON Schema that is published, and that files are checked against, is
//! generated from these types: their documentation is what editors show.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use super::scalar::{DURATION, ENVIRONMENT_KEY, ID, MAX_SECONDS, PROPERTY, SIGNAL, STATUS_CLASS};
use crate::core::plan::{AfterMaxRetries, Condition, OnFailure, ServiceType};

/// Configuration of the process supervisor: services, groups, and the supervisor itself.
#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Config {
    /// Where this schema is, for editors.
    #[serde(rename = "$schema")]
    pub schema: Option<String>,
    /// The supervisor itself. In the main file only.
    pub supervisor: Supervisor,
    /// Further files with services and groups: paths, `*` and `?` allowed, relative to the folder of this file. In the
    /// main file only.
    #[schemars(extend("uniqueItems" = true, "examples" = [["services.d/*.json"]]))]
    pub include: Vec<String>,
    /// What is to run, by id. The unit of a service is `supervisor-<id>.service`.
    #[schemars(extend("propertyNames" = {"pattern": ID}))]
    pub services: BTreeMap<String, Service>,
    /// Groups of services, by id. A group that a service names needs no entry here.
    #[schemars(extend("propertyNames" = {"pattern": ID}))]
    pub groups: BTreeMap<String, Group>,
}

/// One service.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["command"]))]
pub(super) struct Service {
    /// Whether it is to run.
    pub enabled: bool,
    /// Start order among services that do not depend on each other: lower first.
    #[schemars(range(min = -1_000_000, max = 1_000_000))]
    pub priority: i32,
    /// Alerts are raised at once and the kernel spares it when memory runs out.
    pub critical: bool,
    /// Display name; the id where none is given.
    #[schemars(length(min = 1, max = 200))]
    pub name: Option<String>,
    /// What it is, in your words.
    pub description: String,
    /// The program: an absolute path, or a name that is looked up in the PATH of the service.
    #[schemars(length(min = 1), extend("examples" = ["/usr/bin/python3", "python3"]))]
    pub command: Option<String>,
    /// Arguments, passed literally: no shell, no `$` or `%` expansion.
    #[schemars(extend("examples" = [["-m", "http.server", "8080"]]))]
    pub args: Vec<String>,
    /// Absolute path of the folder it starts in.
    #[schemars(length(min = 1))]
    pub working_directory: Option<String>,
    /// Environment variables. Values are treated as secrets: never logged or shown.
    #[schemars(extend("propertyNames" = {"pattern": ENVIRONMENT_KEY}, "examples" = [{"APP_ENV": "prod"}]))]
    pub environment: BTreeMap<String, String>,
    /// Absolute path of a file with lines of the form KEY=value, read at each start.
    #[schemars(length(min = 1))]
    pub environment_file: Option<String>,
    /// User it runs as, name or number. System scope only.
    pub user: Option<Account>,
    /// Group it runs as, name or number. System scope only.
    pub group: Option<Account>,
    /// How it is seen to be well.
    #[schemars(extend("default" = {"type": "process", "interval": 30}))]
    pub health_check: Option<Box<HealthCheck>>,
    /// Delays between restarts, and how many there are.
    pub restart_policy: RestartPolicy,
    /// Restart after a crash, a signal, failed health checks, or running out of memory.
    pub auto_restart: bool,
    /// Restart after a clean exit (code 0) too.
    pub restart_on_exit: bool,
    /// Limits, enforced by the kernel. A change is applied without a restart.
    pub resource_limits: ResourceLimits,
    /// How it is stopped.
    pub graceful_shutdown: GracefulShutdown,
    /// Services that have to be ready before this one starts.
    pub dependencies: Vec<Dependency>,
    /// When it counts as started.
    #[serde(rename = "type")]
    pub service_type: ServiceType,
    /// Port it serves, taken from the health check where it is not given; 0 says that it serves none.
    #[schemars(range(min = 0, max = 65535))]
    pub port: Option<u16>,
    /// Ids of its groups. The unit is in the slice of the first one.
    #[schemars(extend("uniqueItems" = true), inner(regex(pattern = ID)))]
    pub groups: Vec<String>,
    /// Words of yours, kept and shown.
    pub labels: BTreeMap<String, String>,
    /// Any other systemd property by its unit-file name.
    #[schemars(extend(
        "propertyNames" = {"pattern": PROPERTY},
        "examples" = [{"ProtectSystem": "strict", "PrivateTmp": true}]
    ))]
    pub unit_properties: BTreeMap<String, PropertyValue>,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            enabled: true,
            priority: 100,
            critical: false,
            name: None,
            description: String::new(),
            command: None,
            args: Vec::new(),
            working_directory: None,
            environment: BTreeMap::new(),
            environment_file: None,
            user: None,
            group: None,
            health_check: None,
            restart_policy: RestartPolicy::default(),
            auto_restart: true,
            restart_on_exit: false,
            resource_limits: ResourceLimits::default(),
            graceful_shutdown: GracefulShutdown::default(),
            dependencies: Vec::new(),
            service_type: ServiceType::Exec,
            port: None,
            groups: Vec::new(),
            labels: BTreeMap::new(),
            unit_properties: BTreeMap::new(),
        }
    }
}

/// What is asked to see whether a service is well.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum CheckType {
    /// An HTTP request is answered as expected.
    Http,
    /// A connection is accepted.
    Tcp,
    /// The main process is there and not stuck.
    Process,
    /// A program exits with 0.
    Exec,
}

impl CheckType {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
            Self::Process => "process",
            Self::Exec => "exec",
        }
    }

    /// The fields of this type alone, and whether each has to be there.
    pub(super) fn fields(self) -> &'static [(&'static str, bool)] {
        match self {
            Self::Http => &[
                ("endpoint", true),
                ("method", false),
                ("headers", false),
                ("expected_status", false),
                ("expected_content", false),
                ("tls_verify", false),
            ],
            Self::Tcp => &[("host", false), ("port", false)],
            Self::Process => &[],
            Self::Exec => &[("command", true), ("args", false)],
        }
    }

    pub(super) const ALL: [Self; 4] = [Self::Http, Self::Tcp, Self::Process, Self::Exec];
}

/// Fields that a fallback check does not have: those of the check it stands in for count.
pub(super) const MAIN_CHECK_ONLY: [&str; 6] =
    ["interval", "timeout", "failure_threshold", "success_threshold", "start_period", "fallback_check"];

/// For editors: which fields go with which type. The messages for people are made in `check::health`.
fn fields_by_type() -> Vec<Value> {
    let rule = |of: CheckType| {
        let required: Vec<_> = of.fields().iter().filter(|(_, must)| *must).map(|(name, _)| *name).collect();
        let foreign: serde_json::Map<_, _> = CheckType::ALL
            .into_iter()
            .filter(|other| *other != of)
            .flat_map(CheckType::fields)
            .map(|(name, _)| ((*name).to_owned(), Value::Bool(false)))
            .collect();
        serde_json::json!({
            "if": {"properties": {"type": {"const": of.as_str()}}, "required": ["type"]},
            "then": {"required": required, "properties": foreign},
        })
    };
    CheckType::ALL.into_iter().map(rule).collect()
}

fn not_in_fallback() -> Value {
    MAIN_CHECK_ONLY.into_iter().map(|name| (name.to_owned(), Value::Bool(false))).collect()
}

/// A health check. Which fields it takes depends on its type.
#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["type"], "allOf" = fields_by_type()))]
pub(super) struct HealthCheck {
    /// What is asked.
    #[serde(rename = "type")]
    pub check_type: Option<CheckType>,
    /// From one check to the next.
    #[schemars(extend("default" = 30))]
    pub interval: Option<Seconds>,
    /// For one check; not longer than the interval.
    #[schemars(extend("default" = 10))]
    pub timeout: Option<Seconds>,
    /// Failures in a row after which the service is restarted.
    #[schemars(range(min = 1, max = 1000), extend("default" = 3))]
    pub failure_threshold: Option<u32>,
    /// Successes in a row after which it is healthy again.
    #[schemars(range(min = 1, max = 1000), extend("default" = 1))]
    pub success_threshold: Option<u32>,
    /// After a start; failures inside it do not count.
    #[schemars(extend("default" = 0))]
    pub start_period: Option<Seconds>,
    /// Asked when this check fails; if it passes, the service is degraded, not unhealthy.
    #[schemars(extend("properties" = not_in_fallback()))]
    pub fallback_check: Option<Box<HealthCheck>>,
    /// http: URL to request.
    #[schemars(extend("examples" = ["http://localhost:8080/health", "http+unix://%2Frun%2Fapp.sock/health"]))]
    pub endpoint: Option<String>,
    /// http: request method.
    #[schemars(extend("default" = "GET"))]
    pub method: Option<Method>,
    /// http: request headers. Values are treated as secrets.
    pub headers: Option<BTreeMap<String, String>>,
    /// http: status codes that are good.
    #[schemars(extend("default" = 200, "examples" = [200, [200, 204], "2xx"]))]
    pub expected_status: Option<Status>,
    /// http: text that has to be in the first 64 KiB of the answer.
    #[schemars(length(min = 1, max = 65536))]
    pub expected_content: Option<String>,
    /// http: whether the certificate of an https endpoint is checked.
    #[schemars(extend("default" = true))]
    pub tls_verify: Option<bool>,
    /// tcp: name or address, or `unix:/path` for a Unix socket.
    #[schemars(length(min = 1), extend("default" = "localhost"))]
    pub host: Option<String>,
    /// tcp: port to connect to.
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// exec: the program, as in the service. Exit status 0 is healthy. It runs as the service's user, with its
    /// environment and inside its limits, and is killed with all that it forked when `timeout` is over.
    #[schemars(length(min = 1))]
    pub command: Option<String>,
    /// exec: its arguments.
    #[schemars(extend("default" = []))]
    pub args: Option<Vec<String>>,
}

/// An HTTP method.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Method {
    Get,
    Head,
    Post,
    Put,
    Options,
}

impl Method {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Options => "OPTIONS",
        }
    }
}

/// When and how often a service is started again: after `min(retry_delay * backoff_multiplier^(n-1), max_backoff)`.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RestartPolicy {
    /// Restarts in a row before giving up; -1 for no bound.
    #[schemars(range(min = -1, max = 1_000_000))]
    pub max_retries: i32,
    /// Before the first restart. With 0, from the 101st restart in a row on there are 100 ms between two.
    pub retry_delay: Seconds,
    /// Factor from one delay to the next.
    #[schemars(range(min = 1, max = 1000))]
    pub backoff_multiplier: f64,
    /// Longest delay; 300, or `retry_delay` if that is longer.
    #[schemars(extend("default" = 300))]
    pub max_backoff: Option<Seconds>,
    /// Share of the delay up to which a random part is added.
    #[schemars(range(min = 0, max = 1))]
    pub jitter: f64,
    /// Time in `running` after which the attempts count from 0 again.
    pub reset_after: Seconds,
    /// What comes after `max_retries`.
    pub after_max_retries: AfterMaxRetries,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            max_retries: 5,
            retry_delay: Seconds::Number(10.0),
            backoff_multiplier: 2.0,
            max_backoff: None,
            jitter: 0.0,
            reset_after: Seconds::Number(60.0),
            after_max_retries: AfterMaxRetries::Fatal,
        }
    }
}

/// Limits of one service.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ResourceLimits {
    /// Memory in MiB; more, and the kernel kills the service.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub max_memory_mb: Option<f64>,
    /// CPU in percent of one core: 200 is two cores.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_cpu_percent: Option<f64>,
    /// Processes and threads.
    #[schemars(range(min = 1, max = 4_194_304))]
    pub max_tasks: Option<u64>,
    /// Share of a limit, in percent, at which a warning is due.
    #[schemars(range(min = 1, max = 100))]
    pub warn_percent: u8,
}

impl Default for ResourceLimits {
    fn default() -> Self {
        Self { max_memory_mb: None, max_cpu_percent: None, max_tasks: None, warn_percent: 90 }
    }
}

/// How a service is stopped.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct GracefulShutdown {
    /// `false`: killed at once.
    pub enabled: bool,
    /// From the signal to SIGKILL.
    pub timeout: Seconds,
    /// The signal that asks it to end.
    pub signal: Signal,
}

impl Default for GracefulShutdown {
    fn default() -> Self {
        Self { enabled: true, timeout: Seconds::Number(30.0), signal: Signal(Value::from("SIGTERM")) }
    }
}

/// The id of a service, or an object that says more.
#[derive(Deserialize, Serialize)]
#[serde(untagged)]
pub(super) enum Dependency {
    Short(String),
    Long(LongDependency),
}

impl JsonSchema for Dependency {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Dependency".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "the id of a service, or {\"service\": id, \"condition\": .., \"on_failure\": ..}",
            "anyOf": [{"type": "string", "pattern": ID}, generator.subschema_for::<LongDependency>()],
        })
    }
}

/// A dependency with its conditions.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("required" = ["service"]))]
pub(super) struct LongDependency {
    /// Id of the service.
    #[schemars(regex(pattern = ID))]
    #[serde(default)]
    pub service: Option<String>,
    /// What is enough of it.
    #[serde(default = "healthy")]
    pub condition: Condition,
    /// What happens when it is lost later.
    #[serde(default = "hold")]
    pub on_failure: OnFailure,
}

fn healthy() -> Condition {
    Condition::Healthy
}

fn hold() -> OnFailure {
    OnFailure::Hold
}

/// A group of services in one slice.
#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Group {
    /// Ids of services in it, besides those that name it themselves.
    #[schemars(extend("uniqueItems" = true), inner(regex(pattern = ID)))]
    pub services: Vec<String>,
    /// Limits of all its services together.
    pub resource_limits: GroupLimits,
}

/// Limits of all services of a group together.
#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct GroupLimits {
    /// Memory in MiB.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub max_memory_mb: Option<f64>,
    /// CPU in percent of one core: 200 is two cores.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_cpu_percent: Option<f64>,
    /// Processes and threads.
    #[schemars(range(min = 1, max = 4_194_304))]
    pub max_tasks: Option<u64>,
}

/// Who may read the API over TCP without a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Anonymous {
    /// Nobody.
    None,
    /// Everybody may read, except logs and configuration.
    Read,
}

/// Certificate of the dashboard and the API.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("required" = ["certificate", "key"]))]
pub(super) struct Tls {
    /// Absolute path of a PEM file: the certificate, and those of its issuers after it.
    #[schemars(length(min = 1))]
    #[serde(default)]
    pub certificate: Option<String>,
    /// Absolute path of a PEM file with its private key, not readable for everybody.
    #[schemars(length(min = 1))]
    #[serde(default)]
    pub key: Option<String>,
}

/// The supervisor itself.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Supervisor {
    /// Addresses of the dashboard and the API: `address:port`; an empty list for none.
    #[schemars(extend("uniqueItems" = true))]
    pub listen: Vec<String>,
    /// Serve all of `listen` with TLS. Read anew at each reload.
    pub tls: Option<Tls>,
    /// Names of this host by which browsers and clients may call it, besides addresses, localhost and its host name.
    #[schemars(extend("uniqueItems" = true))]
    pub allowed_hosts: Vec<String>,
    /// Who may read over TCP without a token.
    pub anonymous: Anonymous,
    /// Absolute path of the SQLite database; `architect.db` in the state directory where none is given.
    #[schemars(length(min = 1))]
    pub database: Option<String>,
    /// From one sample of CPU and memory to the next.
    pub metrics_interval: Seconds,
    /// How long samples and events are kept, in days.
    #[schemars(range(min = 1, max = 36500))]
    pub retention_days: u32,
    /// Stop the services when the supervisor is stopped; otherwise they go on and the next one adopts them.
    pub stop_services_on_exit: bool,
    /// User of services that name none. System scope only.
    pub default_user: Option<Account>,
    /// Base URL of another dashboard, which is sent the metrics.
    pub dashboard_url: Option<String>,
    /// Absolute path of the file with the token for `dashboard_url`.
    #[schemars(length(min = 1))]
    pub dashboard_token_file: Option<String>,
    /// How many services may be starting at once; 0 for no bound.
    #[schemars(range(min = 0, max = 10_000))]
    pub max_concurrent_starts: usize,
}

impl Default for Supervisor {
    fn default() -> Self {
        Self {
            listen: vec!["127.0.0.1:9001".into()],
            tls: None,
            allowed_hosts: Vec::new(),
            anonymous: Anonymous::None,
            database: None,
            metrics_interval: Seconds::Number(30.0),
            retention_days: 30,
            stop_services_on_exit: false,
            default_user: None,
            dashboard_url: None,
            dashboard_token_file: None,
            max_concurrent_starts: 0,
        }
    }
}

/// A duration as it is written.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Seconds {
    Number(f64),
    Text(String),
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(seconds) => super::effective::number(*seconds).serialize(serializer),
            Self::Text(text) => text.serialize(serializer),
        }
    }
}

impl JsonSchema for Seconds {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "seconds as a number, or a text such as \"1m30s\" (units: ms, s, m, h, d)",
            "anyOf": [
                {"type": "number", "minimum": 0, "maximum": super::effective::number(MAX_SECONDS)},
                {"type": "string", "pattern": DURATION},
            ],
        })
    }
}

/// Values that take several forms, kept as they are until they are checked.
macro_rules! free_form {
    ($(#[$doc:meta])* $name:ident, $schema:tt) => {
        $(#[$doc])*
        #[derive(Deserialize, Serialize)]
        #[serde(transparent)]
        pub(super) struct $name(pub Value);

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

free_form!(
    /// A user or group.
    Account,
    {
        "title": "a name or a number",
        "anyOf": [{"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0, "maximum": 4_294_967_294_u32}],
    }
);

free_form!(
    /// A signal by name or number.
    Signal,
    {
        "title": "a signal such as \"SIGTERM\", \"TERM\" or 15",
        "anyOf": [{"type": "string", "pattern": SIGNAL}, {"type": "integer", "minimum": 1, "maximum": 64}],
    }
);

free_form!(
    /// HTTP status codes.
    Status,
    {
        "title": "a status code such as 200, a class such as \"2xx\", or a list of these",
        "anyOf": [
            {"type": "integer", "minimum": 100, "maximum": 599},
            {"type": "string", "pattern": STATUS_CLASS},
            {
                "type": "array",
                "minItems": 1,
                "items": {
                    "title": "a status code such as 200, or a class such as \"2xx\"",
                    "anyOf": [
                        {"type": "integer", "minimum": 100, "maximum": 599},
                        {"type": "string", "pattern": STATUS_CLASS},
                    ],
                },
            },
        ],
    }
);

free_form!(
    /// The value of a systemd property.
    PropertyValue,
    {
        "title": "a text, a number, true or false, or a list of these, as in a unit file",
        "anyOf": [
            {"type": "string"},
            {"type": "number"},
            {"type": "boolean"},
            {
                "type": "array",
                "minItems": 1,
                "items": {
                    "title": "a text, a number, true or false",
                    "anyOf": [{"type": "string"}, {"type": "number"}, {"type": "boolean"}],
                },
            },
        ],
    }
);
