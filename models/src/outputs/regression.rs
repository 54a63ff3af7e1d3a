//! The values of an output tensor as quantities with names.
//!
//! **Invariant:** a value is what the graph gave, times the bundle's deviation, plus its mean.

use super::{OutputError, finite};

/// How values become quantities.
#[derive(Debug, Clone, PartialEq)]
pub struct Regression {
    /// The name of each value, with its unit where it has one.
    pub labels: Vec<String>,
    /// Added at the end: one value, or one a label.
    pub mean: Vec<f32>,
    /// Multiplies before: one value, or one a label.
    pub std: Vec<f32>,
}

/// A quantity.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantity {
    /// Its name.
    pub label: String,
    /// How much, in the unit that the bundle means.
    pub value: f32,
}

impl Regression {
    /// The quantities, in the bundle's order; `out` is replaced.
    ///
    /// # Errors
    /// The values are not finite, also after scaling, or not as many as the labels.
    pub fn values(&self, values: &[f32], out: &mut Vec<f32>) -> Result<(), OutputError> {
        out.clear();
        let of = |list: &[f32], at: usize| list.get(at).or(list.first()).copied();
        out.extend(values.iter().enumerate().map(|(at, x)| {
            x * of(&self.std, at).unwrap_or(1.0) + of(&self.mean, at).unwrap_or(0.0)
        }));
        finite(out, &self.labels)
    }

    /// These values with their names.
    pub fn quantities(&self, values: &[f32]) -> Vec<Quantity> {
        let pairs = self.labels.iter().zip(values);
        pairs.map(|(label, value)| Quantity { label: label.clone(), value: *value }).collect()
    }
}
