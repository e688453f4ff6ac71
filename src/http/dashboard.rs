//! The web dashboard: a page of our own files, which holds no data and no secret. What it shows it asks of the API, as
//! any client does, so only these paths are open without a token.

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::etag;

/// Where all files but the page itself are.
const FOLDER: &str = "/dashboard/";

/// Everything is ours and from here; nothing is written into the page as script or style.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

struct Asset {
    name: &'static str,
    kind: &'static str,
    text: &'static str,
    hash: u64,
}

impl Asset {
    const fn new(name: &'static str, kind: &'static str, text: &'static str) -> Self {
        Self { name, kind, text, hash: etag::of_text(text) }
    }
}

macro_rules! assets {
    ($($name:literal: $kind:expr,)*) => {
        [$(Asset::new($name, $kind, include_str!(concat!("dashboard/", $name)))),*]
    };
}

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

static PAGE: Asset = Asset::new("", HTML, include_str!("dashboard/index.html"));
static ASSETS: [Asset; 15] = assets! {
    "style.css": STYLE,
    "icon.svg": "image/svg+xml",
    "app.js": SCRIPT,
    "actions.js": SCRIPT,
    "api.js": SCRIPT,
    "chart.js": SCRIPT,
    "dom.js": SCRIPT,
    "events.js": SCRIPT,
    "keys.js": SCRIPT,
    "login.js": SCRIPT,
    "logs.js": SCRIPT,
    "overview.js": SCRIPT,
    "config.js": SCRIPT,
    "service.js": SCRIPT,
    "store.js": SCRIPT,
};

/// Whether `path` is one of the page's own, which anybody may read.
pub(super) fn is_part_of_the_page(path: &str) -> bool {
    path == "/" || path.strip_prefix(FOLDER).is_some_and(|name| ASSETS.iter().any(|asset| asset.name == name))
}

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let page = Router::new().route("/", get(async |headers: HeaderMap| PAGE.answer(&headers)));
    ASSETS.iter().fold(page, |router, asset| {
        let serve = async |headers: HeaderMap| asset.answer(&headers);
        router.route(&format!("{FOLDER}{}", asset.name), get(serve))
    })
}

impl Asset {
    fn answer(&self, headers: &HeaderMap) -> Response {
        let tag = format!("\"{:x}\"", self.hash);
        if let Some(unchanged) = etag::unchanged(headers, &tag) {
            return unchanged;
        }
        let headers: [(HeaderName, &str); 4] = [
            (CONTENT_TYPE, self.kind),
            (CONTENT_SECURITY_POLICY, POLICY),
            (CACHE_CONTROL, "no-cache"),
            (ETAG, &tag),
        ];
        (StatusCode::OK, headers, self.text).into_response()
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;
    use crate::http::tests::world;

    async fn ask(path: &str, tag: Option<&str>) -> Response {
        let mut request = Request::builder().uri(path);
        if let Some(tag) = tag {
            request = request.header("if-none-match", tag);
        }
        world().router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn every_file_comes_with_its_kind_and_a_strict_policy() {
        for asset in std::iter::once(&PAGE).chain(&ASSETS) {
            let path = if asset.name.is_empty() { "/".into() } else { format!("{FOLDER}{}", asset.name) };
            let response = ask(&path, None).await;
            let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
            assert_eq!(
                (response.status(), header("content-type").as_str()),
                (StatusCode::OK, asset.kind),
                "{path}"
            );
            let policy = header("content-security-policy");
            assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
            assert_eq!(header("x-content-type-options"), "nosniff");
            let tag = header("etag");
            let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
            assert_eq!(body, asset.text.as_bytes());
            assert_eq!(ask(&path, Some(&tag)).await.status(), StatusCode::NOT_MODIFIED, "{path}");
        }
    }

    /// Else a new program's page is the old one out of the browser's cache.
    #[test]
    fn every_file_has_a_tag_of_its_own() {
        let tags: std::collections::BTreeSet<u64> = ASSETS.iter().map(|asset| asset.hash).collect();
        assert_eq!(tags.len(), ASSETS.len());
        assert_eq!(etag::of_text("foobar"), 0x8594_4171_f739_67e8, "that of the algorithm's authors");
    }

    /// The policy would stop them in the browser, where nobody sees it.
    #[test]
    fn nothing_is_written_into_the_page_and_nothing_comes_from_elsewhere() {
        for asset in std::iter::once(&PAGE).chain(&ASSETS) {
            for forbidden in ["style=", "onclick=\"", "innerHTML", "insertAdjacentHTML", "eval(", "https://"]
            {
                assert!(!asset.text.contains(forbidden), "{} has {forbidden}", asset.name);
            }
        }
    }

    /// A module that is not served is a white page.
    #[test]
    fn every_file_that_is_named_is_there() {
        for asset in std::iter::once(&PAGE).chain(&ASSETS) {
            for named in asset.text.split(FOLDER).skip(1) {
                let name = named.split('"').next().unwrap();
                assert!(is_part_of_the_page(&format!("{FOLDER}{name}")), "{} names {name}", asset.name);
            }
        }
    }
}
