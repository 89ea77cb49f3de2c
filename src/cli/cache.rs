//! `icecap cache`: what is in a cache, whether it is sound, and what is no longer wanted.

use std::path::Path;

use anyhow::{Result, bail};
use icecap_cache::Cache;

use super::{
    args::{Cache as Args, CacheCommand},
    bars::Bars,
    tables,
};
use crate::progress::Progress;

pub(super) fn run(args: Args) -> Result<()> {
    match args.command {
        CacheCommand::List { cache, json } => list(&cache, json),
        CacheCommand::Verify { cache, columns, json } => verify(&cache, &columns, json),
        CacheCommand::Drop { cache, columns } => drop_columns(&cache, &columns),
    }
}

fn list(path: &Path, json: bool) -> Result<()> {
    let cache = Cache::open(path)?;
    let columns = tables::columns(&cache)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&columns)?);
        return Ok(());
    }
    eprintln!("{} rows{}", cache.rows().len(), tables::splits(cache.rows()));
    print!("{}", tables::column_table(&columns));
    Ok(())
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
        println!("{}", serde_json::to_string_pretty(&tables::verified_json(&reports))?);
    } else {
        print!("{}", tables::verified(&reports));
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

fn drop_columns(path: &Path, names: &[String]) -> Result<()> {
    let cache = Cache::open(path)?;
    for name in names {
        cache.drop_column(name)?;
        eprintln!("column `{name}` is gone");
    }
    Ok(())
}
