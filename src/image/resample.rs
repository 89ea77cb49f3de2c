//! Resamples 8-bit RGB in two passes, across and then down, to the bit as Pillow does.
//!
//! Pillow 13 goes down first where the height loses more than twice the pixels that the width does: a very tall picture, or a
//! wide tile of one. The order is fixed here, so that a version of Pillow decides no column's bytes; such values differ by one
//! level at most.
//!
//! Decision: our own loops, not a resizing crate. Those use 16-bit weights and differ from Pillow in a fifth of the values
//! (by up to 15 levels with the cubic filter); with Pillow's 22-bit weights the result is equal, at the same speed, and
//! resizing a region equals resizing all and cropping. The folder's only `unsafe` is here: two calls into AVX2 code.

use super::preprocess::{Axis, Interpolation};
use super::weights::{PRECISION, Weights};

const HALF: i32 = 1 << (PRECISION - 1);

/// The memory of a thread's resizing.
#[derive(Default)]
pub(super) struct Resampler {
    across: Weights,
    down: Weights,
    /// One source row with a fourth byte a pixel.
    wide: Vec<[u8; 4]>,
    /// The rows that the second pass reads, resized across: `[rows, columns.shown, 3]`.
    between: Vec<u8>,
}

impl Resampler {
    /// Bytes kept.
    pub fn capacity(&self) -> usize {
        self.between.capacity() + self.wide.capacity() * 4 + self.across.capacity() + self.down.capacity()
    }

    /// Writes the shown region, `[rows.shown, columns.shown, 3]`, of `pixels`, which is `width` pixels wide.
    pub fn run(
        &mut self,
        pixels: &[u8],
        width: u32,
        rows: &Axis,
        columns: &Axis,
        interpolation: Interpolation,
        out: &mut [u8],
    ) {
        if !rows.is_unscaled() {
            self.down.set(rows, interpolation);
        }
        if !columns.is_unscaled() {
            self.across.set(columns, interpolation);
        }
        let row_bytes = columns.shown as usize * 3;
        let reach = if rows.is_unscaled() {
            rows.from as usize..rows.from as usize + rows.shown as usize
        } else {
            self.down.reach()
        };
        let source_rows = pixels
            .chunks_exact(width as usize * 3)
            .skip(rows.offset as usize + reach.start)
            .take(reach.len())
            .map(|row| &row[columns.offset as usize * 3..][..columns.source as usize * 3]);
        if rows.is_unscaled() {
            self.all_across(source_rows, columns, row_bytes, out.chunks_exact_mut(row_bytes));
            return;
        }
        let mut between = std::mem::take(&mut self.between);
        between.resize(reach.len() * row_bytes, 0);
        self.all_across(source_rows, columns, row_bytes, between.chunks_exact_mut(row_bytes));
        for ((start, taps), target) in self.down.iter().zip(out.chunks_exact_mut(row_bytes)) {
            down(&between[(start - reach.start) * row_bytes..], taps, target);
        }
        self.between = between;
    }

    fn all_across<'a, 'b>(
        &mut self,
        sources: impl Iterator<Item = &'a [u8]>,
        columns: &Axis,
        row_bytes: usize,
        targets: impl Iterator<Item = &'b mut [u8]>,
    ) {
        for (source, target) in sources.zip(targets) {
            if columns.is_unscaled() {
                target.copy_from_slice(&source[columns.from as usize * 3..][..row_bytes]);
            } else {
                widen(source, &self.across, &mut self.wide);
                across(&self.wide, &self.across, target);
            }
        }
    }
}

