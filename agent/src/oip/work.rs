//! Owns where work on bodies is done.
//!
//! **Invariant:** the reactor does no work that takes longer than a fraction of a millisecond.

use super::refusal::{Kind, Refusal};

/// Work of this weight is done where it is: a copy of so many bytes takes a tenth of a millisecond, and
/// handing it over to another thread and back would take a good part of that.
const SMALL: usize = 1 << 20;
/// A byte of JSON, or one compressed, is as much work as so many of a binary tensor.
pub(super) const TEXT_WEIGHT: usize = 16;

/// Does work of a weight: about so many bytes that are copied.
pub(super) async fn off_reactor<T: Send + 'static>(
    weight: usize,
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    if weight <= SMALL {
        return work();
    }
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| {
        Err(Refusal::new(Kind::Failed, "the request could not be worked on; report this as a bug"))
    })
}
