//! Keeps pictures as WebDataset tars while they are being encoded: a thousand rows a tar, laid out as img2dataset lays them out.
//!
//! It must not know where the pictures come from. Decision: a picture's place follows from its row, not from when it arrived: row
//! 12345 is `000120345.jpg` in `00012.tar`, as img2dataset numbers the lines of a list. So a picture that a crash made us
//! fetch twice is kept once, and one that a later run finds at last still gets its place.
//!
//! A tar grows as `00012.tar.partial`, a whole sample a write, and gets its name when all its rows are settled: then it is synced
//! and renamed. What a kill leaves is taken up; half a sample at its end is cut off.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::json;
use tar::{Archive, Builder, Header};

/// Rows a tar.
const ROWS: u32 = 1000;
/// What tells a folder of ours: it names the first row.
const MARK: &str = "icecap.json";
/// The two blocks of zeros that end a tar.
const END: usize = 1024;

/// What stops pictures from being kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// A file or folder refuses.
    #[error("cannot {doing} `{}` to keep pictures", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The folder has tars of other pictures.
    #[error("`{}` holds tars that are not of this cache: {found}\nhint: give --keep-images a folder of its own", folder.display())]
    Foreign {
        /// The folder.
        folder: PathBuf,
        /// What tells.
        found: String,
    },
    /// Another process writes there.
    #[error("another icecap keeps pictures in `{}`\nhint: give --keep-images a folder of its own", folder.display())]
    Busy {
        /// The folder.
        folder: PathBuf,
    },
}

fn io_error<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> KeepError + 'a {
    move |source| KeepError::Io { doing, path: path.to_owned(), source }
}

/// A picture to keep.
#[derive(Debug, Clone, Copy)]
pub struct Kept<'a> {
    /// Its row in the cache.
    pub row: u32,
    /// Where it was fetched.
    pub url: &'a str,
    /// Its captions.
    pub captions: &'a [String],
    /// Its file's bytes.
    pub bytes: &'a [u8],
}

/// Writes the tars of a folder.
#[derive(Debug)]
pub struct Keeper {
    folder: PathBuf,
    state: Mutex<State>,
    _lock: File,
}

#[derive(Debug)]
struct State {
    /// Rows that are not settled yet, by tar.
    left: HashMap<u32, u32>,
    open: BTreeMap<u32, Growing>,
}

/// A tar that pictures are written to, or would be.
#[derive(Debug)]
struct Growing {
    /// Its partial file, from the first picture on that a finished one lacks.
    file: Option<File>,
    path: PathBuf,
    finished: PathBuf,
    /// The keys it holds, each with the address that its picture came from.
    keys: HashMap<String, String>,
}

impl Keeper {
    /// Opens `folder`, or makes it. `first_id` is the id of the cache's row 0, which never moves; `rows` are those to come.
    ///
    /// # Errors
    /// [`KeepError`]: the folder has other tars, is in use, or refuses.
    pub fn open(folder: &Path, first_id: &str, rows: impl Iterator<Item = u32>) -> Result<Self, KeepError> {
        fs::create_dir_all(folder).map_err(io_error("make", folder))?;
        let lock_path = folder.join(".lock");
        let lock = File::create(&lock_path).map_err(io_error("open", &lock_path))?;
        lock.try_lock().map_err(|_| KeepError::Busy { folder: folder.to_owned() })?;
        claim(folder, first_id)?;
        let mut left: HashMap<u32, u32> = HashMap::new();
        rows.for_each(|row| *left.entry(row / ROWS).or_default() += 1);
        let keeper =
            Self { folder: folder.to_owned(), state: Mutex::new(State { left, open: BTreeMap::new() }), _lock: lock };
        keeper.finish_leftovers()?;
        Ok(keeper)
    }

