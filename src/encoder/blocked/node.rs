//! Reads what the rewrite has to know about a node: a convolution's geometry, a pooling's window, constants.
//!
//! Must not know the pass. Each reader answers nothing for whatever it does not understand in full (groups, dilation,
//! automatic padding, ceiling): such a node stays ONNX Runtime's.

use std::collections::HashMap;

pub(super) use super::super::constant::floats;
use super::super::onnx::tensor_proto::DataType;
use super::super::onnx::{AttributeProto, NodeProto, TensorProto};
use super::direct::Geometry;
use super::kernel::BLOCK;
use super::layout::Window;
use super::rewrite::Shapes;

fn attribute<'n>(node: &'n NodeProto, name: &str) -> Option<&'n AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name() == name)
}

/// An integer attribute, or its default.
pub(super) fn integer(node: &NodeProto, name: &str, default: i64) -> i64 {
    attribute(node, name).map_or(default, AttributeProto::i)
}

/// A list attribute of as many integers as `default` has, or the default; nothing for another length or a negative number.
fn list<const N: usize>(node: &NodeProto, name: &str, default: [usize; N]) -> Option<[usize; N]> {
    let Some(found) = attribute(node, name) else { return Some(default) };
    let sizes: Vec<usize> = found.ints.iter().map(|&size| usize::try_from(size)).collect::<Result<_, _>>().ok()?;
    sizes.try_into().ok()
}

/// A convolution that the kernels take.
pub(super) struct Found {
    pub geometry: Geometry,
    /// Whether Winograd's way is the faster one.
    pub winograd: bool,
}

impl Found {
    /// Reads `node`; `constant` finds weights by name.
    pub fn of<'w>(
        node: &NodeProto,
        constant: &impl Fn(&str) -> Option<&'w TensorProto>,
        shapes: &Shapes,
    ) -> Option<Self> {
        if node.op_type() != "Conv" || !node.domain().is_empty() || integer(node, "group", 1) != 1 {
            return None;
        }
        let automatic = attribute(node, "auto_pad").is_some_and(|pad| pad.s() != b"NOTSET");
        let weights = constant(node.input.get(1)?)?;
        let &[outputs, inputs, kh, kw] = weights.dims.as_slice() else { return None };
        let sizes = [outputs, inputs, kh, kw].map(|size| usize::try_from(size).unwrap_or(0));
        let [outputs, inputs, kh, kw] = sizes;
        let bias_is_constant = node.input.get(2).is_none_or(|bias| bias.is_empty() || constant(bias).is_some());
        let (strides, pads) = (list(node, "strides", [1, 1])?, list(node, "pads", [0; 4])?);
        let plain =
            list(node, "dilations", [1, 1])? == [1, 1] && strides[0] == strides[1] && matches!(strides[0], 1 | 2);
        let blocks = outputs > 0 && inputs > 0 && outputs % BLOCK == 0 && inputs % BLOCK == 0 && kh * kw > 0;
        if automatic || !bias_is_constant || !plain || !blocks || weights.data_type() != DataType::Float as i32 {
            return None;
        }
        let geometry = Geometry { inputs, outputs, kernel: [kh, kw], stride: strides[0], pads };
        let &[c, h, w] = shapes.get(node.input.first()?)?.as_slice() else { return None };
        let &[o, oh, ow] = shapes.get(node.output.first()?)?.as_slice() else { return None };
        let agrees = c == inputs && o == outputs && geometry.output(h, w) == [oh, ow];
        agrees.then(|| Self { winograd: winograd_pays(&geometry, h, w), geometry })
    }
}

/// A 3x3 with a border of one, channels enough to pay for the transforms, and a map that fills most of its tiles.
fn winograd_pays(geometry: &Geometry, h: usize, w: usize) -> bool {
    let fits = geometry.kernel == [3, 3] && geometry.stride == 1 && geometry.pads == [1; 4];
    let products = h.div_ceil(4) * w.div_ceil(4) * 36;
    fits && geometry.inputs.min(geometry.outputs) >= 32 && products * 14 < h * w * 9 * 10
}

/// A pooling that the kernels take.
pub(super) fn window(node: &NodeProto, shapes: &Shapes) -> Option<Window> {
    let largest = match node.op_type() {
        "MaxPool" => true,
        "AveragePool" => false,
        _ => return None,
    };
    let automatic = attribute(node, "auto_pad").is_some_and(|pad| pad.s() != b"NOTSET");
    let other = integer(node, "ceil_mode", 0) != 0 || integer(node, "storage_order", 0) != 0 || node.output.len() != 1;
    if automatic || other || list(node, "dilations", [1, 1])? != [1, 1] {
        return None;
    }
    let window = Window {
        kernel: list(node, "kernel_shape", [0, 0])?,
        strides: list(node, "strides", [1, 1])?,
        pads: list(node, "pads", [0; 4])?,
        largest,
        count_border: integer(node, "count_include_pad", 0) != 0,
    };
    let small_border = (0..4).all(|side| window.pads[side] < window.kernel[side % 2]);
    let &[_, h, w] = shapes.get(node.input.first()?)?.as_slice() else { return None };
    let &[_, oh, ow] = shapes.get(node.output.first()?)?.as_slice() else { return None };
    let sound = small_border && window.strides.iter().all(|&stride| stride > 0) && window.output(h, w) == [oh, ow];
    sound.then_some(window)
}

/// A normalisation by constants as a factor and an offset a channel.
pub(super) fn batch_normalisation<'w>(
    node: &NodeProto,
    constant: &impl Fn(&str) -> Option<&'w TensorProto>,
) -> Option<(Vec<f32>, Vec<f32>)> {
    if node.op_type() != "BatchNormalization" || integer(node, "training_mode", 0) != 0 || node.output.len() != 1 {
        return None;
    }
    let input = |index: usize| node.input.get(index).and_then(|name| constant(name)).and_then(floats);
    let (scale, shift, mean, variance) = (input(1)?, input(2)?, input(3)?, input(4)?);
    let epsilon = attribute(node, "epsilon").map_or(1e-5, AttributeProto::f);
    if [&shift, &mean, &variance].iter().any(|values| values.len() != scale.len()) {
        return None;
    }
    let factor = |c: usize| f64::from(scale[c]) / (f64::from(variance[c]) + f64::from(epsilon)).sqrt();
    let factors = (0..scale.len()).map(|c| factor(c) as f32).collect();
    let offsets = (0..scale.len()).map(|c| (f64::from(shift[c]) - f64::from(mean[c]) * factor(c)) as f32).collect();
    Some((factors, offsets))
}

/// Constants by name.
pub(super) struct Constants {
    all: Vec<TensorProto>,
    places: HashMap<String, usize>,
}

impl Constants {
    pub fn new(all: Vec<TensorProto>) -> Self {
        let places = all.iter().enumerate().map(|(index, tensor)| (tensor.name().to_owned(), index)).collect();
        Self { all, places }
    }

    pub fn get(&self, name: &str) -> Option<&TensorProto> {
        self.places.get(name).map(|&index| &self.all[index])
    }

    pub fn all(&self) -> &[TensorProto] {
        &self.all
    }

    pub fn into_all(self) -> Vec<TensorProto> {
        self.all
    }
}
