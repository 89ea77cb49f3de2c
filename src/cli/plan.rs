//! `icecap plan`: what an encode would do.

use anyhow::{Result, bail};

use super::{
    args::{Plan, Shared},
    bars::Bars,
    out,
    tables::reasons,
};
use crate::{
    encoder::Devices,
    recipe::Recipe,
    report::{Table, bytes, duration, shape},
    stage::{
        plan::{PlanReport, plan as run},
        probe::ProbeOptions,
    },
};

pub(super) fn plan(args: &Plan, shared: &Shared) -> Result<()> {
    let recipe = Recipe::load(&args.recipe.recipe, &args.recipe.sets)?;
    let options = ProbeOptions {
        data: args.recipe.data.clone(),
        devices: args.device.parse::<Devices>()?,
        threads: args.threads,
        onnxruntime: shared.onnxruntime.clone(),
        python: None,
        fetch: args.web.options(),
    };
    let report = run(&recipe, &args.cache, args.take.part(), args.probe, &options, &Bars::new())?;
    if args.json {
        out::json(&report)?;
    } else {
        out::data(shown(&report))?;
    }
    if let Some(text) = &report.too_small {
        bail!("{text}\nhint: free space, or put the cache on another disk");
    }
    Ok(())
}

fn shown(report: &PlanReport) -> String {
    let splits: Vec<String> = report
        .splits
        .iter()
        .map(|(split, count)| format!("{count} {}", if split.is_empty() { "in no split" } else { split }))
        .collect();
    let mut shown =
        format!("{}: {} images ({}), {} captions\n", report.dataset, report.images, splits.join(", "), report.captions);
    if report.absent > 0 {
        shown += &format!("{} images are named and not there: they will be missing rows\n", report.absent);
    }
    if report.known > 0 {
        shown += &format!("the cache has {} rows; {} are new\n", report.known, report.new);
    }
    shown += &format!("\n{}\n", columns(report));
    for column in report.columns.iter().filter(|column| column.in_the_way) {
        shown += &format!("column `{}` is in the way: encode with --overwrite, or under another name\n", column.name);
    }
    shown + &probe(report) + &time(report)
}

fn columns(report: &PlanReport) -> Table {
    let mut table =
        Table::new(&["column", "key", "shape", "dtype", "bytes a row", "bytes", "shards", "there", "to encode"]);
    for column in &report.columns {
        table.row(vec![
            column.name.clone(),
            column.key.clone(),
            shape(&column.shape),
            column.dtype.clone(),
            bytes(column.row_bytes),
            bytes(column.bytes),
            column.shards.to_string(),
            column.state.clone(),
            column.to_encode.to_string(),
        ]);
    }
    table
}

fn probe(report: &PlanReport) -> String {
    let probe = &report.probe;
    let mut line = match probe.bottleneck {
        Some(bottleneck) => format!(
            "{} images tried: decode {:.0} images/s, encoder {:.0}, both {:.0}; bound by {bottleneck}",
            probe.images, probe.decode_per_second, probe.encoder_per_second, probe.images_per_second
        ),
        None => format!("{} images tried, and none of them could be encoded", probe.images),
    };
    if let Some(seconds) = probe.network_seconds {
        line += &format!("; they came in {}, all at once", duration(seconds));
    }
    if !probe.missing.is_empty() {
        line +=
            &format!("; missing: {}", reasons(probe.missing.iter().map(|(reason, count)| (reason.as_str(), *count))));
        let lost = report.expected_missing;
        line += &format!("; of {} rows to encode about {lost} will be", report.to_encode);
    }
    line + "\n"
}

fn time(report: &PlanReport) -> String {
    if report.to_encode == 0 {
        return "nothing is to encode\n".to_owned();
    }
    let time =
        report.seconds.map_or_else(|| "an unknown time".to_owned(), |seconds| format!("about {}", duration(seconds)));
    let web =
        if report.probe.network_seconds.is_some() { ", longer where the network is slower than that" } else { "" };
    let free = report.bytes_free.map_or_else(String::new, |free| format!(", {} are free", bytes(free)));
    format!("{} rows to encode: {time}{web}, {}{free}\n", report.to_encode, bytes(report.bytes_needed))
}
