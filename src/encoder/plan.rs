//! What an encoder is asked to do: how pictures are normalised, what is tapped, how a tap becomes a row.
//!
//! Must not know ONNX or ONNX Runtime: a recipe composes these types, and a column's key is made of them. Pooling is
//! written as a short string ("none", "global", "7x7") because that is how a recipe, a table and a key all show it.

use std::fmt;
use std::str::FromStr;

use icecap_cache::Dtype;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::halve::HALF_VERSION;
use super::{EncoderError, regions};

/// Version of the graph edit. Raise it whenever the same plan would give other bytes.
pub const REWRITE_VERSION: u32 = 1;

/// How a pixel 0..=255 becomes the encoder's input: `(pixel * scale - mean[c]) / std[c]`, `c` in the order of `channels`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Normalize {
    /// Subtracted after scaling, a channel each.
    pub mean: [f32; 3],
    /// Divided by last, a channel each.
    pub std: [f32; 3],
    /// Multiplies the pixel first; 1/255 by default.
    pub scale: f32,
    /// Order in which the encoder wants the channels.
    pub channels: Channels,
}

/// Order of the colour channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Channels {
    /// Red first, as torchvision.
    #[default]
    Rgb,
    /// Blue first, as OpenCV.
    Bgr,
}

impl Default for Normalize {
    /// ImageNet's mean and deviation, as torchvision's encoders want them.
    fn default() -> Self {
        Self { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225], scale: 1.0 / 255.0, channels: Channels::Rgb }
    }
}

impl Normalize {
    /// The same as one multiplication and one addition a channel: `pixel * factor[c] + offset[c]`.
    pub fn affine(&self) -> ([f32; 3], [f32; 3]) {
        let factor = std::array::from_fn(|c| (f64::from(self.scale) / f64::from(self.std[c])) as f32);
        let offset = std::array::from_fn(|c| (-f64::from(self.mean[c]) / f64::from(self.std[c])) as f32);
        (factor, offset)
    }
}

/// How a map `[C, H, W]` becomes a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pool {
    /// All of it: `[D]` stays, a map becomes `[H*W, C]`.
    #[default]
    None,
    /// All of it as one vector, in the network's own order: `[C*H*W]`.
    Flatten,
    /// Its mean over all positions: `[C]`.
    Global,
    /// Adaptive average to K x K, as torch's `adaptive_avg_pool2d`: `[K*K, C]`.
    Grid(u32),
}

impl fmt::Display for Pool {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => out.write_str("none"),
            Self::Flatten => out.write_str("flatten"),
            Self::Global => out.write_str("global"),
            Self::Grid(k) => write!(out, "{k}x{k}"),
        }
    }
}

impl FromStr for Pool {
    type Err = EncoderError;

    fn from_str(text: &str) -> Result<Self, EncoderError> {
        let grid = |text: &str| {
            let (rows, columns) = text.split_once('x')?;
            let k: u32 = rows.parse().ok()?;
            (rows == columns && (1..=1024).contains(&k)).then_some(Self::Grid(k))
        };
        match text {
            "none" => Ok(Self::None),
            "flatten" => Ok(Self::Flatten),
            "global" => Ok(Self::Global),
            other => grid(other).ok_or_else(|| EncoderError::PoolSyntax { value: text.to_owned() }),
        }
    }
}

impl Serialize for Pool {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pool {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| {
            serde::de::Error::custom(format!("`{text}` is no pooling: none, global, flatten, or a grid such as 7x7"))
        })
    }
}

/// One column: tensors of the encoder, pooled, joined, normalised and cast.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Tap {
    /// The column's name.
    pub name: String,
    /// The tensors in the ONNX graph. The vectors of several are joined along their width, in this order.
    pub tensors: Vec<String>,
    /// How a map becomes a row.
    #[serde(default)]
    pub pool: Pool,
    /// Divide each vector (of several tensors, the joined one) by its Euclidean length.
    #[serde(default)]
    pub l2: bool,
    /// The column's element type. Rows for `i8` leave the encoder as `f32`: their scale is known when all of a row is.
    #[serde(default = "default_dtype")]
    pub dtype: Dtype,
    /// A row is the mean of each of so many regions of the map, and `pool` says in how many cells a region is sampled (7x7).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regions: Option<usize>,
}

impl Tap {
    /// The element type in which the encoder gives the rows.
    pub fn given(&self) -> Dtype {
        match self.dtype {
            Dtype::I8 => Dtype::F32,
            dtype => dtype,
        }
    }

    /// For the key: a name, as it was when a column had one tensor, or a list of names.
    fn tensors_value(&self) -> Value {
        match self.tensors.as_slice() {
            [tensor] => json!(tensor),
            tensors => json!(tensors),
        }
    }
}

fn default_dtype() -> Dtype {
    Dtype::F16
}

