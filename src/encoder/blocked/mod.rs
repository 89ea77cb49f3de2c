//! Convolutions on the CPU, where ONNX Runtime's are slower than they could be.
//!
//! ```text
//! [N, C, H, W] --ToBlocked--> [N, C/16, H, W, 16] --Winograd, Direct, Window, Affine ...--> --FromBlocked--> [N, C, H, W] or [N, H, W, C]
//! ```
//!
//! It must not know plans, files or sessions: it takes a graph with its shapes and returns the graph rewritten, with the
//! kernels that it names.
//!
//! The decision defended: ONNX Runtime computes a 3x3 convolution by the direct sum at 97% of what a core can multiply, and so
//! does PyTorch; nothing is left to tune. Winograd's way needs a quarter of the products. A ResNet spends 83% of its
//! multiply-adds there, and gets twice as fast. The rest of the graph stays ONNX Runtime's, and where a processor has neither
//! AVX-512 nor AVX2, or a model no such convolution, all of it does.

#[cfg(target_arch = "x86_64")]
mod direct;
#[cfg(target_arch = "x86_64")]
mod kernel;
#[cfg(target_arch = "x86_64")]
mod lanes;
#[cfg(target_arch = "x86_64")]
mod layout;
#[cfg(target_arch = "x86_64")]
mod node;
#[cfg(target_arch = "x86_64")]
mod operator;
#[cfg(target_arch = "x86_64")]
mod pointwise;
#[cfg(target_arch = "x86_64")]
mod pool;
#[cfg(target_arch = "x86_64")]
mod rewrite;
#[cfg(target_arch = "x86_64")]
mod table;
#[cfg(target_arch = "x86_64")]
mod transform;
#[cfg(target_arch = "x86_64")]
mod winograd;

#[cfg(target_arch = "x86_64")]
pub(super) use self::{
    operator::{DOMAIN, domain},
    rewrite::{Shapes, rewrite},
    table::Table,
};
#[cfg(not(target_arch = "x86_64"))]
pub(super) use other::{DOMAIN, Shapes, Table, domain, rewrite};

/// Processors without kernels of their own: nothing is ever rewritten.
#[cfg(not(target_arch = "x86_64"))]
mod other {
    use std::collections::HashMap;
    use std::sync::Arc;

    use super::super::onnx::GraphProto;

    pub(in crate::encoder) const DOMAIN: &str = "icecap";
    pub(in crate::encoder) type Shapes = HashMap<String, Vec<usize>>;
    pub(in crate::encoder) enum Table {}

    pub(in crate::encoder) fn rewrite(_graph: &mut GraphProto, _opset: i64, _shapes: &Shapes) -> Option<Table> {
        None
    }

    pub(in crate::encoder) fn domain(table: &Arc<Table>) -> ort::Result<ort::operator::OperatorDomain> {
        match **table {}
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests;
