//! `icecap train`: captions from the cache's rows, vectors from its columns, a decoder out.

mod examples;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use icecap_cache::Cache;
use serde::{Deserialize, Serialize};

pub use examples::TrainingData;
use examples::{Split, captions};
pub(super) use examples::{captions_of, check_recipe, keep_encoded};

use super::{
    begin::{self, Init},
    rewards::Rewards,
    run::{Run, RunColumn, RunError, RunInfo, RunLock, SCALES, special},
    tail,
};
use crate::{
    batch::{self, Column},
    decoder::{self, ColumnInput, Decoder, Scale},
    metrics,
    progress::Progress,
    recipe::{DecoderSection, Recipe},
    report::count,
    text::Tokenizer,
    trainer::{self, Hooks, Outcome, Resume, Score, TrainData, TrainError},
};

/// What `icecap train` is told beside the recipe.
#[derive(Debug, Clone)]
pub struct TrainOptions {
    /// The cache's folder.
    pub cache: PathBuf,
    /// The run's folder.
    pub run: PathBuf,
    /// Where the recipe's paths start.
    pub data: PathBuf,
    /// `cpu`, `cuda`, `cuda:N`.
    pub device: String,
    /// Go on with the run that is there, from this checkpoint.
    pub resume: Option<Resume>,
    /// ONNX Runtime's library; only a recipe with a `[tail]` needs it.
    pub onnxruntime: Option<PathBuf>,
    /// The run whose weights a new one begins with.
    pub init: Option<PathBuf>,
    /// The step after which this sitting ends, where the training may go on later.
    pub until: Option<u64>,
}

/// What a training came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainReport {
    /// Steps done.
    pub steps: u64,
    /// The best validation CIDEr, times 100 as papers print it.
    pub best_cider: Option<f64>,
    /// Its step.
    pub best_step: Option<u64>,
    /// It ended early because the score no longer rose.
    pub stopped_early: bool,
    /// Seconds of training.
    pub seconds: f64,
    /// Caption tokens a second.
    pub tokens_per_second: f64,
    /// The share of the time that the device waited for data.
    pub waited: f64,
    /// Numbers that are trained.
    pub parameters: usize,
}

/// Trains the decoder of `recipe`.
///
/// # Errors
/// Where cache, run or recipe don't fit together, or the training fails.
pub fn train(recipe: &Recipe, name: &str, options: &TrainOptions, progress: &dyn Progress) -> Result<TrainReport> {
    let section = recipe.decoder(name, "train")?;
    let cache = Cache::open(&options.cache)?;
    let readers = section
        .columns
        .iter()
        .map(|column| cache.column(column).with_context(|| format!("the decoder reads column `{column}`")))
        .collect::<Result<Vec<_>>>()?;
    readers.iter().try_for_each(|reader| check_recipe(recipe, reader))?;
    let mut rows = Split::open(&cache, &options.cache, &readers, progress)?;
    rows.keep_validation(recipe.train.validation_images);
    let _lock = RunLock::take(&options.run)?;
    let (device, note) = decoder::device::resolve(&options.device)?;
    note.iter().for_each(|note| progress.line(note));
    let (run, decoder) = if options.resume.is_some() && Run::exists(&options.run) {
        if options.resume == Some(Resume::Best) && trainer::goes_on_from(&options.run, Resume::Best).is_none() {
            return Err(TrainError::NoBest { path: options.run.clone() }.into());
        }
        let run = resumed(recipe, &options.run, progress)?;
        begin::check_resumed(&run, options.init.as_deref())?;
        let decoder = resumed_decoder(&run, recipe, section, options, device)?;
        (run, decoder)
    } else if Run::exists(&options.run) {
        return Err(RunError::Exists { folder: options.run.clone() }.into());
    } else {
        let columns = readers
            .iter()
            .zip(&section.columns)
            .map(|(reader, name)| RunColumn {
                key: reader.plan().key_digest.clone(),
                input: ColumnInput::of_shape(name, reader.row_shape()),
            })
            .collect::<Vec<_>>();
        begin::check_start(&recipe.train, options.init.as_deref())?;
        let init = options.init.as_deref().map(|folder| Init::open(folder, recipe, &columns)).transpose()?;
        let tokenizer = match (&init, recipe.tokenizer.path(&options.data, section.spec.pretrained())) {
            (Some(init), _) => init.run.tokenizer.clone(),
            (None, Some(path)) => Tokenizer::load(&path)?,
            (None, None) => {
                let captions = rows.training_captions(cache.rows());
                Tokenizer::train(captions.iter().map(String::as_str), &recipe.tokenizer)?
            }
        };
        // Before anything is written: a decoder that cannot be built leaves no run behind.
        let (spec, seed) = (section.spec.at(&options.data), recipe.train.seed);
        let inputs: Vec<ColumnInput> = columns.iter().map(|column| column.input.clone()).collect();
        let source = recipe.encoder.source(&options.data);
        let tail = match &init {
            Some(init) => tail::of_run(&init.run)?,
            None => tail::cut(recipe, source.path(), &readers, options.onnxruntime.as_deref(), progress)?,
        };
        let decoder = match &init {
            Some(init) => init.decoder(tail.as_ref(), &spec, &columns, device)?,
            None => decoder::build_behind(tail.as_ref(), &spec, &inputs, tokenizer.vocab_size(), seed, device)?,
        };
        recipe.train.check_for(decoder.as_ref())?;
        if let Some(tail) = &tail {
            decoder::write_section(&options.run, &tail.section)?;
        }
        match (&init, section.standardize) {
            (Some(init), true) => init.copy_scales(&options.run)?,
            (None, true) => write_scales(&cache, &columns, &rows.train, &options.run)?,
            (_, false) => {}
        }
        let info = RunInfo {
            icecap: env!("CARGO_PKG_VERSION").to_owned(),
            cache: std::path::absolute(&options.cache)?,
            model: std::path::absolute(source.path())?,
            detector: recipe
                .detector
                .as_ref()
                .map(|detector| std::path::absolute(detector.source(&recipe.encoder, &options.data).path()))
                .transpose()?,
            data: std::path::absolute(&options.data)?,
            columns,
            init: options.init.as_ref().map(std::path::absolute).transpose()?,
        };
        (Run::create(&options.run, info, recipe.clone(), tokenizer)?, decoder)
    };
    let readers = run.columns(&cache, &options.cache)?;
    let columns = run.view(readers.into_iter().map(batch::cached).collect())?;
    fit(&run, decoder, &rows, &cache, columns, options, progress)
}

