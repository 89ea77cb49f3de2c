//! What a recipe says about resizing, and the arithmetic that torchvision derives from it.
//!
//! It holds no pixels: sizes in, sizes and rectangles out, so that each rounding rule is testable by itself.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ImageError;

/// Version of decoding and resizing: goes into every column's key, and is raised when any pixel comes out differently.
pub const IMPLEMENTATION: u32 = 1;

/// The same of `decode = "fast"`, for the columns that use it.
const FAST_VERSION: u32 = 1;

/// The largest side a recipe may ask for, in pixels.
const MAX_SIDE: u32 = 16_384;

/// How a picture becomes the encoder's input: torchvision's `Resize(antialias=True)` and `CenterCrop`.
///
/// ```toml
/// resize = 256                 # the shorter side; or [height, width]
/// crop = [224, 224]            # [height, width], from the centre
/// interpolation = "bilinear"
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocess {
    /// The size before the crop.
    pub resize: Resize,
    /// `[height, width]` cut from the centre, padded with black where the picture is smaller. Without it, a shorter
    /// side of `N` means the centre `[N, N]`: an encoder's input has one shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop: Option<[u32; 2]>,
    /// The filter.
    #[serde(default)]
    pub interpolation: Interpolation,
    /// Pictures of more pixels are missing rows with the reason `too-large`. Guards against decompression bombs.
    #[serde(default = "default_max_pixels")]
    pub max_pixels: u64,
    /// How much of a JPEG is decoded.
    #[serde(default, skip_serializing_if = "Decode::is_exact")]
    pub decode: Decode,
}

/// How much of a JPEG is decoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decode {
    /// All of it.
    #[default]
    Exact,
    /// At a half, a quarter or an eighth of its size, where that is still twice what is made of it.
    Fast,
}

impl Decode {
    fn is_exact(&self) -> bool {
        *self == Self::Exact
    }
}

/// The size before the crop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number (the shorter side) or [height, width]")]
pub enum Resize {
    /// The shorter side gets this many pixels; the longer follows, rounded down.
    Shorter(u32),
    /// `[height, width]`, whatever the picture's proportions.
    Exact([u32; 2]),
}

/// The resampling filter, antialiased when shrinking, as Pillow defines each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interpolation {
    /// Triangle, support 1.
    #[default]
    Bilinear,
    /// Keys' cubic with a = -0.5, support 2.
    Bicubic,
    /// Lanczos, support 3.
    Lanczos,
}

impl Default for Preprocess {
    /// torchvision's ImageNet evaluation: shorter side 256, centre 224, bilinear.
    fn default() -> Self {
        Self {
            resize: Resize::Shorter(256),
            crop: Some([224, 224]),
            interpolation: Interpolation::default(),
            max_pixels: default_max_pixels(),
            decode: Decode::Exact,
        }
    }
}

fn default_max_pixels() -> u64 {
    100_000_000
}

impl Preprocess {
    /// `(height, width)` of every output, in pixels.
    pub fn output_size(&self) -> (u32, u32) {
        match (self.crop, self.resize) {
            (Some([height, width]), _) | (None, Resize::Exact([height, width])) => (height, width),
            (None, Resize::Shorter(side)) => (side, side),
        }
    }

    /// Refuses sides of zero and sides beyond reason.
    ///
    /// # Errors
    /// [`ImageError::Setting`] names the key and its value.
    pub fn validate(&self) -> Result<(), ImageError> {
        let bad = |sides: &[u32]| sides.iter().any(|side| !(1..=MAX_SIDE).contains(side));
        let setting = |key, value: String| Err(ImageError::Setting { key, value, max: MAX_SIDE });
        match self.resize {
            Resize::Shorter(side) if bad(&[side]) => return setting("resize", side.to_string()),
            Resize::Exact(sides) if bad(&sides) => return setting("resize", format!("{sides:?}")),
            _ => {}
        }
        match self.crop {
            Some(sides) if bad(&sides) => setting("crop", format!("{sides:?}")),
            _ => Ok(()),
        }
    }

