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
    let mut done = vec![false; targets.len()];
    let mut size = None;
    if pre.decode == Decode::Fast && jpeg::is_jpeg(bytes) {
        let header = jpeg::header(bytes, pre.max_pixels)?;
        let divisors: Vec<u64> = targets.iter().map(|(view, _)| divisor(pre, *view, &header, bytes)).collect();
        for divisor in [8, 4, 2] {
            if reduced(bytes, pre, &header, divisor, (&divisors, targets, &mut done))? {
                size = Some(header.upright_size());
            }
        }
    }
    if let (Some(size), None, true) = (size, &also, done.iter().all(|done| *done)) {
        return Ok((size, None));
    }
    with_picture(bytes, pre.max_pixels, |picture| {
        for ((view, out), _) in targets.iter_mut().zip(&done).filter(|(_, done)| !**done) {
            picture.view(pre, *view, out)?;
        }
        Ok((picture.size(), also.map(|also| also(picture))))
    })
}

/// Makes the views that `divisor` is for; says whether there were any and the decoder took the picture.
fn reduced(
    bytes: &[u8],
    pre: &Preprocess,
    header: &jpeg::Header,
    divisor: u64,
    (divisors, targets, done): (&[u64], &mut [(View, &mut [u8])], &mut [bool]),
) -> Result<bool, ImageError> {
    if !divisors.contains(&divisor) {
        return Ok(false);
    }
    let made = with_reduced(bytes, header, divisor, |picture| {
        for ((view, out), _) in targets.iter_mut().zip(divisors).filter(|(_, wanted)| **wanted == divisor) {
            picture.view(pre, *view, out)?;
        }
        Ok(())
    })?;
    if made.is_some() {
        done.iter_mut().zip(divisors).for_each(|(done, wanted)| *done |= *wanted == divisor);
    }
    Ok(made.is_some())
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
