//! Tokenized captions as hashes: what all three metrics count and compare.
//!
//! Must not know: how a text becomes tokens, or what a score is.
//!
//! Words and n-grams are 64-bit hashes, not interned strings: nothing is shared between images, so rayon needs no lock
//! and a [`DocumentFrequency`](super::cider::DocumentFrequency) needs no vocabulary. Among the 2 million n-grams of 25,000
//! captions the chance that any two collide is 1 in 10 million; the parity tests compare with exact counts.

use std::hash::{BuildHasherDefault, Hasher};

/// The longest n-gram counted.
pub const ORDERS: usize = 4;

/// One caption, tokenized (tokens separated by single spaces), ready to be counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caption {
    /// Word hashes in reading order.
    words: Vec<u64>,
    /// Word hashes where a word ends at a space only; `None` when that makes no difference.
    pieces: Option<Vec<u64>>,
    /// For each order, (n-gram hash, count) by ascending hash; `ends[n]` closes order n.
    grams: Vec<(u64, u32)>,
    ends: [usize; ORDERS],
}

impl Caption {
    /// Counts the n-grams of a tokenized caption, orders 1 to [`ORDERS`].
    #[must_use]
    pub fn new(tokenized: &str) -> Self {
        let pieces = || tokenized.split(' ').map(word_hash).collect();
        let words = || tokenized.split(is_space).filter(|word| !word.is_empty()).map(word_hash).collect();
        let printable = |piece: &str| piece.bytes().all(|byte| (b'!'..0x80).contains(&byte));
        let plain = tokenized.split(' ').all(|piece| !piece.is_empty() && printable(piece));
        // One space between tokens and no other white space inside: then words and pieces are the same.
        let (words, pieces): (Vec<u64>, _) = if plain { (pieces(), None) } else { (words(), Some(pieces())) };
        let (grams, ends) = count(&words);
        Self { words, pieces, grams, ends }
    }

    /// Number of words.
    #[must_use]
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Whether there is no word at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Hashes of the words, in reading order.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// One number for the whole caption: equal where the words and their order are.
    #[must_use]
    pub fn digest(&self) -> u64 {
        phrase(&self.words)
    }

    /// Hashes of what stands between single spaces: an empty caption is one empty piece, and a token that holds a
    /// no-break space is one piece but two words. ROUGE-L counts these.
    #[must_use]
    pub fn pieces(&self) -> &[u64] {
        self.pieces.as_deref().unwrap_or(&self.words)
    }

    /// Number of n-grams of `order + 1` words, repeated ones counted.
    #[must_use]
    pub fn total(&self, order: usize) -> usize {
        self.words.len().saturating_sub(order)
    }

    /// The distinct n-grams of `order + 1` words with their counts, by ascending hash.
    #[must_use]
    pub fn grams(&self, order: usize) -> &[(u64, u32)] {
        let start = if order == 0 { 0 } else { self.ends[order - 1] };
        &self.grams[start..self.ends[order]]
    }

    /// The distinct n-grams of all orders with their counts.
    #[must_use]
    pub fn all_grams(&self) -> &[(u64, u32)] {
        &self.grams
    }
}

fn count(words: &[u64]) -> (Vec<(u64, u32)>, [usize; ORDERS]) {
    let mut grams: Vec<(u64, u32)> = Vec::with_capacity(words.len() * ORDERS);
    let mut ends = [0; ORDERS];
    let mut hashes: Vec<u64> = words.iter().map(|&word| mix(word)).collect();
    for (order, end) in ends.iter_mut().enumerate() {
        if order > 0 {
            extend_by_one_word(&mut hashes, words, order);
        }
        let start = grams.len();
        grams.extend(hashes.iter().map(|&hash| (hash, 1)));
        grams[start..].sort_unstable();
        merge_equal(&mut grams, start);
        *end = grams.len();
    }
    (grams, ends)
}

/// The hash of some words in a row, as it stands among the n-grams; 0 where there are none.
pub(super) fn phrase(words: &[u64]) -> u64 {
    let Some((first, rest)) = words.split_first() else { return 0 };
    rest.iter().fold(mix(*first), |hash, next| join(hash, *next))
}

/// Turns the hashes of all `order`-word n-grams into those of `order + 1` words.
fn extend_by_one_word(hashes: &mut Vec<u64>, words: &[u64], order: usize) {
    hashes.truncate(words.len().saturating_sub(order));
    for (hash, next) in hashes.iter_mut().zip(words.iter().skip(order)) {
        *hash = join(*hash, *next);
    }
}

