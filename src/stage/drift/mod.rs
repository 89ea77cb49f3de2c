//! `icecap drift`: how far two columns are from each other, row by row where they can be compared so, and as a whole.
//!
//! Two columns of one width are compared vector against vector: the cosine of a row is that of all its numbers, or of the means of its
//! vectors where one column has more vectors than the other. Columns of different widths (layers, encoders) have no common axes: of them only
//! lengths are compared, and what they agree on about which pictures are alike ([`Cka`]). Rows are read once, in order, and a few numbers a row
//! are kept.

mod cka;
mod rows;

use std::path::{Path, PathBuf};

use anyhow::Result;
use icecap_cache::{Cache, ColumnReader};
use rayon::prelude::*;
use serde::Serialize;

pub use cka::Cka;
use rows::{How, Rows, Scratch};

use crate::progress::Progress;

/// Rows that [`Cka`] is computed of, at most: the work grows with their square.
pub const SAMPLE: usize = 1000;
/// Rows named among the worst.
const WORST: usize = 5;
/// Bytes of a column that a task reads before it lets go of them.
const TASK_BYTES: usize = 4 << 20;

/// How two columns compare.
#[derive(Debug, Serialize)]
pub struct DriftReport {
    /// The columns.
    pub columns: [Side; 2],
    /// Rows that both have.
    pub rows: usize,
    /// `rows`: all numbers of a row; `means`: the mean of its vectors; `none`: the widths differ.
    pub compared: &'static str,
    /// What was found, where they can be compared.
    pub pairs: Option<Pairs>,
    /// Likeness of the whole, over [`SAMPLE`] rows at most; `None` for fewer than 4 rows.
    pub cka: Option<Cka>,
}

/// One of the two.
#[derive(Debug, Serialize)]
pub struct Side {
    /// The cache's folder.
    pub cache: PathBuf,
    /// The column.
    pub column: String,
    /// The shape of a row.
    pub shape: Vec<usize>,
    /// The element type.
    pub dtype: String,
    /// Where it was computed, where that is recorded.
    pub device: Option<String>,
    /// Rows with an embedding that the other lacks.
    pub alone: usize,
    /// The mean length of what is compared: of a row, or of the mean of its vectors.
    pub mean_norm: f64,
}

/// Row against row.
#[derive(Debug, Serialize)]
pub struct Pairs {
    /// Rows whose numbers are all the same.
    pub identical: usize,
    /// The cosines.
    pub cosine: Spread,
    /// The second's length by the first's.
    pub norm_ratio: Spread,
    /// The largest difference of two numbers, and the row's id.
    pub max_difference: (f32, String),
    /// The rows with the smallest cosines.
    pub worst: Vec<(String, f32)>,
}

/// Numbers, one a row, in five.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Their mean.
    pub mean: f64,
    /// The smallest.
    pub min: f32,
    /// A hundredth is smaller.
    pub p1: f32,
    /// A twentieth is smaller.
    pub p5: f32,
    /// Half are smaller.
    pub p50: f32,
    /// The largest.
    pub max: f32,
}

/// The columns have no row in common.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{one}` and `{two}` have no picture in common\nhint: rows are the same where their ids are: compare columns of one data set"
)]
pub struct NothingInCommon {
    /// One column.
    pub one: String,
    /// The other.
    pub two: String,
}

/// A column by its name in `cache`, or as `CACHE:COLUMN`.
fn named(cache: &Path, name: &str) -> (PathBuf, String) {
    match name.rsplit_once(':') {
        Some((other, column)) => (PathBuf::from(other), column.to_owned()),
        None => (cache.to_owned(), name.to_owned()),
    }
}

fn open(cache: &Path, name: &str) -> Result<(PathBuf, Cache, ColumnReader)> {
    let (folder, column) = named(cache, name);
    let cache = Cache::open(&folder)?;
    let reader = cache.column(&column)?;
    Ok((folder, cache, reader))
}

