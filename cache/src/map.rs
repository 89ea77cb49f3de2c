//! Memory maps of files: one to read, one to write. All of the crate's `unsafe` but the slot's is here.
//!
//! Knows nothing of shards. A map is sound as long as no one truncates the file or, for reading, writes to it: the format
//! forbids both to every program (README, "Who may touch what"), and this crate never does either to a finished file.

use std::fs::File;
use std::io;
use std::ops::Range;

use memmap2::{Advice, Mmap, MmapRaw, UncheckedAdvice};

/// Bytes of a row to load ahead: beyond them the processor has noticed by itself.
#[cfg(target_arch = "x86_64")]
const LOAD_BYTES: usize = 4096;

/// Bytes asked for at once: of a longer range Linux reads no more than the disk's `read_ahead_kb` (128 by default) and
/// forgets the rest. Half of that, as a range that begins within a page takes in all of it. A disk with a smaller one still gets
/// what is read itself, only later.
const ASKED_BYTES: usize = 64 << 10;

/// A file mapped for reading. An empty file maps to no bytes.
#[derive(Debug)]
pub(crate) struct ReadMap(Option<Mmap>);

impl ReadMap {
    pub(crate) fn new(file: &File) -> io::Result<Self> {
        if file.metadata()?.len() == 0 {
            return Ok(Self(None));
        }
        // SAFETY: every file read through a map is one that the format forbids to change in place or to truncate; it is
        // replaced by renaming another over it, which leaves this map with the old bytes.
        unsafe { Mmap::map(file) }.map(|map| Self(Some(map)))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Asks the kernel to read `range` in the background; one that does not know the advice is no error.
    pub(crate) fn read_soon(&self, range: Range<usize>) {
        if let Some(map) = &self.0 {
            for start in range.clone().step_by(ASKED_BYTES) {
                let _ = map.advise_range(Advice::WillNeed, start, ASKED_BYTES.min(range.end - start));
            }
        }
    }

    /// Tells the kernel not to read on behind what is read.
    pub(crate) fn read_in_no_order(&self) {
        if let Some(map) = &self.0 {
            let _ = map.advise(Advice::Random);
        }
    }

    /// Takes the pages off this process's resident memory; the next access maps them again from the page cache.
    pub(crate) fn release(&self, range: Range<usize>) {
        if let Some(map) = &self.0 {
            // SAFETY: on a map of a file, DONTNEED drops page table entries and no data: a read in flight faults the page
            // in again with the same bytes.
            let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
        }
    }
}

/// Asks the processor to load the first bytes of a slice that is read soon into its second-level cache, which can wait for
/// more lines at once than the first. Does nothing where it cannot.
#[inline(always)]
pub(crate) fn load_soon(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in 0..bytes.len().min(LOAD_BYTES).div_ceil(64) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a prefetch is a hint that cannot fault, and the address is in a live slice anyway.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(bytes.as_ptr().add(line * 64).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

/// A file mapped for writing by several threads at once.
#[derive(Debug)]
pub(crate) struct WriteMap(MmapRaw);

impl WriteMap {
    /// Maps all of `file`, whose bytes are allocated.
    pub(crate) fn new(file: &File) -> io::Result<Self> {
        MmapRaw::map_raw(file).map(Self)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The bytes of `range`.
    ///
    /// # Safety
    /// Until the slice is dropped, no other slice of an overlapping range may exist.
    ///
    /// # Panics
    /// When the range is not in the map.
    #[expect(clippy::mut_from_ref, reason = "the map is shared by threads that own disjoint ranges of it")]
    pub(crate) unsafe fn slice_mut(&self, range: Range<usize>) -> &mut [u8] {
        assert!(range.start <= range.end && range.end <= self.0.len(), "`{range:?}` is outside the map");
        // SAFETY: in bounds by the assertion; mapped as long as `self` is; aliasing is excluded by the caller.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().add(range.start), range.len()) }
    }

    /// All bytes, for the only holder of the map.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: `&mut self` excludes every other slice, as each borrows the map.
        unsafe { self.slice_mut(0..self.len()) }
    }

    /// Returns when the bytes of `range` are on the disk.
    pub(crate) fn sync(&self, range: Range<usize>) -> io::Result<()> {
        self.0.flush_range(range.start, range.len())
    }

    /// Takes the pages off this process's resident memory, so that it does not grow with the shard.
    pub(crate) fn release(&self, range: Range<usize>) {
        // SAFETY: the map is shared and of a file, so DONTNEED drops page table entries and no data: a thread that is
        // writing to a neighbour's page faults it in again from the page cache, where all bytes written are.
        let _ = unsafe { self.0.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_written_survive_a_release_and_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let file = crate::publish::allocate(&path, 3 * 4096).unwrap();
        let map = WriteMap::new(&file).unwrap();
        // SAFETY: the only slice of the map.
        unsafe { map.slice_mut(4000..5000) }.fill(7);
        map.release(0..map.len());
        map.sync(4000..5000).unwrap();
        let read = ReadMap::new(&File::open(&path).unwrap()).unwrap();
        read.release(0..read.bytes().len());
        assert!(read.bytes()[4000..5000].iter().all(|&byte| byte == 7));
        assert_eq!(read.bytes().iter().filter(|&&byte| byte != 0).count(), 1000);
    }

    #[test]
    fn an_empty_file_has_no_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create_new(folder.path().join("file")).unwrap();
        assert!(ReadMap::new(&file).is_err() || ReadMap::new(&file).unwrap().bytes().is_empty());
    }

    #[test]
    #[should_panic = "outside the map"]
    fn a_range_outside_the_map_panics() {
        let folder = tempfile::tempdir().unwrap();
        let file = crate::publish::allocate(&folder.path().join("file"), 10).unwrap();
        // SAFETY: the only slice of the map.
        unsafe { WriteMap::new(&file).unwrap().slice_mut(5..11) };
    }
}
