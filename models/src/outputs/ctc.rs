//! Text from a score for each symbol at each step (connectionist temporal classification, Graves et
//! al. 2006).
//!
//! **Invariant:** pure and deterministic; sums of probabilities are made of logarithms in f64, so that
//! no recording is long enough to make them 0.

use std::collections::HashMap;

use super::probability::probability;
use super::view::{DecodeError, View, must};

/// Most work of one search: its beam times its steps.
const MAX_WORK: usize = 1 << 24;
/// Most texts, with all that they begin with, that one search may hold at a time: about 20 MiB.
const MAX_HELD: usize = 1 << 17;

/// What the values of a step are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepValues {
    /// Unnormalised; a softmax makes them probabilities.
    Logits,
    /// Natural logarithms of probabilities; minus infinity is the probability 0.
    LogProbabilities,
    /// Probabilities.
    Probabilities,
}

/// How the text is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Search {
    /// The best symbol of each step.
    Greedy,
    /// The text with the highest probability over all of its alignments, as far as this many texts
    /// at a time show it, 1..=1024 (prefix beam search, Hannun et al. 2014, without a language
    /// model).
    Beam(usize),
}

/// How steps become text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ctc {
    /// The text of each symbol, in the order of the tensor; that of the blank is not used.
    pub symbols: Vec<String>,
    /// Which symbol stands for nothing.
    pub blank: usize,
    /// What the values are.
    pub values: StepValues,
    /// How the text is found.
    pub search: Search,
    /// Whether spaces that follow each other become one, and those at the ends none.
    pub collapse_spaces: bool,
}

/// A text that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Transcript {
    /// The text.
    pub text: String,
    /// The symbols that it is made of, before spaces are collapsed.
    pub symbols: Vec<usize>,
    /// Natural logarithm of its probability: of the one alignment that the greedy search took, of
    /// all alignments that the beam search kept.
    pub log_probability: f64,
    /// Number of steps.
    pub steps: usize,
}

impl Transcript {
    /// The probability as a mean over the steps (the geometric one), 0..=1, so that long texts can be
    /// compared with short ones; 1 when there were no steps.
    #[allow(clippy::cast_possible_truncation, reason = "a confidence needs no more than an f32")]
    pub fn confidence(&self) -> f32 {
        (self.log_probability / self.steps.max(1) as f64).exp().min(1.0) as f32
    }
}

impl Ctc {
    /// The text of a tensor [steps, symbols]; a batch of 1 may stand before or after the steps.
    ///
    /// # Errors
    /// A tensor of another shape, a value that is no score, or a parameter out of its range.
    pub fn decode(&self, output: View<'_>) -> Result<Transcript, DecodeError> {
        let count = self.symbols.len();
        must(self.blank < count, "blank", self.blank, "one of the symbols")?;
        let wanted = format!("[steps, {count}], a value a symbol");
        let without_batch;
        let shape = match output.shape {
            [steps, 1, symbols] => {
                without_batch = [*steps, *symbols];
                &without_batch[..]
            }
            shape => shape,
        };
        let [_, columns] = View { shape, ..output }.dims::<2>("symbols", &wanted)?;
        if columns != count {
            return Err(output.wrong("symbols", &wanted));
        }
        let mut steps = Steps { values: self.values, logs: vec![0.0; count] };
        let rows = output.values.chunks_exact(count);
        let length = rows.len();
        let (symbols, log_probability) = match self.search {
            Search::Greedy => self.greedy(rows, &mut steps)?,
            Search::Beam(width) => {
                must((1..=1024).contains(&width), "beam", width, "1..=1024")?;
                let work = length.saturating_mul(width);
                must(work <= MAX_WORK, "beam times steps", work, "at most 16777216")?;
                self.beam(rows, &mut steps, width)?
            }
        };
        let text = self.text(&symbols);
        Ok(Transcript { text, symbols, log_probability, steps: length })
    }

