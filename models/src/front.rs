//! What a caller sent, as the tensors that a graph takes.
//!
//! Owns the front ends of one bundle's inputs, each with its plans and buffers.
//!
//! **Invariant:** every fault of what was sent names its input; a tensor is filled whole or not at all.

mod body;
mod words;

use std::time::Instant;

use crate::audio::{AudioPipeline, WavePipeline};
use crate::bundle::{Bundle, Front, Input, TensorFront};
use crate::clock;
use crate::image::{ImagePipeline, Placement};
use crate::media::{Media, MediaType};
use crate::model::{InferError, InputError};
use crate::numbers;
use crate::tensor::{Tensor, with_type};

pub use body::BodyError;

use body::{Numbers, Value};

/// Most windows of one request.
pub(crate) const MAX_WINDOWS: usize = 10_000;

/// The front ends of a bundle, in the order of its inputs.
pub(crate) struct Fronts {
    sources: Vec<Source>,
    /// The only one that a caller fills, if there is one only.
    only: Option<usize>,
    /// Most windows of one request.
    most: usize,
}

/// One input and what makes it.
struct Source {
    input: Input,
    end: End,
    /// The numbers before they take the input's form; none where they are made in that form.
    features: Vec<f32>,
}

enum End {
    Audio(Box<AudioPipeline>),
    Image(Box<ImagePipeline>),
    Wave(Box<WavePipeline>),
    Tensor(Numbers),
    Text,
    Constant,
}

impl Fronts {
    /// The front ends of a bundle; constants are put in their places among `tensors`.
    pub(crate) fn new(bundle: &Bundle, tensors: &mut [Tensor]) -> Self {
        for (input, tensor) in bundle.sources().iter().zip(tensors) {
            if let Front::Constant(values) = &input.front {
                numbers::fill(tensor, values);
            }
        }
        let sources: Vec<Source> = bundle.sources().iter().map(Source::new).collect();
        let sent = |(at, source): (usize, &Source)| match source.end {
            End::Constant => None,
            _ => Some(at),
        };
        let sent: Vec<usize> = sources.iter().enumerate().filter_map(sent).collect();
        let only = Some(sent).filter(|sent| sent.len() == 1).and_then(|sent| sent.first().copied());
        Self { sources, only, most: if bundle.decoder().is_pooled() { MAX_WINDOWS } else { 1 } }
    }

    /// Takes a body: all inputs are filled but those that come in windows, of which it tells how many
    /// there are. Also tells when the body was decoded.
    pub(crate) fn take(
        &mut self,
        media: &Media,
        tensors: &mut [Tensor],
    ) -> Result<(Instant, usize), InferError> {
        if media.media_type() == MediaType::Json {
            return self.take_named(media, tensors);
        }
        let place =
            self.only.and_then(|at| Some((self.sources.get_mut(at)?, tensors.get_mut(at)?)));
        let Some((source, tensor)) = place else {
            return Err(InputError::Named { known: self.names() }.into());
        };
        let (decoded, windows) = source.take_file(media, tensor)?;
        Ok((decoded, source.bounded(windows, self.most)?))
    }

    fn take_named(
        &mut self,
        media: &Media,
        tensors: &mut [Tensor],
    ) -> Result<(Instant, usize), InferError> {
        let sent = body::json(media.bytes()).map_err(InputError::Body)?;
        let mut decoded = clock::now();
        let mut is_filled = vec![false; self.sources.len()];
        let mut windows = 1;
        for (name, value) in sent {
            let at = match &name {
                None => self.only,
                Some(name) => self.place_of(name),
            };
            let unknown = || match &name {
                None => InputError::Named { known: self.names() },
                Some(name) => InputError::Unknown { input: shown(name), known: self.names() },
            };
            let at = at.ok_or_else(unknown)?;
            let most = if self.only.is_some() { self.most } else { 1 };
            let place = self.sources.get_mut(at).zip(tensors.get_mut(at));
            if let Some((source, tensor)) = place {
                let taken = source.take_value(value, tensor, &mut decoded)?;
                windows = source.bounded(taken, most)?;
                if let End::Tensor(_) = source.end
                    && self.only.is_none()
                {
                    source.window(0, tensor)?;
                }
            }
            if let Some(is_filled) = is_filled.get_mut(at) {
                *is_filled = true;
            }
        }
        let missing = self
            .sources
            .iter()
            .zip(&is_filled)
            .find(|(source, is_filled)| !**is_filled && !matches!(source.end, End::Constant));
        match missing {
            Some((source, _)) => {
                let (input, known) = (source.input.name.clone(), self.names());
                Err(InputError::Missing { input, known }.into())
            }
            None => Ok((decoded, windows)),
        }
    }