/// The type in which the encoder computes. Rows are cast to the column's dtype either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// As the model was trained.
    #[default]
    F32,
    /// Weights and activations in half the bytes, an island of `f32` where that would cost accuracy: for GPUs.
    F16,
}

impl Precision {
    /// Is it the default, which needs no mention?
    pub fn is_f32(&self) -> bool {
        *self == Self::F32
    }
}

/// Everything the graph edit needs: the picture, the batch and the taps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct EncoderPlan {
    /// How pixels become the encoder's input.
    pub normalize: Normalize,
    /// Height of the pictures, in pixels.
    pub height: usize,
    /// Width of the pictures, in pixels.
    pub width: usize,
    /// Images a run; every run has exactly so many.
    pub batch: usize,
    /// What the encoder computes in.
    #[serde(default, skip_serializing_if = "Precision::is_f32")]
    pub precision: Precision,
    /// The columns, in the order of the outputs.
    pub taps: Vec<Tap>,
}

impl EncoderPlan {
    /// Refuses numbers that make no sense and columns of one name.
    pub(super) fn check(&self) -> Result<(), EncoderError> {
        check_sizes(self.batch, self.height, self.width)?;
        if self.taps.is_empty() {
            return Err(EncoderError::Plan {
                field: "the list of columns",
                value: String::new(),
                wanted: "tap one tensor at least",
            });
        }
        let ok = |value: f32| value.is_finite();
        let n = &self.normalize;
        if !(n.mean.iter().all(|&m| ok(m)) && n.std.iter().all(|&s| ok(s) && s != 0.0) && ok(n.scale)) {
            return Err(EncoderError::Plan {
                field: "normalize",
                value: format!("{n:?}"),
                wanted: "finite numbers, no zero in std",
            });
        }
        for (index, tap) in self.taps.iter().enumerate() {
            if self.taps[..index].iter().any(|other| other.name == tap.name) {
                return Err(EncoderError::DuplicateColumn { column: tap.name.clone() });
            }
            if tap.tensors.is_empty() {
                let (field, value) = ("the list of taps of a column", tap.name.clone());
                return Err(EncoderError::Plan { field, value, wanted: "tap one tensor at least" });
            }
        }
        Ok(())
    }

    /// Bytes of one batch of pictures, `[batch, H, W, 3]`.
    pub fn images_bytes(&self) -> usize {
        self.batch * self.height * self.width * 3
    }
}

/// Refuses sizes that no encoder is meant for, whether a recipe or a model's file says them.
pub(super) fn check_sizes(batch: usize, height: usize, width: usize) -> Result<(), EncoderError> {
    if height == 0 || width == 0 || height.max(width) > 1 << 14 {
        let value = format!("{height}x{width}");
        return Err(EncoderError::Plan { field: "the picture's size", value, wanted: "1 to 16384 pixels a side" });
    }
    if batch == 0 || batch > 1 << 16 {
        return Err(EncoderError::Plan { field: "batch", value: batch.to_string(), wanted: "1 to 65536 images" });
    }
    Ok(())
}

/// Everything of the encoder that decides a column's bytes, in order: for the column's key.
///
/// Left out on purpose: the column's name, the batch, and who computes (execution provider, kernels). A row does not depend
/// on the first two (tests keep it), and the third moves its last bits alone and belongs to a column's provenance.
pub fn key_fields(model_digest: &str, plan: &EncoderPlan, tap: &Tap) -> Vec<(String, Value)> {
    let n = &plan.normalize;
    let field = |name: &str, value: Value| (format!("encoder.{name}"), value);
    let decimals = |values: &[f32]| Value::from_iter(values.iter().map(|&value| shortest(value)));
    let mut fields = vec![
        field("model", json!(model_digest)),
        field("tensor", tap.tensors_value()),
        field("pool", json!(regions::pool_of(tap))),
        field("l2", json!(tap.l2)),
        field("dtype", json!(tap.dtype)),
        field("height", json!(plan.height)),
        field("width", json!(plan.width)),
        field("mean", decimals(&n.mean)),
        field("std", decimals(&n.std)),
        field("scale", shortest(n.scale)),
        field("channels", json!(n.channels)),
        field("rewrite", json!(REWRITE_VERSION)),
    ];
    // Only columns of regions have the field: all others keep the key they had before there were any.
    fields.extend(tap.regions.map(|_| field("regions", json!(regions::METHOD))));
    // Columns made before there was a choice have no such field, and keep their keys.
    if !plan.precision.is_f32() {
        fields.push(field("precision", json!(plan.precision)));
        fields.push(field("precision_version", json!(HALF_VERSION)));
    }
    fields
}

/// The shortest decimal that means this `f32`: 0.485, and not the 0.48500001430511475 that an `f64` would make of it.
fn shortest(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, |value| json!(value))
}
