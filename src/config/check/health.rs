//! Health checks: which fields go with which type, and what they hold.

use std::time::Duration;

use serde_json::Value as Json;

use super::{Context, secrets};
use crate::config::place::At;
use crate::config::raw::{CheckType, HealthCheck as Raw, MAIN_CHECK_ONLY, Method, Seconds, Status};
use crate::config::{list_words, quote, quote_key, scalar};
use crate::core::plan::{HealthCheck, HttpProbe, Probe};
use crate::core::time::Human;

const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(1);
const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where programs of a service are looked up, and whether that matters.
pub(super) struct Surroundings<'s> {
    pub path: Option<&'s String>,
    pub folder: Option<&'s str>,
    pub enabled: bool,
}

impl Context<'_> {
    pub(super) fn health(&mut self, at: &At<'_>, raw: Option<Raw>, around: &Surroundings<'_>) -> HealthCheck {
        let mut raw = raw.unwrap_or_default();
        let (interval_at, timeout_at) = (at.key("interval"), at.key("timeout"));
        let interval = raw.interval.as_ref().map_or(DEFAULT_INTERVAL, |written: &Seconds| {
            self.duration_from(
                &interval_at,
                written,
                SHORTEST_INTERVAL,
                "checks more often than that help nobody",
            )
        });
        let timeout = raw.timeout.as_ref().map_or(DEFAULT_TIMEOUT.min(interval), |written| {
            self.duration_from(&timeout_at, written, SHORTEST_TIMEOUT, "no check can be answered in no time")
        });
        if timeout > interval {
            let message = format!(
                "the timeout of {} is longer than the interval of {}",
                Human(timeout),
                Human(interval)
            );
            let help =
                "make the timeout shorter or the interval longer: one check has to end before the next";
            self.report.error(&timeout_at, message, help);
        }
        let start_period =
            raw.start_period.as_ref().map_or(Duration::ZERO, |w| self.duration(&at.key("start_period"), w));
        let fallback_at = at.key("fallback_check");
        let fallback = raw.fallback_check.take().map(|fallback| {
            self.only_main_fields(&fallback_at);
            Box::new(self.probe(&fallback_at, *fallback, around))
        });
        let (failures, successes) = (raw.failure_threshold.unwrap_or(3), raw.success_threshold.unwrap_or(1));
        HealthCheck {
            probe: self.probe(at, raw, around),
            interval,
            timeout,
            failure_threshold: failures,
            success_threshold: successes,
            start_period,
            fallback,
        }
    }

    fn only_main_fields(&mut self, at: &At<'_>) {
        for name in MAIN_CHECK_ONLY {
            let at = at.key(name);
            if at.node().is_some() {
                let help = "remove it: a fallback is asked when the check above fails, and once";
                self.report.error_key(&at, format!("a fallback check has no \"{name}\""), help);
            }
        }
    }

    fn probe(&mut self, at: &At<'_>, raw: Raw, around: &Surroundings<'_>) -> Probe {
        let Some(kind) = raw.check_type else { return Probe::Process };
        self.fields_of(at, kind);
        match kind {
            CheckType::Http => self.http(at, raw),
            CheckType::Tcp => self.tcp(at, raw),
            CheckType::Process => Probe::Process,
            CheckType::Exec => {
                let args = raw.args.unwrap_or_default();
                self.arguments(&at.key("args"), &args);
                let program = raw.command.map(|command| {
                    self.program(&at.key("command"), &command, around.path, around.folder, around.enabled)
                });
                Probe::Exec { program: program.unwrap_or_default(), args }
            }
        }
    }

    /// Each type has its own fields: others are refused, and some have to be there.
    fn fields_of(&mut self, at: &At<'_>, kind: CheckType) {
        for other in CheckType::ALL.into_iter().filter(|other| *other != kind) {
            for (name, _) in other.fields() {
                let at = at.key(name);
                if at.node().is_some() {
                    let (other, kind_name) = (other.as_str(), kind.as_str());
                    let message =
                        format!("\"{name}\" belongs to checks of type {other}, and this one is {kind_name}");
                    let own: Vec<_> = kind.fields().iter().map(|(name, _)| *name).collect();
                    let help = if own.is_empty() {
                        "remove it, or change \"type\"".into()
                    } else {
                        format!(
                            "remove it, or change \"type\"; one of type {kind_name} takes {}",
                            own.join(", ")
                        )
                    };
                    self.report.error_key(&at, message, help);
                }
            }
        }
        for (name, _) in kind.fields().iter().filter(|(_, required)| *required) {
            if at.key(name).node().is_none() {
                let message = format!("a check of type {} needs \"{name}\"", kind.as_str());
                let help = match kind {
                    CheckType::Http => {
                        "add \"endpoint\": \"http://localhost:8080/health\", with your port and path"
                    }
                    _ => "add \"command\": the program that exits with 0 when all is well",
                };
                self.report.error_key(at, message, help);
            }
        }
    }

    fn http(&mut self, at: &At<'_>, raw: Raw) -> Probe {
        let endpoint = raw.endpoint.unwrap_or_default();
        if !endpoint.is_empty() || at.key("endpoint").node().is_some_and(|n| n.kind() == "a text") {
            self.endpoint(&at.key("endpoint"), &endpoint);
        }
        let method = raw.method.unwrap_or(Method::Get);
        if method == Method::Head && raw.expected_content.is_some() {
            let help = "use method GET, or remove \"expected_content\"";
            self.report.error(&at.key("expected_content"), "the answer to HEAD has no content", help);
        }
        let headers = raw.headers.unwrap_or_default();
        for (name, value) in &headers {
            let headers_at = at.key("headers");
            let at = headers_at.key(name);
            self.exposed(&at, name, value);
            let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
            if name.is_empty() || !name.bytes().all(token) {
                let help = "a header name is letters, digits and \"-\"";
                self.report.error_key(&at, format!("{} is not the name of a header", quote_key(name)), help);
            }
            if value.chars().any(|c| c.is_control() && c != '\t') {
                self.report.error(&at, "a control character in a header", "write the value in one line");
            }
        }
        Probe::Http(HttpProbe {
            endpoint,
            method: method.as_str().into(),
            headers: secrets(headers),
            expected_status: raw.expected_status.map_or_else(|| vec![(200, 200)], |Status(s)| status(&s)),
            expected_content: raw.expected_content,
            tls_verify: raw.tls_verify.unwrap_or(true),
        })
    }

    /// A URL that can be asked. Passwords have no place in it: it is shown and logged.
    fn endpoint(&mut self, at: &At<'_>, text: &str) {
        if let Err((message, help)) = url(text, &["http", "https", "http+unix"]) {
            self.report.error(at, message, help);
        }
    }

    fn tcp(&mut self, at: &At<'_>, raw: Raw) -> Probe {
        let host = raw.host.unwrap_or_else(|| "localhost".into());
        let host_at = at.key("host");
        if let Some(path) = host.strip_prefix("unix:") {
            if !path.starts_with('/') || path.len() > 107 {
                let help = "write \"unix:/run/app.sock\": an absolute path of at most 107 bytes";
                self.report.error(&host_at, "not the path of a socket", help);
            }
            if raw.port.is_some() {
                self.report.error_key(&at.key("port"), "a Unix socket has no port", "remove \"port\"");
            }
            return Probe::Tcp { host, port: None };
        }
        let part = |c: char| c.is_ascii_alphanumeric() || ".-_:%".contains(c);
        if host.len() > 253
            || !host.chars().all(part)
            || (host.contains(':') && host.parse::<std::net::Ipv6Addr>().is_err())
        {
            let help = "write a name or an address alone, such as \"localhost\" or \"::1\"; the port goes into \"port\"";
            self.report.error(&host_at, format!("{} is not a host", quote(&host)), help);
        }
        if raw.port.is_none() && at.key("port").node().is_none() {
            let help = "add \"port\": the port that the service listens on";
            self.report.error_key(at, "a check of type tcp needs \"port\"", help);
        }
        Probe::Tcp { host, port: raw.port }
    }
}

