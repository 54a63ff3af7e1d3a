//! Owns an answer on its way to the caller, piece by piece: what comes is written at once.
//!
//! **Invariant:** an answer that broke off ends with an error, and never as a whole one does; when the
//! caller goes away this is dropped, and with it the call to the destination, if nobody else hears it.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use holdfast_chat::Event;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::complaint::Complaint;
use super::talk::Writer;
use crate::api::access_log::Ending;
use crate::api::server::stopped_for_long;
use crate::gateway::{Refused, Rest};

/// An answer on its way.
pub(super) struct Pouring {
    writer: Writer,
    events: Vec<Event>,
    /// `None` where all that there is is in `events`.
    rest: Option<Rest>,
    is_over: bool,
    /// When the agent stops, nobody waits for the rest for long.
    stopped: BoxFuture<'static, ()>,
    ending: Ending,
    _place: OwnedSemaphorePermit,
}

impl Pouring {
    pub(super) fn new(
        writer: Writer,
        events: Vec<Event>,
        rest: Option<Rest>,
        stop: &CancellationToken,
        (place, ending): (OwnedSemaphorePermit, Ending),
    ) -> Self {
        let stop = stop.clone();
        let stopped = async move { stopped_for_long(&stop).await }.boxed();
        Self { writer, events, rest, is_over: false, stopped, ending, _place: place }
    }

    /// The bytes that come next; `None` at the end.
    pub(super) async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        let mut out = Vec::new();
        while !self.is_over && out.is_empty() {
            // What is there goes out before anything is waited for.
            let ended =
                if self.events.is_empty() { self.more().await } else { Ok(self.rest.is_none()) };
            for event in self.events.drain(..) {
                self.writer.write(&event, &mut out);
            }
            match ended {
                Ok(false) => continue,
                Ok(true) => self.writer.finish(&mut out),
                Err(complaint) => {
                    self.writer.fail(&complaint, &mut out);
                    self.ending.break_off();
                }
            }
            self.is_over = true;
            // The call ends, and not only when the caller has taken the last bytes.
            self.rest = None;
        }
        (!out.is_empty()).then(|| (Ok(Bytes::from(out)), self))
    }

    /// Waits for what comes next; true at the end.
    async fn more(&mut self) -> Result<bool, Complaint> {
        let Some(rest) = &mut self.rest else { return Ok(true) };
        tokio::select! {
            biased;
            more = rest.next(&mut self.events) => match more {
                Ok(is_more) => Ok(!is_more),
                Err(error) => Err(Complaint::from(&*error)),
            },
            () = &mut self.stopped => Err(Refused::Stopping.into()),
        }
    }
}
