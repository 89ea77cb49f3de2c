//! COCO results files: anyone's captions, scored against COCO's annotations; and written.
//!
//! Must not know: runs. An id is compared as it is written: `1` and `"1"` are two images, as they are to COCO's tools.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::Path,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{EvaluateError, Evaluation, Judging, Subject, judge};
use crate::progress::Progress;

/// One caption of a COCO results file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResultEntry {
    /// The image: a number where the data set has numbers, else its name.
    pub image_id: Value,
    /// The caption.
    pub caption: String,
}

/// A number where the id is one, as COCO's tools expect.
pub(super) fn image_id(id: &str) -> Value {
    let number = id.parse::<u64>().ok().filter(|number| number.to_string() == id);
    number.map_or_else(|| Value::from(id), Value::from)
}

/// The part of a COCO captions file that scoring needs.
#[derive(Debug, Deserialize)]
struct Annotations {
    annotations: Vec<Annotation>,
}

#[derive(Debug, Deserialize)]
struct Annotation {
    image_id: Value,
    caption: String,
}

/// Scores a COCO results file against a COCO captions file, over the images of the results.
///
/// # Errors
/// Where a file isn't of its format, or the results don't fit the annotations.
pub fn evaluate_results(
    results: &Path,
    annotations: Option<&Path>,
    judging: &Judging,
    progress: &dyn Progress,
) -> Result<Evaluation> {
    let annotations = annotations.ok_or_else(|| EvaluateError::NoAnnotations { path: results.to_owned() })?;
    let entries: Vec<ResultEntry> = parse(results, "a results file: [{\"image_id\": .., \"caption\": ..}, ..]")?;
    let truth: Annotations =
        parse(annotations, "a COCO captions file: {\"annotations\": [{\"image_id\": .., \"caption\": ..}, ..]}")?;
    let mut references: HashMap<String, Vec<String>> = HashMap::new();
    for annotation in truth.annotations {
        references.entry(annotation.image_id.to_string()).or_default().push(annotation.caption);
    }
    let images = references.len();
    let ids: Vec<String> = entries.iter().map(|entry| entry.image_id.to_string()).collect();
    let mut seen = HashSet::new();
    if let Some(twice) = ids.iter().find(|id| !seen.insert(id.as_str())) {
        return Err(EvaluateError::Repeated { path: results.to_owned(), id: twice.clone() }.into());
    }
    let unknown: Vec<&str> = ids.iter().filter(|id| !references.contains_key(*id)).map(String::as_str).collect();
    if !unknown.is_empty() {
        let first = unknown.iter().take(10).copied().collect::<Vec<_>>().join(", ");
        let (results, annotations) = (results.to_owned(), annotations.to_owned());
        return Err(EvaluateError::Unknown { results, annotations, count: unknown.len(), ids: first }.into());
    }
    if entries.len() < images {
        let left = images - entries.len();
        progress.line(&format!(
            "{left} of the {images} images of `{}` have no caption here and are left out",
            annotations.display()
        ));
    }
    let references = ids.iter().map(|id| references.remove(id).unwrap_or_default()).collect();
    judge(Subject { results: entries, references, training: None, missing: 0 }, judging, progress)
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path, expected: &'static str) -> Result<T> {
    let text = fs::read_to_string(path).with_context(|| format!("`{}` can't be read", path.display()))?;
    serde_json::from_str(&text)
        .map_err(|source| EvaluateError::Format { path: path.to_owned(), expected, source }.into())
}

/// Writes `results` as a COCO results file.
///
/// # Errors
/// Where `path` can't be written.
pub fn write_results(path: &Path, results: &[ResultEntry]) -> Result<()> {
    let text = serde_json::to_string_pretty(results)?;
    fs::write(path, text + "\n").with_context(|| format!("`{}` can't be written", path.display()))
}
