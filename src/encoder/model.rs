//! Reads an ONNX file into a graph that can be edited: bytes checked, external data taken in, digest computed.
//!
//! Must not know plans or ONNX Runtime. Tensors kept in files beside the model are read only for the nodes that are kept
//! ([`Model::inline_external`] comes after pruning): tapping an early layer of a large model never reads the rest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use prost::Message;

use super::EncoderError;
use super::external::Reference;
use super::onnx::tensor_proto::DataLocation;
use super::onnx::{GraphProto, ModelProto, OperatorSetIdProto, TensorProto};

/// Most bytes a protobuf message holds.
pub(super) const MAX_BYTES: u64 = i32::MAX as u64;

/// The number of `graph` in `ModelProto`.
const GRAPH_FIELD: u32 = 7;

/// A parsed model, and where it came from.
#[derive(Clone)]
pub(super) struct Model {
    /// The file.
    pub path: PathBuf,
    /// The model without its graph.
    pub proto: ModelProto,
    graph: GraphProto,
    /// blake3 of the file's bytes (and of its data files, where it has any), in hex.
    pub digest: String,
}

impl Model {
    /// Reads and parses `path`, without its external data.
    pub fn read(path: &Path) -> Result<Self, EncoderError> {
        let size = std::fs::metadata(path).map_err(EncoderError::io(path))?.len();
        if size > MAX_BYTES {
            return Err(EncoderError::TooLarge { path: path.to_path_buf(), bytes: size });
        }
        let bytes = std::fs::read(path).map_err(EncoderError::io(path))?;
        let (proto, graph) = parse(path, &bytes)?;
        let model = Self { path: path.to_path_buf(), proto, graph, digest: String::new() };
        model.check_opset()?;
        let digest = model.digest_with_data(blake3::hash(&bytes))?;
        Ok(Self { digest, ..model })
    }

    pub fn graph(&self) -> &GraphProto {
        &self.graph
    }

    pub fn graph_mut(&mut self) -> &mut GraphProto {
        &mut self.graph
    }

    /// Version of the default operator set.
    pub fn opset(&self) -> i64 {
        let default = self.proto.opset_import.iter().filter(|set| matches!(set.domain(), "" | "ai.onnx"));
        default.map(OperatorSetIdProto::version).max().unwrap_or(1)
    }

    fn check_opset(&self) -> Result<(), EncoderError> {
        let version = self.opset();
        if version < 8 { Err(EncoderError::Opset { path: self.path.clone(), version }) } else { Ok(()) }
    }

