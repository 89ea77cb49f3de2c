//! Questions about a graph and the one destructive edit: pruning.
//!
//! Must not know plans, files or ONNX Runtime. A node with graphs inside (If, Loop) counts every name those graphs mention
//! as its input: a name too many keeps a node too many, a name too few would break the model.

use std::collections::{HashMap, HashSet};

use super::onnx::{GraphProto, NodeProto, SparseTensorProto, TensorProto, ValueInfoProto};

/// For each tensor that a node makes: the node's index.
pub(super) fn producers(graph: &GraphProto) -> HashMap<&str, usize> {
    let mut made = HashMap::with_capacity(graph.node.len());
    for (index, node) in graph.node.iter().enumerate() {
        for name in node.output.iter().filter(|name| !name.is_empty()) {
            made.insert(name.as_str(), index);
        }
    }
    made
}

/// Every name a node reads, those of the graphs inside of it too.
pub(super) fn reads(node: &NodeProto) -> Vec<&str> {
    let mut names = Vec::with_capacity(node.input.len());
    collect_reads(node, &mut names);
    names
}

/// Every name that the graph's nodes read.
pub(super) fn names_read(graph: &GraphProto) -> HashSet<String> {
    graph.node.iter().flat_map(reads).map(str::to_owned).collect()
}

fn collect_reads<'g>(node: &'g NodeProto, names: &mut Vec<&'g str>) {
    names.extend(node.input.iter().map(String::as_str).filter(|name| !name.is_empty()));
    names.extend(reads_within(node));
}

/// Names that the graphs inside of `node` read; their own are among them.
fn reads_within(node: &NodeProto) -> Vec<&str> {
    let mut names = Vec::new();
    for inner in node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs)) {
        inner.node.iter().for_each(|node| collect_reads(node, &mut names));
        names.extend(inner.output.iter().map(ValueInfoProto::name));
    }
    names
}

/// What a set of tensors is computed from.
pub(super) struct Ancestry<'g> {
    /// Nodes needed, by index.
    pub nodes: HashSet<usize>,
    /// Names needed that no node makes: graph inputs and initializers.
    pub leaves: HashSet<&'g str>,
}

/// Nodes and leaves that `tensors` need.
pub(super) fn ancestry<'g>(graph: &'g GraphProto, made: &HashMap<&'g str, usize>, tensors: &[&'g str]) -> Ancestry<'g> {
    let mut found = Ancestry { nodes: HashSet::new(), leaves: HashSet::new() };
    let mut open: Vec<&'g str> = tensors.to_vec();
    while let Some(name) = open.pop() {
        match made.get(name) {
            Some(&index) if found.nodes.insert(index) => collect_reads(&graph.node[index], &mut open),
            Some(_) => {}
            None => drop(found.leaves.insert(name)),
        }
    }
    found
}

/// Removes every node, initializer and input that `tensors` do not need, and all shapes noted for inner tensors: they
/// were right for the batch in the file, and ONNX Runtime works them out again.
pub(super) fn prune(graph: &mut GraphProto, tensors: &[&str]) {
    let (keep, leaves) = {
        let found = ancestry(graph, &producers(graph), tensors);
        (found.nodes, found.leaves.into_iter().map(str::to_owned).collect::<HashSet<_>>())
    };
    let mut index = 0;
    graph.node.retain(|_| {
        index += 1;
        keep.contains(&(index - 1))
    });
    graph.initializer.retain(|weight| leaves.contains(weight.name()));
    graph.sparse_initializer.retain(|weight| leaves.contains(sparse_name(weight)));
    graph.input.retain(|input| leaves.contains(input.name()));
    let weights: HashSet<String> = weight_names(graph).map(str::to_owned).collect();
    graph.input.retain(|input| !weights.contains(input.name()));
    graph.value_info.clear();
    graph.quantization_annotation.clear();
}

/// Makes every constant a weight: the values of Constant nodes, and copies of weights by Identity, which some exporters
/// write. Their readers then read a weight, and no pass has to look through a node for one.
pub(super) fn gather_constants(graph: &mut GraphProto) {
    let mut names: HashMap<String, String> =
        weight_names(graph).map(|name| (name.to_owned(), name.to_owned())).collect();
    let outputs: HashSet<String> = graph.output.iter().map(|output| output.name().to_owned()).collect();
    // What a graph inside of a node reads keeps its name: only names outside are replaced below.
    let within: HashSet<String> = graph.node.iter().flat_map(reads_within).map(str::to_owned).collect();
    let nodes = std::mem::take(&mut graph.node);
    for mut node in nodes {
        for input in &mut node.input {
            if let Some(weight) = names.get(input) {
                input.clone_from(weight);
            }
        }
        let inner = node.domain().is_empty() && node.output.len() == 1 && !outputs.contains(&node.output[0]);
        match node.op_type() {
            "Identity" if inner && node.input.first().is_some_and(|input| names.contains_key(input)) => {
                names.insert(node.output[0].clone(), node.input[0].clone());
                if within.contains(&node.output[0]) {
                    graph.node.push(node);
                }
            }
            "Constant" if inner && node.attribute.len() == 1 && node.attribute[0].t.is_some() => {
                let value = node.attribute[0].t.take().unwrap_or_default();
                let name = node.output[0].clone();
                graph.initializer.push(TensorProto { name: Some(name.clone()), ..value });
                names.insert(name.clone(), name);
            }
            _ => graph.node.push(node),
        }
    }
}

