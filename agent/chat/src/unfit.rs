//! Owns why a conversation cannot be put into a protocol.
//!
//! **Invariant:** a text here names what does not fit, and holds nothing of what was said.

use thiserror::Error;

use crate::conversation::Sampling;
use crate::media::{Audio, Image};

/// What is missing where a model cannot be kept from calling several tools at once.
pub(crate) const ONE_CALL: &str = "way to have tools called one at a time";

/// A conversation that a protocol cannot express.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{protocol} cannot be asked that: {what}")]
pub struct Unfit {
    /// The protocol's name.
    pub protocol: &'static str,
    /// What it cannot express.
    pub what: What,
}

/// What a protocol cannot express.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum What {
    /// Recordings of this kind.
    #[error("it takes no {} recordings", .0.name())]
    Audio(Audio),
    /// Pictures of this kind.
    #[error("it takes no {} pictures", .0.name())]
    Image(Image),
    /// A parameter, or what it can be, that it does not have.
    #[error("it has no {0}")]
    Parameter(&'static str),
    /// A parameter beyond what it takes.
    #[error("it takes a {0} of at most {1}")]
    TooMuch(&'static str, u32),
    /// Turns that no conversation has.
    #[error("{0}")]
    Turns(&'static str),
    /// A name that is none.
    #[error("\"{0}\" is no name: it must be 1 to 64 of letters, digits, _ and -")]
    Name(String),
    /// A schema that is none of an object, or none that can be made plain.
    #[error("the schema {0} is not one of an object with the properties that it may have")]
    Schema(String),
    /// Arguments of an earlier call that are not an object.
    #[error("the arguments of an earlier call of {0} are not an object")]
    Arguments(String),
}

/// Refuses the first of these parameters that is there: the protocol has none of them.
pub(crate) fn has_none_of<const N: usize>(named: [(&'static str, bool); N]) -> Result<(), What> {
    let first = named.into_iter().find(|(_, is_there)| *is_there);
    first.map_or(Ok(()), |(name, _)| Err(What::Parameter(name)))
}

/// How words are chosen where there are neither penalties nor seeds: without what changes nothing.
pub(crate) fn plain(sampling: &Sampling) -> Result<Sampling, What> {
    let is_penal = |penalty: Option<f32>| penalty.is_some_and(|penalty| penalty != 0.0);
    has_none_of([
        ("seed", sampling.seed.is_some()),
        ("presence_penalty", is_penal(sampling.presence_penalty)),
        ("frequency_penalty", is_penal(sampling.frequency_penalty)),
    ])?;
    match sampling.temperature {
        Some(temperature) if temperature > 1.0 => Err(What::TooMuch("temperature", 1)),
        temperature => {
            // All of the words are all of them.
            let top_p = sampling.top_p.filter(|share| *share < 1.0);
            Ok(Sampling { temperature, top_p, top_k: sampling.top_k, ..Sampling::default() })
        }
    }
}
