//! A bundle's variant on a runtime, in service: a body in, an answer out.
//!
//! **Invariant:** a `Model` exists only when its runtime reproduced the bundle's golden outputs
//! through this crate's own front end, within the variant's tolerance.

mod error;
mod reference;

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::bundle::{Bundle, Golden, Variant};
use crate::clock;
use crate::front::Fronts;
use crate::media::Media;
use crate::outputs::pool::spans;
use crate::outputs::{Class, Decoder, Outcome, OutputError, Span, View};
use crate::runtime::{Graph, Misfit, Runtime, Session, TensorSpec, batch_of};
use crate::tensor::{Elements, Tensor};

pub use error::{InferError, InputError, LoadError};
pub use reference::Reference;

/// The quick golden check takes more samples until this much time has gone by.
const GOLDEN_TIME: Duration = Duration::from_millis(40);

/// A variant that is ready to answer, used by one thread.
pub struct Model {
    bundle: Bundle,
    variant: Variant,
    runtime: &'static str,
    fronts: Fronts,
    session: Box<dyn Session>,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
    /// What the first output stands for, and what it is compared with.
    numbers: Vec<f32>,
    given: Vec<f32>,
    /// The answer's numbers of one window, and of all.
    row: Vec<f32>,
    rows: Vec<f32>,
    /// What every output stands for, where the answer is made of all of them.
    all: Vec<Vec<f32>>,
    checked: usize,
    off: f32,
}

/// How a bundle is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loading<'a> {
    /// Which variant; `None`: the default one.
    pub variant: Option<&'a str>,
    /// Threads for one request, where the runtime knows of more than one.
    pub threads: NonZeroUsize,
    /// How many goldens it is checked against.
    pub goldens: Goldens,
}

/// How many goldens a variant is checked against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goldens {
    /// At least one, and more while the check takes under 40 ms.
    Quick,
    /// All, however long that takes.
    All,
}

impl Default for Loading<'_> {
    fn default() -> Self {
        Self { variant: None, threads: NonZeroUsize::MIN, goldens: Goldens::Quick }
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Inference {
    /// The answer.
    pub outcome: Outcome,
    /// What was in the windows of an input that has several.
    pub recorded: Option<Recorded>,
    /// How long each part took.
    pub timings: Timings,
}

/// What was in the windows of one input.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// Number of windows.
    pub windows: usize,
    /// Milliseconds from one window to the next, where that is known.
    pub step_ms: Option<f64>,
    /// When each label was the answer.
    pub spans: Vec<Span>,
    /// The answer's numbers of each window, one after the other, `width` each.
    pub rows: Vec<f32>,
    /// Numbers a window.
    pub width: usize,
}

impl Inference {
    /// The classes, highest confidence first; none of an answer that is of another kind.
    pub fn classes(&self) -> &[Class] {
        match &self.outcome {
            Outcome::Classes(classes) => classes,
            _ => &[],
        }
    }
}

/// How long the parts of an answer took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// From the body to samples, pixels or numbers.
    pub decode: Duration,
    /// From those to the tensors.
    pub features: Duration,
    /// The graph and the answer.
    pub infer: Duration,
}

impl Timings {
    /// All parts together.
    pub fn total(&self) -> Duration {
        self.decode + self.features + self.infer
    }
}

impl Model {
    /// Loads a variant (the default one for `None`) to run on one thread, and checks it against its
    /// goldens quickly.
    ///
    /// # Errors
    /// No such variant, a file changed, the runtime refuses the graph, or its answers are off.
    pub fn load(
        bundle: &Bundle,
        variant: Option<&str>,
        runtime: &dyn Runtime,
    ) -> Result<Self, LoadError> {
        Self::load_as(bundle, runtime, Loading { variant, ..Loading::default() })
    }

