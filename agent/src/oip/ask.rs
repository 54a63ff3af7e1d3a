//! Owns what the engine is asked for a call of the protocol, and how its words become the protocol's.
//!
//! **Invariant:** a model is asked on this device only: nothing that comes this way is held, or sent
//! to a destination, whatever its class and terms.

use std::time::Duration;

use holdfast_models::Tensor;
use tokio::time::Instant;

use super::dtype;
use super::refusal::{Declared, Kind, Refusal, shown};
use super::request::{Infer, Wanted};
use crate::engine::{
    Engine, EngineError, ModelEntry, ModelMetadata, Readiness, TensorAnswer, TensorFault,
    TensorMetadata, TensorRequest,
};
use crate::pressure;

/// An answer, and the form in which each of its outputs is wanted.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) id: String,
    pub(super) answer: TensorAnswer,
    outputs: Vec<Wanted>,
    is_binary: bool,
}

impl Answered {
    /// The outputs, each with whether it is wanted in binary.
    pub(super) fn outputs(&self) -> Vec<(&str, &Tensor, bool)> {
        let form = |name: &str| {
            let wanted = self.outputs.iter().find(|wanted| wanted.name == name);
            wanted.and_then(|wanted| wanted.is_binary).unwrap_or(self.is_binary)
        };
        let outputs = self.answer.outputs.iter();
        outputs.map(|(name, tensor)| (name.as_str(), tensor, form(name))).collect()
    }
}

/// Runs a model on the tensors of a request that came at `begun`.
pub(super) async fn infer(
    engine: &Engine,
    model: &str,
    version: Option<&str>,
    infer: Infer,
    (begun, default_deadline): (Instant, Duration),
) -> Result<Answered, Refusal> {
    let Infer { id, terms, inputs, outputs, is_binary } = infer;
    let request = TensorRequest {
        model: model.to_owned(),
        version: version.map(str::to_owned),
        inputs,
        outputs: outputs.iter().map(|wanted| wanted.name.clone()).collect(),
        priority: terms.priority.unwrap_or_default(),
        give_up_at: begun + terms.deadline.unwrap_or(default_deadline),
    };
    let asked = engine.infer_tensors(request).await;
    let answer = asked.map_err(|error| match error {
        EngineError::Tensor(fault) => {
            let metadata = engine.metadata(model, version);
            Refusal::bad(in_words_of_the_protocol(&fault, metadata.as_ref()))
        }
        error => error.into(),
    })?;
    Ok(Answered { id, answer, outputs, is_binary })
}

/// A refusal of an input's data, or of the input itself where its type or shape is wrong already: that
/// is what its caller has to put right first.
pub(super) fn in_view_of_the_model(
    engine: &Engine,
    model: &str,
    version: Option<&str>,
    refusal: Refusal,
) -> Refusal {
    let Some(Declared { input, dtype, shape }) = refusal.declared.as_deref() else {
        return refusal;
    };
    let metadata = engine.metadata(model, version);
    let inputs = metadata.iter().flat_map(|metadata| &metadata.inputs);
    let Some(own) = inputs.clone().find(|own| own.name == *input) else { return refusal };
    let fits = |(own, got): (&Option<usize>, &usize)| own.is_none_or(|own| own == *got);
    let has_shape = own.shape.len() == shape.len() && own.shape.iter().zip(shape).all(fits);
    let (input, got) = (input.clone(), shape.clone());
    let fault = match (own.dtype == *dtype, has_shape) {
        (false, _) => TensorFault::Dtype { input, got: *dtype, want: own.dtype },
        (true, false) => TensorFault::Shape { input, got, want: described(own) },
        (true, true) => return refusal,
    };
    Refusal::bad(in_words_of_the_protocol(&fault, metadata.as_ref()))
}

/// What a model takes and gives.
pub(super) async fn metadata(
    engine: &Engine,
    model: &str,
    version: Option<&str>,
) -> Result<ModelMetadata, Refusal> {
    match engine.metadata(model, version) {
        Some(metadata) => Ok(metadata),
        None => Err(engine.nothing(model, version).await.into()),
    }
}

/// Whether a model, or one version of it, answers.
pub(super) async fn is_ready(
    engine: &Engine,
    model: &str,
    version: Option<&str>,
) -> Result<bool, Refusal> {
    Ok(engine.readiness(model, version).await? == Readiness::Ready)
}

