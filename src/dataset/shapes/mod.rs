//! Scenes that icecap draws itself: pictures and true captions without a download, for the demo and for tests.
//!
//! It must not know encoders or decoders; it yields PNG bytes and captions like any data set.
//!
//! Decision: a scene is a pure function of (seed, index). It is stored as those numbers and drawn when it is read, so that a
//! data set of a million scenes takes no disk, and adding training scenes changes no validation scene.

mod captions;
mod draw;
mod judge;
mod scene;

use serde::{Deserialize, Serialize};

use super::{Dataset, DatasetError, Item, Source, TEST, TRAIN, VAL};

pub use judge::{Judgement, Tally, judge};
pub use scene::{Arrangement, Colour, Object, Scene, Shape, Size};

pub(crate) use scene::mix;

/// `format = "shapes"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shapes {
    /// For messages and reports; `shapes` without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How many scenes to train on.
    pub train: u32,
    /// How many to validate on.
    pub val: u32,
    /// How many to test on.
    pub test: u32,
    /// Another seed draws other scenes.
    pub seed: u64,
    /// Side of the square pictures, in pixels.
    pub side: u32,
}

impl Default for Shapes {
    fn default() -> Self {
        Self { name: None, train: 2000, val: 200, test: 200, seed: 0, side: 128 }
    }
}

const SIDES: std::ops::RangeInclusive<u32> = 32..=1024;

pub(super) fn load(spec: &Shapes) -> Result<Dataset, DatasetError> {
    if !SIDES.contains(&spec.side) {
        let hint = "the side of a scene is between 32 and 1024 pixels";
        return Err(DatasetError::Setting { key: "side", value: spec.side.to_string(), hint });
    }
    let mut items = Vec::new();
    // Each split draws from its own range of indices.
    for (part, (split, count)) in (0u64..).zip([(TRAIN, spec.train), (VAL, spec.val), (TEST, spec.test)]) {
        items.extend((0..u64::from(count)).map(|number| {
            let scene = Scene { seed: spec.seed, index: (part << 32) | number, side: spec.side };
            Item {
                id: format!("{split}-{number:06}"),
                captions: scene.captions(),
                source: Source::Drawn(scene),
                split: split.to_owned(),
            }
        }));
    }
    let name = spec.name.clone().unwrap_or_else(|| "shapes".to_owned());
    Ok(Dataset { name, items, notes: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn more_training_scenes_leave_the_others_alone() {
        let small = load(&Shapes { train: 10, val: 5, test: 5, ..Shapes::default() }).unwrap();
        let large = load(&Shapes { train: 20, val: 5, test: 5, ..Shapes::default() }).unwrap();
        for split in [VAL, TEST] {
            assert!(small.split(split).eq(large.split(split)));
        }
        assert!(small.split(TRAIN).eq(large.split(TRAIN).take(10)));
        assert_eq!(small.items[10].id, "val-000000");
    }

    #[test]
    fn scenes_differ_from_each_other_and_by_seed() {
        let pictures = |seed| {
            let spec = Shapes { train: 100, val: 100, test: 0, seed, ..Shapes::default() };
            load(&spec).unwrap().items.iter().map(|item| item.source.read().unwrap()).collect::<HashSet<_>>()
        };
        let (first, second) = (pictures(0), pictures(1));
        assert_eq!(first.len(), 200);
        assert!(first.is_disjoint(&second));
        assert_eq!(first, pictures(0));
    }

    #[test]
    fn a_side_beyond_reason_is_refused() {
        assert!(load(&Shapes { side: 8, ..Shapes::default() }).is_err());
    }
}
