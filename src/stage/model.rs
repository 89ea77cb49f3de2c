//! From `[encoder]` to compiled encoders: finds or exports the ONNX file, reads what it says of itself, edits the graph.
//!
//! Columns of one recipe may look at different views of a picture. One decision defended: the passes are grouped by view, not
//! by column. Every view goes through the network once, whatever the number of columns that want it, in a graph that holds
//! only what they tap: a column of the plain picture costs nothing for the tiles of another one.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use icecap_cache::{Dtype, Key};
use serde_json::{Value, json};

use super::regions::RegionModel;
use crate::{
    encoder::{self, CompiledEncoder, Device, EncoderPlan, Precision},
    image::{Preprocess, Resize, View},
    progress::Progress,
    recipe::{ColumnSpec, DetectorSpec, EncoderSpec, ModelSource, Origin, Recipe, ResolvedEncoder},
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
    /// The detector, and the columns that have to do with it or with regions.
    pub regions: RegionModel,
    /// By column: its position among the encoder's own, that of its tap in the plan.
    own: Vec<Option<usize>>,
}

/// What a model is made of: the sections of a recipe, and where its paths start.
pub struct Spec<'a> {
    /// `[encoder]`
    pub encoder: &'a EncoderSpec,
    /// `[detector]`
    pub detector: Option<&'a DetectorSpec>,
    /// Every `[[column]]`.
    pub columns: &'a [ColumnSpec],
    /// The data folder.
    pub data: &'a Path,
}

impl<'a> Spec<'a> {
    /// The sections of `recipe`, whose paths start at `data`.
    #[must_use]
    pub fn of(recipe: &'a Recipe, data: &'a Path) -> Self {
        Self { encoder: &recipe.encoder, detector: recipe.detector.as_ref(), columns: &recipe.columns, data }
    }
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
    /// Bytes of one view's part of a row as the encoder gives it: `f32` where the column is i8. Those of the row for a column of the
    /// detector, which has no views.
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
        self.views.len().max(1) * self.view_bytes
    }

    /// Whether its rows are quantised on their way into the shard.
    #[must_use]
    pub fn is_scaled(&self) -> bool {
        self.dtype == Dtype::I8
    }
}

impl Model {
    /// Makes the models of a recipe ready, with its columns as their outputs.
    ///
    /// # Errors
    /// Where a file isn't there or can't be exported, or the columns don't fit the graph.
    pub fn prepare(spec: &Spec<'_>, python: Option<&Path>, progress: &dyn Progress) -> Result<Self> {
        let source = spec.encoder.source(spec.data);
        export_if_absent(&source, python, progress)?;
        let detector = spec.detector.map(|detector| detector.source(spec.encoder, spec.data));
        if let Some(source) = &detector {
            export_if_absent(source, python, progress)?;
        }
        Self::open(spec, source.path(), detector.as_ref().map(ModelSource::path))
    }

    /// The same with the ONNX files at `path` and `detector`, which must be there.
    ///
    /// # Errors
    /// As [`Model::prepare`].
    pub fn open(spec: &Spec<'_>, path: &Path, detector: Option<&Path>) -> Result<Self> {
        let metadata = encoder::read_metadata(path)?;
        let own: Vec<usize> = (0..spec.columns.len()).filter(|&at| spec.columns[at].from == Origin::Encoder).collect();
        let columns: Vec<ColumnSpec> = own.iter().map(|&at| spec.columns[at].clone()).collect();
        let mut resolved = spec.encoder.resolve(&columns, path, metadata.as_ref())?;
        resolved.preprocess.validate()?;
        check_room(&columns, &resolved)?;
        let regions = RegionModel::open(spec.columns, spec.detector.zip(detector), resolved.plan.batch, spec.data)?;
        for (tap, &at) in resolved.plan.taps.iter_mut().zip(&own) {
            tap.regions = regions.aligned(at);
        }
        let grouped = group(&resolved.views);
        let compile = |(views, columns): (Vec<usize>, Vec<usize>)| -> Result<Pass> {
            let taps = columns.iter().map(|&column| resolved.plan.taps[column].clone()).collect();
            let compiled = encoder::compile(path, &EncoderPlan { taps, ..resolved.plan.clone() })?;
            Ok(Pass { compiled, views, columns: columns.into_iter().map(|column| own[column]).collect() })
        };
        let passes = grouped.passes.into_iter().map(compile).collect::<Result<Vec<_>>>()?;
        let own: Vec<Option<usize>> = (0..spec.columns.len()).map(|at| own.iter().position(|own| *own == at)).collect();
        let of = |at: usize| match own[at] {
            Some(tap) => column(&passes, at, grouped.columns[tap].clone(), resolved.plan.taps[tap].dtype),
            None => detector_column(&spec.columns[at], regions.detector_shape(at).unwrap_or_default()),
        };
        let columns = (0..spec.columns.len()).map(of).collect();
        Ok(Self { path: path.to_owned(), resolved, views: grouped.views, passes, columns, regions, own })
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
        let mut fields = self.own[column].map_or_else(Vec::new, |tap| self.encoder_fields(tap));
        fields.extend(self.regions.key_fields(column, &self.resolved.preprocess));
        fields.into_iter().fold(Key::new(), |key, (field, value)| key.with(field, value))
    }

    fn encoder_fields(&self, tap: usize) -> Vec<(String, Value)> {
        let plan = &self.resolved.plan;
        let mut fields = encoder::key_fields(self.model_digest(), plan, &plan.taps[tap]);
        fields.extend(Preprocess::key_fields(&self.resolved.preprocess));
        let views = &self.resolved.views[tap];
        // A column of the plain picture keeps the key it had before there were others.
        if views[..] != [View::Center] {
            let views: Vec<String> = views.iter().map(ToString::to_string).collect();
            fields.push(("image.views".to_owned(), json!(views)));
        }
        fields
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

/// What a column of the detector is made of.
fn detector_column(spec: &ColumnSpec, row_shape: Vec<usize>) -> ModelColumn {
    let given = if spec.dtype == Dtype::I8 { Dtype::F32 } else { spec.dtype };
    let view_bytes = row_shape.iter().product::<usize>() * given.size_bytes();
    ModelColumn { name: spec.name.clone(), views: Vec::new(), row_shape, dtype: spec.dtype, view_bytes }
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
