//! A folder with one array for all pictures: `features.npy`, `[N, ..]`, and `ids.txt`, which says which row is which picture. It is
//! what `icecap cache export` writes, and how many keep features of their own. Memory does not grow with the array.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::{ForeignError, Row, Shape, Source, files, npy::Stack};
use crate::progress::Progress;

/// The features' file.
pub const FEATURES: &str = "features.npy";

/// The names' file, a line a row.
pub const IDS: &str = "ids.txt";

/// The tensors that a row may have beside its features, each in a file of its name.
const FURTHER: [&str; 7] = ["boxes", "scores", "labels", "attributes", "attribute_scores", "count", "size"];

/// A folder of arrays, looked through.
#[derive(Debug)]
pub struct Stacked {
    names: Vec<String>,
    digest: String,
    /// The features, then what is there of [`FURTHER`].
    tensors: Vec<(&'static str, Stack)>,
}

impl Stacked {
    /// Looks through the folder.
    ///
    /// # Errors
    /// [`ForeignError`], with the file.
    pub fn open(folder: &Path, progress: &dyn Progress) -> Result<Self, ForeignError> {
        let names = names(&folder.join(IDS))?;
        if names.is_empty() {
            return Err(ForeignError::Empty { path: folder.join(IDS) });
        }
        let found = files(folder, "npy")?;
        if let Some(path) = found.iter().find(|path| !is_known(path)) {
            let known = FURTHER.map(|name| format!("`{name}.npy`")).join(", ");
            return Err(ForeignError::NoTensor { path: path.clone(), known });
        }
        let mut tensors = vec![("embedding", Stack::open(&folder.join(FEATURES), names.len())?)];
        for name in FURTHER {
            let path = folder.join(format!("{name}.npy"));
            if found.contains(&path) {
                tensors.push((name, Stack::open(&path, names.len())?));
            }
        }
        progress.start("look through", Some(tensors.len() as u64));
        let mut hasher = blake3::Hasher::new();
        for name in &names {
            hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes());
        }
        for (name, stack) in &tensors {
            hasher.update(name.as_bytes());
            stack.digest(&mut hasher)?;
            progress.advance(1);
        }
        progress.finish();
        Ok(Self { names, digest: hasher.finalize().to_hex().to_string(), tensors })
    }
}

impl Source for Stacked {
    fn names(&self) -> &[String] {
        &self.names
    }

    fn digest(&self) -> &str {
        &self.digest
    }

    fn shapes(&self) -> Vec<Shape> {
        self.tensors.iter().map(|(name, stack)| Shape::new(name, stack.row_shape())).collect()
    }

    fn read(&self, picture: usize, row: &mut Row) -> Result<(), ForeignError> {
        for (at, (name, stack)) in self.tensors.iter().enumerate() {
            let values = stack.row(picture)?;
            let not_finite =
                |at| ForeignError::NotFinite { place: stack.place(picture), field: (*name).to_owned(), at };
            row.fill(at, values.into_iter()).map_err(not_finite)?;
        }
        Ok(())
    }

    fn place(&self, picture: usize) -> String {
        self.tensors[0].1.place(picture)
    }
}

fn is_known(path: &Path) -> bool {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    path.ends_with(FEATURES) || stem.is_some_and(|stem| FURTHER.contains(&stem))
}

/// The lines of the file, each once.
fn names(path: &PathBuf) -> Result<Vec<String>, ForeignError> {
    let text = std::fs::read_to_string(path).map_err(|source| ForeignError::Read { path: path.clone(), source })?;
    let names: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for (name, line) in names.iter().zip(1..) {
        if let Some(first) = seen.insert(name, line) {
            let place = |line: usize| format!("line {line} of `{}`", path.display());
            return Err(ForeignError::Twice { name: name.clone(), first: place(first), second: place(line) });
        }
    }
    Ok(names)
}
