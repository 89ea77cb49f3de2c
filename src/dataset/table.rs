//! CSV of images and captions, as Kaggle's Flickr and image folders have it.

use std::path::Path;

use super::DatasetError;
use super::disk::malformed;

/// One row of a table or line of a `metadata.jsonl`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Record {
    pub line: u64,
    pub name: String,
    pub captions: Vec<String>,
    pub split: Option<String>,
}

const NAMES: [&str; 5] = ["file_name", "image", "filename", "image_name", "file"];
const CAPTIONS: [&str; 4] = ["caption", "text", "comment", "captions"];
const SPLITS: [&str; 1] = ["split"];

/// Reads all rows. The header says which column is which; others are ignored.
pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<Vec<Record>, DatasetError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes);
    let header = reader.headers().map_err(|error| bad_row(path, &error))?.clone();
    let column = |names: &[&str]| header.iter().position(|cell| names.contains(&cell.to_ascii_lowercase().as_str()));
    let Some(name) = column(&NAMES) else {
        let problem = "the header names no column of images (file_name or image)";
        return Err(malformed(path, 1, problem, &header.iter().collect::<Vec<_>>().join(",")));
    };
    let (caption, split) = (column(&CAPTIONS), column(&SPLITS));
    let mut records = Vec::new();
    for row in reader.records() {
        let row = row.map_err(|error| bad_row(path, &error))?;
        let line = row.position().map_or(0, csv::Position::line);
        let cell = |at: Option<usize>| at.and_then(|at| row.get(at)).filter(|cell| !cell.is_empty()).map(str::to_owned);
        let Some(name) = cell(Some(name)) else {
            return Err(malformed(path, line, "no image is named", &row.iter().collect::<Vec<_>>().join(",")));
        };
        records.push(Record { line, name, captions: cell(caption).into_iter().collect(), split: cell(split) });
    }
    Ok(records)
}

fn bad_row(path: &Path, error: &csv::Error) -> DatasetError {
    let line = error.position().map_or(1, csv::Position::line);
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => malformed(
            path,
            line,
            format!("a row of {len} cells where the header has {expected_len} (quote a caption that has commas)"),
            &len.to_string(),
        ),
        csv::ErrorKind::Utf8 { err, .. } => malformed(path, line, "it is not UTF-8", &err.to_string()),
        _ => malformed(path, line, "not CSV", &error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<Record>, DatasetError> {
        read(Path::new("c.csv"), text.as_bytes())
    }

    #[test]
    fn quoted_captions_and_any_order_of_columns() {
        let records = parse("id,caption,image\n1,\"A dog, a \"\"cat\"\" .\",a.jpg\n2,,b.jpg\n").unwrap();
        assert_eq!(records[0].captions, ["A dog, a \"cat\" ."]);
        assert_eq!((records[1].name.as_str(), records[1].line), ("b.jpg", 3));
        assert!(records[1].captions.is_empty());
    }

    #[test]
    fn malformed_tables_are_placed() {
        insta::assert_snapshot!(parse("a,b\n1,2\n").unwrap_err(), @"line 1 of `c.csv`: the header names no column of images (file_name or image): `a,b`");
        insta::assert_snapshot!(parse("image,caption\na.jpg,A dog\nb.jpg,A dog, a cat\n").unwrap_err(), @"line 3 of `c.csv`: a row of 3 cells where the header has 2 (quote a caption that has commas): `3`");
        insta::assert_snapshot!(parse("image,caption\n,A dog\n").unwrap_err(), @"line 2 of `c.csv`: no image is named: `,A dog`");
    }
}
