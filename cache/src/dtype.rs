//! Element types, and the tensors a row is made of.
//!
//! Knows nothing of files. The list of element types is closed and short: a type is added here, in the README and with a
//! golden file, or it does not exist.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The element type of a tensor. Stored little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// bfloat16: the upper half of a binary32.
    Bf16,
    /// Signed bytes with a scale a row, see [`crate::quantize()`]. Only a column's embedding can have it, and only beside the
    /// tensor [`SCALE`].
    I8,
}

/// The tensor of an i8 column that holds each row's scale: `f32`, one number a row.
pub const SCALE: &str = "scale";

impl Dtype {
    /// Bytes one element takes.
    pub fn size_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::I8 => 1,
        }
    }

    /// The name in manifests and recipes: `f32`, `f16`, `bf16`, `i8`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::I8 => "i8",
        }
    }

    /// The name in a safetensors header: `F32`, `F16`, `BF16`, `I8`.
    pub fn safetensors_name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::I8 => "I8",
        }
    }

    pub(crate) fn safetensors(self) -> safetensors::Dtype {
        match self {
            Self::F32 => safetensors::Dtype::F32,
            Self::F16 => safetensors::Dtype::F16,
            Self::Bf16 => safetensors::Dtype::BF16,
            Self::I8 => safetensors::Dtype::I8,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text is not the name of a dtype.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a dtype\nhint: `f32`, `f16`, `bf16` or `i8`")]
pub struct UnknownDtype(String);

impl FromStr for Dtype {
    type Err = UnknownDtype;

    fn from_str(text: &str) -> Result<Self, UnknownDtype> {
        match text {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "bf16" => Ok(Self::Bf16),
            "i8" => Ok(Self::I8),
            _ => Err(UnknownDtype(text.to_owned())),
        }
    }
}

/// One named tensor of a column: every row holds `row_shape` elements of `dtype`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorSpec {
    /// The tensor's name in the shard; the first of a column is `embedding`.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Shape of one row, of any rank; `[]` is one number a row.
    pub row_shape: Vec<usize>,
}

impl TensorSpec {
    /// A tensor `name` of `dtype` with rows of `row_shape`.
    pub fn new(name: impl Into<String>, dtype: Dtype, row_shape: impl Into<Vec<usize>>) -> Self {
        Self { name: name.into(), dtype, row_shape: row_shape.into() }
    }

    /// Bytes of one row, `None` where that overflows.
    pub fn checked_row_bytes(&self) -> Option<usize> {
        self.row_shape.iter().try_fold(self.dtype.size_bytes(), |bytes, &side| bytes.checked_mul(side))
    }

    /// Bytes of one row. Saturates on overflow, which no resolved plan allows.
    pub fn row_bytes(&self) -> usize {
        self.checked_row_bytes().unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_agree_with_serde() {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::I8] {
            assert_eq!(dtype.name().parse(), Ok(dtype));
            assert_eq!(serde_json::to_value(dtype).unwrap(), dtype.name());
            assert_eq!(dtype.safetensors_name().to_lowercase(), dtype.name());
            assert_eq!(dtype.safetensors().bitsize(), 8 * dtype.size_bytes());
        }
    }

    #[test]
    fn an_unknown_name_is_refused() {
        insta::assert_snapshot!("f64".parse::<Dtype>().unwrap_err(), @r"
        `f64` is not a dtype
        hint: `f32`, `f16`, `bf16` or `i8`
        ");
    }

    #[test]
    fn row_bytes_of_any_rank_are_checked() {
        assert_eq!(TensorSpec::new("a", Dtype::F16, [7, 7, 2048]).row_bytes(), 7 * 7 * 2048 * 2);
        assert_eq!(TensorSpec::new("a", Dtype::F32, []).row_bytes(), 4);
        assert_eq!(TensorSpec::new("a", Dtype::F32, [usize::MAX, 2]).checked_row_bytes(), None);
    }
}
