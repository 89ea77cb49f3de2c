//! `icecap cache`: what is in a cache, whether it is sound, and what is no longer wanted.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use icecap_cache::{Cache, CacheError, ColumnState, Dtype, JournalError, ManifestError, RowsVerdict, VerifyReport};

use super::{
    args::Shared,
    bars::Bars,
    cache_args::{Cache as Args, CacheCommand, CacheExport, Drift, ExportKind, Import},
    cache_tables::{self, Verified},
    drift_tables, out,
    tables::{self, ListedColumn},
};
use crate::{
    foreign::SourceOptions,
    progress::Progress,
    stage::{
        drift::drift as run_drift,
        export::{ExportFormat, ExportOptions, export as run_export},
        import::{ImportOptions, import as run_import},
        missing::missing as missing_pictures,
        probe::ProbeOptions,
        recompute::{RecomputeError, RecomputeReport, recompute},
        transfer,
    },
};

pub(super) fn run(args: Args, shared: &Shared) -> Result<()> {
    match args.command {
        CacheCommand::List { cache, json } => list(&cache, json),
        CacheCommand::Missing { cache, columns, json } => missing(&cache, &columns, json),
        CacheCommand::Verify { cache, columns, recompute, recipe, data, device, json, web } => {
            let again = recompute.map(|rows| -> Result<Again> {
                let (devices, onnxruntime) = (device.parse()?, shared.onnxruntime.clone());
                let options =
                    ProbeOptions { data, devices, threads: None, onnxruntime, python: None, fetch: web.options() };
                Ok(Again { rows, recipe, options })
            });
            verify(&cache, &columns, again.transpose()?.as_ref(), json)
        }
        CacheCommand::Drop { cache, columns } => drop_columns(&cache, &columns),
        CacheCommand::Merge { out, parts, json } => merge(&out, &parts, json),
        CacheCommand::Import(args) => import(args),
        CacheCommand::Export(args) => export(&args),
    }
}

fn list(path: &Path, json: bool) -> Result<()> {
    let cache = Cache::open(path)?;
    let columns = tables::columns(&cache)?;
    if json {
        return out::json(&columns);
    }
    out::note!("{} rows{}", cache.rows().len(), tables::splits(cache.rows()));
    out::data(tables::column_table(&columns))?;
    columns.iter().filter_map(ListedColumn::note).for_each(|note| out::note!("{note}"));
    Ok(())
}

/// What `--recompute` asks for.
struct Again {
    rows: usize,
    recipe: Option<PathBuf>,
    options: ProbeOptions,
}

fn verify(path: &Path, wanted: &[String], again: Option<&Again>, json: bool) -> Result<()> {
    let cache = Cache::open(path)?;
    let bars = Bars::new();
    let rows = cache.verify_rows()?;
    let mut reports: Vec<Verified> = Vec::new();
    for (name, folder, damage) in to_verify(&cache, wanted)? {
        if let Some(damage) = damage {
            reports.push((name, Err(damage)));
            continue;
        }
        bars.start(&name, None);
        let report = cache.verify(&folder, &|bytes| bars.advance(bytes));
        bars.finish();
        reports.push((name, if report.as_ref().is_err_and(is_damage) { report } else { Ok(report?) }));
    }
    if !json {
        out::data(cache_tables::verified(&reports, rows))?;
    }
    let is_sound = |report: &Result<VerifyReport, CacheError>| report.as_ref().is_ok_and(VerifyReport::is_sound);
    let sound = reports.iter().filter(|(_, report)| is_sound(report)).map(|(name, _)| name.as_str());
    let again = match again {
        None => Vec::new(),
        Some(again) => encode_again(path, sound, again, wanted.is_empty(), &bars)?,
    };
    if json {
        out::json(&cache_tables::verified_json(&reports, rows, &again))?;
    } else {
        out::data(cache_tables::recomputed(&again))?;
    }
    let other: Vec<&str> =
        again.iter().filter(|report| !report.is_sound()).map(|report| report.column.as_str()).collect();
    if !other.is_empty() {
        bail!(
            "encoding again gives other rows than column `{}` has\nhint: encode the column anew with --overwrite where the cache isn't to be trusted",
            other.join("`, `")
        );
    }
    let damaged: Vec<&str> =
        reports.iter().filter(|(_, report)| !is_sound(report)).map(|(name, _)| name.as_str()).collect();
    if !damaged.is_empty() {
        bail!(
            "{} of {} columns are damaged\nhint: `icecap cache drop {} {}`, and encode again",
            damaged.len(),
            reports.len(),
            path.display(),
            damaged.join(" ")
        );
    }
    if rows == RowsVerdict::Damaged {
        bail!(
            "the row index is damaged\nhint: run `icecap encode` again with the recipe of the cache: it takes ids, splits and captions from the data set anew"
        );
    }
    Ok(())
}

