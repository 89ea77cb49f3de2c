//! Rewards for sampled captions: CIDEr-D against the training captions of their images, a caption's end counted as a word, so that
//! breaking off is not rewarded (Rennie et al. 2017).
//!
//! The references are tokenized and weighed once, and a batch's captions are scored in parallel: what is left to do for a caption is to
//! tokenize it as the metric does and to compare it with a few lists.

use std::{collections::HashMap, path::Path};

use icecap_cache::Rows;
use rayon::prelude::*;

use super::train::captions_of;
use crate::{metrics::cider::References, text::Tokenizer};

/// Captions that nothing can be compared with.
#[derive(Debug, thiserror::Error)]
#[error(
    "`train.scst` compares captions with those of the training images, and of the {images} in the cache `{cache}` none says what \
     others do not\nhint: encode a data set of more images and captions, or leave `scst` out"
)]
pub struct NoReferences {
    images: usize,
    cache: String,
}

/// The references of the training images.
pub(super) struct Rewards<'a> {
    references: References,
    places: HashMap<u32, usize>,
    tokenizer: &'a Tokenizer,
}

impl<'a> Rewards<'a> {
    /// Of the rows `wanted`; rarity is counted over their captions.
    pub fn new(rows: &Rows, wanted: &[u32], tokenizer: &'a Tokenizer, cache: &Path) -> Result<Self, NoReferences> {
        let captions: Vec<Vec<String>> = wanted.iter().map(|row| captions_of(rows, *row)).collect();
        let references = References::new(&captions);
        // Of one image alone every n-gram is as rare as any other: all rewards would be 0.
        if wanted.len() < 2 || references.frequency().ngrams() == 0 {
            return Err(NoReferences { images: wanted.len(), cache: cache.display().to_string() });
        }
        let places = wanted.iter().enumerate().map(|(place, row)| (*row, place)).collect();
        Ok(Self { references, places, tokenizer })
    }

    /// CIDEr-D of captions given as (row, tokens), 0 to 10 each.
    pub fn of(&self, captions: &[(u32, &[u32])]) -> Vec<f64> {
        let one = |&(row, tokens): &(u32, &[u32])| {
            let place = self.places.get(&row).copied();
            place.map_or(0.0, |place| self.references.score(place, &self.tokenizer.decode(tokens)))
        };
        captions.par_iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_says_the_way_out() {
        insta::assert_snapshot!(NoReferences { images: 1, cache: "caches/one".into() }, @"
        `train.scst` compares captions with those of the training images, and of the 1 in the cache `caches/one` none says what others do not
        hint: encode a data set of more images and captions, or leave `scst` out
        ");
    }
}
