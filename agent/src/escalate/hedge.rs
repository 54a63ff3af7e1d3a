//! Owns asking one destination after the other, and a second one beside the first that is slow.
//!
//! **Invariant:** only what the policy cleared is asked, each at most once, two at the same time at most;
//! what is dropped ends there, and counts as it left ([`Passage`](super::passage::Passage)).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, sleep_until};

use super::error::SendError;
use crate::policy::Cleared;

/// Whether the first byte of an answer came.
#[derive(Debug, Clone, Default)]
pub(crate) struct FirstByte(Arc<AtomicBool>);

impl FirstByte {
    pub(super) fn comes(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn has_come(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Asks the destinations of `candidates` by `send`, one after the other, until one answers. Where the
/// first byte of one has not come after `hedge_after`, the next is asked beside it, once, and the first
/// good answer wins. `send` gives nothing when there is no time left; it is told how many were asked.
/// `failed` is told of each that gave no answer.
pub(crate) async fn in_turn<'a, R, A>(
    candidates: Vec<Cleared<'a, R>>,
    hedge_after: Option<Duration>,
    send: impl Fn(Cleared<'a, R>, usize, FirstByte) -> Option<BoxFuture<'a, Result<A, SendError>>>,
    mut failed: impl FnMut(Cleared<'a, R>, SendError),
) -> Option<(Cleared<'a, R>, A)> {
    let mut next = candidates.into_iter().enumerate();
    let mut begin = |first_byte: &FirstByte| {
        let (asked, cleared) = next.next()?;
        let sending = send(cleared, asked, first_byte.clone())?;
        Some((asked, sending.map(move |result| (asked, cleared, result))))
    };
    let mut under_way = FuturesUnordered::new();
    // The one that is asked beside another, and when one would be.
    let (mut hedge, mut has_hedged, mut due) = (None, false, None);
    loop {
        if under_way.is_empty() {
            let first_byte = FirstByte::default();
            let (_, sending) = begin(&first_byte)?;
            under_way.push(sending);
            let after = hedge_after.filter(|_| !has_hedged);
            due = after.map(|after| (Instant::now() + after, first_byte));
        }
        let is_due = async {
            match &due {
                Some((at, _)) => sleep_until(*at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some((asked, cleared, result)) = under_way.next() => match result {
                Ok(answer) => {
                    if let Some(hedge) = hedge {
                        count(if hedge == asked { "won" } else { "lost" });
                    }
                    return Some((cleared, answer));
                }
                Err(error) => {
                    if hedge == Some(asked) {
                        hedge = None;
                        count("failed");
                    }
                    failed(cleared, error);
                }
            },
            () = is_due => {
                let is_silent = due.take().is_some_and(|(_, first_byte)| !first_byte.has_come());
                if is_silent && let Some((asked, sending)) = begin(&FirstByte::default()) {
                    (hedge, has_hedged) = (Some(asked), true);
                    under_way.push(sending);
                }
            }
        }
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("holdfast_hedges_total", "outcome" => outcome).increment(1);
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::time::sleep;

    use super::*;
    use crate::destination::{Destination, Protocol};
    use crate::escalate::tests::{destination, request};
    use crate::policy::Policy;
    use crate::request::{DataClass, Request};

    /// What one that is asked does.
    #[derive(Clone, Copy)]
    enum Act {
        /// Answers after so many milliseconds.
        Answers(u64),
        /// Fails then.
        Fails(u64),
        /// Begins to answer at once, and ends then.
        Begins(u64),
    }

    async fn act(act: Act, at: usize, first_byte: FirstByte) -> Result<usize, SendError> {
        if let Act::Begins(_) = act {
            first_byte.comes();
        }
        let (Act::Answers(ms) | Act::Fails(ms) | Act::Begins(ms)) = act;
        sleep(Duration::from_millis(ms)).await;
        match act {
            Act::Fails(_) => Err(SendError::Busy { destination: String::new() }),
            Act::Answers(_) | Act::Begins(_) => Ok(at),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_of_second_attempts() {
        use Act::{Answers, Begins, Fails};
        let request: Request = request(DataClass::Internal);
        for (case, hedge_ms, acts, winner, asked, took_ms) in [
            ("no hedge", None, &[Answers(900), Answers(1)][..], Some(0), 1, 900),
            ("quick enough", Some(100), &[Answers(99), Answers(1)], Some(0), 1, 99),
            ("slow", Some(100), &[Answers(900), Answers(50)], Some(1), 2, 150),
            (
                "slow, and the other slower",
                Some(100),
                &[Answers(300), Answers(900)],
                Some(0),
                2,
                300,
            ),
            ("it has begun", Some(100), &[Begins(900), Answers(1)], Some(0), 1, 900),
            ("nobody else", Some(100), &[Answers(900)], Some(0), 1, 900),
            ("the other fails", Some(100), &[Answers(900), Fails(1), Answers(1)], Some(0), 2, 900),
            ("the first fails then", Some(100), &[Fails(200), Answers(500)], Some(1), 2, 600),
            ("both fail", Some(100), &[Fails(200), Fails(1), Answers(5)], Some(2), 3, 205),
            (
                "one second attempt",
                Some(10),
                &[Answers(90), Answers(95), Answers(1)],
                Some(0),
                2,
                90,
            ),
            (
                "a second attempt that failed is the only one",
                Some(10),
                &[Fails(50), Fails(1), Answers(90), Answers(1)],
                Some(2),
                3,
                140,
            ),
            ("all fail", None, &[Fails(5), Fails(5)], None, 2, 10),
        ] {
            let names: Vec<Destination> =
                (0..acts.len()).map(|_| destination(Protocol::Holdfast, String::new())).collect();
            let policy = Policy::default();
            let cleared = names.iter().map(|each| policy.clear(&request, each).unwrap()).collect();
            let sends = Mutex::new(0);
            let begun = Instant::now();
            let won = in_turn(
                cleared,
                hedge_ms.map(Duration::from_millis),
                |_, at, first_byte| {
                    *sends.lock().unwrap() += 1;
                    Some(act(acts[at], at, first_byte).boxed())
                },
                |_, _| {},
            );
            let won = won.await.map(|(_, at)| at);
            assert_eq!((won, *sends.lock().unwrap()), (winner, asked), "{case}");
            assert_eq!(begun.elapsed().as_millis(), took_ms, "{case}");
        }
    }
}
