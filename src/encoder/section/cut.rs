//! Which nodes lie between two tensors, and do they lie there alone?

use std::collections::{HashMap, HashSet};

use super::{super::input::ImageInput, Model, NodeProto, SectionError, graph, name_of};

/// A graph with what the questions need: nodes come in topological order in every valid model.
struct Graph<'m> {
    nodes: &'m [NodeProto],
    made: HashMap<&'m str, usize>,
    /// Tensors that are computed from the picture, and the picture.
    seen: HashSet<&'m str>,
}

/// The nodes between `from` and `to`, as positions in the graph, in its order.
pub(super) fn nodes(model: &Model, image: &ImageInput, from: &str, to: &str) -> Result<Vec<usize>, SectionError> {
    let nodes = &model.graph().node;
    let graph = Graph { nodes, made: graph::producers(model.graph()), seen: descendants(nodes, &image.name) };
    let path = || model.path.clone();
    let after = descendants(nodes, from);
    if from == to || !after.contains(to) {
        return Err(SectionError::Apart { path: path(), from: from.to_owned(), to: to.to_owned() });
    }
    let between = graph.between(&after, to);
    let weights: HashSet<&str> = graph::weight_names(model.graph()).collect();
    for &index in &between {
        let node = &nodes[index];
        for name in graph::reads(node) {
            if after.contains(name) || weights.contains(name) {
                continue;
            }
            let tensor = name.to_owned();
            if !graph.seen.contains(name) {
                return Err(SectionError::Computed { path: path(), node: name_of(node), tensor });
            }
            let (from, to, nearest) = (from.to_owned(), to.to_owned(), graph.nearest(from, to));
            return Err(SectionError::Bypassed { path: path(), from, to, tensor, nearest });
        }
        if node.output[1..].iter().any(|output| !output.is_empty() && graph.is_read(output)) {
            let (node, operator) = (name_of(node), node.op_type().to_owned());
            return Err(SectionError::Outputs { path: path(), node, operator });
        }
    }
    Ok(between)
}

/// `tensor` and all that is computed from it.
fn descendants<'m>(nodes: &'m [NodeProto], tensor: &str) -> HashSet<&'m str> {
    let mut found: HashSet<&str> = HashSet::new();
    for node in nodes {
        if graph::reads(node).into_iter().any(|name| name == tensor || found.contains(name)) {
            found.extend(node.output.iter().map(String::as_str));
        }
    }
    // The tensor itself, by the name that lives as long as the graph.
    let names = nodes.iter().flat_map(|node| node.input.iter().chain(&node.output)).map(String::as_str);
    found.extend(names.filter(|name| *name == tensor));
    found
}

impl<'m> Graph<'m> {
    /// The nodes that `to` needs among those that make something of `after`.
    fn between(&self, after: &HashSet<&str>, to: &'m str) -> Vec<usize> {
        let mut found = HashSet::new();
        let mut open = vec![to];
        while let Some(name) = open.pop() {
            let Some(&index) = self.made.get(name) else { continue };
            let node = &self.nodes[index];
            let inside = graph::reads(node).into_iter().any(|name| after.contains(name));
            if inside && found.insert(index) {
                open.extend(graph::reads(node));
            }
        }
        let mut found: Vec<usize> = found.into_iter().collect();
        found.sort_unstable();
        found
    }

    fn is_read(&self, name: &str) -> bool {
        self.nodes.iter().any(|node| graph::reads(node).contains(&name))
    }

    /// The last tensor before `from`, and the first after it, that every way from the picture to `to` goes through.
    fn nearest(&self, from: &str, to: &str) -> Vec<String> {
        let place = self.made.get(from).copied().unwrap_or_default();
        let end = self.made.get(to).copied().unwrap_or_default();
        let closes = |index: &usize| {
            let output = self.nodes[*index].output.first().filter(|output| self.seen.contains(output.as_str()))?;
            (output != to && self.is_on_every_way(output, to)).then(|| output.clone())
        };
        let before = (0..place).rev().find_map(|index| closes(&index));
        let after = (place + 1..end).find_map(|index| closes(&index));
        before.into_iter().chain(after).collect()
    }

    /// Whether `to` can't be reached from the picture without `tensor`.
    fn is_on_every_way(&self, tensor: &str, to: &str) -> bool {
        let (mut done, mut open) = (HashSet::new(), vec![to]);
        let mut met = false;
        while let Some(name) = open.pop() {
            if name == tensor {
                met = true;
                continue;
            }
            match self.made.get(name) {
                Some(&index) if done.insert(index) => open.extend(graph::reads(&self.nodes[index])),
                Some(_) => {}
                None if self.seen.contains(name) => return false,
                None => {}
            }
        }
        met
    }
}
