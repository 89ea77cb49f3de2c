//! A part of a data set: the first images, or a sample of them.
//!
//! Decision: a sample takes the images whose ids have the smallest hashes, and keeps them in the data set's order. It depends on
//! the ids and the seed alone, so a larger sample of the same seed holds the smaller one, and a cache grows from one into the other.

use super::shapes::mix;
use super::{Dataset, Item};

/// What is taken of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Part {
    /// All of it.
    #[default]
    All,
    /// The first so many images.
    First(usize),
    /// So many images, drawn by the seed.
    Sample {
        /// How many.
        images: usize,
        /// Another seed draws others.
        seed: u64,
    },
}

impl Part {
    /// Leaves of `dataset` what the part has.
    pub fn take(self, dataset: &mut Dataset) {
        match self {
            Self::All => {}
            Self::First(images) => dataset.items.truncate(images),
            Self::Sample { images, seed } => sample(&mut dataset.items, images, seed),
        }
    }
}

fn sample(items: &mut Vec<Item>, images: usize, seed: u64) {
    if images >= items.len() {
        return;
    }
    let mut drawn: Vec<(u64, u32)> = (0u32..).zip(&*items).map(|(at, item)| (draw(&item.id, seed), at)).collect();
    drawn.select_nth_unstable(images);
    let mut taken = vec![false; items.len()];
    drawn[..images].iter().for_each(|(_, at)| taken[*at as usize] = true);
    let mut taken = taken.into_iter();
    items.retain(|_| taken.next().unwrap_or(false));
}

/// A number from an id: FNV-1a over its bytes from the mixed seed, then the finisher of splitmix64.
fn draw(id: &str, seed: u64) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ mix(seed);
    mix(id.bytes().fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)))
}

#[cfg(test)]
mod tests {
    use super::super::Source;
    use super::*;

    fn taken(part: Part, images: u32) -> Vec<String> {
        let item = |at: u32| Item {
            id: format!("{at}.jpg"),
            source: Source::Url("".into()),
            split: String::new(),
            captions: Vec::new(),
        };
        let mut dataset = Dataset { name: String::new(), items: (0..images).map(item).collect(), notes: Vec::new() };
        part.take(&mut dataset);
        dataset.items.into_iter().map(|item| item.id).collect()
    }

    #[test]
    fn the_first_are_the_first() {
        assert_eq!(taken(Part::First(2), 5), ["0.jpg", "1.jpg"]);
        assert_eq!(taken(Part::First(9), 3).len(), 3);
        assert_eq!(taken(Part::All, 3).len(), 3);
    }

    #[test]
    fn a_sample_is_spread_in_order_and_grows() {
        let small = taken(Part::Sample { images: 100, seed: 7 }, 10_000);
        let large = taken(Part::Sample { images: 1000, seed: 7 }, 10_000);
        assert_eq!((small.len(), large.len()), (100, 1000));
        assert!(small.iter().all(|id| large.contains(id)), "the larger sample holds the smaller one");
        let numbers: Vec<u32> = large.iter().map(|id| id.trim_end_matches(".jpg").parse().unwrap()).collect();
        assert!(numbers.is_sorted());
        assert!((400..600).contains(&numbers.iter().filter(|number| **number < 5000).count()), "it is spread");
        assert_ne!(small, taken(Part::Sample { images: 100, seed: 8 }, 10_000));
        assert_eq!(taken(Part::Sample { images: 5, seed: 7 }, 5).len(), 5);
    }
}
