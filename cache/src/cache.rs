//! A cache: a folder with a row index and columns over it.
//!
//! Joins the parts and owns none of their rules. Creating makes `cache.json` last, so that a folder without it is not a
//! cache, and refuses a folder that holds other files: `CACHEDIR.TAG` tells backup programs to skip all that is in it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::cache_file::{self, CacheFile, Change};
use crate::columns::{self, ColumnInfo, lock_waiting};
use crate::error::{CacheError, Result};
use crate::merge::merge;
use crate::publish::publish;
use crate::rows::{self, adopt_contents};
use crate::verify::{RowsVerdict, VerifyReport, verify, verify_rows};
use crate::writer::{ColumnWriter, Superseded, WriterRequest, superseded};
use crate::{ColumnReader, ColumnSpec, Missing, RowRecord, Rows, RowsDiff};

const TAG_FILE: &str = "CACHEDIR.TAG";
const COLUMNS: &str = "columns";
/// The first line is the specification's; see <https://bford.info/cachedir/>.
const TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
# This folder is a cache of embeddings made by icecap; all of it can be made again.\n";

/// What to do with a column of the same name that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overwrite {
    /// Take up a column of the same key; refuse one of another.
    #[default]
    No,
    /// Take up a column of the same key and layout; drop all others of the name.
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
        if !folder.join(cache_file::FILE).exists() {
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
        let file = CacheFile::read(&folder)?;
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
        self.change_rows(true, |rows, change| rows.sync(records, change))
    }

    /// Enters into the row index the content hashes that `column` found while it was encoded, where the index has none, and
    /// says how many. From then on a changed image is noticed.
    ///
    /// # Errors
    /// When there is no such column, or it is damaged.
    pub fn adopt_contents(&mut self, column: &str) -> Result<u32> {
        let reader = self.column_so_far(column)?;
        let _lock = lock_waiting(&self.folder)?;
        self.change_rows(false, |rows, change| adopt_contents(rows, |row| reader.content(row), change))
    }

    /// Joins the parts of columns that lie in the caches `parts`, written with [`ColumnSpec::part`], into whole columns of
    /// the cache `out`, which is made where it is not there: the bytes are those of one run. Shards are linked where
    /// `out` is on their disk, copied and checked against their digests where not. A column's manifest comes last, so that
    /// a crash leaves no column; the same call then starts again. `tick` hears of the bytes of the shards in place.
    ///
    /// # Errors
    /// [`crate::MergeError`] when the caches are of other rows or keys, a shard is in two of them or in none, or a part is not
    /// finished.
    pub fn merge(
        out: impl Into<PathBuf>,
        parts: &[impl AsRef<Path>],
        tick: &(dyn Fn(u64) + Sync),
    ) -> Result<crate::MergeReport> {
        merge(&out.into(), parts, tick)
    }

    /// Takes over the rows of another cache where there are none.
    pub(crate) fn take_rows(&mut self, from: &Rows) -> Result<()> {
        let _lock = lock_waiting(&self.folder)?;
        self.change_rows(false, |rows, change| {
            if !rows.is_empty() {
                return Ok(());
            }
            publish(rows.path(), |out| {
                let mut file = std::fs::File::open(from.path()).map_err(CacheError::io("open", from.path()))?;
                std::io::copy(&mut file, out).map_err(CacheError::io("write", rows.path()))?;
                change.announce(from.digest())
            })
        })
    }

    /// Changes the row index by `change`, with its digest in step. The cache's lock is held.
    fn change_rows<T>(&mut self, compares: bool, change: impl FnOnce(&Rows, &Change) -> Result<T>) -> Result<T> {
        self.refresh_rows()?;
        let step = Change::begin(&self.folder, &self.rows)?;
        let changed = change(&self.rows, &step)?;
        self.refresh_rows()?;
        step.end(compares)?;
        Ok(changed)
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

    /// The rows of a column that have no embedding, in order, and the column's name. Of a column that is being written,
    /// those that are known so far.
    ///
    /// # Errors
    /// When there is no such column, or it is damaged.
    pub fn missing(&self, name: &str) -> Result<(String, Vec<Missing>)> {
        columns::missing_rows(&self.column_folder(name)?)
    }

    /// Whether there is a column of that name, finished or not.
    ///
    /// # Errors
    /// When there is none, or several have the name.
    pub fn has_column(&self, name: &str) -> Result<()> {
        self.column_folder(name).map(|_| ())
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

    /// Computes the digest of the row index and compares it with the one that `cache.json` has.
    ///
    /// # Errors
    /// When one of the two cannot be read.
    pub fn verify_rows(&self) -> Result<RowsVerdict> {
        verify_rows(&self.folder)
    }

    /// Opens a column for writing: a new one, the rest of one that was broken off, or the rows of a finished one that are
    /// new, changed, or (if asked for) missing. Where nothing is to do, the writer has no batches.
    ///
    /// # Errors
    /// When the spec is impossible, another process writes the column, or one of the name has another key or layout.
    pub fn writer(&self, spec: &ColumnSpec, overwrite: Overwrite) -> Result<ColumnWriter> {
        let _lock = lock_waiting(&self.folder)?;
        self.supersede([spec], overwrite)?;
        self.open_writer(spec)
    }

    /// Opens several columns for writing, as [`Cache::writer`] does one: all of them, or, where one is refused, none. Then
    /// nothing was begun and nothing dropped.
    ///
    /// # Errors
    /// As [`Cache::writer`], for the first column that is refused.
    pub fn writers(&self, specs: &[ColumnSpec], overwrite: Overwrite) -> Result<Vec<ColumnWriter>> {
        let _lock = lock_waiting(&self.folder)?;
        self.supersede(specs, overwrite)?;
        specs.iter().map(|spec| self.open_writer(spec)).collect()
    }

    /// Drops the columns that those asked for take the place of, once it is known that none is refused.
    fn supersede<'a>(&self, specs: impl IntoIterator<Item = &'a ColumnSpec>, overwrite: Overwrite) -> Result<()> {
        let columns = self.columns_folder();
        let found = specs
            .into_iter()
            .map(|spec| superseded(&WriterRequest { columns: &columns, rows: &self.rows, spec }, overwrite));
        let found = found.collect::<Result<Vec<_>>>()?;
        found.into_iter().flatten().try_for_each(Superseded::remove)
    }

    fn open_writer(&self, spec: &ColumnSpec) -> Result<ColumnWriter> {
        ColumnWriter::open(&WriterRequest { columns: &self.columns_folder(), rows: &self.rows, spec })
    }

    pub(crate) fn columns_folder(&self) -> PathBuf {
        self.folder.join(COLUMNS)
    }

    fn column_folder(&self, name: &str) -> Result<PathBuf> {
        columns::resolve(&self.folder, &self.columns_folder(), name)
    }
}

