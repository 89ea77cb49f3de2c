//! Opening `rows.jsonl`: one parallel pass that checks every line and keeps what lookups need.
//!
//! The pages read are given back as the pass goes on, so that opening takes the memory of the index, not of the file.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use rayon::prelude::*;

use super::Rows;
use super::index::{IdIndex, hash};
use super::line::{Line, Scanned};
use crate::error::RowsError;
use crate::map::ReadMap;
use crate::publish::{ContentHash, from_hex};
use crate::rowset::RowSet;

/// Bytes one task scans.
const BLOCK_BYTES: usize = 4 << 20;
/// Splits an index may have. Data sets have five; a split for every image is a mistake.
const MAX_SPLITS: usize = 1000;

/// What a block of whole lines holds.
#[derive(Default)]
struct Block {
    /// Where each line ends.
    ends: Vec<u64>,
    hashes: Vec<u64>,
    splits: Vec<u16>,
    split_names: Vec<String>,
    contents: Vec<ContentHash>,
    gone: Vec<u32>,
}

/// Why a block could not be scanned: the line in it, from 0, and what is wrong.
struct BadLine {
    line: usize,
    cause: Cause,
}

enum Cause {
    Json(serde_json::Error),
    Content,
    Splits,
}

/// Builds the index of the lines in `map`.
pub(super) fn scan(path: &Path, file: File, map: ReadMap) -> Result<Rows, RowsError> {
    let bytes = map.bytes();
    if bytes.last().is_some_and(|&last| last != b'\n') {
        return Err(RowsError::Torn { path: path.to_owned() });
    }
    let ranges = blocks(bytes);
    let scanned: Vec<Result<Block, BadLine>> = ranges
        .par_iter()
        .map(|range| {
            let block = scan_block(&bytes[range.clone()], range.start as u64);
            map.release(range.clone());
            block
        })
        .collect();
    let mut joined = Joined::new(path);
    for block in scanned {
        joined.push(block)?;
    }
    joined.into_rows(file, map)
}

/// Ranges of about [`BLOCK_BYTES`] that end with a line.
fn blocks(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut start = 0;
    while start < bytes.len() {
        let near = (start + BLOCK_BYTES).min(bytes.len() - 1);
        let end = near + 1 + memchr::memchr(b'\n', &bytes[near..]).unwrap_or(0);
        ranges.push(start..end);
        start = end;
    }
    ranges
}

fn scan_block(bytes: &[u8], offset: u64) -> Result<Block, BadLine> {
    let mut block = Block::default();
    let mut start = 0;
    for (line, newline) in memchr::memchr_iter(b'\n', bytes).enumerate() {
        let bad = |cause| BadLine { line, cause };
        let text = &bytes[start..newline];
        start = newline + 1;
        let row: Scanned<'_> = serde_json::from_slice(text).map_err(|error| bad(Cause::Json(error)))?;
        let content = row.content.map_or(Some([0; 16]), from_hex).ok_or_else(|| bad(Cause::Content))?;
        block.ends.push(offset + start as u64);
        block.hashes.push(hash(&row.id));
        block.contents.push(content);
        let split = intern(&mut block.split_names, &row.split).ok_or_else(|| bad(Cause::Splits))?;
        block.splits.push(split);
        if row.gone {
            block.gone.push(line as u32);
        }
    }
    Ok(block)
}

fn intern(names: &mut Vec<String>, name: &str) -> Option<u16> {
    let known = names.iter().position(|known| known == name);
    let at = known.unwrap_or(names.len());
    if known.is_none() && at < MAX_SPLITS {
        names.push(name.to_owned());
    }
    (at < MAX_SPLITS).then_some(at as u16)
}

/// The blocks so far, one after the other.
struct Joined<'a> {
    path: &'a Path,
    offsets: Vec<u64>,
    all: Block,
}

impl<'a> Joined<'a> {
    fn new(path: &'a Path) -> Self {
        Self { path, offsets: vec![0], all: Block::default() }
    }

    fn push(&mut self, block: Result<Block, BadLine>) -> Result<(), RowsError> {
        let rows = self.all.splits.len();
        let block = block.map_err(|bad| {
            let (path, line) = (self.path.to_owned(), (rows + bad.line + 1) as u64);
            match bad.cause {
                Cause::Json(source) => RowsError::Line { path, line, source },
                Cause::Content => RowsError::Content { path, line },
                Cause::Splits => RowsError::TooMany { path, what: "splits" },
            }
        })?;
        let too_many = |what| RowsError::TooMany { path: self.path.to_owned(), what };
        if rows + block.splits.len() >= u32::MAX as usize {
            return Err(too_many("rows"));
        }
        let names = block.split_names.iter().map(|name| intern(&mut self.all.split_names, name));
        let names = names.collect::<Option<Vec<u16>>>().ok_or_else(|| too_many("splits"))?;
        self.offsets.extend(block.ends);
        self.all.hashes.extend(block.hashes);
        self.all.contents.extend(block.contents);
        self.all.splits.extend(block.splits.iter().map(|&split| names[usize::from(split)]));
        self.all.gone.extend(block.gone.iter().map(|&line| rows as u32 + line));
        Ok(())
    }

