//! `icecap plan`: what an encode would do, before it does it: rows, columns, bytes, what is there already, and the time.
//!
//! The columns' shapes and keys, and the rates, come from encoding a few images for real ([`super::probe`]): nothing is predicted
//! that can be had by trying.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use icecap_cache::{Cache, CacheError, ColumnInfo, ColumnPlan, ColumnState, TensorSpec, free_bytes};
use rayon::prelude::*;
use serde::Serialize;

use super::{
    probe::{ProbeOptions, Probed, probe},
    register::is_touched,
    space::too_small,
};
use crate::{
    dataset::{self, Dataset, Item, Part, Source},
    encoder::{Device, resolve_all},
    progress::Progress,
    recipe::Recipe,
};

/// Images that are tried, where it isn't said.
pub const PROBE_IMAGES: usize = 64;
/// Bytes of a row's content hash and status.
const ROW_EXTRA: u64 = 17;

/// What an encode would do.
#[derive(Debug, Serialize)]
pub struct PlanReport {
    /// The data set's name.
    pub dataset: String,
    /// Images by split, those in none under an empty name.
    pub splits: BTreeMap<String, usize>,
    /// All images.
    pub images: usize,
    /// All captions.
    pub captions: usize,
    /// Images that are named and not there: they will be missing rows.
    pub absent: usize,
    /// Rows that the cache has already.
    pub known: usize,
    /// Rows that the cache lacks.
    pub new: usize,
    /// Rows whose file has another size or time than the cache knows: they are read to see whether they changed.
    pub touched: usize,
    /// The columns.
    pub columns: Vec<PlannedColumn>,
    /// Rows that at least one column lacks.
    pub to_encode: usize,
    /// Bytes that will be written.
    pub bytes_needed: u64,
    /// Bytes free on the cache's disk.
    pub bytes_free: Option<u64>,
    /// What to say where it does not fit.
    pub too_small: Option<String>,
    /// What was tried.
    pub probe: ProbeReport,
    /// Rows that will be missing, where the rest is like what was tried: those absent among them.
    pub expected_missing: usize,
    /// Seconds that the encode will take.
    pub seconds: Option<f64>,
}

/// One column of a plan.
#[derive(Debug, Serialize)]
pub struct PlannedColumn {
    /// Its name.
    pub name: String,
    /// The first 8 digits of its key.
    pub key: String,
    /// The shape of a row.
    pub shape: Vec<usize>,
    /// The element type.
    pub dtype: String,
    /// Bytes of a row, all tensors together.
    pub row_bytes: u64,
    /// Bytes of all rows.
    pub bytes: u64,
    /// Shards of it.
    pub shards: usize,
    /// What is there.
    pub state: String,
    /// Whether a column of the name and another key is in the way.
    pub in_the_way: bool,
    /// Rows to encode.
    pub to_encode: usize,
}

/// What the probe found.
#[derive(Debug, Serialize)]
pub struct ProbeReport {
    /// Images tried.
    pub images: usize,
    /// Those of them that have no embedding, by reason.
    pub missing: BTreeMap<String, u32>,
    /// Images a second if all cores decoded only.
    pub decode_per_second: f64,
    /// Images a second if the encoder never waited.
    pub encoder_per_second: f64,
    /// Images a second of both together.
    pub images_per_second: f64,
    /// `decode` or `encoder`; none where no image could be encoded.
    pub bottleneck: Option<&'static str>,
    /// Seconds that fetching all of them at once, decoding and encoding them took, where they are on the web.
    pub network_seconds: Option<f64>,
}

