//! NumPy's `.npy`: arrays read as f32, and columns written row by row.
//!
//! Read with the npyz crate. Written by hand: the header is one line of text, and what follows are the column's own bytes, which
//! no library can write faster than they are copied. Format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use half::f16;
use npyz::{DType, NpyFile, NpyHeader, Order, TypeChar};

use super::ForeignError;

/// Bytes of an array that is read: no row of a column may have more.
const MOST_BYTES: u64 = 1 << 30;

/// An array read whole, in C order.
pub(super) struct Array {
    pub shape: Vec<u64>,
    pub values: Vec<f32>,
}

/// The shape of the array that starts `reader`, checked against the `bytes` that are there, header included.
pub(super) fn read_shape(reader: impl Read, bytes: u64, place: &str) -> Result<Vec<u64>, ForeignError> {
    open(reader, bytes, place).map(|file| file.shape().to_vec())
}

/// Reads an array of any kind of number.
pub(super) fn read(reader: impl Read, bytes: u64, place: &str) -> Result<Array, ForeignError> {
    let file = open(reader, bytes, place)?;
    let (shape, order, count) = (file.shape().to_vec(), file.order(), file.len() as usize);
    let values = numbers(file, count, place)?;
    let values = if order == Order::Fortran { transposed(&values, &shape) } else { values };
    Ok(Array { shape, values })
}

/// The first `count` numbers that follow a header.
fn numbers(file: NpyFile<impl Read>, count: usize, place: &str) -> Result<Vec<f32>, ForeignError> {
    let dtype = file.dtype();
    let unreadable = |source| ForeignError::Array { place: place.to_owned(), source };
    let unknown = || ForeignError::ArrayDtype { place: place.to_owned(), dtype: dtype.descr() };
    let DType::Plain(plain) = &dtype else { return Err(unknown()) };
    macro_rules! values {
        ($kind:ty, $number:expr) => {{
            let values = file.data::<$kind>().map_err(|_| unknown())?.take(count);
            values.map(|value| value.map($number)).collect::<Result<_, _>>().map_err(unreadable)
        }};
    }
    match (plain.type_char(), plain.size_field()) {
        (TypeChar::Float, 2) => values!(f16, f16::to_f32),
        (TypeChar::Float, 4) => values!(f32, |value| value),
        (TypeChar::Float, 8) => values!(f64, |value| value as f32),
        (TypeChar::Int, 4) => values!(i32, |value| value as f32),
        (TypeChar::Int, 8) => values!(i64, |value| value as f32),
        (TypeChar::Uint, 1) => values!(u8, f32::from),
        _ => Err(unknown()),
    }
}

/// The array that starts `reader`, of which nothing but the header is read.
fn open<R: Read>(mut reader: R, bytes: u64, place: &str) -> Result<NpyFile<Counted<R>>, ForeignError> {
    let Header { header, before, bytes } = read_header(&mut reader, bytes, place)?;
    // A few kilobytes of zip can hold gigabytes of zeros.
    if bytes > MOST_BYTES {
        return Err(ForeignError::Huge { place: place.to_owned(), bytes, most: MOST_BYTES });
    }
    Ok(NpyFile::with_header(header, Counted { reader, read: before }))
}

/// What stands before an array's numbers.
struct Header {
    header: NpyHeader,
    /// Its own bytes.
    before: u64,
    /// Those of the numbers.
    bytes: u64,
}

/// Reads a header, and checks it against the `bytes` that are there, its own included.
fn read_header(reader: impl Read, bytes: u64, place: &str) -> Result<Header, ForeignError> {
    let unreadable = |source| ForeignError::Array { place: place.to_owned(), source };
    let mut counted = Counted { reader, read: 0 };
    let header = NpyHeader::from_reader(&mut counted).map_err(unreadable)?;
    let before = counted.read;
    let dtype = header.dtype();
    let size = match &dtype {
        DType::Plain(plain) if plain.type_char() != TypeChar::Object => plain.num_bytes().unwrap_or(0) as u64,
        _ => 0,
    };
    if size == 0 {
        return Err(ForeignError::ArrayDtype { place: place.to_owned(), dtype: dtype.descr() });
    }
    let shape = header.shape().to_vec();
    // A header that lies about the size must not make us ask for that much memory.
    let expected = shape.iter().try_fold(size, |bytes, side| bytes.checked_mul(*side)).unwrap_or(u64::MAX);
    let found = bytes.saturating_sub(before);
    if expected != found {
        return Err(ForeignError::ArrayBytes { place: place.to_owned(), shape, expected, found });
    }
    Ok(Header { header, before, bytes: expected })
}

