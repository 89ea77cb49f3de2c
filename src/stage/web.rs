//! What a data set on the web needs beside the others: somebody who fetches, and a place for pictures that are to be kept.

use std::path::{Path, PathBuf};

use anyhow::Result;
use icecap_cache::Cache;

use crate::{
    dataset::{Dataset, webdataset::Keeper},
    fetch::{FetchOptions, Fetcher},
    progress::Progress,
};

/// Pictures can only be kept where they are fetched.
#[derive(Debug, thiserror::Error)]
#[error(
    "`--keep-images {}` has nothing to keep: the images of `{dataset}` are on this machine already\nhint: leave it out", folder.display()
)]
pub struct NothingToKeep {
    folder: PathBuf,
    dataset: String,
}

/// The web, opened.
pub(super) struct Streaming {
    pub fetcher: Fetcher,
    pub keeper: Option<Keeper>,
}

impl Streaming {
    /// Starts fetching for `dataset`; `None` where it isn't on the web. `rows` are those that are to be fetched.
    pub(super) fn start(
        dataset: &Dataset,
        cache: &Cache,
        rows: impl Iterator<Item = u32>,
        options: &FetchOptions,
        keep_images: Option<&Path>,
        progress: &dyn Progress,
    ) -> Result<Option<Self>> {
        if !dataset.is_remote() {
            return match keep_images {
                Some(folder) => {
                    Err(NothingToKeep { folder: folder.to_owned(), dataset: dataset.name.clone() }.into())
                }
                None => Ok(None),
            };
        }
        let fetcher = Fetcher::new(options)?;
        fetcher.note().iter().for_each(|note| progress.line(&format!("note: {note}")));
        let keeper = keep_images.map(|folder| Keeper::open(folder, &cache.rows().id(0), rows)).transpose()?;
        Ok(Some(Self { fetcher, keeper }))
    }
}
