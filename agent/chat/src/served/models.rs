//! Owns `GET /v1/models` and `GET /v1/models/{model}`.
//!
//! **Invariant:** a model is told in OpenAI's form, nothing more.

use serde_json::{Value, json};

/// A model that can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelEntry {
    /// What requests call it.
    pub id: String,
    /// Who serves it.
    pub owned_by: String,
    /// Seconds of Unix time.
    pub created: u64,
}

/// The body of the list.
pub fn list(models: &[ModelEntry]) -> Vec<u8> {
    let data: Value = models.iter().map(value).collect();
    json!({ "object": "list", "data": data }).to_string().into_bytes()
}

/// The body of one.
pub fn one(model: &ModelEntry) -> Vec<u8> {
    value(model).to_string().into_bytes()
}

fn value(model: &ModelEntry) -> Value {
    json!({ "id": model.id, "object": "model", "created": model.created,
        "owned_by": model.owned_by })
}
