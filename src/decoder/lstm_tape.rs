//! An LSTM layer over packed steps, forward and backward in closed form.
//!
//! torch's own differentiation multiplies the weights' gradients out once a step and adds them up; here the steps only
//! pass on the state's gradient, and each weight's gradient is one product over all steps. Nothing is recorded but what
//! the backward pass reads.

use tch::{Kind, Tensor};

/// Offsets of the steps in packed tensors.
pub(super) fn offsets(active: &[i64]) -> Vec<i64> {
    let starts = active.iter().scan(0, |end, &count| {
        *end += count;
        Some(*end - count)
    });
    starts.collect()
}

/// The part of a packed tensor that belongs to one step.
pub(super) fn at(packed: &Tensor, start: i64, count: i64) -> Tensor {
    packed.narrow(0, start, count)
}

pub(super) fn empty(like: &Tensor, size: &[i64]) -> Tensor {
    Tensor::empty(size, (Kind::Float, like.device()))
}

/// The cell's values at every step: what its backward pass reads.
#[derive(Debug)]
pub(super) struct CellTape {
    /// Squashed gates (input, forget, cell, output), `[P, 4H]`.
    pub gates: Tensor,
    /// Cell states and their tanh, `[P, H]` each.
    cells: Tensor,
    squashed: Tensor,
    /// Hidden states `[P, H]`.
    pub hidden: Tensor,
    width: i64,
}

impl CellTape {
    pub fn new(gates: Tensor) -> Self {
        let (rows, width) = (gates.size()[0], gates.size()[1] / 4);
        let state = || empty(&gates, &[rows, width]);
        Self { cells: state(), squashed: state(), hidden: state(), gates, width }
    }

    /// Squashes one step's gates in place and notes the new states; returns them.
    pub fn forward(&self, start: i64, count: i64, cell: &Tensor) -> (Tensor, Tensor) {
        let [input, forget, fresh, output] = self.parts(&self.gates, start, count);
        let _ = at(&self.gates, start, count).narrow(1, 0, 2 * self.width).sigmoid_();
        let _ = fresh.shallow_clone().tanh_();
        let _ = output.shallow_clone().sigmoid_();
        let mut new = at(&self.cells, start, count);
        let _ = forget.mul_out(&new, cell);
        let _ = new.addcmul_(&input, &fresh);
        let squashed = new.tanh_out(&at(&self.squashed, start, count));
        let hidden = output.mul_out(&at(&self.hidden, start, count), &squashed);
        (hidden, new)
    }

    /// From the gradients of one step's new states to those of its gates before squashing (written to `gates`,
    /// `[n, 4H]`); `cell` becomes the gradient of the cell state before. `before` is that cell state.
    pub fn backward(
        &self,
        start: i64,
        count: i64,
        before: &Tensor,
        hidden: &Tensor,
        cell: &mut Tensor,
        gates: &Tensor,
    ) {
        let [input, forget, fresh, output] = self.parts(&self.gates, start, count);
        let squashed = at(&self.squashed, start, count);
        let part = |index: i64| gates.narrow(1, index * self.width, self.width);
        let _ = Tensor::sigmoid_backward_grad_input(&part(3), &(hidden * &squashed), &output);
        let _ = cell.g_add_(&Tensor::tanh_backward(&(hidden * output), &squashed));
        let _ = Tensor::sigmoid_backward_grad_input(&part(0), &(&*cell * &fresh), &input);
        let _ = Tensor::sigmoid_backward_grad_input(&part(1), &(&*cell * before), &forget);
        let _ = Tensor::tanh_backward_grad_input(&part(2), &(&*cell * &input), &fresh);
        let _ = cell.g_mul_(&forget);
    }

    /// The cell state that step `step` began with.
    pub fn before(&self, active: &[i64], starts: &[i64], step: usize, first: &Tensor) -> Tensor {
        match step.checked_sub(1) {
            None => first.narrow(0, 0, active[0]),
            Some(previous) => at(&self.cells, starts[previous], active[step]),
        }
    }

    /// The hidden state that each step began with, `[P, H]`.
    pub fn hidden_before(&self, active: &[i64], starts: &[i64], first: &Tensor) -> Tensor {
        let mut parts = vec![first.narrow(0, 0, active[0])];
        parts.extend((1..active.len()).map(|step| at(&self.hidden, starts[step - 1], active[step])));
        Tensor::cat(&parts, 0)
    }

    fn parts(&self, gates: &Tensor, start: i64, count: i64) -> [Tensor; 4] {
        let gates = at(gates, start, count);
        [0, 1, 2, 3].map(|index| gates.narrow(1, index * self.width, self.width))
    }
}

/// A layer's pass over packed steps, from zeros.
#[derive(Debug)]
pub(super) struct LayerTape {
    pub cell: CellTape,
    active: Vec<i64>,
    starts: Vec<i64>,
    zeros: Tensor,
}

impl LayerTape {
    /// Runs the layer: `inputs` `[P, 4H]` are the gates without the recurrent part, bias included.
    pub fn forward(inputs: &Tensor, active: &[i64], weight_hh: &Tensor) -> Self {
        let zeros = Tensor::zeros([active[0], weight_hh.size()[1]], (Kind::Float, inputs.device()));
        let (cell, starts) = (CellTape::new(inputs.copy()), offsets(active));
        let recurrent = weight_hh.tr();
        let mut state = (zeros.shallow_clone(), zeros.shallow_clone());
        for (step, (&start, &count)) in starts.iter().zip(active).enumerate() {
            if step > 0 {
                let _ = at(&cell.gates, start, count).addmm_(&state.0.narrow(0, 0, count), &recurrent);
            }
            state = cell.forward(start, count, &state.1.narrow(0, 0, count));
        }
        Self { cell, active: active.to_vec(), starts, zeros }
    }

    /// From the gradient of the hidden states `[P, H]` to those of the inputs `[P, 4H]` and of `weight_hh`.
    pub fn backward(&self, hidden: &Tensor, weight_hh: &Tensor) -> (Tensor, Tensor) {
        let gates = self.cell.gates.empty_like();
        let (later, cells) = (self.zeros.zeros_like(), self.zeros.zeros_like());
        for (step, (&start, &count)) in self.starts.iter().zip(&self.active).enumerate().rev() {
            let mut later = later.narrow(0, 0, count);
            let _ = later.g_add_(&at(hidden, start, count));
            let before = self.cell.before(&self.active, &self.starts, step, &self.zeros);
            let part = at(&gates, start, count);
            self.cell.backward(start, count, &before, &later, &mut cells.narrow(0, 0, count), &part);
            if step > 0 {
                let _ = part.mm_out(&later, weight_hh);
            }
        }
        let before = self.cell.hidden_before(&self.active, &self.starts, &self.zeros);
        let weight = gates.tr().mm(&before);
        (gates, weight)
    }
}
