//! `icecap encode`: one decode and one forward pass fill every column that a recipe asks for.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    time::Instant,
};

use anyhow::{Context, Result};
use icecap_cache::{Cache, ColumnSpec, ColumnWriter, Manifest, Overwrite, RowsDiff, Slot};
use serde::Serialize;
use serde_json::json;

use super::{
    model::Model,
    pipeline::{Embedder, Job, Line, Meter, Prepared, report},
    register::register,
};
use crate::{
    dataset::{self, Dataset, Item},
    encoder::{self, Device, EncoderSession},
    progress::Progress,
    recipe::Recipe,
};

/// What `icecap encode` is told beside the recipe.
#[derive(Debug, Clone)]
pub struct EncodeOptions {
    /// The cache's folder.
    pub cache: PathBuf,
    /// Where the recipe's paths start.
    pub data: PathBuf,
    /// Where the encoder runs.
    pub device: Device,
    /// Threads; all cores where it isn't given.
    pub threads: Option<usize>,
    /// Drop columns of the same name and another key.
    pub overwrite: bool,
    /// Try missing rows again.
    pub retry_missing: bool,
    /// The share of missing rows that is still a success.
    pub max_missing: f64,
    /// ONNX Runtime's library.
    pub onnxruntime: Option<PathBuf>,
    /// Python, for exports.
    pub python: Option<PathBuf>,
}

/// What an encode did.
#[derive(Debug, Serialize)]
pub struct EncodeReport {
    /// Rows of the cache.
    pub rows: u32,
    /// Rows that this run encoded (in at least one column).
    pub encoded: u64,
    /// Seconds of encoding, without the preparation.
    pub seconds: f64,
    /// Rows a second.
    pub images_per_second: f64,
    /// `decode`, `encoder` or `disk`.
    pub bottleneck: &'static str,
    /// The columns.
    pub columns: Vec<ColumnReport>,
}

/// One column of an [`EncodeReport`].
#[derive(Debug, Serialize)]
pub struct ColumnReport {
    /// Its name.
    pub name: String,
    /// The shape of a row.
    pub shape: Vec<usize>,
    /// The element type.
    pub dtype: String,
    /// Bytes of all shards.
    pub bytes: u64,
    /// Rows that are missing, by reason.
    pub missing: BTreeMap<String, u32>,
}

/// More rows are missing than the run may lose.
#[derive(Debug, thiserror::Error)]
#[error(
    "{missing} of {rows} pictures of column `{column}` are missing ({by_reason}), more than the {allowed} that --max-missing allows\nhint: nothing \
     is lost: put the pictures in place and run the same command with --retry-missing, or allow more, for example --max-missing {enough}%"
)]
pub struct TooManyMissing {
    /// The column.
    pub column: String,
    /// Its missing rows.
    pub missing: u32,
    /// The rows that the data set still holds.
    pub rows: u32,
    /// The counts by reason.
    pub by_reason: String,
    /// What was allowed.
    pub allowed: String,
    /// What would be enough, in per cent.
    pub enough: u64,
}

