//! Where in a picture is something? Networks that answer in boxes, and files of boxes that somebody else found.
//!
//! ```text
//! picture --look--> input --detect--> candidates --policy--> regions: boxes, scores, labels (and features, levels of the pyramid)
//! ```
//!
//! It must not know recipes, data sets or caches, nor ONNX Runtime: networks are run by `encoder`. Boxes go out in pixels of the upright
//! original, whatever size a network looked at.
//!
//! The decision defended: what lies between the networks' numbers and the regions (anchors, the choice of proposals, suppression) is plain
//! Rust on the CPU and not part of a graph. In a graph it is a hundred nodes of gathers and loops that fix the batch at one; here it is
//! a few milliseconds a picture, testable line by line against torchvision, and the policy is a recipe's to set.

pub mod anchors;
pub mod boxes;
mod error;
mod fasterrcnn;
mod file;
mod heads;
mod levels;
mod policy;
mod proposals;
mod transform;
mod yolox;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use boxes::Box4;
pub use error::DetectorError;
pub use file::BoxFile;
pub use levels::LEVELS;
pub use policy::{Policy, Regions};
pub use transform::Picture;

use crate::encoder::{Device, Normalize, Pool, read_metadata};
use fasterrcnn::FasterRcnn;
use transform::{Letterbox, Resized, Table, fit, letterbox, resize};
use yolox::Yolox;

/// Version of what is done between networks and regions: raised when the same numbers would give other regions.
pub const IMPLEMENTATION: u32 = 1;

/// The tensor of a Faster R-CNN's box head that a region's features are.
pub const BOX_FEATURES: &str = "box_features";

/// The families of detectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// torchvision's Faster R-CNN, exported by icecap.
    FasterRcnn,
    /// YOLOX of any size.
    Yolox,
}

/// A detector as meant.
#[derive(Debug, Clone, PartialEq)]
pub struct DetectorPlan {
    /// Its family.
    pub kind: Kind,
    /// The ONNX file.
    pub path: PathBuf,
    /// Faster R-CNN: the shorter side, in pixels. YOLOX: the sides of its square, where the file leaves them open.
    pub size: Option<u32>,
    /// Faster R-CNN: what the longer side may reach.
    pub max_size: Option<u32>,
    /// Which candidates become regions.
    pub policy: Policy,
    /// Pictures a run.
    pub batch: usize,
}

/// What a detector is asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wanted {
    /// Regions, or only levels.
    pub regions: bool,
    /// Levels of the pyramid (places in [`LEVELS`]) and how each is pooled: [`Pool::Global`] or [`Pool::Grid`].
    pub levels: Vec<(usize, Pool)>,
}

/// What was found in one picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The regions, the best first.
    pub regions: Regions,
    /// Faster R-CNN: the box head's features of each region's proposal, one after another.
    pub features: Vec<f32>,
    /// The wanted levels, a row `[K*K, C]` each.
    pub levels: Vec<Vec<f32>>,
}

/// A picture in the form that a detector takes.
#[derive(Debug, Clone, PartialEq)]
pub enum Look {
    /// Resized and normalised.
    Resized(Resized),
    /// In the corner of a grey square.
    Letterbox(Letterbox),
}

/// A detector that is ready for sessions.
pub struct Detector {
    plan: DetectorPlan,
    wanted: Wanted,
    network: Network,
}

enum Network {
    FasterRcnn { network: FasterRcnn, table: Box<Table>, size: (u32, u32), widths: Widths },
    Yolox(Yolox),
}

/// Widths of what a Faster R-CNN gives.
#[derive(Debug, Clone, Copy)]
struct Widths {
    features: usize,
    channels: usize,
}

/// torchvision's sizes of Faster R-CNN: the shorter side, and what the longer may reach.
const SIZE: (u32, u32) = (800, 1333);

impl Detector {
    /// Opens the detector of `plan`; `wanted` is what each picture will be asked for.
    ///
    /// # Errors
    /// A file that can't be read or is another network than `plan` says.
    pub fn open(plan: DetectorPlan, wanted: Wanted) -> Result<Self, DetectorError> {
        let network = match plan.kind {
            Kind::FasterRcnn => Self::faster_rcnn(&plan)?,
            Kind::Yolox => Network::Yolox(Yolox::open(&plan.path, plan.size.map(|side| (side, side)), plan.batch)?),
        };
        Ok(Self { plan, wanted, network })
    }

