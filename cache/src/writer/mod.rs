//! Writing a column: batches handed out, rows written in place, commits journalled, shards finished.
//!
//! Knows nothing of what computes the rows. Threads fill disjoint slots of the mapped shards and commit them; one thread of
//! the writer's own syncs, journals and seals, so that a commit costs the caller no disk access. Only
//! [`ColumnWriter::finish`] publishes: a writer that is dropped leaves a column to be resumed.

mod committer;
pub(crate) mod finish;
pub(crate) mod history;
mod plan;
mod replace;
mod resume;
mod slot;
mod survey;
mod work;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::columns::Lock;
use crate::error::{CacheError, Result};
use crate::layout::shard_bytes;
use crate::missing::{Missing, MissingMap};
use crate::publish::ContentHash;
use crate::{ColumnPlan, ColumnSpec, Manifest, Part, Reason, Rows};
use committer::{Committed, Committer};
use finish::Existing;
pub(crate) use plan::tensors;
pub(crate) use replace::{Superseded, superseded};
pub use slot::Slot;
use work::Shared;

/// Rows to compute together: those of `start..start + batch_rows` that are not done yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// First row, a multiple of the rows a batch.
    pub start: u32,
    /// The rows to do, in order; at least one.
    pub rows: Vec<u32>,
}

/// What became of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowOutcome {
    /// Its bytes are in the slot.
    Present {
        /// Content hash of the image file it was computed from, see [`crate::content_hash`].
        content: ContentHash,
    },
    /// There is no embedding.
    Missing {
        /// Why, as a class.
        reason: Reason,
        /// Why, in words. The same failure must give the same words, or two runs differ.
        detail: String,
        /// Content hash of the image file, where it could be read.
        content: Option<ContentHash>,
    },
}

/// How far a writer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriterProgress {
    /// Rows of the column, or of the part of it that is written.
    pub rows: u32,
    /// Rows that were to do when the writer was opened.
    pub todo: u32,
    /// Rows committed since.
    pub committed: u32,
    /// Rows of those that are missing.
    pub missing: u32,
}

/// What [`ColumnWriter::open`] needs.
pub(crate) struct WriterRequest<'a> {
    /// The folder of all columns.
    pub columns: &'a Path,
    pub rows: &'a Arc<Rows>,
    pub spec: &'a ColumnSpec,
}

const FREE: u8 = 0;
const TAKEN: u8 = 1;
const COMMITTED: u8 = 2;

/// Writes one column. All methods but [`ColumnWriter::finish`] may be called from several threads at once.
#[derive(Debug)]
pub struct ColumnWriter {
    shared: Arc<Shared>,
    todo: Vec<Batch>,
    /// One a batch of `todo`: free, taken or committed.
    states: Vec<AtomicU8>,
    todo_rows: u32,
    committed: AtomicU32,
    missing: AtomicU32,
    /// Missing rows of the whole column so far, by the name of the reason.
    by_reason: Mutex<BTreeMap<String, u32>>,
    committer: Committer,
    existing: Existing,
    rows: Arc<Rows>,
    /// Rows that the data set still holds.
    held: u32,
    _lock: Lock,
}

impl ColumnWriter {
    /// The caller holds the cache's lock.
    pub(crate) fn open(request: &WriterRequest<'_>) -> Result<Self> {
        let resumed = resume::resume(request)?;
        let shared = Arc::new(resumed.shared);
        let by_reason = Mutex::new(known_missing(&resumed.missing, &resumed.todo, request.rows));
        let committer = Committer::start(Arc::clone(&shared), resumed.journal, resumed.missing);
        Ok(Self {
            states: resumed.todo.iter().map(|_| AtomicU8::new(FREE)).collect(),
            todo_rows: resumed.todo.iter().map(|batch| batch.rows.len() as u32).sum(),
            todo: resumed.todo,
            shared,
            committed: AtomicU32::new(0),
            missing: AtomicU32::new(0),
            by_reason,
            committer,
            existing: resumed.existing,
            rows: Arc::clone(request.rows),
            held: resumed.held,
            _lock: resumed.lock,
        })
    }

    /// What is being written.
    pub fn plan(&self) -> &ColumnPlan {
        &self.shared.plan
    }

    /// Who wrote the rows that were there already ([`ColumnSpec::with_writer`]), each once. `null` is one who did not say, an object
    /// that is no writer's the provenance of a column from before writers were listed.
    pub fn writers_before(&self) -> &[Value] {
        &self.existing.writers_before
    }

    /// The batches to do, in order of rows. They were when the writer was opened; commits do not shorten the list.
    pub fn todo_batches(&self) -> &[Batch] {
        &self.todo
    }

    /// The batch to do that starts at row `start`.
    pub fn batch_at(&self, start: u32) -> Option<&Batch> {
        self.todo.binary_search_by_key(&start, |batch| batch.start).ok().map(|at| &self.todo[at])
    }

