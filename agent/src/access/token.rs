//! Owns what a token is: 32 random bytes, of which only the digest is kept.
//!
//! **Invariant:** a token's text is never stored, logged or shown again after it was made.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

/// What every token begins with, so that one that leaked is found by who looks for leaks.
const BEGIN: &str = "hf_";
const BYTES: usize = 32;

/// A token in its text. Shown once, to who makes it.
pub struct Token(String);

/// The SHA-256 of a token's text: enough to know it again, since its 256 bits cannot be guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Token {
    /// A new one, out of the system's random numbers.
    ///
    /// # Errors
    /// When the system has none.
    pub fn new() -> std::io::Result<Self> {
        let mut bytes = [0; BYTES];
        getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
        Ok(Self(format!("{BEGIN}{}", URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Digest {
    /// That of a text which may be a token.
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// In 64 hexadecimal digits.
    pub fn to_hex(self) -> String {
        hex::encode(self.0)
    }

    /// Out of 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

/// The token in an `Authorization` header (RFC 6750).
pub(crate) fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_its_digest() {
        let (one, other) = (Token::new().unwrap(), Token::new().unwrap());
        assert_ne!(one.text(), other.text());
        assert_eq!(one.text().len(), 3 + 43);
        assert_eq!(Digest::from_hex(&one.digest().to_hex()), Some(Digest::of(one.text())));
        assert_eq!(format!("{one:?}"), "Token(…)");
        assert_eq!(Digest::from_hex("00"), None);
    }

    #[test]
    fn the_header_is_read() {
        for (header, want) in [
            ("Bearer hf_x", Some("hf_x")),
            ("bearer  hf_x ", Some("hf_x")),
            ("Basic hf_x", None),
            ("Bearer", None),
            ("Bearer  ", None),
        ] {
            assert_eq!(bearer(header), want, "{header}");
        }
    }
}
