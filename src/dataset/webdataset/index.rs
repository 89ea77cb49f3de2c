//! One pass over a tar's headers: which samples it has, and where their pictures lie.
//!
//! The pictures themselves are stepped over. Decision: what is wrong with a tar is a note and costs the samples it is about, and
//! no other: a picture that the tar ends in stays a sample (it becomes a missing row), a key that comes again with another
//! picture keeps its first, and a file that is no tar at all is an error.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::sync::Arc;

use serde_json::Value;
use tar::{Archive, EntryType};

use super::{DatasetError, Member, PICTURES, Tar, notes_of};

/// Captions of more bytes are not read.
const LARGEST_TEXT_BYTES: u64 = 1 << 20;

/// A picture and what is said of it.
#[derive(Debug, PartialEq)]
pub(super) struct Sample {
    pub key: String,
    pub picture: Member,
    pub captions: Vec<String>,
}

/// The samples of a tar, in the order of their first members.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub samples: Vec<Sample>,
    pub notes: Vec<String>,
}

/// Lists `tar`.
pub(super) fn list(tar: &Arc<Tar>) -> Result<Listing, DatasetError> {
    let unreadable = |source| DatasetError::Read { path: tar.path().to_owned(), source };
    let file = File::open(tar.path()).map_err(unreadable)?;
    let mut archive = Archive::new(Skipping { inner: BufReader::with_capacity(4096, file), at: 0 });
    let mut pass = Pass { tar, keys: HashMap::new(), samples: Vec::new(), found: Found::default() };
    let (mut end, mut members) = (0, 0);
    for entry in archive.entries_with_seek().map_err(unreadable)? {
        let entry = match entry {
            Ok(entry) => entry,
            Err(source) if members == 0 => return Err(DatasetError::Tar { path: tar.path().to_owned(), source }),
            Err(error) => {
                pass.found.cut = Some((end, error.to_string()));
                return Ok(pass.finish());
            }
        };
        members += 1;
        end = entry.raw_file_position().saturating_add(entry.size());
        pass.member(entry);
    }
    // A tar ends in two blocks of zeros; one that was cut off does not.
    if end.next_multiple_of(512).saturating_add(512) > tar.bytes() {
        pass.found.cut = Some((tar.bytes(), "it has no end mark".to_owned()));
    }
    Ok(pass.finish())
}

struct Pass<'a> {
    tar: &'a Arc<Tar>,
    keys: HashMap<String, usize>,
    samples: Vec<Draft>,
    found: Found,
}

/// A sample while its members are being found.
struct Draft {
    key: String,
    picture: Option<Member>,
    captions: Vec<String>,
}

/// What the user should know.
#[derive(Default)]
struct Found {
    /// The byte up to which the tar could be read, and why no further.
    cut: Option<(u64, String)>,
    hostile: Vec<String>,
    special: Vec<String>,
    again: Vec<String>,
    unreadable: Vec<String>,
}

