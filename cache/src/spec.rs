//! From a column as asked for ([`ColumnSpec`]) to a column as meant ([`ColumnPlan`]): names checked, sizes computed.
//!
//! Knows nothing of files. The number of rows a shard is part of the plan, not of the key: it decides where bytes lie,
//! not what they are, so an existing column keeps its own and a caller need not remember it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::dtype::SCALE;
use crate::error::SpecError;
use crate::{Dtype, Key, Part, TensorSpec};

/// Bytes a shard aims at where the spec does not give its rows.
const SHARD_BYTES: usize = 256 << 20;

/// A column as asked for.
#[derive(Debug, Clone)]
pub struct ColumnSpec {
    /// The column's name: ASCII letters, digits, `_`, `.` and `-`.
    pub name: String,
    /// Everything that decides the column's bytes.
    pub key: Key,
    /// The tensors of a row; the first is called `embedding`.
    pub tensors: Vec<TensorSpec>,
    /// Rows a batch: batches start at its multiples.
    pub batch_rows: u32,
    /// Rows a shard, a multiple of `batch_rows`. `None`: what the column has already, else about 256 MiB a shard.
    pub rows_per_shard: Option<u32>,
    /// Free JSON for the reader's eyes: recipe, versions, host, time.
    pub provenance: Value,
    /// Who computes the rows, in whatever words: see [`ColumnSpec::with_writer`].
    pub writer: Option<Value>,
    /// Which of the rows recorded as missing are handed out again.
    pub retry_missing: Retry,
    /// Only these of the column's shards, in a cache that holds no others; see [`crate::Cache::merge`].
    pub part: Option<Part>,
}

/// Which of the rows that a column misses are handed out again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Retry {
    /// None of them.
    #[default]
    No,
    /// Those whose reason may have passed ([`crate::Reason::is_temporary`]).
    Temporary,
    /// All of them.
    All,
}

impl From<bool> for Retry {
    fn from(all: bool) -> Self {
        if all { Self::All } else { Self::No }
    }
}

impl ColumnSpec {
    /// A column of one tensor, `embedding`, in batches of 64 rows; of two where it is i8: with the `scale` of every row.
    pub fn new(name: impl Into<String>, key: Key, dtype: Dtype, row_shape: impl Into<Vec<usize>>) -> Self {
        let mut tensors = vec![TensorSpec::new("embedding", dtype, row_shape)];
        if dtype == Dtype::I8 {
            tensors.push(TensorSpec::new(SCALE, Dtype::F32, []));
        }
        Self {
            name: name.into(),
            key,
            tensors,
            batch_rows: 64,
            rows_per_shard: None,
            provenance: Value::Null,
            writer: None,
            retry_missing: Retry::No,
            part: None,
        }
    }

    /// One more tensor a row: boxes, scores, labels.
    #[must_use]
    pub fn with_tensor(mut self, name: impl Into<String>, dtype: Dtype, row_shape: impl Into<Vec<usize>>) -> Self {
        self.tensors.push(TensorSpec::new(name, dtype, row_shape));
        self
    }

    /// Rows a batch.
    #[must_use]
    pub fn with_batch_rows(mut self, rows: u32) -> Self {
        self.batch_rows = rows;
        self
    }

    /// Rows a shard: a multiple of the rows a batch.
    #[must_use]
    pub fn with_rows_per_shard(mut self, rows: u32) -> Self {
        self.rows_per_shard = Some(rows);
        self
    }

    /// What the manifest says about where the column came from.
    #[must_use]
    pub fn with_provenance(mut self, provenance: Value) -> Self {
        self.provenance = provenance;
        self
    }

    /// Says who computes the rows: a JSON value, equal where rows would be equal. The provenance, an object, gets the member
    /// `writers`: all those who wrote rows of the column, in order. Nothing depends on it.
    #[must_use]
    pub fn with_writer(mut self, writer: Value) -> Self {
        self.writer = Some(writer);
        self
    }

    /// Hand out the rows recorded as missing, too; `true` stands for all of them.
    #[must_use]
    pub fn retrying_missing(mut self, retry: impl Into<Retry>) -> Self {
        self.retry_missing = retry.into();
        self
    }

    /// Rows a shard, rounded up to whole batches, where a number is given.
    #[must_use]
    pub fn with_shard_rows(mut self, rows: Option<u32>) -> Self {
        if let Some(rows) = rows {
            self.rows_per_shard = Some(rows.max(1).next_multiple_of(self.batch_rows.max(1)));
        }
        self
    }

    /// Only one part of the column, or the whole.
    #[must_use]
    pub fn with_part(mut self, part: Option<Part>) -> Self {
        self.part = part;
        self
    }

