//! Asking the API.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::{Gid, Group};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::args::Args;
use super::failure::Failure;
use super::messages::Messages;
use crate::http::dto::{ProblemDocument, Status};
use crate::place::{Places, Scope};

/// A read answers at once; a change may take as long as the service does.
const READ_TIME: Duration = Duration::from_secs(30);
/// Most bytes of an answer that are read.
const ANSWER_LIMIT: usize = 64 * 1024 * 1024;

/// A connection to one supervisor.
#[derive(Debug, Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    /// `None` for a URL.
    socket: Option<PathBuf>,
    scope: Scope,
}

/// An answer that is no error.
#[derive(Debug)]
pub(super) struct Reply {
    /// As it came.
    pub(super) text: String,
}

impl Reply {
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_str(&self.text).map_err(|error| {
            Failure::Failed(format!(
                "the answer of the supervisor is not understood ({error}); is it of another version? \
                 `supervisorctl version` shows both"
            ))
        })
    }
}

impl Client {
    pub(super) fn new(args: &Args, places: &Places) -> Result<Self, Failure> {
        let socket = match (&args.url, &args.socket) {
            (Some(_), _) => None,
            (None, Some(socket)) => Some(socket.clone()),
            (None, None) => Some(places.socket()),
        };
        let base = args.url.as_deref().unwrap_or("http://localhost");
        let base = Url::parse(base)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| Failure::Usage(format!("--url {base}: an http or https URL is expected")))?;
        let mut http = reqwest::Client::builder()
            .tls_backend_preconfigured(crate::tls::client(&base).map_err(Failure::Failed)?)
            .default_headers(token(args.token_file.as_deref())?)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(10));
        if let Some(socket) = &socket {
            http = http.unix_socket(socket.as_path()).no_proxy();
        }
        let http =
            http.build().map_err(|error| Failure::Failed(format!("cannot make an HTTP client: {error}")))?;
        Ok(Self { http, base, socket, scope: places.scope })
    }

    pub(super) async fn get(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Reply, Failure> {
        self.send(self.http.request(Method::GET, self.url(path, query)).timeout(READ_TIME)).await
    }

    /// Without a bound on the time: the server has one.
    pub(super) async fn post(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Reply, Failure> {
        self.send(self.http.request(Method::POST, self.url(path, query))).await
    }

    pub(super) async fn post_json(&self, path: &[&str], body: &impl Serialize) -> Result<Reply, Failure> {
        self.send(self.http.request(Method::POST, self.url(path, &[])).json(body)).await
    }

    pub(super) async fn status(&self) -> Result<Status, Failure> {
        self.get(&["status"], &[]).await?.read()
    }

    fn url(&self, path: &[&str], query: &[(&str, &str)]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "supervisor"]).extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    /// Server-sent events, of the past those after the one with the id `last`.
    pub(super) async fn stream(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        last: Option<&str>,
    ) -> Result<Messages, Failure> {
        let mut request = self.http.request(Method::GET, self.url(path, query));
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let kind = response.headers().get(reqwest::header::CONTENT_TYPE);
        if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream")) {
            return Ok(Messages::new(response));
        }
        self.read(response).await.and(Err(Failure::Failed(format!("{} gave no stream", self.place()))))
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Reply, Failure> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        self.read(response).await
    }

    async fn read(&self, mut response: reqwest::Response) -> Result<Reply, Failure> {
        let status = response.status();
        let kind = response.headers().get(reqwest::header::CONTENT_TYPE);
        let is_problem = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/problem+json"));
        let is_json = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
            body.extend_from_slice(&part);
            if body.len() > ANSWER_LIMIT {
                return Err(Failure::Failed("the answer is too large; ask for less".into()));
            }
        }
        let text = String::from_utf8_lossy(&body).into_owned();
        let reply = Reply { text };
        if is_problem {
            return Err(Failure::Problem(Box::new(reply.read::<ProblemDocument>()?)));
        }
        // `GET health` says 503 with an ordinary body.
        if is_json && (status.is_success() || status == reqwest::StatusCode::SERVICE_UNAVAILABLE) {
            return Ok(reply);
        }
        Err(Failure::Failed(format!("{} answered {status}: is that a process supervisor?", self.place())))
    }

    fn place(&self) -> String {
        self.socket.as_ref().map_or_else(|| self.base.to_string(), |socket| socket.display().to_string())
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let (kind, why) = cause(error);
        if !error.is_connect() {
            let why = if error.is_timeout() { "it does not answer in time".into() } else { why };
            return Failure::NoDaemon(format!("the supervisor at {} is gone: {why}", self.place()));
        }
        let Some(socket) = &self.socket else {
            return Failure::NoDaemon(format!("no supervisor answers at {}: {why}", self.base));
        };
        Failure::NoDaemon(match kind {
            Some(ErrorKind::PermissionDenied) => denied(socket),
            _ => absent(socket, self.scope, &why),
        })
    }
}

/// The innermost error, which names the reason.
fn cause(error: &reqwest::Error) -> (Option<ErrorKind>, String) {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    let kind = inner.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    (kind, inner.to_string())
}

fn denied(socket: &Path) -> String {
    let group = std::fs::metadata(socket).ok().map(|meta| Gid::from_raw(meta.gid()));
    if group.is_some_and(|gid| gid.as_raw() == 0) {
        return format!("you may not use {}: it is for root alone. Use sudo", socket.display());
    }
    // Where not even the folder may be looked into, the group is the one that the package makes.
    let group = group
        .and_then(|gid| Group::from_gid(gid).ok().flatten())
        .map_or_else(|| "process-supervisor".into(), |group| group.name);
    format!(
        "you may not use {}: it is for root and the group {group}. Use sudo, or join the group \
         (`sudo usermod -aG {group} $USER`) and log in again",
        socket.display()
    )
}

fn absent(socket: &Path, scope: Scope, why: &str) -> String {
    let other = match scope {
        Scope::System => Scope::User,
        Scope::User => Scope::System,
    };
    let elsewhere = Places::new(other, |name| std::env::var(name).ok()).socket();
    let hint = if elsewhere != socket && elsewhere.exists() {
        format!(". There is one of the other scope: add --{}", other.as_str())
    } else {
        let user = if scope == Scope::User { "--user " } else { "" };
        format!(
            ". Start it: `systemctl {user}start process-supervisor`, or `process-supervisor --daemon --{}`",
            scope.as_str()
        )
    };
    format!("no supervisor answers at {} ({why}){hint}", socket.display())
}

fn token(file: Option<&Path>) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    let Some(file) = file else { return Ok(headers) };
    let usage = |why: String| Failure::Usage(format!("--token-file {}: {why}", file.display()));
    let token = std::fs::read_to_string(file).map_err(|error| usage(error.to_string()))?;
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
        .map_err(|_| usage("it does not hold a token".into()))?;
    value.set_sensitive(true);
    headers.insert(AUTHORIZATION, value);
    Ok(headers)
}