    /// Loads a bundle as it is told.
    ///
    /// # Errors
    /// As `load`.
    pub fn load_as(
        bundle: &Bundle,
        runtime: &dyn Runtime,
        Loading { variant, threads, goldens }: Loading<'_>,
    ) -> Result<Self, LoadError> {
        let mut model = Self::prepare(bundle, variant, runtime, threads)?;
        let name = model.variant.name.clone();
        let began = clock::now();
        for golden in bundle.goldens().iter().filter(|g| g.variant == name) {
            let is_enough = goldens == Goldens::Quick && clock::now() - began > GOLDEN_TIME;
            if model.checked > 0 && is_enough {
                break;
            }
            model.check(golden)?;
            model.checked += 1;
        }
        Ok(model)
    }

    fn prepare(
        bundle: &Bundle,
        variant: Option<&str>,
        runtime: &dyn Runtime,
        threads: NonZeroUsize,
    ) -> Result<Self, LoadError> {
        let variant = bundle.variant(variant).cloned().ok_or_else(|| {
            let have: Vec<&str> = bundle.variants().iter().map(|v| v.name.as_str()).collect();
            LoadError::Variant {
                bundle: bundle.name().to_owned(),
                variant: variant.unwrap_or_default().to_owned(),
                have: have.join(", "),
            }
        })?;
        let onnx = bundle.read(&variant.file)?;
        let (inputs, outputs) = (bundle.inputs(), bundle.outputs());
        let graph = Graph { onnx: &onnx, inputs, outputs };
        let session = runtime.load(&graph, threads).map_err(|source| LoadError::Runtime {
            bundle: bundle.name().to_owned(),
            variant: variant.name.clone(),
            source,
        })?;
        let room = |specs: &[TensorSpec]| -> Vec<Tensor> {
            specs.iter().map(|spec| Tensor::zeros(&spec.shape, spec.dtype)).collect()
        };
        let (mut inputs, outputs) = (room(inputs), room(outputs));
        let fronts = Fronts::new(bundle, &mut inputs);
        Ok(Self {
            numbers: Vec::with_capacity(outputs.first().map_or(0, Tensor::len)),
            inputs,
            outputs,
            bundle: bundle.clone(),
            variant,
            runtime: runtime.name(),
            fronts,
            session,
            given: Vec::new(),
            row: Vec::new(),
            rows: Vec::new(),
            all: Vec::new(),
            checked: 0,
            off: 0.0,
        })
    }

    fn check(&mut self, golden: &Golden) -> Result<(), LoadError> {
        let bundle = self.bundle.name().to_owned();
        let bytes = self.bundle.read(&golden.sample)?;
        let media = Media::detect_for(bytes, None, Some(self.bundle.expects()));
        let ran = media
            .map_err(InferError::from)
            .and_then(|media| self.run(&media, Use::Compare, || true));
        ran.map_err(|source| LoadError::Sample {
            bundle: bundle.clone(),
            sample: golden.sample.clone(),
            source: Box::new(source),
        })?;
        let off = self.off_from(golden);
        self.off = self.off.max(off);
        if off <= self.variant.tolerance {
            return Ok(());
        }
        Err(LoadError::Golden {
            bundle,
            variant: self.variant.name.clone(),
            runtime: self.runtime,
            sample: golden.sample.clone(),
            off,
            tolerance: self.variant.tolerance,
        })
    }

