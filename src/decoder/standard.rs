//! Columns on a common scale: each dimension with mean 0 and deviation 1 over the training rows.
//!
//! The layers of a network, and different networks, speak at very different loudness, and an untrained one says nearly the same of
//! every image. A decoder that gets the numbers as they are must first learn the scale. The statistics belong to the run and not to the
//! column: they are those of its training rows, and the cache stays what the encoder said.

use std::{path::Path, sync::Arc};

use tch::{Kind, Tensor};

use super::{ColumnInput, DecoderError, read_tensors, write_tensors};
use crate::batch::{Access, Column, gather};

/// Rows that the statistics are taken over, at most; spread evenly over those given.
const ROWS: usize = 1024;
/// Rows fetched at once.
const AT_ONCE: usize = 64;
/// A deviation below this share of the largest is noise of rounding, and is not blown up.
const QUIET: f64 = 1e-4;

/// A column's mean and the reciprocal of its deviation, a dimension each: `[D]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Scale {
    mean: Vec<f32>,
    factor: Vec<f32>,
}

impl Scale {
    /// The scale of `column` over `rows`, of which up to 1024 are looked at.
    #[must_use]
    pub fn of(column: &Arc<dyn Column>, rows: &[u32]) -> Self {
        let _guard = tch::no_grad_guard();
        let step = rows.len().div_ceil(ROWS).max(1);
        let rows: Vec<u32> = rows.iter().copied().step_by(step).collect();
        let width = column.row_shape().last().copied().unwrap_or(1) as i64;
        let (mut count, mut sum, mut squares) = (0.0, zeros(width), zeros(width));
        for rows in rows.chunks(AT_ONCE) {
            let prefix = gather(std::slice::from_ref(column), rows);
            let vectors = &prefix.columns[0];
            let data = vectors.data.to_kind(Kind::Double); // [N, K, D]; absent rows are zero
            let there = vectors.present.as_ref().map_or(data.size()[0] * data.size()[1], |present| {
                present.to_kind(Kind::Int64).sum(Kind::Int64).int64_value(&[])
            });
            count += there as f64;
            sum += data.sum_dim_intlist([0_i64, 1].as_slice(), false, Kind::Double);
            squares += data.square().sum_dim_intlist([0_i64, 1].as_slice(), false, Kind::Double);
        }
        let mean = sum / f64::max(count, 1.0);
        let deviation = (squares / f64::max(count, 1.0) - mean.square()).clamp_min(0.0).sqrt();
        let floor = (deviation.max().double_value(&[]) * QUIET).max(1e-12);
        Self { mean: numbers(&mean), factor: numbers(&deviation.clamp_min(floor).reciprocal()) }
    }
}

fn zeros(width: i64) -> Tensor {
    Tensor::zeros([width], (Kind::Double, tch::Device::Cpu))
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    let tensor = tensor.to_kind(Kind::Float).contiguous();
    let mut numbers = vec![0.0; tensor.numel()];
    tensor.copy_data(&mut numbers, tensor.numel());
    numbers
}

/// Writes the scales of columns as a safetensors file: `NAME.mean` and `NAME.factor`, `[D]` each.
///
/// # Errors
/// When the file can't be written.
pub fn write_scales(path: &Path, inputs: &[ColumnInput], scales: &[Scale]) -> Result<(), DecoderError> {
    let tensors: Vec<Tensor> =
        scales.iter().flat_map(|scale| [&scale.mean, &scale.factor]).map(|part| Tensor::from_slice(part)).collect();
    write_tensors(path, names(inputs).into_iter().map(|(name, _)| name).zip(&tensors))
}

/// Reads what [`write_scales`] wrote for the same columns.
///
/// # Errors
/// When the file can't be read, or is that of other columns.
pub fn read_scales(path: &Path, inputs: &[ColumnInput]) -> Result<Vec<Scale>, DecoderError> {
    let tensors = read_tensors(path, &names(inputs))?;
    Ok(tensors.chunks(2).map(|pair| Scale { mean: numbers(&pair[0]), factor: numbers(&pair[1]) }).collect())
}

