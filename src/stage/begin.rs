//! `icecap train --init RUN`: a new run that begins with another one's weights.
//!
//! Weights mean something only with the tokenizer, the columns and the sizes that they were trained with. The tokenizer and the scales are
//! taken from the run with the weights; columns and settings must be the same, or the first difference is named.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::run::{Run, RunColumn, SCALES};
use crate::{
    decoder::{self, ColumnInput, Decoder, DecoderSpec, TailPlan, device::Device},
    recipe::Recipe,
    trainer::TrainSpec,
};

/// A training that cannot begin as asked.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// The run has another value for what decides the weights.
    #[error(
        "the training can't begin with the run `{}`: its `{key}` is `{found}`, and the recipe's is `{asked}`\nhint: only [train], [decode] and \
         dropout may differ from {}/recipe.toml; change the recipe, or begin with another run", folder.display(), folder.display()
    )]
    Differs {
        /// The run to begin with.
        folder: PathBuf,
        /// What differs.
        key: String,
        /// The run's value.
        found: String,
        /// The recipe's.
        asked: String,
    },
    /// Rewards from the first step on, and nothing that speaks.
    #[error(
        "`train.scst` needs a decoder that speaks already: what random weights say is never rewarded\nhint: train by cross entropy first and \
         give that run by `--init RUN`, or let `train.scst.after` epochs of it come first in this one"
    )]
    NoStart,
    /// `--resume` with another run to begin with.
    #[error(
        "the run `{}` began with {found}, not with `{}`\nhint: leave --init out: a run goes on from its own checkpoint", folder.display(), asked.display()
    )]
    OtherStart {
        /// The run.
        folder: PathBuf,
        /// What it began with.
        found: String,
        /// What was given.
        asked: PathBuf,
    },
}

/// Refuses a training by rewards alone that begins with nothing.
pub(super) fn check_start(train: &TrainSpec, init: Option<&Path>) -> Result<(), BeginError> {
    if train.only_rewards() && init.is_none() { Err(BeginError::NoStart) } else { Ok(()) }
}

/// Refuses to go on with `run` as if it had begun with the run in `init`.
pub(super) fn check_resumed(run: &Run, init: Option<&Path>) -> Result<()> {
    let Some(init) = init else { return Ok(()) };
    let asked = std::path::absolute(init)?;
    if run.info.init.as_ref() == Some(&asked) {
        return Ok(());
    }
    let found = run.info.init.as_ref().map_or("random weights".to_owned(), |found| format!("`{}`", found.display()));
    Err(BeginError::OtherStart { folder: run.folder.clone(), found, asked: init.to_owned() }.into())
}

/// A run whose weights a training begins with.
pub(super) struct Init {
    pub run: Run,
    checkpoint: PathBuf,
}

impl Init {
    /// Opens the run in `folder` for a training of `recipe` on `columns`.
    pub fn open(folder: &Path, recipe: &Recipe, columns: &[RunColumn]) -> Result<Self> {
        let run = Run::open(folder).with_context(|| format!("--init {}", folder.display()))?;
        let checkpoint = run.checkpoint()?;
        let differs = |key: String, found: String, asked: String| BeginError::Differs {
            folder: folder.to_owned(),
            key,
            found,
            asked,
        };
        if let Some((found, asked)) = other_columns(&run.info.columns, columns) {
            return Err(differs("decoder.columns".into(), found, asked).into());
        }
        if let (Some(own), Some(new)) = (&run.recipe.decoder, &recipe.decoder) {
            if own.standardize != new.standardize {
                let [found, asked] = [own, new].map(|section| section.standardize.to_string());
                return Err(differs("decoder.standardize".into(), found, asked).into());
            }
            if let Some((key, found, asked)) = own.spec.differs(&new.spec) {
                return Err(differs(format!("decoder.{key}"), found, asked).into());
            }
        }
        if run.recipe.tokenizer != recipe.tokenizer {
            let [found, asked] = [&run.recipe, recipe].map(|recipe| {
                let text = toml::to_string(&recipe.tokenizer).unwrap_or_default();
                text.trim().replace('\n', ", ")
            });
            return Err(differs("tokenizer".into(), found, asked).into());
        }
        if run.recipe.tail != recipe.tail {
            let [found, asked] = [&run.recipe, recipe].map(|recipe| {
                let text = recipe.tail.as_ref().and_then(|tail| toml::to_string(tail).ok());
                text.map_or("none".to_owned(), |text| text.trim().replace('\n', ", "))
            });
            return Err(differs("tail".into(), found, asked).into());
        }
        Ok(Self { run, checkpoint })
    }

    /// The decoder with the run's weights.
    pub fn decoder(
        &self,
        tail: Option<&TailPlan>,
        spec: &DecoderSpec,
        columns: &[RunColumn],
        device: Device,
    ) -> Result<Box<dyn Decoder>> {
        let inputs: Vec<ColumnInput> = columns.iter().map(|column| column.input.clone()).collect();
        let vocab = self.run.tokenizer.vocab_size();
        decoder::load_behind(tail, &self.checkpoint, spec, &inputs, vocab, device)
            .with_context(|| format!("the weights of `{}` don't fit the recipe's decoder", self.run.folder.display()))
    }

    /// Puts the run's scales of its columns into `folder`.
    pub fn copy_scales(&self, folder: &Path) -> Result<()> {
        let path = self.run.folder.join(SCALES);
        fs::create_dir_all(folder)?;
        fs::copy(&path, folder.join(SCALES)).with_context(|| format!("`{}` can't be copied", path.display()))?;
        Ok(())
    }
}

/// Both lists of columns with their keys, where they differ.
fn other_columns(found: &[RunColumn], asked: &[RunColumn]) -> Option<(String, String)> {
    let differ = found.len() != asked.len()
        || found.iter().zip(asked).any(|(one, other)| one.key != other.key || one.input.name != other.input.name);
    let shown = |columns: &[RunColumn]| {
        let one =
            |column: &RunColumn| format!("{} ({})", column.input.name, column.key.chars().take(8).collect::<String>());
        columns.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    differ.then(|| (shown(found), shown(asked)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_names_the_way_out() {
        let folder = || PathBuf::from("runs/a");
        let messages = [
            BeginError::Differs {
                folder: folder(),
                key: "decoder.hidden".into(),
                found: "512".into(),
                asked: "256".into(),
            },
            BeginError::NoStart,
            BeginError::OtherStart { folder: folder(), found: "`/runs/b`".into(), asked: "runs/c".into() },
        ];
        let messages: Vec<String> = messages.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(messages.join("\n\n"), @"
        the training can't begin with the run `runs/a`: its `decoder.hidden` is `512`, and the recipe's is `256`
        hint: only [train], [decode] and dropout may differ from runs/a/recipe.toml; change the recipe, or begin with another run

        `train.scst` needs a decoder that speaks already: what random weights say is never rewarded
        hint: train by cross entropy first and give that run by `--init RUN`, or let `train.scst.after` epochs of it come first in this one

        the run `runs/a` began with `/runs/b`, not with `runs/c`
        hint: leave --init out: a run goes on from its own checkpoint
        ");
    }
}
