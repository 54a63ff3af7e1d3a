//! Owns whose certificates a destination may show, and which one is shown to it.
//!
//! **Invariant:** a certificate that is not for the host's name, or out of its time, or not signed by a root
//! that is believed is never accepted; a pinned key comes on top of that, and never in its place.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, SignatureScheme,
};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::destination::Transport;
use crate::pem;

/// What is spoken over TLS, the best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// TLS by what is configured; nothing where the system's roots are all that is asked for. Blocks.
///
/// # Errors
/// Which file or part does not fit.
pub(super) fn of(transport: &Transport) -> Result<Option<ClientConfig>, String> {
    let Transport { ca_file, pins, identity, .. } = transport;
    if ca_file.is_none() && pins.is_empty() && identity.is_none() {
        return Ok(None);
    }
    let unfit = |error: &dyn std::error::Error| crate::error_chain(error);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match ca_file {
        Some(path) => {
            let roots = Arc::new(pem::roots(path).map_err(|error| unfit(&error))?);
            let builder = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider));
            builder.build().map_err(|error| unfit(&error))?
        }
        None => the_systems(&provider).map_err(|error| unfit(&error))?,
    };
    let verifier = Arc::new(Pinned { verifier, pins: pins.clone() });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unfit(&error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = pem::certificates(certificate).map_err(|error| unfit(&error))?;
            let key = pem::key(key).map_err(|error| unfit(&error))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| unfit(&error))?
        }
    };
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(Some(config))
}

fn the_systems(provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    Ok(Arc::new(rustls_platform_verifier::Verifier::new(Arc::clone(provider))?))
}

/// What a certificate is refused for, where the library's own words say it badly.
pub(super) fn told(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    // What the network failed with has it inside, and not as its source.
    let mut error = error;
    while let Some(inside) = error.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref()) {
        error = inside;
    }
    let error = error.downcast_ref::<Error>()?;
    let Error::InvalidCertificate(CertificateError::Other(OtherError(other))) = error else {
        return None;
    };
    let what = other.to_string();
    let is_root = what == "CaUsedAsEndEntity";
    let advice = "is that of an authority (CA:TRUE): issue the server one of its own, signed by it";
    Some(match is_root {
        true => format!("its certificate {advice}"),
        false => format!("its certificate is refused: {what}"),
    })
}

/// Whether a connection failed on TLS: then its first bytes went both ways.
pub(super) fn is_of_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    find(error).is_some()
}

/// Whether the certificate is good, and somebody else's.
pub(super) fn is_for_another_name(error: &(dyn std::error::Error + 'static)) -> bool {
    matches!(
        find(error),
        Some(Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
        ))
    )
}

/// What TLS failed with, inside of a network's error.
fn find<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Error> {
    let mut next = Some(error);
    while let Some(mut error) = next {
        // What the network failed with has it inside, and not as its source.
        while let Some(inside) = error.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref())
        {
            error = inside;
        }
        if let Some(found) = error.downcast_ref::<Error>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// Believes what another one believes, where the key is one of those that are pinned.
#[derive(Debug)]
struct Pinned {
    verifier: Arc<dyn ServerCertVerifier>,
    /// Digests of subject public key infos; any where there is none.
    pins: Vec<[u8; 32]>,
}

/// A key that is not pinned.
#[derive(Debug, Error)]
#[error("its public key {0} is none of pinned_keys")]
struct NotPinned(String);

/// A digest of a key as curl's `--pinnedpubkey` and `openssl` pipelines write it.
fn pin(digest: &[u8]) -> String {
    format!("sha256//{}", STANDARD.encode(digest))
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.verifier.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )?;
        if self.pins.is_empty() {
            return Ok(verified);
        }
        // The other certificates that are sent may be anybody's: they prove nothing of themselves.
        let key = ParsedCertificate::try_from(end_entity)?.subject_public_key_info();
        let digest = Sha256::digest(&key);
        if self.pins.iter().any(|pinned| pinned[..] == digest[..]) {
            return Ok(verified);
        }
        let other = OtherError(Arc::new(NotPinned(pin(&digest))));
        Err(CertificateError::Other(other).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
