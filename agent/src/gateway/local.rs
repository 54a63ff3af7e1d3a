//! Owns the inquiries that a bundle of this device answers: vectors of texts, and texts of recordings.
//!
//! **Invariant:** what a bundle is asked leaves the device never.

use std::sync::Arc;

use holdfast_chat::Vectors;
use holdfast_chat::served::models::ModelEntry;
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
        let text =
            format!("the model {} has vectors of one length: leave dimensions out", lane.name());
        return Err(Refused::Local { is_input: true, retry_after: None, text });
    }
    let until = Instant::now() + inquiry.terms.within;
    let mut vectors = Vec::with_capacity(inquiry.matter.inputs.len());
    for input in &inquiry.matter.inputs {
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
    let media = Media::detect(inquiry.matter.bytes.clone(), None).map_err(|error| {
        let text = crate::error_chain(&error);
        Refused::Local { is_input: true, retry_after: None, text }
    })?;
    if media.media_type() != MediaType::Wav {
        let text = format!("the model {} hears WAV files alone", lane.name());
        return Err(Refused::Local { is_input: true, retry_after: None, text });
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

fn other_kind(lane: &Lane) -> Refused {
    let text = format!("the model {} answered with something of another kind", lane.name());
    Refused::Local { is_input: false, retry_after: None, text }
}

fn here<A>(answer: A) -> Answered<A> {
    Answered { answer, place: DEVICE.to_owned(), zone: Zone::Device, cost_micros: None }
}
