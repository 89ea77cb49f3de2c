//! A run: one training, in a folder of its own.
//!
//! ```text
//! runs/attention/
//!   lock               held by the process that trains it
//!   run.json           what it was trained on: cache, columns and their keys, model; written last
//!   recipe.toml        the recipe, with every default written out
//!   tokenizer.json     for Hugging Face `tokenizers`
//!   tail.json          with tail.safetensors: the part of the encoder that is trained, where the recipe has a [tail]
//!   scales.safetensors each column's mean and reciprocal deviation, where the recipe standardizes
//!   metrics.jsonl      losses and scores, a line each
//!   checkpoints/last/  model.safetensors, optimizer.safetensors, state.json
//!   checkpoints/best/  the same at the best validation
//!   checkpoints/last.left/  what was left of a damaged last one when the run went on from the best
//!   scores/SPLIT.json  per-image scores of the last `icecap evaluate` of that split
//! ```

mod lock;

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use icecap_cache::{Cache, ColumnReader};
use serde::{Deserialize, Serialize};

pub use lock::RunLock;

use crate::{
    batch::Column,
    decoder::{self, ColumnInput, Decoder, Special, Standardized},
    recipe::Recipe,
    text::Tokenizer,
    trainer,
};

/// The file of the columns' scales.
pub(super) const SCALES: &str = "scales.safetensors";

/// What a run was trained on: `run.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunInfo {
    /// The version of icecap.
    pub icecap: String,
    /// The cache's folder, absolute.
    pub cache: PathBuf,
    /// The encoder's ONNX file, absolute.
    pub model: PathBuf,
    /// The detector's ONNX file, absolute, where the recipe has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detector: Option<PathBuf>,
    /// The data folder, absolute; empty in runs that were trained before it was kept.
    #[serde(default)]
    pub data: PathBuf,
    /// The columns, in the decoder's order.
    pub columns: Vec<RunColumn>,
    /// The run whose weights it began with, absolute, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<PathBuf>,
}

/// One column of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunColumn {
    /// Digest of the column's key: another column of the same name is another column.
    pub key: String,
    /// Its name and shape, as the decoder sees it.
    pub input: ColumnInput,
}

/// A run that was trained, or is being trained.
pub struct Run {
    /// Its folder.
    pub folder: PathBuf,
    /// What it was trained on.
    pub info: RunInfo,
    /// Its recipe.
    pub recipe: Recipe,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
}

/// A run's folder that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No run is there.
    #[error("`{}` is not a run: it has no `{missing}`\nhint: give the folder that `icecap train --run` wrote", folder.display())]
    NotARun {
        /// The folder.
        folder: PathBuf,
        /// What it lacks.
        missing: &'static str,
    },
    /// Something is there already.
    #[error(
        "`{}` holds a run already\nhint: go on with it by --resume, or give another folder to --run",
        folder.display()
    )]
    Exists {
        /// The folder.
        folder: PathBuf,
    },
    /// Another process trains it.
    #[error(
        "the run `{}` is being trained by another process\nhint: wait for it to end, or train into another folder",
        folder.display()
    )]
    Busy {
        /// The folder.
        folder: PathBuf,
    },
    /// The run has no checkpoint yet.
    #[error("the run `{}` has no checkpoint yet\nhint: train it on with `icecap train --resume`", folder.display())]
    NoCheckpoint {
        /// The folder.
        folder: PathBuf,
    },
    /// The cache's column is another one than the run's.
    #[error(
        "the run was trained on column `{column}` with key `{expected}`, and the cache `{}` has it with key `{found}`\nhint: encode the \
         run's own recipe ({recipe}) again, or train a new run on the column that is there", cache.display()
    )]
    OtherKey {
        /// The column.
        column: String,
        /// The run's key, shortened.
        expected: String,
        /// The cache's key, shortened.
        found: String,
        /// The cache.
        cache: PathBuf,
        /// The run's recipe.
        recipe: String,
    },
    /// `--resume` with another recipe.
    #[error(
        "the run `{}` was begun with another recipe: {difference}\nhint: resume with the recipe and the --set values it was begun \
         with, or train into another folder", folder.display()
    )]
    OtherRecipe {
        /// The folder.
        folder: PathBuf,
        /// The first line that differs.
        difference: String,
    },
}

impl RunError {
    /// What is there is the run of another recipe or of other columns: not one that could go on.
    #[must_use]
    pub fn is_of_another_training(&self) -> bool {
        matches!(self, Self::OtherRecipe { .. } | Self::OtherKey { .. } | Self::NotARun { .. })
    }
}

impl Run {
    /// Opens the run in `folder`.
    ///
    /// # Errors
    /// Where a file is missing or can't be read.
    pub fn open(folder: &Path) -> Result<Self> {
        let info: RunInfo = serde_json::from_str(&read(folder, "run.json")?)
            .with_context(|| format!("`{}` can't be read", folder.join("run.json").display()))?;
        let path = folder.join("recipe.toml");
        let recipe = Recipe::parse(&read(folder, "recipe.toml")?, &path.display().to_string(), &[])?;
        let tokenizer = Tokenizer::load(&folder.join("tokenizer.json"))?;
        Ok(Self { folder: folder.to_owned(), info, recipe, tokenizer })
    }

