//! How far is a score to be trusted, and is the difference of two runs one? The bootstrap over images (Efron 1979; Koehn 2004).
//!
//! Must not know: files, runs' names. In: each run's per-image scores over the same images. Out: intervals, differences, p-values.
//!
//! All runs share the resamples, so that every comparison is paired: an image that is hard for all cancels out. CIDEr's rarity stays that
//! of the whole set: it is the yardstick, not the sample. A resample is a pure function of (seed, its number): the number of threads and
//! of runs changes nothing.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{ImageScores, Metric, MetricsError, Totals};

const METRICS: usize = Metric::ALL.len();

/// How a bootstrap is done.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// How often the images are drawn anew.
    pub resamples: usize,
    /// Decides what is drawn.
    pub seed: u64,
    /// The share of resamples that an interval holds.
    pub confidence: f64,
}

impl Default for Plan {
    fn default() -> Self {
        Self { resamples: 1000, seed: 0, confidence: 0.95 }
    }
}

impl Plan {
    /// Resamples enough for Holm's correction over so many pairs: the least p that n resamples can show is 2 / (n + 1), and it has to stay
    /// well below (1 - confidence) / pairs.
    #[must_use]
    pub fn for_pairs(pairs: usize) -> Self {
        let plan = Self::default();
        let enough = (4.0 * pairs as f64 / (1.0 - plan.confidence)).ceil() as usize;
        Self { resamples: plan.resamples.max(enough), ..plan }
    }
}

/// Where a score lies with the plan's confidence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// What sets run `b` apart from run `a` in one metric.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Difference {
    /// The first run's place.
    pub a: usize,
    /// The second run's.
    pub b: usize,
    /// The second run's score less the first's.
    pub difference: f64,
    /// Where the difference lies.
    pub interval: Interval,
    /// How often chance alone makes such a difference, two-sided; never below 2 / (resamples + 1).
    pub p: f64,
    /// The same after Holm's correction over all pairs that were looked at; equal to `p` for one pair.
    pub p_holm: f64,
    /// `p_holm` is below 1 - confidence: the difference may be called one.
    pub significant: bool,
}

/// The scores of runs over the same resamples of the images.
#[derive(Debug, Clone)]
pub struct Resampled {
    plan: Plan,
    /// Each run's scores of the images as they are.
    observed: Vec<[f64; METRICS]>,
    /// For each resample, each run's scores.
    drawn: Vec<Vec<[f64; METRICS]>>,
}

impl Resampled {
    /// Draws the images anew and scores every run on each draw. `runs` hold the same images in the same order.
    ///
    /// # Errors
    /// [`MetricsError::NoImages`], [`MetricsError::OtherImages`].
    pub fn draw(runs: &[&[ImageScores]], plan: Plan) -> Result<Self, MetricsError> {
        let images = runs.first().map_or(0, |run| run.len());
        if images == 0 {
            return Err(MetricsError::NoImages);
        }
        if let Some(other) = runs.iter().find(|run| run.len() != images) {
            return Err(MetricsError::OtherImages { first: images, other: other.len() });
        }
        let parts: Vec<Vec<Totals>> = runs.iter().map(|run| run.iter().map(Totals::of).collect()).collect();
        let scores = |times: &[u32]| parts.iter().map(|run| scores(run, times)).collect::<Vec<_>>();
        let observed = scores(&vec![1; images]);
        let drawn =
            (0..plan.resamples).into_par_iter().map(|number| scores(&draw(images, plan.seed, number))).collect();
        Ok(Self { plan, observed, drawn })
    }

    /// The same of groups of runs, such as the seeds of one recipe: a group's score is the mean of its runs'. In each resample a group's runs are
    /// drawn anew too, as many as it has, so that an interval covers both: other images, and other seeds.
    #[must_use]
    pub fn grouped(&self, groups: &[Vec<usize>]) -> Self {
        let observed = groups.iter().map(|runs| mean(&self.observed, runs.iter().copied())).collect();
        let redraw = |(number, scores): (usize, &Vec<[f64; METRICS]>)| {
            let group = |(at, runs): (usize, &Vec<usize>)| {
                mean(scores, drawn_again(runs.len(), self.plan.seed, number, at).map(|place| runs[place]))
            };
            groups.iter().enumerate().map(group).collect()
        };
        Self { plan: self.plan, observed, drawn: self.drawn.iter().enumerate().map(redraw).collect() }
    }

    /// How it was drawn.
    #[must_use]
    pub fn plan(&self) -> Plan {
        self.plan
    }

    /// A run's score on the images as they are; NaN where it has none.
    #[must_use]
    pub fn score(&self, run: usize, metric: Metric) -> f64 {
        self.observed[run][metric as usize]
    }

    /// The percentile interval of a run's score; `None` where the plan has no resamples, or a run has no such score.
    #[must_use]
    pub fn interval(&self, run: usize, metric: Metric) -> Option<Interval> {
        self.percentiles(self.drawn.iter().map(|runs| runs[run][metric as usize]).collect())
    }

