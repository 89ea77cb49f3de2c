//! A recipe's `[tail]` meets the model: the section is cut out, kept in the run's folder, and goes back into a model.
//!
//! One decision defended: a run keeps the section with its first weights. It is resumed, evaluated and asked for captions
//! without the model; only captions of new pictures, which begin at the picture, and `export-run --encoder` need the file.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use icecap_cache::{ColumnReader, Key};
use serde_json::Value;

use super::{export::OutputExists, run::Run};
use crate::{
    decoder::{self, TailPlan},
    encoder,
    progress::Progress,
    recipe::{Recipe, TailSpec},
    section::Section,
};

/// Why no tail begins with a column, or none goes back into a model.
#[derive(Debug, thiserror::Error)]
pub enum TailMismatch {
    /// Its rows are not of an encoder.
    #[error(
        "column `{column}` was not made by an encoder of icecap's: nothing is known of the layers after it\nhint: encode a column of the tap that the tail should begin with"
    )]
    NoEncoder {
        /// The column.
        column: String,
    },
    /// Its rows are of another model.
    #[error("column `{column}` was encoded by another model than `{}`: the layers after it would not fit\nhint: put the model back that encoded it, or encode it anew with `icecap encode --overwrite`", model.display())]
    OtherModel {
        /// The column.
        column: String,
        /// The recipe's model.
        model: PathBuf,
    },
    /// The run has no tail.
    #[error("the run `{}` has no tail: its encoder is as it was\nhint: a [tail] in the recipe trains the encoder's last block", run.display())]
    NoTail {
        /// The run.
        run: PathBuf,
    },
    /// The model given isn't the one that the tail is of.
    #[error("`{}` is not the model whose last block was trained\nhint: give the ONNX file that encoded the run's cache by --model", model.display())]
    NotItsModel {
        /// The model.
        model: PathBuf,
    },
}

/// Cuts the tail of `recipe` out of its model at `path`; none where it has no `[tail]`. `columns` are the decoder's.
///
/// # Errors
/// Where the column isn't of this model, or its tensor and the tail's end don't enclose a part of it.
pub(super) fn cut(
    recipe: &Recipe,
    path: &Path,
    columns: &[ColumnReader],
    onnxruntime: Option<&Path>,
    progress: &dyn Progress,
) -> Result<Option<TailPlan>> {
    let Some(spec) = &recipe.tail else { return Ok(None) };
    let Some((place, column)) = columns.iter().enumerate().find(|(_, column)| column.name() == spec.column) else {
        return Err(TailMismatch::NoEncoder { column: spec.column.clone() }.into());
    };
    let begin = Begin::of(column.key()).ok_or_else(|| TailMismatch::NoEncoder { column: spec.column.clone() })?;
    encoder::init_runtime(onnxruntime)?;
    let section = encoder::section(path, &begin.tensor, &spec.to, begin.size)
        .context("the tail can't be cut out of the model")?;
    if section.model != begin.model {
        return Err(TailMismatch::OtherModel { column: spec.column.clone(), model: path.to_owned() }.into());
    }
    progress.line(&format!(
        "tail: {} nodes from `{}` {:?} to `{}` {:?}, at {} of the learning rate",
        section.nodes.len(),
        section.from,
        section.input,
        section.to,
        section.output,
        spec.learning_rate_scale
    ));
    Ok(Some(plan(spec, place, section)))
}

fn plan(spec: &TailSpec, column: usize, section: Section) -> TailPlan {
    let (pool, batch_norm, learning_rate_scale) = (spec.pool(), spec.batch_norm, spec.learning_rate_scale);
    TailPlan { column, section, pool, batch_norm, learning_rate_scale }
}

/// The tail of a run, from its folder; none where its recipe has no `[tail]`.
///
/// # Errors
/// Where its files can't be read.
pub(super) fn of_run(run: &Run) -> Result<Option<TailPlan>> {
    let Some(spec) = &run.recipe.tail else { return Ok(None) };
    let place = run.info.columns.iter().position(|column| column.input.name == spec.column).unwrap_or_default();
    Ok(Some(plan(spec, place, decoder::read_section(&run.folder)?)))
}

/// What a column's key says of the tensor in it.
struct Begin {
    model: String,
    tensor: String,
    /// Height and width of the pictures.
    size: [usize; 2],
}

impl Begin {
    fn of(key: &Key) -> Option<Self> {
        let text = |field: &str| key.get(field).and_then(Value::as_str).map(str::to_owned);
        let side = |field: &str| key.get(field).and_then(Value::as_u64).map(|side| side as usize);
        let size = [side("encoder.height")?, side("encoder.width")?];
        Some(Self { model: text("encoder.model")?, tensor: text("encoder.tensor")?, size })
    }
}

/// Writes the encoder of `run` with its trained tail to `out`: the run's model, or the same file at `model`, with other weights.
///
/// # Errors
/// Where the run has no tail or no checkpoint, the model is another one, or `out` is there already or can't be written.
pub fn export_encoder(run: &Run, model: Option<&Path>, out: &Path) -> Result<()> {
    let plan = of_run(run)?.ok_or_else(|| TailMismatch::NoTail { run: run.folder.clone() })?;
    if out.exists() {
        return Err(OutputExists { path: out.to_owned() }.into());
    }
    let path = model.unwrap_or(&run.info.model);
    let digest =
        encoder::model_digest(path).with_context(|| format!("the run's encoder `{}` can't be used", path.display()))?;
    if digest != plan.section.model {
        return Err(TailMismatch::NotItsModel { model: path.to_owned() }.into());
    }
    let (decoder, _) = run.decoder("cpu")?;
    let name = run.folder.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let note = format!("trained from {} to {} in the run {name}", plan.section.from, plan.section.to);
    Ok(encoder::write_section(path, out, &decoder.tail_weights(), &note)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_way_out() {
        let (column, model) = ("map".to_owned(), PathBuf::from("m.onnx"));
        insta::assert_snapshot!(TailMismatch::NoEncoder { column: column.clone() }, @"
        column `map` was not made by an encoder of icecap's: nothing is known of the layers after it
        hint: encode a column of the tap that the tail should begin with
        ");
        insta::assert_snapshot!(TailMismatch::OtherModel { column, model: model.clone() }, @"
        column `map` was encoded by another model than `m.onnx`: the layers after it would not fit
        hint: put the model back that encoded it, or encode it anew with `icecap encode --overwrite`
        ");
        insta::assert_snapshot!(TailMismatch::NoTail { run: "runs/a".into() }, @"
        the run `runs/a` has no tail: its encoder is as it was
        hint: a [tail] in the recipe trains the encoder's last block
        ");
        insta::assert_snapshot!(TailMismatch::NotItsModel { model }, @"
        `m.onnx` is not the model whose last block was trained
        hint: give the ONNX file that encoded the run's cache by --model
        ");
    }
}
