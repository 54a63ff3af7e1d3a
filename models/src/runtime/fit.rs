//! Whether tensors are the ones that a graph takes or gives.
//!
//! **Invariant:** the one place that says so: a model, its session and whoever takes tensors from a
//! caller each tell the misfit in words of their own.

use super::TensorSpec;
use crate::tensor::Tensor;

/// How a tensor does not fit, with its place among the specs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misfit {
    /// Its elements are of another type.
    Dtype {
        /// Which.
        at: usize,
    },
    /// It has another shape.
    Shape {
        /// Which.
        at: usize,
    },
    /// Its batch is not that of the first whose batch is free.
    Batch {
        /// Which.
        at: usize,
        /// Its batch.
        got: usize,
        /// The first one.
        first: usize,
        /// That one's batch.
        want: usize,
    },
}

/// The batch that these tensors have all, 1 where none is free. There are as many as specs.
///
/// # Errors
/// The first that does not fit.
pub fn batch_of<'a>(
    specs: &[TensorSpec],
    tensors: impl IntoIterator<Item = &'a Tensor>,
) -> Result<usize, Misfit> {
    let mut all: Option<(usize, usize)> = None;
    for (at, (spec, tensor)) in specs.iter().zip(tensors).enumerate() {
        if tensor.dtype() != spec.dtype {
            return Err(Misfit::Dtype { at });
        }
        let got = spec.batch_of(tensor.shape()).ok_or(Misfit::Shape { at })?;
        match all {
            _ if !spec.free_batch => {}
            Some((first, want)) if want != got => {
                return Err(Misfit::Batch { at, got, first, want });
            }
            Some(_) => {}
            None => all = Some((at, got)),
        }
    }
    Ok(all.map_or(1, |(_, batch)| batch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Dtype;

    #[test]
    fn tensors_fit_with_one_batch_in_all_or_the_first_misfit_is_told() {
        let free =
            |name| TensorSpec { free_batch: true, ..TensorSpec::pinned(name, Dtype::F32, &[1, 3]) };
        let specs = [TensorSpec::pinned("p", Dtype::I64, &[2]), free("a"), free("b")];
        let of = |p: (&[usize], Dtype), a: &[usize], b: &[usize]| {
            let tensors = [
                Tensor::zeros(p.0, p.1),
                Tensor::zeros(a, Dtype::F32),
                Tensor::zeros(b, Dtype::F32),
            ];
            batch_of(&specs, &tensors)
        };
        let good = (&[2][..], Dtype::I64);
        assert_eq!(of(good, &[5, 3], &[5, 3]), Ok(5));
        assert_eq!(of((&[2], Dtype::I32), &[5, 3], &[5, 3]), Err(Misfit::Dtype { at: 0 }));
        assert_eq!(of((&[1, 2], Dtype::I64), &[5, 3], &[5, 3]), Err(Misfit::Shape { at: 0 }));
        assert_eq!(of(good, &[5, 4], &[5, 3]), Err(Misfit::Shape { at: 1 }));
        assert_eq!(of(good, &[0, 3], &[0, 3]), Err(Misfit::Shape { at: 1 }), "an empty batch");
        let want = Misfit::Batch { at: 2, got: 4, first: 1, want: 5 };
        assert_eq!(of(good, &[5, 3], &[4, 3]), Err(want));
        assert_eq!(batch_of(&specs[..1], &[Tensor::zeros(&[2], Dtype::I64)]), Ok(1));
    }
}
