//! BLEU-1 to BLEU-4 (Papineni et al. 2002) with the closest reference length, as pycocoevalcap computes it.
//!
//! Must not know: how captions were tokenized. The two tiny constants are pycocoevalcap's: they keep an image without a single
//! match just above zero, and leaving them out would move per-image scores in the fourth digit.

use rayon::prelude::*;

use super::ngrams::{Caption, ORDERS, for_common};

/// Added to a count of matches, so that no precision is exactly zero.
const TINY: f64 = 1e-15;
/// Added to a count divided by, so that nothing divides by zero.
const SMALL: f64 = 1e-9;

/// The counts that BLEU is made of; those of a corpus are the sums of its images'.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    /// Words in the candidates.
    pub candidate_words: u64,
    /// Words in the references closest in length to each candidate (the shorter of two equally close).
    pub reference_words: u64,
    /// n-grams in the candidates, by order.
    pub guesses: [u64; ORDERS],
    /// Those of them found in a reference, each at most as often as in the reference that has it most often.
    pub correct: [u64; ORDERS],
}

impl Counts {
    /// Counts one image.
    #[must_use]
    pub fn of(candidate: &Caption, references: &[Caption]) -> Self {
        Self {
            candidate_words: candidate.len() as u64,
            reference_words: closest_length(candidate, references) as u64,
            guesses: std::array::from_fn(|order| candidate.total(order) as u64),
            correct: std::array::from_fn(|order| clipped_matches(candidate, references, order)),
        }
    }

    /// The counts of both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            candidate_words: self.candidate_words + other.candidate_words,
            reference_words: self.reference_words + other.reference_words,
            guesses: std::array::from_fn(|order| self.guesses[order] + other.guesses[order]),
            correct: std::array::from_fn(|order| self.correct[order] + other.correct[order]),
        }
    }

    /// BLEU-1 to BLEU-4, each the geometric mean of the precisions up to its order times the brevity penalty.
    #[must_use]
    pub fn bleu(&self) -> [f64; ORDERS] {
        let ratio = (self.candidate_words as f64 + TINY) / (self.reference_words as f64 + SMALL);
        let brevity = if ratio < 1.0 { (1.0 - 1.0 / ratio).exp() } else { 1.0 };
        let mut product = 1.0;
        std::array::from_fn(|order| {
            product *= (self.correct[order] as f64 + TINY) / (self.guesses[order] as f64 + SMALL);
            f64::powf(product, 1.0 / (order + 1) as f64) * brevity
        })
    }
}

/// Counts every image, in input order. Both slices have one entry an image.
#[must_use]
pub fn count(candidates: &[Caption], references: &[Vec<Caption>]) -> Vec<Counts> {
    candidates.par_iter().zip(references).map(|(candidate, references)| Counts::of(candidate, references)).collect()
}

fn closest_length(candidate: &Caption, references: &[Caption]) -> usize {
    let distance = |&length: &usize| (length.abs_diff(candidate.len()), length);
    references.iter().map(Caption::len).min_by_key(distance).unwrap_or(0)
}

fn clipped_matches(candidate: &Caption, references: &[Caption], order: usize) -> u64 {
    let mut allowed: Vec<(u64, u32)> =
        references.iter().flat_map(|reference| reference.grams(order)).copied().collect();
    // Highest count first among equals, so that removing repeats keeps it.
    allowed.sort_unstable_by_key(|&(gram, count)| (gram, std::cmp::Reverse(count)));
    allowed.dedup_by_key(|entry| entry.0);
    let mut matches = 0;
    for_common(candidate.grams(order), &allowed, |have, most| {
        matches += u64::from(have.min(most));
    });
    matches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captions(texts: &[&str]) -> Vec<Caption> {
        texts.iter().copied().map(Caption::new).collect()
    }

    #[test]
    fn counts_are_clipped_by_the_largest_reference_count() {
        // The example of the paper: "the" seven times, twice in one reference, once in the other.
        let references = captions(&["the cat is on the mat", "there is a cat on the mat"]);
        let counts = Counts::of(&Caption::new("the the the the the the the"), &references);
        assert_eq!((counts.correct[0], counts.guesses[0]), (2, 7));
        assert_eq!((counts.correct[1], counts.guesses[1]), (0, 6));
    }

    #[test]
    fn ties_in_length_go_to_the_shorter() {
        let references = captions(&["a b c d e f", "a b", "a b c d e f g h"]);
        assert_eq!(Counts::of(&Caption::new("a b c d"), &references).reference_words, 2);
    }

    #[test]
    fn brevity_is_punished_and_length_is_not() {
        let references = captions(&["a b c d e f g h"]);
        let short = Counts::of(&Caption::new("a b c d"), &references).bleu();
        assert!((short[0] - f64::exp(1.0 - 2.0)).abs() < 1e-8, "{short:?}");
        let same = Counts::of(&Caption::new("a b c d e f g h"), &references).bleu();
        assert!(same.iter().all(|bleu| (bleu - 1.0).abs() < 1e-8), "{same:?}");
    }

    #[test]
    fn an_empty_candidate_scores_zero() {
        assert_eq!(Counts::of(&Caption::new(""), &captions(&["a dog"])).bleu(), [0.0; 4]);
        assert_eq!(Counts::of(&Caption::new(""), &captions(&[""])).bleu(), [0.0; 4]);
    }
}