fn join(hash: u64, next: u64) -> u64 {
    mix(hash.rotate_left(23) ^ next)
}

/// Merges runs of equal hashes in the sorted tail of `grams` that begins at `start`.
fn merge_equal(grams: &mut Vec<(u64, u32)>, start: usize) {
    let mut kept = start;
    for read in start..grams.len() {
        if kept > start && grams[kept - 1].0 == grams[read].0 {
            grams[kept - 1].1 += grams[read].1;
        } else {
            grams[kept] = grams[read];
            kept += 1;
        }
    }
    grams.truncate(kept);
}

/// Calls `both` with the two counts of every n-gram that both sorted lists hold.
pub(super) fn for_common<A: Copy, B: Copy>(left: &[(u64, A)], right: &[(u64, B)], mut both: impl FnMut(A, B)) {
    let (mut i, mut j) = (0, 0);
    while let (Some(&(a, x)), Some(&(b, y))) = (left.get(i), right.get(j)) {
        if a == b {
            both(x, y);
        }
        i += usize::from(a <= b);
        j += usize::from(b <= a);
    }
}

/// White space as Python's `str.split()` sees it: Unicode's, and the four ASCII separators.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// FNV-1a, then a finalizer, so that every bit of the hash depends on every byte.
fn word_hash(word: &str) -> u64 {
    let fnv = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    mix(word.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, fnv))
}

/// The finalizer of MurmurHash3: a bijection of 64 bits without visible structure.
fn mix(mut bits: u64) -> u64 {
    bits ^= bits >> 33;
    bits = bits.wrapping_mul(0xff51_afd7_ed55_8ccd);
    bits ^= bits >> 33;
    bits = bits.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    bits ^ (bits >> 33)
}

/// Passes n-gram hashes through: they are well mixed already.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, &byte| mix(hash ^ u64::from(byte)));
    }
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// A map keyed by n-gram hash.
pub type GramMap<T> = std::collections::HashMap<u64, T, BuildHasherDefault<Mixed>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_repeats_and_orders() {
        let caption = Caption::new("a dog and a dog and a cat");
        assert_eq!(caption.len(), 8);
        assert_eq!((0..ORDERS).map(|n| caption.total(n)).collect::<Vec<_>>(), [8, 7, 6, 5]);
        assert_eq!((0..ORDERS).map(|n| caption.grams(n).len()).collect::<Vec<_>>(), [4, 4, 4, 4]);
        let mut counts: Vec<u32> = caption.grams(0).iter().map(|gram| gram.1).collect();
        counts.sort_unstable();
        assert_eq!(counts, [1, 2, 2, 3]);
    }

    #[test]
    fn short_captions_have_no_long_grams() {
        let caption = Caption::new("two words");
        assert_eq!((0..ORDERS).map(|n| caption.grams(n).len()).collect::<Vec<_>>(), [2, 1, 0, 0]);
        assert_eq!(Caption::new("").all_grams(), []);
    }

    #[test]
    fn word_order_matters_to_a_gram() {
        let (ab, ba) = (Caption::new("a b"), Caption::new("b a"));
        assert_eq!(ab.grams(0), ba.grams(0));
        assert_ne!(ab.grams(1), ba.grams(1));
    }

    #[test]
    fn a_phrase_is_one_of_the_grams() {
        let caption = Caption::new("a hot dog");
        assert!(caption.grams(1).iter().any(|gram| gram.0 == phrase(&caption.words()[1..])));
        assert_eq!(caption.digest(), caption.grams(2)[0].0);
        assert_eq!(Caption::new("").digest(), 0);
        assert_ne!(Caption::new("a dog hot").digest(), caption.digest());
    }

    #[test]
    fn pieces_split_at_spaces_only() {
        assert_eq!(Caption::new("").pieces().len(), 1, "an empty caption is one empty piece");
        let caption = Caption::new("2\u{a0}1/2 cups");
        assert_eq!((caption.len(), caption.pieces().len()), (3, 2));
        assert_eq!((Caption::new("a  b").len(), Caption::new("a  b").pieces().len()), (2, 3));
    }

    #[test]
    fn common_grams_are_met_once() {
        let mut met = Vec::new();
        for_common(&[(1, 'a'), (4, 'b'), (9, 'c')], &[(0, 1), (4, 2), (9, 3), (12, 4)], |x, y| met.push((x, y)));
        assert_eq!(met, [('b', 2), ('c', 3)]);
    }
}