    /// The largest difference of the outputs that are there from a golden's.
    fn off_from(&self, golden: &Golden) -> f32 {
        // A value that is not a number counts as infinitely far off.
        let worse =
            |worst: f32, off: f32| if off.is_nan() { f32::INFINITY } else { worst.max(off) };
        let off = |got: &[f32], want: &[f32]| {
            got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0f32, worse)
        };
        let others = self.bundle.results().iter().zip(&self.outputs).skip(1);
        let others = others.filter_map(|(output, tensor)| {
            let want = golden.others.get(&output.name)?;
            let mut got = Vec::new();
            output.form.numbers(tensor, &mut got);
            Some(off(&got, want))
        });
        others.fold(off(&self.numbers, &golden.output), worse)
    }

    /// The bundle it was loaded from.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// The name of the variant that is loaded.
    pub fn variant(&self) -> &str {
        &self.variant.name
    }

    /// The name of the runtime it runs on.
    pub fn runtime(&self) -> &'static str {
        self.runtime
    }

    /// How many goldens it was checked against.
    pub fn goldens_checked(&self) -> usize {
        self.checked
    }

    /// The largest difference from the goldens that it was checked against.
    pub fn off(&self) -> f32 {
        self.off
    }

    /// Answers one request.
    ///
    /// # Errors
    /// The body is refused ([`InferError::Media`]), or the model fails (all others).
    pub fn infer(&mut self, media: &Media) -> Result<Inference, InferError> {
        self.infer_while(media, || true)
    }

    /// As `infer`, as long as somebody wants the answer, which is asked before each window.
    ///
    /// # Errors
    /// As `infer`; nobody wants it any more ([`InferError::Unwanted`]).
    pub fn infer_while(
        &mut self,
        media: &Media,
        is_wanted: impl FnMut() -> bool,
    ) -> Result<Inference, InferError> {
        let (mut timings, windows) = self.run(media, Use::Answer, is_wanted)?;
        let began = clock::now();
        let outcome = match self.bundle.decoder() {
            Decoder::Tensors => self.tensors()?,
            decoder if !decoder.is_pooled() => self.whole()?,
            decoder if windows > 1 => {
                decoder.outcome(&self.bundle.windows().pool.pool(&self.rows, self.row.len()))
            }
            decoder => decoder.outcome(&self.row),
        };
        let decoder = self.bundle.decoder();
        let step_ms = self.fronts.window_ms();
        let recorded = (windows > 1 || step_ms.is_some()).then(|| Recorded {
            windows,
            step_ms,
            spans: spans(decoder, &self.rows, self.row.len()),
            rows: self.rows.clone(),
            width: self.row.len(),
        });
        timings.infer += clock::now() - began;
        Ok(Inference { outcome, recorded, timings })
    }

    /// The answer that is made of all outputs at once.
    fn whole(&mut self) -> Result<Outcome, InferError> {
        let results = self.bundle.results();
        self.all.resize_with(results.len(), Vec::new);
        for ((output, tensor), numbers) in results.iter().zip(&self.outputs).zip(&mut self.all) {
            output.form.numbers(tensor, numbers);
        }
        let views = results.iter().zip(&self.all);
        let views: Vec<View<'_>> =
            views.map(|(output, values)| View { values, shape: &output.shape }).collect();
        let placement = self.fronts.placement();
        let outcome = self.bundle.decoder().whole(&views, placement.as_ref())?;
        Ok(outcome.unwrap_or(Outcome::Tensors(Vec::new())))
    }

    fn tensors(&self) -> Result<Outcome, InferError> {
        let outputs = self.bundle.results().iter().zip(&self.outputs);
        let named = outputs.map(|(out, tensor)| match not_finite(tensor) {
            Some(value) => {
                let (label, value) = (out.name.clone(), value.to_string());
                Err(OutputError::NotFinite { label, value }.into())
            }
            None => Ok((out.name.clone(), tensor.clone())),
        });
        Ok(Outcome::Tensors(named.collect::<Result<_, InferError>>()?))
    }

    /// Runs the graph alone: `inputs` are [`Bundle::inputs`] in their order, and each of `outputs`
    /// becomes that of [`Bundle::outputs`], in the memory it has. Where the batch is free it is
    /// whatever the inputs have, all the same, up to [`crate::runtime::MAX_BATCH`]. What the elements
    /// are is not looked at.
    ///
    /// # Errors
    /// An input is missing, or not of its type and shape ([`InferError::Media`]); the runtime fails.
    pub fn run_tensors(
        &mut self,
        inputs: &[Tensor],
        outputs: &mut [Tensor],
    ) -> Result<(), InferError> {
        check_inputs(self.bundle.inputs(), inputs)?;
        Ok(self.session.run(inputs, outputs)?)
    }

    /// From a body to the numbers that the graph gives for its last window, which stay in `numbers`,
    /// and how many windows it had; the answer's numbers stay in `row` and `rows`.
    fn run(
        &mut self,
        media: &Media,
        to: Use,
        mut is_wanted: impl FnMut() -> bool,
    ) -> Result<(Timings, usize), InferError> {
        let (want, got) = (self.bundle.expects(), media.media_type());
        if !want.takes(got) {
            return Err(InputError::Kind { want, got: got.kind() }.into());
        }
        let mut timings = Timings::default();
        let began = clock::now();
        let (decoded, windows) = self.fronts.take(media, &mut self.inputs)?;
        timings.decode = decoded - began;
        let states = self.bundle.states().len();
        let (sources, results) = (self.inputs.len() - states, self.outputs.len() - states);
        for (state, spec) in self.inputs.iter_mut().zip(self.bundle.inputs()).skip(sources) {
            *state = Tensor::zeros(&spec.shape, spec.dtype);
        }
        self.rows.clear();
        let mut before = decoded;
        for window in 0..windows {
            if !is_wanted() {
                return Err(InferError::Unwanted);
            }
            self.fronts.window(window, &mut self.inputs)?;
            let featured = clock::now();
            timings.features += featured - before;
            self.session.run(&self.inputs, &mut self.outputs)?;
            let (carried, given) = (&mut self.inputs[sources..], &mut self.outputs[results..]);
            carried.swap_with_slice(given);
            if let (Some(output), Some(tensor)) =
                (self.bundle.results().first(), self.outputs.first())
            {
                output.form.numbers(tensor, &mut self.numbers);
            }
            if to == Use::Answer {
                self.decode_window()?;
            }
            before = clock::now();
            timings.infer += before - featured;
        }
        Ok((timings, windows))
    }

    /// The answer's numbers of the window that was run last.
    fn decode_window(&mut self) -> Result<(), InferError> {
        let decoder = self.bundle.decoder();
        let given = match decoder {
            Decoder::Reconstruction(reconstruction) => {
                self.fronts.numbers(&reconstruction.input, &self.inputs, &mut self.given)
            }
            _ => &[],
        };
        decoder.row(&self.numbers, given, &mut self.row)?;
        self.rows.extend_from_slice(&self.row);
        Ok(())
    }
}