/// Compiles a function twice, for any processor and for AVX2, and calls the one that the processor can run.
macro_rules! vectorised {
    ($(#[$doc:meta])* fn $name:ident($($argument:ident: $type:ty),*) $body:block) => {
        $(#[$doc])*
        fn $name($($argument: $type),*) {
            #[inline(always)]
            fn any($($argument: $type),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn avx2($($argument: $type),*) {
                    any($($argument),*);
                }
                if std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has just said that it has AVX2, the only thing the call requires.
                    return unsafe { avx2($($argument),*) };
                }
            }
            any($($argument),*);
        }
    };
}

/// The pixels of a row that the weights reach.
fn widen(row: &[u8], weights: &Weights, wide: &mut Vec<[u8; 4]>) {
    let reach = weights.reach();
    wide.clear();
    wide.extend(row[reach.start * 3..reach.end * 3].as_chunks::<3>().0.iter().map(|&[r, g, b]| [r, g, b, 0]));
}

/// One row: each output pixel from the pixels of `wide` that its weights name.
fn across(wide: &[[u8; 4]], weights: &Weights, target: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has just said that it has AVX2, the only thing the call requires.
        return unsafe { across_avx2(wide, weights, target) };
    }
    across_any(wide, weights, target);
}

fn across_any(wide: &[[u8; 4]], weights: &Weights, target: &mut [u8]) {
    let first = weights.reach().start;
    for ((start, taps), pixel) in weights.iter().zip(target.as_chunks_mut::<3>().0) {
        let mut sums = [HALF; 3];
        for (value, &tap) in wide[start - first..].iter().zip(taps) {
            for (sum, &value) in sums.iter_mut().zip(value) {
                *sum += i32::from(value) * tap;
            }
        }
        *pixel = sums.map(clip);
    }
}

/// [`across_any`] with one instruction for the three channels, which the compiler does not find by itself.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn across_avx2(wide: &[[u8; 4]], weights: &Weights, target: &mut [u8]) {
    use std::arch::x86_64::{
        _mm_add_epi32, _mm_cvtepu8_epi32, _mm_cvtsi32_si128, _mm_cvtsi128_si32, _mm_mullo_epi32, _mm_packus_epi16,
        _mm_packus_epi32, _mm_set1_epi32, _mm_srai_epi32,
    };
    let first = weights.reach().start;
    for ((start, taps), pixel) in weights.iter().zip(target.as_chunks_mut::<3>().0) {
        let mut sums = _mm_set1_epi32(HALF);
        for (&value, &tap) in wide[start - first..].iter().zip(taps) {
            let value = _mm_cvtepu8_epi32(_mm_cvtsi32_si128(i32::from_le_bytes(value)));
            sums = _mm_add_epi32(sums, _mm_mullo_epi32(value, _mm_set1_epi32(tap)));
        }
        let words = _mm_srai_epi32::<{ PRECISION as i32 }>(sums);
        let words = _mm_packus_epi32(words, words);
        let [red, green, blue, _] = _mm_cvtsi128_si32(_mm_packus_epi16(words, words)).to_le_bytes();
        *pixel = [red, green, blue];
    }
}

vectorised! {
    /// One row: each value from those below each other in `rows`, whose first is the first tap's.
    fn down(rows: &[u8], taps: &[i32], target: &mut [u8]) {
        const LANES: usize = 32;
        let row_bytes = target.len();
        let mut at = 0;
        for lanes in target.chunks_mut(LANES) {
            let mut sums = [HALF; LANES];
            for (row, &tap) in rows.chunks_exact(row_bytes).zip(taps) {
                match row[at..].first_chunk::<LANES>() {
                    Some(values) => {
                        for (sum, &value) in sums.iter_mut().zip(values) {
                            *sum += i32::from(value) * tap;
                        }
                    }
                    None => {
                        for (sum, &value) in sums.iter_mut().zip(&row[at..]) {
                            *sum += i32::from(value) * tap;
                        }
                    }
                }
            }
            for (value, sum) in lanes.iter_mut().zip(sums) {
                *value = clip(sum);
            }
            at += LANES;
        }
    }
}

