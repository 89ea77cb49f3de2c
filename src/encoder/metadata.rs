//! The encoder's own recipe, as `icecap export` writes it into the model: how its pictures are prepared.
//!
//! Must not know torchvision or recipes in TOML. Keys begin with `icecap.`, values are JSON; a model without them, or
//! with some unreadable, simply has no opinion: the numbers are defaults and a recipe may say otherwise.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::EncoderError;
use super::model::Model;
use super::onnx::StringStringEntryProto;
use super::plan::Normalize;

/// How an encoder wants its pictures, and what it is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ModelMetadata {
    /// The encoder's name, as `resnet18`.
    pub encoder: Option<String>,
    /// Where its weights are from: `pretrained ...`, `random seed 0`, a file's name.
    pub weights: Option<String>,
    /// The shorter side after resizing, in pixels.
    pub resize: Option<u32>,
    /// Height and width of the central crop, in pixels.
    pub crop: Option<[usize; 2]>,
    /// `bilinear` or `bicubic`.
    pub interpolation: Option<String>,
    /// How pixels become the input.
    pub normalize: Option<Normalize>,
    /// Tensors worth tapping, from early to late.
    pub taps: Vec<String>,
}

/// Reads the recipe in the model at `path`; nothing where it has none.
///
/// # Errors
/// As for reading the model.
pub fn read_metadata(path: &Path) -> Result<Option<ModelMetadata>, EncoderError> {
    Ok(of(&Model::read(path)?))
}

pub(super) fn of(model: &Model) -> Option<ModelMetadata> {
    let props = &model.proto.metadata_props;
    if !props.iter().any(|entry| entry.key().starts_with("icecap.")) {
        return None;
    }
    let text = |key: &str| {
        props.iter().find(|entry| entry.key().strip_prefix("icecap.") == Some(key)).map(StringStringEntryProto::value)
    };
    fn json<T: serde::de::DeserializeOwned>(text: Option<&str>) -> Option<T> {
        serde_json::from_str(text?).ok()
    }
    let mean: Option<[f32; 3]> = json(text("mean"));
    let std: Option<[f32; 3]> = json(text("std"));
    let normalize = mean.zip(std).map(|(mean, std)| Normalize { mean, std, ..Normalize::default() });
    Some(ModelMetadata {
        encoder: text("encoder").map(str::to_owned),
        weights: text("weights").map(str::to_owned),
        resize: json(text("resize")),
        crop: json(text("crop")),
        interpolation: text("interpolation").map(str::to_owned),
        normalize,
        taps: json(text("taps")).unwrap_or_default(),
    })
}
