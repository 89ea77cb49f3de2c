//! The section `[detector]`, and the regions that a column is made of.
//!
//! It knows nothing of what a detector does with its numbers. Left out, they are torchvision's for Faster R-CNN and YOLOX's own for
//! YOLOX; the model, left out, is the encoder's own file: a Faster R-CNN is both.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{ColumnSpec, EncoderSpec, ModelSource, column::ColumnFault};
use crate::{
    detector::{BOX_FEATURES, DetectorPlan, Kind, LEVELS, Policy},
    encoder::Pool,
};

/// Regions a picture where the recipe doesn't say: as many as bottom-up attention's.
const REGIONS: usize = 36;

/// Most regions a picture.
const MOST_REGIONS: usize = 1000;

/// The section `[detector]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetectorSpec {
    /// `fasterrcnn` or `yolox`.
    pub kind: Kind,
    /// A detector's name, or the path of an `.onnx` file; the encoder's own where it isn't given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// For a detector by name, as the encoder's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// Faster R-CNN: the shorter side in pixels (800). YOLOX: its square, where the file leaves it open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u32>,
    /// Faster R-CNN: what the longer side may reach; 1333 for 800, and in that proportion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_size: Option<u32>,
    /// Just so many regions, whatever their scores: the same as `min` and `max`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top: Option<usize>,
    /// Regions kept although their score is too low (1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<usize>,
    /// Regions at most (36): the vectors of a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<usize>,
    /// A region's score is above this (0.05 for Faster R-CNN, 0.2 for YOLOX).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f32>,
    /// Two regions of a class overlap no more than this (0.5 for Faster R-CNN, 0.45 for YOLOX).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nms: Option<f32>,
}

/// Which network a column's tensor is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The encoder's.
    #[default]
    Encoder,
    /// The detector's.
    Detector,
}

impl Origin {
    /// Whether it is the one that goes without saying.
    pub(super) fn is_encoder(&self) -> bool {
        *self == Self::Encoder
    }
}

/// Where the regions of a column come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected \"detector\" or { file = \"boxes.jsonl\", max = 36 }")]
pub enum RegionsSpec {
    /// `"detector"`: those that `[detector]` finds.
    Detector(DetectorWord),
    /// A file of boxes.
    File(FileSpec),
}

/// The word `detector`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DetectorWord {
    /// It.
    Detector,
}

/// A file of boxes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSpec {
    /// COCO's instances, or one picture a line where it is called `.jsonl`.
    pub file: PathBuf,
    /// Regions at most: the vectors of a row.
    #[serde(default = "regions")]
    pub max: usize,
    /// A region's score is above this; boxes without one have 1.
    #[serde(default)]
    pub score: f32,
}

fn regions() -> usize {
    REGIONS
}

/// A number that makes no sense: its key, what is wrong, and the way out.
pub(super) struct Senseless {
    pub key: &'static str,
    pub message: String,
    pub hint: &'static str,
}

impl DetectorSpec {
    /// Where the model comes from, with paths under `data`.
    #[must_use]
    pub fn source(&self, encoder: &EncoderSpec, data: &Path) -> ModelSource {
        match &self.model {
            None => encoder.source(data),
            Some(model) => {
                let (model, weights) = (model.clone(), self.weights.clone());
                EncoderSpec { model, weights, ..encoder.clone() }.source(data)
            }
        }
    }

    /// The detector that is meant, with its file at `path`, for batches of `batch`.
    #[must_use]
    pub fn resolve(&self, path: &Path, batch: usize) -> DetectorPlan {
        let (score, nms) = match self.kind {
            Kind::FasterRcnn => (0.05, 0.5),
            Kind::Yolox => (0.2, 0.45),
        };
        let policy = Policy {
            max: self.most(),
            min: self.top.or(self.min).unwrap_or(1),
            score: self.score.unwrap_or(score),
            nms: self.nms.unwrap_or(nms),
        };
        DetectorPlan { kind: self.kind, path: path.to_owned(), size: self.size, max_size: self.max_size, policy, batch }
    }

    fn most(&self) -> usize {
        self.top.or(self.max).unwrap_or(REGIONS)
    }

