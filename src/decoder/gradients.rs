//! Gradients put together from parts: some by torch's differentiation, some in closed form.

use tch::{Kind, Tensor};

use super::{Handle, Params};

/// The parameters' gradients so far.
#[derive(Debug)]
pub(super) struct Gradients<'a> {
    params: &'a Params,
    found: Vec<Option<Tensor>>,
}

impl<'a> Gradients<'a> {
    pub fn new(params: &'a Params) -> Self {
        Self { params, found: params.leaves().iter().map(|_| None).collect() }
    }

    /// Adds a part of one parameter's gradient; that of a frozen one is dropped.
    pub fn add(&mut self, handle: Handle, part: Tensor) {
        let Some(index) = handle.index() else { return };
        let place = &mut self.found[index];
        *place = Some(match place.take() {
            Some(sum) => sum + part,
            None => part,
        });
    }

    /// Differentiates `loss` for the tensors `others` (whose gradients it returns) and the parameters in `handles`.
    pub fn differentiate(&mut self, loss: &Tensor, others: &[&Tensor], handles: &[Handle]) -> Vec<Tensor> {
        let mut inputs: Vec<&Tensor> = others.to_vec();
        inputs.extend(handles.iter().map(|&handle| self.params.get(handle)));
        let mut gradients = Tensor::run_backward(&[loss], &inputs, false, false);
        for (&handle, part) in handles.iter().zip(gradients.split_off(others.len())) {
            self.add(handle, part);
        }
        gradients
    }

    /// All gradients in order of declaration; what was never added is zero.
    pub fn finish(self) -> Vec<Tensor> {
        let found = self.found.into_iter().zip(self.params.leaves());
        found.map(|(gradient, leaf)| gradient.unwrap_or_else(|| leaf.zeros_like())).collect()
    }
}

/// The loss, and its gradient for every leaf, all by torch's own differentiation.
pub(super) fn by_torch(params: &Params, loss: &Tensor) -> (Tensor, Vec<Tensor>) {
    (loss.detach(), Tensor::run_backward(&[loss], params.leaves(), false, false))
}

/// A scalar whose gradient for `output` is `gradient`: how a gradient in closed form is handed on to torch.
pub(super) fn stand_in(output: &Tensor, gradient: &Tensor) -> Tensor {
    output.reshape(-1).dot(&gradient.reshape(-1))
}

/// A tensor that begins a new graph: what comes before it does not see its gradient.
pub(super) fn leaf(tensor: &Tensor) -> Tensor {
    tensor.detach().set_requires_grad(true)
}

/// The sum over rows: a bias's gradient.
pub(super) fn over_rows(tensor: &Tensor) -> Tensor {
    tensor.sum_dim_intlist(0, false, Kind::Float)
}
