//! `icecap cache verify --recompute`: rows encoded again and compared with those that are kept.
//!
//! Digests tell that bytes are as they were written; this tells that they were written right, and that recipe, model and pictures
//! are still those that the column was made of. A column's provenance holds its recipe, so nothing needs to be named.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;

use anyhow::Result;
use icecap_cache::{Cache, ColumnReader, KeyDifference};
use serde::Serialize;

use super::{
    numbers::numbers,
    probe::{ProbeOptions, Probed, probe},
};
use crate::{
    batch::random::SplitMix,
    dataset::{self, Item},
    progress::Progress,
    recipe::Recipe,
};

/// Rows of another provider, or other kernels, differ in their last bits; below this they are other rows.
pub const LEAST_COSINE: f64 = 0.9999;

/// What encoding rows again has shown.
#[derive(Debug, Serialize)]
pub struct RecomputeReport {
    /// The column.
    pub column: String,
    /// Rows compared.
    pub rows: usize,
    /// Rows whose bytes are the same.
    pub identical: usize,
    /// The smallest cosine of those that are not, times the ratio of their lengths where that is below 1, and the row's id. It is 0
    /// where boxes, scores, labels or count are other ones, or a number is none.
    pub least_cosine: Option<(f64, String)>,
    /// Pictures that are no longer those that were encoded, by their content hash.
    pub changed: usize,
    /// Pictures that are no longer there, or cannot be read.
    pub gone: usize,
    /// Where the column was encoded, and where now.
    pub devices: [String; 2],
}

impl RecomputeReport {
    /// Whether every row compared is the row that is kept.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.least_cosine.as_ref().is_none_or(|(cosine, _)| *cosine >= LEAST_COSINE)
    }
}

/// A column can't be encoded again.
#[derive(Debug, thiserror::Error)]
pub enum RecomputeError {
    /// It says not how.
    #[error("column `{column}` doesn't say by which recipe it was encoded{}\nhint: name the recipe with --recipe", imported.as_ref().map_or_else(String::new, |from| format!(": it was imported from `{from}`")))]
    NoRecipe {
        /// The column.
        column: String,
        /// Where it was imported from.
        imported: Option<String>,
    },
    /// The recipe lacks it.
    #[error("the recipe has no column `{column}`\nhint: name the recipe that the column was encoded by")]
    NotInRecipe {
        /// The column.
        column: String,
    },
    /// The recipe makes another column now.
    #[error(
        "column `{column}` can't be compared: the recipe makes another one now\n{}\nhint: the model's file or the recipe has changed since; name the old ones with --recipe and --data",
        lines(differences)
    )]
    OtherKey {
        /// The column.
        column: String,
        /// The fields that differ: expected is what the recipe makes, found is in the cache.
        differences: Vec<KeyDifference>,
    },
}

fn lines(differences: &[KeyDifference]) -> String {
    differences.iter().map(|difference| format!("  {difference}")).collect::<Vec<_>>().join("\n")
}

/// Encodes up to `count` rows of a column again, chosen at random, and compares them.
///
/// # Errors
/// [`RecomputeError`], or where the data set or the encoder can't be used.
pub fn recompute(
    cache: &Path,
    column: &str,
    count: usize,
    recipe: Option<&Path>,
    options: &ProbeOptions,
    progress: &dyn Progress,
) -> Result<RecomputeReport> {
    let cache = Cache::open(cache)?;
    let reader = cache.column(column)?;
    let recipe = recipe_of(&reader, recipe)?;
    let rows = draw(&reader, count);
    let by_id: HashMap<String, u32> = rows.iter().map(|row| (cache.rows().id(*row), *row)).collect();
    let dataset = dataset::load(&recipe.dataset, &options.data)?;
    let items: Vec<Item> = dataset.items.into_iter().filter(|item| by_id.contains_key(&item.id)).collect();
    let mut report = RecomputeReport {
        column: reader.name().to_owned(),
        rows: 0,
        identical: 0,
        least_cosine: None,
        changed: 0,
        gone: rows.len() - items.len(),
        devices: [device(&reader), options.devices.to_string()],
    };
    if items.is_empty() {
        return Ok(report);
    }
    let probed = probe(&recipe, items, options, progress)?;
    let again = probed.cache.column(reader.name())?;
    if again.key() != reader.key() {
        let differences = again.key().diff(reader.key());
        return Err(RecomputeError::OtherKey { column: column.to_owned(), differences }.into());
    }
    compare(&reader, &again, &probed, &by_id, &mut report);
    Ok(report)
}

/// The recipe that a column was encoded by, of this column alone.
fn recipe_of(reader: &ColumnReader, named: Option<&Path>) -> Result<Recipe> {
    let column = || reader.name().to_owned();
    let provenance = reader.manifest().map(|manifest| &manifest.provenance);
    let text = |field: &str| provenance.and_then(|provenance| provenance.get(field)?.as_str().map(str::to_owned));
    let mut recipe = match (named, text("recipe")) {
        (Some(path), _) => Recipe::load(path, &[])?,
        (None, Some(recipe)) => Recipe::parse(&recipe, &format!("the recipe of column `{}`", reader.name()), &[])?,
        (None, None) => return Err(RecomputeError::NoRecipe { column: column(), imported: text("imported") }.into()),
    };
    recipe.columns.retain(|own| own.name == reader.name());
    if recipe.columns.is_empty() {
        return Err(RecomputeError::NotInRecipe { column: column() }.into());
    }
    Ok(recipe)
}

