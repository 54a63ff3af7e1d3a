//! Tensors in, tensors out: what the Open Inference Protocol asks of a model, by its bundle's name.
//!
//! **Invariant:** a request that does not fit the bundle's tensors never waits for a worker; what is
//! wrong with it is said by the tensor's name.

use std::fmt;

use holdfast_models::runtime::{Misfit, TensorSpec, batch_of};
use holdfast_models::{Bundle, Dtype, Tensor};
use thiserror::Error;
use tokio::time::Instant;

use super::{Engine, EngineError};
use crate::request::Priority;

/// Elements of all outputs of one request at most, unless one row has more.
const MOST_GIVEN: usize = 1 << 26;

/// What somebody asks of a bundle.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorRequest {
    /// The bundle's name.
    pub model: String,
    /// A version, or a label of one; `None`: the default.
    pub version: Option<String>,
    /// Each input once, in any order.
    pub inputs: Vec<(String, Tensor)>,
    /// The outputs that are wanted, in the order in which they are given; empty: all.
    pub outputs: Vec<String>,
    /// Urgency.
    pub priority: Priority,
    /// When the caller goes away.
    pub give_up_at: Instant,
}

/// What a bundle gave.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorAnswer {
    /// The bundle's name.
    pub model: String,
    /// Its version.
    pub version: String,
    /// The outputs, by name.
    pub outputs: Vec<(String, Tensor)>,
}

/// What is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TensorFault {
    /// An input is missing.
    #[error("input {input} is missing: send it, it is {want}")]
    Missing {
        /// Its name.
        input: String,
        /// Its type and shape.
        want: String,
    },
    /// There is no such input.
    #[error("there is no input {input}: the model takes {have}")]
    UnknownInput {
        /// What was sent.
        input: String,
        /// What the model takes.
        have: String,
    },
    /// An input is there twice.
    #[error("input {input} is there twice: send it once")]
    Twice {
        /// Its name.
        input: String,
    },
    /// An input has another element type.
    #[error("input {input} is {got}: send {want}")]
    Dtype {
        /// Its name.
        input: String,
        /// Its type.
        got: Dtype,
        /// What the model takes.
        want: Dtype,
    },
    /// An input has another shape.
    #[error("input {input} has the shape {got:?}: send {want}")]
    Shape {
        /// Its name.
        input: String,
        /// Its shape.
        got: Vec<usize>,
        /// What the model takes.
        want: String,
    },
    /// Two inputs have different batches.
    #[error("input {input} has a batch of {got}, the others have {want}: send one batch in all")]
    Batch {
        /// Its name.
        input: String,
        /// Its batch.
        got: usize,
        /// That of those before it.
        want: usize,
    },
    /// A batch is larger than what its outputs may take.
    #[error("a batch of {got} is too large for this model: send at most {most} at once")]
    TooLarge {
        /// The batch.
        got: usize,
        /// The largest that is taken.
        most: usize,
    },
    /// An output is asked for twice.
    #[error("output {output} is asked for twice: ask for it once")]
    OutputTwice {
        /// Its name.
        output: String,
    },
    /// There is no such output.
    #[error("there is no output {output}: the model gives {have}")]
    UnknownOutput {
        /// What was asked for.
        output: String,
        /// What there is.
        have: String,
    },
}

/// Whether a version of a bundle answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// It does.
    Ready,
    /// It is being loaded.
    Loading,
    /// It does not; the entry says why.
    Unavailable,
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ready => "ready",
            Self::Loading => "loading",
            Self::Unavailable => "unavailable",
        })
    }
}

/// One version of a bundle, as the repository lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelEntry {
    /// The bundle's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Whether it answers.
    pub state: Readiness,
    /// Why not; empty where there is nothing to say.
    pub reason: String,
    /// Whether requests that name no version go to it.
    pub is_default: bool,
}

/// What a version of a bundle takes and gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelMetadata {
    /// The bundle's name.
    pub name: String,
    /// Its versions that answer, or do when they are asked, the newest first.
    pub versions: Vec<String>,
    /// The runtime that it runs on; `onnx` where it does not run yet.
    pub platform: String,
    /// What it takes.
    pub inputs: Vec<TensorMetadata>,
    /// What it gives.
    pub outputs: Vec<TensorMetadata>,
}

/// A tensor that a bundle takes or gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorMetadata {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its shape; `None` is a dimension that is free.
    pub shape: Vec<Option<usize>>,
}

impl TensorMetadata {
    pub(super) fn of(spec: &TensorSpec) -> Self {
        let mut shape: Vec<_> = spec.shape.iter().copied().map(Some).collect();
        if let Some(first) = shape.first_mut().filter(|_| spec.free_batch) {
            *first = None;
        }
        Self { name: spec.name.clone(), dtype: spec.dtype, shape }
    }
}

impl Engine {
    /// Runs a bundle on tensors, on the same workers and in the same line as everything else.
    ///
    /// # Errors
    /// There is no such bundle or version, or it is not ready; a tensor does not fit
    /// ([`EngineError::Tensor`]); too many wait, time is over or would be; the model failed.
    pub async fn infer_tensors(&self, request: TensorRequest) -> Result<TensorAnswer, EngineError> {
        let TensorRequest { model, version, inputs, outputs, priority, give_up_at } = request;
        let lane = self.awake(&model, version.as_deref(), give_up_at).await?;
        let bundle = lane.bundle();
        let inputs = in_order(bundle, inputs)?;
        let wanted = places(bundle, &outputs)?;
        let given = lane.infer_tensors(inputs, priority, give_up_at).await?;
        let outputs = pick(bundle, given, &wanted);
        Ok(TensorAnswer { model, version: bundle.version().to_owned(), outputs })
    }

