//! Features that other programs keep: the caches that people own, read; and columns, written for those who want them so.
//!
//! It must not know caches, data sets or torch: a [`Source`] is a list of named pictures and a way to read one of them as
//! numbers, whatever file they are in. What becomes of the numbers is the stage's business.
//!
//! The decision defended: a source is looked through once before anything is written. That pass takes its digest (the column's
//! key needs it), finds how many vectors a picture has at most (a column's rows have one shape), and refuses names that occur twice
//! and files that were cut off; so that an import of hours does not end at its last line.

mod arrays;
mod error;
mod ids;
mod npy;
mod rows;
mod safetensors;
mod stacked;
mod tsv;

use std::path::{Path, PathBuf};
use std::str::FromStr;

pub use arrays::Arrays;
pub use error::ForeignError;
pub use ids::Matcher;
pub use npy::{NpyKind, NpyWriter};
pub use rows::{Row, Shape};
pub use safetensors::{FileTensor, SafetensorsWriter};
pub use stacked::{FEATURES, IDS, Stacked};
pub use tsv::Tsv;

use crate::progress::Progress;

/// How the features are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Bottom-up attention's TSV, base64 fields: Anderson's 6 columns, or the 10 of LXMERT's extractor.
    AndersonTsv,
    /// A folder of one `.npy` a picture: `[D]`, `[K, D]` or `[h, w, D]`.
    Npy,
    /// A folder with `features.npy`, `[N, ..]`, and `ids.txt`, a name a row, as `icecap cache export` writes them.
    NpyRows,
    /// A folder of one `.npz` a picture, of which one array is taken.
    Npz,
    /// A folder of one `.npz` a picture with `x`, `bbox`, `num_bbox`, `image_h`, `image_w`.
    BottomUpNpz,
}

impl Format {
    /// Its name on the command line and in keys.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AndersonTsv => "anderson-tsv",
            Self::Npy => "npy",
            Self::NpyRows => "npy-rows",
            Self::Npz => "npz",
            Self::BottomUpNpz => "bottom-up-npz",
        }
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::AndersonTsv, Self::Npy, Self::NpyRows, Self::Npz, Self::BottomUpNpz];
        let found = all.into_iter().find(|format| format.name() == text);
        found.ok_or_else(|| format!("the formats are {}", all.map(Self::name).join(", ")))
    }
}

/// Pictures with features, looked through and ready to be read one by one, by any number of threads.
pub trait Source: Send + Sync {
    /// The pictures' names as the source has them, each once.
    fn names(&self) -> &[String];
    /// BLAKE3 of everything that is read, in hex.
    fn digest(&self) -> &str;
    /// The tensors of a row; the first is the embedding, `[.., D]`.
    fn shapes(&self) -> Vec<Shape>;
    /// Reads a picture into `row`, whose tensors have the shapes of [`Source::shapes`]; what it does not fill is zero.
    ///
    /// # Errors
    /// Where the bytes cannot be read, are not numbers, or are not as many as they should be.
    fn read(&self, picture: usize, row: &mut Row) -> Result<(), ForeignError>;
    /// For messages: where a picture is.
    fn place(&self, picture: usize) -> String;
}

/// What a source is opened with.
#[derive(Debug, Clone)]
pub struct SourceOptions {
    /// How the features are kept.
    pub format: Format,
    /// The file or folder.
    pub from: PathBuf,
    /// The array of an `.npz` that is taken.
    pub array: String,
    /// Vectors a row; `None`: as many as the picture with the most has.
    pub vectors: Option<usize>,
}

/// Looks through a source.
///
/// # Errors
/// [`ForeignError`], with the file and the line.
pub fn open(options: &SourceOptions, progress: &dyn Progress) -> Result<Box<dyn Source>, ForeignError> {
    match options.format {
        Format::AndersonTsv => Ok(Box::new(Tsv::open(&options.from, options.vectors, progress)?)),
        Format::NpyRows => Ok(Box::new(Stacked::open(&options.from, progress)?)),
        _ => Ok(Box::new(Arrays::open(options, progress)?)),
    }
}

/// The files in a folder that end in `.extension`, in order of name.
fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, ForeignError> {
    let unreadable = |source| ForeignError::Read { path: folder.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|found| found == extension) && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests;