    /// Everything in it that makes no sense.
    pub(super) fn senseless(&self) -> Vec<Senseless> {
        let mut found = Vec::new();
        let mut blame = |key, message, hint| found.push(Senseless { key, message, hint });
        for (key, value) in [("top", self.top), ("max", self.max)] {
            if let Some(value) = value.filter(|value| !(1..=MOST_REGIONS).contains(value)) {
                blame(key, format!("`{key} = {value}` is no number of regions"), "1 to 1000");
            }
        }
        if self.top.is_some() && (self.min.is_some() || self.max.is_some()) {
            blame("top", "`top` is `min` and `max` in one".to_owned(), "give it alone, or give the two");
        }
        if self.min.is_some_and(|min| min > self.most()) {
            blame("min", "`min` is larger than `max`".to_owned(), "raise `max`, which is 36 where it isn't given");
        }
        for (key, value) in [("score", self.score), ("nms", self.nms)] {
            if let Some(value) = value.filter(|value| !(0.0..=1.0).contains(value)) {
                blame(key, format!("`{key} = {value}` is no share"), "between 0 and 1");
            }
        }
        for (key, value) in [("size", self.size), ("max_size", self.max_size)] {
            if let Some(value) = value.filter(|value| !(128..=4096).contains(value)) {
                blame(key, format!("`{key} = {value}` is no size for a detector"), "128 to 4096 pixels");
            }
        }
        if self.kind == Kind::Yolox {
            if self.max_size.is_some() {
                blame("max_size", "a YOLOX sees a square".to_owned(), "drop it");
            }
            if self.size.is_some_and(|size| size % 32 != 0) {
                blame("size", "a YOLOX's square has sides of a multiple of 32".to_owned(), "as 416 or 640");
            }
        }
        if self.weights.is_some() && self.model.is_none() {
            let message = "the detector is the encoder's own model, and so are its weights".to_owned();
            blame("weights", message, "say them in [encoder], or give `model` here");
        }
        found
    }
}

impl ColumnSpec {
    /// What is wrong with its regions, or with what it wants of the detector.
    pub(super) fn region_faults(&self) -> Vec<ColumnFault> {
        let name = &self.name;
        let mut faults = Vec::new();
        let mut blame = |key, message, hint| faults.push(ColumnFault::of(key, message, hint));
        let views = if self.tiles.is_some() { Some("tiles") } else { (!self.views.is_empty()).then_some("views") };
        if let (Some(key), true) = (views, self.regions.is_some() || self.from == Origin::Detector) {
            let message = format!("column `{name}` has regions or is the detector's, and has `{key}`");
            blame(key, message, "regions are those of the whole picture: drop one of the two");
        }
        match (self.from, &self.regions) {
            (Origin::Encoder, None) => {}
            (Origin::Encoder, Some(regions)) => {
                if matches!(self.pool, Pool::Global | Pool::Flatten) {
                    let message = format!("column `{name}` pools its regions by `{}`", self.pool);
                    blame(
                        "pool",
                        message,
                        "a grid says how finely a region is sampled, as \"7x7\"; its mean is kept anyway",
                    );
                }
                if let RegionsSpec::File(file) = regions
                    && !(1..=MOST_REGIONS).contains(&file.max)
                {
                    blame("regions", format!("`max = {}` is no number of regions", file.max), "1 to 1000");
                }
            }
            (Origin::Detector, Some(_)) => {
                let message = format!("column `{name}` is the detector's: its regions go without saying");
                blame(
                    "regions",
                    message,
                    "drop `regions`; or drop `from`, to pool the encoder's tensor in those regions",
                );
            }
            (Origin::Detector, None) => faults.extend(self.detector_tap_fault()),
        }
        faults
    }

    /// What is wrong with the detector's tensor that it taps.
    fn detector_tap_fault(&self) -> Option<ColumnFault> {
        let name = &self.name;
        if self.taps_only(BOX_FEATURES) {
            let pooled = (self.pool != Pool::None).then(|| format!("column `{name}` pools vectors"));
            return pooled.map(|message| ColumnFault::of("pool", message, "drop `pool`: a region has one vector"));
        }
        if LEVELS.iter().any(|level| self.taps_only(level)) {
            let open = matches!(self.pool, Pool::None | Pool::Flatten);
            let message = || format!("column `{name}` keeps maps of a level, and each picture's has another size");
            return open.then(|| ColumnFault::of("tap", message(), "pool it: pool = \"7x7\", or \"global\""));
        }
        let key = if self.taps.is_empty() { "tap" } else { "taps" };
        let shown =
            self.tap.iter().chain(&self.taps).map(|tensor| format!("`{tensor}`")).collect::<Vec<_>>().join(", ");
        let message = format!("a detector has no tensor {shown} to keep");
        Some(ColumnFault::of(key, message, "one of box_features, fpn.0, fpn.1, fpn.2, fpn.3, fpn.pool"))
    }
}
