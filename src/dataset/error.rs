//! What can be wrong with a data set's files.

use std::io;
use std::path::PathBuf;

/// A data set that could not be read. Every variant names the file.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// A file or folder could not be opened.
    #[error(
        "cannot read `{}`\nhint: paths in a recipe are relative to the data folder (`--data DIR`)",
        path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// One line that is not as the format has it.
    #[error("line {line} of `{}`: {problem}: `{value}`", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong with it.
        problem: String,
        /// The line, or the part that is wrong.
        value: String,
    },
    /// JSON that does not parse, or not to what the format has.
    #[error("`{}` is not {expected}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A file that is no tar.
    #[error("`{}` is not a tar\nhint: WebDataset's shards are plain tars; unpack a compressed one first (`gunzip`)", path.display())]
    Tar {
        /// The file.
        path: PathBuf,
        /// What the reader says.
        #[source]
        source: io::Error,
    },
    /// The same id twice.
    #[error(
        "the id `{id}` occurs twice: in {first} and in {second}\nhint: every image is listed once, and in one split"
    )]
    Duplicate {
        /// The id.
        id: String,
        /// Where it was first.
        first: String,
        /// Where it came again.
        second: String,
    },
    /// A split of an unknown name.
    #[error(
        "`{value}` is no split that icecap knows, for `{id}` in `{}`\n\
         hint: splits are train, val and test (dev, valid and validation count as val)",
        path.display()
    )]
    Split {
        /// The name.
        value: String,
        /// The image.
        id: String,
        /// The file.
        path: PathBuf,
    },
    /// A setting that cannot be used.
    #[error("`{key} = {value}` cannot be used in `[dataset]`\nhint: {hint}")]
    Setting {
        /// The key in the recipe.
        key: &'static str,
        /// Its value.
        value: String,
        /// What would do.
        hint: &'static str,
    },
    /// No image at all.
    #[error("the data set `{name}` has no images under `{}`{}\nhint: check the paths in `[dataset]` and `--data`", data_dir.display(), notes.iter().map(|note| format!("\n  {note}")).collect::<String>())]
    Nothing {
        /// The data set.
        name: String,
        /// The data folder.
        data_dir: PathBuf,
        /// What was seen on the way: tars that are cut off, images left out.
        notes: Vec<String>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_names_the_value_and_the_way_out() {
        let path = PathBuf::from("data/list.txt");
        let source = io::Error::new(io::ErrorKind::NotFound, "no such file");
        insta::assert_snapshot!(DatasetError::Read { path: path.clone(), source }, @r"
        cannot read `data/list.txt`
        hint: paths in a recipe are relative to the data folder (`--data DIR`)
        ");
        let (problem, value) = ("no tab after the name".to_owned(), "a.jpg#0 A dog".to_owned());
        insta::assert_snapshot!(
            DatasetError::Line { path: path.clone(), line: 3, problem, value },
            @"line 3 of `data/list.txt`: no tab after the name: `a.jpg#0 A dog`"
        );
        let source = serde_json::from_str::<u8>("x").unwrap_err();
        insta::assert_snapshot!(
            DatasetError::Json { path: path.clone(), expected: "COCO captions", source },
            @"`data/list.txt` is not COCO captions"
        );
        insta::assert_snapshot!(DatasetError::Tar { path: path.clone(), source: io::Error::other("no header") }, @r"
        `data/list.txt` is not a tar
        hint: WebDataset's shards are plain tars; unpack a compressed one first (`gunzip`)
        ");
        let (first, second) = ("`a.txt`".to_owned(), "`b.txt`".to_owned());
        insta::assert_snapshot!(DatasetError::Duplicate { id: "7".into(), first, second }, @r"
        the id `7` occurs twice: in `a.txt` and in `b.txt`
        hint: every image is listed once, and in one split
        ");
        insta::assert_snapshot!(DatasetError::Split { value: "tset".into(), id: "7".into(), path: path.clone() }, @r"
        `tset` is no split that icecap knows, for `7` in `data/list.txt`
        hint: splits are train, val and test (dev, valid and validation count as val)
        ");
        insta::assert_snapshot!(DatasetError::Setting { key: "side", value: "0".into(), hint: "use 32 to 1024" }, @r"
        `side = 0` cannot be used in `[dataset]`
        hint: use 32 to 1024
        ");
        let notes = vec!["`a.tar` is cut off at byte 7".to_owned()];
        insta::assert_snapshot!(DatasetError::Nothing { name: "folder".into(), data_dir: "data".into(), notes }, @r"
        the data set `folder` has no images under `data`
          `a.tar` is cut off at byte 7
        hint: check the paths in `[dataset]` and `--data`
        ");
    }
}
