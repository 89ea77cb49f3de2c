//! A picture small enough to lie in a page: shrunk, and a JPEG again.
//!
//! Must not know: pages. A thumbnail is looked at and never encoded by a network, so it is no view and in no key: its bytes may
//! change with any version.

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

use super::{ImageError, Preprocess, Resize, View, with_picture};

/// JPEG's quality, of 100: what a face of a few pixels still survives.
const QUALITY: u8 = 72;

/// A small JPEG of a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thumbnail {
    /// `(height, width)` of the picture, upright, in pixels.
    pub original_size: (u32, u32),
    /// `(height, width)` of the JPEG.
    pub size: (u32, u32),
    /// The file.
    pub jpeg: Vec<u8>,
}

/// The picture in the file `bytes`, its longer side `side` pixels or fewer.
///
/// # Errors
/// See [`ImageError`].
pub fn thumbnail(bytes: &[u8], side: u32) -> Result<Thumbnail, ImageError> {
    let whole = Preprocess::default();
    let (original_size, size, pixels) = with_picture(bytes, whole.max_pixels, |picture| {
        let original_size = picture.size();
        let size = shrunk(original_size, side);
        if size == original_size {
            return Ok((original_size, size, picture.pixels().to_vec()));
        }
        let mut pixels = vec![0; size.0 as usize * size.1 as usize * 3];
        let fit = Preprocess { resize: Resize::Exact([size.0, size.1]), crop: None, ..whole };
        picture.view(&fit, View::Center, &mut pixels)?;
        Ok((original_size, size, pixels))
    })?;
    let mut jpeg = Vec::new();
    let mut encoder = Encoder::new(&mut jpeg, QUALITY);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.set_optimized_huffman_tables(true);
    let narrow = |side: u32| u16::try_from(side).unwrap_or(u16::MAX);
    encoder
        .encode(&pixels, narrow(size.1), narrow(size.0), ColorType::Rgb)
        .map_err(|error| ImageError::damaged("JPEG", error.to_string()))?;
    Ok(Thumbnail { original_size, size, jpeg })
}

fn shrunk((height, width): (u32, u32), side: u32) -> (u32, u32) {
    let longer = height.max(width).max(1);
    if longer <= side {
        return (height, width);
    }
    let scaled = |length: u32| ((f64::from(length) * f64::from(side) / f64::from(longer)).round() as u32).max(1);
    (scaled(height), scaled(width))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png(width: u32, height: u32) -> Vec<u8> {
        let pixels = image::RgbImage::from_fn(width, height, |x, _| {
            image::Rgb(if x < width / 2 { [200, 30, 30] } else { [20, 40, 210] })
        });
        let mut bytes = Vec::new();
        pixels.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
        bytes
    }

    #[test]
    fn a_thumbnail_is_a_small_jpeg_of_the_same_picture() {
        let small = thumbnail(&png(400, 200), 100).unwrap();
        assert_eq!((small.original_size, small.size), ((200, 400), (50, 100)));
        let mut decoder = jpeg_decoder::Decoder::new(small.jpeg.as_slice());
        let pixels = decoder.decode().unwrap();
        assert_eq!(decoder.info().map(|info| (info.width, info.height)), Some((100, 50)));
        let at = |x: usize| &pixels[(25 * 100 + x) * 3..][..3];
        assert!(at(20)[0] > 150 && at(20)[2] < 90, "{:?}", at(20));
        assert!(at(80)[2] > 150 && at(80)[0] < 90, "{:?}", at(80));
    }

    #[test]
    fn a_small_picture_is_not_blown_up_and_none_vanishes() {
        assert_eq!(thumbnail(&png(30, 20), 100).unwrap().size, (20, 30));
        assert_eq!(thumbnail(&png(900, 2), 100).unwrap().size, (1, 100));
        assert!(thumbnail(b"no picture", 100).is_err());
    }
}
