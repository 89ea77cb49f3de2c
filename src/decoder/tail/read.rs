//! From a section's nodes to steps: what each attribute means, which constants are weights, and what no tail knows.
//!
//! Weights are declared as they are met, under `icecap.tail.`, so that a GPT-2's own names stay Hugging Face's. A weight is
//! known by its reader: equal ones that an exporter merged come apart.

use std::collections::HashMap;

use super::{
    super::{Handle, Init, ParamsBuilder},
    TailError,
    step::{Operator, Source, Step},
    window::Window,
};
use crate::section::{Constant, Node, Section, Values, Weight};

/// Names of a tail's parameters begin so.
pub(super) const OWN: &str = "icecap.tail.";

/// A weight that was declared, and its first values.
#[derive(Debug)]
pub(super) struct Declared {
    pub handle: Handle,
    /// Where it belongs, and what it begins with.
    pub first: Weight,
}

/// Turns nodes into steps.
pub(super) struct Reader<'a> {
    section: &'a Section,
    builder: &'a mut ParamsBuilder,
    /// Places of the tensors made so far; the section's first is at 0.
    places: HashMap<&'a str, usize>,
    /// How often a constant was met.
    met: HashMap<&'a str, usize>,
    pub declared: Vec<Declared>,
}

/// A way of using an operator that is not known.
pub(super) fn used(node: &Node, what: impl Into<String>) -> TailError {
    TailError::Use { node: node.name.clone(), operator: node.operator.clone(), what: what.into() }
}

impl<'a> Reader<'a> {
    pub fn new(section: &'a Section, builder: &'a mut ParamsBuilder) -> Self {
        let places = [(section.from.as_str(), 0)].into();
        Self { section, builder, places, met: HashMap::new(), declared: Vec::new() }
    }

    /// All steps, in order; the last makes the section's end.
    pub fn steps(&mut self) -> Result<Vec<Step>, TailError> {
        let section = self.section;
        section.nodes.iter().map(|node| self.step(node)).collect()
    }

    /// How many tensors there are.
    pub fn tensors(&self) -> usize {
        self.places.len()
    }

    /// The place of the section's end.
    pub fn end(&self) -> Option<usize> {
        self.places.get(self.section.to.as_str()).copied()
    }

    fn step(&mut self, node: &'a Node) -> Result<Step, TailError> {
        let (operator, inputs) = self.operator(node)?;
        let output = self.places.len();
        self.places.insert(&node.output, output);
        Ok(Step { node: node.name.clone(), name: node.operator.clone(), operator, inputs, output })
    }

    /// The operator, and the inputs that are not weights of its own.
    fn operator(&mut self, node: &'a Node) -> Result<(Operator, Vec<Source>), TailError> {
        let operator = match node.operator.as_str() {
            "Identity" | "Dropout" => Operator::Same,
            "Relu" => Operator::Relu,
            "LeakyRelu" => Operator::LeakyRelu(node.float("alpha", 0.01)),
            "Sigmoid" => Operator::Sigmoid,
            "Tanh" => Operator::Tanh,
            "HardSigmoid" => Operator::HardSigmoid { alpha: node.float("alpha", 0.2), beta: node.float("beta", 0.5) },
            "HardSwish" => Operator::HardSwish,
            "Clip" => Operator::Clip(self.bound(node, 1, "min")?, self.bound(node, 2, "max")?),
            "GlobalAveragePool" => Operator::GlobalAverage,
            "MaxPool" if node.integer("storage_order", 0) == 0 => Operator::MaxPool(Window::read(node, None)?),
            "AveragePool" => average(node)?,
            "ReduceMean" => {
                let axes = self.axes(node)?;
                Operator::Mean { axes, keep: node.integer("keepdims", 1) != 0 }
            }
            "Flatten" => Operator::Flatten(node.integer("axis", 1)),
            "Reshape" if node.integer("allowzero", 0) == 0 => Operator::Reshape(self.integers(node, 1)?),
            "Squeeze" => Operator::Squeeze(self.axes(node)?),
            "Unsqueeze" => Operator::Unsqueeze(self.axes(node)?),
            "Conv" => self.conv(node)?,
            "BatchNormalization" => self.batch_norm(node)?,
            "Gemm" => self.gemm(node)?,
            "Add" | "Sub" | "Mul" | "Div" | "MatMul" => return self.binary(node),
            "Concat" => {
                let axis = node.integers("axis").and_then(|axis| axis.first().copied());
                let axis = axis.ok_or_else(|| used(node, "no `axis`"))?;
                let inputs = (0..node.inputs.len()).map(|place| self.source(node, place)).collect::<Result<_, _>>()?;
                return Ok((Operator::Concat(axis), inputs));
            }
            "MaxPool" | "Reshape" => return Err(used(node, "a setting of a rare kind")),
            operator => {
                return Err(TailError::Operator { node: node.name.clone(), operator: operator.to_owned() });
            }
        };
        let place = node.input(0).and_then(|name| self.places.get(name));
        let place = *place.ok_or_else(|| used(node, "a constant in the place of its tensor"))?;
        Ok((operator, vec![Source::Tensor(place)]))
    }

