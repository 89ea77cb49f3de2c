//! A bf16 copy of parameters: what a training step computes with where products in bf16 are faster.
//!
//! The copy is laid out as the f32 buffer it comes from, so that it is renewed by one kernel however many tensors there are. Nothing is
//! ever written to it but that: what is trained, saved and spoken with is f32.

use tch::{Kind, Tensor};

/// The copy.
#[derive(Debug)]
pub(super) struct Half {
    flat: Tensor,
    /// Leaves that alias `flat`, in the order of the f32 ones.
    pub leaves: Vec<Tensor>,
    /// The frozen ones.
    pub kept: Vec<Tensor>,
}

impl Half {
    /// Room for the leaves at these offsets of `flat` and in these shapes; the frozen ones are copied now.
    pub fn new<'a>(flat: &Tensor, places: impl Iterator<Item = (i64, &'a [i64])>, kept: &[Tensor]) -> Self {
        let flat = Tensor::empty(flat.size(), (Kind::BFloat16, flat.device()));
        let leaf = |(offset, shape): (i64, &[i64])| {
            let view = flat.narrow(0, offset, shape.iter().product()).view(shape);
            view.detach().set_requires_grad(true)
        };
        let leaves = places.map(leaf).collect();
        Self { leaves, kept: kept.iter().map(|kept| kept.to_kind(Kind::BFloat16)).collect(), flat }
    }

    /// Takes over the numbers of the f32 buffer.
    pub fn renew(&mut self, flat: &Tensor) {
        tch::no_grad(|| self.flat.copy_(flat));
    }
}
