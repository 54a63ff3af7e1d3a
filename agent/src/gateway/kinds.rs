//! Owns what is kept and shared of each kind of inquiry.
//!
//! **Invariant:** what is not whole and good is not kept.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use holdfast_chat::{Answer, Conversation, Stop, Vectors};

use super::in_flight::InFlight;
use super::listening::Streamed;
use super::{Answered, Gateway, Refused, local};
use crate::cache::{Distinct, What};
use crate::inquiry::{Inquiry, Matter, Recording, Texts};

/// How a send comes out.
pub(super) type Whole<A> = Result<Answered<Arc<A>>, Arc<Refused>>;

/// The sends under way that are shared.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    messages: InFlight<Whole<Answer>>,
    pub(super) streams: InFlight<Streamed>,
    vectors: InFlight<Whole<Vectors>>,
    texts: InFlight<Whole<String>>,
}

/// What can be asked and kept.
pub(super) trait Kind: Matter + Distinct + Clone + Send + Sync + 'static {
    type Answer: Clone + Send + Sync + 'static;

    fn sends(sharing: &Sharing) -> &InFlight<Whole<Self::Answer>>;

    /// Whether a bundle of this device answers, which costs nothing.
    fn is_local(gateway: &Gateway, model: &str) -> bool;

    fn ask<'a>(
        gateway: &'a Gateway,
        model: &'a str,
        inquiry: &'a Inquiry<Self>,
    ) -> BoxFuture<'a, Result<Answered<Self::Answer>, Refused>>;

    /// What is kept of an answer, where it may be.
    fn kept(answer: &Self::Answer) -> Option<What>;

    fn of(what: What) -> Option<Self::Answer>;
}

impl Kind for Conversation {
    type Answer = Answer;

    fn sends(sharing: &Sharing) -> &InFlight<Whole<Answer>> {
        &sharing.messages
    }

    fn is_local(_: &Gateway, _: &str) -> bool {
        false
    }

    fn ask<'a>(
        gateway: &'a Gateway,
        model: &'a str,
        inquiry: &'a Inquiry<Self>,
    ) -> BoxFuture<'a, Result<Answered<Answer>, Refused>> {
        gateway.converse(model, inquiry).boxed()
    }

    fn kept(answer: &Answer) -> Option<What> {
        // What was cut off, declined or taken away may come out otherwise the next time.
        let is_good = matches!(answer.stop, Stop::End | Stop::Calls);
        is_good.then(|| What::Message(answer.clone()))
    }

    fn of(what: What) -> Option<Answer> {
        match what {
            What::Message(answer) => Some(answer),
            What::Vectors { .. } | What::Text(_) => None,
        }
    }
}

impl Kind for Texts {
    type Answer = Vectors;

    fn sends(sharing: &Sharing) -> &InFlight<Whole<Vectors>> {
        &sharing.vectors
    }

    fn is_local(gateway: &Gateway, model: &str) -> bool {
        local::embeds(&gateway.service.engine, model)
    }

    fn ask<'a>(
        gateway: &'a Gateway,
        model: &'a str,
        inquiry: &'a Inquiry<Self>,
    ) -> BoxFuture<'a, Result<Answered<Vectors>, Refused>> {
        gateway.embed(model, inquiry).boxed()
    }

    fn kept(answer: &Vectors) -> Option<What> {
        Some(answer.clone().into())
    }

    fn of(what: What) -> Option<Vectors> {
        match what {
            What::Vectors { model, vectors, usage } => Some(Vectors { model, vectors, usage }),
            What::Message(_) | What::Text(_) => None,
        }
    }
}

impl Kind for Recording {
    type Answer = String;

    fn sends(sharing: &Sharing) -> &InFlight<Whole<String>> {
        &sharing.texts
    }

    fn is_local(gateway: &Gateway, model: &str) -> bool {
        local::transcribes(&gateway.service.engine, model)
    }

    fn ask<'a>(
        gateway: &'a Gateway,
        model: &'a str,
        inquiry: &'a Inquiry<Self>,
    ) -> BoxFuture<'a, Result<Answered<String>, Refused>> {
        gateway.transcribe(model, inquiry).boxed()
    }

    fn kept(answer: &String) -> Option<What> {
        Some(What::Text(answer.clone()))
    }

    fn of(what: What) -> Option<String> {
        match what {
            What::Text(text) => Some(text),
            What::Message(_) | What::Vectors { .. } => None,
        }
    }
}
