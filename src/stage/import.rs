//! `icecap cache import`: features that others have computed become a column.
//!
//! A picture of the source that is no row is left out, a row that the source lacks is missing: nothing is invented. The column's key
//! holds the digest of the source, so that a second import of the same files is recognised and one of other files refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result};
use icecap_cache::{
    Batch, Cache, ColumnSpec, ColumnState, ColumnWriter, Dtype, Key, Overwrite, Reason, RowOutcome, RowRecord,
};
use rayon::prelude::*;
use serde::Serialize;
use serde_json::json;

use super::{
    numbers::{Extent, narrow},
    register::{refuse_other_data_set, register, tell_changes},
    work::check_missing,
};
use crate::{
    dataset,
    foreign::{self, ForeignError, Matcher, Row, Shape, Source, SourceOptions},
    progress::Progress,
    recipe::Recipe,
};

/// Version of what an import makes of a source's bytes: goes into the key.
const IMPLEMENTATION: u32 = 1;
/// Rows a batch: one task of a thread.
const BATCH_ROWS: u32 = 16;
/// Names shown of those that were not matched.
const SHOWN: usize = 3;

/// What `icecap cache import` is told.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// The cache's folder; made where it isn't there.
    pub cache: PathBuf,
    /// The column's name.
    pub column: String,
    /// Where the features are, and how.
    pub source: SourceOptions,
    /// The embedding's element type.
    pub dtype: Dtype,
    /// A recipe whose data set the rows are brought in line with first.
    pub recipe: Option<PathBuf>,
    /// Where the recipe's paths start.
    pub data: PathBuf,
    /// Drop columns of the same name and another key.
    pub overwrite: bool,
    /// The share of rows without features that is still a success.
    pub max_missing: f64,
}

/// What an import did.
#[derive(Debug, Serialize)]
pub struct ImportReport {
    /// The column.
    pub column: String,
    /// Rows of the cache.
    pub rows: u32,
    /// Pictures that the source has.
    pub pictures: usize,
    /// Pictures of the source that are no row, and were left out.
    pub unmatched: usize,
    /// The tensors of a row, with their shapes.
    pub tensors: Vec<(String, Vec<usize>)>,
    /// The embedding's element type.
    pub dtype: String,
    /// Bytes of all shards.
    pub bytes: u64,
    /// Rows without features, by reason.
    pub missing: BTreeMap<String, u32>,
    /// The largest difference that rounding to the dtype made, where this run wrote rows.
    pub rounding: f32,
    /// The largest number of the source, by absolute value.
    pub largest: f32,
}

/// No picture of the source is a row.
#[derive(Debug, thiserror::Error)]
#[error(
    "none of the {pictures} pictures of `{}` is a row of the cache: there they are called {names}, here {ids}\nhint: pictures are matched by id, then by file \
     name without folder and extension, then by COCO's number; name the right data set with --dataset", from.display()
)]
pub struct NoMatch {
    /// The source.
    pub from: PathBuf,
    /// Its pictures.
    pub pictures: usize,
    /// Some of their names.
    pub names: String,
    /// Some of the rows' ids.
    pub ids: String,
}

/// The source lacks too many rows.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{}` lacks the features of {missing} of {rows} rows, more than the {allowed} that --max-missing allows\nhint: name all of the files, or the data \
     set that they are of; or allow more, for example --max-missing {enough}%", from.display()
)]
pub struct Lacking {
    /// The source.
    pub from: PathBuf,
    /// Rows without features.
    pub missing: u32,
    /// All rows.
    pub rows: u32,
    /// What was allowed.
    pub allowed: String,
    /// What would be enough, in per cent.
    pub enough: u64,
}