/// Checks a URL; the message never repeats it where it may hold a password.
pub(super) fn url(text: &str, schemes: &[&str]) -> Result<reqwest::Url, (String, String)> {
    let example = || format!("write a URL such as \"{}://localhost:8080/health\"", schemes[0]);
    let url = reqwest::Url::parse(text).map_err(|e| (format!("not a URL: {e}"), example()))?;
    if !schemes.contains(&url.scheme()) {
        return Err((
            format!("the scheme {} is not known here", quote(url.scheme())),
            format!("it takes {}", list_words(schemes)),
        ));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let help =
            "put them into \"headers\", for example as \"Authorization\": values there are kept secret";
        return Err(("a user or password in a URL, which is shown and logged".into(), help.into()));
    }
    if url.scheme() == "http+unix"
        && !url.host_str().is_some_and(|h| h.to_ascii_lowercase().starts_with("%2f"))
    {
        let help = "write the socket's path as the host, with %2F for each slash: http+unix://%2Frun%2Fapp.sock/health";
        return Err(("the path of the socket is missing".into(), help.into()));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(("the URL names no host".into(), example()));
    }
    Ok(url)
}

fn status(written: &Json) -> Vec<(u16, u16)> {
    match written {
        Json::Array(list) => list.iter().flat_map(status).collect(),
        Json::String(class) => scalar::status_class(class).into_iter().collect(),
        Json::Number(n) => {
            n.as_u64().and_then(|n| u16::try_from(n).ok()).map(|n| (n, n)).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

/// The port of this machine that a check asks, if it asks this machine.
pub(super) fn local_port(probe: &Probe) -> Option<u16> {
    let local = |host: &str| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost"
            || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified())
    };
    match probe {
        Probe::Tcp { host, port } if local(host) => *port,
        Probe::Http(http) => {
            let url = reqwest::Url::parse(&http.endpoint).ok()?;
            url.host_str().filter(|h| local(h)).and_then(|_| url.port_or_known_default())
        }
        _ => None,
    }
}
