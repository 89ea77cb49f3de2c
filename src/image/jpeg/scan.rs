//! Walks a JPEG's segments before anything is decoded: size, components, orientation, and where the data ends.

use image::metadata::Orientation;

/// What the segments say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::image) struct Header {
    pub width: u32,
    pub height: u32,
    pub components: u8,
    /// Bits a sample.
    pub precision: u8,
    /// The kind of frame: the `n` of `SOFn`.
    pub frame: u8,
    pub orientation: Orientation,
    /// Position of Adobe's colour transform byte, and its value.
    pub adobe: Option<(usize, u8)>,
    /// The component identifiers are `R`, `G`, `B`.
    pub named_rgb: bool,
    /// A JFIF segment: three components are then YCbCr, whatever else is said.
    pub jfif: bool,
    /// A sequential frame whose components lie in scans of their own.
    pub parted: bool,
    /// Position of the end-of-image marker.
    pub end: usize,
}

/// What stops a walk.
#[derive(Debug, PartialEq)]
pub(super) enum ScanError {
    /// The file ends inside a segment, before a frame or before the end-of-image marker.
    Truncated,
    /// Bytes where no JPEG has them.
    Damaged(&'static str),
}

const SOI: u8 = 0xd8;
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;
const APP0: u8 = 0xe0;
const APP1: u8 = 0xe1;
const APP14: u8 = 0xee;

/// Walks from the first marker to the end-of-image marker.
///
/// A file without that marker is cut off. (libjpeg forgives when only the marker is lost; whether more is lost cannot be
/// told from outside the entropy-coded data, so icecap does not.)
pub(super) fn scan(bytes: &[u8]) -> Result<Header, ScanError> {
    let mut header = Header {
        width: 0,
        height: 0,
        components: 0,
        precision: 0,
        frame: 0,
        orientation: Orientation::NoTransforms,
        adobe: None,
        named_rgb: false,
        jfif: false,
        parted: false,
        end: 0,
    };
    let mut at = 2;
    loop {
        let (marker, after) = next_marker(bytes, at).ok_or(ScanError::Truncated)?;
        at = after;
        match marker {
            EOI if header.components == 0 => {
                return Err(ScanError::Damaged("it ends before any picture"));
            }
            EOI => {
                return Ok(Header { end: after - 2, ..header });
            }
            SOI | 0x01 | 0xd0..=0xd7 => continue,
            SOS if header.components == 0 => {
                return Err(ScanError::Damaged("a scan comes before the frame's header"));
            }
            _ => {}
        }
        let length = bytes.get(at..at + 2).ok_or(ScanError::Truncated)?;
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        if length < 2 {
            return Err(ScanError::Damaged("a segment is shorter than its own length"));
        }
        let segment = bytes.get(at + 2..at + length).ok_or(ScanError::Truncated)?;
        header.read(marker, segment, at + 2)?;
        at += length;
    }
}

/// The next marker at or after `at`, and the position behind it. Skips entropy-coded data and fill bytes.
fn next_marker(bytes: &[u8], mut at: usize) -> Option<(u8, usize)> {
    loop {
        at += bytes.get(at..)?.iter().position(|&byte| byte == 0xff)?;
        while *bytes.get(at)? == 0xff {
            at += 1;
        }
        let marker = bytes[at];
        at += 1;
        if marker != 0 {
            return Some((marker, at));
        }
    }
}

impl Header {
    /// `(height, width)` of the picture as it is shown.
    pub fn upright_size(&self) -> (u32, u32) {
        use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
        match self.orientation {
            Rotate90 | Rotate90FlipH | Rotate270 | Rotate270FlipH => (self.width, self.height),
            _ => (self.height, self.width),
        }
    }

