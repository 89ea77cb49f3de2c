//! Which images there are, where each is, which split it is in and what its captions say.
//!
//! It must not know pixels, tensors or caches: a [`Dataset`] is a list of items in a stable order, and [`Source::read`] hands
//! out a file's bytes unopened. Paths in a spec are relative to the data folder.
//!
//! Decision: an image that a caption file or a split list names and that is not on disk stays an item. It becomes a missing
//! row with its reason, so that a data set never shrinks silently; a note lists such images as well.

mod coco;
mod conceptual;
mod disk;
mod error;
mod flickr;
mod folder;
mod karpathy;
mod notes;
mod part;
pub mod shapes;
mod split;
mod table;
pub mod webdataset;

use std::io;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use coco::{Coco, CocoPart};
pub use conceptual::Conceptual;
pub use error::DatasetError;
pub use flickr::Flickr;
pub use folder::Folder;
pub use karpathy::{Karpathy, Restval};
pub use part::Part;
pub use shapes::Shapes;
pub use split::{Holdout, TEST, TRAIN, VAL, normalise as normalise_split};
pub use webdataset::WebDataset;

/// `[dataset]` of a recipe: one variant a format, told by the key `format`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "format", rename_all = "kebab-case")]
pub enum DatasetSpec {
    /// Flickr8k or Flickr30k: token file with split lists, or Kaggle's CSV.
    #[serde(alias = "flickr30k")]
    Flickr8k(Flickr),
    /// COCO's `captions_*.json`, one for each split.
    Coco(Coco),
    /// Karpathy's JSON, for COCO and both Flickrs.
    Karpathy(Karpathy),
    /// A folder of images, with or without captions beside them.
    Folder(Folder),
    /// Conceptual Captions: lists of captions and URLs.
    ConceptualCaptions(Conceptual),
    /// WebDataset tars.
    #[serde(rename = "webdataset")]
    WebDataset(WebDataset),
    /// Scenes that icecap draws itself.
    Shapes(Shapes),
}

/// The items of a data set, each image once, in an order that depends on nothing but its files' contents.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// For messages and reports.
    pub name: String,
    /// The images.
    pub items: Vec<Item>,
    /// What the user should know: images named but not there, images left out.
    pub notes: Vec<String>,
}

/// One image.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Unique in the data set, and the same in every run: COCO's image id where there is one, else the file's name.
    pub id: String,
    /// Where its bytes are.
    pub source: Source,
    /// `train`, `val`, `test`, or empty for none.
    pub split: String,
    /// As many as there are, none included.
    pub captions: Vec<String>,
}

/// Where an image's bytes come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// A file.
    File {
        /// Where it is.
        path: PathBuf,
        /// The same as the recipe has it: relative to the data folder, with `/` between the parts.
        relative: String,
    },
    /// A picture in a tar.
    Member(webdataset::Member),
    /// An address on the web, fetched by whoever can.
    Url(Box<str>),
    /// A scene, drawn when it is read.
    Drawn(shapes::Scene),
}

impl Source {
    /// The line that a cache's rows record: the relative path, the URL, or the scene's numbers.
    pub fn describe(&self) -> String {
        match self {
            Self::File { relative, .. } => relative.clone(),
            Self::Member(member) => member.describe(),
            Self::Url(url) => url.to_string(),
            Self::Drawn(scene) => scene.to_string(),
        }
    }

    /// The encoded image: the file's bytes as they are, or the scene as PNG.
    ///
    /// # Errors
    /// Whatever the file system says; `FileTooLarge` beyond 256 MiB, `InvalidInput` for what is no file (a pipe, a folder). A drawn
    /// scene cannot fail, a URL always does: it is not here.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        match self {
            Self::File { path, .. } => disk::picture(path),
            Self::Member(member) => member.read(),
            Self::Url(_) => Err(io::Error::new(io::ErrorKind::Unsupported, "a URL is fetched, not read")),
            Self::Drawn(scene) => Ok(scene.png()),
        }
    }

    /// `name` in the folder `images`, which is relative to `data_dir`.
    fn file(data_dir: &Path, images: &Path, name: &str) -> Self {
        let relative: PathBuf = images.join(name).components().filter(|part| *part != Component::CurDir).collect();
        Self::File { path: data_dir.join(&relative), relative: relative.to_string_lossy().into_owned() }
    }
}

impl Dataset {
    /// Whether its images are on the web.
    pub fn is_remote(&self) -> bool {
        self.items.iter().any(|item| matches!(item.source, Source::Url(_)))
    }

    /// The items of a split, in order.
    pub fn split<'a>(&'a self, split: &'a str) -> impl Iterator<Item = &'a Item> {
        self.items.iter().filter(move |item| item.split == split)
    }
}

/// Reads the data set that `spec` describes. Captions and lists are read whole; no image is opened.
///
/// # Errors
/// [`DatasetError`]: a file that cannot be read, a malformed line or JSON with its place, an id that occurs twice, an
/// unknown split, or nothing found.
pub fn load(spec: &DatasetSpec, data_dir: &Path) -> Result<Dataset, DatasetError> {
    let dataset = match spec {
        DatasetSpec::Flickr8k(spec) => flickr::load(spec, data_dir),
        DatasetSpec::Coco(spec) => coco::load(spec, data_dir),
        DatasetSpec::Karpathy(spec) => karpathy::load(spec, data_dir),
        DatasetSpec::Folder(spec) => folder::load(spec, data_dir),
        DatasetSpec::ConceptualCaptions(spec) => conceptual::load(spec, data_dir),
        DatasetSpec::WebDataset(spec) => webdataset::load(spec, data_dir),
        DatasetSpec::Shapes(spec) => shapes::load(spec),
    }?;
    if dataset.items.is_empty() {
        let (name, notes) = (dataset.name, dataset.notes);
        return Err(DatasetError::Nothing { name, data_dir: data_dir.to_owned(), notes });
    }
    Ok(dataset)
}

#[cfg(test)]
mod tests;
