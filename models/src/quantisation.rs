//! Numbers as the elements of a tensor, and back: as they are, or as integers with a scale.
//!
//! **Invariant:** pure; an integer stands for (integer - zero point) * scale, and a number outside of
//! what the integers reach becomes the nearest that they do (ONNX, QuantizeLinear).

use half::f16;

use crate::tensor::{Dtype, Element, Elements, Tensor};

/// How numbers become integers and integers numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    /// The difference between two neighbouring integers, above 0.
    pub scale: f32,
    /// The integer that stands for 0.
    pub zero_point: i32,
    /// What becomes of a number between two integers.
    pub rounding: Rounding,
}

/// What becomes of a number between two integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// The nearest, of two equally near ones the even one, before the zero point is added.
    Nearest,
    /// After the zero point is added, whatever is behind the point is cut off, as some trainers' own
    /// front ends do.
    Truncate,
}

/// What numbers become in a tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Form {
    /// The tensor's elements: f32, f16, f64, i8 or u8; other types stand for themselves.
    pub dtype: Dtype,
    /// For i8 and u8, what they stand for; themselves where there is none.
    pub scale: Option<Scale>,
}

impl Form {
    /// The types that a tensor of numbers may have, by their names.
    pub const DTYPES: [(&str, Dtype); 4] =
        [("f32", Dtype::F32), ("f16", Dtype::F16), ("i8", Dtype::I8), ("u8", Dtype::U8)];

    /// The types that a tensor of anything may have, by their names.
    pub const NUMBERS: [(&str, Dtype); 13] = [
        ("f32", Dtype::F32),
        ("f16", Dtype::F16),
        ("f64", Dtype::F64),
        ("i8", Dtype::I8),
        ("u8", Dtype::U8),
        ("i16", Dtype::I16),
        ("u16", Dtype::U16),
        ("i32", Dtype::I32),
        ("u32", Dtype::U32),
        ("i64", Dtype::I64),
        ("u64", Dtype::U64),
        ("bool", Dtype::Bool),
        ("string", Dtype::Text),
    ];

    /// f32 as it is.
    pub const PLAIN: Self = Self { dtype: Dtype::F32, scale: None };

    /// Whether any number can be told in this form, rather than whole ones only.
    pub fn is_scalable(&self) -> bool {
        self.scale.is_some() || matches!(self.dtype, Dtype::F16 | Dtype::F32 | Dtype::F64)
    }

    /// The elements that these numbers become.
    pub fn elements(&self, numbers: &[f32]) -> Elements {
        let mut tensor = Tensor::zeros(&[numbers.len()], self.dtype);
        self.fill(numbers, &mut tensor);
        tensor.into_elements()
    }

    /// Replaces the elements of a tensor of this form by these numbers; as many as it has room for.
    pub fn fill(&self, numbers: &[f32], tensor: &mut Tensor) {
        let count = tensor.len().min(numbers.len());
        let numbers = &numbers[..count];
        match self.dtype {
            Dtype::F16 => set(tensor, numbers, |x| f16::from_f32(*x)),
            Dtype::I8 => set(tensor, numbers, |x| self.to_i8(*x)),
            Dtype::U8 => set(tensor, numbers, |x| self.to_u8(*x)),
            Dtype::F64 => set(tensor, numbers, |x| f64::from(*x)),
            _ => set(tensor, numbers, |x| *x),
        }
    }

    /// The numbers that a tensor of this form stands for.
    pub fn numbers(&self, tensor: &Tensor, numbers: &mut Vec<f32>) {
        numbers.clear();
        match tensor.of::<f32>() {
            Some(plain) => numbers.extend_from_slice(plain),
            None => numbers.extend(tensor.to_f32()),
        }
        if let Some(Scale { scale, zero_point, .. }) = self.scale {
            for number in numbers {
                #[allow(clippy::cast_precision_loss, reason = "a zero point is of 8 bits")]
                let zero = zero_point as f32;
                *number = (*number - zero) * scale;
            }
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "clamped before")]
    fn to_i8(self, number: f32) -> i8 {
        self.integer(number).clamp(f32::from(i8::MIN), f32::from(i8::MAX)) as i8
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped before")]
    fn to_u8(self, number: f32) -> u8 {
        self.integer(number).clamp(0.0, f32::from(u8::MAX)) as u8
    }

    fn integer(self, number: f32) -> f32 {
        let Some(Scale { scale, zero_point, rounding }) = self.scale else { return number };
        #[allow(clippy::cast_precision_loss, reason = "a zero point is of 8 bits")]
        let zero = zero_point as f32;
        match rounding {
            Rounding::Nearest => (number / scale).round_ties_even() + zero,
            Rounding::Truncate => (number / scale + zero).trunc(),
        }
    }
}

fn set<T: Element>(tensor: &mut Tensor, numbers: &[f32], element: impl Fn(&f32) -> T) {
    let elements = tensor.of_mut::<T>().unwrap_or_default();
    for (to, number) in elements.iter_mut().zip(numbers) {
        *to = element(number);
    }
}
