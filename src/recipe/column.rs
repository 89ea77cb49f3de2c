//! The section `[[column]]`: what is kept of each picture.
//!
//! It knows nothing of the encoder's graph or of a picture's size: what a column asks for is checked here as far as its
//! own words contradict each other, and where it meets a model.

use icecap_cache::Dtype;
use serde::{Deserialize, Serialize};

use super::{Origin, RegionsSpec};
use crate::{
    detector::{BOX_FEATURES, LEVELS},
    encoder::{Pool, Tap},
    image::{Tiles, View, ViewSpec, resolve_views},
};

/// One `[[column]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnSpec {
    /// The column's name.
    pub name: String,
    /// The tensor of the encoder's graph; `icecap inspect` lists them.
    pub tap: String,
    /// `none`, `global`, `flatten`, or a grid such as `7x7`; of regions, the cells in which each is sampled (`7x7`).
    #[serde(default)]
    pub pool: Pool,
    /// Divide each vector by its length.
    #[serde(default)]
    pub l2: bool,
    /// `f16`, `bf16` or `f32`.
    #[serde(default = "half")]
    pub dtype: Dtype,
    /// The picture in parts, each of them embedded: `2x2`, or `2x2+1` with the whole after them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tiles: Option<Tiles>,
    /// Several views of the picture, each of them embedded: `center`, `hflip`, `five-crop`, `whole`, `random:N`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub views: Vec<ViewSpec>,
    /// The seed of the random views; 0 where it isn't given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// `encoder`, or `detector`: `tap` is then `box_features` or a level of its pyramid, `fpn.0` to `fpn.3` or `fpn.pool`.
    #[serde(default, skip_serializing_if = "Origin::is_encoder")]
    pub from: Origin,
    /// The mean of the tap in each of the picture's regions: `"detector"`, or `{ file = "boxes.jsonl" }`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regions: Option<RegionsSpec>,
}

fn half() -> Dtype {
    Dtype::F16
}

/// A contradiction inside of one column: the key it is blamed on, what is wrong, and the way out.
pub(super) struct Contradiction {
    pub key: &'static str,
    pub message: String,
    pub hint: &'static str,
}

impl ColumnSpec {
    /// What the encoder computes for it.
    pub(super) fn tap(&self) -> Tap {
        Tap {
            name: self.name.clone(),
            tensor: self.tap.clone(),
            pool: self.pool,
            l2: self.l2,
            dtype: self.dtype,
            regions: None,
        }
    }

    /// Whether each row holds the vectors of regions, with their boxes.
    #[must_use]
    pub fn has_regions(&self) -> bool {
        self.regions.is_some() || self.from == Origin::Detector && self.tap == BOX_FEATURES
    }

    /// Whether a `[detector]` has to look at the pictures for it.
    #[must_use]
    pub fn needs_detector(&self) -> bool {
        self.from == Origin::Detector || matches!(self.regions, Some(RegionsSpec::Detector(_)))
    }

    /// The views that a row is made of, in the order of its vectors.
    #[must_use]
    pub fn views(&self) -> Vec<View> {
        match (self.tiles, self.views.as_slice()) {
            (Some(tiles), _) => tiles.resolve(),
            (None, []) => vec![View::Center],
            (None, views) => resolve_views(views, self.seed.unwrap_or(0)),
        }
    }

    /// Everything in it that can't be meant together.
    pub(super) fn contradictions(&self) -> Vec<Contradiction> {
        let mut found = Vec::new();
        let mut blame = |key, message, hint| found.push(Contradiction { key, message, hint });
        let name = &self.name;
        if self.tiles.is_some() && !self.views.is_empty() {
            let message = format!("column `{name}` has both `tiles` and `views`");
            blame("views", message, "make two columns of it: a decoder reads several");
        }
        let random = self.views.iter().any(|view| matches!(view, ViewSpec::Random(_)));
        self.region_contradictions(&mut blame);
        if self.seed.is_some() && !random {
            blame("seed", format!("column `{name}` has a `seed` and no random views"), "drop it, or add `random:4`");
        }
        if self.seed.is_some_and(|seed| i64::try_from(seed).is_err()) {
            blame("seed", format!("the `seed` of column `{name}` is too large"), "TOML counts to 9223372036854775807");
        }
        for (at, view) in self.views.iter().enumerate().filter(|(_, view)| !matches!(view, ViewSpec::Random(_))) {
            if self.views[..at].contains(view) {
                blame("views", format!("column `{name}` names the view `{view}` twice"), "each view makes one vector");
            }
        }
        if self.views.iter().filter(|view| matches!(view, ViewSpec::Random(_))).count() > 1 {
            let message = format!("column `{name}` names random views twice");
            blame("views", message, "they would be the same crops: ask for more at once, such as `random:8`");
        }
        found
    }

    fn region_contradictions(&self, blame: &mut impl FnMut(&'static str, String, &'static str)) {
        let name = &self.name;
        let views = if self.tiles.is_some() { Some("tiles") } else { (!self.views.is_empty()).then_some("views") };
        if let (Some(key), true) = (views, self.regions.is_some() || self.from == Origin::Detector) {
            let message = format!("column `{name}` has regions or is the detector's, and has `{key}`");
            blame(key, message, "regions are those of the whole picture: drop one of the two");
        }
        match (self.from, &self.regions) {
            (Origin::Encoder, Some(regions)) => {
                if matches!(self.pool, Pool::Global | Pool::Flatten) {
                    let message = format!("column `{name}` pools its regions by `{}`", self.pool);
                    blame("pool", message, "a grid says how finely a region is sampled, as \"7x7\"; its mean is kept anyway");
                }
                if let RegionsSpec::File(file) = regions
                    && !(1..=1000).contains(&file.max)
                {
                    blame("regions", format!("`max = {}` is no number of regions", file.max), "1 to 1000");
                }
            }
            (Origin::Detector, Some(_)) => {
                let message = format!("column `{name}` is the detector's: its regions go without saying");
                blame("regions", message, "drop `regions`, or drop `from` to pool the encoder's tensor in the detector's regions");
            }
            (Origin::Detector, None) if self.tap == BOX_FEATURES => {
                if self.pool != Pool::None {
                    blame("pool", format!("column `{name}` pools vectors"), "drop `pool`: a region has one vector");
                }
            }
            (Origin::Detector, None) if LEVELS.contains(&self.tap.as_str()) => {
                if matches!(self.pool, Pool::None | Pool::Flatten) {
                    let message = format!("column `{name}` keeps maps of a level, and each picture's has another size");
                    blame("tap", message, "pool it: pool = \"7x7\", or \"global\"");
                }
            }
            (Origin::Detector, None) => {
                let message = format!("a detector has no tensor `{}` to keep", self.tap);
                blame("tap", message, "box_features, or a level of its pyramid: fpn.0 to fpn.3, fpn.pool");
            }
            (Origin::Encoder, None) => {}
        }
    }
}