    fn binary(&mut self, node: &'a Node) -> Result<(Operator, Vec<Source>), TailError> {
        let operator = match node.operator.as_str() {
            "Add" => Operator::Add,
            "Sub" => Operator::Sub,
            "Mul" => Operator::Mul,
            "Div" => Operator::Div,
            _ => Operator::MatMul,
        };
        Ok((operator, vec![self.source(node, 0)?, self.source(node, 1)?]))
    }

    fn conv(&mut self, node: &'a Node) -> Result<Operator, TailError> {
        let (weight, shape) = self.weight(node, 1)?;
        let &[_, _, height, width] = shape.as_slice() else {
            return Err(used(node, format!("a kernel of the shape {shape:?}")));
        };
        let bias = node.input(2).map(|_| self.vector(node, 2)).transpose()?;
        let window = Window::read(node, Some([height, width]))?;
        Ok(Operator::Conv { weight, bias, window, groups: node.integer("group", 1) })
    }

    fn batch_norm(&mut self, node: &'a Node) -> Result<Operator, TailError> {
        if node.integer("training_mode", 0) != 0 || node.integer("spatial", 1) == 0 {
            return Err(used(node, "a mode of training of its own"));
        }
        let (scale, bias) = (self.vector(node, 1)?, self.vector(node, 2)?);
        self.builder.freeze(true);
        let running = [self.vector(node, 3), self.vector(node, 4)];
        self.builder.freeze(false);
        let [mean, variance] = running;
        let (epsilon, momentum) = (node.float("epsilon", 1e-5), node.float("momentum", 0.9));
        Ok(Operator::BatchNorm { scale, bias, mean: mean?, variance: variance?, epsilon, momentum })
    }

    fn gemm(&mut self, node: &'a Node) -> Result<Operator, TailError> {
        let (weight, shape) = self.weight(node, 1)?;
        if shape.len() != 2 {
            return Err(used(node, format!("a weight of the shape {shape:?}")));
        }
        let bias = match node.input(2) {
            None => None,
            Some(_) => Some(self.flat(node, 2)?),
        };
        let turned = ["transA", "transB"].map(|name| node.integer(name, 0) != 0);
        Ok(Operator::Gemm { weight, bias, turned, alpha: node.float("alpha", 1.0), beta: node.float("beta", 1.0) })
    }