impl Pass<'_> {
    fn member(&mut self, entry: tar::Entry<'_, Skipping>) {
        let raw = entry.path_bytes().into_owned();
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => {}
            EntryType::Directory | EntryType::XGlobalHeader => return,
            _ => return self.found.special.push(raw.escape_ascii().to_string()),
        }
        let Ok(name) = str::from_utf8(&raw) else {
            return self.found.hostile.push(raw.escape_ascii().to_string());
        };
        let name = name.strip_prefix("./").unwrap_or(name);
        if name.is_empty() || name.starts_with('/') || name.split('/').any(|part| part == "..") {
            return self.found.hostile.push(name.to_owned());
        }
        let file = name.rfind('/').map_or(0, |slash| slash + 1);
        let Some(dot) = name[file..].find('.').filter(|dot| *dot > 0) else { return };
        let (key, ending) = (&name[..file + dot], name[file + dot + 1..].to_ascii_lowercase());
        if PICTURES.contains(&ending.as_str()) {
            self.picture(key, name, &entry);
        } else if matches!(ending.as_str(), "txt" | "json") {
            self.text(key, name, entry, ending == "json");
        }
    }

    fn draft(&mut self, key: &str) -> &mut Draft {
        let at = match self.keys.entry(key.to_owned()) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                self.samples.push(Draft { key: key.to_owned(), picture: None, captions: Vec::new() });
                *new.insert(self.samples.len() - 1)
            }
        };
        &mut self.samples[at]
    }

    fn picture(&mut self, key: &str, name: &str, entry: &tar::Entry<'_, Skipping>) {
        let tar = Arc::clone(self.tar);
        let member = Member { tar, name: name.into(), offset: entry.raw_file_position(), bytes: entry.size() };
        let draft = self.draft(key);
        if draft.picture.is_some() {
            self.found.again.push(name.to_owned());
        } else {
            draft.picture = Some(member);
        }
    }

    fn text(&mut self, key: &str, name: &str, mut entry: tar::Entry<'_, Skipping>, is_json: bool) {
        let captions = match text(&mut entry) {
            Some(text) if is_json => of_json(&text),
            Some(text) => Some(vec![text]),
            None => None,
        };
        let Some(captions) = captions else {
            return self.found.unreadable.push(name.to_owned());
        };
        let draft = self.draft(key);
        for caption in captions.iter().map(|caption| caption.trim()).filter(|caption| !caption.is_empty()) {
            if !draft.captions.iter().any(|known| known == caption) {
                draft.captions.push(caption.to_owned());
            }
        }
    }

    fn finish(self) -> Listing {
        let mut bare = Vec::new();
        let mut samples = Vec::with_capacity(self.samples.len());
        for Draft { key, picture, captions } in self.samples {
            match picture {
                Some(picture) => samples.push(Sample { key, picture, captions }),
                None => bare.push(key),
            }
        }
        let Found { cut, hostile, special, again, unreadable } = self.found;
        let found = [
            ("have names that lead out of a folder or are not UTF-8, and are left out", hostile),
            ("are links or other special files, and are left out", special),
            ("are second pictures of their keys, and are left out", again),
            ("hold no readable caption", unreadable),
            ("describe a picture that is not there, and are left out", bare),
        ];
        let cut = cut.map(|(at, why)| {
            format!("`{}` is cut off or damaged at byte {at} ({why}): what follows is lost", self.tar.relative())
        });
        Listing { samples, notes: cut.into_iter().chain(notes_of(self.tar, &found)).collect() }
    }
}

/// The whole of a small member as text.
fn text(entry: &mut tar::Entry<'_, Skipping>) -> Option<String> {
    if entry.size() > LARGEST_TEXT_BYTES {
        return None;
    }
    let mut text = String::new();
    let read = entry.read_to_string(&mut text).ok()?;
    (read as u64 == entry.size()).then_some(text)
}

/// The captions in a sample's JSON.
fn of_json(text: &str) -> Option<Vec<String>> {
    let Value::Object(members) = serde_json::from_str(text).ok()? else { return None };
    let values = ["caption", "captions", "text"].into_iter().filter_map(|name| members.get(name));
    let mut captions = Vec::new();
    for value in values {
        match value {
            Value::String(caption) => captions.push(caption.clone()),
            Value::Array(list) => captions.extend(list.iter().filter_map(|one| Some(one.as_str()?.to_owned()))),
            _ => {}
        }
    }
    Some(captions)
}

/// A buffered file that steps over a picture and keeps its buffer where it can.
struct Skipping {
    inner: BufReader<File>,
    at: u64,
}

impl Read for Skipping {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(out)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Skipping {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match to {
            SeekFrom::Current(by) => {
                let at = self.at.checked_add_signed(by).ok_or(io::ErrorKind::InvalidInput)?;
                self.inner.seek_relative(by)?;
                self.at = at;
            }
            to => self.at = self.inner.seek(to)?,
        }
        Ok(self.at)
    }
}
