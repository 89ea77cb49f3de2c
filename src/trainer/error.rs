//! What can go wrong in a training.

use std::path::{Path, PathBuf};

use super::{
    Part, Resume,
    checkpoint::{CONFIG, sound},
};
use crate::{
    batch::LoaderError,
    decoder::{DecoderError, Gpt2Error},
};

/// A training that cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A number of the spec is out of its range.
    #[error(
        "`train.{field}` = `{value}` does not work: it must be {must}\nhint: change it in the recipe, or with `--set train.{field}=...`"
    )]
    Spec {
        /// The key in the recipe.
        field: &'static str,
        /// What it says.
        value: String,
        /// What would do.
        must: &'static str,
    },
    /// Nothing to learn from.
    #[error(
        "there are no captions to train on\nhint: check that the cache has rows of the `train` split, and that the column holds them"
    )]
    NoCaptions,
    /// Nothing to validate on.
    #[error("there are no images to validate on\nhint: check that the cache has rows of the validation split")]
    NoValidation,
    /// A token outside of the vocabulary.
    #[error(
        "a training caption of row `{row}` holds the token `{token}`, but the vocabulary has `{vocab}`\nhint: the tokenizer and the decoder belong to different runs"
    )]
    Token {
        /// The image's row in the cache.
        row: u32,
        /// The token's number.
        token: u32,
        /// Tokens that the decoder knows.
        vocab: usize,
    },
    /// A caption for which the decoder has too few places.
    #[error(
        "a training caption of row `{row}` has `{tokens}` tokens, but after the image the decoder has places for `{limit}`\nhint: lower `train.max_tokens` to {limit}, raise `decoder.positions`, or pool the column to fewer vectors"
    )]
    TooLong {
        /// The image's row in the cache.
        row: u32,
        /// Its tokens that would be learned, the end mark counted.
        tokens: usize,
        /// Tokens that there are places for.
        limit: usize,
    },
    /// The columns are not those the decoder was built for.
    #[error(
        "the column `{name}` gives `{found}` numbers an image (vectors x width), but the decoder expects `{expected}`\nhint: build the decoder for the columns it is trained on"
    )]
    Column {
        /// The column.
        name: String,
        /// Vectors and width of its rows.
        found: String,
        /// Vectors and width wanted.
        expected: String,
    },
    /// More or fewer columns than the decoder was built for.
    #[error(
        "the data has `{found}` columns, but the decoder expects `{expected}`\nhint: build the decoder for the columns it is trained on"
    )]
    Columns {
        /// Columns of the data.
        found: usize,
        /// Columns of the decoder.
        expected: usize,
    },
    /// The loss became infinite or not a number, again and again.
    #[error(
        "the loss was not finite in `{steps}` steps one after another, the last of them step `{step}`\nhint: lower `train.learning_rate` (now `{learning_rate}`) or {}, then go on from the last checkpoint with `--resume`, or start another run",
        if *clip > 0.0 { format!("`train.clip` (now `{clip}`)") } else { "set `train.clip` (now off) to 1".to_owned() }
    )]
    Diverged {
        /// The last of them.
        step: u64,
        /// How many in a row.
        steps: u64,
        /// The rate then.
        learning_rate: f64,
        /// The clipping norm.
        clip: f64,
    },
    /// bf16 for a decoder that has none.
    #[error(
        "`train.precision` = `bf16` {}\nhint: leave it out, or say \"f32\"",
        if *behind_tail {
            "does not go with a [tail]: what its batch norms keep of their batches would be lost in a copy of the weights in bf16"
        } else {
            "is for `gpt2` decoders: a recurrent one is bound by its steps and not by its products, and would only lose digits"
        }
    )]
    Precision {
        /// The decoder would have one without its tail.
        behind_tail: bool,
    },
    /// The device has too little memory for a step.
    #[error("`{device}` has too little memory for `train.batch` = `{batch}`\nhint: {hint}")]
    Memory {
        /// The device.
        device: String,
        /// Captions a batch.
        batch: usize,
        /// What was found to fit.
        hint: String,
    },
    /// The device has too little memory for the columns.
    #[error(
        "the device has too little memory to hold the columns' training rows, `{megabytes}` MB\nhint: leave `train.hold` at \"auto\""
    )]
    Hold {
        /// What they take.
        megabytes: u64,
    },
    /// A run folder that already has a training.
    #[error("`{path}` already holds a training\nhint: continue it with `--resume`, or choose another `--run` folder")]
    Exists {
        /// The run folder.
        path: PathBuf,
    },
    /// A run folder without a checkpoint.
    #[error("`{path}` has no checkpoint to continue from\nhint: start it without `--resume`")]
    NothingToResume {
        /// The run folder.
        path: PathBuf,
    },
    /// A run folder without a best checkpoint.
    #[error(
        "`{path}` has no best checkpoint to continue from\nhint: `--resume` goes on from the last one, or begins again where there is none"
    )]
    NoBest {
        /// The run folder.
        path: PathBuf,
    },
    /// The checkpoint belongs to a training with other settings.
    #[error(
        "the checkpoint `{path}` was trained with `{field}` = `{found}`, not `{expected}`\nhint: continue with the recipe saved in the run folder, or start another run"
    )]
    Changed {
        /// The checkpoint.
        path: PathBuf,
        /// Which setting.
        field: &'static str,
        /// What the checkpoint says.
        found: String,
        /// What is asked for.
        expected: String,
    },
    /// The checkpoint belongs to a training on other data.
    #[error(
        "the checkpoint `{path}` was trained {}",
        match part {
            Part::Tokenizer => format!(
                "with another tokenizer
hint: put the one that lies in the checkpoint back into the run's folder: `{}`", path.join("tokenizer.json").display()
            ),
            Part::Captions => "on other images or captions
hint: give the cache as it was then (`icecap encode` takes captions from the data set anew), or start another run".to_owned(),
            Part::Validation => "with other validation images
hint: give the cache and `train.validation_images` as they were then, or start another run".to_owned(),
            Part::Columns => "on a column that was written anew since
hint: give the cache as it was then, or start another run".to_owned(),
        }
    )]
    OtherData {
        /// The checkpoint.
        path: PathBuf,
        /// What is another.
        part: Part,
    },
    /// The state file is cut short or foreign.
    #[error("`{path}` is not a training's state")]
    State {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A checkpoint that a training was to go on from is damaged.
    #[error("the training can't go on from `{checkpoint}`\nhint: {hint}")]
    Damaged {
        /// The checkpoint.
        checkpoint: PathBuf,
        /// Whether there is another one, and how it is taken.
        hint: String,
        /// Why.
        #[source]
        source: Box<TrainError>,
    },
    /// A file of the run folder cannot be read or written.
    #[error("could not {what} `{path}`")]
    Io {
        /// read, write, rename ...
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Batches do not come.
    #[error(transparent)]
    Loader(#[from] LoaderError),
    /// Weights cannot be read or written.
    #[error(transparent)]
    Decoder(#[from] DecoderError),
    /// `scst` without anyone who rewards.
    #[error(
        "`train.scst` learns by rewards, and nothing here gives any\nhint: leave it out, or train with `icecap train`"
    )]
    NoReward,
    /// The caller's rewarder failed.
    #[error("the sampled captions could not be rewarded")]
    Reward(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The caller's scorer failed.
    #[error("the validation captions could not be scored")]
    Score(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl TrainError {
    /// The same, where a file of the `checkpoint` that a training of the folder `run` goes on from is damaged, with the way out.
    #[must_use]
    pub fn of_checkpoint(self, run: &Path, which: Resume, checkpoint: &Path) -> Self {
        let damaged = matches!(
            self,
            Self::State { .. }
                | Self::Io { .. }
                | Self::Decoder(
                    DecoderError::Format { .. }
                        | DecoderError::Io { .. }
                        | DecoderError::Gpt2(Gpt2Error::Read { .. } | Gpt2Error::Config { .. })
                )
        );
        if !damaged {
            return self;
        }
        let config = checkpoint.join(CONFIG).exists() || matches!(self, Self::Decoder(DecoderError::Gpt2(_)));
        let (other, says) = match which {
            Resume::Last => ("best", "`--resume=best` goes on from the best checkpoint"),
            Resume::Best => ("last", "`--resume` goes on from the last checkpoint"),
        };
        let other = super::find_checkpoint(run, other).and_then(|other| sound(&other, config));
        let hint = match (other, which) {
            (Some(state), Resume::Last) => {
                format!("{says}, step {}; what is left of the last one is kept beside it", state.step)
            }
            (Some(state), Resume::Best) => format!("{says}, step {}", state.step),
            (None, _) => {
                "the run has no other checkpoint: put a copy of this one in its place, or start another run".to_owned()
            }
        };
        Self::Damaged { checkpoint: checkpoint.to_owned(), hint, source: Box::new(self) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_names_the_value_and_the_way_out() {
        let path = || PathBuf::from("runs/a");
        let messages = [
            TrainError::Spec { field: "batch", value: "0".into(), must: "at least 1" },
            TrainError::NoCaptions,
            TrainError::NoValidation,
            TrainError::Token { row: 3, token: 900, vocab: 800 },
            TrainError::TooLong { row: 3, tokens: 30, limit: 20 },
            TrainError::Column { name: "grid".into(), found: "49 x 1280".into(), expected: "1 x 1280".into() },
            TrainError::Columns { found: 2, expected: 1 },
            TrainError::Diverged { step: 7, steps: 5, learning_rate: 0.1, clip: 5.0 },
            TrainError::Precision { behind_tail: false },
            TrainError::Precision { behind_tail: true },
            TrainError::Memory { device: "cuda:0".into(), batch: 512, hint: "128 captions fit".into() },
            TrainError::Hold { megabytes: 90_000 },
            TrainError::Exists { path: path() },
            TrainError::NothingToResume { path: path() },
            TrainError::NoBest { path: path() },
            TrainError::Changed { path: path(), field: "train.seed", found: "1".into(), expected: "2".into() },
            TrainError::OtherData { path: path(), part: Part::Tokenizer },
            TrainError::OtherData { path: path(), part: Part::Captions },
            TrainError::OtherData { path: path(), part: Part::Validation },
            TrainError::OtherData { path: path(), part: Part::Columns },
            TrainError::State { path: path(), source: serde_json::from_str::<u8>("x").unwrap_err() },
            TrainError::Io { what: "write", path: path(), source: std::io::Error::other("full") },
            TrainError::Io { what: "read", path: path(), source: std::io::Error::other("gone") }.of_checkpoint(
                &path(),
                Resume::Last,
                &path().join("checkpoints/last"),
            ),
            TrainError::NoReward,
            TrainError::Reward("no".into()),
            TrainError::Score("no".into()),
        ];
        let messages: Vec<String> = messages.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(messages.join("\n\n"), @r#"
        `train.batch` = `0` does not work: it must be at least 1
        hint: change it in the recipe, or with `--set train.batch=...`

        there are no captions to train on
        hint: check that the cache has rows of the `train` split, and that the column holds them

        there are no images to validate on
        hint: check that the cache has rows of the validation split

        a training caption of row `3` holds the token `900`, but the vocabulary has `800`
        hint: the tokenizer and the decoder belong to different runs

        a training caption of row `3` has `30` tokens, but after the image the decoder has places for `20`
        hint: lower `train.max_tokens` to 20, raise `decoder.positions`, or pool the column to fewer vectors

        the column `grid` gives `49 x 1280` numbers an image (vectors x width), but the decoder expects `1 x 1280`
        hint: build the decoder for the columns it is trained on

        the data has `2` columns, but the decoder expects `1`
        hint: build the decoder for the columns it is trained on

        the loss was not finite in `5` steps one after another, the last of them step `7`
        hint: lower `train.learning_rate` (now `0.1`) or `train.clip` (now `5`), then go on from the last checkpoint with `--resume`, or start another run

        `train.precision` = `bf16` is for `gpt2` decoders: a recurrent one is bound by its steps and not by its products, and would only lose digits
        hint: leave it out, or say "f32"

        `train.precision` = `bf16` does not go with a [tail]: what its batch norms keep of their batches would be lost in a copy of the weights in bf16
        hint: leave it out, or say "f32"

        `cuda:0` has too little memory for `train.batch` = `512`
        hint: 128 captions fit

        the device has too little memory to hold the columns' training rows, `90000` MB
        hint: leave `train.hold` at "auto"

        `runs/a` already holds a training
        hint: continue it with `--resume`, or choose another `--run` folder

        `runs/a` has no checkpoint to continue from
        hint: start it without `--resume`

        `runs/a` has no best checkpoint to continue from
        hint: `--resume` goes on from the last one, or begins again where there is none

        the checkpoint `runs/a` was trained with `train.seed` = `1`, not `2`
        hint: continue with the recipe saved in the run folder, or start another run

        the checkpoint `runs/a` was trained with another tokenizer
        hint: put the one that lies in the checkpoint back into the run's folder: `runs/a/tokenizer.json`

        the checkpoint `runs/a` was trained on other images or captions
        hint: give the cache as it was then (`icecap encode` takes captions from the data set anew), or start another run

        the checkpoint `runs/a` was trained with other validation images
        hint: give the cache and `train.validation_images` as they were then, or start another run

        the checkpoint `runs/a` was trained on a column that was written anew since
        hint: give the cache as it was then, or start another run

        `runs/a` is not a training's state

        could not write `runs/a`

        the training can't go on from `runs/a/checkpoints/last`
        hint: the run has no other checkpoint: put a copy of this one in its place, or start another run

        `train.scst` learns by rewards, and nothing here gives any
        hint: leave it out, or train with `icecap train`

        the sampled captions could not be rewarded

        the validation captions could not be scored
        "#);
    }
}
