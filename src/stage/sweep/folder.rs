//! A sweep's folder.
//!
//! ```text
//! runs/study/
//!   lock              held by the process that runs it
//!   sweep.json        the last summary: trials, scores, errors
//!   lstm-grid7-s0/    a trial, which is an ordinary run, and beside a run's files:
//!     trial.json      what it is: its recipe, cache, data; written before it begins
//!     trial.log       what it said
//!     result.json     what it came to; only it makes a trial finished
//!     failure.json    why its last attempt failed
//! ```
//!
//! A trial is found again by its recipe, not by its name alone: where the sweep file has changed and a name now means another training, the
//! new one gets a folder of its own and the old one stays.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use icecap_cache::Cache;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{SweepOptions, SweepReport, SweepRunError};
use crate::{
    recipe::{Difference, Recipe, Sweep, TrialPlan},
    stage::{
        run::{Run, RunError, RunLock, publish},
        train::TrainReport,
    },
};

/// The summary's file.
const SUMMARY: &str = "sweep.json";

/// What a trial is: `trial.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Order {
    /// Its point.
    pub point: String,
    /// Its seed.
    pub seed: Option<u64>,
    /// What differs from the sweep's recipe.
    pub sets: Vec<(String, String)>,
    /// The recipe, with every default written out.
    pub recipe: String,
    pub cache: PathBuf,
    pub data: PathBuf,
    pub device: String,
    pub onnxruntime: Option<PathBuf>,
}

/// What a trial came to: `result.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Outcome {
    /// Where it was to end; nowhere but at its last step without.
    pub until: Option<u64>,
    #[serde(flatten)]
    pub report: TrainReport,
}

impl Outcome {
    /// Whether nothing is left to do of a training to `until`.
    pub fn reaches(&self, until: Option<u64>) -> bool {
        // Ended before it had to: there was nothing more.
        let whole = self.report.stopped_early || self.until.is_none_or(|until| self.report.steps < until);
        whole || until.is_some_and(|until| self.report.steps >= until)
    }
}

/// Why a trial's last attempt failed: `failure.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Failure {
    /// How it ended: a status or a signal.
    pub ended: String,
    /// The last lines that it said.
    pub lines: Vec<String>,
}

/// A sweep's folder, locked.
pub(super) struct Folder {
    path: PathBuf,
    _lock: RunLock,
}

/// The trials' folders, and what has changed since the last time.
pub(super) struct Settled {
    /// Of each trial, in the sweep's order.
    pub folders: Vec<PathBuf>,
    /// Lines to say.
    pub changes: Vec<String>,
    /// Trials that the sweep file no longer asks for.
    pub earlier: Vec<String>,
}

impl Settled {
    /// Refuses runs of columns that the cache no longer has: beside trials of other bytes, their scores would say nothing.
    pub fn check_columns(&self, cache: &Cache, path: &Path) -> Result<()> {
        let mut begun = self.folders.iter().filter(|folder| Run::exists(folder));
        begun.try_for_each(|folder| Run::open(folder)?.columns(cache, path).map(drop))
    }
}

