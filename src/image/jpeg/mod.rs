//! JPEG to RGB.
//!
//! Decision: zune-jpeg decodes (SIMD in Rust, and as fast as libjpeg-turbo: 1.1 to 1.2 ms a photograph of Flickr8k against 1.0 to 1.4 ms in
//! Pillow; libjpeg-turbo would need cmake and nasm on every machine that builds). It decodes whole pictures only: [`reduced`] has
//! another crate for parts of their size. [`scan`] looks first at what that decoder leaves to its caller: size against the limit, orientation, and the end.

mod cmyk;
mod reduced;
mod scan;
mod source;

use std::borrow::Cow;
use std::cell::Cell;

use image::metadata::Orientation;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::{ImageError, Scratch, check_size};
pub(super) use reduced::decode_reduced;
pub(super) use scan::Header;
use scan::ScanError;
use source::Source;

/// Leaves the picture as stored in `scratch.pixels`; returns width, height and how to turn it.
pub(super) fn decode(
    bytes: &[u8],
    max_pixels: u64,
    scratch: &mut Scratch,
) -> Result<(u32, u32, Orientation), ImageError> {
    let header = header(bytes, max_pixels)?;
    let bytes = with_known_transform(bytes, &header);
    match header.components {
        4 => {
            let ycck = header.adobe.is_some_and(|(_, transform)| transform != 0);
            let inks = if ycck { ColorSpace::YCCK } else { ColorSpace::CMYK };
            let mut samples = std::mem::take(&mut scratch.side);
            let result = samples_into(&bytes, &header, inks, &mut samples);
            cmyk::to_rgb(&samples, ycck, &mut scratch.pixels);
            scratch.side = samples;
            result?;
        }
        _ => {
            let colors = if stored_as_rgb(&header) { ColorSpace::YCbCr } else { ColorSpace::RGB };
            samples_into(&bytes, &header, colors, &mut scratch.pixels)?;
        }
    }
    Ok((header.width, header.height, header.orientation))
}

/// Whether `bytes` begin as a JPEG does.
pub(super) fn is_jpeg(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xff, 0xd8, 0xff])
}

/// What the segments of a JPEG say, where it is one that icecap reads.
pub(super) fn header(bytes: &[u8], max_pixels: u64) -> Result<Header, ImageError> {
    let header = scan::scan(bytes).map_err(|error| match error {
        ScanError::Truncated => truncated(bytes),
        ScanError::Damaged(what) => ImageError::damaged("JPEG", what),
    })?;
    check_supported(&header)?;
    check_size(header.width, header.height, max_pixels)?;
    Ok(header)
}

fn truncated(bytes: &[u8]) -> ImageError {
    ImageError::Truncated { format: "JPEG", bytes: bytes.len() }
}

fn check_supported(header: &Header) -> Result<(), ImageError> {
    if header.parted {
        // The decoder would leave all but the first at zero, without a word.
        return Err(ImageError::unsupported("sequential JPEG with a scan for each component"));
    }
    let what = match (header.frame, header.precision, header.components) {
        (0..=2, 8, 1 | 3 | 4) => return Ok(()),
        (0..=2, 8, count) => format!("JPEG of {count} components"),
        (0..=2, bits, _) => format!("JPEG of {bits} bits a sample"),
        (3 | 7 | 11 | 15, ..) => "lossless JPEG".to_owned(),
        (9..=14, ..) => "JPEG with arithmetic coding".to_owned(),
        _ => "hierarchical JPEG".to_owned(),
    };
    Err(ImageError::unsupported(what))
}

/// libjpeg's rule for three components without a colour transform: where Adobe's byte says so and no JFIF segment does
/// otherwise. (Component names `R`, `G`, `B` are the decoder's own affair.)
fn stored_as_rgb(header: &Header) -> bool {
    header.components == 3
        && !header.jfif
        && !header.named_rgb
        && header.adobe.is_some_and(|(_, transform)| transform == 0)
}

/// The decoder knows fewer values of Adobe's byte than libjpeg, and takes 0 for CMYK at any number of components. Where
/// they differ it gets a copy with a value that means the same to it; [`stored_as_rgb`] then asks for the raw samples.
fn with_known_transform<'a>(bytes: &'a [u8], header: &Header) -> Cow<'a, [u8]> {
    let (at, known) = match (header.components, header.adobe) {
        (3, Some((at, 0 | 3..))) => (at, 1),
        (4, Some((at, 1 | 3..))) => (at, 2),
        _ => return Cow::Borrowed(bytes),
    };
    let mut copy = bytes.to_vec();
    copy[at] = known;
    Cow::Owned(copy)
}

/// Decodes all samples, in `colors`, into `out`.
fn samples_into(bytes: &[u8], header: &Header, colors: ColorSpace, out: &mut Vec<u8>) -> Result<(), ImageError> {
    let size = header.width as usize * header.height as usize * colors.num_components();
    out.resize(size, 0);
    let strict = options(colors).set_strict_mode(true);
    match run(bytes, header, strict, out) {
        // Strictness is for the picture's data; some cameras leave a few bytes between the headers.
        Err(DecodeErrors::FormatStatic(message)) if message.contains("Extra bytes between headers") => {
            run(bytes, header, options(colors), out)
        }
        result => result,
    }
    .map_err(|error| match error {
        DecodeErrors::ExhaustedData | DecodeErrors::IoErrors(_) => truncated(bytes),
        DecodeErrors::FormatStatic("Premature end of buffer") => truncated(bytes),
        error => ImageError::damaged("JPEG", error.to_string()),
    })
}

fn options(colors: ColorSpace) -> DecoderOptions {
    DecoderOptions::default()
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_out_colorspace(colors)
}

fn run(bytes: &[u8], header: &Header, options: DecoderOptions, out: &mut [u8]) -> Result<(), DecodeErrors> {
    const PROGRESSIVE: u8 = 2;
    let overrun = Cell::new(0);
    if header.frame == PROGRESSIVE {
        return JpegDecoder::new_with_options(Source::plain(bytes, &overrun), options).decode_into(out);
    }
    JpegDecoder::new_with_options(Source::padded(&bytes[..header.end], &overrun), options).decode_into(out)?;
    if source::wanted_more(overrun.get()) { Err(DecodeErrors::ExhaustedData) } else { Ok(()) }
}
