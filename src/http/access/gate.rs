//! The decision at work: asks it for each request, answers those who are not let in, and notices when what was
//! allowed no longer is.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use tokio::sync::watch;
use tokio::time::Instant;

use super::throttle::{Client, Counted, Throttle};
use super::{Caller, Denial, Facts, Grant, Rules, decide};
use crate::http::error::ApiError;

/// One for all addresses on which we listen.
#[derive(Debug)]
pub(in crate::http) struct Gate {
    rules: watch::Receiver<Rules>,
    throttle: Mutex<Throttle>,
}

/// On which ground the requests of one connection were let in.
#[derive(Debug, Default)]
pub(in crate::http) struct Grants(Mutex<Vec<Grant>>);

impl Grants {
    fn add(&self, grant: Grant) {
        let mut grants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !grants.contains(&grant) {
            grants.push(grant);
        }
    }

    fn hold(&self, rules: &Rules) -> bool {
        let grants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        grants.iter().all(|grant| rules.allows_still(grant))
    }
}

impl Gate {
    pub(in crate::http) fn new(rules: watch::Receiver<Rules>) -> Self {
        Self { rules, throttle: Mutex::default() }
    }

    /// Who asks, or the answer to give instead.
    pub(in crate::http) fn admit(
        &self,
        from: SocketAddr,
        parts: &Parts,
        grants: &Grants,
    ) -> Result<Caller, Box<Response>> {
        let decision = {
            // Held until the grant is noted, so that no change of the rules comes between.
            let rules = self.rules.borrow();
            decide(&Facts::of(parts), &rules).inspect(|grant| grants.add(*grant))
        };
        match decision {
            Ok(Grant::Page | Grant::Anonymous) => Ok(Caller::Anonymous),
            Ok(Grant::Token(role, _)) => Ok(Caller::Token(role)),
            Err(denial) => Err(Box::new(self.refuse(from, &denial))),
        }
    }

    /// Returns when one of `grants` no longer holds: its token was rotated, or reading needs one now.
    pub(in crate::http) async fn revoked(&self, grants: &Grants) {
        let mut rules = self.rules.clone();
        let revoked = rules.wait_for(|rules| !grants.hold(rules)).await.is_ok();
        if !revoked {
            // Nobody changes the rules any more.
            std::future::pending::<()>().await;
        }
    }

    fn refuse(&self, from: SocketAddr, denial: &Denial) -> Response {
        let counted = match denial {
            Denial::WrongToken => self.count(from),
            _ => Counted { first: false, retry_after: None },
        };
        if counted.first {
            tracing::warn!(
                "{} sent a wrong token for the API; it was refused. Further ones of the same burst are not written down",
                from.ip()
            );
        }
        match counted.retry_after {
            Some(wait) => too_many(wait),
            None => refusal(denial),
        }
    }

    fn count(&self, from: SocketAddr) -> Counted {
        let mut throttle = self.throttle.lock().unwrap_or_else(PoisonError::into_inner);
        throttle.wrong(Instant::now(), Client::of(from.ip()))
    }
}

fn too_many(wait: Duration) -> Response {
    let seconds = wait.as_secs() + 1;
    let detail = format!(
        "too many wrong tokens came from your address; try again in {seconds} s. A right token is taken at any time"
    );
    let error =
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_attempts", "Too many wrong tokens", detail);
    let mut response = error.into_response();
    response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    // Each further guess costs a connection.
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

fn refusal(denial: &Denial) -> Response {
    let (status, kind, title, detail) = match denial {
        Denial::BadHost => (
            StatusCode::BAD_REQUEST,
            "bad_host",
            "The Host header is missing or wrong",
            "send one Host header with the address or name of this server".into(),
        ),
        Denial::ForeignHost(name) => (
            StatusCode::FORBIDDEN,
            "foreign_host",
            "This server does not have that name",
            format!(
                "\"{name}\" is not a name of this server (that protects against pages that bend their own name to it): \
                 use its address or localhost, or add the name to \"allowed_hosts\" under \"supervisor\""
            ),
        ),
        Denial::CrossSite(origin) => (
            StatusCode::FORBIDDEN,
            "cross_site",
            "Pages of other sites may not use the API",
            format!("the request came from {}; pages of this server and programs may use it", origin.escape_debug()),
        ),
        Denial::NotBearer => (
            StatusCode::UNAUTHORIZED,
            "bad_authorization",
            "The Authorization header is not understood",
            "send one header \"Authorization: Bearer TOKEN\"".into(),
        ),
        Denial::NoToken => (
            StatusCode::UNAUTHORIZED,
            "token_missing",
            "A token is needed",
            "send the header \"Authorization: Bearer TOKEN\"; the token is in the file \"token\" of the state directory \
             (/var/lib/process-supervisor, or ~/.local/state/process-supervisor in the user scope), or in \
             \"token-viewer\" for reading only"
                .into(),
        ),
        Denial::WrongToken => (
            StatusCode::UNAUTHORIZED,
            "token_wrong",
            "The token is not right",
            "read the token again from the file \"token\" or \"token-viewer\" of the state directory: it may have been \
             rotated"
                .into(),
        ),
        Denial::ReadOnly => (
            StatusCode::FORBIDDEN,
            "read_only",
            "This token may only read",
            "a change needs the operator's token, which is in the file \"token\" of the state directory".into(),
        ),
    };
    let mut response = ApiError::new(status, kind, title, detail).into_response();
    let challenge = match denial {
        Denial::NoToken | Denial::NotBearer => "Bearer realm=\"process-supervisor\"",
        Denial::WrongToken => "Bearer realm=\"process-supervisor\", error=\"invalid_token\"",
        _ => return response,
    };
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    response
}