    /// Keeps a picture, unless its tar has it already or it is none: a server's error page is not worth keeping. Says
    /// whether it was written.
    ///
    /// # Errors
    /// [`KeepError::Io`].
    pub fn keep(&self, kept: &Kept<'_>) -> Result<bool, KeepError> {
        let Some(ending) = ending(kept.bytes) else { return Ok(false) };
        let (at, key) = (kept.row / ROWS, key(kept.row));
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let tar = match state.open.entry(at) {
            std::collections::btree_map::Entry::Occupied(open) => open.into_mut(),
            std::collections::btree_map::Entry::Vacant(place) => place.insert(Growing::open(&self.folder, at)?),
        };
        if let Some(url) = tar.keys.get(&key) {
            if url == kept.url {
                return Ok(false);
            }
            // Another list, or another part of it: the tars' keys would name rows that they are not of.
            let found = format!(
                "`{key}` of {} is from `{url}`, and row {} from `{}`",
                tar.finished.display(),
                kept.row,
                kept.url
            );
            return Err(KeepError::Foreign { folder: self.folder.clone(), found });
        }
        tar.append(&sample(&key, ending, kept).map_err(io_error("write", &tar.path))?)?;
        tar.keys.insert(key, kept.url.to_owned());
        Ok(true)
    }

    /// Says that nothing more comes for `row`; the last row of a tar publishes it.
    ///
    /// # Errors
    /// [`KeepError::Io`].
    pub fn settle(&self, row: u32) -> Result<(), KeepError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let at = row / ROWS;
        let Some(left) = state.left.get_mut(&at) else { return Ok(()) };
        *left = left.saturating_sub(1);
        if *left > 0 {
            return Ok(());
        }
        state.left.remove(&at);
        match state.open.remove(&at) {
            Some(tar) => tar.publish(&self.folder),
            None => Ok(()),
        }
    }

    /// Publishes what an earlier run left unfinished and this one adds nothing to.
    fn finish_leftovers(&self) -> Result<(), KeepError> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for name in names(&self.folder)? {
            let at = name.strip_suffix(".tar.partial").and_then(|stem| stem.parse::<u32>().ok());
            let Some(at) = at.filter(|at| !state.left.contains_key(at)) else { continue };
            Growing::open(&self.folder, at)?.publish(&self.folder)?;
        }
        Ok(())
    }
}

/// Makes the folder ours, or refuses it.
fn claim(folder: &Path, first_id: &str) -> Result<(), KeepError> {
    let path = folder.join(MARK);
    let foreign = |found: String| KeepError::Foreign { folder: folder.to_owned(), found };
    match fs::read(&path) {
        Ok(text) => {
            let mark: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
            match mark["first_row"].as_str() {
                Some(id) if id == first_id => Ok(()),
                id => Err(foreign(format!("their first row is `{}`", id.unwrap_or("unknown")))),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(name) = names(folder)?.into_iter().find(|name| name.contains(".tar")) {
                return Err(foreign(format!("`{name}`")));
            }
            let text = json!({ "made_by": "icecap", "keys": "rows of the cache", "first_row": first_id });
            fs::write(&path, format!("{text}\n")).map_err(io_error("write", &path))
        }
        Err(error) => Err(io_error("read", &path)(error)),
    }
}

fn names(folder: &Path) -> Result<Vec<String>, KeepError> {
    let entries = fs::read_dir(folder).map_err(io_error("list", folder))?;
    Ok(entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect())
}

/// img2dataset's key: the tar's five digits, then four within it.
fn key(row: u32) -> String {
    format!("{:05}{:04}", row / ROWS, row % ROWS)
}

/// What a picture's name ends in, by its first bytes.
fn ending(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xff, 0xd8, 0xff, ..] => Some("jpg"),
        [0x89, b'P', b'N', b'G', ..] => Some("png"),
        [b'G', b'I', b'F', b'8', ..] => Some("gif"),
        [b'B', b'M', ..] => Some("bmp"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("webp"),
        _ => None,
    }
}

