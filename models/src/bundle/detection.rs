//! How a bundle describes the things that its graph finds in a picture.
//!
//! **Invariant:** a detector reads outputs that the bundle has, and has one label for each class.

use super::input::{Front, Input};
use super::output::Output;
use super::section::{Section, number, whole};
use super::series::number_or;
use crate::outputs::Activation;
use crate::outputs::detection::{Finished, Offsets, Scores, Ssd};
use crate::outputs::grid::{AnchorForm, AnchorHead, Anchored, Distances, GridOrder, Listed};
use crate::outputs::priors::{Middles, Prior, PriorMap};
use crate::outputs::region::{BoxForm, Unit};
use crate::outputs::suppression::Rules;
use crate::outputs::whole::{Boxes, Detector};

/// What the keys are read for.
#[derive(Debug, Clone, Copy)]
enum BoxDecoder {
    Ssd,
    Finished,
    Listed,
    Anchored,
    Distances,
}

/// Reads `[detection]`, and the labels even when something else in it is wrong.
pub(super) fn read(
    section: Section<'_>,
    inputs: &[Input],
    outputs: &[Output],
) -> (Option<Detector>, Option<Vec<String>>) {
    let ways = [
        ("ssd", BoxDecoder::Ssd),
        ("finished", BoxDecoder::Finished),
        ("list", BoxDecoder::Listed),
        ("anchors", BoxDecoder::Anchored),
        ("distances", BoxDecoder::Distances),
    ];
    let way = section.choice("decoder", &ways);
    let labels = labels(&section);
    let rules = rules(&section);
    let threshold = number_or(&section, "threshold", 0.0, 0.0..=1.0);
    let names = section.texts("outputs", 16).unwrap_or_default();
    let places: Option<Vec<usize>> =
        names.iter().map(|name| outputs.iter().position(|out| out.name == *name)).collect();
    let allowed = match way {
        Some(BoxDecoder::Ssd) => "the names of the [[output]] of boxes and of that of scores",
        Some(BoxDecoder::Finished | BoxDecoder::Listed) => "the name of one [[output]]",
        _ => "names of [[output]], one for each grid",
    };
    let is_right = match way {
        Some(BoxDecoder::Ssd) => names.len() == 2,
        Some(BoxDecoder::Finished | BoxDecoder::Listed) => names.len() == 1,
        _ => !names.is_empty(),
    };
    let places = places.filter(|_| is_right);
    if places.is_none() && !names.is_empty() {
        section.invalid::<()>("outputs", format!("{names:?}"), allowed);
    }
    let count = labels.as_ref().map_or(1, Vec::len);
    let boxes = match (way, rules) {
        (Some(way), Some(rules)) => boxes(&section, way, rules, (inputs, labels.as_deref(), count)),
        _ => None,
    };
    // Which keys there may be is known only where the decoder is.
    if boxes.is_some() {
        section.finish();
    }
    let detector = labels.clone().and_then(|labels| {
        Some(Detector { labels, threshold: threshold?, outputs: places?, boxes: boxes? })
    });
    (detector, labels)
}

/// The labels of the classes, all different.
pub(super) fn labels(section: &Section<'_>) -> Option<Vec<String>> {
    let labels = section.texts("labels", 65_535)?;
    let mut seen = std::collections::BTreeSet::new();
    for label in labels.iter().filter(|label| !seen.insert(label.as_str())) {
        section.invalid::<()>("labels", format!("\"{label}\" twice"), "labels that differ");
    }
    Some(labels)
}

fn rules(section: &Section<'_>) -> Option<Rules> {
    let score = section.number("score", 0.0..=1.0);
    let overlap = section.number("overlap", 0.0..=1.0);
    let across_classes = flag(section, "across_classes", false);
    let every_class = flag(section, "every_class", false);
    let candidates = count(section, "candidates", 1000, 100_000);
    let detections = count(section, "detections", 100, 10_000);
    Some(Rules {
        score: score?,
        overlap: overlap?,
        across_classes: across_classes?,
        every_class: every_class?,
        candidates: candidates?,
        detections: detections?,
    })
}

pub(super) fn flag(section: &Section<'_>, key: &str, default: bool) -> Option<bool> {
    section.or(key, default, "true or false", toml::Value::as_bool)
}

fn count(section: &Section<'_>, key: &str, default: usize, most: usize) -> Option<usize> {
    let allowed = format!("a whole number 1..={most}");
    section.or(key, default, &allowed, |v| whole(v).filter(|n| (1..=most).contains(n)))
}

fn boxes(
    section: &Section<'_>,
    way: BoxDecoder,
    rules: Rules,
    (inputs, labels, classes): (&[Input], Option<&[String]>, usize),
) -> Option<Boxes> {
    match way {
        BoxDecoder::Ssd => ssd(section, rules, inputs, labels).map(Boxes::Ssd),
        BoxDecoder::Finished => {
            let (form, unit) = (form(section), unit(section));
            Some(Boxes::Finished(Finished { form: form?, unit: unit?, classes, rules }))
        }
        BoxDecoder::Listed => {
            let (form, unit) = (form(section), unit(section));
            let is_transposed = flag(section, "transposed", false);
            let has_objectness = flag(section, "objectness", false);
            let activation = activation(section);
            Some(Boxes::Listed(Listed {
                is_transposed: is_transposed?,
                form: form?,
                unit: unit?,
                has_objectness: has_objectness?,
                classes,
                activation: activation?,
                rules,
            }))
        }
        BoxDecoder::Anchored => anchored(section, rules, classes).map(Boxes::Anchored),
        BoxDecoder::Distances => distances(section, rules, classes).map(Boxes::Distances),
    }
}