    /// A tensor, a weight, or a number.
    fn source(&mut self, node: &'a Node, place: usize) -> Result<Source, TailError> {
        let name = node.input(place).ok_or_else(|| used(node, "too few inputs"))?;
        if let Some(&place) = self.places.get(name) {
            return Ok(Source::Tensor(place));
        }
        match self.constant(node, place)?.values {
            // Part of a formula, such as the 6 of a ReLU6 in pieces, and no weight.
            Values::Floats(ref values) if values.len() == 1 => Ok(Source::Number(f64::from(values[0]))),
            Values::Floats(_) if node.operator == "MatMul" => {
                let (handle, shape) = self.weight(node, place)?;
                Ok(Source::Weight(handle, shape))
            }
            Values::Floats(_) => {
                let (handle, shape) = self.flat(node, place)?;
                Ok(Source::Weight(handle, shape))
            }
            Values::Integers(_) => Err(used(node, "integers to compute with")),
        }
    }

    fn constant(&self, node: &Node, place: usize) -> Result<&'a Constant, TailError> {
        let name = node.input(place).ok_or_else(|| used(node, "too few inputs"))?;
        let constant = self.section.constant(name);
        constant.ok_or_else(|| used(node, format!("a computed `{name}` in the place of a constant")))
    }

    /// Declares a weight in its own shape.
    fn weight(&mut self, node: &'a Node, place: usize) -> Result<(Handle, Vec<i64>), TailError> {
        let shape = self.constant(node, place)?.shape.clone();
        Ok((self.declare(node, place, &shape)?, shape))
    }

    /// Declares a weight of any shape as a vector: what shifts and scales does not decay.
    fn flat(&mut self, node: &'a Node, place: usize) -> Result<(Handle, Vec<i64>), TailError> {
        let shape = self.constant(node, place)?.shape.clone();
        Ok((self.declare(node, place, &[shape.iter().product()])?, shape))
    }

    fn vector(&mut self, node: &'a Node, place: usize) -> Result<Handle, TailError> {
        self.flat(node, place).map(|(handle, _)| handle)
    }

    fn declare(&mut self, node: &'a Node, place: usize, shape: &[i64]) -> Result<Handle, TailError> {
        let constant = self.constant(node, place)?;
        let Values::Floats(values) = &constant.values else { return Err(used(node, "integers for weights")) };
        let met = self.met.entry(&constant.name).or_insert(0);
        *met += 1;
        let name = if *met == 1 { constant.name.clone() } else { format!("{}.{met}", constant.name) };
        let handle = self.builder.add(format!("{OWN}{name}"), shape, Init::Constant(0.0));
        let first = Weight { output: node.output.clone(), input: place, values: values.clone() };
        self.declared.push(Declared { handle, first });
        Ok(handle)
    }

    /// One end of Clip: an attribute in old models, an input in newer ones.
    fn bound(&self, node: &Node, place: usize, attribute: &str) -> Result<Option<f64>, TailError> {
        if node.input(place).is_some() {
            return match &self.constant(node, place)?.values {
                Values::Floats(values) if values.len() == 1 => Ok(Some(f64::from(values[0]))),
                _ => Err(used(node, "a bound that is no number")),
            };
        }
        let given = node.attributes.contains_key(attribute);
        Ok(given.then(|| node.float(attribute, 0.0)))
    }

    /// Axes: an attribute in old models, an input in newer ones.
    fn axes(&self, node: &Node) -> Result<Vec<i64>, TailError> {
        match node.integers("axes") {
            Some(axes) => Ok(axes.to_vec()),
            None if node.input(1).is_some() => self.integers(node, 1),
            None => Err(used(node, "no axes")),
        }
    }

    fn integers(&self, node: &Node, place: usize) -> Result<Vec<i64>, TailError> {
        match &self.constant(node, place)?.values {
            Values::Integers(values) => Ok(values.clone()),
            Values::Floats(_) => Err(used(node, "floats in the place of integers")),
        }
    }
}

fn average(node: &Node) -> Result<Operator, TailError> {
    let window = Window::read(node, None)?;
    if window.dilation != [1, 1] {
        return Err(used(node, "dilations"));
    }
    Ok(Operator::AveragePool { window, padding: node.integer("count_include_pad", 0) != 0 })
}
