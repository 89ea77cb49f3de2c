//! Convolutions of any kernel, stride 1 or 2, by the sum itself: strided 3x3, 1x7, and what Winograd does not take.
//!
//! Must not know graphs. The kernel reads sixteen channels of a pixel at a time wherever they lie, so a convolution without
//! a border is multiplied in place; one with a border is first copied into a frame of zeros, a few images at a time, so
//! that a panel of weights read once serves them all.

use super::kernel::{BLOCK, Finish, Isa, Product, Target, multiply};
use super::pool::{Scratch, SharedOutput, Workers};

/// Products summed at a time, about: so many rows of a panel of weights stay in the first cache while all pixels pass.
const DEPTH: usize = 320;
/// Images that share a reading of the weights.
const TOGETHER: usize = 4;

/// Geometry of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    pub inputs: usize,
    pub outputs: usize,
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// 1 or 2, both ways.
    pub stride: usize,
    /// Zeros added above, left, below, right.
    pub pads: [usize; 4],
}

impl Geometry {
    /// Input and output channels, and the output's height and width.
    pub fn sizes(&self, h: usize, w: usize) -> (usize, usize, [usize; 2]) {
        (self.inputs, self.outputs, self.output(h, w))
    }

    /// Height and width of the output.
    pub fn output(&self, h: usize, w: usize) -> [usize; 2] {
        let [above, left, below, right] = self.pads;
        let size = |padded: usize, kernel: usize| if padded < kernel { 0 } else { (padded - kernel) / self.stride + 1 };
        [size(h + above + below, self.kernel[0]), size(w + left + right, self.kernel[1])]
    }
}

/// A convolution's weights, packed.
pub(super) struct Direct {
    isa: Isa,
    geometry: Geometry,
    /// For each group of output channels: `[C/16, kernel height, kernel width, 16, group]`.
    weights: Vec<f32>,
}

impl Direct {
    /// Packs weights `[O, C, kernel height, kernel width]`.
    pub fn new(isa: Isa, weights: &[f32], geometry: Geometry) -> Self {
        let Geometry { inputs, outputs, kernel: [kh, kw], stride, .. } = geometry;
        assert!(weights.len() == outputs * inputs * kh * kw && matches!(stride, 1 | 2));
        assert!(outputs % BLOCK == 0 && inputs % BLOCK == 0);
        let mut packed = Vec::with_capacity(weights.len());
        let mut start = 0;
        while start < outputs {
            let group = isa.group(outputs - start);
            for block in 0..inputs / BLOCK {
                for (position, c) in (0..kh * kw * BLOCK).map(|i| (i / BLOCK, block * BLOCK + i % BLOCK)) {
                    packed.extend((start..start + group).map(|o| weights[(o * inputs + c) * kh * kw + position]));
                }
            }
            start += group;
        }
        Self { isa, geometry, weights: packed }
    }

    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Convolves `x` `[N, C/16, H, W, 16]` into `out` `[N, O/16, OH, OW, 16]`.
    pub fn run(&self, x: &[f32], [n, h, w]: [usize; 3], finish: Finish<'_>, out: &mut [f32], workers: &Workers<'_>) {
        let Geometry { inputs, outputs, pads, .. } = self.geometry;
        let [oh, ow] = self.geometry.output(h, w);
        assert!(x.len() == n * inputs * h * w && out.len() == n * outputs * oh * ow);
        assert!(finish.residual.is_none_or(|residual| residual.len() == out.len()));
        assert!(finish.bias.is_none_or(|bias| bias.len() == outputs));
        let [above, left, below, right] = pads;
        let frame = Frame { h: h + above + below, w: w + left + right };
        let (input, output) = (inputs * h * w, outputs * oh * ow);
        let out = SharedOutput::new(out);
        workers.each(n.div_ceil(TOGETHER), &|piece, scratch| {
            let images = piece * TOGETHER..((piece + 1) * TOGETHER).min(n);
            let x = &x[images.start * input..images.end * input];
            let x = if pads == [0; 4] { x } else { self.framed(x, [images.len(), h, w], &frame, scratch) };
            // SAFETY: pieces are disjoint runs of images.
            let out = unsafe { out.range(images.start * output, images.len() * output) };
            let finish = Finish {
                residual: finish.residual.map(|all| &all[images.start * output..images.end * output]),
                ..finish
            };
            self.images(x, images.len(), &frame, [oh, ow], finish, out);
        });
    }

    /// Copies images into frames of zeros.
    fn framed<'s>(&self, x: &[f32], [n, h, w]: [usize; 3], frame: &Frame, scratch: &'s mut Scratch) -> &'s [f32] {
        let [above, left, ..] = self.geometry.pads;
        let to = scratch.one(n * self.geometry.inputs * frame.h * frame.w);
        to.fill(0.0);
        let planes = x.chunks_exact(h * w * BLOCK).zip(to.chunks_exact_mut(frame.h * frame.w * BLOCK));
        for (from, to) in planes {
            let rows = to.chunks_exact_mut(frame.w * BLOCK).skip(above);
            for (from, to) in from.chunks_exact(w * BLOCK).zip(rows) {
                to[left * BLOCK..][..w * BLOCK].copy_from_slice(from);
            }
        }
        to
    }

    fn images(&self, x: &[f32], n: usize, frame: &Frame, [oh, ow]: [usize; 2], finish: Finish<'_>, out: &mut [f32]) {
        let Geometry { inputs, outputs, kernel: [kh, kw], stride, .. } = self.geometry;
        let plane = frame.h * frame.w * BLOCK;
        let blocks = inputs / BLOCK;
        let together = (DEPTH / (kh * kw * BLOCK)).clamp(1, blocks);
        let parts = blocks.div_ceil(together);
        let at = |ky: usize, kx: usize, block: usize| (ky * frame.w + kx) * BLOCK + block * plane;
        let offsets: Vec<usize> =
            (0..blocks * kh * kw).map(|i| at(i % (kh * kw) / kw, i % kw, i / (kh * kw))).collect();
        let mut start = 0;
        while start < outputs {
            let group = self.isa.group(outputs - start);
            let b = &self.weights[start * inputs * kh * kw..(start + group) * inputs * kh * kw];
            let bias = finish.bias.map(|bias| &bias[start..start + group]);
            for (image, part) in (0..n * parts).map(|i| (i / parts, i % parts)) {
                let range = part * together * kh * kw..((part + 1) * together).min(blocks) * kh * kw;
                let offsets = &offsets[range.clone()];
                let reach = offsets.iter().copied().max().unwrap_or(0);
                let b = &b[range.start * BLOCK * group..range.end * BLOCK * group];
                for y in 0..oh {
                    let base = image * blocks * plane + y * stride * frame.w * BLOCK;
                    let product = Product { a: x, offsets, reach, base, step: stride * BLOCK, b, group };
                    let base = (image * outputs + start) * oh * ow + y * ow * BLOCK;
                    let mut target = Target::new(out, base, oh * ow * BLOCK);
                    multiply(self.isa, &product, ow, finish.part(part, parts, bias), &mut target);
                }
            }
            start += group;
        }
    }
}

/// Size of a picture with its border.
struct Frame {
    h: usize,
    w: usize,
}
