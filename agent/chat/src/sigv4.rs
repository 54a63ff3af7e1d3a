//! Owns signing a request for AWS: Signature Version 4, as its reference describes it.
//!
//! Pure: the time is an argument. Paths are encoded once more in what is signed, as every service
//! but S3 wants it.
//!
//! **Invariant:** the secret key leaves as a signature alone, and cannot be printed.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

/// The keys of an account.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// Who signs.
    pub access_key_id: String,
    /// With what.
    pub secret_access_key: String,
    /// Of temporary keys the token that goes with them.
    pub session_token: Option<String>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

impl Keys {
    /// The keys of the first profile in a file as AWS's tools write it; `None` when it has none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut profiles = 0;
        let (mut id, mut secret, mut token) = (None, None, None);
        for line in text.lines().map(str::trim) {
            if line.starts_with('[') {
                profiles += 1;
            }
            let Some((key, value)) = line.split_once('=') else { continue };
            let place = match key.trim() {
                "aws_access_key_id" => &mut id,
                "aws_secret_access_key" => &mut secret,
                "aws_session_token" => &mut token,
                _ => continue,
            };
            if profiles <= 1 && !value.trim().is_empty() {
                *place = Some(value.trim().to_owned());
            }
        }
        Some(Self { access_key_id: id?, secret_access_key: secret?, session_token: token })
    }
}

/// What is signed.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Such as `POST`.
    pub method: &'a str,
    /// The `host` header as it is sent.
    pub host: &'a str,
    /// The path as it is sent, and the query behind a `?`, if there is one.
    pub path: &'a str,
    /// Further headers that are signed, names in lower case.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub body: &'a [u8],
}

/// Where and when it is for.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// Such as `eu-central-1`.
    pub region: &'a str,
    /// Such as `bedrock`.
    pub service: &'a str,
    /// `YYYYMMDDTHHMMSSZ`
    pub at: &'a str,
}

/// The headers that make the request signed: date, token if there is one, and authorization.
pub fn sign(keys: &Keys, request: &Request<'_>, scope: &Scope<'_>) -> Vec<(&'static str, String)> {
    let mut added = vec![("x-amz-date", scope.at.to_owned())];
    if let Some(token) = &keys.session_token {
        added.push(("x-amz-security-token", token.clone()));
    }
    let mut signed: Vec<(&str, &str)> = vec![("host", request.host)];
    signed.extend_from_slice(request.headers);
    signed.extend(added.iter().map(|(name, value)| (*name, value.as_str())));
    signed.sort_unstable();
    let names: Vec<&str> = signed.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let digest = hex::encode(Sha256::digest(canonical(request, &signed, &names).as_bytes()));
    let day = scope.at.get(..8).unwrap_or_default();
    let scope_text = format!("{day}/{}/{}/aws4_request", scope.region, scope.service);
    let to_sign = format!("AWS4-HMAC-SHA256\n{}\n{scope_text}\n{digest}", scope.at);
    let key = [day, scope.region, scope.service, "aws4_request"]
        .into_iter()
        .fold(format!("AWS4{}", keys.secret_access_key).into_bytes(), |key, part| {
            mac(&key, part.as_bytes())
        });
    let signature = hex::encode(mac(&key, to_sign.as_bytes()));
    let id = &keys.access_key_id;
    added.push((
        "authorization",
        format!(
            "AWS4-HMAC-SHA256 Credential={id}/{scope_text}, SignedHeaders={names}, \
             Signature={signature}"
        ),
    ));
    added
}

fn canonical(request: &Request<'_>, signed: &[(&str, &str)], names: &str) -> String {
    let (path, query) = request.path.split_once('?').unwrap_or((request.path, ""));
    let path: Vec<String> = path.split('/').map(crate::dialect::encoded).collect();
    let path = if path.concat().is_empty() { "/".to_owned() } else { path.join("/") };
    let mut query: Vec<&str> = query.split('&').filter(|pair| !pair.is_empty()).collect();
    query.sort_unstable();
    let headers: String = signed
        .iter()
        .map(|(name, value)| {
            let value: Vec<&str> = value.split_ascii_whitespace().collect();
            format!("{name}:{}\n", value.join(" "))
        })
        .collect();
    let body = hex::encode(Sha256::digest(request.body));
    format!("{}\n{path}\n{}\n{headers}\n{names}\n{body}", request.method, query.join("&"))
}

fn mac(key: &[u8], data: &[u8]) -> Vec<u8> {
    // HMAC takes a key of any length.
    let mut mac = match Hmac::<Sha256>::new_from_slice(key) {
        Ok(mac) => mac,
        Err(_) => return Vec::new(),
    };
    mac.update(data);
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys {
            access_key_id: "AKIDEXAMPLE".to_owned(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
            session_token: None,
        }
    }

    fn signature(keys: &Keys, request: &Request<'_>, region: &str, service: &str) -> String {
        let scope = Scope { region, service, at: "20150830T123600Z" };
        let headers = sign(keys, request, &scope);
        headers.last().unwrap().1.rsplit('=').next().unwrap().to_owned()
    }

    /// AWS's test suite for Signature Version 4, and its worked example of IAM's `ListUsers`.
    #[test]
    fn the_examples_of_the_documentation_come_out() {
        let get = Request {
            method: "GET",
            host: "example.amazonaws.com",
            path: "/",
            headers: &[],
            body: b"",
        };
        let form = [("content-type", "application/x-www-form-urlencoded")];
        let utf8 = [("content-type", "application/x-www-form-urlencoded; charset=utf-8")];
        let list = "/?Action=ListUsers&Version=2010-05-08";
        for (case, request, service, want) in [
            (
                "get-vanilla",
                get,
                "service",
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
            (
                "get-vanilla-query-order-key-case",
                Request { path: "/?Param2=value2&Param1=value1", ..get },
                "service",
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
            (
                "post-vanilla",
                Request { method: "POST", ..get },
                "service",
                "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            ),
            (
                "post-x-www-form-urlencoded",
                Request { method: "POST", headers: &form, body: b"Param1=value1", ..get },
                "service",
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            ),
            (
                "iam",
                Request { host: "iam.amazonaws.com", path: list, headers: &utf8, ..get },
                "iam",
                "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
            ),
        ] {
            assert_eq!(signature(&keys(), &request, "us-east-1", service), want, "{case}");
        }
    }

    #[test]
    fn the_first_profile_of_a_file_has_the_keys() {
        let text = "# mine\n[default]\naws_access_key_id = AKID\naws_secret_access_key=se/cr=et\n\n\
                    [other]\naws_access_key_id = OTHER\naws_session_token = token\n";
        let keys = Keys::parse(text).unwrap();
        let want = ("AKID", "se/cr=et", None);
        let got = (&*keys.access_key_id, &*keys.secret_access_key, keys.session_token.as_deref());
        assert_eq!(got, want);
        let bare = "aws_access_key_id=A\naws_secret_access_key=S\naws_session_token=T";
        assert_eq!(Keys::parse(bare).unwrap().session_token.as_deref(), Some("T"));
        for none in ["", "sk-1", "[default]\naws_access_key_id = A", "aws_access_key_id=\n"] {
            assert_eq!(Keys::parse(none), None, "{none}");
        }
        assert!(!format!("{keys:?}").contains("se/cr"));
    }
}