    /// Every version of every bundle, also of those that cannot be used.
    pub fn index(&self) -> Vec<ModelEntry> {
        self.catalog().index()
    }

    /// Whether a bundle answers, in a version or by a label of one, or in its default.
    ///
    /// # Errors
    /// There is no such bundle or version.
    pub async fn readiness(
        &self,
        model: &str,
        version: Option<&str>,
    ) -> Result<Readiness, EngineError> {
        let found = self.catalog().readiness(model, version);
        match found {
            Some(readiness) => Ok(readiness),
            None => Err(self.nothing(model, version).await),
        }
    }

    /// Why a name, or a version of it, leads to nothing.
    pub async fn nothing(&self, model: &str, version: Option<&str>) -> EngineError {
        match self.answering(model, version).await {
            Err(error) => error,
            // It came meanwhile.
            Ok(_) => EngineError::NotReady {
                model: model.to_owned(),
                why: "it came just now; ask again".to_owned(),
            },
        }
    }

    /// What a bundle takes and gives; `None` where there is no such bundle or version.
    pub fn metadata(&self, model: &str, version: Option<&str>) -> Option<ModelMetadata> {
        self.catalog().metadata(model, version)
    }
}

/// The inputs in the order of the bundle's, each of them right.
fn in_order(bundle: &Bundle, sent: Vec<(String, Tensor)>) -> Result<Vec<Tensor>, TensorFault> {
    let specs = bundle.inputs();
    let mut placed: Vec<Option<Tensor>> = vec![None; specs.len()];
    for (name, tensor) in sent {
        let at = specs.iter().position(|spec| spec.name == name);
        match at.and_then(|at| placed.get_mut(at)) {
            Some(place @ None) => *place = Some(tensor),
            Some(Some(_)) => return Err(TensorFault::Twice { input: name }),
            None => return Err(TensorFault::UnknownInput { input: name, have: names(specs) }),
        }
    }
    let mut inputs = Vec::with_capacity(specs.len());
    for (spec, tensor) in specs.iter().zip(placed) {
        let missing = || TensorFault::Missing { input: spec.name.clone(), want: spec.to_string() };
        inputs.push(tensor.ok_or_else(missing)?);
    }
    match batch_of(specs, &inputs) {
        Ok(got) if got > most_rows(bundle) => {
            Err(TensorFault::TooLarge { got, most: most_rows(bundle) })
        }
        Ok(_) => Ok(inputs),
        Err(misfit) => Err(misfitting(misfit, specs, &inputs)),
    }
}

fn misfitting(misfit: Misfit, specs: &[TensorSpec], inputs: &[Tensor]) -> TensorFault {
    let (Misfit::Dtype { at } | Misfit::Shape { at } | Misfit::Batch { at, .. }) = misfit;
    let (spec, tensor) = (&specs[at], &inputs[at]);
    let input = spec.name.clone();
    match misfit {
        Misfit::Dtype { .. } => TensorFault::Dtype { input, got: tensor.dtype(), want: spec.dtype },
        Misfit::Shape { .. } => {
            TensorFault::Shape { input, got: tensor.shape().to_vec(), want: spec.to_string() }
        }
        Misfit::Batch { got, want, .. } => TensorFault::Batch { input, got, want },
    }
}

/// So many rows of a batch at most: a few bytes sent must not become gigabytes of outputs.
fn most_rows(bundle: &Bundle) -> usize {
    let row: usize = bundle.outputs().iter().map(TensorSpec::size).sum();
    (MOST_GIVEN / row.max(1)).max(1)
}

fn names(specs: &[TensorSpec]) -> String {
    specs.iter().map(|spec| spec.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// Where each of the wanted outputs stands; of none, all.
fn places(bundle: &Bundle, wanted: &[String]) -> Result<Vec<usize>, TensorFault> {
    let specs = bundle.outputs();
    if wanted.is_empty() {
        return Ok((0..specs.len()).collect());
    }
    let place = |name: &String| {
        let at = specs.iter().position(|spec| spec.name == *name);
        at.ok_or_else(|| TensorFault::UnknownOutput { output: name.clone(), have: names(specs) })
    };
    let mut places = Vec::with_capacity(wanted.len());
    for name in wanted {
        let at = place(name)?;
        if places.contains(&at) {
            return Err(TensorFault::OutputTwice { output: name.clone() });
        }
        places.push(at);
    }
    Ok(places)
}

/// The wanted ones of what was given, by name.
fn pick(bundle: &Bundle, mut given: Vec<Tensor>, wanted: &[usize]) -> Vec<(String, Tensor)> {
    let specs = bundle.outputs();
    let mut take = |at: usize| {
        let (spec, tensor) = specs.get(at).zip(given.get_mut(at))?;
        let empty = Tensor::zeros(&[0], tensor.dtype());
        Some((spec.name.clone(), std::mem::replace(tensor, empty)))
    };
    wanted.iter().filter_map(|at| take(*at)).collect()
}

impl From<TensorFault> for EngineError {
    fn from(fault: TensorFault) -> Self {
        Self::Tensor(fault)
    }
}
