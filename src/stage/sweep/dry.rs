//! `icecap sweep --dry-run`: the trials and what they will cost. Nothing is written.

use anyhow::Result;
use icecap_cache::Cache;
use serde::Serialize;

use super::{
    Seen, State, SweepOptions,
    columns::{missing_passes, passes, read_columns},
    folder, rounds, training_captions,
};
use crate::{
    dataset,
    encoder::Devices,
    fetch::FetchOptions,
    progress::Progress,
    recipe::Sweep,
    stage::{
        plan::{PROBE_IMAGES, PlannedColumn, plan},
        probe::ProbeOptions,
    },
};

/// What a sweep would do.
#[derive(Debug, Serialize)]
pub struct DryRun {
    /// The trials, in order.
    pub trials: Vec<DryTrial>,
    /// The columns that are to be encoded.
    pub columns: Vec<PlannedColumn>,
    /// Seconds of encoding, by a short probe; absent where it can't be told.
    pub encode_seconds: Option<f64>,
    /// Seconds of all that is left to train, by the trials that were trained already.
    pub train_seconds: Option<f64>,
    /// Steps that are left to train; with halving, if none were weeded out.
    pub steps_left: u64,
}

/// A trial that would be trained.
#[derive(Debug, Serialize)]
pub struct DryTrial {
    /// Its name.
    pub name: String,
    /// The columns that it reads.
    pub columns: Vec<String>,
    /// Its steps.
    pub steps: u64,
    /// Those that are done.
    pub steps_done: u64,
    /// Where it stands.
    pub state: State,
    /// Seconds that are left, where trials of its point or others were trained already.
    pub seconds_left: Option<f64>,
}

/// Says what [`super::sweep()`] would do.
///
/// # Errors
/// Where the data set, the encoder or the cache can't be used.
pub fn dry_run(sweep: &Sweep, options: &SweepOptions, progress: &dyn Progress) -> Result<DryRun> {
    let captions = match Cache::open(&options.cache) {
        Ok(cache) => training_captions(&cache),
        Err(_) => captions_of_data_set(sweep, options)?,
    };
    let folders: Vec<_> = sweep.trials.iter().map(|trial| folder::place(&options.runs, trial).0).collect();
    let seen: Vec<Seen> = folders.iter().map(|folder| Seen::of(folder)).collect();
    let rates: Vec<Option<f64>> = seen.iter().map(Seen::seconds_a_step).collect();
    let rates = rounds::expected_rates(sweep, &rates);
    let trials: Vec<DryTrial> = sweep
        .trials
        .iter()
        .enumerate()
        .map(|(at, trial)| {
            let outcome = folder::outcome(&folders[at]);
            let finished = outcome.as_ref().is_some_and(|outcome| outcome.reaches(None));
            let failed = folder::failure(&folders[at]).is_some();
            let steps = trial.recipe.train.steps_for(captions);
            let steps_done = outcome.map_or(seen[at].step, |outcome| outcome.report.steps);
            let left = if finished { 0 } else { steps.saturating_sub(steps_done) };
            DryTrial {
                name: trial.name.clone(),
                columns: read_columns(&trial.recipe).map(|column| column.name.clone()).collect(),
                steps,
                steps_done,
                state: match (finished, failed) {
                    (true, _) => State::Finished,
                    (false, true) => State::Failed,
                    (false, false) => State::Waiting,
                },
                seconds_left: rates[at].map(|rate| rate * left as f64),
            }
        })
        .collect();
    let (columns, encode_seconds) = encoding(sweep, options, progress)?;
    let left = |trial: &DryTrial| trial.steps.saturating_sub(trial.steps_done);
    let waiting = || trials.iter().filter(|trial| trial.state != State::Finished);
    let seconds = waiting().map(|trial| trial.seconds_left).sum::<Option<f64>>();
    let hands = options.jobs.clamp(1, waiting().count().max(1)) as f64;
    Ok(DryRun {
        steps_left: waiting().map(left).sum(),
        train_seconds: seconds.map(|seconds| seconds / hands),
        columns,
        encode_seconds,
        trials,
    })
}

fn captions_of_data_set(sweep: &Sweep, options: &SweepOptions) -> Result<usize> {
    let Some(trial) = sweep.trials.first() else { return Ok(0) };
    let mut dataset = dataset::load(&trial.recipe.dataset, &options.data)?;
    options.take.take(&mut dataset);
    Ok(dataset.split(dataset::TRAIN).map(|item| item.captions.len()).sum())
}

/// The columns that are to be encoded, and how long that takes.
fn encoding(
    sweep: &Sweep,
    options: &SweepOptions,
    progress: &dyn Progress,
) -> Result<(Vec<PlannedColumn>, Option<f64>)> {
    passes(sweep)?;
    let probe = ProbeOptions {
        data: options.data.clone(),
        devices: options.device.parse::<Devices>()?,
        threads: None,
        onnxruntime: options.onnxruntime.clone(),
        python: options.python.clone(),
        fetch: FetchOptions::default(),
    };
    let (mut columns, mut seconds) = (Vec::new(), Some(0.0));
    for pass in missing_passes(sweep, options)? {
        let planned = plan(&pass, &options.cache, options.take, PROBE_IMAGES, &probe, progress)?;
        seconds = seconds.zip(planned.seconds).map(|(sum, more)| sum + more);
        columns.extend(planned.columns);
    }
    Ok((columns, seconds))
}