/// An array `[N, ..]` in a file, of which one row is read at a time, by any number of threads.
pub(super) struct Stack {
    path: PathBuf,
    file: File,
    header: NpyHeader,
    /// Where its numbers begin.
    start: u64,
    row_bytes: u64,
}

impl std::fmt::Debug for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stack").field("path", &self.path).field("shape", &self.header.shape()).finish_non_exhaustive()
    }
}

impl Stack {
    /// Opens the array, which has a row for each of `rows` pictures.
    pub(super) fn open(path: &Path, rows: usize) -> Result<Self, ForeignError> {
        let unreadable = |source| ForeignError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        let place = format!("`{}`", path.display());
        let Header { header, before, bytes } = read_header(BufReader::new(&file), length, &place)?;
        let found = header.shape();
        if found.len() < 2 || found[0] != rows as u64 || found[1..].contains(&0) {
            return Err(ForeignError::Stack { place, found: found.to_vec(), rows });
        }
        if header.order() == Order::Fortran {
            return Err(ForeignError::Fortran { place });
        }
        let row_bytes = bytes.checked_div(rows as u64).unwrap_or(0);
        if row_bytes > MOST_BYTES {
            return Err(ForeignError::Huge { place, bytes: row_bytes, most: MOST_BYTES });
        }
        let stack = Self { path: path.to_owned(), file, header, start: before, row_bytes };
        if rows > 0 {
            // Whether these are numbers at all.
            stack.row(0)?;
        }
        Ok(stack)
    }

    /// The shape of a row.
    pub(super) fn row_shape(&self) -> Vec<usize> {
        self.header.shape()[1..].iter().map(|side| *side as usize).collect()
    }

    /// The numbers of a row.
    pub(super) fn row(&self, row: usize) -> Result<Vec<f32>, ForeignError> {
        let mut bytes = vec![0; self.row_bytes as usize];
        let unreadable = |source| ForeignError::Read { path: self.path.clone(), source };
        self.file.read_exact_at(&mut bytes, self.start + row as u64 * self.row_bytes).map_err(unreadable)?;
        let file = NpyFile::with_header(self.header.clone(), &bytes[..]);
        numbers(file, self.row_shape().iter().product(), &self.place(row))
    }

    /// For messages: where a row is.
    pub(super) fn place(&self, row: usize) -> String {
        format!("row {row} of `{}`", self.path.display())
    }

    /// Puts all of the file's bytes into a digest.
    pub(super) fn digest(&self, hasher: &mut blake3::Hasher) -> Result<(), ForeignError> {
        let unreadable = |source| ForeignError::Read { path: self.path.clone(), source };
        let file = File::open(&self.path).map_err(unreadable)?;
        hasher.update_reader(file).map(drop).map_err(unreadable)
    }
}

/// Counts what is read.
pub(super) struct Counted<R> {
    reader: R,
    read: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let read = self.reader.read(out)?;
        self.read += read as u64;
        Ok(read)
    }
}

/// From the order of Fortran, the first index fastest, to that of C, the last one fastest.
fn transposed(values: &[f32], shape: &[u64]) -> Vec<f32> {
    let mut strides = vec![1; shape.len()];
    for at in 1..shape.len() {
        strides[at] = strides[at - 1] * shape[at - 1] as usize;
    }
    let place = |mut index: usize| {
        let sides = shape.iter().zip(&strides).rev();
        sides.fold(0, |place, (side, stride)| {
            let here = index % *side as usize;
            index /= *side as usize;
            place + here * stride
        })
    };
    (0..values.len()).map(|index| values[place(index)]).collect()
}

/// The element types that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NpyKind {
    /// `<f4`
    F32,
    /// `<f2`
    F16,
}

/// Writes an array row by row, under another name until it is finished.
#[derive(Debug)]
pub struct NpyWriter {
    path: PathBuf,
    out: BufWriter<File>,
}

impl NpyWriter {
    /// Starts the array `[rows, ..row_shape]` at `path`.
    ///
    /// # Errors
    /// [`ForeignError::Write`].
    pub fn create(path: &Path, kind: NpyKind, rows: usize, row_shape: &[usize]) -> Result<Self, ForeignError> {
        let unwritable = |source| ForeignError::Write { path: path.to_owned(), source };
        let file = File::create(super::safetensors::temporary(path)).map_err(unwritable)?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        out.write_all(&header(kind, rows, row_shape)).map_err(unwritable)?;
        Ok(Self { path: path.to_owned(), out })
    }

