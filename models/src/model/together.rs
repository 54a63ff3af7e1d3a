//! Several requests that go through the graph side by side: media window by window, tensors at once.
//!
//! **Invariant:** what is wrong with one of the media is its own answer, and it holds nobody up; who has
//! fewer windows is answered before the others' further ones are run.

use super::frame::Frame;
use super::{InferError, Inference, Model, Timings};
use crate::clock;
use crate::media::Media;
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

    /// As [`Model::run_tensors`], by one run for several requests, where the graph takes any batch
    /// ([`crate::Bundle::batching`]): each of `asks` is the inputs of one, with as many rows as it likes.
    /// What is given are the outputs of each, in the order of `asks`.
    ///
    /// # Errors
    /// The inputs do not go together, or the run failed ([`InferError::Runtime`]). Whose fault that is
    /// nobody knows: each is to be asked for by itself.
    pub fn run_tensors_together<'a>(
        &mut self,
        asks: impl Iterator<Item = &'a [Tensor]> + Clone,
    ) -> Result<Vec<Vec<Tensor>>, InferError> {
        self.batch.run(&mut *self.session, asks.clone())?;
        let mut from = 0;
        let each = asks.map(|inputs| {
            let rows = from..from + rows_of(inputs);
            from = rows.end;
            Ok(self.batch.rows(&rows)?)
        });
        each.collect()
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
        let (began, frames) = (clock::now(), &mut self.beside);
        let asks = under.iter().map(|one| match frames.get(one.at) {
            Some(frame) => frame.inputs.as_slice(),
            None => &[],
        });
        self.batch.run(&mut *self.session, asks)?;
        for (row, one) in under.iter_mut().enumerate() {
            let Some(frame) = frames.get_mut(one.at) else { continue };
            self.batch.rows_into(&(row..row + 1), &mut frame.outputs)?;
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

/// How many rows of a batch a request has.
fn rows_of(inputs: &[Tensor]) -> usize {
    inputs.first().and_then(|input| input.shape().first()).copied().unwrap_or(1)
}

fn take(frame: &mut Frame, at: usize, media: &Media) -> Result<Under, InferError> {
    let began = clock::now();
    let (decoded, windows) = frame.take(media)?;
    let timings =
        Timings { decode: decoded - began, features: clock::now() - decoded, ..Timings::default() };
    Ok(Under { at, windows, timings })
}
