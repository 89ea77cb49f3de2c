//! What can be wrong with what is to be scored.

use std::path::PathBuf;

/// Files that can't be scored.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// The split has no captioned rows.
    #[error("the cache `{}` has no captioned rows of the split `{split}`\nhint: its splits: {known}", cache.display())]
    NoRows {
        /// The cache.
        cache: PathBuf,
        /// The split.
        split: String,
        /// The splits that it has.
        known: String,
    },
    /// Not JSON of the expected form.
    #[error("`{}` is not {expected}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
        /// Where it isn't.
        #[source]
        source: serde_json::Error,
    },
    /// An image has several captions.
    #[error("`{}` has more than one caption for image {id}\nhint: a results file holds one caption an image", path.display())]
    Repeated {
        /// The file.
        path: PathBuf,
        /// The image.
        id: String,
    },
    /// Images without references.
    #[error(
        "`{}` captions {count} {} that `{}` doesn't have: {ids}\nhint: give the annotations of the same split",
        results.display(),
        if *count == 1 { "image" } else { "images" },
        annotations.display()
    )]
    Unknown {
        /// The results.
        results: PathBuf,
        /// The annotations.
        annotations: PathBuf,
        /// How many.
        count: usize,
        /// The first of them.
        ids: String,
    },
    /// The file of per-image scores is of another version.
    #[error("`{}` holds scores of format `{found}`, and this icecap reads `{expected}`\nhint: run `icecap evaluate` again", path.display())]
    OtherFormat {
        /// The file.
        path: PathBuf,
        /// The format that was found.
        found: u32,
        /// The format that is read.
        expected: u32,
    },
    /// Two runs were scored on different images or references.
    #[error(
        "`{}` and `{}` can't stand in one table: {difference}\nhint: evaluate both on the same split of the same cache", first.display(), other.display()
    )]
    OtherImages {
        /// The first run's scores.
        first: PathBuf,
        /// The other's.
        other: PathBuf,
        /// The first thing that differs.
        difference: String,
    },
    /// Neither a run nor a file.
    #[error("there is nothing at `{}`\nhint: give the folder of a run, or a results file with --annotations captions.json", path.display())]
    Nothing {
        /// What was given.
        path: PathBuf,
    },
    /// An option that the subject has no use for.
    #[error("`{option}` is for {meant}, and `{}` is {found}\nhint: leave `{option}` out", path.display())]
    Useless {
        /// The option.
        option: &'static str,
        /// What it is for.
        meant: &'static str,
        /// The subject.
        path: PathBuf,
        /// What the subject is.
        found: &'static str,
    },
    /// A results file came without references.
    #[error("`{}` is a results file, and there is nothing to compare it with\nhint: give the references by --annotations captions.json", path.display())]
    NoAnnotations {
        /// The file.
        path: PathBuf,
    },
}
