//! Which part of a decoded picture becomes one input of the encoder: the centre, a mirror, a corner, a tile, a random crop.
//!
//! It must not know recipes or columns: a [`View`] is one input, resolved; what a recipe writes is in [`super::variants`].
//! The random crop is a pure function of the file's bytes, the seed and the crop's number, not of a row's id or place: the
//! same picture gives the same crops in a cache, in another cache, and when it is captioned from a file of another name.

use std::fmt;

use super::preprocess::{Anchor, Axis, Preprocess};

/// One input of the encoder, made of a decoded picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum View {
    /// The ordinary preprocessing: resize, then the crop from the centre.
    Center,
    /// `Center`, mirrored left to right.
    Hflip,
    /// A corner of torchvision's `FiveCrop`: resize, then the crop from that corner.
    Corner {
        /// Along the lower edge, not the upper.
        bottom: bool,
        /// Along the right edge, not the left.
        right: bool,
    },
    /// The whole picture squeezed to the encoder's input, whatever its proportions.
    Whole,
    /// One part of the picture cut in `rows` x `columns`, squeezed to the encoder's input.
    Tile {
        /// Which part, from the top.
        row: u32,
        /// Which part, from the left.
        column: u32,
        /// Parts from top to bottom.
        rows: u32,
        /// Parts from left to right.
        columns: u32,
    },
    /// A crop by torchvision's `RandomResizedCrop` (8% to 100% of the area, proportions 3:4 to 4:3).
    Random {
        /// The number of the crop.
        index: u32,
        /// The recipe's seed.
        seed: u64,
    },
}

impl fmt::Display for View {
    /// The form that goes into a column's key: it never changes its meaning.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Center => out.write_str("center"),
            Self::Hflip => out.write_str("hflip"),
            Self::Corner { bottom, right } => {
                let (vertical, horizontal) =
                    (if *bottom { "bottom" } else { "top" }, if *right { "right" } else { "left" });
                write!(out, "{vertical}-{horizontal}")
            }
            Self::Whole => out.write_str("whole"),
            Self::Tile { row, column, rows, columns } => write!(out, "tile:{row},{column}/{rows}x{columns}"),
            Self::Random { index, seed } => write!(out, "random:{index}/{seed}"),
        }
    }
}

impl View {
    /// Whether the pixels are mirrored in the end.
    pub(super) fn is_mirrored(self) -> bool {
        self == Self::Hflip
    }

    /// Where the output comes from, for the picture of `(height, width)` in the file `bytes`: one [`Axis`] each.
    pub(super) fn axes(self, pre: &Preprocess, (height, width): (u32, u32), bytes: &[u8]) -> (Axis, Axis) {
        let (out_height, out_width) = pre.output_size();
        let squeezed = |(top, tall): (u32, u32), (left, wide): (u32, u32)| {
            (Axis::squeezed(top, tall, out_height), Axis::squeezed(left, wide, out_width))
        };
        let anchor = |end: bool| if end { Anchor::End } else { Anchor::Start };
        match self {
            Self::Center | Self::Hflip => pre.plan((height, width), Anchor::Centre, Anchor::Centre),
            Self::Corner { bottom, right } => pre.plan((height, width), anchor(bottom), anchor(right)),
            Self::Whole => squeezed((0, height), (0, width)),
            Self::Tile { row, column, rows, columns } => {
                squeezed(part(row, rows, height), part(column, columns, width))
            }
            Self::Random { index, seed } => {
                let [vertical, horizontal] = random_crop(&mut Draws::new(bytes, seed, index), height, width);
                squeezed(vertical, horizontal)
            }
        }
    }
}

/// `(start, length)` of part `at` of `parts` along a side: from `floor(at * side / parts)` to where the next one starts, and
/// one pixel at least.
fn part(at: u32, parts: u32, side: u32) -> (u32, u32) {
    let start = |at: u32| (u64::from(at) * u64::from(side) / u64::from(parts)) as u32;
    (start(at), (start(at + 1) - start(at)).max(1))
}

const AREA: (f64, f64) = (0.08, 1.0);
const PROPORTIONS: (f64, f64) = (3.0 / 4.0, 4.0 / 3.0);

/// torchvision's `RandomResizedCrop.get_params` on our own draws: `(start, length)` down and across.
fn random_crop(draws: &mut Draws, height: u32, width: u32) -> [(u32, u32); 2] {
    let area = f64::from(height) * f64::from(width);
    for _ in 0..10 {
        let target = area * draws.between(AREA.0, AREA.1);
        let proportion = draws.between(PROPORTIONS.0.ln(), PROPORTIONS.1.ln()).exp();
        let wide = (target * proportion).sqrt().round_ties_even();
        let tall = (target / proportion).sqrt().round_ties_even();
        if (1.0..=f64::from(width)).contains(&wide) && (1.0..=f64::from(height)).contains(&tall) {
            let (wide, tall) = (wide as u32, tall as u32);
            return [(draws.below(height - tall + 1), tall), (draws.below(width - wide + 1), wide)];
        }
    }
    // A picture of such proportions that no crop fitted: the largest one in its middle.
    let proportion = f64::from(width) / f64::from(height);
    let side = |exact: f64, most: u32| (exact.round_ties_even() as u32).clamp(1, most);
    let (tall, wide) = if proportion < PROPORTIONS.0 {
        (side(f64::from(width) / PROPORTIONS.0, height), width)
    } else if proportion > PROPORTIONS.1 {
        (height, side(f64::from(height) * PROPORTIONS.1, width))
    } else {
        (height, width)
    };
    [((height - tall) / 2, tall), ((width - wide) / 2, wide)]
}

