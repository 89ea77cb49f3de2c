//! `icecap compare`: which of these runs is better, by how much, and is the difference one?
//!
//! Must not know: how anything is shown. All runs are scored on the same images against the same references, or there is no table. One decision
//! defended: runs that differ by nothing but `train.seed` are one row. A table of seeds invites to pick the luckiest.

mod entrant;
mod error;
mod facts;
mod gallery;
mod looks;
mod page;
mod photos;
mod variant;

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use anyhow::Result;
use icecap_cache::Cache;
use serde::Serialize;

pub use error::CompareError;
pub use facts::Facts;

use super::{
    evaluate::{Scored, same_images},
    run::Run,
    spread::{deviation, mean},
    sweep::finished_trials,
};
use crate::{
    metrics::{Difference, ImageScores, Interval, Metric, Plan, Resampled},
    progress::Progress,
};
use entrant::{Entrant, entrants};
use variant::{Group, groups};

/// Variants of which every pair is compared; of more, each is compared with the first.
const PAIRED: usize = 30;

/// What `icecap compare` is told.
#[derive(Debug, Clone)]
pub struct CompareOptions {
    /// The split.
    pub split: String,
    /// The cache, where it has moved since the runs were trained.
    pub cache: Option<PathBuf>,
    /// The data folder, where it has moved.
    pub data: Option<PathBuf>,
    /// The score that ranks.
    pub metric: Metric,
    /// `cpu`, `cuda`, `cuda:N`.
    pub device: String,
    /// Rank each run by itself, also where runs differ by nothing but their seed.
    pub apart: bool,
    /// The report to write.
    pub page: Option<PathBuf>,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// The split.
    pub split: String,
    /// Its images.
    pub images: usize,
    /// The score that ranks.
    pub metric: Metric,
    /// How intervals and differences were found.
    pub plan: Plan,
    /// The variants, best first.
    pub variants: Vec<Variant>,
    /// Each run by itself, in the order of the variants.
    pub runs: Vec<RunScores>,
    /// What sets the variants apart in [`Comparison::metric`]: every pair, or of many variants each and the first.
    pub differences: Vec<Apart>,
    /// What the reader should know.
    pub notes: Vec<String>,
    /// The report, where one was written.
    pub report: Option<Report>,
}

/// One row: runs that differ by nothing but their seed.
#[derive(Debug, Clone, Serialize)]
pub struct Variant {
    /// Its name.
    pub name: String,
    /// Its runs.
    pub runs: Vec<String>,
    /// Its scores, means over its runs.
    pub scores: BTreeMap<Metric, f64>,
    /// Where they lie: over images and, where there are several, over seeds.
    pub intervals: BTreeMap<Metric, Interval>,
    /// METEOR, where all runs of all variants have it.
    pub meteor: Option<f64>,
    /// The standard deviation of [`Comparison::metric`] over the seeds, where there are several.
    pub deviation: Option<f64>,
    /// What sets it apart from the first; none for the first.
    pub from_first: Option<Apart>,
    /// Words that its captions use.
    pub vocabulary: f64,
    /// The share of captions that no other image has.
    pub distinct: f64,
    /// Words a caption.
    pub mean_length: f64,
    /// What it cost: means over its runs.
    #[serde(flatten)]
    pub facts: Facts,
}

/// One run's scores.
#[derive(Debug, Clone, Serialize)]
pub struct RunScores {
    /// Its name.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// Its variant.
    pub variant: String,
    /// Its seed.
    pub seed: u64,
    /// Its scores.
    pub scores: BTreeMap<Metric, f64>,
    /// What it cost.
    #[serde(flatten)]
    pub facts: Facts,
}

/// What sets one variant apart from another.
#[derive(Debug, Clone, Serialize)]
pub struct Apart {
    /// The one that ranks higher.
    pub a: String,
    /// The one that ranks lower.
    pub b: String,
    /// The score of `b` less that of `a`.
    pub difference: f64,
    /// Where the difference lies.
    pub interval: Interval,
    /// How often chance alone makes such a difference.
    pub p: f64,
    /// The same, corrected for all the differences that were looked at.
    pub p_holm: f64,
    /// Whether it may be called a difference.
    pub significant: bool,
    #[serde(skip)]
    places: (usize, usize),
}

/// The report that was written.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Images in its gallery.
    pub gallery: usize,
}

