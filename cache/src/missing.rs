//! Rows without an embedding: what is known of each, and the list beside the manifest.
//!
//! The shard's `status` says that a row is missing; this list says why, in words. It is one JSON object a line, in order of
//! rows, so that two runs write the same bytes.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Reason;
use crate::error::{CacheError, ManifestError, Result};
use crate::publish::publish;

/// A row that has no embedding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// The row.
    pub row: u32,
    /// Why, as a class.
    pub reason: Reason,
    /// Why, in words. The same failure must give the same words, or two runs differ.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// Missing rows by row.
pub(crate) type MissingMap = BTreeMap<u32, Missing>;

/// The list as bytes: one JSON object a line.
pub(crate) fn to_lines(missing: &MissingMap) -> Vec<u8> {
    let mut lines = Vec::new();
    for row in missing.values() {
        serde_json::to_writer(&mut lines, row).expect("a missing row is plain JSON");
        lines.push(b'\n');
    }
    lines
}

/// Publishes the list.
pub(crate) fn write(path: &Path, lines: &[u8]) -> Result<()> {
    publish(path, |out| out.write_all(lines).map_err(CacheError::io("write", path)))
}

/// Reads the list of a column of `rows` rows, in order.
pub(crate) fn read(path: &Path, rows: u32) -> Result<Vec<Missing>> {
    let text = std::fs::read(path).map_err(CacheError::io("read", path))?;
    let mut list: Vec<Missing> = Vec::new();
    for (at, line) in text.split(|&byte| byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty()) {
        let malformed = |source| ManifestError::MissingLine { path: path.to_owned(), line: at + 1, source };
        let missing: Missing = serde_json::from_slice(line).map_err(malformed)?;
        if missing.row >= rows || list.last().is_some_and(|last| last.row >= missing.row) {
            return Err(ManifestError::MissingOrder { path: path.to_owned(), line: at + 1, row: missing.row }.into());
        }
        list.push(missing);
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Vec<Missing>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing.jsonl");
        std::fs::write(&path, text).unwrap();
        read(&path, 10)
    }

    #[test]
    fn a_list_is_lines_in_order() {
        let rows = [(7, Reason::Http(404), "gone \"for good\""), (2, Reason::Truncated, "")];
        let map = rows.map(|(row, reason, detail)| (row, Missing { row, reason, detail: detail.into() })).into();
        let lines = String::from_utf8(to_lines(&map)).unwrap();
        insta::assert_snapshot!(lines, @r#"
        {"row":2,"reason":"truncated"}
        {"row":7,"reason":"http-404","detail":"gone \"for good\""}
        "#);
        assert_eq!(read_text(&lines).unwrap(), map.into_values().collect::<Vec<_>>());
    }

    #[test]
    fn a_line_that_is_no_missing_row_is_refused() {
        let error = read_text("{\"row\":1,\"reason\":\"bored\"}\n").unwrap_err();
        assert!(matches!(error, CacheError::Manifest(ManifestError::MissingLine { line: 1, .. })), "{error}");
    }

    #[test]
    fn rows_out_of_order_are_refused() {
        let text = "{\"row\":3,\"reason\":\"dns\"}\n{\"row\":3,\"reason\":\"dns\"}\n";
        assert!(matches!(
            read_text(text),
            Err(CacheError::Manifest(ManifestError::MissingOrder { line: 2, row: 3, .. }))
        ));
    }

    #[test]
    fn rows_outside_the_column_are_refused() {
        let text = "{\"row\":10,\"reason\":\"dns\"}\n";
        assert!(matches!(read_text(text), Err(CacheError::Manifest(ManifestError::MissingOrder { row: 10, .. }))));
    }
}