/// The random numbers of one crop.
struct Draws(blake3::OutputReader);

impl Draws {
    fn new(bytes: &[u8], seed: u64, index: u32) -> Self {
        let content = icecap_cache::content_hash(bytes);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&content).update(&seed.to_le_bytes()).update(&index.to_le_bytes());
        Self(hasher.finalize_xof())
    }

    fn next(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Uniform in `[low, high)`, of 53 bits.
    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in `0..end`, `end` at least 1; a bias of 2^-32 at most.
    fn below(&mut self, end: u32) -> u32 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_key_form_of_a_view_never_changes() {
        let views = [
            View::Center,
            View::Hflip,
            View::Corner { bottom: false, right: true },
            View::Whole,
            View::Tile { row: 1, column: 0, rows: 2, columns: 3 },
            View::Random { index: 4, seed: 17 },
        ];
        let shown = views.map(|view| view.to_string()).join(" ");
        insta::assert_snapshot!(shown, @"center hflip top-right whole tile:1,0/2x3 random:4/17");
    }

    #[test]
    fn parts_cover_a_side_once() {
        for (side, parts) in [(10, 3), (7, 7), (500, 2), (5, 1), (65_535, 16)] {
            let all: Vec<u32> = (0..parts)
                .flat_map(|at| {
                    let (start, length) = part(at, parts, side);
                    start..start + length
                })
                .collect();
            assert_eq!(all, (0..side).collect::<Vec<_>>(), "{parts} parts of {side}");
        }
        assert_eq!([0, 1, 2].map(|at| part(at, 3, 2)), [(0, 1), (0, 1), (1, 1)], "fewer pixels than parts");
    }

    #[test]
    fn a_random_crop_depends_on_bytes_seed_and_number_alone() {
        let crop = |bytes: &[u8], seed, index| random_crop(&mut Draws::new(bytes, seed, index), 300, 400);
        assert_eq!(crop(b"a", 1, 2), crop(b"a", 1, 2));
        assert_eq!(crop(b"a", 1, 2), [(96, 191), (128, 199)], "these very numbers, on every machine and for ever");
        for other in [crop(b"b", 1, 2), crop(b"a", 2, 2), crop(b"a", 1, 3)] {
            assert_ne!(crop(b"a", 1, 2), other);
        }
    }

    #[test]
    fn random_crops_have_torchvisions_areas_and_proportions() {
        let mut areas = Vec::new();
        for index in 0..2000 {
            let [(_, tall), (_, wide)] = random_crop(&mut Draws::new(b"picture", 0, index), 480, 640);
            areas.push(f64::from(tall) * f64::from(wide) / (480.0 * 640.0));
            let proportion = f64::from(wide) / f64::from(tall);
            assert!((0.74..1.35).contains(&proportion), "{wide}x{tall}");
        }
        // torchvision gives 0.4346 on average, over 20,000 crops of 480x640: the largest ones fit in few proportions only.
        let mean = areas.iter().sum::<f64>() / areas.len() as f64;
        assert!((0.42..0.45).contains(&mean), "{mean}");
        assert!(areas.iter().all(|area| (0.078..=1.0).contains(area)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn every_view_stays_inside_the_picture(
            height in 1u32..5000, width in 1u32..5000, seed: u64, index in 0u32..8, rows in 1u32..17, columns in 1u32..17,
        ) {
            let pre = Preprocess::default();
            let corner = |bottom, right| View::Corner { bottom, right };
            let tiles = [(0, 0), (rows - 1, columns - 1), (rows / 2, columns / 2)];
            let tiles = tiles.map(|(row, column)| View::Tile { row, column, rows, columns });
            let rest = [View::Center, View::Whole, View::Random { index, seed }, corner(false, true), corner(true, false)];
            for view in tiles.into_iter().chain(rest) {
                let (down, across) = view.axes(&pre, (height, width), b"bytes");
                for (axis, side) in [(down, height), (across, width)] {
                    prop_assert!(axis.source >= 1 && axis.offset + axis.source <= side, "{view}: {axis:?} of {side}");
                    prop_assert!(axis.from + u64::from(axis.shown) <= axis.resized && axis.at + axis.shown <= 224);
                }
            }
        }
    }
}