    /// Fills the input that comes in windows with one of them.
    pub(crate) fn window(&mut self, at: usize, tensors: &mut [Tensor]) -> Result<(), InputError> {
        let Some(only) = self.only else { return Ok(()) };
        match self.sources.get_mut(only).zip(tensors.get_mut(only)) {
            Some((source, tensor)) => source.window(at, tensor),
            None => Ok(()),
        }
    }

    /// The numbers of an input as it was filled last, before they took its form.
    pub(crate) fn numbers<'a>(
        &'a self,
        name: &str,
        tensors: &[Tensor],
        room: &'a mut Vec<f32>,
    ) -> &'a [f32] {
        let found = self.sources.iter().zip(tensors).find(|(s, _)| s.input.name == name);
        match found {
            Some((source, _)) if !source.features.is_empty() => &source.features,
            Some((source, tensor)) => {
                source.input.form.numbers(tensor, room);
                room
            }
            None => &[],
        }
    }

    /// Milliseconds from one window to the next, where that is known.
    pub(crate) fn window_ms(&self) -> Option<f64> {
        let source = self.only.and_then(|at| self.sources.get(at))?;
        let Front::Wave(front) = &source.input.front else { return None };
        #[allow(clippy::cast_precision_loss, reason = "at most a minute of samples")]
        let step = front.step_samples as f64;
        Some(step * 1e3 / f64::from(front.sample_rate_hz))
    }

    /// How the picture that was taken last lies in its tensor, where the input is one.
    pub(crate) fn placement(&self) -> Option<Placement> {
        match &self.only.and_then(|at| self.sources.get(at))?.end {
            End::Image(image) => Some(image.placement()),
            _ => None,
        }
    }

    fn place_of(&self, name: &str) -> Option<usize> {
        let fits =
            |source: &Source| source.input.name == name && !matches!(source.end, End::Constant);
        self.sources.iter().position(fits)
    }

    fn names(&self) -> String {
        let sent = self.sources.iter().filter(|source| !matches!(source.end, End::Constant));
        let names: Vec<&str> = sent.map(|source| source.input.name.as_str()).collect();
        names.join(", ")
    }
}

impl Source {
    fn new(input: &Input) -> Self {
        let (end, has_features) = match &input.front {
            Front::Audio(front) => (End::Audio(Box::new(AudioPipeline::new(front))), true),
            Front::Image(front) => {
                (End::Image(Box::new(ImagePipeline::new(front, &input.form))), false)
            }
            Front::Wave(front) => (End::Wave(Box::new(WavePipeline::new(front))), true),
            Front::Tensor(_) => (End::Tensor(Numbers::default()), input.form.is_scalable()),
            Front::Text(_) => (End::Text, true),
            Front::Constant(_) => (End::Constant, false),
        };
        let features = if has_features { vec![0.0; input.size()] } else { Vec::new() };
        Self { input: input.clone(), end, features }
    }

