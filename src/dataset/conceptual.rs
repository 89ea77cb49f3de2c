//! Conceptual Captions, and every list of its kind: lines of `caption<TAB>URL` without a header, a file for each split.
//!
//! It must not know how a URL is fetched, nor whether it can be: a line's image is an item whatever its URL is, and becomes a
//! missing row with its reason where nothing comes of it.
//!
//! Decision: the URL is the image's id. Lines may be added, removed or put in another order and every row stays what it was; the
//! same URL twice is one image with two captions, downloaded once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::disk::{self, malformed};
use super::{Dataset, DatasetError, Holdout, Item, Source, TEST, TRAIN, VAL, notes};

/// `format = "conceptual-captions"`.
///
/// ```toml
/// format = "conceptual-captions"
/// train = "Train_GCC-training.tsv"
/// val = "Validation_GCC-1.1.0-Validation.tsv"
/// ```
///
/// Further cells of a line are ignored, as the lists with image labels have them; so is a first line that names its columns.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conceptual {
    /// For messages and reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The list to train on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train: Option<PathBuf>,
    /// The list to validate on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val: Option<PathBuf>,
    /// The list to test on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<PathBuf>,
    /// What to hold out of `train`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holdout: Option<Holdout>,
}

/// A list of one split.
struct List {
    path: PathBuf,
    /// As the recipe has it.
    name: String,
    split: &'static str,
    bytes: Vec<u8>,
}

pub(super) fn load(spec: &Conceptual, data_dir: &Path) -> Result<Dataset, DatasetError> {
    Holdout::check(spec.holdout)?;
    let lists = [(TRAIN, &spec.train), (VAL, &spec.val), (TEST, &spec.test)];
    let lists: Vec<List> = lists
        .into_iter()
        .filter_map(|(split, name)| Some((split, name.as_ref()?)))
        .map(|(split, name)| {
            let path = data_dir.join(name);
            Ok(List { name: name.display().to_string(), split, bytes: disk::read(&path)?, path })
        })
        .collect::<Result<_, DatasetError>>()?;
    if lists.is_empty() {
        let hint = "name at least one list of captions and URLs: `train = \"Train_GCC-training.tsv\"`";
        return Err(DatasetError::Setting { key: "train", value: String::new(), hint });
    }
    let mut building = Building { holdout: spec.holdout, ..Building::default() };
    let mut found_notes = Vec::new();
    for (at, list) in lists.iter().enumerate() {
        building.add(at, list, &mut found_notes)?;
    }
    let name = spec.name.clone().unwrap_or_else(|| "conceptual-captions".to_owned());
    Ok(Dataset { name, items: building.items, notes: found_notes })
}

#[derive(Default)]
struct Building<'a> {
    holdout: Option<Holdout>,
    items: Vec<Item>,
    /// URL to its item and the list that it was first in.
    places: HashMap<&'a str, (u32, usize)>,
}

impl<'a> Building<'a> {
    fn add(&mut self, at: usize, list: &'a List, notes: &mut Vec<String>) -> Result<(), DatasetError> {
        let (mut bad, mut first_bad) = (Vec::new(), None);
        let (mut good, mut repeated, mut elsewhere) = (0u64, 0u64, Vec::new());
        let bytes = list.bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&list.bytes);
        for (number, line) in (1u64..).zip(bytes.split(|&byte| byte == b'\n')) {
            if line.trim_ascii().is_empty() {
                continue;
            }
            match cells(line) {
                Ok((_, url)) if number == 1 && is_heading(url) => {}
                Ok((caption, url)) => {
                    good += 1;
                    match self.line(at, list.split, caption, url) {
                        Placed::New => {}
                        Placed::Repeated => repeated += 1,
                        Placed::InOtherSplit => elsewhere.push(url),
                    }
                }
                Err(problem) => {
                    first_bad.get_or_insert_with(|| malformed(&list.path, number, problem, &shown(line)));
                    bad.push(format!("line {number}: {problem}"));
                }
            }
        }
        match first_bad {
            // Not one line is a caption and a URL: the file is another one than was meant.
            Some(error) if good == 0 => return Err(error),
            _ => {}
        }
        if repeated > 0 {
            notes
                .push(format!("{repeated} lines of `{}` name a URL again: one image with several captions", list.name));
        }
        notes.extend(notes::list(&format!("lines of `{}` are left out", list.name), &bad));
        let what = format!("URLs of `{}` are in an earlier split, and stay there alone", list.name);
        notes.extend(notes::list(&what, &elsewhere));
        Ok(())
    }

    fn line(&mut self, list: usize, split: &'static str, caption: &str, url: &'a str) -> Placed {
        match self.places.entry(url) {
            Entry::Occupied(place) if place.get().1 != list => Placed::InOtherSplit,
            Entry::Occupied(place) => {
                let captions = &mut self.items[place.get().0 as usize].captions;
                if !caption.is_empty() && !captions.iter().any(|known| known == caption) {
                    captions.push(caption.to_owned());
                }
                Placed::Repeated
            }
            Entry::Vacant(place) => {
                place.insert((self.items.len() as u32, list));
                let split = if split == TRAIN { Holdout::assign(self.holdout, url) } else { split };
                let captions = if caption.is_empty() { Vec::new() } else { vec![caption.to_owned()] };
                let source = Source::Url(url.into());
                self.items.push(Item { id: url.to_owned(), source, split: split.to_owned(), captions });
                Placed::New
            }
        }
    }
}

enum Placed {
    New,
    Repeated,
    InOtherSplit,
}

/// The caption and the URL of a line.
fn cells(line: &[u8]) -> Result<(&str, &str), &'static str> {
    let text = str::from_utf8(line).map_err(|_| "it is not UTF-8")?;
    let mut cells = text.split('\t');
    let caption = cells.next().unwrap_or_default().trim();
    let url = cells.next().ok_or("there is no tab between a caption and a URL")?.trim();
    if url.is_empty() { Err("there is no URL after the tab") } else { Ok((caption, url)) }
}

/// Whether the second cell of the first line names its column.
fn is_heading(url: &str) -> bool {
    ["url", "image_url", "image", "link"].iter().any(|name| url.eq_ignore_ascii_case(name))
}

fn shown(line: &[u8]) -> String {
    str::from_utf8(line).map_or_else(|_| line.escape_ascii().to_string(), str::to_owned)
}
