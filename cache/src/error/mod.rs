//! Everything that can go wrong, one variant a way of going wrong.
//!
//! A message says what failed, the value in backticks and the file, then `hint:` where there is a way out. A wrapped error
//! is a source, never text in the message. Errors of one part of the format have an enum of their own, so that a test can
//! name the malformation it expects.

mod files;
mod index;
mod merge;

use std::io;
use std::path::{Path, PathBuf};

use crate::{KeyDifference, Part};
pub use files::{JournalError, ManifestError, ShardError};
pub use index::{RowsError, SpecError};
pub use merge::MergeError;

/// What this crate's functions return.
pub type Result<T, E = CacheError> = std::result::Result<T, E>;

/// An operation on a cache failed.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The operating system refused.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// The verb: read, write, rename.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No room on the disk.
    #[error("the disk of `{}` is full{}\nhint: free space and run the same command again: it resumes", path.display(), room(*needed, *free))]
    DiskFull {
        /// The file that did not fit.
        path: PathBuf,
        /// Bytes the file needs, where that is known.
        needed: Option<u64>,
        /// Bytes left on the disk, where that is known.
        free: Option<u64>,
    },
    /// The folder is no cache.
    #[error("`{}` is not a cache: it has no `cache.json`\nhint: `icecap encode RECIPE --cache {}` makes one", path.display(), path.display())]
    NotACache {
        /// The folder.
        path: PathBuf,
    },
    /// A cache is only made in an empty folder.
    #[error("cannot make a cache in `{}`: the folder holds `{found}`\nhint: name a folder that is empty or does not exist yet", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
        /// One of the files in it.
        found: String,
    },
    /// The folder holds rows or columns without the file that makes them a cache.
    #[error("`{}` holds rows or columns of a cache that has lost its `cache.json`\nhint: put `cache.json` back (`{{\"format\": 1}}` is enough for one), or move the folder away and encode anew", path.display())]
    LostCacheFile {
        /// The folder.
        path: PathBuf,
    },
    /// `cache.json` does not say what it should.
    #[error("cannot understand `{}`", path.display())]
    CacheFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A later program wrote the cache.
    #[error("`{}` is of format `{found}`, and this program reads up to `{}`\nhint: use a newer icecap", path.display(), crate::FORMAT)]
    CacheVersion {
        /// The file that says so.
        path: PathBuf,
        /// The format it names.
        found: u32,
    },
    /// The row index is damaged or cannot be changed so.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// The column asked for makes no sense.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A manifest is damaged.
    #[error("{}", with_way_out(.0))]
    Manifest(#[from] ManifestError),
    /// A shard is damaged.
    #[error("{}", with_way_out(.0))]
    Shard(#[from] ShardError),
    /// A journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Parts do not make a column.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// There is no such column.
    #[error("there is no column `{column}` in `{}`\nhint: {}", cache.display(), known_columns(known))]
    NoSuchColumn {
        /// The cache's folder.
        cache: PathBuf,
        /// The name asked for.
        column: String,
        /// The columns there are.
        known: Vec<String>,
    },
    /// Several columns have the name.
    #[error("`{column}` names {} columns\nhint: say which: `{}`", folders.len(), folders.join("`, `"))]
    SeveralColumns {
        /// The name asked for.
        column: String,
        /// The folders that have it.
        folders: Vec<String>,
    },
    /// The column has no manifest yet.
    #[error(
        "column `{column}` is not finished: {rows_done} of {rows} rows are there\nhint: run the command that writes it again: it resumes"
    )]
    NotFinished {
        /// The column.
        column: String,
        /// Rows that are done.
        rows_done: u32,
        /// Rows it will have.
        rows: u32,
    },
    /// The cache holds one part of the column.
    #[error(
        "column `{column}` is {part} here, not the whole\nhint: `icecap cache merge OUT CACHE...` joins the caches of all parts; encoding without --part does the rest in this one"
    )]
    OnlyAPart {
        /// The column.
        column: String,
        /// What is there.
        part: Part,
    },
    /// A part is asked for where something else is.
    #[error("column `{column}` in `{}` is {}, and {wanted} is asked for\nhint: give each part a cache of its own; `icecap cache merge` joins them", path.display(), found_part(*found))]
    OtherPart {
        /// The column.
        column: String,
        /// The folder of the column that exists.
        path: PathBuf,
        /// The part asked for.
        wanted: Part,
        /// What is there; `None`: the whole.
        found: Option<Part>,
    },
    /// A column of this name has another key.
    #[error("column `{column}` exists with another key, in `{}`:\n{}\nhint: give the new column another name, or replace the old one with --overwrite", path.display(), key_lines(differences))]
    KeyDiffers {
        /// The column.
        column: String,
        /// The folder of the column that exists.
        path: PathBuf,
        /// Every field that differs: expected is asked for, found is in the cache.
        differences: Vec<KeyDifference>,
    },
    /// A column of the same key is laid out otherwise.
    #[error("column `{column}` exists with another {field}, in `{}`: expected `{expected}`, found `{found}`\nhint: ask for the {field} it has, or replace the column with --overwrite", path.display())]
    LayoutDiffers {
        /// The column.
        column: String,
        /// The folder of the column that exists.
        path: PathBuf,
        /// What differs, in words.
        field: &'static str,
        /// What is asked for.
        expected: String,
        /// What the cache has.
        found: String,
    },
    /// Another writer has the column, or another process changes the cache.
    #[error("`{}` is in use by another process\nhint: wait for it to end; the lock goes with the process that holds it, so there is nothing to delete", lock.display())]
    Busy {
        /// The lock file.
        lock: PathBuf,
    },
    /// The column has more rows than the cache.
    #[error(
        "column `{column}` has {column_rows} rows and the cache only {rows}\nhint: `rows.jsonl` was replaced by a shorter one: put the old one back, or drop the column"
    )]
    RowsShrank {
        /// The column.
        column: String,
        /// Its rows.
        column_rows: u32,
        /// The cache's.
        rows: u32,
    },
    /// The batch is not one of those to do, or somebody has it.
    #[error("the batch at row `{start}` is not to be done, done already, or in other hands")]
    BatchTaken {
        /// First row of the batch.
        start: u32,
    },
    /// The slot belongs to another writer.
    #[error("the batch at row `{start}` belongs to another column's writer than `{column}`")]
    ForeignSlot {
        /// First row of the batch.
        start: u32,
        /// The column whose writer was called.
        column: String,
    },
    /// One outcome a row is needed.
    #[error("the batch at row `{start}` has {expected} rows to do, and {found} outcomes were given")]
    OutcomeCount {
        /// First row of the batch.
        start: u32,
        /// Rows to do.
        expected: usize,
        /// Outcomes given.
        found: usize,
    },
    /// Bytes of another length than a row or a batch.
    #[error("`{tensor}` of the batch at row `{start}` takes {expected} bytes, and {found} were given")]
    ByteCount {
        /// The tensor.
        tensor: String,
        /// First row of the batch.
        start: u32,
        /// Bytes it takes.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// The row is not one to do.
    #[error("row `{row}` is not to be done in the batch at row `{start}`")]
    RowNotInBatch {
        /// The row.
        row: u32,
        /// First row of the batch.
        start: u32,
    },
    /// `finish` was called too early.
    #[error(
        "column `{column}` cannot be finished: {rows_left} rows are not committed\nhint: run the same command again: it resumes"
    )]
    Unfinished {
        /// The column.
        column: String,
        /// Rows that are missing.
        rows_left: u32,
    },
    /// The writer stopped at an earlier error, which was reported then.
    #[error("the writer of column `{column}` stopped at an earlier error")]
    WriterStopped {
        /// The column.
        column: String,
    },
}