    fn read(&mut self, marker: u8, segment: &[u8], position: usize) -> Result<(), ScanError> {
        match marker {
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                self.read_frame(marker - 0xc0, segment)?;
            }
            // Progressive frames are always in several scans, and are put together.
            SOS => self.parted |= self.frame < 2 && segment.first().is_some_and(|&count| count < self.components),
            APP0 => self.jfif |= segment.starts_with(b"JFIF\0"),
            APP1 => {
                if let Some(exif) = segment.strip_prefix(b"Exif\0\0") {
                    self.orientation = Orientation::from_exif_chunk(exif).unwrap_or(self.orientation);
                }
            }
            // "Adobe", version, two flags, transform.
            APP14 if segment.starts_with(b"Adobe") && segment.len() >= 12 => {
                self.adobe = Some((position + 11, segment[11]));
            }
            _ => {}
        }
        Ok(())
    }

    fn read_frame(&mut self, frame: u8, segment: &[u8]) -> Result<(), ScanError> {
        let &[precision, h1, h0, w1, w0, components, ref parts @ ..] = segment else {
            return Err(ScanError::Damaged("the frame's header is too short"));
        };
        if self.components != 0 {
            return Err(ScanError::Damaged("it has two frames"));
        }
        self.height = u32::from(u16::from_be_bytes([h1, h0]));
        self.width = u32::from(u16::from_be_bytes([w1, w0]));
        if self.width == 0 || self.height == 0 || components == 0 {
            return Err(ScanError::Damaged("a side or the number of components is zero"));
        }
        self.named_rgb = parts.chunks(3).map(|part| part[0]).eq(*b"RGB");
        (self.frame, self.precision, self.components) = (frame, precision, components);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: [u8; 12] = [0xff, 0xc0, 0, 10, 8, 0, 3, 0, 5, 1, 1, 0x11];

    fn with(parts: &[&[u8]]) -> Result<Header, ScanError> {
        scan(&[&[0xff, SOI][..], &parts.concat()].concat())
    }

    #[test]
    fn it_finds_size_and_end_behind_a_scan() {
        let sos = [0xff, SOS, 0, 2, 1, 2, 0xff, 0, 0xff, 0xd0, 9];
        let header = with(&[&FRAME, &[0, 0], &sos, &[0xff, 0xff, EOI], b"rest"]).unwrap();
        assert_eq!((header.width, header.height, header.components, header.precision), (5, 3, 1, 8));
        assert_eq!(header.end, 2 + 12 + 2 + 11 + 1);
    }

    #[test]
    fn components_in_scans_of_their_own_are_seen() {
        let frame = |marker| [0xff, marker, 0, 17, 8, 0, 3, 0, 5, 3, 1, 17, 0, 2, 17, 0, 3, 17, 0];
        let scan_of = |count| [0xff, SOS, 0, 3, count, 7];
        let parted = |marker, count| with(&[&frame(marker), &scan_of(count), &[0xff, EOI]]).unwrap().parted;
        assert!(parted(0xc0, 1) && parted(0xc1, 2));
        assert!(!parted(0xc0, 3) && !parted(0xc2, 1), "interleaved, or progressive");
    }

    #[test]
    fn each_malformation_is_named() {
        assert_eq!(with(&[&FRAME]), Err(ScanError::Truncated));
        assert_eq!(with(&[&FRAME[..9]]), Err(ScanError::Truncated));
        assert_eq!(with(&[&[0xff, 0xe0, 0, 1]]), Err(ScanError::Damaged("a segment is shorter than its own length")));
        assert_eq!(with(&[&[0xff, 0xc0, 0, 4, 8, 0]]), Err(ScanError::Damaged("the frame's header is too short")));
        assert_eq!(with(&[&FRAME, &FRAME]), Err(ScanError::Damaged("it has two frames")));
        assert_eq!(with(&[&[0xff, EOI]]), Err(ScanError::Damaged("it ends before any picture")));
        assert!(matches!(with(&[&[0xff, SOS, 0, 2]]), Err(ScanError::Damaged(_))));
        let mut flat = FRAME;
        flat[6] = 0;
        assert!(matches!(with(&[&flat]), Err(ScanError::Damaged(_))));
    }
}
