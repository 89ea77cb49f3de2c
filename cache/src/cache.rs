//! A cache: a folder with a row index and columns over it.
//!
//! Joins the parts and owns none of their rules. Creating makes `cache.json` last, so that a folder without it is not a
//! cache, and refuses a folder that holds other files: `CACHEDIR.TAG` tells backup programs to skip all that is in it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::columns::{self, ColumnInfo, lock_waiting};
use crate::error::{CacheError, Result};
use crate::key::sorted;
use crate::publish::publish;
use crate::rows::{self, adopt_contents};
use crate::verify::{VerifyReport, verify};
use crate::writer::{ColumnWriter, WriterRequest};
use crate::{ColumnReader, ColumnSpec, FORMAT, RowRecord, Rows, RowsDiff};

const CACHE_FILE: &str = "cache.json";
/// The format of `cache.json` and `rows.jsonl`: nothing in them has changed since.
const INDEX_FORMAT: u32 = 1;
const TAG_FILE: &str = "CACHEDIR.TAG";
const COLUMNS: &str = "columns";
/// The first line is the specification's; see <https://bford.info/cachedir/>.
const TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
# This folder is a cache of embeddings made by icecap; all of it can be made again.\n";

#[derive(Serialize, Deserialize)]
struct CacheFile {
    format: u32,
    #[serde(default)]
    dataset: Value,
}

/// What to do with a column of the same name that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overwrite {
    /// Take up a column of the same key; refuse one of another.
    #[default]
    No,
    /// Drop all columns of the name first.
    Yes,
}

/// An open cache.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    dataset: Value,
    rows: Arc<Rows>,
}

impl Cache {
    /// Opens the cache in `folder`, or makes one there. `dataset` describes the data set for the reader's eyes; a cache
    /// that exists keeps the description it has ([`Cache::dataset`]).
    ///
    /// # Errors
    /// When the folder holds other files, is a cache of a later format, or its rows are damaged.
    pub fn create_or_open(folder: impl Into<PathBuf>, dataset: &Value) -> Result<Self> {
        let folder = folder.into();
        std::fs::create_dir_all(&folder).map_err(CacheError::io("create", &folder))?;
        if !folder.join(CACHE_FILE).exists() {
            create(&folder, dataset)?;
        }
        Self::open(folder)
    }

