//! COCO's `captions_*.json`: one file and one folder of images for each split.
//!
//! Decision: the JSON is read into types that borrow from the file's bytes, never into a tree of values: `train2017` is 91 MB
//! of text with 118,287 images and 591,753 captions.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::disk::{self, Listing};
use super::{Dataset, DatasetError, Holdout, Item, Source, TEST, TRAIN, VAL, notes};

/// `format = "coco"`.
///
/// ```toml
/// format = "coco"
/// train = { captions = "annotations/captions_train2017.json", images = "train2017" }
/// val = { captions = "annotations/captions_val2017.json", images = "val2017" }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coco {
    /// For messages and reports; `coco` without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The training images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train: Option<CocoPart>,
    /// The validation images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val: Option<CocoPart>,
    /// The test images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<CocoPart>,
    /// Shares of the training images that are held out, where there are no others to look at: `{ val = 0.02 }`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holdout: Option<Holdout>,
}

/// One split of a COCO data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CocoPart {
    /// `captions_*.json`.
    pub captions: PathBuf,
    /// The folder that `file_name` is in.
    pub images: PathBuf,
}

#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow)]
    images: Vec<Image<'a>>,
    #[serde(borrow)]
    annotations: Vec<Annotation<'a>>,
}

#[derive(Deserialize)]
struct Image<'a> {
    id: u64,
    #[serde(borrow)]
    file_name: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Annotation<'a> {
    image_id: u64,
    #[serde(borrow)]
    caption: Cow<'a, str>,
}

pub(super) fn load(spec: &Coco, data_dir: &Path) -> Result<Dataset, DatasetError> {
    let parts: Vec<_> = [(TRAIN, &spec.train), (VAL, &spec.val), (TEST, &spec.test)]
        .into_iter()
        .filter_map(|(split, part)| Some((split, part.as_ref()?)))
        .collect();
    if parts.is_empty() {
        let hint = "give at least one of train, val and test, each { captions = FILE, images = FOLDER }";
        return Err(DatasetError::Setting { key: "format", value: "coco".to_owned(), hint });
    }
    Holdout::check(spec.holdout)?;
    let name = spec.name.clone().unwrap_or_else(|| "coco".to_owned());
    let mut loading = Loading {
        dataset: Dataset { name, items: Vec::new(), notes: Vec::new() },
        by_id: HashMap::new(),
        listing: Listing::default(),
        holdout: spec.holdout,
    };
    for (split, part) in parts {
        loading.add(split, part, data_dir)?;
    }
    Ok(loading.dataset)
}

struct Loading<'a> {
    dataset: Dataset,
    /// Position in `dataset.items`, and the file that the image is from.
    by_id: HashMap<u64, (usize, &'a Path)>,
    listing: Listing,
    holdout: Option<Holdout>,
}

impl<'s> Loading<'s> {
    fn add(&mut self, split: &str, part: &'s CocoPart, data_dir: &Path) -> Result<(), DatasetError> {
        let folder = data_dir.join(&part.images);
        disk::require_folder(&folder)?;
        let path = data_dir.join(&part.captions);
        let bytes = disk::read(&path)?;
        let file: File<'_> = serde_json::from_slice(&bytes).map_err(|source| DatasetError::Json {
            path,
            expected: "COCO captions",
            source,
        })?;
        let mut missing = Vec::new();
        for image in &file.images {
            if !self.listing.has(&folder, &image.file_name) {
                missing.push(image.file_name.as_ref());
            }
            self.add_image(split, part, data_dir, image)?;
        }
        let unknown = self.add_captions(&part.captions, file.annotations);
        let (captions, images) = (part.captions.display(), part.images.display());
        let what = format!("images named in `{captions}` are not in `{images}`");
        self.dataset.notes.extend(notes::list(&what, &missing));
        let what = format!("captions in `{captions}` are of images that it does not list, and are left out");
        self.dataset.notes.extend(notes::list(&what, &unknown));
        Ok(())
    }

    fn add_image(
        &mut self,
        split: &str,
        part: &'s CocoPart,
        data_dir: &Path,
        image: &Image<'_>,
    ) -> Result<(), DatasetError> {
        let position = self.dataset.items.len();
        if let Some((_, first)) = self.by_id.insert(image.id, (position, &part.captions)) {
            return Err(DatasetError::Duplicate {
                id: image.id.to_string(),
                first: format!("`{}`", first.display()),
                second: format!("`{}`", part.captions.display()),
            });
        }
        let id = image.id.to_string();
        let split = if split == TRAIN { Holdout::assign(self.holdout, &id) } else { split };
        self.dataset.items.push(Item {
            id,
            source: Source::file(data_dir, &part.images, &image.file_name),
            split: split.to_owned(),
            captions: Vec::new(),
        });
        Ok(())
    }

    /// Returns the ids of captions whose image this file does not list.
    fn add_captions(&mut self, file: &Path, annotations: Vec<Annotation<'_>>) -> Vec<String> {
        let mut unknown = Vec::new();
        for annotation in annotations {
            match self.by_id.get(&annotation.image_id) {
                Some(&(position, from)) if from == file => {
                    self.dataset.items[position].captions.push(annotation.caption.trim().to_owned());
                }
                _ => unknown.push(annotation.image_id.to_string()),
            }
        }
        unknown
    }
}
