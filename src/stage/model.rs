//! From `[encoder]` to compiled encoders: finds or exports the ONNX file, reads what it says of itself, edits the graph.
//!
//! Columns of one recipe may look at different views of a picture. One decision defended: the passes are grouped by view, not
//! by column. Every view goes through the network once, whatever the number of columns that want it, in a graph that holds
//! only what they tap: a column of the plain picture costs nothing for the tiles of another one.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use icecap_cache::{Dtype, Key};
use serde_json::json;

use crate::{
    encoder::{self, CompiledEncoder, Device, EncoderPlan, Precision},
    image::{Preprocess, Resize, View},
    progress::Progress,
    recipe::{ColumnSpec, EncoderSpec, ModelSource, ResolvedEncoder},
};

/// An encoder that is ready for sessions, and how its pictures are prepared.
pub struct Model {
    /// The ONNX file.
    pub path: PathBuf,
    /// Decode, resize, crop; and what is computed.
    pub resolved: ResolvedEncoder,
    /// The views that any column looks at, each once.
    pub views: Vec<View>,
    /// What is run on them.
    pub passes: Vec<Pass>,
    /// The columns, in the recipe's order.
    pub columns: Vec<ModelColumn>,
}

/// One edited graph, and the views it is run on: those that the same columns look at.
pub struct Pass {
    /// The edited graph: its outputs are the rows of `columns`, of one view.
    pub compiled: CompiledEncoder,
    /// Positions in [`Model::views`].
    pub views: Vec<usize>,
    /// Positions in [`Model::columns`], in the order of the graph's outputs.
    pub columns: Vec<usize>,
}

/// What a row of a column is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelColumn {
    /// Its name.
    pub name: String,
    /// Positions in [`Model::views`], in the order of the row's vectors.
    pub views: Vec<usize>,
    /// Shape of a row: `[D]` or `[K, D]` of one view, `[n, D]` or `[n*K, D]` of several.
    pub row_shape: Vec<usize>,
    /// Its element type.
    pub dtype: Dtype,
    /// Bytes of one view's part of a row as the encoder gives it: `f32` where the column is i8.
    pub view_bytes: usize,
}

/// A column wants the corners of a picture that has none to choose from.
#[derive(Debug, thiserror::Error)]
#[error(
    "column `{column}` takes five crops, and `resize = {resize}` leaves nothing beside a crop of {height}x{width}: they would be one and \
     the same\nhint: resize to more than the crop, for example resize = {enough} and crop = {crop}"
)]
pub struct NoRoom {
    column: String,
    resize: String,
    height: u32,
    width: u32,
    enough: u32,
    crop: u32,
}

/// Refuses corners where the resized picture is no larger than the crop.
fn check_room(columns: &[ColumnSpec], resolved: &ResolvedEncoder) -> Result<(), NoRoom> {
    let cornered = |views: &Vec<View>| views.iter().any(|view| matches!(view, View::Corner { .. }));
    let (height, width) = resolved.preprocess.output_size();
    let (room, resize) = match resolved.preprocess.resize {
        Resize::Shorter(side) => (side > height.min(width), side.to_string()),
        Resize::Exact([tall, wide]) => (tall > height || wide > width, format!("[{tall}, {wide}]")),
    };
    match columns.iter().zip(&resolved.views).find(|(_, views)| !room && cornered(views)) {
        None => Ok(()),
        Some((column, _)) => {
            let crop = height.max(width);
            Err(NoRoom { column: column.name.clone(), resize, height, width, enough: crop * 8 / 7, crop })
        }
    }
}

impl ModelColumn {
    /// Bytes of a row as the encoder gives it.
    #[must_use]
    pub fn row_bytes(&self) -> usize {
        self.views.len() * self.view_bytes
    }

    /// Whether its rows are quantised on their way into the shard.
    #[must_use]
    pub fn is_scaled(&self) -> bool {
        self.dtype == Dtype::I8
    }
}

impl Model {
    /// Makes the model of `[encoder]` ready, with `columns` as its outputs.
    ///
    /// # Errors
    /// Where the file isn't there or can't be exported, or the columns don't fit the graph.
    pub fn prepare(
        spec: &EncoderSpec,
        columns: &[ColumnSpec],
        data: &Path,
        python: Option<&Path>,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let source = spec.source(data);
        export_if_absent(&source, python, progress)?;
        Self::open(spec, columns, source.path())
    }

    /// The same with the ONNX file `path`, which must be there.
    ///
    /// # Errors
    /// As [`Model::prepare`].
    pub fn open(spec: &EncoderSpec, columns: &[ColumnSpec], path: &Path) -> Result<Self> {
        let own = encoder::read_metadata(path)?;
        let resolved = spec.resolve(columns, path, own.as_ref())?;
        resolved.preprocess.validate()?;
        check_room(columns, &resolved)?;
        let grouped = group(&resolved.views);
        let compile = |(views, columns): (Vec<usize>, Vec<usize>)| -> Result<Pass> {
            let taps = columns.iter().map(|&column| resolved.plan.taps[column].clone()).collect();
            let compiled = encoder::compile(path, &EncoderPlan { taps, ..resolved.plan.clone() })?;
            Ok(Pass { compiled, views, columns })
        };
        let passes = grouped.passes.into_iter().map(compile).collect::<Result<Vec<_>>>()?;
        let columns = grouped.columns.into_iter().zip(&resolved.plan.taps).enumerate();
        let columns = columns.map(|(at, (views, tap))| column(&passes, at, views, tap.dtype)).collect();
        Ok(Self { path: path.to_owned(), resolved, views: grouped.views, passes, columns })
    }

