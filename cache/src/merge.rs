//! Joining the parts of columns: caches in, one cache out, the same bytes as one run.
//!
//! Computes nothing and opens no image: whole shards are linked or copied, and the manifest is put together from the parts'
//! manifests. Everything is checked before the first file is made. There is no journal of a merge: linking again what a crash
//! left is cheaper than deciding what of it can be trusted.

mod pieces;

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::columns::{self, remove_if_any};
use crate::error::{CacheError, MergeError, Result};
use crate::journal;
use crate::manifest::PART_FILE;
use crate::missing;
use crate::publish::{rename, temporary};
use crate::shard::Shard;
use crate::writer::finish::clean_up;
use crate::{Cache, Manifest, Rows, ShardEntry};
use pieces::{Joined, Piece};

/// Bytes copied at a time.
const PIECE_BYTES: usize = 4 << 20;

/// What a merge did.
#[derive(Debug)]
pub struct MergeReport {
    /// Rows of the result.
    pub rows: u32,
    /// Its columns, in order of name.
    pub columns: Vec<MergedColumn>,
}

/// A column that a merge made, or found made.
#[derive(Debug)]
pub struct MergedColumn {
    /// Its manifest.
    pub manifest: Manifest,
    /// Shards that are links to the parts' own.
    pub linked: usize,
    /// Shards that were copied.
    pub copied: usize,
}

/// See [`Cache::merge`].
pub(crate) fn merge(out: &Path, parts: &[impl AsRef<Path>], tick: &(dyn Fn(u64) + Sync)) -> Result<MergeReport> {
    let caches = parts.iter().map(|part| Cache::open(part.as_ref())).collect::<Result<Vec<_>>>()?;
    refuse_itself(out, &caches)?;
    let Some(first) = caches.first() else {
        return Err(MergeError::Nothing { caches: Vec::new() }.into());
    };
    for other in &caches[1..] {
        refuse_other_rows(first.folder(), first.rows(), other)?;
    }
    let joined = pieces::join(&caches)?;
    let mut result = Cache::create_or_open(out, first.dataset())?;
    result.take_rows(first.rows())?;
    refuse_other_rows(first.folder(), first.rows(), &result)?;
    let columns = joined.iter().map(|column| place(&result, column, tick)).collect::<Result<Vec<_>>>()?;
    for column in &columns {
        result.adopt_contents(&column.manifest.folder())?;
    }
    Ok(MergeReport { rows: result.rows().len(), columns })
}

fn refuse_itself(out: &Path, caches: &[Cache]) -> Result<(), MergeError> {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    let Some(own) = real(out) else { return Ok(()) };
    match caches.iter().any(|cache| real(cache.folder()).is_some_and(|folder| folder == own)) {
        true => Err(MergeError::Itself { out: out.to_owned() }),
        false => Ok(()),
    }
}

fn refuse_other_rows(folder: &Path, rows: &Rows, other: &Cache) -> Result<(), MergeError> {
    rows.difference(other.rows()).map_or(Ok(()), |(row, what)| {
        Err(MergeError::Rows { first: folder.to_owned(), other: other.folder().to_owned(), row, what })
    })
}

/// Makes a column of `result`, unless it is there.
fn place(result: &Cache, column: &Joined, tick: &(dyn Fn(u64) + Sync)) -> Result<MergedColumn> {
    let manifest = &column.manifest;
    let columns = result.columns_folder();
    let folder = columns.join(manifest.folder());
    let exists = || MergeError::Exists { column: manifest.name().to_owned(), out: result.folder().to_owned() };
    if columns::named(&columns, manifest.name())?.iter().any(|other| *other != manifest.folder()) {
        return Err(exists().into());
    }
    std::fs::create_dir_all(&folder).map_err(CacheError::io("create", &folder))?;
    let _lock = columns::lock(&folder)?;
    if let Some(there) = Manifest::read_if_any(&folder)? {
        let same = there.shards == manifest.shards && there.missing == manifest.missing;
        return if same { Ok(MergedColumn { manifest: there, linked: 0, copied: 0 }) } else { Err(exists().into()) };
    }
    if [journal::FILE, PART_FILE].iter().any(|file| folder.join(file).exists()) {
        return Err(exists().into());
    }
    let mut merged = MergedColumn { manifest: manifest.clone(), linked: 0, copied: 0 };
    for (shard, (piece, entry)) in column.shards.iter().enumerate() {
        match place_shard(piece, shard, entry, &folder.join(&entry.file))? {
            Placed::Linked => merged.linked += 1,
            Placed::Copied => merged.copied += 1,
        }
        tick(entry.bytes);
    }
    missing::write(&folder.join(&manifest.missing.file), &column.missing)?;
    manifest.publish(&folder)?;
    clean_up(&folder, manifest)?;
    Ok(merged)
}

enum Placed {
    Linked,
    Copied,
}

/// Links a shard, or copies it where that cannot be. What is in its place was left by a crash: no manifest names it.
fn place_shard(piece: &Piece, shard: usize, entry: &ShardEntry, to: &Path) -> Result<Placed> {
    let from = piece.folder.join(&entry.file);
    // Whatever the file is, it is the shard it should be.
    Shard::open_sized(from.clone(), &piece.manifest.column, shard, entry.rows, entry.bytes)?;
    let unnamed = temporary(to);
    remove_if_any(&unnamed)?;
    // Renaming one link of a file over another does nothing, and would leave both.
    remove_if_any(to)?;
    let placed = match std::fs::hard_link(&from, &unnamed) {
        Ok(()) => Placed::Linked,
        Err(_) => {
            copy(&from, &unnamed, &entry.digest)?;
            Placed::Copied
        }
    };
    rename(&unnamed, to)?;
    Ok(placed)
}

/// Copies a file, durably, and checks on the way that it is the one that was digested.
fn copy(from: &Path, to: &Path, digest: &str) -> Result<()> {
    let mut source = File::open(from).map_err(CacheError::io("open", from))?;
    let mut target = File::create(to).map_err(CacheError::io("create", to))?;
    let (mut hasher, mut piece) = (blake3::Hasher::new(), vec![0; PIECE_BYTES]);
    loop {
        let read = source.read(&mut piece).map_err(CacheError::io("read", from))?;
        if read == 0 {
            break;
        }
        hasher.update_rayon(&piece[..read]);
        target.write_all(&piece[..read]).map_err(CacheError::io("write", to))?;
    }
    if hasher.finalize().to_hex().as_str() != digest {
        remove_if_any(to)?;
        return Err(MergeError::Damaged { path: PathBuf::from(from) }.into());
    }
    target.sync_all().map_err(CacheError::io("sync", to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_checked_on_the_way() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        std::fs::write(&from, b"rows").unwrap();
        copy(&from, &to, blake3::hash(b"rows").to_hex().as_str()).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), b"rows");
        let error = copy(&from, &to, blake3::hash(b"lines").to_hex().as_str()).unwrap_err();
        assert!(matches!(error, CacheError::Merge(MergeError::Damaged { .. })), "{error}");
        assert!(!to.exists());
    }
}