    /// The file's digest alone, or with the digests of all its data files in the order of their names.
    fn digest_with_data(&self, file: blake3::Hash) -> Result<String, EncoderError> {
        let mut data = BTreeMap::new();
        let mut failed = None;
        for_each_tensor(self.graph(), &mut |tensor| {
            if failed.is_none() && is_external(tensor) {
                match Reference::of(&self.path, tensor) {
                    Ok(reference) => drop(data.insert(reference.location.clone(), reference)),
                    Err(error) => failed = Some(error),
                }
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        if data.is_empty() {
            return Ok(file.to_hex().to_string());
        }
        let mut all = blake3::Hasher::new();
        all.update(file.as_bytes());
        for (location, reference) in data {
            all.update(location.as_bytes());
            all.update(reference.digest()?.as_bytes());
        }
        Ok(all.finalize().to_hex().to_string())
    }

    /// Reads the external data of every tensor still in the graph into it.
    pub fn inline_external(&mut self) -> Result<(), EncoderError> {
        let path = self.path.clone();
        let mut total = 0u64;
        let mut outcome = Ok(());
        for_each_tensor_mut(self.graph_mut(), &mut |tensor| {
            if outcome.is_ok() && is_external(tensor) {
                outcome = Reference::of(&path, tensor).and_then(|reference| {
                    total = total.saturating_add(reference.bytes()?);
                    if total > MAX_BYTES {
                        return Err(EncoderError::TooLarge { path: path.clone(), bytes: total });
                    }
                    tensor.raw_data = Some(reference.read()?);
                    tensor.data_location = None;
                    tensor.external_data.clear();
                    Ok(())
                });
            }
        });
        outcome
    }

    /// The model as bytes for ONNX Runtime.
    pub fn to_bytes(&self) -> Result<Vec<u8>, EncoderError> {
        // A message's fields may come in any order and in parts: the graph is written after the rest, without a copy of it.
        let (rest, graph) = (self.proto.encoded_len(), self.graph.encoded_len());
        let bytes = rest as u64 + graph as u64 + 16;
        if bytes > MAX_BYTES {
            return Err(EncoderError::TooLarge { path: self.path.clone(), bytes });
        }
        let mut out = Vec::with_capacity(rest + graph + 16);
        self.proto.encode_raw(&mut out);
        prost::encoding::message::encode(GRAPH_FIELD, &self.graph, &mut out);
        Ok(out)
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<(ModelProto, GraphProto), EncoderError> {
    // Every exporter writes ir_version (field 1, a varint) first: a file that begins so and cannot be read was cut short.
    let looks_onnx = matches!(bytes, [0x08, 1..=64, ..]);
    let truncated = || EncoderError::Truncated { path: path.to_path_buf(), bytes: bytes.len() as u64 };
    let not_onnx = |source| EncoderError::NotOnnx { path: path.to_path_buf(), source };
    match ModelProto::decode(bytes) {
        Ok(mut proto) => match proto.graph.take() {
            Some(graph) if !graph.node.is_empty() => Ok((proto, graph)),
            None if looks_onnx => Err(truncated()),
            _ => Err(not_onnx(None)),
        },
        Err(_) if looks_onnx => Err(truncated()),
        Err(error) => Err(not_onnx(Some(error))),
    }
}

fn is_external(tensor: &TensorProto) -> bool {
    tensor.data_location() == DataLocation::External
}

/// Visits every tensor of a graph: weights, attributes, and those of graphs inside of nodes.
fn for_each_tensor<'g>(graph: &'g GraphProto, visit: &mut impl FnMut(&'g TensorProto)) {
    graph.initializer.iter().for_each(&mut *visit);
    graph
        .sparse_initializer
        .iter()
        .flat_map(|sparse| sparse.values.iter().chain(&sparse.indices))
        .for_each(&mut *visit);
    for attribute in graph.node.iter().flat_map(|node| &node.attribute) {
        attribute.t.iter().chain(&attribute.tensors).for_each(&mut *visit);
        let sparse = attribute.sparse_tensor.iter().chain(&attribute.sparse_tensors);
        sparse.flat_map(|sparse| sparse.values.iter().chain(&sparse.indices)).for_each(&mut *visit);
        for inner in attribute.g.iter().chain(&attribute.graphs) {
            for_each_tensor(inner, visit);
        }
    }
}

fn for_each_tensor_mut(graph: &mut GraphProto, visit: &mut impl FnMut(&mut TensorProto)) {
    graph.initializer.iter_mut().for_each(&mut *visit);
    let sparse = graph.sparse_initializer.iter_mut();
    sparse.flat_map(|sparse| sparse.values.iter_mut().chain(&mut sparse.indices)).for_each(&mut *visit);
    for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        attribute.t.iter_mut().chain(&mut attribute.tensors).for_each(&mut *visit);
        let sparse = attribute.sparse_tensor.iter_mut().chain(&mut attribute.sparse_tensors);
        sparse.flat_map(|sparse| sparse.values.iter_mut().chain(&mut sparse.indices)).for_each(&mut *visit);
        for inner in attribute.g.iter_mut().chain(&mut attribute.graphs) {
            for_each_tensor_mut(inner, visit);
        }
    }
}

/// The digest of a model that a column's key holds: blake3 of the file's bytes, in hex. A model with external data digests
/// the file and then each data file's name and digest.
///
/// # Errors
/// As for reading the model: unreadable, not ONNX, truncated, data files missing or outside of the model's folder.
pub fn model_digest(path: &Path) -> Result<String, EncoderError> {
    Ok(Model::read(path)?.digest)
}
