//! A cursor is written down however long the disk takes.
//!
//! **Invariant:** nobody is told that a cursor moved before it is on disk.

use std::time::Duration;

use tokio::time::sleep;

use super::takers::{TakerError, TakerName};

/// A disk that failed is tried again after this time.
pub(super) const DISK_WAIT: Duration = Duration::from_secs(5);

/// Writes, again and again until it is done.
pub(super) async fn until_written<F>(taker: &TakerName, write: impl Fn() -> F)
where
    F: Future<Output = Result<(), TakerError>>,
{
    while let Err(error) = write().await {
        let error = crate::error_chain(&error);
        tracing::warn!(%taker, %error, "a cursor of results cannot be written; trying again");
        sleep(DISK_WAIT).await;
    }
}
