//! What the writer's threads share: the shards to do and their drafts, made when the first batch of each is taken.
//!
//! Drafts are made late so that a column of hundreds of gigabytes asks the disk for one shard at a time.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::ColumnPlan;
use crate::columns::remove_if_any;
use crate::error::{CacheError, Result};
use crate::shard::{Draft, Shard, draft_name};

/// A shard to be written.
#[derive(Debug)]
pub(super) struct Work {
    /// The file it becomes.
    pub file: String,
    /// Rows to do.
    pub left: u32,
    /// The finished shard it takes rows from.
    pub base: Option<Arc<Shard>>,
    /// Rows, counted within the shard, that are copied from the finished shard.
    pub from_base: Vec<Range<u32>>,
    /// Rows, counted within the shard, that the draft holds.
    pub from_draft: Vec<Range<u32>>,
    /// The draft, while it is mapped.
    pub draft: Mutex<Option<Arc<Draft>>>,
}

/// Shared by the writer, its slots and its committer.
#[derive(Debug)]
pub(super) struct Shared {
    pub folder: PathBuf,
    pub plan: ColumnPlan,
    pub rows_per_chunk: u32,
    pub retry_missing: bool,
    /// By shard.
    pub work: BTreeMap<usize, Work>,
    /// What stopped the committer, until somebody is told.
    pub failure: Mutex<Option<CacheError>>,
}

impl Shared {
    /// The draft of a shard that is to do, made where it is not there.
    pub(super) fn draft(&self, shard: usize) -> Result<Arc<Draft>> {
        let Some(work) = self.work.get(&shard) else {
            return Err(CacheError::BatchTaken { start: self.plan.first_row(shard) });
        };
        let mut place = work.draft.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(draft) = place.as_ref() {
            return Ok(Arc::clone(draft));
        }
        let draft = Arc::new(self.open_draft(shard, work)?);
        *place = Some(Arc::clone(&draft));
        Ok(draft)
    }

    fn open_draft(&self, shard: usize, work: &Work) -> Result<Draft> {
        let path = self.folder.join(draft_name(&work.file));
        let old =
            if work.from_draft.is_empty() { None } else { Some(Shard::open(path.clone(), &self.plan, shard, None)?) };
        let mut draft = match old {
            Some(old) if old.layout.rows == self.plan.shard_rows(shard) => Draft::open(path, old.layout)?,
            Some(old) => Draft::create(path, &self.plan, shard, |draft| draft.copy_rows(&old, &work.from_draft))?,
            None => {
                remove_if_any(&path)?;
                Draft::create(path, &self.plan, shard, |_| ())?
            }
        };
        if let Some(base) = &work.base {
            draft.copy_rows(base, &work.from_base);
            draft.sync_all()?;
        }
        draft.release_rows(0..draft.layout.rows);
        Ok(draft)
    }

    /// Unmaps the draft of a shard that is complete.
    pub(super) fn close_draft(&self, work: &Work) {
        drop(work.draft.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// What stopped the committer; an earlier caller may have been told.
    pub(super) fn failure(&self) -> CacheError {
        let told = || CacheError::WriterStopped { column: self.plan.name.clone() };
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_else(told)
    }
}
