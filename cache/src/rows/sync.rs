//! Bringing `rows.jsonl` up to date with a data set, without ever moving a row.
//!
//! Columns refer to rows by number, so rows are only appended or changed in place; the file is replaced as a whole. New
//! lines go through an unnamed file rather than memory: the first sync of 3.3 million rows is nearly a gigabyte of them.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::Path;

use super::line::Line;
use super::{RowRecord, Rows, content_of};
use crate::cache_file::Change;
use crate::error::{CacheError, Result, RowsError};
use crate::map::ReadMap;
use crate::publish::{ContentHash, content_hash, publish, to_hex};
use crate::rowset::RowSet;

/// What a sync found. Rows in order, all of them after the sync's numbering.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowsDiff {
    /// Rows appended.
    pub added: Vec<u32>,
    /// Rows whose image is another: columns will encode them again.
    pub changed: Vec<u32>,
    /// Rows whose captions or split changed.
    pub recaptioned: Vec<u32>,
    /// Rows that the data set does not hold, now or since earlier. They keep their place and leave their split.
    pub gone: Vec<u32>,
    /// The file was not as it was written. Its content hashes were forgotten; the rest is the data set's again.
    pub doubted: bool,
}

/// Brings the file of `old` up to date with `records` and says what changed. The file is left alone where nothing did.
pub(super) fn sync(old: &Rows, records: impl IntoIterator<Item = RowRecord>, change: &Change) -> Result<RowsDiff> {
    let mut sync = Sync::new(old, change)?;
    for record in records {
        sync.take(&record)?;
    }
    sync.finish()
}

struct Sync<'a> {
    old: &'a Rows,
    change: &'a Change,
    lines: Spill,
    seen: RowSet,
    new_ids: HashSet<ContentHash>,
    updates: BTreeMap<u32, Range<usize>>,
    appended: Vec<Range<usize>>,
    diff: RowsDiff,
}

impl<'a> Sync<'a> {
    fn new(old: &'a Rows, change: &'a Change) -> Result<Self> {
        Ok(Self {
            old,
            change,
            lines: Spill::new(old.path())?,
            seen: RowSet::new(old.len()),
            new_ids: HashSet::new(),
            updates: BTreeMap::new(),
            appended: Vec::new(),
            diff: RowsDiff { doubted: !change.is_trusted(), ..RowsDiff::default() },
        })
    }

    fn take(&mut self, record: &RowRecord) -> Result<()> {
        let content = content_of(record)?;
        let duplicate = || RowsError::Duplicate { id: record.id.clone() }.into();
        match self.old.find(&record.id) {
            Some(row) if self.seen.contains(row) => Err(duplicate()),
            Some(row) => {
                self.seen.insert(row);
                self.update(row, record, content)
            }
            // 128 bits of BLAKE3 stand for the id: equal hashes are equal ids.
            None if !self.new_ids.insert(content_hash(record.id.as_bytes())) => Err(duplicate()),
            None => {
                self.diff.added.push(self.next_row()?);
                self.appended.push(self.lines.push(&Line::new(record))?);
                Ok(())
            }
        }
    }

    fn next_row(&self) -> Result<u32, RowsError> {
        let row = u32::try_from(self.appended.len()).ok().and_then(|added| self.old.len().checked_add(added));
        let too_many = || RowsError::TooMany { path: self.old.path().to_owned(), what: "rows" };
        row.filter(|&row| row < u32::MAX - 1).ok_or_else(too_many)
    }

