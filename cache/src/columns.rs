//! The folders under `columns/`: finding them by name, listing them, dropping them.
//!
//! Knows names, manifests and journals, not rows. A folder is a column when it has a manifest, an unfinished one when it has
//! a journal, and nothing when it has neither.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::error::{CacheError, Result};
use crate::journal::{self, Replay};
use crate::missing::MissingMap;
use crate::publish::sync_folder;
use crate::{ColumnPlan, Manifest, Part, manifest};

/// The lock file of a column, and of the cache.
pub(crate) const LOCK: &str = "lock";

/// A column as listed.
#[derive(Debug)]
pub struct ColumnInfo {
    /// The folder: `<name>-<key8>`.
    pub folder: String,
    /// The column's name.
    pub name: String,
    /// Bytes of all files in the folder.
    pub bytes: u64,
    /// What is there.
    pub state: ColumnState,
}

/// What there is of a column.
#[derive(Debug)]
pub enum ColumnState {
    /// A finished column.
    Finished(Box<Manifest>),
    /// A column that is being written, or whose writing was broken off.
    Unfinished(Unfinished),
    /// A finished column to which new or changed images are being added.
    Extending(Box<Manifest>, Unfinished),
    /// A finished part of a column: [`crate::Cache::merge`] makes a column of all of them.
    Part(Box<Manifest>),
    /// Neither manifest nor journal can be understood.
    Damaged(CacheError),
}

/// How far an unfinished column is.
#[derive(Debug, Clone, PartialEq)]
pub struct Unfinished {
    /// What is being written.
    pub column: ColumnPlan,
    /// The part of it that is being written, or the whole.
    pub part: Option<Part>,
    /// Rows that it will have: of the column, or of the part.
    pub rows: u32,
    /// Rows that are done.
    pub rows_done: u32,
}

/// Splits `avgpool-1a2b3c4d` into name and key.
fn split_name(folder: &str) -> Option<(&str, &str)> {
    let (name, key) = folder.rsplit_once('-')?;
    let hex = key.len() == 8 && key.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    (hex && !name.is_empty()).then_some((name, key))
}

/// The folders of columns, finished or not, in order of name.
pub(crate) fn folders(columns: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(columns).map_err(CacheError::io("list", columns))? {
        let name = entry.map_err(CacheError::io("list", columns))?.file_name();
        let Ok(name) = name.into_string() else {
            continue;
        };
        let path = columns.join(&name);
        let files = [manifest::FILE, manifest::PART_FILE, journal::FILE];
        if split_name(&name).is_some() && files.iter().any(|file| path.join(file).exists()) {
            found.push(name);
        }
    }
    found.sort();
    Ok(found)
}

/// The folders of columns called `name`, or the one that is the folder `name`.
pub(crate) fn named(columns: &Path, name: &str) -> Result<Vec<String>> {
    let mut all = folders(columns)?;
    if all.iter().any(|folder| folder == name) {
        return Ok(vec![name.to_owned()]);
    }
    all.retain(|folder| split_name(folder).is_some_and(|(own, _)| own == name));
    Ok(all)
}

/// The one folder that `name` means.
pub(crate) fn resolve(cache: &Path, columns: &Path, name: &str) -> Result<PathBuf> {
    let mut found = named(columns, name)?;
    match found.len() {
        0 => {
            Err(CacheError::NoSuchColumn { cache: cache.to_owned(), column: name.to_owned(), known: folders(columns)? })
        }
        1 => Ok(columns.join(found.remove(0))),
        _ => Err(CacheError::SeveralColumns { column: name.to_owned(), folders: found }),
    }
}

/// The journal that counts: one of a generation that no manifest has yet.
pub(crate) fn live_journal(folder: &Path, manifest: Option<&Manifest>, missing: MissingMap) -> Result<Option<Replay>> {
    let replay = journal::replay(&folder.join(journal::FILE), missing)?;
    Ok(replay.filter(|replay| manifest.is_none_or(|manifest| manifest.generation < replay.plan.generation)))
}

/// What the folder says of its column.
pub(crate) fn state(folder: &Path) -> Result<ColumnState> {
    let manifest = Manifest::read_whole_or_part(folder)?;
    let journal = live_journal(folder, manifest.as_ref(), MissingMap::new())?;
    let progress = journal.map(|replay| Unfinished {
        part: replay.plan.part,
        rows: replay.covered(),
        rows_done: replay.rows_done(),
        column: replay.plan.column,
    });
    match (manifest, progress) {
        (Some(part), None) if part.part.is_some() => Ok(ColumnState::Part(Box::new(part))),
        (Some(part), Some(progress)) if part.part.is_some() => Ok(ColumnState::Unfinished(progress)),
        (Some(manifest), None) => Ok(ColumnState::Finished(Box::new(manifest))),
        (Some(manifest), Some(progress)) => Ok(ColumnState::Extending(Box::new(manifest), progress)),
        (None, Some(progress)) => Ok(ColumnState::Unfinished(progress)),
        (None, None) => {
            let path = folder.join(manifest::FILE);
            Err(CacheError::io("read", &path)(std::io::ErrorKind::NotFound.into()))
        }
    }
}

