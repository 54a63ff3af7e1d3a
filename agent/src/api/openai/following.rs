//! Owns the stream of a response that is made in the background: what there is of it, and what comes.
//!
//! **Invariant:** whoever goes away changes nothing of the response, and goes on where it was by the number
//! of its last event; a stream takes a place of `api.max_waiting`, and ends when the agent stops; one that
//! cannot go on says so.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use holdfast_chat::served::responses::{Retelling, Standing};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep_until};

use super::background::{Kept, failed};
use super::complaint::Complaint;
use crate::api::Api;
use crate::api::access_log::Ending;
use crate::api::results::HEARTBEAT;
use crate::envelope::EnvelopeError;
use crate::queue::{QueueError, RequestId};

/// What a stream says that has no news.
const COMMENT: &[u8] = b":\n\n";

/// A stream on its way.
pub(super) struct Following {
    api: Api,
    id: RequestId,
    retelling: Retelling,
    changes: watch::Receiver<u64>,
    is_over: bool,
    /// When something was said last.
    said_at: Instant,
    ending: Ending,
    _place: OwnedSemaphorePermit,
}

impl Following {
    /// The events of `kept` behind the one with the number `after`.
    pub(super) fn of(
        api: &Api,
        kept: &Kept,
        after: Option<u64>,
        place: OwnedSemaphorePermit,
    ) -> Result<Self, Complaint> {
        let (named, asked) = kept.frame();
        Ok(Self {
            api: api.clone(),
            id: kept.id,
            retelling: Retelling::new(&named, &asked, after),
            changes: api.service.queue.open()?.changes(),
            is_over: false,
            said_at: Instant::now(),
            ending: Ending::default(),
            _place: place,
        })
    }

    pub(super) fn response(self) -> Response {
        let ending = self.ending.clone();
        let mut response = Response::new(Body::from_stream(stream::unfold(self, Self::next)));
        response.extensions_mut().insert(ending);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }

    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        let said = self.more().await;
        if said.is_none() && !self.is_over {
            self.ending.break_off();
        }
        said.map(|said| (Ok(said), self))
    }

    /// What comes next; `None` at the end, and where nothing more can be said now.
    async fn more(&mut self) -> Option<Bytes> {
        while !self.is_over {
            self.changes.borrow_and_update();
            let mut out = Vec::new();
            self.look(&mut out).await?;
            if !out.is_empty() {
                return Some(self.saying(out.into()));
            }
            if self.is_over {
                break;
            }
            tokio::select! {
                () = self.api.stop.cancelled() => return None,
                changed = self.changes.changed() => changed.ok()?,
                () = sleep_until(self.said_at + HEARTBEAT) => {
                    return Some(self.saying(Bytes::from_static(COMMENT)));
                }
            }
        }
        None
    }

    fn saying(&mut self, what: Bytes) -> Bytes {
        self.said_at = Instant::now();
        what
    }

    /// Writes what is new; `None` where the agent stops.
    async fn look(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let read = self.api.service.queue.get()?.get(self.id).await;
        let kept = match read {
            Ok(Some(record)) => Kept::of(record),
            // It was removed.
            Ok(None) => Ok(None),
            Err(QueueError::Closed) => return None,
            Err(error @ QueueError::Damaged { .. }) => {
                self.end(&error, out);
                return Some(());
            }
            Err(error) => {
                self.break_off(error, out);
                return Some(());
            }
        };
        let told = kept.and_then(|kept| kept.map_or(Ok(false), |kept| self.tell(&kept, out)));
        match told {
            Ok(goes_on) => self.is_over = !goes_on,
            Err(error) => self.end(&error, out),
        }
        Some(())
    }

    /// Writes what is new of `kept`; false at its end.
    fn tell(&mut self, kept: &Kept, out: &mut Vec<u8>) -> Result<bool, EnvelopeError> {
        let standing = match kept.standing() {
            None => {
                self.retelling.answer(&kept.answered()?.answer, out);
                return Ok(false);
            }
            // It may go on, and an event is never taken back.
            Some(_) if kept.is_set_aside() => Standing::Queued,
            Some(standing) => standing,
        };
        self.retelling.stand(&standing, out);
        Ok(!standing.is_final())
    }

    /// It cannot be read now, and nobody knows whether it has its end.
    fn break_off(&mut self, error: QueueError, out: &mut Vec<u8>) {
        // The log is told, too, as of every failure of the queue.
        let complaint = Complaint::from(error);
        self.retelling.break_off(complaint.code(), complaint.message(), out);
        self.ending.break_off();
        self.is_over = true;
    }

    /// What is kept of it cannot be read.
    fn end(&mut self, error: &dyn std::error::Error, out: &mut Vec<u8>) {
        self.retelling.stand(&failed(crate::error_chain(error)), out);
        self.is_over = true;
    }
}
