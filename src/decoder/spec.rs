//! What a recipe's `[decoder]` may say.

use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tch::Tensor;

use super::{ColumnInput, DecoderError, Gpt2Mapping, Gpt2Spec};

/// A decoder, as a recipe names it: `kind = "lstm"`, `"attention-lstm"` or `"gpt2"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum DecoderSpec {
    /// The image is the LSTM's first input (Vinyals et al. 2015, Show and Tell).
    Lstm(LstmSpec),
    /// Soft attention over the image's vectors at each word (Xu et al. 2015, Show, Attend and Tell).
    AttentionLstm(AttentionLstmSpec),
    /// A GPT-2 with the image's vectors before the words, or attended to (Mokady et al. 2021, ClipCap).
    Gpt2(Gpt2Spec),
}

/// What is done to the mapped image vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// Nothing: the mapping is linear.
    None,
    /// max(x, 0)
    #[default]
    Relu,
    /// tanh(x)
    Tanh,
}

impl Activation {
    pub(super) fn apply(self, values: Tensor) -> Tensor {
        match self {
            Self::None => values,
            Self::Relu => values.relu(),
            Self::Tanh => values.tanh(),
        }
    }
}

/// Sizes of an `lstm` decoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LstmSpec {
    /// Width of the word vectors, and of the image vector that comes first.
    pub embedding: i64,
    /// Width of the LSTM's state.
    pub hidden: i64,
    /// LSTMs on top of each other.
    pub layers: i64,
    /// After the mapping of the image vectors.
    pub activation: Activation,
    /// On the mapped image vectors, the word vectors, between layers and before the vocabulary.
    pub dropout: f64,
    /// The vocabulary's output weights are its embedding (`embedding` = `hidden`).
    pub tied: bool,
}

impl Default for LstmSpec {
    fn default() -> Self {
        Self { embedding: 512, hidden: 512, layers: 1, activation: Activation::None, dropout: 0.5, tied: false }
    }
}

/// How an `attention-lstm` looks and speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// One LSTM does both (Xu et al. 2015).
    #[default]
    ShowAttendTell,
    /// One LSTM decides where to look, another what to say (Anderson et al. 2018).
    UpDown,
}

/// Sizes of an `attention-lstm` decoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, remote = "Self")]
pub struct AttentionLstmSpec {
    /// Show, Attend and Tell, or Up-Down.
    pub variant: Variant,
    /// Width to which the vectors of every column are mapped.
    pub width: i64,
    /// Width of the word vectors.
    pub embedding: i64,
    /// Width of the LSTM's state.
    pub hidden: i64,
    /// Width of the space in which vectors and state are compared.
    pub attention: i64,
    /// After the mapping of the image vectors.
    pub activation: Activation,
    /// On the mapped image vectors, the word vectors and before the vocabulary.
    pub dropout: f64,
    /// Weight of the penalty mean((1 - sum of an image vector's attention over the caption)^2), with the caption's words a vector in
    /// place of 1 where those are more; `up-down` has none, and 0.
    #[serde(default = "unsaid")]
    pub doubly_stochastic: f64,
    /// The vocabulary's output weights are its embedding (`embedding` = `hidden`).
    pub tied: bool,
}

impl Default for AttentionLstmSpec {
    fn default() -> Self {
        Self {
            variant: Variant::default(),
            width: 512,
            embedding: 512,
            hidden: 512,
            attention: 512,
            activation: Activation::Relu,
            dropout: 0.5,
            doubly_stochastic: 1.0,
            tied: false,
        }
    }
}

/// Stands for what a recipe doesn't say, until the variant is known.
fn unsaid() -> f64 {
    f64::NAN
}

impl<'de> Deserialize<'de> for AttentionLstmSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut spec = Self::deserialize(deserializer)?;
        if spec.doubly_stochastic.is_nan() {
            spec.doubly_stochastic = match spec.variant {
                Variant::ShowAttendTell => Self::default().doubly_stochastic,
                Variant::UpDown => 0.0,
            };
        }
        Ok(spec)
    }
}

impl Serialize for AttentionLstmSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

/// Keys that say how weights are trained, not what they mean.
const TRAINED_WITH: [&str; 5] = ["dropout", "attention_dropout", "doubly_stochastic", "freeze", "pretrained"];

