//! Google's token server, as it is documented for service accounts (RFC 7523).
//!
//! **Invariant:** a token is given for a claim that the account's own key signed, and that holds for an
//! hour at most.

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use serde_json::{Value, json};

use super::shape::{Checked, object, word};
use super::{Call, Reply};

/// Where it is.
pub(super) const PATH: &str = "/token";
/// The token that it gives.
pub const TOKEN: &str = "ya29.fake-0123456789abcdef0123456789abcdef";
const EMAIL: &str = "holdfast@project-1.iam.gserviceaccount.com";
/// A key of nobody, made for these tests.
const PRIVATE_KEY: &str = include_str!("service-account.pem");

/// The account's file.
pub(super) fn account(url: &str) -> String {
    let account = json!({
        "type": "service_account", "project_id": super::PROJECT, "private_key_id": "key-1",
        "private_key": PRIVATE_KEY, "client_email": EMAIL, "client_id": "1",
        "token_uri": format!("{url}{PATH}"),
    });
    format!("{account:#}\n")
}

pub(super) fn serve(call: &Call<'_>) -> Reply {
    match check(call) {
        Ok(()) => {
            let granted =
                json!({ "access_token": TOKEN, "expires_in": 3599, "token_type": "Bearer" });
            Reply::json(200, vec![], &granted)
        }
        Err(what) => {
            let error = json!({ "error": "invalid_grant", "error_description": what });
            Reply::json(400, vec![], &error)
        }
    }
}

fn check(call: &Call<'_>) -> Checked<()> {
    if call.header("content-type") != Some("application/x-www-form-urlencoded") {
        return Err("content-type: must be application/x-www-form-urlencoded".to_owned());
    }
    let body = std::str::from_utf8(call.body).map_err(|error| error.to_string())?;
    let field = |name: &str| {
        let found = body.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        found.ok_or_else(|| format!("{name} is missing"))
    };
    if field("grant_type")? != "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer" {
        return Err("grant_type: must be that of RFC 7523".to_owned());
    }
    let assertion = field("assertion")?;
    let (signed, signature) = assertion.rsplit_once('.').ok_or("assertion: must be a JWT")?;
    let (head, claims) = signed.split_once('.').ok_or("assertion: must be a JWT")?;
    let decoded = |text: &str| {
        BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| "assertion: must be base64url".to_owned())
    };
    verify(signed, &decoded(signature)?)?;
    let read = |bytes: Vec<u8>| -> Checked<Value> {
        serde_json::from_slice(&bytes).map_err(|error| error.to_string())
    };
    let (head, claims) = (read(decoded(head)?)?, read(decoded(claims)?)?);
    object(&head, "header", &["alg", "typ"], &["kid"])?;
    word(&head["alg"], "alg", &["RS256"])?;
    object(&claims, "claims", &["iss", "scope", "aud", "iat", "exp"], &[])?;
    word(&claims["iss"], "iss", &[EMAIL])?;
    word(&claims["scope"], "scope", &["https://www.googleapis.com/auth/cloud-platform"])?;
    if !claims["aud"].as_str().is_some_and(|aud| aud.ends_with(PATH)) {
        return Err("aud: must be the token server".to_owned());
    }
    let span = claims["exp"].as_u64().zip(claims["iat"].as_u64());
    match span.is_some_and(|(exp, iat)| exp > iat && exp - iat <= 3600) {
        true => Ok(()),
        false => Err("exp: must be at most an hour after iat".to_owned()),
    }
}

fn verify(signed: &str, signature: &[u8]) -> Checked<()> {
    let lines = PRIVATE_KEY.lines().filter(|line| !line.starts_with("-----"));
    let key = BASE64_STANDARD.decode(lines.collect::<String>());
    let key = key.map_err(|error| error.to_string())?;
    let pair = RsaKeyPair::from_pkcs8(&key).map_err(|error| error.to_string())?;
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public().as_ref());
    let verified = public.verify(signed.as_bytes(), signature);
    verified.map_err(|_| "assertion: invalid JWT signature".to_owned())
}
