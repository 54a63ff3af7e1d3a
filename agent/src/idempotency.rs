//! Owns what makes two requests under one key the same request.
//!
//! **Invariant:** two requests have one digest only where the same was asked under the same terms of class and
//! escalation.

use sha2::{Digest, Sha256};

use crate::queue::Idempotency;
use crate::request::Request;

/// From this size on a digest is not made on the reactor.
const LARGE: usize = 256 * 1024;

/// The caller's own name for a request, with the digest of what was asked.
pub(crate) fn of(request: &Request) -> Option<Idempotency> {
    let key = request.key.as_ref()?.as_str().to_owned();
    Some(Idempotency { key, digest: digest(request) })
}

/// The same, with the digest of a large request made off the reactor.
pub(crate) async fn of_any_size(request: &Request) -> Option<Idempotency> {
    if request.key.is_none() || request.media.bytes().len() < LARGE {
        return of(request);
    }
    let large = request.clone();
    match tokio::task::spawn_blocking(move || of(&large)).await {
        Ok(name) => name,
        // It was not begun: the runtime stops.
        Err(_) => of(request),
    }
}

/// What makes two requests under one key the same request.
fn digest(request: &Request) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [request.task.as_str(), request.class.as_str(), request.escalate.as_str()] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let media_type = request.media.media_type();
    if !media_type.is_marked() {
        // The same bytes are other numbers as another kind; of the rest they say themselves what they are.
        hash.update(media_type.mime().as_bytes());
        hash.update([0]);
    }
    hash.update(request.media.bytes());
    hash.finalize().into()
}
