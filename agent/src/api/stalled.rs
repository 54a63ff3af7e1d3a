//! Owns the deadline of a caller that does not take what it is told.
//!
//! **Invariant:** bytes that nobody takes wait for a bounded time; then the connection ends, and gives back
//! everything that its response holds.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::seats::Seat;

/// A stream whose writing fails when it stands still for too long.
pub(crate) struct Watched<S> {
    stream: S,
    within: Duration,
    /// Knows whether a write waits.
    seat: Seat,
    /// Runs while a write waits.
    patience: Option<Pin<Box<Sleep>>>,
}

impl<S> Watched<S> {
    pub(crate) fn new(stream: S, within: Duration, seat: Seat) -> Self {
        Self { stream, within, seat, patience: None }
    }

    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            if self.patience.take().is_some() {
                self.seat.note_writing(false);
            }
            return polled;
        }
        let (within, seat) = (self.within, &self.seat);
        let patience = self.patience.get_or_insert_with(|| {
            seat.note_writing(true);
            Box::pin(sleep(within))
        });
        patience.as_mut().poll(context).map(|()| Err(ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.watch(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(context, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stands_still_is_left_and_a_slow_one_is_waited_for() {
        let within = Duration::from_secs(30);
        let (ours, mut theirs) = duplex(4);
        let mut watched = Watched::new(ours, within, Seat::new());
        let slow = async {
            let mut got = [0; 4];
            for _ in 0..4 {
                sleep(within - Duration::from_secs(1)).await;
                theirs.read_exact(&mut got).await.unwrap();
            }
            theirs
        };
        let (written, theirs) = tokio::join!(watched.write_all(&[7; 16]), slow);
        written.unwrap();
        let stood = watched.write_all(&[7; 16]).await.unwrap_err();
        assert_eq!(stood.kind(), ErrorKind::TimedOut);
        drop(theirs);
    }
}
