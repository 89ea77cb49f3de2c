//! What the commands print: results as tables and as JSON.

use std::collections::{BTreeMap, HashSet};

use anyhow::Result;
use icecap_cache::{Cache, ColumnState, Rows};
use serde::Serialize;

use crate::{
    encoder::TensorInfo,
    report::{Table, bytes, count, duration, shape},
    stage::{
        demo::DemoReport,
        encode::EncodeReport,
        missing::MissingPicture,
        provider::{self, Provider},
        train::TrainReport,
    },
};

/// Of the tensors of one shape, the last in a row of such: what a person would tap.
pub(super) fn last_of_each_shape(tensors: Vec<TensorInfo>) -> Vec<TensorInfo> {
    let mut seen = HashSet::new();
    let mut kept: Vec<TensorInfo> =
        tensors.into_iter().rev().filter(|tensor| seen.insert(tensor.shape.clone())).collect();
    kept.reverse();
    kept
}

pub(super) fn tensors(tensors: &[TensorInfo]) -> Table {
    let mut table = Table::new(&["tensor", "operator", "shape", "GMACs so far", "bytes a row (f16)"]);
    for tensor in tensors {
        table.row(vec![
            tensor.name.clone(),
            tensor.operator.clone(),
            shape(&tensor.shape),
            format!("{:.3}", tensor.multiply_adds as f64 / 1e9),
            bytes(tensor.bytes_a_row_f16),
        ]);
    }
    table
}

pub(super) fn encoded_line(report: &EncodeReport) -> String {
    if report.encoded == 0 {
        let rows = report.columns.iter().map(|column| column.rows).max().unwrap_or(0);
        return if rows == 0 {
            "nothing is to encode".to_owned()
        } else {
            format!("all {rows} rows were encoded before")
        };
    }
    // Whole images would make a slow network 0 a second.
    let digits = if report.images_per_second < 10.0 { 2 } else { 0 };
    format!(
        "{} images in {}: {:.digits$} images/s, bound by {}",
        report.encoded,
        duration(report.seconds),
        report.images_per_second,
        report.bottleneck.unwrap_or("nothing")
    )
}

pub(super) fn encoded(report: &EncodeReport) -> Table {
    let mut table = Table::new(&["column", "shape", "dtype", "rows", "missing", "bytes"]);
    for column in &report.columns {
        table.row(vec![
            column.name.clone(),
            shape(&column.shape),
            column.dtype.clone(),
            column.rows.to_string(),
            reasons(column.missing.iter().map(|(reason, count)| (reason.as_str(), *count))),
            bytes(column.bytes),
        ]);
    }
    table
}

pub(super) fn reasons<'a>(counts: impl Iterator<Item = (&'a str, u32)>) -> String {
    let parts: Vec<String> = counts.map(|(reason, count)| format!("{count} {reason}")).collect();
    if parts.is_empty() { "0".to_owned() } else { parts.join(", ") }
}

/// A column of `icecap cache list`.
#[derive(Debug, Serialize)]
pub(super) struct ListedColumn {
    pub name: String,
    pub key: String,
    pub finished: bool,
    pub state: String,
    pub shape: Vec<usize>,
    pub dtype: String,
    /// By reason; `None` where it isn't settled yet.
    pub missing: Option<BTreeMap<String, u32>>,
    pub missing_count: Option<u32>,
    pub bytes: u64,
    /// Who wrote its rows.
    pub providers: Vec<Provider>,
}

impl ListedColumn {
    /// What a person should know of it beside the table.
    pub fn note(&self) -> Option<String> {
        (self.providers.len() > 1).then(|| {
            let (name, providers) = (&self.name, provider::listed(&self.providers));
            format!(
                "note: column `{name}` has rows of {} providers, which may differ in their last bits: {providers}",
                self.providers.len()
            )
        })
    }
}

