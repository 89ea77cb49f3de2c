//! Image vectors: rows copied out of columns, and the batch's view of them as tensors.

use std::collections::HashSet;

use tch::{Device, Kind, Tensor, kind::Element};

/// How a column will be read, so that one on a disk can fetch in time and fetch nothing else.
#[derive(Debug, Clone, Copy)]
pub enum Access<'a> {
    /// From now on its rows are read in no order, each announced before: nothing is to be read ahead of a row.
    Shuffled,
    /// These rows are the next, or nearly.
    Rows(&'a [u32]),
}

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
    /// Told how it will be read. Changes no answer; a column in memory has nothing to do.
    fn expect(&self, access: Access<'_>) {
        let _ = access;
    }
    /// How many of its vectors each of `rows` really has, where that differs by row (detected regions): the first so many
    /// are there, the rest is padding. `None` where every row has all of them.
    fn counts(&self, rows: &[u32]) -> Option<Vec<usize>> {
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
        let there = |tensor: &Tensor| tensor.to_device_(device, tensor.kind(), true, false);
        self.map(|data| there(data).to_kind(Kind::Float), there)
    }

    /// The same images in another kind.
    #[must_use]
    pub fn to_kind(&self, kind: Kind) -> Self {
        self.map(|data| data.to_kind(kind), Tensor::shallow_clone)
    }

    /// The same images in page-locked memory for the GPU `device`.
    pub(super) fn pinned(&self, device: Device) -> Self {
        let pin = |tensor: &Tensor| pinned(tensor, device);
        self.map(pin, pin)
    }

    fn map(&self, data: impl Fn(&Tensor) -> Tensor, present: impl Fn(&Tensor) -> Tensor) -> Self {
        let columns = self
            .columns
            .iter()
            .map(|vectors| Vectors { data: data(&vectors.data), present: vectors.present.as_ref().map(&present) });
        Self { columns: columns.collect() }
    }
}

/// Bytes of one row of a column, as it is gathered.
pub(super) fn row_bytes(column: &dyn Column) -> usize {
    column.row_shape().iter().product::<usize>() * column.kind().elt_size_in_bytes()
}

/// Copies `rows` of every column into host tensors `[N, K, D]` of the columns' own kinds.
#[must_use]
pub fn gather(columns: &[impl AsRef<dyn Column>], rows: &[u32]) -> Prefix {
    columns.iter().for_each(|column| column.as_ref().expect(Access::Rows(rows)));
    let one = |column: &dyn Column| {
        let shape = column.row_shape();
        let width = shape.last().copied().unwrap_or(1);
        let vectors: usize = shape.iter().rev().skip(1).product();
        let row_bytes = vectors * width * column.kind().elt_size_in_bytes();
        let size = [rows.len() as i64, vectors as i64, width as i64];
        let data = Tensor::zeros(size, (column.kind(), Device::Cpu));
        if data.numel() == 0 {
            return Vectors { data, present: None };
        }
        // SAFETY: the tensor is new, contiguous and on the host, and nobody else knows it: its memory is so many bytes, all written.
        let bytes = unsafe { std::slice::from_raw_parts_mut(data.data_ptr().cast::<u8>(), rows.len() * row_bytes) };
        let absent: HashSet<usize> = column.gather(rows, bytes).into_iter().collect();
        let present = mask(&absent, column.counts(rows).as_deref(), rows.len(), vectors);
        Vectors { data, present }
    };
    Prefix { columns: columns.iter().map(|column| one(column.as_ref())).collect() }
}

/// Numbers of the host on `device`: to a GPU through page-locked memory, so that the host goes on at once.
pub fn sent<T: Element>(numbers: &[T], device: Device) -> Tensor {
    let here = Tensor::from_slice(numbers);
    if device == Device::Cpu {
        return here;
    }
    pinned(&here, device).to_device_(device, T::KIND, true, false)
}

