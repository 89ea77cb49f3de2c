//! The columns that exist: those of a cache, and those just computed.

use std::sync::Arc;

use icecap_cache::{ColumnReader, Dtype};
use tch::Kind;

use super::Column;

/// torch's name for a column's element type.
fn kind_of(dtype: Dtype) -> Kind {
    match dtype {
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::Bf16 => Kind::BFloat16,
    }
}

/// A column of a cache, as a decoder reads it.
#[must_use]
pub fn cached(reader: ColumnReader) -> Arc<dyn Column> {
    Arc::new(reader)
}

impl Column for ColumnReader {
    fn name(&self) -> &str {
        Self::name(self)
    }

    fn kind(&self) -> Kind {
        kind_of(self.dtype())
    }

    fn row_shape(&self) -> &[usize] {
        Self::row_shape(self)
    }

    fn gather(&self, rows: &[u32], out: &mut [u8]) -> Vec<usize> {
        Self::gather(self, rows, out)
    }

    fn counts(&self, rows: &[u32]) -> Option<Vec<u32>> {
        let tensor = self.tensor("count")?;
        let of = |row: &u32| self.row_of(tensor, *row).and_then(|bytes| Some(f32::from_le_bytes(bytes.try_into().ok()?)));
        Some(rows.iter().map(|row| of(row).map_or(0, |count| count as u32)).collect())
    }
}

/// Rows that were just computed and are in no cache.
#[derive(Debug, Clone)]
pub struct HeldColumn {
    /// Its name.
    pub name: String,
    /// The element type.
    pub dtype: Dtype,
    /// The shape of a row.
    pub row_shape: Vec<usize>,
    /// The rows, one after the other.
    pub bytes: Vec<u8>,
    /// How many vectors each row has, where not all.
    pub counts: Option<Vec<u32>>,
}

impl Column for HeldColumn {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> Kind {
        kind_of(self.dtype)
    }

    fn row_shape(&self) -> &[usize] {
        &self.row_shape
    }

    fn gather(&self, rows: &[u32], out: &mut [u8]) -> Vec<usize> {
        let row_bytes = out.len() / rows.len().max(1);
        let mut absent = Vec::new();
        for (at, (row, out)) in rows.iter().zip(out.chunks_exact_mut(row_bytes.max(1))).enumerate() {
            let start = *row as usize * row_bytes;
            match self.bytes.get(start..start + row_bytes) {
                Some(bytes) => out.copy_from_slice(bytes),
                None => {
                    out.fill(0);
                    absent.push(at);
                }
            }
        }
        absent
    }

    fn counts(&self, rows: &[u32]) -> Option<Vec<u32>> {
        let counts = self.counts.as_ref()?;
        Some(rows.iter().map(|row| counts.get(*row as usize).copied().unwrap_or(0)).collect())
    }
}
