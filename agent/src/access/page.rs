//! Owns what keeps the web pages of others away from an API that asks nobody for a token.
//!
//! A browser on the device can be led to this API by any page that it shows: across sites, or by a name of
//! that page's own that resolves to loopback (DNS rebinding). It says so in `Origin` and `Host`.
//!
//! Pure. **Invariant:** a request that a browser sends for a page of another host is told from one that a
//! program of this device sends.

use std::net::IpAddr;

/// Whether this is sent for a page of somebody else's; `known` are further names of this device.
pub(crate) fn is_foreign(host: Option<&str>, origin: Option<&str>, known: &[String]) -> bool {
    let is_own = |name: &str| {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let is_local = name == "localhost" || name.ends_with(".localhost");
        // Who rebinds a name needs a name.
        is_local || name.parse::<IpAddr>().is_ok() || known.contains(&name)
    };
    let is_own_page = |name: &str| match name.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => is_own(name),
    };
    let origin = origin.map(|origin| origin.split_once("://").map(|(_, rest)| rest));
    match origin {
        // `null`: a page that must not say where it is from.
        Some(None) => true,
        Some(Some(authority)) if !is_own_page(name(authority)) => true,
        Some(Some(_)) | None => host.is_some_and(|host| !is_own(name(host))),
    }
}

/// The name in `name:port`, `[address]:port` and the like.
fn name(authority: &str) -> &str {
    match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_others_are_told_from_programs_of_this_device() {
        let known = ["edge-7.plant.example".to_owned()];
        for (host, origin, want) in [
            (None, None, false),
            (Some("127.0.0.1:8470"), None, false),
            (Some("[::1]:8470"), None, false),
            (Some("localhost"), None, false),
            (Some("LocalHost.:8470"), None, false),
            (Some("agent.localhost:8470"), None, false),
            (Some("edge-7.plant.example:8470"), None, false),
            (Some("rebound.example:8470"), None, true),
            (Some("localhost.example"), None, true),
            (Some("127.0.0.1.example"), None, true),
            (Some("127.0.0.1:8470"), Some("http://127.0.0.1:3000"), false),
            (Some("127.0.0.1:8470"), Some("tauri://localhost"), false),
            (Some("127.0.0.1:8470"), Some("https://edge-7.plant.example"), false),
            (Some("127.0.0.1:8470"), Some("https://news.example"), true),
            (Some("127.0.0.1:8470"), Some("http://10.0.0.9"), true),
            (Some("127.0.0.1:8470"), Some("null"), true),
            (Some("rebound.example"), Some("http://rebound.example"), true),
        ] {
            assert_eq!(is_foreign(host, origin, &known), want, "{host:?} {origin:?}");
        }
    }
}
