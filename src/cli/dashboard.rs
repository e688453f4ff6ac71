//! `dashboard`: where the web page is, with the token, so that one click logs in. The token is behind the `#`, which
//! browsers keep to themselves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::client::Client;
use super::failure::Failure;
use super::out::Out;
use crate::config::{self, Settings};
use crate::http::dto::Session;
use crate::place::Scope;

pub(super) async fn dashboard(client: &Client, out: &mut Out, scope: Scope) -> Result<(), Failure> {
    let config = client.status().await?.supervisor.config_path;
    let session: Session = client.get(&["session"], &[]).await?.read()?;
    let failed = |why: String| Failure::Failed(why);
    let loaded = config::load(Path::new(&config), scope).map_err(|_| {
        failed(format!("{config} has errors, so nobody knows where the page is: `supervisorctl validate`"))
    })?;
    let page = page(&loaded.settings).ok_or_else(|| {
        failed(format!("the API is closed to browsers: {config} has \"listen\": [] under \"supervisor\""))
    })?;
    let Some(file) = session.token_file else {
        return Err(failed(format!(
            "the page is {page}; its token can be had where the socket is: run `supervisorctl dashboard` there, without --url"
        )));
    };
    let token = std::fs::read_to_string(&file).map_err(|error| {
        failed(format!("the page is {page}; the token in {file} cannot be read: {error}"))
    })?;
    let url = format!("{page}#token={}", token.trim());
    if out.json { out.value(&serde_json::json!({"url": url})) } else { out.line(&url) }
}

/// The first address that it listens on, as a browser on this host calls it.
fn page(settings: &Settings) -> Option<String> {
    let address = settings.listen.first()?;
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let scheme = if settings.tls.is_some() { "https" } else { "http" };
    Some(format!("{scheme}://{}/", SocketAddr::new(ip, address.port())))
}
