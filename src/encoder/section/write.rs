//! The model again, with other weights in one of its sections.
//!
//! A weight that others read too stays as it is, and the section's node reads a new one: exporters merge weights that happen to
//! be equal, and a layer outside of the section was not trained.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::Write as _,
    path::Path,
};

use super::{
    super::onnx::{GraphProto, StringStringEntryProto, TensorProto},
    EncoderError, Model, SectionError, graph,
};
use crate::section::Weight;

/// Writes the model at `path` to `out` with `weights` put in; `note` says where they are from, for its metadata.
///
/// # Errors
/// Where the model can't be read or hasn't these weights, or `out` can't be written. It is there whole or not at all.
pub fn write_section(path: &Path, out: &Path, weights: &[Weight], note: &str) -> Result<(), EncoderError> {
    let mut model = Model::read(path)?;
    model.inline_external()?;
    for weight in weights {
        put(model.graph_mut(), weight).ok_or_else(|| SectionError::Elsewhere {
            path: path.to_owned(),
            output: weight.output.clone(),
            input: weight.input,
        })?;
    }
    // Before IR version 4 every weight had to be an input as well.
    model.proto.ir_version = Some(model.proto.ir_version().max(4));
    note_origin(&mut model, note);
    publish(out, &model.to_bytes()?)
}

/// Gives the node that makes `weight.output` the new values; none where there is no such node or weight.
fn put(graph: &mut GraphProto, weight: &Weight) -> Option<()> {
    let index = graph.node.iter().position(|node| node.output.first() == Some(&weight.output))?;
    let old = graph.node[index].input.get(weight.input)?.clone();
    let dims = dims(graph, &old)?;
    if dims.iter().product::<i64>() != weight.values.len() as i64 {
        return None;
    }
    let raw = weight.values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let readers = graph.node.iter().flat_map(graph::reads).filter(|name| **name == *old).count();
    let is_output = graph.output.iter().any(|output| output.name() == old);
    let alone = readers == 1 && !is_output;
    let place = graph.initializer.iter().position(|tensor| tensor.name() == old).filter(|_| alone);
    let name = if place.is_some() { old } else { fresh(graph, &old, &weight.output) };
    let tensor = TensorProto {
        name: Some(name.clone()),
        dims,
        data_type: Some(super::DataType::Float as i32),
        raw_data: Some(raw),
        ..TensorProto::default()
    };
    match place {
        Some(place) => graph.initializer[place] = tensor,
        None => graph.initializer.push(tensor),
    }
    graph.node[index].input[weight.input] = name;
    Some(())
}

/// The shape of the constant `name`, looked at through copies by Identity.
fn dims(graph: &GraphProto, name: &str) -> Option<Vec<i64>> {
    let mut name = name;
    loop {
        if let Some(weight) = graph.initializer.iter().find(|weight| weight.name() == name) {
            return Some(weight.dims.clone());
        }
        let node = graph.node.iter().find(|node| node.output.first().is_some_and(|output| output == name))?;
        match node.op_type() {
            "Identity" => name = node.input.first()?,
            "Constant" => return Some(node.attribute.first()?.t.as_ref()?.dims.clone()),
            _ => return None,
        }
    }
}

/// A name that nobody has, made of the weight's and its reader's.
fn fresh(graph: &GraphProto, weight: &str, output: &str) -> String {
    let made = graph.node.iter().flat_map(|node| &node.output).map(String::as_str);
    let taken: HashSet<&str> = made.chain(graph::weight_names(graph)).collect();
    let numbered = |n: usize| if n == 0 { format!("{weight}.{output}") } else { format!("{weight}.{output}.{n}") };
    (0..).map(numbered).find(|name| !taken.contains(name.as_str())).unwrap_or_default()
}

/// What the model says of its weights, where it says anything of itself.
fn note_origin(model: &mut Model, note: &str) {
    let props = &mut model.proto.metadata_props;
    if !props.iter().any(|entry| entry.key().starts_with("icecap.")) {
        return;
    }
    props.retain(|entry| entry.key() != "icecap.weights");
    let (key, value) = (Some("icecap.weights".to_owned()), Some(note.to_owned()));
    props.push(StringStringEntryProto { key, value });
}

fn publish(out: &Path, bytes: &[u8]) -> Result<(), EncoderError> {
    let mut partial = out.as_os_str().to_owned();
    partial.push(format!(".{}.part", std::process::id()));
    let partial = Path::new(&partial);
    let write = || {
        let mut file = File::create(partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(partial, out)
    };
    write().map_err(|source| {
        // What could not be written whole is not left behind.
        let _ = fs::remove_file(partial);
        EncoderError::Io { path: out.to_owned(), source }
    })
}
