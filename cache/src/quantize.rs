//! i8 with a scale a row: symmetric, so that a number is its i8 times the row's scale and zero stays zero.
//!
//! Knows numbers, not files. The arithmetic is binary32 and fixed operation by operation, because two writers of the same rows must
//! give the same bytes. A row that holds an infinity or no number cannot be scaled, and is refused rather than bent.

/// Turns a row of `f32` (little-endian bytes) into i8, one byte an element in `out`; returns the scale, `None` where an element
/// is not finite.
///
/// The scale is `max|x| / 127`, and an element the nearest integer to `x / scale`, ties to the even one, within -127..=127.
/// A row of zeros has the scale 0, and so has one whose scale would be too small for an `f32`.
///
/// # Panics
/// When `out` does not have a byte for every element.
pub fn quantize(row: &[u8], out: &mut [u8]) -> Option<f32> {
    assert_eq!(row.len(), 4 * out.len(), "a row of `{}` bytes has an i8 for every four of them", row.len());
    // Without their sign, finite numbers are ordered as their bits are, and those that are not finite come after them.
    let largest = numbers(row).map(|x| x.to_bits() & !SIGN).max().unwrap_or(0);
    let largest = Some(f32::from_bits(largest)).filter(|largest| largest.is_finite())?;
    let scale = largest / 127.0;
    if scale == 0.0 {
        out.fill(0);
        return Some(0.0);
    }
    for (x, out) in numbers(row).zip(out) {
        *out = (x / scale).round_ties_even().clamp(-127.0, 127.0) as i8 as u8;
    }
    Some(scale)
}

/// The bit of an `f32` that is its sign.
const SIGN: u32 = 1 << 31;

fn numbers(row: &[u8]) -> impl Iterator<Item = f32> {
    row.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes))
}

/// The numbers that a row of i8 means, `f32` as little-endian bytes in `out`.
///
/// # Panics
/// When `out` does not have four bytes for every element.
pub fn dequantize(row: &[u8], scale: f32, out: &mut [u8]) {
    assert_eq!(out.len(), 4 * row.len(), "a row of `{}` i8 has four bytes for each of them", row.len());
    for (x, out) in row.iter().zip(out.as_chunks_mut::<4>().0) {
        *out = (f32::from(*x as i8) * scale).to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(row: &[f32]) -> Vec<u8> {
        row.iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    fn quantized(row: &[f32]) -> Option<(f32, Vec<i8>)> {
        let mut out = vec![77; row.len()];
        let scale = quantize(&bytes(row), &mut out)?;
        Some((scale, out.into_iter().map(|x| x as i8).collect()))
    }

    #[test]
    fn the_largest_element_becomes_127() {
        assert_eq!(quantized(&[127.0, -127.0, 63.0, 0.0, -0.0]), Some((1.0, vec![127, -127, 63, 0, 0])));
        assert_eq!(quantized(&[-254.0, 2.0]), Some((2.0, vec![-127, 1])));
    }

    #[test]
    fn halves_go_to_the_even_neighbour() {
        assert_eq!(quantized(&[127.0, 0.5, 1.5, 2.5, -0.5, -1.5]), Some((1.0, vec![127, 0, 2, 2, 0, -2])));
    }

    #[test]
    fn zeros_and_what_is_almost_zero_have_no_scale() {
        assert_eq!(quantized(&[0.0, -0.0]), Some((0.0, vec![0, 0])));
        assert_eq!(quantized(&[f32::from_bits(1), 0.0]), Some((0.0, vec![0, 0])));
        assert_eq!(quantized(&[]), Some((0.0, vec![])));
    }

    #[test]
    fn what_is_not_finite_is_refused() {
        for bad in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN] {
            assert_eq!(quantized(&[1.0, bad]), None, "{bad}");
        }
        assert!(quantized(&[f32::MAX, -f32::MAX]).is_some());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn what_comes_back_is_half_a_step_away_at_most(row in proptest::collection::vec(-1e30f32..1e30, 1..40), small: bool) {
            let row: Vec<f32> = row.into_iter().map(|x| if small { x * 1e-35 } else { x }).collect();
            let mut q = vec![0; row.len()];
            let scale = quantize(&bytes(&row), &mut q).unwrap();
            let mut back = vec![0; 4 * row.len()];
            dequantize(&q, scale, &mut back);
            for (x, y) in row.iter().zip(numbers(&back)) {
                prop_assert!((f64::from(*x) - f64::from(y)).abs() <= f64::from(scale) * 0.5001, "{x} {y} {scale}");
            }
            prop_assert!(q.iter().any(|x| (*x as i8).unsigned_abs() == 127) || scale == 0.0);
        }
    }
}
