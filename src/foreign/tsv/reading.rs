//! One line of a TSV: its fields, and what they hold in base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::foreign::{ForeignError, Row};

/// The line without its end. A tab before it is one: the last field may be empty.
pub(super) fn trimmed(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The fields of a line.
pub(super) fn fields(line: &[u8]) -> Vec<&[u8]> {
    trimmed(line).split(|&byte| byte == b'\t').collect()
}

pub(super) fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field).trim().to_owned()
}

pub(super) fn whole(field: &[u8], name: &'static str, place: &str) -> Result<usize, ForeignError> {
    let value = text(field);
    value.parse().map_err(|_| ForeignError::Number {
        place: place.to_owned(),
        field: name,
        value: value.chars().take(40).collect(),
    })
}

/// Bytes that so much base64 stands for.
pub(super) fn decoded_bytes(field: &[u8]) -> usize {
    let padding = field.iter().rev().take_while(|&&byte| byte == b'=').count();
    (field.len() / 4 * 3).saturating_sub(padding)
}

/// A line that is being read.
pub(super) struct Reading<'a> {
    pub place: String,
    pub fields: Vec<&'a [u8]>,
}

impl Reading<'_> {
    /// Decodes a field of `count` numbers of `N` bytes into a tensor of the row.
    fn numbers<const N: usize>(
        &self,
        row: &mut Row,
        tensor: usize,
        (field, name): (usize, &'static str),
        count: usize,
        number: impl Fn([u8; N]) -> f32,
    ) -> Result<(), ForeignError> {
        let place = || self.place.clone();
        let decoded = STANDARD.decode(self.fields[field]);
        let bytes = decoded.map_err(|source| ForeignError::Base64 { place: place(), field: name, source })?;
        if bytes.len() != N * count {
            let (boxes, expected, found) =
                (row.tensors[2].first().map_or(0, |n| *n as usize), (N * count).to_string(), bytes.len());
            return Err(ForeignError::Bytes { place: place(), field: name, boxes, expected, found });
        }
        let values = bytes.as_chunks::<N>().0.iter().map(|bytes| number(*bytes));
        let not_finite = |at| ForeignError::NotFinite { place: place(), field: name.to_owned(), at };
        row.fill(tensor, values).map_err(not_finite)
    }

    pub(super) fn floats(
        &self,
        row: &mut Row,
        tensor: usize,
        field: usize,
        name: &'static str,
        count: usize,
    ) -> Result<(), ForeignError> {
        self.numbers(row, tensor, (field, name), count, f32::from_le_bytes)
    }

    pub(super) fn integers(
        &self,
        row: &mut Row,
        tensor: usize,
        field: usize,
        name: &'static str,
        count: usize,
    ) -> Result<(), ForeignError> {
        self.numbers(row, tensor, (field, name), count, |bytes: [u8; 8]| i64::from_le_bytes(bytes) as f32)
    }
}
