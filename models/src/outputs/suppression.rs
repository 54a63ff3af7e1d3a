//! Which of very many scored boxes are kept: the best ones, and of those that overlap the best.
//!
//! **Invariant:** at most `Rules::candidates` candidates are held (twice that while they are
//! collected) and at most `Rules::detections` come out; equal scores keep the graph's order.

use std::cmp::Ordering;

use super::region::{Detection, Region, Unit};
use super::view::{DecodeError, must};
use crate::image::Placement;

/// What makes a box an answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// A score below this is none, 0..=1.
    pub score: f32,
    /// Of two boxes that overlap by more than this share (intersection over union, 0..=1) only the
    /// one with the higher score is kept.
    pub overlap: f32,
    /// Whether boxes of different classes push each other out too.
    pub across_classes: bool,
    /// Whether a box counts for every class that it scores high enough for, or for the best one.
    pub every_class: bool,
    /// So many of the highest scores are looked at, 1..=100,000.
    pub candidates: usize,
    /// So many boxes are kept at most, 1..=10,000.
    pub detections: usize,
}

impl Rules {
    /// Whether the numbers are in their ranges.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check(&self) -> Result<(), DecodeError> {
        let share = |x: f32| (0.0..=1.0).contains(&x);
        let count = |n: usize, max: usize| (1..=max).contains(&n);
        must(share(self.score), "score", self.score, "0..=1")?;
        must(share(self.overlap), "overlap", self.overlap, "0..=1")?;
        must(count(self.candidates, 100_000), "candidates", self.candidates, "1..=100000")?;
        must(count(self.detections, 10_000), "detections", self.detections, "1..=10000")
    }
}

/// A place of the graph's output that scores high enough for a class.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) score: f32,
    pub(super) class: usize,
    /// Where its box is found.
    pub(super) place: usize,
}

impl Candidate {
    /// Better ones first.
    fn order(&self, other: &Self) -> Ordering {
        let by_score = other.score.total_cmp(&self.score);
        by_score.then_with(|| (self.place, self.class).cmp(&(other.place, other.class)))
    }
}

/// Collects the best candidates, in memory that does not grow with their number.
pub(super) struct Candidates {
    rules: Rules,
    best: Vec<Candidate>,
}

impl Candidates {
    /// # Errors
    /// A rule is out of its range.
    pub(super) fn new(rules: Rules) -> Result<Self, DecodeError> {
        rules.check()?;
        Ok(Self { rules, best: Vec::new() })
    }

    /// Takes the scores of one place, class by class, each 0..=1.
    ///
    /// # Errors
    /// That of the first score that is none.
    pub(super) fn take(
        &mut self,
        place: usize,
        scores: impl Iterator<Item = Result<(usize, f32), DecodeError>>,
    ) -> Result<(), DecodeError> {
        let mut best: Option<(usize, f32)> = None;
        for score in scores {
            let (class, score) = score?;
            if score < self.rules.score {
                continue;
            }
            if self.rules.every_class {
                self.push(Candidate { score, class, place });
            } else if best.is_none_or(|(_, highest)| score > highest) {
                best = Some((class, score));
            }
        }
        if let Some((class, score)) = best {
            self.push(Candidate { score, class, place });
        }
        Ok(())
    }

    fn push(&mut self, candidate: Candidate) {
        self.best.push(candidate);
        if self.best.len() >= 2 * self.rules.candidates {
            self.cut();
        }
    }

    /// Leaves the best ones, in no order.
    fn cut(&mut self) {
        let limit = self.rules.candidates;
        if self.best.len() > limit {
            self.best.select_nth_unstable_by(limit - 1, Candidate::order);
            self.best.truncate(limit);
        }
    }

    /// The boxes that are kept, the highest score first. `region` finds the box of a place in the
    /// tensor; one that is not finite or has no area is dropped, and so is one that lies beside the
    /// picture.
    pub(super) fn keep(
        mut self,
        region: impl Fn(usize) -> Region,
        unit: Unit,
        placement: &Placement,
    ) -> Vec<Detection> {
        self.cut();
        self.best.sort_unstable_by(Candidate::order);
        let mut kept: Vec<(usize, Region)> = Vec::new();
        let mut found = Vec::new();
        for Candidate { score, class, place } in self.best {
            let region = region(place);
            let rivals =
                |(other, _): &&(usize, Region)| self.rules.across_classes || *other == class;
            let is_free = |(_, other): &(usize, Region)| {
                region.overlap(other) <= f64::from(self.rules.overlap)
            };
            if !region.is_proper() || !kept.iter().filter(rivals).all(is_free) {
                continue;
            }
            let Some(in_picture) = region.in_picture(unit, placement) else { continue };
            kept.push((class, region));
            found.push(Detection { class, score, region: in_picture });
            if found.len() == self.rules.detections {
                break;
            }
        }
        found
    }
}
