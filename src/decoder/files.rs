//! Tensors in safetensors files: f32 only, checked by name and shape.

use std::{collections::HashMap, io::Write as _, path::Path};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use tch::{Kind, Tensor};

use super::DecoderError;

/// Writes named f32 tensors.
///
/// # Errors
/// When the file cannot be written.
pub fn write_tensors<'a>(path: &Path, tensors: impl Iterator<Item = (String, &'a Tensor)>) -> Result<(), DecoderError> {
    let format = |source| DecoderError::Format { path: path.to_owned(), source };
    let held: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .map(|(name, tensor)| {
            let tensor = tensor.to_device(tch::Device::Cpu).to_kind(Kind::Float).contiguous();
            let mut bytes = vec![0; tensor.numel() * 4];
            tensor.copy_data_u8(&mut bytes, tensor.numel());
            (name, tensor.size().iter().map(|&size| size as usize).collect(), bytes)
        })
        .collect();
    let views = held.iter().map(|(name, shape, bytes)| {
        TensorView::new(Dtype::F32, shape.clone(), bytes).map(|view| (name.as_str(), view))
    });
    let views = views.collect::<Result<Vec<_>, _>>().map_err(format)?;
    let bytes = safetensors::serialize(views, None).map_err(format)?;
    let write = || {
        let mut file = std::fs::File::create(path)?;
        file.write_all(&bytes)?;
        file.sync_all()
    };
    write().map_err(|source| DecoderError::Io { what: "write", path: path.to_owned(), source })
}

/// Reads exactly the tensors named in `wanted`, in that order, each of its shape and f32.
///
/// # Errors
/// When the file cannot be read, or a tensor is missing, too many, or of another shape or dtype.
pub fn read_tensors(path: &Path, wanted: &[(String, Vec<i64>)]) -> Result<Vec<Tensor>, DecoderError> {
    let bytes =
        std::fs::read(path).map_err(|source| DecoderError::Io { what: "read", path: path.to_owned(), source })?;
    let file =
        SafeTensors::deserialize(&bytes).map_err(|source| DecoderError::Format { path: path.to_owned(), source })?;
    let mut found: HashMap<String, TensorView> = file.tensors().into_iter().collect();
    let read = wanted.iter().map(|(name, shape)| {
        let missing = || DecoderError::Missing { path: path.to_owned(), name: name.clone(), expected: shape.clone() };
        let view = found.remove(name).ok_or_else(missing)?;
        let size: Vec<i64> = view.shape().iter().map(|&size| size as i64).collect();
        if view.dtype() != Dtype::F32 || size != *shape {
            return Err(DecoderError::Mismatch {
                path: path.to_owned(),
                name: name.clone(),
                expected: format!("F32 {shape:?}"),
                found: format!("{:?} {size:?}", view.dtype()),
            });
        }
        Ok(Tensor::from_data_size(view.data(), shape, Kind::Float))
    });
    let read = read.collect::<Result<Vec<_>, _>>()?;
    match found.into_keys().min() {
        Some(name) => Err(DecoderError::Extra { path: path.to_owned(), name }),
        None => Ok(read),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exactly_the_wanted_tensors_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let (a, b) = (Tensor::from_slice(&[1.5f32, -2.0]).view((1, 2)), Tensor::from_slice(&[3.0f32]));
        write_tensors(&path, [("a".to_owned(), &a), ("b".to_owned(), &b)].into_iter()).unwrap();
        let wanted = |names: &[(&str, &[i64])]| -> Vec<(String, Vec<i64>)> {
            names.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect()
        };
        let read = read_tensors(&path, &wanted(&[("b", &[1]), ("a", &[1, 2])])).unwrap();
        assert!(read[0].equal(&b) && read[1].equal(&a));
        let error = |names| read_tensors(&path, &wanted(names)).unwrap_err();
        assert!(matches!(error(&[("a", &[1, 2])]), DecoderError::Extra { name, .. } if name == "b"));
        assert!(matches!(error(&[("c", &[1])]), DecoderError::Missing { name, .. } if name == "c"));
        assert!(matches!(error(&[("a", &[2])]), DecoderError::Mismatch { name, .. } if name == "a"));
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(matches!(error(&[]), DecoderError::Format { .. }));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(error(&[]), DecoderError::Io { .. }));
    }
}
