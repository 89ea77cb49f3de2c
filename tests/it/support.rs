//! What the tests share: an empty folder, the built program, a recipe on drawn shapes and a tiny encoder.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

/// An empty folder to run the program in.
pub struct Place {
    folder: TempDir,
}

/// How the program ended.
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ended {
    /// The same, where it ended well.
    pub fn good(self) -> Self {
        assert_eq!(self.code, Some(0), "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    /// What it said on stderr, where it ended badly.
    pub fn bad(self) -> String {
        assert_eq!(self.code, Some(1), "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self.err
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }
}

impl Place {
    pub fn new() -> Self {
        Self { folder: TempDir::new().expect("a temporary folder") }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_icecap"));
        command.args(line.split_whitespace()).current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    /// Runs `icecap` with the words of `line`.
    pub fn icecap(&self, line: &str) -> Ended {
        let Output { status, stdout, stderr } = self.command(line).output().expect("icecap runs");
        let text = |bytes: Vec<u8>| {
            let folder = self.folder.path().display().to_string();
            String::from_utf8(bytes).expect("UTF-8").replace(&format!("{folder}/"), "").replace(&folder, ".")
        };
        Ended { code: status.code(), out: text(stdout), err: text(stderr) }
    }

    /// A place with `recipe.toml`: drawn shapes through the tiny encoder, two columns, an LSTM.
    pub fn with_recipe() -> Self {
        let place = Self::new();
        std::fs::copy(fixture("encoder/tiny.onnx"), place.path("tiny.onnx")).expect("the tiny encoder");
        place.write("recipe.toml", RECIPE);
        place
    }
}

/// A file that comes with the tests.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The shared data, or a plain line where it is absent.
pub fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: {} is absent", path.display());
    None
}

/// Every file below `folder`, with its bytes, in order of name.
pub fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|(below, bytes)| (format!("{name}/{below}"), bytes)));
        } else {
            found.push((name, std::fs::read(&path).expect("a file")));
        }
    }
    found.sort();
    found
}

const RECIPE: &str = r#"
[dataset]
format = "shapes"
train = 120
val = 12
test = 12
side = 64

[encoder]
model = "tiny.onnx"
resize = 32
batch = 8

[[column]]
name = "grid"
tap = "c2"
pool = "4x4"

[[column]]
name = "whole"
tap = "vector"
dtype = "f32"

[decoder]
kind = "attention-lstm"
columns = ["grid"]
width = 16
hidden = 24
embedding = 16
attention = 16

[tokenizer]
kind = "word"
min_count = 1

[train]
steps = 40
batch = 20
validate_every = 0.5
learning_rate = 5e-3
"#;
