//! The trials, run: so many at once, rung by rung.
//!
//! One thread does all of it: trials are processes, and looking at a few of them a few times a second is little work.

use std::{collections::BTreeMap, thread::sleep, time::Duration};

use anyhow::Result;

use super::{
    Board, Now, Standing, SweepOptions,
    children::{self, Running},
    folder::{self, Settled},
    halving::promoted,
    watch::Seen,
};
use crate::{recipe::Sweep, report::duration, stage::spread::mean};

/// Between two looks at the trials.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) struct Rounds<'a> {
    sweep: &'a Sweep,
    settled: &'a Settled,
    options: &'a SweepOptions,
    /// Steps of each trial's whole training.
    steps: Vec<u64>,
    /// What a step of each takes, as far as it is known.
    rates: Vec<Option<f64>>,
    /// Trials that failed in this sitting.
    failed: Vec<bool>,
}

impl<'a> Rounds<'a> {
    pub fn new(sweep: &'a Sweep, settled: &'a Settled, options: &'a SweepOptions, captions: usize) -> Self {
        let steps = sweep.trials.iter().map(|trial| trial.recipe.train.steps_for(captions)).collect();
        let rates = settled.folders.iter().map(|folder| Seen::of(folder).seconds_a_step()).collect();
        Self { sweep, settled, options, steps, rates, failed: vec![false; sweep.trials.len()] }
    }

    /// All rungs, and then to the end.
    pub fn go(&mut self, board: &mut dyn Board) -> Result<()> {
        let mut alive: Vec<usize> = (0..self.sweep.trials.len()).collect();
        if let Some(halving) = &self.sweep.halving {
            for rung in &halving.rungs {
                self.round(&alive, Some(*rung), board)?;
                alive = self.promote(&alive, *rung, halving.eta, board);
            }
        }
        self.round(&alive, None, board)?;
        board.finish();
        Ok(())
    }

    /// Trains `alive` to step `until`, or to the end.
    fn round(&mut self, alive: &[usize], until: Option<u64>, board: &mut dyn Board) -> Result<()> {
        let lacks = |trial: &&usize| !self.failed[**trial] && !self.has_reached(**trial, until);
        let mut waiting: Vec<usize> = alive.iter().filter(lacks).copied().rev().collect();
        let mut running: Vec<Running> = Vec::new();
        while !(waiting.is_empty() && running.is_empty()) {
            while running.len() < self.options.jobs.max(1) {
                let Some(trial) = waiting.pop() else { break };
                running.push(Running::start(trial, &self.settled.folders[trial], until, self.options)?);
            }
            sleep(PAUSE);
            let mut at = 0;
            while at < running.len() {
                let seen = running[at].look().clone();
                let trial = running[at].trial;
                self.rates[trial] = seen.seconds_a_step().or(self.rates[trial]);
                match running[at].ended() {
                    None => at += 1,
                    Some(status) => {
                        drop(running.remove(at));
                        self.note_end(trial, status, until, board)?;
                    }
                }
            }
            board.show(&self.standing(alive, &mut running, &waiting, until));
        }
        Ok(())
    }

    fn has_reached(&self, trial: usize, until: Option<u64>) -> bool {
        folder::outcome(&self.settled.folders[trial]).is_some_and(|outcome| outcome.reaches(until))
    }

    /// Records how a trial ended.
    fn note_end(
        &mut self,
        trial: usize,
        status: std::process::ExitStatus,
        until: Option<u64>,
        board: &mut dyn Board,
    ) -> Result<()> {
        let (folder, name) = (&self.settled.folders[trial], &self.sweep.trials[trial].name);
        // A trial that was killed after its result was there has done its work.
        let outcome = folder::outcome(folder).filter(|outcome| outcome.reaches(until));
        if let Some(outcome) = outcome {
            let report = outcome.report;
            let best = report.best_cider.map_or_else(String::new, |cider| format!(", best CIDEr {cider:.2}"));
            board.line(&format!("{name}: {} steps in {}{best}", report.steps, duration(report.seconds)));
        } else {
            let failure = children::failure(folder, status);
            folder::write(folder, "failure.json", &failure)?;
            self.failed[trial] = true;
            board.line(&format!("{name}: failed ({})", failure.ended));
            failure.lines.iter().for_each(|line| board.line(&format!("    {line}")));
        }
        Ok(())
    }

