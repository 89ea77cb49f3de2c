//! `icecap sweep`: many trainings on one cache, each a child process and a run folder of its own.
//!
//! Knows nothing of terminals: a [`Board`] is shown what stands where. Decisions defended:
//! - A trial is a process. One that crashes, or that the system kills for its memory, takes no other with it; the mapped pages of the cache
//!   are shared by the system all the same.
//! - What is finished is read off the trials' own folders. `sweep.json` is a summary: it can be lost, and nothing is.
//! - A trial's number of threads is its own setting, not the cores divided by `--jobs`: sums over another number of threads differ in
//!   their last bits, and so would the results.
//! - Halving waits for the whole rung before it promotes. ASHA promotes whoever is ahead when a worker becomes free, so its choice depends on
//!   timing and on `--jobs`; here the price is at most `jobs - 1` idle workers at the end of a rung.

mod children;
mod columns;
mod dry;
mod error;
mod folder;
mod halving;
mod results;
mod rounds;
mod trial;
mod watch;

use std::path::{Path, PathBuf};

use anyhow::Result;
use icecap_cache::Cache;

pub use dry::{DryRun, DryTrial, dry_run};
pub use error::SweepRunError;
pub use results::{PointReport, State, SweepReport, TrialReport};
pub use trial::{TrialOptions, trial};
pub use watch::Seen;

use super::train::captions_of;
use crate::{
    dataset::{self, Part},
    progress::Progress,
    recipe::Sweep,
};
use folder::Folder;
use rounds::Rounds;

/// What `icecap sweep` is told beside the sweep file.
#[derive(Debug, Clone)]
pub struct SweepOptions {
    /// The cache's folder.
    pub cache: PathBuf,
    /// The sweep's folder.
    pub runs: PathBuf,
    /// Where the recipe's paths start.
    pub data: PathBuf,
    /// Where encoder and decoders run.
    pub device: String,
    /// Trials at once.
    pub jobs: usize,
    /// Threads a trial.
    pub threads: usize,
    /// What is taken of the data set, where columns have to be encoded.
    pub take: Part,
    /// The program that trains a trial: this one.
    pub program: PathBuf,
    /// ONNX Runtime's library.
    pub onnxruntime: Option<PathBuf>,
    /// Python, for exports.
    pub python: Option<PathBuf>,
}

/// The folders of the trials of a sweep that were trained to their end, and how many others there are (failed, weeded out, not ended);
/// nothing where `folder` is no sweep's.
#[must_use]
pub fn finished_trials(folder: &Path) -> Option<(Vec<PathBuf>, usize)> {
    folder::finished(folder)
}

/// Is shown how far the trials are.
pub trait Board {
    /// What stands where, a few times a second.
    fn show(&mut self, standing: &Standing<'_>);
    /// A line that stays.
    fn line(&mut self, text: &str);
    /// All trials have ended.
    fn finish(&mut self);
}

/// What stands where.
#[derive(Debug)]
pub struct Standing<'a> {
    /// The trials that are being trained.
    pub running: Vec<Now<'a>>,
    /// Trials that have nothing left to do, failed ones among them.
    pub ended: usize,
    /// Those of them that failed.
    pub failed: usize,
    /// All trials.
    pub trials: usize,
    /// Seconds until all have ended, where that can be told.
    pub seconds_left: Option<f64>,
}

/// A trial that is being trained.
#[derive(Debug)]
pub struct Now<'a> {
    /// Its name.
    pub name: &'a str,
    /// The step at which it ends, for now.
    pub steps: u64,
    /// What its metrics say.
    pub seen: Seen,
}

impl Now<'_> {
    /// Seconds until it ends.
    #[must_use]
    pub fn seconds_left(&self) -> Option<f64> {
        Some(self.seen.seconds_a_step()? * self.steps.saturating_sub(self.seen.step) as f64)
    }
}

/// Encodes the columns that are missing and trains every trial that is not finished.
///
/// # Errors
/// Where the cache or the sweep's folder can't be used. A trial that fails is in the report, and no error.
pub fn sweep(
    sweep: &Sweep,
    options: &SweepOptions,
    progress: &dyn Progress,
    board: &mut dyn Board,
) -> Result<SweepReport> {
    let folder = Folder::lock(&options.runs)?;
    columns::encode_missing(sweep, options, progress)?;
    let cache = Cache::open(&options.cache)?;
    let settled = folder.settle(sweep, options)?;
    settled.changes.iter().for_each(|line| progress.line(line));
    settled.check_columns(&cache, &options.cache)?;
    let mut rounds = Rounds::new(sweep, &settled, options, training_captions(&cache));
    rounds.go(board)?;
    let report = results::report(sweep, &settled, options);
    folder.write_summary(&report)?;
    Ok(report)
}

/// Captions that a training of the cache sees.
fn training_captions(cache: &Cache) -> usize {
    let rows = cache.rows();
    rows.split_rows(dataset::TRAIN).into_iter().map(|row| captions_of(rows, row).len()).sum()
}
