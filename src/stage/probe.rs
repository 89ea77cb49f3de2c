//! Encoding a few images of a data set for real, into a cache that is thrown away: for a plan's rates, and for comparing rows with those kept.
//!
//! It goes through the whole of stage one, so that whatever a recipe asks for is probed as it will be run.

use std::path::PathBuf;

use anyhow::{Context, Result};
use icecap_cache::{Cache, Retry};
use tempfile::TempDir;

use super::encode::{EncodeOptions, EncodeReport, encode_dataset};
use crate::{
    dataset::{self, Dataset, Item},
    encoder::{self, Devices},
    fetch::FetchOptions,
    progress::{Progress, Silent},
    recipe::Recipe,
};

/// What a probe is run with.
#[derive(Debug, Clone)]
pub struct ProbeOptions {
    /// Where the recipe's paths start.
    pub data: PathBuf,
    /// Where the encoder runs.
    pub devices: Devices,
    /// Threads; all cores where it isn't given.
    pub threads: Option<usize>,
    /// ONNX Runtime's library.
    pub onnxruntime: Option<PathBuf>,
    /// Python, for exports.
    pub python: Option<PathBuf>,
    /// How pictures are fetched, where the data set is on the web.
    pub fetch: FetchOptions,
}

/// A few images, encoded.
pub(super) struct Probed {
    pub report: EncodeReport,
    pub cache: Cache,
    _folder: TempDir,
}

/// Encodes `items` with `recipe`.
pub(super) fn probe(
    recipe: &Recipe,
    items: Vec<Item>,
    options: &ProbeOptions,
    progress: &dyn Progress,
) -> Result<Probed> {
    encoder::init_runtime(options.onnxruntime.as_deref())?;
    encoder::resolve_all(&options.devices).1.iter().for_each(|line| progress.line(line));
    let folder = tempfile::tempdir().context("no temporary folder can be made")?;
    let dataset = Dataset { name: "probe".to_owned(), items, notes: Vec::new() };
    let options = EncodeOptions {
        cache: folder.path().join("cache"),
        data: options.data.clone(),
        devices: options.devices.clone(),
        threads: options.threads,
        overwrite: false,
        retry_missing: Retry::No,
        take: dataset::Part::All,
        fetch: options.fetch.clone(),
        keep_images: None,
        max_missing: 1.0,
        part: None,
        shard_rows: None,
        onnxruntime: options.onnxruntime.clone(),
        python: options.python.clone(),
    };
    progress.start("probe", None);
    let report = encode_dataset(recipe, &dataset, &options, &Silent);
    progress.finish();
    let (report, cache) = (report?, Cache::open(&options.cache)?);
    Ok(Probed { report, cache, _folder: folder })
}
