//! A column's rows as f32, whatever the element type they are kept in: the one place of the stages that knows.

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
    }
}
