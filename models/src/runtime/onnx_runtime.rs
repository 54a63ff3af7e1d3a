//! ONNX Runtime, where its library is there. The one module that names ort.
//!
//! **Invariant:** a session has the provider that it was asked for, or does not load: falling back to
//! another is the caller's decision. Operators that the provider lacks run on the CPU, as everywhere
//! with ONNX Runtime.

pub mod library;

use std::num::NonZeroUsize;

use ort::ep::{self, ExecutionProvider, ExecutionProviderDispatch};
use ort::session::{RunOptions, Session as OrtSession, SessionInputValue, SessionOutputs};
use ort::value::{DynValue, Shape, Tensor as OrtTensor, TensorElementType, TensorRef, ValueType};

use self::library::Library;
use super::tract::file;
use super::{Graph, Runtime, RuntimeError, Session, TensorSpec, check_count, check_tensors};
use crate::tensor::{Dtype, Element, Tensor, with_elements, with_type};

/// The engine's name.
pub(super) const NAME: &str = "onnxruntime";

/// The first run takes memory piece by piece, to learn what a run needs; from the second on there is one
/// piece. Measured from Python on two `MobileNet`s: 60 MiB with what the first run took, 53 without.
const SETTLING: u8 = 2;

/// What executes a graph's operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the providers' own names")]
pub enum Provider {
    Cpu,
    Xnnpack,
    Acl,
    Cuda,
    TensorRt,
}

impl Provider {
    /// All of them, the plainest first.
    pub const ALL: [Self; 5] = [Self::Cpu, Self::Xnnpack, Self::Acl, Self::Cuda, Self::TensorRt];

    /// The name, as it is shown and configured.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Xnnpack => "xnnpack",
            Self::Acl => "acl",
            Self::Cuda => "cuda",
            Self::TensorRt => "tensorrt",
        }
    }

    /// The provider of the engine with this name.
    pub fn of_engine(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|provider| provider.engine() == name)
    }

    /// Whether ONNX Runtime's library was built with it; a device may lack what it needs all the same.
    pub fn is_built_in(self, _library: &Library) -> bool {
        let answer = match self {
            Self::Cpu => return true,
            Self::Xnnpack => ep::XNNPACK::is_available(),
            Self::Acl => ep::ACL::is_available(),
            Self::Cuda => ep::CUDA::is_available(),
            Self::TensorRt => ep::TensorRT::is_available(),
        };
        answer.unwrap_or(false)
    }

    /// The engine's name on this provider.
    pub fn engine(self) -> &'static str {
        match self {
            Self::Cpu => NAME,
            Self::Xnnpack => "onnxruntime-xnnpack",
            Self::Acl => "onnxruntime-acl",
            Self::Cuda => "onnxruntime-cuda",
            Self::TensorRt => "onnxruntime-tensorrt",
        }
    }

    fn dispatch(self, threads: NonZeroUsize) -> Option<ExecutionProviderDispatch> {
        let dispatch = match self {
            Self::Cpu => return None,
            Self::Xnnpack => ep::XNNPACK::default().with_intra_op_num_threads(threads).build(),
            Self::Acl => ep::ACL::default().build(),
            Self::Cuda => ep::CUDA::default().build(),
            Self::TensorRt => ep::TensorRT::default().build(),
        };
        Some(dispatch.error_on_failure())
    }
}

/// The engine, on one provider.
#[derive(Debug, Clone)]
pub struct OnnxRuntime {
    library: Library,
    provider: Provider,
}

impl OnnxRuntime {
    /// The engine of a library, on a provider.
    pub fn new(library: Library, provider: Provider) -> Self {
        Self { library, provider }
    }

    fn failed(&self, error: &ort::Error) -> RuntimeError {
        let (runtime, why) = (self.name(), error.message().trim().to_owned());
        let is_missing = [
            "not a registered function/op",
            "No Op registered",
            "Could not find an implementation",
        ]
        .iter()
        .any(|text| why.contains(text));
        match error.code() {
            ort::ErrorCode::NotImplemented | ort::ErrorCode::ExecutionProviderFailure => {
                RuntimeError::Unsupported { runtime, why }
            }
            _ if is_missing => RuntimeError::Unsupported { runtime, why },
            ort::ErrorCode::InvalidGraph
            | ort::ErrorCode::InvalidProtobuf
            | ort::ErrorCode::NoModel => RuntimeError::Malformed { runtime, why },
            _ => RuntimeError::Unsupported { runtime, why },
        }
    }

