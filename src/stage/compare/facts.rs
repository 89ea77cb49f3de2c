//! What a run cost and how it went: parameters, the bytes of its columns, speed, curves.
//!
//! Must not know scores of captions. Read from what the run's folder and its cache hold; what they don't hold is absent, never guessed. The time
//! that encoding took is not recorded, so its cost is counted in passes of the encoder an image.

use std::{fs, io::Read as _, path::Path};

use icecap_cache::Cache;
use serde::Serialize;
use serde_json::Value;

use crate::{
    recipe::ColumnSpec,
    stage::run::{Run, RunColumn},
};

/// A safetensors header is no longer than this.
const MOST_HEADER_BYTES: u64 = 100 << 20;
/// Points of a curve, at most.
const POINTS: usize = 160;

/// What a run cost.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Facts {
    /// Numbers in the checkpoint, those that are frozen included.
    pub parameters: Option<u64>,
    /// Bytes that an image takes in the run's columns.
    pub row_bytes: Option<u64>,
    /// Passes of the encoder that an image takes for them.
    pub passes: usize,
    /// Whether a detector looks at each image too.
    pub detector: bool,
    /// The median speed of the training, in tokens a second.
    pub tokens_per_second: Option<f64>,
    /// Seconds of training, validation left out.
    pub seconds: Option<f64>,
    /// Epochs trained.
    pub epochs: Option<f64>,
    /// The epoch of the best validation: that of the checkpoint.
    pub best_epoch: Option<f64>,
    /// Mean loss of training by epoch.
    #[serde(skip)]
    pub loss: Vec<(f64, f64)>,
    /// Score of validation by epoch.
    #[serde(skip)]
    pub score: Vec<(f64, f64)>,
}

impl Facts {
    /// All that is known of `run`, whose cache is `cache` where it is still there.
    pub(super) fn of(run: &Run, cache: Option<&Cache>) -> Self {
        let mut views = Vec::new();
        let of_run = |name: &str| run.info.columns.iter().any(|column| column.input.name == name);
        let columns = || run.recipe.columns.iter().filter(|column| of_run(&column.name));
        columns().flat_map(ColumnSpec::views).for_each(|view| {
            if !views.contains(&view) {
                views.push(view);
            }
        });
        let log = fs::read_to_string(run.folder.join("metrics.jsonl")).unwrap_or_default();
        Self {
            parameters: run.checkpoint().ok().and_then(|folder| parameters(&folder.join("model.safetensors"))),
            row_bytes: cache.and_then(|cache| row_bytes(run, cache)),
            passes: views.len(),
            detector: columns().any(ColumnSpec::needs_detector),
            ..Self::of_log(&log)
        }
    }

    fn of_log(log: &str) -> Self {
        let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let curve = |key: &str| {
            let point = |line: &Value| Some((line["epoch"].as_f64()?, line[key].as_f64()?));
            thinned(lines.iter().filter_map(point).collect())
        };
        let last = |key: &str| lines.iter().rev().find_map(|line| line[key].as_f64());
        let mut speeds: Vec<f64> = lines.iter().filter_map(|line| line["tokens_per_second"].as_f64()).collect();
        speeds.sort_by(f64::total_cmp);
        Self {
            tokens_per_second: speeds.get(speeds.len() / 2).copied(),
            seconds: last("seconds"),
            epochs: last("epoch"),
            best_epoch: lines.iter().rev().find(|line| line["best"] == true).and_then(|line| line["epoch"].as_f64()),
            loss: curve("loss"),
            score: curve("score"),
            ..Self::default()
        }
    }
}

/// Numbers in a safetensors file, by its header.
fn parameters(path: &Path) -> Option<u64> {
    let mut file = fs::File::open(path).ok()?;
    let mut length = [0; 8];
    file.read_exact(&mut length).ok()?;
    let length = Some(u64::from_le_bytes(length)).filter(|length| *length <= MOST_HEADER_BYTES)?;
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header).ok()?;
    let header: serde_json::Map<String, Value> = serde_json::from_slice(&header).ok()?;
    let count = |tensor: &Value| Some(tensor["shape"].as_array()?.iter().filter_map(Value::as_u64).product::<u64>());
    Some(header.iter().filter(|(name, _)| *name != "__metadata__").filter_map(|(_, tensor)| count(tensor)).sum())
}

fn row_bytes(run: &Run, cache: &Cache) -> Option<u64> {
    let of = |column: &RunColumn| {
        let reader = cache.column(&column.input.name).ok().filter(|reader| reader.plan().key_digest == column.key)?;
        Some(reader.tensors().iter().map(|tensor| tensor.row_bytes() as u64).sum::<u64>())
    };
    run.info.columns.iter().map(of).sum()
}

/// Every so many points, the last one always.
fn thinned(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let step = points.len().div_ceil(POINTS).max(1);
    let last = points.len().saturating_sub(1);
    let kept = |(at, point)| (at % step == 0 || at == last).then_some(point);
    points.into_iter().enumerate().filter_map(kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_says_how_the_training_went() {
        let log = "{\"epoch\":0.5,\"loss\":3.0,\"tokens_per_second\":100.0,\"seconds\":2.0,\"step\":5}\n\
            {\"epoch\":1.0,\"score\":40.0,\"best\":true,\"step\":10}\n\
            {\"epoch\":1.5,\"loss\":2.0,\"tokens_per_second\":300.0,\"seconds\":4.0,\"step\":15}\n\
            {\"epoch\":2.0,\"score\":39.0,\"best\":false,\"step\":20}\n{\"epoch\":2.5,\"lo";
        let facts = Facts::of_log(log);
        assert_eq!((facts.epochs, facts.best_epoch, facts.seconds), (Some(2.0), Some(1.0), Some(4.0)));
        assert_eq!(facts.tokens_per_second, Some(300.0));
        assert_eq!(facts.loss, [(0.5, 3.0), (1.5, 2.0)]);
        assert_eq!(facts.score, [(1.0, 40.0), (2.0, 39.0)]);
        assert_eq!(Facts::of_log("").epochs, None);
    }

    #[test]
    fn a_long_curve_keeps_its_ends() {
        let points: Vec<(f64, f64)> = (0..1001).map(|at| (f64::from(at), 0.0)).collect();
        let kept = thinned(points);
        assert!(kept.len() <= POINTS + 1, "{}", kept.len());
        assert_eq!((kept[0].0, kept[kept.len() - 1].0), (0.0, 1000.0));
    }
}