    /// What sets run `b` apart from run `a`, as if nothing else had been compared; `None` where [`Self::interval`] is.
    #[must_use]
    pub fn difference(&self, a: usize, b: usize, metric: Metric) -> Option<Difference> {
        let at = metric as usize;
        let differences: Vec<f64> = self.drawn.iter().map(|runs| runs[b][at] - runs[a][at]).collect();
        let count = |wrong: fn(&f64) -> bool| differences.iter().copied().filter(wrong).count();
        let fewer = count(|difference| *difference <= 0.0).min(count(|difference| *difference >= 0.0));
        let p = (2.0 * (fewer + 1) as f64 / (differences.len() + 1) as f64).min(1.0);
        let interval = self.percentiles(differences)?;
        let difference = self.observed[b][at] - self.observed[a][at];
        Some(Difference { a, b, difference, interval, p, p_holm: p, significant: p < self.alpha() })
    }

    /// Every pair of runs in one metric, first run before second, with Holm's correction over them.
    #[must_use]
    pub fn pairs(&self, metric: Metric) -> Vec<Difference> {
        let runs = self.observed.len();
        let pairs = (0..runs).flat_map(|a| (a + 1..runs).map(move |b| (a, b)));
        self.corrected(pairs.filter_map(|(a, b)| self.difference(a, b, metric)).collect())
    }

    /// Every other run against the run at `base`, with Holm's correction over them.
    #[must_use]
    pub fn against(&self, base: usize, metric: Metric) -> Vec<Difference> {
        let others = (0..self.observed.len()).filter(|run| *run != base);
        self.corrected(others.filter_map(|run| self.difference(base, run, metric)).collect())
    }

    fn corrected(&self, mut differences: Vec<Difference>) -> Vec<Difference> {
        let corrected = holm(&differences.iter().map(|difference| difference.p).collect::<Vec<_>>());
        for (difference, p) in differences.iter_mut().zip(corrected) {
            difference.p_holm = p;
            difference.significant = p < self.alpha();
        }
        differences
    }

    fn alpha(&self) -> f64 {
        1.0 - self.plan.confidence
    }

    fn percentiles(&self, mut values: Vec<f64>) -> Option<Interval> {
        values.retain(|value| !value.is_nan());
        values.sort_unstable_by(f64::total_cmp);
        let tail = self.alpha() / 2.0;
        Some(Interval { low: percentile(&values, tail)?, high: percentile(&values, 1.0 - tail)? })
    }
}

/// Holm's step-down correction (1979): p-values that may be compared with one level, however many there are. In input order.
#[must_use]
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let mut corrected = vec![0.0; p.len()];
    let mut highest = 0.0_f64;
    for (rank, at) in order.into_iter().enumerate() {
        highest = highest.max(p[at] * (p.len() - rank) as f64).min(1.0);
        corrected[at] = highest;
    }
    corrected
}

/// The value below which `share` of the sorted `values` lie, between two of them by proportion.
fn percentile(values: &[f64], share: f64) -> Option<f64> {
    let place = share * values.len().checked_sub(1)? as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    Some(values[below] + (values[above] - values[below]) * place.fract())
}

fn scores(images: &[Totals], times: &[u32]) -> [f64; METRICS] {
    let mut totals = Totals::default();
    for (image, times) in images.iter().zip(times) {
        totals.add(image, f64::from(*times));
    }
    Metric::ALL.map(|metric| totals.score(metric))
}

/// How often each image is drawn in resample `number`: as many draws as images, with replacement.
fn draw(images: usize, seed: u64, number: usize) -> Vec<u32> {
    let mut times = vec![0; images];
    let mut state = mix(seed ^ mix(number as u64));
    for _ in 0..images {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let place = (u128::from(mix(state)) * images as u128) >> 64;
        times[place as usize] += 1;
    }
    times
}

/// The mean of the scores of `runs`.
fn mean(scores: &[[f64; METRICS]], runs: impl ExactSizeIterator<Item = usize>) -> [f64; METRICS] {
    let count = runs.len() as f64;
    let mut sums = [0.0; METRICS];
    for run in runs {
        sums.iter_mut().zip(scores[run]).for_each(|(sum, score)| *sum += score);
    }
    sums.map(|sum| sum / count)
}

/// Which of a group's `runs` stand for it in resample `number`: as many as it has, with replacement.
fn drawn_again(runs: usize, seed: u64, number: usize, group: usize) -> impl ExactSizeIterator<Item = usize> {
    let start = mix(seed ^ mix(number as u64) ^ mix(!(group as u64)));
    (0..runs).map(move |place| {
        let bits = mix(start.wrapping_add((place as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        ((u128::from(bits) * runs as u128) >> 64) as usize
    })
}

/// The finalizer of splitmix64 (Steele et al. 2014).
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests;
