//! Owns the access tokens that Google gives for a service account: asked for with a signed claim,
//! kept until shortly before they end.
//!
//! **Invariant:** a token is used for the credential that it was given for and for no other; the
//! claim goes to the host that the service account's file names, over TLS unless the destination
//! itself is reached without.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::credential::{CredentialError, Secret};
use super::error::{Fault, SendError};
use super::exchange::Exchange;
use super::http::{Call, Http, Method};
use super::proof::{Proof, bearer};

/// What the token is for.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// A claim holds for so long; Google takes no longer one.
const CLAIM_S: u64 = 3600;
/// A token that ends so soon is renewed.
const EARLY: Duration = Duration::from_secs(60);

/// The token in use, if there is one.
#[derive(Default)]
pub(super) struct Tokens(Mutex<Option<Kept>>);

struct Kept {
    of: [u8; 32],
    token: String,
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
    /// The header with a token for `secret`; a secret that is no service account is one itself.
    pub(super) async fn bearer(
        &self,
        exchange: &Exchange<'_>,
        secret: &Secret,
    ) -> Result<Proof, SendError> {
        if !secret.text().trim_start().starts_with('{') {
            return Ok(bearer(Some(secret)));
        }
        // Somebody else may be asking for one.
        let mut kept = timeout(exchange.left(), self.0.lock()).await.map_err(|_| {
            let cause = "its token server gives no answer".to_owned();
            SendError::Interrupted { destination: exchange.name(), cause }
        })?;
        let of = secret.digest();
        let in_use = kept.as_ref().filter(|kept| kept.of == of && kept.until > Instant::now());
        if let Some(kept) = in_use {
            return Ok(header(&kept.token));
        }
        let granted = ask(exchange, secret).await?;
        let lasts = Duration::from_secs(granted.expires_in).saturating_sub(EARLY);
        let until = Instant::now() + lasts.min(Duration::from_secs(CLAIM_S));
        let proof = header(&granted.access_token);
        *kept = Some(Kept { of, token: granted.access_token, until });
        Ok(proof)
    }

    /// Forgets the token: it was refused.
    pub(super) async fn forget(&self) {
        *self.0.lock().await = None;
    }
}

fn header(token: &str) -> Proof {
    vec![("authorization", format!("Bearer {token}"))]
}

async fn ask(exchange: &Exchange<'_>, secret: &Secret) -> Result<Granted, SendError> {
    let name = exchange.name();
    let unfit =
        || SendError::Credential { destination: name.clone(), source: CredentialError::Account };
    let account: Account = serde_json::from_str(secret.text()).map_err(|_| unfit())?;
    let is_plain_destination = exchange.destination().url.starts_with("http://");
    if !account.token_uri.starts_with("https://") && !is_plain_destination {
        return Err(unfit());
    }
    let now_s = crate::clock::date_ms() / 1000;
    let claim = claim(&account, now_s).ok_or_else(unfit)?;
    let connect = exchange.destination().connect_timeout;
    let http = Http::to(&name, &account.token_uri, connect, 1).map_err(|_| unfit())?;
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
    let deadline = Instant::now() + exchange.left();
    let reply = http.exchange(call, deadline, || ()).await.map_err(|_| SendError::Interrupted {
        destination: name.clone(),
        cause: "its token server gave no answer".to_owned(),
    })?;
    match reply.status {
        200 => serde_json::from_slice(&reply.body).map_err(|_| SendError::Unusable {
            destination: name.clone(),
            fault: Fault::Foreign { what: "its token server sent no token".to_owned() },
        }),
        // The account, the key or the device's date is wrong.
        status @ 400..=403 => Err(SendError::Unauthorised { destination: name, status }),
        status => {
            let detail = "its token server failed".to_owned();
            Err(SendError::Failed { destination: name, status, detail })
        }
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
