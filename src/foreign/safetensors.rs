//! One safetensors file of any size, written tensor by tensor.
//!
//! The safetensors crate wants every tensor in memory; a column may be larger. The header is JSON of a known length, so it is written
//! first and the bytes follow as they are read. The tests read it back with the crate.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::ForeignError;

/// A tensor that will be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileTensor {
    /// Its name.
    pub name: String,
    /// `F32`, `F16`, `BF16`, `U8` ...
    pub dtype: &'static str,
    /// Its whole shape.
    pub shape: Vec<usize>,
    /// Bytes of an element.
    pub element_bytes: usize,
}

impl FileTensor {
    fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.element_bytes
    }
}

/// Writes a safetensors file, under another name until it is finished.
#[derive(Debug)]
pub struct SafetensorsWriter {
    path: PathBuf,
    out: BufWriter<File>,
}

impl SafetensorsWriter {
    /// Starts the file with its header. The tensors' bytes must follow in this order, wider elements first, so that each starts
    /// where its elements are aligned.
    ///
    /// # Errors
    /// [`ForeignError::Write`].
    pub fn create(path: &Path, tensors: &[FileTensor], metadata: &[(&str, String)]) -> Result<Self, ForeignError> {
        let unwritable = |source| ForeignError::Write { path: path.to_owned(), source };
        let mut header = Map::new();
        let members: Map<String, Value> =
            metadata.iter().map(|(name, text)| ((*name).to_owned(), json!(text))).collect();
        header.insert("__metadata__".to_owned(), members.into());
        let mut start = 0;
        for tensor in tensors {
            let end = start + tensor.bytes();
            let entry = json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, end]});
            header.insert(tensor.name.clone(), entry);
            start = end;
        }
        let mut text = Value::from(header).to_string();
        text += &" ".repeat((8 + text.len()).next_multiple_of(64) - 8 - text.len());
        let mut out = BufWriter::with_capacity(1 << 20, File::create(temporary(path)).map_err(unwritable)?);
        let written = out.write_all(&(text.len() as u64).to_le_bytes()).and_then(|()| out.write_all(text.as_bytes()));
        written.map_err(unwritable)?;
        Ok(Self { path: path.to_owned(), out })
    }

    /// Appends bytes of the tensor whose turn it is.
    ///
    /// # Errors
    /// [`ForeignError::Write`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ForeignError> {
        self.out.write_all(bytes).map_err(|source| ForeignError::Write { path: self.path.clone(), source })
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// [`ForeignError::Write`].
    pub fn finish(self) -> Result<(), ForeignError> {
        publish(self.out, &self.path)
    }
}

/// The name a file has while it is written.
pub(super) fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    path.with_file_name(name)
}

/// All bytes to the disk, then the name.
pub(super) fn publish(mut out: BufWriter<File>, path: &Path) -> Result<(), ForeignError> {
    let done = out.flush().and_then(|()| out.get_ref().sync_all());
    let done = done.and_then(|()| std::fs::rename(temporary(path), path));
    done.map_err(|source| ForeignError::Write { path: path.to_owned(), source })
}
