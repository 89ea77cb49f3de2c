//! Errors of the row index and of a column's specification.

use std::path::PathBuf;

/// `rows.jsonl` is damaged, or the rows given cannot become one.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    /// A line is not the JSON object it should be.
    #[error("line `{line}` of `{}` is not a row", path.display())]
    Line {
        /// `rows.jsonl`.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// `content` is not 32 hex digits.
    #[error("line `{line}` of `{}` has a `content` that is not 32 lower-case hex digits", path.display())]
    Content {
        /// `rows.jsonl`.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
    },
    /// The last line has no end.
    #[error("`{}` ends in the middle of a line\nhint: it was changed by hand or by another program; put the old one back", path.display())]
    Torn {
        /// `rows.jsonl`.
        path: PathBuf,
    },
    /// More rows, or more splits, than the format counts.
    #[error("`{}` has more {what} than the format can count", path.display())]
    TooMany {
        /// `rows.jsonl`.
        path: PathBuf,
        /// Rows or splits.
        what: &'static str,
    },
    /// Two lines have the same id.
    #[error("`{id}` is the id of two rows of `{}`: `{first}` and `{second}`", path.display())]
    DuplicateLine {
        /// `rows.jsonl`.
        path: PathBuf,
        /// The id.
        id: String,
        /// The first row of it.
        first: u32,
        /// The second.
        second: u32,
    },
    /// Two records given have the same id.
    #[error("`{id}` is the id of two images of the data set\nhint: ids must be unique: remove one of the two")]
    Duplicate {
        /// The id.
        id: String,
    },
    /// The content hash given is not one.
    #[error("`{content}`, the content hash of `{id}`, is not 32 lower-case hex digits")]
    BadContent {
        /// The id.
        id: String,
        /// The hash given.
        content: String,
    },
    /// The image may have changed and nobody looked.
    #[error(
        "the file of `{id}` is not the one the cache knows, and its content hash was not given\nhint: give the hash where `Rows::needs_content` says so"
    )]
    ContentNeeded {
        /// The id.
        id: String,
    },
}

/// The column asked for makes no sense.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SpecError {
    /// The name cannot be a folder's.
    #[error(
        "`{name}` cannot name a column\nhint: use ASCII letters, digits, `_`, `.` and `-`, up to 100, not starting with `.` or `-`"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// No tensor.
    #[error("a column needs at least one tensor")]
    NoTensors,
    /// A tensor's name cannot be used.
    #[error("`{name}` cannot name a tensor: it is empty, taken, or used by the format")]
    TensorName {
        /// The name.
        name: String,
    },
    /// A row of no bytes, or of too many.
    #[error("rows of tensor `{tensor}` cannot have the shape `{row_shape:?}`: a row takes between 1 byte and 1 GiB")]
    RowShape {
        /// The tensor.
        tensor: String,
        /// The shape.
        row_shape: Vec<usize>,
    },
    /// i8 where there is no scale for it.
    #[error(
        "tensor `{tensor}` cannot be i8: a row has one scale, and it is the first tensor's\nhint: use f32, f16 or bf16 for it"
    )]
    NotScaled {
        /// The tensor.
        tensor: String,
    },
    /// An i8 embedding without scales.
    #[error("tensor `{tensor}` is i8 and has no `scale` beside it: f32, one number a row")]
    NoScale {
        /// The tensor.
        tensor: String,
    },
    /// Zero rows a batch.
    #[error("a batch needs at least one row")]
    NoBatchRows,
    /// Shards must hold whole batches.
    #[error(
        "`{rows_per_shard}` rows a shard are not a multiple of `{batch_rows}` rows a batch\nhint: leave the rows a shard out, or round them"
    )]
    ShardNotBatches {
        /// Rows a shard.
        rows_per_shard: u32,
        /// Rows a batch.
        batch_rows: u32,
    },
    /// The digest beside a key is not the key's.
    #[error("the key's digest is `{expected}`, and `{found}` is recorded")]
    KeyDigest {
        /// Computed.
        expected: String,
        /// Recorded.
        found: String,
    },
}
