//! What can be typed after `icecap sweep`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::{
    args::{assignment, device},
    sources::PartArgs,
};

/// Train many decoders on one cache: each combination of the values that a sweep file lists, several seeds a point
#[derive(Debug, Args)]
#[command(
    after_help = "Missing columns are encoded first. Resumes by itself: run the same command again after any interruption; finished trials \
    are not repeated, failed ones are tried again. Each trial is a run in the folder of --runs.\n\n\
    Example:\n  icecap sweep pipelines/study-flickr8k.toml --data data --cache caches/study --runs runs/study --dry-run\n  \
    icecap sweep pipelines/study-flickr8k.toml --data data --cache caches/study --runs runs/study"
)]
pub(super) struct SweepArgs {
    /// The sweep file (TOML)
    #[arg(value_hint = ValueHint::FilePath)]
    pub sweep: PathBuf,
    /// Folder that the recipe's paths start from
    #[arg(long, default_value = "data", value_hint = ValueHint::DirPath)]
    pub data: PathBuf,
    /// Put another value into the recipe before the trials' own, such as train.steps=100 (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = assignment)]
    pub sets: Vec<String>,
    /// The cache's folder; made where it isn't there
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub cache: PathBuf,
    /// The sweep's folder: the trials' runs and sweep.json
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub runs: PathBuf,
    /// Trials at once; results don't depend on it (default: cores / threads, 1 on a GPU)
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub jobs: Option<usize>,
    /// Threads a trial; another number gives other last bits, and so other results
    #[arg(long, value_name = "N", default_value = "1", value_parser = at_least_one)]
    pub threads: usize,
    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu", value_parser = device)]
    pub device: String,
    /// Say which trials there are and what they cost, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub take: PartArgs,
}

/// One trial of a sweep, in the process that the sweep started for it
#[derive(Debug, Args)]
pub(super) struct TrialArgs {
    /// Its folder
    pub folder: PathBuf,
    /// The step after which it ends for now
    #[arg(long)]
    pub until: Option<u64>,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("give a whole number of at least 1".to_owned()),
    }
}
