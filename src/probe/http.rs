//! HTTP: a request over a new connection, and what is expected of the answer.

use std::error::Error as _;
use std::sync::Arc;

use reqwest::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use reqwest::{Client, ClientBuilder, Method, Response, Url};
use tokio::sync::OnceCell;

use super::{Finding, tcp};
use crate::core::plan::HttpProbe;

/// Redirects that are followed, each to the same host.
const MAX_REDIRECTS: usize = 5;
/// How far into the body the expected content is looked for, in bytes.
const BODY: usize = 64 << 10;

/// What probes share. Cheap to make and to clone. Trusted certificates are read when the first `https` probe asks for
/// them: a supervisor without such a probe does not pay for them.
#[derive(Debug, Clone, Default)]
pub struct ProbeClient(Arc<Clients>);

#[derive(Debug, Default)]
struct Clients {
    plain: OnceCell<Client>,
    verified: OnceCell<Client>,
    unverified: OnceCell<Client>,
}

impl ProbeClient {
    /// For this URL; the socket's path is part of a `http+unix` one.
    async fn suited(&self, url: &Url, tls_verify: bool) -> Result<Client, String> {
        let made = match (url.scheme(), tls_verify) {
            ("http+unix", _) => return socket(url).and_then(|path| plain(|c| c.unix_socket(path))),
            ("https", true) => self.0.verified.get_or_try_init(verified).await,
            ("https", false) => self.0.unverified.get_or_try_init(unverified).await,
            _ => self.0.plain.get_or_try_init(async || plain(|c| c)).await,
        };
        made.cloned()
    }
}

/// Without certificates. reqwest would read the machine's even for a client that never uses them.
fn plain(change: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Result<Client, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    built(change(common()).tls_backend_preconfigured(tls))
}

async fn verified() -> Result<Client, String> {
    // Reads some hundred files.
    let reading = tokio::task::spawn_blocking(|| built(common()));
    reading.await.map_err(|error| format!("TLS cannot be set up: {error}"))?
}

async fn unverified() -> Result<Client, String> {
    built(common().tls_danger_accept_invalid_certs(true))
}

fn built(client: ClientBuilder) -> Result<Client, String> {
    client.build().map_err(|error| format!("the HTTP client cannot be made: {}", root(&error)))
}

/// A new connection each time, straight to the service, and redirects left to [`ask`].
fn common() -> ClientBuilder {
    let client = Client::builder()
        .pool_max_idle_per_host(0)
        .no_proxy()
        .http1_only()
        .referer(false)
        .redirect(reqwest::redirect::Policy::none());
    match tcp::loopback("localhost") {
        // Spares a thread that would ask the resolver. Port 0 stands for that of the URL.
        Some(both) => client.resolve_to_addrs("localhost", &both.map(|address| (address, 0).into())),
        None => client,
    }
}

/// A URL for messages: without user, password and query, which may be secrets.
pub(super) fn shown(endpoint: &str) -> String {
    let Ok(mut url) = Url::parse(endpoint) else { return "the endpoint".into() };
    // Errors mean: there is none.
    let _none = (url.set_username(""), url.set_password(None));
    url.set_fragment(None);
    if url.query().is_some() {
        url.set_query(Some("..."));
    }
    url.into()
}

/// The caller bounds the time.
pub(super) async fn ask(probe: &HttpProbe, target: &str, client: &ProbeClient) -> Finding {
    let mut url = Url::parse(&probe.endpoint).map_err(|error| format!("the endpoint is no URL: {error}"))?;
    let mut method = Method::from_bytes(probe.method.as_bytes())
        .map_err(|_| format!("{:?} is no HTTP method", probe.method))?;
    let own_headers = headers(probe)?;
    let origin = url.clone();
    for _ in 0..=MAX_REDIRECTS {
        let client = client.suited(&url, probe.tls_verify).await?;
        let request = client.request(method.clone(), requested(&url)?).headers(base_headers());
        // Another port may be another program: it does not get the tokens.
        let request = if same_server(&origin, &url) { request.headers(own_headers.clone()) } else { request };
        let answer = request.send().await.map_err(|error| refusal(&error, target))?;
        let status = answer.status().as_u16();
        if probe.expected_status.iter().any(|&(from, to)| (from..=to).contains(&status)) {
            return content(probe, answer, status, target).await;
        }
        match redirect(&answer, &url) {
            Some(next) => {
                // As every client does it.
                if status == 303 || (matches!(status, 301 | 302) && method == Method::POST) {
                    method = Method::GET;
                }
                url = next;
            }
            None => return Err(format!("HTTP {status} from {target}")),
        }
    }
    Err(format!("more than {MAX_REDIRECTS} redirects from {target}"))
}

