//! Batch normalisations, made fit for f16 while everything is still f32.
//!
//! Must not know f16's arithmetic. A normalisation behind a convolution goes into its weights. One that stands alone (as in a
//! DenseNet) keeps its place, with a mean of 0 and a variance of 1: what it does is then in its scale and its bias, which
//! are rounded as any weight, where a small variance would have been rounded before its root was taken.

use std::collections::{HashMap, HashSet};

use super::super::build::{Builder, float};
use super::super::constant::floats;
use super::super::graph;
use super::super::onnx::{AttributeProto, GraphProto, NodeProto, TensorProto};

/// Folds what can be folded; returns the outputs of the normalisations that stay and fit.
pub(super) fn prepare(graph: &mut GraphProto, opset: i64, taps: &[&str]) -> HashSet<String> {
    let nodes = graph.node.clone();
    let index = graph.initializer.iter().enumerate().map(|(at, weight)| (weight.name().to_owned(), at)).collect();
    let mut pass = Fold { builder: Builder::new(graph, opset), index };
    let folds = pass.folds(&nodes, taps);
    let gone: HashSet<usize> = folds.values().copied().collect();
    let mut ready = HashSet::new();
    for (at, node) in nodes.iter().enumerate().filter(|(at, _)| !gone.contains(at)) {
        let made = match folds.get(&at) {
            Some(&normal) => pass.fold(node, &nodes[normal]),
            None => pass.standing(node),
        };
        if !folds.contains_key(&at) && made.is_some() {
            ready.insert(node.output[0].clone());
        }
        pass.builder.push(made.unwrap_or_else(|| node.clone()));
    }
    pass.builder.replace();
    ready
}

struct Fold<'g> {
    builder: Builder<'g>,
    /// Where a constant is in the graph's list.
    index: HashMap<String, usize>,
}

impl Fold<'_> {
    fn constant(&self, name: &str) -> Option<&TensorProto> {
        self.index.get(name).map(|&at| &self.builder.graph().initializer[at])
    }

    /// Which convolution (by index) takes in which normalisation.
    fn folds(&self, nodes: &[NodeProto], taps: &[&str]) -> HashMap<usize, usize> {
        let made: HashMap<&str, usize> = nodes
            .iter()
            .enumerate()
            .flat_map(|(at, node)| node.output.iter().map(move |name| (name.as_str(), at)))
            .collect();
        let mut readers: HashMap<&str, usize> = HashMap::new();
        nodes.iter().flat_map(graph::reads).for_each(|name| *readers.entry(name).or_default() += 1);
        let pair = |(at, node): (usize, &NodeProto)| {
            self.normal(node)?;
            let input = node.input[0].as_str();
            let &conv = made.get(input)?;
            let alone = readers.get(input) == Some(&1) && !taps.contains(&input);
            (alone && self.takes(&nodes[conv], self.normal(node)?.0.len())).then_some((conv, at))
        };
        nodes.iter().enumerate().filter_map(pair).collect()
    }

    /// A convolution of `outputs` channels with constant weights.
    fn takes(&self, node: &NodeProto, outputs: usize) -> bool {
        let constant = |at: usize| node.input.get(at).and_then(|name| self.constant(name)).and_then(floats);
        let weights = node.input.get(1).and_then(|name| self.constant(name));
        let fits = weights.is_some_and(|weights| weights.dims.first() == Some(&(outputs as i64)));
        let bias = node.input.get(2).is_none_or(|name| name.is_empty() || constant(2).is_some());
        node.op_type() == "Conv" && node.domain().is_empty() && fits && bias && constant(1).is_some()
    }

    /// Factor and offset a channel of a normalisation with constant parameters.
    fn normal(&self, node: &NodeProto) -> Option<(Vec<f64>, Vec<f64>)> {
        let known = node.op_type() == "BatchNormalization" && node.domain().is_empty();
        let attribute = |name: &str| node.attribute.iter().find(|attribute| attribute.name() == name);
        let training = attribute("training_mode").is_some_and(|mode| mode.i() != 0);
        if !known || training || node.output.len() != 1 || node.input.len() != 5 {
            return None;
        }
        let read = |at: usize| floats(self.constant(&node.input[at])?);
        let (scale, bias, mean, variance) = (read(1)?, read(2)?, read(3)?, read(4)?);
        let epsilon = f64::from(attribute("epsilon").map_or(1e-5, AttributeProto::f));
        let channels = scale.len();
        if [bias.len(), mean.len(), variance.len()] != [channels; 3] {
            return None;
        }
        let factor = |c: usize| f64::from(scale[c]) / (f64::from(variance[c]) + epsilon).sqrt();
        let factors: Vec<f64> = (0..channels).map(factor).collect();
        let offsets = (0..channels).map(|c| f64::from(bias[c]) - f64::from(mean[c]) * factors[c]).collect();
        Some((factors, offsets))
    }

    /// `conv` with `normal` in its weights, under the normalisation's name.
    fn fold(&mut self, conv: &NodeProto, normal: &NodeProto) -> Option<NodeProto> {
        let (factors, offsets) = self.normal(normal)?;
        let tensor = self.constant(&conv.input[1])?;
        let dims: Vec<usize> = tensor.dims.iter().map(|&size| size as usize).collect();
        let weights = floats(tensor)?;
        let each = (weights.len() / factors.len().max(1)).max(1);
        let scaled: Vec<f32> = weights
            .chunks(each)
            .zip(&factors)
            .flat_map(|(part, &f)| part.iter().map(move |&w| (f64::from(w) * f) as f32))
            .collect();
        let bias = conv.input.get(2).filter(|name| !name.is_empty()).and_then(|name| floats(self.constant(name)?));
        let bias = bias.unwrap_or_else(|| vec![0.0; factors.len()]);
        let shifted: Vec<f32> =
            (0..factors.len()).map(|c| (f64::from(bias[c]) * factors[c] + offsets[c]) as f32).collect();
        let weights = self.builder.floats(&dims, &scaled);
        let bias = self.builder.floats(&[shifted.len()], &shifted);
        let input = vec![conv.input[0].clone(), weights, bias];
        Some(NodeProto { input, output: normal.output.clone(), ..conv.clone() })
    }

    /// A normalisation that stays, with a mean of 0 and a variance of 1.
    fn standing(&mut self, node: &NodeProto) -> Option<NodeProto> {
        const EPSILON: f32 = 1e-5;
        let (factors, offsets) = self.normal(node)?;
        let root = (1.0 + f64::from(EPSILON)).sqrt();
        let channels = [factors.len()];
        let factors: Vec<f32> = factors.iter().map(|&factor| (factor * root) as f32).collect();
        let offsets: Vec<f32> = offsets.iter().map(|&offset| offset as f32).collect();
        let input = vec![
            node.input[0].clone(),
            self.builder.floats(&channels, &factors),
            self.builder.floats(&channels, &offsets),
            self.builder.floats(&channels, &vec![0.0; channels[0]]),
            self.builder.floats(&channels, &vec![1.0; channels[0]]),
        ];
        let mut attribute = node.attribute.clone();
        attribute.retain(|attribute| attribute.name() != "epsilon");
        attribute.push(float("epsilon", EPSILON));
        Some(NodeProto { input, attribute, ..node.clone() })
    }
}
