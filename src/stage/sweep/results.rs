//! What a sweep came to: each trial, and the points by the mean of their seeds.
//!
//! Read off the trials' folders alone: a sweep that was killed and resumed has the same report as one that was not.

use std::path::PathBuf;

use serde::Serialize;

use super::{
    SweepOptions,
    folder::{self, Failure, Settled},
};
use crate::{
    recipe::Sweep,
    stage::spread::{deviation, mean},
};

/// Where a trial stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It has not ended.
    Waiting,
    /// Trained to its end.
    Finished,
    /// Others were better when they were compared.
    WeededOut,
    /// Its last attempt failed.
    Failed,
}

/// A trial.
#[derive(Debug, Clone, Serialize)]
pub struct TrialReport {
    /// Its name.
    pub name: String,
    /// Its point: the name without the seed.
    pub point: String,
    /// Its seed, where the sweep gives seeds.
    pub seed: Option<u64>,
    /// What differs from the recipe.
    pub sets: Vec<(String, String)>,
    /// Where it stands.
    pub state: State,
    /// Its folder, a run's.
    pub run: PathBuf,
    /// Steps done.
    pub steps: Option<u64>,
    /// The best validation CIDEr, times 100.
    pub best_cider: Option<f64>,
    /// Its step.
    pub best_step: Option<u64>,
    /// Seconds of training.
    pub seconds: Option<f64>,
    /// Caption tokens a second, beside the other trials.
    pub tokens_per_second: Option<f64>,
    /// Numbers that are trained.
    pub parameters: Option<usize>,
    /// Why it failed, where it did.
    pub error: Option<String>,
}

/// The trials of one point.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PointReport {
    /// Its name.
    pub point: String,
    /// Trials that count: those that have a score and did not fail.
    pub trials: usize,
    /// Trials that there are to be.
    pub of: usize,
    /// Mean of their best validation CIDEr.
    pub mean: Option<f64>,
    /// Standard deviation over seeds (n - 1), where there are at least two.
    pub deviation: Option<f64>,
    /// The fewest steps of them.
    pub steps: Option<u64>,
    /// Numbers that are trained.
    pub parameters: Option<usize>,
    /// Seconds of training, on average.
    pub seconds: Option<f64>,
    /// Where they stand: the worst of it.
    pub state: State,
}

/// What a sweep came to.
#[derive(Debug, Clone, Serialize)]
pub struct SweepReport {
    /// The version of icecap.
    pub icecap: &'static str,
    /// The recipe's file.
    pub recipe: PathBuf,
    /// The cache.
    pub cache: PathBuf,
    /// Threads a trial.
    pub threads: usize,
    /// The points, the best first.
    pub points: Vec<PointReport>,
    /// The trials, in the sweep's order.
    pub trials: Vec<TrialReport>,
    /// Trials in the folder that the sweep no longer asks for.
    pub earlier: Vec<String>,
}

impl SweepReport {
    /// Trials that failed.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.trials.iter().filter(|trial| trial.state == State::Failed).count()
    }
}

pub(super) fn report(sweep: &Sweep, settled: &Settled, options: &SweepOptions) -> SweepReport {
    let trials: Vec<TrialReport> = sweep
        .trials
        .iter()
        .zip(&settled.folders)
        .map(|(plan, run)| {
            let (outcome, failure) = (folder::outcome(run), folder::failure(run));
            let state = match &outcome {
                Some(outcome) if outcome.reaches(None) => State::Finished,
                _ if failure.is_some() => State::Failed,
                Some(_) if sweep.halving.is_some() => State::WeededOut,
                _ => State::Waiting,
            };
            let report = outcome.map(|outcome| outcome.report);
            TrialReport {
                name: plan.name.clone(),
                point: plan.point.clone(),
                seed: plan.seed,
                sets: plan.sets.clone(),
                state,
                run: run.clone(),
                steps: report.as_ref().map(|report| report.steps),
                best_cider: report.as_ref().and_then(|report| report.best_cider),
                best_step: report.as_ref().and_then(|report| report.best_step),
                seconds: report.as_ref().map(|report| report.seconds),
                tokens_per_second: report.as_ref().map(|report| report.tokens_per_second),
                parameters: report.as_ref().map(|report| report.parameters),
                error: failure.filter(|_| state == State::Failed).map(|failure| said(&failure)),
            }
        })
        .collect();
    SweepReport {
        icecap: env!("CARGO_PKG_VERSION"),
        recipe: sweep.recipe.clone(),
        cache: options.cache.clone(),
        threads: options.threads,
        points: points(&trials),
        trials,
        earlier: settled.earlier.clone(),
    }
}

