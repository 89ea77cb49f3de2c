//! `icecap train`: captions from the cache's rows, vectors from its columns, a decoder out.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use icecap_cache::{Cache, ColumnReader, Rows};
use serde::Serialize;

use super::run::{Run, RunColumn, RunError, RunInfo, RunLock, SCALES, special};
use crate::{
    batch::{self, Caption, Column},
    decoder::{self, ColumnInput, Decoder, Scale},
    metrics,
    progress::Progress,
    recipe::{DecoderSection, EncoderSpec, Recipe},
    text::Tokenizer,
    trainer::{self, Hooks, Outcome, Score, TrainData},
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
    /// Go on with the run that is there.
    pub resume: bool,
}

/// What a training came to.
#[derive(Debug, Serialize)]
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

/// A cache that can't be trained on.
#[derive(Debug, thiserror::Error)]
pub enum TrainingData {
    /// No rows of a split.
    #[error("the cache `{}` has no {what} of the split `{split}`\nhint: its splits: {known}", cache.display())]
    Empty {
        /// The cache.
        cache: PathBuf,
        /// What it lacks.
        what: &'static str,
        /// The split.
        split: &'static str,
        /// The splits that it has.
        known: String,
    },
    /// A column was made by another recipe than the one given.
    #[error(
        "column `{column}` was not encoded by this recipe: it was made with {made}, and the recipe has {asked}\nhint: encode it anew with \
         `icecap encode --overwrite`, or give the recipe and the --set values that it was encoded with"
    )]
    OtherRecipe {
        /// The column.
        column: String,
        /// What the column's recipe says.
        made: String,
        /// What the given one says there.
        asked: String,
    },
}

/// Refuses a column whose recorded recipe makes it in another way than `recipe` would. Columns that were imported, or made by a version whose
/// recipes this one can't read, say nothing and pass.
fn check_recipe(recipe: &Recipe, column: &ColumnReader) -> Result<(), TrainingData> {
    let made = column.manifest().and_then(|manifest| manifest.provenance.get("recipe")?.as_str().map(str::to_owned));
    let Some(made) = made.and_then(|text| Recipe::parse(&text, "column.json", &[]).ok()) else { return Ok(()) };
    let told = |recipe: &Recipe| {
        let own = recipe.columns.iter().find(|own| own.name == column.name())?;
        // The batch decides no row.
        let encoder = EncoderSpec { batch: None, ..recipe.encoder.clone() };
        Some(format!("{}{}", toml::to_string(&encoder).ok()?, toml::to_string(own).ok()?))
    };
    let (Some(made), Some(asked)) = (told(&made), told(recipe)) else { return Ok(()) };
    let only = |text: &str, other: &str| {
        let lines: Vec<&str> = text.lines().filter(|line| !other.lines().any(|other| other == *line)).collect();
        if lines.is_empty() { "nothing there".to_owned() } else { format!("`{}`", lines.join("`, `")) }
    };
    if made == asked {
        return Ok(());
    }
    Err(TrainingData::OtherRecipe {
        column: column.name().to_owned(),
        made: only(&made, &asked),
        asked: only(&asked, &made),
    })
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
    let rows = Split::open(&cache, &options.cache, &readers, progress)?;
    let _lock = RunLock::take(&options.run)?;
    let (device, note) = decoder::device::resolve(&options.device)?;
    note.iter().for_each(|note| progress.line(note));
    let (run, decoder) = if options.resume && Run::exists(&options.run) {
        let run = resumed(recipe, &options.run)?;
        let decoder = resumed_decoder(&run, section, options, device)?;
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
        let tokenizer = match recipe.tokenizer.path(&options.data, section.spec.pretrained()) {
            Some(path) => Tokenizer::load(&path)?,
            None => {
                let captions = rows.training_captions(cache.rows());
                Tokenizer::train(captions.iter().map(String::as_str), &recipe.tokenizer)?
            }
        };
        // Before anything is written: a decoder that cannot be built leaves no run behind.
        let (spec, seed) = (section.spec.at(&options.data), recipe.train.seed);
        let inputs: Vec<ColumnInput> = columns.iter().map(|column| column.input.clone()).collect();
        let decoder = decoder::build(&spec, &inputs, tokenizer.vocab_size(), seed, device)?;
        recipe.train.check_for(decoder.as_ref())?;
        if section.standardize {
            write_scales(&cache, &columns, &rows.train, &options.run)?;
        }
        let info = RunInfo {
            icecap: env!("CARGO_PKG_VERSION").to_owned(),
            cache: std::path::absolute(&options.cache)?,
            model: std::path::absolute(recipe.encoder.source(&options.data).path())?,
            detector: recipe
                .detector
                .as_ref()
                .map(|detector| std::path::absolute(detector.source(&recipe.encoder, &options.data).path()))
                .transpose()?,
            data: std::path::absolute(&options.data)?,
            columns,
        };
        (Run::create(&options.run, info, recipe.clone(), tokenizer)?, decoder)
    };
    let readers = run.columns(&cache, &options.cache)?;
    let columns = run.view(readers.into_iter().map(batch::cached).collect())?;
    fit(&run, decoder, &rows, &cache, columns, options.resume, progress)
}

