//! The labels of a draft: what was given, or names that can be told apart.
//!
//! **Invariant:** there are as many as there is to name, and no two are the same; a list of another
//! length is refused, never cut or filled up.

use std::collections::BTreeMap;

use super::guess::{DraftError, DraftOutput, Hints, Kind, Note, guessed, missing};
use super::whole::Table;

/// The labels of a kind, or of its table where it has one.
pub(super) fn labels(
    kind: Kind,
    table: Option<&Table>,
    output: Option<&DraftOutput>,
    hints: &Hints,
    notes: &mut Vec<Note>,
) -> Result<Vec<String>, DraftError> {
    let size = output.map_or(0, |output| output.shape.iter().product());
    let named = match (kind, table) {
        // The symbols were looked at before it was taken for a text.
        (Kind::Ctc, _) => return Ok(Vec::new()),
        (_, Some(table)) => Named { word: "class", count: table.labels, first: table.first },
        (Kind::Classification(_), None) => Named { word: "class", count: size, first: None },
        (Kind::MultiLabel(_), None) => Named { word: "label", count: size, first: None },
        (Kind::Regression, None) => Named { word: "value", count: size, first: None },
        _ => Named { word: "", count: 0, first: None },
    };
    let Some(given) = &hints.labels else {
        if named.count > 0 {
            let what = format!("the names of the {} {}, in their order", named.count, named.many());
            notes.push(missing("labels", what));
        }
        return Ok(named.made_up());
    };
    let (got, output) = (given.len(), output.map(ToString::to_string).unwrap_or_default());
    if named.count == 0 {
        return Err(DraftError::NoLabels { got, output, kind: kind.name() });
    }
    // The first may have a name of its own, which a list of the model's classes leaves out.
    let first = named.first.filter(|_| got + 1 == named.count).map(str::to_owned);
    let all: Vec<String> = first.into_iter().chain(given.iter().cloned()).collect();
    if all.len() != named.count {
        let want = match named.first {
            Some(first) => format!("{}, or {} without {first},", named.count, named.count - 1),
            None => named.count.to_string(),
        };
        return Err(DraftError::Labels { got, output, want });
    }
    Ok(distinct(&all, notes))
}

/// What there is to name.
struct Named {
    word: &'static str,
    count: usize,
    first: Option<&'static str>,
}

impl Named {
    fn many(&self) -> &'static str {
        if self.word == "class" { "classes" } else { "values" }
    }

    fn made_up(&self) -> Vec<String> {
        let name = |at: usize| match self.first.filter(|_| at == 0) {
            Some(first) => first.to_owned(),
            None => format!("{}-{at}", self.word),
        };
        (0..self.count).map(name).collect()
    }
}

/// Labels that differ: the second of a name has a number.
fn distinct(labels: &[String], notes: &mut Vec<Note>) -> Vec<String> {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut twice = Vec::new();
    let mut all: Vec<String> = Vec::new();
    for label in labels {
        let count = seen.entry(label).or_default();
        *count += 1;
        if *count > 1 {
            twice.push(label.as_str());
        }
        all.push(if *count > 1 { format!("{label} ({count})") } else { label.clone() });
    }
    if !twice.is_empty() {
        notes.push(guessed(
            "labels",
            format!("a number behind what came again: {}", twice.join(", ")),
        ));
    }
    all
}
