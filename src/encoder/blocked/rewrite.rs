//! Gives the convolutions of a graph to the kernels of this module, with what surrounds them.
//!
//! Must not know sessions. The graph is walked once, in its order. A tensor may be there in ONNX's layout, in blocks of
//! sixteen channels, or both, and is converted when somebody wants the form that is not there yet: so a run of
//! convolutions stays in blocks from end to end, and any operator this pass has never heard of simply gets the plain form.
//! A model without a 3x3 convolution worth transforming is left alone: ONNX Runtime's own kernels are as good for it.

use std::collections::{HashMap, HashSet};

use super::super::build::{self, Builder};
use super::super::graph;
use super::super::onnx::{GraphProto, NodeProto, TensorProto, ValueInfoProto};
use super::direct::Direct;
use super::kernel::{BLOCK, Isa};
use super::node::{self, Constants, Found};
use super::operator::{DOMAIN, ENTRY, OPERATOR};
use super::pointwise::{Normal, Pointwise};
use super::table::{Convolution, Entry, How, Table};
use super::winograd::Winograd;

/// Shapes of tensors for one image, the batch left out.
pub(in crate::encoder) type Shapes = HashMap<String, Vec<usize>>;

/// Rewrites `graph` for this processor and returns the kernels it then names; nothing, and the graph untouched, where there
/// is nothing to gain. Nodes of the graph come in topological order.
pub(in crate::encoder) fn rewrite(graph: &mut GraphProto, opset: i64, shapes: &Shapes) -> Option<Table> {
    let isa = Isa::detect()?;
    let constants = Constants::new(std::mem::take(&mut graph.initializer));
    let names: Vec<String> = constants.all().iter().map(|tensor| tensor.name().to_owned()).collect();
    let found = |node: &NodeProto| Found::of(node, &|name: &str| constants.get(name), shapes);
    if !graph.node.iter().any(|node| found(node).is_some_and(|found| found.winograd)) {
        graph.initializer = constants.into_all();
        return None;
    }
    let nodes = graph.node.clone();
    let mut builder = Builder::new(graph, opset);
    builder.reserve(names);
    let mut pass = Pass::new(isa, builder, shapes, &constants, &nodes);
    for index in 0..nodes.len() {
        if !pass.done.contains(&index) {
            pass.node(index);
        }
    }
    let table = pass.finish();
    let read = graph::names_read(graph);
    graph.initializer.extend(constants.into_all().into_iter().filter(|weight| read.contains(weight.name())));
    Some(table)
}

struct Pass<'p> {
    isa: Isa,
    builder: Builder<'p>,
    shapes: &'p Shapes,
    constants: &'p Constants,
    nodes: &'p [NodeProto],
    /// The nodes that read a tensor, once for each time they read it.
    readers: HashMap<&'p str, Vec<usize>>,
    outputs: Vec<String>,
    /// The name of a tensor's blocked form.
    blocked: HashMap<String, String>,
    /// Tensors that are there in ONNX's layout.
    plain: HashSet<String>,
    /// Nodes that were taken into an earlier one.
    done: HashSet<usize>,
    /// Normalisations that the one convolution which reads them takes in: by what they make, what they read.
    normals: HashMap<&'p str, (&'p str, Normal)>,
    table: Table,
}

