//! The `supervisor` block.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use super::Context;
use super::health::url;
use crate::config::place::At;
use crate::config::quote;
use crate::config::raw::{self, Anonymous};
use crate::tls::{TlsFile, TlsFiles};

/// The supervisor's own settings, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// TCP addresses of the dashboard and the API; may be empty.
    pub listen: Vec<SocketAddr>,
    /// Certificate and key for all of `listen`, absolute paths.
    pub tls: Option<TlsFiles>,
    /// Further names of this host, in lower case.
    pub allowed_hosts: Vec<String>,
    /// Who may read over TCP without a token.
    pub anonymous: Anonymous,
    /// Absolute path of the database, where it is not the one in the state directory.
    pub database: Option<PathBuf>,
    /// From one sample to the next; one second to one day.
    pub metrics_interval: Duration,
    /// How long samples and events are kept; 1 or more.
    pub retention_days: u32,
    /// Whether SIGTERM stops the services too.
    pub stop_services_on_exit: bool,
    /// User of services that name none; in the plan already.
    pub default_user: Option<String>,
    /// Base URL of another dashboard, without a password in it.
    pub dashboard_url: Option<String>,
    /// Absolute path of the file with its token.
    pub dashboard_token_file: Option<PathBuf>,
    /// Bound on services in `starting`; in the plan already.
    pub max_concurrent_starts: Option<NonZeroUsize>,
}

pub(in crate::config) fn supervisor(ctx: &mut Context<'_>, at: &At<'_>, raw: raw::Supervisor) -> Settings {
    let interval_at = at.key("metrics_interval");
    let second = Duration::from_secs(1);
    let metrics_interval =
        ctx.duration_from(&interval_at, &raw.metrics_interval, second, "samples are rates over this time");
    if metrics_interval > 86400 * second {
        ctx.report.error(&interval_at, "the interval is longer than a day", "write 1 to 86400 seconds");
    }
    let default_user =
        raw.default_user.and_then(|user| ctx.account(&at.key("default_user"), &user, true, true));
    if let Some(text) = &raw.dashboard_url {
        let at = at.key("dashboard_url");
        if let Err((message, _)) = url(text, &["http", "https"]) {
            let help = "write \"http://host:port\"; a token goes into the file of \"dashboard_token_file\"";
            ctx.report.error(&at, message, help);
        }
    } else if raw.dashboard_token_file.is_some() && at.key("dashboard_url").node().is_none() {
        let help = "add \"dashboard_url\", or remove the token file";
        ctx.report.error_key(
            &at.key("dashboard_token_file"),
            "a token without a dashboard to send it to",
            help,
        );
    }
    let tls = raw.tls.map(|written| tls(ctx, &at.key("tls"), written));
    Settings {
        listen: listen(ctx, &at.key("listen"), &raw.listen, tls.is_some()),
        tls,
        allowed_hosts: allowed_hosts(ctx, &at.key("allowed_hosts"), &raw.allowed_hosts),
        anonymous: raw.anonymous,
        database: ctx.absolute(&at.key("database"), raw.database).map(PathBuf::from),
        metrics_interval,
        retention_days: raw.retention_days,
        stop_services_on_exit: raw.stop_services_on_exit,
        default_user,
        dashboard_url: raw.dashboard_url,
        dashboard_token_file: ctx
            .absolute(&at.key("dashboard_token_file"), raw.dashboard_token_file)
            .map(PathBuf::from),
        max_concurrent_starts: NonZeroUsize::new(raw.max_concurrent_starts),
    }
}

/// The files are read too: a certificate that cannot be served is better found here.
fn tls(ctx: &mut Context<'_>, at: &At<'_>, written: raw::Tls) -> TlsFiles {
    let places = [at.key("certificate"), at.key("key")];
    let [certificate, key] = [(&places[0], written.certificate), (&places[1], written.key)]
        .map(|(at, path)| PathBuf::from(ctx.absolute(at, path).unwrap_or_default()));
    let files = TlsFiles { certificate, key };
    if files.certificate.is_absolute()
        && files.key.is_absolute()
        && let Err(fault) = ctx.world.check_tls(&files)
    {
        let at = match fault.file {
            TlsFile::Certificate => &places[0],
            TlsFile::Key => &places[1],
        };
        ctx.lacking(at, true, fault.message, fault.help);
    }
    files
}

fn allowed_hosts(ctx: &mut Context<'_>, at: &At<'_>, written: &[String]) -> Vec<String> {
    let mut names = Vec::new();
    for (index, name) in written.iter().enumerate() {
        let label = |label: &str| {
            !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if name.len() > 253 || !name.split('.').all(label) {
            let message = format!("{} is not a host name", quote(name));
            let help = "write a name such as \"supervisor.example.com\", without scheme and port; patterns are not known";
            ctx.report.error(&at.index(index), message, help);
        }
        names.push(name.to_ascii_lowercase());
    }
    names
}

fn listen(ctx: &mut Context<'_>, at: &At<'_>, written: &[String], encrypted: bool) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for (index, text) in written.iter().enumerate() {
        let at = at.index(index);
        let port_of_localhost = text.strip_prefix("localhost:").and_then(|p| p.parse().ok());
        let address = match port_of_localhost {
            Some(port) => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
            None => text.parse::<SocketAddr>().ok(),
        };
        let Some(address) = address else {
            let message = format!("{} is not an address with a port", quote(text));
            let help =
                "write \"127.0.0.1:9001\", \"[::1]:9001\" or \"localhost:9001\"; names are not looked up";
            ctx.report.error(&at, message, help);
            continue;
        };
        if !address.ip().is_loopback() && !encrypted {
            let help = "everybody on the way can read the token, and with it control every service; give a certificate in \
                        \"tls\", or use 127.0.0.1 with a TLS proxy or an SSH tunnel";
            let message = format!("{address} is reachable from other machines over plain HTTP");
            ctx.report.warn(&at, message, help);
        }
        addresses.push(address);
    }
    addresses
}
