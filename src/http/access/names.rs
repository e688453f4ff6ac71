//! Names by which we may be called, and pages that may call.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The host in `host`, `host:port` or `[address]:port`. `None` if it is none of these.
pub(super) fn host(authority: &str) -> Option<&str> {
    let port = |text: &str| text.is_empty() || text.parse::<u16>().is_ok();
    if let Some(rest) = authority.strip_prefix('[') {
        let (address, after) = rest.split_once(']')?;
        let well = after.is_empty() || after.strip_prefix(':').is_some_and(port);
        return (well && address.parse::<Ipv6Addr>().is_ok()).then_some(address);
    }
    let host = match authority.split_once(':') {
        Some((host, after)) if port(after) => host,
        Some(_) => return None,
        None => authority,
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    (!host.is_empty() && host.bytes().all(plain)).then_some(host)
}

/// An address was not looked up by name, so nobody can have bent the name to us; `localhost` is no name that somebody
/// else can own (RFC 6761). Others are ours if they are in the list, which is in lower case.
pub(super) fn is_ours(host: &str, names: &[String]) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    name.parse::<Ipv4Addr>().is_ok()
        || name.parse::<Ipv6Addr>().is_ok()
        || name == "localhost"
        || name.ends_with(".localhost")
        || names.contains(&name)
}

/// Whether a page came from here: it has the name and port by which we are called, or a name of ours that a proxy in
/// front of us answers to.
pub(super) fn same_origin(origin: &str, called: &str, names: &[String]) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let usual = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let plain = |authority: &str| authority.strip_suffix(usual).unwrap_or(authority).to_ascii_lowercase();
    let listed = |name: &str| names.contains(&name.to_ascii_lowercase());
    plain(authority) == plain(called) || host(authority).is_some_and(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_authorities() {
        for (authority, expected) in [
            ("localhost", Some("localhost")),
            ("localhost:9001", Some("localhost")),
            ("localhost:", Some("localhost")),
            ("127.0.0.1:9001", Some("127.0.0.1")),
            ("[::1]:9001", Some("::1")),
            ("[::1]", Some("::1")),
            ("my_host-1.example.com.:80", Some("my_host-1.example.com.")),
            ("", None),
            (":9001", None),
            ("::1", None),
            ("[::1", None),
            ("[::1]9001", None),
            ("[evil]:9001", None),
            ("localhost:99999", None),
            ("localhost:x", None),
            ("user@localhost", None),
            ("localhost/../evil", None),
            ("a b", None),
            ("evil.example#localhost", None),
        ] {
            assert_eq!(host(authority), expected, "{authority}");
        }
    }

    #[test]
    fn names_that_are_ours() {
        let names = ["shop.example.com".to_owned()];
        for (name, ours) in [
            ("localhost", true),
            ("LocalHost.", true),
            ("api.localhost", true),
            ("10.1.2.3", true),
            ("fe80::1", true),
            ("SHOP.example.com", true),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("notlocalhost", false),
            ("127.0.0.1.evil.example", false),
            ("127.1", false),
            ("shop.example.com.evil", false),
        ] {
            assert_eq!(is_ours(name, &names), ours, "{name}");
        }
    }

    #[test]
    fn pages_that_came_from_here() {
        let names = ["shop.example.com".to_owned()];
        for (origin, called, same) in [
            ("http://localhost:9001", "localhost:9001", true),
            ("http://LOCALHOST:9001", "localhost:9001", true),
            ("https://localhost", "localhost", true),
            ("https://localhost:443", "localhost", true),
            ("https://shop.example.com", "127.0.0.1:9001", true),
            ("http://localhost:3000", "localhost:9001", false),
            ("http://localhost", "localhost:9001", false),
            ("http://127.0.0.1:9001", "localhost:9001", false),
            ("https://evil.example", "localhost:9001", false),
            ("https://shop.example.com.evil", "shop.example.com", false),
            ("null", "localhost:9001", false),
            ("", "localhost:9001", false),
            ("file://", "localhost:9001", false),
            ("chrome-extension://localhost:9001", "localhost:9001", false),
        ] {
            assert_eq!(same_origin(origin, called, &names), same, "{origin} at {called}");
        }
    }
}
