//! Several encoder inputs from one file, decoded no further than they need with `decode = "fast"`.
//!
//! It must not know which views are wanted by whom. Decision: how far a picture is decoded for a view is a function of the picture and
//! that view alone. A file may then be decoded twice (at a quarter for the centre, at a half for its tiles), but a column has the
//! same bytes whichever other columns are made beside it.

use super::picture::{check_buffer, with_reduced};
use super::{Decode, ImageError, Picture, Preprocess, View, jpeg, with_picture};

/// Writes each view of the picture in the file `bytes` into its buffer, `[H, W, 3]` of [`Preprocess::output_size`], and lends the
/// picture, decoded whole, to `also`. Returns the picture's `(height, width)` and what `also` returned.
///
/// # Errors
/// See [`ImageError`]; the buffers hold no promise then.
pub fn load_views<T>(
    bytes: &[u8],
    pre: &Preprocess,
    targets: &mut [(View, &mut [u8])],
    also: Option<impl FnOnce(&Picture<'_>) -> T>,
) -> Result<((u32, u32), Option<T>), ImageError> {
    // Before the picture is decoded, and not only when its first view is made.
    targets.iter().try_for_each(|(_, out)| check_buffer(pre, out))?;
    let mut size = None;
    // By view: what it is decoded at, 0 once it is made.
    let mut open = vec![1; targets.len()];
    if pre.decode == Decode::Fast && jpeg::is_jpeg(bytes) {
        let header = jpeg::header(bytes, pre.max_pixels)?;
        size = Some(header.upright_size());
        open = targets.iter().map(|(view, _)| divisor(pre, *view, &header, bytes)).collect();
        for divisor in [8, 4, 2] {
            let mut wanted = targets.iter_mut().zip(&mut open).filter(|(_, open)| **open == divisor).peekable();
            if wanted.peek().is_some() {
                with_reduced(bytes, &header, divisor, |picture| {
                    wanted.try_for_each(|((view, out), open)| {
                        *open = 0;
                        picture.view(pre, *view, out)
                    })
                })?;
            }
        }
    }
    if let (Some(size), None, false) = (size, &also, open.iter().any(|open| *open != 0)) {
        return Ok((size, None));
    }
    with_picture(bytes, pre.max_pixels, |picture| {
        for ((view, out), _) in targets.iter_mut().zip(&open).filter(|(_, open)| **open != 0) {
            picture.view(pre, *view, out)?;
        }
        Ok((picture.size(), also.map(|also| also(picture))))
    })
}

/// The part of its size at which a JPEG is decoded for a view: at least twice what the view is resized to.
///
/// What is left out is more than the resize would average away: decoded to just the size of the view, a MobileNet's features of a
/// photograph have a cosine of 0.990 with the exact ones (0.975 at the least), with twice that size 0.999 (0.997). That is so for libjpeg-turbo
/// as well.
fn divisor(pre: &Preprocess, view: View, header: &jpeg::Header, bytes: &[u8]) -> u64 {
    let (down, across) = view.axes(pre, header.upright_size(), bytes);
    match down.shrinks().min(across.shrinks()) {
        0..=3 => 1,
        4..=7 => 2,
        8..=15 => 4,
        _ => 8,
    }
}