#[inline(always)]
fn clip(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    const BILINEAR: [u8; 18] = [86, 107, 144, 124, 94, 123, 162, 138, 98, 123, 114, 151, 124, 113, 126, 144, 114, 105];
    const BICUBIC: [u8; 18] = [82, 106, 144, 125, 94, 128, 165, 139, 96, 124, 113, 153, 126, 113, 121, 143, 114, 105];
    const LANCZOS: [u8; 18] = [85, 103, 140, 126, 97, 133, 161, 140, 91, 121, 112, 158, 127, 113, 116, 145, 116, 109];
    const BICUBIC_UP: [u8; 105] = [
        0, 29, 66, 52, 106, 143, 151, 117, 154, 231, 6, 43, 112, 77, 133, 119, 177, 100, 197, 245, 6, 30, 64, 101, 101,
        154, 191, 135, 168, 205, 76, 42, 79, 95, 127, 184, 176, 130, 148, 252, 80, 41, 72, 118, 155, 161, 109, 146,
        170, 94, 135, 35, 88, 125, 127, 196, 114, 164, 147, 103, 146, 33, 95, 123, 171, 208, 152, 64, 101, 148, 22, 65,
        96, 133, 170, 189, 173, 44, 145, 146, 58, 40, 100, 148, 170, 206, 243, 69, 112, 149, 25, 80, 116, 132, 169,
        206, 231, 49, 95, 189, 63, 106, 95, 147, 183,
    ];

    fn axis(source: u32, resized: u64) -> Axis {
        Axis { offset: 0, source, resized, from: 0, shown: resized as u32, at: 0 }
    }

    fn resize(pixels: &[u8], size: (u32, u32), to: (u64, u64), interpolation: Interpolation) -> Vec<u8> {
        let mut out = vec![0; (to.0 * to.1 * 3) as usize];
        Resampler::default().run(pixels, size.1, &axis(size.0, to.0), &axis(size.1, to.1), interpolation, &mut out);
        out
    }

    /// `python -c "from PIL import Image; i = Image.frombytes('RGB', (5, 4), bytes(j * 37 % 251 for j in range(60)));
    /// print(list(i.resize((3, 2), FILTER).tobytes()))"`
    #[test]
    fn small_pictures_are_pillows_to_the_bit() {
        let pixels: Vec<u8> = (0..60).map(|index| (index * 37 % 251) as u8).collect();
        let by = |interpolation| resize(&pixels, (4, 5), (2, 3), interpolation);
        assert_eq!(by(Interpolation::Bilinear), BILINEAR);
        assert_eq!(by(Interpolation::Bicubic), BICUBIC);
        assert_eq!(by(Interpolation::Lanczos), LANCZOS);
        assert_eq!(resize(&pixels, (4, 5), (5, 7), Interpolation::Bicubic), BICUBIC_UP);
    }

    #[test]
    fn avx2_and_plain_loops_agree() {
        let mut weights = Weights::default();
        for (source, resized) in [(50, 20), (20, 50), (300, 7)] {
            for kind in [Interpolation::Bilinear, Interpolation::Lanczos] {
                weights.set(&axis(source, resized), kind);
                let wide: Vec<_> =
                    (0..source).map(|at| [at * 91 % 256, 255 * (at % 2), 255 - at % 256, 0].map(|v| v as u8)).collect();
                let (mut fast, mut plain) = (vec![0; resized as usize * 3], vec![1; resized as usize * 3]);
                across(&wide, &weights, &mut fast);
                across_any(&wide, &weights, &mut plain);
                assert_eq!(fast, plain);
            }
        }
    }

    #[test]
    fn one_axis_alone_leaves_the_other() {
        let pixels: Vec<u8> = (0..36).collect();
        let narrow = resize(&pixels, (3, 4), (3, 2), Interpolation::Bilinear);
        let rows: Vec<_> =
            pixels.chunks(12).flat_map(|row| resize(row, (1, 4), (1, 2), Interpolation::Bilinear)).collect();
        assert_eq!(narrow, rows);
        let flat = [9, 8, 7].repeat(12);
        assert_eq!(resize(&flat, (3, 4), (7, 4), Interpolation::Lanczos), [9, 8, 7].repeat(28));
    }
}