/// The decoder of a run that goes on; its weights are read by the trainer. Where the run ended before its first checkpoint it begins
/// again as it began: with the weights of another run, if it did.
fn resumed_decoder(
    run: &Run,
    recipe: &Recipe,
    section: &DecoderSection,
    options: &TrainOptions,
    device: decoder::device::Device,
) -> Result<Box<dyn Decoder>> {
    let inputs: Vec<ColumnInput> = run.info.columns.iter().map(|column| column.input.clone()).collect();
    let vocab = run.tokenizer.vocab_size();
    let tail = tail::of_run(run)?;
    let checkpoint = options.resume.and_then(|asked| trainer::goes_on_from(&run.folder, asked));
    if let (None, Some(init)) = (&checkpoint, &run.info.init) {
        let init = Init::open(init, recipe, &run.info.columns)?;
        return init.decoder(tail.as_ref(), &section.spec.at(&options.data), &run.info.columns, device);
    }
    match checkpoint {
        // Pretrained weights are needed once: a run goes on without their folder.
        Some((which, folder)) if section.spec.pretrained().is_some() => {
            let found = decoder::load_behind(tail.as_ref(), &folder, &section.spec, &inputs, vocab, device);
            Ok(found.map_err(|error| TrainError::from(error).of_checkpoint(&run.folder, which, &folder))?)
        }
        _ => {
            let (spec, seed) = (section.spec.at(&options.data), run.recipe.train.seed);
            Ok(decoder::build_behind(tail.as_ref(), &spec, &inputs, vocab, seed, device)?)
        }
    }
}

/// The scales of the columns over the training rows, for [`Run::view`].
fn write_scales(cache: &Cache, columns: &[RunColumn], rows: &[u32], folder: &Path) -> Result<()> {
    let inputs: Vec<ColumnInput> = columns.iter().map(|column| column.input.clone()).collect();
    let scale = |input: &ColumnInput| Ok(Scale::of(&batch::cached(cache.column(&input.name)?), rows));
    let scales = inputs.iter().map(scale).collect::<Result<Vec<_>>>()?;
    Ok(decoder::write_scales(&folder.join(SCALES), &inputs, &scales)?)
}

