//! `icecap demo`: the whole journey on drawn shapes, with nothing to download.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use icecap_cache::{CacheError, Retry};
use serde::Serialize;

use super::{
    caption::{CaptionOptions, caption},
    encode::{EncodeOptions, EncodeReport, encode},
    evaluate::{EvaluateOptions, Judging, SearchOptions, evaluate_run},
    run::{Run, RunError},
    train::{TrainOptions, TrainReport, train},
};
use crate::{
    dataset::{
        self,
        shapes::{Judgement, judge},
    },
    encoder::Devices,
    fetch::FetchOptions,
    progress::Progress,
    recipe::Recipe,
};

/// The recipe of the demo.
const RECIPE: &str = include_str!("../../pipelines/demo.toml");

/// Its name in messages.
const NAME: &str = "pipelines/demo.toml";

/// Pictures that are captioned one by one.
const SHOWN: usize = 5;

/// The decoders of the demo: a name, and what differs from the recipe.
const DECODERS: [(&str, &[&str]); 2] = [
    (
        "lstm-pooled",
        &[
            "decoder={ kind = \"lstm\", columns = [\"pooled\"], standardize = true, embedding = 256, hidden = 256, dropout = 0.0 }",
        ],
    ),
    ("attention-grid", &[]),
];

/// What `icecap demo` is told.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// The demo's folder.
    pub out: PathBuf,
    /// ONNX Runtime's library.
    pub onnxruntime: Option<PathBuf>,
    /// Python, for the export.
    pub python: Option<PathBuf>,
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
}

/// One decoder of the demo.
#[derive(Debug)]
pub struct Trial {
    /// Its name.
    pub name: &'static str,
    /// The column it reads.
    pub column: String,
    /// The shape of a row of that column.
    pub shape: Vec<usize>,
    /// Its training; absent where an earlier demo trained it.
    pub training: TrainReport,
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

/// Encodes, trains two decoders, captions pictures they never saw.
///
/// # Errors
/// Where a step fails; running it again goes on from there.
pub fn demo(options: &DemoOptions, progress: &dyn Progress) -> Result<DemoReport> {
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
    for (index, (name, sets)) in DECODERS.iter().enumerate() {
        progress.line(&format!("{}. train: {name}", index + 2));
        let (trial, captions) = trial(name, sets, &cache, &pictures, options, progress)?;
        tested = trial.tested;
        trials.push(trial);
        shown.iter_mut().zip(captions).for_each(|(picture, caption)| picture.captions.push(caption));
    }
    Ok(DemoReport { tested, encoded, trials, shown, cache })
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

fn trial(
    name: &'static str,
    sets: &[&str],
    cache: &Path,
    pictures: &[(PathBuf, String)],
    options: &DemoOptions,
    progress: &dyn Progress,
) -> Result<(Trial, Vec<String>)> {
    let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
    let recipe = Recipe::parse(RECIPE, NAME, &sets)?;
    let folder = options.out.join("runs").join(name);
    let train_options = TrainOptions {
        cache: cache.to_owned(),
        run: folder.clone(),
        data: options.out.clone(),
        device: "cpu".to_owned(),
        resume: true,
        onnxruntime: options.onnxruntime.clone(),
        init: None,
        until: None,
    };
    let training = match train(&recipe, NAME, &train_options, progress) {
        // A run of an earlier version, or on an earlier cache: begun anew.
        Err(error) if error.downcast_ref().is_some_and(RunError::is_of_another_training) => {
            fs::remove_dir_all(&folder).with_context(|| format!("`{}` can't be removed", folder.display()))?;
            train(&recipe, NAME, &train_options, progress)?
        }
        outcome => outcome?,
    };
    let run = Run::open(&folder)?;
    let evaluate_options = EvaluateOptions {
        split: dataset::TEST.to_owned(),
        cache: Some(cache.to_owned()),
        search: SearchOptions::default(),
        device: "cpu".to_owned(),
        judging: Judging::default(),
    };
    let evaluation = evaluate_run(&run, &evaluate_options, progress)?;
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
        name,
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
