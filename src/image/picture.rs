//! A picture while it is decoded: any number of encoder inputs are made of one decode.
//!
//! It must not know which inputs are wanted, or by whom. The pixels stay in the thread's own memory and are lent to a closure, not
//! returned: a second model, such as a detector, takes what it needs of them in the same visit, and nothing of the picture's
//! size is allocated anew for each.

use super::preprocess::Preprocess;
use super::{ImageError, Scratch, View, decode_upright, resize, with_scratch};

/// A decoded picture, upright, in the memory of the thread that decoded it.
pub struct Picture<'a> {
    /// The file.
    bytes: &'a [u8],
    scratch: &'a mut Scratch,
    height: u32,
    width: u32,
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
        work(&mut Picture { bytes, scratch, height, width })
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
        (self.height, self.width)
    }

    /// Its pixels, `[height, width, 3]`, red first.
    pub fn pixels(&self) -> &[u8] {
        &self.scratch.pixels
    }

    /// Writes one view of it into `out`, `[H, W, 3]` of [`Preprocess::output_size`].
    ///
    /// # Errors
    /// [`ImageError::Buffer`] where `out` has another size.
    pub fn view(&mut self, pre: &Preprocess, view: View, out: &mut [u8]) -> Result<(), ImageError> {
        check_buffer(pre, out)?;
        let axes = view.axes(pre, self.size(), self.bytes);
        resize::resize_into(self.scratch, self.width, axes, pre, out);
        if view.is_mirrored() {
            resize::mirror(out, pre.output_size().1);
        }
        Ok(())
    }
}
