//! 3x3 convolutions of stride 1 by Winograd's F(4x4, 3x3): 36 products for 16 pixels where the direct way takes 144.
//!
//! Must not know graphs. From Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015), section 4.3:
//! `Y = A' [(G g G') * (B' d B)] A` for each tile of 6x6 inputs and 4x4 outputs, summed over channels as 36 matrix products.
//! In `f32` it agrees with the direct sum to about 1e-5 of the largest value, far inside of what a row in f16 keeps. A pixel's value
//! depends on its own tile alone: threads and batches change nothing.
//!
//! Legend: `N` images, `C` input and `O` output channels in blocks of 16, `T` tiles taken together.

use super::kernel::{BLOCK, Finish, Isa, Product, Target, multiply};
use super::pool::{Scratch, SharedOutput, Workers};
use super::transform::{POSITIONS, Shape, input_transform, output_transform, transform_weights};

/// A 3x3 convolution's weights, transformed.
pub(super) struct Winograd {
    isa: Isa,
    inputs: usize,
    outputs: usize,
    /// For each position, for each group of output channels: `[C, group]`.
    weights: Vec<f32>,
}

impl Winograd {
    /// Transforms weights `[O, C, 3, 3]`.
    pub fn new(isa: Isa, weights: &[f32], outputs: usize, inputs: usize) -> Self {
        assert!(weights.len() == outputs * inputs * 9 && outputs.is_multiple_of(BLOCK) && inputs.is_multiple_of(BLOCK));
        let mut transformed = vec![0.0; POSITIONS * outputs * inputs];
        let mut start = 0;
        while start < outputs {
            let group = isa.group(outputs - start);
            for o in 0..group {
                for c in 0..inputs {
                    let at = ((start + o) * inputs + c) * 9;
                    let u = transform_weights(&weights[at..at + 9]);
                    for (position, value) in u.into_iter().enumerate() {
                        transformed[position * outputs * inputs + start * inputs + c * group + o] = value;
                    }
                }
            }
            start += group;
        }
        Self { isa, inputs, outputs, weights: transformed }
    }

    /// Input channels.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Tiles taken together: enough that reading the weights once pays, few enough that what lies between stays in cache.
    fn tiles_together(&self, total: usize) -> usize {
        let most = (self.inputs.min(self.outputs) / 4).clamp(28, 112) / 28 * 28;
        let blocks = total.div_ceil(most);
        total.div_ceil(blocks)
    }

    /// Convolves `x` `[N, C/16, H, W, 16]` into `out` `[N, O/16, H, W, 16]`, with a border of one zero.
    pub fn run(&self, x: &[f32], [n, h, w]: [usize; 3], finish: Finish<'_>, out: &mut [f32], workers: &Workers<'_>) {
        assert!(x.len() == n * self.inputs * h * w && out.len() == n * self.outputs * h * w);
        assert!(finish.residual.is_none_or(|residual| residual.len() == out.len()));
        assert!(finish.bias.is_none_or(|bias| bias.len() == self.outputs));
        let shape = Shape::new([n, h, w]);
        let total = shape.tiles();
        let together = self.tiles_together(total);
        let out = SharedOutput::new(out);
        workers.each(total.div_ceil(together), &|block, scratch| {
            let tiles = block * together..((block + 1) * together).min(total);
            self.tiles(x, &shape, tiles, finish, &out, scratch);
        });
    }

    fn tiles(
        &self,
        x: &[f32],
        shape: &Shape,
        tiles: std::ops::Range<usize>,
        finish: Finish<'_>,
        out: &SharedOutput<'_>,
        scratch: &mut Scratch,
    ) {
        let count = tiles.len();
        // A line more than the data, so that the 36 planes do not fall on the same lines of the cache.
        let (v_plane, m_plane) = (count * self.inputs + BLOCK, count * self.outputs + BLOCK);
        let (v, m) = scratch.two(POSITIONS * v_plane, POSITIONS * m_plane);
        for block in 0..self.inputs / BLOCK {
            for (index, tile) in tiles.clone().enumerate() {
                let patch = shape.patch(tile, block, self.inputs / BLOCK);
                let to = (block * count + index) * BLOCK;
                input_transform(self.isa, x, &patch, &mut v[to..], v_plane);
            }
        }
        let offsets: Vec<usize> = (0..self.inputs / BLOCK).map(|block| block * count * BLOCK).collect();
        for position in 0..POSITIONS {
            let weights = &self.weights[position * self.inputs * self.outputs..][..self.inputs * self.outputs];
            let mut start = 0;
            while start < self.outputs {
                let group = self.isa.group(self.outputs - start);
                let product = Product {
                    a: v,
                    offsets: &offsets,
                    reach: *offsets.last().unwrap_or(&0),
                    base: position * v_plane,
                    step: BLOCK,
                    b: &weights[start * self.inputs..(start + group) * self.inputs],
                    group,
                };
                let base = position * m_plane + start * count;
                let mut target = Target::new(m, base, count * BLOCK);
                multiply(self.isa, &product, count, Finish::default(), &mut target);
                start += group;
            }
        }
        for block in 0..self.outputs / BLOCK {
            let bias = finish.bias.map(|bias| &bias[block * BLOCK..][..BLOCK]);
            for (index, tile) in tiles.clone().enumerate() {
                let patch = shape.patch(tile, block, self.outputs / BLOCK);
                let from = (block * count + index) * BLOCK;
                output_transform(self.isa, &m[from..], m_plane, &patch, Finish { bias, ..finish }, out);
            }
        }
    }
}
