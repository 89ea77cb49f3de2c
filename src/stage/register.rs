//! The data set's images become the cache's rows, each once.
//!
//! No picture is read here that the encoder will read anyway: a new row gets its content hash from the encoding. Only a file
//! whose size or time is not what the cache knows is read, on all cores, to tell whether the picture is another.

use std::{fs, time::UNIX_EPOCH};

use anyhow::Result;
use icecap_cache::{Cache, RowRecord, RowsDiff, content_hash};
use rayon::prelude::*;

use crate::{
    dataset::{Dataset, Item, Source},
    progress::Progress,
};

/// Brings the rows of `cache` in line with `dataset`.
pub(super) fn register(cache: &mut Cache, dataset: &Dataset, progress: &dyn Progress) -> Result<RowsDiff> {
    progress.start("rows", Some(dataset.items.len() as u64));
    let rows = cache.rows();
    let records: Vec<RowRecord> = dataset
        .items
        .par_iter()
        .map(|item| {
            let mut record = record(item);
            if rows.needs_content(&record) {
                record.content = item.source.read().ok().map(|bytes| hex(&content_hash(&bytes)));
            }
            progress.advance(1);
            record
        })
        .collect();
    progress.finish();
    Ok(cache.sync_rows(records)?)
}

pub(super) fn record(item: &Item) -> RowRecord {
    let metadata = match &item.source {
        Source::File { path, .. } => fs::metadata(path).ok(),
        Source::Drawn(_) => None,
    };
    RowRecord {
        id: item.id.clone(),
        source: item.source.describe(),
        split: item.split.clone(),
        captions: item.captions.clone(),
        content: None,
        bytes: metadata.as_ref().map(fs::Metadata::len),
        modified_ns: metadata.as_ref().and_then(modified_ns),
    }
}

fn modified_ns(metadata: &fs::Metadata) -> Option<u64> {
    let since = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok()
}

fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}
