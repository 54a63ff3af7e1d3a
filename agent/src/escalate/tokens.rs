//! Owns the access tokens that Google gives for a service account: asked for with a signed claim,
//! kept until shortly before they end.
//!
//! A token is there before a request goes out: what fails here cost nothing and says nothing of the
//! request.
//!
//! **Invariant:** a token is used for the credential that it was given for and for no other; the
//! claim goes to the host that the service account's file names, over TLS unless the destination
//! itself is reached without.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use super::credential::{CredentialError, Secret};
use super::error::SendError;
use super::http::{Call, Http, Method};
use super::proof::Proof;
use crate::destination::{Destination, Transport};
use crate::network::Tap;

/// What the token is for.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// A claim holds for so long; Google takes no longer one.
const CLAIM_S: u64 = 3600;
/// A token that ends so soon is renewed.
const EARLY: Duration = Duration::from_secs(60);

/// The token in use, if there is one.
#[derive(Default)]
pub(super) struct Tokens {
    kept: Mutex<Option<Kept>>,
    /// Who asks for one; the others wait for it.
    asking: tokio::sync::Mutex<()>,
    /// What counts the asking.
    tap: Tap,
}

struct Kept {
    of: [u8; 32],
    token: Secret,
    until: Instant,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens")
    }
}

/// What is needed of a service account's file.
#[derive(Deserialize)]
struct Account {
    client_email: String,
    private_key: String,
    private_key_id: String,
    token_uri: String,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: u64,
}

impl Tokens {
    /// None yet; what is sent to have one is counted by `tap`.
    pub(super) fn new(tap: Tap) -> Self {
        Self { tap, ..Self::default() }
    }

    /// The token for `secret`; a secret that is no service account is one itself, and needs none.
    pub(super) async fn token(
        &self,
        destination: &Destination,
        secret: &Secret,
        deadline: Instant,
    ) -> Result<Option<Secret>, SendError> {
        if !secret.text().trim_start().starts_with('{') {
            return Ok(None);
        }
        let of = secret.digest();
        if let Some(token) = self.in_use(of) {
            return Ok(Some(token));
        }
        let Ok(_asking) = timeout_at(deadline, self.asking.lock()).await else {
            return Err(no_token(destination, "it gives no answer"));
        };
        // Somebody else may have asked meanwhile.
        if let Some(token) = self.in_use(of) {
            return Ok(Some(token));
        }
        let granted = ask(destination, secret, self.tap.clone(), deadline).await?;
        let lasts = Duration::from_secs(granted.expires_in).saturating_sub(EARLY);
        let until = Instant::now() + lasts.min(Duration::from_secs(CLAIM_S));
        let token = Secret::of(granted.access_token);
        *self.kept() = Some(Kept { of, token: token.clone(), until });
        Ok(Some(token))
    }

    /// Forgets `token`: it was refused. Another one stays.
    pub(super) fn forget(&self, token: &Secret) {
        let mut kept = self.kept();
        if kept.as_ref().is_some_and(|kept| kept.token.text() == token.text()) {
            *kept = None;
        }
    }

    fn in_use(&self, of: [u8; 32]) -> Option<Secret> {
        let kept = self.kept();
        let in_use = kept.as_ref().filter(|kept| kept.of == of && kept.until > Instant::now());
        in_use.map(|kept| kept.token.clone())
    }

    /// What a panicked holder left is a token all the same.
    fn kept(&self) -> MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn no_token(destination: &Destination, cause: &str) -> SendError {
    SendError::NoToken { destination: destination.name.clone(), cause: cause.to_owned() }
}

async fn ask(
    destination: &Destination,
    secret: &Secret,
    tap: Tap,
    deadline: Instant,
) -> Result<Granted, SendError> {
    let name = destination.name.clone();
    let unfit =
        || SendError::Credential { destination: name.clone(), source: CredentialError::Account };
    let account: Account = serde_json::from_str(secret.text()).map_err(|_| unfit())?;
    let is_plain_destination = destination.url.starts_with("http://");
    if !account.token_uri.starts_with("https://") && !is_plain_destination {
        return Err(unfit());
    }
    let now_s = crate::clock::date_ms() / 1000;
    let claim = claim(&account, now_s).ok_or_else(unfit)?;
    let connect = destination.connect_timeout;
    // Its certificate and its key are others than the destination's.
    let transport =
        Transport { proxy: destination.transport.proxy.clone(), ..Transport::default() };
    let http = Http::to(&name, &account.token_uri, connect, 1, &transport, tap);
    let http = http.map_err(|_| unfit())?;
    let body = format!(
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={claim}"
    );
    let headers = vec![("content-type", "application/x-www-form-urlencoded".to_owned())];
    let call = Call {
        method: Method::Post,
        url: account.token_uri,
        headers,
        proof: Proof::new(),
        body: Bytes::from(body),
    };
    let reply = http.exchange(call, deadline, || ()).await;
    let reply = reply.map_err(|_| no_token(destination, "it gave no answer"))?;
    match reply.status {
        200 => serde_json::from_slice(&reply.body)
            .map_err(|_| no_token(destination, "what it sent is no token")),
        // The account, the key or the device's date is wrong.
        status @ 400..=403 => Err(SendError::Unauthorised { destination: name, status }),
        status => Err(no_token(destination, &format!("it failed with status {status}"))),
    }
}

/// A claim signed with RS256 (RFC 7523); `None` when the key is none.
fn claim(account: &Account, now_s: u64) -> Option<String> {
    let head = json!({ "alg": "RS256", "typ": "JWT", "kid": account.private_key_id });
    let body = json!({ "iss": account.client_email, "scope": SCOPE, "aud": account.token_uri,
        "iat": now_s, "exp": now_s + CLAIM_S });
    let [head, body] = [head, body].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    let text = format!("{head}.{body}");
    let lines = account.private_key.lines().filter(|line| !line.starts_with("-----"));
    let key = STANDARD.decode(lines.collect::<String>().trim()).ok()?;
    let key = RsaKeyPair::from_pkcs8(&key).ok()?;
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature).ok()?;
    Some(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
}
