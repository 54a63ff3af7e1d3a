//! Metas of version 1, which are read and no longer written.
//!
//! They knew nothing of what a request waits for, nor of the order of results.
//!
//! **Invariant:** these structs never change; every record that was ever written can be read.

use serde::{Deserialize, Serialize};

use super::{
    entry::Idempotency,
    journal::{AcceptMeta, FinalMeta, FinalState, Kind, Meta, RetryMeta, Wait},
};

#[derive(Debug, Serialize, Deserialize)]
struct Accept {
    idempotency: Option<Idempotency>,
    priority: u8,
    order: u64,
    accepted_at_ms: u64,
    not_before_ms: u64,
    expires_at_ms: Option<u64>,
    attempts: u32,
    reason: Option<String>,
    envelope: Vec<u8>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Retry {
    attempts: u32,
    not_before_ms: u64,
    reason: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Final {
    state: FinalState,
    finished_at_ms: u64,
    request: Accept,
    accepts_in: Vec<u64>,
}

/// Reads a meta of version 1, of the record with this sequence.
pub(super) fn decode(kind: Kind, sequence: u64, bytes: &[u8]) -> Option<Meta> {
    Some(match kind {
        Kind::Accept => Meta::Accept(accept(postcard::from_bytes(bytes).ok()?)),
        Kind::Retry => {
            let Retry { attempts, not_before_ms, reason } = postcard::from_bytes(bytes).ok()?;
            Meta::Retry(RetryMeta { attempts, not_before_ms, reason, wait: Wait::Turn })
        }
        Kind::Final => {
            let Final { state, finished_at_ms, request, accepts_in } =
                postcard::from_bytes(bytes).ok()?;
            let request = accept(request);
            Meta::Final(FinalMeta { state, finished_at_ms, number: sequence, request, accepts_in })
        }
        Kind::Tombstone => return None,
    })
}

fn accept(old: Accept) -> AcceptMeta {
    AcceptMeta {
        idempotency: old.idempotency,
        priority: old.priority,
        order: old.order,
        accepted_at_ms: old.accepted_at_ms,
        not_before_ms: old.not_before_ms,
        expires_at_ms: old.expires_at_ms,
        attempts: old.attempts,
        reason: old.reason,
        wait: Wait::Turn,
        envelope: old.envelope.into(),
    }
}
