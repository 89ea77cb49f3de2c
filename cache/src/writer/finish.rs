//! The end of a writing: the list of missing rows, the manifest, and the files it replaces removed.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::committer::Done;
use super::work::Shared;
use crate::columns::{LOCK, remove_if_any};
use crate::error::{CacheError, Result};
use crate::manifest::{self, missing_file};
use crate::missing;
use crate::{Manifest, MissingSummary, Part, ShardEntry};

/// What the writer found and keeps.
#[derive(Debug)]
pub(super) struct Existing {
    pub manifest: Option<Manifest>,
    /// Finished shards that stay as they are.
    pub kept: BTreeMap<usize, ShardEntry>,
    /// The generation that the manifest will have.
    pub generation: u32,
    /// What of the column is written.
    pub part: Option<Part>,
    pub rows_per_chunk: u32,
    pub provenance: Value,
    /// Who wrote the rows that were there.
    pub writers_before: Vec<Value>,
    /// Nothing is to do.
    pub idle: bool,
}

/// Publishes the manifest, unless rows are left.
pub(super) fn finish(shared: &Shared, existing: Existing, done: Done) -> Result<Manifest> {
    let folder = &shared.folder;
    if done.rows_left > 0 {
        return Err(CacheError::Unfinished { column: shared.plan.name.clone(), rows_left: done.rows_left });
    }
    if let (true, Some(manifest)) = (existing.idle, &existing.manifest) {
        clean_up(folder, manifest)?;
        return Ok(manifest.clone());
    }
    let file = missing_file(existing.generation);
    let lines = missing::to_lines(&done.missing);
    missing::write(&folder.join(&file), &lines)?;
    let mut shards = existing.kept;
    shards.extend(done.sealed);
    let manifest = Manifest {
        format: shared.plan.format(),
        generation: existing.generation,
        part: existing.part,
        column: shared.plan.clone(),
        rows_per_chunk: existing.rows_per_chunk,
        missing: MissingSummary::new(&done.missing, file, &lines),
        shards: shards.into_values().collect(),
        provenance: existing.provenance,
    };
    manifest.publish(folder)?;
    clean_up(folder, &manifest)?;
    Ok(manifest)
}

/// Removes the journal and every file that the manifest does not name.
pub(crate) fn clean_up(folder: &Path, manifest: &Manifest) -> Result<()> {
    let named = manifest.shards.iter().map(|shard| shard.file.as_str());
    let keep: Vec<&str> = named.chain([LOCK, manifest.file(), &manifest.missing.file]).collect();
    for entry in std::fs::read_dir(folder).map_err(CacheError::io("list", folder))? {
        let entry = entry.map_err(CacheError::io("list", folder))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !keep.contains(&name.as_ref()) && is_ours(&name) {
            remove_if_any(&entry.path())?;
        }
    }
    Ok(())
}

/// Files a writer makes; others in the folder are none of its business.
fn is_ours(name: &str) -> bool {
    let shard = name.contains(".safetensors") && name.starts_with(|c: char| c.is_ascii_digit());
    shard
        || name.starts_with("journal")
        || name.starts_with("missing.")
        || name.starts_with(manifest::FILE)
        || name.starts_with(manifest::PART_FILE)
}
