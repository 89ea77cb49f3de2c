//! Reading a column: everything is checked when it is opened, and nothing can fail afterwards.
//!
//! Knows finished shards only. Rows are slices of the mapped files, copied by nobody; the rows that are missing are known
//! from one pass over `status`, kept as one bit a row.

use std::path::Path;

use crate::columns::live_journal;
use crate::error::{CacheError, ManifestError, Result, ShardError};
use crate::missing::{self, MissingMap};
use crate::publish::ContentHash;
use crate::reason::{PRESENT, Reason};
use crate::rowset::RowSet;
use crate::shard::Shard;
use crate::{ColumnPlan, Dtype, Key, Manifest, Missing, TensorSpec, manifest};

/// A column, open for reading by any number of threads.
#[derive(Debug)]
pub struct ColumnReader {
    plan: ColumnPlan,
    manifest: Option<Manifest>,
    /// By shard; `None` where a column that is being written has no finished shard yet.
    pub(crate) shards: Vec<Option<Shard>>,
    pub(crate) present: RowSet,
    missing: Vec<Missing>,
    pub(crate) row_bytes: usize,
}

impl ColumnReader {
    /// Opens the finished column in `folder`.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let manifest = match Manifest::read(folder) {
            Err(error) if error.is_not_found() => return Err(not_finished(folder, error)),
            manifest => manifest?,
        };
        match Self::from_manifest(folder, manifest.clone()) {
            // A writer may have replaced shards between the reading of the manifest and theirs.
            Err(error) if error.is_not_found() => match Manifest::read(folder)? {
                newer if newer != manifest => Self::open(folder),
                _ => Err(error),
            },
            reader => reader,
        }
    }

    fn from_manifest(folder: &Path, manifest: Manifest) -> Result<Self> {
        let open = |(at, entry): (usize, &crate::ShardEntry)| {
            Shard::open_sized(folder.join(&entry.file), &manifest.column, at, entry.rows, entry.bytes).map(Some)
        };
        let shards = manifest.shards.iter().enumerate().map(open).collect::<Result<Vec<_>>>()?;
        let missing = missing::read(&folder.join(&manifest.missing.file), manifest.rows())?;
        let path = folder.join(manifest::FILE);
        if missing.len() != manifest.missing.count as usize {
            let (expected, found) = (manifest.missing.count, missing.len() as u32);
            return Err(ManifestError::MissingCount { path, expected, found }.into());
        }
        Self::new(&path, manifest.column.clone(), Some(manifest), shards, missing)
    }

    /// Opens what is finished of the column in `folder`.
    pub(crate) fn open_so_far(folder: &Path) -> Result<Self> {
        if folder.join(manifest::FILE).exists() {
            return Self::open(folder);
        }
        if let Some(part) = Manifest::read_whole_or_part(folder)?.filter(|manifest| manifest.part.is_some()) {
            return Self::from_part(folder, &part);
        }
        let Some(replay) = live_journal(folder, None, MissingMap::new())? else {
            return Self::open(folder);
        };
        let plan = replay.plan.column;
        let mut shards: Vec<Option<Shard>> = (0..plan.shards()).map(|_| None).collect();
        for record in replay.shards {
            let (rows, bytes) = (record.entry.rows, record.entry.bytes);
            match Shard::open_sized(folder.join(&record.entry.file), &plan, record.shard, rows, bytes) {
                // One of an earlier, shorter plan will be replaced.
                Ok(shard) if rows == plan.shard_rows(record.shard) => shards[record.shard] = Some(shard),
                Ok(_) => {}
                // The journal is a moment ahead of the name.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        let known = |row: u32| shards[plan.shard_of(row)].is_some();
        let missing = replay.missing.into_values().filter(|missing| known(missing.row)).collect();
        Self::new(&folder.join(crate::journal::FILE), plan, None, shards, missing)
    }

    /// The shards of a finished part; the others are not known.
    fn from_part(folder: &Path, part: &Manifest) -> Result<Self> {
        let plan = part.column.clone();
        let mut shards: Vec<Option<Shard>> = (0..plan.shards()).map(|_| None).collect();
        for (at, entry) in part.numbered_shards() {
            shards[at] = Some(Shard::open_sized(folder.join(&entry.file), &plan, at, entry.rows, entry.bytes)?);
        }
        let missing = missing::read(&folder.join(&part.missing.file), part.rows())?;
        Self::new(&folder.join(manifest::PART_FILE), plan, None, shards, missing)
    }

    fn new(
        path: &Path,
        plan: ColumnPlan,
        manifest: Option<Manifest>,
        shards: Vec<Option<Shard>>,
        missing: Vec<Missing>,
    ) -> Result<Self> {
        let present = presence(path, &plan, &shards, &missing)?;
        Ok(Self { row_bytes: plan.row_bytes(), plan, manifest, shards, present, missing })
    }

    /// Rows, the missing ones included.
    pub fn len(&self) -> u32 {
        self.plan.rows
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.plan.rows == 0
    }

    /// The column's name.
    pub fn name(&self) -> &str {
        &self.plan.name
    }

    /// The column's key.
    pub fn key(&self) -> &Key {
        &self.plan.key
    }

    /// How the column is laid out.
    pub fn plan(&self) -> &ColumnPlan {
        &self.plan
    }

    /// The manifest; `None` for a column that is being written.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    /// The tensors of a row.
    pub fn tensors(&self) -> &[TensorSpec] {
        &self.plan.tensors
    }

    /// Where a tensor is among [`ColumnReader::tensors`].
    pub fn tensor(&self, name: &str) -> Option<usize> {
        self.plan.tensors.iter().position(|tensor| tensor.name == name)
    }

    /// Element type of the first tensor.
    pub fn dtype(&self) -> Dtype {
        self.plan.dtype()
    }

    /// Shape of one row of the first tensor.
    pub fn row_shape(&self) -> &[usize] {
        self.plan.row_shape()
    }

    /// Bytes of one row of the first tensor.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// Whether the row has an embedding. `false` outside of the column.
    #[inline]
    pub fn is_present(&self, row: u32) -> bool {
        self.present.contains(row)
    }

    /// Whether it is known if the row has one: always, but in a column that is being written.
    pub fn is_known(&self, row: u32) -> bool {
        row < self.plan.rows && self.shards[self.plan.shard_of(row)].is_some()
    }

    /// Why the row has no embedding; `None` where it has one, or is not known.
    pub fn missing(&self, row: u32) -> Option<&Missing> {
        self.missing.binary_search_by_key(&row, |missing| missing.row).ok().map(|at| &self.missing[at])
    }

    /// All missing rows, in order.
    pub fn missing_rows(&self) -> &[Missing] {
        &self.missing
    }

    /// The row's bytes in the first tensor; `None` where it is missing.
    #[inline]
    pub fn row(&self, row: u32) -> Option<&[u8]> {
        self.row_of(0, row)
    }

    /// The row's bytes in a tensor; `None` where the row is missing or there is no such tensor.
    #[inline]
    pub fn row_of(&self, tensor: usize, row: u32) -> Option<&[u8]> {
        if !self.present.contains(row) || tensor >= self.plan.tensors.len() {
            return None;
        }
        let shard = self.plan.shard_of(row);
        Some(self.shards[shard].as_ref()?.rows(tensor, row - self.plan.first_row(shard), 1))
    }

    /// The scale of a row of an i8 column: what [`crate::dequantize`] takes. `None` where the row is missing, or the column is not i8.
    pub fn scale(&self, row: u32) -> Option<f32> {
        let bytes = self.row_of(self.plan.scale_tensor()?, row)?;
        Some(f32::from_le_bytes(bytes.try_into().ok()?))
    }

    /// Content hash of the image the row was computed from; `None` where it is not known.
    pub fn content(&self, row: u32) -> Option<ContentHash> {
        if !self.is_known(row) {
            return None;
        }
        let shard = self.plan.shard_of(row);
        let content = self.shards[shard].as_ref()?.content(row - self.plan.first_row(shard));
        Some(content).filter(|content| *content != [0; 16])
    }

    /// The blocks a tensor lies in, one a shard: the first row of each and its bytes, missing rows as zeros.
    pub fn blocks(&self, tensor: usize) -> impl Iterator<Item = (u32, &[u8])> {
        let shards = self.shards.iter().enumerate().filter(move |_| tensor < self.plan.tensors.len());
        shards.filter_map(move |(at, shard)| {
            let shard = shard.as_ref()?;
            Some((self.plan.first_row(at), shard.rows(tensor, 0, shard.layout.rows)))
        })
    }
}

/// The rows that are present, after a look at every status. What the list says must be what the shards say.
fn presence(path: &Path, plan: &ColumnPlan, shards: &[Option<Shard>], missing: &[Missing]) -> Result<RowSet> {
    let mut present = RowSet::new(plan.rows);
    let mut listed = missing.iter().peekable();
    for (at, shard) in shards.iter().enumerate() {
        let Some(shard) = shard else { continue };
        for (row, &status) in (plan.first_row(at)..).zip(shard.statuses()) {
            if status != PRESENT && !Reason::is_code(status) {
                return Err(ShardError::Status { path: shard.path.clone(), row, status }.into());
            }
            let reason = listed.next_if(|missing| missing.row == row).map(|missing| missing.reason.code());
            if reason.unwrap_or(PRESENT) != status {
                return Err(ManifestError::MissingStatus { path: path.to_owned(), row, status }.into());
            }
            if status == PRESENT {
                present.insert(row);
            }
        }
    }
    Ok(present)
}

/// The error for a folder without a manifest: where there is a journal, how far it is.
fn not_finished(folder: &Path, error: CacheError) -> CacheError {
    if let Ok(Some(Manifest { part: Some(part), column, .. })) = Manifest::read_whole_or_part(folder) {
        return CacheError::OnlyAPart { column: column.name, part };
    }
    match live_journal(folder, None, MissingMap::new()) {
        Ok(Some(replay)) => CacheError::NotFinished {
            column: replay.plan.column.name.clone(),
            rows_done: replay.rows_done(),
            rows: replay.covered(),
        },
        _ => error,
    }
}
