//! Why a model does not load, and why a request has no answer.
//!
//! **Invariant:** what the caller can put right is an [`InferError::Media`], and nothing else is.

use crate::audio::AudioError;
use crate::bundle::{BundleError, MediaKind};
use crate::front::BodyError;
use crate::image::ImageError;
use crate::media::MediaError;
use crate::outputs::OutputError;
use crate::runtime::RuntimeError;

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
        source: Box<InferError>,
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
    Media(InputError),
    /// This program's own processing failed.
    #[error("preprocessing failed")]
    Processing(#[source] InputError),
    /// The runtime failed.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// What the graph gave is no answer.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// Nobody wanted the answer any more before all windows were run.
    #[error("nobody waits for the answer any more")]
    Unwanted,
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
    /// There are not as many tensors as the model takes.
    #[error("{got} inputs were sent, the model takes {want}: send each of them once")]
    Count {
        /// How many were sent.
        got: usize,
        /// The names of those that are taken.
        want: String,
    },
    /// An input has another type, shape or length.
    #[error("input {input} is {got}: send {want}")]
    Tensor {
        /// Its name.
        input: String,
        /// What was sent.
        got: String,
        /// What the model takes.
        want: String,
    },
    /// The body does not say what it is for.
    #[error("the task has several inputs: send {{\"inputs\": {{NAME: VALUES}}}} with {known}")]
    Named {
        /// The inputs that there are.
        known: String,
    },
    /// An input that the task does not have.
    #[error("there is no input \"{input}\": send {known}")]
    Unknown {
        /// Its name.
        input: String,
        /// The inputs that there are.
        known: String,
    },
    /// An input that was not sent.
    #[error("input {input} is missing: send {known}")]
    Missing {
        /// Its name.
        input: String,
        /// The inputs that there are.
        known: String,
    },
    /// More windows than one request may have.
    #[error("input {input} has {got} windows: send at most {most}")]
    Windows {
        /// Its name.
        input: String,
        /// How many it has.
        got: usize,
        /// How many it may have.
        most: usize,
    },
    /// The body does not read.
    #[error(transparent)]
    Body(BodyError),
    /// What was sent for an input does not read.
    #[error("input {input}: {why}")]
    Value {
        /// Its name.
        input: String,
        /// What is wrong with it.
        why: BodyError,
    },
    /// Two tensors have different batches.
    #[error("input {input} has a batch of {got}, input {other} of {want}: send one batch in all")]
    Batch {
        /// Its name.
        input: String,
        /// Its batch.
        got: usize,
        /// The one before it.
        other: String,
        /// That one's batch.
        want: usize,
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

impl From<InputError> for InferError {
    fn from(error: InputError) -> Self {
        Self::Media(error)
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
