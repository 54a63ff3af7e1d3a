//! Owns what is kept and shared of each kind of inquiry.
//!
//! **Invariant:** what is not whole and good is not kept.

use std::sync::Arc;

use holdfast_chat::{Answer, Conversation, Stop, Vectors};
use tokio::time::Instant;

use super::listening::Source;
use super::{Answered, Gateway, Refused, local};
use crate::cache::{Distinct, What};
use crate::in_flight::{InFlight, Listed, Working};
use crate::inquiry::{Inquiry, Matter, Recording, Texts};

/// What came of a send: an answer, or one that comes piece by piece.
#[derive(Debug, Clone)]
pub(super) enum Said<A> {
    Whole(Arc<A>),
    Pieces(Source),
}

/// How a send comes out.
pub(super) type Sent<A> = Result<Answered<Said<A>>, Arc<Refused>>;
/// A send that several may wait for.
pub(super) type Sending<A> = Working<Sent<A>>;
/// Sends that are shared, each with the end of the time of who began it.
type Sends<A> = InFlight<[u8; 32], Instant, Sent<A>>;
/// A send is found as long as this is there.
pub(super) type Listing<A> = Listed<[u8; 32], Instant, Sent<A>>;

/// The sends under way that are shared.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    conversations: Sends<Answer>,
    vectors: Sends<Vectors>,
    texts: Sends<String>,
}

/// What is told of an inquiry that is asked by itself.
type Asked<A> = Result<Answered<A>, Refused>;

/// What can be asked and kept.
pub(super) trait Kind: Matter + Distinct + Clone + Send + Sync + 'static {
    type Answer: Clone + Send + Sync + 'static;

    fn sends(sharing: &Sharing) -> &Sends<Self::Answer>;

    /// Whether a bundle of this device answers, which costs nothing.
    fn is_local(gateway: &Gateway, model: &str) -> bool;

    fn ask(
        gateway: &Gateway,
        model: &str,
        inquiry: &Inquiry<Self>,
    ) -> impl Future<Output = Asked<Self::Answer>> + Send;

    /// What is kept of an answer, where it may be.
    fn kept(answer: &Self::Answer) -> Option<What>;

    fn of(what: What) -> Option<Self::Answer>;
}

impl Kind for Conversation {
    type Answer = Answer;

    fn sends(sharing: &Sharing) -> &Sends<Answer> {
        &sharing.conversations
    }

    fn is_local(_: &Gateway, _: &str) -> bool {
        false
    }

    async fn ask(gateway: &Gateway, model: &str, inquiry: &Inquiry<Self>) -> Asked<Answer> {
        gateway.converse(model, inquiry).await
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

    fn sends(sharing: &Sharing) -> &Sends<Vectors> {
        &sharing.vectors
    }

    fn is_local(gateway: &Gateway, model: &str) -> bool {
        local::embeds(&gateway.service.engine, model)
    }

    async fn ask(gateway: &Gateway, model: &str, inquiry: &Inquiry<Self>) -> Asked<Vectors> {
        gateway.embed(model, inquiry).await
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

    fn sends(sharing: &Sharing) -> &Sends<String> {
        &sharing.texts
    }

    fn is_local(gateway: &Gateway, model: &str) -> bool {
        local::transcribes(&gateway.service.engine, model)
    }

    async fn ask(gateway: &Gateway, model: &str, inquiry: &Inquiry<Self>) -> Asked<String> {
        gateway.transcribe(model, inquiry).await
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
