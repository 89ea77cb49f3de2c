//! What a data set on the web needs beside the others: somebody who fetches, and a place for pictures that are to be kept.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::Result;
use icecap_cache::{Cache, Reason};

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

/// Refuses `--keep-images` for a data set that isn't fetched.
pub(super) fn check_keep(dataset: &Dataset, keep_images: Option<&Path>) -> Result<(), NothingToKeep> {
    match keep_images {
        Some(folder) if !dataset.is_remote() => {
            Err(NothingToKeep { folder: folder.to_owned(), dataset: dataset.name.clone() })
        }
        _ => Ok(()),
    }
}

/// What can be done about rows that are missing for these reasons.
pub(super) fn remedy(by_reason: &BTreeMap<String, u32>) -> &'static str {
    let reasons = || by_reason.keys().filter_map(|name| name.parse::<Reason>().ok());
    if reasons().any(|reason| reason == Reason::Refused) {
        return "mend the list where its addresses are none; fetch from your own network with --allow-private and --retry-missing=all";
    }
    let of_web = |reason| matches!(reason, Reason::Http(_) | Reason::Dns | Reason::Timeout | Reason::Connection);
    if reasons().any(of_web) {
        return "run the same command with --retry-missing to try again what may have passed";
    }
    "put the pictures in place and run the same command with --retry-missing"
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
            return Ok(None);
        }
        let fetcher = Fetcher::new(options)?;
        fetcher.note().iter().for_each(|note| progress.line(&format!("note: {note}")));
        let keeper = keep_images.map(|folder| Keeper::open(folder, &cache.rows().id(0), rows)).transpose()?;
        Ok(Some(Self { fetcher, keeper }))
    }
}
