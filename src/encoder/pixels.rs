//! From pixels to the encoder's input on the CPU: bytes `[N, H, W, 3]` to `f32 [N, 3, H, W]`, normalised, in one pass.
//!
//! Must not know ONNX. A multiplication and an addition a pixel, never fused into one operation, so that every processor
//! gives the same bits; wider registers change the speed alone.

use super::input::Layout;
use super::plan::{Channels, Normalize};

/// What happens to a pixel, resolved once a session.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Affine {
    factor: [f32; 3],
    offset: [f32; 3],
    /// Which channel of the picture goes to each channel of the encoder.
    source: [usize; 3],
    layout: Layout,
}

impl Affine {
    pub fn new(normalize: &Normalize, layout: Layout) -> Self {
        let (factor, offset) = normalize.affine();
        let source = match normalize.channels {
            Channels::Rgb => [0, 1, 2],
            Channels::Bgr => [2, 1, 0],
        };
        Self { factor, offset, source, layout }
    }

    /// Writes `pixels` `[N, H, W, 3]` to `out` in the encoder's layout; `area` is `H * W`.
    pub fn apply(&self, pixels: &[u8], area: usize, out: &mut [f32]) {
        let images = pixels.chunks_exact(3 * area).zip(out.chunks_exact_mut(3 * area));
        match self.layout {
            Layout::Nchw => images.for_each(|(from, to)| self.planes(from, to, area)),
            Layout::Nhwc => images.for_each(|(from, to)| self.interleaved(from, to)),
        }
    }

    fn planes(&self, from: &[u8], to: &mut [f32], area: usize) {
        let (first, rest) = to.split_at_mut(area);
        let (second, third) = rest.split_at_mut(area);
        // The planes in the order of the picture's channels.
        let mut planes = [Some(first), Some(second), Some(third)];
        let mut plane = |channel: usize| {
            let target = self.source.iter().position(|&source| source == channel).unwrap_or(channel);
            (planes[target].take().unwrap_or_default(), self.factor[target], self.offset[target])
        };
        let planes = [plane(0), plane(1), plane(2)];
        split(from, planes);
    }

    fn interleaved(&self, from: &[u8], to: &mut [f32]) {
        for (from, to) in from.chunks_exact(3).zip(to.chunks_exact_mut(3)) {
            for c in 0..3 {
                to[c] = f32::from(from[self.source[c]]) * self.factor[c] + self.offset[c];
            }
        }
    }
}

/// A plane to fill, with its factor and offset.
type Plane<'a> = (&'a mut [f32], f32, f32);

fn split(from: &[u8], planes: [Plane<'_>; 3]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has just been asked.
        return unsafe { split_avx2(from, planes) };
    }
    split_any(from, planes);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn split_avx2(from: &[u8], planes: [Plane<'_>; 3]) {
    split_any(from, planes);
}

/// Pixels taken together: the compiler turns each of the three inner loops into wide instructions.
const BLOCK: usize = 64;

#[inline(always)]
fn split_any(from: &[u8], [r, g, b]: [Plane<'_>; 3]) {
    let mut bytes = [[0u8; BLOCK]; 3];
    let blocks =
        from.chunks(3 * BLOCK).zip(r.0.chunks_mut(BLOCK)).zip(g.0.chunks_mut(BLOCK)).zip(b.0.chunks_mut(BLOCK));
    for (((from, r_out), g_out), b_out) in blocks {
        for (index, pixel) in from.chunks_exact(3).enumerate() {
            bytes[0][index] = pixel[0];
            bytes[1][index] = pixel[1];
            bytes[2][index] = pixel[2];
        }
        widen(&bytes[0], r_out, r.1, r.2);
        widen(&bytes[1], g_out, g.1, g.2);
        widen(&bytes[2], b_out, b.1, b.2);
    }
}

#[inline(always)]
fn widen(from: &[u8; BLOCK], to: &mut [f32], factor: f32, offset: f32) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to = f32::from(from) * factor + offset;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reference(pixels: &[u8], area: usize, normalize: &Normalize) -> Vec<f32> {
        let (factor, offset) = normalize.affine();
        let mut out = vec![0.0; pixels.len()];
        for (index, &pixel) in pixels.iter().enumerate() {
            let (image, position, from) = (index / (3 * area), index / 3 % area, index % 3);
            let to = if normalize.channels == Channels::Bgr { 2 - from } else { from };
            out[image * 3 * area + to * area + position] = f32::from(pixel) * factor[to] + offset[to];
        }
        out
    }

    proptest! {
        #[test]
        fn every_size_gives_the_bits_of_the_plain_loop(images in 1usize..3, area in 1usize..300, seed in any::<u8>(), bgr in any::<bool>()) {
            let pixels: Vec<u8> = (0..images * area * 3).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect();
            let channels = if bgr { Channels::Bgr } else { Channels::Rgb };
            let normalize = Normalize { channels, ..Normalize::default() };
            let mut out = vec![f32::NAN; pixels.len()];
            Affine::new(&normalize, Layout::Nchw).apply(&pixels, area, &mut out);
            prop_assert_eq!(out, reference(&pixels, area, &normalize));
        }
    }

    #[test]
    fn normalising_is_torchvisions_to_a_rounding() {
        let normalize = Normalize::default();
        let mut out = vec![0.0; 3];
        for value in 0..=255u8 {
            Affine::new(&normalize, Layout::Nchw).apply(&[value; 3], 1, &mut out);
            for (c, &found) in out.iter().enumerate() {
                let torchvision = (f32::from(value) / 255.0 - normalize.mean[c]) / normalize.std[c];
                assert!((found - torchvision).abs() <= 1e-6, "{value} {found} {torchvision}");
            }
        }
    }

    #[test]
    fn channels_last_inputs_keep_their_order() {
        let normalize = Normalize { mean: [0.0; 3], std: [1.0; 3], scale: 1.0, channels: Channels::Bgr };
        let mut out = vec![0.0; 6];
        Affine::new(&normalize, Layout::Nhwc).apply(&[1, 2, 3, 4, 5, 6], 2, &mut out);
        assert_eq!(out, [3.0, 2.0, 1.0, 6.0, 5.0, 4.0]);
    }
}
