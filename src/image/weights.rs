//! Pillow's resampling weights: which source pixels make an output pixel, and how much of each.
//!
//! The formulas and their roundings are those of Pillow's `Resample.c` (`precompute_coeffs`, `normalize_coeffs_8bpc`).

use std::f64::consts::PI;
use std::ops::Range;

use super::preprocess::{Axis, Interpolation};

/// Fraction bits of a weight: 32, less 8 of the pixel, less 2 for sums above 1.
pub(super) const PRECISION: u32 = 32 - 8 - 2;

/// The weights of one axis, for the shown output pixels only. Kept between pictures for its memory.
#[derive(Default)]
pub(super) struct Weights {
    /// First source pixel and number of taps of each output pixel.
    spans: Vec<(usize, usize)>,
    /// `[output pixel][stride]`, in 1 / 2^[`PRECISION`].
    taps: Vec<i32>,
    stride: usize,
    exact: Vec<f64>,
}

impl Weights {
    /// Computes the weights of `axis`, as they are when the whole axis is resized.
    pub fn set(&mut self, axis: &Axis, interpolation: Interpolation) {
        let (filter, radius) = filter(interpolation);
        let scale = f64::from(axis.source) / axis.resized as f64;
        let stretch = scale.max(1.0);
        let support = radius * stretch;
        self.stride = support.ceil() as usize * 2 + 1;
        self.spans.clear();
        self.taps.clear();
        for output in axis.from..axis.from + u64::from(axis.shown) {
            let centre = (output as f64 + 0.5) * scale;
            let start = (centre - support + 0.5).max(0.0) as usize;
            let end = ((centre + support + 0.5) as usize).min(axis.source as usize);
            let weight = |pixel: usize| filter((pixel as f64 - centre + 0.5) * (1.0 / stretch));
            self.exact.clear();
            self.exact.extend((start..end).map(weight));
            let sum: f64 = self.exact.iter().sum();
            let sum = if sum == 0.0 { 1.0 } else { sum };
            self.taps.extend(self.exact.iter().map(|weight| fixed(weight / sum)));
            self.taps.resize((self.spans.len() + 1) * self.stride, 0);
            self.spans.push((start, end - start));
        }
    }

    /// Bytes kept.
    pub fn capacity(&self) -> usize {
        self.spans.capacity() * size_of::<(usize, usize)>() + self.taps.capacity() * 4 + self.exact.capacity() * 8
    }

    /// For each output pixel, its first source pixel and its weights.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (usize, &[i32])> {
        let rows = self.taps.chunks_exact(self.stride.max(1));
        self.spans.iter().zip(rows).map(|(&(start, count), taps)| (start, &taps[..count]))
    }

    /// All source pixels that any output pixel reads.
    pub fn reach(&self) -> Range<usize> {
        let start = self.spans.first().map_or(0, |&(start, _)| start);
        start..self.spans.last().map_or(start, |&(start, count)| start + count)
    }
}

/// Rounded half away from zero, as a cast in C after adding or subtracting a half.
fn fixed(weight: f64) -> i32 {
    (weight * f64::from(1 << PRECISION) + 0.5_f64.copysign(weight)) as i32
}

/// The kernel, and the distance at which it ends when nothing is shrunk.
fn filter(interpolation: Interpolation) -> (fn(f64) -> f64, f64) {
    match interpolation {
        Interpolation::Bilinear => (triangle, 1.0),
        Interpolation::Bicubic => (cubic, 2.0),
        Interpolation::Lanczos => (lanczos, 3.0),
    }
}

fn triangle(x: f64) -> f64 {
    (1.0 - x.abs()).max(0.0)
}

/// Keys' cubic convolution with a = -0.5.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

fn lanczos(x: f64) -> f64 {
    let sinc = |x: f64| {
        if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) }
    };
    if (-3.0..3.0).contains(&x) { sinc(x) * sinc(x / 3.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn halving_by_triangle_takes_one_three_three_one_eighths() {
        let axis = Axis { offset: 0, source: 8, resized: 4, from: 1, shown: 1, at: 0 };
        let mut weights = Weights::default();
        weights.set(&axis, Interpolation::Bilinear);
        let (start, taps) = weights.iter().next().unwrap();
        assert_eq!((start, taps), (1, &[1, 3, 3, 1].map(|eighths| eighths << (PRECISION - 3))[..]));
        assert_eq!(weights.reach(), 1..5);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn weights_sum_to_one_and_stay_inside(source in 1u32..300, resized in 1u64..300, which in 0usize..3) {
            let kind = [Interpolation::Bilinear, Interpolation::Bicubic, Interpolation::Lanczos][which];
            let mut weights = Weights::default();
            weights.set(&Axis { offset: 0, source, resized, from: 0, shown: resized as u32, at: 0 }, kind);
            prop_assert_eq!(weights.iter().len(), resized as usize);
            for (start, taps) in weights.iter() {
                prop_assert!(!taps.is_empty() && start + taps.len() <= source as usize);
                let sum: i64 = taps.iter().map(|&tap| i64::from(tap)).sum();
                prop_assert!((sum - (1 << PRECISION)).abs() <= taps.len() as i64);
            }
        }
    }
}
