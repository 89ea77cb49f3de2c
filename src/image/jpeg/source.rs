//! The bytes of a JPEG as the decoder reads them, and whether it wanted more than there are.
//!
//! Decision: the decoder pads missing entropy-coded data by itself and reports nothing when the end-of-image marker comes
//! too early. So a sequential picture is handed over without that marker and with a few zero bytes behind it: a complete
//! picture never reads far into them, an incomplete one does.

use std::cell::Cell;

use zune_jpeg::zune_core::bytestream::{ZByteIoError, ZByteReaderTrait, ZSeekFrom};

/// Zero bytes that may be read behind the data.
const TAIL: usize = 64;
/// How far the decoder's bit buffer may look ahead of what it has used, in bytes.
const LOOKAHEAD: usize = 8;

/// A slice with a tail of zeros; remembers how far into the tail the entropy-coded data was thought to reach.
pub(super) struct Source<'a> {
    data: &'a [u8],
    tail: usize,
    at: usize,
    overrun: &'a Cell<usize>,
}

impl<'a> Source<'a> {
    /// All of `data`, as it is.
    pub fn plain(data: &'a [u8], overrun: &'a Cell<usize>) -> Self {
        Self { data, tail: 0, at: 0, overrun }
    }

    /// `data` and a tail of zeros; ask [`wanted_more`] afterwards.
    pub fn padded(data: &'a [u8], overrun: &'a Cell<usize>) -> Self {
        Self { data, tail: TAIL, at: 0, overrun }
    }

    /// The decoder reads entropy-coded data by four bytes, and one by one without an error around markers. The end-of-image
    /// marker, which it looks for afterwards, it reads one by one with an error: that is no overrun.
    fn note_overrun(&self) {
        self.overrun.set(self.overrun.get().max(self.at.saturating_sub(self.data.len())));
    }

    fn end(&self) -> usize {
        self.data.len() + self.tail
    }

    /// Copies what is left, at most `buffer.len()` bytes.
    fn copy(&self, buffer: &mut [u8]) -> usize {
        let count = buffer.len().min(self.end().saturating_sub(self.at));
        let real = count.min(self.data.len().saturating_sub(self.at));
        if real > 0 {
            buffer[..real].copy_from_slice(&self.data[self.at..self.at + real]);
        }
        buffer[real..count].fill(0);
        count
    }
}

/// Did a decoder that read so far into the tail need more data than there is?
pub(super) fn wanted_more(overrun: usize) -> bool {
    overrun > LOOKAHEAD
}

impl ZByteReaderTrait for Source<'_> {
    #[inline(always)]
    fn read_byte_no_error(&mut self) -> u8 {
        if let Some(&byte) = self.data.get(self.at) {
            self.at += 1;
            return byte;
        }
        self.at += usize::from(self.at < self.end());
        self.note_overrun();
        0
    }

    #[inline(always)]
    fn read_exact_bytes(&mut self, buffer: &mut [u8]) -> Result<(), ZByteIoError> {
        // The hot path: four bytes at a time from the entropy-coded data.
        if let Some(bytes) = self.data.get(self.at..self.at + buffer.len()) {
            buffer.copy_from_slice(bytes);
            self.at += buffer.len();
            return Ok(());
        }
        self.peek_exact_bytes(buffer)?;
        self.at += buffer.len();
        if buffer.len() > 1 {
            self.note_overrun();
        }
        Ok(())
    }

    fn read_bytes(&mut self, buffer: &mut [u8]) -> Result<usize, ZByteIoError> {
        let count = self.copy(buffer);
        self.at += count;
        Ok(count)
    }

    fn peek_bytes(&mut self, buffer: &mut [u8]) -> Result<usize, ZByteIoError> {
        Ok(self.copy(buffer))
    }

    fn peek_exact_bytes(&mut self, buffer: &mut [u8]) -> Result<(), ZByteIoError> {
        match self.copy(buffer) {
            count if count == buffer.len() => Ok(()),
            count => Err(ZByteIoError::NotEnoughBytes(count, buffer.len())),
        }
    }

    #[inline(always)]
    fn z_seek(&mut self, from: ZSeekFrom) -> Result<u64, ZByteIoError> {
        let target = match from {
            ZSeekFrom::Start(position) => i64::try_from(position).ok(),
            ZSeekFrom::End(offset) => (self.end() as i64).checked_add(offset),
            ZSeekFrom::Current(offset) => (self.at as i64).checked_add(offset),
        };
        self.at = target
            .and_then(|target| usize::try_from(target).ok())
            .ok_or(ZByteIoError::Generic("a position outside the file"))?;
        Ok(self.at as u64)
    }

    #[inline(always)]
    fn is_eof(&mut self) -> Result<bool, ZByteIoError> {
        Ok(self.at >= self.end())
    }

    fn z_position(&mut self) -> Result<u64, ZByteIoError> {
        Ok(self.at as u64)
    }

    fn read_remaining(&mut self, sink: &mut Vec<u8>) -> Result<usize, ZByteIoError> {
        let start = sink.len();
        sink.resize(start + self.end().saturating_sub(self.at), 0);
        self.read_bytes(&mut sink[start..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_follow_the_data_and_then_the_end() {
        let overrun = Cell::new(0);
        let mut source = Source::padded(&[1, 2, 3], &overrun);
        let mut four = [9; 4];
        assert!(source.read_exact_bytes(&mut four).is_ok());
        assert_eq!((four, overrun.get()), ([1, 2, 3, 0], 1));
        for _ in 0..9 {
            assert!(source.read_exact_bytes(&mut [9]).is_ok());
        }
        assert!(!wanted_more(overrun.get()), "looking for a marker is no overrun");
        assert!(source.read_exact_bytes(&mut four).is_ok());
        assert!(wanted_more(overrun.get()));
        let mut rest = Vec::new();
        assert!(matches!(source.read_remaining(&mut rest), Ok(50)));
        assert!(matches!(source.is_eof(), Ok(true)));
        assert!(source.read_exact_bytes(&mut four).is_err());
        assert_eq!(source.read_byte_no_error(), 0);
    }

    #[test]
    fn seeking_before_the_start_fails_and_behind_the_end_reads_nothing() {
        let overrun = Cell::new(0);
        let mut source = Source::plain(&[1, 2], &overrun);
        assert!(source.z_seek(ZSeekFrom::Current(-1)).is_err());
        assert!(matches!(source.z_seek(ZSeekFrom::Current(50)), Ok(50)));
        let mut one = [7];
        assert!(matches!(source.read_bytes(&mut one), Ok(0)));
        assert!(matches!(source.z_seek(ZSeekFrom::End(-1)), Ok(1)));
        assert_eq!(source.read_byte_no_error(), 2);
    }
}