/// Compares two columns: names in `cache`, or `CACHE:COLUMN` of another one.
///
/// # Errors
/// Where a column can't be opened, or they have no picture in common.
pub fn drift(cache: &Path, one: &str, two: &str, progress: &dyn Progress) -> Result<DriftReport> {
    let (first_folder, first_cache, first) = open(cache, one)?;
    let (second_folder, second_cache, second) = open(cache, two)?;
    let common = common(&first_cache, &second_cache, &first, &second);
    if common.is_empty() {
        return Err(NothingInCommon { one: one.to_owned(), two: two.to_owned() }.into());
    }
    let how = How::of(first.row_shape(), second.row_shape());
    let sides = [Rows::new(&first, how), Rows::new(&second, how)];
    progress.start("compare", Some(common.len() as u64));
    let compared: Vec<Compared> = common
        .par_chunks((TASK_BYTES / first.row_bytes().max(second.row_bytes())).max(1))
        .flat_map_iter(|pairs| {
            let compared = compare(&sides, pairs);
            sides[0].release(pairs.iter().map(|pair| pair.0));
            sides[1].release(pairs.iter().map(|pair| pair.1));
            progress.advance(pairs.len() as u64);
            compared
        })
        .collect();
    progress.finish();
    let sample: Vec<(u32, u32)> = spread_evenly(&common, SAMPLE);
    let id = |at: usize| first_cache.rows().id(common[at].0);
    let side = |folder: PathBuf, reader: &ColumnReader, norm: fn(&Compared) -> f32| Side {
        cache: folder,
        column: reader.name().to_owned(),
        shape: reader.row_shape().to_vec(),
        dtype: reader.dtype().to_string(),
        device: reader.manifest().and_then(|manifest| Some(manifest.provenance.get("device")?.as_str()?.to_owned())),
        alone: reader.len() as usize - reader.missing_rows().len() - common.len(),
        mean_norm: mean(compared.iter().map(norm)),
    };
    Ok(DriftReport {
        rows: common.len(),
        compared: how.name(),
        pairs: (how != How::Unlike).then(|| pairs(&compared, &id)),
        cka: cka::of(&sides, &sample),
        columns: [side(first_folder, &first, |row| row.norms[0]), side(second_folder, &second, |row| row.norms[1])],
    })
}

/// The rows that both columns have, as pairs, in the first's order. In one cache a row is itself; else its id tells.
fn common(one: &Cache, two: &Cache, first: &ColumnReader, second: &ColumnReader) -> Vec<(u32, u32)> {
    let same = one.folder() == two.folder();
    let other = |row: u32| if same { Some(row) } else { two.rows().find(&one.rows().id(row)) };
    let pair = |row: u32| first.is_present(row).then(|| other(row)).flatten().map(|other| (row, other));
    (0..first.len()).into_par_iter().filter_map(pair).filter(|pair| second.is_present(pair.1)).collect()
}

/// What is kept of a row.
#[derive(Debug, Clone, Copy)]
struct Compared {
    cosine: f32,
    norms: [f32; 2],
    difference: f32,
}

