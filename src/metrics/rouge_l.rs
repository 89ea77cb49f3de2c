//! ROUGE-L (Lin 2004) as pycocoevalcap computes it: an F-score of the longest common subsequence.
//!
//! Must not know: how captions were tokenized. The best precision and the best recall are taken over the references
//! independently, as there; they may come from different references.

use rayon::prelude::*;

use super::ngrams::Caption;

/// Weight of recall against precision.
const BETA: f64 = 1.2;

/// Scores every image, in input order, each 0 to 1. Both slices have one entry an image.
#[must_use]
pub fn score(candidates: &[Caption], references: &[Vec<Caption>]) -> Vec<f64> {
    candidates.par_iter().zip(references).map(|(candidate, references)| score_one(candidate, references)).collect()
}

/// Scores one candidate against its references: 0 to 1.
#[must_use]
pub fn score_one(candidate: &Caption, references: &[Caption]) -> f64 {
    let words = candidate.pieces();
    let (mut precision, mut recall) = (0.0_f64, 0.0_f64);
    for reference in references {
        let common = common_subsequence(words, reference.pieces()) as f64;
        precision = precision.max(common / words.len() as f64);
        recall = recall.max(common / reference.pieces().len() as f64);
    }
    if precision == 0.0 || recall == 0.0 {
        return 0.0;
    }
    let beta2 = BETA * BETA;
    (1.0 + beta2) * precision * recall / (recall + beta2 * precision)
}

/// Length of the longest common subsequence, by the usual dynamic programme with one row kept.
fn common_subsequence(left: &[u64], right: &[u64]) -> usize {
    let mut row = vec![0; right.len() + 1];
    for a in left {
        let mut diagonal = 0;
        for (j, b) in right.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if a == b { diagonal + 1 } else { above.max(row[j]) };
            diagonal = above;
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rouge(candidate: &str, references: &[&str]) -> f64 {
        let references: Vec<Caption> = references.iter().copied().map(Caption::new).collect();
        score_one(&Caption::new(candidate), &references)
    }

    #[test]
    fn order_matters() {
        assert_eq!(common_subsequence(&[1, 2, 3, 4], &[2, 4, 3]), 2);
        assert_eq!(common_subsequence(&[1, 2, 1, 2, 1], &[2, 1, 2]), 3);
        assert_eq!(common_subsequence(&[], &[1]), 0);
    }

    #[test]
    fn precision_and_recall_come_from_different_references() {
        // Precision 1 from the long reference, recall 1 from the short one.
        assert!((rouge("a b", &["a b c d", "a"]) - 1.0).abs() < 1e-12);
        let expected = (1.0 + 1.44) * 1.0 * 0.5 / (0.5 + 1.44);
        assert!((rouge("a b", &["a b c d"]) - expected).abs() < 1e-12);
    }

    #[test]
    fn empty_captions() {
        assert_eq!(rouge("", &["a dog"]), 0.0);
        assert_eq!(rouge("a dog", &[""]), 0.0);
        assert_eq!(rouge("", &[""]), 1.0, "two empty captions are equal, as pycocoevalcap has it");
    }
}