    fn session(&self, onnx: &[u8], threads: NonZeroUsize) -> ort::Result<OrtSession> {
        let mut builder = OrtSession::builder(&self.library.environment)?
            .with_inter_threads(1)?
            .with_intra_threads(threads.get())?
            // A guest on the board does not burn its cores while it waits.
            .with_intra_op_spinning(false)?;
        if let Some(dispatch) = self.provider.dispatch(threads) {
            builder = builder.with_execution_providers([dispatch])?;
        }
        builder.commit_from_memory(onnx)
    }
}

impl Runtime for OnnxRuntime {
    fn name(&self) -> &'static str {
        self.provider.engine()
    }

    fn load(
        &self,
        graph: &Graph<'_>,
        threads: NonZeroUsize,
    ) -> Result<Box<dyn Session>, RuntimeError> {
        file::read(self.name(), graph.onnx)?;
        let loaded = super::caught(self.name(), || self.session(graph.onnx, threads))?;
        let session = loaded.map_err(|error| self.failed(&error))?;
        let names = |outlets: &[ort::value::Outlet]| -> Vec<String> {
            outlets.iter().map(|outlet| outlet.name().to_owned()).collect()
        };
        let inputs = super::places("inputs", &names(session.inputs()), graph.inputs)?;
        let outputs = super::places("outputs", &names(session.outputs()), graph.outputs)?;
        for (spec, at) in graph.inputs.iter().zip(inputs) {
            check_outlet("input", spec, session.inputs()[at].dtype())?;
        }
        for (spec, at) in graph.outputs.iter().zip(outputs) {
            check_outlet("output", spec, session.outputs()[at].dtype())?;
        }
        Ok(Box::new(Loaded {
            runtime: self.name(),
            session,
            settling: if self.provider == Provider::Cpu { SETTLING } else { 0 },
            inputs: graph.inputs.to_vec(),
            outputs: graph.outputs.to_vec(),
        }))
    }
}

/// The graph's own word on a tensor; its free dimensions are whatever the bundle says.
fn check_outlet(what: &str, spec: &TensorSpec, got: &ValueType) -> Result<(), RuntimeError> {
    let interface = |part: &str, got: String, want: String| RuntimeError::Interface {
        what: format!("the {part} of {what} {}", spec.name),
        got,
        want,
    };
    let ValueType::Tensor { ty, shape, .. } = got else {
        return Err(interface("type", format!("{got:?}"), spec.dtype.to_string()));
    };
    if dtype_of(*ty) != Some(spec.dtype) {
        return Err(interface("type", ty.to_string(), spec.dtype.to_string()));
    }
    let fits = |(at, (dim, want)): (usize, (&i64, &usize))| match *dim {
        ..0 => true,
        // What a graph says of the first dimension of its outputs need not be so.
        _ if at == 0 && spec.free_batch => what == "output",
        dim => usize::try_from(dim) == Ok(*want),
    };
    // A graph may leave the rank of what it makes open, which is told as no dimensions.
    let is_open = shape.is_empty() && what == "output";
    let mut dims = shape.iter().zip(&spec.shape).enumerate();
    if !is_open && (shape.len() != spec.shape.len() || !dims.all(fits)) {
        return Err(interface("shape", format!("{shape:?}"), spec.to_string()));
    }
    Ok(())
}

fn dtype_of(element: TensorElementType) -> Option<Dtype> {
    Some(match element {
        TensorElementType::Bool => Dtype::Bool,
        TensorElementType::Uint8 => Dtype::U8,
        TensorElementType::Int8 => Dtype::I8,
        TensorElementType::Uint16 => Dtype::U16,
        TensorElementType::Int16 => Dtype::I16,
        TensorElementType::Uint32 => Dtype::U32,
        TensorElementType::Int32 => Dtype::I32,
        TensorElementType::Uint64 => Dtype::U64,
        TensorElementType::Int64 => Dtype::I64,
        TensorElementType::Float16 => Dtype::F16,
        TensorElementType::Float32 => Dtype::F32,
        TensorElementType::Float64 => Dtype::F64,
        TensorElementType::String => Dtype::Text,
        _ => return None,
    })
}

struct Loaded {
    runtime: &'static str,
    session: OrtSession,
    /// Runs after which what they took of memory is still given back.
    settling: u8,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
}