fn compare(sides: &[Rows<'_>; 2], pairs: &[(u32, u32)]) -> Vec<Compared> {
    let mut scratch = [Scratch::default(), Scratch::default()];
    let mut one = |pair: &(u32, u32)| {
        let [first, second] = &mut scratch;
        compare_row(sides[0].numbers(pair.0, first), sides[1].numbers(pair.1, second))
    };
    pairs.iter().map(&mut one).collect()
}

fn compare_row(one: &[f32], two: &[f32]) -> Compared {
    let (mut dot, mut squares, mut difference) = (0.0_f64, [0.0_f64; 2], 0.0_f32);
    for (a, b) in one.iter().zip(two) {
        dot += f64::from(*a) * f64::from(*b);
        // What is no number is as far from any other as can be; two infinities are one.
        let apart = if a.to_bits() == b.to_bits() || a == b { 0.0 } else { (a - b).abs() };
        difference = difference.max(if apart.is_nan() { f32::INFINITY } else { apart });
    }
    for (square, numbers) in squares.iter_mut().zip([one, two]) {
        *square = numbers.iter().map(|number| f64::from(*number).powi(2)).sum();
    }
    let norms = squares.map(f64::sqrt);
    // Two rows of zeros are alike, and one of them is like nothing else; nor is a row with what is no number.
    let cosine = match norms {
        [0.0, 0.0] => 1.0,
        _ if norms[0] * norms[1] == 0.0 || !(norms[0] * norms[1]).is_finite() => 0.0,
        _ => (dot / (norms[0] * norms[1])).clamp(-1.0, 1.0),
    };
    Compared { cosine: cosine as f32, norms: norms.map(|norm| norm as f32), difference }
}

fn pairs(compared: &[Compared], id: &dyn Fn(usize) -> String) -> Pairs {
    let mut order: Vec<usize> = (0..compared.len()).collect();
    order.sort_by(|a, b| compared[*a].cosine.total_cmp(&compared[*b].cosine));
    let largest = (0..compared.len()).max_by(|a, b| compared[*a].difference.total_cmp(&compared[*b].difference));
    let ratios = compared
        .iter()
        .filter(|row| row.norms[0] > 0.0 && row.norms.iter().all(|norm| norm.is_finite()))
        .map(|row| row.norms[1] / row.norms[0]);
    Pairs {
        identical: compared.iter().filter(|row| row.difference == 0.0).count(),
        cosine: Spread::of(compared.iter().map(|row| row.cosine).collect()),
        norm_ratio: Spread::of(ratios.collect()),
        max_difference: largest.map_or((0.0, String::new()), |at| (compared[at].difference, id(at))),
        worst: order.iter().take(WORST).map(|at| (id(*at), compared[*at].cosine)).collect(),
    }
}

fn mean(numbers: impl ExactSizeIterator<Item = f32>) -> f64 {
    let count = numbers.len().max(1) as f64;
    numbers.map(f64::from).sum::<f64>() / count
}

impl Spread {
    /// Percentiles are those of the nearest rank.
    fn of(mut numbers: Vec<f32>) -> Self {
        numbers.sort_by(f32::total_cmp);
        let last = numbers.len().saturating_sub(1);
        let at = |share: f64| numbers.get((share * last as f64).round() as usize).copied().unwrap_or(f32::NAN);
        let (min, p1, p5, p50, max) = (at(0.0), at(0.01), at(0.05), at(0.5), at(1.0));
        Self { mean: mean(numbers.into_iter()), min, p1, p5, p50, max }
    }
}

/// At most `most` of `all`, evenly.
fn spread_evenly<T: Copy>(all: &[T], most: usize) -> Vec<T> {
    let count = all.len().min(most);
    (0..count).map(|at| all[at * all.len() / count]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_against_a_row() {
        let half = compare_row(&[1.0, 0.0, 2.0], &[2.0, 0.0, 4.0]);
        assert_eq!((half.cosine, half.difference, half.norms[1] / half.norms[0]), (1.0, 2.0, 2.0));
        assert_eq!(compare_row(&[1.0, 0.0], &[0.0, 1.0]).cosine, 0.0);
        assert_eq!(compare_row(&[1.0, 1.0], &[-1.0, -1.0]).cosine, -1.0);
        assert_eq!(compare_row(&[0.0; 2], &[0.0; 2]).cosine, 1.0);
        assert_eq!(compare_row(&[0.0; 2], &[1.0; 2]).cosine, 0.0);
        let (none, infinite) = (f32::NAN, f32::INFINITY);
        for (one, two) in [([none, 1.0], [1.0, 1.0]), ([1.0, 1.0], [1.0, none]), ([infinite, 1.0], [0.0, 1.0])] {
            let found = compare_row(&one, &two);
            assert_eq!((found.cosine, found.difference), (0.0, infinite));
        }
        assert_eq!(compare_row(&[none, infinite], &[none, infinite]).difference, 0.0);
    }

    #[test]
    fn a_spread_is_five_numbers() {
        let spread = Spread::of((0..=100).rev().map(|n| n as f32).collect());
        assert_eq!(
            (spread.min, spread.p1, spread.p5, spread.p50, spread.max, spread.mean),
            (0.0, 1.0, 5.0, 50.0, 100.0, 50.0)
        );
        assert_eq!(Spread::of(vec![3.0]).p1, 3.0);
    }

    #[test]
    fn columns_are_named_in_two_ways() {
        assert_eq!(named(Path::new("c"), "grid"), (PathBuf::from("c"), "grid".to_owned()));
        assert_eq!(named(Path::new("c"), "a/b:grid"), (PathBuf::from("a/b"), "grid".to_owned()));
        insta::assert_snapshot!(NothingInCommon { one: "a".into(), two: "b:c".into() }, @r"
        `a` and `b:c` have no picture in common
        hint: rows are the same where their ids are: compare columns of one data set
        ");
    }

    #[test]
    fn a_sample_is_spread_over_all() {
        let all: Vec<u32> = (0..10).collect();
        assert_eq!(spread_evenly(&all, 5), [0, 2, 4, 6, 8]);
        assert_eq!(spread_evenly(&all, 20), all);
        assert!(spread_evenly::<u32>(&[], 5).is_empty());
    }
}
