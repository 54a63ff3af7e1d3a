//! Owns how a conversation is put into the queue: nobody waits for its answer in the call.
//!
//! What the queue keeps of it is sent by the [`drain`](crate::drain), to the destinations that the model's
//! name means by then.
//!
//! **Invariant:** what is promised here is on disk; a conversation that nobody may ever be asked is refused
//! and not held.

use std::sync::Arc;
use std::time::Duration;

use holdfast_chat::{Conversation, Output};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::keys::Turn;
use super::{Gateway, Refused, plan};
use crate::answer::Reason;
use crate::ask_error::AskError;
use crate::asked;
use crate::cache::Distinct;
use crate::envelope::{Envelope, Frame, Held, HeldConversation, bare_body_of, body_of};
use crate::escalate::SendError;
use crate::inquiry::Inquiry;
use crate::queue::{Accepted, Idempotency, MAX_ENVELOPE_BYTES, NewEntry, QueueError, RequestId};
use crate::request::{DataClass, MAX_HOPS};

/// How long a conversation is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Milliseconds that somebody wants the answer.
    pub ttl_ms: u64,
    /// Milliseconds before which it is not to be sent; 0: at once. Less than `ttl_ms`.
    pub not_before_ms: u64,
}

/// What became of a conversation that was to be held.
#[derive(Debug, Clone, PartialEq)]
pub enum Taken {
    /// It is on disk, as this.
    New(Envelope),
    /// The same was asked before under the same key, as this request.
    Known(RequestId),
}

