//! The row index, `rows.jsonl`: the images of a data set, one line each, in an order that never changes.
//!
//! Knows nothing of columns. The file stays JSON lines at any size: opening it scans the lines in parallel, checks every
//! one and keeps some 50 bytes a row (where the line is, a hash of the id, split, content hash), so that 3.3 million rows open
//! in about two seconds without a derived index that could disagree with the file. Lines are parsed again when asked for.

mod index;
mod line;
mod scan;
mod sync;

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::cache_file::{self, Change};
use crate::error::{CacheError, Result};
use crate::map::ReadMap;
use crate::publish::{ContentHash, from_hex};
use index::IdIndex;
use line::Line;
pub use sync::RowsDiff;
pub(crate) use sync::adopt_contents;

/// The row index's file name.
pub(crate) const FILE: &str = "rows.jsonl";

/// One image of the data set, however many captions it has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowRecord {
    /// The image's name: unique in the data set.
    pub id: String,
    /// Where its bytes come from: a path relative to the data, a URL, a drawn scene.
    pub source: String,
    /// The split: `train`, `val`, `test`.
    pub split: String,
    /// The captions.
    pub captions: Vec<String>,
    /// Content hash of the image file's bytes: 32 hex digits, see [`crate::content_hash`]. `None`: not known.
    pub content: Option<String>,
    /// Size of the image file.
    pub bytes: Option<u64>,
    /// When the image file was last modified, in nanoseconds since 1970.
    pub modified_ns: Option<u64>,
}

/// All rows of a cache, read from `rows.jsonl` as it was when the cache was opened or last synced.
#[derive(Debug)]
pub struct Rows {
    path: PathBuf,
    /// Kept open, so that no other file takes its number.
    file: File,
    map: ReadMap,
    /// Where each line starts, and where the last one ends.
    offsets: Vec<u64>,
    splits: Vec<u16>,
    split_names: Vec<String>,
    /// All zero where it is not known.
    contents: Vec<ContentHash>,
    gone: crate::rowset::RowSet,
    ids: IdIndex,
}

impl Rows {
    /// Maps and checks `path`.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(CacheError::io("open", path))?;
        let map = ReadMap::new(&file).map_err(CacheError::io("map", path))?;
        Ok(scan::scan(path, file, map)?)
    }

    /// Whether the file of this name is still the one that was opened: it only ever changes by being replaced.
    pub(crate) fn is_current(&self) -> bool {
        let inode = |metadata: std::fs::Metadata| metadata.ino();
        matches!((std::fs::metadata(&self.path).map(inode), self.file.metadata().map(inode)), (Ok(a), Ok(b)) if a == b)
    }

    /// Number of rows.
    pub fn len(&self) -> u32 {
        self.splits.len() as u32
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.splits.is_empty()
    }

    /// The row's record.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn get(&self, row: u32) -> RowRecord {
        self.line(row).into_record()
    }

    /// The row's id.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn id(&self, row: u32) -> String {
        self.line(row).id.into_owned()
    }

    /// The row of an id.
    pub fn find(&self, id: &str) -> Option<u32> {
        self.ids.find(id, |row| line::has_id(self.line_bytes(row), id))
    }

    /// The names of the splits, in the order in which they first appear.
    pub fn split_names(&self) -> &[String] {
        &self.split_names
    }

    /// The row's split.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn split(&self, row: u32) -> &str {
        &self.split_names[usize::from(self.splits[row as usize])]
    }

    /// The rows of a split in order, without those that are gone from the data set. Empty for an unknown split.
    pub fn split_rows(&self, split: &str) -> Vec<u32> {
        let Some(wanted) = self.split_names.iter().position(|name| name == split) else {
            return Vec::new();
        };
        (0..self.len()).filter(|&row| usize::from(self.splits[row as usize]) == wanted && !self.is_gone(row)).collect()
    }

    /// The content hash of the row's image file, where it is known.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn content(&self, row: u32) -> Option<ContentHash> {
        Some(self.contents[row as usize]).filter(|content| *content != [0; 16])
    }

    /// Whether the data set of the last sync did not hold this row.
    pub fn is_gone(&self, row: u32) -> bool {
        self.gone.contains(row)
    }

    /// Whether [`crate::Cache::sync_rows`] needs the content hash of this record: its source, size or time is not what
    /// the cache knows, so the image may be another, and only its bytes can tell; or it was gone and nothing is known of its
    /// bytes, so that columns could not tell that it is back.
    pub fn needs_content(&self, record: &RowRecord) -> bool {
        let is_unknown = |row| self.is_gone(row) && self.content(row).is_none();
        let row = self.find(&record.id).filter(|_| record.content.is_none());
        row.is_some_and(|row| !self.line(row).is_same_file(record) || is_unknown(row))
    }

    /// Brings the file up to date; this index stays as it was.
    pub(crate) fn sync(&self, records: impl IntoIterator<Item = RowRecord>, change: &Change) -> Result<RowsDiff> {
        sync::sync(self, records, change)
    }

    /// BLAKE3 of the file, in hex.
    pub(crate) fn digest(&self) -> String {
        let digest = cache_file::digest(self.map.bytes());
        self.release();
        digest
    }

    /// The first row in which another index differs, and in what. When an image file was last modified does not count (a copy
    /// of it has another time), and what one of the two does not know (size, content hash) is no difference.
    pub(crate) fn difference(&self, other: &Self) -> Option<(u32, &'static str)> {
        let rows = self.len().min(other.len());
        let differs = |row: u32| self.line(row).difference(&other.line(row)).map(|what| (row, what));
        let first = (0..rows).into_par_iter().find_map_first(differs);
        first.or_else(|| (self.len() != other.len()).then_some((rows, "number of rows")))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the file's pages off this process's resident memory.
    fn release(&self) {
        self.map.release(0..self.map.bytes().len());
    }

    fn line_bytes(&self, row: u32) -> &[u8] {
        let (start, end) = (self.offsets[row as usize], self.offsets[row as usize + 1]);
        &self.map.bytes()[start as usize..end as usize]
    }

    fn line(&self, row: u32) -> Line<'_> {
        serde_json::from_slice(self.line_bytes(row)).expect("every line was parsed when the file was opened")
    }
}

/// BLAKE3, in hex, of the row index at `path`, whatever is in it.
pub(crate) fn digest(path: &Path) -> Result<String> {
    let map = File::open(path).and_then(|file| ReadMap::new(&file)).map_err(CacheError::io("read", path))?;
    Ok(cache_file::digest(map.bytes()))
}

/// The content hash of a record, checked; all zero where it is not known.
fn content_of(record: &RowRecord) -> Result<ContentHash, crate::RowsError> {
    match &record.content {
        None => Ok([0; 16]),
        Some(text) => {
            from_hex(text).ok_or_else(|| crate::RowsError::BadContent { id: record.id.clone(), content: text.clone() })
        }
    }
}
