//! The section `[encoder]`, and what it means together with the columns and the encoder's own recipe.
//!
//! What a section leaves out is taken from the model: an encoder known by name, or the metadata that `icecap export` writes
//! into its ONNX files, says how its pictures were prepared. A model that says nothing must be described: a guessed
//! normalisation would give embeddings that look fine and are wrong.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::ColumnSpec;
use crate::{
    encoder::{Channels, EncoderPlan, ModelMetadata, Normalize, Precision},
    image::{Decode, Interpolation, Preprocess, Resize, View},
};

/// Images a run of the encoder where the recipe doesn't say.
const DEFAULT_BATCH: usize = 16;

/// The section `[encoder]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderSpec {
    /// An encoder's name, such as `resnet18`, or the path of an `.onnx` file.
    pub model: String,
    /// For an encoder by name: `pretrained` (the default), `random`, `random:SEED`, or the path of a state dict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// The shorter side in pixels, or `[height, width]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resize: Option<Resize>,
    /// The square (or `[height, width]`) cut from the centre after resizing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop: Option<Crop>,
    /// The filter of the resize.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interpolation: Option<Interpolation>,
    /// Subtracted from a pixel after scaling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean: Option<[f32; 3]>,
    /// Divides a pixel after the mean was subtracted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub std: Option<[f32; 3]>,
    /// Multiplies a pixel of 0..=255 first; 1/255 where it isn't given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<f32>,
    /// `rgb` or `bgr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<Channels>,
    /// Images a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<usize>,
    /// Pictures of more pixels are missing rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_pixels: Option<u64>,
    /// `exact` (the default) or `fast`: JPEGs far larger than what is made of them are decoded at a half, a quarter or an eighth of their size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decode: Option<Decode>,
    /// `f32` (the default) or `f16`: what the encoder computes in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
}

/// A crop: a square's side or `[height, width]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number (a square's side) or [height, width]")]
pub enum Crop {
    /// A square of this side.
    Square(u32),
    /// `[height, width]`.
    Sides([u32; 2]),
}

impl Crop {
    fn sides(self) -> [u32; 2] {
        match self {
            Self::Square(side) => [side, side],
            Self::Sides(sides) => sides,
        }
    }
}

/// Where the encoder's ONNX file comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// This file.
    File(PathBuf),
    /// torchvision's encoder of this name, exported to `path` with these weights where the file isn't there yet.
    Known {
        /// The encoder's name.
        name: String,
        /// `pretrained`, `random:SEED` or a state dict.
        weights: String,
        /// Where its export is kept.
        path: PathBuf,
    },
}

impl ModelSource {
    /// The ONNX file.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Known { path, .. } => path,
        }
    }
}

/// What `[encoder]` and `[[column]]` mean: how a picture is prepared and what is computed of it.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolvedEncoder {
    /// Decode, resize, crop.
    pub preprocess: Preprocess,
    /// Normalise, run, tap, pool, cast: all columns, in the recipe's order.
    pub plan: EncoderPlan,
    /// The views that a row of each column is made of, in the order of the plan's taps.
    pub views: Vec<Vec<View>>,
}

/// The recipe leaves out what the model doesn't say either.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{}` doesn't say how its pictures are prepared, and the recipe's [encoder] lacks {}\nhint: give them as the encoder was trained: \
     resize (the shorter side, or [height, width]), mean and std, for example mean = [0.485, 0.456, 0.406]", model.display(), missing.join(", ")
)]
pub struct UnknownPreprocessing {
    /// The model.
    pub model: PathBuf,
    /// The keys that are needed.
    pub missing: Vec<&'static str>,
}

impl EncoderSpec {
    /// Where the model comes from, with paths under `data`.
    #[must_use]
    pub fn source(&self, data: &Path) -> ModelSource {
        if crate::encoder::known(&self.model).is_none() {
            return ModelSource::File(data.join(&self.model));
        }
        let weights = self.weights.clone().unwrap_or_else(|| "pretrained".to_owned());
        let (weights, label) = match weights.as_str() {
            "pretrained" => (weights.clone(), weights),
            "random" => ("random:0".to_owned(), "random-0".to_owned()),
            other if other.starts_with("random:") => (weights.clone(), other.replace(':', "-")),
            file => {
                let path = data.join(file);
                let label = file_label(&path);
                (path.display().to_string(), label)
            }
        };
        let path = data.join("encoders").join(format!("{}-{label}.onnx", self.model));
        ModelSource::Known { name: self.model.clone(), weights, path }
    }