/// The plan of the column in a folder, finished or not.
pub(crate) fn plan_of(folder: &Path) -> Result<ColumnPlan> {
    match state(folder)? {
        ColumnState::Finished(manifest) | ColumnState::Part(manifest) => Ok(manifest.column),
        ColumnState::Unfinished(progress) | ColumnState::Extending(_, progress) => Ok(progress.column),
        ColumnState::Damaged(error) => Err(error),
    }
}

/// Lists the columns.
pub(crate) fn list(columns: &Path) -> Result<Vec<ColumnInfo>> {
    let info = |folder: String| {
        let path = columns.join(&folder);
        let name = split_name(&folder).map_or(folder.as_str(), |(name, _)| name).to_owned();
        let state = state(&path).unwrap_or_else(ColumnState::Damaged);
        ColumnInfo { name, bytes: folder_bytes(&path), state, folder }
    };
    Ok(folders(columns)?.into_iter().map(info).collect())
}

fn folder_bytes(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// A lock that is held. It is given back when this is dropped, and not only when the file is closed: a process that is
/// being started has copies of all open files for a moment, and would hold it on.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file does the rest where this fails.
        let _ = self.0.unlock();
    }
}

/// Takes the lock of a folder, or says who is in the way.
pub(crate) fn lock(folder: &Path) -> Result<Lock> {
    let path = folder.join(LOCK);
    let file = open_lock(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(std::fs::TryLockError::WouldBlock) => Err(CacheError::Busy { lock: path }),
        Err(std::fs::TryLockError::Error(error)) => Err(CacheError::io("lock", &path)(error)),
    }
}

/// Takes the lock of the cache's folder, waiting for it: it is only held for moments.
pub(crate) fn lock_waiting(folder: &Path) -> Result<Lock> {
    let path = folder.join(LOCK);
    let file = open_lock(&path)?;
    file.lock().map_err(CacheError::io("lock", &path))?;
    Ok(Lock(file))
}

fn open_lock(path: &Path) -> Result<File> {
    // Read and write, because some network file systems lock no other way; never truncated, as it never holds a byte.
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
    file.map_err(CacheError::io("open", path))
}

/// Drops a column.
pub(crate) fn remove(folder: &Path) -> Result<()> {
    remove_locked(folder, lock(folder)?)
}

/// Drops a column whose lock is held: the manifest first, so that a crash leaves no column that lacks shards; the lock file last.
pub(crate) fn remove_locked(folder: &Path, _lock: Lock) -> Result<()> {
    for first in [manifest::FILE, manifest::PART_FILE, journal::FILE] {
        remove_if_any(&folder.join(first))?;
        sync_folder(folder)?;
    }
    for entry in std::fs::read_dir(folder).map_err(CacheError::io("list", folder))? {
        let entry = entry.map_err(CacheError::io("list", folder))?;
        if entry.file_name() != LOCK {
            remove_if_any(&entry.path())?;
        }
    }
    remove_if_any(&folder.join(LOCK))?;
    std::fs::remove_dir(folder).map_err(CacheError::io("remove", folder))?;
    sync_folder(folder.parent().unwrap_or(Path::new(".")))
}

pub(crate) fn remove_if_any(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(CacheError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_name_is_a_name_and_eight_hex_digits() {
        assert_eq!(split_name("avg-pool-1a2b3c4d"), Some(("avg-pool", "1a2b3c4d")));
        for other in ["avgpool", "avgpool-1a2b3c4", "avgpool-1A2B3C4D", "-1a2b3c4d", ""] {
            assert_eq!(split_name(other), None, "{other}");
        }
    }

    #[test]
    fn a_lock_is_refused_while_it_is_held_and_free_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock(folder.path()).unwrap();
        let message = lock(folder.path()).unwrap_err().to_string().replace(folder.path().to_str().unwrap(), "DIR");
        insta::assert_snapshot!(message, @r"
        `DIR/lock` is in use by another process
        hint: wait for it to end; the lock goes with the process that holds it, so there is nothing to delete
        ");
        drop(held);
        lock(folder.path()).unwrap();
    }

    #[test]
    fn a_copy_of_the_file_does_not_hold_the_lock_on() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock(folder.path()).unwrap();
        // What a process that is being started has.
        let _copy = held.0.try_clone().unwrap();
        drop(held);
        lock(folder.path()).unwrap();
    }
}
