//! The data set's images become the cache's rows, each once.
//!
//! No picture is read here that the encoder will read anyway: a new row gets its content hash from the encoding. Only a file
//! whose size or time is not what the cache knows is read, on all cores, to tell whether the picture is another.

use std::{collections::HashSet, fs, path::PathBuf, time::UNIX_EPOCH};

use anyhow::Result;
use icecap_cache::{Cache, RowRecord, Rows, RowsDiff, content_hash};
use rayon::prelude::*;
use serde_json::Value;

use crate::{
    dataset::{Dataset, Item, Part, Source},
    progress::Progress,
};

/// Brings the rows of `cache` in line with `dataset`.
pub(super) fn register(cache: &mut Cache, dataset: &Dataset, progress: &dyn Progress) -> Result<RowsDiff> {
    progress.start("rows", Some(dataset.items.len() as u64));
    let rows = cache.rows();
    let states: Vec<State> = dataset
        .items
        .par_iter()
        .map(|item| {
            let mut state = State::of(item);
            if needs_reading(rows, item, &state) {
                match item.source.read() {
                    Ok(bytes) => state.content = Some(hex(&content_hash(&bytes))),
                    Err(_) => state.keep_known(item, rows),
                }
            }
            progress.advance(1);
            state
        })
        .collect();
    progress.finish();
    // A record at a time: those of 3.3 million images would be gigabytes.
    Ok(cache.sync_rows(dataset.items.iter().zip(&states).map(|(item, state)| record(item, state)))?)
}

/// Says what an encode or an import found changed.
pub(super) fn tell_changes(changes: &RowsDiff, rows: u32, progress: &dyn Progress) {
    if changes.doubted {
        progress.line(
            "note: rows.jsonl is not as icecap wrote it: ids, splits and captions are taken from the data set anew",
        );
    }
    let mut parts = Vec::new();
    for (rows_of, what) in [
        (&changes.added, "new"),
        (&changes.changed, "changed"),
        (&changes.recaptioned, "with other captions or another split"),
        (&changes.gone, "no longer in the data set (kept)"),
    ] {
        if !rows_of.is_empty() {
            parts.push(format!("{} {what}", rows_of.len()));
        }
    }
    if !parts.is_empty() {
        progress.line(&format!("{rows} rows: {}", parts.join(", ")));
    }
}

/// What tells whether an image's file is the one that the cache knows.
#[derive(Default)]
struct State {
    bytes: Option<u64>,
    modified_ns: Option<u64>,
    content: Option<String>,
    /// Where the cache knows it, when it can't be read now.
    source: Option<String>,
}

impl State {
    /// A picture that was encoded once and can't be read now: its row stays what it was, embeddings included.
    fn keep_known(&mut self, item: &Item, rows: &Rows) {
        let Some(row) = rows.find(&item.id) else { return };
        let RowRecord { content, bytes, modified_ns, source, .. } = rows.get(row);
        *self = Self { bytes, modified_ns, content, source: Some(source) };
    }

    fn of(item: &Item) -> Self {
        match &item.source {
            Source::File { path, .. } => {
                let metadata = fs::metadata(path).ok();
                let modified_ns = metadata.as_ref().and_then(modified_ns);
                Self { bytes: metadata.map(|metadata| metadata.len()), modified_ns, ..Self::default() }
            }
            Source::Member(member) => {
                Self { bytes: Some(member.bytes()), modified_ns: Some(member.modified_ns()), ..Self::default() }
            }
            Source::Url(_) | Source::Drawn(_) => Self::default(),
        }
    }
}

/// Whether the file may be another than the one that the cache knows, so that only its bytes can tell.
fn needs_reading(rows: &Rows, item: &Item, state: &State) -> bool {
    rows.needs_content(&record(item, state))
}

/// Whether the picture was touched since the cache saw it.
pub(super) fn is_touched(rows: &Rows, item: &Item) -> bool {
    needs_reading(rows, item, &State::of(item))
}

fn record(item: &Item, state: &State) -> RowRecord {
    RowRecord {
        id: item.id.clone(),
        source: state.source.clone().unwrap_or_else(|| item.source.describe()),
        split: item.split.clone(),
        captions: item.captions.clone(),
        content: state.content.clone(),
        bytes: state.bytes,
        modified_ns: state.modified_ns,
    }
}

fn modified_ns(metadata: &fs::Metadata) -> Option<u64> {
    let since = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok()
}

fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The cache is of another data set.
#[derive(Debug, thiserror::Error)]
#[error(
    "the cache `{}` holds `{known}`, and `{given}` has {shared} of its {held} images\nhint: give `{given}` a cache of its own", cache.display()
)]
pub struct OtherDataSet {
    cache: PathBuf,
    known: String,
    given: String,
    shared: usize,
    held: usize,
}

/// Refuses a data set that has none of the cache's images, and one of another name or format that has less than half of them: that
/// is a mistake, and would mark the others as gone. A data set that shrank, or the same images in another format, is none.
pub(super) fn refuse_other_data_set(cache: &Cache, dataset: &Dataset, description: &Value) -> Result<(), OtherDataSet> {
    let known = cache.dataset();
    let said = |value: &Value| (value["name"].clone(), value["recipe"]["format"].clone());
    if !known["name"].is_string() {
        return Ok(());
    }
    let same = said(known) == said(description);
    let ids: HashSet<&str> = dataset.items.iter().map(|item| item.id.as_str()).collect();
    let rows = cache.rows();
    let (mut held, mut shared) = (0, 0);
    for row in (0..rows.len()).filter(|row| !rows.is_gone(*row)) {
        held += 1;
        shared += usize::from(ids.contains(&*rows.id(row)));
    }
    if if same { shared > 0 || held == 0 } else { 2 * shared >= held } {
        return Ok(());
    }
    let name = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
    let (known, given) = (name(known), name(description));
    Err(OtherDataSet { cache: cache.folder().to_owned(), known, given, shared, held })
}

/// A part of the data set that the cache holds more of.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{option}` leaves out {left_out} images that the cache `{}` holds\nhint: a cache only grows: take at least what it has, or \
     give the part a cache of its own", cache.display()
)]
pub struct SmallerPart {
    option: &'static str,
    left_out: usize,
    cache: PathBuf,
}

/// Refuses to take rows out of a cache because of `--limit` or `--sample`: they would lose their split.
pub(super) fn refuse_smaller_part(cache: &Cache, dataset: &Dataset, part: Part) -> Result<(), SmallerPart> {
    let option = match part {
        Part::All => return Ok(()),
        Part::First(_) => "--limit",
        Part::Sample { .. } => "--sample",
    };
    let ids: HashSet<&str> = dataset.items.iter().map(|item| item.id.as_str()).collect();
    let rows = cache.rows();
    let left_out = (0..rows.len()).filter(|row| !rows.is_gone(*row) && !ids.contains(&*rows.id(*row))).count();
    if left_out == 0 { Ok(()) } else { Err(SmallerPart { option, left_out, cache: cache.folder().to_owned() }) }
}
