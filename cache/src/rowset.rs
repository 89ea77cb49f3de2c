//! A set of row numbers: one bit a row.
//!
//! Knows nothing of what the rows are. One bit a row keeps the presence of 3.3 million rows in 400 kB, which stays in the
//! processor's cache while rows are gathered; the `status` tensors it is made from would not.

/// Rows `0..len`, each in the set or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RowSet {
    words: Vec<u64>,
    len: u32,
}

impl RowSet {
    /// The empty set over `len` rows.
    pub(crate) fn new(len: u32) -> Self {
        Self { words: vec![0; len.div_ceil(64) as usize], len }
    }

    /// Whether `row` is in the set; `false` outside of `0..len`.
    pub(crate) fn contains(&self, row: u32) -> bool {
        row < self.len && self.words[row as usize / 64] >> (row % 64) & 1 == 1
    }

    /// Adds a row. Rows outside are ignored.
    pub(crate) fn insert(&mut self, row: u32) {
        if row < self.len {
            self.words[row as usize / 64] |= 1 << (row % 64);
        }
    }

    /// Removes a row.
    pub(crate) fn remove(&mut self, row: u32) {
        if row < self.len {
            self.words[row as usize / 64] &= !(1 << (row % 64));
        }
    }

    /// Number of rows in the set.
    #[cfg(test)]
    fn count(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// The rows in the set that lie in `range`, as ranges `[start, end)`.
    pub(crate) fn ranges(&self, range: std::ops::Range<u32>) -> Vec<[u32; 2]> {
        let mut ranges: Vec<[u32; 2]> = Vec::new();
        for row in range.filter(|&row| self.contains(row)) {
            match ranges.last_mut() {
                Some(last) if last[1] == row => last[1] += 1,
                _ => ranges.push([row, row + 1]),
            }
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set(len in 0u32..200, steps in proptest::collection::vec((0u32..210, any::<bool>()), 0..100)) {
            let (mut set, mut model) = (RowSet::new(len), BTreeSet::new());
            for (row, add) in steps {
                if add { set.insert(row) } else { set.remove(row) }
                if add && row < len { model.insert(row); } else { model.remove(&row); }
            }
            prop_assert_eq!(set.count() as usize, model.len());
            prop_assert!((0..220).all(|row| set.contains(row) == model.contains(&row)));
            let listed: BTreeSet<u32> = set.ranges(0..len).iter().flat_map(|r| r[0]..r[1]).collect();
            prop_assert_eq!(listed, model);
            prop_assert!(set.ranges(0..len).windows(2).all(|pair| pair[0][1] < pair[1][0]));
        }
    }
}