/// A copy in page-locked memory. torch's own `pin_memory` warns of its device argument, which tch cannot leave out.
pub(super) fn pinned(tensor: &Tensor, device: Device) -> Tensor {
    tensor.internal_pin_memory(device)
}

/// The rows of a matrix `[R, C]`, on the host.
///
/// # Panics
/// Where it isn't a matrix of floats.
#[must_use]
pub fn rows_of(matrix: &Tensor) -> Vec<Vec<f32>> {
    Vec::try_from(matrix.to_device(Device::Cpu).to_kind(Kind::Float)).expect("a matrix of floats")
}

/// Which of `rows` times `vectors` are there, `[N, K]`; `None` where all are.
fn mask(absent: &HashSet<usize>, counts: Option<&[usize]>, rows: usize, vectors: usize) -> Option<Tensor> {
    let held = |at: usize| match counts {
        _ if absent.contains(&at) => 0,
        Some(counts) => counts[at].min(vectors),
        None => vectors,
    };
    let held: Vec<usize> = (0..rows).map(held).collect();
    if held.iter().all(|&held| held == vectors) {
        return None;
    }
    let mask: Vec<bool> = held.iter().flat_map(|&held| (0..vectors).map(move |vector| vector < held)).collect();
    Some(Tensor::from_slice(&mask).view([rows as i64, vectors as i64]))
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
    }
}

#[cfg(test)]
mod tests {
    use super::{fake::Memory, *};
    use std::sync::Arc;

    #[test]
    fn gathers_grids_as_vectors_and_marks_absent_rows() {
        let value = |row, at: usize| row as f32 + at as f32 / 100.0;
        let column = Memory { shape: vec![2, 2, 3], absent: vec![4], value };
        let columns: Vec<Arc<dyn Column>> = vec![Arc::new(column)];
        let prefix = gather(&columns, &[7, 4, 7]);
        assert_eq!((prefix.images(), prefix.columns[0].data.size()), (3, vec![3, 4, 3]));
        assert_eq!(prefix.columns[0].data.double_value(&[2, 3, 2]), f64::from(7.11f32));
        let present = prefix.columns[0].present.as_ref().unwrap();
        let present: Vec<bool> = Vec::try_from(present.contiguous().view(-1)).unwrap();
        assert_eq!(present, [[true; 4], [false; 4], [true; 4]].concat());
        assert!(prefix.narrow(0, 1).columns[0].data.equal(&prefix.narrow(2, 1).columns[0].data));
    }

    /// Row `r` has `r` vectors.
    struct Regions(Memory);

    impl Column for Regions {
        fn name(&self) -> &str {
            "regions"
        }
        fn kind(&self) -> Kind {
            Kind::Float
        }
        fn row_shape(&self) -> &[usize] {
            self.0.row_shape()
        }
        fn gather(&self, rows: &[u32], out: &mut [u8]) -> Vec<usize> {
            self.0.gather(rows, out)
        }
        fn counts(&self, rows: &[u32]) -> Option<Vec<usize>> {
            Some(rows.iter().map(|&row| row as usize).collect())
        }
    }

    #[test]
    fn vectors_beyond_a_rows_count_are_masked() {
        let of = |rows: &[u32]| {
            let memory = Memory { shape: vec![3, 2], absent: vec![2], value: |_, _| 1.0 };
            let columns: Vec<Arc<dyn Column>> = vec![Arc::new(Regions(memory))];
            let present = gather(&columns, rows).columns.remove(0).present;
            present.map(|present| Vec::<bool>::try_from(present.view(-1)).unwrap())
        };
        let (yes, no) = (true, false);
        // One vector, an absent row, none, and a count that is larger than the row: all of it.
        assert_eq!(of(&[1, 2, 0, 9]).unwrap(), [yes, no, no, no, no, no, no, no, no, yes, yes, yes]);
        assert_eq!(of(&[3, 3]), None, "all are there: no mask to pay for");
    }
}
