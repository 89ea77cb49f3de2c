//! What `icecap drift` prints.

use crate::{
    report::{Table, shape},
    stage::drift::{Cka, DriftReport, Pairs, Side, Spread},
};

pub(super) fn drift(report: &DriftReport) -> String {
    let mut shown = columns(&report.columns).to_string();
    let what = match report.compared {
        "rows" => "all numbers of a row",
        "means" => "the means of a row's vectors",
        _ => "lengths and likeness only, as the widths differ",
    };
    shown += &format!("\n{} rows are in both; compared: {what}\n", report.rows);
    if let Some(pairs) = &report.pairs {
        shown += &self::pairs(pairs);
    }
    if let Some(cka) = &report.cka {
        shown += &likeness(cka);
    }
    shown
}

fn columns(sides: &[Side; 2]) -> Table {
    let mut table = Table::new(&["column", "cache", "shape", "dtype", "device", "alone", "mean length"]);
    for side in sides {
        table.row(vec![
            side.column.clone(),
            side.cache.display().to_string(),
            shape(&side.shape),
            side.dtype.clone(),
            side.device.clone().unwrap_or_else(|| "-".to_owned()),
            side.alone.to_string(),
            format!("{:.4}", side.mean_norm),
        ]);
    }
    table
}

fn pairs(pairs: &Pairs) -> String {
    let mut table = Table::new(&["", "mean", "min", "1%", "5%", "50%", "max"]);
    let mut row = |name: &str, spread: &Spread| {
        let numbers = [spread.min, spread.p1, spread.p5, spread.p50, spread.max].map(|number| format!("{number:.6}"));
        table.row([name.to_owned(), format!("{:.6}", spread.mean)].into_iter().chain(numbers).collect());
    };
    row("cosine", &pairs.cosine);
    row("length ratio", &pairs.norm_ratio);
    let (difference, id) = &pairs.max_difference;
    let mut shown = format!(
        "\n{table}\n{} rows are identical; the largest difference of two numbers is {difference:.3e}, in `{id}`\n",
        pairs.identical
    );
    if pairs.cosine.min < 1.0 {
        let worst: Vec<String> = pairs.worst.iter().map(|(id, cosine)| format!("`{id}` {cosine:.6}")).collect();
        shown += &format!("furthest apart: {}\n", worst.join(", "));
    }
    shown
}

fn likeness(cka: &Cka) -> String {
    format!("linear CKA {:.4} ({:.4} without the bias of few rows), of {} rows\n", cka.linear, cka.debiased, cka.rows)
}
