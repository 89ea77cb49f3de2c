//! Which operators compute in f16, and which are left an island of f32.
//!
//! Must not know the pass. Three kinds:
//!
//! - `Half`: convolutions and matrix products. They are the time, and their sums are kept in f32 by cuDNN and cuBLAS.
//! - `Follow`: one value in, one value out, or values moved. They take the type that comes to them: a cast is never made for
//!   their sake, and arithmetic inside of an island (the variance of a spelled out layer norm) stays there.
//! - `Island`: everything else. Sums over a whole map or vector (GlobalAveragePool, ReduceMean, ReduceL2, InstanceNormalization,
//!   LRN), exponentials and powers (Softmax, Exp, Pow), positions (Resize, RoiAlign, GridSample), whatever ONNX Runtime has no
//!   f16 kernel for on CUDA, and whatever is not known here.

use std::collections::HashSet;

use super::super::onnx::NodeProto;

/// Where a node computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Half,
    Follow,
    Island,
}

/// Where `node` of opset `opset` computes; `ready` are the outputs of normalisations whose constants f16 can hold.
pub(super) fn place(node: &NodeProto, opset: i64, ready: &HashSet<String>) -> Place {
    if !matches!(node.domain(), "" | "ai.onnx") {
        return Place::Island;
    }
    match node.op_type() {
        "Conv" | "ConvTranspose" | "MatMul" | "Gemm" => Place::Half,
        "BatchNormalization" if node.output.first().is_some_and(|made| ready.contains(made)) => Place::Follow,
        // Its further outputs, mean and deviation, are f32 whatever it reads.
        "LayerNormalization" if node.output.len() == 1 => Place::Follow,
        "Relu" | "LeakyRelu" | "PRelu" | "Elu" | "Selu" | "Sigmoid" | "HardSigmoid" | "HardSwish" | "Tanh" | "Erf"
        | "Gelu" => Place::Follow,
        "Add" | "Sub" | "Mul" | "Div" | "Neg" | "Abs" | "Where" => Place::Follow,
        // Before opset 12 their CUDA kernels know f32 alone.
        "Clip" | "Max" | "Min" if opset >= 12 => Place::Follow,
        "MaxPool" | "AveragePool" | "GlobalMaxPool" => Place::Follow,
        "Identity" | "Dropout" | "Concat" | "Split" | "Slice" | "Gather" | "Transpose" | "Reshape" | "Flatten"
        | "Squeeze" | "Unsqueeze" | "Expand" | "Tile" | "Pad" | "DepthToSpace" | "SpaceToDepth" | "Shape" | "Size" => {
            Place::Follow
        }
        _ => Place::Island,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(op: &str, domain: &str, opset: i64) -> Place {
        let node = NodeProto {
            op_type: Some(op.to_owned()),
            domain: Some(domain.to_owned()),
            output: vec!["y".to_owned()],
            ..NodeProto::default()
        };
        place(&node, opset, &HashSet::new())
    }

    #[test]
    fn the_unknown_stays_in_f32() {
        assert_eq!(of("Conv", "", 17), Place::Half);
        assert_eq!(of("Conv", "com.example", 17), Place::Island);
        for op in ["Softmax", "Resize", "RoiAlign", "ReduceL2", "GlobalAveragePool", "LRN", "NobodyKnows", "Cast"] {
            assert_eq!(of(op, "", 17), Place::Island, "{op}");
        }
        assert_eq!(of("BatchNormalization", "", 17), Place::Island, "its constants are not known to fit");
    }

    #[test]
    fn kernels_of_old_opsets_are_remembered() {
        assert_eq!([of("Clip", "", 11), of("Clip", "", 12)], [Place::Island, Place::Follow]);
    }
}