    fn update(&mut self, row: u32, record: &RowRecord, content: ContentHash) -> Result<()> {
        let (before, mut after) = (self.old.line(row), Line::new(record));
        let same_file = before.is_same_file(record);
        if record.content.is_none() {
            if !same_file {
                return Err(RowsError::ContentNeeded { id: record.id.clone() }.into());
            }
            if !self.diff.doubted {
                after.content.clone_from(&before.content);
            }
        } else if self.old.content(row).map_or(!same_file, |known| known != content) {
            self.diff.changed.push(row);
        }
        if before.captions != after.captions || before.split != after.split {
            self.diff.recaptioned.push(row);
        }
        if before != after {
            let line = self.lines.push(&after)?;
            self.updates.insert(row, line);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<RowsDiff> {
        for row in (0..self.old.len()).filter(|&row| !self.seen.contains(row)) {
            self.diff.gone.push(row);
            if !self.old.is_gone(row) {
                let line = self.lines.push(&Line { gone: true, ..self.old.line(row) })?;
                self.updates.insert(row, line);
            }
        }
        self.old.release();
        self.diff.changed.sort_unstable();
        self.diff.recaptioned.sort_unstable();
        if !self.updates.is_empty() || !self.appended.is_empty() {
            let lines = self.lines.into_map()?;
            rewrite(self.old, &lines, &self.updates, &self.appended, self.change)?;
        }
        Ok(self.diff)
    }
}

/// Lines written between two times that pages read are given back.
const RELEASE_LINES: usize = 1 << 18;

/// Replaces the file: old lines or their updates, then what is appended.
fn rewrite(
    old: &Rows,
    lines: &ReadMap,
    updates: &BTreeMap<u32, Range<usize>>,
    appended: &[Range<usize>],
    change: &Change,
) -> Result<()> {
    let new = |range: &Range<usize>| &lines.bytes()[range.clone()];
    publish(old.path(), |out| {
        let mut digest = blake3::Hasher::new();
        let kept = (0..old.len()).map(|row| updates.get(&row).map_or_else(|| old.line_bytes(row), new));
        for (at, line) in kept.chain(appended.iter().map(new)).enumerate() {
            out.write_all(line).map_err(CacheError::io("write", old.path()))?;
            digest.update(line);
            if at % RELEASE_LINES == 0 {
                lines.release(0..lines.bytes().len());
                old.release();
            }
        }
        change.announce(digest.finalize().to_hex().to_string())
    })
}

/// Fills in the content hashes that are not known, and says how many there were. An index that is not as it was written stays
/// what it is.
pub(crate) fn adopt_contents(old: &Rows, content: impl Fn(u32) -> Option<ContentHash>, change: &Change) -> Result<u32> {
    if !change.is_trusted() {
        return Ok(0);
    }
    let mut lines = Spill::new(old.path())?;
    let mut updates = BTreeMap::new();
    for row in (0..old.len()).filter(|&row| old.content(row).is_none()) {
        if let Some(content) = content(row) {
            let line = Line { content: Some(to_hex(&content)), ..old.line(row) };
            updates.insert(row, lines.push(&line)?);
        }
    }
    if !updates.is_empty() {
        rewrite(old, &lines.into_map()?, &updates, &[], change)?;
    }
    Ok(updates.len() as u32)
}

/// Lines kept in a file without a name, beside the one they are for.
struct Spill {
    path: std::path::PathBuf,
    out: BufWriter<File>,
    bytes: usize,
    line: Vec<u8>,
}

impl Spill {
    fn new(beside: &Path) -> Result<Self> {
        let path = beside.with_extension("spill");
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(true).open(&path);
        let file = file.map_err(CacheError::io("create", &path))?;
        std::fs::remove_file(&path).map_err(CacheError::io("remove", &path))?;
        Ok(Self { path, out: BufWriter::with_capacity(1 << 20, file), bytes: 0, line: Vec::new() })
    }

    fn push(&mut self, line: &Line<'_>) -> Result<Range<usize>> {
        self.line.clear();
        line.write_to(&mut self.line);
        self.out.write_all(&self.line).map_err(CacheError::io("write", &self.path))?;
        let start = self.bytes;
        self.bytes += self.line.len();
        Ok(start..self.bytes)
    }

    fn into_map(self) -> Result<ReadMap> {
        let file = self.out.into_inner().map_err(|error| CacheError::io("write", &self.path)(error.into_error()))?;
        ReadMap::new(&file).map_err(CacheError::io("map", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    struct Index {
        _folder: tempfile::TempDir,
        path: PathBuf,
    }

    impl Index {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("rows.jsonl");
            std::fs::write(&path, "").unwrap();
            std::fs::write(folder.path().join("cache.json"), r#"{"format": 1}"#).unwrap();
            Self { _folder: folder, path }
        }

        fn rows(&self) -> Rows {
            Rows::open(&self.path).unwrap()
        }

        fn change(&self) -> Change {
            Change::begin(self.path.parent().unwrap(), &self.rows()).unwrap()
        }

        fn sync(&self, records: &[RowRecord]) -> Result<RowsDiff> {
            let (rows, change) = (self.rows(), self.change());
            let diff = sync(&rows, records.to_vec(), &change)?;
            change.end(true)?;
            Ok(diff)
        }
    }

    fn record(id: &str) -> RowRecord {
        RowRecord {
            id: id.to_owned(),
            source: format!("images/{id}.jpg"),
            split: "train".to_owned(),
            captions: vec![format!("a picture of \"{id}\"")],
            content: None,
            bytes: Some(10),
            modified_ns: Some(1_700_000_000_000_000_000),
        }
    }

    fn hash(text: &str) -> Option<String> {
        Some(to_hex(&content_hash(text.as_bytes())))
    }

    #[test]
    fn records_come_back_as_they_were_given() {
        let index = Index::new();
        let records = [record("a"), RowRecord { content: hash("b"), bytes: None, ..record("bé\n") }];
        let diff = index.sync(&records).unwrap();
        assert_eq!(diff, RowsDiff { added: vec![0, 1], ..RowsDiff::default() });
        let rows = index.rows();
        assert_eq!([rows.get(0), rows.get(1)], records);
        insta::assert_snapshot!(std::fs::read_to_string(&index.path).unwrap(), @r#"
        {"id":"a","source":"images/a.jpg","split":"train","captions":["a picture of \"a\""],"bytes":10,"modified_ns":1700000000000000000}
        {"id":"bé\n","source":"images/bé\n.jpg","split":"train","captions":["a picture of \"bé\n\""],"content":"10e5cf3d3c8a4f9f3468c8cc58eea848","modified_ns":1700000000000000000}
        "#);
    }

    #[test]
    fn rows_keep_their_numbers_whatever_the_order_of_the_data_set() {
        let index = Index::new();
        index.sync(&["a", "b", "c"].map(record)).unwrap();
        let diff = index.sync(&["d", "c", "a"].map(record)).unwrap();
        assert_eq!(diff, RowsDiff { added: vec![3], gone: vec![1], ..RowsDiff::default() });
        let rows = index.rows();
        assert_eq!((0..4).map(|row| rows.id(row)).collect::<Vec<_>>(), ["a", "b", "c", "d"]);
        assert_eq!(rows.split_rows("train"), [0, 2, 3]);
        index.sync(&["a", "b", "c", "d"].map(record)).unwrap();
        assert_eq!(index.rows().split_rows("train"), [0, 1, 2, 3], "a row that is back is back in its split");
    }

    #[test]
    fn nothing_new_leaves_the_file_alone() {
        let index = Index::new();
        index.sync(&["a", "b"].map(record)).unwrap();
        let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap());
        let before = inode(&index.path);
        assert_eq!(index.sync(&["b", "a"].map(record)).unwrap(), RowsDiff::default());
        assert_eq!(inode(&index.path), before);
    }

    #[test]
    fn a_touched_file_needs_its_hash_and_is_changed_only_by_its_bytes() {
        let index = Index::new();
        index.sync(&[RowRecord { content: hash("one"), ..record("a") }]).unwrap();
        let touched = RowRecord { modified_ns: Some(5), ..record("a") };
        assert!(index.rows().needs_content(&touched) && !index.rows().needs_content(&record("a")));
        insta::assert_snapshot!(index.sync(std::slice::from_ref(&touched)).unwrap_err(), @r"
        the file of `a` is not the one the cache knows, and its content hash was not given
        hint: give the hash where `Rows::needs_content` says so
        ");
        let same = RowRecord { content: hash("one"), ..touched.clone() };
        assert_eq!(index.sync(std::slice::from_ref(&same)).unwrap(), RowsDiff::default());
        assert_eq!(index.rows().get(0), same);
        let other = RowRecord { content: hash("two"), ..touched };
        assert_eq!(index.sync(&[other]).unwrap().changed, [0]);
    }

    #[test]
    fn captions_and_splits_change_without_the_image() {
        let index = Index::new();
        index.sync(&["a", "b"].map(record)).unwrap();
        let other = RowRecord { captions: vec!["x".into()], ..record("a") };
        let diff = index.sync(&[other, RowRecord { split: "val".into(), ..record("b") }]).unwrap();
        assert_eq!(diff, RowsDiff { recaptioned: vec![0, 1], ..RowsDiff::default() });
        assert_eq!(index.rows().split_rows("val"), [1]);
    }

    #[test]
    fn duplicates_are_refused_new_or_old() {
        let index = Index::new();
        insta::assert_snapshot!(index.sync(&["a", "a"].map(record)).unwrap_err(), @r"
        `a` is the id of two images of the data set
        hint: ids must be unique: remove one of the two
        ");
        index.sync(&[record("a")]).unwrap();
        assert!(index.sync(&["a", "a"].map(record)).is_err());
        assert_eq!(index.rows().len(), 1);
    }

    #[test]
    fn a_bad_hash_is_refused() {
        let bad = RowRecord { content: Some("XY".into()), ..record("a") };
        insta::assert_snapshot!(Index::new().sync(&[bad]).unwrap_err(), @"`XY`, the content hash of `a`, is not 32 lower-case hex digits");
    }

    #[test]
    fn hashes_found_while_encoding_fill_the_gaps() {
        let index = Index::new();
        index.sync(&[record("a"), RowRecord { content: hash("b"), ..record("b") }, record("c")]).unwrap();
        let adopted =
            adopt_contents(&index.rows(), |row| (row != 2).then(|| content_hash(b"new")), &index.change()).unwrap();
        assert_eq!(adopted, 1);
        assert_eq!([0, 1, 2].map(|row| index.rows().get(row).content), [hash("new"), hash("b"), None]);
    }
}
