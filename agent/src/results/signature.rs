//! Owns the signature of webhooks, as the Standard Webhooks specification has it, so that receivers
//! verify it with the libraries that they have.
//!
//! **Invariant:** pure; what is signed is the id, the time and every byte of the body.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// What a secret in base64 begins with.
const PREFIX: &str = "whsec_";

/// The key of a secret: the bytes behind `whsec_` in base64, or the text itself. `None` when what is
/// behind `whsec_` is no base64, or nothing.
#[must_use]
pub fn key(secret: &str) -> Option<Vec<u8>> {
    let key = match secret.strip_prefix(PREFIX) {
        Some(encoded) => STANDARD.decode(encoded).ok()?,
        None => secret.as_bytes().to_vec(),
    };
    (!key.is_empty()).then_some(key)
}

/// The value of the header `webhook-signature`; `at_s` is that of `webhook-timestamp`, in seconds since
/// 1970-01-01 UTC.
#[must_use]
pub fn sign(key: &[u8], id: &str, at_s: u64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(format!("{id}.{at_s}.").as_bytes());
    mac.update(body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's libraries, whose value another implementation made.
    #[test]
    fn the_signature_is_what_other_libraries_make() {
        let key = key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let body = br#"{"test": 2432232314}"#;
        let signature = sign(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_is_base64_behind_its_prefix_and_text_without_it() {
        assert_eq!(key("whsec_AAEC"), Some(vec![0, 1, 2]));
        assert_eq!(key("plain"), Some(b"plain".to_vec()));
        for unfit in ["", "whsec_", "whsec_!"] {
            assert_eq!(key(unfit), None, "{unfit}");
        }
    }
}
