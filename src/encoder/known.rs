//! The encoders that go by a name: torchvision's, with the preprocessing their weights were trained for.
//!
//! Must not know how they are exported. The numbers are those of torchvision's weights enums (`IMAGENET1K_V1`), and the
//! exporter writes the same ones into the model; a test compares the two tables.

use std::path::Path;

use super::EncoderError;
use super::graph::nearest;
use super::plan::Normalize;

/// How pictures are prepared for a known encoder, and what is worth tapping.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// The shorter side after resizing, in pixels.
    pub resize: u32,
    /// Height and width of the central crop, in pixels.
    pub crop: [u32; 2],
    /// ImageNet's mean, a channel each.
    pub mean: [f32; 3],
    /// ImageNet's deviation, a channel each.
    pub std: [f32; 3],
    /// Interpolation of the resize, with antialiasing.
    pub interpolation: &'static str,
    /// Tensors worth tapping, from early to late; the last is the pooled vector.
    pub taps: &'static [&'static str],
}

impl Known {
    /// Its normalisation as a plan takes it.
    pub fn normalize(&self) -> Normalize {
        Normalize { mean: self.mean, std: self.std, ..Normalize::default() }
    }
}

/// Names of the known encoders.
pub const NAMES: [&str; 7] =
    ["resnet18", "resnet34", "resnet50", "resnet101", "densenet121", "inception_v3", "fasterrcnn_resnet50_fpn"];

/// The encoder of this name.
pub fn known(name: &str) -> Option<Known> {
    let taps: &[&str] = match name {
        "resnet18" | "resnet34" | "resnet50" | "resnet101" => &["layer1", "layer2", "layer3", "layer4", "avgpool"],
        "densenet121" => &["denseblock1", "denseblock2", "denseblock3", "denseblock4", "features", "avgpool"],
        "inception_v3" => &["Mixed_5d", "Mixed_6e", "Mixed_7c", "avgpool"],
        "fasterrcnn_resnet50_fpn" => &["fpn.0", "fpn.1", "fpn.2", "fpn.3", "fpn.pool"],
        _ => return None,
    };
    let (resize, crop) = match name {
        "inception_v3" => (342, [299, 299]),
        // As an encoder it takes one size; as a detector, any: see the folder `detector`.
        "fasterrcnn_resnet50_fpn" => (800, [800, 800]),
        _ => (256, [224, 224]),
    };
    let Normalize { mean, std, .. } = Normalize::default();
    Some(Known { resize, crop, mean, std, interpolation: "bilinear", taps })
}

/// The error for the `model` of a recipe that is neither a known encoder nor the file `path`.
#[must_use]
pub fn absent(model: &str, path: &Path) -> EncoderError {
    let nearest = nearest(model, NAMES.into_iter());
    EncoderError::NoModel { model: model.to_owned(), path: path.to_owned(), nearest }
}

/// The encoder of this name, or an error that names the nearest.
pub(super) fn require(name: &str) -> Result<Known, EncoderError> {
    known(name).ok_or_else(|| EncoderError::UnknownEncoder {
        name: name.to_owned(),
        nearest: nearest(name, NAMES.into_iter()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_is_neither_name_nor_file_names_the_nearest() {
        insta::assert_snapshot!(absent("resnet19", Path::new("data/resnet19")), @r"
        `resnet19` is neither a known encoder nor a file: there is no `data/resnet19`; nearest: `resnet18`, `resnet101`, `resnet34`
        hint: known are resnet18, resnet34, resnet50, resnet101, densenet121, inception_v3, fasterrcnn_resnet50_fpn; a path starts from the folder given by --data
        ");
    }

    #[test]
    fn every_name_is_known_and_others_name_the_nearest() {
        assert!(NAMES.iter().all(|name| known(name).is_some()));
        let error = require("resnet-18").unwrap_err();
        insta::assert_snapshot!(error, @r"
        no encoder is called `resnet-18`; nearest: `resnet18`, `resnet101`, `resnet34`
        hint: resnet18, resnet34, resnet50, resnet101, densenet121, inception_v3, fasterrcnn_resnet50_fpn, or the path of any .onnx
        ");
    }
}