pub(super) fn columns(cache: &Cache) -> Result<Vec<ListedColumn>> {
    let listed = cache.columns()?.into_iter().map(|info| {
        let (plan, finished, state, missing) = match &info.state {
            ColumnState::Finished(manifest) => {
                let by_reason = manifest.missing.by_reason.clone();
                (Some(&manifest.column), true, "finished".to_owned(), Some(by_reason))
            }
            ColumnState::Part(manifest) => {
                let by_reason = manifest.missing.by_reason.clone();
                let rows = manifest.column.part_rows(manifest.part);
                let part = manifest.part.map_or_else(String::new, |part| part.to_string());
                (Some(&manifest.column), false, format!("{part}: {rows} rows"), Some(by_reason))
            }
            ColumnState::Unfinished(unfinished) => {
                let part = unfinished.part.map_or_else(String::new, |part| format!("{part}: "));
                let state = format!("{part}{} of {} rows", unfinished.rows_done, unfinished.rows);
                (Some(&unfinished.column), false, state, None)
            }
            ColumnState::Extending(manifest, unfinished) => {
                let state = format!("finished; {} of {} rows anew", unfinished.rows_done, unfinished.column.rows);
                (Some(&manifest.column), true, state, None)
            }
            ColumnState::Damaged(error) => (None, false, format!("damaged: {error}"), None),
        };
        let providers = match &info.state {
            ColumnState::Finished(manifest) | ColumnState::Part(manifest) | ColumnState::Extending(manifest, _) => {
                Provider::all_of(manifest)
            }
            _ => Vec::new(),
        };
        ListedColumn {
            name: info.name.clone(),
            key: plan.map_or_else(String::new, |plan| plan.key_digest.chars().take(8).collect()),
            finished,
            state,
            shape: plan.map(|plan| plan.row_shape().to_vec()).unwrap_or_default(),
            dtype: plan.map_or_else(String::new, |plan| plan.dtype().to_string()),
            missing_count: missing.as_ref().map(|by_reason| by_reason.values().sum()),
            missing,
            bytes: info.bytes,
            providers,
        }
    });
    Ok(listed.collect())
}

pub(super) fn column_table(columns: &[ListedColumn]) -> Table {
    let mut table = Table::new(&["column", "key", "shape", "dtype", "state", "missing", "bytes"]);
    for column in columns {
        table.row(vec![
            column.name.clone(),
            column.key.clone(),
            shape(&column.shape),
            column.dtype.clone(),
            column.state.clone(),
            column.missing.as_ref().map_or_else(String::new, |by_reason| {
                reasons(by_reason.iter().map(|(reason, count)| (reason.as_str(), *count)))
            }),
            bytes(column.bytes),
        ]);
    }
    table
}

pub(super) fn missing(pictures: &[MissingPicture]) -> Table {
    let mut table = Table::new(&["picture", "column", "reason", "detail", "source"]);
    for picture in pictures {
        let MissingPicture { id, column, reason, source, .. } = picture.clone();
        table.row(vec![id, column, reason, picture.short().to_owned(), source]);
    }
    table
}

pub(super) fn splits(rows: &Rows) -> String {
    let parts: Vec<String> = rows
        .split_names()
        .iter()
        .map(|split| (split, rows.split_rows(split).len()))
        .filter(|(_, count)| *count > 0)
        .map(|(split, count)| format!("{count} {}", if split.is_empty() { "in no split" } else { split }))
        .collect();
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
}

pub(super) fn trained_line(report: &TrainReport) -> String {
    let best = match (report.best_cider, report.best_step) {
        (Some(cider), Some(step)) => format!(", best CIDEr {cider:.2} at step {step}"),
        _ => String::new(),
    };
    let early = if report.stopped_early { " (stopped early: the score no longer rose)" } else { "" };
    format!(
        "{} steps in {}{early}: {:.0} tokens/s, {:.1}% of it waiting for data{best}",
        report.steps,
        duration(report.seconds),
        report.tokens_per_second,
        100.0 * report.waited
    )
}

pub(super) fn demo(report: &DemoReport) -> String {
    let mut shown = String::from("\nPictures that no decoder was trained on:\n");
    for picture in &report.shown {
        shown += &format!("\n  {}\n", picture.path.display());
        shown += &format!("    {:<16} {}\n", "truth", picture.truth);
        for (trial, caption) in report.trials.iter().zip(&picture.captions) {
            shown += &format!("    {:<16} {caption}\n", trial.name);
        }
    }
    let titles = ["decoder", "column", "shape", "parameters", "tokens/s", "BLEU-4", "CIDEr", "colours", "shapes"];
    let mut table = Table::new(&titles);
    for trial in &report.trials {
        table.row(vec![
            trial.name.clone(),
            trial.column.clone(),
            shape(&trial.shape),
            trial.training.parameters.map_or_else(String::new, |number| count(number as u64)),
            trial.training.tokens_per_second.map_or_else(String::new, |rate| format!("{rate:.0}")),
            format!("{:.1}", 100.0 * trial.bleu4),
            format!("{:.1}", 100.0 * trial.cider),
            format!("{:.0}% right", 100.0 * trial.judgement.colours.share()),
            format!("{:.0}% right", 100.0 * trial.judgement.shapes.share()),
        ]);
    }
    shown += &format!("\nOn all {} pictures of the test split:\n\n{table}", report.tested);
    shown += &format!("\nTheir report is {}: open it in a browser.\n", report.report.display());
    shown += &format!("The cache is {}: try `icecap cache list {0}`.\n", report.cache.display());
    if let Some(trial) = report.trials.last() {
        shown += &format!("Caption any picture: `icecap caption {} PICTURE`.\n", trial.run.display());
    }
    shown
}