fn device(reader: &ColumnReader) -> String {
    let device = reader.manifest().and_then(|manifest| Some(manifest.provenance.get("device")?.as_str()?.to_owned()));
    device.unwrap_or_else(|| "unknown".to_owned())
}

/// Up to `count` rows that are present, other ones each time.
fn draw(reader: &ColumnReader, count: usize) -> Vec<u32> {
    let mut rows: Vec<u32> = (0..reader.len()).filter(|row| reader.is_present(*row)).collect();
    SplitMix::new(RandomState::new().hash_one(count)).shuffle(&mut rows);
    rows.truncate(count);
    rows.sort_unstable();
    rows
}

fn compare(
    kept: &ColumnReader,
    again: &ColumnReader,
    probed: &Probed,
    by_id: &HashMap<String, u32>,
    report: &mut RecomputeReport,
) {
    for row in 0..again.len() {
        let id = probed.cache.rows().id(row);
        let Some(&old) = by_id.get(&id) else { continue };
        if kept.content(old).zip(again.content(row)).is_some_and(|(kept, again)| kept != again) {
            report.changed += 1;
        } else if !again.is_present(row) {
            report.gone += 1;
        } else {
            report.rows += 1;
            if (0..kept.tensors().len()).all(|tensor| kept.row_of(tensor, old) == again.row_of(tensor, row)) {
                report.identical += 1;
                continue;
            }
            let cosine = likeness(kept, old, again, row);
            if report.least_cosine.as_ref().is_none_or(|(least, _)| cosine < *least) {
                report.least_cosine = Some((cosine, id));
            }
        }
    }
}

/// By how much a number beside the embedding may differ: boxes in pixels, scores; labels and counts not at all.
fn tolerance(tensor: &str) -> f32 {
    match tensor {
        "boxes" => 0.5,
        "scores" => 1e-3,
        _ => 0.0,
    }
}

/// How like two rows are: 1 for the same, 0 for others.
fn likeness(kept: &ColumnReader, old: u32, again: &ColumnReader, row: u32) -> f64 {
    let (mut one, mut two) = (Vec::new(), Vec::new());
    for (tensor, spec) in kept.tensors().iter().enumerate().skip(1) {
        numbers(kept, tensor, old, &mut one);
        numbers(again, tensor, row, &mut two);
        // The scale of i8 rows is in their numbers already.
        let most = if spec.name == "scale" { f32::INFINITY } else { tolerance(&spec.name) };
        if one.len() != two.len() || !one.iter().zip(&two).all(|(a, b)| (a - b).abs() <= most) {
            return 0.0;
        }
    }
    numbers(kept, 0, old, &mut one);
    numbers(again, 0, row, &mut two);
    likeness_of(&one, &two)
}

fn likeness_of(one: &[f32], two: &[f32]) -> f64 {
    let dot = |one: &[f32], two: &[f32]| one.iter().zip(two).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let lengths = [dot(one, one).sqrt(), dot(two, two).sqrt()];
    let (longer, scale) = (lengths[0].max(lengths[1]), lengths[0] * lengths[1]);
    let likeness = dot(one, two) / scale * (lengths[0].min(lengths[1]) / longer);
    // What is no number is like nothing.
    if likeness.is_finite() { likeness } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_length_is_another_row() {
        assert!((likeness_of(&[3.0, 4.0], &[3.0, 4.0]) - 1.0).abs() < 1e-9);
        assert!((likeness_of(&[3.0, 4.0], &[6.0, 8.0]) - 0.5).abs() < 1e-9);
        assert_eq!(likeness_of(&[3.0, f32::NAN], &[3.0, 4.0]), 0.0);
        assert_eq!(likeness_of(&[0.0, 0.0], &[3.0, 4.0]), 0.0);
    }

    #[test]
    fn messages() {
        let column = || "grid7".to_owned();
        let encoded = RecomputeError::NoRecipe { column: column(), imported: None };
        let imported = RecomputeError::NoRecipe { column: column(), imported: Some("f.tsv".into()) };
        let difference =
            KeyDifference { field: "encoder.model".into(), expected: Some("a".into()), found: Some("b".into()) };
        let other = RecomputeError::OtherKey { column: column(), differences: vec![difference] };
        let all = [encoded, imported, RecomputeError::NotInRecipe { column: column() }, other];
        insta::assert_snapshot!(all.map(|error| error.to_string()).join("\n"), @r#"
        column `grid7` doesn't say by which recipe it was encoded
        hint: name the recipe with --recipe
        column `grid7` doesn't say by which recipe it was encoded: it was imported from `f.tsv`
        hint: name the recipe with --recipe
        the recipe has no column `grid7`
        hint: name the recipe that the column was encoded by
        column `grid7` can't be compared: the recipe makes another one now
          `encoder.model`: expected `"a"`, found `"b"`
        hint: the model's file or the recipe has changed since; name the old ones with --recipe and --data
        "#);
    }
}
