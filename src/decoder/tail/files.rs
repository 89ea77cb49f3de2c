//! A section in a run's folder: `tail.json` describes it, `tail.safetensors` holds the weights that it begins with.
//!
//! With both, a run goes on and speaks where the encoder's own file is gone.

use std::{fs, path::Path};

use tch::Tensor;

use super::super::{DecoderError, read_tensors, write_tensors};
use crate::section::{Section, Values};

const DESCRIPTION: &str = "tail.json";
const WEIGHTS: &str = "tail.safetensors";

/// Writes `section` into `folder`.
///
/// # Errors
/// Where a file can't be written.
pub fn write_section(folder: &Path, section: &Section) -> Result<(), DecoderError> {
    let floats = section.constants.iter().filter_map(|constant| match &constant.values {
        Values::Floats(values) => {
            Some((constant.name.clone(), Tensor::from_slice(values).view(constant.shape.as_slice())))
        }
        Values::Integers(_) => None,
    });
    let floats: Vec<(String, Tensor)> = floats.collect();
    write_tensors(&folder.join(WEIGHTS), floats.iter().map(|(name, values)| (name.clone(), values)))?;
    let path = folder.join(DESCRIPTION);
    let io = |source| DecoderError::Io { what: "write", path: path.clone(), source };
    let text = serde_json::to_string_pretty(section).map_err(|error| io(error.into()))?;
    fs::write(&path, text + "\n").map_err(io)?;
    fs::File::open(&path).and_then(|file| file.sync_all()).map_err(io)
}

/// Reads what [`write_section`] wrote.
///
/// # Errors
/// Where a file can't be read, or they don't belong together.
pub fn read_section(folder: &Path) -> Result<Section, DecoderError> {
    let path = folder.join(DESCRIPTION);
    let io = |source| DecoderError::Io { what: "read", path: path.clone(), source };
    let text = fs::read_to_string(&path).map_err(io)?;
    let mut section: Section = serde_json::from_str(&text).map_err(|error| io(error.into()))?;
    let is_float = |values: &Values| matches!(values, Values::Floats(_));
    let floats = section.constants.iter().filter(|constant| is_float(&constant.values));
    let wanted: Vec<(String, Vec<i64>)> =
        floats.map(|constant| (constant.name.clone(), constant.shape.clone())).collect();
    let read = read_tensors(&folder.join(WEIGHTS), &wanted)?;
    let places = section.constants.iter_mut().filter(|constant| is_float(&constant.values));
    for (constant, tensor) in places.zip(read) {
        let mut values = vec![0.0; tensor.numel()];
        tensor.copy_data(&mut values, tensor.numel());
        constant.values = Values::Floats(values);
    }
    Ok(section)
}
