//! What `icecap evaluate` prints.

use crate::{
    metrics::{Interval, Metric},
    report::Table,
    stage::evaluate::Summary,
};

/// The scores and where they lie, times 100 as papers print them. Scores that are absent have no column.
pub(super) fn scores(summary: &Summary) -> Table {
    let scores = columns(summary);
    let titles: Vec<&str> = std::iter::once("").chain(scores.iter().map(|column| column.title)).collect();
    let mut table = Table::new(&titles);
    let percent = |value: f64| format!("{:.2}", 100.0 * value);
    let mut row = |label: String, cell: &dyn Fn(&Column) -> String| {
        table.row(std::iter::once(label).chain(scores.iter().map(cell)).collect());
    };
    row(format!("{} images", summary.images), &|column| percent(column.score));
    if let Some(intervals) = &summary.intervals {
        let confidence = 100.0 * intervals.plan.confidence;
        let end = |end: fn(Interval) -> f64| {
            move |column: &Column| column.interval.map_or_else(String::new, |of| percent(end(of)))
        };
        row(format!("{confidence:.0}% from"), &end(|interval| interval.low));
        row("to".to_owned(), &end(|interval| interval.high));
    }
    table
}

struct Column {
    title: &'static str,
    score: f64,
    interval: Option<Interval>,
}

fn columns(summary: &Summary) -> Vec<Column> {
    let interval = |metric| summary.intervals.as_ref().and_then(|intervals| intervals.of.get(&metric).copied());
    let own = |metric: Metric, score| Column { title: metric.name(), score, interval: interval(metric) };
    let java = |title, score: Option<f64>| score.map(|score| Column { title, score, interval: None });
    let bleu = [Metric::Bleu1, Metric::Bleu2, Metric::Bleu3, Metric::Bleu4].into_iter().zip(summary.bleu);
    let mut columns: Vec<Column> = bleu.map(|(metric, score)| own(metric, score)).collect();
    columns.extend(java("METEOR", summary.meteor));
    columns.push(own(Metric::RougeL, summary.rouge_l));
    columns.push(own(Metric::Cider, summary.cider));
    columns.extend(java("SPICE", summary.spice));
    columns.extend(summary.object_recall.map(|score| own(Metric::ObjectRecall, score)));
    columns
}

/// What the captions are like, in a line.
pub(super) fn wording(summary: &Summary) -> String {
    let wording = &summary.wording;
    let seen = summary
        .seen_in_training
        .map_or_else(String::new, |share| format!(", {:.1}% of them seen in training", 100.0 * share));
    format!(
        "{} words used, {:.1} a caption; {} of {} captions distinct{seen}",
        wording.vocabulary, wording.mean_length, wording.distinct_captions, summary.images
    )
}

/// A line for each reason why METEOR or SPICE is absent.
pub(super) fn not_scored(summary: &Summary) -> Vec<String> {
    let reason = |name: &str| summary.not_scored.get(name);
    match (reason("meteor"), reason("spice")) {
        (Some(meteor), Some(spice)) if meteor == spice => vec![format!("METEOR and SPICE are not scored: {meteor}")],
        (meteor, spice) => {
            let line = |(name, reason): (&str, Option<&String>)| Some(format!("{name} is not scored: {}", reason?));
            [("METEOR", meteor), ("SPICE", spice)].into_iter().filter_map(line).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> Summary {
        let interval = |low, high| serde_json::json!({"low": low, "high": high});
        let summary = serde_json::json!({
            "images": 1000, "missing": 0, "bleu": [0.61, 0.43, 0.29, 0.2], "rouge_l": 0.45, "cider": 0.5123,
            "meteor": 0.19, "spice": null, "object_recall": 0.7, "objects": {"named": 10, "found": 7},
            "vocabulary": 412, "distinct_captions": 873, "mean_length": 9.84, "empty_captions": 0, "seen_in_training": 0.031,
            "not_scored": {"spice": "no models"},
            "intervals": {
                "resamples": 1000, "seed": 0, "confidence": 0.95,
                "of": {"bleu_4": interval(0.19, 0.21), "cider": interval(0.48, 0.54), "object_recall": interval(0.66, 0.74)}
            }
        });
        serde_json::from_value(summary).expect("a summary")
    }

    #[test]
    fn what_is_printed() {
        let mut summary = summary();
        insta::assert_snapshot!(scores(&summary), @r"
                     BLEU-1  BLEU-2  BLEU-3  BLEU-4  METEOR  ROUGE-L  CIDEr  objects
        1000 images   61.00   43.00   29.00   20.00   19.00    45.00  51.23    70.00
        95% from                              19.00                   48.00    66.00
        to                                    21.00                   54.00    74.00
        ");
        insta::assert_snapshot!(wording(&summary), @"412 words used, 9.8 a caption; 873 of 1000 captions distinct, 3.1% of them seen in training");
        insta::assert_snapshot!(not_scored(&summary).join("\n"), @"SPICE is not scored: no models");
        summary.not_scored.insert("meteor".to_owned(), "no models".to_owned());
        insta::assert_snapshot!(not_scored(&summary).join("\n"), @"METEOR and SPICE are not scored: no models");
        (summary.intervals, summary.object_recall, summary.seen_in_training) = (None, None, None);
        insta::assert_snapshot!(scores(&summary), @r"
                     BLEU-1  BLEU-2  BLEU-3  BLEU-4  METEOR  ROUGE-L  CIDEr
        1000 images   61.00   43.00   29.00   20.00   19.00    45.00  51.23
        ");
        insta::assert_snapshot!(wording(&summary), @"412 words used, 9.8 a caption; 873 of 1000 captions distinct");
    }
}