/// Makes a cache, `cache.json` last. What a crash left of an earlier attempt is taken up.
fn create(folder: &Path, dataset: &Value) -> Result<()> {
    let lock = folder.join(columns::LOCK);
    let locked_before = lock.exists();
    let _lock = lock_waiting(folder)?;
    if folder.join(cache_file::FILE).exists() {
        return Ok(());
    }
    if let Err(refusal) = refuse_foreign_files(folder).and_then(|()| refuse_to_begin_anew(folder)) {
        // The lock is the only thing this attempt may have made.
        if !locked_before {
            let _ = std::fs::remove_file(&lock);
        }
        return Err(refusal);
    }
    let columns = folder.join(COLUMNS);
    std::fs::create_dir_all(&columns).map_err(CacheError::io("create", &columns))?;
    publish_text(&folder.join(TAG_FILE), TAG)?;
    publish_text(&folder.join(rows::FILE), "")?;
    CacheFile::new(dataset).publish(folder)
}

/// Refuses a folder that holds anything but what an attempt to make a cache leaves.
fn refuse_foreign_files(folder: &Path) -> Result<()> {
    let own = [columns::LOCK, TAG_FILE, COLUMNS, rows::FILE, cache_file::FILE];
    for entry in std::fs::read_dir(folder).map_err(CacheError::io("list", folder))? {
        let entry = entry.map_err(CacheError::io("list", folder))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // The cache's lock never holds a byte.
        let foreign_lock = name == columns::LOCK && entry.metadata().is_ok_and(|lock| lock.len() > 0);
        if foreign_lock || !own.contains(&name.strip_suffix(".tmp").unwrap_or(&name)) {
            return Err(CacheError::NotEmpty { path: folder.to_owned(), found: name.into_owned() });
        }
    }
    Ok(())
}

/// Refuses a cache that has lost its `cache.json`: with new rows, its columns would be those of other images.
fn refuse_to_begin_anew(folder: &Path) -> Result<()> {
    let holds_rows = std::fs::metadata(folder.join(rows::FILE)).is_ok_and(|rows| rows.len() > 0);
    let columns = folder.join(COLUMNS);
    if holds_rows || columns.exists() && !columns::folders(&columns)?.is_empty() {
        return Err(CacheError::LostCacheFile { path: folder.to_owned() });
    }
    Ok(())
}

fn publish_text(path: &Path, text: &str) -> Result<()> {
    publish(path, |out| out.write_all(text.as_bytes()).map_err(CacheError::io("write", path)))
}