fn said(failure: &Failure) -> String {
    [std::slice::from_ref(&failure.ended), &failure.lines].concat().join("\n")
}

/// The points of `trials`: those trained longest first, then by score, ties in the sweep's order.
pub(super) fn points(trials: &[TrialReport]) -> Vec<PointReport> {
    let mut names: Vec<&str> = Vec::new();
    for trial in trials {
        if !names.contains(&trial.point.as_str()) {
            names.push(&trial.point);
        }
    }
    let mut points: Vec<PointReport> = names.into_iter().map(|name| point(name, trials)).collect();
    let rank = |point: &PointReport| (point.state == State::WeededOut, point.mean.is_none());
    points.sort_by(|one, other| {
        let longer = || {
            other
                .steps
                .filter(|_| other.state == State::WeededOut)
                .cmp(&one.steps.filter(|_| one.state == State::WeededOut))
        };
        rank(one).cmp(&rank(other)).then_with(longer).then_with(|| {
            let score = |point: &PointReport| point.mean.unwrap_or(f64::NEG_INFINITY);
            score(other).total_cmp(&score(one))
        })
    });
    points
}

fn point(name: &str, trials: &[TrialReport]) -> PointReport {
    let all: Vec<&TrialReport> = trials.iter().filter(|trial| trial.point == name).collect();
    let sound: Vec<&TrialReport> =
        all.iter().filter(|trial| trial.state != State::Failed && trial.best_cider.is_some()).copied().collect();
    let scores: Vec<f64> = sound.iter().filter_map(|trial| trial.best_cider).collect();
    let seconds = sound.iter().filter_map(|trial| trial.seconds);
    let worst = [State::Failed, State::Waiting, State::WeededOut];
    let is = |state: &State| all.iter().any(|trial| trial.state == *state);
    PointReport {
        point: name.to_owned(),
        trials: sound.len(),
        of: all.len(),
        mean: mean(scores.iter().copied()),
        deviation: deviation(&scores),
        steps: sound.iter().filter_map(|trial| trial.steps).min(),
        parameters: sound.iter().find_map(|trial| trial.parameters),
        seconds: mean(seconds),
        state: worst.into_iter().find(is).unwrap_or(State::Finished),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(point: &str, seed: u64, state: State, cider: f64) -> TrialReport {
        TrialReport {
            name: format!("{point}-s{seed}"),
            point: point.to_owned(),
            seed: Some(seed),
            sets: Vec::new(),
            state,
            run: PathBuf::new(),
            steps: Some(if state == State::WeededOut { 10 } else { 30 }),
            best_cider: Some(cider),
            best_step: Some(10),
            seconds: Some(2.0),
            tokens_per_second: Some(9.0),
            parameters: Some(1000),
            error: None,
        }
    }

    #[test]
    fn points_are_ranked_by_the_mean_of_their_seeds() {
        let trials = [
            trial("a", 0, State::Finished, 10.0),
            trial("a", 1, State::Finished, 14.0),
            trial("b", 0, State::Finished, 13.0),
            trial("b", 1, State::Failed, 0.0),
            trial("c", 0, State::WeededOut, 20.0),
            trial("d", 0, State::Finished, 13.0),
        ];
        let found = points(&trials);
        let order: Vec<&str> = found.iter().map(|point| point.point.as_str()).collect();
        // What was weeded out was trained for less: its score stands below those of whoever went on. Ties stay in order.
        assert_eq!(order, ["b", "d", "a", "c"]);
        assert_eq!((found[0].trials, found[0].of, found[0].mean, found[0].deviation), (1, 2, Some(13.0), None));
        assert_eq!(found[0].state, State::Failed);
        assert_eq!(found[2].mean, Some(12.0));
        assert!(found[2].deviation.is_some_and(|deviation| (deviation - 8f64.sqrt()).abs() < 1e-12));
    }
}
