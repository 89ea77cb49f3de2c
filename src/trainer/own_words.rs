//! What a recipe's `[train]` may say of a decoder's own words: scheduled sampling, and rewards.

use serde::{Deserialize, Serialize};

use super::{TrainError, TrainSpec};

/// Words that go in are, more and more often, the decoder's own (Bengio et al. 2015).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduledSampling {
    /// The share of words in the end.
    pub max: f64,
    /// Epochs in which all words are true ones; fractions work.
    pub after: f64,
    /// Epochs after those in which the share rises along a line to `max`.
    pub over: f64,
}

impl Default for ScheduledSampling {
    fn default() -> Self {
        Self { max: 0.25, after: 0.0, over: 5.0 }
    }
}

impl ScheduledSampling {
    /// The share at `epoch`, counted from 0 with fractions.
    #[must_use]
    pub fn share(&self, epoch: f64) -> f64 {
        let since = epoch - self.after;
        let done = if self.over > 0.0 { since / self.over } else { f64::from(since >= 0.0) };
        self.max * done.clamp(0.0, 1.0)
    }
}

/// What a sampled caption's reward is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Baseline {
    /// The mean of the image's other samples (Luo 2020).
    #[default]
    Mean,
    /// The caption spoken greedily (Rennie et al. 2017).
    Greedy,
}

/// Self-critical sequence training: captions are sampled, and learned by how much better than a baseline they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scst {
    /// Captions sampled of each image of a batch.
    pub samples: usize,
    /// What their rewards are compared with.
    pub baseline: Baseline,
    /// Epochs of cross entropy before; 0 where the training begins with a run's weights. Fractions work.
    pub after: f64,
}

impl Default for Scst {
    fn default() -> Self {
        Self { samples: 5, baseline: Baseline::default(), after: 0.0 }
    }
}

/// A rule: where it is broken, what is said there, and what must be.
type Rule = (&'static str, bool, String, &'static str);

impl TrainSpec {
    /// Whether every step is rewarded: no caption is learned by cross entropy.
    #[must_use]
    pub fn only_rewards(&self) -> bool {
        self.scst.as_ref().is_some_and(|scst| scst.after == 0.0)
    }

    /// Whether captions are sampled and rewarded at `epoch`.
    pub(super) fn rewards_at(&self, epoch: f64) -> Option<&Scst> {
        self.scst.as_ref().filter(|scst| epoch >= scst.after)
    }

    /// All that does not work about own words, as [`TrainError::Spec`].
    #[must_use]
    pub fn own_words_faults(&self) -> Vec<TrainError> {
        let sampling = self.scheduled_sampling.iter().flat_map(sampling_rules);
        let only = self.only_rewards();
        let rewards = self.scst.iter().flat_map(scst_rules).chain(only.then(|| {
            let smoothing = self.label_smoothing;
            (
                "label_smoothing",
                smoothing == 0.0,
                smoothing.to_string(),
                "0 with `scst`: a reward has no targets to smooth",
            )
        }));
        let both = self.scheduled_sampling.iter().filter(|_| only).map(|sampling| {
            let must = "left out with `scst`: all words are sampled already (or let `scst.after` epochs of cross entropy come first)";
            ("scheduled_sampling", false, format!("max = {}", sampling.max), must)
        });
        let broken = sampling.chain(rewards).chain(both).filter(|(_, holds, ..)| !holds);
        broken.map(|(field, _, value, must)| TrainError::Spec { field, value, must }).collect()
    }
}

fn epochs(value: f64) -> bool {
    value.is_finite() && value >= 0.0
}

fn sampling_rules(spec: &ScheduledSampling) -> [Rule; 3] {
    [
        ("scheduled_sampling.max", (0.0..=1.0).contains(&spec.max), spec.max.to_string(), "0 to 1"),
        ("scheduled_sampling.after", epochs(spec.after), spec.after.to_string(), "at least 0 epochs"),
        ("scheduled_sampling.over", epochs(spec.over), spec.over.to_string(), "at least 0 epochs"),
    ]
}

fn scst_rules(spec: &Scst) -> [Rule; 2] {
    let (least, must) = match spec.baseline {
        Baseline::Mean => (2, "2 to 100: `baseline = \"mean\"` is the mean of an image's other samples"),
        Baseline::Greedy => (1, "1 to 100"),
    };
    [
        ("scst.samples", (least..=100).contains(&spec.samples), spec.samples.to_string(), must),
        ("scst.after", epochs(spec.after), spec.after.to_string(), "at least 0 epochs"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_rises_along_a_line() {
        let spec = ScheduledSampling { max: 0.4, after: 1.0, over: 2.0 };
        assert_eq!([0.0, 1.0, 1.5, 2.0, 3.0, 9.0].map(|epoch| spec.share(epoch)), [0.0, 0.0, 0.1, 0.2, 0.4, 0.4]);
        let at_once = ScheduledSampling { over: 0.0, ..spec };
        assert_eq!([0.9, 1.0].map(|epoch| at_once.share(epoch)), [0.0, 0.4]);
    }

    #[test]
    fn recipes_say_it_in_a_line_or_a_table() {
        let read = |text: &str| toml::from_str::<TrainSpec>(text).unwrap();
        let spec = read("scheduled_sampling = { max = 0.1 }");
        assert_eq!(spec.scheduled_sampling, Some(ScheduledSampling { max: 0.1, ..Default::default() }));
        assert_eq!(toml::from_str::<TrainSpec>(&toml::to_string(&spec).unwrap()).unwrap(), spec);
        let spec = read("label_smoothing = 0.0\n[scst]\nbaseline = 'greedy'");
        assert_eq!(spec.scst, Some(Scst { baseline: Baseline::Greedy, ..Scst::default() }));
        assert!(spec.only_rewards() && spec.rewards_at(0.0).is_some());
        assert_eq!(toml::from_str::<TrainSpec>(&toml::to_string(&spec).unwrap()).unwrap(), spec);
        let later = read("[scst]\nafter = 1.5");
        assert!(!later.only_rewards() && later.rewards_at(1.4).is_none() && later.rewards_at(1.5).is_some());
        later.check().unwrap();
    }

    #[test]
    fn what_does_not_work_is_named() {
        let field = |text: &str| match toml::from_str::<TrainSpec>(text).unwrap().check() {
            Err(TrainError::Spec { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(field("scheduled_sampling = { max = 1.5 }"), "scheduled_sampling.max");
        assert_eq!(field("scheduled_sampling = { after = -1.0 }"), "scheduled_sampling.after");
        assert_eq!(field("scheduled_sampling = { over = nan }"), "scheduled_sampling.over");
        assert_eq!(field("scst = { samples = 1, after = 1.0 }"), "scst.samples");
        assert_eq!(field("scst = { samples = 0, baseline = 'greedy', after = 1.0 }"), "scst.samples");
        assert_eq!(field("scst = { after = -1.0 }"), "scst.after");
        assert_eq!(field("scst = {}"), "label_smoothing");
        assert_eq!(field("label_smoothing = 0.0\nscst = {}\nscheduled_sampling = {}"), "scheduled_sampling");
    }
}