    /// The plan that this section and `columns` describe; `own` is what the model says about itself.
    ///
    /// # Errors
    /// [`UnknownPreprocessing`] where neither says how a picture is prepared.
    pub fn resolve(
        &self,
        columns: &[ColumnSpec],
        model: &Path,
        own: Option<&ModelMetadata>,
    ) -> Result<ResolvedEncoder, UnknownPreprocessing> {
        let base = own.and_then(|own| own.normalize.clone());
        let resize = self.resize.or(own.and_then(|own| own.resize).map(Resize::Shorter));
        let mean = self.mean.or(base.as_ref().map(|base| base.mean));
        let std = self.std.or(base.as_ref().map(|base| base.std));
        let needed = [("resize", resize.is_none()), ("mean", mean.is_none()), ("std", std.is_none())];
        let missing: Vec<&str> = needed.iter().filter(|(_, missing)| *missing).map(|(name, _)| *name).collect();
        let (Some(resize), Some(mean), Some(std)) = (resize, mean, std) else {
            return Err(UnknownPreprocessing { model: model.to_owned(), missing });
        };
        // A crop belongs to the resize it follows: where the recipe resizes in its own way, the model's crop is void.
        let own_crop =
            own.filter(|_| self.resize.is_none()).and_then(|own| own.crop).map(|sides| sides.map(|side| side as u32));
        let defaults = Preprocess::default();
        let preprocess = Preprocess {
            resize,
            crop: self.crop.map(Crop::sides).or(own_crop),
            interpolation: self.interpolation.or(own.and_then(interpolation_of)).unwrap_or_default(),
            max_pixels: self.max_pixels.unwrap_or(defaults.max_pixels),
            decode: self.decode.unwrap_or_default(),
        };
        let base = base.unwrap_or_default();
        let normalize = Normalize {
            mean,
            std,
            scale: self.scale.unwrap_or(base.scale),
            channels: self.channels.unwrap_or(base.channels),
        };
        let (height, width) = preprocess.output_size();
        let plan = EncoderPlan {
            normalize,
            height: height as usize,
            width: width as usize,
            batch: self.batch.unwrap_or(DEFAULT_BATCH),
            precision: self.precision.unwrap_or_default(),
            taps: columns.iter().map(ColumnSpec::tap).collect(),
        };
        let views = columns.iter().map(ColumnSpec::views).collect();
        Ok(ResolvedEncoder { preprocess, plan, views })
    }
}

/// What an export of the state dict `path` is called: by its name and its bytes, so that other weights are another export.
fn file_label(path: &Path) -> String {
    let stem = path.file_stem().map_or_else(|| "file".into(), |stem| stem.to_string_lossy().into_owned());
    let mut hasher = blake3::Hasher::new();
    // A file that can't be read is the exporter's to name.
    match fs::File::open(path).and_then(|file| hasher.update_reader(file).map(|_| ())) {
        Ok(()) => format!("{stem}-{}", &hasher.finalize().to_hex()[..8]),
        Err(_) => stem,
    }
}

fn interpolation_of(own: &ModelMetadata) -> Option<Interpolation> {
    serde_json::from_value(own.interpolation.clone()?.into()).ok()
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_weights_are_another_export() {
        let data = tempfile::tempdir().unwrap();
        let spec: EncoderSpec = toml::from_str("model = 'resnet18'\nweights = 'best.pth'").unwrap();
        let path = || spec.source(data.path()).path().file_name().unwrap().to_string_lossy().into_owned();
        assert_eq!(path(), "resnet18-best.onnx");
        fs::write(data.path().join("best.pth"), "one").unwrap();
        let one = path();
        fs::write(data.path().join("best.pth"), "two").unwrap();
        assert!(one.starts_with("resnet18-best-") && one != path(), "{one} {}", path());
    }
}