impl Session for Loaded {
    fn run(&mut self, inputs: &[Tensor], outputs: &mut [Tensor]) -> Result<(), RuntimeError> {
        let batch = check_tensors(&self.inputs, inputs)?;
        check_count("outputs", outputs.len(), self.outputs.len())?;
        let runtime = self.runtime;
        let Self { session, settling, inputs: specs, outputs: wanted, .. } = self;
        let failed =
            |error: ort::Error| RuntimeError::Failed { runtime, why: error.message().to_owned() };
        if *settling > 0 {
            *settling -= 1;
            let options = giving_back().map_err(failed)?;
            let named = named(specs, inputs).map_err(failed)?;
            if let Ok(given) = session.run_with_options(named, &options) {
                return give(runtime, wanted, batch, &given, outputs);
            }
            // A library may have been built without what gives back; whatever else it was shows below.
            *settling = 0;
        }
        let given = session.run(named(specs, inputs).map_err(failed)?).map_err(failed)?;
        give(runtime, wanted, batch, &given, outputs)
    }
}

/// The graph's inputs by their names.
fn named<'a>(
    specs: &'a [TensorSpec],
    tensors: &'a [Tensor],
) -> ort::Result<Vec<(&'a str, SessionInputValue<'a>)>> {
    let named = specs
        .iter()
        .zip(tensors)
        .map(|(spec, tensor)| borrowed(tensor).map(|value| (spec.name.as_str(), value)));
    named.collect()
}

/// Copies what a run gave into the caller's tensors.
fn give(
    runtime: &'static str,
    specs: &[TensorSpec],
    batch: usize,
    given: &SessionOutputs<'_>,
    outputs: &mut [Tensor],
) -> Result<(), RuntimeError> {
    for (spec, output) in specs.iter().zip(outputs) {
        let value = given.get(&spec.name).ok_or_else(|| RuntimeError::Failed {
            runtime,
            why: format!("it gave no output {}", spec.name),
        })?;
        with_type!(
            spec.dtype,
            T => copy::<T>(spec, batch, value, output),
            text => copy_texts(spec, batch, value, output)
        )?;
    }
    Ok(())
}

/// Has ONNX Runtime give back what a run took and does not hold any more.
fn giving_back() -> ort::Result<RunOptions> {
    let mut options = RunOptions::new()?;
    options.set("memory.enable_memory_arena_shrinkage", "cpu:0")?;
    Ok(options)
}

/// A tensor as ONNX Runtime takes it: numbers in place.
fn borrowed(tensor: &Tensor) -> ort::Result<SessionInputValue<'_>> {
    let shape = tensor.shape();
    with_elements!(
        tensor.elements(),
        own => TensorRef::from_array_view((shape, own.as_slice())).map(SessionInputValue::from),
        // It keeps texts in a form of its own.
        texts => OrtTensor::from_string_array((shape, texts.as_slice())).map(SessionInputValue::from)
    )
}

/// Copies what was given into the caller's tensor.
fn copy<T: Element + ort::value::PrimitiveTensorElementType>(
    spec: &TensorSpec,
    batch: usize,
    value: &DynValue,
    output: &mut Tensor,
) -> Result<(), RuntimeError> {
    let (shape, elements) = value
        .try_extract_tensor::<T>()
        .map_err(|error| wrong(spec, batch, error.message().to_owned()))?;
    take(spec, batch, shape, elements, output)
}

fn copy_texts(
    spec: &TensorSpec,
    batch: usize,
    value: &DynValue,
    output: &mut Tensor,
) -> Result<(), RuntimeError> {
    let (shape, texts) = value
        .try_extract_strings()
        .map_err(|error| wrong(spec, batch, error.message().to_owned()))?;
    take(spec, batch, shape, &texts, output)
}

fn take<T: Element>(
    spec: &TensorSpec,
    batch: usize,
    shape: &Shape,
    elements: &[T],
    output: &mut Tensor,
) -> Result<(), RuntimeError> {
    let want = spec.shape_at(batch);
    let is_same = shape.len() == want.len()
        && shape.iter().zip(&*want).all(|(got, want)| usize::try_from(*got) == Ok(*want));
    if !is_same {
        return Err(wrong(spec, batch, format!("{} {shape:?}", T::DTYPE)));
    }
    output.copy_from(&want, elements).map_err(|error| wrong(spec, batch, error.to_string()))
}

fn wrong(spec: &TensorSpec, batch: usize, got: String) -> RuntimeError {
    RuntimeError::Interface {
        what: format!("output {}", spec.name),
        got,
        want: format!("{spec} with a batch of {batch}"),
    }
}