    /// Everything here that decides a column's bytes, for its key. `max_pixels` is in: it decides which rows are missing.
    pub fn key_fields(&self) -> Vec<(String, Value)> {
        let (height, width) = self.output_size();
        let mut fields = vec![
            ("image.implementation", json!(IMPLEMENTATION)),
            ("image.resize", json!(self.resize)),
            ("image.crop", json!([height, width])),
            ("image.interpolation", json!(self.interpolation)),
            ("image.max_pixels", json!(self.max_pixels)),
        ];
        // Columns made before there was a choice have no such field, and keep their keys.
        if self.decode == Decode::Fast {
            fields.push(("image.decode", json!(format!("fast {FAST_VERSION}"))));
        }
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Where the output comes from, for a picture of `(height, width)` whose crop lies at `down` and `across`: one [`Axis`]
    /// each.
    pub(super) fn plan(&self, (height, width): (u32, u32), down: Anchor, across: Anchor) -> (Axis, Axis) {
        let (resized_height, resized_width) = self.resized((height, width));
        let (out_height, out_width) = self.output_size();
        (Axis::new(height, resized_height, out_height, down), Axis::new(width, resized_width, out_width, across))
    }

    /// torchvision's `_compute_resized_image_output_size`: the long side is `int(size * long / short)`.
    fn resized(&self, (height, width): (u32, u32)) -> (u64, u64) {
        match self.resize {
            Resize::Exact([height, width]) => (height.into(), width.into()),
            Resize::Shorter(side) => {
                let long = |long: u32, short: u32| (f64::from(side) * f64::from(long) / f64::from(short)) as u64;
                if width <= height { (long(height, width), side.into()) } else { (side.into(), long(width, height)) }
            }
        }
    }
}

/// Which part of the resized picture a crop keeps, along one axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    /// From the top, or the left.
    Start,
    /// The middle.
    Centre,
    /// Up to the bottom, or the right.
    End,
}

/// One axis of the way from the picture to the output.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Axis {
    /// The first pixel of the picture that is looked at. The filter reads none before it: a part is resized as if the
    /// picture had been cut first.
    pub offset: u32,
    /// Pixels of the picture that are looked at.
    pub source: u32,
    /// Pixels after the resize.
    pub resized: u64,
    /// First pixel of the resized picture that the output shows.
    pub from: u64,
    /// How many it shows.
    pub shown: u32,
    /// Where in the output they begin; what is before and after is black.
    pub at: u32,
}

impl Axis {
    /// In the centre torchvision's `center_crop`: pads `(crop - size) // 2` in front, else begins at Python's
    /// `round((size - crop) / 2)`. At an end its `five_crop`; a picture smaller than the crop lies at that end of the black.
    fn new(source: u32, resized: u64, out: u32, anchor: Anchor) -> Self {
        let (from, shown, at) = match u64::from(out).checked_sub(resized) {
            Some(missing) => (0, out - missing as u32, anchor.padding(missing as u32)),
            None => (anchor.start(resized - u64::from(out)), out, 0),
        };
        Self { offset: 0, source, resized, from, shown, at }
    }

    /// `length` pixels of the picture from `offset` on, resized to all of the output.
    pub fn squeezed(offset: u32, length: u32, out: u32) -> Self {
        Self { offset, source: length, resized: out.into(), from: 0, shown: out, at: 0 }
    }

    /// The same axis of a picture that was decoded at `decoded` pixels in the place of `original`.
    pub fn of_decoded(self, original: u32, decoded: u32) -> Self {
        let at = |pixel: u32| (u64::from(pixel) * u64::from(decoded) + u64::from(original / 2)) / u64::from(original);
        let offset = at(self.offset).min(u64::from(decoded) - 1) as u32;
        let end = at(self.offset + self.source).clamp(u64::from(offset) + 1, decoded.into()) as u32;
        Self { offset, source: end - offset, ..self }
    }

    /// How many pixels are looked at for one that is made.
    pub fn shrinks(&self) -> u64 {
        u64::from(self.source) / self.resized.max(1)
    }

    /// No resampling on this axis?
    pub fn is_unscaled(&self) -> bool {
        u64::from(self.source) == self.resized
    }
}

impl Anchor {
    /// Black pixels in front, of `missing` ones.
    fn padding(self, missing: u32) -> u32 {
        match self {
            Self::Start => 0,
            Self::Centre => missing / 2,
            Self::End => missing,
        }
    }