/// Imports a source.
///
/// # Errors
/// [`ForeignError`] with file and line, [`NoMatch`], [`Lacking`], or where the cache can't be used. What was done stays, and is not done again.
pub fn import(options: &ImportOptions, progress: &dyn Progress) -> Result<ImportReport> {
    let source = foreign::open(&options.source, progress)?;
    let cache = rows_for(&*source, options, progress)?;
    let pictures = matched(&*source, &cache, &options.source.from)?;
    let spec = spec(&*source, options);
    drop_broken_off(&cache, &spec)?;
    let writer = cache.writer(&spec, if options.overwrite { Overwrite::Yes } else { Overwrite::No })?;
    let job =
        Job { source: &*source, shapes: source.shapes(), pictures: &pictures, dtype: options.dtype, writer: &writer };
    let extent = job.run(progress)?;
    check_missing(&writer, options.max_missing).map_err(|missing| Lacking {
        from: options.source.from.clone(),
        missing: missing.missing,
        rows: missing.rows,
        allowed: missing.allowed,
        enough: missing.enough,
    })?;
    let manifest = writer.finish().with_context(|| format!("the column `{}` was not finished", options.column))?;
    let matched = pictures.iter().flatten().count();
    Ok(ImportReport {
        column: options.column.clone(),
        rows: cache.rows().len(),
        pictures: source.names().len(),
        unmatched: source.names().len() - matched,
        tensors: spec.tensors.iter().map(|tensor| (tensor.name.clone(), tensor.row_shape.clone())).collect(),
        dtype: options.dtype.to_string(),
        bytes: manifest.bytes(),
        missing: manifest.missing.by_reason,
        rounding: extent.rounding,
        largest: extent.largest,
    })
}

/// The cache with the rows to fill: those of a data set, those it has, else one for each picture of the source.
fn rows_for(source: &dyn Source, options: &ImportOptions, progress: &dyn Progress) -> Result<Cache> {
    if let Some(path) = &options.recipe {
        let recipe = Recipe::load(path, &[])?;
        let dataset = dataset::load(&recipe.dataset, &options.data)?;
        let description = json!({ "name": dataset.name, "recipe": recipe.dataset });
        let mut cache = Cache::create_or_open(&options.cache, &description)?;
        refuse_other_data_set(&cache, &dataset, &description)?;
        let changes = register(&mut cache, &dataset, progress)?;
        tell_changes(&changes, cache.rows().len(), progress);
        return Ok(cache);
    }
    let name = options.source.from.file_stem().unwrap_or_default().to_string_lossy();
    let mut cache = Cache::create_or_open(&options.cache, &json!({ "name": name }))?;
    if cache.rows().is_empty() {
        let record = |name: &String| RowRecord { id: name.clone(), source: name.clone(), ..RowRecord::default() };
        cache.sync_rows(source.names().iter().map(record))?;
    }
    Ok(cache)
}

/// For each row of the cache, the picture of the source.
fn matched(source: &dyn Source, cache: &Cache, from: &Path) -> Result<Vec<Option<usize>>> {
    let rows = cache.rows();
    let matcher = Matcher::new((0..rows.len()).map(|row| rows.id(row)));
    let mut pictures: Vec<Option<usize>> = vec![None; rows.len() as usize];
    for (picture, name) in source.names().iter().enumerate() {
        let Some(row) = matcher.find(name)? else { continue };
        if let Some(first) = pictures[row as usize].replace(picture) {
            let (first, second) = (source.place(first), source.place(picture));
            return Err(ForeignError::Twice { name: rows.id(row), first, second }.into());
        }
    }
    if pictures.iter().all(Option::is_none) {
        let list = |names: &mut dyn Iterator<Item = String>| {
            names.take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        };
        let names = list(&mut source.names().iter().cloned());
        let ids = list(&mut (0..rows.len()).map(|row| rows.id(row)));
        return Err(NoMatch { from: from.to_owned(), pictures: source.names().len(), names, ids }.into());
    }
    Ok(pictures)
}

