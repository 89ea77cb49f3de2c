//! What the steps since the last report came to, left on the device until somebody asks.

use std::time::Duration;

use tch::Tensor;

use super::{TrainError, TrainSpec, TrainState, optimizer::Stepped, validate::number};

/// So many steps without a finite loss, one after another, end the training.
const HOPELESS: u64 = 5;

/// Steps since the last report.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// Loss, norm, finite: scalars on the device.
    steps: Vec<(Tensor, Stepped)>,
    loss: f64,
    norm: f64,
    counted: u64,
    tokens: u64,
    time: Duration,
    waited: Duration,
}

/// A report over a window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Report {
    /// Mean loss of the steps that were finite.
    pub loss: f64,
    /// Mean norm of the gradient.
    pub norm: f64,
    /// Tokens a second.
    pub tokens_per_second: f64,
    /// The share of the time spent waiting for data.
    pub waited: f64,
}

impl Window {
    /// Notes a step.
    pub fn push(&mut self, loss: Tensor, stepped: Stepped, tokens: u64, time: Duration, waited: Duration) {
        self.steps.push((loss, stepped));
        self.tokens += tokens;
        self.time += time;
        self.waited += waited;
    }

    /// Counts time in which the steps noted so far were still under way.
    pub fn add_time(&mut self, time: Duration) {
        self.time += time;
    }

    /// Reads what is on the device into `state`'s counts; `step` steps are done.
    pub fn read(&mut self, state: &mut TrainState, spec: &TrainSpec, rate: f64) -> Result<(), TrainError> {
        for (loss, stepped) in self.steps.drain(..) {
            if number(&stepped.finite) == 0.0 {
                state.skipped += 1;
                state.skipped_in_a_row += 1;
                if state.skipped_in_a_row >= HOPELESS {
                    return Err(TrainError::Diverged {
                        step: state.step,
                        steps: state.skipped_in_a_row,
                        learning_rate: rate,
                        clip: spec.clip,
                    });
                }
                continue;
            }
            state.skipped_in_a_row = 0;
            self.loss += number(&loss);
            self.norm += number(&stepped.norm);
            self.counted += 1;
        }
        Ok(())
    }

    /// The report, and a new window.
    pub fn report(&mut self) -> Report {
        let counted = self.counted.max(1) as f64;
        let seconds = self.time.as_secs_f64().max(1e-9);
        let report = Report {
            loss: self.loss / counted,
            norm: self.norm / counted,
            tokens_per_second: self.tokens as f64 / seconds,
            waited: self.waited.as_secs_f64() / seconds,
        };
        *self = Self::default();
        report
    }
}
