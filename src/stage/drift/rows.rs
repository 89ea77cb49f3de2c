//! A column's rows as the numbers that are compared.

use icecap_cache::{ColumnReader, Dtype};

use crate::stage::numbers::numbers;

/// What of two rows is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// All numbers: the rows have as many vectors of one width.
    Whole,
    /// The means of their vectors: one width, different numbers of vectors.
    Means,
    /// Nothing, number by number: the widths differ.
    Unlike,
}

impl How {
    /// By the shapes of rows, of which the last is the width.
    pub fn of(one: &[usize], two: &[usize]) -> Self {
        let numbers = |shape: &[usize]| shape.iter().product::<usize>();
        match (one.last() == two.last(), numbers(one) == numbers(two)) {
            (true, true) => Self::Whole,
            (true, false) => Self::Means,
            (false, _) => Self::Unlike,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Whole => "rows",
            Self::Means => "means",
            Self::Unlike => "none",
        }
    }
}

/// Room for a row.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    row: Vec<f32>,
    mean: Vec<f32>,
}

/// The rows of a column.
pub(super) struct Rows<'a> {
    reader: &'a ColumnReader,
    how: How,
    width: usize,
    /// The tensor that says how many vectors a row has.
    count: Option<usize>,
}

impl<'a> Rows<'a> {
    pub fn new(reader: &'a ColumnReader, how: How) -> Self {
        let count = reader.tensor("count").filter(|&at| {
            let tensor = &reader.tensors()[at];
            tensor.dtype == Dtype::F32 && tensor.row_bytes() == 4
        });
        Self { reader, how, width: reader.row_shape().last().copied().unwrap_or(1), count }
    }

    /// What is compared of a row.
    pub fn numbers<'s>(&self, row: u32, scratch: &'s mut Scratch) -> &'s [f32] {
        numbers(self.reader, 0, row, &mut scratch.row);
        if self.how == How::Whole {
            return &scratch.row;
        }
        self.mean(row, scratch)
    }

    /// The mean of the vectors that a row has, `[D]`.
    pub fn mean_of<'s>(&self, row: u32, scratch: &'s mut Scratch) -> &'s [f32] {
        numbers(self.reader, 0, row, &mut scratch.row);
        self.mean(row, scratch)
    }

    fn mean<'s>(&self, row: u32, scratch: &'s mut Scratch) -> &'s [f32] {
        let vectors = scratch.row.len() / self.width.max(1);
        let held = self.held(row).unwrap_or(vectors).min(vectors);
        scratch.mean.clear();
        scratch.mean.resize(self.width, 0.0);
        for vector in scratch.row.chunks_exact(self.width).take(held) {
            scratch.mean.iter_mut().zip(vector).for_each(|(sum, number)| *sum += number);
        }
        scratch.mean.iter_mut().for_each(|sum| *sum /= held.max(1) as f32);
        &scratch.mean
    }

    fn held(&self, row: u32) -> Option<usize> {
        let bytes = self.reader.row_of(self.count?, row)?;
        Some(f32::from_le_bytes(bytes.try_into().ok()?) as usize)
    }

    /// `D`.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Takes rows off this process's resident memory.
    pub fn release(&self, rows: impl Iterator<Item = u32>) {
        self.reader.release_rows(&rows.collect::<Vec<_>>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_width_can_be_compared() {
        assert_eq!(How::of(&[49, 8], &[49, 8]), How::Whole);
        assert_eq!(How::of(&[7, 7, 8], &[49, 8]), How::Whole);
        assert_eq!(How::of(&[8], &[49, 8]), How::Means);
        assert_eq!(How::of(&[8], &[16]), How::Unlike);
        assert_eq!(How::of(&[4, 4], &[16]), How::Unlike);
    }
}
