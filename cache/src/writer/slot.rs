//! The place of one batch in a mapped shard.
//!
//! A slot owns its rows: the writer hands a batch out once, so two slots never overlap, and the bytes of a batch that has
//! only some rows to do are reached row by row, so that rows done before are never touched.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::{Batch, COMMITTED, FREE, RowOutcome};
use crate::error::{CacheError, Result};
use crate::layout::Region;
use crate::quantize::quantize;
use crate::shard::Draft;
use crate::{ColumnPlan, Rows};

/// The bytes of a batch in the mapped shard, to be filled and given to [`super::ColumnWriter::commit`].
#[derive(Debug)]
pub struct Slot<'w> {
    batch: &'w Batch,
    state: &'w AtomicU8,
    plan: &'w ColumnPlan,
    draft: Arc<Draft>,
    /// First row of the shard.
    first_row: u32,
}

impl<'w> Slot<'w> {
    pub(super) fn new(batch: &'w Batch, state: &'w AtomicU8, plan: &'w ColumnPlan, draft: Arc<Draft>) -> Self {
        let first_row = plan.first_row(plan.shard_of(batch.start));
        Self { batch, state, plan, draft, first_row }
    }

    /// The batch.
    pub fn batch(&self) -> &'w Batch {
        self.batch
    }

    /// Whether every row of a full batch is to do, so that its bytes are one block.
    pub fn is_whole(&self) -> bool {
        self.batch.rows.len() == self.plan.batch_rows as usize
    }

    /// The bytes of the first tensor, `batch_rows * row_bytes` of them, where the batch [is whole](Slot::is_whole).
    pub fn whole_mut(&mut self) -> Option<&mut [u8]> {
        self.wholes_mut()?.into_iter().next()
    }

    /// The bytes of every tensor, in the order of the column, where the batch [is whole](Slot::is_whole).
    pub fn wholes_mut(&mut self) -> Option<Vec<&mut [u8]>> {
        let (start, rows) = (self.batch.start, self.plan.batch_rows);
        // SAFETY: the slices are of different tensors, and no other access is made while `self` is borrowed for them.
        self.is_whole()
            .then(|| self.draft.layout.tensors.iter().map(|region| unsafe { self.raw(*region, start, rows) }).collect())
    }

    /// The bytes of a row in a tensor, where the row is one to do and the tensor is there.
    pub fn row_mut(&mut self, tensor: usize, row: u32) -> Option<&mut [u8]> {
        self.batch.rows.binary_search(&row).ok()?;
        let region = *self.draft.layout.tensors.get(tensor)?;
        // SAFETY: the slice borrows `self` mutably, so it is the only one of this slot.
        Some(unsafe { self.raw(region, row, 1) })
    }

    /// Copies a row of the first tensor in.
    ///
    /// # Errors
    /// When the row is not one to do, or `bytes` are not `row_bytes`.
    pub fn write_row(&mut self, row: u32, bytes: &[u8]) -> Result<()> {
        let start = self.batch.start;
        let target = self.row_mut(0, row).ok_or(CacheError::RowNotInBatch { row, start })?;
        if target.len() != bytes.len() {
            return Err(self.byte_count(0, self.plan.row_bytes(), bytes.len()));
        }
        self.row_mut(0, row).into_iter().for_each(|target| target.copy_from_slice(bytes));
        Ok(())
    }

    /// Writes a row of an i8 column and its scale, from the row as `f32` (little-endian bytes). Returns whether it could: not where
    /// an element is not finite, see [`crate::quantize()`]; the row's bytes hold no promise then.
    ///
    /// # Errors
    /// When the row is not one to do, the column is not i8, or `bytes` are not four an element.
    pub fn quantize_row(&mut self, row: u32, bytes: &[u8]) -> Result<bool> {
        let start = self.batch.start;
        let expected = 4 * self.plan.row_bytes();
        let Some(scales) = self.plan.scale_tensor().filter(|_| bytes.len() == expected) else {
            return Err(self.byte_count(0, expected, bytes.len()));
        };
        let target = self.row_mut(0, row).ok_or(CacheError::RowNotInBatch { row, start })?;
        let scale = quantize(bytes, target);
        let place = self.row_mut(scales, row).ok_or(CacheError::RowNotInBatch { row, start })?;
        place.copy_from_slice(&scale.unwrap_or_default().to_le_bytes());
        Ok(scale.is_some())
    }

    /// Copies in the rows to do of a padded batch, `batch_rows * row_bytes` bytes of a tensor. What the rows done before and
    /// the padding hold is ignored.
    ///
    /// # Errors
    /// When there is no such tensor, or `bytes` are not as many.
    pub fn write_batch(&mut self, tensor: usize, bytes: &[u8]) -> Result<()> {
        let row_bytes = self.plan.tensors.get(tensor).map_or(0, crate::TensorSpec::row_bytes);
        let expected = row_bytes * self.plan.batch_rows as usize;
        if expected == 0 || bytes.len() != expected {
            return Err(self.byte_count(tensor, expected, bytes.len()));
        }
        let batch = self.batch;
        for &row in &batch.rows {
            let at = (row - batch.start) as usize * row_bytes;
            if let Some(target) = self.row_mut(tensor, row) {
                target.copy_from_slice(&bytes[at..at + row_bytes]);
            }
        }
        Ok(())
    }

    /// Writes what the outcomes say: status and content of every row, zeros for the bytes of missing ones.
    pub(super) fn record(&mut self, outcomes: &[RowOutcome], rows: &Rows) -> Result<()> {
        let (start, expected, found) = (self.batch.start, self.batch.rows.len(), outcomes.len());
        if expected != found {
            return Err(CacheError::OutcomeCount { start, expected, found });
        }
        for (&row, outcome) in self.batch.rows.iter().zip(outcomes) {
            let missing = matches!(outcome, RowOutcome::Missing { .. });
            for tensor in (0..self.plan.tensors.len()).filter(|_| missing) {
                self.row_mut(tensor, row).into_iter().for_each(|bytes| bytes.fill(0));
            }
            // A row that is gone was not tried: it must not pass for one that was when it is back.
            let known = rows.content(row).filter(|_| !rows.is_gone(row));
            let (content, status) = (self.draft.layout.content, self.draft.layout.status);
            // SAFETY: both slices are used and gone before the next one, under `&mut self`.
            unsafe { self.raw(content, row, 1) }.copy_from_slice(&outcome.content(known));
            // SAFETY: as above.
            unsafe { self.raw(status, row, 1) }.fill(outcome.status());
        }
        Ok(())
    }

    /// Marks the batch as committed and lets go of the shard.
    pub(super) fn committed(self) {
        self.state.store(COMMITTED, Ordering::Release);
    }

    /// Whether the slot is of the writer with this plan.
    pub(super) fn is_of(&self, plan: &ColumnPlan) -> bool {
        std::ptr::eq(self.plan, plan)
    }

    /// The bytes of `rows` rows from `row` on.
    ///
    /// # Safety
    /// The rows are this batch's, and no other slice of them is in use.
    #[expect(clippy::mut_from_ref, reason = "the bytes are in the map that all slots share, not in the slot")]
    unsafe fn raw(&self, region: Region, row: u32, rows: u32) -> &mut [u8] {
        // SAFETY: a batch is in one slot at a time (its state is taken by a compare-and-swap), batches are disjoint ranges of
        // rows, and so are their bytes in each region; the map's committer only syncs, it never reads or writes bytes. Within
        // this slot the caller excludes a second slice.
        unsafe { self.draft.map.slice_mut(region.range(row - self.first_row, rows)) }
    }

    fn byte_count(&self, tensor: usize, expected: usize, found: usize) -> CacheError {
        let tensor = self.plan.tensors.get(tensor).map_or_else(|| format!("#{tensor}"), |tensor| tensor.name.clone());
        CacheError::ByteCount { tensor, start: self.batch.start, expected, found }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        // A committed slot stays so; one that was given up can be taken again.
        let _ = self.state.compare_exchange(super::TAKEN, FREE, Ordering::AcqRel, Ordering::Acquire);
    }
}
