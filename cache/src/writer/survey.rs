//! Row by row: where a row that is done lies, and which rows are not done.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::Batch;
use super::plan::Found;
use super::work::Work;
use crate::error::Result;
use crate::missing::{Missing, MissingMap};
use crate::publish::{ContentHash, rename};
use crate::reason::PRESENT;
use crate::shard::{Shard, draft_name, file_name, generation_of};
use crate::{Retry, Rows, ShardEntry};

/// A finished shard that a new one may take rows from.
pub(super) struct Base {
    entry: ShardEntry,
    shard: Shard,
    /// Its missing rows, as the journal's record or the manifest's list has them.
    missing: MissingMap,
    /// Whether its missing rows were tried again in the writing that is resumed.
    retried: bool,
}

/// Opens the shards that the journal says are complete, and gives those their name that a crash kept from it. A record
/// whose file is gone is forgotten.
pub(super) fn journalled_shards(found: &mut Found) -> Result<BTreeMap<usize, Base>> {
    let mut bases = BTreeMap::new();
    let Some(replay) = &mut found.replay else {
        return Ok(bases);
    };
    for record in std::mem::take(&mut replay.shards) {
        let path = found.folder.join(&record.entry.file);
        let draft = found.folder.join(draft_name(&record.entry.file));
        if !path.exists() && draft.exists() {
            rename(&draft, &path)?;
        }
        let ShardEntry { rows, bytes, .. } = record.entry;
        match Shard::open_sized(path, &replay.plan.column, record.shard, rows, bytes) {
            Ok(shard) => {
                let (entry, retried) = (record.entry.clone(), record.retried);
                let missing = record.missing.iter().map(|missing| (missing.row, missing.clone())).collect();
                bases.insert(record.shard, Base { entry, shard, missing, retried });
                replay.shards.push(record);
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bases)
}

/// Adds the shards of the manifest that the journal does not replace.
pub(super) fn manifest_shards(found: &Found, bases: &mut BTreeMap<usize, Base>) -> Result<()> {
    let Some(manifest) = &found.manifest else {
        return Ok(());
    };
    for (at, entry) in manifest.numbered_shards() {
        if let Entry::Vacant(place) = bases.entry(at) {
            let path = found.folder.join(&entry.file);
            let shard = Shard::open_sized(path, &manifest.column, at, entry.rows, entry.bytes)?;
            let first = manifest.column.first_row(at);
            let missing = found.listed.range(first..first + entry.rows);
            let missing = missing.map(|(row, missing)| (*row, missing.clone())).collect();
            place.insert(Base { entry: entry.clone(), shard, missing, retried: false });
        }
    }
    Ok(())
}

pub(super) enum Survey {
    /// The finished shard stays.
    Kept(ShardEntry),
    /// A draft is to be made or gone on with.
    Work(Work),
}

#[derive(PartialEq)]
enum Source {
    Draft,
    Base,
    Nothing,
}

pub(super) struct Surveyor<'a> {
    found: &'a Found,
    rows: &'a Rows,
    retry: Retry,
    todo: Vec<u32>,
    missing: MissingMap,
    held: u32,
}

impl<'a> Surveyor<'a> {
    pub(super) fn new(found: &'a Found, rows: &'a Rows, retry: Retry) -> Self {
        Self { found, rows, retry, todo: Vec::new(), missing: MissingMap::new(), held: 0 }
    }

    /// What is to do in a shard; its rows to do are remembered, and those of the others that are missing.
    pub(super) fn survey(&mut self, shard: usize, base: Option<Base>) -> Result<Survey> {
        let plan = &self.found.plan;
        let (first, rows) = (plan.first_row(shard), plan.shard_rows(shard));
        let file = file_name(shard, base.as_ref().map_or(0, |base| generation_of(&base.entry.file) + 1));
        let draft = self.open_draft(shard, &file);
        let (mut from_draft, mut from_base, mut todo) = (Vec::new(), Vec::new(), Vec::new());
        for row in 0..rows {
            let missing = match self.source(first + row, row, draft.as_ref(), base.as_ref()) {
                Source::Draft => {
                    push(&mut from_draft, row);
                    self.found.journalled.get(&(first + row))
                }
                Source::Base => {
                    push(&mut from_base, row);
                    base.as_ref().and_then(|base| base.missing.get(&(first + row)))
                }
                Source::Nothing => {
                    todo.push(first + row);
                    None
                }
            };
            self.missing.extend(missing.map(|missing| (missing.row, missing.clone())));
            self.held += u32::from(!self.rows.is_gone(first + row));
        }
        let all_from_base = matches!(&from_base[..], [only] if *only == (0..rows));
        if let Some(base) = base.as_ref().filter(|base| base.entry.rows == rows && all_from_base) {
            return Ok(Survey::Kept(base.entry.clone()));
        }
        let left = todo.len() as u32;
        self.todo.extend(todo);
        let base = base.map(|base| Arc::new(base.shard));
        Ok(Survey::Work(Work { file, left, base, from_base, from_draft, draft: Mutex::new(None) }))
    }

    /// The draft of a shard, where there is one that can be used.
    fn open_draft(&self, shard: usize, file: &str) -> Option<Shard> {
        let replay = self.found.replay.as_ref()?;
        let path: PathBuf = self.found.folder.join(draft_name(file));
        // A draft that cannot be opened is as good as none: its rows are computed again.
        let draft = Shard::open(path, &replay.plan.column, shard, None).ok()?;
        (draft.layout.rows <= self.found.plan.shard_rows(shard)).then_some(draft)
    }

    /// Where a row that is done lies. `local` counts within the shard.
    fn source(&self, row: u32, local: u32, draft: Option<&Shard>, base: Option<&Base>) -> Source {
        let replay = self.found.replay.as_ref();
        let journalled = replay.filter(|replay| replay.done.contains(row));
        let drafted = draft.filter(|draft| journalled.is_some() && local < draft.layout.rows);
        // A row that this writing has tried again already is not tried a third time.
        let (shard, source, tried) = match (drafted, base.filter(|base| local < base.entry.rows)) {
            (Some(draft), _) => (draft, Source::Draft, replay.is_some_and(|replay| replay.plan.retry_missing)),
            (None, Some(base)) => (&base.shard, Source::Base, base.retried),
            (None, None) => return Source::Nothing,
        };
        // What the data set no longer holds cannot be tried.
        if self.rows.is_gone(row) {
            return source;
        }
        let status = shard.statuses()[local as usize];
        let missing = match source {
            Source::Base => base.and_then(|base| base.missing.get(&row)),
            _ => self.found.journalled.get(&row),
        };
        let retry = !tried && status != PRESENT && self.retries(missing);
        if retry || !is_fresh(self.rows.content(row), shard.content(local), status) { Source::Nothing } else { source }
    }

    /// Whether a missing row is to be tried again, by what was said of it.
    fn retries(&self, missing: Option<&Missing>) -> bool {
        match self.retry {
            Retry::No => false,
            Retry::Temporary => missing.is_none_or(|missing| missing.reason.is_temporary()),
            Retry::All => true,
        }
    }

    /// The missing rows that stay so: each as the place where it lies says, so that a draft which was lost takes what the
    /// journal said of its rows with it.
    pub(super) fn missing(&self) -> MissingMap {
        self.missing.clone()
    }

    /// The rows looked at that the data set still holds.
    pub(super) fn held(&self) -> u32 {
        self.held
    }

    /// The rows to do, in batches.
    pub(super) fn batches(&self) -> Vec<Batch> {
        let mut batches: Vec<Batch> = Vec::new();
        let size = self.found.plan.batch_rows;
        for &row in &self.todo {
            let start = row / size * size;
            match batches.last_mut() {
                Some(batch) if batch.start == start => batch.rows.push(row),
                _ => batches.push(Batch { start, rows: vec![row] }),
            }
        }
        batches
    }
}

/// Whether a row was computed from, or found missing for, the image that the index knows. Where the index knows none, it
/// counts as the same; a row found missing before the index knew an image does not.
fn is_fresh(known: Option<ContentHash>, stored: ContentHash, status: u8) -> bool {
    known.is_none_or(|known| known == stored || (stored == [0; 16] && status == PRESENT))
}

fn push(ranges: &mut Vec<Range<u32>>, row: u32) {
    match ranges.last_mut() {
        Some(last) if last.end == row => last.end += 1,
        _ => ranges.push(row..row + 1),
    }
}
