//! Which columns the trials read, and encoding those that are missing: each picture once for all columns of an encoder.

use anyhow::Result;
use icecap_cache::{Cache, Retry};

use super::{SweepOptions, SweepRunError};
use crate::{
    encoder::Devices,
    fetch::FetchOptions,
    progress::Progress,
    recipe::{ColumnSpec, Recipe, Sweep, TrialPlan},
    stage::{
        encode::{EncodeOptions, encode},
        train::check_recipe,
    },
};

/// Missing pictures that are still a success: as `icecap encode` has it.
const MAX_MISSING: f64 = 0.05;

/// Encodes what the trials need and the cache lacks.
pub(super) fn encode_missing(sweep: &Sweep, options: &SweepOptions, progress: &dyn Progress) -> Result<()> {
    for pass in missing_passes(sweep, options)? {
        let names: Vec<&str> = pass.columns.iter().map(|column| column.name.as_str()).collect();
        progress.line(&format!("encode: {} in one pass", names.join(", ")));
        let report = encode(&pass, &encode_options(options)?, progress)?;
        progress.line(&format!("{} images encoded, {:.0} a second", report.encoded, report.images_per_second));
    }
    Ok(())
}

/// The passes that have something to do.
pub(super) fn missing_passes(sweep: &Sweep, options: &SweepOptions) -> Result<Vec<Recipe>> {
    let cache = Cache::open(&options.cache).ok();
    let mut passes = passes(sweep)?;
    if let Some(cache) = &cache {
        passes.retain(|pass| !is_complete(cache, pass));
    }
    Ok(passes)
}

/// Whether every column of `pass` is there as it would make it. Pictures that came since are not looked for: trials are comparable where
/// they all see the same rows.
fn is_complete(cache: &Cache, pass: &Recipe) -> bool {
    let complete = |column: &ColumnSpec| {
        cache.column(&column.name).is_ok_and(|reader| {
            check_recipe(pass, &reader).is_ok() && reader.len() == cache.rows().len() && reader.manifest().is_some()
        })
    };
    pass.columns.iter().all(complete)
}

/// A recipe for each encoder that the trials need, with all columns that any of them reads.
pub(super) fn passes(sweep: &Sweep) -> Result<Vec<Recipe>, SweepRunError> {
    let mut passes: Vec<Recipe> = Vec::new();
    let mut owners: Vec<(&ColumnSpec, &TrialPlan)> = Vec::new();
    let first = sweep.trials.first();
    for trial in &sweep.trials {
        let recipe = &trial.recipe;
        if let Some(first) = first.filter(|first| first.recipe.dataset != recipe.dataset) {
            return Err(SweepRunError::TwoDataSets { first: first.name.clone(), second: trial.name.clone() });
        }
        for column in read_columns(recipe) {
            let of_name = owners.iter().find(|(other, _)| other.name == column.name);
            match of_name {
                Some((other, owner)) if *other != column || !same_encoder(&owner.recipe, recipe) => {
                    let (first, second) = (owner.name.clone(), trial.name.clone());
                    return Err(SweepRunError::TwoColumns { column: column.name.clone(), first, second });
                }
                Some(_) => {}
                None => {
                    owners.push((column, trial));
                    add(&mut passes, recipe, column);
                }
            }
        }
    }
    Ok(passes)
}

/// The columns that the decoder reads, in the recipe's order.
pub(super) fn read_columns(recipe: &Recipe) -> impl Iterator<Item = &ColumnSpec> {
    let read = recipe.decoder.iter().flat_map(|decoder| &decoder.columns);
    recipe.columns.iter().filter(move |column| read.clone().any(|name| *name == column.name))
}

fn same_encoder(one: &Recipe, other: &Recipe) -> bool {
    (&one.encoder, &one.detector) == (&other.encoder, &other.detector)
}

fn add(passes: &mut Vec<Recipe>, recipe: &Recipe, column: &ColumnSpec) {
    if let Some(pass) = passes.iter_mut().find(|pass| same_encoder(pass, recipe)) {
        pass.columns.push(column.clone());
        return;
    }
    let columns = vec![column.clone()];
    passes.push(Recipe { columns, decoder: None, tail: None, ..recipe.clone() });
}

fn encode_options(options: &SweepOptions) -> Result<EncodeOptions> {
    Ok(EncodeOptions {
        cache: options.cache.clone(),
        data: options.data.clone(),
        devices: options.device.parse::<Devices>()?,
        threads: None,
        overwrite: false,
        take: options.take,
        retry_missing: Retry::No,
        fetch: FetchOptions::default(),
        keep_images: None,
        max_missing: MAX_MISSING,
        part: None,
        shard_rows: None,
        onnxruntime: options.onnxruntime.clone(),
        python: options.python.clone(),
    })
}
