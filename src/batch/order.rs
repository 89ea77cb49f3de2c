//! Which captions make which batch: a pure function of the captions, the seed and the epoch.
//!
//! Captions of one image may travel together, so that its features are read, mapped and keyed once for all of them; the
//! rest is shuffled, then sorted by length inside pools of a few batches, so that a batch's captions end together.

use super::random::{SplitMix, mix};

/// One caption to learn: its tokens without begin and end marks, and the cache row of its image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caption {
    /// The row of its image in the cache.
    pub row: u32,
    /// Token numbers, no special ones.
    pub tokens: Vec<u32>,
}

/// How batches are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// Decides the shuffles.
    pub seed: u64,
    /// Captions a batch.
    pub batch: usize,
    /// At most so many captions of an image travel together.
    pub together: usize,
}

/// Batches whose captions are sorted by length among each other; wide enough that batches still differ by epoch.
const POOL_BATCHES: usize = 32;

/// The batches of one epoch: indices into `captions`, each caption once, `captions.len().div_ceil(batch)` batches.
#[must_use]
pub fn order(captions: &[Caption], plan: Order, epoch: u64) -> Vec<Vec<u32>> {
    let mut random = SplitMix::new(mix(plan.seed, epoch));
    let batch = plan.batch.max(1);
    let mut groups = groups(captions, plan.together.max(1), &mut random);
    random.shuffle(&mut groups);
    let length = |group: &Vec<u32>| {
        let longest = group.iter().map(|&index| captions[index as usize].tokens.len()).max();
        longest.unwrap_or_default()
    };
    let mean_group = captions.len().div_ceil(groups.len().max(1)).max(1);
    for pool in groups.chunks_mut((POOL_BATCHES * batch / mean_group).max(1)) {
        pool.sort_by_key(length);
    }
    let flat: Vec<u32> = groups.into_iter().flatten().collect();
    let mut batches: Vec<Vec<u32>> = flat.chunks(batch).map(<[u32]>::to_vec).collect();
    random.shuffle(&mut batches);
    batches
}

/// Each image's captions, shuffled, in groups of at most `together`.
fn groups(captions: &[Caption], together: usize, random: &mut SplitMix) -> Vec<Vec<u32>> {
    let mut indices: Vec<u32> = (0..captions.len() as u32).collect();
    indices.sort_by_key(|&index| captions[index as usize].row);
    let same = |&a: &u32, &b: &u32| captions[a as usize].row == captions[b as usize].row;
    let mut groups = Vec::with_capacity(captions.len().div_ceil(together));
    for image in indices.chunk_by_mut(same) {
        random.shuffle(image);
        groups.extend(image.chunks(together).map(<[u32]>::to_vec));
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn captions(lengths: &[(u32, usize)]) -> Vec<Caption> {
        lengths.iter().map(|&(row, length)| Caption { row, tokens: vec![7; length] }).collect()
    }

    proptest! {
        #[test]
        fn every_caption_comes_once_an_epoch(
            lengths in prop::collection::vec((0u32..40, 1usize..30), 1..300),
            batch in 1usize..70, together in 1usize..6, seed: u64, epoch in 0u64..5,
        ) {
            let captions = captions(&lengths);
            let plan = Order { seed, batch, together };
            let batches = order(&captions, plan, epoch);
            prop_assert_eq!(batches.len(), captions.len().div_ceil(batch));
            prop_assert!(batches.iter().all(|batch_| batch_.len() <= batch));
            let mut all: Vec<u32> = batches.concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..captions.len() as u32).collect::<Vec<_>>());
            prop_assert_eq!(order(&captions, plan, epoch), batches);
        }
    }

    #[test]
    fn epochs_differ_and_lengths_are_near() {
        let lengths: Vec<_> = (0..4000u32).map(|i| (i / 5, 5 + (i as usize * 7) % 20)).collect();
        let captions = captions(&lengths);
        let plan = Order { seed: 1, batch: 50, together: 1 };
        assert_ne!(order(&captions, plan, 0), order(&captions, plan, 1));
        let spread = |batch: &Vec<u32>| {
            let lengths = batch.iter().map(|&i| captions[i as usize].tokens.len());
            lengths.clone().max().unwrap() - lengths.min().unwrap()
        };
        let batches = order(&captions, plan, 0);
        let mean = batches.iter().map(spread).sum::<usize>() as f64 / batches.len() as f64;
        assert!(mean < 2.0, "captions of a batch differ by {mean} tokens");
    }

    #[test]
    fn captions_of_an_image_travel_together() {
        let lengths: Vec<_> = (0..500u32).map(|i| (i % 100, 9)).collect();
        let captions = captions(&lengths);
        for batch in order(&captions, Order { seed: 1, batch: 50, together: 5 }, 3) {
            let mut rows: Vec<u32> = batch.iter().map(|&i| captions[i as usize].row).collect();
            rows.sort_unstable();
            rows.dedup();
            assert_eq!(rows.len(), 10);
        }
    }
}
