//! Owns the inquiries that a bundle of this device answers: vectors of texts, and texts of recordings.
//!
//! **Invariant:** what a bundle is asked leaves the device never.

use std::sync::Arc;

use holdfast_chat::served::models::ModelEntry;
use holdfast_chat::served::transcriptions::Chunking;
use holdfast_chat::{Inputs, Vectors};
use holdfast_models::{Decoder, Media, MediaKind, MediaType};
use tokio::time::Instant;

use super::{Answered, Refused};
use crate::destination::Zone;
use crate::engine::{Engine, EngineError, Lane, LocalAnswer, Terms};
use crate::inquiry::{Inquiry, Recording, Texts};
use crate::outcome::Outcome;

/// Who owns the models of this device.
const DEVICE: &str = "device";

/// The bundles that can be asked by their name.
pub(super) fn models(engine: &Engine) -> Vec<ModelEntry> {
    let lanes = engine.lanes().into_iter().filter(|lane| makes_vectors(lane) || hears(lane));
    lanes
        .map(|lane| ModelEntry {
            id: lane.name().to_owned(),
            owned_by: DEVICE.to_owned(),
            created: 0,
        })
        .collect()
}

fn makes_vectors(lane: &Lane) -> bool {
    lane.expects() == MediaKind::Text
        && matches!(lane.bundle().decoder(), Decoder::Embedding { .. })
}

fn hears(lane: &Lane) -> bool {
    lane.expects() == MediaKind::Audio && matches!(lane.bundle().decoder(), Decoder::Ctc(_))
}

/// The model in service whose bundle or task is called `model`.
fn found(engine: &Engine, model: &str, fits: impl Fn(&Lane) -> bool) -> Option<Arc<Lane>> {
    let is_meant = |lane: &Lane| lane.name() == model || lane.task().as_str() == model;
    engine.lanes().into_iter().find(|lane| is_meant(lane) && fits(lane))
}

/// Whether a bundle of that name makes vectors of texts.
pub(super) fn embeds(engine: &Engine, model: &str) -> bool {
    found(engine, model, makes_vectors).is_some()
}

/// Whether a bundle of that name makes texts of recordings.
pub(super) fn transcribes(engine: &Engine, model: &str) -> bool {
    found(engine, model, hears).is_some()
}

/// The vectors of texts by the bundle that `model` names; `None` where no bundle of that name makes
/// vectors of texts.
pub(super) async fn embed(
    engine: &Engine,
    model: &str,
    inquiry: &Inquiry<Texts>,
) -> Option<Result<Answered<Vectors>, Refused>> {
    let lane = found(engine, model, makes_vectors)?;
    Some(vectors(&lane, inquiry).await.map(here))
}

async fn vectors(lane: &Lane, inquiry: &Inquiry<Texts>) -> Result<Vectors, Refused> {
    if inquiry.matter.dimensions.is_some() {
        return Err(wrong(lane, "has vectors of one length: leave dimensions out"));
    }
    let Inputs::Texts(inputs) = &inquiry.matter.inputs else {
        return Err(wrong(lane, "has tokens of its own: input must be texts"));
    };
    let until = Instant::now() + inquiry.terms.within;
    let mut vectors = Vec::with_capacity(inputs.len());
    for input in inputs {
        let media = Media::trusted(MediaType::Text, input.clone().into_bytes());
        let answer = run(lane, media, inquiry, until).await?.answer;
        match answer.outcome {
            Some(Outcome::Embedding(vector)) => vectors.push(vector),
            _ => return Err(other_kind(lane)),
        }
    }
    Ok(Vectors { model: lane.name().to_owned(), vectors, usage: None })
}

/// What a recording says by the bundle that `model` names; `None` where no bundle of that name makes
/// texts of recordings.
pub(super) async fn transcribe(
    engine: &Engine,
    model: &str,
    inquiry: &Inquiry<Recording>,
) -> Option<Result<Answered<String>, Refused>> {
    let lane = found(engine, model, hears)?;
    Some(heard(&lane, inquiry).await.map(here))
}

async fn heard(lane: &Lane, inquiry: &Inquiry<Recording>) -> Result<String, Refused> {
    // It is cut into the model's own windows; there is nothing that a caller's words could change.
    if !inquiry.matter.wanted.is_plain() {
        let why = "does not know when, by whom or how surely words are spoken: response_format must \
                   be json or text, without include";
        return Err(wrong(lane, why));
    }
    if matches!(inquiry.matter.chunking, Some(Chunking::Vad(_))) {
        return Err(wrong(lane, "hears windows of its own: chunking_strategy can only be auto"));
    }
    let media = Media::detect(inquiry.matter.bytes.clone(), None).map_err(|error| {
        let text = crate::error_chain(&error);
        Refused::Local { is_input: true, retry_after: None, text }
    })?;
    if media.media_type() != MediaType::Wav {
        return Err(wrong(lane, "hears WAV files alone"));
    }
    let until = Instant::now() + inquiry.terms.within;
    match run(lane, media, inquiry, until).await?.answer.outcome {
        Some(Outcome::Text(text)) => Ok(text),
        _ => Err(other_kind(lane)),
    }
}

async fn run<M>(
    lane: &Lane,
    media: Media,
    inquiry: &Inquiry<M>,
    until: Instant,
) -> Result<LocalAnswer, Refused> {
    let within = until.saturating_duration_since(Instant::now());
    let terms = Terms { priority: inquiry.terms.priority, within };
    lane.infer(media, terms).await.map_err(|error| Refused::Local {
        is_input: matches!(error, EngineError::Input(_)),
        retry_after: error.retry_after(),
        text: error.to_string(),
    })
}

/// What is asked is nothing for this model.
fn wrong(lane: &Lane, why: &str) -> Refused {
    let text = format!("the model {} {why}", lane.name());
    Refused::Local { is_input: true, retry_after: None, text }
}

fn other_kind(lane: &Lane) -> Refused {
    let text = format!("the model {} answered with something of another kind", lane.name());
    Refused::Local { is_input: false, retry_after: None, text }
}

fn here<A>(answer: A) -> Answered<A> {
    Answered { answer, place: DEVICE.to_owned(), zone: Zone::Device, cost_micros: None }
}