    /// Takes what was sent for this input by its name; how many windows it has.
    fn take_value(
        &mut self,
        value: Value,
        tensor: &mut Tensor,
        decoded: &mut Instant,
    ) -> Result<usize, InferError> {
        match (&self.end, value) {
            (End::Tensor(_), Value::Numbers(numbers)) => Ok(self.take_numbers(numbers)?),
            (End::Text, Value::Text(text)) => {
                self.take_text(&text, tensor);
                Ok(1)
            }
            (End::Audio(_) | End::Image(_) | End::Wave(_), Value::File(bytes)) => {
                let media = Media::detect(bytes, None).map_err(InputError::Media)?;
                let windows;
                (*decoded, windows) = self.take_file(&media, tensor)?;
                Ok(windows)
            }
            (_, value) => {
                let got = match value {
                    Value::Numbers(_) => "numbers",
                    Value::Text(_) => "a text",
                    Value::File(_) => "a file",
                };
                Err(self.wrong(got.to_owned()).into())
            }
        }
    }

    fn take_file(
        &mut self,
        media: &Media,
        tensor: &mut Tensor,
    ) -> Result<(Instant, usize), InferError> {
        let (bytes, media_type) = (media.bytes(), media.media_type());
        let input = &self.input.name;
        let body = |why| InferError::from(InputError::Value { input: input.clone(), why });
        match (&mut self.end, media_type) {
            (End::Audio(audio), MediaType::Wav) => {
                let recording = AudioPipeline::decode(bytes)?;
                let decoded = clock::now();
                audio.clip(&recording)?;
                audio.features(&mut self.features);
                self.input.form.fill(&self.features, tensor);
                Ok((decoded, 1))
            }
            (End::Wave(wave), MediaType::Wav) => {
                let recording = AudioPipeline::decode(bytes)?;
                Ok((clock::now(), wave.take(&recording)?))
            }
            (End::Image(image), MediaType::Jpeg | MediaType::Png | MediaType::Webp) => {
                let pixels = ImagePipeline::decode(bytes, media_type)?;
                let decoded = clock::now();
                image.fit(pixels)?;
                with_type!(
                    tensor.dtype(),
                    T => image.tensor::<T>(tensor.of_mut().unwrap_or_default()),
                    text => {}
                );
                Ok((decoded, 1))
            }
            (End::Text, MediaType::Text) => {
                let text = std::str::from_utf8(bytes).map_err(|_| body(BodyError::Text))?;
                self.take_text(text, tensor);
                Ok((clock::now(), 1))
            }
            (End::Tensor(_), MediaType::Csv | MediaType::Npy | MediaType::Raw) => {
                let numbers = match media_type {
                    MediaType::Csv => body::csv(bytes),
                    MediaType::Npy => body::npy(bytes),
                    _ => body::raw(bytes, self.input.sent_dtype()),
                };
                let numbers = numbers.map_err(body)?;
                let decoded = clock::now();
                Ok((decoded, self.take_numbers(numbers)?))
            }
            _ => Err(self.wrong(format!("a {media_type} body")).into()),
        }
    }

    fn take_text(&mut self, text: &str, tensor: &mut Tensor) {
        if let Front::Text(front) = self.input.front {
            words::hash(text, front, &mut self.features);
            self.input.form.fill(&self.features, tensor);
        }
    }

    /// Keeps numbers to be taken window by window; how many windows there are.
    fn take_numbers(&mut self, sent: Numbers) -> Result<usize, InputError> {
        let Front::Tensor(front) = &self.input.front else { return Err(self.wrong_numbers(&sent)) };
        let (size, count) = (self.input.size(), sent.values.len());
        let more = count.checked_sub(size).filter(|more| more.is_multiple_of(front.step));
        let windows = more.map(|more| 1 + more / front.step);
        if windows.is_none() && count > size {
            return Err(self.between_windows(&sent, front.step));
        }
        let Some(windows) = windows.filter(|_| fits(&self.input, front, &sent.shape)) else {
            return Err(self.wrong_numbers(&sent));
        };
        if !self.input.form.is_scalable() {
            let dtype = self.input.form.dtype;
            if let Some(at) = sent.values.iter().position(|x| !numbers::holds(dtype, *x)) {
                return Err(self.wrong(format!("{} at {at}", sent.values[at])));
            }
        }
        self.end = End::Tensor(sent);
        Ok(windows)
    }

