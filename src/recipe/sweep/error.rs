//! What can be wrong with a sweep file.

use std::path::PathBuf;

use super::super::{RecipeError, error::render, strict::Fault};

/// A sweep file that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The file can't be read.
    #[error("the sweep file `{}` can't be read\nhint: check the path; pipelines/study-flickr8k.toml is one", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file was read, and these things are wrong with it.
    #[error("{}", render("sweep file", name, text, faults))]
    Faults {
        /// The file's name.
        name: String,
        /// Its contents.
        text: String,
        /// All that is wrong.
        faults: Vec<Fault>,
    },
    /// The recipe that it names.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
}