    /// Says what whoever asked for f16 should know.
    pub(super) fn tell_precision(&self, devices: &[Device], progress: &dyn Progress) {
        if self.resolved.plan.precision != Precision::F16 {
            return;
        }
        if devices == [Device::Cpu] {
            progress.line("note: precision = \"f16\" is for GPUs; the CPU computes it in f32 and rounds, more slowly than f32 alone");
        }
        let mut notes: Vec<&String> = self.passes.iter().flat_map(|pass| pass.compiled.notes()).collect();
        notes.sort();
        notes.dedup();
        notes.iter().for_each(|note| progress.line(&format!("note: in f16 {note}, and become that")));
    }

    /// Everything that decides the bytes of a column.
    #[must_use]
    pub fn key(&self, column: usize) -> Key {
        let plan = &self.resolved.plan;
        let mut fields = encoder::key_fields(self.model_digest(), plan, &plan.taps[column]);
        fields.extend(Preprocess::key_fields(&self.resolved.preprocess));
        let views = &self.resolved.views[column];
        // A column of the plain picture keeps the key it had before there were others.
        if views[..] != [View::Center] {
            let views: Vec<String> = views.iter().map(ToString::to_string).collect();
            fields.push(("image.views".to_owned(), json!(views)));
        }
        fields.into_iter().fold(Key::new(), |key, (field, value)| key.with(field, value))
    }

    /// The views that the passes of `columns` (positions) take, as positions in [`Model::views`], ascending.
    pub(super) fn views_for(&self, columns: impl Fn(usize) -> bool) -> Vec<usize> {
        let wanted = self.passes.iter().filter(|pass| pass.columns.iter().any(|&column| columns(column)));
        let mut views: Vec<usize> = wanted.flat_map(|pass| pass.views.iter().copied()).collect();
        views.sort_unstable();
        views
    }

    fn model_digest(&self) -> &str {
        self.passes.first().map_or("", |pass| pass.compiled.model_digest())
    }
}

/// What column `at` is made of, from the first pass that has it.
fn column(passes: &[Pass], at: usize, views: Vec<usize>, dtype: Dtype) -> ModelColumn {
    let outputs = passes.iter().flat_map(|pass| pass.columns.iter().zip(pass.compiled.outputs()));
    let Some((_, output)) = outputs.into_iter().find(|(column, _)| **column == at) else {
        unreachable!("a column has a view, and each view a pass that holds its columns")
    };
    ModelColumn {
        name: output.name.clone(),
        row_shape: row_shape(&output.row_shape, views.len()),
        views,
        dtype,
        view_bytes: output.row_bytes(),
    }
}

/// The shape of a row of `views` views: they lie one after another along the vectors.
fn row_shape(one: &[usize], views: usize) -> Vec<usize> {
    match (views, one) {
        (1, one) => one.to_vec(),
        (views, [width]) => vec![views, *width],
        (views, [vectors, rest @ ..]) => [&[views * vectors], rest].concat(),
        (views, []) => vec![views],
    }
}

/// Columns sorted into passes.
#[derive(Debug, PartialEq, Eq)]
struct Grouped {
    /// Every view once, in the order in which the columns name them.
    views: Vec<View>,
    /// Each column's views, as positions in `views`.
    columns: Vec<Vec<usize>>,
    /// Views with the columns that look at them. No view is in two.
    passes: Vec<(Vec<usize>, Vec<usize>)>,
}

fn group(views_of: &[Vec<View>]) -> Grouped {
    let mut views: Vec<View> = Vec::new();
    for view in views_of.iter().flatten() {
        if !views.contains(view) {
            views.push(*view);
        }
    }
    let at = |view: &View| views.iter().position(|other| other == view).unwrap_or_default();
    let columns = views_of.iter().map(|views| views.iter().map(at).collect()).collect();
    let mut passes: Vec<(Vec<usize>, Vec<usize>)> = Vec::new();
    for (at, view) in views.iter().enumerate() {
        let wanting: Vec<usize> = (0..views_of.len()).filter(|&column| views_of[column].contains(view)).collect();
        match passes.iter_mut().find(|(_, columns)| *columns == wanting) {
            Some((views, _)) => views.push(at),
            None => passes.push((vec![at], wanting)),
        }
    }
    Grouped { views, columns, passes }
}

fn export_if_absent(source: &ModelSource, python: Option<&Path>, progress: &dyn Progress) -> Result<()> {
    let ModelSource::Known { name, weights, path } = source else { return Ok(()) };
    if path.exists() {
        return Ok(());
    }
    progress.line(&format!("exporting {name} ({weights} weights) to {}", path.display()));
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("the folder `{}` can't be made", folder.display()))?;
    }
    encoder::export(name, weights, path, python)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_columns_share_one_pass() {
        let center = vec![View::Center];
        let grouped = group(&[center.clone(), center.clone(), center]);
        assert_eq!(grouped.passes, [(vec![0], vec![0, 1, 2])]);
    }

    #[test]
    fn every_view_is_run_once_with_just_the_columns_that_look_at_it() {
        let corner = View::Corner { bottom: true, right: true };
        let grouped = group(&[vec![View::Center], vec![View::Whole, corner], vec![View::Center, View::Hflip]]);
        assert_eq!(grouped.views, [View::Center, View::Whole, corner, View::Hflip]);
        assert_eq!(grouped.columns, [vec![0], vec![1, 2], vec![0, 3]]);
        let expected = [(vec![0], vec![0, 2]), (vec![1, 2], vec![1]), (vec![3], vec![2])];
        assert_eq!(grouped.passes, expected);
    }

    #[test]
    fn views_multiply_the_vectors() {
        assert_eq!(row_shape(&[512], 1), [512]);
        assert_eq!(row_shape(&[512], 5), [5, 512]);
        assert_eq!(row_shape(&[49, 512], 5), [245, 512]);
    }
}
