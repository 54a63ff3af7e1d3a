//! The answers of a recording's windows as one answer, and when each label held.
//!
//! **Invariant:** spans of one label do not touch each other and come in the order of their
//! beginnings.

use super::{Decoder, MultiLabel};

/// What the windows of one recording become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    /// The mean of each number.
    Mean,
    /// The largest of each number.
    Max,
    /// The last window's.
    Last,
}

/// Windows that follow each other in which a label was the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// The label.
    pub label: String,
    /// The first window, from 0.
    pub first: usize,
    /// The window behind the last.
    pub end: usize,
    /// The highest confidence in it, 0..=1.
    pub confidence: f32,
}

impl Pool {
    /// The numbers of `rows`, each `width` long, as one row.
    pub fn pool(self, rows: &[f32], width: usize) -> Vec<f32> {
        let mut windows = rows.chunks_exact(width.max(1));
        if self == Self::Last {
            return windows.next_back().unwrap_or_default().to_vec();
        }
        let count = windows.len();
        let mut pooled: Vec<f64> =
            windows.next().unwrap_or_default().iter().map(|x| f64::from(*x)).collect();
        for window in windows {
            for (all, one) in pooled.iter_mut().zip(window) {
                let one = f64::from(*one);
                *all = if self == Self::Mean { *all + one } else { all.max(one) };
            }
        }
        #[allow(clippy::cast_precision_loss, reason = "a number of windows")]
        let by = if self == Self::Mean { count.max(1) as f64 } else { 1.0 };
        #[allow(clippy::cast_possible_truncation, reason = "a mean of f32 is within their range")]
        pooled.into_iter().map(|x| (x / by) as f32).collect()
    }
}

/// When each label was the answer. Of classes it is the likeliest one's windows that follow each
/// other; of labels that hold for themselves the windows from `set_from` until below `release`. Other
/// answers have none.
pub fn spans(decoder: &Decoder, rows: &[f32], width: usize) -> Vec<Span> {
    let width = width.max(1);
    let mut spans = match decoder {
        Decoder::Classification(classes) => {
            let windows = rows.chunks_exact(width);
            let best = windows.map(|row| {
                // Of equal ones the first, as everywhere.
                let best = row.iter().enumerate().rev().max_by(|a, b| a.1.total_cmp(b.1));
                best.map_or((0, 0.0), |(at, confidence)| (at, *confidence))
            });
            runs(best, &classes.labels)
        }
        Decoder::MultiLabel(labels) => {
            (0..width).flat_map(|at| held(labels, rows, width, at)).collect()
        }
        _ => Vec::new(),
    };
    spans.sort_by_key(|span| span.first);
    spans
}

fn runs(best: impl Iterator<Item = (usize, f32)>, labels: &[String]) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let mut last = None;
    for (window, (at, confidence)) in best.enumerate() {
        match spans.last_mut().filter(|_| last == Some(at)) {
            Some(span) => {
                span.end = window + 1;
                span.confidence = span.confidence.max(confidence);
            }
            None => spans.push(Span {
                label: labels.get(at).cloned().unwrap_or_default(),
                first: window,
                end: window + 1,
                confidence,
            }),
        }
        last = Some(at);
    }
    spans
}

fn held(labels: &MultiLabel, rows: &[f32], width: usize, at: usize) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let mut is_open = false;
    for (window, row) in rows.chunks_exact(width).enumerate() {
        let probability = row.get(at).copied().unwrap_or_default();
        let holds = probability >= if is_open { labels.release } else { labels.set_from };
        match spans.last_mut().filter(|_| is_open) {
            Some(span) if holds => {
                span.end = window + 1;
                span.confidence = span.confidence.max(probability);
            }
            None if holds => spans.push(Span {
                label: labels.labels.get(at).cloned().unwrap_or_default(),
                first: window,
                end: window + 1,
                confidence: probability,
            }),
            _ => {}
        }
        is_open = holds;
    }
    spans
}
