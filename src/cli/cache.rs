//! `icecap cache`: what is in a cache, whether it is sound, and what is no longer wanted.

use std::path::Path;

use anyhow::{Result, bail};
use icecap_cache::Cache;

use super::{
    args::{Cache as Args, CacheCommand},
    bars::Bars,
    out, tables,
};
use crate::{progress::Progress, stage::missing::missing as missing_pictures};

pub(super) fn run(args: Args) -> Result<()> {
    match args.command {
        CacheCommand::List { cache, json } => list(&cache, json),
        CacheCommand::Verify { cache, columns, json } => verify(&cache, &columns, json),
        CacheCommand::Missing { cache, columns, json } => missing(&cache, &columns, json),
        CacheCommand::Drop { cache, columns } => drop_columns(&cache, &columns),
    }
}

fn list(path: &Path, json: bool) -> Result<()> {
    let cache = Cache::open(path)?;
    let columns = tables::columns(&cache)?;
    if json {
        return out::json(&columns);
    }
    out::note!("{} rows{}", cache.rows().len(), tables::splits(cache.rows()));
    out::data(tables::column_table(&columns))
}

fn verify(path: &Path, wanted: &[String], json: bool) -> Result<()> {
    let cache = Cache::open(path)?;
    let names: Vec<String> = match wanted {
        [] => tables::columns(&cache)?.into_iter().filter(|column| column.finished).map(|column| column.name).collect(),
        wanted => wanted.to_vec(),
    };
    let bars = Bars::new();
    let mut reports = Vec::new();
    for name in &names {
        bars.start(name, None);
        let report = cache.verify(name, &|bytes| bars.advance(bytes))?;
        bars.finish();
        reports.push((name.clone(), report));
    }
    if json {
        out::json(&tables::verified_json(&reports))?;
    } else {
        out::data(tables::verified(&reports))?;
    }
    let damaged = reports.iter().filter(|(_, report)| !report.is_sound()).count();
    if damaged > 0 {
        bail!(
            "{damaged} of {} columns are damaged\nhint: `icecap cache drop {}` the damaged ones and encode them again",
            reports.len(),
            path.display()
        );
    }
    Ok(())
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
