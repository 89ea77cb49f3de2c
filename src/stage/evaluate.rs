//! `icecap evaluate`: captions a split with a run, or takes anyone's results file, and scores them.
//!
//! Must not know: how anything is shown. Runs and results files meet in `judge`: whoever wrote the captions, they are scored in one way.

mod error;
mod results;
mod scored;
mod summary;

use std::path::PathBuf;

use anyhow::Result;
use icecap_cache::Cache;

use super::{
    jars::{self, JarScores},
    run::Run,
    train::{captions_of, keep_encoded},
};
use crate::{
    batch, dataset,
    decoder::{self, DecodeSpec, Method},
    metrics::{self, Plan, Scores},
    progress::Progress,
};

pub use error::EvaluateError;
pub use results::{ResultEntry, evaluate_results, write_results};
pub use scored::{Made, Scored, ScoredImage, same_images};
pub use summary::{Intervals, Summary};

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
    /// How the captions are scored.
    pub judging: Judging,
}

/// How captions are scored.
#[derive(Debug, Clone, Default)]
pub struct Judging {
    /// Run METEOR and SPICE too, where they are installed.
    pub java: bool,
    /// The Python that runs them, where it isn't the one of `make setup`.
    pub python: Option<PathBuf>,
    /// How intervals are found; none without.
    pub bootstrap: Option<Plan>,
}

/// Captions and how good they are.
#[derive(Debug)]
pub struct Evaluation {
    /// One caption an image.
    pub results: Vec<ResultEntry>,
    /// Each image's references.
    pub references: Vec<Vec<String>>,
    /// The scores that are computed here.
    pub scores: Scores,
    /// All that is said of the captions as a whole.
    pub summary: Summary,
    /// How the captions were made, where a run made them.
    pub made: Option<Made>,
    jars: JarScores,
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
        let first = at * IMAGES_AT_ONCE;
        let (_, spoken) = decoder::speak(decoder.as_ref(), &columns, rows, &spec, run.special(), first)?;
        captions.extend(spoken.iter().map(|spoken| run.tokenizer.decode(&spoken.tokens)));
        progress.advance(rows.len() as u64);
    }
    progress.finish();
    let training = rows.split_rows(dataset::TRAIN).into_iter().flat_map(|row| captions_of(rows, row)).collect();
    let entry = |(row, caption)| ResultEntry { image_id: results::image_id(&rows.id(row)), caption };
    let subject = Subject {
        references: wanted.iter().map(|row| captions_of(rows, *row)).collect(),
        results: wanted.into_iter().zip(captions).map(entry).collect(),
        training: Some(training),
        missing,
    };
    let made = Made { run: run.folder.clone(), split: options.split.clone(), search: spec };
    Ok(Evaluation { made: Some(made), ..judge(subject, &options.judging, progress)? })
}

/// Captions with what they are compared with.
struct Subject {
    results: Vec<ResultEntry>,
    references: Vec<Vec<String>>,
    /// The captions that were trained on, where they are known.
    training: Option<Vec<String>>,
    missing: usize,
}

fn judge(subject: Subject, judging: &Judging, progress: &dyn Progress) -> Result<Evaluation> {
    let Subject { results, references, training, missing } = subject;
    let captions: Vec<String> = results.iter().map(|entry| entry.caption.clone()).collect();
    let scores = metrics::score(&captions, &references)?;
    if let Some(first) = scores.per_image.iter().position(|image| image.counts.candidate_words == 0) {
        let id = &results[first].image_id;
        progress.line(&match scores.wording.empty_captions {
            1 => format!("the caption of image {id} has no words and scores 0"),
            empty => format!("{empty} captions have no words and score 0, the first that of image {id}"),
        });
    }
    let jars = if judging.java {
        progress.start("METEOR and SPICE, in Java", None);
        let scores = jars::score(&captions, &references, judging.python.as_deref());
        progress.finish();
        scores
    } else {
        JarScores::absent("left out")
    };
    let seen = training.map(|training| metrics::seen_in_training(&captions, &training));
    let summary = Summary::of(&scores, &jars, seen, missing, judging.bootstrap)?;
    Ok(Evaluation { results, references, scores, summary, made: None, jars })
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