/// Encodes rows of each column again. Of all columns, those that say not how are passed over; one that was named is not.
fn encode_again<'a>(
    path: &Path,
    columns: impl Iterator<Item = &'a str>,
    again: &Again,
    pass_over: bool,
    bars: &Bars,
) -> Result<Vec<RecomputeReport>> {
    let mut reports = Vec::new();
    for name in columns {
        let report = recompute(path, name, again.rows, again.recipe.as_deref(), &again.options, bars);
        match report {
            Err(error) if pass_over && matches!(error.downcast_ref(), Some(RecomputeError::NoRecipe { .. })) => {
                let said = error.to_string();
                out::note!("note: {}", said.lines().next().unwrap_or_default());
            }
            report => reports.push(report?),
        }
    }
    Ok(reports)
}

/// The names and folders of the columns to verify, those wanted or all that are finished, and why one cannot be understood.
fn to_verify(cache: &Cache, wanted: &[String]) -> Result<Vec<(String, String, Option<CacheError>)>> {
    if !wanted.is_empty() {
        return Ok(wanted.iter().map(|name| (name.clone(), name.clone(), None)).collect());
    }
    let columns = cache.columns()?.into_iter().filter_map(|column| match column.state {
        ColumnState::Unfinished(_) => {
            out::note!("note: column `{}` is not finished, and not looked at", column.name);
            None
        }
        ColumnState::Damaged(error) if is_damage(&error) => Some((column.name, column.folder, Some(error))),
        _ => Some((column.name, column.folder, None)),
    });
    Ok(columns.collect())
}

/// What cannot be understood is a finding; what cannot be reached, or is of a later program, is a failure.
fn is_damage(error: &CacheError) -> bool {
    match error {
        CacheError::Manifest(error) => !matches!(error, ManifestError::Version { .. }),
        CacheError::Journal(error) => !matches!(error, JournalError::Version { .. }),
        _ => false,
    }
}

fn missing(path: &Path, wanted: &[String], json: bool) -> Result<()> {
    let cache = Cache::open(path)?;
    let missing = missing_pictures(&cache, wanted)?;
    if json {
        return out::json(&missing);
    }
    if missing.is_empty() {
        out::note!("no picture is missing");
        return Ok(());
    }
    out::data(tables::missing(&missing))
}

fn drop_columns(path: &Path, names: &[String]) -> Result<()> {
    let cache = Cache::open(path)?;
    // All or none: a slip in the last name must not cost the first column.
    names.iter().try_for_each(|name| cache.has_column(name))?;
    for name in names {
        cache.drop_column(name)?;
        out::note!("column `{name}` is gone");
    }
    Ok(())
}

fn merge(out: &Path, parts: &[PathBuf], json: bool) -> Result<()> {
    let report = transfer::merge(out, parts, &Bars::new())?;
    if json {
        return out::json(&cache_tables::merged_json(&report));
    }
    out::note!("{} caches are one, of {} rows: {}", parts.len(), report.rows, out.display());
    out::data(cache_tables::merged(&report))
}

fn import(args: Import) -> Result<()> {
    let options = ImportOptions {
        cache: args.cache,
        column: args.column,
        source: SourceOptions { format: args.format, from: args.from, array: args.array, vectors: args.vectors },
        dtype: importable(args.dtype)?,
        recipe: args.dataset,
        data: args.data,
        overwrite: args.overwrite,
        max_missing: args.max_missing,
    };
    let report = run_import(&options, &Bars::new())?;
    if args.json {
        return out::json(&report);
    }
    cache_tables::imported_lines(&report).iter().for_each(|line| out::note!("{line}"));
    out::data(cache_tables::imported(&report))
}

fn export(args: &CacheExport) -> Result<()> {
    let format = match args.format {
        ExportKind::Npy => ExportFormat::Npy,
        ExportKind::Safetensors => ExportFormat::Safetensors,
    };
    let options = ExportOptions {
        cache: args.cache.clone(),
        column: args.column.clone(),
        format,
        output: args.output.clone(),
        split: args.split.clone(),
    };
    let report = run_export(&options, &Bars::new())?;
    if args.json {
        return out::json(&report);
    }
    out::note!("{} rows exported, {} without an embedding left out", report.rows, report.missing);
    report.files.iter().try_for_each(|file| out::data(format_args!("{}\n", file.display())))
}

pub(super) fn drift(args: &Drift) -> Result<()> {
    let report = run_drift(&args.cache, &args.one, &args.two, &Bars::new())?;
    if args.json {
        return out::json(&report);
    }
    out::data(drift_tables::drift(&report))
}

/// The element types that imported features can have: those whose numbers can be written one by one.
fn importable(dtype: Dtype) -> Result<Dtype> {
    if dtype == Dtype::I8 {
        anyhow::bail!("`{dtype}` is not for imports\nhint: --dtype f16, bf16 or f32");
    }
    Ok(dtype)
}
