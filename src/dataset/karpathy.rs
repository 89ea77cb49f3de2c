//! Karpathy's JSON (`dataset_coco.json`, `dataset_flickr8k.json`, `dataset_flickr30k.json`): the splits papers report on.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::disk::{self, Listing};
use super::{Dataset, DatasetError, Item, Source, VAL, normalise_split, notes};

/// `format = "karpathy"`.
///
/// ```toml
/// format = "karpathy"
/// captions = "dataset_coco.json"
/// images = "coco"                # holds train2014/ and val2014/
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Karpathy {
    /// For messages and reports; the file's own `dataset` without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The JSON.
    pub captions: PathBuf,
    /// The folder that `filepath/filename` is in.
    pub images: PathBuf,
    /// What COCO's 30,504 `restval` images count as.
    #[serde(default)]
    pub restval: Restval,
}

/// What `restval` counts as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restval {
    /// Trained on, as published results do.
    #[default]
    Train,
    /// Validation.
    Val,
    /// Not in the data set.
    LeaveOut,
}

#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow, default)]
    dataset: Option<Cow<'a, str>>,
    #[serde(borrow)]
    images: Vec<Image<'a>>,
}

#[derive(Deserialize)]
struct Image<'a> {
    #[serde(borrow, default)]
    filepath: Option<Cow<'a, str>>,
    #[serde(borrow)]
    filename: Cow<'a, str>,
    #[serde(default)]
    cocoid: Option<u64>,
    #[serde(borrow)]
    split: Cow<'a, str>,
    #[serde(borrow)]
    sentences: Vec<Sentence<'a>>,
}

#[derive(Deserialize)]
struct Sentence<'a> {
    #[serde(borrow)]
    raw: Cow<'a, str>,
}

impl Image<'_> {
    /// COCO's id, that its results files need; else the name, as the flickr8k format has it for the same pictures.
    fn id(&self) -> String {
        self.cocoid.map_or_else(|| self.filename.clone().into_owned(), |id| id.to_string())
    }

    fn path(&self) -> Cow<'_, str> {
        match self.filepath.as_deref() {
            None | Some("") => Cow::Borrowed(&self.filename),
            Some(folder) => Cow::Owned(format!("{}/{}", folder.trim_end_matches('/'), self.filename)),
        }
    }
}

pub(super) fn load(spec: &Karpathy, data_dir: &Path) -> Result<Dataset, DatasetError> {
    let folder = data_dir.join(&spec.images);
    disk::require_folder(&folder)?;
    let path = data_dir.join(&spec.captions);
    let bytes = disk::read(&path)?;
    let file: File<'_> = serde_json::from_slice(&bytes).map_err(|source| DatasetError::Json {
        path: path.clone(),
        expected: "a Karpathy data set",
        source,
    })?;
    let mut listing = Listing::default();
    let (mut items, mut missing) = (Vec::with_capacity(file.images.len()), Vec::new());
    let mut places = HashMap::with_capacity(file.images.len());
    for (number, image) in file.images.iter().enumerate() {
        let Some(split) = split_of(image, spec.restval, &path)? else {
            continue;
        };
        let id = image.id();
        if let Some(first) = places.insert(id.clone(), number) {
            let place = |number| format!("`images[{number}]` of `{}`", path.display());
            return Err(DatasetError::Duplicate { id, first: place(first), second: place(number) });
        }
        let relative = image.path();
        if !listing.has(&folder, &relative) {
            missing.push(relative.clone().into_owned());
        }
        items.push(Item {
            id,
            source: Source::file(data_dir, &spec.images, &relative),
            split: split.to_owned(),
            captions: image.sentences.iter().map(|sentence| sentence.raw.trim().to_owned()).collect(),
        });
    }
    let what = format!("images named in `{}` are not in `{}`", spec.captions.display(), spec.images.display());
    let own_name = file.dataset.map_or_else(|| "karpathy".to_owned(), Cow::into_owned);
    let name = spec.name.clone().unwrap_or(own_name);
    Ok(Dataset { name, items, notes: notes::list(&what, &missing).into_iter().collect() })
}

/// `None`: left out.
fn split_of(image: &Image<'_>, restval: Restval, path: &Path) -> Result<Option<&'static str>, DatasetError> {
    if image.split == "restval" {
        match restval {
            Restval::Train => {}
            Restval::Val => return Ok(Some(VAL)),
            Restval::LeaveOut => return Ok(None),
        }
    }
    normalise_split(&image.split).map(Some).ok_or_else(|| DatasetError::Split {
        value: image.split.clone().into_owned(),
        id: image.id(),
        path: path.to_owned(),
    })
}
