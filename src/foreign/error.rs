//! What can be wrong with features that others have written.

use std::path::PathBuf;

/// A source cannot be read, or does not fit. `place` is the file, and the line where the file has lines.
#[derive(Debug, thiserror::Error)]
pub enum ForeignError {
    /// The system refuses.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The system refuses.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A folder without a file of the format.
    #[error("`{}` holds no `.{extension}` file\nhint: name the folder with one file a picture, and its --format", path.display())]
    Nothing {
        /// The folder.
        path: PathBuf,
        /// What was looked for.
        extension: &'static str,
    },
    /// A file without a picture, or without one box.
    #[error("`{}` holds no features", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A bottom-up archive whose arrays do not agree.
    #[error(
        "{place}: `x` of the shape `{x:?}`, `bbox` of `{bbox:?}` and `num_bbox` of `{num_bbox}` do not agree\nhint: they should be [n, D] or [D, n], [n, 4], and n"
    )]
    Regions {
        /// Where.
        place: String,
        /// Shape of the vectors.
        x: Vec<u64>,
        /// Shape of the boxes.
        bbox: Vec<u64>,
        /// What the archive says of their number.
        num_bbox: f32,
    },
    /// A line with another number of fields.
    #[error(
        "{place} has {found} fields where 6 (Anderson's) or 10 (LXMERT's) are expected\nhint: a line that is cut off means that the file is: copy it again"
    )]
    Fields {
        /// Where.
        place: String,
        /// Fields found.
        found: usize,
    },
    /// Not a number where one should be.
    #[error("{place}: `{value}` is not a {field}")]
    Number {
        /// Where.
        place: String,
        /// What it should be.
        field: &'static str,
        /// What it is.
        value: String,
    },
    /// Not base64.
    #[error("{place}: the field `{field}` is not base64")]
    Base64 {
        /// Where.
        place: String,
        /// The field.
        field: &'static str,
        /// Why.
        #[source]
        source: base64::DecodeError,
    },
    /// Bytes of another length than the boxes need.
    #[error(
        "{place}: `{field}` of {boxes} boxes takes {expected} bytes, and {found} are there\nhint: a line that is cut off means that the file is: copy it again"
    )]
    Bytes {
        /// Where.
        place: String,
        /// The field.
        field: &'static str,
        /// Boxes of the picture.
        boxes: usize,
        /// Bytes they take.
        expected: String,
        /// Bytes there are.
        found: usize,
    },
    /// NaN or an infinity.
    #[error(
        "{place}: number {at} of `{field}` is not finite\nhint: the features of this picture are broken: extract them again, or take the picture out"
    )]
    NotFinite {
        /// Where.
        place: String,
        /// The field or array.
        field: String,
        /// Which number, from 0.
        at: usize,
    },
    /// A number that the dtype cannot hold.
    #[error("{place}: `{value}` is too large for {dtype}\nhint: import with --dtype f32")]
    TooLarge {
        /// Where.
        place: String,
        /// The number.
        value: f32,
        /// The dtype asked for.
        dtype: icecap_cache::Dtype,
    },
    /// Two pictures of one name.
    #[error(
        "`{name}` is there twice: in {first} and in {second}\nhint: a picture has its features once: take one of the two out"
    )]
    Twice {
        /// The name.
        name: String,
        /// One place.
        first: String,
        /// The other.
        second: String,
    },
    /// More vectors than a row has room for.
    #[error(
        "{place} has {found} vectors, and a row has room for {vectors}\nhint: give --vectors {found} or more, or leave --vectors out"
    )]
    TooMany {
        /// Where.
        place: String,
        /// Vectors found.
        found: usize,
        /// Vectors a row.
        vectors: usize,
    },
    /// An array of another shape than the others.
    #[error(
        "{place} has the shape `{found:?}` where the others have `{expected}`\nhint: a column's rows have one shape; only the number of vectors of `[K, D]` may differ"
    )]
    ArrayShape {
        /// Where.
        place: String,
        /// What the first file has.
        expected: String,
        /// What this one has.
        found: Vec<u64>,
    },
    /// One array for all pictures where there should be one for each.
    #[error(
        "`{}` holds one array for all pictures: `{features}`, and `{ids}` names them\nhint: import it with --format npy-rows", folder.display()
    )]
    Rows {
        /// The folder.
        folder: PathBuf,
        /// The array's file.
        features: &'static str,
        /// The names' file.
        ids: &'static str,
    },
    /// An array that does not have a row for each name.
    #[error(
        "{place} has the shape `{found:?}`, and `ids.txt` names {rows} pictures\nhint: the array is [{rows}, D] or [{rows}, K, D]: a row for each line of `ids.txt`, in their order"
    )]
    Stack {
        /// Where.
        place: String,
        /// Its shape.
        found: Vec<u64>,
        /// Pictures named.
        rows: usize,
    },
    /// An array whose rows do not lie together.
    #[error(
        "{place} is in the order of Fortran, where a row lies all over the file\nhint: save it with `numpy.ascontiguousarray`"
    )]
    Fortran {
        /// Where.
        place: String,
    },
    /// An array that is no tensor of a column.
    #[error("`{}` is nothing that a column holds: beside `features.npy` there may be {known}\nhint: take it out of the folder", path.display())]
    NoTensor {
        /// The file.
        path: PathBuf,
        /// The names that mean something.
        known: String,
    },
    /// Not an array file.
    #[error("{place} is no NumPy array")]
    Array {
        /// Where.
        place: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An array of something else than numbers.
    #[error("{place} is an array of `{dtype}`\nhint: f2, f4, f8 and integers are read; save it as one of them")]
    ArrayDtype {
        /// Where.
        place: String,
        /// NumPy's name of it.
        dtype: String,
    },
    /// The header says another number of bytes than there are.
    #[error(
        "{place} says that it has the shape `{shape:?}`, which takes {expected} bytes, and {found} are there\nhint: it was cut off: copy it again"
    )]
    ArrayBytes {
        /// Where.
        place: String,
        /// The shape in its header.
        shape: Vec<u64>,
        /// Bytes that takes.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// An array that no row could hold.
    #[error(
        "{place} is an array of {bytes} bytes, and a row takes up to {most}\nhint: name the folder with one file a picture"
    )]
    Huge {
        /// Where.
        place: String,
        /// Its bytes.
        bytes: u64,
        /// What is read at most.
        most: u64,
    },
    /// Not a zip archive.
    #[error("`{}` is no `.npz`", path.display())]
    Zip {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: zip::result::ZipError,
    },
    /// The archive lacks an array.
    #[error("`{}` has no array `{array}`; it has {found}\nhint: name the array with --array", path.display())]
    NoArray {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        array: String,
        /// What is there.
        found: String,
    },
    /// A name that could be several rows.
    #[error(
        "`{name}` could be row `{first}` or row `{second}`\nhint: pictures are matched by id, then by file name without folder and extension, then by COCO's number; here that is ambiguous"
    )]
    Ambiguous {
        /// The name in the source.
        name: String,
        /// One row.
        first: String,
        /// The other.
        second: String,
    },
    /// An id that a list of lines cannot hold.
    #[error("the id `{}` holds a line break, which `ids.txt` cannot\nhint: export to --format safetensors", id.escape_debug())]
    LineBreak {
        /// The id.
        id: String,
    },
}
