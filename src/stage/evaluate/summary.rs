//! All that is said of a set of captions, as `--json` prints it and the run's folder keeps it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::jars::JarScores;
use crate::metrics::{Interval, Metric, MetricsError, Objects, Plan, Resampled, Scores, Wording};

/// The scores of a set of captions. What is absent is `null`, and `not_scored` says why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Images that were scored.
    pub images: usize,
    /// Those of them without an embedding: captioned from nothing, and counted.
    pub missing: usize,
    /// BLEU-1 to BLEU-4, 0 to 1.
    pub bleu: [f64; 4],
    /// ROUGE-L, 0 to 1.
    pub rouge_l: f64,
    /// CIDEr-D, 0 to 10.
    pub cider: f64,
    /// METEOR 1.5, 0 to 1.
    pub meteor: Option<f64>,
    /// SPICE, 0 to 1.
    pub spice: Option<f64>,
    /// The share of the objects that references name which the captions name too.
    pub object_recall: Option<f64>,
    /// What that share is made of.
    pub objects: Objects,
    /// What the captions are like.
    #[serde(flatten)]
    pub wording: Wording,
    /// The share of captions that stand word for word among the training captions.
    pub seen_in_training: Option<f64>,
    /// Why a score is absent, by its name.
    pub not_scored: BTreeMap<String, String>,
    /// Where the scores lie, by bootstrap over the images.
    pub intervals: Option<Intervals>,
}

/// Where scores lie.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Intervals {
    /// How they were found.
    #[serde(flatten)]
    pub plan: Plan,
    /// By score.
    pub of: BTreeMap<Metric, Interval>,
}

impl Intervals {
    fn find(scores: &Scores, plan: Plan) -> Result<Self, MetricsError> {
        let resampled = Resampled::draw(&[&scores.per_image], plan)?;
        let interval = |metric| Some((metric, resampled.interval(0, metric)?));
        Ok(Self { plan, of: Metric::ALL.into_iter().filter_map(interval).collect() })
    }
}

impl Summary {
    pub(super) fn of(
        scores: &Scores,
        jars: &JarScores,
        seen_in_training: Option<f64>,
        missing: usize,
        bootstrap: Option<Plan>,
    ) -> Result<Self, MetricsError> {
        let object_recall = scores.objects.recall();
        let reasons = [
            ("meteor", jars.meteor.reason()),
            ("spice", jars.spice.reason()),
            ("object_recall", object_recall.is_none().then_some("the references name none of COCO's 80 objects")),
            (
                "seen_in_training",
                seen_in_training.is_none().then_some("a results file comes without training captions"),
            ),
        ];
        let reason = |(name, reason): (&str, Option<&str>)| Some((name.to_owned(), reason?.to_owned()));
        Ok(Self {
            images: scores.images,
            missing,
            bleu: scores.bleu,
            rouge_l: scores.rouge_l,
            cider: scores.cider,
            meteor: jars.meteor.score(),
            spice: jars.spice.score(),
            object_recall,
            objects: scores.objects,
            wording: scores.wording,
            seen_in_training,
            not_scored: reasons.into_iter().filter_map(reason).collect(),
            intervals: bootstrap.map(|plan| Intervals::find(scores, plan)).transpose()?,
        })
    }
}
