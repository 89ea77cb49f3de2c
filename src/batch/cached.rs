//! The columns that exist: those of a cache, and those just computed.
//!
//! Knows how a cache stores numbers, so that nobody behind it has to: an i8 column is read as f32, each row by its scale.

use std::sync::Arc;

use icecap_cache::{ColumnReader, Dtype, dequantize};
use tch::Kind;

use super::{Access, Column};

/// The tensor of a column that says how many vectors a row really has.
const COUNT: &str = "count";

/// The kind in which a column of this element type is read.
fn kind_of(dtype: Dtype) -> Kind {
    match dtype {
        Dtype::F32 | Dtype::I8 => Kind::Float,
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
        match self.plan().scale_tensor() {
            None => Self::gather(self, rows, out),
            Some(scales) => gather_scaled(self, scales, rows, out),
        }
    }

    fn expect(&self, access: Access<'_>) {
        match access {
            Access::Shuffled => self.advise_random(),
            Access::Rows(rows) => self.prefetch_rows(rows),
        }
    }

    /// By the tensor `count`, f32 and one number a row, where the column has one.
    fn counts(&self, rows: &[u32]) -> Option<Vec<usize>> {
        let tensor = self.tensor(COUNT).filter(|&at| self.tensors()[at].row_bytes() == 4)?;
        let count = |&row: &u32| {
            let number = self.row_of(tensor, row).and_then(|bytes| bytes.try_into().ok());
            number.map_or(0, |bytes| f32::from_le_bytes(bytes) as usize)
        };
        (self.tensors()[tensor].dtype == Dtype::F32).then(|| rows.iter().map(count).collect())
    }
}

/// Rows of an i8 column as f32; `scales` is the tensor of its scales.
fn gather_scaled(column: &ColumnReader, scales: usize, rows: &[u32], out: &mut [u8]) -> Vec<usize> {
    let row_bytes = column.row_bytes();
    let (mut q, mut scale) = (vec![0; rows.len() * row_bytes], vec![0; 4 * rows.len()]);
    let absent = column.gather(rows, &mut q);
    column.gather_of(scales, rows, &mut scale);
    let rows = q.chunks_exact(row_bytes).zip(scale.as_chunks::<4>().0).zip(out.chunks_exact_mut(4 * row_bytes));
    rows.for_each(|((q, scale), out)| dequantize(q, f32::from_le_bytes(*scale), out));
    absent
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
    pub counts: Option<Vec<usize>>,
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

    fn counts(&self, rows: &[u32]) -> Option<Vec<usize>> {
        let counts = self.counts.as_ref()?;
        Some(rows.iter().map(|row| counts.get(*row as usize).copied().unwrap_or(0)).collect())
    }
}

#[cfg(test)]
mod tests {
    use icecap_cache::{Cache, ColumnSpec, Key, Overwrite, RowOutcome, RowRecord};

    use super::*;

    #[test]
    fn an_i8_column_is_read_as_the_numbers_it_means() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut cache = Cache::create_or_open(folder.path().join("cache"), &serde_json::json!({})).expect("a cache");
        let record = |row: u32| RowRecord { id: row.to_string(), split: "train".into(), ..RowRecord::default() };
        cache.sync_rows((0..3).map(record)).expect("rows");
        let spec = ColumnSpec::new("scaled", Key::new(), Dtype::I8, [2]).with_batch_rows(4);
        let writer = cache.writer(&spec, Overwrite::No).expect("a writer");
        let mut slot = writer.slot(&writer.todo_batches()[0]).expect("a slot");
        for (row, numbers) in [(0, [127.0f32, -3.2]), (1, [0.0, 0.0]), (2, [-2.54, 1.27])] {
            let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
            assert!(slot.quantize_row(row, &bytes).expect("a row"));
        }
        let present = RowOutcome::Present { content: [1; 16] };
        let missing = RowOutcome::Missing { reason: icecap_cache::Reason::Empty, detail: String::new(), content: None };
        writer.commit(slot, &[present.clone(), missing, present]).expect("a commit");
        writer.finish().expect("a column");
        let column = cached(cache.column("scaled").expect("the column"));
        assert_eq!((column.kind(), column.row_shape()), (Kind::Float, &[2][..]));
        let mut out = vec![9; 3 * 8];
        assert_eq!(column.gather(&[2, 1, 0], &mut out), [1]);
        let read: Vec<f32> = out.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let scale = 2.54f32 / 127.0;
        assert_eq!(read, [-127.0 * scale, 64.0 * scale, 0.0, 0.0, 127.0, -3.0]);
    }

    #[test]
    fn a_column_with_a_count_says_how_many_vectors_each_row_has() {
        let folder = tempfile::tempdir().unwrap();
        let mut cache = Cache::create_or_open(folder.path().join("cache"), &"test".into()).unwrap();
        let record = |row: u32| RowRecord { id: row.to_string(), ..RowRecord::default() };
        cache.sync_rows((0..3).map(record)).unwrap();
        let spec = ColumnSpec::new("regions", Key::new(), Dtype::F16, [2, 1]);
        let writer = cache.writer(&spec.with_tensor(COUNT, Dtype::F32, [1]).with_batch_rows(3), Overwrite::No).unwrap();
        let mut slot = writer.slot(&writer.todo_batches()[0]).unwrap();
        let counts: Vec<u8> = [2.0_f32, 1.0, 0.0].iter().flat_map(|count| count.to_le_bytes()).collect();
        slot.write_batch(1, &counts).unwrap();
        writer.commit(slot, &vec![RowOutcome::Present { content: [1; 16] }; 3]).unwrap();
        writer.finish().unwrap();
        let column = cached(cache.column("regions").unwrap());
        assert_eq!(column.counts(&[1, 0, 2, 1]), Some(vec![1, 2, 0, 1]));
    }
}
