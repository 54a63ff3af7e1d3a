//! Several requests that go through the graph side by side, window by window.
//!
//! **Invariant:** what is wrong with one of them is its own answer, and it holds nobody up; who has fewer
//! windows is answered before the others' further ones are run.

use super::frame::Frame;
use super::{InferError, Inference, Model, Timings};
use crate::clock;
use crate::media::Media;
use crate::runtime::RuntimeError;
use crate::tensor::Tensor;

/// The answer of the request at a place.
pub type Told = (usize, Result<Inference, InferError>);

/// Those who asked, by the places of what they asked.
pub trait Askers {
    /// Whether the answer is wanted still.
    fn is_wanted(&self, at: usize) -> bool;
    /// Hears of an answer while others have windows still.
    fn tell(&mut self, told: Told);
}

/// One that has windows still.
struct Under {
    at: usize,
    windows: usize,
    timings: Timings,
}

impl Model {
    /// Answers several requests by as many runs of the graph as the longest has windows, where the graph
    /// takes any batch ([`crate::Bundle::batching`]). Each is answered once: `askers` hear of those that are
    /// over before the last run, and the others are returned. Who does not want the answer any more, which
    /// is asked before each window, gets [`InferError::Unwanted`].
    ///
    /// # Errors
    /// A run failed ([`InferError::Runtime`]). Whose fault that is nobody knows: those who were not told
    /// are to be asked for by themselves.
    pub fn infer_together(
        &mut self,
        media: &[&Media],
        askers: &mut impl Askers,
    ) -> Result<Vec<Told>, InferError> {
        let bundle = &self.frame.bundle;
        self.beside.resize_with(media.len().max(self.beside.len()), || Frame::new(bundle));
        let (mut told, mut under): (Vec<Told>, Vec<Under>) = (Vec::new(), Vec::new());
        for (at, (media, frame)) in media.iter().zip(&mut self.beside).enumerate() {
            let taken = if askers.is_wanted(at) {
                take(frame, at, media)
            } else {
                Err(InferError::Unwanted)
            };
            match taken {
                Ok(one) => under.push(one),
                Err(error) => told.push((at, Err(error))),
            }
        }
        let mut window = 0;
        while !under.is_empty() {
            // They wait for nothing that is run from here on.
            told.drain(..).for_each(|told| askers.tell(told));
            under.retain_mut(|one| match self.fill(one, window, askers) {
                Ok(()) => true,
                Err(error) => {
                    told.push((one.at, Err(error)));
                    false
                }
            });
            self.run_rows(&mut under)?;
            window += 1;
            under.retain_mut(|one| match self.take_in(one, window) {
                None => true,
                Some(answer) => {
                    told.push((one.at, answer));
                    false
                }
            });
        }
        Ok(told)
    }

    /// Fills a window of one.
    fn fill(
        &mut self,
        one: &mut Under,
        window: usize,
        askers: &impl Askers,
    ) -> Result<(), InferError> {
        let began = clock::now();
        if !askers.is_wanted(one.at) {
            return Err(InferError::Unwanted);
        }
        if let Some(frame) = self.beside.get_mut(one.at) {
            frame.window(window)?;
        }
        one.timings.features += clock::now() - began;
        Ok(())
    }

    /// Runs the graph once for all of them, whose outputs stand in their frames then.
    fn run_rows(&mut self, under: &mut [Under]) -> Result<(), InferError> {
        if under.is_empty() {
            return Ok(());
        }
        let began = clock::now();
        let (runtime, frames) = (self.runtime, &mut self.beside);
        let failed =
            |why: &str| InferError::Runtime(RuntimeError::Failed { runtime, why: why.to_owned() });
        for (input, stacked) in self.stacked.iter_mut().enumerate() {
            let rows: Option<Vec<&Tensor>> =
                under.iter().map(|one| frames.get(one.at)?.inputs.get(input)).collect();
            let is_stacked = rows.is_some_and(|rows| stacked.stack(&rows).is_ok());
            if !is_stacked {
                return Err(failed("its inputs do not go together"));
            }
        }
        self.session.run(&self.stacked, &mut self.given)?;
        for (row, one) in under.iter_mut().enumerate() {
            let Some(frame) = frames.get_mut(one.at) else { continue };
            for (output, given) in frame.outputs.iter_mut().zip(&self.given) {
                let is_there = given.rows_into(row..row + 1, output);
                is_there.ok_or_else(|| failed("it gave too few rows"))?;
            }
            frame.given();
            one.timings.infer += clock::now() - began;
        }
        Ok(())
    }

    /// Reads the window that was run last; the answer, if it was the last of `windows`.
    fn take_in(
        &mut self,
        one: &mut Under,
        windows: usize,
    ) -> Option<Result<Inference, InferError>> {
        let frame = self.beside.get_mut(one.at)?;
        let began = clock::now();
        let decoded = frame.decode_window();
        if decoded.is_ok() && windows < one.windows {
            return None;
        }
        let answer = decoded.and_then(|()| frame.answer(windows));
        one.timings.infer += clock::now() - began;
        let timings = one.timings;
        Some(answer.map(|(outcome, recorded)| Inference { outcome, recorded, timings }))
    }
}

fn take(frame: &mut Frame, at: usize, media: &Media) -> Result<Under, InferError> {
    let began = clock::now();
    let (decoded, windows) = frame.take(media)?;
    let timings =
        Timings { decode: decoded - began, features: clock::now() - decoded, ..Timings::default() };
    Ok(Under { at, windows, timings })
}
