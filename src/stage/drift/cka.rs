//! Linear centred kernel alignment: do two columns agree on which pictures are alike? It needs no common axes, so it compares layers and
//! networks of any widths; rotations and scalings of either do not change it.
//!
//! Kornblith, Norouzi, Lee, Hinton: Similarity of Neural Network Representations Revisited (ICML 2019), equations 2 and 3 with the linear kernel:
//! `HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))`, `K = X X'`, `L = Y Y'` of centred `X [n, D]`, `Y [n, E]`. Where `n` is not much
//! larger than `D` that is too high even for noise; so it is given with the unbiased estimator of HSIC as well (Song et al., Feature Selection via
//! Dependence Maximization, JMLR 2012, equation 5), which is near 0 for columns that have nothing in common.

use rayon::prelude::*;
use serde::Serialize;

use super::rows::{Rows, Scratch};

/// Likeness of two columns as wholes: 1 is the same up to rotation and scale.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Cka {
    /// Rows it is computed of; of each, the mean of its vectors.
    pub rows: usize,
    /// As it was published.
    pub linear: f64,
    /// Without the bias of few rows.
    pub debiased: f64,
}

/// Of the rows `pairs`.
pub(super) fn of(sides: &[Rows<'_>; 2], pairs: &[(u32, u32)]) -> Option<Cka> {
    if pairs.len() < 4 {
        return None;
    }
    let gram = |side: &Rows<'_>, rows: Vec<u32>| {
        let mut scratch = Scratch::default();
        let mut matrix = Vec::with_capacity(rows.len() * side.width());
        for row in rows {
            matrix.extend_from_slice(side.mean_of(row, &mut scratch));
            side.release(std::iter::once(row));
        }
        gram(matrix, side.width())
    };
    let first = gram(&sides[0], pairs.iter().map(|pair| pair.0).collect());
    let second = gram(&sides[1], pairs.iter().map(|pair| pair.1).collect());
    Some(cka(&first, &second, pairs.len()))
}

/// `X X'` of the centred rows of `matrix`, `[n, n]`.
fn gram(mut matrix: Vec<f32>, width: usize) -> Vec<f64> {
    let width = width.max(1);
    let rows = matrix.len() / width;
    let mut means = vec![0.0_f64; width];
    for row in matrix.chunks_exact(width) {
        means.iter_mut().zip(row).for_each(|(mean, number)| *mean += f64::from(*number) / rows as f64);
    }
    for row in matrix.chunks_exact_mut(width) {
        row.iter_mut().zip(&means).for_each(|(number, mean)| *number -= *mean as f32);
    }
    let row = |at: usize| &matrix[at * width..][..width];
    let line = |one: usize| (0..rows).map(move |other| if other <= one { dot(row(one), row(other)) } else { 0.0 });
    let mut gram: Vec<f64> = (0..rows).into_par_iter().flat_map_iter(line).collect();
    for one in 0..rows {
        for other in 0..one {
            gram[other * rows + one] = gram[one * rows + other];
        }
    }
    gram
}

/// Eight sums at a time, so that the processor need not wait for one to add to it.
fn dot(one: &[f32], two: &[f32]) -> f64 {
    let (ones, rest) = one.as_chunks::<8>();
    let (twos, others) = two.as_chunks::<8>();
    let mut sums = [0.0_f32; 8];
    for (one, two) in ones.iter().zip(twos) {
        sums.iter_mut().zip(one).zip(two).for_each(|((sum, one), two)| *sum += one * two);
    }
    let rest: f32 = rest.iter().zip(others).map(|(one, two)| one * two).sum();
    sums.iter().copied().map(f64::from).sum::<f64>() + f64::from(rest)
}

fn cka(one: &[f64], two: &[f64], rows: usize) -> Cka {
    let ratio = |hsic: &dyn Fn(&[f64], &[f64]) -> f64| {
        let scale = (hsic(one, one) * hsic(two, two)).max(0.0).sqrt();
        if scale > 0.0 { hsic(one, two) / scale } else { 0.0 }
    };
    let linear = ratio(&|one, two| one.iter().zip(two).map(|(a, b)| a * b).sum());
    let debiased = ratio(&|one, two| unbiased(one, two, rows));
    Cka { rows, linear, debiased }
}

/// The unbiased HSIC of two `[n, n]` kernels, whose diagonals do not count.
fn unbiased(one: &[f64], two: &[f64], rows: usize) -> f64 {
    let off = |at: usize| at / rows != at % rows;
    let line =
        |kernel: &[f64], row: usize| (0..rows).filter(|at| *at != row).map(|at| kernel[row * rows + at]).sum::<f64>();
    let trace: f64 = (0..rows * rows).filter(|at| off(*at)).map(|at| one[at] * two[at]).sum();
    let lines: Vec<[f64; 2]> = (0..rows).map(|row| [line(one, row), line(two, row)]).collect();
    let sums = lines.iter().fold([0.0; 2], |sums, line| [sums[0] + line[0], sums[1] + line[1]]);
    let crossed: f64 = lines.iter().map(|line| line[0] * line[1]).sum();
    let n = rows as f64;
    (trace + sums[0] * sums[1] / ((n - 1.0) * (n - 2.0)) - 2.0 / (n - 2.0) * crossed) / (n * (n - 3.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::random::SplitMix;

    fn noise(seed: u64, numbers: usize) -> Vec<f32> {
        let mut random = SplitMix::new(seed);
        (0..numbers).map(|_| random.unit() - 0.5).collect()
    }

    fn of_matrices(one: Vec<f32>, two: Vec<f32>, rows: usize) -> Cka {
        let widths = [one.len() / rows, two.len() / rows];
        cka(&gram(one, widths[0]), &gram(two, widths[1]), rows)
    }

    #[test]
    fn a_rotation_a_scale_and_a_shift_change_nothing() {
        let one = noise(1, 60 * 2);
        let (sin, cos) = 0.7_f32.sin_cos();
        let turned = one.as_chunks::<2>().0.iter();
        let turned =
            turned.flat_map(|[x, y]| [3.0 * (cos * x - sin * y) + 5.0, 3.0 * (sin * x + cos * y) - 1.0]).collect();
        let same = of_matrices(one, turned, 60);
        assert!((same.linear - 1.0).abs() < 1e-5 && (same.debiased - 1.0).abs() < 1e-5, "{same:?}");
    }

    #[test]
    fn wide_noise_looks_alike_until_the_bias_is_taken_off() {
        let noise = of_matrices(noise(1, 40 * 400), noise(2, 40 * 300), 40);
        assert!(noise.linear > 0.8 && noise.debiased.abs() < 0.1, "{noise:?}");
    }

    #[test]
    fn a_small_case_by_hand() {
        // Centred: X = (-1.5, -0.5, 0.5, 1.5), Y = (1, -1, -1, 1): X'Y = 0, so nothing linear is shared.
        let none = of_matrices(vec![0.0, 1.0, 2.0, 3.0], vec![1.0, -1.0, -1.0, 1.0], 4);
        assert!(none.linear.abs() < 1e-12, "{none:?}");
        // Y = (0, 0, 1, 1) centred is (-.5, -.5, .5, .5): (X'Y)^2 / (X'X Y'Y) = 4 / (5 * 1).
        let some = of_matrices(vec![0.0, 1.0, 2.0, 3.0], vec![0.0, 0.0, 1.0, 1.0], 4);
        assert!((some.linear - 0.8).abs() < 1e-6, "{some:?}");
    }
}
