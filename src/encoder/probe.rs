//! Asks ONNX Runtime for the shapes of inner tensors.
//!
//! Must not know pooling or columns. The session's own shape inference is asked first, with every optimisation off; only
//! where it leaves a dimension open does the model run once, on zeros. Shapes noted in the file are never believed: they
//! belong to the batch and the size it was exported with.

use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::{TensorElementType, TensorRef, ValueRef, ValueType};

use super::build::{Builder, integer, untyped, value_info};
use super::input::ImageInput;
use super::model::Model;
use super::onnx::tensor_proto::DataType;
use super::{EncoderError, runtime};

/// Element type and shape of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Probed {
    pub element: TensorElementType,
    pub shape: Vec<i64>,
}

/// Replaces the graph's inputs by the one image input, `f32` and of a fixed shape; returns that input's name.
pub(super) fn fix_input(model: &mut Model, input: &ImageInput, shape: [usize; 4]) -> String {
    let opset = model.opset();
    let graph = model.graph_mut();
    graph.input.clear();
    let name = if input.element == DataType::Float {
        input.name.clone()
    } else {
        let mut builder = Builder::new(graph, opset);
        let name = builder.fresh("images");
        builder.node_named("Cast", &[&name], &input.name, vec![integer("to", input.element as i64)]);
        builder.prepend();
        name
    };
    graph.input.push(value_info(&name, DataType::Float, &shape));
    name
}

/// Shapes of `tensors` in a graph whose input is fixed to `shape`. Those of the first `sure` are known for certain; of the
/// others a dimension may stay open (-1).
pub(super) fn shapes(
    model: &mut Model,
    tensors: &[&str],
    sure: usize,
    shape: [usize; 4],
) -> Result<Vec<Probed>, EncoderError> {
    let graph = model.graph_mut();
    graph.output = tensors.iter().map(|name| untyped(name)).collect();
    let bytes = model.to_bytes()?;
    let rejected = |source| EncoderError::Rejected { path: model.path.clone(), source };
    let mut session = session(&bytes).map_err(rejected)?;
    let mut probed: Vec<Probed> = session.outputs().iter().map(|output| declared(output.dtype())).collect();
    let open =
        |tensor: &Probed| tensor.shape.iter().any(|&size| size < 0) || tensor.element == TensorElementType::Undefined;
    if probed[..sure].iter().any(open) {
        probed = run(&mut session, shape).map_err(rejected)?;
    }
    Ok(probed)
}

fn session(bytes: &[u8]) -> ort::Result<Session> {
    let environment = runtime::environment().map_err(|error| ort::Error::new(error.to_string()))?;
    let builder = Session::builder(environment)?.with_optimization_level(GraphOptimizationLevel::Disable)?;
    builder.with_intra_threads(1)?.commit_from_memory(bytes)
}

fn declared(kind: &ValueType) -> Probed {
    match kind {
        ValueType::Tensor { ty, shape, .. } => Probed { element: *ty, shape: shape.to_vec() },
        _ => Probed { element: TensorElementType::Undefined, shape: Vec::new() },
    }
}

fn run(session: &mut Session, shape: [usize; 4]) -> ort::Result<Vec<Probed>> {
    let zeros = vec![0.0f32; shape.iter().product()];
    let outputs = session.run(ort::inputs![TensorRef::from_array_view((shape, zeros.as_slice()))?])?;
    Ok(outputs.values().map(|value| declared(value.dtype())).collect())
}

/// Runs a probing session on the pictures given and returns every output as floats.
pub(super) fn values(model: &Model, images: &[f32], shape: [usize; 4]) -> Result<Vec<Vec<f32>>, EncoderError> {
    let bytes = model.to_bytes()?;
    let answer = || -> ort::Result<Vec<Vec<f32>>> {
        let mut session = session(&bytes)?;
        let outputs = session.run(ort::inputs![TensorRef::from_array_view((shape, images))?])?;
        outputs.values().map(|value| floats(&value)).collect()
    };
    answer().map_err(|source| EncoderError::Rejected { path: model.path.clone(), source })
}

fn floats(value: &ValueRef<'_>) -> ort::Result<Vec<f32>> {
    match declared(value.dtype()).element {
        TensorElementType::Float16 => {
            Ok(value.try_extract_tensor::<half::f16>()?.1.iter().map(|value| value.to_f32()).collect())
        }
        TensorElementType::Bfloat16 => {
            Ok(value.try_extract_tensor::<half::bf16>()?.1.iter().map(|value| value.to_f32()).collect())
        }
        TensorElementType::Float64 => {
            Ok(value.try_extract_tensor::<f64>()?.1.iter().map(|&value| value as f32).collect())
        }
        _ => Ok(value.try_extract_tensor::<f32>()?.1.to_vec()),
    }
}
