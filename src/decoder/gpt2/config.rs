//! config.json: the sizes of a GPT-2, in Hugging Face's words.
//!
//! Read leniently where a key changes nothing here (task settings, versions), strictly where it would change the numbers.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{super::Special, error::Gpt2Error, spec::Gpt2Spec};

/// The sizes of a language model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sizes {
    /// Tokens, `V`.
    pub vocab: i64,
    /// Places of a sequence.
    pub positions: i64,
    /// Width, `W`.
    pub width: i64,
    /// Blocks.
    pub layers: i64,
    /// Heads, `H`.
    pub heads: i64,
    /// Width within the MLP.
    pub inner: i64,
    /// The layer norms' epsilon.
    pub epsilon: f64,
}

/// What is read of config.json; everything else is left alone.
#[derive(Debug, Deserialize)]
struct Read {
    model_type: Option<String>,
    vocab_size: i64,
    n_positions: i64,
    n_embd: i64,
    n_layer: i64,
    n_head: i64,
    #[serde(default)]
    n_inner: Option<i64>,
    #[serde(default = "gelu_new")]
    activation_function: String,
    #[serde(default = "epsilon")]
    layer_norm_epsilon: f64,
    #[serde(default = "yes")]
    scale_attn_weights: bool,
    #[serde(default)]
    scale_attn_by_inverse_layer_idx: bool,
    #[serde(default = "yes")]
    tie_word_embeddings: bool,
}

fn gelu_new() -> String {
    "gelu_new".to_owned()
}

fn epsilon() -> f64 {
    1e-5
}

fn yes() -> bool {
    true
}

/// What is written.
#[derive(Debug, Serialize)]
struct Written<'a> {
    architectures: [&'a str; 1],
    model_type: &'a str,
    vocab_size: i64,
    n_positions: i64,
    n_ctx: i64,
    n_embd: i64,
    n_layer: i64,
    n_head: i64,
    n_inner: i64,
    activation_function: &'a str,
    layer_norm_epsilon: f64,
    embd_pdrop: f64,
    resid_pdrop: f64,
    attn_pdrop: f64,
    scale_attn_weights: bool,
    tie_word_embeddings: bool,
    add_cross_attention: bool,
    bos_token_id: u32,
    eos_token_id: u32,
    pad_token_id: u32,
    torch_dtype: &'a str,
}

impl Sizes {
    /// As the recipe says, where nothing is pretrained.
    pub fn of(spec: &Gpt2Spec, vocab: usize) -> Self {
        Self {
            vocab: vocab as i64,
            positions: spec.positions,
            width: spec.width,
            layers: spec.layers,
            heads: spec.heads,
            inner: 4 * spec.width,
            epsilon: epsilon(),
        }
    }

    /// As the config.json at `path` says.
    pub fn read(path: &Path) -> Result<Self, Gpt2Error> {
        let text = std::fs::read(path).map_err(|source| Gpt2Error::Read { path: path.to_owned(), source })?;
        let read: Read =
            serde_json::from_slice(&text).map_err(|source| Gpt2Error::Config { path: path.to_owned(), source })?;
        read.check(path)?;
        let inner = read.n_inner.unwrap_or(4 * read.n_embd);
        Ok(Self {
            vocab: read.vocab_size,
            positions: read.n_positions,
            width: read.n_embd,
            layers: read.n_layer,
            heads: read.n_head,
            inner,
            epsilon: read.layer_norm_epsilon,
        })
    }

    /// The config.json of a decoder of this size.
    pub fn write(&self, path: &Path, spec: &Gpt2Spec, cross: bool, special: Special) -> std::io::Result<()> {
        let written = Written {
            architectures: ["GPT2LMHeadModel"],
            model_type: "gpt2",
            vocab_size: self.vocab,
            n_positions: self.positions,
            n_ctx: self.positions,
            n_embd: self.width,
            n_layer: self.layers,
            n_head: self.heads,
            n_inner: self.inner,
            activation_function: "gelu_new",
            layer_norm_epsilon: self.epsilon,
            embd_pdrop: spec.dropout,
            resid_pdrop: spec.dropout,
            attn_pdrop: spec.attention_dropout,
            scale_attn_weights: true,
            tie_word_embeddings: true,
            add_cross_attention: cross,
            bos_token_id: special.bos,
            eos_token_id: special.eos,
            pad_token_id: special.pad,
            torch_dtype: "float32",
        };
        std::fs::write(path, serde_json::to_string_pretty(&written).map_err(std::io::Error::other)? + "\n")
    }
}

