//! `precision = "f16"`: the graph's weights and activations in half the bytes, for devices that compute so twice as fast or more.
//!
//! ```text
//! f32 pixels --Cast--> f16 Conv, Relu, Add ... --Cast--> f32 island (Softmax, means, Resize ...) --Cast--> f16 ... --Cast--> f32 epilogue
//! ```
//!
//! It must not know plans or sessions: it takes a graph whose input is fixed and returns it rewritten, with the tensors that
//! now hold f16. Pooling, L2 and the cast to a column's dtype come later and stay f32.
//!
//! The decision defended: operators are let in by a list ([`operators`]) instead of kept out by one. An operator nobody has
//! thought of then costs two casts, and not a wrong row or a fall back to the processor. Normalisations are folded in f32
//! before anything is rounded ([`norm`]): a variance of 1e-6 has three bits left in f16.

mod norm;
mod operators;
mod weights;

use std::collections::{HashMap, HashSet};

use ort::value::TensorElementType;

use self::operators::Place;
use self::weights::Weights;
use super::build::{Builder, integer};
use super::model::Model;
use super::onnx::tensor_proto::DataType;
use super::onnx::{GraphProto, NodeProto, TensorProto};
use super::{EncoderError, graph, probe};

/// Version of this rewrite, for keys. Raise it whenever the same model would give other bytes.
pub(super) const HALF_VERSION: u32 = 1;

/// What became of a graph.
pub(super) struct Halved {
    /// Tensors that hold f16 under their old name.
    pub half: HashSet<String>,
    /// What a user should know: weights that f16 cannot hold.
    pub notes: Vec<String>,
}

/// Rewrites the graph of `model`, whose only input is `input`, `f32` of `shape`. The tensors in `taps` keep their names.
pub(super) fn rewrite(
    model: &mut Model,
    input: &str,
    shape: [usize; 4],
    taps: &[&str],
) -> Result<Halved, EncoderError> {
    let opset = model.opset();
    let ready = norm::prepare(model.graph_mut(), opset, taps);
    let mut floats = float_tensors(model, shape)?;
    floats.insert(input.to_owned());
    let graph = model.graph_mut();
    let weights = Weights::new(std::mem::take(&mut graph.initializer));
    let nodes = graph.node.clone();
    let mut builder = Builder::new(graph, opset);
    builder.reserve(weights.names().chain(nodes.iter().flat_map(graph::reads)).map(str::to_owned).collect());
    let fixed = kept_in_f32(builder.graph(), &nodes);
    let half = HashSet::new();
    let mut pass = Pass { builder, weights, floats, fixed, ready, half, other: HashMap::new() };
    nodes.into_iter().for_each(|node| pass.node(node));
    let Pass { builder, weights, half, .. } = pass;
    builder.replace();
    let read = graph::names_read(graph);
    let (kept, notes) = weights.finish(&read);
    graph.initializer.extend(kept);
    Ok(Halved { half, notes })
}

/// Tensors made by nodes that hold `f32`, as ONNX Runtime sees them.
fn float_tensors(model: &Model, shape: [usize; 4]) -> Result<HashSet<String>, EncoderError> {
    let names: Vec<&str> = graph::producers(model.graph()).into_keys().collect();
    let probed = probe::shapes(&mut model.clone(), &names, 0, shape)?;
    let float = |(_, probed): &(&str, probe::Probed)| probed.element == TensorElementType::Float32;
    Ok(names.into_iter().zip(probed).filter(float).map(|(name, _)| name.to_owned()).collect())
}

/// Tensors that have to stay `f32` under their own name: those that graphs inside of nodes read, and sparse weights.
fn kept_in_f32(graph: &GraphProto, nodes: &[NodeProto]) -> HashSet<String> {
    let inner = nodes.iter().filter(|node| has_graphs(node)).flat_map(graph::reads);
    let sparse = graph.sparse_initializer.iter().filter_map(|weight| weight.values.as_ref()).map(TensorProto::name);
    inner.chain(sparse).map(str::to_owned).collect()
}

fn has_graphs(node: &NodeProto) -> bool {
    node.attribute.iter().any(|attribute| attribute.g.is_some() || !attribute.graphs.is_empty())
}

struct Pass<'p> {
    builder: Builder<'p>,
    weights: Weights,
    /// Tensors that held `f32` before.
    floats: HashSet<String>,
    /// Tensors that may not change.
    fixed: HashSet<String>,
    /// What the normalisations make that f16 can compute.
    ready: HashSet<String>,
    /// Those of `floats` that hold f16 now.
    half: HashSet<String>,
    /// Under which name a tensor is there in the other type.
    other: HashMap<String, String>,
}

impl Pass<'_> {
    /// The node, in the type that suits it, behind the casts it needs.
    fn node(&mut self, mut node: NodeProto) {
        let half = self.in_half(&node);
        for input in &mut node.input {
            *input = self.form(input, half);
        }
        if half {
            self.half.extend(node.output.iter().filter(|name| self.floats.contains(*name)).cloned());
        }
        self.builder.push(node);
    }

    fn in_half(&self, node: &NodeProto) -> bool {
        // A tensor that stays `f32` may be read by anyone, through a cast; a sparse weight may not.
        let fixed = |name: &String| self.fixed.contains(name);
        let stays = node.output.iter().any(fixed) || node.input.iter().any(|name| fixed(name) && !self.is_float(name));
        if has_graphs(node) || stays {
            return false;
        }
        match operators::place(node, self.builder.opset(), &self.ready) {
            Place::Half => true,
            Place::Island => false,
            Place::Follow => node.input.iter().any(|name| self.half.contains(name)),
        }
    }

    fn is_float(&self, name: &str) -> bool {
        self.floats.contains(name) || self.weights.is_float(name)
    }

    /// The name under which `name` is there as f16, or as f32.
    fn form(&mut self, name: &str, half: bool) -> String {
        if self.weights.is_float(name) {
            return if half { self.weights.half(name, &mut self.builder) } else { name.to_owned() };
        }
        if !self.floats.contains(name) || self.half.contains(name) == half {
            return name.to_owned();
        }
        if let Some(other) = self.other.get(name) {
            return other.clone();
        }
        let to = if half { DataType::Float16 } else { DataType::Float };
        let other = self.builder.node("Cast", &[name], vec![integer("to", to as i64)]);
        self.other.insert(name.to_owned(), other.clone());
        other
    }
}
