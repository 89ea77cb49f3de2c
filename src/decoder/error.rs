//! What can be wrong with a decoder's spec or its weights.

use std::path::PathBuf;

use super::{Gpt2Error, TailError};

/// A decoder that cannot be built, loaded or saved.
#[derive(Debug, thiserror::Error)]
pub enum DecoderError {
    /// A number of the way of speaking is out of its range.
    #[error(
        "`decode.{field}` = `{value}` does not work: it must be {must}\nhint: change it in the recipe's [decode], or on the command line"
    )]
    Decode {
        /// The key in the recipe.
        field: &'static str,
        /// What it says.
        value: String,
        /// What would do.
        must: &'static str,
    },
    /// A number of the spec is out of its range.
    #[error(
        "`decoder.{field}` = `{value}` does not work: it must be {must}\nhint: change it in the recipe, or with `--set decoder.{field}=...`"
    )]
    Spec {
        /// The key in the recipe.
        field: &'static str,
        /// What it says.
        value: String,
        /// What would do.
        must: String,
    },
    /// No column at all.
    #[error("the decoder has no column to look at\nhint: name at least one in the recipe's `[[column]]`")]
    NoColumn,
    /// The vocabulary has no word.
    #[error(
        "the vocabulary has `{0}` tokens, which is not enough to write a caption\nhint: lower the tokenizer's `min_count`"
    )]
    Vocabulary(usize),
    /// The file cannot be read or written.
    #[error("could not {what} `{path}`")]
    Io {
        /// read or write
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is no safetensors file, or was cut short.
    #[error("`{path}` is not a whole safetensors file")]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: safetensors::SafeTensorError,
    },
    /// The file lacks a tensor.
    #[error(
        "`{path}` lacks the tensor `{name}` {expected:?}\nhint: the file belongs to another decoder; use the recipe saved beside it"
    )]
    Missing {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape.
        expected: Vec<i64>,
    },
    /// The file has a tensor too many.
    #[error(
        "`{path}` has the tensor `{name}`, which this decoder does not know\nhint: the file belongs to another decoder; use the recipe saved beside it"
    )]
    Extra {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor has another shape or dtype.
    #[error(
        "`{path}`: the tensor `{name}` is `{found}`, but this decoder expects `{expected}`\nhint: the vocabulary, the columns or the sizes differ; use the recipe and the tokenizer saved beside it"
    )]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Dtype and shape wanted.
        expected: String,
        /// Dtype and shape in the file.
        found: String,
    },
    /// Other programs know no such decoder.
    #[error(
        "only a `gpt2` decoder can be exported: nothing else opens the others\nhint: their weights are ordinary safetensors already, in the run's `checkpoints/best/model.safetensors`; \
         `--encoder` writes the encoder of a run with a [tail]"
    )]
    NoExport,
    /// A Hugging Face folder, or its model, does not fit.
    #[error(transparent)]
    Gpt2(#[from] Gpt2Error),
    /// A section of the encoder can't be trained.
    #[error(transparent)]
    Tail(#[from] TailError),
    /// The device has too little memory.
    #[error("`{device}` has too little memory {what_for}\nhint: {hint}")]
    Memory {
        /// The device.
        device: String,
        /// What it was wanted for.
        what_for: &'static str,
        /// What would take less.
        hint: &'static str,
    },
    /// No such device.
    #[error("`{value}` is not a device\nhint: use `cpu`, `cuda` or `cuda:1`")]
    Device {
        /// As typed.
        value: String,
    },
    /// The device is a good name, but the machine has none.
    #[error("`{value}` is not there: {found}\nhint: use `--device cpu`")]
    NoDevice {
        /// As typed.
        value: String,
        /// What there is.
        found: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_names_the_value_and_the_way_out() {
        let path = || PathBuf::from("best/model.safetensors");
        let decode = DecoderError::Decode { field: "top_p", value: "2".into(), must: "above 0 and at most 1" };
        insta::assert_snapshot!(decode, @r"
        `decode.top_p` = `2` does not work: it must be above 0 and at most 1
        hint: change it in the recipe's [decode], or on the command line
        ");
        let spec = DecoderError::Spec { field: "hidden", value: "0".into(), must: "at least 1".into() };
        insta::assert_snapshot!(spec, @"
        `decoder.hidden` = `0` does not work: it must be at least 1
        hint: change it in the recipe, or with `--set decoder.hidden=...`
        ");
        insta::assert_snapshot!(DecoderError::NoColumn, @"
        the decoder has no column to look at
        hint: name at least one in the recipe's `[[column]]`
        ");
        insta::assert_snapshot!(DecoderError::NoExport, @"
        only a `gpt2` decoder can be exported: nothing else opens the others
        hint: their weights are ordinary safetensors already, in the run's `checkpoints/best/model.safetensors`; `--encoder` writes the encoder of a run with a [tail]
        ");
        insta::assert_snapshot!(DecoderError::Vocabulary(3), @"
        the vocabulary has `3` tokens, which is not enough to write a caption
        hint: lower the tokenizer's `min_count`
        ");
        let io = DecoderError::Io { what: "read", path: path(), source: std::io::Error::other("gone") };
        insta::assert_snapshot!(io, @"could not read `best/model.safetensors`");
        let source = safetensors::SafeTensorError::HeaderTooSmall;
        insta::assert_snapshot!(DecoderError::Format { path: path(), source }, @"`best/model.safetensors` is not a whole safetensors file");
        let missing = DecoderError::Missing { path: path(), name: "output.bias".into(), expected: vec![9] };
        insta::assert_snapshot!(missing, @"
        `best/model.safetensors` lacks the tensor `output.bias` [9]
        hint: the file belongs to another decoder; use the recipe saved beside it
        ");
        insta::assert_snapshot!(DecoderError::Extra { path: path(), name: "wte.weight".into() }, @"
        `best/model.safetensors` has the tensor `wte.weight`, which this decoder does not know
        hint: the file belongs to another decoder; use the recipe saved beside it
        ");
        let mismatch = DecoderError::Mismatch {
            path: path(),
            name: "output.bias".into(),
            expected: "F32 [9]".into(),
            found: "F32 [8]".into(),
        };
        insta::assert_snapshot!(mismatch, @"
        `best/model.safetensors`: the tensor `output.bias` is `F32 [8]`, but this decoder expects `F32 [9]`
        hint: the vocabulary, the columns or the sizes differ; use the recipe and the tokenizer saved beside it
        ");
        insta::assert_snapshot!(DecoderError::Device { value: "gpu".into() }, @"
        `gpu` is not a device
        hint: use `cpu`, `cuda` or `cuda:1`
        ");
        let absent = DecoderError::NoDevice { value: "cuda".into(), found: "no NVIDIA driver on this machine".into() };
        insta::assert_snapshot!(absent, @"
        `cuda` is not there: no NVIDIA driver on this machine
        hint: use `--device cpu`
        ");
    }
}
