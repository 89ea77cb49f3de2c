//! The manifest, `column.json`: written last, and only it makes a column exist.
//!
//! Knows the JSON and what must agree inside it; whether the shards agree with it is the reader's question. Members it does
//! not know are ignored, so that a format can grow; a larger `format` is refused.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{CacheError, ManifestError, Result};
use crate::key::digest_without;
use crate::missing::MissingMap;
use crate::publish::publish;
use crate::{ColumnPlan, Dtype, Key, Part};

/// The newest format. It is written where a column needs it (see [`ColumnPlan::format`]), and all up to it are read.
pub const FORMAT: u32 = 2;

/// The manifest's file name.
pub(crate) const FILE: &str = "column.json";
/// The name of the manifest of a part. Another name, so that nobody takes a part for a column.
pub(crate) const PART_FILE: &str = "part.json";

/// A finished column, as its manifest describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The format of the column's files.
    pub format: u32,
    /// How often the column has been finished anew, for new or changed images.
    pub generation: u32,
    /// Which part of the column this is; `None`: the whole. Only shards and missing rows of the part are listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
    /// Name, key, tensors, rows and how they lie in shards.
    pub column: ColumnPlan,
    /// Rows that share one chunk digest.
    pub rows_per_chunk: u32,
    /// The rows without an embedding.
    pub missing: MissingSummary,
    /// The shards in order of rows.
    pub shards: Vec<ShardEntry>,
    /// Free JSON: where the column came from.
    pub provenance: Value,
}

/// How many rows are missing, why, and where the list of them is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingSummary {
    /// Missing rows.
    pub count: u32,
    /// Missing rows by the name of the reason.
    pub by_reason: BTreeMap<String, u32>,
    /// The list, in the column's folder.
    pub file: String,
    /// BLAKE3 of the list, in hex.
    pub digest: String,
}

/// A finished shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardEntry {
    /// The file, in the column's folder.
    pub file: String,
    /// Rows in it.
    pub rows: u32,
    /// Bytes of it.
    pub bytes: u64,
    /// BLAKE3 of the file, in hex: what `b3sum` prints.
    pub digest: String,
    /// BLAKE3 of each chunk of rows, cut to 32 hex digits.
    pub chunks: Vec<String>,
}

impl MissingSummary {
    /// The summary of `missing`, whose list `lines` is in `file`.
    pub(crate) fn new(missing: &MissingMap, file: String, lines: &[u8]) -> Self {
        let mut by_reason = BTreeMap::new();
        for row in missing.values() {
            *by_reason.entry(row.reason.to_string()).or_default() += 1;
        }
        Self { count: missing.len() as u32, by_reason, file, digest: blake3::hash(lines).to_hex().to_string() }
    }
}

/// The name of the list of missing rows of a generation.
pub(crate) fn missing_file(generation: u32) -> String {
    if generation == 0 { "missing.jsonl".to_owned() } else { format!("missing.g{generation}.jsonl") }
}

impl Manifest {
    /// The column's name.
    pub fn name(&self) -> &str {
        &self.column.name
    }

    /// The column's key.
    pub fn key(&self) -> &Key {
        &self.column.key
    }

    /// The column's folder: `<name>-<key8>`.
    pub fn folder(&self) -> String {
        self.column.folder()
    }

    /// Rows, the missing ones included.
    pub fn rows(&self) -> u32 {
        self.column.rows
    }

    /// Element type of the first tensor.
    pub fn dtype(&self) -> Dtype {
        self.column.dtype()
    }

    /// Shape of one row of the first tensor.
    pub fn row_shape(&self) -> &[usize] {
        self.column.row_shape()
    }