/// Plans an encode of what `take` says of `recipe`'s data set into the cache `folder`, which need not exist, and which stays as it is.
///
/// # Errors
/// Where the data set, the encoder or the cache can't be used.
pub fn plan(
    recipe: &Recipe,
    folder: &Path,
    take: Part,
    images: usize,
    options: &ProbeOptions,
    progress: &dyn Progress,
) -> Result<PlanReport> {
    let mut dataset = dataset::load(&recipe.dataset, &options.data)?;
    take.take(&mut dataset);
    dataset.notes.iter().for_each(|note| progress.line(&format!("note: {note}")));
    let cache = match Cache::open(folder) {
        Err(CacheError::NotACache { .. }) => None,
        cache => Some(cache?),
    };
    let here: Vec<bool> = dataset.items.par_iter().map(is_here).collect();
    let tried = sample(&dataset, &here, images.max(1));
    let probed = probe(recipe, tried, options, progress)?;
    let rows = RowCounts::of(&dataset, cache.as_ref());
    let columns = columns(&probed, cache.as_ref(), &rows)?;
    let to_encode = columns.iter().map(|column| column.to_encode).max().unwrap_or(0);
    let bytes_needed = columns.iter().map(|column| column.to_encode as u64 * column.row_bytes).sum();
    let bytes_free = free_bytes(folder);
    let probe = rates(&probed, dataset.is_remote(), options);
    let absent = here.iter().filter(|here| !**here).count();
    let lost = probe.missing.values().sum::<u32>() as f64 / probe.images.max(1) as f64;
    let expected_missing = (absent as f64 + to_encode.saturating_sub(absent) as f64 * lost).round() as usize;
    let mut splits = BTreeMap::new();
    dataset.items.iter().for_each(|item| *splits.entry(item.split.clone()).or_default() += 1);
    Ok(PlanReport {
        images: dataset.items.len(),
        captions: dataset.items.iter().map(|item| item.captions.len()).sum(),
        absent,
        expected_missing: expected_missing.min(to_encode),
        splits,
        known: rows.known,
        new: rows.new,
        touched: rows.touched,
        to_encode,
        bytes_needed,
        bytes_free,
        too_small: too_small(folder, bytes_needed, bytes_free),
        seconds: (probe.images_per_second > 0.0).then(|| to_encode as f64 / probe.images_per_second),
        probe,
        columns,
        dataset: dataset.name,
    })
}

/// Whether an image is where it should be, as far as a look at its name tells.
fn is_here(item: &Item) -> bool {
    match &item.source {
        Source::File { path, .. } => path.is_file(),
        _ => true,
    }
}

/// `count` of the images that are there, evenly.
fn sample(dataset: &Dataset, here: &[bool], count: usize) -> Vec<Item> {
    let items: Vec<&Item> = dataset.items.iter().zip(here).filter(|(_, here)| **here).map(|(item, _)| item).collect();
    let count = count.min(items.len());
    (0..count).map(|at| items[at * items.len() / count].clone()).collect()
}

/// The data set against the row index.
struct RowCounts {
    known: usize,
    new: usize,
    touched: usize,
}

impl RowCounts {
    fn of(dataset: &Dataset, cache: Option<&Cache>) -> Self {
        let Some(cache) = cache else {
            return Self { known: 0, new: dataset.items.len(), touched: 0 };
        };
        let rows = cache.rows();
        let new = dataset.items.par_iter().filter(|item| rows.find(&item.id).is_none()).count();
        let touched = dataset.items.par_iter().filter(|item| is_touched(rows, item)).count();
        Self { known: rows.len() as usize, new, touched }
    }

    /// Rows that a column will have.
    fn all(&self) -> usize {
        self.known + self.new
    }
}

fn columns(probed: &Probed, cache: Option<&Cache>, rows: &RowCounts) -> Result<Vec<PlannedColumn>> {
    let there = cache.map_or_else(|| Ok(Vec::new()), Cache::columns)?;
    let mut planned = Vec::new();
    // In the recipe's order.
    for column in &probed.report.columns {
        let reader = probed.cache.column(&column.name)?;
        planned.push(planned_column(reader.plan(), &there, rows));
    }
    Ok(planned)
}

