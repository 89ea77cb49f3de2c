//! The scores by name, and how each is made of sums over images.
//!
//! Must not know: what is drawn or compared. Every score here is a function of sums over images, which is what makes a resample cheap:
//! the images' parts are added up again and nothing is counted twice. METEOR and SPICE are not among them; their programs keep their
//! sums to themselves.

use serde::{Deserialize, Serialize};

use super::{ImageScores, Objects, bleu::Counts, ngrams::ORDERS};

/// A score that is made of sums over images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Metric {
    /// BLEU of single words.
    #[serde(rename = "bleu_1")]
    Bleu1,
    /// BLEU up to pairs.
    #[serde(rename = "bleu_2")]
    Bleu2,
    /// BLEU up to triples.
    #[serde(rename = "bleu_3")]
    Bleu3,
    /// BLEU up to four words in a row.
    #[serde(rename = "bleu_4")]
    Bleu4,
    /// ROUGE-L.
    #[serde(rename = "rouge_l")]
    RougeL,
    /// CIDEr-D.
    #[serde(rename = "cider")]
    Cider,
    /// The share of the objects named by the references that the captions name.
    #[serde(rename = "object_recall")]
    ObjectRecall,
}

impl Metric {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 7] =
        [Self::Bleu1, Self::Bleu2, Self::Bleu3, Self::Bleu4, Self::RougeL, Self::Cider, Self::ObjectRecall];

    /// As papers call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bleu1 => "BLEU-1",
            Self::Bleu2 => "BLEU-2",
            Self::Bleu3 => "BLEU-3",
            Self::Bleu4 => "BLEU-4",
            Self::RougeL => "ROUGE-L",
            Self::Cider => "CIDEr",
            Self::ObjectRecall => "objects",
        }
    }
}

/// How many numbers an image adds to a corpus's scores.
const PARTS: usize = 7 + 2 * ORDERS;

/// Sums over images, each image counted any number of times.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Totals([f64; PARTS]);

impl Totals {
    /// The sums of one image.
    #[must_use]
    pub fn of(image: &ImageScores) -> Self {
        let (counts, objects) = (&image.counts, &image.objects);
        let mut parts = [0.0; PARTS];
        let head = [counts.candidate_words, counts.reference_words, objects.named, objects.found];
        for (part, count) in parts.iter_mut().zip(head.iter().chain(&counts.guesses).chain(&counts.correct)) {
            *part = *count as f64;
        }
        parts[PARTS - 3..].copy_from_slice(&[image.rouge_l, image.cider, 1.0]);
        Self(parts)
    }

    /// Adds an image `times` times.
    pub fn add(&mut self, image: &Self, times: f64) {
        for (sum, part) in self.0.iter_mut().zip(&image.0) {
            *sum += times * part;
        }
    }

    /// The corpus's score; NaN where there is none (no image, or no object that a reference names).
    #[must_use]
    pub fn score(&self, metric: Metric) -> f64 {
        let [.., rouge_l, cider, images] = self.0;
        match metric {
            Metric::Bleu1 => self.counts().bleu()[0],
            Metric::Bleu2 => self.counts().bleu()[1],
            Metric::Bleu3 => self.counts().bleu()[2],
            Metric::Bleu4 => self.counts().bleu()[3],
            Metric::RougeL => rouge_l / images,
            Metric::Cider => cider / images,
            Metric::ObjectRecall => self.objects().recall().unwrap_or(f64::NAN),
        }
    }

    /// Counts of whole numbers, each below 2^53, so exact.
    fn counts(&self) -> Counts {
        let whole = |at: usize| self.0[at] as u64;
        Counts {
            candidate_words: whole(0),
            reference_words: whole(1),
            guesses: std::array::from_fn(|order| whole(4 + order)),
            correct: std::array::from_fn(|order| whole(4 + ORDERS + order)),
        }
    }

    fn objects(&self) -> Objects {
        Objects { named: self.0[2] as u64, found: self.0[3] as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_give_the_scores_of_the_corpus() {
        let strings = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let candidates = strings(&["a dog runs in the park", "a man rides a red horse", "two cats"]);
        let references = [
            strings(&["a dog is running in a park", "the dog runs"]),
            strings(&["a man rides a horse", "a man on a horse in a field"]),
            strings(&["two cats sleep on a bed", "cats on a bed"]),
        ];
        let scores = super::super::score(&candidates, &references).unwrap();
        let mut totals = Totals::default();
        scores.per_image.iter().for_each(|image| totals.add(&Totals::of(image), 1.0));
        let close =
            |metric, wanted: f64| assert!((totals.score(metric) - wanted).abs() < 1e-12, "{metric:?}: {totals:?}");
        close(Metric::Bleu1, scores.bleu[0]);
        close(Metric::Bleu2, scores.bleu[1]);
        close(Metric::Bleu3, scores.bleu[2]);
        close(Metric::Bleu4, scores.bleu[3]);
        close(Metric::RougeL, scores.rouge_l);
        close(Metric::Cider, scores.cider);
        close(Metric::ObjectRecall, 4.0 / 5.0);
        assert_eq!(scores.objects, Objects { named: 5, found: 4 });
        assert!(Totals::default().score(Metric::ObjectRecall).is_nan());
    }
}
