//! From a picture's pixels to a detector's input: resized without antialiasing, normalised, padded.
//!
//! Must not know networks. A port of torchvision's `GeneralizedRCNNTransform` (`F.interpolate(mode="bilinear", align_corners=False)` of
//! the normalised picture) and of YOLOX's letterbox. It stands apart from `image`, whose resampling is Pillow's, antialiased: detectors
//! were trained without, and a box is not where it was when its picture was smoothed first.

use super::boxes::Box4;

/// Sides of a batch are multiples of this.
const DIVISOR: u32 = 32;

/// A picture as it was decoded, upright: `[height, width, 3]`.
#[derive(Debug, Clone, Copy)]
pub struct Picture<'a> {
    /// `(height, width)` in pixels.
    pub size: (u32, u32),
    /// Rows from the top, red first.
    pub pixels: &'a [u8],
}

/// A picture in the size a detector looks at.
#[derive(Debug, Clone, PartialEq)]
pub struct Resized {
    /// `(height, width)` of the original.
    pub original: (u32, u32),
    /// `(height, width)` of `pixels`.
    pub size: (u32, u32),
    /// `[3, height, width]`, red first.
    pub pixels: Vec<f32>,
}

impl Resized {
    /// The size with its sides made multiples of 32, `(height, width)`.
    #[must_use]
    pub fn padded(&self) -> (u32, u32) {
        (self.size.0.next_multiple_of(DIVISOR), self.size.1.next_multiple_of(DIVISOR))
    }

    /// Copies the pixels to the top left of `out`, `[3, H, W]` of [`Resized::padded`]; the rest is left as it is.
    pub fn copy_into(&self, out: &mut [f32]) {
        let (height, width) = (self.size.0 as usize, self.size.1 as usize);
        let (padded_height, padded_width) = (self.padded().0 as usize, self.padded().1 as usize);
        let planes = self.pixels.chunks_exact(height * width).zip(out.chunks_exact_mut(padded_height * padded_width));
        for (from, to) in planes {
            for (from, to) in from.chunks_exact(width).zip(to.chunks_exact_mut(padded_width)) {
                to[..width].copy_from_slice(from);
            }
        }
    }

    /// A box of this size in pixels of the original: torchvision's `resize_boxes`.
    #[must_use]
    pub fn to_original(&self, b: Box4) -> Box4 {
        let y = self.original.0 as f32 / self.size.0 as f32;
        let x = self.original.1 as f32 / self.size.1 as f32;
        [b[0] * x, b[1] * y, b[2] * x, b[3] * y]
    }
}

/// The size in which the shorter side has `min` pixels, or the longer one `max` where that is less: `(height, width)`.
#[must_use]
pub fn fit((height, width): (u32, u32), min: u32, max: u32) -> (u32, u32) {
    let (short, long) = (height.min(width), height.max(width));
    let scale = (f64::from(min) / f64::from(short)).min(f64::from(max) / f64::from(long));
    let scaled = |side: u32| ((f64::from(side) * scale).floor() as u32).max(1);
    (scaled(height), scaled(width))
}

/// What a byte of each channel means to a network.
#[derive(Debug, Clone, PartialEq)]
pub struct Table([[f32; 256]; 3]);

impl Table {
    /// `(byte / 255 - mean) / std`, rounded as torch rounds it.
    #[must_use]
    pub fn normalised(mean: [f32; 3], std: [f32; 3]) -> Self {
        let of = |c: usize| std::array::from_fn(|byte| (byte as f32 / 255.0 - mean[c]) / std[c]);
        Self([of(0), of(1), of(2)])
    }

    /// The byte itself.
    #[must_use]
    pub fn plain() -> Self {
        Self([std::array::from_fn(|byte| byte as f32); 3])
    }
}

/// For each pixel of an axis: the two pixels it lies between, and the share of the second.
fn axis(from: u32, to: u32) -> Vec<(usize, usize, f32)> {
    let scale = from as f32 / to as f32;
    let last = from as usize - 1;
    let one = |index: u32| {
        let real = (scale * (index as f32 + 0.5) - 0.5).max(0.0);
        let first = (real.floor() as usize).min(last);
        (first, (first + 1).min(last), (real - first as f32).clamp(0.0, 1.0))
    };
    (0..to).map(one).collect()
}

/// The picture at `size`, its bytes read through `table` first: `[3, height, width]`.
#[must_use]
pub fn resize(picture: Picture<'_>, size: (u32, u32), table: &Table) -> Resized {
    let (rows, columns) = (axis(picture.size.0, size.0), axis(picture.size.1, size.1));
    let mut pixels = vec![0.0; 3 * rows.len() * columns.len()];
    let row_bytes = picture.size.1 as usize * 3;
    let mut across =
        Across { row_bytes, columns: &columns, kept: [(usize::MAX, Vec::new()), (usize::MAX, Vec::new())] };
    let area = rows.len() * columns.len();
    for (y, &(first, second, share)) in rows.iter().enumerate() {
        let [above, below] = across.rows(picture.pixels, [first, second], table);
        for c in 0..3 {
            let out = &mut pixels[c * area + y * columns.len()..][..columns.len()];
            let source = c * columns.len()..(c + 1) * columns.len();
            for ((out, a), b) in out.iter_mut().zip(&above[source.clone()]).zip(&below[source]) {
                *out = (1.0 - share) * a + share * b;
            }
        }
    }
    Resized { original: picture.size, size, pixels }
}

/// Rows resized across, the last two of them kept: a row is needed for several of the output.
struct Across<'a> {
    row_bytes: usize,
    columns: &'a [(usize, usize, f32)],
    /// A row's number and its `[3, width]`.
    kept: [(usize, Vec<f32>); 2],
}

