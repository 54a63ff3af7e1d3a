//! A bundle's variant on a runtime, in service: media in, classes out.
//!
//! **Invariant:** a `Model` exists only when its runtime reproduced the bundle's golden outputs
//! through this crate's own front end, within the variant's tolerance.

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::audio::{AudioError, AudioPipeline};
use crate::bundle::{Bundle, BundleError, Front, Golden, MediaKind, Variant};
use crate::classify::{Class, ClassifyError, classify};
use crate::clock;
use crate::image::{ImageError, ImagePipeline};
use crate::media::{Media, MediaError};
use crate::runtime::{Graph, Runtime, RuntimeError, Session, TensorSpec};
use crate::tensor::{Tensor, with_type};

/// The golden check takes more samples until this much time has gone by.
const GOLDEN_TIME: Duration = Duration::from_millis(40);

/// A variant that is ready to answer, used by one thread.
pub struct Model {
    bundle: Bundle,
    variant: Variant,
    runtime: &'static str,
    front: FrontEnd,
    session: Box<dyn Session>,
    input: [Tensor; 1],
    output: [Tensor; 1],
    /// The features of a recording before they take the input's form, and the output's numbers.
    features: Vec<f32>,
    numbers: Vec<f32>,
    checked: usize,
    off: f32,
}

enum FrontEnd {
    Audio(Box<AudioPipeline>),
    Image(Box<ImagePipeline>),
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Inference {
    /// Every class, highest confidence first.
    pub classes: Vec<Class>,
    /// How long each part took.
    pub timings: Timings,
}

/// How long the parts of an answer took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// From the file to samples or pixels.
    pub decode: Duration,
    /// From those to the tensor.
    pub features: Duration,
    /// The graph and the classes.
    pub infer: Duration,
}

impl Timings {
    /// All parts together.
    pub fn total(&self) -> Duration {
        self.decode + self.features + self.infer
    }
}

