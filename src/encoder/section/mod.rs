//! Takes the part of a model between two tensors out of it, as plain data, and puts trained weights back.
//!
//! Must not know what is done to a section in between. A section is closed: beside its first tensor its nodes read constants and
//! each other; where a way from the picture goes past that tensor, the nearest ones that all ways go through are named.

mod cut;
mod error;
mod write;

use std::path::Path;

use ort::value::TensorElementType;

pub use error::SectionError;
pub use write::write_section;

use super::{
    EncoderError, constant, graph,
    input::ImageInput,
    model::Model,
    onnx::{AttributeProto, NodeProto, TensorProto, attribute_proto::AttributeType, tensor_proto::DataType},
    probe, taps,
};
use crate::section::{Attribute, Constant, Node, Section, Values};

/// What the model at `path` computes between the tensors `from` and `to`, for pictures of `size` (height, width).
///
/// # Errors
/// As for [`super::compile()`] where the tensors can't be tapped; [`SectionError`] where they don't enclose a part of the model.
pub fn section(path: &Path, from: &str, to: &str, size: [usize; 2]) -> Result<Section, EncoderError> {
    let mut model = Model::read(path)?;
    let image = ImageInput::find(&model)?;
    image.check_size(&model, size[0], size[1])?;
    taps::check(&model, &image, &[from, to])?;
    graph::prune(model.graph_mut(), &[to, from]);
    graph::gather_constants(model.graph_mut());
    model.inline_external()?;
    let indices = cut::nodes(&model, &image, from, to)?;
    let [input, output] = shapes(&model, &image, [from, to], size)?;
    let graph = model.graph();
    let nodes = indices.iter().map(|&index| node(&graph.node[index])).collect();
    let constants = constants(&model, indices.iter().map(|&index| &graph.node[index]))?;
    let (from, to) = (from.to_owned(), to.to_owned());
    Ok(Section { model: model.digest.clone(), from, to, input, output, nodes, constants })
}

/// Shapes of both ends for one picture.
fn shapes(model: &Model, image: &ImageInput, ends: [&str; 2], size: [usize; 2]) -> Result<[Vec<i64>; 2], EncoderError> {
    let batch = image.batch.unwrap_or(2);
    super::plan::check_sizes(batch, size[0], size[1])?;
    let shape = image.shape(batch, size[0], size[1]);
    let mut copy = model.clone();
    copy.proto.ir_version = Some(copy.proto.ir_version().max(4));
    probe::fix_input(&mut copy, image, shape);
    let probed = probe::shapes(&mut copy, &ends, 2, shape)?;
    for (end, found) in ends.iter().zip(&probed) {
        taps::check_rows(model, end, found, batch)?;
        if found.element != TensorElementType::Float32 {
            let (path, tensor, element) = (model.path.clone(), (*end).to_owned(), found.element.to_string());
            return Err(SectionError::Element { path, tensor, element }.into());
        }
    }
    Ok([0, 1].map(|end: usize| probed[end].shape[1..].to_vec()))
}

fn node(node: &NodeProto) -> Node {
    let output = node.output[0].clone();
    let operator = match node.domain() {
        "" | "ai.onnx" => node.op_type().to_owned(),
        domain => format!("{domain}.{}", node.op_type()),
    };
    let attributes = node.attribute.iter().map(|found| (found.name().to_owned(), attribute(found)));
    Node { name: name_of(node), operator, inputs: node.input.clone(), output, attributes: attributes.collect() }
}

/// A node's name, or that of its first output: many exporters leave the former out.
fn name_of(node: &NodeProto) -> String {
    if node.name().is_empty() { node.output.first().cloned().unwrap_or_default() } else { node.name().to_owned() }
}

fn attribute(attribute: &AttributeProto) -> Attribute {
    match attribute.r#type() {
        AttributeType::Int => Attribute::Integers(vec![attribute.i()]),
        AttributeType::Ints => Attribute::Integers(attribute.ints.clone()),
        AttributeType::Float => Attribute::Floats(vec![attribute.f()]),
        AttributeType::Floats => Attribute::Floats(attribute.floats.clone()),
        AttributeType::String => Attribute::Text(String::from_utf8_lossy(attribute.s()).into_owned()),
        _ => Attribute::Other,
    }
}

/// The constants that `nodes` read, each once, in the order in which they are read.
fn constants<'m>(model: &'m Model, nodes: impl Iterator<Item = &'m NodeProto>) -> Result<Vec<Constant>, EncoderError> {
    let mut found: Vec<Constant> = Vec::new();
    for name in nodes.flat_map(|node| &node.input) {
        let weight = model.graph().initializer.iter().find(|weight| weight.name() == name);
        let Some(weight) = weight.filter(|_| found.iter().all(|constant| constant.name != *name)) else { continue };
        let values = values(weight).ok_or_else(|| {
            let kind = DataType::try_from(weight.data_type()).map_or("unknown".to_owned(), |kind| format!("{kind:?}"));
            SectionError::Element { path: model.path.clone(), tensor: name.clone(), element: kind }
        })?;
        found.push(Constant { name: name.clone(), shape: weight.dims.clone(), values });
    }
    Ok(found)
}

fn values(tensor: &TensorProto) -> Option<Values> {
    match DataType::try_from(tensor.data_type()) {
        Ok(DataType::Float) => constant::floats(tensor).map(Values::Floats),
        Ok(DataType::Int64) if tensor.int64_data.is_empty() => {
            let bytes = tensor.raw_data().as_chunks::<8>().0;
            Some(Values::Integers(bytes.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect()))
        }
        Ok(DataType::Int64) => Some(Values::Integers(tensor.int64_data.clone())),
        _ => None,
    }
}
