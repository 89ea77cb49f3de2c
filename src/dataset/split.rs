//! The names of splits, and dividing a data set that comes without any.

use serde::{Deserialize, Serialize};

use super::DatasetError;

/// Trained on.
pub const TRAIN: &str = "train";
/// Looked at during training.
pub const VAL: &str = "val";
/// Looked at once.
pub const TEST: &str = "test";

/// The split that a data set's own word means; `None` for an unknown one. The empty word means no split.
pub fn normalise(word: &str) -> Option<&'static str> {
    match word.trim().to_ascii_lowercase().as_str() {
        "" => Some(""),
        "train" | "training" | "restval" => Some(TRAIN),
        "val" | "dev" | "valid" | "validation" | "eval" => Some(VAL),
        "test" | "testing" => Some(TEST),
        _ => None,
    }
}

/// Shares to hold out of a data set that comes without splits: `holdout = { val = 0.1, test = 0.1 }`.
///
/// Which images are held out depends on their ids alone, so that added images move no other.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holdout {
    /// Share of the images for `val`, 0 to 1.
    #[serde(default)]
    pub val: f64,
    /// Share of the images for `test`, 0 to 1.
    #[serde(default)]
    pub test: f64,
}

impl Holdout {
    pub(super) fn check(holdout: Option<Self>) -> Result<(), DatasetError> {
        let Some(Self { val, test }) = holdout else {
            return Ok(());
        };
        if val >= 0.0 && test >= 0.0 && val + test < 1.0 {
            return Ok(());
        }
        let value = format!("{{ val = {val}, test = {test} }}");
        let hint = "both are shares of the images, at least 0 and together less than 1";
        Err(DatasetError::Setting { key: "holdout", value, hint })
    }

    /// The split of an image that has none of its own: `train` without a holdout.
    pub(super) fn assign(holdout: Option<Self>, id: &str) -> &'static str {
        let Some(Self { val, test }) = holdout else {
            return TRAIN;
        };
        let at = share(id);
        if at < val {
            VAL
        } else if at < val + test {
            TEST
        } else {
            TRAIN
        }
    }
}

/// A number in 0..1 from an id: FNV-1a, then the finisher of splitmix64.
fn share(id: &str) -> f64 {
    let hash = id
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    (super::shapes::mix(hash) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_all_data_sets_are_known() {
        assert_eq!(
            ["dev", "Validation", "restval", "TEST", ""].map(normalise),
            [Some("val"), Some("val"), Some("train"), Some("test"), Some("")]
        );
        assert_eq!(normalise("tset"), None);
    }

    #[test]
    fn shares_are_kept_and_independent_of_other_images() {
        let holdout = Some(Holdout { val: 0.1, test: 0.2 });
        let count = |split| (0..10_000).filter(|i| Holdout::assign(holdout, &format!("{i}.jpg")) == split).count();
        assert!((900..1100).contains(&count(VAL)), "{}", count(VAL));
        assert!((1850..2150).contains(&count(TEST)), "{}", count(TEST));
        assert_eq!(Holdout::assign(None, "a"), TRAIN);
    }

    #[test]
    fn impossible_shares_are_refused() {
        let error = Holdout::check(Some(Holdout { val: 0.6, test: 0.4 })).unwrap_err();
        insta::assert_snapshot!(error, @r"
        `holdout = { val = 0.6, test = 0.4 }` cannot be used in `[dataset]`
        hint: both are shares of the images, at least 0 and together less than 1
        ");
        assert!(Holdout::check(Some(Holdout { val: f64::NAN, test: 0.0 })).is_err());
    }
}
