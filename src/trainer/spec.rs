//! What a recipe's `[train]` may say.

use serde::{Deserialize, Serialize};

use super::{Precision, Schedule, ScheduledSampling, Scst, TrainError};
use crate::decoder::Decoder;

/// How a decoder is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainSpec {
    /// Passes over the training captions.
    pub epochs: u64,
    /// Steps in all; takes the place of `epochs`.
    pub steps: Option<u64>,
    /// Captions a batch.
    pub batch: usize,
    /// At most so many captions of one image in a batch: its features are read and mapped once for all of them.
    pub together: usize,
    /// Batches whose gradients are added up before a step.
    pub accumulation: usize,
    /// The largest learning rate.
    pub learning_rate: f64,
    /// How it falls after the warm-up.
    pub schedule: Schedule,
    /// Steps in which it rises from zero.
    pub warmup_steps: u64,
    /// What the rate is multiplied with at a plateau, where the schedule is `plateau`.
    pub plateau_factor: f64,
    /// Validations without a better score that a plateau waits out.
    pub plateau_patience: u64,
    /// How much of the weights' running average each step keeps; it is what is validated and kept as the model. 0 keeps none.
    pub ema: f64,
    /// What forward and backward are computed in.
    pub precision: Precision,
    /// AdamW's decay of the weight matrices.
    pub weight_decay: f64,
    /// AdamW's averaging of gradients and of their squares.
    pub betas: [f64; 2],
    /// The largest norm of a gradient; larger ones are scaled down. 0 leaves them alone.
    pub clip: f64,
    /// The share of a target's probability that is spread over the vocabulary.
    pub label_smoothing: f64,
    /// Tokens of a caption that are learned, the end mark counted.
    pub max_tokens: usize,
    /// Decides first weights, order and dropout.
    pub seed: u64,
    /// Epochs between two validations; fractions work.
    pub validate_every: f64,
    /// Validation images that are captioned, evenly drawn; 0 for all.
    #[serde(skip_serializing_if = "is_zero")]
    pub validation_images: usize,
    /// Validations without a better score before the training stops. 0 never stops early.
    pub patience: u64,
    /// Validation images whose captions are shown at each validation.
    pub samples: usize,
    /// Steps between two lines of metrics.jsonl.
    pub log_every: u64,
    /// Seconds between two checkpoints where no validation writes one.
    pub checkpoint_seconds: u64,
    /// Whether the training rows of the columns are held on the decoder's device.
    pub hold: Hold,
    /// Whether there are TensorBoard event files beside metrics.jsonl.
    pub tensorboard: bool,
    /// Some of the words that go in are the decoder's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduled_sampling: Option<ScheduledSampling>,
    /// Captions are sampled and rewarded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scst: Option<Scst>,
}

/// Whether columns are held on the device: `"auto"`, `true` or `false`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// On a GPU, where they leave half of its free memory to the training.
    Auto,
    /// As said.
    Said(bool),
}

impl Serialize for Hold {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => to.serialize_str("auto"),
            Self::Said(said) => to.serialize_bool(*said),
        }
    }
}

impl<'de> Deserialize<'de> for Hold {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Words;
        impl serde::de::Visitor<'_> for Words {
            type Value = Hold;
            fn expecting(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                to.write_str("\"auto\", true or false")
            }
            fn visit_bool<E>(self, said: bool) -> Result<Hold, E> {
                Ok(Hold::Said(said))
            }
            fn visit_str<E: serde::de::Error>(self, said: &str) -> Result<Hold, E> {
                match said {
                    "auto" => Ok(Hold::Auto),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(said), &self)),
                }
            }
        }
        from.deserialize_any(Words)
    }
}

fn is_zero(value: &usize) -> bool {
    *value == 0
}

impl Default for TrainSpec {
    fn default() -> Self {
        Self {
            epochs: 15,
            steps: None,
            batch: 100,
            together: 5,
            accumulation: 1,
            learning_rate: 1e-3,
            schedule: Schedule::Cosine,
            warmup_steps: 100,
            plateau_factor: 0.5,
            plateau_patience: 1,
            ema: 0.0,
            precision: Precision::Auto,
            weight_decay: 0.01,
            betas: [0.9, 0.999],
            clip: 5.0,
            label_smoothing: 0.1,
            max_tokens: 40,
            seed: 0,
            validate_every: 1.0,
            validation_images: 0,
            patience: 5,
            samples: 3,
            log_every: 50,
            checkpoint_seconds: 120,
            hold: Hold::Auto,
            tensorboard: true,
            scheduled_sampling: None,
            scst: None,
        }
    }
}

