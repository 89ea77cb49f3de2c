//! Weights kept in files beside the model.
//!
//! Must not know graphs. A location is data from a stranger: it is resolved through symbolic links and has to stay inside
//! of the model's folder, and its range has to lie inside of the file.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use super::EncoderError;
use super::model::MAX_BYTES;
use super::onnx::{StringStringEntryProto, TensorProto};

/// Where a tensor's bytes are.
pub(super) struct Reference {
    model: PathBuf,
    tensor: String,
    /// Relative to the model's folder.
    pub location: String,
    file: PathBuf,
    offset: u64,
    length: Option<u64>,
}

impl Reference {
    /// Reads a tensor's `external_data` and checks that it stays in the model's folder.
    pub fn of(model: &Path, tensor: &TensorProto) -> Result<Self, EncoderError> {
        let entry =
            |key: &str| tensor.external_data.iter().find(|entry| entry.key() == key).map(StringStringEntryProto::value);
        let location = entry("location").unwrap_or_default().to_owned();
        let outside = || EncoderError::ExternalOutside {
            path: model.to_path_buf(),
            tensor: tensor.name().to_owned(),
            location: location.clone(),
        };
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        if location.is_empty() || !Path::new(&location).components().all(plain) {
            return Err(outside());
        }
        let folder = match model.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
            _ => PathBuf::from("."),
        };
        let folder = folder.canonicalize().map_err(EncoderError::io(&folder))?;
        let file = folder.join(&location).canonicalize().map_err(|source| EncoderError::ExternalMissing {
            path: model.to_path_buf(),
            tensor: tensor.name().to_owned(),
            location: location.clone(),
            source,
        })?;
        if !file.starts_with(&folder) {
            return Err(outside());
        }
        let number = |key: &'static str| -> Result<Option<u64>, EncoderError> {
            let Some(value) = entry(key) else { return Ok(None) };
            let wrong = |_| EncoderError::ExternalNumber {
                path: model.to_path_buf(),
                tensor: tensor.name().to_owned(),
                key,
                value: value.to_owned(),
            };
            value.parse().map(Some).map_err(wrong)
        };
        let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
        Ok(Self { model: model.to_path_buf(), tensor: tensor.name().to_owned(), location, file, offset, length })
    }

    /// Bytes this tensor has: what the model says, else the rest of the file.
    pub fn bytes(&self) -> Result<u64, EncoderError> {
        match self.length {
            Some(length) => Ok(length),
            None => {
                let whole = std::fs::metadata(&self.file).map_err(|error| self.missing(error))?.len();
                Ok(whole.saturating_sub(self.offset))
            }
        }
    }

    fn missing(&self, source: std::io::Error) -> EncoderError {
        EncoderError::ExternalMissing {
            path: self.model.clone(),
            tensor: self.tensor.clone(),
            location: self.location.clone(),
            source,
        }
    }

    /// The tensor's bytes.
    pub fn read(&self) -> Result<Vec<u8>, EncoderError> {
        let mut file = File::open(&self.file).map_err(|error| self.missing(error))?;
        let bytes = file.metadata().map_err(|error| self.missing(error))?.len();
        let end = self.offset.saturating_add(self.length.unwrap_or(bytes.saturating_sub(self.offset)));
        if self.offset > bytes || end > bytes {
            let (offset, location) = (self.offset, self.location.clone());
            return Err(EncoderError::ExternalShort {
                path: self.model.clone(),
                tensor: self.tensor.clone(),
                location,
                offset,
                end,
                bytes,
            });
        }
        if end - self.offset > MAX_BYTES {
            return Err(EncoderError::TooLarge { path: self.model.clone(), bytes: end - self.offset });
        }
        let mut data = vec![0; (end - self.offset) as usize];
        file.seek(SeekFrom::Start(self.offset)).map_err(|error| self.missing(error))?;
        file.read_exact(&mut data).map_err(|error| self.missing(error))?;
        Ok(data)
    }

    /// blake3 of the whole data file.
    pub fn digest(&self) -> Result<blake3::Hash, EncoderError> {
        let mut hasher = blake3::Hasher::new();
        let mut file = File::open(&self.file).map_err(|error| self.missing(error))?;
        let mut block = vec![0; 1 << 20];
        loop {
            match file.read(&mut block).map_err(|error| self.missing(error))? {
                0 => return Ok(hasher.finalize()),
                read => hasher.update_rayon(&block[..read]),
            };
        }
    }
}
