//! `holdfast-agent infer --annotate`: a picture with the answer drawn on it.
//!
//! **Invariant:** the file is what its name says and whole, or it is as it was before.

use std::collections::BTreeSet;
use std::path::PathBuf;

use holdfast_models::Media;
use holdfast_models::image::ImagePipeline;
use holdfast_models::image::annotate::{Mark, PictureFile, annotate};
use holdfast_models::outputs::Region;
use holdfast_models::outputs::segmentation::Run;

use crate::answer::Answer;
use crate::outcome::{Detections, Outcome, Thing};
use crate::whole_file;

/// Where to draw: a file whose name says what it is to be.
#[derive(Debug, Clone)]
pub(super) struct Drawing {
    to: PathBuf,
    file: PictureFile,
}

impl Drawing {
    /// The file of that name.
    ///
    /// # Errors
    /// Its ending is not one of those that can be written; as a sentence.
    pub(super) fn parse(name: &str) -> Result<Self, String> {
        let to = PathBuf::from(name);
        let endings = PictureFile::ENDINGS.map(|(ending, _)| format!(".{ending}")).join(", ");
        match PictureFile::of_name(&to) {
            Some(file) => Ok(Self { to, file }),
            None => Err(format!("its name must end in one of {endings}")),
        }
    }
}

/// Draws what the answer says on the picture that it is an answer to.
///
/// # Errors
/// It is no picture, or the file cannot be written; as a sentence.
pub(super) fn write(picture: &Media, answer: &Answer, drawing: &Drawing) -> Result<(), String> {
    let Drawing { to, file } = drawing;
    let told = |error: &dyn std::error::Error| crate::error_chain(error);
    let pixels = ImagePipeline::decode(picture.bytes(), picture.media_type());
    let pixels = pixels.map_err(|error| told(&error))?;
    let drawn = annotate(pixels, &marks(answer));
    let bytes = file.encode(&drawn).map_err(|error| told(&error))?;
    // The folder of a bare name is this one.
    std::path::absolute(to)
        .and_then(|path| whole_file::write(&path, &bytes, 0o644))
        .map_err(|error| format!("cannot write {}: {error}", to.display()))
}

/// What to draw: things in their places, pixels in the colours of their classes, of any other answer
/// what it says in a corner.
fn marks(answer: &Answer) -> Vec<Mark> {
    match &answer.outcome {
        Some(Outcome::Detections(Detections { boxes, .. })) => {
            let labels: BTreeSet<&str> = boxes.iter().map(|thing| &*thing.label).collect();
            // The surest last, so that it lies on top.
            boxes.iter().rev().map(|thing| boxed(thing, &labels)).collect()
        }
        Some(Outcome::Mask(mask)) => {
            let runs = mask.runs.iter().map(|&(class, length)| Run { class, length }).collect();
            // By convention the first class is what is behind everything.
            let tint = Mark::Tint { size: (mask.width, mask.height), runs, background: Some(0) };
            let all = u64::from(mask.width) * u64::from(mask.height);
            let areas = mask.labels.iter().enumerate().filter(|(_, area)| area.pixels > 0);
            let legend = areas.map(|(class, area)| Mark::Line {
                text: format!("{} {}", area.label, percent(area.pixels as f64 / all.max(1) as f64)),
                class: (class > 0).then_some(class),
            });
            std::iter::once(tint).chain(legend).collect()
        }
        _ => {
            let text = match answer.confidence {
                Some(confidence) => format!("{} {}", answer.label, percent(confidence.into())),
                None => answer.label.clone(),
            };
            vec![Mark::Line { text, class: None }]
        }
    }
}

fn boxed(thing: &Thing, labels: &BTreeSet<&str>) -> Mark {
    let Thing { label, confidence, left, top, right, bottom } = thing;
    Mark::Box {
        region: Region { left: *left, top: *top, right: *right, bottom: *bottom },
        class: labels.iter().position(|other| other == label).unwrap_or_default(),
        text: format!("{label} {}", percent(f64::from(*confidence))),
    }
}

fn percent(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}
