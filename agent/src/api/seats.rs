//! Owns which connections are open at once, and which gives way to a newcomer where no more may be.
//!
//! **Invariant:** a connection with a request under way, from its whole head to the last byte of its response,
//! is closed for no other. Of the rest, the one that has waited longest goes first.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::HttpBody;
use hyper::body::{Frame, SizeHint};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The open connections of one listener; clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Seats(Arc<Mutex<Open>>);

#[derive(Debug)]
struct Open {
    limit: usize,
    next: u64,
    seats: HashMap<u64, Seat>,
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

    /// A place for a newcomer; `None` where all are taken and each has a request under way.
    pub(super) fn take(&self) -> Option<Place> {
        let mut open = locked(&self.0);
        while open.seats.len() >= open.limit {
            let waiting =
                open.seats.iter().filter_map(|(at, seat)| Some((seat.waits_since()?, *at)));
            let (_, longest) = waiting.min()?;
            // Else a request came to it meanwhile.
            if open.seats.get(&longest)?.dismiss() {
                open.seats.remove(&longest);
                count("longest_waiting");
            }
        }
        let (number, seat) = (open.next, Seat::new());
        open.next += 1;
        open.seats.insert(number, seat.clone());
        Some(Place { seats: self.clone(), number, seat })
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
        (doing.under_way == 0).then_some(doing.waits_since)
    }

    /// Says whether bytes of a response wait.
    pub(super) fn note_writing(&self, is_writing: bool) {
        self.0.is_writing.store(is_writing, Ordering::Relaxed);
    }

    /// Has the connection go, if it still waits.
    fn dismiss(&self) -> bool {
        let mut doing = locked(&self.0.doing);
        doing.is_leaving = doing.under_way == 0;
        if doing.is_leaving {
            self.0.leaves.cancel();
        }
        doing.is_leaving
    }

    /// Runs a connection until it ends or gives way.
    pub(super) async fn run(&self, connection: impl Future<Output = ()>) {
        let (mut connection, mut dismissed) = (pin!(connection), pin!(self.0.leaves.cancelled()));
        let mut is_leaving = false;
        poll_fn(|context| {
            if connection.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            is_leaving = is_leaving || dismissed.as_mut().poll(context).is_ready();
            // The end of a response, that the other end does not take as fast as it comes, goes first.
            match is_leaving && !self.0.is_writing.load(Ordering::Relaxed) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
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
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    impl Place {
        fn is_dismissed(&self) -> bool {
            self.seat.0.leaves.is_cancelled()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_that_waited_longest_gives_way_and_none_with_a_request_under_way() {
        let seats = Seats::new(3);
        let mut places = Vec::new();
        for _ in 0..3 {
            places.push(seats.take().unwrap());
            advance(Duration::from_secs(1)).await;
        }
        let first = places[0].seat().begin().unwrap();
        let newcomer = seats.take().unwrap();
        let gone: Vec<_> = places.iter().map(Place::is_dismissed).collect();
        assert_eq!(gone, [false, true, false], "the first has a request under way");
        assert!(places[1].seat().begin().is_none(), "nothing is begun on what goes");
        advance(Duration::from_secs(1)).await;
        drop(first);
        let third = places[2].seat().begin().unwrap();
        advance(Duration::from_secs(1)).await;
        let next = seats.take().unwrap();
        assert!(newcomer.is_dismissed() && !places[0].is_dismissed(), "its answer is newer");
        let _others = [&places[0], &next].map(|place| place.seat().begin().unwrap());
        assert!(seats.take().is_none(), "all have a request under way");
        drop(third);
        places.remove(1);
        assert!(!places[1].is_dismissed());
        drop(places.remove(1));
        assert!(seats.take().is_some(), "one that ends makes room");
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_response_is_written_before_its_connection_goes() {
        let place = Seats::new(1).take().unwrap();
        let seat = place.seat().clone();
        let running = tokio::spawn({
            let seat = seat.clone();
            async move {
                seat.run(async {
                    loop {
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                })
                .await;
            }
        });
        seat.note_writing(true);
        assert!(seat.dismiss());
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert!(!running.is_finished());
        seat.note_writing(false);
        running.await.unwrap();
    }
}
