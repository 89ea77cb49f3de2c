//! Makes the small pieces of protobuf that the prologue and the epilogue are built of.
//!
//! Must not know what they are for. Every name it makes up begins with `icecap.`; a model that already uses such a name
//! was made by icecap, and the number in the name keeps the two apart.

use std::collections::HashSet;

use half::f16;

use super::onnx::attribute_proto::AttributeType;
use super::onnx::tensor_proto::DataType;
use super::onnx::tensor_shape_proto::{Dimension, dimension};
use super::onnx::{
    AttributeProto, GraphProto, NodeProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};

/// Adds nodes and constants to a graph under names nobody else uses.
pub(super) struct Builder<'g> {
    graph: &'g mut GraphProto,
    taken: HashSet<String>,
    /// Nodes made so far; the caller says whether they come first or last.
    nodes: Vec<NodeProto>,
    opset: i64,
}

impl<'g> Builder<'g> {
    pub fn new(graph: &'g mut GraphProto, opset: i64) -> Self {
        let outputs = graph.node.iter().flat_map(|node| &node.output).map(String::as_str);
        let weights = graph.initializer.iter().map(TensorProto::name);
        let taken =
            outputs.chain(weights).chain(graph.input.iter().map(ValueInfoProto::name)).map(str::to_owned).collect();
        Self { graph, taken, nodes: Vec::new(), opset }
    }

    /// Names that are taken although the graph does not show them.
    pub fn reserve(&mut self, names: Vec<String>) {
        self.taken.extend(names);
    }

    pub fn opset(&self) -> i64 {
        self.opset
    }

    /// A name nobody uses: `icecap.<what>`, numbered from the second on.
    pub fn fresh(&mut self, what: &str) -> String {
        let numbered = |n: usize| if n == 0 { format!("icecap.{what}") } else { format!("icecap.{what}.{n}") };
        let name = (0..).map(numbered).find(|name| !self.taken.contains(name)).unwrap_or_default();
        self.taken.insert(name.clone());
        name
    }

    /// A node with one output of a fresh name, which it returns.
    pub fn node(&mut self, op: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        let output = self.fresh(op);
        self.node_named(op, inputs, &output, attributes);
        output
    }

    /// A node that makes `output`.
    pub fn node_named(&mut self, op: &str, inputs: &[&str], output: &str, attributes: Vec<AttributeProto>) {
        self.node_of("", op, inputs, output, attributes);
    }

    /// A node of an operator of `domain` that makes `output`.
    pub fn node_of(&mut self, domain: &str, op: &str, inputs: &[&str], output: &str, attributes: Vec<AttributeProto>) {
        self.nodes.push(NodeProto {
            domain: (!domain.is_empty()).then(|| domain.to_owned()),
            op_type: Some(op.to_owned()),
            input: inputs.iter().map(|&name| name.to_owned()).collect(),
            output: vec![output.to_owned()],
            attribute: attributes,
            ..NodeProto::default()
        });
    }

    /// A constant of floats, by its name.
    pub fn floats(&mut self, dims: &[usize], values: &[f32]) -> String {
        let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(dims, DataType::Float, raw)
    }

    /// A constant list of integers, by its name.
    pub fn integers(&mut self, values: &[i64]) -> String {
        let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(&[values.len()], DataType::Int64, raw)
    }

    /// A constant of f16, by its name.
    pub fn halves(&mut self, dims: &[usize], values: &[f16]) -> String {
        let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(dims, DataType::Float16, raw)
    }

    fn constant(&mut self, dims: &[usize], element: DataType, raw_data: Vec<u8>) -> String {
        let name = self.fresh("constant");
        self.graph.initializer.push(TensorProto {
            name: Some(name.clone()),
            dims: dims.iter().map(|&dim| dim as i64).collect(),
            data_type: Some(element as i32),
            raw_data: Some(raw_data),
            ..TensorProto::default()
        });
        name
    }

    /// The graph as it was, with the constants made so far.
    pub fn graph(&self) -> &GraphProto {
        self.graph
    }

    /// A node made elsewhere.
    pub fn push(&mut self, node: NodeProto) {
        self.nodes.push(node);
    }

    /// Puts the nodes made so far in the place of all others.
    pub fn replace(self) {
        self.graph.node = self.nodes;
    }

    /// Puts the nodes made so far before all others.
    pub fn prepend(self) {
        let rest = std::mem::replace(&mut self.graph.node, self.nodes);
        self.graph.node.extend(rest);
    }

    /// Puts the nodes made so far after all others.
    pub fn append(self) {
        self.graph.node.extend(self.nodes);
    }
}

/// An integer attribute.
pub(super) fn integer(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: Some(value), ..attribute(name, AttributeType::Int) }
}

/// An attribute that is one number.
pub(super) fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { f: Some(value), ..attribute(name, AttributeType::Float) }
}

/// An attribute that is a list of integers.
pub(super) fn integer_list(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { ints: values.to_vec(), ..attribute(name, AttributeType::Ints) }
}

fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: Some(name.to_owned()), r#type: Some(kind as i32), ..AttributeProto::default() }
}

/// A graph input or output with its element type and shape.
pub(super) fn value_info(name: &str, element: DataType, shape: &[usize]) -> ValueInfoProto {
    let sized =
        |&size: &usize| Dimension { value: Some(dimension::Value::DimValue(size as i64)), ..Dimension::default() };
    let shape = TensorShapeProto { dim: shape.iter().map(sized).collect() };
    let tensor = type_proto::Tensor { elem_type: Some(element as i32), shape: Some(shape) };
    let kind = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { r#type: Some(kind), ..untyped(name) }
}

/// A graph output of which ONNX Runtime works out type and shape.
pub(super) fn untyped(name: &str) -> ValueInfoProto {
    ValueInfoProto { name: Some(name.to_owned()), ..ValueInfoProto::default() }
}