/// The members of one sample; the JSON is the last, so that a sample without one is half a sample.
fn sample(key: &str, ending: &str, kept: &Kept<'_>) -> io::Result<Vec<u8>> {
    let caption = kept.captions.first().map_or("", String::as_str);
    let mut about =
        json!({ "caption": caption, "url": kept.url, "key": key, "status": "success", "error_message": null });
    if kept.captions.len() > 1 {
        about["captions"] = kept.captions.into();
    }
    let about = about.to_string();
    let mut builder = Builder::new(Vec::with_capacity(kept.bytes.len() + 4096));
    for (ending, bytes) in [(ending, kept.bytes), ("txt", caption.as_bytes()), ("json", about.as_bytes())] {
        let mut header = Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, format!("{key}.{ending}"), bytes)?;
    }
    let mut bytes = builder.into_inner()?;
    bytes.truncate(bytes.len() - END);
    Ok(bytes)
}

impl Growing {
    /// Takes up the partial tar `at`, or looks into the finished one, or begins a new one.
    fn open(folder: &Path, at: u32) -> Result<Self, KeepError> {
        let (path, finished) = (folder.join(format!("{at:05}.tar.partial")), folder.join(format!("{at:05}.tar")));
        if !path.exists() && finished.exists() {
            let (keys, _) =
                File::open(&finished).and_then(|file| survey(&file)).map_err(io_error("read", &finished))?;
            return Ok(Self { file: None, path, finished, keys });
        }
        let (file, keys) = take_up(&path)?;
        Ok(Self { file: Some(file), path, finished, keys })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), KeepError> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let copy = self.finished.with_extension("tar.copy");
                fs::copy(&self.finished, &copy).map_err(io_error("copy", &self.finished))?;
                fs::rename(&copy, &self.path).map_err(io_error("rename", &copy))?;
                self.file.insert(take_up(&self.path)?.0)
            }
        };
        file.write_all(bytes).map_err(io_error("write", &self.path))
    }

    fn publish(self, folder: &Path) -> Result<(), KeepError> {
        // The finished tar has it all.
        let Some(mut file) = self.file else { return Ok(()) };
        if self.keys.is_empty() {
            return fs::remove_file(&self.path).map_err(io_error("remove", &self.path));
        }
        let synced = file.write_all(&[0; END]).and_then(|()| file.sync_all());
        synced.map_err(io_error("write", &self.path))?;
        fs::rename(&self.path, &self.finished).map_err(io_error("rename", &self.path))?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error("sync", folder))
    }
}

/// Opens a partial tar behind its last whole sample, and tells which it has.
fn take_up(path: &Path) -> Result<(File, HashMap<String, String>), KeepError> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).open(path);
    let mut file = file.map_err(io_error("open", path))?;
    let (keys, end) = survey(&file).map_err(io_error("read", path))?;
    file.set_len(end).and_then(|()| file.seek(SeekFrom::Start(end))).map_err(io_error("cut", path))?;
    Ok((file, keys))
}

/// Bytes of a sample's JSON at most.
const LARGEST_ABOUT: u64 = 1 << 20;

/// The keys of the whole samples at a tar's beginning with their addresses, and where the last of them ends.
fn survey(file: &File) -> io::Result<(HashMap<String, String>, u64)> {
    let bytes = file.metadata()?.len();
    let (mut keys, mut end) = (HashMap::new(), 0);
    let mut archive = Archive::new(file);
    let mut entries = archive.entries_with_seek()?;
    while let Some(Ok(mut entry)) = entries.next() {
        let entry_end = entry.raw_file_position().saturating_add(entry.size());
        if entry_end > bytes {
            break;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if let Some(key) = name.strip_suffix(".json") {
            let mut about = Vec::new();
            entry.by_ref().take(LARGEST_ABOUT).read_to_end(&mut about)?;
            let about: serde_json::Value = serde_json::from_slice(&about).unwrap_or_default();
            keys.insert(key.to_owned(), about["url"].as_str().unwrap_or_default().to_owned());
            // Beyond the file's end where the last block lacks its padding: it gets it.
            end = entry_end.next_multiple_of(512);
        }
    }
    Ok((keys, end))
}