/// Why a conversation is not held.
#[derive(Debug, Error)]
pub enum Unheld {
    /// Nobody may be asked it.
    #[error(transparent)]
    Refused(#[from] Arc<Refused>),
    /// The queue does not take it.
    #[error(transparent)]
    Queue(#[from] AskError),
}

impl From<Refused> for Unheld {
    fn from(refused: Refused) -> Self {
        Arc::new(refused).into()
    }
}

/// What makes two conversations under one key the same one. Hints are not what is asked.
pub(crate) fn idempotency(inquiry: &Inquiry<Conversation>, model: &str) -> Option<Idempotency> {
    let key = inquiry.terms.key.as_ref()?.as_str().to_owned();
    let mut hash = Sha256::new();
    for part in ["conversation", model, inquiry.terms.class.as_str()] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.update(bare_body_of(&inquiry.matter));
    Some(Idempotency { key, digest: hash.finalize().into() })
}

impl Gateway {
    /// Holds a conversation for whom `model` means; it is on disk when this returns. `frame` is what its
    /// caller is told beside the answer, but for the conversation's own.
    ///
    /// # Errors
    /// When it is not taken; then nothing has changed.
    pub async fn hold(
        &self,
        model: &str,
        inquiry: Inquiry<Conversation>,
        times: Times,
        frame: Frame,
    ) -> Result<Taken, Unheld> {
        let (asked, within) = ((inquiry.id, inquiry.terms.class), inquiry.terms.within);
        let held = self.to_hold(model, inquiry, times, (frame, Vec::new())).await?;
        let _turn = self.turn(held.0.idempotency.as_ref(), (model, asked), within).await?;
        self.put(model, asked.1, times, held).await
    }

    /// The turn of whoever asks under this name, where it has one.
    pub(super) async fn turn(
        &self,
        name: Option<&Idempotency>,
        (model, (id, class)): (&str, (RequestId, DataClass)),
        within: Duration,
    ) -> Result<Option<Turn>, AskError> {
        let Some(name) = name else { return Ok(None) };
        self.keys.turn(name, (id, model, class), within).await.map(Some)
    }

    /// As [`Gateway::hold`], by whoever has its key's turn; `reasons` say what came before.
    pub(super) async fn hold_in_turn(
        &self,
        model: &str,
        inquiry: Inquiry<Conversation>,
        times: Times,
        rest: (Frame, Vec<Reason>),
    ) -> Result<Taken, Unheld> {
        let class = inquiry.terms.class;
        let held = self.to_hold(model, inquiry, times, rest).await?;
        self.put(model, class, times, held).await
    }

    /// What is to be put on disk of it, with its envelope read back.
    async fn to_hold(
        &self,
        model: &str,
        inquiry: Inquiry<Conversation>,
        times: Times,
        (frame, mut reasons): (Frame, Vec<Reason>),
    ) -> Result<(NewEntry, Envelope), Unheld> {
        self.check_may_be_held(model, &inquiry)?;
        reasons.push(Reason::Held);
        let entry = written(model.to_owned(), inquiry, (times, frame, reasons));
        let entry = entry.await.ok_or(Refused::Stopping)?;
        // Once it is on disk nothing can fail any more.
        let envelope = Envelope::from_bytes(&entry.envelope).map_err(AskError::from)?;
        Ok((entry, envelope))
    }

    async fn put(
        &self,
        model: &str,
        class: DataClass,
        times: Times,
        (mut entry, envelope): (NewEntry, Envelope),
    ) -> Result<Taken, Unheld> {
        let now_ms = self.service.clock.now_ms();
        entry.accepted_at_ms = now_ms;
        entry.not_before_ms = now_ms.saturating_add(times.not_before_ms);
        entry.expires_at_ms = Some(now_ms.saturating_add(times.ttl_ms));
        match self.service.queue.open()?.accept(entry).await {
            Ok(Accepted::New) => {
                self.service.pressure.note_held();
                // Only names that mean something come this far.
                let model = model.to_owned();
                metrics::counter!("holdfast_requests_total", "task" => model, "outcome" => "held")
                    .increment(1);
                Ok(Taken::New(envelope))
            }
            Ok(Accepted::Known { id, .. }) => Ok(Taken::Known(id)),
            Err(error) => Err(self.told_apart(error, model, class).await.into()),
        }
    }

    /// An error of the queue; where the key is another one's, with what differs, as far as that can be read.
    pub(super) async fn told_apart(
        &self,
        error: QueueError,
        model: &str,
        class: DataClass,
    ) -> AskError {
        let QueueError::KeyConflict { key, id } = error else { return error.into() };
        let record = self.service.queue.record(id).await.ok().flatten();
        let before = record.and_then(|record| Envelope::from_bytes(&record.envelope).ok());
        let differs = before.map(|before| {
            let subject = before.subject();
            asked::conversations_differ((model, class), (subject.model(), before.class))
        });
        AskError::Conflict { key, id, differs }
    }

    /// Whether anybody may be asked it, now or later.
    fn check_may_be_held(
        &self,
        model: &str,
        inquiry: &Inquiry<Conversation>,
    ) -> Result<(), Refused> {
        let (meant, _) = plan::meant(model, &self.service.destinations, &self.routes);
        let Some(first) = meant.first() else { return Err(self.unknown(model)) };
        if inquiry.terms.hops >= MAX_HOPS {
            let error = Arc::new(SendError::TooManyHops { destination: first.name.clone() });
            return Err(Refused::Failed { error, reasons: vec![Reason::TooManyHops] });
        }
        let cleared = meant.into_iter().map(|each| self.service.policy.clear(inquiry, each));
        let (allowed, denied): (Vec<_>, Vec<_>) = cleared.partition(Result::is_ok);
        if allowed.is_empty() {
            let denied = denied.into_iter().filter_map(Result::err);
            return Err(Refused::Forbidden(denied.map(Reason::from).collect()));
        }
        Ok(())
    }
}

/// The entry of a conversation, its times to be filled in; `None` where the runtime stops.
pub(super) async fn written(
    model: String,
    inquiry: Inquiry<Conversation>,
    rest: (Times, Frame, Vec<Reason>),
) -> Option<NewEntry> {
    if !inquiry.matter.is_large() {
        return Some(entry(model, inquiry, rest));
    }
    tokio::task::spawn_blocking(move || entry(model, inquiry, rest)).await.ok()
}

fn entry(
    model: String,
    inquiry: Inquiry<Conversation>,
    (times, frame, reasons): (Times, Frame, Vec<Reason>),
) -> NewEntry {
    let body = body_of(&inquiry.matter);
    let idempotency = idempotency(&inquiry, &model);
    let Inquiry { id, terms, matter } = inquiry;
    let settings = Conversation { turns: Vec::new(), ..matter };
    let within_ms = u64::try_from(terms.within.as_millis()).unwrap_or(u64::MAX);
    let held = HeldConversation {
        model,
        within_ms,
        cost_limit_micros: terms.cost_limit_micros,
        frame: Frame { settings, ..frame },
    };
    let mut envelope = Envelope {
        held: Held::Conversation(Box::new(held)),
        class: terms.class,
        priority: terms.priority,
        ttl_ms: times.ttl_ms,
        key: terms.key.map(|key| key.as_str().to_owned()),
        hops: terms.hops,
        reasons,
    };
    let mut bytes = envelope.to_bytes();
    if bytes.len() > MAX_ENVELOPE_BYTES {
        shorten(&mut envelope);
        bytes = envelope.to_bytes();
    }
    NewEntry {
        id,
        idempotency,
        priority: terms.priority.get(),
        accepted_at_ms: 0,
        not_before_ms: 0,
        expires_at_ms: None,
        envelope: bytes.into(),
        body: body.into(),
    }
}

/// Leaves out what may be long: the conversation in the body has it.
fn shorten(envelope: &mut Envelope) {
    if let Held::Conversation(held) = &mut envelope.held {
        let settings = &mut held.frame.settings;
        settings.system = None;
        settings.tools = Vec::new();
        settings.output = Output::Text;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use holdfast_chat::{Hints, Part, Tool, Turn};
    use serde_json::json;

    use super::*;
    use crate::envelope::Unpacked;
    use crate::inquiry::Terms;
    use crate::request::{DataClass, IdempotencyKey, Priority};

    fn inquiry(description: &str) -> Inquiry<Conversation> {
        let tool = Tool {
            name: "f".to_owned(),
            description: description.to_owned(),
            parameters: json!({ "type": "object" }),
            strict: true,
        };
        let parts = vec![
            Part::Text("hello".to_owned()),
            Part::Image(holdfast_chat::Image::Png, Bytes::from_static(b"png"), Default::default()),
        ];
        let matter = Conversation {
            system: Some("be brief".to_owned()),
            turns: vec![Turn::User(parts)],
            tools: vec![tool],
            hints: Hints { user: Some("me".to_owned()), ..Hints::default() },
            ..Conversation::default()
        };
        let terms = Terms {
            class: DataClass::Internal,
            priority: Priority::default(),
            within: Duration::from_secs(9),
            cost_limit_micros: Some(5),
            key: IdempotencyKey::parse("k"),
            hops: 1,
        };
        Inquiry { id: RequestId::new(), terms, matter }
    }

    #[test]
    fn what_is_held_reads_back_whatever_its_length() {
        let times = Times { ttl_ms: 7, not_before_ms: 0 };
        for (description, is_kept) in [("short".to_owned(), true), ("x".repeat(99_999), false)] {
            let asked = inquiry(&description);
            let frame = Frame { created_s: 3, ..Frame::default() };
            let entry = entry("m".to_owned(), asked.clone(), (times, frame, vec![Reason::Held]));
            let envelope = Envelope::from_bytes(&entry.envelope).unwrap();
            let Held::Conversation(held) = &envelope.held else { panic!("{envelope:?}") };
            assert_eq!((held.frame.created_s, held.frame.settings.turns.len()), (3, 0));
            assert_eq!(held.frame.settings.tools.is_empty(), !is_kept);
            assert_eq!(held.frame.settings.system.is_some(), is_kept);
            let Unpacked::Conversation(back, model) =
                envelope.unpacked(asked.id, entry.body.clone()).unwrap()
            else {
                panic!("{envelope:?}")
            };
            assert_eq!((back.terms.clone(), model.as_str()), (asked.terms, "m"));
            assert_eq!(back.matter, asked.matter);
            assert_eq!(idempotency(&back, &model), entry.idempotency, "as exported");
            assert!(envelope.unpacked(asked.id, Bytes::from_static(b"\x02")).is_err());
        }
    }
}