    /// Opens the cache in `folder`.
    ///
    /// # Errors
    /// When there is none, it is of a later format, or its rows are damaged.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self> {
        let folder = folder.into();
        let path = folder.join(CACHE_FILE);
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(CacheError::NotACache { path: folder });
            }
            text => text.map_err(CacheError::io("read", &path))?,
        };
        let malformed = |source| CacheError::CacheFile { path: path.clone(), source };
        let file: CacheFile = serde_json::from_slice(&text).map_err(malformed)?;
        if !(1..=FORMAT).contains(&file.format) {
            return Err(CacheError::CacheVersion { path, found: file.format });
        }
        let rows = Arc::new(Rows::open(&folder.join(rows::FILE))?);
        Ok(Self { folder, dataset: file.dataset, rows })
    }

    /// The cache's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The description of the data set that the cache was made with.
    pub fn dataset(&self) -> &Value {
        &self.dataset
    }

    /// The row index.
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    /// Brings the row index up to date with the data set: new ids go to the end, changed records are replaced, rows that
    /// the data set no longer holds keep their place and leave their split. Atomic.
    ///
    /// # Errors
    /// When two records have one id, a content hash is malformed, or one is needed ([`Rows::needs_content`]) and not given.
    pub fn sync_rows(&mut self, records: impl IntoIterator<Item = RowRecord>) -> Result<RowsDiff> {
        let _lock = lock_waiting(&self.folder)?;
        self.refresh_rows()?;
        let diff = self.rows.sync(records)?;
        self.refresh_rows()?;
        Ok(diff)
    }

    /// Enters into the row index the content hashes that `column` found while it was encoded, where the index has none, and
    /// says how many. From then on a changed image is noticed.
    ///
    /// # Errors
    /// When there is no such column.
    pub fn adopt_contents(&mut self, column: &str) -> Result<u32> {
        let reader = self.column(column)?;
        let _lock = lock_waiting(&self.folder)?;
        self.refresh_rows()?;
        let adopted = adopt_contents(&self.rows, |row| reader.content(row))?;
        self.refresh_rows()?;
        Ok(adopted)
    }

    /// Reads the row index again where its file is another than the one that is open.
    fn refresh_rows(&mut self) -> Result<()> {
        if !self.rows.is_current() {
            self.rows = Arc::new(Rows::open(&self.folder.join(rows::FILE))?);
        }
        Ok(())
    }

    /// All columns, finished or not, in order of name.
    ///
    /// # Errors
    /// When the folder cannot be listed; a damaged column is listed as such.
    pub fn columns(&self) -> Result<Vec<ColumnInfo>> {
        columns::list(&self.columns_folder())
    }

    /// Opens a finished column by its name, or by its folder's where several have the name.
    ///
    /// # Errors
    /// When there is none, it is not finished, or it is damaged.
    pub fn column(&self, name: &str) -> Result<ColumnReader> {
        ColumnReader::open(&self.column_folder(name)?)
    }

    /// Opens the finished shards of a column that is being written. Rows that are not in one have neither bytes nor a
    /// reason: [`ColumnReader::is_known`] tells. For a finished column, the same as [`Cache::column`].
    ///
    /// # Errors
    /// When there is no such column, or it is damaged.
    pub fn column_so_far(&self, name: &str) -> Result<ColumnReader> {
        ColumnReader::open_so_far(&self.column_folder(name)?)
    }

    /// Drops a column, finished or not.
    ///
    /// # Errors
    /// When there is none, or it is being written.
    pub fn drop_column(&self, name: &str) -> Result<()> {
        let _lock = lock_waiting(&self.folder)?;
        columns::remove(&self.column_folder(name)?)
    }

    /// Recomputes every digest of a finished column. `tick` hears of the bytes read; damage is reported, not an error.
    ///
    /// # Errors
    /// When there is no such column, or its manifest is damaged.
    pub fn verify(&self, name: &str, tick: &(dyn Fn(u64) + Sync)) -> Result<VerifyReport> {
        verify(&self.column_folder(name)?, tick)
    }

    /// Opens a column for writing: a new one, the rest of one that was broken off, or the rows of a finished one that are
    /// new, changed, or (if asked for) missing. Where nothing is to do, the writer has no batches.
    ///
    /// # Errors
    /// When the spec is impossible, another process writes the column, or one of the name has another key or layout.
    pub fn writer(&self, spec: &ColumnSpec, overwrite: Overwrite) -> Result<ColumnWriter> {
        let _lock = lock_waiting(&self.folder)?;
        let columns = self.columns_folder();
        if overwrite == Overwrite::Yes {
            for folder in columns::named(&columns, &spec.name)? {
                columns::remove(&columns.join(folder))?;
            }
        }
        ColumnWriter::open(&WriterRequest { columns: &columns, rows: &self.rows, spec })
    }

    fn columns_folder(&self) -> PathBuf {
        self.folder.join(COLUMNS)
    }

    fn column_folder(&self, name: &str) -> Result<PathBuf> {
        columns::resolve(&self.folder, &self.columns_folder(), name)
    }
}

/// Makes a cache, `cache.json` last. What a crash left of an earlier attempt is taken up.
fn create(folder: &Path, dataset: &Value) -> Result<()> {
    let _lock = lock_waiting(folder)?;
    if folder.join(CACHE_FILE).exists() {
        return Ok(());
    }
    let own = |name: &str| [columns::LOCK, TAG_FILE, COLUMNS, rows::FILE].iter().any(|own| name.starts_with(own));
    for entry in std::fs::read_dir(folder).map_err(CacheError::io("list", folder))? {
        let name = entry.map_err(CacheError::io("list", folder))?.file_name();
        let name = name.to_string_lossy();
        if !own(&name) && !name.starts_with(CACHE_FILE) {
            // The lock is the only thing this attempt has made.
            let _ = std::fs::remove_file(folder.join(columns::LOCK));
            return Err(CacheError::NotEmpty { path: folder.to_owned(), found: name.into_owned() });
        }
    }
    let columns = folder.join(COLUMNS);
    std::fs::create_dir_all(&columns).map_err(CacheError::io("create", &columns))?;
    publish_text(&folder.join(TAG_FILE), TAG)?;
    publish_text(&folder.join(rows::FILE), "")?;
    let text = serde_json::to_string_pretty(&CacheFile { format: INDEX_FORMAT, dataset: sorted(dataset.clone()) });
    let text = text.map_err(|source| CacheError::CacheFile { path: folder.join(CACHE_FILE), source })?;
    publish_text(&folder.join(CACHE_FILE), &(text + "\n"))
}

fn publish_text(path: &Path, text: &str) -> Result<()> {
    publish(path, |out| out.write_all(text.as_bytes()).map_err(CacheError::io("write", path)))
}
