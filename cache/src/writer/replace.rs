//! The columns that a new one takes the place of: found and locked, all of them, before the first one goes.
//!
//! Knows names, keys and layouts, not rows. Nothing is dropped before every column asked for is known to be possible, because
//! what is dropped may have taken days to encode; and a column of the same key and layout is never dropped, because it is
//! the one asked for.

use std::path::{Path, PathBuf};

use super::WriterRequest;
use super::plan::refuse_other_layout;
use crate::columns::{self, ColumnState, Lock};
use crate::error::{CacheError, Result};
use crate::{ColumnPlan, Overwrite};

/// A column that is to go, locked.
#[derive(Debug)]
pub(crate) struct Superseded {
    folder: PathBuf,
    lock: Lock,
}

impl Superseded {
    /// Drops the column.
    pub(crate) fn remove(self) -> Result<()> {
        columns::remove_locked(&self.folder, self.lock)
    }
}

/// The columns in the way of the one asked for that may go: those of its name with another key or layout, where they are
/// to be overwritten or never got a row. Changes nothing on the disk.
pub(crate) fn superseded(request: &WriterRequest<'_>, overwrite: Overwrite) -> Result<Vec<Superseded>> {
    let plan = request.spec.plan(request.rows.len(), None)?;
    let mut found = Vec::new();
    for folder in columns::named(request.columns, &plan.name)? {
        let folder = request.columns.join(folder);
        let refusal = obstacle(request, &plan, &folder)?;
        let empty = refusal.is_some() && was_only_begun(&folder)?;
        match (refusal, columns::lock(&folder)) {
            (Some(refusal), lock) if empty && overwrite == Overwrite::No => {
                // Whoever holds the lock is about to write its first row.
                let lock = lock.map_err(|_| refusal)?;
                found.push(Superseded { folder, lock });
            }
            (Some(refusal), _) if overwrite == Overwrite::No => return Err(refusal),
            (Some(_), lock) => found.push(Superseded { folder, lock: lock? }),
            (None, lock) => drop(lock?),
        }
    }
    Ok(found)
}

/// Why the column in `folder` is not the one asked for. An error where overwriting would be no help.
fn obstacle(request: &WriterRequest<'_>, plan: &ColumnPlan, folder: &Path) -> Result<Option<CacheError>> {
    let before = match columns::plan_of(folder) {
        Ok(before) => before,
        Err(error @ CacheError::Io { .. }) => return Err(error),
        Err(damage) => return Ok(Some(damage)),
    };
    let rows_per_shard = request.spec.rows_per_shard.unwrap_or(before.rows_per_shard);
    let plan = ColumnPlan { rows_per_shard, ..plan.clone() };
    match refuse_other_layout(folder, &plan, &before) {
        Ok(()) => Ok(None),
        Err(refusal @ (CacheError::KeyDiffers { .. } | CacheError::LayoutDiffers { .. })) => Ok(Some(refusal)),
        Err(other) => Err(other),
    }
}

/// Whether a writer was opened here once, and never finished so much as a row.
fn was_only_begun(folder: &Path) -> Result<bool> {
    let begun = matches!(columns::state(folder), Ok(ColumnState::Unfinished(progress)) if progress.rows_done == 0);
    if !begun {
        return Ok(false);
    }
    for entry in std::fs::read_dir(folder).map_err(CacheError::io("list", folder))? {
        let name = entry.map_err(CacheError::io("list", folder))?.file_name();
        let name = name.to_string_lossy();
        if name.ends_with(".safetensors") || name.ends_with(".json") {
            return Ok(false);
        }
    }
    Ok(true)
}
