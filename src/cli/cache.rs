//! `icecap cache`: what is in a cache, whether it is sound, and what is no longer wanted.

use std::path::Path;

use anyhow::{Result, bail};
use icecap_cache::{Cache, CacheError, ColumnState, JournalError, ManifestError, VerifyReport};

use super::{
    args::{Cache as Args, CacheCommand},
    bars::Bars,
    tables::{self, Verified},
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
    let bars = Bars::new();
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
    if json {
        println!("{}", serde_json::to_string_pretty(&tables::verified_json(&reports))?);
    } else {
        print!("{}", tables::verified(&reports));
    }
    let damaged = reports.iter().filter(|(_, report)| !report.as_ref().is_ok_and(VerifyReport::is_sound)).count();
    if damaged > 0 {
        bail!(
            "{damaged} of {} columns are damaged\nhint: `icecap cache drop {}` the damaged ones and encode them again",
            reports.len(),
            path.display()
        );
    }
    Ok(())
}

/// The names and folders of the columns to verify, those wanted or all that are finished, and why one cannot be understood.
fn to_verify(cache: &Cache, wanted: &[String]) -> Result<Vec<(String, String, Option<CacheError>)>> {
    if !wanted.is_empty() {
        return Ok(wanted.iter().map(|name| (name.clone(), name.clone(), None)).collect());
    }
    let columns = cache.columns()?.into_iter().filter_map(|column| match column.state {
        ColumnState::Unfinished(_) => None,
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

fn drop_columns(path: &Path, names: &[String]) -> Result<()> {
    let cache = Cache::open(path)?;
    for name in names {
        cache.drop_column(name)?;
        eprintln!("column `{name}` is gone");
    }
    Ok(())
}
