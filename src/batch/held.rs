//! Columns held on the decoder's device: the rows are copied there once, and a batch is picked from them by number.
//!
//! Knows nothing of why a column is held or whether it fits: the trainer decides. One decision defended: which rows are whole is
//! remembered on the host, so that a batch of whole rows has no mask here either, and no question to the device decides it. A
//! training gives the same bytes with its columns held and not.

use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use super::{Column, Prefix, Vectors, column::row_bytes, gather, sent};

/// Bytes that are on the host at once while the columns are copied.
const CHUNK_BYTES: usize = 64 << 20;

/// One column's rows.
#[derive(Debug)]
struct Rows {
    /// `[R, K, D]`, in the column's own kind.
    data: Tensor,
    /// `[R, K]` bool on the device, and by row whether all of it are there; `None` where all rows are whole.
    present: Option<(Tensor, Vec<bool>)>,
}

/// Rows of some columns on a device.
#[derive(Debug)]
pub struct Held {
    columns: Vec<Rows>,
    /// Which rows they are, ascending.
    rows: Vec<u32>,
    device: Device,
}

impl Held {
    /// Bytes that so many rows of `columns` take.
    #[must_use]
    pub fn bytes(columns: &[Arc<dyn Column>], rows: usize) -> u64 {
        columns.iter().map(|column| row_bytes(column.as_ref()) as u64 * rows as u64).sum()
    }

    /// Copies `rows` of `columns` to `device`.
    #[must_use]
    pub fn copy(columns: &[Arc<dyn Column>], mut rows: Vec<u32>, device: Device) -> Self {
        let _guard = tch::no_grad_guard();
        rows.sort_unstable();
        rows.dedup();
        let columns = columns.iter().map(|column| Rows::copy(column, &rows, device)).collect();
        Self { columns, rows, device }
    }

    /// The columns' vectors of `rows`, each of which must be among those held.
    ///
    /// # Panics
    /// Where it isn't.
    #[must_use]
    pub fn gather(&self, rows: &[u32]) -> Prefix {
        let _guard = tch::no_grad_guard();
        let places = rows.iter().map(|row| self.rows.binary_search(row).expect("a row that is held") as i64);
        let places: Vec<i64> = places.collect();
        let there = sent(&places, self.device);
        let one = |column: &Rows| Vectors {
            data: column.data.index_select(0, &there),
            present: column
                .present
                .as_ref()
                .filter(|(_, whole)| !places.iter().all(|&place| whole[place as usize]))
                .map(|(present, _)| present.index_select(0, &there)),
        };
        Prefix { columns: self.columns.iter().map(one).collect() }
    }
}

impl Rows {
    fn copy(column: &Arc<dyn Column>, rows: &[u32], device: Device) -> Self {
        let shape = column.row_shape();
        let (count, width) = (rows.len() as i64, shape.last().copied().unwrap_or(1) as i64);
        let vectors = shape.iter().rev().skip(1).product::<usize>() as i64;
        let data = Tensor::empty([count, vectors, width], (column.kind(), device));
        let present = Tensor::ones([count, vectors], (Kind::Bool, Device::Cpu));
        let mut whole = vec![true; rows.len()];
        let at_once = (CHUNK_BYTES / row_bytes(column.as_ref()).max(1)).max(1);
        for (chunk, first) in rows.chunks(at_once).zip((0..).step_by(at_once)) {
            let read = gather(std::slice::from_ref(column), chunk).columns.remove(0);
            data.narrow(0, first as i64, chunk.len() as i64).copy_(&read.data);
            let Some(mask) = read.present else { continue };
            present.narrow(0, first as i64, chunk.len() as i64).copy_(&mask);
            for (at, whole) in whole[first..first + chunk.len()].iter_mut().enumerate() {
                *whole = mask.get(at as i64).all().int64_value(&[]) != 0;
            }
        }
        let present = (!whole.iter().all(|whole| *whole)).then(|| (present.to_device(device), whole));
        Self { data, present }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::column::fake::Memory, *};

    #[test]
    fn gives_what_the_column_gives() {
        let value = |row, at: usize| row as f32 + at as f32 / 100.0;
        let columns: Vec<Arc<dyn Column>> = vec![
            Arc::new(Memory { shape: vec![2, 2, 3], absent: vec![4], value }),
            Arc::new(Memory { shape: vec![5], absent: vec![], value }),
        ];
        assert_eq!(Held::bytes(&columns, 10), 10 * (12 + 5) * 4);
        let held = Held::copy(&columns, vec![9, 4, 7, 7, 2], Device::Cpu);
        for rows in [&[7, 2, 9][..], &[4, 9], &[4]] {
            let (found, expected) = (held.gather(rows), gather(&columns, rows));
            for (found, expected) in found.columns.iter().zip(&expected.columns) {
                assert!(found.data.equal(&expected.data));
                match (&found.present, &expected.present) {
                    (Some(found), Some(expected)) => assert!(found.equal(expected)),
                    (found, expected) => assert!(found.is_none() && expected.is_none(), "{rows:?}"),
                }
            }
        }
    }
}
