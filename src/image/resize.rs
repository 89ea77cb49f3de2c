//! Resamples the part of a picture that the output shows, straight into the output.
//!
//! Decision: only the region that the crop shows is resampled. A filter's weights depend on coordinates alone, and still
//! read the pixels around the region, so the result is that of resizing all and cropping, to the bit.

use super::Scratch;
use super::preprocess::{Axis, Interpolation, Preprocess};

/// Writes the picture in `scratch.pixels` (of `(height, width)`) into `out`, `[H, W, 3]`.
pub(super) fn resize_into(scratch: &mut Scratch, size: (u32, u32), pre: &Preprocess, out: &mut [u8]) {
    let (rows, columns) = pre.plan(size);
    let (out_height, out_width) = pre.output_size();
    if (rows.shown, columns.shown) == (out_height, out_width) {
        resample(scratch, &rows, &columns, pre.interpolation, out);
        return;
    }
    let mut region = std::mem::take(&mut scratch.side);
    region.clear();
    region.resize(rows.shown as usize * columns.shown as usize * 3, 0);
    resample(scratch, &rows, &columns, pre.interpolation, &mut region);
    paste(&region, &rows, &columns, out_width, out);
    scratch.side = region;
}

/// Puts the shown region where it belongs in an otherwise black output.
fn paste(region: &[u8], rows: &Axis, columns: &Axis, out_width: u32, out: &mut [u8]) {
    out.fill(0);
    let row_bytes = columns.shown as usize * 3;
    if row_bytes == 0 {
        return;
    }
    let out_rows = out.chunks_exact_mut(out_width as usize * 3).skip(rows.at as usize);
    for (from, to) in region.chunks_exact(row_bytes).zip(out_rows) {
        to[columns.at as usize * 3..][..row_bytes].copy_from_slice(from);
    }
}

/// `out` is `[rows.shown, columns.shown, 3]`.
fn resample(scratch: &mut Scratch, rows: &Axis, columns: &Axis, interpolation: Interpolation, out: &mut [u8]) {
    if columns.shown == 0 || rows.shown == 0 {
        return;
    }
    scratch.resampler.run(&scratch.pixels, rows, columns, interpolation, out);
}

#[cfg(test)]
mod tests {
    use super::super::preprocess::Resize;
    use super::*;
    use proptest::prelude::*;

    fn picture(height: u32, width: u32) -> Scratch {
        let pixels = (0..height * width * 3).map(|i| (i.wrapping_mul(2_654_435_761) >> 21) as u8).collect();
        Scratch { pixels, ..Scratch::default() }
    }

    fn run(size: (u32, u32), resize: Resize, crop: Option<[u32; 2]>) -> Vec<u8> {
        let pre = Preprocess { resize, crop, ..Preprocess::default() };
        let (height, width) = pre.output_size();
        let mut out = vec![7; (height * width * 3) as usize];
        resize_into(&mut picture(size.0, size.1), size, &pre, &mut out);
        out
    }

    #[test]
    fn a_picture_of_the_right_size_is_copied() {
        assert_eq!(run((20, 30), Resize::Exact([20, 30]), None), picture(20, 30).pixels);
        assert_eq!(run((20, 20), Resize::Shorter(20), None), picture(20, 20).pixels);
    }

    #[test]
    fn an_unscaled_crop_copies_the_centre() {
        let out = run((4, 7), Resize::Shorter(4), Some([2, 3]));
        let all = picture(4, 7).pixels;
        let expected: Vec<u8> = [1, 2].iter().flat_map(|row| all[(row * 7 + 2) * 3..][..9].to_vec()).collect();
        assert_eq!(out, expected);
    }

    #[test]
    fn padding_is_black_and_centred() {
        let out = run((2, 2), Resize::Exact([2, 2]), Some([5, 4]));
        let all = picture(2, 2).pixels;
        assert_eq!(out[..12], [0; 12], "one row above, two below");
        assert_eq!(out[12..24], [&[0; 3], &all[..6], &[0; 3]].concat());
        assert_eq!(out[36..], [0; 24]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn resizing_the_region_equals_resizing_all_and_cropping(
            height in 8u32..90, width in 8u32..90, side in 8u32..60, crop_height in 1u32..60, crop_width in 1u32..60,
        ) {
            let whole = Preprocess { resize: Resize::Shorter(side), crop: None, ..Preprocess::default() };
            let (rows, columns) = whole.plan((height, width));
            let (all_height, all_width) = (rows.resized as u32, columns.resized as u32);
            let all = run((height, width), Resize::Exact([all_height, all_width]), None);
            let cropped = run((height, width), Resize::Shorter(side), Some([crop_height, crop_width]));
            let pre = Preprocess { resize: Resize::Shorter(side), crop: Some([crop_height, crop_width]), ..whole };
            let (rows, columns) = pre.plan((height, width));
            for y in 0..rows.shown {
                let from = ((rows.from as u32 + y) * all_width + columns.from as u32) as usize * 3;
                let to = ((rows.at + y) * crop_width + columns.at) as usize * 3;
                let row = columns.shown as usize * 3;
                prop_assert_eq!(&cropped[to..to + row], &all[from..from + row]);
            }
        }
    }
}
