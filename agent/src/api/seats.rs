//! Owns which connections are open at once, and which gives way to a newcomer where no more may be.
//!
//! **Invariant:** a connection with a request under way, from its whole head to the last byte of its response,
//! is closed for no other. Of the rest, the one that has waited longest goes first, and none that began to
//! wait a moment ago: its request may be on its way.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::HttpBody;
use hyper::body::{Frame, SizeHint};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A connection that waits for less is not closed for another.
const MOMENT: Duration = Duration::from_millis(100);

/// The open connections of one listener; clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Seats(Arc<Mutex<Open>>);

#[derive(Debug)]
struct Open {
    limit: usize,
    next: u64,
    seats: HashMap<u64, Seat>,
}

/// Whether there is a place.
#[derive(Debug)]
pub(super) enum Taken {
    Place(Place),
    /// Nobody has waited for long enough to give way; then somebody may.
    Later(Instant),
    /// All are taken, and each has a request under way.
    Full,
}

/// That a connection is counted, until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    seats: Seats,
    number: u64,
    seat: Seat,
}

/// What one connection does; clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Seat(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    doing: Mutex<Doing>,
    /// Bytes of a response wait until the other end takes more.
    is_writing: AtomicBool,
    leaves: CancellationToken,
}

#[derive(Debug)]
struct Doing {
    under_way: usize,
    /// Since when there is no request under way, where there is none.
    waits_since: Instant,
    is_leaving: bool,
}

/// One request under way.
#[derive(Debug)]
pub(crate) struct UnderWay(Seat);

impl Seats {
    pub(super) fn new(limit: usize) -> Self {
        Self(Arc::new(Mutex::new(Open { limit, next: 0, seats: HashMap::new() })))
    }

    /// A place for a newcomer.
    pub(super) fn take(&self) -> Taken {
        let mut open = locked(&self.0);
        while open.seats.len() >= open.limit {
            let waiting =
                open.seats.iter().filter_map(|(at, seat)| Some((seat.waits_since()?, *at)));
            let Some((since, longest)) = waiting.min() else { return Taken::Full };
            if since.elapsed() < MOMENT {
                return Taken::Later(since + MOMENT);
            }
            // Else a request came to it meanwhile.
            if open.seats.get(&longest).is_some_and(Seat::dismiss) {
                open.seats.remove(&longest);
                count("longest_waiting");
            }
        }
        let (number, seat) = (open.next, Seat::new());
        open.next += 1;
        open.seats.insert(number, seat.clone());
        Taken::Place(Place { seats: self.clone(), number, seat })
    }
}

/// Counts a connection that was closed since there were too many.
pub(super) fn count(rule: &'static str) {
    metrics::counter!("holdfast_connections_closed_total", "rule" => rule).increment(1);
}

impl Place {
    /// What the connection does.
    pub(super) fn seat(&self) -> &Seat {
        &self.seat
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        locked(&self.seats.0).seats.remove(&self.number);
    }
}

impl Seat {
    pub(super) fn new() -> Self {
        let doing = Doing { under_way: 0, waits_since: Instant::now(), is_leaving: false };
        let (doing, is_writing) = (Mutex::new(doing), AtomicBool::new(false));
        Self(Arc::new(Shared { doing, is_writing, leaves: CancellationToken::new() }))
    }

    /// A request's head is here; `None`: the connection goes, and nothing is begun on it.
    pub(crate) fn begin(&self) -> Option<UnderWay> {
        let mut doing = locked(&self.0.doing);
        if doing.is_leaving {
            return None;
        }
        doing.under_way += 1;
        Some(UnderWay(self.clone()))
    }

    /// Since when there is no request under way; `None` while there is one.
    pub(crate) fn waits_since(&self) -> Option<Instant> {
        let doing = locked(&self.0.doing);
        (doing.under_way == 0 && !self.is_writing()).then_some(doing.waits_since)
    }

