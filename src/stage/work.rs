//! What an encode has to do, and one worker's way of doing it: the writers, the batches that they lack, rows into slots.
//!
//! It must not know data sets or how pictures are decoded. The batches of all columns are one list: a batch that two columns
//! lack is decoded and encoded once, and one that a column has already is not computed for it again.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use icecap_cache::{Cache, ColumnWriter, Dtype, Manifest, Reason, RowOutcome, Slot};

use super::{
    embed::{Embedding, Targets},
    find::{Finder, Seen},
    missing::first,
    model::{Model, ModelColumn},
    pipeline::Embedder,
    prepare::{Job, Prepared},
    web::remedy,
};
use crate::{
    encoder::{Device, finite},
    progress::Progress,
};

/// More rows are missing than the run may lose.
#[derive(Debug, thiserror::Error)]
#[error(
    "{missing} of {rows} pictures of column `{column}` are missing ({by_reason}), more than the {allowed} that --max-missing allows{pictures}\nhint: nothing \
     is lost: {remedy}, or allow more, for example --max-missing {enough}%"
)]
pub struct TooManyMissing {
    /// The column.
    pub column: String,
    /// Its missing rows.
    pub missing: u32,
    /// All rows.
    pub rows: u32,
    /// The counts by reason.
    pub by_reason: String,
    /// The first of them, a line each; may be empty.
    pub pictures: String,
    /// What was allowed.
    pub allowed: String,
    /// What would be enough, in per cent.
    pub enough: u64,
    /// What can be done about it.
    pub remedy: &'static str,
}

/// What is to be done: the writers, and the batches that at least one of them lacks.
pub(super) struct Work {
    /// In the order of the model's columns.
    pub writers: Vec<ColumnWriter>,
    pub jobs: Vec<Job>,
}

impl Work {
    pub fn new(writers: Vec<ColumnWriter>, model: &Model) -> Self {
        let mut rows: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for batch in writers.iter().flat_map(ColumnWriter::todo_batches) {
            rows.entry(batch.start).or_default().extend(&batch.rows);
        }
        let jobs = rows
            .into_iter()
            .map(|(start, mut rows)| {
                rows.sort_unstable();
                rows.dedup();
                let views = model.views_for(|column| writers[column].batch_at(start).is_some());
                Job { start, rows, views }
            })
            .collect();
        Self { writers, jobs }
    }

    pub fn images(&self) -> u64 {
        self.jobs.iter().map(|job| job.rows.len() as u64).sum()
    }

    /// Says where an earlier run stopped. Columns that hold different rows, parts of their own, have no one number.
    pub fn tell_done(&self, progress: &dyn Progress) {
        let (todo, mut held) = (self.images(), self.writers.iter().map(ColumnWriter::rows_held));
        let Some(rows) = held.next().filter(|rows| held.all(|other| other == *rows)).map(u64::from) else { return };
        if todo > 0 && todo < rows {
            let done = rows - todo;
            progress.line(&format!("{done} of {rows} rows were encoded before; going on with the other {todo}"));
        }
    }

    /// One worker, with sessions of its own.
    ///
    /// # Errors
    /// Where ONNX Runtime refuses the model or the device.
    pub fn worker<'a>(&'a self, model: &'a Model, device: Device) -> Result<Worker<'a>> {
        let wanted = |column: usize| !self.writers[column].todo_batches().is_empty();
        let embedding = Embedding::new(model, device, 1, wanted)?;
        let finder = || Finder::new(&model.regions, &model.resolved.preprocess, device, 1, wanted);
        let finder = (!model.regions.is_empty()).then(finder).transpose()?;
        Ok(Worker { work: self, model, embedding, finder, aside: vec![Vec::new(); self.writers.len()] })
    }

    /// Publishes the columns, unless one of them misses too many rows: then none is, and all that was done stays.
    pub fn finish(self, cache: &Cache, max_missing: f64) -> Result<Vec<Manifest>> {
        for writer in &self.writers {
            if let Err(mut lacking) = check_missing(writer, max_missing) {
                writer.flush()?;
                lacking.pictures = first(cache, &lacking.column);
                return Err((*lacking).into());
            }
        }
        let finish = |writer: ColumnWriter| {
            let name = writer.plan().name.clone();
            writer.finish().with_context(|| format!("the column `{name}` was not finished"))
        };
        self.writers.into_iter().map(finish).collect()
    }
}

pub(super) fn check_missing(writer: &ColumnWriter, allowed: f64) -> Result<(), Box<TooManyMissing>> {
    let rows = writer.rows_held();
    let by_reason = writer.missing_by_reason();
    let missing: u32 = by_reason.values().sum();
    if f64::from(missing) <= allowed * f64::from(rows) {
        return Ok(());
    }
    let listed: Vec<String> = by_reason.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    Err(Box::new(TooManyMissing {
        column: writer.plan().name.clone(),
        missing,
        rows,
        by_reason: listed.join(", "),
        pictures: String::new(),
        allowed: format!("{}%", (allowed * 1000.0).round() / 10.0),
        enough: (100.0 * f64::from(missing) / f64::from(rows)).ceil() as u64,
        remedy: remedy(&by_reason),
    }))
}

