//! Four-component JPEGs to RGB, in the integer arithmetic of libjpeg and Pillow.
//!
//! Samples are taken as inverted, as Adobe writes them and Pillow assumes: 255 is no ink.

/// `source` is `[pixels, 4]`; `ycck` says that the first three are a YCbCr of the inks. Writes `[pixels, 3]`.
pub(super) fn to_rgb(source: &[u8], ycck: bool, out: &mut Vec<u8>) {
    out.clear();
    out.reserve(source.len() / 4 * 3);
    for &[a, b, c, black] in source.as_chunks::<4>().0 {
        // libjpeg turns YCCK into CMYK by C = 255 - R; the inversion takes that back.
        let inks = if ycck { ycc_to_rgb(a, b, c).map(|value| 255 - value) } else { [a, b, c] };
        out.extend(inks.map(|ink| over(255 - ink, black)));
    }
}

/// Pillow's `cmyk2rgb`: what `ink` leaves of the light that black leaves, `white - white * ink / 255`.
fn over(ink: u8, white: u8) -> u8 {
    let product = u32::from(ink) * u32::from(white) + 128;
    white - (((product >> 8) + product) >> 8) as u8
}

/// libjpeg's `jdcolor` with its 16-bit fixed point constants.
fn ycc_to_rgb(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    const HALF: i32 = 1 << 15;
    let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
    let red = y + ((91_881 * cr + HALF) >> 16);
    let green = y + ((-22_554 * cb - 46_802 * cr + HALF) >> 16);
    let blue = y + ((116_130 * cb + HALF) >> 16);
    [red, green, blue].map(|value| value.clamp(0, 255) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(pixel: [u8; 4], ycck: bool) -> Vec<u8> {
        let mut out = Vec::new();
        to_rgb(&pixel, ycck, &mut out);
        out
    }

    #[test]
    fn no_ink_is_white_and_black_ink_is_black() {
        assert_eq!(one([255; 4], false), [255; 3]);
        assert_eq!(one([255, 255, 255, 0], false), [0; 3]);
        assert_eq!(one([0, 255, 255, 255], false), [0, 255, 255], "cyan");
    }

    #[test]
    fn ycck_of_neutral_chroma_is_grey_ink() {
        assert_eq!(one([0, 128, 128, 255], true), one([255, 255, 255, 255], false));
        assert_eq!(one([255, 128, 128, 255], true), [0; 3]);
    }
}
