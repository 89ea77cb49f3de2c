//! A part of a model as it is: from some of its tensors to others, their sizes left open.
//!
//! Must not know what a tensor means. A [`super::CompiledEncoder`] is an encoder's whole way from bytes to rows at one size; a detector's
//! network has pictures of many sizes, two halves with a choice between them that no graph makes, and results that are not
//! rows. Both halves lie in one file: a half begins at any tensor, because the graph is cut there before ONNX Runtime sees it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ort::session::Session;
use ort::value::{DynValue, TensorRef};

use super::device::Device;
use super::graph;
use super::model::Model;
use super::onnx::tensor_proto::DataType;
use super::onnx::tensor_shape_proto::Dimension;
use super::onnx::{NodeProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto};
use super::session::options;
use super::{EncoderError, build};

/// A part of a model, from which sessions are opened. Cheap to clone.
#[derive(Clone)]
pub struct Network {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    digest: String,
    inputs: Vec<String>,
    bytes: Vec<u8>,
}

/// Where a part begins: a tensor's name and its number of dimensions.
pub type Beginning<'a> = (&'a str, usize);

impl Network {
    /// The part of the model at `path` that makes `outputs` of `inputs`, all of them f32.
    ///
    /// # Errors
    /// An unreadable or foreign file; [`EncoderError::UnknownTensor`] for an output it doesn't have; [`EncoderError::ExtraInput`] where
    /// an output needs more than `inputs`.
    pub fn open(path: &Path, inputs: &[Beginning<'_>], outputs: &[&str]) -> Result<Self, EncoderError> {
        let mut model = Model::read(path)?;
        check_outputs(&model, outputs)?;
        cut(&mut model, inputs);
        graph::prune(model.graph_mut(), outputs);
        model.inline_external()?;
        check_inputs(&model, inputs, outputs)?;
        let graph = model.graph_mut();
        graph.input = inputs.iter().map(|&input| open_input(input)).collect();
        graph.output = outputs.iter().map(|name| build::untyped(name)).collect();
        let bytes = model.to_bytes()?;
        let inputs = inputs.iter().map(|(name, _)| (*name).to_owned()).collect();
        Ok(Self { inner: Arc::new(Inner { path: model.path.clone(), digest: model.digest, inputs, bytes }) })
    }

    /// The digest of the whole model's file, for keys; see [`super::model_digest`].
    pub fn digest(&self) -> &str {
        &self.inner.digest
    }

    /// Opens a session on `device` that computes on `intra_threads` threads.
    ///
    /// # Errors
    /// [`EncoderError::Rejected`] where ONNX Runtime refuses the model or the device.
    pub fn session(&self, device: Device, intra_threads: usize) -> Result<NetworkSession, EncoderError> {
        let rejected = |source| EncoderError::Rejected { path: self.inner.path.clone(), source };
        let mut builder = options(device, intra_threads)?.map_err(rejected)?;
        let session = builder.commit_from_memory(&self.inner.bytes).map_err(rejected)?;
        Ok(NetworkSession { session, inputs: self.inner.inputs.clone() })
    }
}

fn check_outputs(model: &Model, outputs: &[&str]) -> Result<(), EncoderError> {
    let made = graph::producers(model.graph());
    match outputs.iter().find(|name| !made.contains_key(*name)) {
        None => Ok(()),
        Some(name) => Err(EncoderError::UnknownTensor {
            path: model.path.clone(),
            tensor: (*name).to_owned(),
            nearest: graph::nearest(name, made.keys().copied()),
        }),
    }
}

/// Takes the nodes that make `inputs` out of the graph.
fn cut(model: &mut Model, inputs: &[Beginning<'_>]) {
    let begins = |node: &NodeProto| node.output.iter().any(|made| inputs.iter().any(|(name, _)| made == name));
    model.graph_mut().node.retain(|node| !begins(node));
}

fn check_inputs(model: &Model, inputs: &[Beginning<'_>], outputs: &[&str]) -> Result<(), EncoderError> {
    let graph = model.graph();
    let needed = graph::ancestry(graph, &graph::producers(graph), outputs).leaves;
    let weights: std::collections::HashSet<&str> = graph::weight_names(graph).collect();
    let known = |name: &str| weights.contains(name) || inputs.iter().any(|(input, _)| *input == name);
    match needed.into_iter().find(|name| !known(name)) {
        None => Ok(()),
        Some(input) => Err(EncoderError::ExtraInput {
            path: model.path.clone(),
            input: input.to_owned(),
            tensor: outputs.join(", "),
        }),
    }
}

/// An f32 input of which only the number of dimensions is known.
fn open_input((name, rank): Beginning<'_>) -> ValueInfoProto {
    let shape = TensorShapeProto { dim: vec![Dimension::default(); rank] };
    let tensor = type_proto::Tensor { elem_type: Some(DataType::Float as i32), shape: Some(shape) };
    let kind = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { r#type: Some(kind), ..build::untyped(name) }
}

/// One worker's session of a [`Network`].
pub struct NetworkSession {
    session: Session,
    inputs: Vec<String>,
}

/// What goes into a network.
#[derive(Clone, Copy)]
pub enum Feed<'a> {
    /// Numbers, and their shape.
    Floats(&'a [usize], &'a [f32]),
    /// What another network answered.
    Answer(&'a Answer),
}

/// A tensor that a network answered: it stays where ONNX Runtime put it.
pub struct Answer(DynValue);

impl Answer {
    /// Its numbers.
    ///
    /// # Errors
    /// [`EncoderError::Run`] where they are no f32.
    pub fn floats(&self) -> Result<&[f32], EncoderError> {
        Ok(self.0.try_extract_tensor::<f32>().map_err(|source| EncoderError::Run { source })?.1)
    }

    /// Its shape.
    #[must_use]
    pub fn shape(&self) -> Vec<usize> {
        self.0.shape().iter().map(|&size| usize::try_from(size).unwrap_or(0)).collect()
    }
}

impl NetworkSession {
    /// Runs the network on `feeds`, one for each input in their order; the answers are in the order of the outputs.
    ///
    /// # Errors
    /// [`EncoderError::Run`].
    pub fn run(&mut self, feeds: &[Feed<'_>]) -> Result<Vec<Answer>, EncoderError> {
        self.answers(feeds).map_err(|source| EncoderError::Run { source })
    }

    fn answers(&mut self, feeds: &[Feed<'_>]) -> ort::Result<Vec<Answer>> {
        let mut inputs: Vec<(&str, ort::session::SessionInputValue<'_>)> = Vec::with_capacity(feeds.len());
        for (name, feed) in self.inputs.iter().zip(feeds) {
            let value = match *feed {
                Feed::Floats(shape, numbers) => TensorRef::from_array_view((shape, numbers))?.into(),
                Feed::Answer(answer) => answer.0.view().into(),
            };
            inputs.push((name, value));
        }
        let outputs = self.session.run(inputs)?;
        Ok(outputs.into_iter().map(|(_, value)| Answer(value)).collect())
    }
}

/// Where a model begins and ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ends {
    /// Height and width of the pictures it takes, where the file fixes them.
    pub size: Option<[usize; 2]>,
    /// Its outputs.
    pub outputs: Vec<String>,
}

/// Where the model at `path` begins and ends.
///
/// # Errors
/// As for reading the model; [`EncoderError::NoImageInput`].
pub fn ends(path: &Path) -> Result<Ends, EncoderError> {
    let model = Model::read(path)?;
    let image = super::input::ImageInput::find(&model)?;
    let outputs = model.graph().output.iter().map(|output| output.name().to_owned()).collect();
    Ok(Ends { size: image.height.zip(image.width).map(|(height, width)| [height, width]), outputs })
}
