//! Flickr8k and Flickr30k: captions in a token file or in Kaggle's CSV, splits in lists of names.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::disk::{self, Listing, malformed};
use super::{Dataset, DatasetError, Holdout, Item, Source, TEST, TRAIN, VAL, notes, table};

/// `format = "flickr8k"`.
///
/// ```toml
/// format = "flickr8k"
/// images = "flickr8k/images"
/// captions = "flickr8k/Flickr8k.token.txt"     # or Kaggle's captions.txt, told by its content
/// train = "flickr8k/Flickr_8k.trainImages.txt"
/// val = "flickr8k/Flickr_8k.devImages.txt"
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flickr {
    /// For messages and reports; `flickr8k` without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The folder of images.
    pub images: PathBuf,
    /// `name.jpg#k<TAB>caption` a line, or CSV with the header `image,caption`.
    pub captions: PathBuf,
    /// Names of the training images, one a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train: Option<PathBuf>,
    /// Names of the validation images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val: Option<PathBuf>,
    /// Names of the test images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<PathBuf>,
    /// What to hold out when there are no lists, as in Kaggle's copies. Without it, all is `train`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holdout: Option<Holdout>,
}

/// Captions by name, in the order of the file.
type Captions = Vec<(String, Vec<String>)>;

pub(super) fn load(spec: &Flickr, data_dir: &Path) -> Result<Dataset, DatasetError> {
    Holdout::check(spec.holdout)?;
    let images = data_dir.join(&spec.images);
    disk::require_folder(&images)?;
    let mut found_notes = Vec::new();
    let path = data_dir.join(&spec.captions);
    let mut captions = read_captions(&path, &mut found_notes)?;
    let splits = read_lists(spec, data_dir)?;
    let without = add_listed(&mut captions, &splits);
    found_notes.extend(notes::list("images in the split lists have no captions", &without));

    let has_lists = spec.train.is_some() || spec.val.is_some() || spec.test.is_some();
    let mut listing = Listing::default();
    let (mut missing, mut left_out, mut items) = (Vec::new(), 0, Vec::new());
    for (name, captions) in captions {
        let there = listing.has(&images, &name);
        let split = match splits.get(&name) {
            Some(&(split, _)) => split,
            None if !has_lists => Holdout::assign(spec.holdout, &name),
            None if there => "",
            None => {
                left_out += 1;
                continue;
            }
        };
        if !there {
            missing.push(name.clone());
        }
        let source = Source::file(data_dir, &spec.images, &name);
        items.push(Item { id: name, source, split: split.to_owned(), captions });
    }
    let what = format!("images named in `{}` are not in `{}`", spec.captions.display(), spec.images.display());
    found_notes.extend(notes::list(&what, &missing));
    if left_out > 0 {
        found_notes.push(format!("{left_out} images with captions are in no split list and not on disk: left out"));
    }
    let name = spec.name.clone().unwrap_or_else(|| "flickr8k".to_owned());
    Ok(Dataset { name, items, notes: found_notes })
}

fn read_captions(path: &Path, found_notes: &mut Vec<String>) -> Result<Captions, DatasetError> {
    let bytes = disk::read(path)?;
    let first = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let is_csv = !first.contains(&b'\t') && first.contains(&b',');
    let rows = if is_csv {
        table::read(path, &bytes)?.into_iter().map(|row| (row.name, row.captions)).collect()
    } else {
        read_tokens(path, &bytes)?
    };
    let mut strays: Vec<String> = Vec::new();
    let mut order: HashMap<String, usize> = HashMap::new();
    let mut grouped: Captions = Vec::new();
    for (name, captions) in rows {
        if is_stray(&name) {
            if strays.last() != Some(&name) {
                strays.push(name);
            }
            continue;
        }
        let at = *order.entry(name).or_insert_with_key(|name| {
            grouped.push((name.clone(), Vec::new()));
            grouped.len() - 1
        });
        grouped[at].1.extend(captions);
    }
    found_notes.extend(notes::list("names that are no image files were skipped", &strays));
    Ok(grouped)
}

/// Lines of `name.jpg#k<TAB>caption`; each `name#k` once.
fn read_tokens(path: &Path, bytes: &[u8]) -> Result<Captions, DatasetError> {
    let mut seen: HashMap<&str, u64> = HashMap::new();
    let mut rows = Captions::new();
    for entry in disk::lines(path, bytes) {
        let (number, line) = entry?;
        let (key, caption) = line
            .split_once('\t')
            .ok_or_else(|| malformed(path, number, "no tab between the name and the caption", line))?;
        let (name, k) =
            key.rsplit_once('#').ok_or_else(|| malformed(path, number, "no `#` behind the image's name", key))?;
        if k.is_empty() || !k.bytes().all(|byte| byte.is_ascii_digit()) || name.is_empty() {
            return Err(malformed(path, number, "not `name#number`", key));
        }
        let caption = caption.trim();
        if caption.is_empty() {
            return Err(malformed(path, number, "the caption is empty", line));
        }
        if let Some(first) = seen.insert(key, number) {
            let place = |line| format!("line {line} of `{}`", path.display());
            return Err(DatasetError::Duplicate { id: key.to_owned(), first: place(first), second: place(number) });
        }
        rows.push((name.to_owned(), vec![caption.to_owned()]));
    }
    Ok(rows)
}

/// `2258277193_586949ec62.jpg.1`, which Flickr8k's official token file has and its images have not.
fn is_stray(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(stem, end)| {
        !end.is_empty() && end.bytes().all(|byte| byte.is_ascii_digit()) && stem.to_ascii_lowercase().ends_with(".jpg")
    })
}

/// Split by name, with the place that said so. A name in two splits is refused.
type Splits = HashMap<String, (&'static str, usize)>;

fn read_lists(spec: &Flickr, data_dir: &Path) -> Result<Splits, DatasetError> {
    let mut splits = Splits::new();
    let lists = [(TRAIN, &spec.train), (VAL, &spec.val), (TEST, &spec.test)];
    for (split, list) in lists {
        let Some(list) = list else { continue };
        let path = data_dir.join(list);
        let bytes = disk::read(&path)?;
        for entry in disk::lines(&path, &bytes) {
            let (number, line) = entry?;
            let name = line.trim();
            if name.contains('\t') || name.contains('#') {
                return Err(malformed(&path, number, "not one image's name", line));
            }
            let order = splits.len();
            match splits.entry(name.to_owned()).or_insert((split, order)) {
                (first, _) if *first == split => {}
                (first, _) => {
                    let (id, first) = (name.to_owned(), format!("the list of `{first}`"));
                    let second = format!("line {number} of `{}`", path.display());
                    return Err(DatasetError::Duplicate { id, first, second });
                }
            }
        }
    }
    Ok(splits)
}

/// Listed names that no caption mentions come last, in the order of the lists; returns them.
fn add_listed(captions: &mut Captions, splits: &Splits) -> Vec<String> {
    let known: std::collections::HashSet<&str> = captions.iter().map(|(name, _)| name.as_str()).collect();
    let mut without: Vec<_> = splits.iter().filter(|(name, _)| !known.contains(name.as_str())).collect();
    without.sort_by_key(|(_, (_, order))| *order);
    let without: Vec<String> = without.into_iter().map(|(name, _)| name.clone()).collect();
    captions.extend(without.iter().map(|name| (name.clone(), Vec::new())));
    without
}
