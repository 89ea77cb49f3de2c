//! The one inner loop of every convolution here: a few pixels times a group of channels, kept in registers.
//!
//! Must not know convolutions: it multiplies rows `A [rows, K]` by a panel `B [K, group]`. `A` lies scattered, sixteen
//! consecutive values of `K` at a time, which is what lets the same loop serve a 1x1, a strided 3x3 and Winograd's
//! products without any of them packing its input first. It reaches 97% of the processor's multiply-adds (58.5 of 59
//! GMAC/s on one core of a Zen 4), in 512 and in 256 bits alike.

use std::arch::x86_64::{__m256, __m512, _MM_HINT_T0, _mm_prefetch};
use std::marker::PhantomData;

use super::lanes::Lanes;
use super::pool::SharedOutput;

/// Channels that lie side by side in memory.
pub(super) const BLOCK: usize = 16;

/// The instructions this processor has for the kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Isa {
    /// 512-bit registers, 32 of them.
    Avx512,
    /// 256-bit registers, 16 of them, with fused multiply-add.
    Avx2,
}

impl Isa {
    /// The best this processor has; nothing where it has neither, and the convolutions stay ONNX Runtime's.
    pub fn detect() -> Option<Self> {
        if is_x86_feature_detected!("avx512f") {
            Some(Self::Avx512)
        } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            Some(Self::Avx2)
        } else {
            None
        }
    }

    /// Output channels of the next panel, of `left` that are left: registers hold so many at a time.
    pub fn group(self, left: usize) -> usize {
        match self {
            Self::Avx512 if left >= 64 => 64,
            Self::Avx512 if left >= 32 => 32,
            _ => BLOCK,
        }
    }

    /// Rows that are best taken together, of `all` there are, for a panel of `group` channels: as many as leave a register
    /// to spare. One more is spilled, but no worse than a last row alone, which maps of 7 and 14 pixels would have.
    fn rows(self, group: usize, all: usize) -> usize {
        match (self, group) {
            (Self::Avx512, 64) if matches!(all, 7 | 14) => 7,
            (Self::Avx512, 64) => 6,
            (Self::Avx512, _) => 12,
            (Self::Avx2, _) => 6,
        }
    }
}

/// What is multiplied.
pub(super) struct Product<'a> {
    pub a: &'a [f32],
    /// Where sixteen values of `K` begin for the first row, relative to `base`; one entry for each sixteen.
    pub offsets: &'a [usize],
    /// The largest of `offsets`.
    pub reach: usize,
    /// Where the first row begins in `a`.
    pub base: usize,
    /// Floats from a row to the next in `a`: 16 times the stride of the convolution.
    pub step: usize,
    /// `[K, group]`
    pub b: &'a [f32],
    pub group: usize,
}

impl<'a> Finish<'a> {
    /// Whether there is nothing to do but to store.
    fn is_plain(&self) -> bool {
        !self.onto && self.bias.is_none() && self.residual.is_none() && !self.relu
    }

    /// Of a sum taken in parts: for the part `index` of `count`, whose outputs have this bias.
    pub fn part(self, index: usize, count: usize, bias: Option<&'a [f32]>) -> Self {
        if index + 1 == count {
            Self { onto: index > 0, bias, ..self }
        } else {
            Self { onto: index > 0, ..Self::default() }
        }
    }
}

/// What happens to a sum before it is stored.
#[derive(Clone, Copy, Default)]
pub(super) struct Finish<'a> {
    /// What the target holds is added: the sum is taken in parts.
    pub onto: bool,
    /// Added: a value for each channel of the group.
    pub bias: Option<&'a [f32]>,
    /// Added: a tensor laid out as the output.
    pub residual: Option<&'a [f32]>,
    /// Negative sums become zero.
    pub relu: bool,
}

/// Where the products go: block `g` of the group's channels of row `r` at `base + g * block_stride + r * 16`.
pub(super) struct Target<'a> {
    floats: *mut f32,
    length: usize,
    base: usize,
    block_stride: usize,
    lent: PhantomData<&'a mut [f32]>,
}