impl Folder {
    pub fn lock(path: &Path) -> Result<Self> {
        if Run::exists(path) {
            return Err(SweepRunError::IsARun { folder: path.to_owned() }.into());
        }
        let lock = RunLock::take(path).map_err(|error| match error.downcast_ref() {
            Some(RunError::Busy { .. }) => SweepRunError::Busy { folder: path.to_owned() }.into(),
            _ => error,
        })?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Gives each trial its folder, with its `trial.json`.
    pub fn settle(&self, sweep: &Sweep, options: &SweepOptions) -> Result<Settled> {
        let before = known(&self.path);
        let is_new = before.is_empty();
        let (mut folders, mut added, mut moved) = (Vec::new(), Vec::new(), None);
        for trial in &sweep.trials {
            let (folder, old) = place(&self.path, trial);
            let name = file_name(&folder);
            if !before.contains(&name) {
                added.push(name);
                moved = moved.or_else(|| old.map(|old| (trial, old)));
            }
            write_order(&folder, trial, options)?;
            folders.push(folder);
        }
        let kept: Vec<String> = folders.iter().map(|folder| file_name(folder)).collect();
        let earlier: Vec<String> = before.into_iter().filter(|name| !kept.contains(name)).collect();
        let mut changes = Vec::new();
        let same = added.is_empty() && earlier.is_empty();
        if !(is_new || same) {
            changes.push("the sweep has changed since it was last run:".to_owned());
            changes
                .extend(moved.map(|(trial, old)| format!("    {}: {}", trial.name, differences(&old, &trial.recipe))));
            changes.extend(listed("new", &added));
            changes.extend(listed("no longer asked for, and kept", &earlier));
        }
        Ok(Settled { folders, changes, earlier })
    }

    pub fn write_summary(&self, report: &SweepReport) -> Result<()> {
        write(&self.path, SUMMARY, report)
    }
}

/// The folder of `trial`, which need not exist, and the recipe of another trial that has its name.
pub(super) fn place(runs: &Path, trial: &TrialPlan) -> (PathBuf, Option<Recipe>) {
    let plain = runs.join(&trial.name);
    let there = order(&plain).and_then(|order| recipe_of(&order));
    match there {
        Some(recipe) if recipe == trial.recipe => (plain, None),
        None if !Run::exists(&plain) => (plain, None),
        other => {
            let key = blake3::hash(trial.recipe.resolved().as_bytes()).to_hex();
            (runs.join(format!("{}-{}", trial.name, &key[..8])), other)
        }
    }
}

fn recipe_of(order: &Order) -> Option<Recipe> {
    Recipe::parse(&order.recipe, "trial.json", &[]).ok()
}

fn file_name(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The trials in `runs` that were trained to their end, by name, and how many were not; nothing where it is no sweep's folder. Those that the
/// sweep no longer asked for when it was last run don't count.
pub(super) fn finished(runs: &Path) -> Option<(Vec<PathBuf>, usize)> {
    #[derive(Deserialize)]
    struct Summary {
        earlier: Vec<String>,
    }
    let earlier = read::<Summary>(runs, SUMMARY).map(|summary| summary.earlier).unwrap_or_default();
    let trials: Vec<String> = known(runs).into_iter().filter(|name| !earlier.contains(name)).collect();
    let folders: Vec<PathBuf> = trials.iter().map(|name| runs.join(name)).collect();
    let ended = |folder: &PathBuf| outcome(folder).is_some_and(|outcome| outcome.reaches(None));
    let finished: Vec<PathBuf> = folders.into_iter().filter(ended).collect();
    let others = trials.len() - finished.len();
    (!trials.is_empty()).then_some((finished, others))
}

/// The trials that are in the folder, by name.
fn known(runs: &Path) -> Vec<String> {
    let entries = fs::read_dir(runs).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.path()).filter(|path| order(path).is_some()).map(|path| file_name(&path)).collect();
    names.sort();
    names
}

fn write_order(folder: &Path, trial: &TrialPlan, options: &SweepOptions) -> Result<()> {
    let fresh = Order {
        point: trial.point.clone(),
        seed: trial.seed,
        sets: trial.sets.clone(),
        recipe: trial.recipe.resolved(),
        cache: std::path::absolute(&options.cache)?,
        data: std::path::absolute(&options.data)?,
        device: options.device.clone(),
        onnxruntime: options.onnxruntime.as_ref().map(std::path::absolute).transpose()?,
    };
    if order(folder).as_ref() == Some(&fresh) {
        return Ok(());
    }
    fs::create_dir_all(folder).with_context(|| format!("`{}` can't be made", folder.display()))?;
    write(folder, "trial.json", &fresh)
}

/// What is said of the names in `names`.
fn listed(what: &str, names: &[String]) -> Option<String> {
    const SHOWN: usize = 6;
    let more = names.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let shown: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
    (!names.is_empty()).then(|| format!("    {what}: {}{more}", shown.join(", ")))
}

/// The settings in which two recipes differ, the first few.
fn differences(old: &Recipe, new: &Recipe) -> String {
    let found = old.differences(new);
    let only = |read: fn(&Difference) -> &Option<String>| {
        let lines: Vec<&str> = found.iter().filter_map(|difference| read(difference).as_deref()).take(5).collect();
        if lines.is_empty() { "nothing".to_owned() } else { format!("`{}`", lines.join("`, `")) }
    };
    format!("{} where it was {}", only(|difference| &difference.after), only(|difference| &difference.before))
}

pub(super) fn order(folder: &Path) -> Option<Order> {
    read(folder, "trial.json")
}

pub(super) fn outcome(folder: &Path) -> Option<Outcome> {
    read(folder, "result.json")
}

pub(super) fn failure(folder: &Path) -> Option<Failure> {
    read(folder, "failure.json")
}

fn read<T: DeserializeOwned>(folder: &Path, name: &str) -> Option<T> {
    serde_json::from_slice(&fs::read(folder.join(name)).ok()?).ok()
}

/// Puts `value` at `name`, the old or the new and nothing between.
pub(super) fn write(folder: &Path, name: &str, value: &impl Serialize) -> Result<()> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    publish(folder, name, &bytes).with_context(|| format!("`{}` can't be written", folder.join(name).display()))
}

/// Forgets how an earlier attempt failed.
pub(super) fn forget_failure(folder: &Path) {
    let _ = fs::remove_file(folder.join("failure.json"));
}
