//! The region proposal network's numbers as proposals: torchvision's `RegionProposalNetwork.filter_proposals`.
//!
//! Must not know ONNX Runtime. Of each level only the boxes that may be proposed are decoded: the thousand of the highest objectness,
//! out of up to a quarter of a million.

use super::{
    anchors::{self, PER_CELL},
    boxes::{Box4, batched_nms, clip, is_large},
};

/// Boxes of a level that may be proposed, and proposals a picture.
const TOP: usize = 1000;
/// Two proposals of a level overlap no more than this.
const OVERLAP: f64 = 0.7;
/// Sides of a proposal, in pixels of the input.
const LEAST_SIDE: f32 = 1e-3;

/// One level of the pyramid, as the network saw one picture.
#[derive(Debug, Clone, Copy)]
pub struct Level<'a> {
    /// `[PER_CELL, height, width]`
    pub objectness: &'a [f32],
    /// `[PER_CELL * 4, height, width]`
    pub deltas: &'a [f32],
    /// `(height, width)` of the maps.
    pub size: (usize, usize),
}

/// The proposals for a picture, the best first.
///
/// `size` is the picture's in the input, `padded` the input's, both `(height, width)`.
#[must_use]
pub fn propose(levels: &[Level<'_>], size: (u32, u32), padded: (u32, u32)) -> Vec<Box4> {
    let (mut boxes, mut scores, mut groups) = (Vec::new(), Vec::new(), Vec::new());
    for (index, (level, side)) in levels.iter().zip(anchors::SIDES).enumerate() {
        for (objectness, proposal) in best(level, side, padded) {
            let proposal = clip(proposal, size);
            if is_large(proposal, LEAST_SIDE) {
                boxes.push(proposal);
                scores.push(1.0 / (1.0 + (-objectness).exp()));
                groups.push(index as u32);
            }
        }
    }
    batched_nms(&boxes, &scores, &groups, OVERLAP).into_iter().take(TOP).map(|index| boxes[index]).collect()
}

/// The boxes of the highest objectness of a level, with it.
fn best(level: &Level<'_>, side: f32, padded: (u32, u32)) -> Vec<(f32, Box4)> {
    let (height, width) = level.size;
    let places = height * width;
    let stride = (padded.0 as usize / height.max(1), padded.1 as usize / width.max(1));
    let cell = anchors::cell(side);
    // torchvision's number of an anchor: place by place, and there anchor by anchor; the maps are the other way round.
    let objectness = |number: usize| level.objectness[number % PER_CELL * places + number / PER_CELL];
    let descending = |a: &usize, b: &usize| objectness(*b).total_cmp(&objectness(*a)).then(a.cmp(b));
    let mut numbers: Vec<usize> = (0..places * PER_CELL).collect();
    if numbers.len() > TOP {
        numbers.select_nth_unstable_by(TOP - 1, descending);
        numbers.truncate(TOP);
    }
    numbers.sort_unstable_by(descending);
    let proposal = |number: usize| {
        let (place, a) = (number / PER_CELL, number % PER_CELL);
        let deltas = std::array::from_fn(|i| level.deltas[(4 * a + i) * places + place]);
        let anchor = anchors::at(&cell, a, (place / width, place % width), stride);
        (objectness(number), anchors::decode(anchor, deltas, [1.0; 4]))
    };
    numbers.into_iter().map(proposal).collect()
}

/// The pyramid's level that a region is pooled from, 0 to 3: torchvision's `LevelMapper` (equation 1 of the FPN paper).
#[must_use]
pub fn level_of(proposal: Box4) -> usize {
    let side = super::boxes::area(proposal).sqrt();
    let level = (4.0 + (side / 224.0).log2() + 1e-6).floor();
    // A NaN casts to 0 as well: no box is without a level.
    (level.clamp(2.0, 5.0) as usize).saturating_sub(2).min(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_those_of_the_paper() {
        let square = |side: f32| level_of([0.0, 0.0, side, side]);
        assert_eq!([10.0, 111.0, 112.0, 223.0, 224.0, 448.0, 2000.0].map(square), [0, 0, 1, 1, 2, 3, 3]);
        assert_eq!(level_of([0.0; 4]), 0);
    }

    #[test]
    fn the_best_anchors_become_proposals_inside_the_picture() {
        // One level of 2x2 places, 32 pixels apart; still anchors. The middle anchor (a square of 32) of the place (1, 1) is best.
        let mut objectness = [-5.0; 12];
        objectness[4 + 3] = 5.0;
        objectness[8] = 1.0;
        let level = Level { objectness: &objectness, deltas: &[0.0; 48], size: (2, 2) };
        let proposals = propose(&[level], (40, 64), (64, 64));
        assert_eq!(proposals[0], [16.0, 16.0, 48.0, 40.0], "clipped to a picture of 40x64");
        assert_eq!(proposals[1], [0.0, 0.0, 11.0, 23.0], "the tall one of the place (0, 0)");
    }
}
