//! The learning rate: a pure function of the step and, for `plateau`, of the validations so far.

use serde::{Deserialize, Serialize};

use super::TrainSpec;

/// How the learning rate falls after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// It does not.
    Constant,
    /// Along a line to zero at the last step.
    Linear,
    /// Along half a cosine to zero at the last step.
    #[default]
    Cosine,
    /// With the square root of the step (Vaswani et al. 2017), from the warm-up's end on.
    Noam,
    /// By a factor each time the validation score has not risen for a while.
    Plateau,
}

/// Where a training stands on its plateaus; what `plateau` depends on beside the step. It is counted under every schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plateaus {
    /// How often the rate was lowered.
    pub cuts: u64,
    /// Validations without a better score since then, or since the best one.
    pub flat: u64,
}

impl Plateaus {
    /// Notes a validation; says whether it lowered the rate.
    pub(super) fn note(&mut self, better: bool, spec: &TrainSpec) -> bool {
        self.flat = if better { 0 } else { self.flat + 1 };
        let cut = spec.schedule == Schedule::Plateau && self.flat > spec.plateau_patience;
        if cut {
            *self = Self { cuts: self.cuts + 1, flat: 0 };
        }
        cut
    }

    /// What the schedule's rate is multiplied with.
    pub(super) fn factor(self, spec: &TrainSpec) -> f64 {
        match spec.schedule {
            Schedule::Plateau => spec.plateau_factor.powi(self.cuts.min(1000) as i32),
            _ => 1.0,
        }
    }
}

/// The learning rate of `step` (from 0) of a training of `steps`; under `plateau`, before it was ever lowered.
#[must_use]
pub fn learning_rate(spec: &TrainSpec, step: u64, steps: u64) -> f64 {
    let (at, warmup) = ((step + 1) as f64, spec.warmup_steps as f64);
    if at <= warmup {
        return spec.learning_rate * at / warmup;
    }
    let done = ((at - warmup) / (steps as f64 - warmup).max(1.0)).min(1.0);
    // The last step's rate is small, not zero: a step that changes nothing is a step wasted.
    let left = 1.0 - done * (1.0 - 1.0 / steps.max(1) as f64);
    let factor = match spec.schedule {
        Schedule::Constant | Schedule::Plateau => 1.0,
        Schedule::Linear => left,
        Schedule::Cosine => 0.5 * (1.0 - (std::f64::consts::PI * left).cos()),
        Schedule::Noam => (warmup.max(1.0) / at).sqrt(),
    };
    spec.learning_rate * factor
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(schedule: Schedule) -> [f64; 5] {
        let spec = TrainSpec { learning_rate: 2.0, schedule, warmup_steps: 10, ..TrainSpec::default() };
        [0, 9, 54, 98, 99].map(|step| learning_rate(&spec, step, 100))
    }

    #[test]
    fn rises_to_the_peak_and_falls_by_its_name() {
        assert_eq!(rates(Schedule::Constant), [0.2, 2.0, 2.0, 2.0, 2.0]);
        let [first, peak, middle, late, last] = rates(Schedule::Linear);
        assert_eq!((first, peak), (0.2, 2.0));
        assert!((middle - 1.0).abs() < 0.02 && late > last && last > 0.0 && last < 0.03);
        let [first, peak, middle, late, last] = rates(Schedule::Cosine);
        assert_eq!((first, peak), (0.2, 2.0));
        assert!((middle - 1.0).abs() < 0.03 && late > last && last > 0.0 && last < 1e-3);
        assert!((rates(Schedule::Noam)[2] - 2.0 * (10.0f64 / 55.0).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn a_plateau_lowers_the_rate_and_a_better_score_begins_anew() {
        let spec =
            TrainSpec { schedule: Schedule::Plateau, plateau_factor: 0.5, plateau_patience: 1, ..TrainSpec::default() };
        let mut plateaus = Plateaus::default();
        let cuts = [true, false, true, false, false, false, false, false].map(|better| plateaus.note(better, &spec));
        assert_eq!(cuts, [false, false, false, false, true, false, true, false]);
        assert_eq!((plateaus, plateaus.factor(&spec)), (Plateaus { cuts: 2, flat: 1 }, 0.25));
        assert_eq!(plateaus.factor(&TrainSpec { schedule: Schedule::Cosine, ..spec }), 1.0);
        assert_eq!(rates(Schedule::Plateau), [0.2, 2.0, 2.0, 2.0, 2.0]);
    }

    #[test]
    fn works_without_warm_up_and_for_one_step() {
        let spec = TrainSpec { warmup_steps: 0, ..TrainSpec::default() };
        assert!(learning_rate(&spec, 0, 1) > 0.0);
        assert!(learning_rate(&spec, 0, 1000) <= spec.learning_rate);
    }
}
