//! Who may do what over TCP. The decision is a function; what surrounds it only asks it.
//!
//! ```text
//!   request -> Facts --.
//!                      v
//!            Rules -> decide -> Caller -> router (handlers ask `Caller` what they may show)
//!                      |
//!                      '------> Denial -> throttle (wrong tokens only) -> problem document
//! ```
//!
//! The order of the checks: the name by which we are called (DNS rebinding), the page that calls (cross-site requests),
//! the token, what its role allows. Requests over the Unix socket are not looked at: the mode of its file is the
//! permission.

mod gate;
mod names;
#[cfg(test)]
mod tests;
mod throttle;

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderName, Method};

use super::dashboard;
use crate::token::{Digest, Role};

pub(super) use gate::{Gate, Grants};
pub(super) use throttle::Client;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What is allowed now. The same for all addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// The token of those who may do everything. `None`: there is none, and nobody has it.
    pub operator: Option<Digest>,
    /// The token of those who may read.
    pub viewer: Option<Digest>,
    /// Everybody may read, except logs and configuration.
    pub anonymous: bool,
    /// Names of this host besides addresses and localhost, in lower case.
    pub hosts: Vec<String>,
}

impl Rules {
    /// The role of a token. Both are compared, whichever it is.
    fn role(&self, presented: &Digest) -> Option<Role> {
        let is = |known: &Option<Digest>| known.as_ref().is_some_and(|known| known == presented);
        match (is(&self.operator), is(&self.viewer)) {
            (true, _) => Some(Role::Operator),
            (_, true) => Some(Role::Viewer),
            _ => None,
        }
    }

    /// Whether what was allowed still is.
    fn allows_still(&self, grant: &Grant) -> bool {
        match grant {
            Grant::Page => true,
            Grant::Anonymous => self.anonymous,
            Grant::Token(role, digest) => self.role(digest) == Some(*role),
        }
    }
}

/// On which ground a request was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grant {
    /// The dashboard's own files.
    Page,
    Anonymous,
    Token(Role, Digest),
}

/// Who asks, as far as it decides what is shown and done. Taken by handlers; without one the request came through the
/// socket, or from a program that mounts the router and answers for its callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    /// May do everything, tokens included.
    Local,
    /// Has a token of this role.
    Token(Role),
    /// Has none, and may read except logs and configuration.
    Anonymous,
}

impl Caller {
    /// Logs, also lines of them in alerts, and configuration.
    pub(super) fn may_see_inside(self) -> bool {
        self != Self::Anonymous
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().copied().unwrap_or(Self::Local))
    }
}

/// What a request says of itself. `Err` where a header cannot be read or is there twice.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Facts<'r> {
    method: &'r Method,
    path: &'r str,
    /// In the target of the request, as proxies write it.
    authority: Option<&'r str>,
    host: Header<'r>,
    origin: Header<'r>,
    fetch_site: Header<'r>,
    authorization: Header<'r>,
}

/// A header that is to be there once at most.
type Header<'r> = Result<Option<&'r str>, ()>;

impl<'r> Facts<'r> {
    fn of(parts: &'r Parts) -> Self {
        let header = |name: &HeaderName| {
            let mut values = parts.headers.get_all(name).iter();
            match (values.next(), values.next()) {
                (None, _) => Ok(None),
                (Some(value), None) => value.to_str().map(Some).map_err(|_| ()),
                _ => Err(()),
            }
        };
        Self {
            method: &parts.method,
            path: parts.uri.path(),
            authority: parts.uri.authority().map(axum::http::uri::Authority::as_str),
            host: header(&HOST),
            origin: header(&ORIGIN),
            fetch_site: header(&SEC_FETCH_SITE),
            authorization: header(&AUTHORIZATION),
        }
    }

    /// It changes nothing.
    fn reads(&self) -> bool {
        matches!(*self.method, Method::GET | Method::HEAD)
    }

    /// What those without a token never see as a whole. Parts of other answers are left out by their handlers.
    fn is_inside(&self) -> bool {
        self.path.trim_end_matches('/').ends_with("/logs")
    }
}

/// Why a request is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Denial {
    /// No name, several, or one that cannot be.
    BadHost,
    /// A name that is not ours.
    ForeignHost(String),
    /// A page of another site.
    CrossSite(String),
    /// `Authorization` is not `Bearer` and one word.
    NotBearer,
    NoToken,
    WrongToken,
    /// A viewer wants a change.
    ReadOnly,
}

/// The decision.
fn decide(facts: &Facts<'_>, rules: &Rules) -> Result<Grant, Denial> {
    let host = called_as(facts, rules)?;
    if facts.reads() && dashboard::is_part_of_the_page(facts.path) {
        // A link on another site may lead here, a token is not needed, and nothing is shown.
        return Ok(Grant::Page);
    }
    same_site(facts, host, rules)?;
    let Some(token) = bearer(facts)? else {
        let open = rules.anonymous && facts.reads() && !facts.is_inside();
        return if open { Ok(Grant::Anonymous) } else { Err(Denial::NoToken) };
    };
    let digest = Digest::of(token.as_bytes());
    match rules.role(&digest) {
        None => Err(Denial::WrongToken),
        Some(Role::Viewer) if !facts.reads() => Err(Denial::ReadOnly),
        Some(role) => Ok(Grant::Token(role, digest)),
    }
}

/// A page that makes its own name lead to our address (DNS rebinding) still calls us by that name.
fn called_as<'r>(facts: &Facts<'r>, rules: &Rules) -> Result<&'r str, Denial> {
    let Ok(Some(host)) = facts.host else { return Err(Denial::BadHost) };
    for authority in [Some(host), facts.authority].into_iter().flatten() {
        let name = names::host(authority).ok_or(Denial::BadHost)?;
        if !names::is_ours(name, &rules.hosts) {
            return Err(Denial::ForeignHost(name.chars().take(100).collect()));
        }
    }
    Ok(host)
}

/// A browser says where a page came from; other programs say nothing.
fn same_site(facts: &Facts<'_>, host: &str, rules: &Rules) -> Result<(), Denial> {
    let foreign = |origin: &str| Err(Denial::CrossSite(origin.chars().take(100).collect()));
    match facts.origin {
        Ok(None) => {}
        Ok(Some(origin)) if names::same_origin(origin, host, &rules.hosts) => {}
        Ok(Some(origin)) => return foreign(origin),
        Err(()) => return foreign("an Origin that cannot be read"),
    }
    match facts.fetch_site {
        Ok(None | Some("same-origin" | "same-site" | "none")) => Ok(()),
        _ => foreign("a page of another site"),
    }
}

fn bearer<'r>(facts: &Facts<'r>) -> Result<Option<&'r str>, Denial> {
    let value = match facts.authorization {
        Ok(None) => return Ok(None),
        Ok(Some(value)) => value,
        Err(()) => return Err(Denial::NotBearer),
    };
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() => {
            Ok(Some(token.trim()))
        }
        _ => Err(Denial::NotBearer),
    }
}
