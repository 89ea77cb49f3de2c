//! JPEG to RGB at a half, a quarter or an eighth of its size: the inverse transform is made of the low frequencies alone.
//!
//! Must not know why less is enough. Decision: jpeg-decoder, the one well-kept crate in Rust that does it. On large photographs it takes
//! less than half of the whole picture's time; where nothing is left out it is slower than zune-jpeg, which decodes everything else.
//!
//! That decoder forgives data that ends too early. As for the other one ([`super::source`]), the end-of-image marker is taken
//! off and zeros are put in its place; behind them stands what its search for the next marker passes over and its reading of
//! entropy-coded data does not: a stuffed byte behind fill bytes.

use std::io::{self, Read};

use jpeg_decoder::{Decoder, PixelFormat};

use super::scan::Header;

/// Sixteen zeros (a complete picture reads eight at most), the obstacle, the end of the picture.
const TAIL: [u8; 21] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0xff, 0xd9];

/// Decodes `bytes` at 1 / `divisor` of its size (2, 4 or 8; sides are rounded up) into `out`; returns width and height. Nothing where
/// this decoder does not take the picture, or something is wrong with it: decoding it whole then says what.
pub(in crate::image) fn decode_reduced(
    bytes: &[u8],
    header: &Header,
    divisor: u64,
    out: &mut Vec<u8>,
) -> Option<(u32, u32)> {
    if !is_plain(header) {
        return None;
    }
    let part = |side: u32| u64::from(side).div_ceil(divisor) as u16;
    let (width, height) = (part(header.width), part(header.height));
    let mut decoder = Decoder::new(Source { data: bytes.get(..header.end)?, at: 0 });
    decoder.read_info().ok()?;
    if decoder.scale(width, height).ok()? != (width, height) {
        return None;
    }
    let samples = decoder.decode().ok()?;
    let pixels = usize::from(width) * usize::from(height);
    match decoder.info()?.pixel_format {
        PixelFormat::RGB24 if samples.len() == pixels * 3 => *out = samples,
        PixelFormat::L8 if samples.len() == pixels => {
            out.clear();
            out.extend(samples.iter().flat_map(|&grey| [grey; 3]));
        }
        _ => return None,
    }
    Some((width.into(), height.into()))
}

/// Grey, or YCbCr beyond doubt: what else three or four components may mean is for the other decoder.
fn is_plain(header: &Header) -> bool {
    let certain = header.jfif || header.adobe.is_none_or(|(_, transform)| transform == 1);
    header.components == 1 || (header.components == 3 && !header.named_rgb && certain)
}

/// The picture's data without its last marker, then [`TAIL`].
struct Source<'a> {
    data: &'a [u8],
    at: usize,
}

impl Source<'_> {
    fn rest(&self) -> &[u8] {
        match self.at.checked_sub(self.data.len()) {
            None => &self.data[self.at..],
            Some(into) => &TAIL[into.min(TAIL.len())..],
        }
    }
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = self.rest();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Ok(count)
    }

    // The decoder reads byte by byte.
    #[inline(always)]
    fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        if let ([byte], Some(found)) = (&mut *buffer, self.data.get(self.at)) {
            *byte = *found;
            self.at += 1;
            return Ok(());
        }
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => filled += count,
            }
        }
        Ok(())
    }
}
