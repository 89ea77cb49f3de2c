//! `icecap compare`: what is typed, and the table that is shown.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, ValueHint};

use super::{args::device, bars::Bars, out};
use crate::{
    metrics::Metric,
    report::{Table, bytes, count},
    stage::compare::{CompareOptions, Comparison, Variant, compare as run_compare},
};

/// Compare runs: one ranking with intervals and significant differences, and a report to look at
#[derive(Debug, Args)]
#[command(
    after_help = "Runs without scores of the split are scored first, by the search of their own recipe. Runs that differ by nothing but train.seed \
    are one row.\n\n\
    Example:\n  icecap compare runs/study -o report.html\n  icecap compare runs/global runs/grid --csv > scores.csv"
)]
pub(super) struct Compare {
    /// The runs' folders; a sweep's folder stands for its finished trials
    #[arg(required = true, value_name = "RUN", value_hint = ValueHint::DirPath)]
    pub runs: Vec<PathBuf>,
    /// Write the report here: one HTML file that needs nothing else
    #[arg(short, long, value_name = "REPORT.html", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// The split of the data set to compare on
    #[arg(long, default_value = "val")]
    pub split: String,
    /// The score that ranks: cider, bleu-1 .. bleu-4, rouge-l or objects
    #[arg(long, default_value = "cider", value_parser = metric)]
    pub by: Metric,
    /// Rank each run by itself, also where runs differ by nothing but their seed
    #[arg(long)]
    pub each_seed: bool,
    /// The cache, where it has moved since the runs were trained
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub cache: Option<PathBuf>,
    /// The data folder, for the photographs, where it has moved
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub data: Option<PathBuf>,
    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu", value_parser = device)]
    pub device: String,
    /// Print JSON
    #[arg(long, conflicts_with = "csv")]
    pub json: bool,
    /// Print the table as CSV
    #[arg(long)]
    pub csv: bool,
}

fn metric(text: &str) -> Result<Metric, String> {
    let found = Metric::ALL.into_iter().find(|metric| metric.name().eq_ignore_ascii_case(text));
    found.ok_or_else(|| "give cider, bleu-1, bleu-2, bleu-3, bleu-4, rouge-l or objects".to_owned())
}

pub(super) fn compare(args: &Compare) -> Result<()> {
    let options = CompareOptions {
        split: args.split.clone(),
        cache: args.cache.clone(),
        data: args.data.clone(),
        metric: args.by,
        device: args.device.clone(),
        apart: args.each_seed,
        page: args.output.clone(),
    };
    let comparison = run_compare(&args.runs, &options, &Bars::new())?;
    comparison.notes.iter().for_each(|note| out::note!("note: {note}"));
    if args.json {
        out::json(&comparison)?;
    } else if args.csv {
        out::data(csv(&comparison)?)?;
    } else {
        out::data(format_args!("{}{}", table(&comparison), legend(&comparison)))?;
    }
    if let Some(report) = &comparison.report {
        out::note!(
            "{} is written ({}, {} images): open it in a browser",
            report.path.display(),
            bytes(report.bytes),
            report.gallery
        );
    }
    Ok(())
}