    fn faster_rcnn(plan: &DetectorPlan) -> Result<Network, DetectorError> {
        let foreign = |error| match error {
            crate::encoder::EncoderError::UnknownTensor { path, tensor, .. } => {
                DetectorError::NotFasterRcnn { path, tensor }
            }
            other => other.into(),
        };
        let network = FasterRcnn::open(&plan.path).map_err(foreign)?;
        let normalize: Normalize = read_metadata(&plan.path)?.and_then(|own| own.normalize).unwrap_or_default();
        let table = Box::new(Table::normalised(normalize.mean, normalize.std));
        let min = plan.size.unwrap_or(SIZE.0);
        // torchvision's proportion of the two, where only the shorter is given.
        let max = plan.max_size.unwrap_or_else(|| (u64::from(min) * u64::from(SIZE.1) / u64::from(SIZE.0)) as u32);
        let (features, channels) = network.widths(&plan.path)?;
        Ok(Network::FasterRcnn { network, table, size: (min, max), widths: Widths { features, channels } })
    }

    /// Which candidates become regions.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.plan.policy
    }

    /// Width of a region's features; nothing where the detector has none.
    #[must_use]
    pub fn feature_width(&self) -> Option<usize> {
        match &self.network {
            Network::FasterRcnn { widths, .. } => Some(widths.features),
            Network::Yolox(_) => None,
        }
    }

    /// Channels of a level of the pyramid; nothing where the detector has none.
    #[must_use]
    pub fn channels(&self) -> Option<usize> {
        match &self.network {
            Network::FasterRcnn { widths, .. } => Some(widths.channels),
            Network::Yolox(_) => None,
        }
    }

    /// Everything of the network and its input that decides what it says; [`Policy::key_fields`] decides what is made of it.
    #[must_use]
    pub fn key_fields(&self) -> Vec<(String, Value)> {
        let (digest, size) = match &self.network {
            Network::FasterRcnn { network, size, .. } => (network.digest(), size),
            Network::Yolox(network) => (network.digest(), &network.size()),
        };
        [
            ("kind", json!(self.plan.kind)),
            ("model", json!(digest)),
            ("size", json!([size.0, size.1])),
            ("implementation", json!(IMPLEMENTATION)),
        ]
        .map(|(name, value)| (format!("detector.{name}"), value))
        .to_vec()
    }

    /// The picture as the network takes it: the part of the work that is a decoder's thread's.
    #[must_use]
    pub fn look(&self, picture: Picture<'_>) -> Look {
        match &self.network {
            Network::FasterRcnn { table, size, .. } => {
                Look::Resized(resize(picture, fit(picture.size, size.0, size.1), table))
            }
            Network::Yolox(network) => Look::Letterbox(letterbox(picture, network.size())),
        }
    }

    /// Opens a session on `device` that computes on `threads` threads.
    ///
    /// # Errors
    /// Where ONNX Runtime refuses the model or the device.
    pub fn session(&self, device: Device, threads: usize) -> Result<DetectorSession<'_>, DetectorError> {
        let session = match &self.network {
            Network::FasterRcnn { network, .. } => Session::FasterRcnn(network.session(device, threads)?),
            Network::Yolox(network) => Session::Yolox(Box::new(network.session(device, threads)?)),
        };
        Ok(DetectorSession { detector: self, session })
    }
}

/// One worker's session of a [`Detector`].
pub struct DetectorSession<'d> {
    detector: &'d Detector,
    session: Session,
}

enum Session {
    FasterRcnn(fasterrcnn::Session),
    Yolox(Box<yolox::Session>),
}

impl DetectorSession<'_> {
    /// What is found in each of `looks`, which this detector made.
    ///
    /// # Errors
    /// Where the network fails.
    pub fn detect(&mut self, looks: &[&Look]) -> Result<Vec<Found>, DetectorError> {
        let (policy, wanted) = (&self.detector.plan.policy, &self.detector.wanted);
        match &mut self.session {
            Session::FasterRcnn(session) => {
                let pictures: Vec<&Resized> = looks.iter().filter_map(|look| look.resized()).collect();
                Ok(session.detect(&pictures, policy, wanted)?)
            }
            Session::Yolox(session) => {
                let pictures: Vec<&Letterbox> = looks.iter().filter_map(|look| look.letterbox()).collect();
                session.detect(&pictures, policy)
            }
        }
    }
}

impl Look {
    fn resized(&self) -> Option<&Resized> {
        match self {
            Self::Resized(resized) => Some(resized),
            Self::Letterbox(_) => None,
        }
    }

    fn letterbox(&self) -> Option<&Letterbox> {
        match self {
            Self::Letterbox(letterbox) => Some(letterbox),
            Self::Resized(_) => None,
        }
    }
}
