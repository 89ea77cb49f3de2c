//! Making files appear whole or not at all, and room on the disk before it is needed.
//!
//! Knows nothing of what the files hold. Everything the crate replaces goes through [`publish`]: sibling temporary file,
//! write, fsync, rename, fsync of the folder. A crash leaves the old file or the new one.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::error::{CacheError, Result};

/// BLAKE3, cut to 128 bits, of an image file's bytes. All zero: not known.
pub type ContentHash = [u8; 16];

/// The content hash of an encoded image: BLAKE3 of its bytes, cut to 128 bits.
pub fn content_hash(bytes: &[u8]) -> ContentHash {
    cut(blake3::hash(bytes))
}

/// The first 128 bits of a digest.
pub(crate) fn cut(digest: blake3::Hash) -> ContentHash {
    let mut hash = [0; 16];
    hash.copy_from_slice(&digest.as_bytes()[..16]);
    hash
}

/// 32 lower-case hex digits.
pub(crate) fn to_hex(hash: &ContentHash) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
    hash.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The reverse of [`to_hex`]; upper case is not accepted.
pub(crate) fn from_hex(text: &str) -> Option<ContentHash> {
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let digits: &[u8; 32] = text.as_bytes().try_into().ok()?;
    let mut hash = [0; 16];
    for (byte, pair) in hash.iter_mut().zip(digits.as_chunks::<2>().0) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(hash)
}

/// The sibling a file is written as before it takes its name.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    path.with_file_name(name)
}

/// Replaces `path` by what `write` writes: the old file or the new one, never half of one.
pub(crate) fn publish(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<()> {
    let temporary = temporary(path);
    let file = File::create(&temporary).map_err(CacheError::io("create", &temporary))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let written = write(&mut out).and_then(|()| {
        out.flush().map_err(CacheError::io("write", &temporary))?;
        out.get_ref().sync_all().map_err(CacheError::io("sync", &temporary))?;
        rename(&temporary, path)
    });
    if written.is_err() {
        // Best effort: the leftover is overwritten by the next attempt.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

/// Renames within one folder and syncs the folder.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).map_err(CacheError::io("rename", from))?;
    sync_folder(to.parent().unwrap_or(Path::new(".")))
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(CacheError::io("sync", folder))
}

/// Creates `path` with `bytes` bytes that are really on the disk, so that a map of it cannot run out of room later.
pub(crate) fn allocate(path: &Path, bytes: u64) -> Result<File> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(true).open(path);
    let file = file.map_err(CacheError::io("create", path))?;
    let reserved = reserve(&file, bytes);
    reserved.map_err(|source| {
        // Give the room back before anything is said about it.
        drop(std::fs::remove_file(path));
        if source.kind() == io::ErrorKind::StorageFull {
            return CacheError::DiskFull { path: path.to_owned(), needed: Some(bytes), free: free_bytes(path) };
        }
        CacheError::io("allocate", path)(source)
    })?;
    Ok(file)
}

fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;
    loop {
        match fallocate(file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            // The file system cannot reserve, or says so of a length that it cannot have: write the zeros out.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => return write_zeros(file, bytes),
            Err(other) => return Err(other.into()),
        }
    }
}

/// Writes `bytes` zeros, unless the disk has no room for them: a disk must not be filled to learn that.
fn write_zeros(mut file: &File, bytes: u64) -> io::Result<()> {
    let disk = rustix::fs::fstatvfs(file)?;
    // A file system that does not know its size says zero of everything.
    if disk.f_blocks > 0 && bytes > disk.f_bavail.saturating_mul(disk.f_frsize) {
        return Err(io::ErrorKind::StorageFull.into());
    }
    io::copy(&mut io::Read::take(io::repeat(0), bytes), &mut file)?;
    file.sync_data()
}

/// Bytes free for this user on the disk that `path` is on, or would be on: of its nearest folder that exists. `None` where
/// the system does not say.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let absolute = std::path::absolute(path).ok()?;
    let folder = absolute.ancestors().find(|folder| folder.is_dir())?;
    let disk = rustix::fs::statvfs(folder).ok()?;
    disk.f_bavail.checked_mul(disk.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_failed_publication_leaves_the_old_file_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        publish(&path, |out| out.write_all(b"old").map_err(CacheError::io("write", &path))).unwrap();
        let failed = publish(&path, |out| {
            out.write_all(b"half").map_err(CacheError::io("write", &path))?;
            Err(CacheError::io("write", &path)(io::Error::other("pulled the plug")))
        });
        assert!(failed.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn allocated_bytes_are_on_the_disk_and_zero() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shard");
        let file = allocate(&path, 1 << 20).unwrap();
        let blocks = std::os::unix::fs::MetadataExt::blocks(&file.metadata().unwrap());
        assert!(blocks * 512 >= 1 << 20, "`{blocks}` blocks are not a megabyte: the file is sparse");
        assert_eq!(std::fs::read(&path).unwrap(), vec![0; 1 << 20]);
    }

    #[test]
    fn writing_zeros_is_the_same_without_fallocate() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shard");
        write_zeros(&File::create(&path).unwrap(), 70_001).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), vec![0; 70_001]);
    }

    #[test]
    fn zeros_that_the_disk_has_no_room_for_are_not_begun() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(write_zeros(&file, 1 << 62).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(file.metadata().unwrap().len(), 0);
    }

    #[test]
    fn what_no_disk_can_hold_is_an_error_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shard");
        assert!(allocate(&path, 1 << 62).is_err());
        assert!(!path.exists());
    }

    proptest! {
        #[test]
        fn hex_round_trips(hash: [u8; 16]) {
            prop_assert_eq!(from_hex(&to_hex(&hash)), Some(hash));
        }

        #[test]
        fn only_32_lower_case_digits_are_hex(text in "[0-9a-fA-Fg]{30,33}") {
            let good = text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            prop_assert_eq!(from_hex(&text).is_some(), good);
        }
    }
}
