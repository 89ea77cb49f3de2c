//! The thread that makes commits durable, in groups: bytes to the disk, then the journal, then whole shards sealed.
//!
//! Grouping is what makes it cheap: a sync costs milliseconds whether it is for one batch or for fifty. Nothing is journalled
//! before its bytes are synced, so what the journal says holds after a power cut, too.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::work::Shared;
use crate::error::{CacheError, Result};
use crate::journal::{Journal, Record, ShardRecord};
use crate::missing::{Missing, MissingMap};
use crate::publish::rename;
use crate::rowset::RowSet;
use crate::shard::{Shard, draft_name};
use crate::{ShardEntry, seal};

/// A group is synced this long after its first commit at the latest.
const GROUP_TIME: Duration = Duration::from_millis(200);
/// A group is synced when it has this many bytes.
const GROUP_BYTES: usize = 64 << 20;
/// Bytes that may wait for the disk before a committing thread does: what is not synced is resident memory.
const QUEUE_BYTES: usize = 64 << 20;

/// A batch whose bytes are in the map.
pub(super) struct Committed {
    pub shard: usize,
    pub rows: Vec<u32>,
    pub missing: Vec<Missing>,
}

enum Message {
    Commit(Committed),
    /// Answered when all before it is durable.
    Flush(SyncSender<()>),
}

/// What the thread leaves when it ends.
pub(super) struct Done {
    pub missing: MissingMap,
    /// The shards it has sealed.
    pub sealed: BTreeMap<usize, ShardEntry>,
    pub rows_left: u32,
}

/// The thread, and the way to it.
#[derive(Debug)]
pub(super) struct Committer {
    shared: Arc<Shared>,
    sender: Option<SyncSender<Message>>,
    thread: Option<JoinHandle<Option<Done>>>,
}

impl Committer {
    /// Starts the thread. Without a journal there is nothing to do, and it only waits for its end.
    pub(super) fn start(shared: Arc<Shared>, journal: Option<Journal>, missing: MissingMap) -> Self {
        let row_bytes: usize = shared.plan.tensors.iter().map(crate::TensorSpec::row_bytes).sum();
        let batches = QUEUE_BYTES / row_bytes.saturating_mul(shared.plan.batch_rows as usize).max(1);
        let (sender, receiver) = sync_channel(batches.clamp(2, 1024));
        let left = shared.work.iter().map(|(shard, work)| (*shard, work.left)).collect();
        let own = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let mut state = State { shared: own, journal, missing, left, sealed: BTreeMap::new() };
            state.run(&receiver).is_ok().then(|| state.done())
        });
        Self { shared, sender: Some(sender), thread: Some(thread) }
    }

    pub(super) fn send(&self, committed: Committed) -> Result<()> {
        self.message(Message::Commit(committed))
    }

    pub(super) fn flush(&self) -> Result<()> {
        let (answer, answered) = sync_channel(1);
        self.message(Message::Flush(answer))?;
        answered.recv().map_err(|_| self.failed())
    }

    fn message(&self, message: Message) -> Result<()> {
        let sender = self.sender.as_ref();
        sender.and_then(|sender| sender.send(message).ok()).ok_or_else(|| self.failed())
    }

    /// The error of a thread that has ended. Its channel closes a moment after the error is stored.
    fn failed(&self) -> CacheError {
        self.shared.failure()
    }

    /// Ends the thread after all that was committed.
    pub(super) fn join(mut self) -> Result<Done> {
        let done = self.end();
        done.ok_or_else(|| self.failed())
    }

    fn end(&mut self) -> Option<Done> {
        drop(self.sender.take());
        match self.thread.take()?.join() {
            Ok(done) => done,
            Err(panic) if !std::thread::panicking() => std::panic::resume_unwind(panic),
            Err(_) => None,
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        // What was committed is worth journalling even when the writer is given up.
        let _ = self.end();
    }
}

/// The thread has stopped; why is in [`Shared::failure`].
struct Stopped;

struct State {
    shared: Arc<Shared>,
    journal: Option<Journal>,
    missing: MissingMap,
    left: BTreeMap<usize, u32>,
    sealed: BTreeMap<usize, ShardEntry>,
}

impl State {
    /// Serves until the writer ends. An error is stored before anybody who waits for a flush is let go: they ask for it.
    fn run(&mut self, receiver: &Receiver<Message>) -> std::result::Result<(), Stopped> {
        // Complete since before a crash, and not sealed.
        let complete: Vec<usize> = self.left.iter().filter(|(_, left)| **left == 0).map(|(shard, _)| *shard).collect();
        complete.into_iter().try_for_each(|shard| self.seal(shard)).map_err(|error| self.stop(error))?;
        while let Ok(first) = receiver.recv() {
            let (commits, flushes) = self.gather(first, receiver);
            self.commit(&commits).map_err(|error| self.stop(error))?;
            for flush in flushes {
                // Nobody waits any more where the answer cannot be sent.
                let _ = flush.send(());
            }
        }
        Ok(())
    }

    fn stop(&self, error: CacheError) -> Stopped {
        *self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        Stopped
    }

