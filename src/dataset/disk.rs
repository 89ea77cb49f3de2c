//! Reading the files of a data set, and knowing which images are there.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::DatasetError;

/// Which files folders hold. Each folder is read once: 118,000 look-ups cost no system call each.
#[derive(Default)]
pub(super) struct Listing {
    folders: HashMap<PathBuf, HashSet<OsString>>,
}

impl Listing {
    /// Is there a file `name`, which may have folders in it, in `folder`? A folder that is not there holds nothing.
    pub fn has(&mut self, folder: &Path, name: &str) -> bool {
        let path = folder.join(name);
        let (Some(parent), Some(file)) = (path.parent(), path.file_name()) else {
            return false;
        };
        let files = match self.folders.entry(parent.to_owned()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let names = fs::read_dir(parent).into_iter().flatten();
                entry.insert(names.filter_map(|entry| Some(entry.ok()?.file_name())).collect())
            }
        };
        files.contains(file)
    }
}

/// Refuses an images folder that is not there: a wrong path, not a data set of missing images.
pub(super) fn require_folder(path: &Path) -> Result<(), DatasetError> {
    fs::read_dir(path).map(drop).map_err(|source| DatasetError::Read { path: path.to_owned(), source })
}

/// Bytes of a picture's file at most, wherever it lies.
pub(super) const LARGEST_BYTES: u64 = 256 << 20;

/// A picture's file. What is no file, such as a pipe, is not waited for.
pub(super) fn picture(path: &Path) -> io::Result<Vec<u8>> {
    let about = fs::metadata(path)?;
    if !about.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
    }
    if about.len() > LARGEST_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the picture's file is over 256 MiB"));
    }
    fs::read(path)
}

/// The whole file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, DatasetError> {
    fs::read(path).map_err(|source| DatasetError::Read { path: path.to_owned(), source })
}

/// The lines that are not blank, numbered from 1, without line ends and without a byte order mark.
pub(super) fn lines<'a>(
    path: &'a Path,
    bytes: &'a [u8],
) -> impl Iterator<Item = Result<(u64, &'a str), DatasetError>> + 'a {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let numbered = (1..).zip(bytes.split(|&byte| byte == b'\n'));
    numbered.filter(|(_, line)| !line.trim_ascii().is_empty()).map(move |(number, line)| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        str::from_utf8(line)
            .map(|text| (number, text))
            .map_err(|_| malformed(path, number, "it is not UTF-8", &line.escape_ascii().to_string()))
    })
}

/// The error for one line; a long value is cut.
pub(super) fn malformed(path: &Path, line: u64, problem: impl Into<String>, value: &str) -> DatasetError {
    const SHOWN: usize = 120;
    let mut shown: String = value.chars().take(SHOWN).collect();
    if shown.len() < value.len() {
        shown.push_str("...");
    }
    DatasetError::Line { path: path.to_owned(), line, problem: problem.into(), value: shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_over_blank_ones_and_carriage_returns() {
        let path = Path::new("x");
        let found: Vec<_> = lines(path, b"\xef\xbb\xbfa\r\n\r\nb").collect::<Result<_, _>>().unwrap();
        assert_eq!(found, [(1, "a"), (3, "b")]);
        let error = lines(path, b"a\n\xff").find_map(Result::err).unwrap();
        insta::assert_snapshot!(error, @r"line 2 of `x`: it is not UTF-8: `\xff`");
    }

    #[test]
    fn a_listing_sees_nested_files_and_no_folder_that_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("sub")).unwrap();
        fs::write(folder.path().join("sub/a.jpg"), "").unwrap();
        let mut listing = Listing::default();
        assert!(listing.has(folder.path(), "sub/a.jpg"));
        assert!(!listing.has(folder.path(), "a.jpg"));
        assert!(!listing.has(folder.path(), "gone/a.jpg"));
    }
}