    /// Says whether bytes of a response wait.
    pub(super) fn note_writing(&self, is_writing: bool) {
        self.0.is_writing.store(is_writing, Ordering::Relaxed);
    }

    /// The end of a response, that the other end does not take as fast as it comes, belongs to its request.
    fn is_writing(&self) -> bool {
        self.0.is_writing.load(Ordering::Relaxed)
    }

    /// Has the connection go, if it still waits.
    fn dismiss(&self) -> bool {
        let mut doing = locked(&self.0.doing);
        doing.is_leaving = doing.under_way == 0 && !self.is_writing();
        if doing.is_leaving {
            self.0.leaves.cancel();
        }
        doing.is_leaving
    }

    /// Runs a connection until it ends or gives way.
    pub(super) async fn run(&self, connection: impl Future<Output = ()>) {
        tokio::select! {
            biased;
            () = connection => {}
            () = self.0.leaves.cancelled() => {}
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut doing = locked(&self.0.0.doing);
        doing.under_way -= 1;
        if doing.under_way == 0 {
            doing.waits_since = Instant::now();
        }
    }
}

/// The body of a response, whose request is under way until it is over.
#[derive(Debug)]
pub(crate) struct Held<B> {
    body: B,
    _under_way: UnderWay,
}

impl<B> Held<B> {
    pub(crate) fn new(body: B, under_way: UnderWay) -> Self {
        Self { body, _under_way: under_way }
    }
}

impl<B: HttpBody + Unpin> HttpBody for Held<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What a holder left that panicked is plain values all the same.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    impl Place {
        fn is_dismissed(&self) -> bool {
            self.seat.0.leaves.is_cancelled()
        }
    }

    impl Taken {
        fn place(self) -> Place {
            match self {
                Self::Place(place) => place,
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_that_waited_longest_gives_way_and_none_with_a_request_under_way() {
        let seats = Seats::new(3);
        let mut places = Vec::new();
        for _ in 0..3 {
            places.push(seats.take().place());
            advance(Duration::from_secs(1)).await;
        }
        let first = places[0].seat().begin().unwrap();
        let newcomer = seats.take().place();
        let gone: Vec<_> = places.iter().map(Place::is_dismissed).collect();
        assert_eq!(gone, [false, true, false], "the first has a request under way");
        assert!(places[1].seat().begin().is_none(), "nothing is begun on what goes");
        advance(Duration::from_secs(1)).await;
        drop(first);
        let third = places[2].seat().begin().unwrap();
        advance(Duration::from_secs(1)).await;
        let next = seats.take().place();
        assert!(newcomer.is_dismissed() && !places[0].is_dismissed(), "its answer is newer");
        let _others = [&places[0], &next].map(|place| place.seat().begin().unwrap());
        assert!(matches!(seats.take(), Taken::Full), "all have a request under way");
        drop(third);
        places.remove(1);
        assert!(!places[1].is_dismissed());
        drop(places.remove(1));
        seats.take().place();
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_response_is_written_before_its_connection_goes() {
        let seats = Seats::new(1);
        let place = seats.take().place();
        place.seat().note_writing(true);
        advance(Duration::from_secs(9)).await;
        assert!(matches!(seats.take(), Taken::Full) && !place.is_dismissed());
        place.seat().note_writing(false);
        let running = tokio::spawn({
            let seat = place.seat().clone();
            async move { seat.run(std::future::pending()).await }
        });
        seats.take().place();
        running.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn whose_request_may_be_on_its_way_does_not_give_way() {
        let seats = Seats::new(1);
        let place = seats.take().place();
        let is_later = |taken| matches!(taken, Taken::Later(at) if at == Instant::now() + MOMENT);
        assert!(is_later(seats.take()), "it has only come");
        advance(MOMENT).await;
        drop(place.seat().begin().unwrap());
        assert!(is_later(seats.take()), "it has only been answered");
        advance(MOMENT).await;
        seats.take().place();
        assert!(place.is_dismissed());
    }
}