fn spec(source: &dyn Source, options: &ImportOptions) -> ColumnSpec {
    let shapes = source.shapes();
    let mut key = Key::new()
        .with("import.format", options.source.format.name())
        .with("import.source", source.digest())
        .with("import.dtype", options.dtype.name())
        .with("import.shape", json!(shapes[0].dimensions))
        .with("import.version", IMPLEMENTATION);
    if options.source.format == foreign::Format::Npz {
        key.set("import.array", options.source.array.as_str());
    }
    let spec = ColumnSpec::new(&options.column, key, options.dtype, shapes[0].dimensions.clone());
    let spec =
        shapes[1..].iter().fold(spec, |spec, shape| spec.with_tensor(shape.name, Dtype::F32, shape.dimensions.clone()));
    let provenance = json!({ "icecap": env!("CARGO_PKG_VERSION"), "imported": options.source.from });
    spec.with_batch_rows(BATCH_ROWS).with_provenance(provenance)
}

/// Drops what an import of other files has left unfinished under the name: whoever has mended a source imports it again.
fn drop_broken_off(cache: &Cache, spec: &ColumnSpec) -> Result<()> {
    for info in cache.columns()?.into_iter().filter(|info| info.name == spec.name) {
        let ColumnState::Unfinished(unfinished) = info.state else { continue };
        if unfinished.column.key != spec.key && unfinished.column.key.get("import.source").is_some() {
            cache.drop_column(&info.folder)?;
        }
    }
    Ok(())
}

struct Job<'a> {
    source: &'a dyn Source,
    shapes: Vec<Shape>,
    pictures: &'a [Option<usize>],
    dtype: Dtype,
    writer: &'a ColumnWriter,
}

impl Job<'_> {
    /// Reads and commits all batches, on all cores.
    fn run(&self, progress: &dyn Progress) -> Result<Extent> {
        progress.start("import", Some(u64::from(self.writer.progress().todo)));
        let spare = Mutex::new(Vec::new());
        let batch = |batch: &Batch| -> Result<Extent> {
            let mut row =
                spare.lock().ok().and_then(|mut spare| spare.pop()).unwrap_or_else(|| Row::zeros(&self.shapes));
            let extent = self.batch(batch, &mut row)?;
            progress.advance(batch.rows.len() as u64);
            if let Ok(mut spare) = spare.lock() {
                spare.push(row);
            }
            Ok(extent)
        };
        let all = self.writer.todo_batches().par_iter().map(batch);
        let extent = all.try_reduce(Extent::default, |one, two| Ok(one.and(two)));
        progress.finish();
        extent
    }

    fn batch(&self, batch: &Batch, row: &mut Row) -> Result<Extent> {
        let mut slot = self.writer.slot(batch)?;
        let mut extent = Extent::default();
        let mut outcomes = Vec::with_capacity(batch.rows.len());
        for &at in &batch.rows {
            let Some(picture) = self.pictures[at as usize] else {
                let detail = "the imported features lack this picture".to_owned();
                outcomes.push(RowOutcome::Missing { reason: Reason::NotFound, detail, content: None });
                continue;
            };
            self.source.read(picture, row)?;
            for (tensor, values) in row.tensors.iter().enumerate() {
                let target = slot.row_mut(tensor, at).unwrap_or_default();
                let dtype = if tensor == 0 { self.dtype } else { Dtype::F32 };
                let written = narrow(values, dtype, target);
                let too_large = |value| ForeignError::TooLarge { place: self.source.place(picture), value, dtype };
                let written = written.map_err(too_large)?;
                if tensor == 0 {
                    extent = extent.and(written);
                }
            }
            // No image was opened: its hash is not known.
            outcomes.push(RowOutcome::Present { content: [0; 16] });
        }
        self.writer.commit(slot, &outcomes)?;
        Ok(extent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_of_other_pictures_is_refused() {
        let error = NoMatch { from: "f.tsv".into(), pictures: 10, names: "`COCO_1`".into(), ids: "`a.jpg`".into() };
        insta::assert_snapshot!(error, @r"
        none of the 10 pictures of `f.tsv` is a row of the cache: there they are called `COCO_1`, here `a.jpg`
        hint: pictures are matched by id, then by file name without folder and extension, then by COCO's number; name the right data set with --dataset
        ");
    }
}
