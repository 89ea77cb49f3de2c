//! Between ONNX's layout `[N, C, H, W]` and the blocked one `[N, C/16, H, W, 16]`, and what else runs over blocks of sixteen
//! channels: pooling, and a factor and an offset a channel.
//!
//! Must not know graphs. Sixteen channels of a pixel are one line of the cache and one or two registers.

use super::kernel::BLOCK;

/// A block of channels of one pixel.
type Pixel = [f32; BLOCK];

fn pixels(floats: &[f32]) -> &[Pixel] {
    floats.as_chunks().0
}

fn pixels_mut(floats: &mut [f32]) -> &mut [Pixel] {
    floats.as_chunks_mut().0
}

/// `[N, C, area]` to `[N, C/16, area, 16]`.
pub(super) fn to_blocked(x: &[f32], area: usize, out: &mut [f32]) {
    for (x, out) in x.chunks_exact(BLOCK * area).zip(out.chunks_exact_mut(BLOCK * area)) {
        for (position, pixel) in pixels_mut(out).iter_mut().enumerate() {
            for (channel, value) in pixel.iter_mut().enumerate() {
                *value = x[channel * area + position];
            }
        }
    }
}

/// `[N, C/16, area, 16]` to `[N, C, area]`.
pub(super) fn from_blocked(x: &[f32], area: usize, out: &mut [f32]) {
    for (x, out) in x.chunks_exact(BLOCK * area).zip(out.chunks_exact_mut(BLOCK * area)) {
        for (channel, plane) in out.chunks_exact_mut(area).enumerate() {
            for (value, pixel) in plane.iter_mut().zip(pixels(x)) {
                *value = pixel[channel];
            }
        }
    }
}

/// `[N, C/16, area, 16]` to `[N, area, C]`.
pub(super) fn to_channels_last(x: &[f32], channels: usize, area: usize, out: &mut [f32]) {
    for (x, out) in x.chunks_exact(channels * area).zip(out.chunks_exact_mut(channels * area)) {
        for (block, plane) in pixels(x).chunks_exact(area).enumerate() {
            for (pixel, row) in plane.iter().zip(out.chunks_exact_mut(channels)) {
                row[block * BLOCK..][..BLOCK].copy_from_slice(pixel);
            }
        }
    }
}

/// `x * factor[c] + offset[c]`, negative values made zero where `relu`, for each image `[C/16, area, 16]`.
pub(super) fn affine(x: &[f32], factor: &[f32], offset: &[f32], relu: bool, area: usize, out: &mut [f32]) {
    let channels = factor.len();
    let least = if relu { 0.0 } else { f32::NEG_INFINITY };
    for (x, out) in x.chunks_exact(channels * area).zip(out.chunks_exact_mut(channels * area)) {
        let planes = pixels(x).chunks_exact(area).zip(pixels_mut(out).chunks_exact_mut(area));
        for ((x, out), (factor, offset)) in planes.zip(pixels(factor).iter().zip(pixels(offset))) {
            for (x, out) in x.iter().zip(out) {
                for c in 0..BLOCK {
                    out[c] = (x[c] * factor[c] + offset[c]).max(least);
                }
            }
        }
    }
}

/// How a window of pixels becomes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub kernel: [usize; 2],
    pub strides: [usize; 2],
    /// Above, left, below, right.
    pub pads: [usize; 4],
    /// The largest value, else the mean.
    pub largest: bool,
    /// Whether the mean counts the border.
    pub count_border: bool,
}

impl Window {
    /// Height and width of the output.
    pub fn output(&self, h: usize, w: usize) -> [usize; 2] {
        let [above, left, below, right] = self.pads;
        let size = |padded: usize, i: usize| {
            if padded < self.kernel[i] { 0 } else { (padded - self.kernel[i]) / self.strides[i] + 1 }
        };
        [size(h + above + below, 0), size(w + left + right, 1)]
    }

    /// Pools planes `[H, W, 16]`, as many as there are.
    pub fn run(&self, x: &[f32], [h, w]: [usize; 2], out: &mut [f32]) {
        let [oh, ow] = self.output(h, w);
        for (x, out) in pixels(x).chunks_exact(h * w).zip(pixels_mut(out).chunks_exact_mut(oh * ow)) {
            for (index, out) in out.iter_mut().enumerate() {
                *out = self.pixel(x, [h, w], [index / ow, index % ow]);
            }
        }
    }

    fn pixel(&self, x: &[Pixel], [h, w]: [usize; 2], [oy, ox]: [usize; 2]) -> Pixel {
        let range = |at: usize, i: usize, size: usize| {
            let start = at * self.strides[i];
            start.saturating_sub(self.pads[i])..(start + self.kernel[i]).saturating_sub(self.pads[i]).min(size)
        };
        let (ys, xs) = (range(oy, 0, h), range(ox, 1, w));
        let count = if self.count_border { self.kernel[0] * self.kernel[1] } else { ys.len() * xs.len() };
        let mut all = [if self.largest { f32::NEG_INFINITY } else { 0.0 }; BLOCK];
        for y in ys {
            for pixel in &x[y * w + xs.start..y * w + xs.end] {
                for c in 0..BLOCK {
                    all[c] = if self.largest { all[c].max(pixel[c]) } else { all[c] + pixel[c] };
                }
            }
        }
        if !self.largest {
            let count = count as f32;
            all.iter_mut().for_each(|value| *value /= count);
        }
        all
    }
}
