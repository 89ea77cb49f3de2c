//! 1x1 convolutions, with a normalisation before them where there is one.
//!
//! Must not know graphs. Some dozens of pixels with all their channels are first copied to where they lie together: read in
//! place, every sixteen channels are a jump of a whole plane. On the way they can be multiplied, shifted and cut at zero,
//! so that a DenseNet's BatchNorm and ReLU cost no pass over memory of their own.

use super::direct::Geometry;
use super::kernel::{BLOCK, Finish, Isa, Product, Target, multiply};
use super::pool::{SharedOutput, Workers};

/// Floats of copied pixels that stay in the second cache beside a panel of weights.
const COPIED: usize = 1 << 16;

/// A factor and an offset a channel, and then a cut at zero.
pub(super) struct Normal {
    pub factor: Vec<f32>,
    pub offset: Vec<f32>,
    pub relu: bool,
}

/// A 1x1 convolution's weights, packed.
pub(super) struct Pointwise {
    isa: Isa,
    geometry: Geometry,
    /// For each group of output channels: `[C, group]`.
    weights: Vec<f32>,
    before: Option<Normal>,
}

impl Pointwise {
    /// Packs weights `[O, C]` of a convolution without a border.
    pub fn new(isa: Isa, weights: &[f32], geometry: Geometry, before: Option<Normal>) -> Self {
        let Geometry { inputs, outputs, kernel, pads, .. } = geometry;
        assert!(weights.len() == outputs * inputs && kernel == [1, 1] && pads == [0; 4]);
        assert!(outputs.is_multiple_of(BLOCK) && inputs.is_multiple_of(BLOCK));
        assert!(before.as_ref().is_none_or(|b| b.factor.len() == inputs && b.offset.len() == inputs));
        let mut packed = Vec::with_capacity(weights.len());
        let mut start = 0;
        while start < outputs {
            let group = isa.group(outputs - start);
            for c in 0..inputs {
                packed.extend((start..start + group).map(|o| weights[o * inputs + c]));
            }
            start += group;
        }
        Self { isa, geometry, weights: packed, before }
    }

    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Convolves `x` `[N, C/16, H, W, 16]` into `out` `[N, O/16, OH, OW, 16]`.
    pub fn run(&self, x: &[f32], [n, h, w]: [usize; 3], finish: Finish<'_>, out: &mut [f32], workers: &Workers<'_>) {
        let Geometry { inputs, outputs, .. } = self.geometry;
        let size @ [oh, ow] = self.geometry.output(h, w);
        let area = oh * ow;
        assert!(x.len() == n * inputs * h * w && out.len() == n * outputs * area);
        assert!(finish.residual.is_none_or(|residual| residual.len() == out.len()));
        assert!(finish.bias.is_none_or(|bias| bias.len() == outputs));
        let most = (COPIED / inputs).clamp(28, 112);
        let pieces = area.div_ceil(most);
        let together = area.div_ceil(pieces);
        let out = SharedOutput::new(out);
        workers.each(n * pieces, &|piece, scratch| {
            let (image, piece) = (piece / pieces, piece % pieces);
            let pixels = piece * together..((piece + 1) * together).min(area);
            let copied = scratch.one(inputs * pixels.len());
            self.copy(&x[image * inputs * h * w..][..inputs * h * w], [h, w], size, pixels.clone(), copied);
            self.multiply(copied, image, area, pixels, finish, &out);
        });
    }

    /// Copies pixels of one image, the stride's, to `[C/16, pixels, 16]`.
    fn copy(&self, x: &[f32], [h, w]: [usize; 2], [_, ow]: [usize; 2], pixels: std::ops::Range<usize>, to: &mut [f32]) {
        let (stride, count) = (self.geometry.stride, pixels.len());
        for (block, to) in to.chunks_exact_mut(count * BLOCK).enumerate() {
            let plane = &x[block * h * w * BLOCK..][..h * w * BLOCK];
            if stride == 1 {
                to.copy_from_slice(&plane[pixels.start * BLOCK..pixels.end * BLOCK]);
            } else {
                for (pixel, to) in pixels.clone().zip(to.chunks_exact_mut(BLOCK)) {
                    let at = (pixel / ow * w + pixel % ow) * stride * BLOCK;
                    to.copy_from_slice(&plane[at..at + BLOCK]);
                }
            }
            if let Some(before) = &self.before {
                let channels = block * BLOCK..(block + 1) * BLOCK;
                normalise(to, &before.factor[channels.clone()], &before.offset[channels], before.relu);
            }
        }
    }

    fn multiply(
        &self,
        copied: &[f32],
        image: usize,
        area: usize,
        pixels: std::ops::Range<usize>,
        finish: Finish<'_>,
        out: &SharedOutput<'_>,
    ) {
        let Geometry { inputs, outputs, .. } = self.geometry;
        let count = pixels.len();
        let offsets: Vec<usize> = (0..inputs / BLOCK).map(|block| block * count * BLOCK).collect();
        let mut start = 0;
        while start < outputs {
            let group = self.isa.group(outputs - start);
            let product = Product {
                a: copied,
                offsets: &offsets,
                reach: *offsets.last().unwrap_or(&0),
                base: 0,
                step: BLOCK,
                b: &self.weights[start * inputs..(start + group) * inputs],
                group,
            };
            let bias = finish.bias.map(|bias| &bias[start..start + group]);
            let base = (image * outputs + start) * area + pixels.start * BLOCK;
            // SAFETY: these pixels of this image are this piece's alone.
            let mut target = unsafe { Target::shared(out, base, area * BLOCK) };
            multiply(self.isa, &product, count, Finish { bias, ..finish }, &mut target);
            start += group;
        }
    }
}

/// `x * factor + offset` for pixels of sixteen channels, in place.
fn normalise(x: &mut [f32], factor: &[f32], offset: &[f32], relu: bool) {
    // SAFETY: every `Isa` that a kernel is made with has AVX2.
    unsafe { normalise_wide(x, factor, offset, relu) }
}

#[target_feature(enable = "avx2")]
fn normalise_wide(x: &mut [f32], factor: &[f32], offset: &[f32], relu: bool) {
    let least = if relu { 0.0 } else { f32::NEG_INFINITY };
    let (factor, offset) = (&factor.as_chunks::<BLOCK>().0[0], &offset.as_chunks::<BLOCK>().0[0]);
    for pixel in x.as_chunks_mut::<BLOCK>().0 {
        for c in 0..BLOCK {
            pixel[c] = (pixel[c] * factor[c] + offset[c]).max(least);
        }
    }
}
