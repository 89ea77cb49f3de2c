//! `icecap cache export`: a column in the files that other programs read, rows in order, memory flat.
//!
//! Rows that are missing are left out and not written as zeros: a zero looks like an embedding to whoever opens the file later.
//! `ids` says which row is which, `missing.txt` which are not there, and why.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use icecap_cache::{Cache, ColumnReader, Dtype, TensorSpec};
use serde::Serialize;
use serde_json::json;

use super::numbers::numbers;
use crate::{
    foreign::{FEATURES, FileTensor, ForeignError, IDS, NpyKind, NpyWriter, SafetensorsWriter},
    progress::Progress,
};

/// Bytes of a column that are read before they are let go of.
const BYTES_AT_ONCE: usize = 8 << 20;

/// The files that an export makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
    /// A folder: `features.npy`, one more `.npy` for each further tensor, `ids.txt`, `missing.txt`.
    Npy,
    /// One safetensors file: the tensors, and `ids` as a JSON list in bytes.
    Safetensors,
}

/// What `icecap cache export` is told.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    /// The cache's folder.
    pub cache: PathBuf,
    /// The column.
    pub column: String,
    /// Which files.
    pub format: ExportFormat,
    /// The folder, or the file.
    pub output: PathBuf,
    /// Only the rows of this split.
    pub split: Option<String>,
}

/// What an export wrote.
#[derive(Debug, Serialize)]
pub struct ExportReport {
    /// Rows written.
    pub rows: usize,
    /// Rows left out: they have no embedding.
    pub missing: usize,
    /// The files.
    pub files: Vec<PathBuf>,
}

/// The split does not exist.
#[derive(Debug, thiserror::Error)]
#[error("no row is in the split `{split}`\nhint: the cache has {known}")]
pub struct NoSuchSplit {
    /// What was asked for.
    pub split: String,
    /// What there is.
    pub known: String,
}

/// The output is there already.
#[derive(Debug, thiserror::Error)]
#[error("`{}` is there already\nhint: an export replaces nothing: name another place, or remove it", path.display())]
pub struct OutputExists {
    /// The file or folder.
    pub path: PathBuf,
}

/// The column is not what was written.
#[derive(Debug, thiserror::Error)]
#[error(
    "column `{column}` is damaged: {damage}\nhint: `icecap cache drop {} {column}`, and encode or import it again; `icecap cache verify` lists all that is damaged",
    cache.display()
)]
pub struct ColumnDamaged {
    /// The cache's folder.
    pub cache: PathBuf,
    /// The column.
    pub column: String,
    /// The first damage.
    pub damage: String,
}

/// Exports a column, after its digests were checked: what goes out is what was encoded.
///
/// # Errors
/// Where there is no such column or split, the column is damaged, the output is there, or the disk refuses.
pub fn export(options: &ExportOptions, progress: &dyn Progress) -> Result<ExportReport> {
    let cache = Cache::open(&options.cache)?;
    let column = cache.column(&options.column)?;
    let rows = chosen(&cache, options.split.as_deref())?;
    verify(&cache, options, progress)?;
    let (present, absent): (Vec<u32>, Vec<u32>) = rows.into_iter().partition(|row| column.is_present(*row));
    let ids: Vec<String> = present.iter().map(|row| cache.rows().id(*row)).collect();
    let job = Job { column: &column, rows: &present, progress };
    let total = present.len() * column.tensors().len();
    progress.start("export", Some(total as u64));
    let files = match options.format {
        ExportFormat::Npy => job.npy(&options.output, &ids, &reasons(&cache, &column, &absent))?,
        ExportFormat::Safetensors => job.safetensors(&options.output, &ids)?,
    };
    progress.finish();
    Ok(ExportReport { rows: present.len(), missing: absent.len(), files })
}

fn verify(cache: &Cache, options: &ExportOptions, progress: &dyn Progress) -> Result<()> {
    progress.start("verify", None);
    let report = cache.verify(&options.column, &|bytes| progress.advance(bytes));
    progress.finish();
    let Some(damage) = report?.damage.first().map(ToString::to_string) else { return Ok(()) };
    Err(ColumnDamaged { cache: options.cache.clone(), column: options.column.clone(), damage }.into())
}

fn chosen(cache: &Cache, split: Option<&str>) -> Result<Vec<u32>, NoSuchSplit> {
    let Some(split) = split else { return Ok((0..cache.rows().len()).collect()) };
    let rows = cache.rows().split_rows(split);
    if rows.is_empty() {
        let known: Vec<String> = cache.rows().split_names().iter().map(|name| format!("`{name}`")).collect();
        return Err(NoSuchSplit { split: split.to_owned(), known: known.join(", ") });
    }
    Ok(rows)
}