impl<'a> Target<'a> {
    pub fn new(out: &'a mut [f32], base: usize, block_stride: usize) -> Self {
        Self { floats: out.as_mut_ptr(), length: out.len(), base, block_stride, lent: PhantomData }
    }

    /// A target that other threads fill too.
    ///
    /// # Safety
    /// While this one is used, nobody else touches the places that it describes.
    pub unsafe fn shared(out: &'a SharedOutput<'_>, base: usize, block_stride: usize) -> Self {
        let (floats, length) = out.parts();
        Self { floats, length, base, block_stride, lent: PhantomData }
    }
}

/// Computes `rows` rows of one panel, any number of them.
pub(super) fn multiply(isa: Isa, product: &Product<'_>, rows: usize, finish: Finish<'_>, target: &mut Target<'_>) {
    let (blocks, last) = (product.group / BLOCK, rows.saturating_sub(1));
    let read = product.base + product.reach + last * product.step + BLOCK;
    let written = target.base + (blocks - 1) * target.block_stride + last * BLOCK + BLOCK;
    assert!(read <= product.a.len() && product.b.len() == product.offsets.len() * BLOCK * product.group);
    assert!(written <= target.length && finish.residual.is_none_or(|residual| written <= residual.len()));
    assert!(finish.bias.is_none_or(|bias| bias.len() == product.group) && product.group.is_multiple_of(BLOCK));
    let best = isa.rows(product.group, rows);
    let mut row = 0;
    while row < rows {
        let now = best.min(rows - row);
        let now = if now < best && now > 7 { 7 } else { now };
        // SAFETY: everything that the kernel touches for rows `row..row + now` lies below `read`, `written` and the length of
        // `b`, checked above; `isa` was detected on this processor.
        unsafe { dispatch(isa, product, row, now, finish, target) };
        row += now;
    }
}

