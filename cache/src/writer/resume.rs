//! Which rows are done and which are not, from what an earlier writer left.
//!
//! A row is done when a draft holds it and the journal says so, or a finished shard holds it, and the image it was computed
//! from is still the one in the row index. Everything else is handed out. The journal is then published anew with just the
//! rows of drafts that are trusted; rows of finished shards need no record, as they are copied again whenever a draft is opened.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::Value;

use super::finish::Existing;
use super::history;
use super::plan::{Found, find};
use super::survey::{Survey, Surveyor, journalled_shards, manifest_shards};
use super::work::{Shared, Work};
use super::{Batch, WriterRequest};
use crate::columns::Lock;
use crate::error::Result;
use crate::journal::{self, Journal, PlanRecord, Record, ShardRecord};
use crate::key::sorted;
use crate::missing::MissingMap;
use crate::{ColumnSpec, Retry, seal};

/// All that a writer starts with.
pub(super) struct Resumed {
    pub shared: Shared,
    pub todo: Vec<Batch>,
    pub existing: Existing,
    /// `None` where nothing is to do.
    pub journal: Option<Journal>,
    pub missing: MissingMap,
    /// Rows that the data set still holds.
    pub held: u32,
    pub lock: Lock,
}

/// Opens what is there and plans what is left.
pub(super) fn resume(request: &WriterRequest<'_>) -> Result<Resumed> {
    let mut found = find(request)?;
    let retry = request.spec.retry_missing;
    let retry_missing = retry != Retry::No;
    let (rows_per_chunk, generation) = match (&found.manifest, &found.replay) {
        (Some(manifest), _) => (manifest.rows_per_chunk, manifest.generation + 1),
        (None, _) => (seal::rows_per_chunk(&found.plan), 0),
    };
    if let Some(replay) = found.replay.as_mut().filter(|replay| replay.is_complete()) {
        replay.begin_round();
    }
    let mut bases = journalled_shards(&mut found)?;
    let sealed: Vec<ShardRecord> = found.replay.iter().flat_map(|replay| replay.shards.clone()).collect();
    manifest_shards(&found, &mut bases)?;
    let mut shards = Surveyor::new(&found, request.rows, retry);
    let (mut kept, mut work) = (BTreeMap::new(), BTreeMap::new());
    let part = request.spec.part;
    for shard in found.plan.part_shards(part) {
        match shards.survey(shard, bases.remove(&shard))? {
            Survey::Kept(entry) => drop(kept.insert(shard, entry)),
            Survey::Work(left) => drop(work.insert(shard, left)),
        }
    }
    let (todo, missing, held) = (shards.batches(), shards.missing(), shards.held());
    let unchanged =
        found.manifest.as_ref().is_some_and(|manifest| manifest.rows() == found.plan.rows && manifest.part == part);
    let idle = unchanged && work.is_empty() && sealed.is_empty();
    let writers_before = history::before(&found);
    let journal = if idle {
        None
    } else {
        let records = records(&found, &work, sealed, generation, &writers_before, request.spec);
        Some(Journal::publish(&found.folder.join(journal::FILE), &records)?)
    };
    let provenance = match &request.spec.writer {
        None => request.spec.provenance.clone(),
        Some(own) => {
            let own = (!todo.is_empty()).then(|| own.clone());
            let writers = history::distinct(writers_before.iter().cloned().chain(own));
            history::with_writers(request.spec.provenance.clone(), writers)
        }
    };
    let existing = Existing {
        manifest: found.manifest,
        kept,
        generation,
        part,
        rows_per_chunk,
        provenance: sorted(provenance),
        writers_before,
        idle,
    };
    let shared = Shared {
        folder: found.folder,
        plan: found.plan,
        rows_per_chunk,
        retry_missing,
        work,
        failure: Mutex::new(None),
    };
    Ok(Resumed { shared, todo, existing, journal, missing, held, lock: found.lock })
}

/// The journal to start from: the plan, the shards complete, the rows of drafts that are trusted.
fn records(
    found: &Found,
    work: &BTreeMap<usize, Work>,
    sealed: Vec<ShardRecord>,
    generation: u32,
    writers: &[Value],
    spec: &ColumnSpec,
) -> Vec<Record> {
    let plan = &found.plan;
    let rows = work.iter().flat_map(|(shard, work)| {
        let first = plan.first_row(*shard);
        work.from_draft.iter().map(move |range| [first + range.start, first + range.end])
    });
    let done: Vec<[u32; 2]> = rows.collect();
    let drafted: u32 = done.iter().map(|range| range[1] - range[0]).sum();
    let todo = work.values().map(|work| work.left).sum::<u32>() + drafted;
    let missing =
        done.iter().flat_map(|range| found.journalled.range(range[0]..range[1])).map(|(_, m)| m.clone()).collect();
    let (part, retry_missing) = (spec.part, spec.retry_missing != Retry::No);
    let writer = spec.writer.clone();
    // Who does not say who writes keeps no list.
    let writers = writer.iter().flat_map(|_| writers).cloned().collect();
    let carried = if writer.is_some() { drafted } else { 0 };
    let plan = PlanRecord {
        format: plan.format(),
        generation,
        part,
        column: plan.clone(),
        todo,
        retry_missing,
        writers,
        writer,
        carried,
    };
    let mut records = vec![Record::Plan(plan)];
    records.extend(sealed.into_iter().map(Record::Shard));
    if !done.is_empty() {
        records.push(Record::Rows { done, missing });
    }
    records
}
