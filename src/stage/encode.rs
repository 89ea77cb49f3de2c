//! `icecap encode`: one decode and one forward pass fill every column that a recipe asks for.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    time::Instant,
};

use anyhow::Result;
use icecap_cache::{Cache, ColumnSpec, Dtype, Manifest, Overwrite, RowsDiff};
use serde::Serialize;
use serde_json::json;

pub use super::work::TooManyMissing;
use super::{
    model::{Model, Spec},
    pipeline::{Embedder, Line, Meter, report},
    prepare::{Preparer, SecondInput},
    regions::extra_tensors,
    register::register,
    work::Work,
};
use crate::{
    dataset::{self, Dataset, Item},
    encoder::{self, Device},
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

impl ColumnReport {
    fn of(manifest: &Manifest) -> Self {
        Self {
            name: manifest.name().to_owned(),
            shape: manifest.row_shape().to_vec(),
            dtype: manifest.dtype().to_string(),
            bytes: manifest.bytes(),
            missing: manifest.missing.by_reason.clone(),
        }
    }
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
    let mut model = Model::prepare(&Spec::of(recipe, &options.data), options.python.as_deref(), progress)?;

    let description = json!({ "name": dataset.name, "recipe": recipe.dataset });
    let mut cache = Cache::create_or_open(&options.cache, &description)?;
    let changes = register(&mut cache, &dataset, progress)?;
    tell_changes(&changes, cache.rows().len(), progress);
    model.regions.find_rows(cache.rows())?.iter().for_each(|note| progress.line(&format!("note: {note}")));

    let overwrite = if options.overwrite { Overwrite::Yes } else { Overwrite::No };
    let writers = model
        .columns
        .iter()
        .enumerate()
        .map(|(at, column)| {
            let spec = ColumnSpec::new(&column.name, model.key(at), column.dtype, column.row_shape.clone())
                .with_batch_rows(model.resolved.plan.batch as u32)
                .with_provenance(provenance(recipe, &model, device))
                .retrying_missing(options.retry_missing);
            let extras = model.regions.regions(at).map(extra_tensors).into_iter().flatten();
            let spec = extras.fold(spec, |spec, (name, shape)| spec.with_tensor(name, Dtype::F32, shape));
            cache.writer(&spec, overwrite)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let work = Work::new(writers, &model);
    let meter = Meter::default();
    let start = Instant::now();
    if !work.jobs.is_empty() {
        run(&work, &model, &cache, &dataset, device, options, &meter, progress)?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let manifests = work.finish(options.max_missing)?;
    let columns: Vec<ColumnReport> = manifests.iter().map(ColumnReport::of).collect();
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
        .map(|_| Ok(Box::new(work.worker(model, device)?) as Box<dyn Embedder>))
        .collect::<Result<Vec<_>>>()?;
    let looker = model.regions.looker(|column| !work.writers[column].todo_batches().is_empty());
    let preparer = Preparer {
        preprocess: &model.resolved.preprocess,
        views: &model.views,
        batch: model.resolved.plan.batch,
        second: looker.as_ref().map(|looker| looker as &dyn SecondInput),
    };
    let line = Line { jobs: &work.jobs, items: &items, preparer, meter, progress };
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
