//! Each format from files in a temporary folder, malformed ones included, and the real data where it is.

use super::*;
use std::fs;

mod coco;
mod conceptual;
mod flickr;
mod folder;
mod karpathy;
mod real;

/// A data folder with the given files in it.
struct Data(tempfile::TempDir);

impl Data {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        Self(folder)
    }

    /// Loads what a recipe's `[dataset]` says.
    fn load(&self, toml: &str) -> Result<Dataset, DatasetError> {
        load(&toml::from_str(toml).unwrap(), self.0.path())
    }

    /// The error of a load, with the temporary folder's name cut out, and its causes.
    fn error(&self, toml: &str) -> String {
        let error = self.load(toml).unwrap_err();
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text += &format!("\ncaused by: {cause}");
            source = cause.source();
        }
        text.replace(&format!("{}/", self.0.path().display()), "")
    }
}

/// `id split captions|...` of every item.
fn lines(dataset: &Dataset) -> Vec<String> {
    let line = |item: &Item| format!("{} [{}] {}", item.id, item.split, item.captions.join("|"));
    dataset.items.iter().map(line).collect()
}

#[test]
fn a_missing_file_is_an_error_with_its_cause() {
    let data = Data::new(&[("i/a.jpg", "")]);
    insta::assert_snapshot!(data.error("format = 'flickr8k'\nimages = 'i'\ncaptions = 'c.txt'"), @r"
    cannot read `c.txt`
    hint: paths in a recipe are relative to the data folder (`--data DIR`)
    caused by: No such file or directory (os error 2)
    ");
    insta::assert_snapshot!(data.error("format = 'flickr8k'\nimages = 'j'\ncaptions = 'c.txt'"), @r"
    cannot read `j`
    hint: paths in a recipe are relative to the data folder (`--data DIR`)
    caused by: No such file or directory (os error 2)
    ");
}

#[test]
fn unknown_keys_and_formats_are_refused() {
    let parse = |text| toml::from_str::<DatasetSpec>(text).unwrap_err().to_string();
    assert!(parse("format = 'flickr9k'").contains("unknown variant `flickr9k`"));
    assert!(parse("format = 'shapes'\ntrian = 4").contains("unknown field `trian`"));
    assert!(parse("format = 'coco'\ntrain = { captions = 'a', image = 'b' }").contains("unknown field `image`"));
}

#[test]
fn a_spec_survives_serialisation() {
    let spec: DatasetSpec =
        toml::from_str("format = 'flickr30k'\nimages = 'i'\ncaptions = 'c'\nholdout = { val = 0.1 }").unwrap();
    let again: DatasetSpec = toml::from_str(&toml::to_string(&spec).unwrap()).unwrap();
    assert_eq!(spec, again);
    assert_eq!(toml::from_str::<DatasetSpec>("format = 'shapes'").unwrap(), DatasetSpec::Shapes(Shapes::default()));
}

#[test]
fn sources_describe_themselves_and_read() {
    let data = Data::new(&[("p/x/a.jpg", "bytes")]);
    let dataset = data.load("format = 'folder'\nimages = './p'").unwrap();
    assert_eq!(dataset.items[0].source.describe(), "p/x/a.jpg");
    assert_eq!(dataset.items[0].source.read().unwrap(), b"bytes");
    let drawn = data.load("format = 'shapes'\ntrain = 1\nval = 0\ntest = 0\nseed = 9").unwrap();
    assert_eq!(drawn.items[0].source.describe(), "shapes:seed=9,index=0,side=128");
    assert!(drawn.items[0].source.read().unwrap().starts_with(b"\x89PNG"));
}

#[test]
fn no_images_is_an_error() {
    insta::assert_snapshot!(Data::new(&[("p/a.txt", "")]).error("format = 'folder'\nimages = 'p'").lines().last().unwrap(), @"hint: check the paths in `[dataset]` and `--data`");
}
