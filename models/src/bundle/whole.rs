//! How a bundle describes answers that are pixels or a text.
//!
//! **Invariant:** there is one label a class and one text a symbol.

use super::detection::{activation, flag, labels};
use super::picture::Layout;
use super::section::{Section, whole};
use super::series::number_or;
use crate::outputs::ctc::{Ctc, Search, StepValues};
use crate::outputs::segmentation::Segmentation;
use crate::outputs::whole::{Reader, Segmenter};

/// What the tensor says of a pixel.
#[derive(Debug, Clone, Copy)]
enum MaskDecoder {
    Scores,
    Index,
    Threshold,
}

/// Reads `[segmentation]`, and the labels even when something else in it is wrong.
pub(super) fn segmentation(section: Section<'_>) -> (Option<Segmenter>, Option<Vec<String>>) {
    let ways = [
        ("scores", MaskDecoder::Scores),
        ("index", MaskDecoder::Index),
        ("threshold", MaskDecoder::Threshold),
    ];
    let way = section.choice("decoder", &ways);
    let labels = labels(&section);
    let classes = labels.as_ref().and_then(|labels| u16::try_from(labels.len()).ok());
    let segmentation = way.and_then(|way| match way {
        MaskDecoder::Scores => {
            let layouts = [("nchw", Layout::Nchw), ("nhwc", Layout::Nhwc)];
            let layout = section.choice("layout", &layouts);
            Some(Segmentation::Scores { layout: layout?, classes: classes? })
        }
        MaskDecoder::Index => Some(Segmentation::Index { classes: classes? }),
        MaskDecoder::Threshold => {
            let activation = activation(&section);
            let threshold = section.number("set_from", 0.0..=1.0);
            if classes.is_some_and(|classes| classes != 2) {
                let got = format!("{} labels", classes.unwrap_or(0));
                section.invalid::<()>("labels", got, "two: of what is below, and of what is not");
            }
            Some(Segmentation::Threshold { activation: activation?, threshold: threshold? })
        }
    });
    if way.is_some() {
        section.finish();
    }
    let segmenter = labels.clone().zip(segmentation);
    (segmenter.map(|(labels, segmentation)| Segmenter { labels, segmentation }), labels)
}

/// Reads `[ctc]`.
pub(super) fn ctc(section: Section<'_>) -> Option<Reader> {
    let allowed = "a list of 2 to 65535 texts; that of the blank may be empty";
    let symbols = section.need("symbols", allowed, |v| {
        let list = v.as_array().filter(|list| (2..=65_535).contains(&list.len()))?;
        list.iter().map(|v| v.as_str().map(str::to_owned)).collect::<Option<Vec<String>>>()
    });
    let count = symbols.as_ref().map_or(65_535, Vec::len);
    let blank = section.whole("blank", 0..=count.saturating_sub(1));
    let values = section.choice(
        "meaning",
        &[
            ("logits", StepValues::Logits),
            ("log-probabilities", StepValues::LogProbabilities),
            ("probabilities", StepValues::Probabilities),
        ],
    );
    let search = section.or("beam", Search::Greedy, "a whole number 1..=1024", |v| {
        whole(v).filter(|beam| (1..=1024).contains(beam)).map(Search::Beam)
    });
    let collapse_spaces = flag(&section, "collapse_spaces", true);
    let threshold = number_or(&section, "threshold", 0.0, 0.0..=1.0);
    section.finish();
    let ctc = Ctc {
        symbols: symbols?,
        blank: blank?,
        values: values?,
        search: search?,
        collapse_spaces: collapse_spaces?,
    };
    Some(Reader { ctc, threshold: threshold? })
}