/// Compares the runs in `folders`, and writes the report where one is wanted. A sweep's folder stands for its finished trials.
///
/// # Errors
/// Where a run can't be scored, or was scored on other images or references than the first.
pub fn compare(folders: &[PathBuf], options: &CompareOptions, progress: &dyn Progress) -> Result<Comparison> {
    let folders = runs_in(folders, progress)?;
    let entrants = entrants(&folders, options, progress)?;
    let entrants = comparable(entrants, options)?;
    let caches = open_caches(&entrants);
    let facts: Vec<Facts> =
        entrants.iter().map(|entrant| Facts::of(&entrant.run, caches.get(&entrant.cache))).collect();
    let (groups, resampled) = ranked(&entrants, options, progress)?;
    let mut comparison = table(&entrants, &facts, &groups, &resampled, options);
    comparison.notes = notes(&entrants, &caches);
    if let Some(path) = &options.page {
        let view = page::View { entrants: &entrants, facts: &facts, groups: &groups, caches: &caches };
        comparison.report = Some(page::write(path, &comparison, &view, options, progress)?);
    }
    Ok(comparison)
}

/// The folders of runs, with a sweep's trials for its own.
fn runs_in(folders: &[PathBuf], progress: &dyn Progress) -> Result<Vec<PathBuf>> {
    let mut runs = Vec::with_capacity(folders.len());
    for folder in folders {
        let trials = if Run::exists(folder) { None } else { finished_trials(folder) };
        match trials {
            None => runs.push(folder.clone()),
            Some((trials, _)) if trials.is_empty() => {
                return Err(CompareError::NoTrials { sweep: folder.clone() }.into());
            }
            Some((trials, others)) => {
                if others > 0 {
                    let trials = if others == 1 { "trial" } else { "trials" };
                    let left = format!("left out of {}: {others} {trials} not trained to the end", folder.display());
                    progress.line(&left);
                }
                runs.extend(trials);
            }
        }
    }
    Ok(runs)
}

/// The same runs, refused where they were not scored on the same images.
fn comparable(entrants: Vec<Entrant>, options: &CompareOptions) -> Result<Vec<Entrant>> {
    let (mut rest, mut scored) = (Vec::with_capacity(entrants.len()), Vec::with_capacity(entrants.len()));
    for Entrant { run, label, cache, scored: its } in entrants {
        scored.push((Scored::path(&run.folder, &options.split), its));
        rest.push((run, label, cache));
    }
    same_images(&scored)?;
    let whole = |((run, label, cache), (_, scored))| Entrant { run, label, cache, scored };
    Ok(rest.into_iter().zip(scored).map(whole).collect())
}

/// Each cache that is still there, once.
fn open_caches(entrants: &[Entrant]) -> HashMap<PathBuf, Cache> {
    let mut caches = HashMap::new();
    for entrant in entrants {
        if !caches.contains_key(&entrant.cache)
            && let Ok(cache) = Cache::open(&entrant.cache)
        {
            caches.insert(entrant.cache.clone(), cache);
        }
    }
    caches
}

/// The variants, best first, and their scores on the images and on each draw of them.
fn ranked(entrants: &[Entrant], options: &CompareOptions, progress: &dyn Progress) -> Result<(Vec<Group>, Resampled)> {
    let mut groups = groups(entrants, options.apart);
    let images: Vec<Vec<ImageScores>> = entrants.iter().map(|entrant| entrant.scored.image_scores()).collect();
    let runs: Vec<&[ImageScores]> = images.iter().map(Vec::as_slice).collect();
    let count = groups.len();
    let pairs = if count <= PAIRED { count * (count - 1) / 2 } else { count - 1 };
    progress.start("draw images anew", None);
    let resampled = Resampled::draw(&runs, Plan::for_pairs(pairs))?;
    progress.finish();
    let of = |groups: &[Group]| resampled.grouped(&groups.iter().map(|group| group.runs.clone()).collect::<Vec<_>>());
    let unranked = of(&groups);
    let mut order: Vec<usize> = (0..count).collect();
    // NaN, no score at all, comes last.
    let score = |at: usize| Some(unranked.score(at, options.metric)).filter(|score| !score.is_nan()).unwrap_or(-1.0);
    order.sort_by(|a, b| score(*b).total_cmp(&score(*a)));
    groups = order.into_iter().map(|at| groups[at].clone()).collect();
    let ranked = of(&groups);
    Ok((groups, ranked))
}

