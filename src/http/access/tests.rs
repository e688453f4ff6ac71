//! The decision, by tables and by properties.

use axum::http::Request;
use proptest::prelude::*;

use super::*;

const OPERATOR: &str = "operator-operator-operator-operator";
const VIEWER: &str = "viewer-viewer-viewer-viewer-viewer-";

fn rules(anonymous: bool) -> Rules {
    Rules {
        operator: Some(Digest::of(OPERATOR.as_bytes())),
        viewer: Some(Digest::of(VIEWER.as_bytes())),
        anonymous,
        hosts: vec!["shop.example.com".into()],
    }
}

fn parts(method: &str, target: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

/// `operator`, `viewer`, `anonymous`, or why not.
fn verdict(method: &str, target: &str, headers: &[(&str, &str)], rules: &Rules) -> String {
    match decide(&Facts::of(&parts(method, target, headers)), rules) {
        Ok(Grant::Page) => "page".into(),
        Ok(Grant::Anonymous) => "anonymous".into(),
        Ok(Grant::Token(role, _)) => role.as_str().into(),
        Err(denial) => format!("{denial:?}"),
    }
}

const STATUS: &str = "/api/supervisor/status";
const STOP: &str = "/api/supervisor/services/web/stop";

#[test]
fn roles() {
    let operator = format!("Bearer {OPERATOR}");
    let viewer = format!("bearer   {VIEWER} ");
    for (method, path, token, expected) in [
        ("GET", STATUS, operator.as_str(), "operator"),
        ("POST", STOP, &operator, "operator"),
        ("GET", STATUS, &viewer, "viewer"),
        ("HEAD", STATUS, &viewer, "viewer"),
        ("GET", "/api/supervisor/services/web/logs", &viewer, "viewer"),
        ("POST", STOP, &viewer, "ReadOnly"),
        ("DELETE", STATUS, &viewer, "ReadOnly"),
        ("OPTIONS", STATUS, &viewer, "ReadOnly"),
        ("GET", STATUS, "Bearer wrong", "WrongToken"),
        ("GET", STATUS, &operator[..operator.len() - 1], "WrongToken"),
        ("GET", STATUS, "Bearer ", "NotBearer"),
        ("GET", STATUS, "Bearer", "NotBearer"),
        ("GET", STATUS, "Basic b3A6eA==", "NotBearer"),
        ("GET", STATUS, OPERATOR, "NotBearer"),
    ] {
        for anonymous in [false, true] {
            let headers = [("host", "localhost:9001"), ("authorization", token)];
            assert_eq!(
                verdict(method, path, &headers, &rules(anonymous)),
                expected,
                "{method} {path} {token}"
            );
        }
    }
    let twice = [("host", "localhost"), ("authorization", operator.as_str()), ("authorization", &operator)];
    assert_eq!(verdict("GET", STATUS, &twice, &rules(true)), "NotBearer");
}

#[test]
fn without_a_token() {
    let host = [("host", "127.0.0.1:9001")];
    for (method, path, read) in [
        ("GET", STATUS, "anonymous"),
        ("HEAD", STATUS, "anonymous"),
        ("GET", "/api/supervisor/services/web", "anonymous"),
        ("GET", "/api/supervisor/services/web/logs", "NoToken"),
        ("GET", "/api/supervisor/services/web/logs/", "NoToken"),
        ("GET", "/api/supervisor/services/web/logs?follow=true", "NoToken"),
        ("POST", STOP, "NoToken"),
        ("OPTIONS", STATUS, "NoToken"),
    ] {
        assert_eq!(verdict(method, path, &host, &rules(true)), read, "{method} {path}");
        assert_eq!(verdict(method, path, &host, &rules(false)), "NoToken", "{method} {path}");
    }
}

#[test]
fn where_there_is_no_token_nobody_has_it() {
    for token in ["Bearer x", "Bearer \u{0}"] {
        let Ok(value) = axum::http::HeaderValue::from_str(token) else { continue };
        let headers = [("host", "localhost"), ("authorization", value.to_str().unwrap())];
        assert_eq!(verdict("GET", STATUS, &headers, &Rules::default()), "WrongToken");
    }
}

#[test]
fn names_and_pages() {
    let token = format!("Bearer {OPERATOR}");
    let with = |host: &str, more: &[(&str, &str)]| {
        let headers = [&[("host", host), ("authorization", token.as_str())], more].concat();
        verdict("POST", STOP, &headers, &rules(true))
    };
    assert_eq!(with("shop.example.com", &[]), "operator");
    assert_eq!(with("[::1]:9001", &[]), "operator");
    assert_eq!(with("evil.example", &[]), "ForeignHost(\"evil.example\")");
    assert_eq!(with("localhost, evil.example", &[]), "BadHost");
    assert_eq!(with("localhost", &[("host", "evil.example")]), "BadHost");
    assert_eq!(verdict("POST", STOP, &[("authorization", &token)], &rules(true)), "BadHost");
    let headers = [("host", "localhost"), ("authorization", token.as_str())];
    let absolute = "http://evil.example/api/supervisor/status";
    assert_eq!(verdict("GET", absolute, &headers, &rules(true)), "ForeignHost(\"evil.example\")");
    assert_eq!(with("localhost:9001", &[("origin", "http://localhost:9001")]), "operator");
    assert_eq!(with("localhost:9001", &[("origin", "https://shop.example.com")]), "operator");
    assert_eq!(with("localhost:9001", &[("sec-fetch-site", "same-origin")]), "operator");
    assert_eq!(with("localhost:9001", &[("sec-fetch-site", "none")]), "operator");
    for bad in [
        ("origin", "https://evil.example"),
        ("origin", "http://localhost:3000"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "nonsense"),
    ] {
        assert!(with("localhost:9001", &[bad]).starts_with("CrossSite"), "{bad:?}");
        let read = verdict("GET", STATUS, &[("host", "localhost:9001"), bad], &rules(true));
        assert!(read.starts_with("CrossSite"), "{bad:?}");
    }
}

#[test]
fn the_page_itself_is_open_and_nothing_else_is() {
    let strict = rules(false);
    let local = ("host", "127.0.0.1:9001");
    let linked = [local, ("sec-fetch-site", "cross-site")];
    for path in ["/", "/dashboard/app.js", "/dashboard/style.css", "/?x=1"] {
        assert_eq!(verdict("GET", path, &[local], &strict), "page", "{path}");
        assert_eq!(verdict("GET", path, &linked, &strict), "page", "a link on another site leads to {path}");
        assert_eq!(verdict("GET", path, &[local, ("authorization", "Bearer wrong")], &strict), "page");
        assert_eq!(verdict("POST", path, &[local], &strict), "NoToken", "{path}");
        let foreign = verdict("GET", path, &[("host", "evil.example")], &strict);
        assert!(foreign.starts_with("ForeignHost"), "{path}: {foreign}");
    }
    for path in [
        "/dashboard/",
        "/dashboard/../api/supervisor/status",
        "//",
        "/dashboard/x.js",
        "/dashboard/app.js/",
        "/metrics",
        STATUS,
    ] {
        assert_eq!(verdict("GET", path, &[local], &strict), "NoToken", "{path}");
    }
}

#[test]
fn what_was_allowed_may_no_longer_be() {
    let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
    let before = Rules { operator: Some(old), viewer: Some(new), anonymous: true, ..Rules::default() };
    assert!(
        before.allows_still(&Grant::Token(Role::Operator, old)) && before.allows_still(&Grant::Anonymous)
    );
    let after = Rules { operator: Some(new), viewer: None, ..Rules::default() };
    assert!(!after.allows_still(&Grant::Token(Role::Operator, old)));
    assert!(!after.allows_still(&Grant::Token(Role::Viewer, new)), "another role now");
    assert!(!after.allows_still(&Grant::Anonymous));
}

fn header() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{0,40}",
        Just(String::new()),
        Just("localhost:9001".into()),
        Just("http://localhost:9001".into()),
        Just("same-origin".into()),
        Just(format!("Bearer {VIEWER}")),
        Just(format!("Bearer {OPERATOR}")),
        "(Bearer|Basic|bearer) [ -~]{0,40}",
    ]
}

