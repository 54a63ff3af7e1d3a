//! Which inputs and outputs are states that are carried from window to window.
//!
//! **Invariant:** pure; something is left to be sent, and something to be answered.

use super::{dtype, rank};
use crate::inspect::{Dim, Inspected, Port};

/// Words that tell a state before a run from the one after it.
const STATE_WORDS: [&str; 12] =
    ["in", "input", "out", "output", "new", "next", "prev", "past", "present", "old", "n", "init"];

/// Inputs and outputs that are one state: of one type and compatible shapes, with names that differ in
/// nothing but where they stand.
pub(super) fn pairs(file: &Inspected) -> Vec<(String, String)> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for input in &file.inputs {
        let stem = stem(&input.name);
        let fits = |output: &&Port| {
            let is_taken = pairs.iter().any(|(_, name)| *name == output.name);
            !is_taken && stem_matches(&stem, &output.name) && may_be_one(input, output)
        };
        if !stem.is_empty()
            && rank(input).is_some_and(|rank| rank > 0)
            && let Some(output) = file.outputs.iter().find(fits)
        {
            pairs.push((input.name.clone(), output.name.clone()));
        }
    }
    // Something must be sent and something be answered.
    let rest = |ports: &[Port]| ports.len() > pairs.len();
    if rest(&file.inputs) && rest(&file.outputs) { pairs } else { Vec::new() }
}

fn may_be_one(input: &Port, output: &Port) -> bool {
    let (Some(a), Some(b)) = (&input.dims, &output.dims) else { return false };
    let same = |(a, b): (&Dim, &Dim)| match (a, b) {
        (Dim::Fixed(a), Dim::Fixed(b)) => a == b,
        _ => true,
    };
    dtype(input) == dtype(output) && a.len() == b.len() && a.iter().zip(b).all(same)
}

/// A name without the words that say on which side it stands.
fn stem(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    let words = lower.split(|c: char| !c.is_ascii_alphanumeric());
    words.filter(|word| !STATE_WORDS.contains(word)).collect::<Vec<_>>().join("_")
}

/// Whether the output's name is the input's with a word or an `n` more.
fn stem_matches(input: &str, output: &str) -> bool {
    let output = stem(output);
    output == input || output.strip_suffix('n').is_some_and(|rest| rest == input)
}
