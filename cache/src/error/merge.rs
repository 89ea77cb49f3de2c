//! Errors of joining parts.

use std::path::PathBuf;

use super::key_lines;
use crate::KeyDifference;

/// Caches that do not make one.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// The result is also an input.
    #[error("`{}` is to be made of itself\nhint: name a new folder for the result", out.display())]
    Itself {
        /// The folder.
        out: PathBuf,
    },
    /// The inputs hold no column.
    #[error("there is no column to merge in `{}`", caches.iter().map(|cache| cache.display().to_string()).collect::<Vec<_>>().join("`, `"))]
    Nothing {
        /// The caches.
        caches: Vec<PathBuf>,
    },
    /// The caches are of different images.
    #[error("`{}` and `{}` are caches of different rows: row `{row}` differs in its {what}\nhint: parts must be encoded from the same recipe and the same data set", first.display(), other.display())]
    Rows {
        /// The first cache.
        first: PathBuf,
        /// The one that differs.
        other: PathBuf,
        /// The first row that differs.
        row: u32,
        /// In what.
        what: &'static str,
    },
    /// Columns of one name were made in different ways.
    #[error("column `{column}` of `{}` has another key than that of `{}`:\n{}\nhint: parts must be encoded by the same recipe and the same model", other.display(), first.display(), key_lines(differences))]
    Keys {
        /// The column.
        column: String,
        /// The first cache.
        first: PathBuf,
        /// The one that differs.
        other: PathBuf,
        /// Every field that differs: expected is the first's, found is the other's.
        differences: Vec<KeyDifference>,
    },
    /// Columns of one key are laid out in different ways.
    #[error("column `{column}` of `{}` has another {field} than that of `{}`: expected `{expected}`, found `{found}`\nhint: encode the part again with the same options as the others", caches.1.display(), caches.0.display())]
    Layout {
        /// The column.
        column: String,
        /// The first cache, and the one that differs.
        caches: Box<(PathBuf, PathBuf)>,
        /// What differs, in words.
        field: &'static str,
        /// What the first has.
        expected: String,
        /// What the other has.
        found: String,
    },
    /// A shard is there twice.
    #[error("rows {rows} of column `{column}` are in `{}` and in `{}`\nhint: name each part once", first.display(), other.display())]
    Twice {
        /// The column.
        column: String,
        /// The rows.
        rows: String,
        /// One cache that has them.
        first: PathBuf,
        /// Another.
        other: PathBuf,
    },
    /// A shard is nowhere.
    #[error("no cache has rows {rows} of column `{column}`{}\nhint: name the caches of all parts", part.as_ref().map_or_else(String::new, |part| format!(": they are {part}")))]
    Lacking {
        /// The column.
        column: String,
        /// The rows.
        rows: String,
        /// The part they are, where there is one name for it.
        part: Option<String>,
    },
    /// A part is still being written.
    #[error("column `{column}` of `{}` is not finished: {rows_done} of {rows} rows are there\nhint: run its `icecap encode --part` again: it resumes", cache.display())]
    Unfinished {
        /// The column.
        column: String,
        /// The cache.
        cache: PathBuf,
        /// Rows that are done.
        rows_done: u32,
        /// Rows it will have.
        rows: u32,
    },
    /// The result has the column, and another.
    #[error("`{}` has a column `{column}` that is not the one to be made\nhint: `icecap cache drop {} {column}`, or name a new folder for the result", out.display(), out.display())]
    Exists {
        /// The column.
        column: String,
        /// The result's folder.
        out: PathBuf,
    },
    /// A file that is copied is not what was written.
    #[error("`{}` is not what its manifest says\nhint: `icecap cache verify` tells which rows are damaged; encode that part again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}