impl Across<'_> {
    fn rows(&mut self, pixels: &[u8], wanted: [usize; 2], table: &Table) -> [&[f32]; 2] {
        if self.kept[1].0 == wanted[0] {
            self.kept.swap(0, 1);
        }
        for (slot, row) in wanted.into_iter().enumerate() {
            if self.kept[slot].0 != row {
                self.kept[slot].0 = row;
                let bytes = &pixels[row * self.row_bytes..][..self.row_bytes];
                Self::across(bytes, self.columns, table, &mut self.kept[slot].1);
            }
        }
        [&self.kept[0].1, &self.kept[1].1]
    }

    fn across(bytes: &[u8], columns: &[(usize, usize, f32)], table: &Table, out: &mut Vec<f32>) {
        out.clear();
        for (c, table) in table.0.iter().enumerate() {
            let value = |at: usize| table[usize::from(bytes[3 * at + c])];
            out.extend(columns.iter().map(|&(a, b, share)| (1.0 - share) * value(a) + share * value(b)));
        }
    }
}

/// A picture in the top left corner of a square, the rest of it grey.
#[derive(Debug, Clone, PartialEq)]
pub struct Letterbox {
    /// `(height, width)` of the original.
    pub original: (u32, u32),
    /// Pixels of the square for one of the original.
    pub scale: f32,
    /// `[side, side, 3]`, red first.
    pub pixels: Vec<u8>,
}

/// What YOLOX paints where the picture isn't.
const GREY: u8 = 114;

/// The picture, at most `(height, width)` large, where its proportions leave it.
#[must_use]
pub fn letterbox(picture: Picture<'_>, (height, width): (u32, u32)) -> Letterbox {
    let scale = (f64::from(height) / f64::from(picture.size.0)).min(f64::from(width) / f64::from(picture.size.1));
    let side = |side: u32, most: u32| ((f64::from(side) * scale) as u32).clamp(1, most);
    let size = (side(picture.size.0, height), side(picture.size.1, width));
    let resized = resize(picture, size, &Table::plain());
    let mut pixels = vec![GREY; height as usize * width as usize * 3];
    let area = size.0 as usize * size.1 as usize;
    let rows = pixels.chunks_exact_mut(width as usize * 3).take(size.0 as usize);
    for (y, row) in rows.enumerate() {
        for (x, pixel) in row.chunks_exact_mut(3).take(size.1 as usize).enumerate() {
            for (c, byte) in pixel.iter_mut().enumerate() {
                *byte = resized.pixels[c * area + y * size.1 as usize + x].round() as u8;
            }
        }
    }
    Letterbox { original: picture.size, scale: scale as f32, pixels }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `[height, width, 3]` of a formula that Python can repeat.
    fn picture(height: u32, width: u32) -> Vec<u8> {
        (0..height * width * 3).map(|i| (i.wrapping_mul(2_654_435_761) >> 21) as u8).collect()
    }

    #[test]
    fn sizes_are_torchvisions() {
        assert_eq!(fit((480, 640), 800, 1333), (800, 1066), "the shorter side decides");
        assert_eq!(fit((427, 640), 800, 1333), (800, 1199));
        assert_eq!(fit((300, 900), 800, 1333), (444, 1333), "the longer side decides");
        assert_eq!(fit((1, 5000), 800, 1333), (1, 1333), "no side is 0");
    }

    #[test]
    fn pixels_are_those_of_torchs_interpolate() {
        // x = torch.tensor([...]).view(5, 7, 3).permute(2, 0, 1) / 255; x = (x - mean) / std
        // F.interpolate(x[None], size=(8, 9), mode="bilinear", align_corners=False)[0]
        let pixels = picture(5, 7);
        let table = Table::normalised([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
        let resized = resize(Picture { size: (5, 7), pixels: &pixels }, (8, 9), &table);
        let expected = include!("../../tests/fixtures/detector/interpolate.txt");
        assert_eq!(resized.pixels.len(), expected.len());
        for (at, (found, torch)) in resized.pixels.iter().zip(expected).enumerate() {
            let torch: f32 = torch;
            assert!((found - torch).abs() <= 1e-6, "{at}: {found} {torch}");
        }
    }

    #[test]
    fn a_picture_of_the_right_size_keeps_its_pixels() {
        let pixels = picture(3, 4);
        let resized = resize(Picture { size: (3, 4), pixels: &pixels }, (3, 4), &Table::plain());
        let back: Vec<u8> = (0..12).flat_map(|at| [0, 1, 2].map(|c| resized.pixels[c * 12 + at] as u8)).collect();
        assert_eq!(back, pixels);
    }

    #[test]
    fn padding_goes_right_and_below() {
        let resized = Resized { original: (2, 2), size: (1, 2), pixels: vec![1., 2., 3., 4., 5., 6.] };
        assert_eq!(resized.padded(), (32, 32));
        let mut out = vec![0.0; 3 * 32 * 32];
        resized.copy_into(&mut out);
        assert_eq!((out[0], out[1], out[2], out[32], out[1024], out[2049]), (1., 2., 0., 0., 3., 6.));
        assert_eq!(resized.to_original([0.0, 0.0, 2.0, 1.0]), [0.0, 0.0, 2.0, 2.0]);
    }

    #[test]
    fn a_letterbox_is_grey_where_the_picture_is_not() {
        let pixels = [200; 4 * 8 * 3];
        let boxed = letterbox(Picture { size: (4, 8), pixels: &pixels }, (16, 16));
        assert_eq!(boxed.scale, 2.0);
        assert_eq!(boxed.pixels[..16 * 3 * 8], [200; 16 * 3 * 8]);
        assert_eq!(boxed.pixels[16 * 3 * 8..], [GREY; 16 * 3 * 8]);
    }
}
