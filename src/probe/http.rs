//! HTTP: a request over a new connection, and what is expected of the answer.

mod exchange;
#[cfg(test)]
mod tests;
mod trust;

use std::pin::Pin;

use base64::Engine as _;
use hyper::body::{Body as _, Incoming};
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT,
};
use hyper::{Method, Request, Response};
use reqwest::Url;

use super::{Finding, tcp};
use crate::core::plan::HttpProbe;
use exchange::Exchange;

pub use trust::ProbeClient;

/// Redirects that are followed, each to the same host.
const MAX_REDIRECTS: usize = 5;
/// How far into the body the expected content is looked for, in bytes.
const BODY: usize = 64 << 10;

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
        // Another port may be another program: it does not get the tokens.
        let own = same_server(&origin, &url).then_some(&own_headers);
        let request = request(&url, &method, own)?;
        let mut exchange = Exchange::open(&url, client.suited(&url, probe.tls_verify).await?, target).await?;
        let mut answer = exchange.send(request, target).await?;
        let status = answer.status().as_u16();
        let finding = if probe.expected_status.iter().any(|&(from, to)| (from..=to).contains(&status)) {
            content(probe, &mut exchange, &mut answer, target).await
        } else if let Some(next) = redirect(&answer, &url) {
            // As every client does it.
            if status == 303 || (matches!(status, 301 | 302) && method == Method::POST) {
                method = Method::GET;
            }
            exchange.close(client.closing());
            url = next;
            continue;
        } else {
            Err(format!("HTTP {status} from {target}"))
        };
        exchange.close(client.closing());
        return finding;
    }
    Err(format!("more than {MAX_REDIRECTS} redirects from {target}"))
}

/// Without a body. The header `Host` and what is asked for are those of a server that stands behind no proxy.
fn request(url: &Url, method: &Method, own: Option<&HeaderMap>) -> Result<Request<String>, String> {
    let host = match (url.scheme(), url.host_str(), url.port()) {
        ("http+unix", ..) | (_, None, _) => "localhost".to_owned(),
        (_, Some(host), Some(port)) => format!("{host}:{port}"),
        (_, Some(host), None) => host.to_owned(),
    };
    let path = if url.path().is_empty() { "/" } else { url.path() };
    let query = url.query().map_or_else(String::new, |query| format!("?{query}"));
    let unfit = |_| "the endpoint cannot be asked for: it holds forbidden characters".to_owned();
    let mut request = Request::new(String::new());
    *request.method_mut() = method.clone();
    *request.uri_mut() = format!("{path}{query}").parse().map_err(|_| unfit(()))?;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_str(&host).map_err(|_| unfit(()))?);
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    let agent = concat!("process-supervisor/", env!("CARGO_PKG_VERSION"));
    headers.insert(USER_AGENT, HeaderValue::from_static(agent));
    if let Some(login) = login(url) {
        headers.insert(AUTHORIZATION, login);
    }
    for (name, value) in own.into_iter().flatten() {
        headers.insert(name, value.clone());
    }
    Ok(request)
}

/// The user part of the URL, as servers expect it.
fn login(url: &Url) -> Option<HeaderValue> {
    let password = url.password().unwrap_or_default();
    if url.username().is_empty() && password.is_empty() {
        return None;
    }
    let pair = format!("{}:{}", decode(url.username())?, decode(password)?);
    let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
    let mut value = HeaderValue::from_str(&format!("Basic {encoded}")).ok()?;
    value.set_sensitive(true);
    Some(value)
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
fn redirect(answer: &Response<Incoming>, from: &Url) -> Option<Url> {
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
async fn content(
    probe: &HttpProbe,
    exchange: &mut Exchange,
    answer: &mut Response<Incoming>,
    target: &str,
) -> Finding {
    let status = answer.status().as_u16();
    let passed = Ok(format!("HTTP {status} from {target}"));
    let Some(expected) = probe.expected_content.as_deref().filter(|text| !text.is_empty()) else {
        return passed;
    };
    let expected = expected.as_bytes();
    let mut body: Vec<u8> = Vec::new();
    while body.len() < BODY {
        let answer = answer.body_mut();
        let frame = exchange.drive(std::future::poll_fn(|cx| Pin::new(&mut *answer).poll_frame(cx))).await;
        let chunk = match frame {
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(error)) => return Err(exchange::broken(&error, target)),
            None => break,
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