proptest! {
    /// Whatever a request says: a change needs the operator's token, a name of ours, and no foreign page.
    #[test]
    fn nothing_gets_by(
        method in "GET|HEAD|POST|PUT|DELETE|OPTIONS|X",
        path in "/[a-z/]{0,20}(logs|stop|status)/?",
        headers in prop::collection::vec(("host|origin|sec-fetch-site|authorization", header()), 0..6),
        anonymous: bool,
    ) {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let parts = parts(&method, &path, &headers);
        let facts = Facts::of(&parts);
        if let Ok(grant) = decide(&facts, &rules(anonymous)) {
            let reads = method == "GET" || method == "HEAD";
            let sent = |name: &str, value: &str| headers.iter().any(|(n, v)| *n == name && v.trim().contains(value));
            let once = |name: &str| headers.iter().filter(|(n, _)| *n == name).count();
            match grant {
                Grant::Page => prop_assert!(false, "{path} is no page"),
                Grant::Token(Role::Operator, _) => prop_assert!(sent("authorization", OPERATOR)),
                Grant::Token(Role::Viewer, _) => prop_assert!(reads && sent("authorization", VIEWER)),
                Grant::Anonymous => prop_assert!(anonymous && reads && once("authorization") == 0),
            }
            prop_assert!(grant != Grant::Anonymous || !path.trim_end_matches('/').ends_with("/logs"));
            prop_assert!(once("host") == 1 && once("origin") <= 1 && once("authorization") <= 1);
            let host = names::host(facts.host.unwrap().unwrap()).unwrap();
            prop_assert!(names::is_ours(host, &["shop.example.com".into()]));
            if let Some(origin) = facts.origin.unwrap() {
                let own = names::same_origin(origin, facts.host.unwrap().unwrap(), &["shop.example.com".into()]);
                prop_assert!(own);
            }
            prop_assert!(!sent("sec-fetch-site", "cross-site"));
        }
    }
}
