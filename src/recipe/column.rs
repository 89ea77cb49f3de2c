//! The section `[[column]]`: what is kept of each picture.
//!
//! It knows nothing of the encoder's graph or of a picture's size: what a column asks for is checked here as far as its
//! own words contradict each other, and where it meets a model.

use icecap_cache::Dtype;
use serde::{Deserialize, Serialize};

use super::{Origin, RegionsSpec};
use crate::{
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tap: Option<String>,
    /// Several tensors instead, whose vectors are joined along their width.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taps: Vec<String>,
    /// `none`, `global`, `flatten`, or a grid such as `7x7`; of regions, the cells in which each is sampled (`7x7`).
    #[serde(default)]
    pub pool: Pool,
    /// Divide each vector by its length; that of several taps, after it was joined.
    #[serde(default)]
    pub l2: bool,
    /// `f16`, `bf16`, `f32`, or `i8` with a scale a row.
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

/// A fault inside of one column: the key it is blamed on (the whole column where there is none), what is wrong, and the way
/// out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ColumnFault {
    pub key: Option<&'static str>,
    pub message: String,
    pub hint: Option<&'static str>,
}

impl ColumnFault {
    pub fn of(key: &'static str, message: String, hint: &'static str) -> Self {
        Self { key: Some(key), message, hint: Some(hint) }
    }
}

impl ColumnSpec {
    /// What the encoder computes for it.
    pub(super) fn tap(&self) -> Tap {
        let tensors = self.tap.iter().chain(&self.taps).cloned().collect();
        let name = self.name.clone();
        Tap { name, tensors, pool: self.pool, l2: self.l2, dtype: self.dtype, regions: None }
    }

    /// Whether `tensor`, and no other, is tapped.
    #[must_use]
    pub fn taps_only(&self, tensor: &str) -> bool {
        self.tap.as_deref() == Some(tensor) && self.taps.is_empty()
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

    /// Everything that is missing in it, the `index`th column, or can't be meant together.
    pub(super) fn faults(&self, index: usize) -> Vec<ColumnFault> {
        let mut faults = self.tap_faults(index);
        faults.extend(self.view_faults());
        faults.extend(self.region_faults());
        faults
    }

    fn tap_faults(&self, index: usize) -> Vec<ColumnFault> {
        let name = &self.name;
        let mut faults = Vec::new();
        match (&self.tap, self.taps.as_slice()) {
            (None, []) => {
                let message = format!("the key `tap` is missing in `column.{index}`");
                faults.push(ColumnFault { key: None, message, hint: None });
            }
            (Some(_), [_, ..]) => {
                let message = format!("column `{name}` has both `tap` and `taps`");
                faults.push(ColumnFault::of("taps", message, "put all layers into `taps`"));
            }
            _ => {}
        }
        if let Some(twice) = repeated(&self.taps) {
            let message = format!("column `{name}` taps `{twice}` twice");
            faults.push(ColumnFault::of("taps", message, "name each layer once"));
        }
        faults
    }

    fn view_faults(&self) -> Vec<ColumnFault> {
        let name = &self.name;
        let mut faults = Vec::new();
        let mut blame = |key, message, hint| faults.push(ColumnFault::of(key, message, hint));
        if self.tiles.is_some() && !self.views.is_empty() {
            let message = format!("column `{name}` has both `tiles` and `views`");
            blame("views", message, "make two columns of it: a decoder reads several");
        }
        let is_random = |view: &&ViewSpec| matches!(view, ViewSpec::Random(_));
        let random = self.views.iter().filter(is_random).count();
        if self.seed.is_some() && random == 0 {
            blame("seed", format!("column `{name}` has a `seed` and no random views"), "drop it, or add `random:4`");
        }
        if random > 1 {
            let message = format!("column `{name}` names random views twice");
            blame("views", message, "they would be the same crops: ask for more at once, such as `random:8`");
        } else if let Some(twice) = repeated(&self.views) {
            let message = format!("column `{name}` names the view `{twice}` twice");
            blame("views", message, "each view makes one vector: name it once");
        }
        faults
    }
}

/// The first of `items` that was there before.
fn repeated<T: PartialEq>(items: &[T]) -> Option<&T> {
    items.iter().enumerate().find(|(at, item)| items[..*at].contains(item)).map(|(_, item)| item)
}