impl Read {
    fn check(&self, path: &Path) -> Result<(), Gpt2Error> {
        let positive = |value: i64| (1..=1 << 24).contains(&value);
        let gelu = ["gelu_new", "gelu_pytorch_tanh"].contains(&self.activation_function.as_str());
        let kind = self.model_type.clone().unwrap_or_else(|| "gpt2".to_owned());
        let divides = positive(self.n_embd) && positive(self.n_head) && self.n_embd % self.n_head == 0;
        let rules: [(&'static str, bool, String, &str); 9] = [
            ("model_type", kind == "gpt2", kind, "`gpt2`"),
            ("vocab_size", positive(self.vocab_size), self.vocab_size.to_string(), "at least 1"),
            ("n_positions", positive(self.n_positions), self.n_positions.to_string(), "at least 1"),
            ("n_layer", positive(self.n_layer), self.n_layer.to_string(), "at least 1"),
            ("n_head", divides, self.n_head.to_string(), "a divisor of `n_embd`"),
            ("activation_function", gelu, self.activation_function.clone(), "`gelu_new`"),
            ("scale_attn_weights", self.scale_attn_weights, "false".into(), "`true`"),
            (
                "scale_attn_by_inverse_layer_idx",
                !self.scale_attn_by_inverse_layer_idx,
                self.scale_attn_by_inverse_layer_idx.to_string(),
                "`false`",
            ),
            ("tie_word_embeddings", self.tie_word_embeddings, self.tie_word_embeddings.to_string(), "`true`"),
        ];
        match rules.into_iter().find(|(_, holds, ..)| !holds) {
            None => Ok(()),
            Some((field, _, found, must)) => {
                Err(Gpt2Error::Setting { path: path.to_owned(), field, found, must: must.to_owned() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        let spec = Gpt2Spec { width: 32, heads: 2, ..Gpt2Spec::default() };
        let sizes = Sizes::of(&spec, 77);
        let special = Special { bos: 1, eos: 2, unk: None, pad: 0 };
        sizes.write(&path, &spec, true, special).unwrap();
        assert_eq!(Sizes::read(&path).unwrap(), sizes);
    }

    #[test]
    fn settings_that_change_the_numbers_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        let field = |more: &str| {
            let text = format!(
                r#"{{"vocab_size": 9, "n_positions": 8, "n_embd": 8, "n_layer": 1, "n_head": 2, "task_specific_params": {{}}{more}}}"#
            );
            std::fs::write(&path, text).unwrap();
            match Sizes::read(&path) {
                Err(Gpt2Error::Setting { field, .. }) => field,
                Ok(sizes) => {
                    assert_eq!((sizes.inner, sizes.epsilon), (32, 1e-5));
                    ""
                }
                Err(other) => panic!("{other}"),
            }
        };
        assert_eq!(field(""), "");
        assert_eq!(field(r#", "model_type": "gpt_neo""#), "model_type");
        assert_eq!(field(r#", "activation_function": "relu""#), "activation_function");
        assert_eq!(field(r#", "scale_attn_by_inverse_layer_idx": true"#), "scale_attn_by_inverse_layer_idx");
        assert_eq!(field(r#", "tie_word_embeddings": false"#), "tie_word_embeddings");
        std::fs::write(&path, "{}").unwrap();
        assert!(matches!(Sizes::read(&path), Err(Gpt2Error::Config { .. })));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(Sizes::read(&path), Err(Gpt2Error::Read { .. })));
    }
}