fn ssd(
    section: &Section<'_>,
    rules: Rules,
    inputs: &[Input],
    labels: Option<&[String]>,
) -> Option<Ssd> {
    let (form, unit) = (form(section), unit(section));
    let scores = section.choice(
        "scores",
        &[("plain", Scores::Plain), ("sigmoid", Scores::Sigmoid), ("softmax", Scores::Softmax)],
    );
    let background = section.or("background", None, "one of the labels", |v| {
        let name = v.as_str()?;
        labels?.iter().position(|label| label == name).map(Some)
    });
    let priors = match section.has("priors") {
        true => Some(offsets(section, inputs)?),
        false => None,
    };
    Some(Ssd { form: form?, unit: unit?, priors, scores: scores?, background: background?, rules })
}

fn anchored(section: &Section<'_>, rules: Rules, classes: usize) -> Option<Anchored> {
    let form = section.choice("form", &[("yolov3", AnchorForm::V3), ("yolov5", AnchorForm::V5)]);
    let order = order(section);
    let heads: Option<Vec<AnchorHead>> = section
        .children("grids", 1..=16)
        .into_iter()
        .map(|grid| {
            let stride = grid.number("stride", 1.0..=4096.0);
            let anchors = grid.need("anchors", "a list of [width, height]", pairs);
            grid.finish();
            Some(AnchorHead { stride: stride?, anchors: anchors? })
        })
        .collect();
    let (heads, order, form) = (heads?, order?, form?);
    Some(Anchored { heads, order, form, classes, rules })
}

fn distances(section: &Section<'_>, rules: Rules, classes: usize) -> Option<Distances> {
    let order = order(section);
    let activation = activation(section);
    let strides = section.need("strides", "a list of numbers from 1", |v| {
        let list: Option<Vec<f32>> =
            v.as_array()?.iter().map(|v| number(v).filter(|x| *x >= 1.0)).collect();
        list.filter(|list| !list.is_empty())
    });
    let bins = section.whole("bins", 1..=64);
    Some(Distances {
        strides: strides?,
        bins: bins?,
        order: order?,
        classes,
        activation: activation?,
        rules,
    })
}

fn form(section: &Section<'_>) -> Option<BoxForm> {
    let forms = [
        ("corners", BoxForm::Corners),
        ("corners-yx", BoxForm::CornersByRow),
        ("centre", BoxForm::Centre),
        ("centre-yx", BoxForm::CentreByRow),
    ];
    section.choice("form", &forms)
}

fn unit(section: &Section<'_>) -> Option<Unit> {
    section.choice("unit", &[("fraction", Unit::Fraction), ("pixel", Unit::Pixel)])
}

pub(super) fn activation(section: &Section<'_>) -> Option<Activation> {
    section.choice("activation", &[("none", Activation::None), ("sigmoid", Activation::Sigmoid)])
}

fn order(section: &Section<'_>) -> Option<GridOrder> {
    let orders = [
        ("channels-first", GridOrder::ChannelsFirst),
        ("channels-last", GridOrder::ChannelsLast),
        ("anchors-first", GridOrder::AnchorsFirst),
    ];
    section.choice("order", &orders)
}

/// A list of pairs of numbers above 0.
fn pairs(value: &toml::Value) -> Option<Vec<(f32, f32)>> {
    let above = |v: &toml::Value| number(v).filter(|x| *x > 0.0);
    let pair = |v: &toml::Value| match v.as_array()?.as_slice() {
        [width, height] => Some((above(width)?, above(height)?)),
        _ => None,
    };
    let pairs: Option<Vec<(f32, f32)>> = value.as_array()?.iter().map(pair).collect();
    pairs.filter(|pairs| !pairs.is_empty())
}

/// The priors that boxes are counted from, over the picture's tensor.
fn offsets(section: &Section<'_>, inputs: &[Input]) -> Option<Offsets> {
    let maps: Option<Vec<PriorMap>> = section
        .children("priors", 1..=16)
        .into_iter()
        .map(|map| {
            let stride = map.whole("stride", 1..=4096);
            let sizes = map.need("sizes", "a list of numbers above 0", |v| {
                let above = |v: &toml::Value| number(v).filter(|x| *x > 0.0);
                let sizes: Option<Vec<f32>> = v.as_array()?.iter().map(above).collect();
                sizes.filter(|sizes| !sizes.is_empty())
            });
            map.finish();
            Some(PriorMap { stride: u32::try_from(stride?).ok()?, sizes: sizes? })
        })
        .collect();
    let middles =
        section.choice("middles", &[("even", Middles::Even), ("stride", Middles::Stride)]);
    let variances = section.need("variances", "a list of four numbers", |v| {
        let list: Option<Vec<f32>> = v.as_array()?.iter().map(number).collect();
        <[f32; 4]>::try_from(list?).ok()
    });
    let size = inputs.iter().find_map(|input| match &input.front {
        Front::Image(image) => Some((image.width, image.height)),
        _ => None,
    });
    let priors = Prior::generate(size?, &maps?, middles?);
    match priors {
        Ok(priors) => Some(Offsets { priors, variances: variances? }),
        Err(error) => section.invalid("priors", error.to_string(), "other maps"),
    }
}