/// What a run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Answer,
    /// Only what the graph gives is looked at.
    Compare,
}

/// Whether these are the graph's inputs, as far as a caller can be told what is wrong with one.
fn check_inputs(specs: &[TensorSpec], inputs: &[Tensor]) -> Result<(), InputError> {
    let name = |at: usize| specs.get(at).map(|spec| spec.name.clone()).unwrap_or_default();
    if inputs.len() != specs.len() {
        let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        return Err(InputError::Count { got: inputs.len(), want: names.join(", ") });
    }
    batch_of(specs, inputs).map(|_| ()).map_err(|misfit| match misfit {
        Misfit::Batch { at, got, first, want } => {
            InputError::Batch { input: name(at), got, other: name(first), want }
        }
        Misfit::Dtype { at } | Misfit::Shape { at } => {
            let got = inputs.get(at).map(|input| format!("{} {:?}", input.dtype(), input.shape()));
            let want = specs.get(at).map(ToString::to_string);
            let (got, want) = (got.unwrap_or_default(), want.unwrap_or_default());
            InputError::Tensor { input: name(at), got, want }
        }
    })
}

/// The first element that is infinite or not a number.
fn not_finite(tensor: &Tensor) -> Option<f64> {
    match tensor.elements() {
        Elements::F16(values) => values.iter().map(|x| x.to_f64()).find(|x| !x.is_finite()),
        Elements::F32(values) => values.iter().map(|x| f64::from(*x)).find(|x| !x.is_finite()),
        Elements::F64(values) => values.iter().copied().find(|x| !x.is_finite()),
        _ => None,
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model")
            .field("bundle", &self.bundle.name())
            .field("variant", &self.variant.name)
            .field("runtime", &self.runtime)
            .finish_non_exhaustive()
    }
}