/// One worker: the encoder's sessions, writing into the shards of all columns.
pub(super) struct Worker<'a> {
    work: &'a Work,
    model: &'a Model,
    embedding: Embedding<'a>,
    finder: Option<Finder<'a>>,
    /// Where a column's rows go when they can't go straight into its shard: `[batch, row]` bytes.
    aside: Vec<Vec<u8>>,
}

impl<'a> Worker<'a> {
    /// What the detector and the files of boxes say of the batch, where any column asks.
    fn see(&mut self, prepared: &Prepared) -> Result<Option<Seen<'a>>> {
        let Some(finder) = &mut self.finder else { return Ok(None) };
        let job = &prepared.job;
        let pictures = job.rows.iter().zip(&prepared.seconds).filter_map(|(&row, second)| {
            let slot = (row - job.start) as usize;
            Some((slot, Some(row), second.as_ref()?))
        });
        Ok(Some(finder.find(self.model.resolved.plan.batch, &pictures.collect::<Vec<_>>())?))
    }
}

impl Embedder for Worker<'_> {
    fn embed(&mut self, prepared: &Prepared) -> Result<()> {
        let batch = self.model.resolved.plan.batch;
        let start = prepared.job.start;
        let seen = self.see(prepared)?;
        if let Some(seen) = &seen {
            seen.set(&mut self.embedding)?;
        }
        let mut slots = Vec::with_capacity(self.work.writers.len());
        for writer in &self.work.writers {
            slots.push(writer.batch_at(start).map(|batch| writer.slot(batch)).transpose()?);
        }
        let places = slots.iter_mut().zip(&mut self.aside).zip(&self.model.columns);
        let mut targets: Targets<'_> = places
            .map(|((slot, aside), column)| {
                let straight = slot.as_mut()?.whole_mut().filter(|_| !column.is_scaled());
                Some(straight.unwrap_or_else(|| {
                    aside.resize(batch * column.row_bytes(), 0);
                    aside
                }))
            })
            .collect();
        self.embedding.run(&prepared.views, prepared.job.used(), &mut targets)?;
        if let Some(seen) = &seen {
            seen.write(&mut targets);
        }
        let columns = self.work.writers.iter().zip(&self.model.columns).zip(slots).zip(&self.aside);
        for (at, (((writer, column), slot), aside)) in columns.enumerate() {
            let Some(mut slot) = slot else { continue };
            let mut outcomes: Vec<_> = slot.batch().rows.iter().map(|row| prepared.outcome(*row).clone()).collect();
            if column.is_scaled() {
                scale_rows(&mut slot, column, aside, &mut outcomes)?;
            } else {
                if !slot.is_whole() {
                    slot.write_batch(0, aside)?;
                }
                leave_out_infinite(&mut slot, column, &mut outcomes);
            }
            if let Some(extras) = seen.as_ref().and_then(|seen| seen.extras(at)) {
                write_extras(&mut slot, writer, &extras)?;
            }
            writer.commit(slot, &outcomes)?;
        }
        Ok(())
    }
}

/// Writes the tensors beside the vectors of regions, each where the column has it.
fn write_extras(slot: &mut Slot<'_>, writer: &ColumnWriter, extras: &[(&str, Vec<u8>)]) -> Result<()> {
    for (name, bytes) in extras {
        if let Some(tensor) = writer.plan().tensors.iter().position(|tensor| tensor.name == *name) {
            slot.write_batch(tensor, bytes)?;
        }
    }
    Ok(())
}

/// A row with a number that its element type can't hold, or with none at all, is missing: no decoder could learn from it.
fn leave_out_infinite(slot: &mut Slot<'_>, column: &ModelColumn, outcomes: &mut [RowOutcome]) {
    for (row, outcome) in slot.batch().rows.iter().zip(outcomes) {
        let RowOutcome::Present { content } = *outcome else { continue };
        if slot.row_mut(0, *row).is_some_and(|bytes| !finite(column.dtype, bytes)) {
            let detail = match column.dtype {
                Dtype::F16 => {
                    "the embedding holds a number that f16 can't: beyond 65504, or none at all (f32 and bf16 hold larger ones)"
                }
                _ => "the embedding holds a number that is not finite",
            };
            *outcome = RowOutcome::Missing { reason: Reason::Other, detail: detail.to_owned(), content: Some(content) };
        }
    }
}

/// Writes the rows of an i8 column, which lie in `aside` as f32. A row that has no scale is missing.
fn scale_rows(slot: &mut Slot<'_>, column: &ModelColumn, aside: &[u8], outcomes: &mut [RowOutcome]) -> Result<()> {
    let batch = slot.batch();
    for (row, outcome) in batch.rows.iter().zip(outcomes) {
        let RowOutcome::Present { content } = *outcome else { continue };
        let at = (row - batch.start) as usize * column.row_bytes();
        if !slot.quantize_row(*row, &aside[at..at + column.row_bytes()])? {
            let detail = "the embedding holds a number that is not finite, which i8 has no scale for".to_owned();
            *outcome = RowOutcome::Missing { reason: Reason::Other, detail, content: Some(content) };
        }
    }
    Ok(())
}
