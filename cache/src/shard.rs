//! A shard as a file: finished ones mapped for reading, drafts mapped for writing.
//!
//! Knows one shard at a time. A draft takes its name (`NNNNN.safetensors.partial`) only when its header is written and all
//! its bytes are allocated, so a draft that is found after a crash is always whole in size and shape.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::ColumnPlan;
use crate::error::{CacheError, Result, ShardError};
use crate::layout::ShardLayout;
use crate::map::{ReadMap, WriteMap};
use crate::publish::{ContentHash, allocate, rename, temporary};

/// The file of a shard's generation: `00003.safetensors`, `00003.g1.safetensors`.
pub(crate) fn file_name(shard: usize, generation: u32) -> String {
    if generation == 0 { format!("{shard:05}.safetensors") } else { format!("{shard:05}.g{generation}.safetensors") }
}

/// The generation in a shard's file name; 0 where it has none.
pub(crate) fn generation_of(file: &str) -> u32 {
    let stem = file.strip_suffix(".safetensors").unwrap_or(file);
    stem.rsplit_once(".g").and_then(|(_, digits)| digits.parse().ok()).unwrap_or(0)
}

/// The name a shard's file has while it is written.
pub(crate) fn draft_name(file: &str) -> String {
    format!("{file}.partial")
}

/// A shard mapped for reading, its header checked. Rows are counted within the shard.
#[derive(Debug)]
pub(crate) struct Shard {
    pub path: PathBuf,
    pub layout: ShardLayout,
    map: ReadMap,
}

impl Shard {
    /// Opens shard `shard` of `plan`. Without `rows`, it may have any number of them.
    pub(crate) fn open(path: PathBuf, plan: &ColumnPlan, shard: usize, rows: Option<u32>) -> Result<Self> {
        let file = File::open(&path).map_err(CacheError::io("open", &path))?;
        let map = ReadMap::new(&file).map_err(CacheError::io("map", &path))?;
        let layout = ShardLayout::read(&path, map.bytes(), plan, shard, rows)?;
        Ok(Self { path, layout, map })
    }

    /// Like [`Shard::open`], and the file must have `bytes` bytes.
    pub(crate) fn open_sized(path: PathBuf, plan: &ColumnPlan, shard: usize, rows: u32, bytes: u64) -> Result<Self> {
        let found = std::fs::metadata(&path).map_err(CacheError::io("open", &path))?.len();
        if found != bytes {
            return Err(ShardError::Size { path, expected: bytes, found }.into());
        }
        Self::open(path, plan, shard, Some(rows))
    }

    pub(crate) fn map(&self) -> &ReadMap {
        &self.map
    }

    pub(crate) fn statuses(&self) -> &[u8] {
        &self.map.bytes()[self.layout.status.range(0, self.layout.rows)]
    }

    pub(crate) fn content(&self, row: u32) -> ContentHash {
        let bytes = &self.map.bytes()[self.layout.content.range(row, 1)];
        std::array::from_fn(|at| bytes[at])
    }

    /// The bytes of `rows` rows of a tensor.
    #[inline]
    pub(crate) fn rows(&self, tensor: usize, row: u32, rows: u32) -> &[u8] {
        &self.map.bytes()[self.layout.tensors[tensor].range(row, rows)]
    }
}

/// A shard that is being written, by several threads at once.
#[derive(Debug)]
pub(crate) struct Draft {
    pub path: PathBuf,
    pub layout: ShardLayout,
    pub map: WriteMap,
}

impl Draft {
    /// Opens the draft at `path`, whose layout was checked before.
    pub(crate) fn open(path: PathBuf, layout: ShardLayout) -> Result<Self> {
        let file = File::options().read(true).write(true).open(&path).map_err(CacheError::io("open", &path))?;
        let map = WriteMap::new(&file).map_err(CacheError::io("map", &path))?;
        Ok(Self { path, layout, map })
    }

    /// Allocates a draft of `rows` rows, lets `fill` copy into it what is known, and gives it its name.
    pub(crate) fn create(path: PathBuf, plan: &ColumnPlan, shard: usize, fill: impl FnOnce(&mut Self)) -> Result<Self> {
        let (header, layout) = ShardLayout::write(plan, shard, plan.shard_rows(shard));
        let unnamed = temporary(&path);
        let file = allocate(&unnamed, layout.file_bytes as u64)?;
        file.write_all_at(&header, 0).map_err(CacheError::io("write", &unnamed))?;
        let map = WriteMap::new(&file).map_err(CacheError::io("map", &unnamed))?;
        let mut draft = Self { path, layout, map };
        fill(&mut draft);
        draft.sync_all()?;
        file.sync_all().map_err(CacheError::io("sync", &unnamed))?;
        rename(&unnamed, &draft.path)?;
        Ok(draft)
    }

    /// Copies rows from a finished shard, or another draft, that holds the same rows at the same places.
    pub(crate) fn copy_rows(&mut self, from: &Shard, ranges: &[Range<u32>]) {
        let regions: Vec<_> = from.layout.regions().zip(self.layout.regions()).collect();
        let bytes = self.map.bytes_mut();
        for range in ranges {
            for (source, target) in &regions {
                let source = source.range(range.start, range.len() as u32);
                bytes[target.range(range.start, range.len() as u32)].copy_from_slice(&from.map.bytes()[source]);
            }
        }
    }

    /// Returns when the rows are on the disk.
    pub(crate) fn sync_rows(&self, rows: Range<u32>) -> Result<()> {
        let ranges = self.layout.regions().map(|region| region.range(rows.start, rows.len() as u32));
        ranges.into_iter().try_for_each(|range| self.map.sync(range)).map_err(CacheError::io("sync", &self.path))
    }

    /// Returns when all of the draft is on the disk.
    pub(crate) fn sync_all(&self) -> Result<()> {
        self.map.sync(0..self.map.len()).map_err(CacheError::io("sync", &self.path))
    }

    /// Takes the rows' pages off this process's resident memory.
    pub(crate) fn release_rows(&self, rows: Range<u32>) {
        self.layout.regions().for_each(|region| self.map.release(region.range(rows.start, rows.len() as u32)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_carry_the_generation() {
        for (shard, generation, name) in
            [(3, 0, "00003.safetensors"), (3, 12, "00003.g12.safetensors"), (123_456, 0, "123456.safetensors")]
        {
            assert_eq!(file_name(shard, generation), name);
            assert_eq!(generation_of(name), generation);
        }
        assert_eq!(draft_name("00003.safetensors"), "00003.safetensors.partial");
        assert_eq!(generation_of("whatever"), 0);
    }
}
