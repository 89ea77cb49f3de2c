//! Lists what can be tapped: each tensor of floats with the batch first, its shape, and what it costs to get there.
//!
//! Must not know plans. Cost is counted in multiply-adds of convolutions and matrix products, which is where an
//! encoder's time goes; it is that of the tensor's own ancestors, so it is what a tap would really run after pruning.

use std::collections::HashMap;
use std::path::Path;

use ort::value::TensorElementType;

use super::input::ImageInput;
use super::metadata;
use super::model::Model;
use super::onnx::{GraphProto, NodeProto, ValueInfoProto};
use super::probe::{self, Probed};
use super::{EncoderError, graph};

/// A tensor that can be tapped.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct TensorInfo {
    /// Its name, for a tap.
    pub name: String,
    /// The operator that makes it.
    pub operator: String,
    /// Its shape for one image, the batch left out.
    pub shape: Vec<usize>,
    /// Multiply-adds from the picture to here, for one image.
    pub multiply_adds: u64,
    /// Bytes of a row in f16, not pooled.
    pub bytes_a_row_f16: u64,
}

/// Everything that can be tapped in the model at `path`, in the graph's order, for pictures of the size that the model
/// fixes or its metadata names, else 224 x 224.
///
/// # Errors
/// As for [`super::compile()`].
pub fn inspect(path: &Path) -> Result<Vec<TensorInfo>, EncoderError> {
    inspect_at(path, None)
}

/// [`inspect`] for pictures of `size` (height, width).
///
/// # Errors
/// As for [`super::compile()`]; [`EncoderError::FixedSize`] where the model takes another size.
pub fn inspect_at(path: &Path, size: Option<[usize; 2]>) -> Result<Vec<TensorInfo>, EncoderError> {
    let mut model = Model::read(path)?;
    let image = ImageInput::find(&model)?;
    let crop = metadata::of(&model).and_then(|recipe| recipe.crop).unwrap_or([224, 224]);
    let [height, width] = size.unwrap_or([image.height.unwrap_or(crop[0]), image.width.unwrap_or(crop[1])]);
    image.check_size(&model, height, width)?;
    let batch = image.batch.unwrap_or(2);
    super::plan::check_sizes(batch, height, width)?;
    let names = from_the_picture(model.graph(), &image);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    graph::prune(model.graph_mut(), &names);
    graph::gather_constants(model.graph_mut());
    model.inline_external()?;
    model.proto.ir_version = Some(model.proto.ir_version().max(4));
    let shape = image.shape(batch, height, width);
    let mut probing = model.clone();
    probe::fix_input(&mut probing, &image, shape);
    let probed = probe::shapes(&mut probing, &names, names.len(), shape)?;
    let shapes: HashMap<&str, &Probed> = names.iter().copied().zip(&probed).collect();
    Ok(list(model.graph(), &image, &names, &shapes, batch, [height, width]))
}

/// Tensors made by nodes out of the picture, and out of no other input.
fn from_the_picture(graph: &GraphProto, image: &ImageInput) -> Vec<String> {
    let weights: std::collections::HashSet<&str> = graph::weight_names(graph).collect();
    let others =
        graph.input.iter().map(ValueInfoProto::name).filter(|name| *name != image.name && !weights.contains(name));
    let mut state: HashMap<&str, bool> = others.map(|name| (name, false)).collect();
    state.insert(&image.name, true);
    let mut names = Vec::new();
    // Nodes come in topological order in every valid model.
    for node in &graph.node {
        let inputs = node.input.iter().filter_map(|name| state.get(name.as_str()));
        let (mut any, mut all) = (false, true);
        inputs.for_each(|&good| {
            any |= good;
            all &= good;
        });
        if !any && all {
            continue;
        }
        for output in node.output.iter().filter(|name| !name.is_empty()) {
            state.insert(output, all);
            if all {
                names.push(output.clone());
            }
        }
    }
    names
}

fn list(
    graph: &GraphProto,
    image: &ImageInput,
    names: &[&str],
    shapes: &HashMap<&str, &Probed>,
    batch: usize,
    [height, width]: [usize; 2],
) -> Vec<TensorInfo> {
    let made = graph::producers(graph);
    let input = image.shape(batch, height, width).map(|size| size as i64).to_vec();
    let weights: HashMap<&str, Vec<i64>> =
        graph.initializer.iter().map(|weight| (weight.name(), weight.dims.clone())).collect();
    let shape_of = |name: &str| -> Option<&[i64]> {
        let inner = shapes.get(name).map(|probed| probed.shape.as_slice());
        inner
            .or_else(|| weights.get(name).map(Vec::as_slice))
            .or_else(|| (name == image.name).then_some(input.as_slice()))
    };
    let costs: Vec<u64> = graph.node.iter().map(|node| multiply_adds(node, &shape_of) / batch as u64).collect();
    let mut infos = Vec::new();
    for &name in names {
        let probed = shapes[name];
        if !is_tappable(probed, batch) {
            continue;
        }
        let shape: Vec<usize> = probed.shape[1..].iter().map(|&size| size as usize).collect();
        let needed = graph::ancestry(graph, &made, &[name]).nodes;
        infos.push(TensorInfo {
            name: name.to_owned(),
            operator: graph.node[made[name]].op_type().to_owned(),
            multiply_adds: needed.into_iter().fold(0, |sum: u64, index| sum.saturating_add(costs[index])),
            bytes_a_row_f16: shape.iter().fold(2, |bytes: u64, &size| bytes.saturating_mul(size as u64)),
            shape,
        });
    }
    infos
}

fn is_tappable(probed: &Probed, batch: usize) -> bool {
    use TensorElementType::{Bfloat16, Float16, Float32, Float64};
    matches!(probed.element, Float32 | Float16 | Bfloat16 | Float64)
        && probed.shape.len() > 1
        && probed.shape[0] == batch as i64
        && probed.shape[1..].iter().all(|&size| size > 0)
}

/// Multiply-adds of one node for the whole batch.
fn multiply_adds<'a>(node: &NodeProto, shape_of: &impl Fn(&str) -> Option<&'a [i64]>) -> u64 {
    // Sizes are what a file says: numbers beyond sense must not wrap around to small ones.
    let count = |dims: &[i64]| dims.iter().fold(1u64, |count, &size| count.saturating_mul(size.max(0) as u64));
    let shape = |index: usize| node.input.get(index).and_then(|name| shape_of(name));
    let output = node.output.first().and_then(|name| shape_of(name)).map_or(0, count);
    match node.op_type() {
        // Weights [out, in / groups, k, k]: each output element sums over all but the first.
        "Conv" => shape(1).map_or(0, |weights| output.saturating_mul(count(&weights[1..]))),
        "ConvTranspose" => match (shape(0), shape(1)) {
            (Some(input), Some(weights)) => count(input).saturating_mul(count(&weights[1..])),
            _ => 0,
        },
        "MatMul" => {
            shape(0).and_then(|left| left.last()).map_or(0, |&inner| output.saturating_mul(inner.max(0) as u64))
        }
        "Gemm" => {
            let transposed = node.attribute.iter().any(|attribute| attribute.name() == "transA" && attribute.i() != 0);
            let inner = shape(0).and_then(|left| left.get(usize::from(!transposed)));
            inner.map_or(0, |&inner| output.saturating_mul(inner.max(0) as u64))
        }
        _ => 0,
    }
}
