//! `icecap demo`: the whole journey on drawn shapes, with nothing to download: encode, sweep, compare, caption.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use icecap_cache::{Cache, CacheError, Retry};
use serde::Serialize;

use super::{
    caption::{CaptionOptions, caption},
    compare::{CompareOptions, compare},
    encode::{EncodeOptions, EncodeReport, encode},
    evaluate::{EvaluateOptions, Judging, Scored, SearchOptions, evaluate_run},
    run::{Run, RunError},
    sweep::{Board, SweepOptions, TrialReport, sweep},
};
use crate::{
    dataset::{
        self,
        shapes::{Judgement, judge},
    },
    encoder::Devices,
    fetch::FetchOptions,
    metrics::Metric,
    progress::Progress,
    recipe::{Recipe, Sweep},
};

/// The recipe of the demo.
const RECIPE: &str = include_str!("../../pipelines/demo.toml");

/// Its name in messages.
const NAME: &str = "pipelines/demo.toml";

/// Pictures that are captioned one by one.
const SHOWN: usize = 5;

/// The sweep over the demo's decoders.
const SWEEP: &str = include_str!("../../pipelines/demo-sweep.toml");

/// What `icecap demo` is told.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// The demo's folder.
    pub out: PathBuf,
    /// ONNX Runtime's library.
    pub onnxruntime: Option<PathBuf>,
    /// Python, for the export.
    pub python: Option<PathBuf>,
    /// The program that trains a decoder: this one.
    pub program: PathBuf,
}

/// What the demo found.
#[derive(Debug)]
pub struct DemoReport {
    /// Pictures of the test split.
    pub tested: usize,
    /// Stage one.
    pub encoded: EncodeReport,
    /// Each decoder.
    pub trials: Vec<Trial>,
    /// Pictures that no decoder saw, with their captions.
    pub shown: Vec<ShownPicture>,
    /// The demo's cache.
    pub cache: PathBuf,
    /// The report that compares the decoders.
    pub report: PathBuf,
}

/// One decoder of the demo.
#[derive(Debug)]
pub struct Trial {
    /// Its name.
    pub name: String,
    /// The column it reads.
    pub column: String,
    /// The shape of a row of that column.
    pub shape: Vec<usize>,
    /// Its training.
    pub training: TrialReport,
    /// Pictures it was tested on.
    pub tested: usize,
    /// BLEU-4 on the test split.
    pub bleu4: f64,
    /// CIDEr on the test split.
    pub cider: f64,
    /// How much of what it says is there.
    pub judgement: Judgement,
    /// Its folder.
    pub run: PathBuf,
}

/// A picture of the test split.
#[derive(Debug, Serialize)]
pub struct ShownPicture {
    /// The PNG.
    pub path: PathBuf,
    /// One of its true captions.
    pub truth: String,
    /// The decoders' captions, in the order of the trials.
    pub captions: Vec<String>,
}

/// Encodes, trains a sweep of decoders, captions pictures they never saw, compares the decoders.
///
/// # Errors
/// Where a step fails; running it again goes on from there.
pub fn demo(options: &DemoOptions, progress: &dyn Progress, board: &mut dyn Board) -> Result<DemoReport> {
    let recipe = Recipe::parse(RECIPE, NAME, &[])?;
    let cache = options.out.join("cache");
    progress.line("1. encode: drawn scenes through a ResNet-18, two columns in one pass");
    progress.line("   its weights are random (nothing is downloaded): it sees edges and colours, and knows no objects");
    let encoded = match encode(&recipe, &encode_options(options, &cache, false), progress) {
        // The demo's cache is the demo's own: another version of icecap made it, in another way.
        Err(error) if is_of_another_version(&error) => {
            encode(&recipe, &encode_options(options, &cache, true), progress)?
        }
        outcome => outcome?,
    };
    let pictures = write_pictures(&recipe, options)?;
    let mut trials = Vec::new();
    let mut tested = 0;
    let mut shown: Vec<ShownPicture> = pictures
        .iter()
        .map(|(path, truth)| ShownPicture { path: path.clone(), truth: truth.clone(), captions: Vec::new() })
        .collect();
    for training in train_all(&cache, options, progress, board)? {
        progress.line(&format!("   caption: {}", training.name));
        let (trial, captions) = trial(training, &recipe, &cache, &pictures, options, progress)?;
        tested = trial.tested;
        trials.push(trial);
        shown.iter_mut().zip(captions).for_each(|(picture, caption)| picture.captions.push(caption));
    }
    progress.line("3. compare");
    let report = options.out.join("report.html");
    write_report(&trials, &report, options, progress)?;
    Ok(DemoReport { tested, encoded, trials, shown, cache, report })
}

/// Compares the decoders on the test split.
fn write_report(trials: &[Trial], report: &Path, options: &DemoOptions, progress: &dyn Progress) -> Result<()> {
    let folders: Vec<PathBuf> = trials.iter().map(|trial| trial.run.clone()).collect();
    let compare_options = CompareOptions {
        split: dataset::TEST.to_owned(),
        cache: Some(options.out.join("cache")),
        data: Some(options.out.clone()),
        metric: Metric::Cider,
        device: "cpu".to_owned(),
        apart: false,
        page: Some(report.to_owned()),
    };
    compare(&folders, &compare_options, progress)?;
    Ok(())
}

