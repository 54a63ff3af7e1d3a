//! Numbers as the elements of a tensor of any type, exactly or not at all.
//!
//! **Invariant:** pure; `fill` is given only numbers that the type holds.

use half::f16;

use crate::tensor::{Dtype, Element, Tensor};

/// The largest whole number up to which f64 has them all.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Whether a type has this number: whole numbers exactly, others as the nearest that it has.
pub(crate) fn holds(dtype: Dtype, x: f64) -> bool {
    let whole = |low: f64, high: f64| x.fract() == 0.0 && (low..=high).contains(&x);
    match dtype {
        Dtype::Bool => whole(0.0, 1.0),
        Dtype::U8 => whole(0.0, f64::from(u8::MAX)),
        Dtype::I8 => whole(f64::from(i8::MIN), f64::from(i8::MAX)),
        Dtype::U16 => whole(0.0, f64::from(u16::MAX)),
        Dtype::I16 => whole(f64::from(i16::MIN), f64::from(i16::MAX)),
        Dtype::U32 => whole(0.0, f64::from(u32::MAX)),
        Dtype::I32 => whole(f64::from(i32::MIN), f64::from(i32::MAX)),
        Dtype::U64 => whole(0.0, EXACT),
        Dtype::I64 => whole(-EXACT, EXACT),
        Dtype::F16 => x.abs() <= f16::MAX.to_f64(),
        Dtype::F32 => x.abs() <= f64::from(f32::MAX),
        // As a text it can be written.
        Dtype::F64 | Dtype::Text => x.is_finite(),
    }
}

/// Replaces the elements of a tensor by these numbers; as many as it has room for.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "numbers are held")]
pub(crate) fn fill(tensor: &mut Tensor, numbers: &[f64]) {
    match tensor.dtype() {
        Dtype::Bool => set(tensor, numbers, |x| x != 0.0),
        Dtype::U8 => set(tensor, numbers, |x| x as u8),
        Dtype::I8 => set(tensor, numbers, |x| x as i8),
        Dtype::U16 => set(tensor, numbers, |x| x as u16),
        Dtype::I16 => set(tensor, numbers, |x| x as i16),
        Dtype::U32 => set(tensor, numbers, |x| x as u32),
        Dtype::I32 => set(tensor, numbers, |x| x as i32),
        Dtype::U64 => set(tensor, numbers, |x| x as u64),
        Dtype::I64 => set(tensor, numbers, |x| x as i64),
        Dtype::F16 => set(tensor, numbers, f16::from_f64),
        Dtype::F32 => set(tensor, numbers, |x| x as f32),
        Dtype::F64 => set(tensor, numbers, |x| x),
        Dtype::Text => set(tensor, numbers, |x| x.to_string()),
    }
}

fn set<T: Element>(tensor: &mut Tensor, numbers: &[f64], element: impl Fn(f64) -> T) {
    for (to, number) in tensor.of_mut().unwrap_or_default().iter_mut().zip(numbers) {
        *to = element(*number);
    }
}
