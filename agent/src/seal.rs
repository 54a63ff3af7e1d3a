//! Owns the sealing of bytes that lie on disk: ChaCha20-Poly1305 (RFC 8439), which boards without
//! instructions for AES are quick at, too.
//!
//! **Invariant:** what opens is what was sealed, under the same key and about the same thing.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

/// Seals and opens under one key.
#[derive(Clone)]
pub(crate) struct Seal([u8; 32]);

impl Seal {
    pub(crate) fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// `bytes`, sealed: nonce, what they became, tag. `about` is not in it, and has to be the same when it
    /// is opened. `None` where the system gives no random numbers.
    pub(crate) fn seal(&self, about: &[u8], mut bytes: Vec<u8>) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).ok()?;
        let key = self.key()?;
        let sealing = Nonce::assume_unique_for_key(nonce);
        key.seal_in_place_append_tag(sealing, Aad::from(about), &mut bytes).ok()?;
        let mut sealed = nonce.to_vec();
        sealed.append(&mut bytes);
        Some(sealed)
    }

    /// What was sealed; `None` where that was other bytes, about something else, or under another key.
    pub(crate) fn open(&self, about: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, rest) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut rest = rest.to_vec();
        let length = self.key()?.open_in_place(nonce, Aad::from(about), &mut rest).ok()?.len();
        rest.truncate(length);
        Some(rest)
    }

    fn key(&self) -> Option<LessSafeKey> {
        UnboundKey::new(&CHACHA20_POLY1305, &self.0).ok().map(LessSafeKey::new)
    }
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_opens_is_what_was_sealed() {
        let seal = Seal::new([7; 32]);
        let sealed = seal.seal(b"about", b"the answer".to_vec()).unwrap();
        assert!(!sealed.windows(6).any(|six| six == b"answer"), "{sealed:?}");
        assert_ne!(seal.seal(b"about", b"the answer".to_vec()).unwrap(), sealed);
        let mut damaged = sealed.clone();
        damaged[20] ^= 1;
        let other = Seal::new([8; 32]);
        for (case, seal, about, sealed, want) in [
            ("as it was", &seal, &b"about"[..], &sealed[..], Some(&b"the answer"[..])),
            ("about something else", &seal, b"above", &sealed, None),
            ("under another key", &other, b"about", &sealed, None),
            ("damaged", &seal, b"about", &damaged, None),
            ("cut", &seal, b"about", &sealed[..sealed.len() - 1], None),
            ("shorter than a nonce", &seal, b"about", &sealed[..5], None),
            ("nothing", &seal, b"about", &[], None),
        ] {
            assert_eq!(seal.open(about, sealed).as_deref(), want, "{case}");
        }
    }
}
