//! A folder of images: with `metadata.jsonl` or a CSV, or bare; with or without sub-folders `train`, `val`, `test`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::disk::{self, Listing};
use super::table::{self, Record};
use super::{Dataset, DatasetError, Holdout, Item, Source, normalise_split, notes};

/// `format = "folder"`.
///
/// Captions are in `metadata`, else in a `metadata.jsonl` or `metadata.csv` of the folder or of its sub-folders, else there
/// are none. A record's split is its own, else the sub-folder's (`train/a.jpg`), else as `holdout` has it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Folder {
    /// For messages and reports; the folder's name without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The folder.
    pub images: PathBuf,
    /// JSON lines (`file_name`; `text`, `caption` or `captions`; `split`) or CSV with those columns, one row a caption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<PathBuf>,
    /// What to hold out when there are captions and no splits. Without it, all is `train`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holdout: Option<Holdout>,
}

/// The endings that a bare folder's images have.
const ENDINGS: [&str; 6] = ["jpg", "jpeg", "png", "webp", "gif", "bmp"];
const METADATA: [&str; 2] = ["metadata.jsonl", "metadata.csv"];

/// An image with its place: the file that names it, and the line.
struct Entry {
    record: Record,
    file: PathBuf,
}

pub(super) fn load(spec: &Folder, data_dir: &Path) -> Result<Dataset, DatasetError> {
    Holdout::check(spec.holdout)?;
    let root = data_dir.join(&spec.images);
    disk::require_folder(&root)?;
    let files = metadata_files(spec, data_dir, &root)?;
    let images = walk(&root)?;
    let is_bare = files.is_empty();
    let entries = if is_bare { bare(&images) } else { described(&files)? };
    let mut building =
        Building { spec, data_dir, root: &root, is_bare, listing: Listing::default(), missing: Vec::new() };
    let items = entries.into_iter().map(|entry| building.item(entry)).collect::<Result<Vec<_>, _>>()?;

    let what = format!("images are named in the metadata and are not in `{}`", spec.images.display());
    let mut found_notes: Vec<_> = notes::list(&what, &building.missing).into_iter().collect();
    let named: std::collections::HashSet<&str> = items.iter().map(|item| item.id.as_str()).collect();
    let unnamed: Vec<_> = images.iter().filter(|name| !named.contains(name.as_str())).collect();
    found_notes.extend(notes::list("images are not named in the metadata, and are left out", &unnamed));
    let own_name = || root.file_name().map_or_else(|| "folder".to_owned(), |name| name.to_string_lossy().into_owned());
    Ok(Dataset { name: spec.name.clone().unwrap_or_else(own_name), items, notes: found_notes })
}

/// The metadata files and the sub-folder that the names in each are relative to.
fn metadata_files(spec: &Folder, data_dir: &Path, root: &Path) -> Result<Vec<(PathBuf, String)>, DatasetError> {
    if let Some(path) = &spec.metadata {
        return Ok(vec![(data_dir.join(path), String::new())]);
    }
    let mut folders = vec![String::new()];
    folders.extend(sub_folders(root)?);
    let found = folders.into_iter().filter_map(|folder| {
        let path = METADATA.iter().map(|name| root.join(&folder).join(name)).find(|path| path.is_file())?;
        Some((path, folder))
    });
    Ok(found.collect())
}