fn base_headers() -> HeaderMap {
    let agent = HeaderValue::from_static(concat!("process-supervisor/", env!("CARGO_PKG_VERSION")));
    HeaderMap::from_iter([(CONNECTION, HeaderValue::from_static("close")), (USER_AGENT, agent)])
}

fn headers(probe: &HttpProbe) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in &probe.headers {
        let bad =
            |_| format!("the header {name:?} cannot be sent: its name or value holds forbidden characters");
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad(()))?;
        let mut value = HeaderValue::from_str(&value.0).map_err(|_| bad(()))?;
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    Ok(headers)
}

/// Where the answer sends us, if that is the same host and not from `https` to `http`.
fn redirect(answer: &Response, from: &Url) -> Option<Url> {
    if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let to = from.join(answer.headers().get(LOCATION)?.to_str().ok()?).ok()?;
    let same_host = to.host_str().is_some() && to.host_str() == from.host_str();
    let scheme = from.scheme() == to.scheme() || (from.scheme(), to.scheme()) == ("http", "https");
    (same_host && scheme).then_some(to)
}

fn same_server(a: &Url, b: &Url) -> bool {
    (a.scheme(), a.host_str(), a.port_or_known_default())
        == (b.scheme(), b.host_str(), b.port_or_known_default())
}

/// Looks for the expected content while the body comes, and no further than needed.
async fn content(probe: &HttpProbe, mut answer: Response, status: u16, target: &str) -> Finding {
    let passed = Ok(format!("HTTP {status} from {target}"));
    let Some(expected) = probe.expected_content.as_deref().filter(|text| !text.is_empty()) else {
        return passed;
    };
    let expected = expected.as_bytes();
    let mut body: Vec<u8> = Vec::new();
    while body.len() < BODY {
        let chunk = match answer.chunk().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => break,
            Err(error) => return Err(refusal(&error, target)),
        };
        // A match may lie across the border of two chunks.
        let unseen = body.len().saturating_sub(expected.len() - 1);
        body.extend_from_slice(&chunk[..chunk.len().min(BODY - body.len())]);
        if body[unseen..].windows(expected.len()).any(|window| window == expected) {
            return passed;
        }
    }
    Err(format!(
        "HTTP {status} from {target}, but the expected content is not in the first 64 KiB of the body"
    ))
}

/// What a failed request means, in words. reqwest's own hold the whole URL.
fn refusal(error: &reqwest::Error, target: &str) -> String {
    let mut cause = error.source();
    while let Some(inner) = cause {
        match inner.downcast_ref::<std::io::Error>() {
            // One that only wraps another says nothing.
            Some(io) if error.is_connect() && io.get_ref().is_none() => return tcp::refusal(io, target),
            _ => cause = inner.source(),
        }
    }
    if error.is_connect() {
        format!("cannot connect to {target}: {}", root(error))
    } else {
        format!("no proper HTTP answer from {target}: {}", root(error))
    }
}

/// The innermost cause.
fn root(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    match cause.downcast_ref::<reqwest::Error>() {
        Some(_) => "it could not be sent".into(),
        None => cause.to_string(),
    }
}

/// What goes over the wire: for a Unix socket, `localhost` with the same path.
fn requested(url: &Url) -> Result<Url, String> {
    if url.scheme() != "http+unix" {
        return Ok(url.clone());
    }
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    Url::parse(&format!("http://localhost{}{query}", url.path()))
        .map_err(|error| format!("the endpoint is no URL: {error}"))
}

/// The socket of `http+unix://%2Frun%2Fapp.sock/path`.
fn socket(url: &Url) -> Result<String, String> {
    let host = url.host_str().unwrap_or_default();
    let decoded = decode(host).filter(|path| path.starts_with('/'));
    decoded.ok_or_else(|| {
        "the endpoint names no socket: write its absolute path as the host, with %2F for each slash".into()
    })
}

/// Percent-decoding.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'%' {
            let hex = str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(hex, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests;
