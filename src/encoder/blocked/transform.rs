//! The three transforms of Winograd's F(4x4, 3x3), sixteen channels at a time.
//!
//! Must not know the products between them. A tile at the border is first copied into a patch with zeros around it, so that
//! the transform itself has no conditions; most tiles lie inside and are read where they are.

use std::arch::x86_64::{__m256, __m512};

use super::kernel::{BLOCK, Finish, Isa};
use super::lanes::Lanes;
use super::pool::SharedOutput;

/// Positions of a transformed tile.
pub(super) const POSITIONS: usize = 36;
/// Pixels of a tile's output a side.
pub(super) const TILE: usize = 4;

/// `G` of F(4x4, 3x3).
const G: [[f64; 3]; 6] = [
    [0.25, 0.0, 0.0],
    [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
    [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
    [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
    [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
    [0.0, 0.0, 1.0],
];

/// `G g G'` of one 3x3 kernel, in double precision.
pub(super) fn transform_weights(g: &[f32]) -> [f32; POSITIONS] {
    let mut half = [[0.0f64; 3]; 6];
    for (row, factors) in half.iter_mut().zip(&G) {
        for (j, value) in row.iter_mut().enumerate() {
            *value = (0..3).map(|i| factors[i] * f64::from(g[i * 3 + j])).sum();
        }
    }
    std::array::from_fn(|p| (0..3).map(|j| half[p / 6][j] * G[p % 6][j]).sum::<f64>() as f32)
}

/// A batch of pictures, cut into tiles.
pub(super) struct Shape {
    n: usize,
    h: usize,
    w: usize,
    tiles_x: usize,
    tiles_y: usize,
}

/// Where a tile lies in a blocked tensor.
pub(super) struct Patch {
    /// Offset of the plane of its image and block.
    plane: usize,
    /// First row and column of its output.
    y: usize,
    x: usize,
    h: usize,
    w: usize,
}

impl Shape {
    pub fn new([n, h, w]: [usize; 3]) -> Self {
        Self { n, h, w, tiles_x: w.div_ceil(TILE), tiles_y: h.div_ceil(TILE) }
    }

    pub fn tiles(&self) -> usize {
        self.n * self.tiles_x * self.tiles_y
    }

    pub fn patch(&self, tile: usize, block: usize, blocks: usize) -> Patch {
        let (image, tile) = (tile / (self.tiles_x * self.tiles_y), tile % (self.tiles_x * self.tiles_y));
        debug_assert!(image < self.n);
        Patch {
            plane: (image * blocks + block) * self.h * self.w * BLOCK,
            y: tile / self.tiles_x * TILE,
            x: tile % self.tiles_x * TILE,
            h: self.h,
            w: self.w,
        }
    }
}

/// Transforms the 6x6 inputs around a tile and stores position `p` at `v[p * plane]`.
pub(super) fn input_transform(isa: Isa, x: &[f32], patch: &Patch, v: &mut [f32], plane: usize) {
    let inside = patch.y > 0 && patch.x > 0 && patch.y + 5 <= patch.h && patch.x + 5 <= patch.w;
    let mut border = [0.0; POSITIONS * BLOCK];
    let (from, stride) = if inside {
        (&x[patch.plane + ((patch.y - 1) * patch.w + patch.x - 1) * BLOCK..], patch.w * BLOCK)
    } else {
        copy_border(x, patch, &mut border);
        (&border[..], 6 * BLOCK)
    };
    assert!(from.len() >= 5 * stride + 6 * BLOCK && v.len() >= (POSITIONS - 1) * plane + BLOCK);
    // SAFETY: six rows of six blocks lie in `from` and the 36 stores in `v`, checked above; `isa` was detected.
    unsafe {
        match isa {
            Isa::Avx512 => input_avx512(from.as_ptr(), stride, v.as_mut_ptr(), plane),
            Isa::Avx2 => input_avx2(from.as_ptr(), stride, v.as_mut_ptr(), plane),
        }
    }
}

/// Copies what lies inside of the picture; the rest of `to` stays zero.
fn copy_border(x: &[f32], patch: &Patch, to: &mut [f32; POSITIONS * BLOCK]) {
    let (left, right) = (1usize.saturating_sub(patch.x), 6.min(patch.w + 1 - patch.x));
    for row in 1usize.saturating_sub(patch.y)..6.min(patch.h + 1 - patch.y) {
        let from = patch.plane + ((patch.y + row - 1) * patch.w + patch.x + left - 1) * BLOCK;
        let length = (right - left) * BLOCK;
        to[(row * 6 + left) * BLOCK..][..length].copy_from_slice(&x[from..from + length]);
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn input_avx512(from: *const f32, stride: usize, v: *mut f32, plane: usize) {
    // SAFETY: the caller's promise; this function is compiled for the instructions.
    unsafe { input::<__m512>(from, stride, v, plane) }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn input_avx2(from: *const f32, stride: usize, v: *mut f32, plane: usize) {
    // SAFETY: the caller's promise; this function is compiled for the instructions.
    unsafe { input::<__m256>(from, stride, v, plane) }
}

/// # Safety
/// Six rows of six blocks of 16 at `from`, 36 blocks at `v`, as [`input_transform`] checks.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "the matrix is turned on the way")]
unsafe fn input<L: Lanes>(from: *const f32, stride: usize, v: *mut f32, plane: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        for part in (0..BLOCK).step_by(L::N) {
            let mut half = [[L::splat(0.0); 6]; 6];
            for column in 0..6 {
                let mut d = [L::splat(0.0); 6];
                for (row, d) in d.iter_mut().enumerate() {
                    *d = L::load(from.add(row * stride + column * BLOCK + part));
                }
                for (row, value) in b_transposed(d).into_iter().enumerate() {
                    half[row][column] = value;
                }
            }
            for (row, half) in half.into_iter().enumerate() {
                for (column, value) in b_transposed(half).into_iter().enumerate() {
                    value.store(v.add((row * 6 + column) * plane + part));
                }
            }
        }
    }
}

/// `B' d` of six values.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn b_transposed<L: Lanes>(d: [L; 6]) -> [L; 6] {
    // SAFETY: the caller's promise.
    unsafe {
        let (two, four, minus_four, minus_five) = (L::splat(2.0), L::splat(4.0), L::splat(-4.0), L::splat(-5.0));
        let even = d[2].mul_add(minus_four, d[4]);
        let odd = d[1].mul_add(minus_four, d[3]);
        let near = d[4].sub(d[2]);
        let far = d[3].sub(d[1]).mul(two);
        [
            d[0].mul_add(four, d[2].mul_add(minus_five, d[4])),
            even.add(odd),
            even.sub(odd),
            near.add(far),
            near.sub(far),
            d[1].mul_add(four, d[3].mul_add(minus_five, d[5])),
        ]
    }
}

/// Transforms a tile's 36 sums back to 4x4 pixels, finishes them and stores those inside of the picture.
pub(super) fn output_transform(
    isa: Isa,
    m: &[f32],
    plane: usize,
    patch: &Patch,
    finish: Finish<'_>,
    out: &SharedOutput<'_>,
) {
    assert!(m.len() >= (POSITIONS - 1) * plane + BLOCK && finish.bias.is_none_or(|bias| bias.len() == BLOCK));
    let mut pixels = [0.0; TILE * TILE * BLOCK];
    // SAFETY: the 36 blocks lie in `m`, checked above; `pixels` holds 16 blocks; `isa` was detected.
    unsafe {
        let bias = finish.bias.map_or(std::ptr::null(), <[f32]>::as_ptr);
        match isa {
            Isa::Avx512 => output_avx512(m.as_ptr(), plane, bias, pixels.as_mut_ptr()),
            Isa::Avx2 => output_avx2(m.as_ptr(), plane, bias, pixels.as_mut_ptr()),
        }
    }
    let width = TILE.min(patch.w - patch.x) * BLOCK;
    for row in 0..TILE.min(patch.h - patch.y) {
        let at = patch.plane + ((patch.y + row) * patch.w + patch.x) * BLOCK;
        let pixels = &pixels[row * TILE * BLOCK..][..width];
        // SAFETY: tiles do not overlap, so no other thread writes these pixels.
        let out = unsafe { out.range(at, width) };
        match finish.residual {
            Some(residual) => {
                for ((out, pixel), residual) in out.iter_mut().zip(pixels).zip(&residual[at..at + width]) {
                    let sum = pixel + residual;
                    *out = if finish.relu { sum.max(0.0) } else { sum };
                }
            }
            None if finish.relu => {
                for (out, pixel) in out.iter_mut().zip(pixels) {
                    *out = pixel.max(0.0);
                }
            }
            None => out.copy_from_slice(pixels),
        }
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn output_avx512(m: *const f32, plane: usize, bias: *const f32, pixels: *mut f32) {
    // SAFETY: the caller's promise; this function is compiled for the instructions.
    unsafe { output::<__m512>(m, plane, bias, pixels) }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn output_avx2(m: *const f32, plane: usize, bias: *const f32, pixels: *mut f32) {
    // SAFETY: the caller's promise; this function is compiled for the instructions.
    unsafe { output::<__m256>(m, plane, bias, pixels) }
}

/// # Safety
/// 36 blocks of 16 at `m`, 16 floats at `bias` unless it is null, 16 blocks at `pixels`.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "the matrix is turned on the way")]
unsafe fn output<L: Lanes>(m: *const f32, plane: usize, bias: *const f32, pixels: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        for part in (0..BLOCK).step_by(L::N) {
            let bias = if bias.is_null() { L::splat(0.0) } else { L::load(bias.add(part)) };
            let mut half = [[L::splat(0.0); 6]; TILE];
            for column in 0..6 {
                let mut sums = [L::splat(0.0); 6];
                for (row, sum) in sums.iter_mut().enumerate() {
                    *sum = L::load(m.add((row * 6 + column) * plane + part));
                }
                for (row, value) in a_transposed(sums).into_iter().enumerate() {
                    half[row][column] = value;
                }
            }
            for (row, half) in half.into_iter().enumerate() {
                for (column, value) in a_transposed(half).into_iter().enumerate() {
                    value.add(bias).store(pixels.add((row * TILE + column) * BLOCK + part));
                }
            }
        }
    }
}

/// `A' m` of six values.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn a_transposed<L: Lanes>(m: [L; 6]) -> [L; TILE] {
    // SAFETY: the caller's promise.
    unsafe {
        let (near, near_difference) = (m[1].add(m[2]), m[1].sub(m[2]));
        let (far, far_difference) = (m[3].add(m[4]), m[3].sub(m[4]));
        [
            m[0].add(near).add(far),
            far_difference.mul_add(L::splat(2.0), near_difference),
            far.mul_add(L::splat(4.0), near),
            far_difference.mul_add(L::splat(8.0), near_difference).add(m[5]),
        ]
    }
}