/// The ranking, scores times 100 as papers print them.
fn table(comparison: &Comparison) -> Table {
    let metric = comparison.metric;
    let others: Vec<Metric> = [Metric::Cider, Metric::Bleu4, Metric::RougeL, Metric::ObjectRecall]
        .into_iter()
        .filter(|other| {
            *other != metric && comparison.variants.iter().any(|variant| variant.scores.contains_key(other))
        })
        .collect();
    let seeds = comparison.variants.iter().any(|variant| variant.runs.len() > 1);
    let many = comparison.variants.len() > 1;
    let interval = format!("{:.0}% interval", 100.0 * comparison.plan.confidence);
    let mut titles = vec!["", metric.name(), &interval];
    titles.extend(many.then_some("from first"));
    titles.extend(seeds.then_some("seeds"));
    titles.extend(others.iter().map(|metric| metric.name()));
    titles.extend(["parameters", "bytes/image", "tokens/s", "epochs"]);
    let mut table = Table::new(&titles);
    for variant in &comparison.variants {
        let score = |metric: &Metric| {
            variant.scores.get(metric).map_or_else(String::new, |score| format!("{:.1}", 100.0 * score))
        };
        let range = variant.intervals.get(&metric);
        let range = range.map_or_else(String::new, |of| format!("{:.1} to {:.1}", 100.0 * of.low, 100.0 * of.high));
        let mut cells = vec![variant.name.clone(), score(&metric), range];
        cells.extend(many.then(|| from_first(variant)));
        cells.extend(seeds.then(|| variant.runs.len().to_string()));
        cells.extend(others.iter().map(score));
        let facts = &variant.facts;
        let shown = |value: Option<f64>, show: &dyn Fn(f64) -> String| value.map_or_else(String::new, show);
        cells.push(facts.parameters.map_or_else(String::new, count));
        cells.push(facts.row_bytes.map_or_else(String::new, bytes));
        cells.push(shown(facts.tokens_per_second, &|speed| format!("{speed:.0}")));
        cells.push(shown(facts.epochs, &|epochs| format!("{epochs:.1}")));
        table.row(cells);
    }
    table
}

fn from_first(variant: &Variant) -> String {
    let Some(apart) = &variant.from_first else { return String::new() };
    format!("{:+.1}{}", 100.0 * apart.difference, if apart.significant { "*" } else { " " })
}

fn legend(comparison: &Comparison) -> String {
    let mut said = format!("{} images of the split {}", comparison.images, comparison.split);
    match comparison.differences.len() {
        0 => {}
        1 => said += "; * a difference that chance makes in fewer than 1 of 20 draws of the images",
        compared => {
            said += &format!("; * significant, by paired bootstrap with Holm's correction over {compared} differences");
        }
    }
    said + "\n"
}

/// A line a variant, numbers in full.
fn csv(comparison: &Comparison) -> Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let mut titles = vec!["variant".to_owned(), "runs".to_owned()];
    for metric in Metric::ALL {
        let name = metric.name().to_lowercase().replace('-', "_");
        titles.extend([name.clone(), format!("{name}_low"), format!("{name}_high")]);
    }
    titles.extend(
        ["meteor", "from_first", "from_first_low", "from_first_high", "p_holm", "significant", "deviation"]
            .map(str::to_owned),
    );
    titles.extend(
        ["vocabulary", "distinct", "mean_length", "parameters", "row_bytes", "passes", "detector"].map(str::to_owned),
    );
    titles.extend(["tokens_per_second", "seconds", "epochs", "best_epoch"].map(str::to_owned));
    writer.write_record(&titles)?;
    for variant in &comparison.variants {
        let number = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
        let mut cells = vec![variant.name.clone(), variant.runs.join(" ")];
        for metric in Metric::ALL {
            let interval = variant.intervals.get(&metric);
            cells.push(number(variant.scores.get(&metric).copied()));
            cells.extend([number(interval.map(|of| of.low)), number(interval.map(|of| of.high))]);
        }
        let (apart, facts) = (variant.from_first.as_ref(), &variant.facts);
        cells.extend([
            number(variant.meteor),
            number(apart.map(|apart| apart.difference)),
            number(apart.map(|apart| apart.interval.low)),
            number(apart.map(|apart| apart.interval.high)),
            number(apart.map(|apart| apart.p_holm)),
            apart.map_or_else(String::new, |apart| apart.significant.to_string()),
            number(variant.deviation),
            number(Some(variant.vocabulary)),
            number(Some(variant.distinct)),
            number(Some(variant.mean_length)),
            number(facts.parameters.map(|count| count as f64)),
            number(facts.row_bytes.map(|bytes| bytes as f64)),
            facts.passes.to_string(),
            facts.detector.to_string(),
            number(facts.tokens_per_second),
            number(facts.seconds),
            number(facts.epochs),
            number(facts.best_epoch),
        ]);
        writer.write_record(&cells)?;
    }
    String::from_utf8(writer.into_inner().context("the table can't be written as CSV")?).context("the table is no text")
}
