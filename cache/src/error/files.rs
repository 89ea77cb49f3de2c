//! Errors of a column's files: one variant a malformation.

use std::path::PathBuf;

use super::SpecError;

/// A manifest, or the list of missing rows beside it, is damaged.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not the JSON it should be.
    #[error("cannot understand the manifest `{}`", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A later program wrote it.
    #[error("the manifest `{}` is of format `{found}`, and this program reads up to `{}`\nhint: use a newer icecap", path.display(), crate::FORMAT)]
    Version {
        /// The file.
        path: PathBuf,
        /// The format it names.
        found: u32,
    },
    /// It uses what its format does not have.
    #[error("the manifest `{}` is of format `{found}` and describes a column of format `{expected}`", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What the column needs.
        expected: u32,
        /// The format it names.
        found: u32,
    },
    /// It does not say what was written.
    #[error("the manifest `{}` is damaged: its digest is `{found}`, and it records `{expected}`\nhint: put the file back from a copy, or drop the column and encode it again", path.display())]
    Digest {
        /// The file.
        path: PathBuf,
        /// Recorded.
        expected: String,
        /// Computed.
        found: String,
    },
    /// The plan in it makes no sense.
    #[error("the manifest `{}` describes an impossible column", path.display())]
    Plan {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: SpecError,
    },
    /// The folder is another column's.
    #[error("the manifest `{}` is of column `{found}`", path.display())]
    Folder {
        /// The file.
        path: PathBuf,
        /// The folder it belongs in.
        found: String,
    },
    /// The manifest of a part where that of a column belongs, or the reverse.
    #[error("the manifest `{}` belongs in `{expected}`: a part is not a column\nhint: it was renamed by hand; `icecap cache merge` makes a column of parts", path.display())]
    PartsPlace {
        /// The file.
        path: PathBuf,
        /// The name it should have.
        expected: &'static str,
    },
    /// Not as many shards as the rows need.
    #[error("the manifest `{}` lists {found} shards where its rows need {expected}", path.display())]
    ShardCount {
        /// The file.
        path: PathBuf,
        /// Needed.
        expected: usize,
        /// Listed.
        found: usize,
    },
    /// A shard of another number of rows.
    #[error("the manifest `{}` gives shard `{shard}` {found} rows where it has {expected}", path.display())]
    ShardRows {
        /// The file.
        path: PathBuf,
        /// The shard's file.
        shard: String,
        /// From the plan.
        expected: u32,
        /// Recorded.
        found: u32,
    },
    /// A file name that leads elsewhere.
    #[error("the manifest `{}` names `{file}`, which is not a plain file name of its folder", path.display())]
    FileName {
        /// The manifest.
        path: PathBuf,
        /// The name.
        file: String,
    },
    /// Not as many chunk digests as the rows need.
    #[error("the manifest `{}` has {found} chunk digests for `{shard}` where its rows need {expected}", path.display())]
    ChunkCount {
        /// The manifest.
        path: PathBuf,
        /// The shard's file.
        shard: String,
        /// Needed.
        expected: usize,
        /// Recorded.
        found: usize,
    },
    /// The list of missing rows is not the JSON it should be.
    #[error("line `{line}` of `{}` is not a missing row", path.display())]
    MissingLine {
        /// The list.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The list of missing rows is not in order, or names a row the column does not have.
    #[error("line `{line}` of `{}` names row `{row}`, which is out of order or outside the column", path.display())]
    MissingOrder {
        /// The list.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The row.
        row: u32,
    },
    /// The counts of missing rows disagree.
    #[error("`{}` counts {expected} missing rows, and {found} are listed", path.display())]
    MissingCount {
        /// The manifest.
        path: PathBuf,
        /// In the manifest.
        expected: u32,
        /// In the list.
        found: u32,
    },
    /// A row is missing in one place and not in the other.
    #[error("row `{row}` of `{}` has status `{status}` in its shard, which the list of missing rows does not say", path.display())]
    MissingStatus {
        /// The manifest.
        path: PathBuf,
        /// The row.
        row: u32,
        /// In the shard.
        status: u8,
    },
}