fn is_of_another_version(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(CacheError::KeyDiffers { .. } | CacheError::LayoutDiffers { .. }))
}

fn encode_options(options: &DemoOptions, cache: &Path, overwrite: bool) -> EncodeOptions {
    EncodeOptions {
        cache: cache.to_owned(),
        data: options.out.clone(),
        devices: Devices::default(),
        threads: None,
        overwrite,
        take: dataset::Part::All,
        retry_missing: Retry::No,
        fetch: FetchOptions::default(),
        keep_images: None,
        max_missing: 0.0,
        part: None,
        shard_rows: None,
        onnxruntime: options.onnxruntime.clone(),
        python: options.python.clone(),
    }
}

/// Trains the decoders of the sweep, as many at once as there are cores.
fn train_all(
    cache: &Path,
    options: &DemoOptions,
    progress: &dyn Progress,
    board: &mut dyn Board,
) -> Result<Vec<TrialReport>> {
    let found = Sweep::parse(SWEEP, "pipelines/demo-sweep.toml", &mut |_| Ok((RECIPE.to_owned(), NAME.into())))?;
    progress
        .line(&format!("2. sweep: {} decoders on the cached columns, each a process of its own", found.trials.len()));
    let runs = options.out.join("runs");
    for trial in &found.trials {
        forget_other_columns(&runs.join(&trial.name), cache)?;
    }
    let sweep_options = SweepOptions {
        cache: cache.to_owned(),
        runs,
        data: options.out.clone(),
        device: "cpu".to_owned(),
        jobs: std::thread::available_parallelism().map_or(1, usize::from),
        threads: 1,
        take: dataset::Part::All,
        program: options.program.clone(),
        onnxruntime: options.onnxruntime.clone(),
        python: options.python.clone(),
    };
    let report = sweep(&found, &sweep_options, progress, board)?;
    match report.trials.iter().find_map(|trial| Some((&trial.name, trial.error.as_ref()?))) {
        Some((name, error)) => bail!("the decoder `{name}` could not be trained: {error}"),
        None => Ok(report.trials),
    }
}

/// Removes the run of an earlier demo whose columns another version of icecap made.
fn forget_other_columns(folder: &Path, cache: &Path) -> Result<()> {
    if !Run::exists(folder) {
        return Ok(());
    }
    let fits = Run::open(folder).and_then(|run| run.columns(&Cache::open(cache)?, cache).map(drop));
    match fits {
        Err(error) if error.downcast_ref().is_some_and(RunError::is_of_another_training) => {
            fs::remove_dir_all(folder).with_context(|| format!("`{}` can't be removed", folder.display()))
        }
        fits => fits,
    }
}

fn trial(
    training: TrialReport,
    recipe: &Recipe,
    cache: &Path,
    pictures: &[(PathBuf, String)],
    options: &DemoOptions,
    progress: &dyn Progress,
) -> Result<(Trial, Vec<String>)> {
    let folder = training.run.clone();
    let run = Run::open(&folder)?;
    let evaluate_options = EvaluateOptions {
        split: dataset::TEST.to_owned(),
        cache: Some(cache.to_owned()),
        search: SearchOptions::default(),
        device: "cpu".to_owned(),
        judging: Judging::default(),
    };
    let evaluation = evaluate_run(&run, &evaluate_options, progress)?;
    Scored::from(&evaluation).write(&Scored::path(&folder, dataset::TEST))?;
    let truths = dataset::load(&recipe.dataset, &options.out)?;
    let mut judgement = Judgement::default();
    for (item, result) in truths.split(dataset::TEST).zip(&evaluation.results) {
        judgement += judge(&item.captions, &result.caption);
    }
    let caption_options = CaptionOptions {
        search: SearchOptions::default(),
        attention: false,
        device: "cpu".to_owned(),
        model: Some(recipe.encoder.source(&options.out).path().to_owned()),
        onnxruntime: options.onnxruntime.clone(),
    };
    let paths: Vec<PathBuf> = pictures.iter().map(|(path, _)| path.clone()).collect();
    let captions = caption(&run, &paths, &caption_options, progress)?;
    let column = &run.info.columns[0].input;
    let trial = Trial {
        name: training.name.clone(),
        column: column.name.clone(),
        shape: vec![column.vectors as usize, column.width as usize],
        training,
        tested: evaluation.results.len(),
        bleu4: evaluation.scores.bleu[3],
        cider: evaluation.scores.cider,
        judgement,
        run: folder,
    };
    Ok((trial, captions.into_iter().flatten().map(|captioned| captioned.caption).collect()))
}

/// Writes the first pictures of the test split as PNG, so that they can be looked at and captioned as files.
fn write_pictures(recipe: &Recipe, options: &DemoOptions) -> Result<Vec<(PathBuf, String)>> {
    let folder = options.out.join("pictures");
    fs::create_dir_all(&folder).with_context(|| format!("`{}` can't be made", folder.display()))?;
    let dataset = dataset::load(&recipe.dataset, &options.out)?;
    dataset
        .split(dataset::TEST)
        .take(SHOWN)
        .enumerate()
        .map(|(index, item)| {
            let path = folder.join(format!("{}.png", index + 1));
            fs::write(&path, item.source.read()?)?;
            Ok((path, item.captions.first().cloned().unwrap_or_default()))
        })
        .collect()
}
