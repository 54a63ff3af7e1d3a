//! Owns `POST /v1/embeddings`.
//!
//! **Invariant:** inputs are texts; as many vectors are answered as there were inputs.

use super::Refusal;
use crate::vectors::Vectors;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedVectors {
    /// A bundle, a destination's model or a route.
    pub model: String,
    /// 1 to 2048 texts, none empty.
    pub inputs: Vec<String>,
    /// So many numbers in each vector.
    pub dimensions: Option<u32>,
    /// How the numbers are written.
    pub encoding: Encoding,
    /// The end user, as the caller calls them.
    pub user: Option<String>,
}

/// How the numbers of a vector are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// A list of numbers.
    #[default]
    Float,
    /// Little-endian f32 in base64.
    Base64,
}

/// What the body of a request asks.
///
/// # Errors
/// The first field that cannot be honoured, by its path.
pub fn read(body: &[u8]) -> Result<AskedVectors, Refusal> {
    let _ = body;
    Err(Refusal { param: None, code: "invalid_json", message: "nothing is read yet".to_owned() })
}

/// The body of the response; `model` is the model as the caller knows it.
pub fn answer(model: &str, vectors: &Vectors, encoding: Encoding) -> Vec<u8> {
    let _ = (model, vectors, encoding);
    Vec::new()
}
