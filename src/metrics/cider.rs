//! CIDEr-D (Vedantam et al. 2015) as pycocoevalcap computes it under the name CIDEr.
//!
//! Must not know: how captions were tokenized. How rare an n-gram is ([`DocumentFrequency`]) is kept apart from the
//! scoring, because one image alone can't say: a single picture, and training on CIDEr, use the training references'.

use rayon::prelude::*;

use super::ngrams::{Caption, GramMap, ORDERS, for_common};

/// Width of the penalty on a difference in length, in bigrams.
const SIGMA: f64 = 6.0;

/// In how many images' references each n-gram is found.
#[derive(Debug, Clone, Default)]
pub struct DocumentFrequency {
    images: usize,
    found_in: GramMap<u32>,
}

impl DocumentFrequency {
    /// Counts the references (tokenized captions) of images.
    #[must_use]
    pub fn new(references: &[Vec<Caption>]) -> Self {
        let mut counts = Self { images: references.len(), found_in: GramMap::default() };
        let mut distinct = Vec::new();
        for captions in references {
            distinct.clear();
            distinct.extend(captions.iter().flat_map(Caption::all_grams).map(|&(gram, _)| gram));
            distinct.sort_unstable();
            distinct.dedup();
            for &gram in &distinct {
                *counts.found_in.entry(gram).or_insert(0) += 1;
            }
        }
        counts
    }

    /// Counts raw reference captions, tokenizing them first.
    #[must_use]
    pub fn from_raw(references: &[Vec<String>]) -> Self {
        Self::new(&super::prepare_all(references))
    }

    /// How many images were counted.
    #[must_use]
    pub fn images(&self) -> usize {
        self.images
    }

    /// How many distinct n-grams they hold.
    #[must_use]
    pub fn ngrams(&self) -> usize {
        self.found_in.len()
    }

    /// ln N - ln max(1, images that hold the n-gram); 0 where no image was counted.
    fn inverse(&self, log_images: f64, gram: u64) -> f64 {
        log_images - f64::from(self.found_in.get(&gram).copied().unwrap_or(1)).ln()
    }
}

/// A caption as CIDEr compares it: n-gram counts weighted by rarity.
#[derive(Debug, Clone)]
pub struct Weighted {
    /// For each order, (n-gram, weight) by ascending n-gram.
    grams: [Vec<(u64, f64)>; ORDERS],
    norms: [f64; ORDERS],
    bigrams: f64,
}

impl Weighted {
    /// Weighs a caption's n-grams by `frequency`.
    #[must_use]
    pub fn new(frequency: &DocumentFrequency, caption: &Caption) -> Self {
        let log_images = (frequency.images.max(1) as f64).ln();
        let grams = std::array::from_fn(|order| {
            let weigh = |&(gram, count): &(u64, u32)| (gram, f64::from(count) * frequency.inverse(log_images, gram));
            caption.grams(order).iter().map(weigh).collect::<Vec<_>>()
        });
        let norm = |weights: &Vec<(u64, f64)>| weights.iter().map(|&(_, weight)| weight * weight).sum::<f64>().sqrt();
        let norms = std::array::from_fn(|order| norm(&grams[order]));
        Self { grams, norms, bigrams: caption.total(1) as f64 }
    }

    /// Mean over the orders of the clipped cosine with `reference`, times the length penalty.
    fn similarity(&self, reference: &Self) -> f64 {
        let difference = self.bigrams - reference.bigrams;
        let penalty = (-(difference * difference) / (2.0 * SIGMA * SIGMA)).exp();
        let cosine = |order: usize| {
            let mut dot = 0.0;
            for_common(&self.grams[order], &reference.grams[order], |have, want: f64| {
                dot += f64::min(have, want) * want;
            });
            let norms = self.norms[order] * reference.norms[order];
            if norms == 0.0 { dot } else { dot / norms }
        };
        (0..ORDERS).map(cosine).sum::<f64>() * penalty / ORDERS as f64
    }
}

