//! Several tensors as one batch, and back.
//!
//! **Invariant:** rows are never reordered: what was stacked comes back as it was, bit by bit.

use std::ops::Range;

use super::{Element, Tensor, with_type};

impl Tensor {
    /// Becomes the parts, one behind the other along the first dimension, in the memory that is
    /// there. All must be of one type, and of one shape but for the first dimension.
    ///
    /// # Errors
    /// There is no part, or one is otherwise; as its number.
    pub(crate) fn stack(&mut self, parts: &[&Self]) -> Result<(), usize> {
        let (first, rest) = parts.split_first().ok_or(0usize)?;
        let dims = first.shape().get(1..).ok_or(0usize)?;
        let is_other =
            |part: &&&Self| part.dtype() != first.dtype() || part.shape().get(1..) != Some(dims);
        if let Some(at) = rest.iter().position(|part| is_other(&part)) {
            return Err(at + 1);
        }
        let rows = parts.iter().filter_map(|part| part.shape().first()).sum();
        let mut shape = std::mem::take(&mut self.shape);
        shape.clear();
        shape.push(rows);
        shape.extend_from_slice(dims);
        with_type!(first.dtype(), T => self.join::<T>(parts), text => self.join::<String>(parts));
        self.shape = shape;
        Ok(())
    }

    /// Some rows of the first dimension, as a tensor of their own; `None` where they are not there.
    pub(crate) fn rows(&self, rows: Range<usize>) -> Option<Self> {
        let mut part = Self::zeros(&[0], self.dtype());
        self.rows_into(rows, &mut part).map(|()| part)
    }

    /// The same in the memory of `part`; `None` where they are not there.
    pub(crate) fn rows_into(&self, rows: Range<usize>, part: &mut Self) -> Option<()> {
        let (count, dims) = self.shape().split_first()?;
        let size: usize = dims.iter().product();
        if rows.start > rows.end || rows.end > *count {
            return None;
        }
        let mut shape = Vec::with_capacity(self.shape().len());
        shape.push(rows.len());
        shape.extend_from_slice(dims);
        let elements = rows.start * size..rows.end * size;
        with_type!(self.dtype(), T => self.part::<T>(&shape, elements, part), text => {
            self.part::<String>(&shape, elements, part)
        })
    }

    /// Becomes the elements of all parts, in the memory that is there.
    fn join<T: Element>(&mut self, parts: &[&Self]) {
        if T::of(&self.elements).is_none() {
            self.elements = super::Elements::empty(T::DTYPE);
        }
        if let Some(own) = T::of_mut(&mut self.elements) {
            own.clear();
            parts.iter().for_each(|part| own.extend_from_slice(part.of::<T>().unwrap_or(&[])));
        }
    }

    /// Some of its elements.
    fn part<T: Element>(
        &self,
        shape: &[usize],
        elements: Range<usize>,
        part: &mut Self,
    ) -> Option<()> {
        part.copy_from(shape, self.of::<T>()?.get(elements)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Dtype, Elements};
    use super::*;

    #[test]
    fn what_was_stacked_comes_back() {
        let tensor = |rows: usize, from: i16| {
            let count = i16::try_from(rows * 3).unwrap();
            Tensor::new(vec![rows, 3], Elements::I16((from..from + count).collect())).unwrap()
        };
        let (one, two) = (tensor(1, 5), tensor(2, 100));
        let mut all = Tensor::zeros(&[4, 4], Dtype::F32);
        all.stack(&[&one, &two]).unwrap();
        assert_eq!(all.shape(), [3, 3]);
        assert_eq!(all.of::<i16>().unwrap(), [5, 6, 7, 100, 101, 102, 103, 104, 105]);
        assert_eq!((all.rows(0..1), all.rows(1..3)), (Some(one.clone()), Some(two)));
        assert_eq!((all.rows(2..4), all.rows(0..0).map(|t| t.len())), (None, Some(0)));
        let other = Tensor::zeros(&[1, 3], Dtype::F32);
        assert_eq!(all.stack(&[&one, &one, &other]), Err(2));
        assert_eq!(all.stack(&[&one, &Tensor::zeros(&[1, 4], Dtype::I16)]), Err(1));
        assert_eq!(all.stack(&[]), Err(0));
    }
}
