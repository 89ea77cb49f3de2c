//! What can go wrong between captions and token ids.

use std::path::PathBuf;

/// The error that `tokenizers` speaks.
pub(super) type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why there is no tokenizer.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// Nothing to learn from.
    #[error(
        "none of the `{captions}` captions has a word to train the tokenizer on\nhint: does the training split have captions?"
    )]
    NoWords {
        /// How many captions were given.
        captions: usize,
    },
    /// `min_count` or `max_vocabulary` leaves no word.
    #[error(
        "no word is found `{min_count}` times in `{captions}` captions\nhint: lower min_count, or train on more captions"
    )]
    NothingKept {
        /// The least count asked for.
        min_count: u32,
        /// How many captions were given.
        captions: usize,
    },
    /// Fewer BPE tokens than bytes.
    #[error(
        "a byte-level vocabulary of `{vocabulary}` tokens is too small\nhint: take at least {least}, one for each byte and special token"
    )]
    VocabularyTooSmall {
        /// The size asked for.
        vocabulary: usize,
        /// The smallest size possible.
        least: usize,
    },
    /// The spec names a file.
    #[error("the tokenizer comes from a file and isn't trained\nhint: load that file")]
    NotTrained,
    /// `tokenizers` refused to train.
    #[error("couldn't train the tokenizer")]
    Train(#[source] Source),
    /// The file can't be read.
    #[error("couldn't read the tokenizer `{}`\nhint: put a Hugging Face tokenizer.json there; without [tokenizer] and `pretrained` one is trained on the captions", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file isn't a `tokenizer.json`.
    #[error("`{}` isn't a Hugging Face tokenizer\nhint: a tokenizer.json is wanted, not vocab.json or merges.txt", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Source,
    },
    /// No token says where a caption ends.
    #[error("the tokenizer `{}` has no end token\nhint: one of {known} must be among its special tokens", path.display())]
    NoEnd {
        /// The file.
        path: PathBuf,
        /// The end tokens that are known, in backticks.
        known: String,
    },
    /// A text can be given that the tokenizer has no ids for.
    #[error("the tokenizer `{}` can't encode every text\nhint: its model needs an unknown token, or the byte-level alphabet", path.display())]
    Partial {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Source,
    },
    /// The file can't be written.
    #[error("couldn't write the tokenizer `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn io() -> std::io::Error {
        std::io::Error::from(std::io::ErrorKind::NotFound)
    }

    #[test]
    fn training_messages() {
        insta::assert_snapshot!(TextError::NoWords { captions: 4 }, @r"
        none of the `4` captions has a word to train the tokenizer on
        hint: does the training split have captions?
        ");
        insta::assert_snapshot!(TextError::NothingKept { min_count: 5, captions: 4 }, @r"
        no word is found `5` times in `4` captions
        hint: lower min_count, or train on more captions
        ");
        insta::assert_snapshot!(TextError::VocabularyTooSmall { vocabulary: 100, least: 260 }, @r"
        a byte-level vocabulary of `100` tokens is too small
        hint: take at least 260, one for each byte and special token
        ");
        insta::assert_snapshot!(TextError::NotTrained, @r"
        the tokenizer comes from a file and isn't trained
        hint: load that file
        ");
        insta::assert_snapshot!(TextError::Train("boom".into()), @"couldn't train the tokenizer");
    }

    #[test]
    fn file_messages() {
        let path = PathBuf::from("run/tokenizer.json");
        insta::assert_snapshot!(TextError::Read { path: path.clone(), source: io() }, @r"
        couldn't read the tokenizer `run/tokenizer.json`
        hint: put a Hugging Face tokenizer.json there; without [tokenizer] and `pretrained` one is trained on the captions
        ");
        insta::assert_snapshot!(TextError::Write { path: path.clone(), source: io() }, @"couldn't write the tokenizer `run/tokenizer.json`");
        insta::assert_snapshot!(TextError::Parse { path: path.clone(), source: "boom".into() }, @r"
        `run/tokenizer.json` isn't a Hugging Face tokenizer
        hint: a tokenizer.json is wanted, not vocab.json or merges.txt
        ");
        insta::assert_snapshot!(TextError::NoEnd { path: path.clone(), known: "`<eos>`".into() }, @r"
        the tokenizer `run/tokenizer.json` has no end token
        hint: one of `<eos>` must be among its special tokens
        ");
        insta::assert_snapshot!(TextError::Partial { path, source: "boom".into() }, @r"
        the tokenizer `run/tokenizer.json` can't encode every text
        hint: its model needs an unknown token, or the byte-level alphabet
        ");
    }
}