/// CIDEr-D of one candidate, 0 to 10: mean similarity to the references (one at least), times 10.
#[must_use]
pub fn score_one(candidate: &Weighted, references: &[Weighted]) -> f64 {
    let sum: f64 = references.iter().map(|reference| candidate.similarity(reference)).sum();
    10.0 * sum / references.len().max(1) as f64
}

/// Scores every image, in input order, with rarity counted on another set of references. Both slices have one entry an image.
#[must_use]
pub fn score_with(frequency: &DocumentFrequency, candidates: &[Caption], references: &[Vec<Caption>]) -> Vec<f64> {
    let score = |(candidate, references): (&Caption, &Vec<Caption>)| {
        let references: Vec<Weighted> =
            references.iter().map(|reference| Weighted::new(frequency, reference)).collect();
        score_one(&Weighted::new(frequency, candidate), &references)
    };
    candidates.par_iter().zip(references).map(score).collect()
}

/// Scores every image, in input order, with rarity counted on these references themselves. One image alone scores 0.
#[must_use]
pub fn score(candidates: &[Caption], references: &[Vec<Caption>]) -> Vec<f64> {
    score_with(&DocumentFrequency::new(references), candidates, references)
}

/// The references of many images, weighed once: for rewards, which score captions of the same images again and again.
///
/// The end of a caption counts as a word of it: one that breaks off after "on a" is not as good as one that is whole. That is not the
/// score that is reported.
#[derive(Debug, Clone)]
pub struct References {
    frequency: DocumentFrequency,
    images: Vec<Vec<Weighted>>,
}

/// Ends a caption; the tokenizer makes no such token.
const END: &str = " <end>";

impl References {
    /// Tokenizes and weighs the raw references of every image, in parallel; rarity is counted over all of them.
    #[must_use]
    pub fn new(references: &[Vec<String>]) -> Self {
        let ended = |captions: &Vec<String>| captions.iter().map(|caption| ended(caption)).collect();
        let captions: Vec<Vec<Caption>> = references.par_iter().map(ended).collect();
        let frequency = DocumentFrequency::new(&captions);
        let weigh = |captions: &Vec<Caption>| captions.iter().map(|one| Weighted::new(&frequency, one)).collect();
        let images = captions.par_iter().map(weigh).collect();
        Self { frequency, images }
    }

    /// How rare their n-grams are.
    #[must_use]
    pub fn frequency(&self) -> &DocumentFrequency {
        &self.frequency
    }

    /// CIDEr-D of a raw caption of the image at `place`, 0 to 10.
    ///
    /// # Panics
    /// Where there are not so many images.
    #[must_use]
    pub fn score(&self, place: usize, caption: &str) -> f64 {
        score_one(&Weighted::new(&self.frequency, &ended(caption)), &self.images[place])
    }
}

fn ended(caption: &str) -> Caption {
    Caption::new(&(super::ptb::tokenize(caption) + END))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caption_that_breaks_off_is_worth_less_where_its_end_counts() {
        let said = |captions: &[&str]| captions.iter().map(ToString::to_string).collect::<Vec<_>>();
        let references =
            [said(&["a dog runs on a beach", "the dog runs on a wide beach"]), said(&["two men sit down"])];
        let ended = References::new(&references);
        let tokenized = crate::metrics::prepare_all(&references);
        let plain = |caption: &str| {
            let caption = Caption::new(&crate::metrics::ptb::tokenize(caption));
            score_with(&DocumentFrequency::new(&tokenized), &[caption], &tokenized[..1])[0]
        };
        let (whole, broken) = ("a dog runs on a beach", "a dog runs on a");
        let (gain, without) = (ended.score(0, whole) - ended.score(0, broken), plain(whole) - plain(broken));
        assert!(gain > without, "{gain} {without}");
        assert!(ended.score(0, "beach a on runs dog a") < ended.score(0, whole));
    }
}