    /// Checks the spec and computes the plan for `rows` rows. `existing` is the rows a shard of the column that is there.
    pub(crate) fn plan(&self, rows: u32, existing: Option<u32>) -> Result<ColumnPlan, SpecError> {
        check_name(&self.name)?;
        check_tensors(&self.tensors)?;
        if self.batch_rows == 0 {
            return Err(SpecError::NoBatchRows);
        }
        let row_bytes: usize = self.tensors.iter().map(TensorSpec::row_bytes).sum();
        let usual = (SHARD_BYTES / row_bytes.max(1)).clamp(1, 1 << 20) as u32;
        let usual = usual.next_multiple_of(self.batch_rows);
        let rows_per_shard = self.rows_per_shard.or(existing).unwrap_or(usual);
        if rows_per_shard == 0 || !rows_per_shard.is_multiple_of(self.batch_rows) {
            return Err(SpecError::ShardNotBatches { rows_per_shard, batch_rows: self.batch_rows });
        }
        Ok(ColumnPlan {
            name: self.name.clone(),
            key_digest: self.key.digest(),
            key: self.key.clone(),
            tensors: self.tensors.clone(),
            rows,
            rows_per_shard,
            batch_rows: self.batch_rows,
        })
    }
}

/// A column as meant: what the manifest and the journal say of it. All sizes are checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ColumnPlan {
    /// The column's name.
    pub name: String,
    /// BLAKE3 of the key's canonical form, in hex.
    pub key_digest: String,
    /// Everything that decides the column's bytes.
    pub key: Key,
    /// The tensors of a row; the first is the embedding.
    pub tensors: Vec<TensorSpec>,
    /// Rows of the column.
    pub rows: u32,
    /// Rows of every shard but the last, which holds what remains.
    pub rows_per_shard: u32,
    /// Rows of every batch but the last.
    pub batch_rows: u32,
}

impl ColumnPlan {
    /// The folder's name: `<name>-<key8>`.
    pub fn folder(&self) -> String {
        format!("{}-{}", self.name, &self.key_digest[..8])
    }

    /// Element type of the first tensor.
    pub fn dtype(&self) -> Dtype {
        self.tensors[0].dtype
    }

    /// Shape of one row of the first tensor.
    pub fn row_shape(&self) -> &[usize] {
        &self.tensors[0].row_shape
    }

    /// Bytes of one row of the first tensor.
    pub fn row_bytes(&self) -> usize {
        self.tensors[0].row_bytes()
    }

    /// The lowest format that has all that the column uses: what its files say, so that older programs read what they can.
    pub fn format(&self) -> u32 {
        if self.tensors.iter().any(|tensor| tensor.dtype == Dtype::I8) { 2 } else { 1 }
    }

    /// Where the scales of an i8 column are among its tensors.
    pub fn scale_tensor(&self) -> Option<usize> {
        let scaled = self.dtype() == Dtype::I8;
        self.tensors.iter().position(|tensor| tensor.name == SCALE).filter(|_| scaled)
    }

    /// Number of shards.
    pub fn shards(&self) -> usize {
        self.rows.div_ceil(self.rows_per_shard) as usize
    }

    /// The shards of a part, or all.
    pub fn part_shards(&self, part: Option<Part>) -> std::ops::Range<usize> {
        part.map_or(0..self.shards(), |part| part.shards(self.shards()))
    }

    /// Rows of a part, or all.
    pub fn part_rows(&self, part: Option<Part>) -> u32 {
        self.part_shards(part).map(|shard| self.shard_rows(shard)).sum()
    }

    /// First row of a shard.
    pub fn first_row(&self, shard: usize) -> u32 {
        shard as u32 * self.rows_per_shard
    }

    /// Rows of a shard.
    pub fn shard_rows(&self, shard: usize) -> u32 {
        self.rows_per_shard.min(self.rows - self.first_row(shard))
    }

    /// The shard that holds a row.
    pub fn shard_of(&self, row: u32) -> usize {
        (row / self.rows_per_shard) as usize
    }

    /// What makes a plan read from a file one that the arithmetic above holds for.
    pub(crate) fn check(&self) -> Result<(), SpecError> {
        check_name(&self.name)?;
        check_tensors(&self.tensors)?;
        if self.batch_rows == 0 {
            return Err(SpecError::NoBatchRows);
        }
        if self.rows_per_shard == 0 || !self.rows_per_shard.is_multiple_of(self.batch_rows) {
            let (rows_per_shard, batch_rows) = (self.rows_per_shard, self.batch_rows);
            return Err(SpecError::ShardNotBatches { rows_per_shard, batch_rows });
        }
        if self.key.digest() != self.key_digest {
            return Err(SpecError::KeyDigest { expected: self.key.digest(), found: self.key_digest.clone() });
        }
        Ok(())
    }
}

fn check_name(name: &str) -> Result<(), SpecError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if name.is_empty() || name.len() > 100 || name.starts_with(['.', '-']) || !name.chars().all(plain) {
        return Err(SpecError::Name { name: name.to_owned() });
    }
    Ok(())
}

/// Names a shard uses for itself.
const RESERVED: [&str; 3] = ["status", "content", "__metadata__"];