impl TrainSpec {
    /// These settings with those of `other` that a training may go on with: how long, how fast, and what is shown. What decides
    /// which batches come and what is remembered stays.
    #[must_use]
    pub fn going_on_as(&self, other: &Self) -> Self {
        Self {
            epochs: other.epochs,
            steps: other.steps,
            learning_rate: other.learning_rate,
            clip: other.clip,
            weight_decay: other.weight_decay,
            validate_every: other.validate_every,
            patience: other.patience,
            samples: other.samples,
            log_every: other.log_every,
            checkpoint_seconds: other.checkpoint_seconds,
            hold: other.hold,
            tensorboard: other.tensorboard,
            ..self.clone()
        }
    }

    /// Refuses numbers that cannot be trained with.
    ///
    /// # Errors
    /// Names the first field that does not work.
    pub fn check(&self) -> Result<(), TrainError> {
        self.faults().into_iter().next().map_or(Ok(()), Err)
    }

    /// All numbers that cannot be trained with, as [`TrainError::Spec`].
    #[must_use]
    pub fn faults(&self) -> Vec<TrainError> {
        let share = |value: f64| (0.0..1.0).contains(&value);
        let rules: [(&'static str, bool, String, &'static str); 14] = [
            ("epochs", self.epochs > 0 || self.steps.is_some(), self.epochs.to_string(), "at least 1"),
            ("steps", self.steps != Some(0), "0".into(), "at least 1"),
            ("batch", self.batch > 0, self.batch.to_string(), "at least 1"),
            ("accumulation", self.accumulation > 0, self.accumulation.to_string(), "at least 1"),
            (
                "learning_rate",
                self.learning_rate > 0.0 && self.learning_rate.is_finite(),
                self.learning_rate.to_string(),
                "above 0",
            ),
            (
                "plateau_factor",
                self.plateau_factor > 0.0 && share(self.plateau_factor),
                self.plateau_factor.to_string(),
                "above 0 and below 1",
            ),
            (
                "plateau_patience",
                self.schedule != Schedule::Plateau || self.patience == 0 || self.plateau_patience < self.patience,
                self.plateau_patience.to_string(),
                "below `train.patience`, which ends the training first",
            ),
            ("ema", share(self.ema), self.ema.to_string(), "at least 0 and below 1"),
            ("weight_decay", (0.0..1e3).contains(&self.weight_decay), self.weight_decay.to_string(), "at least 0"),
            ("betas", self.betas.into_iter().all(share), format!("{:?}", self.betas), "at least 0 and below 1"),
            ("clip", self.clip >= 0.0, self.clip.to_string(), "at least 0"),
            (
                "label_smoothing",
                share(self.label_smoothing),
                self.label_smoothing.to_string(),
                "at least 0 and below 1",
            ),
            ("max_tokens", self.max_tokens > 1, self.max_tokens.to_string(), "at least 2"),
            ("validate_every", self.validate_every > 0.0, self.validate_every.to_string(), "above 0"),
        ];
        let broken = rules.into_iter().filter(|(_, holds, ..)| !holds);
        let broken = broken.map(|(field, _, value, must)| TrainError::Spec { field, value, must });
        broken.chain(self.own_words_faults()).collect()
    }
}

impl TrainSpec {
    /// The steps of a training on so many captions.
    #[must_use]
    pub fn steps_for(&self, captions: usize) -> u64 {
        Plan::new(self, captions).steps
    }

    /// Refuses what cannot be trained with at all, or not with `decoder`.
    ///
    /// # Errors
    /// As [`TrainSpec::check`], and for a precision that the decoder does not have.
    pub fn check_for(&self, decoder: &dyn Decoder) -> Result<(), TrainError> {
        self.check()?;
        self.precision.halves(decoder).map(drop)
    }
}