    fn into_rows(self, file: File, map: ReadMap) -> Result<Rows, RowsError> {
        let Self { path, offsets, all } = self;
        let text = |row: u32| &map.bytes()[offsets[row as usize] as usize..offsets[row as usize + 1] as usize];
        let id = |row: u32| serde_json::from_slice::<Line<'_>>(text(row)).map(|line| line.id.into_owned()).ok();
        let ids = IdIndex::new(all.hashes, |a, b| id(a) == id(b)).map_err(|twins| RowsError::DuplicateLine {
            path: path.to_owned(),
            id: id(twins.first).unwrap_or_default(),
            first: twins.first,
            second: twins.second,
        })?;
        let mut gone = RowSet::new(all.splits.len() as u32);
        all.gone.iter().for_each(|&row| gone.insert(row));
        Ok(Rows {
            path: path.to_owned(),
            file,
            map,
            offsets,
            splits: all.splits,
            split_names: all.split_names,
            contents: all.contents,
            gone,
            ids,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CacheError;

    fn open(text: &str) -> Result<Rows, RowsError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        std::fs::write(&path, text).unwrap();
        match Rows::open(&path) {
            Ok(rows) => Ok(rows),
            Err(CacheError::Rows(error)) => Err(error),
            Err(other) => panic!("{other}"),
        }
    }

    fn line(id: &str, more: &str) -> String {
        format!("{{\"id\":\"{id}\",\"source\":\"{id}.jpg\",\"split\":\"train\",\"captions\":[\"a\"]{more}}}\n")
    }

    #[test]
    fn rows_are_found_by_number_id_and_split() {
        let text = line("a", "")
            + &line("b", ",\"gone\":true")
            + &line("c\\n\\u00e9", ",\"content\":\"000102030405060708090a0b0c0d0e0f\"");
        let rows = open(&text).unwrap();
        assert_eq!((rows.len(), rows.id(2).as_str()), (3, "c\né"));
        assert_eq!(["a", "b", "c\né", "d"].map(|id| rows.find(id)), [Some(0), Some(1), Some(2), None]);
        assert_eq!((rows.split_rows("train"), rows.split_rows("test")), (vec![0, 2], vec![]));
        assert_eq!(rows.content(2), Some(std::array::from_fn(|at| at as u8)));
        assert_eq!((rows.content(0), rows.split(1), rows.is_gone(1)), (None, "train", true));
    }

    #[test]
    fn no_rows_are_rows_too() {
        let rows = open("").unwrap();
        assert!(rows.is_empty() && rows.find("a").is_none() && rows.split_rows("train").is_empty());
    }

    #[test]
    fn blocks_cut_between_lines() {
        let lines: Vec<u8> = (0..200_000).flat_map(|row| format!("{row:x>70}\n").into_bytes()).collect();
        let ranges = blocks(&lines);
        assert!(ranges.len() > 2);
        assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start && lines[pair[0].end - 1] == b'\n'));
        assert_eq!((ranges[0].start, ranges.last().unwrap().end), (0, lines.len()));
    }

    #[test]
    fn many_blocks_make_one_index() {
        let text: String = (0..100_000).map(|row| line(&format!("image-{row}"), "")).collect();
        let rows = open(&text).unwrap();
        assert_eq!(rows.len(), 100_000);
        for row in [0, 1, 54_321, 99_999] {
            assert_eq!(rows.find(&format!("image-{row}")), Some(row));
            assert_eq!(rows.get(row).source, format!("image-{row}.jpg"));
        }
        let Err(RowsError::Line { line, .. }) = open(&(text + "{}\n")) else { panic!("a bad line passed") };
        assert_eq!(line, 100_001);
    }

    #[test]
    fn a_torn_file_is_refused() {
        let error = open(line("a", "").trim_end()).unwrap_err();
        assert!(matches!(error, RowsError::Torn { .. }));
    }

    #[test]
    fn a_line_that_is_no_row_is_named() {
        for bad in [
            "\n",
            "[]\n",
            "{\"id\":\"b\"}\n",
            &line("b", "").replace("[\"a\"]", "[1]"),
            &line("b", "").replace("\"a\"", ""),
        ] {
            match open(&(line("a", "") + bad)) {
                Err(RowsError::Line { line: 2, .. }) => {}
                Ok(rows) => assert!(rows.get(1).captions.is_empty(), "`{bad}`"),
                Err(other) => panic!("`{bad}`: {other}"),
            }
        }
    }

    #[test]
    fn a_bad_content_hash_is_named() {
        assert!(matches!(open(&line("a", ",\"content\":\"xyz\"")), Err(RowsError::Content { line: 1, .. })));
    }

    #[test]
    fn two_rows_of_one_id_are_refused() {
        let error = open(&(line("a", "") + &line("b", "") + &line("a", ""))).unwrap_err();
        assert!(matches!(error, RowsError::DuplicateLine { first: 0, second: 2, .. }), "{error}");
    }

    #[test]
    fn too_many_splits_are_refused() {
        let text: String = (0..=1000).map(|n| line(&n.to_string(), "").replace("train", &n.to_string())).collect();
        assert!(matches!(open(&text), Err(RowsError::TooMany { what: "splits", .. })));
    }
}
