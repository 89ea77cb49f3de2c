//! From pixels to the encoder's input, inside of the graph: for devices that pictures have to travel to.
//!
//! Must not know files or sessions. On the CPU this part is left out and [`super::pixels`] does the same in one pass
//! over the bytes: 1.86 ms a picture of 224x224 as nodes, each of them a pass over four times the memory, and 0.07 ms there.

use super::build::{Builder, integer, integer_list, value_info};
use super::input::Layout;
use super::model::Model;
use super::onnx::tensor_proto::DataType;
use super::plan::{Channels, EncoderPlan, Normalize};

/// Name of the input that takes bytes.
pub(super) const IMAGES: &str = "icecap.pixels";

/// Replaces the `f32` input `input` by `uint8 [N, H, W, 3]` and the nodes between the two.
pub(super) fn add(model: &mut Model, input: &str, layout: Layout, plan: &EncoderPlan) {
    let opset = model.opset();
    let graph = model.graph_mut();
    graph.input.retain(|other| other.name() != input);
    graph.input.insert(0, value_info(IMAGES, DataType::Uint8, &[plan.batch, plan.height, plan.width, 3]));
    let mut builder = Builder::new(graph, opset);
    let scaled = affine(&mut builder, &plan.normalize);
    match layout {
        Layout::Nchw => builder.node_named("Transpose", &[&scaled], input, vec![integer_list("perm", &[0, 3, 1, 2])]),
        Layout::Nhwc => builder.node_named("Identity", &[&scaled], input, Vec::new()),
    }
    builder.prepend();
}

fn affine(builder: &mut Builder<'_>, normalize: &Normalize) -> String {
    let ordered = match normalize.channels {
        Channels::Rgb => IMAGES.to_owned(),
        Channels::Bgr => {
            let order = builder.integers(&[2, 1, 0]);
            builder.node("Gather", &[IMAGES, &order], vec![integer("axis", 3)])
        }
    };
    let floats = builder.node("Cast", &[&ordered], vec![integer("to", DataType::Float as i64)]);
    let (factor, offset) = normalize.affine();
    let (factor, offset) = (builder.floats(&[3], &factor), builder.floats(&[3], &offset));
    let scaled = builder.node("Mul", &[&floats, &factor], Vec::new());
    builder.node("Add", &[&scaled, &offset], Vec::new())
}