    /// Bytes of all shards.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.bytes).sum()
    }

    /// The first shard that is listed: 0 but in a part.
    pub(crate) fn first_shard(&self) -> usize {
        self.column.part_shards(self.part).start
    }

    /// The shards that are listed, each with its number.
    pub(crate) fn numbered_shards(&self) -> impl Iterator<Item = (usize, &ShardEntry)> {
        (self.first_shard()..).zip(&self.shards)
    }

    /// The name of the file it is kept in.
    pub(crate) fn file(&self) -> &'static str {
        if self.part.is_some() { PART_FILE } else { FILE }
    }

    /// Reads and checks the manifest in a column's folder.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        Self::read_file(folder, FILE)
    }

    /// Reads the manifest of the whole column, else of the part that is there.
    pub(crate) fn read_whole_or_part(folder: &Path) -> Result<Option<Self>> {
        for file in [FILE, PART_FILE] {
            match Self::read_file(folder, file) {
                Err(error) if error.is_not_found() => {}
                manifest => return manifest.map(Some),
            }
        }
        Ok(None)
    }

    fn read_file(folder: &Path, file: &str) -> Result<Self> {
        let path = folder.join(file);
        let text = std::fs::read(&path).map_err(CacheError::io("read", &path))?;
        let manifest = Self::parse(&path, &text)?;
        manifest.check(&path, folder)?;
        Ok(manifest)
    }

    /// Reads the manifest where there is one.
    pub(crate) fn read_if_any(folder: &Path) -> Result<Option<Self>> {
        match Self::read(folder) {
            Ok(manifest) => Ok(Some(manifest)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn parse(path: &Path, text: &[u8]) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let malformed = |source| ManifestError::Json { path: path.to_owned(), source };
        let version: Version = serde_json::from_slice(text).map_err(malformed)?;
        if !(1..=FORMAT).contains(&version.format) {
            return Err(ManifestError::Version { path: path.to_owned(), found: version.format });
        }
        check_digest(path, &serde_json::from_slice(text).map_err(malformed)?)?;
        serde_json::from_slice(text).map_err(malformed)
    }

    fn check(&self, path: &Path, folder: &Path) -> Result<(), ManifestError> {
        let owned = || path.to_owned();
        self.column.check().map_err(|source| ManifestError::Plan { path: owned(), source })?;
        if self.format < self.column.format() {
            let (expected, found) = (self.column.format(), self.format);
            return Err(ManifestError::Format { path: owned(), expected, found });
        }
        if path.file_name().is_some_and(|name| name != self.file()) {
            return Err(ManifestError::PartsPlace { path: owned(), expected: self.file() });
        }
        if folder.file_name().is_some_and(|name| name != self.folder().as_str()) {
            return Err(ManifestError::Folder { path: owned(), found: self.folder() });
        }
        let expected = self.column.part_shards(self.part).len();
        if self.shards.len() != expected {
            return Err(ManifestError::ShardCount { path: owned(), expected, found: self.shards.len() });
        }
        check_file_name(path, &self.missing.file)?;
        for (at, shard) in self.numbered_shards() {
            check_file_name(path, &shard.file)?;
            self.check_shard(path, shard, self.column.shard_rows(at))?;
        }
        Ok(())
    }

    fn check_shard(&self, path: &Path, shard: &ShardEntry, rows: u32) -> Result<(), ManifestError> {
        let (path, file) = (path.to_owned(), shard.file.clone());
        if shard.rows != rows {
            return Err(ManifestError::ShardRows { path, shard: file, expected: rows, found: shard.rows });
        }
        let expected = rows.div_ceil(self.rows_per_chunk.max(1)) as usize;
        if shard.chunks.len() != expected {
            return Err(ManifestError::ChunkCount { path, shard: file, expected, found: shard.chunks.len() });
        }
        Ok(())
    }

    /// Publishes the manifest: from then on the column, or the part of one, exists.
    pub(crate) fn publish(&self, folder: &Path) -> Result<()> {
        let path = folder.join(self.file());
        publish(&path, |out| {
            serde_json::to_writer_pretty(&mut *out, &Sealed::new(self))
                .map_err(|source| CacheError::io("write", &path)(source.into()))?;
            out.write_all(b"\n").map_err(CacheError::io("write", &path))
        })
    }
}

/// The member that holds the digest of all others.
const DIGEST: &str = "digest";

/// A manifest as it is written.
#[derive(Serialize)]
struct Sealed<'a> {
    #[serde(flatten)]
    manifest: &'a Manifest,
    digest: String,
}

impl<'a> Sealed<'a> {
    fn new(manifest: &'a Manifest) -> Self {
        let Ok(Value::Object(members)) = serde_json::to_value(manifest) else {
            unreachable!("a manifest is an object")
        };
        Self { manifest, digest: digest_without(&members, DIGEST) }
    }
}

/// Refuses a manifest whose digest is not that of what it says. Early manifests have none.
fn check_digest(path: &Path, manifest: &Value) -> Result<(), ManifestError> {
    let (Some(members), Some(recorded)) = (manifest.as_object(), manifest.get(DIGEST)) else { return Ok(()) };
    let found = digest_without(members, DIGEST);
    if recorded == found.as_str() {
        return Ok(());
    }
    let expected = recorded.as_str().map_or_else(|| recorded.to_string(), str::to_owned);
    Err(ManifestError::Digest { path: path.to_owned(), expected, found })
}

fn check_file_name(path: &Path, file: &str) -> Result<(), ManifestError> {
    if is_plain_name(file) {
        return Ok(());
    }
    Err(ManifestError::FileName { path: path.to_owned(), file: file.to_owned() })
}

/// Whether `file` names something in the folder itself, and nothing above or below it.
pub(crate) fn is_plain_name(file: &str) -> bool {
    let mut parts = Path::new(file).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(name)), None) if name == file)
}
