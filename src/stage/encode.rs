//! `icecap encode`: one decode and one forward pass fill every column that a recipe asks for.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    time::Instant,
};

use anyhow::Result;
use icecap_cache::{Cache, ColumnSpec, Dtype, Manifest, Overwrite, Part, Retry};
use serde::Serialize;
use serde_json::json;

pub use super::work::TooManyMissing;
use super::{
    model::{Model, Spec},
    pipeline::{Embedder, Line, Meter, report},
    prepare::{Preparer, SecondInput},
    provider::{Provider, tell_others},
    read::{Reader, Web},
    regions::extra_tensors,
    register::{refuse_other_data_set, refuse_smaller_part, register, tell_changes},
    space,
    web::{Streaming, check_keep},
    work::Work,
};
use crate::{
    dataset::{self, Dataset, Item},
    encoder::{self, Device, Devices},
    fetch::FetchOptions,
    progress::Progress,
    recipe::Recipe,
};

/// Batches under way on each GPU: one is computed while the other's pictures and rows travel.
const SESSIONS_A_GPU: usize = 2;

/// What `icecap encode` is told beside the recipe.
#[derive(Debug, Clone)]
pub struct EncodeOptions {
    /// The cache's folder.
    pub cache: PathBuf,
    /// Where the recipe's paths start.
    pub data: PathBuf,
    /// Where the encoder runs.
    pub devices: Devices,
    /// Threads; all cores where it isn't given.
    pub threads: Option<usize>,
    /// Drop columns of the same name and another key.
    pub overwrite: bool,
    /// What is taken of the data set.
    pub take: dataset::Part,
    /// Which missing rows are tried again.
    pub retry_missing: Retry,
    /// How pictures are fetched, where the data set is on the web.
    pub fetch: FetchOptions,
    /// Where fetched pictures are kept as WebDataset tars.
    pub keep_images: Option<PathBuf>,
    /// The share of missing rows that is still a success.
    pub max_missing: f64,
    /// Only this part of each column.
    pub part: Option<Part>,
    /// Rows a shard, where the column isn't there yet; rounded up to whole batches.
    pub shard_rows: Option<u32>,
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
    /// `decode`, `encoder`, `disk` or `network`; `None` where nothing was to encode.
    pub bottleneck: Option<&'static str>,
    /// Seconds of all workers together: decoding, encoding, waiting for files.
    pub busy_seconds: [f64; 3],
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
    /// Its rows, or those of the part that was asked for.
    pub rows: u32,
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
            rows: manifest.column.part_rows(manifest.part),
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
    let mut dataset = dataset::load(&recipe.dataset, &options.data)?;
    check_keep(&dataset, options.keep_images.as_deref())?;
    options.take.take(&mut dataset);
    for note in &dataset.notes {
        progress.line(&format!("note: {note}"));
    }
    encode_dataset(recipe, &dataset, options, progress)
}

