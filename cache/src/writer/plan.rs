//! What a writer finds: the column's folder, its manifest and journal, and whether they are of the column asked for.

use std::path::{Path, PathBuf};

use super::WriterRequest;
use crate::columns::{self, live_journal};
use crate::error::{CacheError, Result};
use crate::journal::Replay;
use crate::missing::{self, MissingMap};
use crate::{ColumnPlan, ColumnSpec, Manifest, Part};

/// A column's folder, locked, and what is in it.
pub(super) struct Found {
    pub folder: PathBuf,
    pub lock: columns::Lock,
    pub plan: ColumnPlan,
    pub manifest: Option<Manifest>,
    pub replay: Option<Replay>,
    /// Missing rows by the manifest.
    pub listed: MissingMap,
    /// Missing rows by the journal, on top of the manifest's: what holds of the rows in drafts.
    pub journalled: MissingMap,
}

/// Finds the column, or makes its folder, and locks it.
pub(super) fn find(request: &WriterRequest<'_>) -> Result<Found> {
    let WriterRequest { columns, rows, spec } = request;
    let folder = columns.join(spec.plan(rows.len(), None)?.folder());
    refuse_other_keys(columns, &folder, spec)?;
    std::fs::create_dir_all(&folder).map_err(CacheError::io("create", &folder))?;
    let lock = columns::lock(&folder)?;
    let manifest = Manifest::read_whole_or_part(&folder)?;
    let listed = match &manifest {
        None => Vec::new(),
        Some(manifest) => missing::read(&folder.join(&manifest.missing.file), manifest.rows())?,
    };
    let listed: MissingMap = listed.into_iter().map(|missing| (missing.row, missing)).collect();
    let mut replay = live_journal(&folder, manifest.as_ref(), listed.clone())?;
    let journalled = replay.as_mut().map(|replay| std::mem::take(&mut replay.missing)).unwrap_or_default();
    let before = replay.as_ref().map(|replay| &replay.plan.column).or(manifest.as_ref().map(|m| &m.column));
    let plan = spec.plan(rows.len(), before.map(|plan| plan.rows_per_shard))?;
    if let Some(before) = before {
        refuse_other_layout(&folder, &plan, before)?;
        let part = replay.as_ref().map(|replay| replay.plan.part).or(manifest.as_ref().map(|manifest| manifest.part));
        refuse_other_part(&folder, &plan, before, spec.part, part.flatten())?;
    }
    Ok(Found { folder, lock, plan, manifest, replay, listed, journalled })
}

/// Refuses a name that a column of another key has.
fn refuse_other_keys(columns: &Path, own: &Path, spec: &ColumnSpec) -> Result<()> {
    for folder in columns::named(columns, &spec.name)? {
        let path = columns.join(folder);
        if path == own {
            continue;
        }
        let differences = spec.key.diff(&columns::plan_of(&path)?.key);
        return Err(CacheError::KeyDiffers { column: spec.name.clone(), path, differences });
    }
    Ok(())
}

/// Refuses to go on with a column that is laid out otherwise, or whose rows are no longer in the index.
pub(super) fn refuse_other_layout(folder: &Path, plan: &ColumnPlan, before: &ColumnPlan) -> Result<()> {
    let (column, path) = (plan.name.clone(), folder.to_owned());
    if before.key_digest != plan.key_digest {
        let differences = plan.key.diff(&before.key);
        return Err(CacheError::KeyDiffers { column, path, differences });
    }
    if before.rows > plan.rows {
        return Err(CacheError::RowsShrank { column, column_rows: before.rows, rows: plan.rows });
    }
    let fields = [
        ("set of tensors", tensors(plan), tensors(before)),
        ("number of rows a batch", plan.batch_rows.to_string(), before.batch_rows.to_string()),
        ("number of rows a shard", plan.rows_per_shard.to_string(), before.rows_per_shard.to_string()),
    ];
    match fields.into_iter().find(|(_, expected, found)| expected != found) {
        None => Ok(()),
        Some((field, expected, found)) => Err(CacheError::LayoutDiffers { column, path, field, expected, found }),
    }
}

/// Refuses to write a part where another, the whole, or a part of fewer rows is. The whole may always go on where a part is.
fn refuse_other_part(
    folder: &Path,
    plan: &ColumnPlan,
    before: &ColumnPlan,
    wanted: Option<Part>,
    found: Option<Part>,
) -> Result<()> {
    let (column, path) = (plan.name.clone(), folder.to_owned());
    let Some(part) = wanted else { return Ok(()) };
    if found != wanted {
        return Err(CacheError::OtherPart { column, path, wanted: part, found });
    }
    if before.rows != plan.rows {
        let (expected, found) = (plan.rows.to_string(), before.rows.to_string());
        return Err(CacheError::LayoutDiffers { column, path, field: "number of rows", expected, found });
    }
    Ok(())
}

pub(crate) fn tensors(plan: &ColumnPlan) -> String {
    let all = plan.tensors.iter().map(|tensor| format!("{} {} {:?}", tensor.name, tensor.dtype, tensor.row_shape));
    all.collect::<Vec<_>>().join(", ")
}
