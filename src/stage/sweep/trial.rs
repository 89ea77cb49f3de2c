//! One trial, in the process that was started for it.

use std::{
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::folder::{self, Outcome};
use crate::{
    progress::Progress,
    recipe::Recipe,
    stage::{
        run::RunError,
        train::{TrainOptions, TrainReport, train},
    },
    trainer::Resume,
};

/// How long the trial of a sweeper that was killed is waited for: it ends when it notices.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a trial is told.
#[derive(Debug, Clone)]
pub struct TrialOptions {
    /// Its folder, with its `trial.json`.
    pub folder: PathBuf,
    /// The step after which it ends for now.
    pub until: Option<u64>,
}

/// Trains the trial, from where it is, and leaves its `result.json`.
///
/// # Errors
/// Where the training fails.
pub fn trial(options: &TrialOptions, progress: &dyn Progress) -> Result<()> {
    let folder = &options.folder;
    let order =
        folder::order(folder).with_context(|| format!("`{}` has no trial.json that can be read", folder.display()))?;
    let name = folder.join("trial.json").display().to_string();
    let recipe = Recipe::parse(&order.recipe, &name, &[])?;
    let train_options = TrainOptions {
        cache: order.cache,
        run: folder.clone(),
        data: order.data,
        device: order.device,
        resume: Some(Resume::Last),
        onnxruntime: order.onnxruntime,
        init: None,
        until: options.until,
    };
    let report = waiting(&recipe, &name, &train_options, progress)?;
    write_result(folder, options.until, report)
}

fn waiting(recipe: &Recipe, name: &str, options: &TrainOptions, progress: &dyn Progress) -> Result<TrainReport> {
    let asked = Instant::now();
    loop {
        match train(recipe, name, options, progress) {
            Err(error) if is_busy(&error) && asked.elapsed() < PATIENCE => sleep(Duration::from_millis(100)),
            outcome => return outcome,
        }
    }
}

fn is_busy(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(RunError::Busy { .. }))
}

fn write_result(folder: &Path, until: Option<u64>, report: TrainReport) -> Result<()> {
    folder::write(folder, "result.json", &Outcome { until, report })
}