/// Why a variant does not go into service.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LoadError {
    /// The bundle has no such variant.
    #[error("bundle {bundle} has no variant {variant}: it has {have}")]
    Variant {
        /// The bundle's name.
        bundle: String,
        /// The variant that was asked for.
        variant: String,
        /// The variants that there are.
        have: String,
    },
    /// A file of the bundle changed since it was opened.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The runtime does not take the graph.
    #[error("variant {variant} of bundle {bundle} does not load")]
    Runtime {
        /// The bundle's name.
        bundle: String,
        /// The variant.
        variant: String,
        /// The runtime's reason.
        source: RuntimeError,
    },
    /// A golden sample cannot be processed.
    #[error("golden sample {sample} of bundle {bundle} cannot be processed")]
    Sample {
        /// The bundle's name.
        bundle: String,
        /// The sample's file.
        sample: String,
        /// The reason.
        source: InferError,
    },
    /// The runtime answers otherwise than the reference.
    #[error(
        "variant {variant} of bundle {bundle} answers wrongly on {runtime}: {sample} is off by \
         {off}, tolerance {tolerance}; use another variant or runtime"
    )]
    Golden {
        /// The bundle's name.
        bundle: String,
        /// The variant.
        variant: String,
        /// The runtime.
        runtime: &'static str,
        /// The sample's file.
        sample: String,
        /// Largest absolute difference of an output.
        off: f32,
        /// The variant's tolerance.
        tolerance: f32,
    },
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InferError {
    /// What the caller sent is refused, and is refused again when it is sent again.
    #[error(transparent)]
    Media(#[from] InputError),
    /// This program's own processing failed.
    #[error("preprocessing failed")]
    Processing(#[source] InputError),
    /// The runtime failed.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The graph's output is no answer.
    #[error(transparent)]
    Classify(#[from] ClassifyError),
}

/// Why an input is refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InputError {
    /// It was refused before decoding.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// The task takes the other kind of file.
    #[error("the task takes {want}, the body is {got}: send {want}, or ask another task")]
    Kind {
        /// What the task takes.
        want: MediaKind,
        /// What the body is.
        got: MediaKind,
    },
    /// The recording was refused.
    #[error(transparent)]
    Audio(#[from] AudioError),
    /// The picture was refused.
    #[error(transparent)]
    Image(#[from] ImageError),
}

impl From<MediaError> for InferError {
    fn from(error: MediaError) -> Self {
        Self::Media(error.into())
    }
}

impl From<AudioError> for InferError {
    fn from(error: AudioError) -> Self {
        match error {
            AudioError::Resample { .. } => Self::Processing(error.into()),
            _ => Self::Media(error.into()),
        }
    }
}

impl From<ImageError> for InferError {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::Resize(_) => Self::Processing(error.into()),
            _ => Self::Media(error.into()),
        }
    }
}

impl Model {
    /// Loads a variant (the default one for `None`) and checks it against its goldens: at least
    /// one, and more while the check takes under 40 ms.
    ///
    /// # Errors
    /// No such variant, a file changed, the runtime refuses the graph, or its answers are off.
    pub fn load(
        bundle: &Bundle,
        variant: Option<&str>,
        runtime: &dyn Runtime,
    ) -> Result<Self, LoadError> {
        Self::load_on(bundle, variant, runtime, NonZeroUsize::MIN)
    }

    /// As `load`, to run on this many threads.
    ///
    /// # Errors
    /// As `load`.
    pub fn load_on(
        bundle: &Bundle,
        variant: Option<&str>,
        runtime: &dyn Runtime,
        threads: NonZeroUsize,
    ) -> Result<Self, LoadError> {
        Self::load_checked(bundle, variant, (runtime, threads), GOLDEN_TIME)
    }

    /// As `load_on`, checked against all of its goldens, however long that takes.
    ///
    /// # Errors
    /// As `load`.
    pub fn load_fully_checked(
        bundle: &Bundle,
        variant: Option<&str>,
        runtime: &dyn Runtime,
        threads: NonZeroUsize,
    ) -> Result<Self, LoadError> {
        Self::load_checked(bundle, variant, (runtime, threads), Duration::MAX)
    }

    fn load_checked(
        bundle: &Bundle,
        variant: Option<&str>,
        (runtime, threads): (&dyn Runtime, NonZeroUsize),
        limit: Duration,
    ) -> Result<Self, LoadError> {
        let mut model = Self::prepare(bundle, variant, runtime, threads)?;
        let name = model.variant.name.clone();
        let began = clock::now();
        for golden in bundle.goldens().iter().filter(|g| g.variant == name) {
            if model.checked > 0 && clock::now() - began > limit {
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
        let (input, output) = (bundle.input(), bundle.output());
        let spec = |name: &str, dtype, shape: &[usize]| TensorSpec {
            name: name.to_owned(),
            dtype,
            shape: shape.to_vec(),
        };
        let inputs = [spec(&input.name, input.form.dtype, &input.shape)];
        let outputs = [spec(&output.name, output.form.dtype, &output.shape)];
        let graph = Graph { onnx: &onnx, inputs: &inputs, outputs: &outputs };
        let session = runtime.load(&graph, threads).map_err(|source| LoadError::Runtime {
            bundle: bundle.name().to_owned(),
            variant: variant.name.clone(),
            source,
        })?;
        let front = match &input.front {
            Front::Audio(front) => FrontEnd::Audio(Box::new(AudioPipeline::new(front))),
            Front::Image(front) => {
                FrontEnd::Image(Box::new(ImagePipeline::new(front, &input.form)))
            }
        };
        Ok(Self {
            input: [Tensor::zeros(&input.shape, input.form.dtype)],
            output: [Tensor::zeros(&output.shape, output.form.dtype)],
            features: match front {
                FrontEnd::Audio(_) => vec![0.0; inputs[0].size()],
                FrontEnd::Image(_) => Vec::new(),
            },
            numbers: Vec::with_capacity(outputs[0].size()),
            bundle: bundle.clone(),
            variant,
            runtime: runtime.name(),
            front,
            session,
            checked: 0,
            off: 0.0,
        })
    }

    fn check(&mut self, golden: &Golden) -> Result<(), LoadError> {
        let bundle = self.bundle.name().to_owned();
        let bytes = self.bundle.read(&golden.sample)?;
        let media = Media::detect(bytes, None).map_err(InferError::from);
        media.and_then(|media| self.run(&media)).map_err(|source| LoadError::Sample {
            bundle: bundle.clone(),
            sample: golden.sample.clone(),
            source,
        })?;
        let pairs = self.numbers.iter().zip(&golden.output);
        // A value that is not a number counts as infinitely far off.
        let off = pairs
            .map(|(a, b)| (a - b).abs())
            .fold(0.0f32, |max, d| if d.is_nan() { f32::INFINITY } else { max.max(d) });
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
    /// The media is refused ([`InferError::Media`]), or the model fails (all others).
    pub fn infer(&mut self, media: &Media) -> Result<Inference, InferError> {
        let mut timings = self.run(media)?;
        let began = clock::now();
        let classes = classify(&self.numbers, self.bundle.output())?;
        timings.infer += clock::now() - began;
        Ok(Inference { classes, timings })
    }

    /// From media to the numbers that the graph gives, which stay in `numbers`.
    fn run(&mut self, media: &Media) -> Result<Timings, InferError> {
        let (want, got) = (self.bundle.expects(), media.media_type().kind());
        if want != got {
            return Err(InputError::Kind { want, got }.into());
        }
        let began = clock::now();
        let decoded = match &mut self.front {
            FrontEnd::Audio(audio) => {
                let recording = AudioPipeline::decode(media.bytes())?;
                let decoded = clock::now();
                audio.clip(&recording)?;
                audio.features(&mut self.features);
                self.bundle.input().form.fill(&self.features, &mut self.input[0]);
                decoded
            }
            FrontEnd::Image(image) => {
                let pixels = ImagePipeline::decode(media.bytes(), media.media_type())?;
                let decoded = clock::now();
                image.fit(pixels)?;
                with_type!(self.input[0].dtype(), T => {
                    image.tensor::<T>(self.input[0].of_mut().unwrap_or_default());
                });
                decoded
            }
        };
        let featured = clock::now();
        self.session.run(&self.input, &mut self.output)?;
        self.bundle.output().form.numbers(&self.output[0], &mut self.numbers);
        Ok(Timings {
            decode: decoded - began,
            features: featured - decoded,
            infer: clock::now() - featured,
        })
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
