//! One run as it comes to the comparison: opened, scored.
//!
//! Must not know the other runs. Scores that are there are taken where they are those of the checkpoint as it is now, found by the search of
//! the run's recipe; all others are made anew, since nobody could see in a table that one row of it is of last week.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Context, Result};

use super::{CompareError, CompareOptions};
use crate::{
    metrics::Plan,
    progress::{Progress, Silent},
    stage::{
        evaluate::{EvaluateOptions, Judging, Scored, SearchOptions, evaluate_run},
        run::Run,
    },
};

/// Runs that are scored at once.
const AT_ONCE: usize = 2;

/// A run and its scores.
pub(super) struct Entrant {
    pub run: Run,
    /// The run's name, unlike that of every other.
    pub label: String,
    /// Its cache.
    pub cache: PathBuf,
    pub scored: Scored,
}

/// Opens the runs and scores those that have no scores yet.
pub(super) fn entrants(folders: &[PathBuf], options: &CompareOptions, progress: &dyn Progress) -> Result<Vec<Entrant>> {
    let runs: Vec<Run> = folders.iter().map(|folder| Run::open(folder)).collect::<Result<_>>()?;
    if let Some(run) = twice(folders) {
        return Err(CompareError::Twice { run }.into());
    }
    let states: Vec<State> = runs.iter().map(|run| State::of(run, options)).collect();
    let wanting: Vec<(usize, &Run)> =
        runs.iter().enumerate().filter(|(at, _)| !matches!(states[*at], State::Known(_))).collect();
    for (at, run) in &wanting {
        if let State::Stale(why) = &states[*at] {
            progress.line(&format!("{} is scored again: {why}", run.folder.display()));
        }
    }
    let made = score_all(&wanting, options, progress)?;
    let mut made = made.into_iter();
    let labels = labels(folders);
    let entrant = |((run, state), label): ((Run, State), String)| {
        let scored = match state {
            State::Known(scored) => *scored,
            _ => made.next().unwrap_or_else(|| unreachable!("a score for each run that lacked one")),
        };
        if scored.images.is_empty() {
            let scores = Scored::path(&run.folder, &options.split);
            return Err(CompareError::NoCaptions { run: run.folder, scores }.into());
        }
        Ok(Entrant { label, cache: options.cache.clone().unwrap_or_else(|| run.info.cache.clone()), scored, run })
    };
    runs.into_iter().zip(states).zip(labels).map(entrant).collect()
}

/// What there is of a run's scores.
enum State {
    /// Those that are wanted.
    Known(Box<Scored>),
    /// None.
    Absent,
    /// Others than those that are wanted.
    Stale(String),
}

impl State {
    fn of(run: &Run, options: &CompareOptions) -> Self {
        let path = Scored::path(&run.folder, &options.split);
        if !path.exists() {
            return Self::Absent;
        }
        let scored = match Scored::read(&path) {
            Ok(scored) => scored,
            Err(error) => return Self::Stale(first_line(&error)),
        };
        let searched = scored.made.as_ref().map(|made| made.search);
        let modified = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        let newer = || {
            let weights = modified(&run.checkpoint().ok()?.join("model.safetensors"))?;
            Some(weights > modified(&path)?)
        };
        let cache = options.cache.as_ref().unwrap_or(&run.info.cache);
        // What can't be made again is better than nothing.
        let can_be_made = cache.exists();
        match searched {
            Some(search) if search != run.recipe.decode && can_be_made => {
                Self::Stale("its captions were searched for otherwise than its recipe says".to_owned())
            }
            _ if newer() == Some(true) && can_be_made => Self::Stale("it was trained on since".to_owned()),
            _ => Self::Known(Box::new(scored)),
        }
    }
}

fn first_line(error: &anyhow::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// The scores of `runs`, in their order, [`AT_ONCE`] at a time.
fn score_all(runs: &[(usize, &Run)], options: &CompareOptions, progress: &dyn Progress) -> Result<Vec<Scored>> {
    if let [(_, run)] = runs {
        return Ok(vec![score(run, options, progress)?]);
    }
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    progress.start("score runs", Some(runs.len() as u64));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(runs.len()) {
            scope.spawn(|| {
                while let Some(at) = claim(&next, runs.len()) {
                    let outcome = score(runs[at].1, options, &Silent);
                    let failed = outcome.is_err();
                    done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((at, outcome));
                    progress.advance(1);
                    if failed {
                        next.store(runs.len(), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    progress.finish();
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, outcome)| outcome).collect()
}

fn claim(next: &AtomicUsize, count: usize) -> Option<usize> {
    Some(next.fetch_add(1, Ordering::Relaxed)).filter(|at| *at < count)
}

/// Captions the split with `run`, scores the captions and keeps the scores where `icecap evaluate` would.
fn score(run: &Run, options: &CompareOptions, progress: &dyn Progress) -> Result<Scored> {
    let cache = options.cache.as_ref().unwrap_or(&run.info.cache);
    if !cache.exists() {
        let (run, split, cache) = (run.folder.clone(), options.split.clone(), cache.clone());
        return Err(CompareError::NoCache { run, split, cache }.into());
    }
    let evaluate = EvaluateOptions {
        split: options.split.clone(),
        cache: options.cache.clone(),
        search: SearchOptions::default(),
        device: options.device.clone(),
        judging: Judging { bootstrap: Some(Plan::default()), ..Judging::default() },
    };
    let unscored = || CompareError::Unscored { run: run.folder.clone(), split: options.split.clone() };
    let scored = Scored::from(&evaluate_run(run, &evaluate, progress).with_context(unscored)?);
    if let Err(error) = scored.write(&Scored::path(&run.folder, &options.split)) {
        progress.line(&format!("the scores of {} are not kept: {error:#}", run.folder.display()));
    }
    Ok(scored)
}

/// The first folder that is another one's under another name.
fn twice(folders: &[PathBuf]) -> Option<PathBuf> {
    let real: Vec<PathBuf> =
        folders.iter().map(|folder| folder.canonicalize().unwrap_or_else(|_| folder.clone())).collect();
    (1..real.len()).find(|at| real[..*at].contains(&real[*at])).map(|at| folders[at].clone())
}

/// A name for each folder: as much of the end of its path as tells it from all others.
pub(super) fn labels(folders: &[PathBuf]) -> Vec<String> {
    let parts: Vec<Vec<String>> = folders
        .iter()
        .map(|folder| {
            let whole = folder.canonicalize().unwrap_or_else(|_| folder.clone());
            whole.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect()
        })
        .collect();
    let end = |parts: &[String], length: usize| parts[parts.len().saturating_sub(length)..].join("/");
    let longest = parts.iter().map(Vec::len).max().unwrap_or(0);
    let unlike = |length: &usize| {
        let mut ends: Vec<String> = parts.iter().map(|parts| end(parts, *length)).collect();
        ends.sort();
        ends.windows(2).all(|pair| pair[0] != pair[1])
    };
    let length = (1..=longest).find(unlike).unwrap_or(longest);
    parts.iter().map(|parts| end(parts, length)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_as_short_as_can_be() {
        let of = |folders: &[&str]| labels(&folders.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(of(&["runs/a", "runs/b"]), ["a", "b"]);
        assert_eq!(of(&["runs/grid/0", "runs/grid/1", "runs/tiles/0"]), ["grid/0", "grid/1", "tiles/0"]);
        assert_eq!(of(&["/a"]), ["a"]);
    }
}