fn planned_column(plan: &ColumnPlan, there: &[ColumnInfo], rows: &RowCounts) -> PlannedColumn {
    let (state, in_the_way, to_encode) = state(plan, there, rows);
    let row_bytes = plan.tensors.iter().map(TensorSpec::row_bytes).sum::<usize>() as u64 + ROW_EXTRA;
    PlannedColumn {
        name: plan.name.clone(),
        key: plan.key_digest.chars().take(8).collect(),
        shape: plan.row_shape().to_vec(),
        dtype: plan.dtype().to_string(),
        row_bytes,
        bytes: row_bytes * rows.all() as u64,
        shards: rows.all().div_ceil(plan.rows_per_shard as usize),
        state,
        in_the_way,
        to_encode,
    }
}

/// What there is of a column, whether it is in the way, and how many rows it lacks.
fn state(plan: &ColumnPlan, there: &[ColumnInfo], rows: &RowCounts) -> (String, bool, usize) {
    let all = rows.all();
    let Some(info) = there.iter().find(|info| info.name == plan.name) else {
        return ("new".to_owned(), false, all);
    };
    let lacks = |done: u32| all.saturating_sub(done as usize);
    let (found, state, to_encode) = match &info.state {
        ColumnState::Finished(manifest) => {
            (&manifest.column, finished(lacks(manifest.rows()), rows), lacks(manifest.rows()))
        }
        ColumnState::Part(manifest) => {
            let done = manifest.column.part_rows(manifest.part);
            let part = manifest.part.map_or_else(String::new, |part| part.to_string());
            (&manifest.column, part, lacks(done))
        }
        ColumnState::Unfinished(unfinished) => {
            let state = format!("{} of {} rows", unfinished.rows_done, unfinished.rows);
            (&unfinished.column, state, lacks(unfinished.rows_done))
        }
        ColumnState::Extending(_, unfinished) => {
            let state = format!("{} of {} rows anew", unfinished.rows_done, unfinished.rows);
            (&unfinished.column, state, lacks(unfinished.rows_done))
        }
        ColumnState::Damaged(error) => return (format!("damaged: {error}"), true, all),
    };
    if found.key_digest == plan.key_digest {
        return (state, false, to_encode);
    }
    let fields: Vec<String> = plan.key.diff(&found.key).iter().map(|field| field.field.clone()).collect();
    (format!("another key ({})", fields.join(", ")), true, all)
}

fn finished(lacking: usize, rows: &RowCounts) -> String {
    match (lacking, rows.touched) {
        (0, 0) => "finished".to_owned(),
        (0, touched) => format!("finished, {touched} to look at"),
        (lacking, _) => format!("finished, {lacking} new"),
    }
}

/// Rates of the whole from the workers' time: what one image costs one core.
fn rates(probed: &Probed, remote: bool, options: &ProbeOptions) -> ProbeReport {
    let images = probed.report.encoded as usize;
    let missing = probed.report.columns.first().map(|column| column.missing.clone()).unwrap_or_default();
    // A picture that never came cost nothing.
    let present = images.saturating_sub(missing.values().sum::<u32>() as usize);
    let cost = |seconds: f64| if present > 0 { seconds / present as f64 } else { 0.0 };
    let [decode, encoder, _] = probed.report.busy_seconds.map(cost);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let hands = options.threads.unwrap_or(cores).max(1) as f64;
    let rate = |hands: f64, seconds: f64| if seconds > 0.0 { hands / seconds } else { 0.0 };
    let decode_per_second = rate(hands, decode);
    // On the CPU the same cores do both in turn; a GPU encodes while they decode.
    let (encoder_per_second, images_per_second) = match resolve_all(&options.devices).0.as_slice() {
        [Device::Cpu, ..] | [] => (rate(hands, encoder), rate(hands, decode + encoder)),
        gpus => {
            let encoder = rate(gpus.len() as f64, encoder);
            (encoder, rate(hands, decode).min(encoder))
        }
    };
    ProbeReport {
        images,
        missing,
        decode_per_second,
        encoder_per_second,
        images_per_second,
        bottleneck: (present > 0).then_some(if decode_per_second < encoder_per_second { "decode" } else { "encoder" }),
        network_seconds: remote.then_some(probed.report.seconds),
    }
}
