//! PNG, WebP, GIF (its first frame) and BMP to RGB, through the `image` crate.
//!
//! Decision: the format is told by the first bytes, never by a name: downloads lie.

use std::io::Cursor;

use image::codecs::{bmp::BmpDecoder, gif::GifDecoder, png::PngDecoder, webp::WebPDecoder};
use image::error::{ImageError as DecoderError, ImageFormatHint};
use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, ImageFormat};

use super::{ImageError, Scratch, check_size};

/// Leaves the picture as stored in `scratch.pixels`; returns width, height and how to turn it.
pub(super) fn decode(
    bytes: &[u8],
    max_pixels: u64,
    scratch: &mut Scratch,
) -> Result<(u32, u32, Orientation), ImageError> {
    let format = recognise(bytes)?;
    let reader = Cursor::new(bytes);
    let name = name(format);
    let failed = |error| complaint(name, bytes, error);
    match format {
        ImageFormat::Png => read(PngDecoder::new(reader).map_err(failed)?, name, bytes, max_pixels, scratch),
        ImageFormat::WebP => read(WebPDecoder::new(reader).map_err(failed)?, name, bytes, max_pixels, scratch),
        ImageFormat::Gif => read(GifDecoder::new(reader).map_err(failed)?, name, bytes, max_pixels, scratch),
        ImageFormat::Bmp => read(BmpDecoder::new(reader).map_err(failed)?, name, bytes, max_pixels, scratch),
        _ => Err(ImageError::unsupported(name)),
    }
}

fn recognise(bytes: &[u8]) -> Result<ImageFormat, ImageError> {
    if let Ok(format) = image::guess_format(bytes) {
        return Ok(format);
    }
    // Containers that `image` does not tell from their first bytes.
    match bytes.get(4..12) {
        Some(b"ftypheic" | b"ftypheix" | b"ftypmif1" | b"ftypmsf1") => {
            return Err(ImageError::unsupported("HEIC"));
        }
        Some(b"JXL \r\n\x87\n") => return Err(ImageError::unsupported("JPEG XL")),
        Some(b"jP  \r\n\x87\n") => return Err(ImageError::unsupported("JPEG 2000")),
        _ if bytes.starts_with(&[0xff, 0x0a]) => return Err(ImageError::unsupported("JPEG XL")),
        _ => {}
    }
    let start = bytes[..bytes.len().min(16)].escape_ascii().to_string();
    Err(ImageError::NotAnImage { start })
}

fn name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Png => "PNG",
        ImageFormat::WebP => "WebP",
        ImageFormat::Gif => "GIF",
        ImageFormat::Bmp => "BMP",
        other => other.extensions_str().first().copied().unwrap_or("image"),
    }
}

fn read(
    mut decoder: impl ImageDecoder,
    name: &'static str,
    bytes: &[u8],
    max_pixels: u64,
    scratch: &mut Scratch,
) -> Result<(u32, u32, Orientation), ImageError> {
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(ImageError::damaged(name, "a side is zero"));
    }
    check_size(width, height, max_pixels)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let color = decoder.color_type();
    let mut stored = std::mem::take(&mut scratch.side);
    stored.clear();
    stored.resize(width as usize * height as usize * usize::from(color.bytes_per_pixel()), 0);
    let result = decoder.read_image(&mut stored).map_err(|error| complaint(name, bytes, error));
    let converted = result.and_then(|()| to_rgb(&stored, color, &mut scratch.pixels));
    scratch.side = stored;
    converted.map(|()| (width, height, orientation))
}

/// Grey is tripled, alpha dropped, 16 bits cut to the high 8 (Pillow's `RGB;16B`).
fn to_rgb(stored: &[u8], color: ColorType, out: &mut Vec<u8>) -> Result<(), ImageError> {
    out.clear();
    let high = |pair: [u8; 2]| (u16::from_ne_bytes(pair) >> 8) as u8;
    match color {
        ColorType::Rgb8 => out.extend_from_slice(stored),
        ColorType::Rgba8 => out.extend(stored.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]])),
        ColorType::L8 => out.extend(stored.iter().flat_map(|&grey| [grey; 3])),
        ColorType::La8 => out.extend(stored.chunks_exact(2).flat_map(|p| [p[0]; 3])),
        ColorType::L16 => out.extend(stored.chunks_exact(2).flat_map(|p| [high([p[0], p[1]]); 3])),
        ColorType::La16 => out.extend(stored.chunks_exact(4).flat_map(|p| [high([p[0], p[1]]); 3])),
        ColorType::Rgb16 => out.extend(stored.chunks_exact(2).map(|p| high([p[0], p[1]]))),
        ColorType::Rgba16 => {
            let pixels = stored.chunks_exact(8);
            out.extend(pixels.flat_map(|p| [high([p[0], p[1]]), high([p[2], p[3]]), high([p[4], p[5]])]));
        }
        other => return Err(ImageError::unsupported(format!("pixels of {other:?}"))),
    }
    Ok(())
}

/// A decoder's error as icecap's: cut off, of a kind not read, or damaged.
fn complaint(format: &'static str, bytes: &[u8], error: DecoderError) -> ImageError {
    if is_cut(bytes, &error) {
        return ImageError::Truncated { format, bytes: bytes.len() };
    }
    match error {
        DecoderError::Unsupported(error) => match error.format_hint() {
            ImageFormatHint::Unknown => ImageError::unsupported(format),
            _ => ImageError::unsupported(error.to_string()),
        },
        DecoderError::Decoding(error) => ImageError::damaged(format, error.to_string()),
        error => ImageError::damaged(format, error),
    }
}

/// Did decoding fail because the file is cut? Some decoders say so, others only that the data is bad; then the container
/// tells: WebP has its length in front, GIF a trailer behind.
fn is_cut(bytes: &[u8], error: &DecoderError) -> bool {
    if let DecoderError::IoError(error) = error {
        return error.kind() == std::io::ErrorKind::UnexpectedEof;
    }
    match bytes {
        [b'R', b'I', b'F', b'F', a, b, c, d, ..] => u32::from_le_bytes([*a, *b, *c, *d]) as usize + 8 > bytes.len(),
        [b'G', b'I', b'F', .., last] => *last != b';',
        _ => false,
    }
}