fn check_tensors(tensors: &[TensorSpec]) -> Result<(), SpecError> {
    if tensors.is_empty() {
        return Err(SpecError::NoTensors);
    }
    let mut row_bytes = 0usize;
    for (at, tensor) in tensors.iter().enumerate() {
        let name = &tensor.name;
        if name.is_empty() || RESERVED.contains(&name.as_str()) || tensors[..at].iter().any(|t| t.name == *name) {
            return Err(SpecError::TensorName { name: name.clone() });
        }
        let shape = || SpecError::RowShape { tensor: name.clone(), row_shape: tensor.row_shape.clone() };
        let bytes = tensor.checked_row_bytes().filter(|&bytes| bytes > 0).ok_or_else(shape)?;
        // A shard of any number of rows must have a size that a signed 64-bit file offset can hold.
        row_bytes = row_bytes.checked_add(bytes).filter(|&sum| sum < 1 << 30).ok_or_else(shape)?;
    }
    check_scale(tensors)
}

/// Only the embedding is i8, and then it has its scales beside it.
fn check_scale(tensors: &[TensorSpec]) -> Result<(), SpecError> {
    if let Some(tensor) = tensors[1..].iter().find(|tensor| tensor.dtype == Dtype::I8) {
        return Err(SpecError::NotScaled { tensor: tensor.name.clone() });
    }
    let scale = TensorSpec::new(SCALE, Dtype::F32, []);
    if tensors[0].dtype == Dtype::I8 && !tensors.contains(&scale) {
        return Err(SpecError::NoScale { tensor: tensors[0].name.clone() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> ColumnSpec {
        ColumnSpec::new("avgpool", Key::new().with("encoder", "x"), Dtype::F16, [1280])
    }

    #[test]
    fn shards_cover_the_rows_exactly() {
        for (rows, shards) in [(0, 0), (1, 1), (63, 1), (64, 1), (65, 2), (640, 10)] {
            let plan = spec().with_rows_per_shard(64).plan(rows, None).unwrap();
            assert_eq!(plan.shards(), shards);
            assert_eq!((0..shards).map(|s| plan.shard_rows(s)).sum::<u32>(), rows);
        }
    }

    #[test]
    fn rows_a_shard_aim_at_256_mib_in_whole_batches() {
        let plan = spec().with_batch_rows(100).plan(10, None).unwrap();
        assert_eq!(plan.rows_per_shard % 100, 0);
        assert!((plan.rows_per_shard as usize * 2560).abs_diff(SHARD_BYTES) < 2560 * 100);
        assert_eq!(spec().plan(10, Some(128)).unwrap().rows_per_shard, 128);
    }

    #[test]
    fn a_bad_spec_is_refused_by_name() {
        let bad = |change: fn(&mut ColumnSpec)| {
            let mut spec = spec();
            change(&mut spec);
            spec.plan(1, None).unwrap_err().to_string()
        };
        insta::assert_snapshot!(bad(|s| s.name = "a/b".into()), @r"
        `a/b` cannot name a column
        hint: use ASCII letters, digits, `_`, `.` and `-`, up to 100, not starting with `.` or `-`
        ");
        insta::assert_snapshot!(bad(|s| s.tensors.clear()), @"a column needs at least one tensor");
        insta::assert_snapshot!(bad(|s| s.tensors[0].name = "status".into()), @"`status` cannot name a tensor: it is empty, taken, or used by the format");
        insta::assert_snapshot!(bad(|s| s.tensors[0].row_shape = vec![3, 0]), @"rows of tensor `embedding` cannot have the shape `[3, 0]`: a row takes between 1 byte and 1 GiB");
        insta::assert_snapshot!(bad(|s| s.batch_rows = 0), @"a batch needs at least one row");
        insta::assert_snapshot!(bad(|s| s.rows_per_shard = Some(65)), @r"
        `65` rows a shard are not a multiple of `64` rows a batch
        hint: leave the rows a shard out, or round them
        ");
    }

    #[test]
    fn i8_comes_with_its_scales_and_raises_the_format() {
        let column = |dtype| ColumnSpec::new("avgpool", Key::new(), dtype, [4]);
        let plan = column(Dtype::I8).plan(1, None).unwrap();
        assert_eq!((plan.format(), plan.scale_tensor(), plan.row_bytes()), (2, Some(1), 4));
        let plan = column(Dtype::F16).with_tensor(SCALE, Dtype::F32, []).plan(1, None).unwrap();
        assert_eq!(
            (plan.format(), plan.scale_tensor()),
            (1, None),
            "a tensor of that name is nothing special elsewhere"
        );
        let mut spec = column(Dtype::I8);
        spec.tensors[1].row_shape = vec![1];
        insta::assert_snapshot!(spec.plan(1, None).unwrap_err(), @"tensor `embedding` is i8 and has no `scale` beside it: f32, one number a row");
        let spec = column(Dtype::F16).with_tensor("boxes", Dtype::I8, [4]);
        insta::assert_snapshot!(spec.plan(1, None).unwrap_err(), @r"
        tensor `boxes` cannot be i8: a row has one scale, and it is the first tensor's
        hint: use f32, f16 or bf16 for it
        ");
    }

    #[test]
    fn a_plan_with_a_foreign_digest_is_refused() {
        let mut plan = spec().plan(1, None).unwrap();
        plan.key_digest = Key::new().digest();
        assert!(matches!(plan.check(), Err(SpecError::KeyDigest { .. })));
    }
}
