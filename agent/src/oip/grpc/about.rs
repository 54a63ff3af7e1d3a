//! What the server and its models are, as gRPC's messages say it.
//!
//! **Invariant:** pure; a dimension that is free stands as -1.

use crate::engine;
use crate::oip::messages::{
    ConfigOutput, ConfigTensor, ModelConfig, ModelIndex, ModelMetadataResponse,
    RepositoryIndexResponse, ServerMetadataResponse, TensorMetadata,
};
use crate::oip::{EXTENSIONS, ask, dtype};

pub(super) fn server_metadata() -> ServerMetadataResponse {
    ServerMetadataResponse {
        name: "holdfast".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        extensions: EXTENSIONS.map(str::to_owned).to_vec(),
    }
}

pub(super) fn metadata(found: engine::ModelMetadata) -> ModelMetadataResponse {
    let tensor = |tensor: &engine::TensorMetadata| TensorMetadata {
        name: tensor.name.clone(),
        datatype: dtype::name(tensor.dtype).to_owned(),
        shape: ask::dims(tensor),
    };
    ModelMetadataResponse {
        inputs: found.inputs.iter().map(tensor).collect(),
        outputs: found.outputs.iter().map(tensor).collect(),
        name: found.name,
        versions: found.versions,
        platform: found.platform,
    }
}

pub(super) fn config(found: engine::ModelMetadata) -> ModelConfig {
    let input = |tensor: &engine::TensorMetadata| ConfigTensor {
        name: tensor.name.clone(),
        data_type: dtype::number(tensor.dtype),
        dims: ask::dims(tensor),
    };
    let output = |tensor: &engine::TensorMetadata| ConfigOutput {
        name: tensor.name.clone(),
        data_type: dtype::number(tensor.dtype),
        dims: ask::dims(tensor),
    };
    ModelConfig {
        name: found.name,
        platform: String::new(),
        // The shapes are whole: a free batch stands in them as -1.
        max_batch_size: 0,
        input: found.inputs.iter().map(input).collect(),
        output: found.outputs.iter().map(output).collect(),
        backend: found.platform,
    }
}

pub(super) fn index(entries: Vec<engine::ModelEntry>) -> RepositoryIndexResponse {
    let models = entries.into_iter().map(|entry| ModelIndex {
        name: entry.name,
        version: entry.version,
        state: ask::state(entry.state).to_owned(),
        reason: entry.reason,
    });
    RepositoryIndexResponse { models: models.collect() }
}
