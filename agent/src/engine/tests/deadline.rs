//! Waiting in the engine's tests.
//!
//! **Invariant:** what does not come about fails the test that waits for it; nothing is waited for without
//! an end.

use std::time::Duration;

use tokio::time::Instant;

/// Nothing here takes so long.
pub(in crate::engine) const LONG: Duration = Duration::from_secs(60);
/// What other processes do is looked at so often.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Waits until it is so.
pub(in crate::engine) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let over = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < over, "it never came about: {what}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits until it is so, on a thread of its own.
pub(in crate::engine) fn until_blocking(what: &str, is_so: impl Fn() -> bool) {
    let over = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < over, "it never came about: {what}");
        std::thread::yield_now();
    }
}

/// What comes of it.
pub(in crate::engine) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, work).await.expect("it ends")
}