    /// Fills the tensor with a window, where the input comes in windows.
    fn window(&mut self, at: usize, tensor: &mut Tensor) -> Result<(), InputError> {
        match (&self.end, &self.input.front) {
            (End::Wave(wave), _) => {
                wave.window(at, &mut self.features);
                self.input.form.fill(&self.features, tensor);
            }
            (End::Tensor(sent), Front::Tensor(front)) => {
                let (begin, size) = (at * front.step, self.input.size());
                let window = sent.values.get(begin..begin + size).unwrap_or_default();
                if self.features.is_empty() {
                    numbers::fill(tensor, window);
                    return Ok(());
                }
                scale(front, window, &mut self.features);
                if let Some(place) = self.features.iter().position(|x| !x.is_finite()) {
                    let value = window.get(place).copied().unwrap_or_default();
                    return Err(self.wrong(format!("{value} at {}", begin + place)));
                }
                self.input.form.fill(&self.features, tensor);
            }
            _ => {}
        }
        Ok(())
    }

    fn bounded(&self, windows: usize, most: usize) -> Result<usize, InputError> {
        if windows <= most {
            return Ok(windows);
        }
        Err(InputError::Windows { input: self.input.name.clone(), got: windows, most })
    }

    fn wrong(&self, got: String) -> InputError {
        InputError::Tensor { input: self.input.name.clone(), got, want: self.wanted() }
    }

    fn wrong_numbers(&self, sent: &Numbers) -> InputError {
        self.wrong(format!("{} numbers of shape {:?}", sent.values.len(), sent.shape))
    }

    /// More numbers than one window, and no whole number of steps more.
    fn between_windows(&self, sent: &Numbers, step: usize) -> InputError {
        let (count, size) = (sent.values.len(), self.input.size());
        let over = (count - size) % step;
        let (shape, cut) = (&sent.shape, count - over);
        self.wrong(format!(
            "{count} numbers of shape {shape:?}, {over} behind the last whole window: its windows \
             are {step} numbers apart, as `step` of the bundle's [input.tensor] says; {cut} or {} \
             would fit",
            cut + step
        ))
    }

    /// What a caller may send for this input.
    fn wanted(&self) -> String {
        match &self.input.front {
            Front::Audio(_) | Front::Wave(_) => "a recording (WAV)".to_owned(),
            Front::Image(_) => "a picture (JPEG, PNG or WebP)".to_owned(),
            Front::Text(_) => "a text in UTF-8".to_owned(),
            Front::Constant(_) => "nothing".to_owned(),
            Front::Tensor(front) => {
                let (spec, size) = (self.input.spec(), self.input.size());
                format!("{spec}, {size} numbers, or {} more for each window more", front.step)
            }
        }
    }
}

/// Whether numbers lie as the tensor has them: all in one row or column, in its shape with or without the batch,
/// in several of them, or in rows of one step each.
fn fits(input: &Input, front: &TensorFront, shape: &[usize]) -> bool {
    let rest = input.shape.get(1..).unwrap_or_default();
    let tail = shape.get(1..).unwrap_or_default();
    let row: usize = tail.iter().product();
    shape.iter().filter(|dim| **dim != 1).count() <= 1
        || shape == input.shape
        || shape == rest
        || (tail == rest && input.shape.first() == Some(&1))
        || (shape.len() == 2 && (row == front.step || input.size().is_multiple_of(row.max(1))))
}

/// What the bundle's numbers make of a window.
fn scale(front: &TensorFront, window: &[f64], features: &mut [f32]) {
    let means = front.mean.iter().cycle();
    let deviations = front.std.iter().cycle();
    for (((to, x), mean), std) in features.iter_mut().zip(window).zip(means).zip(deviations) {
        #[allow(
            clippy::cast_possible_truncation,
            reason = "what is beyond f32 is refused as infinite"
        )]
        let feature = ((x - f64::from(*mean)) / f64::from(*std)) as f32;
        *to = feature;
    }
}

/// A name as it is told back, cut to a line's length.
fn shown(name: &str) -> String {
    name.chars().take(80).collect()
}
