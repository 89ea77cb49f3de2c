//! Image vectors: rows copied out of columns, and the batch's view of them as tensors.

use std::collections::HashSet;

use tch::{Device, Kind, Tensor};

/// A column of the cache, seen as something that copies rows out.
pub trait Column: Send + Sync {
    /// Its name.
    fn name(&self) -> &str;
    /// The kind of its elements.
    fn kind(&self) -> Kind;
    /// A row's shape: `[D]`, `[K, D]` or `[h, w, D]`; the last is the width, the rest count vectors.
    fn row_shape(&self) -> &[usize];
    /// Copies `rows`, one after another, to `out` (exactly `rows.len()` rows of bytes). Rows that the column does not
    /// hold are zeroed; returns their positions in `rows`.
    fn gather(&self, rows: &[u32], out: &mut [u8]) -> Vec<usize>;
    /// How many of the vectors of each of `rows` there are, the first ones; nothing where it is always all of them.
    fn counts(&self, rows: &[u32]) -> Option<Vec<u32>> {
        let _ = rows;
        None
    }
}

/// One column's vectors for the images of a batch.
#[derive(Debug)]
pub struct Vectors {
    /// `[N, K, D]`; f32 once on the decoder's device.
    pub data: Tensor,
    /// `[N, K]` bool, true where there is a vector; `None` where all are there.
    pub present: Option<Tensor>,
}

/// All that is known of a batch's images: one entry a column, in the decoder's order.
#[derive(Debug)]
pub struct Prefix {
    /// The columns' vectors, `N` images each.
    pub columns: Vec<Vectors>,
}

impl Prefix {
    /// `N`, the images of the batch.
    #[must_use]
    pub fn images(&self) -> i64 {
        self.columns.first().map_or(0, |vectors| vectors.data.size()[0])
    }

    /// `count` images from `start` on, sharing the memory.
    #[must_use]
    pub fn narrow(&self, start: i64, count: i64) -> Self {
        let columns = self.columns.iter().map(|vectors| Vectors {
            data: vectors.data.narrow(0, start, count),
            present: vectors.present.as_ref().map(|mask| mask.narrow(0, start, count)),
        });
        Self { columns: columns.collect() }
    }

    /// The same images on `device`, as f32. The halves cross the bus; widening happens over there.
    #[must_use]
    pub fn to_device(&self, device: Device) -> Self {
        let columns = self.columns.iter().map(|vectors| Vectors {
            data: vectors.data.to_device(device).to_kind(Kind::Float),
            present: vectors.present.as_ref().map(|mask| mask.to_device(device)),
        });
        Self { columns: columns.collect() }
    }
}

/// Copies `rows` of every column into host tensors `[N, K, D]` of the columns' own kinds.
#[must_use]
pub fn gather(columns: &[impl AsRef<dyn Column>], rows: &[u32]) -> Prefix {
    let one = |column: &dyn Column| {
        let shape = column.row_shape();
        let width = shape.last().copied().unwrap_or(1);
        let vectors: usize = shape.iter().rev().skip(1).product();
        let row_bytes = vectors * width * column.kind().elt_size_in_bytes();
        let mut bytes = vec![0; rows.len() * row_bytes];
        let absent: HashSet<usize> = column.gather(rows, &mut bytes).into_iter().collect();
        let size = [rows.len() as i64, vectors as i64, width as i64];
        let counts = column.counts(rows);
        let there = |at: usize| match &counts {
            _ if absent.contains(&at) => 0,
            Some(counts) => vectors.min(counts[at] as usize),
            None => vectors,
        };
        let there: Vec<usize> = (0..rows.len()).map(there).collect();
        let present = there.iter().any(|there| *there < vectors).then(|| {
            let mask: Vec<bool> = there.iter().flat_map(|there| (0..vectors).map(move |at| at < *there)).collect();
            Tensor::from_slice(&mask).view([size[0], size[1]])
        });
        Vectors { data: Tensor::from_data_size(&bytes, &size, column.kind()), present }
    };
    Prefix { columns: columns.iter().map(|column| one(column.as_ref())).collect() }
}

#[cfg(test)]
pub(crate) mod fake {
    //! A column that lives in memory.
    use super::*;

    /// Rows of seeded f32 numbers, some of them absent.
    pub struct Memory {
        /// Shape of a row.
        pub shape: Vec<usize>,
        /// Rows the column does not hold.
        pub absent: Vec<u32>,
        /// What row `r` holds: a function of the row and the position in it.
        pub value: fn(u32, usize) -> f32,
        /// How many vectors each row has, where not all.
        pub counts: Option<fn(u32) -> u32>,
    }

    impl Column for Memory {
        fn name(&self) -> &str {
            "memory"
        }
        fn kind(&self) -> Kind {
            Kind::Float
        }
        fn row_shape(&self) -> &[usize] {
            &self.shape
        }
        fn gather(&self, rows: &[u32], out: &mut [u8]) -> Vec<usize> {
            let numbers: usize = self.shape.iter().product();
            for (row, out) in rows.iter().zip(out.chunks_exact_mut(4 * numbers)) {
                for (at, out) in out.chunks_exact_mut(4).enumerate() {
                    let value = if self.absent.contains(row) { 0.0 } else { (self.value)(*row, at) };
                    out.copy_from_slice(&value.to_le_bytes());
                }
            }
            (0..rows.len()).filter(|&at| self.absent.contains(&rows[at])).collect()
        }
        fn counts(&self, rows: &[u32]) -> Option<Vec<u32>> {
            self.counts.map(|count| rows.iter().map(|row| count(*row)).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{fake::Memory, *};
    use std::sync::Arc;

    #[test]
    fn gathers_grids_as_vectors_and_marks_absent_rows() {
        let value = |row, at: usize| row as f32 + at as f32 / 100.0;
        let column = Memory { shape: vec![2, 2, 3], absent: vec![4], value, counts: None };
        let columns: Vec<Arc<dyn Column>> = vec![Arc::new(column)];
        let prefix = gather(&columns, &[7, 4, 7]);
        assert_eq!((prefix.images(), prefix.columns[0].data.size()), (3, vec![3, 4, 3]));
        assert_eq!(prefix.columns[0].data.double_value(&[2, 3, 2]), f64::from(7.11f32));
        let present = prefix.columns[0].present.as_ref().unwrap();
        let present: Vec<bool> = Vec::try_from(present.contiguous().view(-1)).unwrap();
        assert_eq!(present, [[true; 4], [false; 4], [true; 4]].concat());
        assert!(prefix.narrow(0, 1).columns[0].data.equal(&prefix.narrow(2, 1).columns[0].data));
    }

    #[test]
    fn vectors_behind_the_count_are_marked_absent() {
        let column = Memory { shape: vec![3, 2], absent: vec![5], value: |_, _| 1.0, counts: Some(|row| row) };
        let columns: Vec<Arc<dyn Column>> = vec![Arc::new(column)];
        let mask = |rows: &[u32]| gather(&columns, rows).columns.remove(0).present;
        let present = Vec::<bool>::try_from(mask(&[2, 5, 3]).unwrap().view(-1)).unwrap();
        assert_eq!(present, [true, true, false, false, false, false, true, true, true]);
        assert!(mask(&[3, 3]).is_none(), "all are there");
    }
}