/// A shard is damaged or is another than the manifest lists.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// The size is not the one recorded.
    #[error("shard `{}` has {found} bytes where {expected} are recorded", path.display())]
    Size {
        /// The shard.
        path: PathBuf,
        /// Recorded.
        expected: u64,
        /// Found.
        found: u64,
    },
    /// The header is no safetensors header.
    #[error("shard `{}` has no valid safetensors header", path.display())]
    Header {
        /// The shard.
        path: PathBuf,
        /// Why.
        #[source]
        source: safetensors::SafeTensorError,
    },
    /// A tensor is not there.
    #[error("shard `{}` has no tensor `{tensor}`", path.display())]
    NoTensor {
        /// The shard.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor has another dtype.
    #[error("tensor `{tensor}` of shard `{}` is `{found}` where `{expected}` is recorded", path.display())]
    TensorDtype {
        /// The shard.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// From the manifest.
        expected: String,
        /// In the header.
        found: String,
    },
    /// A tensor has another shape.
    #[error("tensor `{tensor}` of shard `{}` has the shape `{found:?}` where `{expected:?}` is recorded", path.display())]
    TensorShape {
        /// The shard.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// From the manifest.
        expected: Vec<usize>,
        /// In the header.
        found: Vec<usize>,
    },
    /// The rows' bytes do not start at a multiple of 64.
    #[error("the data of shard `{}` starts at byte `{offset}`, which is not a multiple of 64", path.display())]
    Alignment {
        /// The shard.
        path: PathBuf,
        /// Where the data starts.
        offset: u64,
    },
    /// The shard says that it is another.
    #[error("shard `{}` says that its `{field}` is `{found}` where `{expected}` is recorded", path.display())]
    Identity {
        /// The shard.
        path: PathBuf,
        /// `column`, `key`, `first_row` or `icecap_format`.
        field: &'static str,
        /// From the manifest.
        expected: String,
        /// In the header.
        found: String,
    },
    /// A status that means nothing.
    #[error("row `{row}` in shard `{}` has the unknown status `{status}`", path.display())]
    Status {
        /// The shard.
        path: PathBuf,
        /// The row of the column.
        row: u32,
        /// The status.
        status: u8,
    },
}

/// A journal cannot be used. A torn tail is not an error.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It does not start with a plan.
    #[error("the journal `{}` does not start with a plan\nhint: drop the column, or write it anew with --overwrite", path.display())]
    NoPlan {
        /// The journal.
        path: PathBuf,
    },
    /// A later program wrote it.
    #[error("the journal `{}` is of format `{found}`, and this program reads up to `{}`\nhint: use a newer icecap", path.display(), crate::FORMAT)]
    Version {
        /// The journal.
        path: PathBuf,
        /// The format it names.
        found: u32,
    },
    /// The plan in it makes no sense.
    #[error("the journal `{}` describes an impossible column", path.display())]
    Plan {
        /// The journal.
        path: PathBuf,
        /// Why.
        #[source]
        source: SpecError,
    },
    /// A record names a missing row that the column does not have.
    #[error("record `{record}` of the journal `{}` names the missing row `{row}`, which is outside the column\nhint: drop the column, or write it anew with --overwrite", path.display())]
    MissingRow {
        /// The journal.
        path: PathBuf,
        /// The record, from 1.
        record: usize,
        /// The row.
        row: u32,
    },
    /// A record names a file that is not in the column's folder.
    #[error("record `{record}` of the journal `{}` names `{file}`, which is not a plain file name of its folder\nhint: drop the column, or write it anew with --overwrite", path.display())]
    FileName {
        /// The journal.
        path: PathBuf,
        /// The record, from 1.
        record: usize,
        /// The name.
        file: String,
    },
    /// A shard of more rows than fit its place.
    #[error("record `{record}` of the journal `{}` gives a shard {found} rows where it has at most {most}\nhint: drop the column, or write it anew with --overwrite", path.display())]
    ShardRows {
        /// The journal.
        path: PathBuf,
        /// The record, from 1.
        record: usize,
        /// From the plan.
        most: u32,
        /// Recorded.
        found: u32,
    },
    /// A record whose checksum is right says something impossible.
    #[error("record `{record}` of the journal `{}` is not understood", path.display())]
    Record {
        /// The journal.
        path: PathBuf,
        /// The record, from 1.
        record: usize,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}
