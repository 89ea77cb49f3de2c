//! Tensors in safetensors files: f32 only, checked by name and shape.

use std::{borrow::Cow, collections::HashMap, fs::File, path::Path};

use safetensors::{Dtype, SafeTensorError, SafeTensors, View, tensor::TensorView};
use tch::{Kind, Tensor};

use super::DecoderError;

/// A tensor on its way into a file: its bytes are made when they are written, so that never more than one tensor's lie beside them all.
struct Written<'a> {
    tensor: &'a Tensor,
    shape: Vec<usize>,
}

impl View for Written<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let tensor = self.tensor.to_device(tch::Device::Cpu).to_kind(Kind::Float).contiguous();
        let mut bytes = vec![0; self.data_len()];
        tensor.copy_data_u8(&mut bytes, tensor.numel());
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        self.tensor.numel() * 4
    }
}

/// Writes named f32 tensors.
///
/// # Errors
/// When the file cannot be written.
pub fn write_tensors<'a>(path: &Path, tensors: impl Iterator<Item = (String, &'a Tensor)>) -> Result<(), DecoderError> {
    let io = |source| DecoderError::Io { what: "write", path: path.to_owned(), source };
    let views = tensors.map(|(name, tensor)| {
        let shape = tensor.size().iter().map(|&size| size as usize).collect();
        (name, Written { tensor, shape })
    });
    // The library writes to a file that only its owner may read, and renames it: the file here says who may.
    let mode = File::create(path).and_then(|file| Ok(file.metadata()?.permissions())).map_err(io)?;
    safetensors::serialize_to_file(views, None, path).map_err(|source| match source {
        SafeTensorError::IoError(source) => io(source),
        source => DecoderError::Format { path: path.to_owned(), source },
    })?;
    let file = File::open(path).map_err(io)?;
    file.set_permissions(mode).and_then(|()| file.sync_all()).map_err(io)
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
        // Byte for byte what the library makes of them in memory, and as readable as any file.
        let bytes = [&a, &b].map(|tensor| {
            let values: Vec<f32> = Vec::try_from(tensor.view(-1)).unwrap();
            values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>()
        });
        let views = [("a", vec![1, 2], &bytes[0]), ("b", vec![1], &bytes[1])];
        let views = views.map(|(name, shape, bytes)| (name, TensorView::new(Dtype::F32, shape, bytes).unwrap()));
        assert!(std::fs::read(&path).unwrap() == safetensors::serialize(views, None).unwrap());
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions();
        std::fs::write(folder.path().join("plain"), "").unwrap();
        assert_eq!(mode(&path), mode(&folder.path().join("plain")));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else is left");
        let nowhere = write_tensors(&folder.path().join("none/model"), [("a".to_owned(), &a)].into_iter()).unwrap_err();
        assert!(matches!(nowhere, DecoderError::Io { what: "write", .. }));
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
