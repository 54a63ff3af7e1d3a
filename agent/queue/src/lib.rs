//! The durable queue: what was put in is there after a kill or a power cut, and ends once.
//!
//! Owns the queue's directory: the journal that is the truth (`journal.rs` documents its format),
//! the index in sled (`index/`) that can be made again from it, and the lock. It knows nothing of
//! routing: an entry is an id, a key, a priority, times, and opaque bytes. It has no clock: times are
//! arguments, in milliseconds on one clock of the caller's.
//!
//! ```text
//! Queue (handles)  --commands-->  Writer (one thread)  -->  Journal, one fdatasync for all who wait
//!       |                              |  Ledger: what a record changes
//!       +----- reads ---> Shared: Index (sled), who is in flight, numbers
//! ```
//!
//! **Invariant:** a caller that got `Ok` finds its record again after any crash, and a request has one
//! final state, the first that was recorded. Memory follows the number of requests, not their bytes.

mod begin;
mod bounds;
mod command;
mod compact;
mod disk;
mod entry;
mod error;
mod forget;
mod give_back;
mod handle;
mod index;
mod journal;
mod keys;
mod lease;
mod ledger;
mod life;
mod line;
mod listing;
mod lock;
mod lost;
mod meter;
mod opening;
mod pick;
mod reader;
mod repair;
mod replay;
mod room;
mod scan;
mod segments;
mod shared;
#[cfg(any(test, feature = "paused-clock"))]
mod still;
mod stopped;
mod tombstone;
mod unfinished;
mod upkeep;
mod version1;
mod wear;
mod writer;

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

pub use bounds::{QueueConfig, WhenFull};
pub use entry::{
    Accepted, Forgotten, Idempotency, MAX_BODY_BYTES, MAX_ENVELOPE_BYTES, NewEntry, Record,
    Recorded, RequestId, State, Stats, Summary,
};
pub use error::{FullRule, QueueError};
pub use handle::Queue;
pub use lease::Lease;
pub use line::Walk;
pub use opening::OpenReport;
pub use repair::{Repaired, repair};
pub use scan::Damage;
pub use stopped::{StoppedQueue, read_only};
pub use wear::URGENT;

/// A time that does not come.
const NEVER: u64 = u64::MAX;
