//! What a recipe's `[decoder]` may say of a `gpt2`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::{
    DecoderError,
    spec::{dropout, positive, require},
};

/// How the image's vectors come into the language model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gpt2Mapping {
    /// One linear map a column; the vectors stand in the prefix.
    #[default]
    Linear,
    /// ClipCap's MLP: `D -> W k / 2 -> tanh -> W k`, where one vector becomes `k`.
    Mlp,
    /// ClipCap's transformer over the mapped vectors and `k` learned constants, whose places become the prefix.
    Transformer,
    /// One linear map a column; every block attends to the vectors, and the prefix is `<desc>` alone.
    CrossAttention,
}

/// Which parameters of the language model stay as they are. What icecap adds (mapping, marks, cross-attention, LoRA) is
/// always trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Freeze {
    /// None: all are trained.
    #[default]
    None,
    /// All of them.
    Lm,
    /// All but the layer norms.
    AllButLn,
}

/// Sizes and habits of a `gpt2` decoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gpt2Spec {
    /// A Hugging Face folder (config.json, model.safetensors, tokenizer.json) to begin with; its sizes take the place of
    /// `width`, `layers`, `heads` and `positions`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pretrained: Option<PathBuf>,
    /// Width of the words and of everything between the layers.
    pub width: i64,
    /// Blocks on top of each other.
    pub layers: i64,
    /// Attention heads of a block.
    pub heads: i64,
    /// Places of a sequence, the prefix included.
    pub positions: i64,
    /// How the image's vectors come in.
    pub mapping: Gpt2Mapping,
    /// Vectors that a column of one vector becomes, and constants of the transformer: `k`. 1 for `linear`, else 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix_length: Option<i64>,
    /// The marks `<img>` and `<desc>` are added to all places that they head, as token types.
    pub token_types: bool,
    /// On the sequence that goes in, and on what attention and MLP add to it.
    pub dropout: f64,
    /// On the attention's weights.
    pub attention_dropout: f64,
    /// What is not trained.
    pub freeze: Freeze,
    /// Rank of the trained low-rank additions to the frozen attention weights `c_attn` and `c_proj` (Hu et al. 2021); 0
    /// for none.
    pub lora: i64,
}

impl Default for Gpt2Spec {
    fn default() -> Self {
        Self {
            pretrained: None,
            width: 384,
            layers: 4,
            heads: 6,
            positions: 256,
            mapping: Gpt2Mapping::Linear,
            prefix_length: None,
            token_types: true,
            dropout: 0.1,
            attention_dropout: 0.1,
            freeze: Freeze::None,
            lora: 0,
        }
    }
}

impl Gpt2Spec {
    /// The same, with the pretrained folder found from `data`.
    #[must_use]
    pub fn at(&self, data: &Path) -> Self {
        Self { pretrained: self.pretrained.as_ref().map(|folder| data.join(folder)), ..self.clone() }
    }

    /// `k`: vectors that a column of one vector becomes.
    pub(super) fn vectors(&self) -> i64 {
        self.prefix_length.unwrap_or(match self.mapping {
            Gpt2Mapping::Linear | Gpt2Mapping::CrossAttention => 1,
            Gpt2Mapping::Mlp | Gpt2Mapping::Transformer => 10,
        })
    }

    /// Whether the numbers fit together; those of a pretrained folder are checked when it is read.
    pub(in super::super) fn check(&self) -> Result<(), DecoderError> {
        let (layers, heads) = (self.layers, self.heads);
        positive(&[("width", self.width), ("layers", layers), ("heads", heads), ("positions", self.positions)])?;
        positive(&[("prefix_length", self.vectors())])?;
        let fits = self.pretrained.is_some() || self.width % heads == 0;
        require(fits, "heads", &heads, || format!("a divisor of `width` (`{}`)", self.width))?;
        dropout("dropout", self.dropout)?;
        dropout("attention_dropout", self.attention_dropout)?;
        require((0..=4096).contains(&self.lora), "lora", &self.lora, || "0 to 4096".into())?;
        let frozen = self.lora == 0 || self.freeze != Freeze::None;
        require(frozen, "lora", &self.lora, || "0, or `freeze` must be \"lm\" or \"all-but-ln\"".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_say_only_what_they_change() {
        let spec: Gpt2Spec = toml::from_str("mapping = 'cross-attention'\nfreeze = 'all-but-ln'\nlora = 4").unwrap();
        let (mapping, freeze) = (Gpt2Mapping::CrossAttention, Freeze::AllButLn);
        assert_eq!(spec, Gpt2Spec { mapping, freeze, lora: 4, ..Gpt2Spec::default() });
        assert_eq!(toml::from_str::<Gpt2Spec>(&toml::to_string(&spec).unwrap()).unwrap(), spec);
        assert_eq!(Gpt2Spec { mapping: Gpt2Mapping::Mlp, ..spec.clone() }.vectors(), 10);
        assert_eq!(spec.vectors(), 1);
    }

    #[test]
    fn numbers_that_do_not_fit_are_named() {
        let field = |spec: Gpt2Spec| match spec.check() {
            Err(DecoderError::Spec { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        let spec = Gpt2Spec::default();
        spec.check().unwrap();
        assert_eq!(field(Gpt2Spec { heads: 5, ..spec.clone() }), "heads");
        assert_eq!(field(Gpt2Spec { layers: 0, ..spec.clone() }), "layers");
        assert_eq!(field(Gpt2Spec { prefix_length: Some(0), ..spec.clone() }), "prefix_length");
        assert_eq!(field(Gpt2Spec { attention_dropout: 1.0, ..spec.clone() }), "attention_dropout");
        let error = Gpt2Spec { lora: 8, ..spec }.check().unwrap_err();
        insta::assert_snapshot!(error, @r#"
        `decoder.lora` = `8` does not work: it must be 0, or `freeze` must be "lm" or "all-but-ln"
        hint: change it in the recipe, or with `--set decoder.lora=...`
        "#);
    }
}
