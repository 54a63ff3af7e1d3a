//! Owns telling a captive portal from a destination.
//!
//! Over TLS nobody else can answer: there the portal's certificate is for another name, and no
//! connection comes to be. Over plain HTTP it answers in the destination's place.
//!
//! **Invariant:** what an interface for programs says is never taken for a portal: not an error of its
//! own, not a redirect to itself, and not words that are only called a page.

use super::http::Reply;

/// Network authentication required (RFC 6585): what a portal says that does not pretend.
const AUTHENTICATE: u16 = 511;

/// How a page begins.
const BEGINNINGS: [&str; 6] = ["<!doctype html", "<html", "<head", "<body", "<meta", "<script"];

/// What shows that an answer is not the destination's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sign {
    /// The network says so itself.
    Told,
    /// A page where none can be.
    Page,
    /// A redirect to this host; for good, or for now.
    Away { host: String, for_good: bool },
}

impl std::fmt::Display for Sign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Told => f.write_str("status 511: the network wants somebody to sign in"),
            Self::Page => f.write_str("a page (text/html) where none can be"),
            Self::Away { host, .. } => write!(f, "a redirect to another host, {host}"),
        }
    }
}

/// What shows that `reply`, to a call of `url`, is not the destination's own, if something does.
pub(super) fn sign(url: &str, reply: &Reply) -> Option<Sign> {
    if !url.starts_with("http://") {
        return None;
    }
    match reply.status {
        AUTHENTICATE => Some(Sign::Told),
        200..=299 if is_page(reply) => Some(Sign::Page),
        300..=399 => {
            let location = reply.told.iter().find(|(name, _)| name == "location");
            let (_, location) = location?;
            let own = host(url).unwrap_or_default();
            let other = host(location).filter(|other| !other.eq_ignore_ascii_case(own))?;
            let host = other.chars().filter(|c| !c.is_control()).take(64).collect();
            Some(Sign::Away { host, for_good: matches!(reply.status, 301 | 308) })
        }
        _ => None,
    }
}

/// Frameworks call any words a page: it has to begin like one, too.
fn is_page(reply: &Reply) -> bool {
    let essence = reply.content_type.split(';').next().unwrap_or_default().trim();
    let is_called = ["text/html", "application/xhtml+xml"]
        .iter()
        .any(|page| essence.eq_ignore_ascii_case(page));
    let text = reply.body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&reply.body).trim_ascii_start();
    let begins = |beginning: &&str| {
        let start = text.get(..beginning.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(beginning.as_bytes()))
    };
    is_called && (BEGINNINGS.iter().any(begins) || text.starts_with(b"<?xml"))
}

/// The host of an absolute URL, without its port; a path alone has none.
fn host(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    // A colon within brackets is part of an address.
    let end = host.rfind(':').filter(|at| !host.get(*at..).is_some_and(|rest| rest.contains(']')));
    Some(end.and_then(|at| host.get(..at)).unwrap_or(host))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn the_table_of_signs() {
        let plain = "http://10.0.0.5:8470/healthz";
        const PAGE: &str = "\n<!DOCTYPE html><title>Welcome</title>";
        for (case, url, status, kind, location, want) in [
            ("an answer", plain, 200, "application/json", None, false),
            ("a health check in words", plain, 200, "text/plain", None, false),
            ("a page", plain, 200, "text/html; charset=utf-8", None, true),
            ("a page of XHTML", plain, 200, "application/xhtml+xml", None, true),
            ("a server's own error page", plain, 404, "text/html", None, false),
            ("a broken gateway's", plain, 502, "text/html", None, false),
            ("it says so itself", plain, 511, "text/html", None, true),
            ("it sends away", plain, 302, "", Some("http://login.example/?u=1"), true),
            ("for good", plain, 308, "", Some("https://login.example"), true),
            ("to itself", plain, 301, "", Some("https://10.0.0.5/healthz"), false),
            ("to its own path", plain, 307, "", Some("/healthz/"), false),
            ("to nowhere", plain, 302, "", None, false),
            ("IPv6", "http://[fd00::1]:80/v1", 302, "", Some("http://[fd00::1]/v1"), false),
            ("IPv6 to another", "http://[fd00::1]/v1", 302, "", Some("http://[fd00::2]/v1"), true),
            ("over TLS it is the destination", "https://a.example/", 200, "text/html", None, false),
            ("and may send away", "https://a.example/", 302, "", Some("http://b.example"), false),
        ] {
            let told = location.map(|to: &str| ("location".to_owned(), to.to_owned()));
            let reply = Reply {
                status,
                is_json: false,
                content_type: kind.to_owned(),
                retry_after: None,
                told: told.into_iter().collect(),
                body: Bytes::from_static(PAGE.as_bytes()),
            };
            assert_eq!(sign(url, &reply).is_some(), want, "{case}");
            // What frameworks call a page is none by that.
            let words = Reply { body: Bytes::from_static(b"ok"), ..reply };
            assert_eq!(sign(url, &words).is_some(), want && status != 200, "{case}");
        }
        let case = "http://Plant.example/hook";
        let told = vec![("location".to_owned(), "http://plant.EXAMPLE/hook/".to_owned())];
        let reply = Reply {
            status: 302,
            is_json: false,
            content_type: String::new(),
            retry_after: None,
            told,
            body: Bytes::new(),
        };
        assert_eq!(sign(case, &reply), None, "names have no case");
    }
}