/// Encodes the data set of `recipe` into its columns.
///
/// # Errors
/// Where the data set, the encoder or the cache can't be used, or too many pictures are missing. What was done stays.
pub fn encode(recipe: &Recipe, options: &EncodeOptions, progress: &dyn Progress) -> Result<EncodeReport> {
    let dataset = dataset::load(&recipe.dataset, &options.data)?;
    for note in &dataset.notes {
        progress.line(&format!("note: {note}"));
    }
    encoder::init_runtime(options.onnxruntime.as_deref())?;
    let (device, fallback) = encoder::resolve(options.device);
    fallback.iter().for_each(|line| progress.line(line));
    let model = Model::prepare(&recipe.encoder, &recipe.columns, &options.data, options.python.as_deref(), progress)?;

    let description = json!({ "name": dataset.name, "recipe": recipe.dataset });
    let mut cache = Cache::create_or_open(&options.cache, &description)?;
    let changes = register(&mut cache, &dataset, progress)?;
    tell_changes(&changes, cache.rows().len(), progress);

    let overwrite = if options.overwrite { Overwrite::Yes } else { Overwrite::No };
    let specs: Vec<ColumnSpec> = model
        .compiled
        .outputs()
        .iter()
        .zip(&model.resolved.plan.taps)
        .map(|(output, tap)| {
            ColumnSpec::new(&output.name, model.key(tap), output.dtype, output.row_shape.clone())
                .with_batch_rows(model.resolved.plan.batch as u32)
                .with_provenance(provenance(recipe, &model, device))
                .retrying_missing(options.retry_missing)
        })
        .collect();
    let writers = cache.writers(&specs, overwrite)?;
    let work = Work::new(writers);
    let meter = Meter::default();
    let start = Instant::now();
    if !work.jobs.is_empty() {
        run(&work, &model, &cache, &dataset, device, options, &meter, progress)?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let columns = work.finish(options.max_missing)?;
    for column in &columns {
        cache.adopt_contents(&column.name)?;
    }
    Ok(EncodeReport {
        rows: cache.rows().len(),
        encoded: meter.images(),
        seconds,
        images_per_second: meter.images() as f64 / seconds.max(1e-9),
        bottleneck: meter.bottleneck(),
        columns,
    })
}

fn tell_changes(changes: &RowsDiff, rows: u32, progress: &dyn Progress) {
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

fn provenance(recipe: &Recipe, model: &Model, device: Device) -> serde_json::Value {
    json!({
        "icecap": env!("CARGO_PKG_VERSION"),
        "model": model.path,
        "device": device.to_string(),
        "recipe": recipe.resolved(),
    })
}

/// What is to be done: the writers, and the batches that at least one of them lacks.
struct Work {
    writers: Vec<ColumnWriter>,
    jobs: Vec<Job>,
}

impl Work {
    fn new(writers: Vec<ColumnWriter>) -> Self {
        let mut rows: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for batch in writers.iter().flat_map(ColumnWriter::todo_batches) {
            rows.entry(batch.start).or_default().extend(&batch.rows);
        }
        let jobs = rows
            .into_iter()
            .map(|(start, mut rows)| {
                rows.sort_unstable();
                rows.dedup();
                Job { start, rows }
            })
            .collect();
        Self { writers, jobs }
    }

    fn images(&self) -> u64 {
        self.jobs.iter().map(|job| job.rows.len() as u64).sum()
    }

    /// Publishes the columns, unless one of them misses too many rows: then none is, and all that was done stays.
    fn finish(self, max_missing: f64) -> Result<Vec<ColumnReport>> {
        for writer in &self.writers {
            check_missing(writer, max_missing)?;
        }
        let finish = |writer: ColumnWriter| {
            let name = writer.plan().name.clone();
            let manifest = writer.finish().with_context(|| format!("the column `{name}` was not finished"))?;
            Ok(column_report(&manifest))
        };
        self.writers.into_iter().map(finish).collect()
    }
}

fn check_missing(writer: &ColumnWriter, allowed: f64) -> Result<(), TooManyMissing> {
    let rows = writer.rows_held();
    let by_reason = writer.missing_by_reason();
    let missing: u32 = by_reason.values().sum();
    if f64::from(missing) <= allowed * f64::from(rows) {
        return Ok(());
    }
    let listed: Vec<String> = by_reason.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    Err(TooManyMissing {
        column: writer.plan().name.clone(),
        missing,
        rows,
        by_reason: listed.join(", "),
        allowed: format!("{}%", (allowed * 1000.0).round() / 10.0),
        enough: (100.0 * f64::from(missing) / f64::from(rows)).ceil() as u64,
    })
}

fn column_report(manifest: &Manifest) -> ColumnReport {
    ColumnReport {
        name: manifest.name().to_owned(),
        shape: manifest.row_shape().to_vec(),
        dtype: manifest.dtype().to_string(),
        bytes: manifest.bytes(),
        missing: manifest.missing.by_reason.clone(),
    }
}

#[expect(clippy::too_many_arguments, reason = "the one place where all parts of stage one meet")]
fn run(
    work: &Work,
    model: &Model,
    cache: &Cache,
    dataset: &Dataset,
    device: Device,
    options: &EncodeOptions,
    meter: &Meter,
    progress: &dyn Progress,
) -> Result<()> {
    let by_id: HashMap<&str, &Item> = dataset.items.iter().map(|item| (item.id.as_str(), item)).collect();
    let items: Vec<Option<&Item>> =
        (0..cache.rows().len()).map(|row| by_id.get(&*cache.rows().id(row)).copied()).collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = options.threads.unwrap_or(cores).max(1);
    let (sessions, decoders) = match device {
        Device::Cpu => (threads, None),
        Device::Cuda(_) => (1, Some(threads)),
    };
    let sessions = sessions.min(work.jobs.len()).max(1);
    let embedders = (0..sessions)
        .map(|_| Ok(Box::new(Session::new(work, model, device)?) as Box<dyn Embedder>))
        .collect::<Result<Vec<_>>>()?;
    let line = Line {
        jobs: &work.jobs,
        items: &items,
        preprocess: &model.resolved.preprocess,
        batch: model.resolved.plan.batch,
        meter,
        progress,
    };
    progress.start("encode", Some(work.images()));
    let (done_out, done) = crossbeam_channel::bounded(0);
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| report(meter, progress, &done));
        let outcome = line.run(embedders, decoders);
        drop(done_out);
        outcome
    });
    progress.finish();
    outcome
}

/// One session of the encoder, writing into the shards of all columns.
struct Session<'a> {
    work: &'a Work,
    session: EncoderSession,
    /// Where a column's rows go when they can't go straight into its shard: `batch * row_bytes` each.
    aside: Vec<Vec<u8>>,
}

impl<'a> Session<'a> {
    fn new(work: &'a Work, model: &Model, device: Device) -> Result<Self> {
        let session = EncoderSession::new(&model.compiled, device, 1)?;
        Ok(Self { work, session, aside: vec![Vec::new(); work.writers.len()] })
    }
}

impl Embedder for Session<'_> {
    fn embed(&mut self, prepared: &Prepared) -> Result<()> {
        let batch = self.session.batch();
        let start = prepared.job.start;
        let mut slots = Vec::with_capacity(self.work.writers.len());
        for writer in &self.work.writers {
            slots.push(writer.batch_at(start).map(|batch| writer.slot(batch)).transpose()?);
        }
        let outputs = slots.iter_mut().zip(&mut self.aside).zip(&self.work.writers).map(|((slot, aside), writer)| {
            let straight = slot.as_mut().and_then(Slot::whole_mut);
            straight.unwrap_or_else(|| {
                aside.resize(batch * writer.plan().row_bytes(), 0);
                aside
            })
        });
        let mut outputs: Vec<&mut [u8]> = outputs.collect();
        self.session.run(&prepared.pixels, &mut outputs)?;
        for ((writer, slot), aside) in self.work.writers.iter().zip(slots).zip(&self.aside) {
            let Some(mut slot) = slot else { continue };
            if !slot.is_whole() {
                slot.write_batch(0, aside)?;
            }
            let outcomes: Vec<_> = slot.batch().rows.iter().map(|row| prepared.outcome(*row)).collect();
            writer.commit(slot, &outcomes)?;
        }
        Ok(())
    }
}
