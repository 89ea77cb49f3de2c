//! The journal of an unfinished column: what is done, one record a line, each with its checksum.
//!
//! Knows nothing of shards' bytes. A record says that rows are on the disk, so it is written after they are. A torn tail is
//! what a crash leaves and is ignored; a writer that takes a journal up publishes it anew, without the tail and without
//! the rows it does not trust, so that nothing ever has to be taken back by a record.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{CacheError, JournalError, Result};
use crate::manifest::is_plain_name;
use crate::missing::{Missing, MissingMap};
use crate::publish::publish;
use crate::rowset::RowSet;
use crate::{ColumnPlan, FORMAT, Part, ShardEntry};

/// The journal's file name.
pub(crate) const FILE: &str = "journal";
/// Hex digits of a record's checksum.
const CHECKSUM: usize = 16;

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Record {
    /// The first record: what is being written.
    Plan(PlanRecord),
    /// Rows of unfinished shards that are on the disk.
    Rows {
        /// Ranges `[start, end)`.
        done: Vec<[u32; 2]>,
        /// Those of them that are missing.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        missing: Vec<Missing>,
    },
    /// A shard that is complete and on the disk; its file takes its final name after this record.
    Shard(ShardRecord),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PlanRecord {
    pub format: u32,
    /// The generation of the manifest this writing ends with. A journal of one that exists is a leftover.
    pub generation: u32,
    /// What of the column is being written; `None`: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
    pub column: ColumnPlan,
    /// Rows to do when the journal was written, those of its own `rows` records included.
    pub todo: u32,
    /// Whether rows that were missing are among those to do.
    pub retry_missing: bool,
    /// Who wrote the rows that were there when the journal was written, and who writes now, as far as they said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub writers: Vec<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer: Option<Value>,
    /// Rows of the journal's own `rows` records when it was written.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub carried: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's way")]
fn is_zero(rows: &u32) -> bool {
    *rows == 0
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ShardRecord {
    pub shard: usize,
    #[serde(flatten)]
    pub entry: ShardEntry,
    /// Whether its missing rows were tried again in this writing.
    pub retried: bool,
    /// All missing rows of the shard.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Missing>,
}

/// What a journal says.
#[derive(Debug)]
pub(crate) struct Replay {
    pub plan: PlanRecord,
    /// Rows that are in partial shards.
    pub done: RowSet,
    /// Shards that are complete.
    pub shards: Vec<ShardRecord>,
    /// The rows given to [`replay`], brought up to date.
    pub missing: MissingMap,
    /// Rows done since the journal was written.
    pub written: u32,
}

impl Replay {
    /// Rows that will be there in the end: of the column, or of the part that is written.
    pub(crate) fn covered(&self) -> u32 {
        self.plan.column.part_rows(self.plan.part)
    }

    /// Rows of those that are done.
    pub(crate) fn rows_done(&self) -> u32 {
        self.covered().saturating_sub(self.plan.todo).saturating_add(self.written).min(self.covered())
    }

    /// Whether every row was done: the writing was not broken off, its column was just not published (too much was missing).
    pub(crate) fn is_complete(&self) -> bool {
        self.rows_done() == self.covered()
    }

    /// Forgets which missing rows were tried again: who asks for it now, asks for all of them once more.
    pub(crate) fn begin_round(&mut self) {
        self.plan.retry_missing = false;
        self.shards.iter_mut().for_each(|shard| shard.retried = false);
    }
}

/// A record as a line.
fn line(record: &Record) -> Vec<u8> {
    let json = serde_json::to_string(record).expect("a record is plain JSON");
    format!("{} {json}\n", &blake3::hash(json.as_bytes()).to_hex()[..CHECKSUM]).into_bytes()
}

/// The records of a journal up to the first that is torn.
fn whole_records(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|&byte| byte == b'\n').map_while(|line| {
        let line = line.strip_suffix(b"\n")?;
        let (checksum, json) = line.split_at_checked(CHECKSUM)?;
        let json = json.strip_prefix(b" ")?;
        (blake3::hash(json).to_hex()[..CHECKSUM].as_bytes() == checksum).then_some(json)
    })
}

/// Reads the journal at `path`, `None` where there is none, on top of what was `missing` before it.
pub(crate) fn replay(path: &Path, missing: MissingMap) -> Result<Option<Replay>> {
    match std::fs::read(path) {
        Ok(text) => Ok(parse(path, &text, missing)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CacheError::io("read", path)(error)),
    }
}

fn parse(path: &Path, text: &[u8], missing: MissingMap) -> Result<Option<Replay>, JournalError> {
    let mut replay: Option<Replay> = None;
    let mut before = Some(missing);
    for (at, json) in whole_records(text).enumerate() {
        let malformed = |source| JournalError::Record { path: path.to_owned(), record: at + 1, source };
        if at == 0 {
            check_version(path, json)?;
        }
        match (serde_json::from_slice(json).map_err(malformed)?, &mut replay) {
            (Record::Plan(plan), none @ None) => {
                plan.column.check().map_err(|source| JournalError::Plan { path: path.to_owned(), source })?;
                let done = RowSet::new(plan.column.rows);
                let missing = before.take().unwrap_or_default();
                *none = Some(Replay { plan, done, shards: Vec::new(), missing, written: 0 });
            }
            (Record::Rows { done, missing }, Some(replay)) => {
                check_missing(path, at + 1, &replay.plan.column, &missing)?;
                replay.rows(&done, missing);
            }
            (Record::Shard(shard), Some(replay)) => {
                check_shard(path, at + 1, &replay.plan.column, &shard)?;
                replay.shard(shard);
            }
            (_, _) => {
                return Err(JournalError::NoPlan { path: path.to_owned() });
            }
        }
    }
    match replay {
        None => Err(JournalError::NoPlan { path: path.to_owned() }),
        some => Ok(some),
    }
}

fn check_version(path: &Path, json: &[u8]) -> Result<(), JournalError> {
    #[derive(Deserialize)]
    struct First {
        plan: Version,
    }
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let no_plan = |_| JournalError::NoPlan { path: path.to_owned() };
    let first: First = serde_json::from_slice(json).map_err(no_plan)?;
    if !(1..=FORMAT).contains(&first.plan.format) {
        return Err(JournalError::Version { path: path.to_owned(), found: first.plan.format });
    }
    Ok(())
}

/// Refuses missing rows that the column does not have: readers look up the shard of each.
fn check_missing(path: &Path, record: usize, plan: &ColumnPlan, missing: &[Missing]) -> Result<(), JournalError> {
    match missing.iter().find(|missing| missing.row >= plan.rows) {
        None => Ok(()),
        Some(missing) => Err(JournalError::MissingRow { path: path.to_owned(), record, row: missing.row }),
    }
}

/// Refuses a shard whose file is not in the column's folder, or which has more rows than its place. Fewer rows are what a
/// shorter row index left.
fn check_shard(path: &Path, record: usize, plan: &ColumnPlan, shard: &ShardRecord) -> Result<(), JournalError> {
    let ShardRecord { entry, missing, .. } = shard;
    if !is_plain_name(&entry.file) {
        return Err(JournalError::FileName { path: path.to_owned(), record, file: entry.file.clone() });
    }
    let most = if shard.shard < plan.shards() { plan.shard_rows(shard.shard) } else { plan.rows_per_shard };
    if entry.rows > most {
        return Err(JournalError::ShardRows { path: path.to_owned(), record, most, found: entry.rows });
    }
    check_missing(path, record, plan, missing)
}

impl Replay {
    fn rows(&mut self, done: &[[u32; 2]], missing: Vec<Missing>) {
        let rows = self.plan.column.rows;
        for row in done.iter().flat_map(|[start, end]| *start..(*end).min(rows)) {
            self.done.insert(row);
            self.missing.remove(&row);
            self.written = self.written.saturating_add(1);
        }
        self.missing.extend(missing.into_iter().map(|missing| (missing.row, missing)));
    }

    fn shard(&mut self, record: ShardRecord) {
        if record.shard >= self.plan.column.shards() {
            return;
        }
        let first = self.plan.column.first_row(record.shard);
        for row in first..first + self.plan.column.shard_rows(record.shard) {
            self.done.remove(row);
            self.missing.remove(&row);
        }
        self.missing.extend(record.missing.iter().map(|missing| (missing.row, missing.clone())));
        self.shards.retain(|shard| shard.shard != record.shard);
        self.shards.push(record);
    }
}

/// The journal of a writer, open for appending.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Publishes a journal of `records` in place of what was there, and opens it.
    pub(crate) fn publish(path: &Path, records: &[Record]) -> Result<Self> {
        publish(path, |out| {
            records.iter().try_for_each(|record| out.write_all(&line(record))).map_err(CacheError::io("write", path))
        })?;
        let file = OpenOptions::new().append(true).open(path).map_err(CacheError::io("open", path))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Appends records and returns when they are on the disk.
    pub(crate) fn append(&mut self, records: &[Record]) -> Result<()> {
        let lines: Vec<u8> = records.iter().flat_map(line).collect();
        let written = self.file.write_all(&lines).and_then(|()| self.file.sync_data());
        written.map_err(CacheError::io("append to", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ColumnSpec, Dtype, Key, Reason};
    use proptest::prelude::*;

    fn plan() -> Record {
        let spec = ColumnSpec::new("a", Key::new().with("x", 0.1), Dtype::F16, [4]);
        let column = spec.with_batch_rows(2).with_rows_per_shard(4).plan(10, None).unwrap();
        let (format, todo, retry_missing) = (column.format(), 10, false);
        let (writers, writer) = (Vec::new(), None);
        Record::Plan(PlanRecord {
            format,
            generation: 0,
            part: None,
            column,
            todo,
            retry_missing,
            writers,
            writer,
            carried: 0,
        })
    }

    fn rows(done: &[[u32; 2]], missing: &[u32]) -> Record {
        let reason = Reason::Empty;
        let missing = missing.iter().map(|&row| Missing { row, reason, detail: String::new() }).collect();
        Record::Rows { done: done.to_vec(), missing }
    }

    fn shard(shard: usize) -> Record {
        let entry = ShardEntry { file: "f".into(), rows: 4, bytes: 9, digest: "d".into(), chunks: vec![] };
        Record::Shard(ShardRecord { shard, entry, retried: false, missing: vec![] })
    }

    /// A shard's record that `change` has changed.
    fn bent(at: usize, change: impl FnOnce(&mut ShardRecord)) -> Record {
        let Record::Shard(mut record) = shard(at) else { unreachable!() };
        change(&mut record);
        Record::Shard(record)
    }

    fn text(records: &[Record]) -> Vec<u8> {
        records.iter().flat_map(line).collect()
    }

    fn replayed(text: &[u8]) -> Result<Replay, JournalError> {
        Ok(parse(Path::new("journal"), text, MissingMap::new())?.unwrap())
    }

    #[test]
    fn a_line_is_a_checksum_and_json() {
        let text = String::from_utf8(text(&[rows(&[[2, 4], [8, 10]], &[3])])).unwrap();
        insta::assert_snapshot!(text, @r#"d896452b205439b6 {"rows":{"done":[[2,4],[8,10]],"missing":[{"row":3,"reason":"empty"}]}}"#);
    }

    #[test]
    fn later_records_replace_earlier_ones() {
        let replay =
            replayed(&text(&[plan(), rows(&[[0, 4]], &[1, 2]), rows(&[[2, 4]], &[]), rows(&[[4, 6]], &[5])])).unwrap();
        assert_eq!((replay.done.ranges(0..10), replay.rows_done()), (vec![[0, 6]], 8));
        assert_eq!(replay.missing.keys().copied().collect::<Vec<_>>(), [1, 5]);
        let replay = replayed(&text(&[plan(), rows(&[[0, 4]], &[1]), shard(0), rows(&[[4, 5]], &[])])).unwrap();
        assert_eq!((replay.done.ranges(0..10), replay.shards.len()), (vec![[4, 5]], 1));
        assert!(replay.missing.is_empty(), "the shard's record says what is missing in it");
    }

    #[test]
    fn rows_and_shards_outside_the_plan_are_ignored() {
        let replay = replayed(&text(&[plan(), rows(&[[8, u32::MAX], [7, 3]], &[]), shard(99)])).unwrap();
        assert_eq!((replay.done.ranges(0..10), replay.shards.len()), (vec![[8, 10]], 0));
    }

    #[test]
    fn a_missing_row_outside_the_column_is_refused() {
        let reason = Reason::Empty;
        let outside = Missing { row: 10, reason, detail: String::new() };
        for record in [rows(&[[8, 10]], &[9, 10]), bent(1, |shard| shard.missing.push(outside.clone()))] {
            let error = replayed(&text(&[plan(), record])).unwrap_err();
            assert!(matches!(error, JournalError::MissingRow { record: 2, row: 10, .. }), "{error}");
        }
    }

    #[test]
    fn a_file_name_that_leads_elsewhere_is_refused() {
        for name in ["../00000.safetensors", "/etc/passwd", "a/", "", "..", "."] {
            let error = replayed(&text(&[plan(), bent(0, |shard| shard.entry.file = name.into())])).unwrap_err();
            assert!(matches!(&error, JournalError::FileName { record: 2, file, .. } if file == name), "{error}");
        }
    }

    #[test]
    fn a_shard_of_more_rows_than_its_place_has_is_refused() {
        for (at, most) in [(0, 4), (2, 2)] {
            assert!(replayed(&text(&[plan(), bent(at, |shard| shard.entry.rows = most)])).is_ok());
            for found in [most + 1, u32::MAX] {
                let error = replayed(&text(&[plan(), bent(at, |shard| shard.entry.rows = found)])).unwrap_err();
                let JournalError::ShardRows { record: 2, most: told, found: named, .. } = error else {
                    panic!("{error}")
                };
                assert_eq!((told, named), (most, found));
            }
        }
    }

    #[test]
    fn a_journal_without_a_plan_is_refused() {
        for records in [&[][..], &[rows(&[], &[])], &[shard(0), plan()], &[plan(), plan()]] {
            assert!(matches!(replayed(&text(records)), Err(JournalError::NoPlan { .. })), "{records:?}");
        }
    }

    fn raw(json: &str) -> Vec<u8> {
        format!("{} {json}\n", &blake3::hash(json.as_bytes()).to_hex()[..CHECKSUM]).into_bytes()
    }

    #[test]
    fn a_later_format_is_refused() {
        assert!(matches!(replayed(&raw(r#"{"plan":{"format":3}}"#)), Err(JournalError::Version { found: 3, .. })));
    }

    #[test]
    fn a_record_that_means_nothing_is_refused() {
        let unknown = [text(&[plan()]), raw(r#"{"wish":1}"#)].concat();
        assert!(matches!(replayed(&unknown), Err(JournalError::Record { record: 2, .. })));
    }

    #[test]
    fn an_impossible_plan_is_refused() {
        let Record::Plan(mut plan) = plan() else { unreachable!() };
        plan.column.rows_per_shard = 0;
        assert!(matches!(replayed(&text(&[Record::Plan(plan)])), Err(JournalError::Plan { .. })));
    }

    proptest! {
        #[test]
        fn cut_anywhere_it_holds_the_records_before(cut in 0.0..1.0f64, noise in proptest::collection::vec(any::<u8>(), 0..40)) {
            let records = [plan(), rows(&[[0, 2]], &[]), rows(&[[4, 6]], &[5]), rows(&[[8, 10]], &[])];
            let whole = text(&records);
            let first = line(&records[0]).len();
            let end = first + ((whole.len() - first) as f64 * cut) as usize;
            let torn = [&whole[..end], &noise[..]].concat();
            // The noise may put back what was cut off: a line feed alone makes a record whole again.
            let ends = records.iter().scan(0, |bytes, record| { *bytes += line(record).len(); Some(*bytes) });
            let kept = ends.filter(|&bytes| torn.starts_with(&whole[..bytes])).count() as u32;
            prop_assert_eq!(replayed(&torn).unwrap().written, (kept - 1) * 2);
        }
    }
}