    /// Writes what a run begins with. `run.json` comes last: only it makes the folder a run.
    ///
    /// # Errors
    /// Where the folder can't be written.
    pub fn create(folder: &Path, info: RunInfo, recipe: Recipe, tokenizer: Tokenizer) -> Result<Self> {
        let run = Self { folder: folder.to_owned(), info, recipe, tokenizer };
        let unwritable = || format!("the run's folder `{}` can't be written", folder.display());
        fs::create_dir_all(folder).with_context(unwritable)?;
        publish(folder, "recipe.toml", run.recipe.resolved().as_bytes()).with_context(unwritable)?;
        run.tokenizer.save(&folder.join("tokenizer.json"))?;
        publish(folder, "run.json", serde_json::to_string_pretty(&run.info)?.as_bytes()).with_context(unwritable)?;
        Ok(run)
    }

    /// Writes the recipe as it is now.
    pub(super) fn write_recipe(&self) -> Result<()> {
        publish(&self.folder, "recipe.toml", self.recipe.resolved().as_bytes())
            .with_context(|| format!("the run's folder `{}` can't be written", self.folder.display()))
    }

    /// Whether a run is in `folder`.
    #[must_use]
    pub fn exists(folder: &Path) -> bool {
        folder.join("run.json").exists()
    }

    /// The best checkpoint's folder, or the last one's where no validation has been yet.
    ///
    /// # Errors
    /// [`RunError::NoCheckpoint`].
    pub fn checkpoint(&self) -> Result<PathBuf, RunError> {
        ["best", "last"]
            .iter()
            .find_map(|name| trainer::find_checkpoint(&self.folder, name))
            .ok_or_else(|| RunError::NoCheckpoint { folder: self.folder.clone() })
    }

    /// The trained decoder, on the device called `device`.
    ///
    /// # Errors
    /// Where the run has no checkpoint, or the checkpoint doesn't fit the recipe.
    pub fn decoder(&self, device: &str) -> Result<(Box<dyn Decoder>, Option<String>)> {
        let (device, note) = decoder::device::resolve(device)?;
        let section = self.recipe.decoder(&self.folder.display().to_string(), "caption")?;
        let inputs: Vec<ColumnInput> = self.info.columns.iter().map(|column| column.input.clone()).collect();
        let folder = self.checkpoint()?;
        let (tail, vocab) = (super::tail::of_run(self)?, self.tokenizer.vocab_size());
        Ok((decoder::load_behind(tail.as_ref(), &folder, &section.spec, &inputs, vocab, device)?, note))
    }

    /// `columns` as the decoder was trained to see them: on the run's scales, where it has any.
    ///
    /// # Errors
    /// Where the scales can't be read.
    pub fn view(&self, columns: Vec<Arc<dyn Column>>) -> Result<Vec<Arc<dyn Column>>> {
        if !self.recipe.decoder.as_ref().is_some_and(|section| section.standardize) {
            return Ok(columns);
        }
        let inputs: Vec<ColumnInput> = self.info.columns.iter().map(|column| column.input.clone()).collect();
        let scales = decoder::read_scales(&self.folder.join(SCALES), &inputs)?;
        let view = |(column, scale)| Arc::new(Standardized::new(column, scale)) as Arc<dyn Column>;
        Ok(columns.into_iter().zip(scales).map(view).collect())
    }

    /// A digest of the run's tokenizer.json.
    ///
    /// # Errors
    /// Where it can't be read.
    pub fn tokenizer_digest(&self) -> Result<String> {
        let path = self.folder.join("tokenizer.json");
        let bytes = fs::read(&path).with_context(|| format!("`{}` can't be read", path.display()))?;
        Ok(blake3::hash(&bytes).to_hex()[..16].to_owned())
    }

    /// The marks of the run's tokenizer.
    #[must_use]
    pub fn special(&self) -> Special {
        special(&self.tokenizer)
    }

    /// The run's columns in `cache`, refused where they are not those it was trained on.
    ///
    /// # Errors
    /// Where a column is missing, unreadable or of another key.
    pub fn columns(&self, cache: &Cache, cache_path: &Path) -> Result<Vec<ColumnReader>> {
        let open = |column: &RunColumn| {
            let reader = cache.column(&column.input.name)?;
            let found = reader.plan().key_digest.clone();
            if found != column.key {
                return Err(RunError::OtherKey {
                    column: column.input.name.clone(),
                    expected: short(&column.key),
                    found: short(&found),
                    cache: cache_path.to_owned(),
                    recipe: self.folder.join("recipe.toml").display().to_string(),
                }
                .into());
            }
            Ok(reader)
        };
        self.info.columns.iter().map(open).collect()
    }
}

/// Puts `bytes` at `name` in `folder`, durably, with all that was written there before: the old file or the new one.
pub(super) fn publish(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let partial = folder.join(format!("{name}.partial"));
    let mut file = fs::File::create(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&partial, folder.join(name))?;
    fs::File::open(folder)?.sync_all()
}

/// The marks of a tokenizer, as decoders want them.
pub(super) fn special(tokenizer: &Tokenizer) -> Special {
    let ids = tokenizer.special();
    Special { bos: ids.bos, eos: ids.eos, pad: ids.pad, unk: ids.unk }
}

fn short(key: &str) -> String {
    key.chars().take(8).collect()
}

fn read(folder: &Path, name: &'static str) -> Result<String, RunError> {
    fs::read_to_string(folder.join(name)).map_err(|_| RunError::NotARun { folder: folder.to_owned(), missing: name })
}
