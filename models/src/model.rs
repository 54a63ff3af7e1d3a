//! A bundle's variant on a runtime, in service: a body in, an answer out.
//!
//! What is around its graph is a `Frame`, which a [`Relay`] has too.
//!
//! **Invariant:** a `Model` exists only when its runtime reproduced the bundle's golden outputs
//! through this crate's own front end, within the variant's tolerance.

mod batch;
mod error;
mod frame;
mod reference;
mod relay;
mod together;

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::bundle::{Bundle, Golden, Variant};
use crate::clock;
use crate::media::Media;
use crate::outputs::{Class, Outcome, Span};
use crate::runtime::{Graph, Misfit, Runtime, Session, TensorSpec, batch_of};
use crate::tensor::Tensor;

use batch::Batch;
pub use error::{InferError, InputError, LoadError};
use frame::Frame;
pub use reference::Reference;
pub use relay::Relay;
pub use together::{Askers, Told};

/// The quick golden check takes more samples until this much time has gone by.
const GOLDEN_TIME: Duration = Duration::from_millis(40);

/// A variant that is ready to answer, used by one thread.
pub struct Model {
    frame: Frame,
    variant: Variant,
    runtime: &'static str,
    session: Box<dyn Session>,
    /// Those that are answered together, and what the graph takes and gives for all of them.
    beside: Vec<Frame>,
    batch: Batch,
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
        Ok(Self {
            frame: Frame::new(bundle),
            variant,
            runtime: runtime.name(),
            session,
            beside: Vec::new(),
            batch: Batch::new(bundle, runtime.name()),
            checked: 0,
            off: 0.0,
        })
    }

    fn check(&mut self, golden: &Golden) -> Result<(), LoadError> {
        let own = &self.frame.bundle;
        let bundle = own.name().to_owned();
        let bytes = own.read(&golden.sample)?;
        let media = Media::detect_for(bytes, None, Some(own.expects()));
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
        let Frame { bundle, outputs, numbers, .. } = &self.frame;
        let others = bundle.results().iter().zip(outputs).skip(1);
        let others = others.filter_map(|(output, tensor)| {
            let want = golden.others.get(&output.name)?;
            let mut got = Vec::new();
            output.form.numbers(tensor, &mut got);
            Some(off(&got, want))
        });
        others.fold(off(numbers, &golden.output), worse)
    }

    /// The bundle it was loaded from.
    pub fn bundle(&self) -> &Bundle {
        &self.frame.bundle
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
        let (outcome, recorded) = self.frame.answer(windows)?;
        timings.infer += clock::now() - began;
        Ok(Inference { outcome, recorded, timings })
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
        check_inputs(self.frame.bundle.inputs(), inputs)?;
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
        let mut timings = Timings::default();
        let began = clock::now();
        let (decoded, windows) = self.frame.take(media)?;
        timings.decode = decoded - began;
        let mut before = decoded;
        for window in 0..windows {
            if !is_wanted() {
                return Err(InferError::Unwanted);
            }
            self.frame.window(window)?;
            let featured = clock::now();
            timings.features += featured - before;
            self.session.run(&self.frame.inputs, &mut self.frame.outputs)?;
            self.frame.given();
            if to == Use::Answer {
                self.frame.decode_window()?;
            }
            before = clock::now();
            timings.infer += before - featured;
        }
        Ok((timings, windows))
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

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model")
            .field("bundle", &self.frame.bundle.name())
            .field("variant", &self.variant.name)
            .field("runtime", &self.runtime)
            .finish_non_exhaustive()
    }
}
