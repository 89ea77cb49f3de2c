//! What `icecap cache merge`, `import` and `verify --recompute` print.

use icecap_cache::{CacheError, MergeReport, RowsVerdict, VerifyReport};
use serde_json::{Value, json};

use super::tables::reasons;
use crate::{
    report::{Table, bytes, shape},
    stage::{import::ImportReport, recompute::RecomputeReport},
};

pub(super) fn merged(report: &MergeReport) -> Table {
    let mut table = Table::new(&["column", "shape", "dtype", "missing", "bytes", "shards linked", "copied"]);
    for column in &report.columns {
        let manifest = &column.manifest;
        table.row(vec![
            manifest.name().to_owned(),
            shape(manifest.row_shape()),
            manifest.dtype().to_string(),
            reasons(manifest.missing.by_reason.iter().map(|(reason, count)| (reason.as_str(), *count))),
            bytes(manifest.bytes()),
            column.linked.to_string(),
            column.copied.to_string(),
        ]);
    }
    table
}

pub(super) fn merged_json(report: &MergeReport) -> Value {
    let column = |column: &icecap_cache::MergedColumn| {
        json!({
            "name": column.manifest.name(),
            "shape": column.manifest.row_shape(),
            "dtype": column.manifest.dtype(),
            "missing": column.manifest.missing.by_reason,
            "bytes": column.manifest.bytes(),
            "linked": column.linked,
            "copied": column.copied,
        })
    };
    json!({ "rows": report.rows, "columns": report.columns.iter().map(column).collect::<Vec<_>>() })
}

/// What a person should know of an import beside the table.
pub(super) fn imported_lines(report: &ImportReport) -> Vec<String> {
    let missing = reasons(report.missing.iter().map(|(reason, count)| (reason.as_str(), *count)));
    let (column, size) = (&report.column, bytes(report.bytes));
    let mut lines = vec![
        format!("{} pictures for {} rows", report.pictures, report.rows),
        format!("column `{column}`: {size}, {missing} missing"),
    ];
    if report.unmatched > 0 {
        lines.push(format!("{} of them are no row and were left out", report.unmatched));
    }
    if report.rounding > 0.0 {
        let (dtype, rounding, largest) = (&report.dtype, report.rounding, report.largest);
        lines.push(format!(
            "rounded to {dtype}: the largest difference is {rounding:.2e}, of numbers up to {largest:.1}"
        ));
    }
    lines
}

pub(super) fn imported(report: &ImportReport) -> Table {
    let mut table = Table::new(&["tensor", "shape", "dtype"]);
    for (at, (name, dimensions)) in report.tensors.iter().enumerate() {
        let dtype = if at == 0 { report.dtype.clone() } else { "f32".to_owned() };
        table.row(vec![name.clone(), shape(dimensions), dtype]);
    }
    table
}

pub(super) fn recomputed(reports: &[RecomputeReport]) -> String {
    let line = |report: &RecomputeReport| {
        let mut line = format!("{}: {} rows encoded again, {} identical", report.column, report.rows, report.identical);
        if let Some((cosine, id)) = &report.least_cosine {
            line += &format!(", the others at a cosine of {cosine:.6} or more (`{id}`)");
        }
        for (count, what) in [(report.changed, "another picture now"), (report.gone, "gone or unreadable")] {
            if count > 0 {
                line += &format!("; {count} {what}");
            }
        }
        if report.devices[0] != report.devices[1] {
            line += &format!("; encoded on {}, again on {}", report.devices[0], report.devices[1]);
        }
        line + "\n"
    };
    reports.iter().map(line).collect()
}

/// A column's name, and what verifying it found; the error where its manifest cannot be understood.
pub(super) type Verified = (String, Result<VerifyReport, CacheError>);

pub(super) fn verified(reports: &[Verified], rows: RowsVerdict) -> String {
    let mut shown = match rows {
        RowsVerdict::Sound => "rows.jsonl: sound\n".to_owned(),
        RowsVerdict::Unknown => {
            "rows.jsonl: no digest is kept of it yet; the next `icecap encode` writes one\n".to_owned()
        }
        RowsVerdict::Damaged => format!("rows.jsonl: DAMAGED\n  {ROWS_DIFFER}\n"),
    };
    for (name, report) in reports {
        let report = match report {
            Ok(report) => report,
            Err(error) => {
                shown += &format!("{name}: DAMAGED\n  {}\n", error.to_string().lines().next().unwrap_or_default());
                continue;
            }
        };
        if report.is_sound() {
            shown += &format!("{name}: sound, {} in {} shards\n", bytes(report.bytes), report.shards);
            continue;
        }
        shown += &format!("{name}: DAMAGED\n");
        report.damage.iter().for_each(|damage| shown += &format!("  {damage}\n"));
    }
    shown
}

/// What is wrong with a row index.
const ROWS_DIFFER: &str = "its digest is not the one in `cache.json`";

pub(super) fn verified_json(reports: &[Verified], rows: RowsVerdict, again: &[RecomputeReport]) -> Value {
    let one = |(name, report): &Verified| {
        let (bytes, damages) = match report {
            Ok(report) => (Some(report.bytes), report.damage.iter().map(ToString::to_string).collect()),
            Err(error) => (None, vec![error.to_string()]),
        };
        json!({ "column": name, "sound": damages.is_empty(), "bytes": bytes, "damages": damages })
    };
    // The list is of columns; the rows come into it where they are damaged.
    let index = || json!({ "column": null, "file": "rows.jsonl", "sound": false, "damages": [ROWS_DIFFER] });
    let index = (rows == RowsVerdict::Damaged).then(index);
    let mut value: Value = reports.iter().map(one).chain(index).collect();
    for column in value.as_array_mut().into_iter().flatten() {
        if let Some(report) = again.iter().find(|report| column["column"] == *report.column) {
            column["recomputed"] = json!(report);
        }
    }
    value
}
