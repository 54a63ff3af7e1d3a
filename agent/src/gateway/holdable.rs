//! Owns conversations that are held where nobody answers them now.
//!
//! Under a key there is one answer, whoever asks how often: calls under one key take turns, and what was
//! answered in a call is kept like what was held, also where its caller left meanwhile.
//!
//! In the call it is asked as every other one: an answer that was given before will do where a rule of the
//! cache covers it, also to what is not to be sent yet.
//!
//! **Invariant:** who is told that a conversation is held has it on disk; one is held only where nobody
//! answered in the call, and somebody may later.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_chat::{self as chat, Conversation};
use tokio::time::Instant;

use super::held::{Taken, Times, Unheld, idempotency, written};
use super::{Answered, Asker, Found, Gateway, Given, Refused};
use crate::answer::{Answer, Reason};
use crate::ask_error::AskError;
use crate::cache::Distinct;
use crate::envelope::{Envelope, Final, Frame};
use crate::inquiry::Inquiry;
use crate::queue::{Accepted, Idempotency, NewEntry, QueueError, RequestId};
use crate::request::DataClass;
use crate::subject::Subject;

/// What became of a conversation that may be held.
#[derive(Debug)]
pub enum Came {
    /// It was answered in the call; where a rule covers it, with where that came from.
    Answered(Answered<Arc<chat::Answer>>, Option<Found>),
    /// It is held, as this.
    Held(Envelope),
    /// The same was asked before under the same key, as this request.
    Known(RequestId),
}

impl Gateway {
    /// Asks for the answer to a conversation; where nobody gives it now and somebody may later, or it is not
    /// to be sent yet, it is held. `frame` is what its caller is told beside the answer.
    ///
    /// # Errors
    /// When it is neither answered nor held; then nothing has changed.
    pub async fn converse_or_hold(
        &self,
        asker: Asker,
        model: &str,
        inquiry: Inquiry<Conversation>,
        held: (Times, Frame),
    ) -> Result<Came, Unheld> {
        if inquiry.terms.key.is_none() {
            return self.come(asker, model, inquiry, held).await;
        }
        // Whoever asks again under the key finds what became of it.
        let (gateway, model) = (self.clone(), model.to_owned());
        let coming = tokio::spawn(async move { gateway.come(asker, &model, inquiry, held).await });
        coming.await.map_err(|_| Refused::Stopping)?
    }

    async fn come(
        &self,
        asker: Asker,
        model: &str,
        mut inquiry: Inquiry<Conversation>,
        (times, frame): (Times, Frame),
    ) -> Result<Came, Unheld> {
        let (came, within) = (Instant::now(), inquiry.terms.within);
        let (asked, name) = ((inquiry.id, inquiry.terms.class), name_of(model, &inquiry).await);
        let _turn = self.turn(name.as_ref(), (model, asked), within).await?;
        if let Some(id) = self.known(name.as_ref(), model, inquiry.terms.class).await? {
            return Ok(Came::Known(id));
        }
        let began = Instant::now();
        inquiry.terms.within = within.saturating_sub(came.elapsed());
        let said = match times.not_before_ms {
            0 => self.converse_until_stop(asker, model, &inquiry).await.map(Some),
            _ => Ok(self.given_before(&asker, model, &inquiry).await),
        };
        // One that is held has all of it for each try.
        inquiry.terms.within = within;
        let reasons = match said {
            Ok(Some((answered, found))) => {
                let took = began.elapsed();
                let kept = self.keep(model, inquiry, (times, frame), (&answered, took)).await;
                return Ok(kept.map_or(Came::Answered(answered, found), Came::Known));
            }
            Ok(None) => Vec::new(),
            Err(refused) if refused.may_pass() => refused.reasons().to_vec(),
            Err(refused) => return Err(refused.into()),
        };
        Ok(match self.hold_in_turn(model, inquiry, times, (frame, reasons)).await? {
            Taken::New(envelope) => Came::Held(envelope),
            Taken::Known(id) => Came::Known(id),
        })
    }

    /// When the agent stops it is held at once, and asked again under its name.
    async fn converse_until_stop(
        &self,
        asker: Asker,
        model: &str,
        inquiry: &Inquiry<Conversation>,
    ) -> Given<Arc<chat::Answer>> {
        tokio::select! {
            biased;
            () = self.service.stop.cancelled() => Err(Refused::Stopping.into()),
            given = self.converse_as(asker, model, inquiry) => given,
        }
    }

    /// The request that was made before under this name, where the same was asked.
    async fn known(
        &self,
        name: Option<&Idempotency>,
        model: &str,
        class: DataClass,
    ) -> Result<Option<RequestId>, AskError> {
        let Some(name) = name else { return Ok(None) };
        match self.service.queue.find_key(name).await {
            Ok(found) => Ok(found),
            Err(error @ QueueError::KeyConflict { .. }) => {
                Err(self.told_apart(error, model, class).await)
            }
            // A disk that cannot be read does not stop the answer.
            Err(error) => {
                tracing::warn!(%error, "whether a key was used before cannot be seen");
                Ok(None)
            }
        }
    }

    /// Keeps what was answered in the call under its key, where it has one; the request that has the key,
    /// where that is another one by now.
    async fn keep(
        &self,
        model: &str,
        inquiry: Inquiry<Conversation>,
        (times, frame): (Times, Frame),
        (answered, took): (&Answered<Arc<chat::Answer>>, Duration),
    ) -> Option<RequestId> {
        inquiry.terms.key.as_ref()?;
        let class = inquiry.terms.class;
        let Answered { answer, place, zone, cost_micros } = answered;
        let reasons = vec![Reason::Escalated { destination: place.clone(), zone: *zone }];
        let by = (place.clone(), *zone);
        let answer = Answer::said(chat::Answer::clone(answer), by, took, *cost_micros);
        let subject = Subject::Model(model.to_owned());
        let stored = Final { subject, class, answer, reasons };
        let entry = written(model.to_owned(), inquiry, (times, frame, Vec::new())).await?;
        let now_ms = self.service.clock.now_ms();
        let entry = NewEntry {
            accepted_at_ms: now_ms,
            expires_at_ms: Some(now_ms.saturating_add(times.ttl_ms)),
            body: Bytes::new(),
            ..entry
        };
        let stored = stored.to_bytes().into();
        match self.service.queue.keep_answered(entry, stored, now_ms).await {
            Ok(Accepted::New) => None,
            Ok(Accepted::Known { id, .. }) => Some(id),
            // The answer is there; that it cannot be kept does not take it away.
            Err(error) => {
                tracing::warn!(%error, "an answer could not be kept under its key");
                None
            }
        }
    }
}

/// The caller's own name for it with the digest of what is asked, a large one's made off the reactor.
async fn name_of(model: &str, inquiry: &Inquiry<Conversation>) -> Option<Idempotency> {
    inquiry.terms.key.as_ref()?;
    if !inquiry.matter.is_large() {
        return idempotency(inquiry, model);
    }
    let (large, model) = (inquiry.clone(), model.to_owned());
    let made = move || idempotency(&large, &model);
    tokio::task::spawn_blocking(made).await.ok().flatten()
}
