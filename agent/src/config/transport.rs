//! Owns the reading of how a destination is reached: whose certificates count, and through which proxy.
//!
//! **Invariant:** what makes nothing safer is refused: pins and roots where no TLS is spoken, a proxy that
//! would read what goes through it.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::reader::Section;
use crate::destination::{Proxy, Transport};

/// How a pin begins, as in curl's `--pinnedpubkey`.
const PIN: &str = "sha256//";

/// Reads the keys of a section whose destination has this URL.
pub(super) fn read(section: &mut Section<'_>, url: Option<&str>) -> Transport {
    let ca_file = section.text("ca_file").map(PathBuf::from);
    let pins = read_pins(section);
    let identity = read_identity(section);
    let proxy = read_proxy(section);
    // Of a URL that is no URL the fault is told already.
    let is_plain = url.is_some_and(|url| url.starts_with("http://"));
    let given = [
        ("ca_file", ca_file.is_some()),
        ("pinned_keys", !pins.is_empty()),
        ("client_certificate", identity.is_some()),
        ("proxy", proxy.is_some()),
    ];
    for (key, _) in given.into_iter().filter(|(_, is_given)| *is_given && is_plain) {
        let why = match key {
            "proxy" => "is given for a url without TLS: the proxy would read all that is sent",
            _ => "is given for a url without TLS, where it does nothing",
        };
        section.fault(key, format!("{why}; say https://"));
    }
    Transport { ca_file, pins, identity, proxy }
}

fn read_pins(section: &mut Section<'_>) -> Vec<[u8; 32]> {
    let mut pins = Vec::new();
    let texts = section.texts("pinned_keys");
    if texts.as_ref().is_some_and(Vec::is_empty) {
        section.fault("pinned_keys", "is empty, which pins nothing; name a key, or leave it out");
    }
    for text in texts.unwrap_or_default() {
        let digest = text.strip_prefix(PIN).and_then(|text| STANDARD.decode(text).ok());
        match digest.and_then(|digest| digest.try_into().ok()) {
            Some(digest) => pins.push(digest),
            None => section.fault(
                "pinned_keys",
                format!("has \"{text}\", must be {PIN} and the SHA-256 of a public key in base64"),
            ),
        }
    }
    pins
}

fn read_identity(section: &mut Section<'_>) -> Option<(PathBuf, PathBuf)> {
    let certificate = section.text("client_certificate").map(PathBuf::from);
    let key = section.text("client_key").map(PathBuf::from);
    let (missing, given) = match (certificate, key) {
        (None, None) => return None,
        (Some(certificate), Some(key)) => return Some((certificate, key)),
        (Some(_), None) => ("client_key", "client_certificate"),
        (None, Some(_)) => ("client_certificate", "client_key"),
    };
    section.fault(missing, format!("is missing, and {given} is nothing without it"));
    None
}

fn read_proxy(section: &mut Section<'_>) -> Option<Proxy> {
    let user_file = section.text("proxy_user_file").map(PathBuf::from);
    let Some(text) = section.text("proxy") else {
        if user_file.is_some() {
            section.fault("proxy", "is missing, and proxy_user_file is nothing without it");
        }
        return None;
    };
    if text == "environment" {
        if user_file.is_some() {
            let what = "is given beside proxy = \"environment\", which has its user in the URL";
            section.fault("proxy_user_file", what);
        }
        return Some(Proxy::Environment);
    }
    let rest = Proxy::SCHEMES.iter().find_map(|scheme| text.strip_prefix(scheme));
    let fits = rest.is_some_and(|rest| {
        let rest = rest.trim_end_matches('/');
        let plain = |c: char| c.is_ascii_graphic();
        !rest.is_empty()
            && !rest.starts_with(':')
            && !rest.contains(['/', '@'])
            && rest.chars().all(plain)
    });
    if !fits {
        // Not echoed, since it may hold a password.
        let schemes = Proxy::SCHEMES.join(", ");
        let what = format!(
            "must be \"environment\", or one of {schemes} with a host and a port; user and password \
             stand in proxy_user_file"
        );
        section.fault("proxy", what);
        return None;
    }
    Some(Proxy::At { url: text, user_file })
}
