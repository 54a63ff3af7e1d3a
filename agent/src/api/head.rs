//! Owns what the head of a request over HTTP/1 must say: for which host it is, once, and where it ends.
//!
//! A proxy before the agent that reads another host or another end than the agent does lets one request
//! through in the shape of another (RFC 9112, sections 3.2, 6.1 and 11.2).
//!
//! Pure. **Invariant:** no request is answered whose host or end can be read in two ways.

use std::net::Ipv6Addr;

use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, Version, header};

use super::Problem;

/// What stands against the head of a request, whoever sent it.
pub(super) fn fault(version: Version, uri: &Uri, headers: &HeaderMap) -> Option<Problem> {
    of_host(version, uri, headers).or_else(|| of_transfer(headers))
}

fn of_host(version: Version, uri: &Uri, headers: &HeaderMap) -> Option<Problem> {
    let bad = |what: &str| Some(Problem::new(StatusCode::BAD_REQUEST, "bad_host", what));
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => {
            return bad("the request has several Host headers; it is for one host: send one");
        }
        (None, _) if version == Version::HTTP_11 => {
            return bad("the request has no Host header, and HTTP/1.1 asks for one");
        }
        (None, _) => return None,
        (Some(host), None) => host,
    };
    if !is_host(host.as_bytes()) {
        return bad("the Host header is no host, or no host and a port: send what the URL has");
    }
    let meant = uri.authority().map(|authority| authority.as_str().as_bytes());
    match meant.is_some_and(|meant| !meant.eq_ignore_ascii_case(host.as_bytes())) {
        true => bad("the Host header names another host than the request's target"),
        false => None,
    }
}

fn of_transfer(headers: &HeaderMap) -> Option<Problem> {
    let all = headers.get_all(header::TRANSFER_ENCODING).iter();
    let text = |value: &HeaderValue| value.to_str().unwrap_or("?").to_ascii_lowercase();
    let codings: Vec<String> = all.map(text).collect();
    let codings = codings.join(",");
    let codings: Vec<&str> = codings.split(',').map(str::trim).filter(|c| !c.is_empty()).collect();
    match codings.as_slice() {
        [] | ["chunked"] => None,
        all if all.iter().all(|coding| *coding == "chunked") => {
            let what = "Transfer-Encoding is chunked more than once; once is all that there is";
            Some(Problem::new(StatusCode::BAD_REQUEST, "bad_transfer_encoding", what))
        }
        _ => {
            let what = "of transfer codings only chunked is understood here; say what else the body \
                        is encoded with in Content-Encoding, or do not encode it";
            Some(Problem::new(StatusCode::NOT_IMPLEMENTED, "unknown_transfer_encoding", what))
        }
    }
}

/// Whether this is `uri-host [ ":" port ]` (RFC 3986, section 3.2; a host may be empty).
fn is_host(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let (is_name, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) => {
                // Some clients leave the zone of a link-local address in (RFC 6874).
                let (address, zone) = address.split_once('%').unwrap_or((address, ""));
                let is_zone =
                    zone.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b));
                (is_zone && address.parse::<Ipv6Addr>().is_ok(), port)
            }
            None => return false,
        },
        None => {
            let end = text.find(':').unwrap_or(text.len());
            let (name, port) = text.split_at(end);
            (is_registered_name(name), port)
        }
    };
    let is_port = match port.strip_prefix(':') {
        None => port.is_empty(),
        // `+7` is a number to `parse`.
        Some(port) => {
            let is_number = port.bytes().all(|digit| digit.is_ascii_digit());
            is_number && (port.is_empty() || port.parse::<u16>().is_ok())
        }
    };
    is_name && is_port
}

fn is_registered_name(name: &str) -> bool {
    let mut rest = name.bytes();
    while let Some(byte) = rest.next() {
        let is_fine = match byte {
            b'%' => [rest.next(), rest.next()]
                .iter()
                .all(|digit| digit.is_some_and(|digit| digit.is_ascii_hexdigit())),
            byte => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte),
        };
        if !is_fine {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(version: Version, target: &str, pairs: &[(&'static str, &'static str)]) -> u16 {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        fault(version, &target.parse().unwrap(), &headers).map_or(200, |problem| problem.status())
    }

    #[test]
    fn a_request_is_for_one_host() {
        let (old, new) = (Version::HTTP_10, Version::HTTP_11);
        for (version, target, hosts, want) in [
            (new, "/", &["localhost"][..], 200),
            (new, "/", &[], 400),
            (old, "/", &[], 200),
            (new, "/", &["localhost", "localhost"], 400),
            (old, "/", &["one", "other"], 400),
            (new, "/", &["local host"], 400),
            (new, "http://localhost:8470/", &["LocalHost:8470"], 200),
            (new, "http://localhost:8470/", &["other:8470"], 400),
            (new, "http://localhost:8470/", &[], 400),
            (new, "http://me@localhost/", &["localhost"], 400),
        ] {
            let pairs: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            assert_eq!(told(version, target, &pairs), want, "{target} {hosts:?}");
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address_and_a_port() {
        for (host, want) in [
            ("localhost", true),
            ("127.0.0.1:8470", true),
            ("[::1]:8470", true),
            ("[::1]", true),
            ("[fe80::1%eth0.7]:8470", true),
            ("[fe80::1%a/b]", false),
            ("edge-7.plant.example:", true),
            ("%2Frun%2Fagent.sock", true),
            ("", true),
            ("localhost:port", false),
            ("localhost:65536", false),
            ("localhost:+1", false),
            ("localhost:1:2", false),
            ("[::1", false),
            ("[::1]8470", false),
            ("[localhost]", false),
            ("::1", false),
            ("me@localhost", false),
            ("a/b", false),
            ("a%2", false),
            ("a,b c", false),
            ("h\u{f6}st", false),
        ] {
            assert_eq!(is_host(host.as_bytes()), want, "{host}");
        }
    }

    #[test]
    fn a_body_is_chunked_once_or_not_at_all() {
        for (codings, want) in [
            (&[][..], 200),
            (&["chunked"], 200),
            (&["Chunked "], 200),
            (&["gzip, chunked"], 501),
            (&["gzip", "chunked"], 501),
            (&["identity"], 501),
            (&["chunked;q=1"], 501),
            (&["chunked, chunked"], 400),
            (&["chunked", "chunked"], 400),
        ] {
            let mut pairs = vec![("host", "localhost")];
            pairs.extend(codings.iter().map(|coding| ("transfer-encoding", *coding)));
            assert_eq!(told(Version::HTTP_11, "/", &pairs), want, "{codings:?}");
        }
    }
}