/// Names of the constant tensors.
pub(super) fn weight_names(graph: &GraphProto) -> impl Iterator<Item = &str> {
    graph.initializer.iter().map(TensorProto::name).chain(graph.sparse_initializer.iter().map(sparse_name))
}

fn sparse_name(weight: &SparseTensorProto) -> &str {
    weight.values.as_ref().map_or("", TensorProto::name)
}

/// The names closest to `wanted` by edit distance, best first, at most three; none that shares next to nothing with it.
pub(super) fn nearest<'n>(wanted: &str, names: impl Iterator<Item = &'n str>) -> Vec<String> {
    let lower = wanted.to_lowercase();
    let score = |name: &'n str| {
        let other = name.to_lowercase();
        // A name that holds the other as a part is near however long it is: `layer3` and `/layer3/layer3.1/relu/Relu_output_0`.
        let part = !lower.is_empty() && (other.contains(&lower) || (other.len() > 2 && lower.contains(&other)));
        let distance = edit_distance(&lower, &other);
        let limit = lower.chars().count().max(other.chars().count()).div_ceil(2);
        (part || distance <= limit).then_some((distance, name))
    };
    let mut scored: Vec<_> = names.filter(|name| !name.is_empty()).filter_map(score).collect();
    scored.sort_unstable();
    scored.dedup();
    scored.into_iter().take(3).map(|(_, name)| name.to_owned()).collect()
}

/// Levenshtein's distance, in characters.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, &to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::super::onnx::AttributeProto;
    use super::*;

    #[test]
    fn nearest_names_come_by_distance_and_by_part() {
        let names = ["layer1", "layer2", "layer3", "logits", "/layer3/layer3.1/relu/Relu_output_0"];
        assert_eq!(nearest("layr3", names.into_iter())[0], "layer3");
        assert_eq!(nearest("Layer9", names.into_iter()), ["layer1", "layer2", "layer3"]);
        assert!(nearest("qqqqqqqq", names.into_iter()).is_empty());
        assert!(
            nearest("layer3.1/relu", names.into_iter()).contains(&"/layer3/layer3.1/relu/Relu_output_0".to_owned())
        );
    }

    #[test]
    fn constants_become_weights_and_their_copies_go() {
        let node = |op: &str, inputs: &[&str], output: &str| NodeProto {
            op_type: Some(op.to_owned()),
            input: inputs.iter().map(|&name| name.to_owned()).collect(),
            output: vec![output.to_owned()],
            ..NodeProto::default()
        };
        let value = AttributeProto { t: Some(TensorProto::default()), ..AttributeProto::default() };
        let within = GraphProto { node: vec![node("Relu", &["read within"], "r")], ..GraphProto::default() };
        let then = AttributeProto { g: Some(within), ..AttributeProto::default() };
        let mut graph = GraphProto {
            node: vec![
                NodeProto { attribute: vec![value], ..node("Constant", &[], "c") },
                node("Identity", &["w"], "copy"),
                node("Identity", &["copy"], "copy of copy"),
                node("Identity", &["x"], "kept"),
                node("Conv", &["kept", "copy of copy", "c"], "y"),
                node("Identity", &["w"], "read within"),
                NodeProto { attribute: vec![then], ..node("If", &["c"], "z") },
            ],
            initializer: vec![TensorProto { name: Some("w".to_owned()), ..TensorProto::default() }],
            ..GraphProto::default()
        };
        gather_constants(&mut graph);
        let left: Vec<&str> = graph.node.iter().map(|node| node.output[0].as_str()).collect();
        assert_eq!(left, ["kept", "y", "read within", "z"]);
        assert_eq!(graph.node[1].input, ["kept", "w", "c"]);
        assert_eq!(weight_names(&graph).collect::<Vec<_>>(), ["w", "c"]);
    }

    #[test]
    fn edit_distances_are_levenshteins() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("abc", "abc"), 0);
    }
}