    /// The trials of `alive` whose points go on after `rung`.
    fn promote(&self, alive: &[usize], rung: u64, eta: usize, board: &mut dyn Board) -> Vec<usize> {
        let mut points: Vec<(&str, Vec<usize>)> = Vec::new();
        for &trial in alive {
            let point = self.sweep.trials[trial].point.as_str();
            match points.iter_mut().find(|(name, _)| *name == point) {
                Some((_, trials)) => trials.push(trial),
                None => points.push((point, vec![trial])),
            }
        }
        let score = |trials: &[usize]| {
            let sound = trials.iter().filter(|trial| !self.failed[**trial]);
            let seen = sound.filter_map(|trial| Seen::of(&self.settled.folders[*trial]).best_until(Some(rung)));
            mean(seen)
        };
        let scores: Vec<Option<f64>> = points.iter().map(|(_, trials)| score(trials)).collect();
        let kept = promoted(&scores, eta);
        let names: Vec<&str> = kept.iter().map(|at| points[*at].0).collect();
        board.line(&format!("step {rung}: {} of {} points go on: {}", kept.len(), points.len(), names.join(", ")));
        kept.into_iter().flat_map(|at| points[at].1.clone()).collect()
    }

    fn standing<'b>(
        &'b self,
        alive: &[usize],
        running: &mut [Running],
        waiting: &[usize],
        until: Option<u64>,
    ) -> Standing<'b> {
        let now = |running: &mut Running| Now {
            name: &self.sweep.trials[running.trial].name,
            steps: self.end(running.trial, until),
            seen: running.look().clone(),
        };
        let running: Vec<(usize, Now<'b>)> = running.iter_mut().map(|one| (one.trial, now(one))).collect();
        // A trial's own rate, else what its point's trials took, else what any did.
        let rates = expected_rates(self.sweep, &self.rates);
        let mut left = Vec::new();
        for (trial, now) in &running {
            left.push(rates[*trial].map(|rate| rate * now.steps.saturating_sub(now.seen.step) as f64));
        }
        left.extend(waiting.iter().map(|trial| rates[*trial].map(|rate| rate * self.end(*trial, until) as f64)));
        let hands = self.options.jobs.clamp(1, left.len().max(1)) as f64;
        Standing {
            ended: alive.len() - running.len() - waiting.len(),
            failed: self.failed.iter().filter(|failed| **failed).count(),
            trials: alive.len(),
            seconds_left: (!left.is_empty())
                .then(|| left.into_iter().sum::<Option<f64>>())
                .flatten()
                .map(|sum| sum / hands),
            running: running.into_iter().map(|(_, now)| now).collect(),
        }
    }

    fn end(&self, trial: usize, until: Option<u64>) -> u64 {
        until.map_or(self.steps[trial], |until| until.min(self.steps[trial]))
    }
}

/// What a step of each trial takes or is expected to: its own rate, else that of its point's trials, else that of all.
pub(super) fn expected_rates(sweep: &Sweep, rates: &[Option<f64>]) -> Vec<Option<f64>> {
    let mut of_point: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (trial, rate) in sweep.trials.iter().zip(rates) {
        of_point.entry(&trial.point).or_default().extend(rate);
    }
    let all = mean(rates.iter().flatten().copied());
    let trials = sweep.trials.iter().zip(rates);
    trials.map(|(trial, rate)| rate.or_else(|| mean(of_point[trial.point.as_str()].iter().copied())).or(all)).collect()
}