/// The decoder of a run that goes on; its weights are read by the trainer.
fn resumed_decoder(
    run: &Run,
    section: &DecoderSection,
    options: &TrainOptions,
    device: decoder::device::Device,
) -> Result<Box<dyn Decoder>> {
    let inputs: Vec<ColumnInput> = run.info.columns.iter().map(|column| column.input.clone()).collect();
    let vocab = run.tokenizer.vocab_size();
    match trainer::find_checkpoint(&run.folder, "last") {
        // Pretrained weights are needed once: a run goes on without their folder.
        Some(folder) if section.spec.pretrained().is_some() => {
            Ok(decoder::load(&folder, &section.spec, &inputs, vocab, device)?)
        }
        _ => Ok(decoder::build(&section.spec.at(&options.data), &inputs, vocab, run.recipe.train.seed, device)?),
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
    resume: bool,
    progress: &dyn Progress,
) -> Result<TrainReport> {
    let (spec, vocab) = (&run.recipe.train, run.tokenizer.vocab_size());
    let data = TrainData {
        source: source(run, cache)?,
        columns,
        captions: captions(&run.tokenizer, cache.rows(), &rows.train, progress).into(),
        validation: rows.validation.clone(),
        special: special(&run.tokenizer),
    };
    let parameters = decoder.params().flat().numel();
    let frozen = match decoder.params().frozen_count() {
        0 => String::new(),
        frozen => format!(" and {:.1} M frozen", frozen as f64 / 1e6),
    };
    progress.line(&format!(
        "{} captions of {} images, {vocab} words, {:.1} M parameters{frozen}",
        data.captions.len(),
        rows.train.len(),
        parameters as f64 / 1e6
    ));
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
    };
    let resume = resume && trainer::find_checkpoint(&run.folder, "last").is_some();
    let outcome = trainer::train(decoder.as_mut(), spec, &data, &run.folder, resume, &hooks)?;
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

/// The run in `folder`, refused where its recipe is another one than `recipe`.
fn resumed(recipe: &Recipe, folder: &Path) -> Result<Run> {
    let run = Run::open(folder)?;
    let (old, new) = (run.recipe.resolved(), recipe.resolved());
    let differs = || {
        let (mut old, mut new) = (old.lines(), new.lines());
        loop {
            match (old.next(), new.next()) {
                (None, None) => return None,
                (old, new) if old != new => return Some((old.unwrap_or_default(), new.unwrap_or_default())),
                _ => {}
            }
        }
    };
    if let Some((old, new)) = differs() {
        let difference = format!("it has `{old}`, this one `{new}`");
        return Err(RunError::OtherRecipe { folder: folder.to_owned(), difference }.into());
    }
    Ok(run)
}

/// The rows that are trained and validated on.
struct Split {
    train: Vec<u32>,
    validation: Vec<u32>,
}

impl Split {
    fn open(cache: &Cache, path: &Path, columns: &[ColumnReader], progress: &dyn Progress) -> Result<Self> {
        let rows = cache.rows();
        let captioned = |split: &'static str| -> Result<Vec<u32>> {
            let mut found = rows.split_rows(split);
            found.retain(|row| !captions_of(rows, *row).is_empty());
            keep_encoded(&mut found, columns, split).iter().for_each(|note| progress.line(note));
            if found.is_empty() {
                let known = rows.split_names().join(", ");
                return Err(TrainingData::Empty { cache: path.to_owned(), what: "captioned rows", split, known }.into());
            }
            Ok(found)
        };
        Ok(Self { train: captioned("train")?, validation: captioned("val")? })
    }

    fn training_captions(&self, rows: &Rows) -> Vec<String> {
        self.train.iter().flat_map(|row| captions_of(rows, *row)).collect()
    }
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

/// Leaves out of `rows` those that came after a column was finished; a line says how many.
pub(super) fn keep_encoded(rows: &mut Vec<u32>, columns: &[ColumnReader], split: &str) -> Option<String> {
    let all = rows.len();
    let encoded = columns.iter().map(ColumnReader::len).min().unwrap_or(0);
    rows.retain(|row| *row < encoded);
    let later = all - rows.len();
    (later > 0).then(|| {
        format!("{later} of {all} images of the split `{split}` are not in the columns yet and are left out: run `icecap encode` again")
    })
}

/// The captions of a row.
pub(super) fn captions_of(rows: &Rows, row: u32) -> Vec<String> {
    rows.get(row).captions
}

/// The captions of `wanted`, as tokens; those without a single token are left out, and counted aloud.
fn captions(tokenizer: &Tokenizer, rows: &Rows, wanted: &[u32], progress: &dyn Progress) -> Vec<Caption> {
    let (owners, texts): (Vec<u32>, Vec<String>) =
        wanted.iter().flat_map(|row| captions_of(rows, *row).into_iter().map(|text| (*row, text))).unzip();
    let mut captions: Vec<Caption> =
        tokenizer.encode_batch(&texts).into_iter().zip(owners).map(|(tokens, row)| Caption { row, tokens }).collect();
    let all = captions.len();
    captions.retain(|caption| !caption.tokens.is_empty());
    if captions.len() < all {
        progress.line(&format!("{} captions have no words and are left out", all - captions.len()));
    }
    captions
}
