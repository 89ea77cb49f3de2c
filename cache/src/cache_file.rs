//! `cache.json`: the format, what the data set is, and the digests that `rows.jsonl` may have.
//!
//! Knows no row. Two files can't be replaced at once: so the digest of the rows that come is entered here before they take
//! their place, beside the digest of those that are there, which goes afterwards. The file's digest is listed at every
//! instant, and a crash between two of the steps reads as no damage.

use std::cell::RefCell;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{CacheError, Result};
use crate::key::sorted;
use crate::publish::publish;
use crate::{FORMAT, Rows};

/// The file's name.
pub(crate) const FILE: &str = "cache.json";
/// The format of `cache.json` and `rows.jsonl`: nothing in them has changed since.
const INDEX_FORMAT: u32 = 1;

/// What the file says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CacheFile {
    pub format: u32,
    #[serde(default)]
    pub dataset: Value,
    /// BLAKE3 of `rows.jsonl`, in hex: one digest, or several while the rows are replaced. None: not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows_digests: Vec<String>,
    /// What later programs write.
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl CacheFile {
    /// Of a cache without rows.
    pub(crate) fn new(dataset: &Value) -> Self {
        let rows_digests = vec![digest(&[])];
        Self { format: INDEX_FORMAT, dataset: sorted(dataset.clone()), rows_digests, others: Map::new() }
    }

    /// Reads the file of the cache in `folder`.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(CacheError::NotACache { path: folder.to_owned() });
            }
            text => text.map_err(CacheError::io("read", &path))?,
        };
        let file: Self =
            serde_json::from_slice(&text).map_err(|source| CacheError::CacheFile { path: path.clone(), source })?;
        if !(1..=FORMAT).contains(&file.format) {
            return Err(CacheError::CacheVersion { path, found: file.format });
        }
        Ok(file)
    }

    /// Puts the file in its place.
    pub(crate) fn publish(&self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE);
        let text = serde_json::to_string_pretty(self);
        let text = text.map_err(|source| CacheError::CacheFile { path: path.clone(), source })?;
        publish(&path, |out| out.write_all((text + "\n").as_bytes()).map_err(CacheError::io("write", &path)))
    }
}

/// BLAKE3, in hex.
pub(crate) fn digest(bytes: &[u8]) -> String {
    blake3::Hasher::new().update_rayon(bytes).finalize().to_hex().to_string()
}

/// A change of the row index, with its digest in step. The cache's lock is held.
pub(crate) struct Change {
    folder: PathBuf,
    /// The digest of the rows that are there.
    now: String,
    /// The digest of those that come, once they are written.
    next: RefCell<Option<String>>,
    trusted: bool,
}

impl Change {
    /// Begins with `rows`, which are those of the cache in `folder`.
    pub(crate) fn begin(folder: &Path, rows: &Rows) -> Result<Self> {
        let (file, now) = (CacheFile::read(folder)?, rows.digest());
        let trusted = file.rows_digests.is_empty() || file.rows_digests.contains(&now);
        Ok(Self { folder: folder.to_owned(), now, next: RefCell::new(None), trusted })
    }

    /// Whether the rows are as they were written, as far as can be known.
    pub(crate) fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// Enters the digest of rows that are about to take their place.
    pub(crate) fn announce(&self, next: String) -> Result<()> {
        let mut file = CacheFile::read(&self.folder)?;
        for digest in [&self.now, &next] {
            if !file.rows_digests.contains(digest) {
                file.rows_digests.push(digest.clone());
            }
        }
        file.publish(&self.folder)?;
        *self.next.borrow_mut() = Some(next);
        Ok(())
    }

    /// Leaves the digest of the rows that are there now. Rows that are not trusted get one only where they were written anew, or
    /// where the caller has `compared` all of them with the data set.
    pub(crate) fn end(self, compared: bool) -> Result<()> {
        let next = self.next.into_inner();
        if next.is_none() && !self.trusted && !compared {
            return Ok(());
        }
        let now = next.unwrap_or(self.now);
        let mut file = CacheFile::read(&self.folder)?;
        if file.rows_digests != [now.as_str()] {
            file.rows_digests = vec![now];
            file.publish(&self.folder)?;
        }
        Ok(())
    }
}
