//! From an id to its row: an open-addressing table of row numbers over hashes of the ids.
//!
//! Holds no ids: a hash that agrees is checked against the line itself. 17 bytes a row, where a map of strings takes 80.

use std::hash::{DefaultHasher, Hasher};

const EMPTY: u32 = u32::MAX;

/// Rows by the hash of their id.
#[derive(Debug, Default)]
pub(super) struct IdIndex {
    hashes: Vec<u64>,
    /// A power of two of places, at most half of them taken.
    table: Vec<u32>,
}

/// Two rows whose ids have the same hash, and are the same.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Twins {
    pub first: u32,
    pub second: u32,
}

/// The hash of an id. Lives in memory only, so it may change with the compiler.
pub(super) fn hash(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(id.as_bytes());
    hasher.finish()
}

impl IdIndex {
    /// Row `r` has the id with hash `hashes[r]`; `same` compares the ids of two rows.
    pub(super) fn new(hashes: Vec<u64>, same: impl Fn(u32, u32) -> bool) -> Result<Self, Twins> {
        let places = (hashes.len() * 2).next_power_of_two().max(2);
        let mut index = Self { hashes, table: vec![EMPTY; places] };
        for row in 0..index.hashes.len() as u32 {
            let mut place = index.first_place(index.hashes[row as usize]);
            while index.table[place] != EMPTY {
                let first = index.table[place];
                if index.hashes[first as usize] == index.hashes[row as usize] && same(first, row) {
                    return Err(Twins { first, second: row });
                }
                place = (place + 1) & (index.table.len() - 1);
            }
            index.table[place] = row;
        }
        Ok(index)
    }

    /// The row of `id`; `is` compares it with a row's.
    pub(super) fn find(&self, id: &str, is: impl Fn(u32) -> bool) -> Option<u32> {
        if self.hashes.is_empty() {
            return None;
        }
        let wanted = hash(id);
        let mut place = self.first_place(wanted);
        while self.table[place] != EMPTY {
            let row = self.table[place];
            if self.hashes[row as usize] == wanted && is(row) {
                return Some(row);
            }
            place = (place + 1) & (self.table.len() - 1);
        }
        None
    }

    fn first_place(&self, hash: u64) -> usize {
        hash as usize & (self.table.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_id_is_found_and_no_other(ids in proptest::collection::hash_set("[a-e]{0,4}", 0..60), other in "[a-e]{0,4}") {
            let ids: Vec<String> = ids.into_iter().collect();
            let index = IdIndex::new(ids.iter().map(|id| hash(id)).collect(), |a, b| ids[a as usize] == ids[b as usize]).unwrap();
            for (row, id) in ids.iter().enumerate() {
                prop_assert_eq!(index.find(id, |row| ids[row as usize] == *id), Some(row as u32));
            }
            prop_assert_eq!(index.find(&other, |row| ids[row as usize] == other).is_some(), ids.contains(&other));
        }
    }

    #[test]
    fn equal_hashes_of_different_ids_are_no_twins() {
        assert!(IdIndex::new(vec![5; 100], |_, _| false).is_ok());
        assert_eq!(IdIndex::new(vec![5, 6, 5], |_, _| true).unwrap_err(), Twins { first: 0, second: 2 });
    }
}