impl CacheError {
    /// Wraps an I/O error; a full disk gets the variant of its own.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { path: path.to_owned(), needed: None, free: None }
            }
            _ => Self::Io { action, path: path.to_owned(), source },
        }
    }

    /// Whether a file was not there.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

fn room(needed: Option<u64>, free: Option<u64>) -> String {
    match (needed, free) {
        (Some(needed), Some(free)) => format!(": the shard needs {needed} bytes, {free} are free"),
        (Some(needed), None) => format!(": the shard needs {needed} bytes"),
        _ => String::new(),
    }
}

fn known_columns(known: &[String]) -> String {
    if known.is_empty() { "the cache has no column yet".to_owned() } else { format!("it has `{}`", known.join("`, `")) }
}

fn found_part(found: Option<Part>) -> String {
    found.map_or_else(|| "whole, or on its way to be".to_owned(), |part| part.to_string())
}

pub(crate) fn key_lines(differences: &[KeyDifference]) -> String {
    let lines: Vec<String> = differences.iter().map(|difference| format!("  {difference}")).collect();
    lines.join("\n")
}

/// Damage that names no way out of its own.
fn with_way_out(damage: &dyn std::error::Error) -> String {
    let said = damage.to_string();
    if said.contains("\nhint: ") {
        return said;
    }
    said + "\nhint: `icecap cache verify` lists all that is damaged; `icecap cache drop` the column, and encode it again"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> PathBuf {
        PathBuf::from("C/file")
    }

    fn json() -> serde_json::Error {
        serde_json::from_str::<u8>("x").unwrap_err()
    }

    /// Messages that no test of behaviour shows.
    #[test]
    fn messages_of_the_cache() {
        let all = [
            CacheError::io("read", &path())(io::ErrorKind::NotFound.into()),
            CacheError::io("read", &path())(io::ErrorKind::StorageFull.into()),
            CacheError::DiskFull { path: path(), needed: Some(5), free: None },
            CacheError::SeveralColumns { column: "a".into(), folders: vec!["a-1".into(), "a-2".into()] },
            CacheError::NoSuchColumn { cache: "C".into(), column: "a".into(), known: vec![] },
            CacheError::WriterStopped { column: "a".into() },
        ];
        insta::assert_snapshot!(all.map(|error| error.to_string()).join("\n"), @r"
        cannot read `C/file`
        the disk of `C/file` is full
        hint: free space and run the same command again: it resumes
        the disk of `C/file` is full: the shard needs 5 bytes
        hint: free space and run the same command again: it resumes
        `a` names 2 columns
        hint: say which: `a-1`, `a-2`
        there is no column `a` in `C`
        hint: the cache has no column yet
        the writer of column `a` stopped at an earlier error
        ");
    }

    #[test]
    fn messages_of_rows_and_specs() {
        let all = [
            RowsError::Line { path: path(), line: 3, source: json() },
            RowsError::Content { path: path(), line: 3 },
            RowsError::Torn { path: path() },
            RowsError::TooMany { path: path(), what: "splits" },
            RowsError::DuplicateLine { path: path(), id: "a".into(), first: 1, second: 2 },
        ];
        insta::assert_snapshot!(all.map(|error| error.to_string()).join("\n"), @r"
        line `3` of `C/file` is not a row
        line `3` of `C/file` has a `content` that is not 32 lower-case hex digits
        `C/file` ends in the middle of a line
        hint: it was changed by hand or by another program; put the old one back
        `C/file` has more splits than the format can count
        `a` is the id of two rows of `C/file`: `1` and `2`
        ");
        insta::assert_snapshot!(SpecError::KeyDigest { expected: "a".into(), found: "b".into() }, @"the key's digest is `a`, and `b` is recorded");
    }

    #[test]
    fn messages_of_a_columns_files() {
        let all = [
            ManifestError::MissingLine { path: path(), line: 3, source: json() },
            ManifestError::MissingOrder { path: path(), line: 3, row: 9 },
            ManifestError::MissingStatus { path: path(), row: 9, status: 4 },
        ];
        insta::assert_snapshot!(all.map(|error| error.to_string()).join("\n"), @r"
        line `3` of `C/file` is not a missing row
        line `3` of `C/file` names row `9`, which is out of order or outside the column
        row `9` of `C/file` has status `4` in its shard, which the list of missing rows does not say
        ");
        insta::assert_snapshot!(ShardError::Alignment { path: path(), offset: 63 }, @"the data of shard `C/file` starts at byte `63`, which is not a multiple of 64");
        let all = [
            JournalError::NoPlan { path: path() },
            JournalError::Version { path: path(), found: 3 },
            JournalError::Plan { path: path(), source: SpecError::NoTensors },
            JournalError::Record { path: path(), record: 2, source: json() },
            JournalError::MissingRow { path: path(), record: 2, row: 9 },
            JournalError::FileName { path: path(), record: 2, file: "../a".into() },
            JournalError::ShardRows { path: path(), record: 2, most: 4, found: 5 },
        ];
        insta::assert_snapshot!(all.map(|error| error.to_string()).join("\n"), @r"
        the journal `C/file` does not start with a plan
        hint: drop the column, or write it anew with --overwrite
        the journal `C/file` is of format `3`, and this program reads up to `2`
        hint: use a newer icecap
        the journal `C/file` describes an impossible column
        record `2` of the journal `C/file` is not understood
        record `2` of the journal `C/file` names the missing row `9`, which is outside the column
        hint: drop the column, or write it anew with --overwrite
        record `2` of the journal `C/file` names `../a`, which is not a plain file name of its folder
        hint: drop the column, or write it anew with --overwrite
        record `2` of the journal `C/file` gives a shard 5 rows where it has at most 4
        hint: drop the column, or write it anew with --overwrite
        ");
    }
}