impl DecoderSpec {
    /// Whether it weighs the columns' vectors, so that [`super::Decoder::attention`] has something to show.
    #[must_use]
    pub fn looks(&self) -> bool {
        match self {
            Self::Lstm(_) => false,
            Self::AttentionLstm(_) => true,
            Self::Gpt2(spec) => spec.mapping == Gpt2Mapping::CrossAttention,
        }
    }

    /// Whether the numbers fit together, and with the columns and the vocabulary.
    pub(super) fn check(&self, inputs: &[ColumnInput], vocab: usize) -> Result<(), DecoderError> {
        if inputs.is_empty() {
            return Err(DecoderError::NoColumn);
        }
        let fits = |count: i64| (1..=1 << 20).contains(&count);
        for input in inputs {
            let value = format!("{} [{}, {}]", input.name, input.vectors, input.width);
            let must = || "1 to 1048576 vectors, and of such a width".into();
            require(fits(input.vectors) && fits(input.width), "columns", &value, must)?;
        }
        if vocab < 4 {
            return Err(DecoderError::Vocabulary(vocab));
        }
        self.check_numbers()
    }

    /// Refuses numbers that fit no columns and no vocabulary.
    ///
    /// # Errors
    /// [`DecoderError::Spec`] names the first field that does not work.
    pub fn check_numbers(&self) -> Result<(), DecoderError> {
        match self {
            Self::Lstm(spec) => {
                positive(&[("embedding", spec.embedding), ("hidden", spec.hidden), ("layers", spec.layers)])?;
                tied(spec.tied, spec.embedding, spec.hidden)?;
                dropout("dropout", spec.dropout)
            }
            Self::AttentionLstm(spec) => {
                positive(&[
                    ("width", spec.width),
                    ("embedding", spec.embedding),
                    ("hidden", spec.hidden),
                    ("attention", spec.attention),
                ])?;
                tied(spec.tied, spec.embedding, spec.hidden)?;
                let penalty = spec.doubly_stochastic;
                let fits = penalty.is_finite() && penalty >= 0.0;
                require(fits, "doubly_stochastic", &penalty, || "at least 0".into())?;
                let none = spec.variant == Variant::ShowAttendTell || penalty == 0.0;
                require(none, "doubly_stochastic", &penalty, || {
                    "0: `variant = \"up-down\"` has no such penalty".into()
                })?;
                dropout("dropout", spec.dropout)
            }
            Self::Gpt2(spec) => spec.check(),
        }
    }

    /// The same, with the files that it names found from `data`.
    #[must_use]
    pub fn at(&self, data: &Path) -> Self {
        match self {
            Self::Gpt2(spec) => Self::Gpt2(spec.at(data)),
            other => other.clone(),
        }
    }

