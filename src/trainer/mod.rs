//! Training: batches in, gradients, steps, validations, checkpoints.
//!
//! Knows neither data sets nor tokenizers nor metrics: captions are token numbers, and the caller turns spoken ones into
//! text and scores them ([`Hooks`]). One decision defended: everything that happens at a step is a pure function of the
//! seed and the step, so that a state is a handful of numbers and a resumed training is the same training, bit for bit.

mod average;
mod board;
mod checkpoint;
mod error;
mod fits;
mod fused;
mod log;
mod memory;
mod open;
mod optimizer;
mod own_words;
#[cfg(test)]
mod parity_gpt2;
mod precision;
mod run;
mod schedule;
mod scst;
#[cfg(test)]
mod settings_tests;
mod spec;
#[cfg(test)]
mod speed;
#[cfg(test)]
mod tests;
mod validate;
mod window;

use std::{path::Path, sync::Arc};

pub use crate::batch::{Caption, Column, Special};
pub use checkpoint::{Part, Parts, Resume, TrainState, find as find_checkpoint, goes_on_from};
pub use error::TrainError;
pub use own_words::{Baseline, ScheduledSampling, Scst};
pub use precision::Precision;
pub use schedule::{Plateaus, Schedule, learning_rate};
pub use spec::{Hold, TrainSpec};

use crate::{
    decoder::{Decoder, within_memory},
    progress::Progress,
};

/// What a decoder learns from.
pub struct TrainData {
    /// What the columns' bytes are: a training is resumed on no others.
    pub source: String,
    /// A digest of what made the captions' tokens of words, to name it where they are others.
    pub tokenizer: String,
    /// The columns, in the order of the decoder's inputs.
    pub columns: Vec<Arc<dyn Column>>,
    /// The training captions.
    pub captions: Arc<[Caption]>,
    /// The rows of the validation images, in the order in which they are scored and shown.
    pub validation: Vec<u32>,
    /// The tokens with a meaning of their own.
    pub special: Special,
}

/// What the caller's scorer says of the validation captions.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// Decides which checkpoint is the best: higher is better.
    pub value: f64,
    /// Everything worth showing, by name.
    pub shown: Vec<(String, f64)>,
}

/// An error of the caller's.
pub type HookError = Box<dyn std::error::Error + Send + Sync>;

/// Scores captions given as (row, text), one for each validation row.
pub type Scorer<'a> = dyn Fn(&[(u32, String)]) -> Result<Score, HookError> + 'a;

/// Rewards captions given as (row of a training image, tokens), one number each: higher is better.
pub type Rewarder<'a> = dyn Fn(&[(u32, &[u32])]) -> Result<Vec<f64>, HookError> + 'a;

/// What the trainer asks of its caller.
pub struct Hooks<'a> {
    /// Listens.
    pub progress: &'a dyn Progress,
    /// What a row's image is called.
    pub name: &'a dyn Fn(u32) -> String,
    /// Turns tokens into a caption.
    pub text: &'a dyn Fn(&[u32]) -> String,
    /// Scores one caption for each validation row.
    pub score: &'a Scorer<'a>,
    /// Rewards sampled captions; what a spec with `scst` needs.
    pub reward: Option<&'a Rewarder<'a>>,
}

/// What a training came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Steps done, those of earlier sittings included.
    pub steps: u64,
    /// The best validation score and its step.
    pub best: Option<(f64, u64)>,
    /// It ended before its last step because the score no longer rose.
    pub stopped_early: bool,
    /// Steps skipped because their loss or gradient was not finite.
    pub skipped: u64,
    /// Tokens learned from.
    pub tokens: u64,
    /// Seconds of training, validations not counted.
    pub seconds: f64,
    /// The share of that time in this sitting that was spent waiting for data.
    pub waited: f64,
}

/// Trains `decoder` in the folder `run`: `metrics.jsonl`, TensorBoard's event files, `checkpoints/last` and `checkpoints/best`.
///
/// With `resume` it goes on from `checkpoints/last`, or from `checkpoints/best`; then what is left of the last one is kept beside it. Where step `until` comes before the last, it ends there (with a validation and its
/// checkpoint); the schedule stays that of the whole, which goes on with `resume`. The decoder is left as it was after the last step, not as the best.
///
/// # Errors
/// When the spec, the data or the checkpoint do not fit, a file cannot be written, the loss diverges or the scorer fails.
pub fn train(
    decoder: &mut dyn Decoder,
    spec: &TrainSpec,
    data: &TrainData,
    run: &Path,
    resume: Option<Resume>,
    until: Option<u64>,
    hooks: &Hooks<'_>,
) -> Result<Outcome, TrainError> {
    spec.check()?;
    memory::keep_freed();
    let what_for =
        "to train the decoder: its gradient and the optimizer's moments take three times what the weights do";
    let hint = "end what else runs on the device, take a smaller decoder, or freeze a part of it";
    let opened = within_memory(decoder.params().device(), what_for, hint, || {
        run::Run::open(decoder, spec, data, run, resume, hooks)
    });
    opened??.go(until)
}