    fn text(&self, symbols: &[usize]) -> String {
        let parts = symbols.iter().filter_map(|symbol| self.symbols.get(*symbol));
        let text: String = parts.map(String::as_str).collect();
        match self.collapse_spaces {
            true => text.split(' ').filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" "),
            false => text,
        }
    }

    fn greedy<'a>(
        &self,
        rows: impl Iterator<Item = &'a [f32]>,
        steps: &mut Steps,
    ) -> Result<(Vec<usize>, f64), DecodeError> {
        let mut symbols = Vec::new();
        let mut total = 0.0;
        let mut before = self.blank;
        for row in rows {
            let logs = steps.read(row)?;
            let best = |best: (usize, f64), (symbol, log): (usize, &f64)| {
                if *log > best.1 { (symbol, *log) } else { best }
            };
            let (symbol, log) = logs.iter().enumerate().fold((0, f64::NEG_INFINITY), best);
            total += log;
            if symbol != self.blank && symbol != before {
                symbols.push(symbol);
            }
            before = symbol;
        }
        Ok((symbols, total))
    }

    fn beam<'a>(
        &self,
        rows: impl Iterator<Item = &'a [f32]>,
        steps: &mut Steps,
        width: usize,
    ) -> Result<(Vec<usize>, f64), DecodeError> {
        let mut tree = Tree::default();
        let mut beams = vec![Beam { node: ROOT, blank: 0.0, symbol: f64::NEG_INFINITY }];
        let mut next: HashMap<Step, (f64, f64)> = HashMap::new();
        let mut order: Vec<usize> = Vec::new();
        for row in rows {
            let logs = steps.read(row)?;
            // Of one text's continuations no more than the beam's width can be kept, and those are
            // the ones with the best symbols.
            order.clear();
            order.extend((0..logs.len()).filter(|symbol| *symbol != self.blank));
            if order.len() > width + 1 {
                order.select_nth_unstable_by(width, |a, b| {
                    logs[*b].total_cmp(&logs[*a]).then(a.cmp(b))
                });
                order.truncate(width + 1);
            }
            next.clear();
            for beam in &beams {
                let own = tree.step(beam.node);
                let all = sum(beam.blank, beam.symbol);
                add(&mut next, own, (all + logs[self.blank], f64::NEG_INFINITY));
                if let Some(last) = own.symbol {
                    add(&mut next, own, (f64::NEG_INFINITY, beam.symbol + logs[last]));
                }
                for symbol in &order {
                    // The same symbol again is a new one only behind a blank.
                    let before = if own.symbol == Some(*symbol) { beam.blank } else { all };
                    let to = Step { parent: beam.node, symbol: Some(*symbol) };
                    add(&mut next, to, (f64::NEG_INFINITY, before + logs[*symbol]));
                }
            }
            let mut all: Vec<(Step, (f64, f64))> = next.drain().collect();
            let better = |(a, x): &(Step, (f64, f64)), (b, y): &(Step, (f64, f64))| {
                sum(y.0, y.1).total_cmp(&sum(x.0, x.1)).then_with(|| a.cmp(b))
            };
            if all.len() > width {
                all.select_nth_unstable_by(width - 1, better);
                all.truncate(width);
            }
            all.sort_unstable_by(better);
            beams.clear();
            for (step, (blank, symbol)) in all {
                beams.push(Beam { node: tree.node(step), blank, symbol });
            }
            tree.tidy(&mut beams)?;
        }
        let best = beams.first();
        let total = best.map_or(f64::NEG_INFINITY, |best| sum(best.blank, best.symbol));
        Ok((best.map(|best| tree.symbols(best.node)).unwrap_or_default(), total))
    }
}

/// A text under search: the logarithms of its probability with a blank at the end and without.
struct Beam {
    node: usize,
    blank: f64,
    symbol: f64,
}

/// The node of the empty text.
const ROOT: usize = 0;

/// How a text follows from a shorter one; the empty one follows from itself without a symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Step {
    parent: usize,
    symbol: Option<usize>,
}

const START: Step = Step { parent: ROOT, symbol: None };

/// The texts under search and what they begin with, each as a shorter one and a symbol; others are
/// there until they are as many.
struct Tree {
    steps: Vec<Step>,
    nodes: HashMap<Step, usize>,
    /// With more it is worth to look which of them are needed.
    tidy_from: usize,
}

/// So few texts are never looked through.
const FEW: usize = 1 << 12;

