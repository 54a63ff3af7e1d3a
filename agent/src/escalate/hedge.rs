//! Owns asking one destination after the other, and a second one beside the first that is slow.
//!
//! One whose rate is spent is not waited for as long as somebody else is left: it comes behind all of them,
//! and of several such the one that lets something in soonest comes first.
//!
//! **Invariant:** only what the policy cleared is asked, each is sent to at most once, two at the same time
//! at most; what is dropped ends there, and counts as it left ([`Passage`](super::passage::Passage)).

use std::collections::{BTreeMap, VecDeque};
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

/// One attempt of several, as who sends it has to know it; by default the only one.
#[derive(Debug, Clone, Default)]
pub struct Attempt {
    /// Told of the first byte.
    pub(super) first_byte: FirstByte,
    /// Somebody else can be asked: a rate that is spent is not waited for.
    pub(super) moves_on: bool,
}

/// Who is left to be asked.
#[derive(Debug)]
struct Left<'a, R> {
    /// Nobody of these was asked yet, each with its place in the order.
    new: VecDeque<(usize, Cleared<'a, R>)>,
    /// The rates of these were spent, by when they let one in; nothing went out to them.
    spent: BTreeMap<(Instant, usize), (Cleared<'a, R>, SendError)>,
}

impl<'a, R> Left<'a, R> {
    /// Who is next, and whether somebody else is left then.
    fn first(&self) -> Option<(usize, Cleared<'a, R>, bool)> {
        let is_alone = self.new.len() + self.spent.len() == 1;
        if let Some((place, cleared)) = self.new.front() {
            return Some((*place, *cleared, !is_alone));
        }
        // All rates that are left are spent: the soonest is waited for.
        let ((_, place), (cleared, _)) = self.spent.first_key_value()?;
        Some((*place, *cleared, false))
    }

    fn take_first(&mut self) {
        if self.new.pop_front().is_none() {
            self.spent.pop_first();
        }
    }
}

/// Asks the destinations of `candidates` by `send`, one after the other, until one answers. Where the
/// first byte of one has not come after `hedge_after`, the next is asked beside it, once, and the first
/// good answer wins. `send` gives nothing when there is no time left; it is told its place in the order.
/// `failed` is told of each that gave no answer.
pub(crate) async fn in_turn<'a, R, A>(
    candidates: Vec<Cleared<'a, R>>,
    hedge_after: Option<Duration>,
    send: impl Fn(Cleared<'a, R>, usize, Attempt) -> Option<BoxFuture<'a, Result<A, SendError>>>,
    mut failed: impl FnMut(Cleared<'a, R>, SendError),
) -> Option<(Cleared<'a, R>, A)> {
    let mut left =
        Left { new: candidates.into_iter().enumerate().collect(), spent: BTreeMap::new() };
    let begin = |left: &mut Left<'a, R>| {
        let (asked, cleared, moves_on) = left.first()?;
        let first_byte = FirstByte::default();
        let sending = send(cleared, asked, Attempt { first_byte: first_byte.clone(), moves_on })?;
        left.take_first();
        let sending = sending.map(move |result| (asked, cleared, moves_on, result));
        Some((first_byte, asked, sending))
    };
    let mut under_way = FuturesUnordered::new();
    // The one that is asked beside another, and when one would be.
    let (mut hedge, mut has_hedged, mut due) = (None, false, None);
    loop {
        if under_way.is_empty() {
            let Some((first_byte, _, sending)) = begin(&mut left) else {
                left.spent.into_values().for_each(|(cleared, error)| failed(cleared, error));
                return None;
            };
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
            Some((asked, cleared, moves_on, result)) = under_way.next() => match result {
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
                    match error {
                        SendError::Limited { retry_after, .. } if moves_on => {
                            let due = Instant::now() + retry_after;
                            left.spent.insert((due, asked), (cleared, error));
                        }
                        error => failed(cleared, error),
                    }
                }
            },
            () = is_due => {
                let is_silent = due.take().is_some_and(|(_, first_byte)| !first_byte.has_come());
                if is_silent && let Some((_, asked, sending)) = begin(&mut left) {
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
        /// Its rate is spent for so long, from the first on; then it answers at once.
        Spent(u64),
        /// Its rate is spent for longer than anybody waits.
        SpentForLong,
    }

    async fn act(
        act: Act,
        at: usize,
        attempt: Attempt,
        begun: Instant,
    ) -> Result<usize, SendError> {
        let destination = String::new();
        let limited = |retry_after| SendError::Limited { destination: String::new(), retry_after };
        match act {
            Act::Begins(ms) => {
                attempt.first_byte.comes();
                sleep(Duration::from_millis(ms)).await;
                Ok(at)
            }
            Act::Answers(ms) => {
                sleep(Duration::from_millis(ms)).await;
                Ok(at)
            }
            Act::Fails(ms) => {
                sleep(Duration::from_millis(ms)).await;
                Err(SendError::Busy { destination })
            }
            Act::Spent(ms) => {
                let left = Duration::from_millis(ms).saturating_sub(begun.elapsed());
                if attempt.moves_on && !left.is_zero() {
                    return Err(limited(left));
                }
                sleep(left).await;
                Ok(at)
            }
            Act::SpentForLong => Err(limited(Duration::from_secs(60))),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_of_second_attempts() {
        use Act::{Answers, Begins, Fails, Spent, SpentForLong};
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
            ("a spent rate, and an idle one", None, &[Spent(9900), Answers(40)], Some(1), 2, 40),
            ("a spent rate alone", None, &[Spent(900)], Some(0), 1, 900),
            ("a spent rate, the other fails", None, &[Spent(900), Fails(5)], Some(0), 3, 900),
            ("the soonest of two", None, &[Spent(900), Spent(300)], Some(1), 3, 300),
            ("it failed before a spent one", None, &[Fails(5), Spent(300)], Some(1), 2, 300),
            ("spent for long", None, &[SpentForLong, SpentForLong], None, 4, 0),
            (
                "a spent rate beside a slow one",
                Some(100),
                &[Spent(150), Answers(900)],
                Some(0),
                3,
                150,
            ),
        ] {
            let names: Vec<Destination> =
                (0..acts.len()).map(|_| destination(Protocol::Holdfast, String::new())).collect();
            let policy = Policy::default();
            let cleared = names.iter().map(|each| policy.clear(&request, each).unwrap()).collect();
            let (sends, mut failures) = (Mutex::new(0), 0);
            let begun = Instant::now();
            let won = in_turn(
                cleared,
                hedge_ms.map(Duration::from_millis),
                |_, at, attempt| {
                    *sends.lock().unwrap() += 1;
                    Some(act(acts[at], at, attempt, begun).boxed())
                },
                |_, _| failures += 1,
            );
            let won = won.await.map(|(_, at)| at);
            assert!(won.is_some() || failures == acts.len(), "{case}: each failure is told once");
            assert_eq!((won, *sends.lock().unwrap()), (winner, asked), "{case}");
            assert_eq!(begun.elapsed().as_millis(), took_ms, "{case}");
        }
    }
}
