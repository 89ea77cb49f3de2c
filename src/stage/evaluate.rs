//! `icecap evaluate`: captions a split with a run, or takes anyone's results file, and scores them.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use icecap_cache::Cache;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    run::Run,
    train::{captions_of, keep_encoded},
};
use crate::{
    batch,
    decoder::{self, DecodeSpec, Method},
    metrics::{self, Scores},
    progress::Progress,
};

/// Images whose captions are searched for at once.
const IMAGES_AT_ONCE: usize = 128;

/// What `icecap evaluate` is told.
#[derive(Debug, Clone)]
pub struct EvaluateOptions {
    /// The split to caption.
    pub split: String,
    /// The cache, where it isn't the run's own.
    pub cache: Option<PathBuf>,
    /// How captions are searched for, where it isn't the recipe's way.
    pub search: SearchOptions,
    /// `cpu`, `cuda`, `cuda:N`.
    pub device: String,
}

/// One caption of a COCO results file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResultEntry {
    /// The image: a number where the data set has numbers, else its name.
    pub image_id: Value,
    /// The caption.
    pub caption: String,
}

/// Captions and how good they are.
#[derive(Debug)]
pub struct Evaluation {
    /// One caption an image.
    pub results: Vec<ResultEntry>,
    /// Their scores.
    pub scores: Scores,
    /// Images of the split without an embedding: captioned from nothing, and counted.
    pub missing: usize,
}

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
        "`{}` captions {count} images that `{}` doesn't have: {ids}\nhint: give the annotations of the same split", results.display(), annotations.display()
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
    /// A results file came without references.
    #[error("`{}` is a results file, and there is nothing to compare it with\nhint: give the references by --annotations captions.json", path.display())]
    NoAnnotations {
        /// The file.
        path: PathBuf,
    },
}

/// Captions the rows of a split with `run` and scores them.
///
/// # Errors
/// Where the run or its cache can't be used.
pub fn evaluate_run(run: &Run, options: &EvaluateOptions, progress: &dyn Progress) -> Result<Evaluation> {
    let path = options.cache.clone().unwrap_or_else(|| run.info.cache.clone());
    let cache = Cache::open(&path)?;
    let readers = run.columns(&cache, &path)?;
    let rows = cache.rows();
    let mut wanted = rows.split_rows(&options.split);
    wanted.retain(|row| !captions_of(rows, *row).is_empty());
    keep_encoded(&mut wanted, &readers, &options.split).iter().for_each(|note| progress.line(note));
    if wanted.is_empty() {
        let known = rows.split_names().join(", ");
        return Err(EvaluateError::NoRows { cache: path, split: options.split.clone(), known }.into());
    }
    let (decoder, note) = run.decoder(&options.device)?;
    note.iter().for_each(|note| progress.line(note));
    let spec = options.search.apply(&run.recipe.decode)?;
    let missing = wanted.iter().filter(|row| readers.iter().any(|column| !column.is_present(**row))).count();
    let columns = run.view(readers.into_iter().map(batch::cached).collect())?;
    progress.start("caption", Some(wanted.len() as u64));
    let mut captions = Vec::with_capacity(wanted.len());
    for (at, rows) in wanted.chunks(IMAGES_AT_ONCE).enumerate() {
        let prefix = batch::gather(&columns, rows).to_device(decoder.params().device());
        let spoken = decoder::generate_from(decoder.as_ref(), &prefix, &spec, run.special(), at * IMAGES_AT_ONCE);
        captions.extend(spoken.iter().map(|spoken| run.tokenizer.decode(&spoken.tokens)));
        progress.advance(rows.len() as u64);
    }
    progress.finish();
    let references: Vec<Vec<String>> = wanted.iter().map(|row| captions_of(rows, *row)).collect();
    let scores = metrics::score(&captions, &references)?;
    let results = wanted
        .iter()
        .zip(captions)
        .map(|(row, caption)| ResultEntry { image_id: image_id(&rows.id(*row)), caption })
        .collect();
    Ok(Evaluation { results, scores, missing })
}