    /// Takes a batch and returns its place in the mapped shard. A slot that is dropped without a commit is free again.
    ///
    /// # Errors
    /// When the batch is not to do, done, or in other hands; when the disk has no room for the shard.
    pub fn slot(&self, batch: &Batch) -> Result<Slot<'_>> {
        let taken = || CacheError::BatchTaken { start: batch.start };
        let at = self.todo.binary_search_by_key(&batch.start, |own| own.start).map_err(|_| taken())?;
        let claim = self.states[at].compare_exchange(FREE, TAKEN, Ordering::AcqRel, Ordering::Acquire);
        claim.map_err(|_| taken())?;
        let shard = self.shared.plan.shard_of(batch.start);
        match self.shared.draft(shard) {
            Ok(draft) => Ok(Slot::new(&self.todo[at], &self.states[at], &self.shared.plan, draft)),
            Err(error) => {
                self.states[at].store(FREE, Ordering::Release);
                Err(error)
            }
        }
    }

    /// Commits a slot: one outcome a row of its batch. Bytes of missing rows are set to zero. Returns before the rows are on
    /// the disk; [`ColumnWriter::flush`] waits for that.
    ///
    /// # Errors
    /// When the outcomes are not as many as the rows, the slot is another writer's, or the writer's thread has failed: then
    /// with its error.
    pub fn commit(&self, mut slot: Slot<'_>, outcomes: &[RowOutcome]) -> Result<()> {
        let batch = slot.batch().clone();
        if !slot.is_of(&self.shared.plan) {
            return Err(CacheError::ForeignSlot { start: batch.start, column: self.plan().name.clone() });
        }
        slot.record(outcomes, &self.rows)?;
        let missing: Vec<Missing> = batch.rows.iter().zip(outcomes).filter_map(|(row, o)| o.missing(*row)).collect();
        let (rows, lost) = (batch.rows.len() as u32, missing.len() as u32);
        slot.committed();
        self.count_missing(&missing);
        let shard = self.shared.plan.shard_of(batch.start);
        self.committer.send(Committed { shard, rows: batch.rows, missing })?;
        self.committed.fetch_add(rows, Ordering::Relaxed);
        self.missing.fetch_add(lost, Ordering::Relaxed);
        Ok(())
    }

    /// Returns when everything committed before is on the disk and journalled.
    ///
    /// # Errors
    /// When the writer's thread has failed: then with its error.
    pub fn flush(&self) -> Result<()> {
        self.committer.flush()
    }

    /// The column's missing rows so far by the name of the reason, those found by earlier writers included. Rows that are gone from
    /// the data set do not count: nothing can be done about them.
    pub fn missing_by_reason(&self) -> BTreeMap<String, u32> {
        self.by_reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The rows that [`ColumnWriter::missing_by_reason`] counts among: those that the data set still holds.
    pub fn rows_held(&self) -> u32 {
        self.held
    }

    fn count_missing(&self, missing: &[Missing]) {
        let mut by_reason = self.by_reason.lock().unwrap_or_else(PoisonError::into_inner);
        for row in missing.iter().filter(|missing| !self.rows.is_gone(missing.row)) {
            *by_reason.entry(row.reason.to_string()).or_default() += 1;
        }
    }

    /// The part that is written, or the whole.
    pub fn part(&self) -> Option<Part> {
        self.existing.part
    }

    /// Bytes that the shards to do will ask of the disk, beside the drafts that are there.
    pub fn bytes_to_allocate(&self) -> u64 {
        let shards = self.shared.work.iter().filter(|(_, work)| work.from_draft.is_empty());
        shards.map(|(shard, _)| shard_bytes(&self.shared.plan, *shard)).sum()
    }

    /// How far the writer is.
    pub fn progress(&self) -> WriterProgress {
        WriterProgress {
            rows: self.shared.plan.part_rows(self.existing.part),
            todo: self.todo_rows,
            committed: self.committed.load(Ordering::Relaxed),
            missing: self.missing.load(Ordering::Relaxed),
        }
    }

    /// Waits for the last shards to be digested and renamed, publishes the manifest and removes what it replaces. Where
    /// nothing was to do, returns the manifest that is there.
    ///
    /// # Errors
    /// When rows are not committed, or the disk refuses; the column can be resumed.
    pub fn finish(self) -> Result<Manifest> {
        let Self { shared, committer, existing, _lock, .. } = self;
        let done = committer.join()?;
        finish::finish(&shared, existing, done)
    }
}

/// The missing rows that stay missing, by the name of the reason: those that are not handed out again.
fn known_missing(missing: &MissingMap, todo: &[Batch], rows: &Rows) -> BTreeMap<String, u32> {
    let again: HashSet<u32> = todo.iter().flat_map(|batch| &batch.rows).copied().collect();
    let mut by_reason = BTreeMap::new();
    for row in missing.values().filter(|row| !again.contains(&row.row) && !rows.is_gone(row.row)) {
        *by_reason.entry(row.reason.to_string()).or_default() += 1;
    }
    by_reason
}

impl RowOutcome {
    fn missing(&self, row: u32) -> Option<Missing> {
        match self {
            Self::Present { .. } => None,
            Self::Missing { reason, detail, .. } => Some(Missing { row, reason: *reason, detail: detail.clone() }),
        }
    }

    fn status(&self) -> u8 {
        match self {
            Self::Present { .. } => crate::reason::PRESENT,
            Self::Missing { reason, .. } => reason.code(),
        }
    }

    /// The hash to store: of the image, else the one the index has, so that it can be told when that changes.
    fn content(&self, known: Option<ContentHash>) -> ContentHash {
        match self {
            Self::Present { content } => *content,
            Self::Missing { content, .. } => content.or(known).unwrap_or_default(),
        }
    }
}
