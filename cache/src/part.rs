//! One of several parts of a column, for several processes or machines: which whole shards it is made of.
//!
//! Knows numbers only. A part is a range of shards and not every n-th one, so that it reads its images in the order in which
//! they lie, and so that what is lacking in a merge is one range of rows.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Part `index` of `of`, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Which one, from 1.
    pub index: u32,
    /// How many there are.
    pub of: u32,
}

impl Part {
    /// Its shards, of `shards` in all. The parts `1..=of` hold every shard once, and differ by one shard at most.
    pub fn shards(self, shards: usize) -> Range<usize> {
        let edge = |index: u32| (shards as u64 * u64::from(index.min(self.of)) / u64::from(self.of.max(1))) as usize;
        edge(self.index.saturating_sub(1))..edge(self.index)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "part {} of {}", self.index, self.of)
    }
}

/// The text is not a part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a part\nhint: `2/8` is the second of eight")]
pub struct UnknownPart(String);

impl FromStr for Part {
    type Err = UnknownPart;

    fn from_str(text: &str) -> Result<Self, UnknownPart> {
        let parsed = text.split_once('/').and_then(|(index, of)| {
            let (index, of) = (index.trim().parse().ok()?, of.trim().parse().ok()?);
            (1 <= index && index <= of).then_some(Self { index, of })
        });
        parsed.ok_or_else(|| UnknownPart(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_hold_every_shard_once_and_are_of_one_size(shards in 0usize..500, of in 1u32..40) {
            let parts: Vec<Range<usize>> = (1..=of).map(|index| Part { index, of }.shards(shards)).collect();
            prop_assert_eq!(parts.iter().cloned().flatten().collect::<Vec<_>>(), (0..shards).collect::<Vec<_>>());
            let sizes = || parts.iter().map(ExactSizeIterator::len);
            prop_assert!(sizes().max().unwrap() - sizes().min().unwrap() <= 1);
        }
    }

    #[test]
    fn a_part_is_two_numbers_in_order() {
        assert_eq!("2/8".parse(), Ok(Part { index: 2, of: 8 }));
        assert_eq!(Part { index: 2, of: 8 }.to_string(), "part 2 of 8");
        for bad in ["", "2", "0/8", "9/8", "1/0", "-1/2", "a/b", "1/2/3"] {
            assert!(bad.parse::<Part>().is_err(), "{bad}");
        }
        insta::assert_snapshot!("9/8".parse::<Part>().unwrap_err(), @r"
        `9/8` is not a part
        hint: `2/8` is the second of eight
        ");
    }
}
