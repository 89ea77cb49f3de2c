//! Strict TOML: every fault of a file is found at once and shown with a caret under it and the nearest known name.
//!
//! Knows nothing of what a recipe means: it turns text into any `Deserialize` type. serde stops at the first fault; so
//! that a user doesn't mend a file one fault at a time, the fault is noted, the parsed tree is mended (`mend`), and the rest is
//! tried again until nothing is left to complain about. What then was read is handed out with the faults, so that faults
//! of meaning can be shown beside them.

mod complaint;
mod mend;
mod place;
mod tree;

use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Table;
use toml_edit::Document;

use super::RecipeError;
pub use complaint::{nearest, ways_out};
pub use mend::STAND_IN;

/// One fault of a file: where it is (a byte range), what it is, and what to do where that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Bytes of the text that the caret stands under.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// The way out.
    pub hint: Option<String>,
}

/// A file as far as it could be read.
#[derive(Debug)]
pub struct Reading<T> {
    /// What it says. Where there are faults, with guesses in the faulty places ([`STAND_IN`] for a text); `None` where none fit.
    pub value: Option<T>,
    /// All that is wrong, from top to bottom.
    pub faults: Vec<Fault>,
    /// Where nothing that the file says could be read: entries of the wrong type, missing ones, misspelt ones.
    pub unread: Vec<Vec<String>>,
}

/// Reads `text`, the contents of the file called `name`, as a `T`, past all its faults.
///
/// # Errors
/// [`RecipeError::Faults`] where it isn't TOML.
pub fn read<T: DeserializeOwned>(text: &str, name: &str) -> Result<Reading<T>, RecipeError> {
    let broken = |span: Option<Range<usize>>, message: &str| {
        let fault = Fault { span: span.unwrap_or(0..0), message: message.to_owned(), hint: None };
        RecipeError::Faults { name: name.to_owned(), text: text.to_owned(), faults: vec![fault] }
    };
    let document = Document::parse(text.to_owned()).map_err(|error| broken(error.span(), error.message()))?;
    let tree: Table = toml::from_str(text).map_err(|error| broken(error.span(), error.message()))?;
    let mut search = mend::Search::new(tree);
    let value = search.run();
    let mut faults: Vec<Fault> = search.complaints().iter().map(|complaint| complaint.fault(&document)).collect();
    faults.sort_by_key(|fault| fault.span.start);
    Ok(Reading { value, faults, unread: search.unread() })
}

/// Reads `text`, the contents of the file called `name`, as a `T`.
///
/// # Errors
/// [`RecipeError::Faults`] with every fault found.
pub fn parse<T: DeserializeOwned>(text: &str, name: &str) -> Result<T, RecipeError> {
    match read(text, name)? {
        Reading { value: Some(value), faults, .. } if faults.is_empty() => Ok(value),
        Reading { faults, .. } => Err(RecipeError::Faults { name: name.to_owned(), text: text.to_owned(), faults }),
    }
}

/// The place of the entry `path` (such as `["decoder", "columns"]`) in `text`, for faults of meaning found after parsing.
#[must_use]
pub fn span_of(text: &str, path: &[&str]) -> Option<Range<usize>> {
    let document = Document::parse(text.to_owned()).ok()?;
    let path: Vec<String> = path.iter().map(ToString::to_string).collect();
    place::value(&document, &path)
}
