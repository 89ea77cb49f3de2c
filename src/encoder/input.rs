//! Finds the input of a model that takes pictures.
//!
//! Must not know plans. Of several candidates the first is taken; a tap that needs another input is refused later, so a
//! model with a second, unrelated input (a text, a mask) still encodes pictures.

use super::EncoderError;
use super::graph::weight_names;
use super::model::Model;
use super::onnx::tensor_proto::DataType;
use super::onnx::tensor_shape_proto::dimension::Value;
use super::onnx::{GraphProto, ValueInfoProto, type_proto};

/// Where a model keeps the channels of its pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// `[N, 3, H, W]`
    Nchw,
    /// `[N, H, W, 3]`
    Nhwc,
}

impl Layout {
    /// Shape of a batch of pictures.
    pub fn shape(self, batch: usize, height: usize, width: usize) -> [usize; 4] {
        match self {
            Self::Nchw => [batch, 3, height, width],
            Self::Nhwc => [batch, height, width, 3],
        }
    }
}

/// The input that takes pictures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ImageInput {
    pub name: String,
    pub layout: Layout,
    /// Element type: one of the float types.
    pub element: DataType,
    /// Sizes the file fixes.
    pub batch: Option<usize>,
    pub height: Option<usize>,
    pub width: Option<usize>,
}

impl ImageInput {
    /// The first input of 4 dimensions, floats, 3 channels.
    pub fn find(model: &Model) -> Result<Self, EncoderError> {
        let inputs = || real_inputs(model.graph());
        let sure = inputs().find_map(|input| Self::of(input, false));
        sure.or_else(|| inputs().find_map(|input| Self::of(input, true)))
            .ok_or_else(|| EncoderError::NoImageInput { path: model.path.clone(), inputs: list(inputs()) })
    }

    /// Reads one input; `guess` lets an unknown number of channels pass as 3.
    fn of(input: &ValueInfoProto, guess: bool) -> Option<Self> {
        let kind = tensor_type(input)?;
        let element = float_type(kind.elem_type())?;
        let dims: Vec<Option<usize>> = kind.shape.as_ref()?.dim.iter().map(|dim| fixed(dim.value.as_ref())).collect();
        let &[batch, second, third, fourth] = dims.as_slice() else { return None };
        let (layout, height, width) = match (second, fourth) {
            (Some(3), _) => (Layout::Nchw, third, fourth),
            (_, Some(3)) => (Layout::Nhwc, second, third),
            (None, _) if guess => (Layout::Nchw, third, fourth),
            _ => return None,
        };
        Some(Self { name: input.name().to_owned(), layout, element, batch, height, width })
    }

    /// Refuses a picture size other than the one the file fixes.
    pub fn check_size(&self, model: &Model, height: usize, width: usize) -> Result<(), EncoderError> {
        let expected = [self.height.unwrap_or(height), self.width.unwrap_or(width)];
        if expected == [height, width] {
            return Ok(());
        }
        Err(EncoderError::FixedSize { path: model.path.clone(), expected, asked: [height, width] })
    }

    /// The input's shape for a batch.
    pub fn shape(&self, batch: usize, height: usize, width: usize) -> [usize; 4] {
        self.layout.shape(batch, height, width)
    }
}

/// Inputs that are no weights. Files of old versions list every weight as an input too.
fn real_inputs(graph: &GraphProto) -> impl Iterator<Item = &ValueInfoProto> {
    let weights: std::collections::HashSet<&str> = weight_names(graph).collect();
    graph.input.iter().filter(move |input| !weights.contains(input.name()))
}

fn tensor_type(input: &ValueInfoProto) -> Option<&type_proto::Tensor> {
    match input.r#type.as_ref()?.value.as_ref()? {
        type_proto::Value::TensorType(kind) => Some(kind),
        _ => None,
    }
}

fn float_type(element: i32) -> Option<DataType> {
    [DataType::Float, DataType::Float16, DataType::Bfloat16, DataType::Double]
        .into_iter()
        .find(|kind| *kind as i32 == element)
}

fn fixed(value: Option<&Value>) -> Option<usize> {
    match value {
        Some(Value::DimValue(size)) if *size > 0 => usize::try_from(*size).ok(),
        _ => None,
    }
}

fn list<'g>(inputs: impl Iterator<Item = &'g ValueInfoProto>) -> String {
    let dim = |value: Option<&Value>| match value {
        Some(Value::DimValue(size)) => size.to_string(),
        Some(Value::DimParam(name)) => name.clone(),
        _ => "?".to_owned(),
    };
    let shown = |input: &ValueInfoProto| {
        let shape = tensor_type(input).and_then(|kind| kind.shape.as_ref());
        let dims: Vec<String> = shape.iter().flat_map(|shape| &shape.dim).map(|d| dim(d.value.as_ref())).collect();
        format!("`{}` [{}]", input.name(), dims.join(", "))
    };
    let all: Vec<String> = inputs.map(shown).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}