/// A line for each row without an embedding: id, tab, reason.
fn reasons(cache: &Cache, column: &ColumnReader, rows: &[u32]) -> String {
    let line = |row: &u32| {
        let reason =
            column.missing(*row).map_or_else(|| "not-encoded".to_owned(), |missing| missing.reason.to_string());
        format!("{}\t{reason}\n", cache.rows().id(*row))
    };
    rows.iter().map(line).collect()
}

struct Job<'a> {
    column: &'a ColumnReader,
    rows: &'a [u32],
    progress: &'a dyn Progress,
}

impl Job<'_> {
    fn npy(&self, folder: &Path, ids: &[String], missing: &str) -> Result<Vec<PathBuf>> {
        let mut list = String::new();
        for id in ids {
            if id.contains('\n') {
                return Err(ForeignError::LineBreak { id: id.clone() }.into());
            }
            list += id;
            list.push('\n');
        }
        if folder.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(OutputExists { path: folder.to_owned() }.into());
        }
        std::fs::create_dir_all(folder).with_context(|| format!("the folder `{}` can't be made", folder.display()))?;
        let mut files = Vec::new();
        for (at, tensor) in self.column.tensors().iter().enumerate() {
            let path = folder.join(if at == 0 { FEATURES.to_owned() } else { format!("{}.npy", tensor.name) });
            self.npy_tensor(&path, at, tensor)?;
            files.push(path);
        }
        for (name, text) in [("missing.txt", missing), (IDS, list.as_str())] {
            let path = folder.join(name);
            std::fs::write(&path, text).with_context(|| format!("cannot write `{}`", path.display()))?;
            files.push(path);
        }
        Ok(files)
    }

    fn npy_tensor(&self, path: &Path, at: usize, tensor: &TensorSpec) -> Result<()> {
        let kind = if tensor.dtype == Dtype::F16 { NpyKind::F16 } else { NpyKind::F32 };
        let mut writer = NpyWriter::create(path, kind, self.rows.len(), &tensor.row_shape)?;
        let (mut wide, mut bytes) = (Vec::new(), Vec::new());
        // NumPy has no name for the other element types: numbers of theirs are written as f32.
        let as_it_is = matches!(tensor.dtype, Dtype::F16 | Dtype::F32);
        self.each_row(|row| {
            if as_it_is {
                return writer.write(self.column.row_of(at, row).unwrap_or_default());
            }
            numbers(self.column, at, row, &mut wide);
            bytes.clear();
            bytes.extend(wide.iter().flat_map(|value| value.to_le_bytes()));
            writer.write(&bytes)
        })?;
        Ok(writer.finish()?)
    }

    fn safetensors(&self, path: &Path, ids: &[String]) -> Result<Vec<PathBuf>> {
        if path.exists() {
            return Err(OutputExists { path: path.to_owned() }.into());
        }
        let ids = serde_json::to_vec(ids)?;
        let mut order: Vec<usize> = (0..self.column.tensors().len()).collect();
        order.sort_by_key(|&at| std::cmp::Reverse(self.column.tensors()[at].dtype.size_bytes()));
        let mut tensors: Vec<FileTensor> =
            order.iter().map(|&at| self.file_tensor(&self.column.tensors()[at])).collect();
        tensors.push(FileTensor { name: "ids".to_owned(), dtype: "U8", shape: vec![ids.len()], element_bytes: 1 });
        let key = json!(self.column.key()).to_string();
        let metadata = [("column", self.column.name().to_owned()), ("key", key)];
        let mut writer = SafetensorsWriter::create(path, &tensors, &metadata)?;
        for at in order {
            self.each_row(|row| writer.write(self.column.row_of(at, row).unwrap_or_default()))?;
        }
        writer.write(&ids)?;
        writer.finish()?;
        Ok(vec![path.to_owned()])
    }

    fn file_tensor(&self, tensor: &TensorSpec) -> FileTensor {
        FileTensor {
            name: tensor.name.clone(),
            dtype: tensor.dtype.safetensors_name(),
            shape: [self.rows.len()].iter().chain(&tensor.row_shape).copied().collect(),
            element_bytes: tensor.dtype.size_bytes(),
        }
    }

    fn each_row(&self, mut write: impl FnMut(u32) -> Result<(), ForeignError>) -> Result<()> {
        for rows in self.rows.chunks((BYTES_AT_ONCE / self.column.row_bytes()).max(1)) {
            self.column.prefetch_rows(rows);
            for &row in rows {
                write(row)?;
            }
            self.column.release_rows(rows);
            self.progress.advance(rows.len() as u64);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let error = NoSuchSplit { split: "dev".into(), known: "`train`, `val`".into() };
        insta::assert_snapshot!(error, @r"
        no row is in the split `dev`
        hint: the cache has `train`, `val`
        ");
        insta::assert_snapshot!(OutputExists { path: "out".into() }, @r"
        `out` is there already
        hint: an export replaces nothing: name another place, or remove it
        ");
    }
}
