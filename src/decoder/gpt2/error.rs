//! What can be wrong with a Hugging Face folder, or with what is asked of its model.

use std::path::PathBuf;

/// A GPT-2 that cannot be read, or that does not fit.
#[derive(Debug, thiserror::Error)]
pub enum Gpt2Error {
    /// A file of the folder cannot be read.
    #[error(
        "could not read `{}`\nhint: a GPT-2 folder holds config.json, model.safetensors and tokenizer.json, as Hugging Face's `save_pretrained` writes them", path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// config.json is no JSON, or lacks a number.
    #[error("`{}` is not the config.json of a GPT-2\nhint: take the whole folder that Hugging Face's `save_pretrained` wrote", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A setting that this decoder does not have.
    #[error("`{}` says `{field}` = `{found}`, but this decoder needs {must}\nhint: use a GPT-2 of the usual kind (gpt2, gpt2-medium, gpt2-large, gpt2-xl, distilgpt2)", path.display())]
    Setting {
        /// The file.
        path: PathBuf,
        /// The key.
        field: &'static str,
        /// What it says.
        found: String,
        /// What would do.
        must: String,
    },
    /// The weights are no whole safetensors file.
    #[error("`{}` is not a whole safetensors file: {what}\nhint: download it again; a pytorch_model.bin must be converted first, by `AutoModelForCausalLM.from_pretrained(..).save_pretrained(..)`", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The weights lack tensors, or have some too many.
    #[error("`{}` does not hold the tensors that its config.json promises: {what}\nhint: take config.json and model.safetensors from the same folder", path.display())]
    Tensors {
        /// The file.
        path: PathBuf,
        /// The names.
        what: String,
    },
    /// A tensor has another shape.
    #[error("`{}`: the tensor `{name}` is `{found:?}`, but its config.json promises `{expected:?}`\nhint: take config.json and model.safetensors from the same folder", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape by config.json.
        expected: Vec<i64>,
        /// Its shape.
        found: Vec<i64>,
    },
    /// A tensor's numbers cannot be taken as f32.
    #[error("`{}`: the tensor `{name}` is of dtype `{found}`\nhint: save the model as f32, f16 or bf16; quantized weights cannot be trained", path.display())]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its dtype.
        found: String,
    },
    /// `lm_head` is not the embedding.
    #[error("`{}`: `lm_head.weight` differs from `wte.weight`\nhint: only models with tied word embeddings can be used, as GPT-2's are", path.display())]
    Untied {
        /// The file.
        path: PathBuf,
    },
    /// Another tokenizer than the model's.
    #[error("the tokenizer has `{tokenizer}` tokens, but the model in `{}` has `{model}`\nhint: leave the recipe's [tokenizer] out, so that the folder's own tokenizer.json is used", path.display())]
    Tokenizer {
        /// The folder.
        path: PathBuf,
        /// Tokens of the tokenizer.
        tokenizer: usize,
        /// Rows of the model's embedding.
        model: i64,
    },
    /// The prefix leaves no place for a caption.
    #[error("the prefix takes `{prefix}` places, but the model has `{positions}`\nhint: {hint}")]
    Positions {
        /// Places of the prefix.
        prefix: i64,
        /// Places of the model.
        positions: i64,
        /// The way out.
        hint: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> PathBuf {
        PathBuf::from("gpt2/model.safetensors")
    }

    #[test]
    fn files_that_cannot_be_used() {
        let source = std::io::Error::from(std::io::ErrorKind::NotFound);
        insta::assert_snapshot!(Gpt2Error::Read { path: path(), source }, @r"
        could not read `gpt2/model.safetensors`
        hint: a GPT-2 folder holds config.json, model.safetensors and tokenizer.json, as Hugging Face's `save_pretrained` writes them
        ");
        let source = serde_json::from_str::<u8>("x").unwrap_err();
        insta::assert_snapshot!(Gpt2Error::Config { path: "gpt2/config.json".into(), source }, @r"
        `gpt2/config.json` is not the config.json of a GPT-2
        hint: take the whole folder that Hugging Face's `save_pretrained` wrote
        ");
        let (found, must) = ("relu".to_owned(), "`gelu_new`".to_owned());
        let path_ = PathBuf::from("gpt2/config.json");
        insta::assert_snapshot!(Gpt2Error::Setting { path: path_, field: "activation_function", found, must }, @r"
        `gpt2/config.json` says `activation_function` = `relu`, but this decoder needs `gelu_new`
        hint: use a GPT-2 of the usual kind (gpt2, gpt2-medium, gpt2-large, gpt2-xl, distilgpt2)
        ");
        insta::assert_snapshot!(Gpt2Error::Weights { path: path(), what: "it is cut short".into() }, @r"
        `gpt2/model.safetensors` is not a whole safetensors file: it is cut short
        hint: download it again; a pytorch_model.bin must be converted first, by `AutoModelForCausalLM.from_pretrained(..).save_pretrained(..)`
        ");
    }

    #[test]
    fn tensors_that_do_not_fit() {
        let what = "it lacks `ln_f.bias`".to_owned();
        insta::assert_snapshot!(Gpt2Error::Tensors { path: path(), what }, @r"
        `gpt2/model.safetensors` does not hold the tensors that its config.json promises: it lacks `ln_f.bias`
        hint: take config.json and model.safetensors from the same folder
        ");
        let (expected, found) = (vec![768], vec![1024]);
        insta::assert_snapshot!(Gpt2Error::Shape { path: path(), name: "ln_f.bias".into(), expected, found }, @r"
        `gpt2/model.safetensors`: the tensor `ln_f.bias` is `[1024]`, but its config.json promises `[768]`
        hint: take config.json and model.safetensors from the same folder
        ");
        insta::assert_snapshot!(Gpt2Error::Dtype { path: path(), name: "wte.weight".into(), found: "I8".into() }, @r"
        `gpt2/model.safetensors`: the tensor `wte.weight` is of dtype `I8`
        hint: save the model as f32, f16 or bf16; quantized weights cannot be trained
        ");
        insta::assert_snapshot!(Gpt2Error::Untied { path: path() }, @r"
        `gpt2/model.safetensors`: `lm_head.weight` differs from `wte.weight`
        hint: only models with tied word embeddings can be used, as GPT-2's are
        ");
    }

    #[test]
    fn models_that_do_not_fit() {
        insta::assert_snapshot!(Gpt2Error::Tokenizer { path: "gpt2".into(), tokenizer: 2541, model: 50257 }, @r"
        the tokenizer has `2541` tokens, but the model in `gpt2` has `50257`
        hint: leave the recipe's [tokenizer] out, so that the folder's own tokenizer.json is used
        ");
        insta::assert_snapshot!(Gpt2Error::Positions { prefix: 300, positions: 256, hint: "raise it" }, @r"
        the prefix takes `300` places, but the model has `256`
        hint: raise it
        ");
    }
}