impl Default for Tree {
    fn default() -> Self {
        Self { steps: vec![START], nodes: HashMap::from([(START, ROOT)]), tidy_from: FEW }
    }
}

impl Tree {
    fn step(&self, node: usize) -> Step {
        self.steps.get(node).copied().unwrap_or(START)
    }

    fn node(&mut self, step: Step) -> usize {
        *self.nodes.entry(step).or_insert_with(|| {
            self.steps.push(step);
            self.steps.len() - 1
        })
    }

    /// Forgets the texts that none of the beams begins with, once they may be half of all.
    fn tidy(&mut self, beams: &mut [Beam]) -> Result<(), DecodeError> {
        if self.steps.len() < self.tidy_from {
            return Ok(());
        }
        let mut is_needed = vec![false; self.steps.len()];
        is_needed[ROOT] = true;
        for beam in &*beams {
            let mut node = beam.node;
            while !is_needed[node] {
                is_needed[node] = true;
                node = self.steps[node].parent;
            }
        }
        // A text is always behind the one that it follows from.
        let mut places = vec![ROOT; self.steps.len()];
        let mut steps = Vec::new();
        for (node, step) in self.steps.iter().enumerate().filter(|(node, _)| is_needed[*node]) {
            places[node] = steps.len();
            steps.push(Step { parent: places[step.parent], ..*step });
        }
        must(steps.len() <= MAX_HELD, "texts under search", steps.len(), "at most 131072")?;
        beams.iter_mut().for_each(|beam| beam.node = places[beam.node]);
        self.nodes.clear();
        self.nodes.extend(steps.iter().enumerate().map(|(node, step)| (*step, node)));
        self.tidy_from = FEW.max(2 * steps.len());
        self.steps = steps;
        Ok(())
    }

    fn symbols(&self, mut node: usize) -> Vec<usize> {
        let mut symbols = Vec::new();
        while let Step { parent, symbol: Some(symbol) } = self.step(node) {
            symbols.push(symbol);
            node = parent;
        }
        symbols.reverse();
        symbols
    }
}

fn add(next: &mut HashMap<Step, (f64, f64)>, step: Step, (blank, symbol): (f64, f64)) {
    let to = next.entry(step).or_insert((f64::NEG_INFINITY, f64::NEG_INFINITY));
    *to = (sum(to.0, blank), sum(to.1, symbol));
}

/// ln(exp(a) + exp(b)).
fn sum(a: f64, b: f64) -> f64 {
    let (high, low) = if a > b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// The logarithms of one step's probabilities, in memory that is used again.
struct Steps {
    values: StepValues,
    logs: Vec<f64>,
}

impl Steps {
    fn read(&mut self, row: &[f32]) -> Result<&[f64], DecodeError> {
        let what = "the score of a symbol";
        for (log, x) in self.logs.iter_mut().zip(row) {
            if x.is_nan() || *x == f32::INFINITY {
                return Err(DecodeError::NotFinite { what, value: x.to_string() });
            }
            *log = match self.values {
                StepValues::Logits => f64::from(*x),
                StepValues::LogProbabilities if *x > 0.05 => {
                    let allowed = "at most 0, as it is the logarithm of a probability";
                    return Err(DecodeError::OutOfRange { what, value: x.to_string(), allowed });
                }
                StepValues::LogProbabilities => f64::from(x.min(0.0)),
                StepValues::Probabilities => f64::from(probability(*x, what)?).ln(),
            };
        }
        let highest = self.logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if highest == f64::NEG_INFINITY {
            let value = "no chance for any symbol".to_owned();
            return Err(DecodeError::NotFinite { what, value });
        }
        let powers: f64 = self.logs.iter().map(|log| (log - highest).exp()).sum();
        let total = highest + powers.ln();
        // A quantised graph gives whole steps, so that its sum is not exact.
        if self.values != StepValues::Logits && !(0.5..=1.5).contains(&total.exp()) {
            let (what, value) = ("the sum of a step's probabilities", total.exp().to_string());
            return Err(DecodeError::OutOfRange { what, value, allowed: "1, or logits" });
        }
        self.logs.iter_mut().for_each(|log| *log -= total);
        Ok(&self.logs)
    }
}
