//! A picture in a tar: where it lies, and its bytes.
//!
//! It must not know what the bytes are. Decision: a thread keeps the tar it read last open. Rows lie in order, so nearly every
//! picture comes from the same file as the one before it, and the kernel sees one file read from front to back.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{super::disk::LARGEST_BYTES, DatasetError};

/// A tar as it was when it was listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tar {
    path: PathBuf,
    relative: String,
    stamp: Stamp,
}

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    modified_ns: u64,
}

impl Stamp {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let modified_ns =
            metadata.mtime().unsigned_abs().wrapping_mul(1_000_000_000) + metadata.mtime_nsec().unsigned_abs();
        Ok(Self { inode: metadata.ino(), bytes: metadata.len(), modified_ns })
    }
}

impl Tar {
    /// Looks at the tar `relative` of `data_dir`.
    pub(super) fn open(data_dir: &Path, relative: &str) -> Result<Self, DatasetError> {
        let path = data_dir.join(relative);
        let stamp = File::open(&path).and_then(|file| Stamp::of(&file));
        match stamp {
            Ok(stamp) => Ok(Self { path, relative: relative.to_owned(), stamp }),
            Err(source) => Err(DatasetError::Read { path, source }),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The same as the recipe has it: relative to the data folder.
    pub fn relative(&self) -> &str {
        &self.relative
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.stamp.bytes
    }

    /// The file's name without its ending.
    pub fn stem(&self) -> &str {
        let file = self.relative.rsplit('/').next().unwrap_or_default();
        file.strip_suffix(".tar").unwrap_or(file)
    }

    /// Opens it, unless it is another file by now.
    fn reopen(&self) -> io::Result<File> {
        let file = File::open(&self.path)?;
        if Stamp::of(&file)? != self.stamp {
            return Err(io::Error::other("the tar was changed while it was being read"));
        }
        Ok(file)
    }
}

/// A picture in a tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The tar.
    pub(super) tar: Arc<Tar>,
    /// Its name in the tar.
    pub(super) name: Box<str>,
    /// Its first byte.
    pub(super) offset: u64,
    /// Its length, as its header has it.
    pub(super) bytes: u64,
}

thread_local! {
    static LAST: RefCell<Option<(Arc<Tar>, File)>> = const { RefCell::new(None) };
}

impl Member {
    /// The tar and the name in it.
    pub fn describe(&self) -> String {
        format!("{}/{}", self.tar.relative, self.name)
    }

    /// Length of the picture's file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When the tar was last modified, in nanoseconds since 1970.
    pub fn modified_ns(&self) -> u64 {
        self.tar.stamp.modified_ns
    }

    /// The picture's bytes.
    ///
    /// # Errors
    /// `UnexpectedEof` where the tar ends in it, `FileTooLarge` where it is over 256 MiB, else what the file system says.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        if self.offset.checked_add(self.bytes).is_none_or(|end| end > self.tar.stamp.bytes) {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the tar ends before the picture does"));
        }
        if self.bytes > LARGEST_BYTES {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the picture's file is over 256 MiB"));
        }
        let mut bytes = vec![0; self.bytes as usize];
        LAST.with_borrow_mut(|last| {
            if !last.as_ref().is_some_and(|(tar, _)| Arc::ptr_eq(tar, &self.tar)) {
                *last = Some((Arc::clone(&self.tar), self.tar.reopen()?));
            }
            match last {
                Some((_, file)) => file.read_exact_at(&mut bytes, self.offset),
                None => Ok(()),
            }
        })?;
        Ok(bytes)
    }
}