/// What is said of the search beside the recipe; what isn't said stays the recipe's.
#[derive(Debug, Clone, Default)]
pub struct SearchOptions {
    /// The width of the beam; 1 is greedy.
    pub beam: Option<usize>,
    /// Sample at this temperature.
    pub temperature: Option<f64>,
    /// Sample from so many of the most probable tokens.
    pub top_k: Option<usize>,
    /// Sample from the most probable tokens that together have this probability.
    pub top_p: Option<f64>,
    /// Decides what is sampled.
    pub seed: Option<u64>,
    /// No sequence of so many tokens is said twice.
    pub no_repeat_ngram: Option<usize>,
    /// Log-probabilities are divided by length to this power.
    pub length_penalty: Option<f64>,
}

impl SearchOptions {
    /// `spec` with what was said put in.
    ///
    /// # Errors
    /// Where a number makes no sense.
    pub fn apply(&self, spec: &DecodeSpec) -> Result<DecodeSpec> {
        let samples = self.temperature.is_some() || self.top_k.is_some() || self.top_p.is_some();
        let method = match self.beam {
            _ if samples => Method::Sample,
            Some(1) => Method::Greedy,
            Some(_) => Method::Beam,
            None => spec.method,
        };
        let spec = DecodeSpec {
            method,
            beam: self.beam.unwrap_or(spec.beam),
            temperature: self.temperature.unwrap_or(spec.temperature),
            top_k: self.top_k.unwrap_or(spec.top_k),
            top_p: self.top_p.unwrap_or(spec.top_p),
            seed: self.seed.unwrap_or(spec.seed),
            no_repeat_ngram: self.no_repeat_ngram.unwrap_or(spec.no_repeat_ngram),
            length_penalty: self.length_penalty.unwrap_or(spec.length_penalty),
            ..*spec
        };
        spec.check()?;
        Ok(spec)
    }
}

/// A number where the id is one, as COCO's tools expect.
fn image_id(id: &str) -> Value {
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
pub fn evaluate_results(results: &Path, annotations: Option<&Path>) -> Result<Evaluation> {
    let annotations = annotations.ok_or_else(|| EvaluateError::NoAnnotations { path: results.to_owned() })?;
    let entries: Vec<ResultEntry> = parse(results, "a results file: [{\"image_id\": .., \"caption\": ..}, ..]")?;
    let truth: Annotations =
        parse(annotations, "a COCO captions file: {\"annotations\": [{\"image_id\": .., \"caption\": ..}, ..]}")?;
    let mut references: HashMap<String, Vec<String>> = HashMap::new();
    for annotation in truth.annotations {
        references.entry(annotation.image_id.to_string()).or_default().push(annotation.caption);
    }
    let mut seen = BTreeMap::new();
    for entry in &entries {
        if seen.insert(entry.image_id.to_string(), ()).is_some() {
            return Err(EvaluateError::Repeated { path: results.to_owned(), id: entry.image_id.to_string() }.into());
        }
    }
    let unknown: Vec<&String> = seen.keys().filter(|id| !references.contains_key(*id)).collect();
    if !unknown.is_empty() {
        let ids = unknown.iter().take(10).map(|id| id.as_str()).collect::<Vec<_>>().join(", ");
        let (results, annotations) = (results.to_owned(), annotations.to_owned());
        return Err(EvaluateError::Unknown { results, annotations, count: unknown.len(), ids }.into());
    }
    let captions: Vec<String> = entries.iter().map(|entry| entry.caption.clone()).collect();
    let references: Vec<Vec<String>> =
        entries.iter().map(|entry| references.remove(&entry.image_id.to_string()).unwrap_or_default()).collect();
    let scores = metrics::score(&captions, &references)?;
    Ok(Evaluation { results: entries, scores, missing: 0 })
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