/// # Safety
/// The processor is an `isa`; the ranges of [`multiply`] hold for rows `row..row + rows`, and `rows` is 1..=7 or 12.
unsafe fn dispatch(
    isa: Isa,
    product: &Product<'_>,
    row: usize,
    rows: usize,
    finish: Finish<'_>,
    target: &mut Target<'_>,
) {
    macro_rules! by_rows {
        ($run:ident, $v:literal, $($r:literal)*) => {
            match rows {
                // SAFETY: the caller's promise.
                $($r => unsafe { $run::<$r, $v>(product, row, finish, target) },)*
                _ => unreachable!("the kernels take 1 to 7 rows or 12"),
            }
        };
    }
    match (isa, product.group) {
        (Isa::Avx512, 64) => by_rows!(avx512, 4, 1 2 3 4 5 6 7),
        (Isa::Avx512, 32) => by_rows!(avx512, 2, 1 2 3 4 5 6 7 12),
        (Isa::Avx512, _) => by_rows!(avx512, 1, 1 2 3 4 5 6 7 12),
        (Isa::Avx2, _) => by_rows!(avx2, 2, 1 2 3 4 5 6),
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn avx512<const R: usize, const V: usize>(
    product: &Product<'_>,
    row: usize,
    finish: Finish<'_>,
    target: &mut Target<'_>,
) {
    // SAFETY: the caller's promise; this function is compiled for the instructions.
    unsafe { kernel::<__m512, R, V>(product, row, finish, target) }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const R: usize, const V: usize>(
    product: &Product<'_>,
    row: usize,
    finish: Finish<'_>,
    target: &mut Target<'_>,
) {
    // SAFETY: the caller's promise; this function is compiled for the instructions.
    unsafe { kernel::<__m256, R, V>(product, row, finish, target) }
}

/// `R` rows by `V` registers of channels.
///
/// # Safety
/// As [`dispatch`].
#[inline(always)]
unsafe fn kernel<L: Lanes, const R: usize, const V: usize>(
    product: &Product<'_>,
    row: usize,
    finish: Finish<'_>,
    target: &mut Target<'_>,
) {
    // SAFETY: every pointer stays inside of the slices by the caller's promise.
    unsafe {
        let mut sums = [[L::splat(0.0); V]; R];
        let first = product.a.as_ptr().add(product.base + row * product.step);
        let mut b = product.b.as_ptr();
        // Strides 1 and 2 as constants, so that the rows' addresses are one pointer and fixed distances.
        match product.step {
            16 => accumulate::<L, R, V, 16>(&mut sums, first, product.offsets, &mut b),
            32 => accumulate::<L, R, V, 32>(&mut sums, first, product.offsets, &mut b),
            other => unreachable!("rows {other} floats apart"),
        }
        let to = target.floats.add(target.base + row * BLOCK);
        if finish.is_plain() {
            return store(&sums, to, target.block_stride);
        }
        // By way of memory: with all that may follow unrolled over the sums, they would not be kept in registers above.
        let mut parts = [[[0.0f32; BLOCK]; R]; 4];
        store(&sums, parts.as_mut_ptr().cast(), R * BLOCK);
        for (block, parts) in parts[..V * L::N / BLOCK].iter().enumerate() {
            for (r, part) in parts.iter().enumerate() {
                let at = block * target.block_stride + r * BLOCK;
                let residual = finish.residual.map(|all| all.as_ptr().add(target.base + row * BLOCK + at));
                let bias = finish.bias.map(|all| all.as_ptr().add(block * BLOCK));
                for lane in (0..BLOCK).step_by(L::N) {
                    let mut sum = L::load(part.as_ptr().add(lane));
                    if finish.onto {
                        sum = sum.add(L::load(to.add(at + lane)));
                    }
                    if let Some(bias) = bias {
                        sum = sum.add(L::load(bias.add(lane)));
                    }
                    if let Some(residual) = residual {
                        sum = sum.add(L::load(residual.add(lane)));
                    }
                    if finish.relu {
                        sum = sum.max(L::splat(0.0));
                    }
                    sum.store(to.add(at + lane));
                }
            }
        }
    }
}

/// # Safety
/// `R` rows of `V` registers of channels fit at `to`, blocks of sixteen `stride` floats apart.
#[inline(always)]
unsafe fn store<L: Lanes, const R: usize, const V: usize>(sums: &[[L; V]; R], to: *mut f32, stride: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        for (r, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                let channel = v * L::N;
                sum.store(to.add(channel / BLOCK * stride + channel % BLOCK + r * BLOCK));
            }
        }
    }
}

/// # Safety
/// As [`dispatch`].
#[inline(always)]
unsafe fn accumulate<L: Lanes, const R: usize, const V: usize, const STEP: usize>(
    sums: &mut [[L; V]; R],
    first: *const f32,
    offsets: &[usize],
    b: &mut *const f32,
) {
    // SAFETY: every pointer stays inside of the slices by the caller's promise.
    unsafe {
        for (index, &offset) in offsets.iter().enumerate() {
            let a = first.add(offset);
            // The next rows lie somewhere else, where no processor looks ahead by itself.
            if STEP == BLOCK {
                let next = first.add(offsets[(index + 1).min(offsets.len() - 1)]);
                for r in 0..R {
                    _mm_prefetch::<_MM_HINT_T0>(next.add(r * STEP).cast());
                }
            }
            for k in 0..BLOCK {
                let mut weights = [L::splat(0.0); V];
                for (v, weight) in weights.iter_mut().enumerate() {
                    *weight = L::load(b.add((k * V + v) * L::N));
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let value = L::splat(*a.add(r * STEP + k));
                    for (sum, &weight) in sums.iter_mut().zip(&weights) {
                        *sum = value.mul_add(weight, *sum);
                    }
                }
            }
            *b = b.add(BLOCK * V * L::N);
        }
    }
}
