//! How good are the captions? BLEU-1 to 4, ROUGE-L and CIDEr-D, equal to pycocoevalcap's from raw text.
//!
//! Must not know: models, caches, files, image names. In: one candidate and some references an image. Out: numbers.
//!
//! Tokenizing is part of the score and not the caller's affair: published numbers rest on one tokenizer ([`ptb`]), and
//! another one moves CIDEr by whole points.
#![doc = include_str!("README.md")]

pub mod bleu;
pub mod cider;
mod error;
mod metric;
pub mod ngrams;
pub mod objects;
pub mod ptb;
pub mod resample;
pub mod rouge_l;
pub mod wording;

use rayon::prelude::*;

pub use error::MetricsError;
pub use metric::{Metric, Totals};
use ngrams::Caption;
pub use objects::Objects;
pub use resample::{Difference, Interval, Plan, Resampled};
pub use wording::{Wording, seen_in_training};

/// Scores of a set of images.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Scores {
    /// BLEU-1 to BLEU-4 of the whole corpus, each 0 to 1.
    pub bleu: [f64; 4],
    /// Mean ROUGE-L, 0 to 1.
    pub rouge_l: f64,
    /// Mean CIDEr-D, 0 to 10.
    pub cider: f64,
    /// How many images were scored.
    pub images: usize,
    /// The counts that the corpus BLEU is made of.
    pub counts: bleu::Counts,
    /// Objects that the references name, and how many of them the captions name.
    pub objects: Objects,
    /// What the captions are like, right or wrong.
    pub wording: Wording,
    /// Scores of each image, in input order.
    pub per_image: Vec<ImageScores>,
}

/// Scores of one image: all that the corpus's scores are made of, so that any selection of images can be scored again.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ImageScores {
    /// BLEU-1 to BLEU-4 of this image alone, not smoothed: 0 to 1e-4 where an order has no match.
    pub bleu: [f64; 4],
    /// ROUGE-L.
    pub rouge_l: f64,
    /// CIDEr-D, rarity counted over the references of all images.
    pub cider: f64,
    /// What the corpus's BLEU is summed up from.
    pub counts: bleu::Counts,
    /// Objects that the references name, and how many of them the caption names.
    pub objects: Objects,
}

/// Scores raw captions: one candidate an image against that image's references.
///
/// # Errors
/// When there are no images, the two slices differ in length, or an image has no reference.
pub fn score(candidates: &[String], references: &[Vec<String>]) -> Result<Scores, MetricsError> {
    check(candidates, references)?;
    let references = prepare_all(references);
    Ok(score_prepared(&prepare(candidates), &references, &cider::DocumentFrequency::new(&references)))
}

/// Like [`score`], with CIDEr's rarity counted on other references (those of the training split): for few images, or one.
///
/// # Errors
/// As [`score`].
pub fn score_with(
    frequency: &cider::DocumentFrequency,
    candidates: &[String],
    references: &[Vec<String>],
) -> Result<Scores, MetricsError> {
    check(candidates, references)?;
    Ok(score_prepared(&prepare(candidates), &prepare_all(references), frequency))
}

/// Tokenizes and counts raw captions, in parallel.
#[must_use]
pub fn prepare(captions: &[String]) -> Vec<Caption> {
    captions.par_iter().map(|caption| Caption::new(&ptb::tokenize(caption))).collect()
}

/// Tokenizes and counts the raw references of every image, in parallel.
#[must_use]
pub fn prepare_all(references: &[Vec<String>]) -> Vec<Vec<Caption>> {
    let one = |captions: &Vec<String>| captions.iter().map(|caption| Caption::new(&ptb::tokenize(caption))).collect();
    references.par_iter().map(one).collect()
}

fn check(candidates: &[String], references: &[Vec<String>]) -> Result<(), MetricsError> {
    if candidates.len() != references.len() {
        return Err(MetricsError::Lengths { candidates: candidates.len(), references: references.len() });
    }
    if candidates.is_empty() {
        return Err(MetricsError::NoImages);
    }
    match references.iter().position(Vec::is_empty) {
        Some(image) => Err(MetricsError::NoReferences { image }),
        None => Ok(()),
    }
}

fn score_prepared(candidates: &[Caption], references: &[Vec<Caption>], frequency: &cider::DocumentFrequency) -> Scores {
    let counts = bleu::count(candidates, references);
    let rouge_l = rouge_l::score(candidates, references);
    let cider = cider::score_with(frequency, candidates, references);
    let objects = objects::count(candidates, references);
    let one = |image: usize| ImageScores {
        bleu: counts[image].bleu(),
        rouge_l: rouge_l[image],
        cider: cider[image],
        counts: counts[image],
        objects: objects[image],
    };
    let total = counts.iter().fold(bleu::Counts::default(), |sum, image| sum.plus(image));
    Scores {
        bleu: total.bleu(),
        rouge_l: mean(&rouge_l),
        cider: mean(&cider),
        images: candidates.len(),
        counts: total,
        objects: objects.iter().fold(Objects::default(), |sum, image| sum.plus(image)),
        wording: Wording::of(candidates),
        per_image: (0..candidates.len()).map(one).collect(),
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests;
