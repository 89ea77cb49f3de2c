//! A picture while it is decoded: any number of encoder inputs are made of one decode.
//!
//! It must not know which inputs are wanted, or by whom. The pixels stay in the thread's own memory and are lent to a closure, not
//! returned: a second model, such as a detector, takes what it needs of them in the same visit, and nothing of the picture's
//! size is allocated anew for each.

use super::preprocess::Preprocess;
use super::{ImageError, Scratch, View, decode_upright, jpeg, orient, resize, with_scratch};

/// A decoded picture, upright, in the memory of the thread that decoded it.
pub struct Picture<'a> {
    /// The file.
    bytes: &'a [u8],
    scratch: &'a mut Scratch,
    /// `(height, width)` of the pixels in `scratch`, upright.
    decoded: (u32, u32),
    /// The same of the picture: larger where it was decoded at a part of its size.
    size: (u32, u32),
}

/// Decodes the picture in the file `bytes` and lends it to `work`, which must not decode another one meanwhile.
///
/// # Errors
/// See [`ImageError`]; and what `work` returns.
pub fn with_picture<T>(
    bytes: &[u8],
    max_pixels: u64,
    work: impl FnOnce(&mut Picture<'_>) -> Result<T, ImageError>,
) -> Result<T, ImageError> {
    with_scratch(|scratch| {
        let (width, height) = decode_upright(bytes, max_pixels, scratch)?;
        let size = (height, width);
        work(&mut Picture { bytes, scratch, decoded: size, size })
    })
}

/// The same at 1 / `divisor` of the size of the JPEG `bytes`; nothing where it can't be decoded so, and `work` not called.
pub(super) fn with_reduced<T>(
    bytes: &[u8],
    header: &jpeg::Header,
    divisor: u64,
    work: impl FnOnce(&mut Picture<'_>) -> Result<T, ImageError>,
) -> Result<Option<T>, ImageError> {
    with_scratch(|scratch| {
        let Some((width, height)) = jpeg::decode_reduced(bytes, header, divisor, &mut scratch.pixels) else {
            return Ok(None);
        };
        let (width, height) = orient::upright(scratch, width, height, header.orientation);
        work(&mut Picture { bytes, scratch, decoded: (height, width), size: header.upright_size() }).map(Some)
    })
}

/// Refuses an output of another size than `pre` makes.
pub(super) fn check_buffer(pre: &Preprocess, out: &[u8]) -> Result<(), ImageError> {
    let (height, width) = pre.output_size();
    let expected = height as usize * width as usize * 3;
    if out.len() == expected { Ok(()) } else { Err(ImageError::Buffer { expected, found: out.len() }) }
}

impl Picture<'_> {
    /// `(height, width)`, upright and before any resizing, in pixels.
    pub fn size(&self) -> (u32, u32) {
        self.size
    }

    /// Its pixels, `[height, width, 3]`, red first. (A picture that is lent is decoded whole.)
    pub fn pixels(&self) -> &[u8] {
        &self.scratch.pixels
    }

    /// Writes one view of it into `out`, `[H, W, 3]` of [`Preprocess::output_size`].
    ///
    /// # Errors
    /// [`ImageError::Buffer`] where `out` has another size.
    pub fn view(&mut self, pre: &Preprocess, view: View, out: &mut [u8]) -> Result<(), ImageError> {
        check_buffer(pre, out)?;
        let (down, across) = view.axes(pre, self.size, self.bytes);
        let (height, width) = self.decoded;
        let axes = (down.of_decoded(self.size.0, height), across.of_decoded(self.size.1, width));
        resize::resize_into(self.scratch, width, axes, pre, out);
        if view.is_mirrored() {
            resize::mirror(out, pre.output_size().1);
        }
        Ok(())
    }
}