impl<'p> Pass<'p> {
    fn new(
        isa: Isa,
        builder: Builder<'p>,
        shapes: &'p Shapes,
        constants: &'p Constants,
        nodes: &'p [NodeProto],
    ) -> Self {
        let mut readers: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, node) in nodes.iter().enumerate() {
            for name in graph::reads(node) {
                readers.entry(name).or_default().push(index);
            }
        }
        let inputs = builder.graph().input.iter().map(ValueInfoProto::name).map(str::to_owned);
        let outputs = builder.graph().output.iter().map(ValueInfoProto::name).map(str::to_owned);
        Self {
            isa,
            shapes,
            constants,
            nodes,
            readers,
            plain: inputs.collect(),
            outputs: outputs.collect(),
            blocked: HashMap::new(),
            done: HashSet::new(),
            normals: HashMap::new(),
            table: Table::default(),
            builder,
        }
    }

    fn constant(&self) -> impl Fn(&str) -> Option<&'p TensorProto> + use<'p> {
        let constants = self.constants;
        move |name| constants.get(name)
    }

    fn node(&mut self, index: usize) {
        let nodes = self.nodes;
        let node = &nodes[index];
        let input = node.input.first().map_or("", String::as_str);
        let in_blocks = self.blocked.contains_key(input) || self.normals.contains_key(input);
        if let Some(found) =
            Found::of(node, &self.constant(), self.shapes).filter(|_| in_blocks || self.has_blocks(input))
        {
            return self.convolution(index, &found);
        }
        if !in_blocks && !matches!(node.op_type(), "Add" | "Concat") {
            return self.keep(node);
        }
        match node.op_type() {
            "BatchNormalization" => match node::batch_normalisation(node, &self.constant()) {
                Some((factor, offset)) => {
                    let (out, relu) = self.following_relu(&node.output[0]);
                    let normal = Normal { factor, offset, relu };
                    if self.only_reader(out).is_some_and(|reader| self.is_pointwise(&self.nodes[reader])) {
                        self.normals.insert(out, (input, normal));
                    } else {
                        self.blocks(Entry::Affine(normal), &[input], out);
                    }
                }
                None => self.keep(node),
            },
            "MaxPool" | "AveragePool" => match node::window(node, self.shapes) {
                Some(window) => self.blocks(Entry::Window(window), &[input], &node.output[0]),
                None => self.keep(node),
            },
            // One value in, one value out, wherever it lies.
            "Relu" | "LeakyRelu" | "Clip" | "Sigmoid" | "Tanh" | "Elu" | "HardSigmoid" | "HardSwish" | "Identity" => {
                self.on_blocks(node, 1, Vec::new());
            }
            "Add" if self.same_blocks(&node.input) => self.on_blocks(node, 2, Vec::new()),
            "Concat" if node::integer(node, "axis", 0) == 1 && self.some_blocks(&node.input) => {
                self.on_blocks(node, node.input.len(), vec![build::integer("axis", 1)]);
            }
            "Transpose" if node.attribute.iter().any(|perm| perm.ints == [0, 2, 3, 1]) => {
                let x = self.in_blocks(input);
                self.entry(Entry::FromBlocked { channels_last: true }, &[&x], &node.output[0]);
                self.plain.insert(node.output[0].clone());
            }
            _ => self.keep(node),
        }
    }

    /// A 1x1 convolution that the kernels take, and whose only use of its input is to convolve it.
    fn is_pointwise(&self, node: &NodeProto) -> bool {
        let found = Found::of(node, &self.constant(), self.shapes);
        found.is_some_and(|found| found.geometry.kernel == [1, 1] && found.geometry.pads == [0; 4])
    }

    /// Whether a tensor can be laid out in blocks at all.
    fn has_blocks(&self, name: &str) -> bool {
        let shape = self.shapes.get(name).map(Vec::as_slice);
        matches!(shape, Some(&[c, _, _]) if c % BLOCK == 0)
            && (self.plain.contains(name) || self.blocked.contains_key(name))
    }

    /// Several tensors that all can be, one of which is.
    fn some_blocks(&self, names: &[String]) -> bool {
        names.iter().all(|name| self.has_blocks(name)) && names.iter().any(|name| self.blocked.contains_key(name))
    }

    fn same_blocks(&self, names: &[String]) -> bool {
        self.some_blocks(names) && names.iter().all(|name| self.shapes.get(name) == self.shapes.get(&names[0]))
    }

    fn convolution(&mut self, index: usize, found: &Found) {
        let nodes = self.nodes;
        let node = &nodes[index];
        let constant = self.constant();
        let values = |index: usize| node.input.get(index).and_then(|name| constant(name)).and_then(node::floats);
        let Some(weights) = values(1) else { return self.keep(node) };
        let geometry = found.geometry;
        let pointwise = geometry.kernel == [1, 1] && geometry.pads == [0; 4];
        let before = if pointwise { self.normals.remove(node.input[0].as_str()) } else { None };
        let mut input = node.input[0].as_str();
        let how = if found.winograd {
            How::Winograd(Winograd::new(self.isa, &weights, geometry.outputs, geometry.inputs), geometry.outputs)
        } else if pointwise {
            let before = before.map(|(from, normal)| {
                input = from;
                normal
            });
            How::Pointwise(Pointwise::new(self.isa, &weights, geometry, before))
        } else {
            How::Direct(Direct::new(self.isa, &weights, geometry))
        };
        let added = self.following_add(&node.output[0]);
        let (out, relu) = self.following_relu(added.map_or(&node.output[0], |(_, out)| out));
        let convolution = Convolution { how, bias: values(2), relu };
        let mut inputs = vec![input];
        inputs.extend(added.map(|(other, _)| other));
        self.blocks(Entry::Convolution(convolution), &inputs, out);
    }

    /// The one node that reads a tensor, if there is one and the tensor is no output.
    fn only_reader(&self, name: &str) -> Option<usize> {
        match self.readers.get(name).map(Vec::as_slice) {
            Some(&[reader]) if !self.outputs.iter().any(|output| output == name) => Some(reader),
            _ => None,
        }
    }

    /// Takes in an addition that alone reads `name`, if what it adds is there by now: that tensor and the sum.
    fn following_add(&mut self, name: &'p str) -> Option<(&'p str, &'p str)> {
        let index = self.only_reader(name)?;
        let node = &self.nodes[index];
        let other = node.input.iter().map(String::as_str).find(|other| *other != name)?;
        let equal = self.shapes.get(other) == self.shapes.get(name) && self.has_blocks(other);
        if node.op_type() != "Add" || !equal {
            return None;
        }
        self.done.insert(index);
        Some((other, &node.output[0]))
    }

    /// Takes in a cut at zero that alone reads `name`: what holds the result, and whether it was cut.
    fn following_relu(&mut self, name: &'p str) -> (&'p str, bool) {
        match self.only_reader(name) {
            Some(index) if self.nodes[index].op_type() == "Relu" => {
                self.done.insert(index);
                (&self.nodes[index].output[0], true)
            }
            _ => (name, false),
        }
    }

    /// The blocked form of a tensor, made if it is not there.
    fn in_blocks(&mut self, name: &str) -> String {
        if let Some(blocked) = self.blocked.get(name) {
            return blocked.clone();
        }
        let blocked = self.builder.fresh("blocks");
        self.entry(Entry::ToBlocked, &[name], &blocked);
        self.blocked.insert(name.to_owned(), blocked.clone());
        blocked
    }

    /// Makes sure that a tensor is there in ONNX's layout.
    fn in_plain(&mut self, name: &str) {
        if let Some(blocked) = self.blocked.get(name).filter(|_| !self.plain.contains(name)).cloned() {
            self.entry(Entry::FromBlocked { channels_last: false }, &[&blocked], name);
            self.plain.insert(name.to_owned());
        }
    }

    /// A kernel that makes the blocked form of `out` from those of `inputs`.
    fn blocks(&mut self, entry: Entry, inputs: &[&str], out: &str) {
        let inputs: Vec<String> = inputs.iter().map(|name| self.in_blocks(name)).collect();
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let blocked = self.builder.fresh("blocks");
        self.entry(entry, &inputs, &blocked);
        self.blocked.insert(out.to_owned(), blocked);
    }

    fn entry(&mut self, entry: Entry, inputs: &[&str], out: &str) {
        let number = build::integer(ENTRY, self.table.0.len() as i64);
        self.table.0.push(entry);
        self.builder.node_of(DOMAIN, OPERATOR, inputs, out, vec![number]);
    }

    /// ONNX Runtime's own operator on the blocked forms of its first `count` inputs.
    fn on_blocks(&mut self, node: &NodeProto, count: usize, attributes: Vec<super::super::onnx::AttributeProto>) {
        let mut node = node.clone();
        for name in &mut node.input[..count] {
            *name = self.in_blocks(name);
        }
        let blocked = self.builder.fresh("blocks");
        self.blocked.insert(std::mem::replace(&mut node.output[0], blocked.clone()), blocked);
        if !attributes.is_empty() {
            node.attribute = attributes;
        }
        self.builder.push(node);
    }

    /// The node as it is.
    fn keep(&mut self, node: &NodeProto) {
        for name in graph::reads(node) {
            self.in_plain(name);
        }
        self.plain.extend(node.output.iter().cloned());
        self.builder.push(node.clone());
    }

    fn finish(mut self) -> Table {
        for output in std::mem::take(&mut self.outputs) {
            self.in_plain(&output);
        }
        self.builder.replace();
        self.table
    }
}
