//! What a sweep file may say, as typed.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use toml::Table;

use super::faults::Found;

/// A sweep file as typed. What its tables of keys hold is read from the document (`entries`), which knows where each stands.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SweepSpec {
    /// The recipe, from the sweep file's folder.
    pub recipe: PathBuf,
    /// `train.seed` of each point's trials.
    #[serde(default)]
    pub seeds: Vec<u64>,
    /// Lists of values; every combination is a point.
    #[serde(default, rename = "grid")]
    _grid: Table,
    /// Named sets of keys.
    #[serde(default, rename = "variant")]
    pub variants: Vec<VariantSpec>,
    /// Values that are drawn.
    #[serde(default, rename = "random")]
    _random: Option<RandomSpec>,
    /// How trials are weeded out.
    #[serde(default)]
    pub halving: Option<HalvingSpec>,
}

/// A `[[variant]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VariantSpec {
    /// Its name: a part of the trials' names.
    pub name: String,
    /// Variants of one group take each other's place; those of several groups are combined.
    #[serde(default)]
    pub group: String,
    /// Keys and values.
    #[serde(default, rename = "set")]
    _set: Table,
}

/// `[random]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RandomSpec {
    /// How many are drawn.
    #[serde(rename = "n")]
    _n: u32,
    /// What is drawn.
    #[serde(default, rename = "seed")]
    _seed: u64,
    /// One of a list.
    #[serde(default, rename = "choices")]
    _choices: Table,
    /// A number of `{ from, to }`.
    #[serde(default, rename = "ranges")]
    _ranges: Table,
}

/// `[halving]`: successive halving of the points, by the mean of their seeds' best validation CIDEr.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HalvingSpec {
    /// One of so many points goes on.
    #[serde(default = "three")]
    pub eta: usize,
    /// The steps after which points are compared.
    pub rungs: Vec<u64>,
}

fn three() -> usize {
    3
}

impl SweepSpec {
    /// Faults of meaning that need neither the recipe nor the tables of keys.
    pub fn check(&self, text: &str, found: &mut Found) {
        let repeated = |at: usize| self.seeds[..at].contains(&self.seeds[at]);
        if let Some(at) = (0..self.seeds.len()).find(|at| repeated(*at)) {
            let message = format!("the seed `{}` stands here twice", self.seeds[at]);
            found.at(text, &["seeds", &at.to_string()], message, None);
        }
        for (at, variant) in self.variants.iter().enumerate() {
            let twin = |other: &VariantSpec| (&other.group, &other.name) == (&variant.group, &variant.name);
            let place = ["variant", &at.to_string(), "name"];
            if self.variants[..at].iter().any(twin) {
                found.at(text, &place, format!("two variants are called `{}`", variant.name), None);
            }
            let fits = |letter: char| letter.is_alphanumeric() || "._+=-".contains(letter);
            if !variant.name.starts_with(char::is_alphanumeric) || !variant.name.chars().all(fits) {
                let message = format!("`{}` can't be a part of a folder's name", variant.name);
                let hint = "begin with a letter or digit, and use `.`, `_`, `-`, `+` and `=` beside them".to_owned();
                found.at(text, &place, message, Some(hint));
            }
        }
        let Some(halving) = &self.halving else { return };
        if halving.eta < 2 {
            let message = format!("`{}` does not work: it must be at least 2", halving.eta);
            found.at(text, &["halving", "eta"], message, Some("one of `eta` points goes on".to_owned()));
        }
        let rungs = &halving.rungs;
        if rungs.is_empty() || rungs[0] == 0 || rungs.windows(2).any(|pair| pair[0] >= pair[1]) {
            let message = format!("`{rungs:?}` does not work: rungs are steps, each more than the one before");
            found.at(text, &["halving", "rungs"], message, Some("write for example rungs = [200, 600]".to_owned()));
        }
    }
}