/// The same of a data set that is loaded already, which may be a part of the recipe's.
pub(super) fn encode_dataset(
    recipe: &Recipe,
    dataset: &Dataset,
    options: &EncodeOptions,
    progress: &dyn Progress,
) -> Result<EncodeReport> {
    let runtime = encoder::init_runtime(options.onnxruntime.as_deref())?;
    let (devices, missing) = encoder::resolve_all(&options.devices);
    missing.iter().for_each(|line| progress.line(line));
    let mut model = Model::prepare(&Spec::of(recipe, &options.data), options.python.as_deref(), progress)?;
    model.tell_precision(&devices, progress);

    let description = json!({ "name": dataset.name, "recipe": recipe.dataset });
    let mut cache = Cache::create_or_open(&options.cache, &description)?;
    refuse_smaller_part(&cache, dataset, options.take)?;
    refuse_other_data_set(&cache, dataset, &description)?;
    let changes = register(&mut cache, dataset, progress)?;
    tell_changes(&changes, cache.rows().len(), progress);
    model.regions.find_rows(cache.rows())?.iter().for_each(|note| progress.line(&format!("note: {note}")));

    let overwrite = if options.overwrite { Overwrite::Yes } else { Overwrite::No };
    let providers = (0..model.columns.len()).map(|at| Provider::of(&model, at, devices[0], &runtime.version));
    let providers = providers.collect::<Result<Vec<_>, _>>()?;
    let specs: Vec<ColumnSpec> = model
        .columns
        .iter()
        .enumerate()
        .map(|(at, column)| {
            let spec = ColumnSpec::new(&column.name, model.key(at), column.dtype, column.row_shape.clone())
                .with_batch_rows(model.resolved.plan.batch as u32)
                .with_provenance(provenance(recipe, &model, &devices))
                .with_writer(json!(providers[at]))
                .with_part(options.part)
                .with_shard_rows(options.shard_rows)
                .retrying_missing(options.retry_missing);
            let extras = model.regions.regions(at).map(extra_tensors).into_iter().flatten();
            extras.fold(spec, |spec, (name, shape)| spec.with_tensor(name, Dtype::F32, shape))
        })
        .collect();
    let writers = cache.writers(&specs, overwrite)?;
    space::warn(&writers, &options.cache, progress);
    space::tell_idle(&writers, progress);
    tell_others(&writers, &providers, progress);
    let work = Work::new(writers, &model);
    work.tell_done(progress);
    let meter = Meter::new(dataset.is_remote());
    let rows = work.jobs.iter().flat_map(|job| &job.rows).copied();
    let streaming = Streaming::start(dataset, &cache, rows, &options.fetch, options.keep_images.as_deref(), progress)?;
    let start = Instant::now();
    if !work.jobs.is_empty() {
        run(&work, &model, &cache, dataset, streaming.as_ref(), &devices, options, &meter, progress)?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let manifests = work.finish(&cache, options.max_missing)?;
    let columns: Vec<ColumnReport> = manifests.iter().map(ColumnReport::of).collect();
    for column in &columns {
        cache.adopt_contents(&column.name)?;
    }
    Ok(EncodeReport {
        rows: cache.rows().len(),
        encoded: meter.images(),
        seconds,
        images_per_second: meter.images() as f64 / seconds.max(1e-9),
        bottleneck: (meter.images() > 0).then(|| meter.bottleneck()),
        busy_seconds: meter.seconds(),
        columns,
    })
}

fn provenance(recipe: &Recipe, model: &Model, devices: &[Device]) -> serde_json::Value {
    json!({
        "icecap": env!("CARGO_PKG_VERSION"),
        "model": model.path,
        // Of the last who wrote rows; `writers` are all. A row does not say which of several GPUs made it.
        "device": devices[0].to_string(),
        "recipe": recipe.resolved(),
    })
}

#[expect(clippy::too_many_arguments, reason = "the one place where all parts of stage one meet")]
fn run(
    work: &Work,
    model: &Model,
    cache: &Cache,
    dataset: &Dataset,
    streaming: Option<&Streaming>,
    devices: &[Device],
    options: &EncodeOptions,
    meter: &Meter,
    progress: &dyn Progress,
) -> Result<()> {
    let by_id: HashMap<&str, &Item> = dataset.items.iter().map(|item| (item.id.as_str(), item)).collect();
    let items: Vec<Option<&Item>> =
        (0..cache.rows().len()).map(|row| by_id.get(&*cache.rows().id(row)).copied()).collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = options.threads.unwrap_or(cores).max(1);
    let on_gpus = devices != [Device::Cpu];
    let places = if on_gpus { devices.repeat(SESSIONS_A_GPU) } else { vec![Device::Cpu; threads] };
    let embedders = places
        .into_iter()
        .take(work.jobs.len().max(1))
        .map(|device| Ok(Box::new(work.worker(model, device)?) as Box<dyn Embedder>))
        .collect::<Result<Vec<_>>>()?;
    let decoders = on_gpus.then_some(threads);
    let web = streaming.map(|streaming| Web { fetcher: &streaming.fetcher, keeper: streaming.keeper.as_ref() });
    let fetcher = streaming.map(|streaming| &streaming.fetcher);
    let looker = model.regions.looker(|column| !work.writers[column].todo_batches().is_empty());
    let preparer = Preparer {
        preprocess: &model.resolved.preprocess,
        views: &model.views,
        batch: model.resolved.plan.batch,
        second: looker.as_ref().map(|looker| looker as &dyn SecondInput),
    };
    let line = Line { reader: Reader { jobs: &work.jobs, items: &items, web }, preparer, meter, progress };
    progress.start("encode", Some(work.images()));
    let (done_out, done) = crossbeam_channel::bounded(0);
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| report(meter, fetcher, progress, &done));
        let outcome = line.run(embedders, decoders);
        drop(done_out);
        outcome
    });
    progress.finish();
    outcome
}
