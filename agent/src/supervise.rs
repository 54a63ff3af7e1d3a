//! Owns what keeps the parts behind the API running.
//!
//! **Invariant:** a part that panics is begun again; a part ends by itself or by the stop.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Before a part is begun again; doubled each time, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Runs `part`, and again from its beginning whenever it panics, until it ends or `stop`.
pub(crate) async fn supervise<F>(name: &'static str, stop: CancellationToken, part: impl Fn() -> F)
where
    F: Future<Output = ()>,
{
    let mut pause = FIRST_PAUSE;
    loop {
        let begun = Instant::now();
        // Nothing of the part is looked at after its panic: it begins anew.
        let Err(panic) = AssertUnwindSafe(part()).catch_unwind().await else { return };
        if begun.elapsed() > LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        let why = panic.downcast_ref::<String>().map(String::as_str);
        let why = why.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown");
        tracing::error!(part = name, why, again_in = ?pause, "panicked; report this as a bug");
        metrics::counter!("holdfast_panics_total", "part" => name).increment(1);
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(pause) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_part_that_panics_is_begun_again_until_it_ends() {
        let runs = AtomicU32::new(0);
        let begun = Instant::now();
        supervise("test", CancellationToken::new(), || async {
            assert!(runs.fetch_add(1, Ordering::Relaxed) >= 3, "not yet");
        })
        .await;
        assert_eq!(runs.into_inner(), 4);
        assert_eq!(begun.elapsed().as_millis(), 100 + 200 + 400);
    }

    #[tokio::test(start_paused = true)]
    async fn the_stop_ends_the_pause() {
        let stop = CancellationToken::new();
        stop.cancel();
        supervise("test", stop, || async { panic!("at once") }).await;
    }
}
