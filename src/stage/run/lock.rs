//! One process trains a run, and a training that never became a run leaves nothing behind.
//!
//! Knows the folder and its lock, not what is trained. The lock file of a run stays for ever, as the file of a lock should. Where
//! no run came of it (the recipe's decoder can't be built, say) it is removed again, with the folders that were made for
//! it. Who waits at that moment may hold the lock of a file that is no longer there: so whoever gets a lock looks whether it is
//! still the one of that name.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{Run, RunError};

const FILE: &str = "lock";

/// The right to train a run: one process has it until it drops this or ends.
#[derive(Debug)]
pub struct RunLock {
    file: fs::File,
    folder: PathBuf,
    /// The folders that were made for it, the innermost first.
    made: Vec<PathBuf>,
}

impl RunLock {
    /// Takes the lock of the run in `folder`, which is made where it isn't there.
    ///
    /// # Errors
    /// [`RunError::Busy`], or where the folder can't be written.
    pub fn take(folder: &Path) -> Result<Self> {
        let missing = || folder.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists());
        let made: Vec<PathBuf> = missing().map(Path::to_path_buf).collect();
        let unwritable = || format!("the run's folder `{}` can't be written", folder.display());
        loop {
            let file = open(folder).with_context(unwritable)?;
            match file.try_lock() {
                Ok(()) if is_current(&file, folder) => return Ok(Self { file, folder: folder.to_owned(), made }),
                // Its holder removed it just now.
                Ok(()) => {}
                Err(fs::TryLockError::WouldBlock) => return Err(RunError::Busy { folder: folder.to_owned() }.into()),
                Err(fs::TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("the run `{}` can't be locked", folder.display()));
                }
            }
        }
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        if !Run::exists(&self.folder) {
            // Best effort, while the lock is held. Folders that hold anything stay.
            let _ = fs::remove_file(self.folder.join(FILE));
            let _ = self.made.iter().try_for_each(fs::remove_dir);
        }
        let _ = self.file.unlock();
    }
}

fn open(folder: &Path) -> io::Result<fs::File> {
    fs::create_dir_all(folder)?;
    fs::OpenOptions::new().create(true).append(true).open(folder.join(FILE))
}

/// Whether `file` is the one that the folder's lock is called by.
fn is_current(file: &fs::File, folder: &Path) -> bool {
    let inode = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    matches!((file.metadata().map(inode), fs::metadata(folder.join(FILE)).map(inode)), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_training_that_becomes_no_run_leaves_nothing() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("runs/new");
        drop(RunLock::take(&folder).unwrap());
        assert!(!place.path().join("runs").exists());
        // Of a folder that was there, only the lock was ours; what others wrote stays.
        fs::create_dir_all(&folder).unwrap();
        drop(RunLock::take(&folder).unwrap());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        let lock = RunLock::take(&folder.join("inner")).unwrap();
        fs::write(folder.join("inner/notes.txt"), "mine").unwrap();
        drop(lock);
        assert_eq!(fs::read_dir(folder.join("inner")).unwrap().count(), 1);
    }

    #[test]
    fn the_lock_of_a_run_stays_and_is_held_by_one() {
        let place = tempfile::tempdir().unwrap();
        let held = RunLock::take(place.path()).unwrap();
        let busy = RunLock::take(place.path()).unwrap_err();
        assert!(matches!(busy.downcast_ref(), Some(RunError::Busy { .. })), "{busy}");
        fs::write(place.path().join("run.json"), "{}").unwrap();
        drop(held);
        assert!(place.path().join(FILE).exists());
    }
}