fn fit(
    run: &Run,
    mut decoder: Box<dyn Decoder>,
    rows: &Split,
    cache: &Cache,
    columns: Vec<Arc<dyn Column>>,
    options: &TrainOptions,
    progress: &dyn Progress,
) -> Result<TrainReport> {
    let (spec, vocab) = (&run.recipe.train, run.tokenizer.vocab_size());
    let data = TrainData {
        source: source(run, cache)?,
        tokenizer: run.tokenizer_digest()?,
        columns,
        captions: captions(&run.tokenizer, cache.rows(), &rows.train, progress)?.into(),
        validation: rows.validation.clone(),
        special: special(&run.tokenizer),
    };
    let parameters = decoder.params().count() as usize;
    let frozen = match decoder.params().frozen_count() {
        0 => String::new(),
        frozen => format!(" and {} frozen", count(frozen as u64)),
    };
    progress.line(&format!(
        "{} captions of {} images, {vocab} words, {} parameters{frozen}",
        data.captions.len(),
        rows.train.len(),
        count(parameters as u64)
    ));
    let rewards = spec.scst.as_ref().map(|_| Rewards::new(cache.rows(), &rows.train, &run.tokenizer, &run.info.cache));
    let rewards = rewards.transpose()?;
    let reward = rewards.as_ref().map(|rewards| |captions: &[(u32, &[u32])]| Ok(rewards.of(captions)));
    let references: Vec<Vec<String>> = rows.validation.iter().map(|row| captions_of(cache.rows(), *row)).collect();
    let hooks = Hooks {
        progress,
        name: &|row| cache.rows().id(row),
        text: &|tokens| run.tokenizer.decode(tokens),
        score: &|spoken| {
            let spoken: Vec<String> = spoken.iter().map(|(_, caption)| caption.clone()).collect();
            let scores = metrics::score(&spoken, &references)?;
            let shown = vec![
                ("CIDEr".to_owned(), 100.0 * scores.cider),
                ("BLEU-4".to_owned(), 100.0 * scores.bleu[3]),
                ("ROUGE-L".to_owned(), 100.0 * scores.rouge_l),
            ];
            Ok(Score { value: 100.0 * scores.cider, shown })
        },
        reward: reward.as_ref().map(|reward| reward as &trainer::Rewarder<'_>),
    };
    // A run that was cut before its first checkpoint begins again.
    let resume = options.resume.filter(|asked| trainer::goes_on_from(&run.folder, *asked).is_some());
    let outcome = trainer::train(decoder.as_mut(), spec, &data, &run.folder, resume, options.until, &hooks)?;
    Ok(report(&outcome, parameters))
}

fn report(outcome: &Outcome, parameters: usize) -> TrainReport {
    TrainReport {
        steps: outcome.steps,
        best_cider: outcome.best.map(|(score, _)| score),
        best_step: outcome.best.map(|(_, step)| step),
        stopped_early: outcome.stopped_early,
        seconds: outcome.seconds,
        tokens_per_second: outcome.tokens as f64 / outcome.seconds.max(1e-9),
        waited: outcome.waited,
        parameters,
    }
}

/// The run in `folder`, refused where its recipe is another one than `recipe` in more than what a training may go on with: each of
/// those is said, and noted in the run's recipe.
fn resumed(recipe: &Recipe, folder: &Path, progress: &dyn Progress) -> Result<Run> {
    let mut run = Run::open(folder)?;
    let before = run.recipe.clone();
    run.recipe.train = run.recipe.train.going_on_as(&recipe.train);
    let line = |line: &Option<String>| line.as_ref().map_or_else(|| "nothing".to_owned(), |line| format!("`{line}`"));
    if let Some(first) = run.recipe.differences(recipe).first() {
        let difference = format!("it has {}, this one {}", line(&first.before), line(&first.after));
        return Err(RunError::OtherRecipe { folder: folder.to_owned(), difference }.into());
    }
    let changed = before.differences(&run.recipe);
    for changed in &changed {
        let (before, after) = (line(&changed.before), line(&changed.after));
        progress.line(&format!("the run goes on with another recipe: {after} where it was {before}"));
    }
    if !changed.is_empty() {
        run.write_recipe()?;
    }
    Ok(run)
}

/// What the bytes of the run's columns are: a column that was written anew is another source.
fn source(run: &Run, cache: &Cache) -> Result<String> {
    let mut parts = Vec::new();
    for column in &run.info.columns {
        let reader = cache.column(&column.input.name)?;
        parts.push(column.key.clone());
        parts.extend(reader.manifest().iter().flat_map(|found| &found.shards).map(|shard| shard.digest.clone()));
    }
    Ok(parts.join(" "))
}