fn names(inputs: &[ColumnInput]) -> Vec<(String, Vec<i64>)> {
    let both =
        |input: &ColumnInput| ["mean", "factor"].map(|part| (format!("{}.{part}", input.name), vec![input.width]));
    inputs.iter().flat_map(both).collect()
}

/// A column whose rows come out scaled, as f32. Absent rows stay zero.
pub struct Standardized {
    inner: Arc<dyn Column>,
    scale: Scale,
}

impl Standardized {
    /// `inner` on `scale`, whose width must be the column's.
    #[must_use]
    pub fn new(inner: Arc<dyn Column>, scale: Scale) -> Self {
        Self { inner, scale }
    }
}

impl Column for Standardized {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn kind(&self) -> Kind {
        Kind::Float
    }

    fn row_shape(&self) -> &[usize] {
        self.inner.row_shape()
    }

    fn gather(&self, rows: &[u32], out: &mut [u8]) -> Vec<usize> {
        let _guard = tch::no_grad_guard();
        let kind = self.inner.kind();
        let numbers = out.len() / Kind::Float.elt_size_in_bytes();
        let mut bytes = vec![0; numbers * kind.elt_size_in_bytes()];
        let absent = self.inner.gather(rows, &mut bytes);
        let width = self.scale.mean.len() as i64;
        let raw = Tensor::from_data_size(&bytes, &[numbers as i64 / width, width], kind).to_kind(Kind::Float);
        let scaled = (raw - Tensor::from_slice(&self.scale.mean)) * Tensor::from_slice(&self.scale.factor);
        scaled.copy_data_u8(out, numbers);
        let row_bytes = out.len() / rows.len().max(1);
        absent.iter().for_each(|at| out[at * row_bytes..][..row_bytes].fill(0));
        absent
    }

    fn expect(&self, access: Access<'_>) {
        self.inner.expect(access);
    }

    fn counts(&self, rows: &[u32]) -> Option<Vec<usize>> {
        self.inner.counts(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::fake::Memory;

    fn column() -> Arc<dyn Column> {
        // Dimension 0 is loud, dimension 1 quiet around 5, dimension 2 constant.
        let value = |row: u32, at: usize| match at % 3 {
            0 => 100.0 * row as f32,
            1 => 5.0 + 0.01 * (row as f32 + (at / 3) as f32),
            _ => 7.0,
        };
        Arc::new(Memory { shape: vec![2, 3], absent: vec![3], value })
    }

    #[test]
    fn each_dimension_has_mean_0_and_deviation_1_and_absent_rows_stay_zero() {
        let rows: Vec<u32> = (0..12).collect();
        let scale = Scale::of(&column(), &rows);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scales.safetensors");
        let inputs = [ColumnInput::of_shape("a.b", &[2, 3])];
        write_scales(&path, &inputs, std::slice::from_ref(&scale)).unwrap();
        assert_eq!(read_scales(&path, &inputs).unwrap(), std::slice::from_ref(&scale));
        assert!(read_scales(&path, &[ColumnInput::of_shape("other", &[2, 3])]).is_err());

        let prefix = gather(&[Arc::new(Standardized::new(column(), scale)) as Arc<dyn Column>], &rows);
        let data = &prefix.columns[0].data; // [12, 2, 3]
        assert_eq!(data.get(3).abs().sum(Kind::Float).double_value(&[]), 0.0);
        let there = data.index_select(0, &Tensor::from_slice(&[0_i64, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11])).view([-1, 3]);
        for dimension in 0..2 {
            let values = there.select(1, dimension);
            assert!(values.mean(Kind::Float).double_value(&[]).abs() < 1e-4);
            assert!((values.std(false).double_value(&[]) - 1.0).abs() < 1e-3);
        }
        assert!(there.select(1, 2).abs().max().double_value(&[]) < 1e-3, "a constant stays a constant");
    }
}
