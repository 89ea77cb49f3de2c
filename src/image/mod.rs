//! From the bytes of a picture's file to the pixels an encoder takes: decode, turn upright, resize, crop.
//!
//! It must not know where the bytes came from, nor what an encoder does with the pixels: bytes in, `u8 [H, W, 3]` out.
//! Mean, scale and channel order belong to the encoder's graph, so that a quarter of the bytes travel.
//!
//! Decision: everything follows torchvision on Pillow (`Image.open(f).convert("RGB")`, `Resize`, `CenterCrop`), because
//! the weights people own were trained behind it, with three departures. EXIF orientation is applied, as every viewer
//! does. A 16-bit grey picture keeps its high byte, where Pillow would clip it to white. A damaged JPEG is an error,
//! where Pillow paints what is lost grey: a row is either the picture's or missing with a reason.

mod error;
mod fast;
mod jpeg;
mod orient;
mod picture;
mod preprocess;
mod raster;
mod region;
mod resample;
mod resize;
mod thumbnail;
mod variants;
mod view;
mod weights;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use error::ImageError;
pub use fast::load_views;
pub use picture::{Picture, with_picture};
pub use preprocess::{Decode, IMPLEMENTATION, Interpolation, Preprocess, Resize};
pub use thumbnail::{Thumbnail, thumbnail};
pub use variants::{Tiles, ViewSpec, resolve_views};
pub use view::View;

/// A decoded picture, upright.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RgbImage {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Rows from the top, `[height, width, 3]`, red first.
    pub pixels: Vec<u8>,
}

/// What [`load_into`] learnt about the picture on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoded {
    /// `(height, width)` of the picture, upright and before resizing, in pixels.
    pub original_size: (u32, u32),
}

/// Decodes a picture by its content (JPEG, PNG, WebP, GIF's first frame, BMP) to upright RGB.
///
/// Alpha is dropped, as Pillow's `convert("RGB")` drops it. Nothing larger than the compressed bytes is allocated before
/// the header's size has passed `max_pixels`.
///
/// # Errors
/// See [`ImageError`]; [`ImageError::reason`] says what a cache records.
pub fn decode(bytes: &[u8], max_pixels: u64) -> Result<RgbImage, ImageError> {
    with_scratch(|scratch| {
        let (width, height) = decode_upright(bytes, max_pixels, scratch)?;
        let pixels = scratch.pixels.clone();
        Ok(RgbImage { width, height, pixels })
    })
}

/// Decodes a picture and writes it, resized and cropped, into `out`: `[H, W, 3]` of [`Preprocess::output_size`].
///
/// Buffers are kept a thread, so that the steady state allocates nothing of the picture's size outside the decoder.
///
/// # Errors
/// See [`ImageError`]; `out` holds no promise then.
pub fn load_into(bytes: &[u8], pre: &Preprocess, out: &mut [u8]) -> Result<Decoded, ImageError> {
    pre.validate()?;
    let (size, _) = load_views(bytes, pre, &mut [(View::Center, out)], None::<fn(&Picture<'_>)>)?;
    Ok(Decoded { original_size: size })
}

/// The buffers a thread keeps between pictures.
#[derive(Default)]
struct Scratch {
    /// The picture, `[height, width, 3]`.
    pixels: Vec<u8>,
    /// Whatever a step needs beside it: four-channel samples, the turned picture, a region before it is padded.
    side: Vec<u8>,
    resampler: resample::Resampler,
}

/// One huge picture must not hold its memory for the rest of the run.
const KEPT_BYTES: usize = 64 << 20;

impl Scratch {
    fn shrink(&mut self) {
        for buffer in [&mut self.pixels, &mut self.side] {
            if buffer.capacity() > KEPT_BYTES {
                *buffer = Vec::new();
            }
        }
        if self.resampler.capacity() > KEPT_BYTES {
            self.resampler = resample::Resampler::default();
        }
    }
}

fn with_scratch<T>(work: impl FnOnce(&mut Scratch) -> Result<T, ImageError>) -> Result<T, ImageError> {
    thread_local!(static SCRATCH: RefCell<Scratch> = RefCell::default());
    SCRATCH.with_borrow_mut(|scratch| {
        // A decoder that panics on a crafted file costs that picture, not the run.
        let result = catch_unwind(AssertUnwindSafe(|| work(scratch)));
        scratch.shrink();
        result.unwrap_or_else(|_| {
            *scratch = Scratch::default();
            Err(ImageError::damaged("image", "the decoder gave up on it"))
        })
    })
}

/// Leaves the upright picture in `scratch.pixels`; returns `(width, height)`.
fn decode_upright(bytes: &[u8], max_pixels: u64, scratch: &mut Scratch) -> Result<(u32, u32), ImageError> {
    if bytes.is_empty() {
        return Err(ImageError::Empty);
    }
    let (width, height, orientation) = match bytes {
        _ if jpeg::is_jpeg(bytes) => jpeg::decode(bytes, max_pixels, scratch)?,
        _ => raster::decode(bytes, max_pixels, scratch)?,
    };
    Ok(orient::upright(scratch, width, height, orientation))
}

/// Refuses a picture over the limit, from the numbers of its header.
fn check_size(width: u32, height: u32, max_pixels: u64) -> Result<(), ImageError> {
    if u64::from(width) * u64::from(height) > max_pixels {
        return Err(ImageError::TooLarge { width, height, max_pixels });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
