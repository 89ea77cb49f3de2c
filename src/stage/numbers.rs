//! A column's rows as f32, and numbers as rows, whatever the element type: the one place of the stages that knows.

use half::{bf16, f16};
use icecap_cache::{ColumnReader, Dtype};

/// Puts the numbers of a row of a tensor into `out`, which is emptied first; it stays empty where the row is missing.
pub(super) fn numbers(reader: &ColumnReader, tensor: usize, row: u32, out: &mut Vec<f32>) {
    out.clear();
    let bytes = reader.row_of(tensor, row).unwrap_or_default();
    match reader.tensors()[tensor].dtype {
        Dtype::F32 => out.extend(bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes))),
        Dtype::F16 => out.extend(bytes.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32())),
        Dtype::Bf16 => out.extend(bytes.as_chunks().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32())),
        Dtype::I8 => {
            let scale = reader.plan().scale_tensor().and_then(|scales| reader.row_of(scales, row)?.try_into().ok());
            let scale = scale.map_or(0.0, f32::from_le_bytes);
            out.extend(bytes.iter().map(|&byte| f32::from(byte.cast_signed()) * scale));
        }
    }
}

/// How large the numbers were, and what rounding did to them.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Extent {
    pub rounding: f32,
    pub largest: f32,
}

impl Extent {
    pub(super) fn and(self, other: Self) -> Self {
        Self { rounding: self.rounding.max(other.rounding), largest: self.largest.max(other.largest) }
    }
}

/// Writes numbers as `dtype`, rounded to the nearest; the error is the first that becomes infinite.
pub(super) fn narrow(values: &[f32], dtype: Dtype, out: &mut [u8]) -> Result<Extent, f32> {
    let mut extent = Extent::default();
    for (&value, out) in values.iter().zip(out.chunks_exact_mut(dtype.size_bytes())) {
        let back = match dtype {
            Dtype::F32 => {
                out.copy_from_slice(&value.to_le_bytes());
                value
            }
            Dtype::F16 => {
                let rounded = f16::from_f32(value);
                out.copy_from_slice(&rounded.to_le_bytes());
                rounded.to_f32()
            }
            Dtype::Bf16 => {
                let rounded = bf16::from_f32(value);
                out.copy_from_slice(&rounded.to_le_bytes());
                rounded.to_f32()
            }
            // A row's scale is known when all of it is: `icecap_cache::quantize` makes such rows, and nothing here asks for them.
            Dtype::I8 => return Err(value),
        };
        if back.is_infinite() {
            return Err(value);
        }
        extent = extent.and(Extent { rounding: (back - value).abs(), largest: value.abs() });
    }
    Ok(extent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_to_the_nearest_and_never_to_infinity() {
        let mut out = [0; 4];
        let extent = narrow(&[1.0, 1.0 + 1.0 / 3000.0], Dtype::F16, &mut out).unwrap();
        assert_eq!(out, [0, 0x3c, 0, 0x3c]);
        assert!((extent.rounding - 1.0 / 3000.0).abs() < 1e-6 && extent.largest > 1.0);
        assert_eq!(narrow(&[1.0, -70_000.0], Dtype::F16, &mut out).unwrap_err(), -70_000.0);
        assert!(narrow(&[-70_000.0], Dtype::F32, &mut out).is_ok());
        assert!(narrow(&[f32::MAX], Dtype::Bf16, &mut out).is_err());
    }
}
