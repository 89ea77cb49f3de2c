//! Turns a picture upright, as its EXIF orientation says.

use image::metadata::Orientation;

use super::Scratch;

/// Turns `scratch.pixels` (of `width` x `height`) upright; returns the new `(width, height)`.
pub(super) fn upright(scratch: &mut Scratch, width: u32, height: u32, orientation: Orientation) -> (u32, u32) {
    use Orientation::{
        FlipHorizontal, FlipVertical, NoTransforms, Rotate90, Rotate90FlipH, Rotate180, Rotate270, Rotate270FlipH,
    };
    let (w, h) = (width as usize, height as usize);
    // Each closure says which pixel (x, y) of the picture as stored is shown at (x, y) of the upright one.
    match orientation {
        NoTransforms => return (width, height),
        FlipHorizontal => turn(scratch, w, (w, h), |x, y| (w - 1 - x, y)),
        Rotate180 => turn(scratch, w, (w, h), |x, y| (w - 1 - x, h - 1 - y)),
        FlipVertical => turn(scratch, w, (w, h), |x, y| (x, h - 1 - y)),
        Rotate90FlipH => turn(scratch, w, (h, w), |x, y| (y, x)),
        Rotate90 => turn(scratch, w, (h, w), |x, y| (y, h - 1 - x)),
        Rotate270FlipH => turn(scratch, w, (h, w), |x, y| (w - 1 - y, h - 1 - x)),
        Rotate270 => turn(scratch, w, (h, w), |x, y| (w - 1 - y, x)),
    }
    match orientation {
        FlipHorizontal | Rotate180 | FlipVertical | NoTransforms => (width, height),
        Rotate90FlipH | Rotate90 | Rotate270FlipH | Rotate270 => (height, width),
    }
}

fn turn(
    scratch: &mut Scratch,
    stored_width: usize,
    (width, height): (usize, usize),
    from: impl Fn(usize, usize) -> (usize, usize),
) {
    scratch.side.clear();
    scratch.side.reserve(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            let (stored_x, stored_y) = from(x, y);
            let at = (stored_y * stored_width + stored_x) * 3;
            scratch.side.extend_from_slice(&scratch.pixels[at..at + 3]);
        }
    }
    std::mem::swap(&mut scratch.pixels, &mut scratch.side);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Orientation `n` of a 3x2 picture whose pixels are numbered 0 to 5.
    fn turned(exif: u8) -> ((u32, u32), Vec<u8>) {
        let pixels = (0..6).flat_map(|i| [i; 3]).collect();
        let mut scratch = Scratch { pixels, ..Scratch::default() };
        let size = upright(&mut scratch, 3, 2, Orientation::from_exif(exif).unwrap());
        (size, scratch.pixels.chunks_exact(3).map(|pixel| pixel[0]).collect())
    }

    #[test]
    fn each_orientation_is_as_the_standard_draws_it() {
        assert_eq!(turned(1), ((3, 2), vec![0, 1, 2, 3, 4, 5]));
        assert_eq!(turned(2), ((3, 2), vec![2, 1, 0, 5, 4, 3]));
        assert_eq!(turned(3), ((3, 2), vec![5, 4, 3, 2, 1, 0]));
        assert_eq!(turned(4), ((3, 2), vec![3, 4, 5, 0, 1, 2]));
        assert_eq!(turned(5), ((2, 3), vec![0, 3, 1, 4, 2, 5]));
        assert_eq!(turned(6), ((2, 3), vec![3, 0, 4, 1, 5, 2]));
        assert_eq!(turned(7), ((2, 3), vec![5, 2, 4, 1, 3, 0]));
        assert_eq!(turned(8), ((2, 3), vec![2, 5, 1, 4, 0, 3]));
    }
}
