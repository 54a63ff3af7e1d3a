//! Certificates for the tests of TLS.
//!
//! **Invariant:** every authority has a key of its own, and signs for the names that it is asked for alone.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PublicKeyData};
use sha2::{Digest, Sha256};

/// A root, with what it signs.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
#[derive(Debug, Clone)]
pub struct Signed {
    /// The certificate in PEM.
    pub certificate: String,
    /// Its private key in PEM.
    pub key: String,
    /// The SHA-256 of its public key (subject public key info in DER).
    pub pin: [u8; 32],
}

impl Authority {
    /// A new root.
    ///
    /// # Errors
    /// No key can be made.
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// Its own certificate in PEM.
    pub fn root(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a name.
    ///
    /// # Errors
    /// No key can be made, or the name is none.
    pub fn sign(&self, name: &str) -> Result<Signed> {
        self.signed(CertificateParams::new(vec![name.to_owned()])?)
    }

    /// A certificate for a name whose time is over.
    ///
    /// # Errors
    /// No key can be made, or the name is none.
    pub fn sign_expired(&self, name: &str) -> Result<Signed> {
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        self.signed(params)
    }

    fn signed(&self, params: CertificateParams) -> Result<Signed> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.0)?.pem();
        let pin = Sha256::digest(key.subject_public_key_info()).into();
        Ok(Signed { certificate, key: key.serialize_pem(), pin })
    }
}

impl Signed {
    /// Writes both into a folder; where the certificate and the key are then.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn write(&self, dir: &Path, name: &str) -> Result<(PathBuf, PathBuf)> {
        let (certificate, key) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
        std::fs::write(&certificate, &self.certificate)?;
        std::fs::write(&key, &self.key)?;
        Ok((certificate, key))
    }
}