/// The steps of a training, resolved for so many captions: what happens when is arithmetic from here on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    /// Batches an epoch.
    pub batches: u64,
    /// Steps an epoch; the last may have fewer batches.
    pub steps_an_epoch: u64,
    /// Steps in all.
    pub steps: u64,
    /// Steps between two validations.
    pub validate_every: u64,
    accumulation: u64,
}

impl Plan {
    pub fn new(spec: &TrainSpec, captions: usize) -> Self {
        let accumulation = spec.accumulation.max(1) as u64;
        let batches = captions.div_ceil(spec.batch.max(1)) as u64;
        let steps_an_epoch = batches.div_ceil(accumulation);
        let validate_every = (spec.validate_every * steps_an_epoch as f64).round().max(1.0) as u64;
        let steps = spec.steps.unwrap_or(spec.epochs * steps_an_epoch);
        Self { batches, steps_an_epoch, steps, validate_every, accumulation }
    }

    /// The epoch of a step, with its fraction.
    pub fn epoch(&self, step: u64) -> f64 {
        step as f64 / self.steps_an_epoch as f64
    }

    /// The epoch of a step, and its first batch and number of batches within the epoch.
    pub fn locate(&self, step: u64) -> (u64, u64, u64) {
        let first = step % self.steps_an_epoch * self.accumulation;
        (step / self.steps_an_epoch, first, self.accumulation.min(self.batches - first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_say_only_what_they_change() {
        let spec: TrainSpec = toml::from_str("batch = 7\nschedule = 'noam'").unwrap();
        assert_eq!(spec, TrainSpec { batch: 7, schedule: Schedule::Noam, ..TrainSpec::default() });
        assert!(toml::from_str::<TrainSpec>("bach = 7").is_err());
        let hold =
            |text: &str| toml::from_str::<TrainSpec>(text).map(|spec| spec.hold).map_err(|error| error.to_string());
        assert_eq!((hold("hold = true"), hold("hold = 'auto'")), (Ok(Hold::Said(true)), Ok(Hold::Auto)));
        assert!(hold("hold = 'yes'").unwrap_err().contains(r#"expected "auto", true or false"#));
        let written = toml::to_string(&spec).unwrap();
        assert_eq!(toml::from_str::<TrainSpec>(&written).unwrap(), spec);
    }

    #[test]
    fn the_defaults_work_and_bad_numbers_are_named() {
        TrainSpec::default().check().unwrap();
        let field = |spec: TrainSpec| match spec.check() {
            Err(TrainError::Spec { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(field(TrainSpec { batch: 0, ..TrainSpec::default() }), "batch");
        assert_eq!(field(TrainSpec { learning_rate: f64::NAN, ..TrainSpec::default() }), "learning_rate");
        assert_eq!(field(TrainSpec { betas: [0.9, 1.0], ..TrainSpec::default() }), "betas");
        assert_eq!(field(TrainSpec { label_smoothing: 1.0, ..TrainSpec::default() }), "label_smoothing");
        assert_eq!(field(TrainSpec { ema: 1.0, ..TrainSpec::default() }), "ema");
        assert_eq!(field(TrainSpec { plateau_factor: 0.0, ..TrainSpec::default() }), "plateau_factor");
        let late = TrainSpec { schedule: Schedule::Plateau, plateau_patience: 5, patience: 5, ..TrainSpec::default() };
        assert_eq!(field(late), "plateau_patience");
        assert_eq!(field(TrainSpec { steps: Some(0), ..TrainSpec::default() }), "steps");
    }

    #[test]
    fn steps_cover_each_epochs_batches() {
        let spec = TrainSpec { batch: 10, accumulation: 4, epochs: 3, validate_every: 0.5, ..TrainSpec::default() };
        let plan = Plan::new(&spec, 95); // 10 batches: steps of 4, 4 and 2
        assert_eq!((plan.batches, plan.steps_an_epoch, plan.steps, plan.validate_every), (10, 3, 9, 2));
        assert_eq!([0, 1, 2, 3].map(|step| plan.locate(step)), [(0, 0, 4), (0, 4, 4), (0, 8, 2), (1, 0, 4)]);
    }
}