fn sub_folders(root: &Path) -> Result<Vec<String>, DatasetError> {
    let unreadable = |source| DatasetError::Read { path: root.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(root).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && entry.path().is_dir() {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn described(files: &[(PathBuf, String)]) -> Result<Vec<Entry>, DatasetError> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for (path, folder) in files {
        let bytes = disk::read(path)?;
        let is_csv = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("csv"));
        let records = if is_csv { table::read(path, &bytes)? } else { json_lines(path, &bytes)? };
        for mut record in records {
            record.name = if folder.is_empty() { record.name } else { format!("{folder}/{}", record.name) };
            match places.get(&record.name).map(|&at| &mut entries[at]) {
                // A CSV has a row for each caption.
                Some(first) if is_csv && first.file == *path => {
                    first.record.captions.append(&mut record.captions);
                }
                Some(first) => {
                    let place = |file: &Path, line| format!("line {line} of `{}`", file.display());
                    return Err(DatasetError::Duplicate {
                        first: place(&first.file, first.record.line),
                        second: place(path, record.line),
                        id: record.name,
                    });
                }
                None => {
                    places.insert(record.name.clone(), entries.len());
                    entries.push(Entry { record, file: path.clone() });
                }
            }
        }
    }
    Ok(entries)
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, alias = "image", alias = "filename", alias = "file")]
    file_name: Cow<'a, str>,
    #[serde(default)]
    text: OneOrMany,
    #[serde(default)]
    caption: OneOrMany,
    #[serde(default)]
    captions: OneOrMany,
    #[serde(default)]
    split: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a caption or a list of captions")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Default for OneOrMany {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl OneOrMany {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(caption) => vec![caption],
            Self::Many(captions) => captions,
        }
    }
}

fn json_lines(path: &Path, bytes: &[u8]) -> Result<Vec<Record>, DatasetError> {
    let lines = disk::lines(path, bytes).map(|entry| {
        let (number, text) = entry?;
        let line: Line<'_> = serde_json::from_str(text).map_err(|error| {
            // The error ends in its place in the line, which counts as line 1.
            let problem = error.to_string();
            let problem = problem.split(" at line ").next().unwrap_or_default().to_owned();
            disk::malformed(path, number, problem, text)
        })?;
        let captions = [line.text, line.caption, line.captions].into_iter().flat_map(OneOrMany::into_vec);
        let captions =
            captions.map(|caption| caption.trim().to_owned()).filter(|caption| !caption.is_empty()).collect();
        Ok(Record { line: number, name: line.file_name.into_owned(), captions, split: line.split })
    });
    lines.collect()
}

fn bare(images: &[String]) -> Vec<Entry> {
    let record = |name: &String| Record { line: 0, name: name.clone(), captions: Vec::new(), split: None };
    images.iter().map(|name| Entry { record: record(name), file: PathBuf::new() }).collect()
}

/// All images under `root`, by their names' endings, sorted, with `/` between the parts.
fn walk(root: &Path) -> Result<Vec<String>, DatasetError> {
    let mut found = Vec::new();
    let mut folders = vec![(root.to_owned(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        let unreadable = |source| DatasetError::Read { path: folder.clone(), source };
        for entry in fs::read_dir(&folder).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type().map_err(unreadable)?;
            if name.starts_with('.') {
                continue;
            } else if kind.is_dir() {
                folders.push((entry.path(), format!("{prefix}{name}/")));
            } else if name.rsplit_once('.').is_some_and(|(_, end)| ENDINGS.contains(&end.to_ascii_lowercase().as_str()))
            {
                found.push(format!("{prefix}{name}"));
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

struct Building<'a> {
    spec: &'a Folder,
    data_dir: &'a Path,
    root: &'a Path,
    is_bare: bool,
    listing: Listing,
    missing: Vec<String>,
}

impl Building<'_> {
    fn item(&mut self, Entry { record, file }: Entry) -> Result<Item, DatasetError> {
        let Record { name, captions, split, .. } = record;
        let split = match split {
            Some(word) => normalise_split(&word).ok_or_else(|| DatasetError::Split {
                value: word.clone(),
                id: name.clone(),
                path: file,
            })?,
            None => self.split_of_place(&name),
        };
        if !self.is_bare && !self.listing.has(self.root, &name) {
            self.missing.push(name.clone());
        }
        let source = Source::file(self.data_dir, &self.spec.images, &name);
        Ok(Item { id: name, source, split: split.to_owned(), captions })
    }

    fn split_of_place(&self, name: &str) -> &'static str {
        let first = name.split_once('/').map_or("", |(first, _)| first);
        match normalise_split(first) {
            Some(split) if !split.is_empty() => split,
            _ if self.is_bare && self.spec.holdout.is_none() => "",
            _ => Holdout::assign(self.spec.holdout, name),
        }
    }
}