    /// The first pixel that is kept, where `spare` ones are not.
    fn start(self, spare: u64) -> u64 {
        match self {
            Self::Start => 0,
            Self::Centre => (spare as f64 / 2.0).round_ties_even() as u64,
            Self::End => spare,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shorter(side: u32, crop: Option<[u32; 2]>) -> Preprocess {
        Preprocess { resize: Resize::Shorter(side), crop, ..Preprocess::default() }
    }

    #[test]
    fn the_long_side_is_rounded_down() {
        // torchvision.transforms.functional._compute_resized_image_output_size((375, 500), [256]) == [256, 341]
        assert_eq!(shorter(256, None).resized((375, 500)), (256, 341));
        assert_eq!(shorter(256, None).resized((500, 333)), (384, 256));
        assert_eq!(shorter(256, None).resized((7, 7)), (256, 256));
    }

    #[test]
    fn the_crop_rounds_half_to_even() {
        assert_eq!(Axis::new(1, 225, 224, Anchor::Centre).from, 0, "round(0.5) == 0");
        assert_eq!(Axis::new(1, 227, 224, Anchor::Centre).from, 2, "round(1.5) == 2");
        assert_eq!(Axis::new(1, 229, 224, Anchor::Centre).from, 2, "round(2.5) == 2");
        assert_eq!(Axis::new(1, 341, 224, Anchor::Centre).from, 58, "round(58.5) == 58");
    }

    #[test]
    fn a_picture_smaller_than_the_crop_is_padded() {
        let axis = Axis::new(10, 10, 15, Anchor::Centre);
        assert_eq!((axis.from, axis.shown, axis.at), (0, 10, 2));
    }

    #[test]
    fn corners_begin_and_end_with_the_picture() {
        let of = |resized, anchor| {
            let axis = Axis::new(1, resized, 224, anchor);
            (axis.from, axis.shown, axis.at)
        };
        assert_eq!((of(341, Anchor::Start), of(341, Anchor::End)), ((0, 224, 0), (117, 224, 0)));
        assert_eq!((of(200, Anchor::Start), of(200, Anchor::End)), ((0, 200, 0), (0, 200, 24)));
    }

    #[test]
    fn an_absurd_shape_stays_in_bounds() {
        let (rows, columns) = shorter(128, Some([224, 224])).plan((1, 65_535), Anchor::Centre, Anchor::Centre);
        assert_eq!((rows.shown, columns.shown), (128, 224));
        assert_eq!((columns.resized, columns.from), (128 * 65_535, 64 * 65_535 - 112));
    }

    #[test]
    fn the_output_is_square_without_a_crop() {
        assert_eq!(shorter(96, None).output_size(), (96, 96));
        assert_eq!(shorter(96, Some([32, 64])).output_size(), (32, 64));
    }

    #[test]
    fn sizes_are_checked() {
        let error = shorter(0, None).validate().unwrap_err();
        insta::assert_snapshot!(error, @r"
        `resize = 0` cannot be used
        hint: a side is between 1 and 16384 pixels
        ");
        assert!(shorter(8, Some([4, 1_000_000])).validate().is_err());
        assert!(shorter(8, Some([4, 9])).validate().is_ok());
    }

    #[test]
    fn it_reads_from_toml_and_refuses_the_unknown() {
        let parse = toml::from_str::<Preprocess>;
        assert_eq!(parse("resize = 64").unwrap(), Preprocess { crop: None, ..shorter(64, None) });
        let full = parse("resize = [32, 48]\ninterpolation = \"bicubic\"\nmax_pixels = 10").unwrap();
        assert_eq!((full.resize, full.interpolation), (Resize::Exact([32, 48]), Interpolation::Bicubic));
        assert!(parse("resize = 64\nmean = 1").is_err());
        assert!(parse("resize = \"big\"").unwrap_err().to_string().contains("the shorter side"));
    }

    #[test]
    fn the_key_tells_everything_but_spelling() {
        let implied = shorter(64, None).key_fields();
        assert_eq!(implied, shorter(64, Some([64, 64])).key_fields());
        for other in [
            shorter(65, Some([64, 64])),
            shorter(64, Some([64, 63])),
            Preprocess { interpolation: Interpolation::Bicubic, ..shorter(64, None) },
            Preprocess { max_pixels: 1, ..shorter(64, None) },
            Preprocess { decode: Decode::Fast, ..shorter(64, None) },
        ] {
            assert_ne!(implied, other.key_fields());
        }
    }
}