fn table(
    entrants: &[Entrant],
    facts: &[Facts],
    groups: &[Group],
    resampled: &Resampled,
    options: &CompareOptions,
) -> Comparison {
    let metric = options.metric;
    let found = if groups.len() <= PAIRED { resampled.pairs(metric) } else { resampled.against(0, metric) };
    let apart = |found: Difference| Apart {
        a: groups[found.a].name.clone(),
        b: groups[found.b].name.clone(),
        difference: found.difference,
        interval: found.interval,
        p: found.p,
        p_holm: found.p_holm,
        significant: found.significant,
        places: (found.a, found.b),
    };
    let differences: Vec<Apart> = found.into_iter().map(apart).collect();
    let meteor = entrants.iter().all(|entrant| entrant.scored.summary.meteor.is_some());
    let mut variants = Vec::with_capacity(groups.len());
    let mut runs = Vec::with_capacity(entrants.len());
    for (at, group) in groups.iter().enumerate() {
        let of_group: Vec<RunScores> =
            group.runs.iter().map(|run| run_scores(&entrants[*run], &facts[*run], &group.name)).collect();
        let summary = |read: &dyn Fn(&Entrant) -> f64| {
            mean(group.runs.iter().map(|run| read(&entrants[*run]))).unwrap_or(f64::NAN)
        };
        let own: Vec<f64> = of_group.iter().filter_map(|run| run.scores.get(&metric).copied()).collect();
        let interval = |metric| Some((metric, resampled.interval(at, metric)?));
        variants.push(Variant {
            name: group.name.clone(),
            runs: of_group.iter().map(|run| run.name.clone()).collect(),
            scores: known(|metric| resampled.score(at, metric)),
            intervals: Metric::ALL.into_iter().filter_map(interval).collect(),
            meteor: meteor.then(|| summary(&|entrant| entrant.scored.summary.meteor.unwrap_or(f64::NAN))),
            deviation: deviation(&own),
            from_first: differences.iter().find(|apart| apart.places == (0, at)).cloned(),
            vocabulary: summary(&|entrant| entrant.scored.summary.wording.vocabulary as f64),
            distinct: summary(&|entrant| {
                entrant.scored.summary.wording.distinct_captions as f64 / entrant.scored.images.len() as f64
            }),
            mean_length: summary(&|entrant| entrant.scored.summary.wording.mean_length),
            facts: together(&group.runs.iter().map(|run| &facts[*run]).collect::<Vec<_>>()),
        });
        runs.extend(of_group);
    }
    let images = entrants.first().map_or(0, |entrant| entrant.scored.images.len());
    let (split, plan) = (options.split.clone(), resampled.plan());
    Comparison { split, images, metric, plan, variants, runs, differences, notes: Vec::new(), report: None }
}

fn run_scores(entrant: &Entrant, facts: &Facts, variant: &str) -> RunScores {
    let summary = &entrant.scored.summary;
    let score = |metric| match metric {
        Metric::Bleu1 => summary.bleu[0],
        Metric::Bleu2 => summary.bleu[1],
        Metric::Bleu3 => summary.bleu[2],
        Metric::Bleu4 => summary.bleu[3],
        Metric::RougeL => summary.rouge_l,
        Metric::Cider => summary.cider,
        Metric::ObjectRecall => summary.object_recall.unwrap_or(f64::NAN),
    };
    RunScores {
        name: entrant.label.clone(),
        folder: entrant.run.folder.clone(),
        variant: variant.to_owned(),
        seed: entrant.run.recipe.train.seed,
        scores: known(score),
        facts: facts.clone(),
    }
}

/// Every score that there is.
fn known(score: impl Fn(Metric) -> f64) -> BTreeMap<Metric, f64> {
    Metric::ALL.into_iter().map(|metric| (metric, score(metric))).filter(|(_, score)| !score.is_nan()).collect()
}

/// Means over the runs of a variant, where all of them know.
fn together(runs: &[&Facts]) -> Facts {
    let all = |read: fn(&Facts) -> Option<f64>| {
        let values: Option<Vec<f64>> = runs.iter().map(|facts| read(facts)).collect();
        values.and_then(mean)
    };
    Facts {
        tokens_per_second: all(|facts| facts.tokens_per_second),
        seconds: all(|facts| facts.seconds),
        epochs: all(|facts| facts.epochs),
        best_epoch: all(|facts| facts.best_epoch),
        ..runs.first().map_or_else(Facts::default, |first| (*first).clone())
    }
}

fn notes(entrants: &[Entrant], caches: &HashMap<PathBuf, Cache>) -> Vec<String> {
    let mut notes = Vec::new();
    let gone = |path: &Path| !caches.contains_key(path);
    let without: Vec<&str> =
        entrants.iter().filter(|entrant| gone(&entrant.cache)).map(|entrant| entrant.label.as_str()).collect();
    if !without.is_empty() {
        notes.push(format!(
            "the cache of {} can't be opened: its column's bytes and attention are left out",
            without.join(", ")
        ));
    }
    let missing: Vec<String> = entrants
        .iter()
        .filter(|entrant| entrant.scored.summary.missing > 0)
        .map(|entrant| format!("{} ({})", entrant.label, entrant.scored.summary.missing))
        .collect();
    if !missing.is_empty() {
        notes.push(format!("images without an embedding were captioned from nothing: {}", missing.join(", ")));
    }
    let searches: Vec<String> = entrants.iter().map(|entrant| format!("{:?}", entrant.run.recipe.decode)).collect();
    if searches.windows(2).any(|pair| pair[0] != pair[1]) {
        notes.push("the runs' captions were not all searched for in one way: see the recipes' [decode]".to_owned());
    }
    notes
}
