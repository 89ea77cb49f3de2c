//! Digests of a finished shard: one over the file, and one over every chunk of rows.
//!
//! The file's digest is what `b3sum` prints; the chunks' digests, of about a megabyte each, tell which rows a flipped bit is
//! in. Both are computed from the file as it lies in the page cache, and the pages are given back as it goes.

use std::ops::Range;

use rayon::prelude::*;

use crate::publish::{cut, to_hex};
use crate::shard::Shard;
use crate::{ColumnPlan, ShardEntry};

/// Bytes a chunk aims at.
const CHUNK_BYTES: usize = 1 << 20;
/// Bytes hashed at a time.
const PIECE_BYTES: usize = 8 << 20;

/// Rows a chunk: about a megabyte, at least one row.
pub(crate) fn rows_per_chunk(plan: &ColumnPlan) -> u32 {
    let row_bytes: usize = plan.tensors.iter().map(crate::TensorSpec::row_bytes).sum();
    (CHUNK_BYTES / row_bytes.max(1)).clamp(1, 1 << 20) as u32
}

/// The chunks of a shard of `rows` rows.
pub(crate) fn chunks(rows: u32, rows_per_chunk: u32) -> impl Iterator<Item = Range<u32>> {
    let size = rows_per_chunk.max(1);
    (0..rows.div_ceil(size)).map(move |at| at * size..rows.min((at + 1).saturating_mul(size)))
}

/// BLAKE3 of a shard's file, in hex. `tick` hears of the bytes done.
pub(crate) fn file_digest(shard: &Shard, tick: &(dyn Fn(u64) + Sync)) -> String {
    let mut hasher = blake3::Hasher::new();
    let bytes = shard.map().bytes();
    for start in (0..bytes.len()).step_by(PIECE_BYTES) {
        let piece = start..bytes.len().min(start + PIECE_BYTES);
        hasher.update_rayon(&bytes[piece.clone()]);
        tick(piece.len() as u64);
        shard.map().release(piece);
    }
    hasher.finalize().to_hex().to_string()
}

/// BLAKE3, cut to 32 hex digits, of some rows: every tensor's bytes of them in the order of the column, then `content`, then
/// `status`.
pub(crate) fn chunk_digest(shard: &Shard, rows: Range<u32>) -> String {
    let mut hasher = blake3::Hasher::new();
    for region in shard.layout.regions() {
        let range = region.range(rows.start, rows.len() as u32);
        hasher.update(&shard.map().bytes()[range.clone()]);
        shard.map().release(range);
    }
    to_hex(&cut(hasher.finalize()))
}

/// The manifest's entry for a shard that is complete on the disk.
pub(crate) fn entry(shard: &Shard, file: String, rows_per_chunk: u32) -> ShardEntry {
    let rows = shard.layout.rows;
    let ranges: Vec<_> = chunks(rows, rows_per_chunk).collect();
    ShardEntry {
        file,
        rows,
        bytes: shard.layout.file_bytes as u64,
        digest: file_digest(shard, &|_| ()),
        chunks: ranges.into_par_iter().map(|rows| chunk_digest(shard, rows)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_the_rows_once() {
        for (rows, size) in [(0, 3), (1, 3), (3, 3), (10, 3), (7, u32::MAX), (5, 0)] {
            let all: Vec<u32> = chunks(rows, size).flatten().collect();
            assert_eq!(all, (0..rows).collect::<Vec<_>>());
            assert_eq!(chunks(rows, size).count(), rows.div_ceil(size.max(1)) as usize);
        }
    }
}
