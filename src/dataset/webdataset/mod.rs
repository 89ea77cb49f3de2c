//! WebDataset: tars of pictures with their captions beside them, as img2dataset writes them and [`Keeper`] does.
//!
//! It must not unpack anything: a tar is listed once, by its headers, and a picture is read where it lies. So a name in a tar is
//! never a path on this machine, whatever it says.
//!
//! Decision: an image's id is `<tar>/<key>`, although img2dataset's keys alone are unique: other makers start again at 0 in
//! every tar, and what an id looks like must not depend on which tars are there today.

mod index;
mod keep;
mod member;
mod pattern;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use keep::{KeepError, Keeper, Kept};
pub use member::{Member, Tar};

use super::{Dataset, DatasetError, Holdout, Item, Source, TEST, TRAIN, VAL, notes};
use index::Listing;

/// `format = "webdataset"`.
///
/// ```toml
/// format = "webdataset"
/// train = "cc3m/{00000..00331}.tar"     # or a folder: all its tars, in order of name
/// ```
///
/// A sample is the members of one key (the name up to the first dot after the last slash): `key.jpg` (or `.png`, `.webp`, `.gif`,
/// `.bmp`), and its captions in `key.txt`, in `key.json` (`caption`, `captions`, `text`), or in both. Other members are ignored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebDataset {
    /// For messages and reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The tars to train on: a file, a folder, or a pattern with braces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train: Option<String>,
    /// The tars to validate on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val: Option<String>,
    /// The tars to test on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<String>,
    /// What to hold out of `train`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holdout: Option<Holdout>,
}

pub(super) fn load(spec: &WebDataset, data_dir: &Path) -> Result<Dataset, DatasetError> {
    Holdout::check(spec.holdout)?;
    let tars = tars(spec, data_dir)?;
    refuse_equal_stems(&tars)?;
    let listings: Vec<Listing> = tars.par_iter().map(|(_, tar)| index::list(tar)).collect::<Result<_, _>>()?;
    let mut items = Vec::with_capacity(listings.iter().map(|listing| listing.samples.len()).sum());
    let mut found = Vec::new();
    for ((split, tar), listing) in tars.iter().zip(listings) {
        found.extend(listing.notes);
        for sample in listing.samples {
            let id = format!("{}/{}", tar.stem(), sample.key);
            let split = if *split == TRAIN { Holdout::assign(spec.holdout, &id) } else { split };
            let source = Source::Member(sample.picture);
            items.push(Item { id, source, split: split.to_owned(), captions: sample.captions });
        }
    }
    let bare = items.iter().filter(|item| item.captions.is_empty()).count();
    if bare > 0 {
        found.push(format!("{bare} images have no caption"));
    }
    let name = spec.name.clone().unwrap_or_else(|| "webdataset".to_owned());
    Ok(Dataset { name, items, notes: found })
}

/// The tars with their splits, in order.
fn tars(spec: &WebDataset, data_dir: &Path) -> Result<Vec<(&'static str, Arc<Tar>)>, DatasetError> {
    let parts = [(TRAIN, &spec.train), (VAL, &spec.val), (TEST, &spec.test)];
    let parts: Vec<_> = parts.into_iter().filter_map(|(split, pattern)| Some((split, pattern.as_ref()?))).collect();
    if parts.is_empty() {
        let hint = "name at least one split's tars: `train = \"cc3m/{00000..00331}.tar\"`";
        return Err(DatasetError::Setting { key: "train", value: String::new(), hint });
    }
    let mut tars = Vec::new();
    for (split, pattern) in parts {
        for name in pattern::files(pattern, split, data_dir)? {
            tars.push((split, Arc::new(Tar::open(data_dir, &name)?)));
        }
    }
    Ok(tars)
}

/// Ids begin with the tar's name, so two tars of one name cannot both be in a data set.
fn refuse_equal_stems(tars: &[(&str, Arc<Tar>)]) -> Result<(), DatasetError> {
    let mut seen: HashMap<&str, &Tar> = HashMap::with_capacity(tars.len());
    for (_, tar) in tars {
        if let Some(first) = seen.insert(tar.stem(), tar) {
            let place = |tar: &Tar| format!("`{}`", tar.path().display());
            let id = format!("{}/...", tar.stem());
            return Err(DatasetError::Duplicate { id, first: place(first), second: place(tar) });
        }
    }
    Ok(())
}

/// What ends an image's name in a tar.
const PICTURES: [&str; 6] = ["jpg", "jpeg", "png", "webp", "gif", "bmp"];

/// The notes of one tar, each with up to ten names.
fn notes_of(tar: &Tar, found: &[(&str, Vec<String>)]) -> Vec<String> {
    let name = tar.relative();
    found.iter().filter_map(|(what, names)| notes::list(&format!("members of `{name}` {what}"), names)).collect()
}
