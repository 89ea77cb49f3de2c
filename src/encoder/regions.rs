//! RoIAlign in the graph: the mean of each region of a map, as one matrix product.
//!
//! Must not know detectors or recipes: boxes come in pixels of the encoder's input. RoIAlign followed by the mean over its cells is linear
//! in the map, and the share of a place in a region is a product of a number for its row and one for its column, because the samples are a
//! regular grid. So the weights `[K, H*W]` are made here, a few thousand additions a picture, and the graph holds `[N, K, H*W] x
//! [N, H*W, C]`.
//!
//! The decision defended: not the operator `RoiAlign`. It is no part of operator sets before 10 and knows `aligned` from 16 on only, where
//! most files are older; it would make K*49 vectors to average them at once; and a region that isn't there needs no mask: its weights
//! are zero. The numbers are those of `torchvision.ops.roi_align(map, boxes, cells, scale, sampling_ratio=2, aligned=True).mean((2, 3))`.

use ort::memory::Allocator;
use ort::session::IoBinding;
use ort::value::Tensor;

use super::EncoderError;
use super::build::{Builder, integer_list, value_info};
use super::onnx::ValueInfoProto;
use super::onnx::tensor_proto::DataType;
use super::plan::{Pool, Tap};

/// Cells a side where a tap doesn't say.
const CELLS: u32 = 7;

/// Samples a side of each cell: torchvision's `sampling_ratio`.
const SAMPLES: usize = 2;

/// How regions are pooled, for a column's key.
pub(super) const METHOD: &str = "roi-align aligned 2, mean";

/// The input that holds the weights of the regions of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RegionInput {
    pub name: String,
    /// `K`
    pub count: usize,
    /// Height and width of the map.
    pub map: [usize; 2],
    /// Cells a side.
    pub cells: usize,
}

/// Adds the product of weights and map: `[N, C, H, W] -> [N, K, C]`. Nothing for a tensor that is no map, or a tap without regions.
pub(super) fn pool(
    builder: &mut Builder<'_>,
    tap: &Tap,
    x: &str,
    inner: &[usize],
    place: (usize, usize),
) -> Option<(String, RegionInput)> {
    let (Some(count), &[channels, height, width]) = (tap.regions, inner) else { return None };
    let name = format!("icecap.regions.{}.{}", place.0, place.1);
    let x = builder.node("Transpose", &[x], vec![integer_list("perm", &[0, 2, 3, 1])]);
    let shape = builder.integers(&[0, (height * width) as i64, channels as i64]);
    let x = builder.node("Reshape", &[&x, &shape], Vec::new());
    let rows = builder.node("MatMul", &[&name, &x], Vec::new());
    let cells = match tap.pool {
        Pool::Grid(k) => k as usize,
        Pool::None | Pool::Global | Pool::Flatten => CELLS as usize,
    };
    Some((rows, RegionInput { name, count, map: [height, width], cells }))
}

/// The pooling of a tap's regions as a key shows it.
pub(super) fn pool_of(tap: &Tap) -> Pool {
    match (tap.regions, tap.pool) {
        (Some(_), Pool::None | Pool::Global | Pool::Flatten) => Pool::Grid(CELLS),
        (_, pool) => pool,
    }
}

impl RegionInput {
    /// The graph's input.
    pub fn declare(&self, batch: usize) -> ValueInfoProto {
        value_info(&self.name, DataType::Float, &self.shape(batch))
    }

    fn shape(&self, batch: usize) -> [usize; 3] {
        [batch, self.count, self.map[0] * self.map[1]]
    }
}

/// The weights that a session holds for one column.
pub(super) struct RegionWeights {
    input: RegionInput,
    /// Height and width of the encoder's input, in pixels.
    picture: [usize; 2],
    weights: Tensor<f32>,
}

impl RegionWeights {
    pub fn new(input: RegionInput, batch: usize, picture: [usize; 2]) -> ort::Result<Self> {
        let weights = Tensor::new(&Allocator::default(), input.shape(batch))?;
        Ok(Self { input, picture, weights })
    }

    pub fn bind(&self, binding: &mut IoBinding) -> ort::Result<()> {
        binding.bind_input(self.input.name.as_str(), &self.weights)
    }

    /// Sets the regions of the picture `at` of the batch: boxes in pixels of the encoder's input, K at most.
    pub fn set(&mut self, at: usize, boxes: &[[f32; 4]]) -> Result<(), EncoderError> {
        let RegionInput { count, map, cells, .. } = self.input;
        if boxes.len() > count {
            let what = "regions of a picture".to_owned();
            return Err(EncoderError::Buffer { what, expected: count, found: boxes.len() });
        }
        let area = map[0] * map[1];
        let weights = &mut self.weights.extract_tensor_mut().1[at * count * area..][..count * area];
        weights.fill(0.0);
        for (weights, b) in weights.chunks_exact_mut(area).zip(boxes) {
            let rows = shares([b[1], b[3]], self.picture[0], map[0], cells);
            let columns = shares([b[0], b[2]], self.picture[1], map[1], cells);
            for (weights, row) in weights.chunks_exact_mut(map[1]).zip(&rows).filter(|(_, row)| **row != 0.0) {
                weights.iter_mut().zip(&columns).for_each(|(weight, column)| *weight = row * column);
            }
        }
        Ok(())
    }
}

/// The share of each of `places` in the stretch `from..to` of an axis of `pixels`: the mean over samples in its `cells`.
fn shares([from, to]: [f32; 2], pixels: usize, places: usize, cells: usize) -> Vec<f32> {
    let scale = places as f32 / pixels as f32;
    let (start, length) = (from * scale - 0.5, (to - from) * scale);
    let samples = cells * SAMPLES;
    let mut shares = vec![0.0; places];
    for sample in 0..samples {
        let at = start + length * (sample as f32 + 0.5) / samples as f32;
        // As torchvision's `bilinear_interpolate`: a sample far outside counts for nothing, one at the edge for the edge.
        if !(-1.0..=places as f32).contains(&at) {
            continue;
        }
        let at = at.max(0.0);
        let low = (at as usize).min(places - 1);
        let high = (low + 1).min(places - 1);
        let share = if low == places - 1 { 0.0 } else { at - low as f32 };
        shares[low] += (1.0 - share) / samples as f32;
        shares[high] += share / samples as f32;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_those_of_roi_align() {
        // torchvision.ops.roi_align(row, [[0, 0, x1, 0, x2, 1]], (1, 7), places / pixels, 2, aligned=True).mean() of the unit vectors
        let close = |found: Vec<f32>, torch: &[f32]| {
            assert!(found.iter().zip(torch).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?}");
        };
        close(shares([0.0, 28.0], 28, 4, 7), &[0.25; 4]);
        close(shares([7.0, 14.0], 28, 4, 7), &[0.125, 0.75, 0.125, 0.0]);
        close(shares([0.0, 3.5], 28, 4, 7), &[1.0, 0.0, 0.0, 0.0]);
        close(shares([20.0, 28.0], 28, 4, 7), &[0.0, 0.0, 0.180_757_97, 0.819_242_1]);
        close(shares([100.0, 101.0], 28, 4, 7), &[0.0; 4]);
    }

    #[test]
    fn inside_a_map_the_shares_are_one() {
        for (from, to) in [(0.0, 1.0), (3.0, 200.0), (223.0, 224.0), (0.0, 224.0)] {
            let sum: f32 = shares([from, to], 224, 7, 7).iter().sum();
            assert!((sum - 1.0).abs() < 1e-5, "{from}..{to}: {sum}");
        }
    }
}
