//! What are the captions like, right or wrong: how many words they use, how often they repeat themselves, what they learned by heart.
//!
//! Must not know: references. Captions are compared as the scores see them, tokenized: case and punctuation don't make two of one.

use std::collections::HashSet;

use super::ngrams::Caption;

/// What a set of captions is like.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Wording {
    /// Different words in all captions together.
    pub vocabulary: usize,
    /// Different captions.
    pub distinct_captions: usize,
    /// Words a caption, in the mean.
    pub mean_length: f64,
    /// Captions without a single word: they score 0.
    pub empty_captions: usize,
}

impl Wording {
    /// Looks at one caption an image.
    #[must_use]
    pub fn of(captions: &[Caption]) -> Self {
        let words: HashSet<u64> = captions.iter().flat_map(Caption::words).copied().collect();
        let distinct: HashSet<u64> = captions.iter().map(Caption::digest).collect();
        Self {
            vocabulary: words.len(),
            distinct_captions: distinct.len(),
            mean_length: captions.iter().map(Caption::len).sum::<usize>() as f64 / captions.len().max(1) as f64,
            empty_captions: captions.iter().filter(|caption| caption.is_empty()).count(),
        }
    }
}

/// The share of `captions` that stand word for word among `training`, both raw; 0 where there are none.
#[must_use]
pub fn seen_in_training(captions: &[String], training: &[String]) -> f64 {
    let known: HashSet<u64> = super::prepare(training).iter().map(Caption::digest).collect();
    let seen = super::prepare(captions).iter().filter(|caption| known.contains(&caption.digest())).count();
    seen as f64 / captions.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_captions_are_like() {
        let captions = super::super::prepare(&strings(&["A dog runs.", "a dog runs", "a cat", "", " . "]));
        let expected = Wording { vocabulary: 4, distinct_captions: 3, mean_length: 8.0 / 5.0, empty_captions: 2 };
        assert_eq!(Wording::of(&captions), expected);
        assert_eq!(Wording::of(&[]).mean_length, 0.0);
    }

    #[test]
    fn what_was_learned_by_heart() {
        let training = strings(&["A dog runs .", "a cat sleeps"]);
        assert_eq!(seen_in_training(&strings(&["a dog runs", "a dog", "runs a dog", "A cat sleeps!"]), &training), 0.5);
        assert_eq!(seen_in_training(&[], &training), 0.0);
    }
}
