//! Resamples the part of a picture that the output shows, straight into the output.
//!
//! Decision: only the region that the crop shows is resampled. A filter's weights depend on coordinates alone, and still
//! read the pixels around the region, so the result is that of resizing all and cropping, to the bit.

use super::Scratch;
use super::preprocess::{Axis, Interpolation, Preprocess};

/// Writes what `(rows, columns)` show of the picture in `scratch.pixels`, which is `width` wide, into `out`, `[H, W, 3]`.
pub(super) fn resize_into(
    scratch: &mut Scratch,
    width: u32,
    (rows, columns): (Axis, Axis),
    pre: &Preprocess,
    out: &mut [u8],
) {
    let (out_height, out_width) = pre.output_size();
    if (rows.shown, columns.shown) == (out_height, out_width) {
        resample(scratch, width, &rows, &columns, pre.interpolation, out);
        return;
    }
    let mut region = std::mem::take(&mut scratch.side);
    region.clear();
    region.resize(rows.shown as usize * columns.shown as usize * 3, 0);
    resample(scratch, width, &rows, &columns, pre.interpolation, &mut region);
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
fn resample(
    scratch: &mut Scratch,
    width: u32,
    rows: &Axis,
    columns: &Axis,
    interpolation: Interpolation,
    out: &mut [u8],
) {
    if columns.shown == 0 || rows.shown == 0 {
        return;
    }
    scratch.resampler.run(&scratch.pixels, width, rows, columns, interpolation, out);
}

/// Mirrors every row of `pixels`, `[H, W, 3]`, left to right.
pub(super) fn mirror(pixels: &mut [u8], width: u32) {
    for row in pixels.chunks_exact_mut(width as usize * 3) {
        row.as_chunks_mut::<3>().0.reverse();
    }
}

#[cfg(test)]
mod tests {
    use super::super::View;
    use super::super::preprocess::{Anchor, Resize};
    use super::*;
    use proptest::prelude::*;

    fn picture(height: u32, width: u32) -> Scratch {
        let pixels = (0..height * width * 3).map(|i| (i.wrapping_mul(2_654_435_761) >> 21) as u8).collect();
        Scratch { pixels, ..Scratch::default() }
    }

    fn see(view: View, size: (u32, u32), pre: &Preprocess) -> Vec<u8> {
        let (height, width) = pre.output_size();
        let mut out = vec![7; (height * width * 3) as usize];
        resize_into(&mut picture(size.0, size.1), size.1, view.axes(pre, size, b"bytes"), pre, &mut out);
        out
    }

    fn run(size: (u32, u32), resize: Resize, crop: Option<[u32; 2]>) -> Vec<u8> {
        see(View::Center, size, &Preprocess { resize, crop, ..Preprocess::default() })
    }

    #[test]
    fn a_mirror_swaps_left_and_right() {
        let mut pixels = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        mirror(&mut pixels, 2);
        assert_eq!(pixels, [4, 5, 6, 1, 2, 3, 10, 11, 12, 7, 8, 9]);
    }

    #[test]
    fn the_four_corners_of_an_unscaled_picture() {
        let pre = Preprocess { resize: Resize::Shorter(3), crop: Some([2, 2]), ..Preprocess::default() };
        let all = picture(3, 5).pixels;
        let at = |top: usize, left: usize| {
            [top, top + 1].iter().flat_map(|row| all[(row * 5 + left) * 3..][..6].to_vec()).collect::<Vec<u8>>()
        };
        for (bottom, right, top, left) in
            [(false, false, 0, 0), (false, true, 0, 3), (true, false, 1, 0), (true, true, 1, 3)]
        {
            assert_eq!(see(View::Corner { bottom, right }, (3, 5), &pre), at(top, left));
        }
    }

    /// A part of the picture is resized as a picture of its own: no pixel of its neighbours is read.
    #[test]
    fn a_tile_is_the_picture_cut_and_then_resized() {
        let pre = Preprocess { resize: Resize::Exact([6, 9]), crop: None, ..Preprocess::default() };
        let (height, width) = (17, 23);
        let all = picture(height, width).pixels;
        for (row, column, box_rows, box_columns) in [(0, 0, 0..8, 0..7), (1, 1, 8..17, 7..15), (1, 2, 8..17, 15..23)] {
            let found = see(View::Tile { row, column, rows: 2, columns: 3 }, (height, width), &pre);
            let cut: Vec<u8> = box_rows
                .clone()
                .flat_map(|y: usize| {
                    all[(y * width as usize + box_columns.start) * 3..][..box_columns.len() * 3].to_vec()
                })
                .collect();
            let size = (box_rows.len() as u32, box_columns.len() as u32);
            let mut alone = Scratch { pixels: cut, ..Scratch::default() };
            let mut expected = vec![0; 6 * 9 * 3];
            resize_into(&mut alone, size.1, View::Whole.axes(&pre, size, b""), &pre, &mut expected);
            assert_eq!(found, expected, "tile {row},{column}");
        }
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
            let (rows, columns) = whole.plan((height, width), Anchor::Centre, Anchor::Centre);
            let (all_height, all_width) = (rows.resized as u32, columns.resized as u32);
            let all = run((height, width), Resize::Exact([all_height, all_width]), None);
            let cropped = run((height, width), Resize::Shorter(side), Some([crop_height, crop_width]));
            let pre = Preprocess { resize: Resize::Shorter(side), crop: Some([crop_height, crop_width]), ..whole };
            let (rows, columns) = pre.plan((height, width), Anchor::Centre, Anchor::Centre);
            for y in 0..rows.shown {
                let from = ((rows.from as u32 + y) * all_width + columns.from as u32) as usize * 3;
                let to = ((rows.at + y) * crop_width + columns.at) as usize * 3;
                let row = columns.shown as usize * 3;
                prop_assert_eq!(&cropped[to..to + row], &all[from..from + row]);
            }
        }
    }
}
