//! Collecting rows into one buffer, in the order they are asked for: what a batch of training is made of.
//!
//! Rows are copied in runs by rayon when there is enough to copy, by the calling thread when there is not: below a few
//! hundred kilobytes, waking another thread costs more than the copy.

use rayon::prelude::*;

use crate::ColumnReader;
use crate::map::load_soon;

/// Bytes from which on it pays to wake other threads.
const PARALLEL_BYTES: usize = 2 << 20;
/// How far ahead rows are loaded. A random row is in no cache, and the processor's own prefetching starts anew with each:
/// without this, rows of 2.5 kB are copied at half of memcpy's rate, with it at nine tenths.
const AHEAD_BYTES: usize = 64 << 10;
/// Bytes one task copies.
const TASK_BYTES: usize = 1 << 20;

impl ColumnReader {
    /// Copies `rows` of the first tensor to `out`, one after the other, and returns the positions in `rows` of those that
    /// are missing: their bytes in `out` are zero.
    ///
    /// # Panics
    /// When `out` is not `rows.len() * row_bytes` bytes, or a row is outside of the column.
    pub fn gather(&self, rows: &[u32], out: &mut [u8]) -> Vec<usize> {
        self.gather_of(0, rows, out)
    }

    /// [`ColumnReader::gather`] from any tensor.
    ///
    /// # Panics
    /// When there is no such tensor, and as `gather`.
    pub fn gather_of(&self, tensor: usize, rows: &[u32], out: &mut [u8]) -> Vec<usize> {
        let row_bytes = self.tensors()[tensor].row_bytes();
        assert_eq!(
            out.len(),
            rows.len() * row_bytes,
            "`out` must have `{row_bytes}` bytes for each of {} rows",
            rows.len()
        );
        if out.len() < PARALLEL_BYTES {
            return self.copy_rows(tensor, rows, out, 0);
        }
        let task_rows = (TASK_BYTES / row_bytes).max(1);
        let tasks = rows.par_chunks(task_rows).zip(out.par_chunks_mut(task_rows * row_bytes)).enumerate();
        let missing: Vec<Vec<usize>> =
            tasks.map(|(at, (rows, out))| self.copy_rows(tensor, rows, out, at * task_rows)).collect();
        missing.concat()
    }

    fn copy_rows(&self, tensor: usize, rows: &[u32], out: &mut [u8], first: usize) -> Vec<usize> {
        let row_bytes = self.tensors()[tensor].row_bytes();
        let ahead = (AHEAD_BYTES / row_bytes).clamp(1, 32);
        let soon = |row: &u32| self.row_of(tensor, *row).into_iter().for_each(load_soon);
        rows.iter().take(ahead).for_each(soon);
        let mut missing = Vec::new();
        for (at, (&row, target)) in rows.iter().zip(out.chunks_exact_mut(row_bytes)).enumerate() {
            rows.get(at + ahead).into_iter().for_each(soon);
            if let Some(bytes) = self.row_of(tensor, row) {
                target.copy_from_slice(bytes);
                continue;
            }
            assert!(row < self.len(), "row `{row}` is outside of column `{}` of {} rows", self.name(), self.len());
            target.fill(0);
            missing.push(first + at);
        }
        missing
    }

    /// Tells the kernel that rows will be read in no order, so that it does not read ahead of each. For columns larger than
    /// memory.
    pub fn advise_random(&self) {
        for shard in self.shards.iter().flatten() {
            shard.map().read_in_no_order();
        }
    }

    /// Asks the kernel to read the pages of some rows in the background: those of the next batch. Neighbours that follow one
    /// another in `rows` are asked for at once.
    pub fn prefetch_rows(&self, rows: &[u32]) {
        let plan = self.plan();
        let follows = |&row: &u32, &next: &u32| {
            row.checked_add(1) == Some(next) && next < self.len() && plan.shard_of(next) == plan.shard_of(row)
        };
        for run in rows.chunk_by(follows).filter(|run| run[0] < self.len()) {
            let number = plan.shard_of(run[0]);
            let Some(shard) = self.shards.get(number).and_then(Option::as_ref) else {
                continue;
            };
            let local = run[0] - plan.first_row(number);
            for region in &shard.layout.tensors {
                shard.map().read_soon(region.range(local, run.len() as u32));
            }
        }
    }

    /// Takes the pages of some rows off this process's resident memory: for a pass over a column larger than memory.
    pub fn release_rows(&self, rows: &[u32]) {
        for &row in rows.iter().filter(|&&row| row < self.len()) {
            let shard = self.plan().shard_of(row);
            if let Some(shard) = self.shards.get(shard).and_then(Option::as_ref) {
                let local = row - self.plan().first_row(self.plan().shard_of(row));
                shard.layout.tensors.iter().for_each(|region| shard.map().release(region.range(local, 1)));
            }
        }
    }
}