    /// Appends rows, little-endian.
    ///
    /// # Errors
    /// [`ForeignError::Write`].
    pub fn write(&mut self, rows: &[u8]) -> Result<(), ForeignError> {
        self.out.write_all(rows).map_err(|source| ForeignError::Write { path: self.path.clone(), source })
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// [`ForeignError::Write`].
    pub fn finish(self) -> Result<(), ForeignError> {
        super::safetensors::publish(self.out, &self.path)
    }
}

/// Magic, version 1.0, and the dictionary, padded so that the data start at a multiple of 64.
fn header(kind: NpyKind, rows: usize, row_shape: &[usize]) -> Vec<u8> {
    let dtype = match kind {
        NpyKind::F32 => "<f4",
        NpyKind::F16 => "<f2",
    };
    let sides: Vec<String> = [rows].iter().chain(row_shape).map(ToString::to_string).collect();
    let comma = if sides.len() == 1 { "," } else { "" };
    let mut text = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({}{comma}), }}", sides.join(", "));
    const BEFORE: usize = 10;
    let bytes = (BEFORE + text.len() + 1).next_multiple_of(64) - BEFORE;
    text += &" ".repeat(bytes - text.len() - 1);
    text.push('\n');
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend((bytes as u16).to_le_bytes());
    header.extend(text.bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(shape: &[usize], rows: usize, values: &[f32]) -> Vec<u8> {
        let mut bytes = header(NpyKind::F32, rows, shape);
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        bytes
    }

    fn read_all(bytes: &[u8]) -> Result<Array, ForeignError> {
        read(bytes, bytes.len() as u64, "`a.npy`")
    }

    #[test]
    fn what_is_written_is_read() {
        let values: Vec<f32> = (0..12).map(|n| n as f32).collect();
        for (shape, rows) in [(&[][..], 12), (&[4][..], 3), (&[2, 3][..], 2)] {
            let written = bytes(shape, rows, &values);
            let array = read_all(&written).unwrap();
            let expected: Vec<u64> = [rows].iter().chain(shape).map(|side| *side as u64).collect();
            assert_eq!((array.shape, &array.values), (expected, &values));
            assert_eq!((written.len() - 48) % 64, 0);
        }
    }

    #[test]
    fn the_order_of_fortran_is_turned() {
        let text = String::from_utf8_lossy(&header(NpyKind::F32, 2, &[3])[10..]).replace("False", "True ");
        let mut bytes = header(NpyKind::F32, 2, &[3])[..10].to_vec();
        bytes.extend(text.bytes());
        // [[0, 1, 2], [3, 4, 5]] column by column.
        bytes.extend([0.0_f32, 3.0, 1.0, 4.0, 2.0, 5.0].iter().flat_map(|value| value.to_le_bytes()));
        assert_eq!(read_all(&bytes).unwrap().values, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    }

    #[test]
    fn a_header_that_lies_is_refused_before_memory_is_asked_for() {
        let long = bytes(&[1 << 40], 1 << 20, &[1.0; 4]);
        insta::assert_snapshot!(read_all(&long).map(drop).unwrap_err(), @r"
        `a.npy` says that it has the shape `[1048576, 1099511627776]`, which takes 4611686018427387904 bytes, and 16 are there
        hint: it was cut off: copy it again
        ");
        let head = header(NpyKind::F32, 1 << 20, &[1 << 10]);
        let zeros = head.chain(std::io::repeat(0));
        let error = read(zeros, head.len() as u64 + (1 << 32), "`a.npy`").map(drop).unwrap_err();
        insta::assert_snapshot!(error, @r"
        `a.npy` is an array of 4294967296 bytes, and a row takes up to 1073741824
        hint: name the folder with one file a picture
        ");
        let short = bytes(&[4], 3, &[1.0; 4]);
        assert!(matches!(read_all(&short), Err(ForeignError::ArrayBytes { expected: 48, found: 16, .. })));
        assert!(matches!(read_all(b"\x93NUMPY\x01"), Err(ForeignError::Array { .. })));
        assert!(matches!(read_all(b""), Err(ForeignError::Array { .. })));
    }

    #[test]
    fn objects_and_text_are_refused() {
        for dtype in ["'|O'", "'<U3'", "[('a', '<f4')]"] {
            let text = format!("{{'descr': {dtype}, 'fortran_order': False, 'shape': (1,), }}\n");
            let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
            bytes.extend((text.len() as u16).to_le_bytes());
            bytes.extend(text.bytes());
            bytes.extend([0; 12]);
            assert!(read_all(&bytes).is_err(), "{dtype}");
        }
    }
}
