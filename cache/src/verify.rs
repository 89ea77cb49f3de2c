//! Verifying a column: every digest computed again, and what does not agree named as closely as the format allows.
//!
//! Reads the manifest and trusts nothing else. Damage is a finding, not an error, so that one bad shard does not hide
//! another.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use rayon::prelude::*;

use crate::cache_file::CacheFile;
use crate::error::{CacheError, Result};
use crate::manifest::Manifest;
use crate::shard::Shard;
use crate::{ShardEntry, missing, rows, seal};

/// What verifying a column found.
#[derive(Debug)]
pub struct VerifyReport {
    /// The manifest, which was read without error.
    pub manifest: Manifest,
    /// Shards looked at.
    pub shards: usize,
    /// Bytes read.
    pub bytes: u64,
    /// Everything that does not agree, in order of shards. Empty: the column is as it was written.
    pub damage: Vec<Damage>,
}

impl VerifyReport {
    /// Whether the column is as it was written.
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }
}

/// Something that does not agree.
#[derive(Debug)]
pub struct Damage {
    /// The file, in the column's folder.
    pub file: String,
    /// What in it.
    pub part: DamagedPart,
}

/// In one line.
impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: ", self.file)?;
        match &self.part {
            DamagedPart::Rows(rows) if rows.len() == 1 => write!(f, "row {}", rows.start),
            DamagedPart::Rows(rows) => write!(f, "among rows {} to {}", rows.start, rows.end.saturating_sub(1)),
            DamagedPart::Header => f.write_str("its header"),
            DamagedPart::MissingList => f.write_str("the list of missing rows"),
            // The way out is the same for all that is damaged.
            DamagedPart::File(error) => f.write_str(error.to_string().lines().next().unwrap_or_default()),
        }
    }
}

/// What in a file does not agree.
#[derive(Debug)]
pub enum DamagedPart {
    /// The bytes, status or content hash of some of these rows of the column.
    Rows(Range<u32>),
    /// The header, or the space after it.
    Header,
    /// The list of missing rows.
    MissingList,
    /// All of it: it is gone, cut, or its header cannot be read.
    File(CacheError),
}

/// What became of the row index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowsVerdict {
    /// It is as it was written.
    Sound,
    /// Its digest is not known: it was written before digests of it were kept.
    Unknown,
    /// It is another file than the one that was written.
    Damaged,
}

/// Verifies the row index of the cache in `folder`, which another process may be replacing.
pub(crate) fn verify_rows(folder: &Path) -> Result<RowsVerdict> {
    let mut file = CacheFile::read(folder)?;
    loop {
        let found = rows::digest(&folder.join(rows::FILE))?;
        if file.rows_digests.is_empty() {
            return Ok(RowsVerdict::Unknown);
        }
        if file.rows_digests.contains(&found) {
            return Ok(RowsVerdict::Sound);
        }
        // Digests are entered before their rows take their place.
        let now = CacheFile::read(folder)?;
        if now.rows_digests == file.rows_digests {
            return Ok(RowsVerdict::Damaged);
        }
        file = now;
    }
}

/// Verifies the column in `folder`. `tick` hears of the bytes read.
pub(crate) fn verify(folder: &Path, tick: &(dyn Fn(u64) + Sync)) -> Result<VerifyReport> {
    let manifest = match Manifest::read_whole_or_part(folder)? {
        Some(manifest) => manifest,
        None => Manifest::read(folder)?,
    };
    let mut damage = Vec::new();
    for (at, entry) in manifest.numbered_shards() {
        verify_shard(folder, &manifest, at, entry, tick, &mut damage);
    }
    verify_missing(folder, &manifest, &mut damage);
    Ok(VerifyReport { shards: manifest.shards.len(), bytes: manifest.bytes(), damage, manifest })
}

fn verify_shard(
    folder: &Path,
    manifest: &Manifest,
    at: usize,
    entry: &ShardEntry,
    tick: &(dyn Fn(u64) + Sync),
    damage: &mut Vec<Damage>,
) {
    let mut found = |part| damage.push(Damage { file: entry.file.clone(), part });
    let path = folder.join(&entry.file);
    let shard = match Shard::open_sized(path, &manifest.column, at, entry.rows, entry.bytes) {
        Ok(shard) => shard,
        Err(error) => return found(DamagedPart::File(error)),
    };
    if seal::file_digest(&shard, tick) == entry.digest {
        return;
    }
    let first = manifest.column.first_row(at);
    let chunks: Vec<_> = seal::chunks(entry.rows, manifest.rows_per_chunk).zip(&entry.chunks).collect();
    let bad = chunks.into_par_iter().filter(|(rows, digest)| seal::chunk_digest(&shard, rows.clone()) != **digest);
    let bad: Vec<Range<u32>> = bad.map(|(rows, _)| first + rows.start..first + rows.end).collect();
    if bad.is_empty() {
        // The file differs and no row does.
        return found(DamagedPart::Header);
    }
    bad.into_iter().for_each(|rows| found(DamagedPart::Rows(rows)));
}

fn verify_missing(folder: &Path, manifest: &Manifest, damage: &mut Vec<Damage>) {
    let file = manifest.missing.file.clone();
    let path = folder.join(&file);
    match std::fs::read(&path) {
        Err(error) => {
            let part = DamagedPart::File(CacheError::io("read", &path)(error));
            damage.push(Damage { file, part });
        }
        Ok(lines) if blake3::hash(&lines).to_hex().as_str() != manifest.missing.digest => {
            damage.push(Damage { file, part: DamagedPart::MissingList });
        }
        // A list with the right digest that cannot be read was written so.
        Ok(_) => {
            if let Err(error) = missing::read(&path, manifest.rows()) {
                damage.push(Damage { file, part: DamagedPart::File(error) });
            }
        }
    }
}
