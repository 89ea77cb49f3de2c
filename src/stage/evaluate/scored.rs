//! Per-image scores, kept in a file: what a comparison of runs is made of.
//!
//! A run's are in `RUN/scores/SPLIT.json`, replaced by each `icecap evaluate`; those of a results file where `--per-image` says. One JSON object:
//!
//! ```text
//! format     1; another number is another schema
//! icecap     the version that wrote it
//! made       {run, split, search}: the run's folder, the split, how captions were searched for; null for a results file
//! summary    what `icecap evaluate --json` prints
//! images     [{image_id, caption, references: [..], bleu_4, rouge_l, cider, meteor, spice, counts, objects}, ..] in the split's order
//! ```
//!
//! `bleu_4` is that of the one image, not smoothed. `counts` and `objects` are what BLEU and the recall of objects are summed up from, so any
//! selection of images can be scored again without a tokenizer: [`Scored::image_scores`] is what [`crate::metrics::Resampled::draw`] takes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{super::run::publish, EvaluateError, Evaluation, Summary};
use crate::{
    decoder::DecodeSpec,
    metrics::{ImageScores, Objects, bleu::Counts},
};

const FORMAT: u32 = 1;

/// How captions were made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Made {
    /// The run's folder.
    pub run: PathBuf,
    /// The split.
    pub split: String,
    /// How they were searched for.
    pub search: DecodeSpec,
}

/// A file of per-image scores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scored {
    format: u32,
    /// The version of icecap that wrote it.
    pub icecap: String,
    /// How the captions were made, where a run made them.
    pub made: Option<Made>,
    /// What is said of them as a whole.
    pub summary: Summary,
    /// The images, in the split's order.
    pub images: Vec<ScoredImage>,
}

/// One image: its caption, its references, its scores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoredImage {
    /// The image: a number where the data set has numbers, else its name.
    pub image_id: Value,
    /// The caption.
    pub caption: String,
    /// What it is compared with.
    pub references: Vec<String>,
    /// BLEU-4 of this image alone, not smoothed.
    pub bleu_4: f64,
    /// ROUGE-L.
    pub rouge_l: f64,
    /// CIDEr-D.
    pub cider: f64,
    /// METEOR, where it was scored.
    pub meteor: Option<f64>,
    /// SPICE, where it was scored.
    pub spice: Option<f64>,
    /// What the corpus's BLEU is summed up from.
    pub counts: Counts,
    /// What the recall of objects is summed up from.
    pub objects: Objects,
}

impl Scored {
    /// Where the scores of a run's split are kept.
    #[must_use]
    pub fn path(run: &Path, split: &str) -> PathBuf {
        let plain = |c: char| if c.is_alphanumeric() || c == '-' { c } else { '_' };
        let name: String = split.chars().map(plain).collect();
        run.join("scores").join(format!("{}.json", if name.is_empty() { "_" } else { &name }))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// Where it can't be read, or is of another format.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("`{}` can't be read", path.display()))?;
        let expected = "a file of per-image scores, as `icecap evaluate` writes it";
        let not_one = |source| EvaluateError::Format { path: path.to_owned(), expected, source };
        // The format first: of another one, nothing else can be relied on.
        let Format { format } = serde_json::from_str(&text).map_err(not_one)?;
        if format != FORMAT {
            return Err(EvaluateError::OtherFormat { path: path.to_owned(), found: format, expected: FORMAT }.into());
        }
        Ok(serde_json::from_str(&text).map_err(not_one)?)
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// Where it can't be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let unwritable = || format!("`{}` can't be written", path.display());
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = path.file_name().and_then(|name| name.to_str()).with_context(unwritable)?;
        fs::create_dir_all(folder).with_context(unwritable)?;
        publish(folder, name, &serde_json::to_vec(self)?).with_context(unwritable)
    }

    /// What a bootstrap is drawn from.
    #[must_use]
    pub fn image_scores(&self) -> Vec<ImageScores> {
        let scores = |image: &ScoredImage| ImageScores {
            bleu: image.counts.bleu(),
            rouge_l: image.rouge_l,
            cider: image.cider,
            counts: image.counts,
            objects: image.objects,
        };
        self.images.iter().map(scores).collect()
    }

    fn difference(&self, other: &Self) -> Option<String> {
        if self.images.len() != other.images.len() {
            return Some(format!("one has `{}` images, the other `{}`", self.images.len(), other.images.len()));
        }
        let (one, its) = self
            .images
            .iter()
            .zip(&other.images)
            .find(|(one, its)| one.image_id != its.image_id || one.references != its.references)?;
        Some(if one.image_id == its.image_id {
            format!("the references of image {} differ", one.image_id)
        } else {
            format!("where one has image {}, the other has {}", one.image_id, its.image_id)
        })
    }
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl From<&Evaluation> for Scored {
    fn from(evaluation: &Evaluation) -> Self {
        let Evaluation { results, references, scores, summary, made, jars } = evaluation;
        let image = |(at, entry): (usize, &super::ResultEntry)| {
            let ImageScores { bleu, rouge_l, cider, counts, objects } = scores.per_image[at];
            ScoredImage {
                image_id: entry.image_id.clone(),
                caption: entry.caption.clone(),
                references: references[at].clone(),
                bleu_4: bleu[3],
                rouge_l,
                cider,
                meteor: jars.meteor.image(at),
                spice: jars.spice.image(at),
                counts,
                objects,
            }
        };
        Self {
            format: FORMAT,
            icecap: env!("CARGO_PKG_VERSION").to_owned(),
            made: made.clone(),
            summary: summary.clone(),
            images: results.iter().enumerate().map(image).collect(),
        }
    }
}

/// Refuses files that were not scored on the same images and references, in the same order: they can't be compared.
///
/// # Errors
/// [`EvaluateError::OtherImages`], with the first thing that differs.
pub fn same_images(scored: &[(PathBuf, Scored)]) -> Result<(), EvaluateError> {
    let Some(((first, one), others)) = scored.split_first() else { return Ok(()) };
    let differs = |(path, other): &(PathBuf, Scored)| Some((path.clone(), one.difference(other)?));
    match others.iter().find_map(differs) {
        None => Ok(()),
        Some((other, difference)) => Err(EvaluateError::OtherImages { first: first.clone(), other, difference }),
    }
}

#[cfg(test)]
mod tests;