    /// Messages until the group is full, its time is up, or somebody waits for it.
    fn gather(&self, first: Message, receiver: &Receiver<Message>) -> (Vec<Committed>, Vec<SyncSender<()>>) {
        let (mut commits, mut flushes, mut bytes) = (Vec::new(), Vec::new(), 0);
        let end = Instant::now() + GROUP_TIME;
        let row_bytes: usize = self.shared.plan.tensors.iter().map(crate::TensorSpec::row_bytes).sum();
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Flush(answer) => flushes.push(answer),
                Message::Commit(committed) => {
                    bytes += committed.rows.len() * row_bytes;
                    commits.push(committed);
                }
            }
            if bytes >= GROUP_BYTES || !flushes.is_empty() {
                break;
            }
            // Nothing more in time, or ever.
            next = receiver.recv_timeout(end.saturating_duration_since(Instant::now())).ok();
        }
        (commits, flushes)
    }

    fn commit(&mut self, commits: &[Committed]) -> Result<()> {
        if commits.is_empty() {
            return Ok(());
        }
        let ranges = self.ranges(commits);
        let drafts: BTreeMap<usize, _> =
            ranges.keys().map(|&shard| Ok((shard, self.shared.draft(shard)?))).collect::<Result<_>>()?;
        for (shard, ranges) in &ranges {
            ranges.iter().try_for_each(|range| drafts[shard].sync_rows(range.clone()))?;
        }
        self.journal(&ranges, commits)?;
        for (shard, ranges) in &ranges {
            ranges.iter().for_each(|range| drafts[shard].release_rows(range.clone()));
        }
        drop(drafts);
        self.count(commits)
    }

    /// The rows committed, as ranges within their shards.
    fn ranges(&self, commits: &[Committed]) -> BTreeMap<usize, Vec<Range<u32>>> {
        let plan = &self.shared.plan;
        let mut sets: BTreeMap<usize, RowSet> = BTreeMap::new();
        for commit in commits {
            let set = sets.entry(commit.shard).or_insert_with(|| RowSet::new(plan.shard_rows(commit.shard)));
            commit.rows.iter().for_each(|row| set.insert(row - plan.first_row(commit.shard)));
        }
        let ranges =
            |shard, set: &RowSet| set.ranges(0..plan.shard_rows(shard)).into_iter().map(|r| r[0]..r[1]).collect();
        sets.iter().map(|(shard, set)| (*shard, ranges(*shard, set))).collect()
    }

    fn journal(&mut self, ranges: &BTreeMap<usize, Vec<Range<u32>>>, commits: &[Committed]) -> Result<()> {
        let first = |shard: &usize| self.shared.plan.first_row(*shard);
        let done = ranges
            .iter()
            .flat_map(|(shard, all)| all.iter().map(move |r| [first(shard) + r.start, first(shard) + r.end]));
        let done = done.collect();
        let mut missing: Vec<Missing> = commits.iter().flat_map(|commit| commit.missing.clone()).collect();
        missing.sort_by_key(|missing| missing.row);
        self.append(&[Record::Rows { done, missing }])
    }

    fn append(&mut self, records: &[Record]) -> Result<()> {
        self.journal.as_mut().map_or(Ok(()), |journal| journal.append(records))
    }

    fn count(&mut self, commits: &[Committed]) -> Result<()> {
        for commit in commits {
            commit.rows.iter().for_each(|row| drop(self.missing.remove(row)));
            self.missing.extend(commit.missing.iter().map(|missing| (missing.row, missing.clone())));
            let Some(left) = self.left.get_mut(&commit.shard) else {
                continue;
            };
            *left = left.saturating_sub(commit.rows.len() as u32);
            if *left == 0 {
                self.seal(commit.shard)?;
            }
        }
        Ok(())
    }

    /// Digests a complete shard, journals it and gives it its name.
    fn seal(&mut self, shard: usize) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let (plan, work) = (&shared.plan, &shared.work[&shard]);
        // Made here where a crash came between its last row and this, so that rows of the finished shard are in it.
        drop(shared.draft(shard)?);
        shared.close_draft(work);
        let draft = shared.folder.join(draft_name(&work.file));
        let synced = std::fs::File::open(&draft).and_then(|file| file.sync_all());
        synced.map_err(CacheError::io("sync", &draft))?;
        let entry = {
            let sealed = Shard::open(draft.clone(), plan, shard, Some(plan.shard_rows(shard)))?;
            seal::entry(&sealed, work.file.clone(), shared.rows_per_chunk)
        };
        let first = plan.first_row(shard);
        let missing = self.missing.range(first..first + plan.shard_rows(shard)).map(|(_, missing)| missing.clone());
        let record =
            ShardRecord { shard, entry: entry.clone(), retried: shared.retry_missing, missing: missing.collect() };
        self.append(&[Record::Shard(record)])?;
        rename(&draft, &shared.folder.join(&work.file))?;
        self.left.remove(&shard);
        self.sealed.insert(shard, entry);
        Ok(())
    }

    fn done(self) -> Done {
        Done { missing: self.missing, sealed: self.sealed, rows_left: self.left.values().sum() }
    }
}
