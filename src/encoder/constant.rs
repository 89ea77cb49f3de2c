//! Values of constant tensors, whichever of its ways a file keeps them in.
//!
//! Must not know graphs or what the values are for. A tensor whose values do not fill its shape has none here: every
//! caller then leaves the node alone, and ONNX Runtime says what is wrong with the file.

use super::onnx::TensorProto;
use super::onnx::tensor_proto::{DataLocation, DataType};

/// Values of an `f32` constant.
pub(super) fn floats(tensor: &TensorProto) -> Option<Vec<f32>> {
    if tensor.data_type() != DataType::Float as i32 || tensor.data_location() != DataLocation::Default {
        return None;
    }
    let values = if tensor.float_data.is_empty() {
        let bytes = tensor.raw_data().as_chunks::<4>().0;
        bytes.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    } else {
        tensor.float_data.clone()
    };
    let count = tensor.dims.iter().try_fold(1i64, |count, &size| count.checked_mul(size))?;
    (values.len() as i64 == count).then_some(values)
}