/// Whether any model answers; without one there is nothing to be ready for.
pub(super) fn is_any_ready(engine: &Engine) -> bool {
    engine.index().iter().any(|entry| entry.state == Readiness::Ready)
}

/// The repository's models, only those that answer if `ready_only`.
pub(super) fn index(engine: &Engine, ready_only: bool) -> Vec<ModelEntry> {
    let mut entries = engine.index();
    entries.retain(|entry| !ready_only || entry.state == Readiness::Ready);
    entries
}

/// The protocol's word for a state.
pub(super) fn state(readiness: Readiness) -> &'static str {
    match readiness {
        Readiness::Ready => "READY",
        Readiness::Loading => "LOADING",
        Readiness::Unavailable => "UNAVAILABLE",
    }
}

/// A parameter of a load; those that bring a model along are not offered.
pub(super) fn load_parameter(key: &str) -> Result<(), Refusal> {
    if key == "config" || key.starts_with("file:") {
        return Err(Refusal::bad(format!(
            "parameter {} is not offered: a model is loaded as its bundle on the device says",
            shown(key)
        )));
    }
    Ok(())
}

/// The dimensions; -1 is a free one.
pub(super) fn dims(tensor: &TensorMetadata) -> Vec<i64> {
    let size = |dim: &Option<usize>| dim.map_or(-1, |dim| i64::try_from(dim).unwrap_or(i64::MAX));
    tensor.shape.iter().map(size).collect()
}

/// The sizes of a shape as the protocol's dimensions.
pub(super) fn dims_of(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|dim| i64::try_from(*dim).unwrap_or(i64::MAX)).collect()
}

fn described(tensor: &TensorMetadata) -> String {
    format!("{} {:?}", dtype::name(tensor.dtype), dims(tensor))
}

/// What is wrong with a tensor, with the types and free dimensions as clients know them.
fn in_words_of_the_protocol(fault: &TensorFault, metadata: Option<&ModelMetadata>) -> String {
    let want = |name: &str| {
        let inputs = metadata.map(|metadata| metadata.inputs.iter()).unwrap_or_default();
        inputs.filter(|input| input.name == name).map(described).next()
    };
    match fault {
        TensorFault::Missing { input, .. } => match want(input) {
            Some(want) => format!("input {input:?} is missing: it must be {want}"),
            None => fault.to_string(),
        },
        TensorFault::Dtype { input, got, .. } => match want(input) {
            Some(want) => {
                format!("input {input:?} has datatype {}, must be {want}", dtype::name(*got))
            }
            None => fault.to_string(),
        },
        TensorFault::Shape { input, got, .. } => match want(input) {
            Some(want) => format!("input {input:?} has shape {got:?}, must be {want}"),
            None => fault.to_string(),
        },
        TensorFault::UnknownInput { input, have } => {
            format!("there is no input {}; the model takes {have}", shown(input))
        }
        TensorFault::UnknownOutput { output, have } => {
            format!("there is no output {}; the model gives {have}", shown(output))
        }
        TensorFault::Twice { .. }
        | TensorFault::Batch { .. }
        | TensorFault::TooLarge { .. }
        | TensorFault::OutputTwice { .. } => fault.to_string(),
    }
}

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Self {
        let kind = match &error {
            EngineError::NoModel(_)
            | EngineError::NoBundle { .. }
            | EngineError::NoVersion { .. } => Kind::Unknown,
            EngineError::Tensor(_) | EngineError::Input(_) => Kind::Bad,
            EngineError::Busy { .. } | EngineError::NotReady { .. } => Kind::Busy,
            EngineError::TooLate { .. } | EngineError::Late { .. } => Kind::Late,
            EngineError::Model(_) => Kind::Failed,
        };
        let refusal = Self::new(kind, crate::error_chain(&error));
        let is_passing = matches!(kind, Kind::Busy | Kind::Late);
        let seconds = error.retry_after().map(|span| span.as_secs_f64().ceil());
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
        let seconds = seconds.map(|s| s.clamp(1.0, pressure::LONGEST_S as f64) as u64);
        if is_passing { refusal.retry_after(seconds.unwrap_or(1)) } else { refusal }
    }
}
