//! Owns embeddings: what is asked of each provider that has them, and what comes back.
//!
//! **Invariant:** as many vectors come back as there were inputs, in their order, or none do.

use crate::conversation::Usage;

/// Embeddings.
#[derive(Debug, Clone, PartialEq)]
pub struct Vectors {
    /// The model, as the provider calls it; empty where it does not say.
    pub model: String,
    /// One for each input, in their order.
    pub vectors: Vec<Vec<f32>>,
    /// What was counted, if anything was.
    pub usage: Option<Usage>,
}