    /// The first key, with both values, in which `other` gives the same weights another meaning, or has others.
    #[must_use]
    pub fn differs(&self, other: &Self) -> Option<(String, String, String)> {
        let table = |spec: &Self| toml::Table::try_from(spec).unwrap_or_default();
        let (own, other) = (table(self), table(other));
        let shown = |table: &toml::Table, key: &str| match table.get(key) {
            Some(toml::Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
            None => "absent".to_owned(),
        };
        // The kind first: without it the rest says little.
        let keys = ["kind"].into_iter().chain(own.keys().chain(other.keys()).map(String::as_str));
        let mut decides = keys.filter(|key| !TRAINED_WITH.contains(key));
        let key = decides.find(|key| own.get(*key) != other.get(*key))?;
        Some((key.to_owned(), shown(&own, key), shown(&other, key)))
    }

    /// The folder of pretrained weights that training begins with, where there is one.
    #[must_use]
    pub fn pretrained(&self) -> Option<&Path> {
        match self {
            Self::Gpt2(spec) => spec.pretrained.as_deref(),
            _ => None,
        }
    }
}

pub(super) fn require(
    holds: bool,
    field: &'static str,
    value: &impl ToString,
    must: impl FnOnce() -> String,
) -> Result<(), DecoderError> {
    if holds { Ok(()) } else { Err(DecoderError::Spec { field, value: value.to_string(), must: must() }) }
}

pub(super) fn positive(fields: &[(&'static str, i64)]) -> Result<(), DecoderError> {
    fields
        .iter()
        .try_for_each(|&(field, value)| require((1..=65_536).contains(&value), field, &value, || "1 to 65536".into()))
}

pub(super) fn dropout(field: &'static str, value: f64) -> Result<(), DecoderError> {
    require((0.0..1.0).contains(&value), field, &value, || "at least 0 and below 1".into())
}

fn tied(tied: bool, embedding: i64, hidden: i64) -> Result<(), DecoderError> {
    let must = || format!("false, or `embedding` (`{embedding}`) and `hidden` (`{hidden}`) must be equal");
    require(!tied || embedding == hidden, "tied", &tied, must)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<DecoderSpec, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn recipes_say_only_what_they_change() {
        let spec = parse("kind = 'attention-lstm'\nhidden = 256\nactivation = 'none'").unwrap();
        let expected = AttentionLstmSpec { hidden: 256, activation: Activation::None, ..AttentionLstmSpec::default() };
        assert_eq!(spec, DecoderSpec::AttentionLstm(expected));
        assert_eq!(parse("kind = 'lstm'").unwrap(), DecoderSpec::Lstm(LstmSpec::default()));
        assert!(parse("kind = 'lstm'\nattention = 3").unwrap_err().contains("attention"));
        assert!(parse("kind = 'rnn'").is_err());
    }

    #[test]
    fn a_spec_survives_writing() {
        let spec = DecoderSpec::AttentionLstm(AttentionLstmSpec { dropout: 0.25, ..Default::default() });
        assert_eq!(parse(&toml::to_string(&spec).unwrap()).unwrap(), spec);
        let spec = parse("kind = 'attention-lstm'\nvariant = 'up-down'").unwrap();
        let DecoderSpec::AttentionLstm(AttentionLstmSpec { variant: Variant::UpDown, doubly_stochastic, .. }) = &spec
        else {
            panic!("{spec:?}")
        };
        assert_eq!(*doubly_stochastic, 0.0, "only Show, Attend and Tell has the penalty");
        assert_eq!(parse(&toml::to_string(&spec).unwrap()).unwrap(), spec);
    }

    #[test]
    fn the_first_difference_that_matters_is_named() {
        let differs = |own: &str, other: &str| parse(own).unwrap().differs(&parse(other).unwrap());
        let named = |key: &str, own: &str, other: &str| Some((key.into(), own.into(), other.into()));
        assert_eq!(differs("kind = 'lstm'", "kind = 'lstm'\ndropout = 0.0"), None);
        assert_eq!(differs("kind = 'lstm'", "kind = 'lstm'\nhidden = 64"), named("hidden", "512", "64"));
        assert_eq!(differs("kind = 'lstm'", "kind = 'gpt2'"), named("kind", "lstm", "gpt2"));
        let (one, two) = ("kind = 'attention-lstm'", "kind = 'attention-lstm'\nvariant = 'up-down'");
        assert_eq!(differs(one, two), named("variant", "show-attend-tell", "up-down"));
        assert_eq!(differs("kind = 'gpt2'", "kind = 'gpt2'\nlora = 2"), named("lora", "0", "2"));
    }

    #[test]
    fn numbers_that_do_not_fit_are_named() {
        let inputs = [ColumnInput { name: "grid".into(), vectors: 4, width: 8 }];
        let field = |text: &str| match parse(text).unwrap().check(&inputs, 10) {
            Err(DecoderError::Spec { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(field("kind = 'lstm'\nhidden = 0"), "hidden");
        assert_eq!(field("kind = 'lstm'\nlayers = -1"), "layers");
        assert_eq!(field("kind = 'lstm'\ndropout = 1.0"), "dropout");
        assert_eq!(field("kind = 'attention-lstm'\ndoubly_stochastic = -1.0"), "doubly_stochastic");
        assert_eq!(field("kind = 'attention-lstm'\nvariant = 'up-down'\ndoubly_stochastic = 1.0"), "doubly_stochastic");
        assert_eq!(field("kind = 'attention-lstm'\ntied = true\nhidden = 64"), "tied");
        let spec = parse("kind = 'lstm'").unwrap();
        assert!(matches!(spec.check(&[], 10), Err(DecoderError::NoColumn)));
        assert!(matches!(spec.check(&inputs, 2), Err(DecoderError::Vocabulary(2))));
        for (vectors, width) in [(0, 8), (4, -8), (4, i64::MAX)] {
            let inputs = [ColumnInput { name: "grid".into(), vectors, width }];
            assert!(matches!(spec.check(&inputs, 10), Err(DecoderError::Spec { field: "columns", .. })));
        }
    }
}
